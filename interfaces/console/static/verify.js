// What this browser verifies by itself: that an event is in the sealed tree, and that the seal is what it was.
import { bytes, consistent, fromBase64, hex, rootFrom } from "./merkle.js";

const SEEN = "jobledger.seen"; // the last checkpoint that this browser verified

export function verify() {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-verify], [data-verify-seal]");
    if (!button) return;
    const said = button.closest("section").querySelector(".answer");
    let answer;
    said.classList.remove("bad");
    said.textContent = "Verifying…";
    if (!globalThis.crypto?.subtle) {
      answer = { bad: true, says: "A browser computes hashes on https and on localhost only; download it instead." };
    } else {
      try {
        answer = await (button.matches("[data-verify]") ? ofEvent(JSON.parse(button.dataset.verify)) : ofSeal());
      } catch (error) {
        answer = { bad: true, says: `Not verified, since that went wrong: ${error.message}` };
      }
    }
    said.classList.toggle("bad", answer.bad);
    said.textContent = answer.says;
  });
}

async function ofEvent({ index, size, hash, proof, root }) {
  const good = (await rootFrom(index, size, bytes(hash), proof.map(bytes))) === root;
  return good
    ? { bad: false, says: "Verified: the proof leads to the signed root." }
    : { bad: true, says: "NOT verified: the proof leads to another root." };
}

// Signed by a key that is listed, and a continuation of what this browser saw last: it remembers one for each log.
async function ofSeal() {
  const note = await (await asked("/v1/audit/checkpoint")).text();
  const keys = (await (await asked("/v1/audit/keys")).json()).items.map(({ key }) => key);
  const now = parsed(note);
  const signer = await signedBy(note, keys);
  if (!signer) return { bad: true, says: "NOT verified: no key that is listed here signed this checkpoint." };
  const all = JSON.parse(localStorage.getItem(SEEN) ?? "{}");
  const seen = all[now.origin];
  if (seen && !(await extended(seen, now))) {
    return { bad: true, says: `NOT verified: the log is not what this browser saw on ${seen.at}, when it had ${seen.size} events.` };
  }
  all[now.origin] = { ...now, at: new Date().toISOString().slice(0, 16).replace("T", " ") };
  localStorage.setItem(SEEN, JSON.stringify(all));
  const signed = `Verified: ${now.size} events are signed by ${signer}`;
  const since = seen
    ? ` and go on from the ${seen.size} that this browser saw on ${seen.at}.`
    : ". This browser sees this log for the first time, and remembers it from now on.";
  return { bad: false, says: signed + since };
}

async function extended(seen, now) {
  if (seen.size > now.size) return false;
  if (seen.size === now.size) return seen.root === now.root;
  const { proof } = await (await asked(`/v1/audit/consistency?from=${seen.size}&to=${now.size}`)).json();
  return consistent(seen.size, now.size, seen.root, now.root, proof.map(bytes));
}

// A checkpoint: origin, size and root, a line each, an empty line, and lines with signatures (C2SP).
function parsed(note) {
  const [origin, size, root] = note.split("\n");
  return { origin, size: Number(size), root: hex(fromBase64(root)) };
}

async function signedBy(note, keys) {
  const end = note.indexOf("\n\n") + 1;
  const text = new TextEncoder().encode(note.slice(0, end));
  for (const line of note.slice(end + 1).split("\n").filter(Boolean)) {
    const [, name, encoded] = line.split(" ");
    const signature = fromBase64(encoded);
    const id = hex(signature.slice(0, 4));
    const key = keys.find((each) => each.startsWith(`${name}+${id}+`));
    if (!key) continue;
    const bare = fromBase64(key.slice(name.length + 10)).slice(1); // the first byte is the kind of key
    const imported = await crypto.subtle.importKey("raw", bare, "Ed25519", false, ["verify"]);
    if (await crypto.subtle.verify("Ed25519", imported, signature.slice(4), text)) return `key ${id}`;
  }
  return null;
}

async function asked(address) {
  const answer = await fetch(address, { cache: "no-store" });
  if (!answer.ok) throw new Error((await answer.json()).detail);
  return answer;
}
