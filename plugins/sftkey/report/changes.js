// ---- items that changed between the stages --------------------------------------------------------------------

const data = JSON.parse(byId("changes-data").textContent);
const search = byId("change-search");
if (search && data.items.length) {
  const select = byId("change-set");
  const list = byId("change-list");
  const kinds = Array.from(document.querySelectorAll("[data-kind]"));
  const more = byId("change-more");
  const haystack = data.items.map((item) =>
    [item.id, item.q, item.r, item.o1, item.o2, item.x1, item.x2].join("\n").toLowerCase());
  let found = [];
  let shown = 0;
  let timer = 0;

  const side = (item, stage, words) => {
    const change = data.changes[item.c];
    const node = element("div", "side");
    const head = element("div");
    head.append(element("b", "", "Stage " + stage + " (" + (stage === 1 ? change.first : change.strategy) + ") "));
    const right = item["a" + stage] === 1;
    head.append(element("span", "chip " + (right ? "good" : "bad"), right ? "right" : "wrong"), " ");
    const formed = item["m" + stage] === 1;
    head.append(element("span", "chip " + (formed ? "good" : "bad"),
      formed ? "in format" : item["f" + stage] || "not in format"));
    node.append(head);
    const how = [item["how" + stage], item["by" + stage] && "decided by " + item["by" + stage]].filter(Boolean);
    const extracted = element("div", "reference muted", "Answer read: ");
    highlighted(extracted, item["x" + stage] || "none", words);
    if (how.length) extracted.append(" (" + how.join(", ") + ")");
    node.append(extracted, scrolled("Output", item["o" + stage] || "(empty output)", words));
    return node;
  };

  const card = (item, words) => {
    const change = data.changes[item.c];
    const node = element("article", "item");
    const head = element("h3");
    item.k.forEach((kind) =>
      head.append(element("span", "chip " + (kind === "fixed" || kind === "format gained" ? "good" : "bad"), kind)));
    head.append(element("span", "muted", change.model + ", " + change.title + ", item " + item.id));
    const sides = element("div", "sides");
    sides.append(side(item, 1, words), side(item, 2, words));
    const reference = element("div", "reference muted", "Reference: ");
    highlighted(reference, item.r, words);
    node.append(head, highlighted(element("div", "text"), item.q, words), reference, sides);
    return node;
  };

  const showMore = () => {
    const words = wordsOf(search);
    found.slice(shown, shown + PER_PAGE).forEach((i) => list.append(card(data.items[i], words)));
    shown = Math.min(found.length, shown + PER_PAGE);
    more.hidden = shown >= found.length;
    more.textContent = "Show more (" + (found.length - shown) + ")";
  };

  const update = () => {
    const words = wordsOf(search);
    const wanted = kinds.filter((button) => button.getAttribute("aria-pressed") === "true")
      .map((button) => button.dataset.kind);
    found = [];
    data.items.forEach((item, i) => {
      if (select.value !== "" && item.c !== Number(select.value)) return;
      if (wanted.length && !item.k.some((kind) => wanted.includes(kind))) return;
      if (words.every((word) => haystack[i].includes(word))) found.push(i);
    });
    list.replaceChildren();
    shown = 0;
    showMore();
    byId("change-count").textContent = found.length + " of " + data.items.length + " items";
    keep("search", search.value);
    keep("set", select.value);
    keep("kinds", wanted.join("|"));
  };

  search.value = kept("search") || "";
  if (Array.from(select.options).some((option) => option.value === kept("set"))) select.value = kept("set");
  const pressed = (kept("kinds") || "").split("|");
  kinds.forEach((button) => {
    button.setAttribute("aria-pressed", String(pressed.includes(button.dataset.kind)));
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
      update();
    });
  });
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(update, 120);
  });
  select.addEventListener("change", update);
  more.addEventListener("click", showMore);
  update();
}
