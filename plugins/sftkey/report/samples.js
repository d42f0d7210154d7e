// ---- all items of one evaluation: unpacked when they are looked at ------------------------------------------------

const sampleSet = byId("sample-set");
if (sampleSet) {
  const controls = { v: byId("sample-verdict"), f: byId("sample-format"), by: byId("sample-by") };
  const sampleSearch = byId("sample-search");
  const list = byId("sample-list");
  const more = byId("sample-more");
  const count = byId("sample-count");
  const blocks = new Map();
  let block = null;
  let found = [];
  let shown = 0;
  let timer = 0;

  const unpacked = async (index) => {
    const packed = atob(byId("samples-" + index).content.textContent);
    const bytes = new Uint8Array(packed.length);
    for (let i = 0; i < packed.length; i++) bytes[i] = packed.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  };

  const format = (i) => (block.m[i] ? "in format" : block.f[i] || "not in format");
  const value = { v: (i) => block.v[i], f: format, by: (i) => block.by[i] || "not logged" };

  const fill = (name) => {
    const counts = new Map();
    block.id.forEach((_, i) => counts.set(value[name](i), (counts.get(value[name](i)) || 0) + 1));
    const select = controls[name];
    const before = select.value;
    select.replaceChildren(select.options[0]);
    [...counts].sort((one, other) => other[1] - one[1]).forEach(([text, number]) => {
      const option = element("option", "", text + " (" + number + ")");
      option.value = text;
      select.append(option);
    });
    select.value = counts.has(before) ? before : "";
  };

  const card = (i, words) => {
    const node = element("article", "item");
    const head = element("h3");
    head.append(element("span", "chip " + (block.v[i] === "right" ? "good" : block.v[i] === "wrong" ? "bad" : "plain"), block.v[i]));
    head.append(element("span", "chip " + (block.m[i] ? "good" : "bad"), format(i)));
    head.append(element("span", "muted", "item " + block.id[i] + (block.by[i] ? ", decided by " + block.by[i] : "")));
    const reference = element("div", "reference muted", "Reference: ");
    highlighted(reference, block.r[i], words);
    const extracted = element("div", "reference muted", "Answer read: ");
    highlighted(extracted, block.x[i] || "none", words);
    if (block.how[i]) extracted.append(" (" + block.how[i] + ")");
    node.append(head, highlighted(element("div", "text"), block.q[i], words), reference, extracted,
      scrolled("Output", block.o[i] || "(empty output)", words));
    if (block.p[i]) {
      const prompt = element("details");
      prompt.append(element("summary", "", "Prompt"), scrolled("Prompt", block.p[i], words));
      node.append(prompt);
    }
    return node;
  };

  const showMore = () => {
    const words = wordsOf(sampleSearch);
    found.slice(shown, shown + PER_PAGE).forEach((i) => list.append(card(i, words)));
    shown = Math.min(found.length, shown + PER_PAGE);
    more.hidden = shown >= found.length;
    more.textContent = "Show more (" + (found.length - shown) + ")";
  };

  const update = () => {
    if (!block) return;
    const words = wordsOf(sampleSearch);
    if (words.length && !block.haystack) {
      block.haystack = block.id.map((id, i) =>
        [id, block.q[i], block.r[i], block.o[i], block.x[i], block.p[i]].join("\n").toLowerCase());
    }
    const wanted = Object.entries(controls).filter(([, select]) => select.value !== "");
    found = [];
    block.id.forEach((_, i) => {
      if (wanted.some(([name, select]) => value[name](i) !== select.value)) return;
      if (words.every((word) => block.haystack[i].includes(word))) found.push(i);
    });
    list.replaceChildren();
    shown = 0;
    showMore();
    count.textContent = found.length + " of " + block.id.length + " items";
    keep("sample-search", sampleSearch.value);
    keep("sample-set", sampleSet.value);
  };

  const load = async () => {
    const index = sampleSet.value;
    if (!blocks.has(index)) {
      count.textContent = "unpacking";
      try {
        blocks.set(index, await unpacked(index));
      } catch (error) {
        count.textContent = "This browser can't unpack the items; lm-eval's samples files have them.";
        return;
      }
    }
    if (sampleSet.value !== index) return;
    block = blocks.get(index);
    Object.keys(controls).forEach(fill);
    update();
  };

  sampleSearch.value = kept("sample-search") || "";
  if (Array.from(sampleSet.options).some((option) => option.value === kept("sample-set"))) {
    sampleSet.value = kept("sample-set");
  }
  sampleSearch.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(update, 120);
  });
  Object.values(controls).forEach((select) => select.addEventListener("change", update));
  more.addEventListener("click", showMore);
  sampleSet.addEventListener("change", load);
  new IntersectionObserver((entries, observer) => {
    if (entries.some((entry) => entry.isIntersecting)) {
      observer.disconnect();
      load();
    }
  }, { rootMargin: "400px" }).observe(sampleSet);
}
