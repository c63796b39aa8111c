// Proofs of the tree, RFC 9162: hashes are bytes, sizes and indexes are numbers.

// The root to which an event's hash and its proof lead (2.1.3.2); null when the proof has another length.
export async function rootFrom(index, size, hash, proof) {
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
  return sn === 0n ? hex(node) : null;
}

// Whether the tree of the earlier size is how the later one began (2.1.4.2); roots in hex.
export async function consistent(earlier, later, earlierRoot, laterRoot, proof) {
  if (earlier === later) return earlierRoot === laterRoot;
  if (earlier > later || earlier === 0) return false;
  let fn = BigInt(earlier) - 1n;
  let sn = BigInt(later) - 1n;
  const path = (fn & (fn + 1n)) === 0n ? [bytes(earlierRoot), ...proof] : [...proof];
  if (!path.length) return false;
  while (fn & 1n) {
    fn >>= 1n;
    sn >>= 1n;
  }
  let from = path.shift();
  let to = from;
  for (const sibling of path) {
    if (sn === 0n) return false;
    if (fn & 1n || fn === sn) {
      from = await sha256([1], sibling, from);
      to = await sha256([1], sibling, to);
      while (!(fn & 1n) && fn !== 0n) {
        fn >>= 1n;
        sn >>= 1n;
      }
    } else {
      to = await sha256([1], to, sibling);
    }
    fn >>= 1n;
    sn >>= 1n;
  }
  return sn === 0n && hex(from) === earlierRoot && hex(to) === laterRoot;
}

export function bytes(hex) {
  return Uint8Array.from(hex.match(/../g), (pair) => parseInt(pair, 16));
}

export function fromBase64(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

export function hex(bytes) {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function sha256(...parts) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", new Uint8Array(parts.flatMap((part) => [...part]))));
}
