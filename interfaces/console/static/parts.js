// Parts of a page are fetched anew and replaced where the server says something else than before.
import { connection } from "./connection.js";

const EVERY = 2000; // milliseconds; `data-again="2"` is every second time
const told = new Map();
let underWay = null;
let onceMore = false;
let retry = 0;

export function begin() {
  for (const part of document.querySelectorAll("[data-part]")) told.set(part.id, part.innerHTML);
  let time = 0;
  setInterval(() => {
    time += 1;
    const due = [...document.querySelectorAll("[data-again]")].some((part) => time % (part.dataset.again || 1) === 0);
    if (due && document.visibilityState === "visible") refresh();
  }, EVERY);
}

// Whether the server answered; if not, it is asked again by and by. Asked for while one is under way, it is done once
// more after it.
export async function refresh() {
  if (underWay) {
    onceMore = true;
    return underWay;
  }
  underWay = load(location.href).finally(() => {
    underWay = null;
    if (onceMore) {
      onceMore = false;
      refresh();
    }
  });
  return underWay;
}

async function load(address) {
  let answer;
  try {
    answer = await fetch(address, { headers: { Accept: "text/html" }, cache: "no-store" });
  } catch {
    return lost();
  }
  if (answer.redirected && new URL(answer.url).pathname === "/sign-in") {
    location.assign(answer.url);
    return false;
  }
  if (answer.status === 503) return lost();
  if (!answer.ok) {
    connection(`refused (${answer.status})`);
    return false;
  }
  replace(new DOMParser().parseFromString(await answer.text(), "text/html"));
  connection(document.querySelector("[data-finished]") ? "" : "live");
  return true;
}

function lost() {
  connection("reconnecting…");
  clearTimeout(retry);
  retry = setTimeout(refresh, EVERY);
  return false;
}

function replace(fresh) {
  for (const part of document.querySelectorAll("[data-part]")) {
    const next = fresh.getElementById(part.id);
    if (!next || busy(part)) continue;
    for (const name of ["class", "data-again", "data-finished", "data-version", "data-last"]) {
      if (next.hasAttribute(name)) part.setAttribute(name, next.getAttribute(name));
      else part.removeAttribute(name);
    }
    if (told.get(part.id) === next.innerHTML) continue;
    told.set(part.id, next.innerHTML);
    const open = new Map([...part.querySelectorAll("details[id]")].map((d) => [d.id, d.open]));
    const focused = part.contains(document.activeElement) ? document.activeElement : null;
    part.replaceChildren(...document.importNode(next, true).childNodes);
    for (const details of part.querySelectorAll("details[id]")) {
      if (open.has(details.id)) details.open = open.get(details.id);
    }
    if (focused) focus(again(part, focused) ?? part);
  }
  document.dispatchEvent(new Event("refreshed"));
}

// Somebody has filled in something there: that is not taken away.
function busy(part) {
  return [...part.querySelectorAll("input:not([type=range]), textarea, select")].some((field) => {
    if (field.type === "checkbox") return field.checked !== field.defaultChecked;
    return field.matches("select") ? field.selectedIndex > 0 : field.value !== field.defaultValue;
  });
}

// What has no place in the order of the keyboard is focused, too: whoever was there goes on from there.
function focus(element) {
  if (!element.matches("a, button, input, select, textarea, summary, [tabindex]")) element.tabIndex = -1;
  element.focus({ preventScroll: true });
}

function again(part, focused) {
  if (focused.id) return document.getElementById(focused.id);
  if (focused.href) return [...part.querySelectorAll("a")].find((a) => a.href === focused.href);
  const details = focused.closest("details[id]");
  return details && document.getElementById(details.id)?.querySelector("summary");
}
