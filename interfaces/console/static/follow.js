// A job's events as they come. EventSource resumes by Last-Event-ID; where it gives up, we begin again after the last.
import { connection } from "./connection.js";
import { refresh } from "./parts.js";

export const TYPES = [
  "created", "started", "progressed", "heartbeat_missed", "completed",
  "failed", "released", "cancel_requested", "cancelled", "requeued",
].map((name) => `job.${name}`);
const AGAIN = 1000;
const TOGETHER = 100;

let source = null;

export function followJob() {
  const page = document.querySelector("[data-follow]");
  if (!page || document.querySelector("[data-finished]")) return;
  source?.close();
  let last = Number(document.getElementById("travel").dataset.last);
  let soon = null;

  const changed = () => {
    soon ??= setTimeout(async () => {
      soon = null;
      await refresh();
      if (document.querySelector("[data-finished]")) end();
    }, TOGETHER);
  };
  const end = () => {
    source?.close();
    source = null;
    connection("");
  };
  const open = () => {
    source = new EventSource(`${page.dataset.follow}?after_version=${last}`);
    source.onopen = changed;
    for (const type of TYPES) {
      source.addEventListener(type, (event) => {
        last = Number(event.lastEventId);
        changed();
      });
    }
    source.onerror = async (event) => {
      const gone = event.target;
      if (gone !== source) return;
      if (document.querySelector("[data-finished]")) return end();
      connection("reconnecting…");
      if (gone.readyState !== EventSource.CLOSED) return;
      await refresh(); // the end of a finished job looks the same as a server that is away
      if (document.querySelector("[data-finished]")) end();
      else setTimeout(() => gone === source && open(), AGAIN);
    };
  };
  open();
}
