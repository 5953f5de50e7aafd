/** Requests to the server: JSON back, or a Problem with a sentence for the user. */

const TIMEOUT_MS = 60_000;
const MOST_TRIES = 6;
const LONGEST_WAIT_S = 30;

export class Problem extends Error {
  /** `passing` problems may disappear with a retry; the others are caused by what was sent. */
  constructor(sentence, { code = "", requestId = "", retryAfterS = null, passing = true } = {}) {
    super(sentence);
    this.code = code;
    this.requestId = requestId;
    this.retryAfterS = retryAfterS;
    this.passing = passing;
  }
}

/** One request. Throws Problem. */
export async function ask(address, options = {}) {
  const response = await reach(address, options);
  const body = await response.json().catch(() => null);
  if (response.ok && body !== null) return body;
  const wait = Number(response.headers.get("Retry-After"));
  throw new Problem(body?.detail ?? `The server returned status ${response.status} without details.`, {
    code: body?.code ?? String(response.status),
    requestId: body?.request_id ?? "",
    passing: response.status >= 500 || [408, 429].includes(response.status),
    retryAfterS: response.status === 429 ? Math.min(Math.max(wait || 1, 1), LONGEST_WAIT_S) : null,
  });
}

/** Like `ask`, but retries a few times while the queue is full; `onWait` gets the seconds left. */
export async function askPatiently(address, makeOptions, onWait) {
  for (let tries = 1; ; tries += 1) {
    const started = performance.now();
    try {
      return { body: await ask(address, makeOptions()), tripMs: performance.now() - started };
    } catch (problem) {
      if (problem.retryAfterS === null || tries === MOST_TRIES) throw problem;
      for (let left = Math.ceil(problem.retryAfterS); left > 0; left -= 1) {
        onWait(left);
        await new Promise((wake) => setTimeout(wake, 1000));
      }
    }
  }
}

async function reach(address, options) {
  try {
    return await fetch(address, {
      ...options,
      credentials: "same-origin",
      headers: { Accept: "application/json", ...options.headers },
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
  } catch (error) {
    if (error.name === "TimeoutError") {
      throw new Problem(`The upload timed out after ${TIMEOUT_MS / 1000} s. Check your connection or send a smaller photo.`, { code: "timeout" });
    }
    throw new Problem("Can't reach the server. Check your connection and try again.", {
      code: "network",
    });
  }
}
