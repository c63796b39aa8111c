// Follows a job's events as they happen, each once and in order, through any restart of the service.
// For browsers, and node 20.3 or later.
//
//   import { follow } from "./follow.mjs";
//   for await (const event of follow("http://127.0.0.1:8000/v1/jobs/<id>/events")) {
//     console.log(event.version, event.type);
//   }
//
// EventSource would do in browsers while all is well, but gives up for good when a proxy answers 502 or 503 once.

import { answerOf, pause, Refused } from "./patience.mjs";

const SILENCE_SECONDS = 45; // the server sends a comment every 15 seconds; a connection that says nothing is dead

export { Refused };

/**
 * The events after version `after`, as they happen; ends once the job has ended.
 *
 * Never gives up while the service is away or busy. Throws `Refused` for an answer that asking again will not mend
 * (no such job, not allowed), and the signal's reason once `signal` is aborted. `headers` go with every request.
 */
export async function* follow(url, { after = 0, headers = {}, signal } = {}) {
  let seen = after;
  for (let failures = 0; ; failures++) {
    const silence = new AbortController();
    let timer;
    const heard = () => {
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(new Error("the service has gone silent")), SILENCE_SECONDS * 1000);
    };
    let lost = null;
    try {
      heard();
      const asked = { ...headers, Accept: "text/event-stream", "Last-Event-ID": String(seen) };
      const answer = await answerOf(url, asked, signal, silence.signal);
      if (answer.status === 204) return; // it has ended, and all of it was seen
      for await (const event of messages(answer.body.getReader(), heard)) {
        if (event.version <= seen) continue;
        seen = event.version;
        failures = 0;
        yield event;
      }
    } catch (error) {
      if (error instanceof Refused || signal?.aborted) throw error;
      lost = error;
    } finally {
      clearTimeout(timer);
      silence.abort(); // hangs up
    }
    if (lost || failures > 0) await pause(failures, lost, signal);
  }
}

/** What the `data:` lines of each message say (https://html.spec.whatwg.org/multipage/server-sent-events.html). */
async function* messages(reader, heard) {
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    heard();
    const whole = (text + decoder.decode(value, { stream: true })).split("\n\n");
    text = whole.pop(); // a message that is not all there yet
    for (const message of whole) {
      const data = message.split("\n").filter((line) => line.startsWith("data: "));
      if (data.length) yield JSON.parse(data.map((line) => line.slice(6)).join("\n"));
    }
  }
}
