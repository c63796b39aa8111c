// Parts of a page are fetched anew and replaced where the server says something else than before.
import { connection } from "./connection.js";

const EVERY = 2000;
const told = new Map();
let under_way = null;
let once_more = false;

export function begin() {
  for (const part of document.querySelectorAll("[data-part]")) told.set(part.id, part.innerHTML);
  setInterval(() => {
    if (document.visibilityState === "visible" && document.querySelector("[data-again]")) refresh();
  }, EVERY);
}

// Whether the server answered. Asked for while one is under way, it is done once more after it.
export async function refresh() {
  if (under_way) {
    once_more = true;
    return under_way;
  }
  under_way = load(location.href).finally(() => {
    under_way = null;
    if (once_more) {
      once_more = false;
      refresh();
    }
  });
  return under_way;
}

async function load(address) {
  let answer;
  try {
    answer = await fetch(address, { headers: { Accept: "text/html" }, cache: "no-store" });
  } catch {
    connection("reconnecting…");
    return false;
  }
  if (answer.redirected && new URL(answer.url).pathname === "/sign-in") {
    location.assign(answer.url);
    return false;
  }
  if (!answer.ok) {
    connection(answer.status === 503 ? "reconnecting…" : `refused (${answer.status})`);
    return false;
  }
  replace(new DOMParser().parseFromString(await answer.text(), "text/html"));
  connection(document.querySelector("[data-finished]") ? "" : "live");
  return true;
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
    if (focused) again(part, focused)?.focus();
    part.dispatchEvent(new CustomEvent("replaced", { bubbles: true }));
  }
}

// Somebody is typing there: what is typed is not taken away.
function busy(part) {
  return [...part.querySelectorAll("input:not([type=range]):not([type=checkbox]), textarea")].some((field) => field.value !== field.defaultValue);
}

function again(part, focused) {
  if (focused.id) return document.getElementById(focused.id);
  if (focused.href) return [...part.querySelectorAll("a")].find((a) => a.href === focused.href);
  const details = focused.closest("details[id]");
  return details && document.getElementById(details.id)?.querySelector("summary");
}
