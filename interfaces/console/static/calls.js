// Forms that make a call of the API with what they hold, as JSON.
import { refresh } from "./parts.js";
import { followJob } from "./follow.js";

export function calls() {
  document.addEventListener("submit", async (event) => {
    const form = event.target.closest("form[data-call]");
    if (!form) return;
    event.preventDefault();
    const [method, path] = form.dataset.call.split(" ");
    const answer = await send(form, method, path, method === "DELETE" ? undefined : JSON.stringify(fields(form)));
    if (!answer) return;
    form.reset();
    await refresh();
    followJob();
  });
}

export function fields(form) {
  const held = {};
  for (const field of form.elements) {
    if (!field.name || field.disabled) continue;
    held[field.name] = field.type === "checkbox" ? field.checked : field.value;
  }
  return held;
}

// The answer, or null for a refusal, which the form then shows. The same body sent again is the same request.
export async function send(form, method, path, body, type = "application/json") {
  const said = form.querySelector(".answer");
  const buttons = [...form.querySelectorAll("button")];
  const same = typeof body === "string" ? body : form.dataset.body;
  if (form.dataset.sent !== same) {
    form.dataset.sent = same;
    form.dataset.key = key();
  }
  said.textContent = "";
  said.classList.remove("fine");
  const focused = document.activeElement;
  for (const button of buttons) button.disabled = true;
  try {
    const headers = { "Idempotency-Key": form.dataset.key };
    if (typeof body === "string") headers["Content-Type"] = type;
    const answer = await fetch(path, { method, headers, body });
    const told = answer.status === 204 ? {} : await answer.json();
    if (answer.ok) {
      delete form.dataset.sent;
      return told;
    }
    const errors = (told.errors ?? []).map((error) => `${error.field} ${error.message}`).join("; ");
    said.textContent = errors || told.detail || told.title;
  } catch {
    said.textContent = "The service did not answer. Send it again: nothing is done twice.";
  } finally {
    for (const button of buttons) button.disabled = false;
    const lost = document.activeElement === document.body; // by a button that was disabled
    if (lost && focused.isConnected) focused.focus({ preventScroll: true });
  }
  return null;
}

// crypto.randomUUID is there in secure contexts only.
function key() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
