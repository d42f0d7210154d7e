"use strict";
// Texts of models and data sets reach the page only as text nodes: nothing here builds markup from a string.
(function () {
  const byId = (id) => document.getElementById(id);

  function element(name, className, text) {
    const node = document.createElement(name);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  }

  function keep(key, value) {
    try { sessionStorage.setItem("sftkey." + key, value); } catch (error) { /* not available: nothing is kept */ }
  }

  function kept(key) {
    try { return sessionStorage.getItem("sftkey." + key); } catch (error) { return null; }
  }

  // ---- theme ----------------------------------------------------------------------------------------------------

  const themes = ["auto", "light", "dark"];
  const themeButton = byId("theme");

  function setTheme(theme) {
    if (theme === "auto") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.setAttribute("data-theme", theme);
    themeButton.textContent = "Theme: " + theme;
    keep("theme", theme);
  }

  themeButton.hidden = false;
  setTheme(themes.includes(kept("theme")) ? kept("theme") : "auto");
  themeButton.addEventListener("click", () => {
    const now = document.documentElement.getAttribute("data-theme") || "auto";
    setTheme(themes[(themes.indexOf(now) + 1) % themes.length]);
  });

  // ---- rows of the paired tests ---------------------------------------------------------------------------------

  const testSearch = byId("test-search");
  if (testSearch) {
    const rows = Array.from(document.querySelectorAll("#comparisons tbody tr"));
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const filter = () => {
      const words = testSearch.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, i) => {
        row.hidden = !words.every((word) => texts[i].includes(word));
        shown += row.hidden ? 0 : 1;
      });
      byId("test-count").textContent = shown + " of " + rows.length + " pairs";
      keep("tests", testSearch.value);
    };
    testSearch.value = kept("tests") || "";
    testSearch.addEventListener("input", filter);
    filter();
  }

  // ---- items that changed between the stages --------------------------------------------------------------------

  const PER_PAGE = 10;
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

    const highlighted = (node, text, words) => {
      // Split at the tags and at what is searched for; every part is added as text.
      const escaped = words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
      const pattern = new RegExp("(" + ["<\\/?(?:Thinking|Answer)>", ...escaped].join("|") + ")", "gi");
      text.split(pattern).forEach((part) => {
        if (!part) return;
        const lower = part.toLowerCase();
        if (words.includes(lower)) node.append(element("mark", "", part));
        else if (/^<\/?(thinking|answer)>$/.test(lower)) node.append(element("span", "tagword", part));
        else node.append(document.createTextNode(part));
      });
      return node;
    };

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
      node.append(extracted, highlighted(element("pre"), item["o" + stage] || "(empty output)", words));
      return node;
    };

    const card = (item, words) => {
      const change = data.changes[item.c];
      const node = element("article", "item");
      const head = element("h4");
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
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      found.slice(shown, shown + PER_PAGE).forEach((i) => list.append(card(data.items[i], words)));
      shown = Math.min(found.length, shown + PER_PAGE);
      more.hidden = shown >= found.length;
      more.textContent = "Show more (" + (found.length - shown) + ")";
    };

    const update = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
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

  // ---- a page that is being rewritten ---------------------------------------------------------------------------

  const seconds = Number(document.documentElement.dataset.refresh || 0);
  if (seconds > 0) {
    const tick = () => {
      const busy = document.activeElement && document.activeElement.matches("input, select");
      if (busy) setTimeout(tick, 2000);
      else location.reload();
    };
    setTimeout(tick, seconds * 1000);
  }
})();
