// Recomputes the root of the tree from an event's hash and its proof: RFC 9162, 2.1.3.2.
export function verify() {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-verify]");
    if (!button) return;
    const said = button.closest("section").querySelector(".answer");
    if (!globalThis.crypto?.subtle) {
      said.textContent = "A browser computes hashes on https and on localhost only; download the bundle instead.";
      return;
    }
    const { index, size, hash, proof, root } = JSON.parse(button.dataset.verify);
    const computed = await rootFrom(index, size, bytes(hash), proof.map(bytes));
    said.textContent = computed === root ? "Verified: the proof leads to the signed root." : "NOT verified: the proof leads to another root.";
  });
}

async function rootFrom(index, size, hash, proof) {
  let fn = BigInt(index);
  let sn = BigInt(size) - 1n;
  let node = await sha256([0], hash);
  for (const sibling of proof) {
    if (sn === 0n) return null;
    if (fn & 1n || fn === sn) {
      node = await sha256([1], sibling, node);
      while (!(fn & 1n) && fn !== 0n) {
        fn >>= 1n;
        sn >>= 1n;
      }
    } else {
      node = await sha256([1], node, sibling);
    }
    fn >>= 1n;
    sn >>= 1n;
  }
  return sn === 0n ? [...node].map((byte) => byte.toString(16).padStart(2, "0")).join("") : null;
}

async function sha256(...parts) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", new Uint8Array(parts.flatMap((part) => [...part]))));
}

function bytes(hex) {
  return Uint8Array.from(hex.match(/../g), (pair) => parseInt(pair, 16));
}
