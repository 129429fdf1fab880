// Keeps the page new while it is visible: the server says that something happened, the page is asked for again, and
// what of it is new takes the place of what was there. Texts stay texts: a parsed page runs nothing.
const PARTS = "[data-part], main > header, main > section[id], #figures";
const { live } = document.body.dataset;
let { state } = document.body.dataset;
let source = null, busy = false, missed = false;
const nameOf = part => part.dataset.part || part.id || part.localName;
const partsOf = page => new Map([...page.querySelectorAll(PARTS)].map(part => [nameOf(part), part]));
// As the server wrote them, before plots are drawn into them.
const written = new Map([...partsOf(document)].map(([name, part]) => [name, part.cloneNode(true)]));

function say(text, lost) {
  const line = document.getElementById("live");
  line.textContent = text;
  line.classList.toggle("lost", Boolean(lost));
}

// What the reader did to a part stays: opened, ticked, scrolled, and where the keyboard is.
function put(old, fresh) {
  const name = nameOf(fresh);
  if (written.get(name)?.isEqualNode(fresh)) return false;
  written.set(name, fresh.cloneNode(true));
  const each = (selector, take) => {
    const found = fresh.querySelectorAll(selector);
    old.querySelectorAll(selector).forEach((one, place) => found[place] && take(one, found[place]));
  };
  const able = "a[href], button, input, select, summary, [tabindex]";
  const held = [...old.querySelectorAll(able)].indexOf(document.activeElement);
  const scrolled = [];
  each(".scroll", (was, now) => scrolled.push([now, was.scrollLeft, was.scrollTop]));
  each("details", (was, now) => { now.open = was.open; });
  const ticked = new Set([...old.querySelectorAll("input:checked")].map(box => box.name + " " + box.value));
  for (const box of fresh.querySelectorAll("input[type=checkbox]")) box.checked = ticked.has(box.name + " " + box.value);
  old.replaceWith(fresh);
  for (const [part, left, top] of scrolled) part.scrollTo(left, top);
  if (held >= 0) fresh.querySelectorAll(able)[held]?.focus({ preventScroll: true });
  return true;
}

async function refresh() {
  if (busy) { missed = true; return; }
  busy = true;
  try {
    do {
      missed = false;
      const answer = await fetch(location.href, { cache: "no-store" });
      if (!answer.ok) { say("this page cannot be read now; the server says why when it is reloaded", true); return; }
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      state = page.body.dataset.state;
      const here = partsOf(document);
      const changed = [...partsOf(page)].filter(([name, part]) => here.has(name) && put(here.get(name), document.adoptNode(part)));
      if (changed.length) {
        document.dispatchEvent(new Event("fresh"));
        say("updated at " + new Date().toLocaleTimeString());
      }
    } while (missed);
  } catch {
    say("the server does not answer", true);
  } finally {
    busy = false;
  }
}

function follow() {
  source?.close();
  source = null;
  if (document.hidden) return;  // a browser opens few connections to one server, and hidden pages need none
  source = new EventSource(live);
  source.addEventListener("open", () => say("live"));
  source.addEventListener("state", event => { if (event.data !== state) refresh(); });
  source.addEventListener("error", () => say("not live: the server does not answer", true));
}

document.addEventListener("visibilitychange", follow);
follow();
