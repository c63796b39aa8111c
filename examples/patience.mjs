// What the poller and the follower share: when to ask again, and when asking again is of no use.

const FIRST_PAUSE = 250;
const LONGEST_PAUSE = 10_000;
const BUSY = new Set([408, 425, 429]);

/** An answer that asking again will not mend. */
export class Refused extends Error {
  constructor(status, detail) {
    super(`HTTP ${status}: ${detail}`);
    this.status = status;
  }
}

class Busy extends Error {
  constructor(status, retryAfter) {
    super(`HTTP ${status}`);
    this.retryAfter = Number(retryAfter) || 0; // seconds
  }
}

/** A good answer: 2xx or 304. Throws `Refused`, or what is worth another try. */
export async function answerOf(url, headers, ...signals) {
  const signal = AbortSignal.any(signals.filter(Boolean));
  const answer = await fetch(url, { headers, cache: "no-store", signal });
  if (answer.ok || answer.status === 304) return answer;
  if (answer.status >= 500 || BUSY.has(answer.status)) throw new Busy(answer.status, answer.headers.get("Retry-After"));
  throw new Refused(answer.status, await answer.text());
}

/**
 * Waits before the next try: longer after each failure, and a random part of that, so that many who lost the same
 * server do not come back all at once; at least as long as the server asked for. Throws the signal's reason.
 */
export function pause(failures, error, signal) {
  const longest = Math.min(FIRST_PAUSE * 2 ** failures, LONGEST_PAUSE);
  const asked = (error?.retryAfter ?? 0) * 1000;
  return new Promise((resolve, reject) => {
    const timer = setTimeout(done, asked + (0.5 + Math.random() / 2) * longest);
    signal?.addEventListener("abort", done);
    if (signal?.aborted) done();
    function done() {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      if (signal?.aborted) reject(signal.reason);
      else resolve();
    }
  });
}
