// The live tail of the whole log.
import { connection } from "./connection.js";
import { TYPES } from "./follow.js";
import { refresh } from "./parts.js";

const MOST = 500;
const AGAIN = 1000;
const BRIEF = 240; // characters; the job's page has all of a message

export function tail() {
  const list = document.querySelector("[data-tail]");
  if (!list) return;
  const pause = document.getElementById("pause");
  const held = [];
  let last = null;
  const show = (event) => {
    list.prepend(row(event));
    while (list.children.length > MOST) list.lastElementChild.remove();
    document.getElementById("quiet").hidden = true;
  };
  const say = () => {
    pause.textContent = pause.getAttribute("aria-pressed") === "true" ? `Go on (${held.length} held)` : "Pause";
  };
  pause.addEventListener("click", () => {
    const on = pause.getAttribute("aria-pressed") !== "true";
    pause.setAttribute("aria-pressed", String(on));
    if (!on) held.splice(0).forEach(show);
    say();
  });
  const open = () => {
    const address = new URL(list.dataset.tail, location.href);
    if (last) address.searchParams.set("after", last);
    const source = new EventSource(address);
    source.onopen = () => connection("live");
    for (const type of TYPES) {
      source.addEventListener(type, ({ lastEventId, data }) => {
        last = lastEventId;
        const event = JSON.parse(data);
        if (pause.getAttribute("aria-pressed") !== "true") return show(event);
        held.push(event);
        if (held.length > MOST) held.shift();
        say();
      });
    }
    source.onerror = async () => {
      connection("reconnecting…");
      if (source.readyState !== EventSource.CLOSED) return;
      if (await refresh()) connection("reconnecting…"); // who is no longer signed in is led to where one does that
      setTimeout(open, AGAIN);
    };
  };
  open();
}

function row(event) {
  const item = document.createElement("li");
  item.className = "row event";
  const link = document.createElement("a");
  link.href = `/jobs/${event.job_id}?at_version=${event.version}`;
  link.textContent = `…${event.job_id.slice(-8)} v${event.version}`;
  const type = document.createElement("b");
  type.textContent = event.type;
  type.className = `type ${event.type.replace(".", "-")}`;
  const what = document.createElement("small");
  what.className = "grow";
  const { kind, step, message, reason, error, artifact, attempt } = event.data;
  const said = [kind, step, message, reason, error?.message, artifact && `saved ${artifact.name}`].filter(Boolean);
  const words = said.join(" · ") || (attempt ? `attempt ${attempt}` : "");
  what.textContent = words.length > BRIEF ? `${words.slice(0, BRIEF)}…` : words;
  const by = document.createElement("small");
  by.textContent = event.by;
  const at = document.createElement("time");
  at.dateTime = event.at;
  at.textContent = event.at.slice(11, 19);
  item.append(at, type, link, what, by);
  return item;
}
