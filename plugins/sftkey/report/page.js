// Texts of models and data sets reach the page only as text nodes: nothing here builds markup from a string.
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

const PER_PAGE = 10;

function wordsOf(input) {
  return input.value.toLowerCase().split(/\s+/).filter(Boolean);
}

function highlighted(node, text, words) {
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
}

// A text in a box of its own that may have to be scrolled, by keyboard, too.
function scrolled(name, text, words) {
  const node = element("pre");
  node.tabIndex = 0;
  node.setAttribute("role", "group");
  node.setAttribute("aria-label", name);
  return highlighted(node, text, words);
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
    const words = wordsOf(testSearch);
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
