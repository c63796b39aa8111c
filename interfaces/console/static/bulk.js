// Cancelling or requeueing all jobs that the list's filter matches: counted first, then moved.
import { send } from "./calls.js";

const SEVERAL = ["status", "kind", "queue", "label", "worker"];
const ONE = ["created_after", "created_before"];

export function bulk() {
  const form = document.querySelector("form[data-bulk]");
  if (!form) return;
  const move = form.querySelector("button[value=move]");
  const said = form.querySelector(".answer");
  form.addEventListener("input", () => {
    move.hidden = true;
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const dry_run = event.submitter?.value !== "move";
    const operation = form.elements.operation;
    const body = JSON.stringify({ filter: filter(), reason: form.elements.reason.value, dry_run });
    const answer = await send(form, "POST", `/v1/jobs/${operation.value}`, body);
    if (!answer) return;
    if (!dry_run) return location.assign(`/jobs/${answer.id}`);
    const verb = operation.selectedOptions[0].text;
    const jobs = `${answer.exact ? "" : "more than "}${answer.matching} job${answer.matching === 1 ? "" : "s"}`;
    said.textContent = answer.matching ? `Found ${jobs}.` : "Found no job that this would move.";
    said.classList.add("fine");
    move.textContent = `${verb} ${jobs}`;
    move.hidden = answer.matching === 0;
  });
}

function filter() {
  const asked = new URLSearchParams(location.search);
  const wanted = {};
  for (const name of SEVERAL) if (asked.has(name)) wanted[name] = asked.getAll(name);
  for (const name of ONE) if (asked.has(name)) wanted[name] = asked.get(name);
  return wanted;
}
