// Polls a job until it has ended, through any restart of the service. For browsers, and node 20.3 or later.
//
//   import { poll } from "./poll.mjs";
//   const job = await poll("http://127.0.0.1:8000/v1/jobs/<id>", (job) => console.log(job.status, job.progress));

import { answerOf, pause, Refused } from "./patience.mjs";

const WAIT_SECONDS = 20; // the server holds its answer until there is news, or for so long
const ANSWER_SECONDS = WAIT_SECONDS + 10;
const ENDED = new Set(["completed", "failed", "cancelled"]);

export { Refused };

/**
 * The job once it has ended. `onJob` is called with it whenever it has moved on.
 *
 * Never gives up while the service is away or busy. Throws `Refused` for an answer that asking again will not mend
 * (no such job, not allowed), and the signal's reason once `signal` is aborted. `headers` go with every request.
 */
export async function poll(url, onJob = () => {}, { headers = {}, signal } = {}) {
  let version = null;
  for (let failures = 0; ; ) {
    let job = null;
    try {
      const known = version === null ? {} : { "If-None-Match": version };
      const asked = { ...headers, ...known, Prefer: `wait=${WAIT_SECONDS}` };
      const answer = await answerOf(url, asked, signal, AbortSignal.timeout(ANSWER_SECONDS * 1000));
      if (answer.status !== 304) job = await answer.json();
      version = answer.headers.get("ETag");
      failures = 0;
    } catch (error) {
      if (error instanceof Refused || signal?.aborted) throw error;
      await pause(failures++, error, signal);
    }
    if (job !== null) onJob(job);
    if (ENDED.has(job?.status)) return job;
  }
}
