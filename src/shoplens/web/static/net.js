/** Requests to the server: JSON back, or a Problem with a sentence for the user. */

import { gettext, language } from "./messages.js";

/** How long nothing may happen: no byte sent, and afterwards no response. A slow line is not an error. */
const TIMEOUT_MS = 60_000;
const MOST_TRIES = 6;
const LONGEST_WAIT_S = 30;

export class Problem extends Error {
  /** `passing` problems may disappear with a retry; the others are caused by what was sent. */
  constructor(sentence, { code = "", status = 0, requestId = "", retryAfterS = null, passing = true } = {}) {
    super(sentence);
    this.code = code;
    this.status = status;
    this.requestId = requestId;
    this.retryAfterS = retryAfterS;
    this.passing = passing;
  }
}

/** One request. Throws Problem. */
export async function ask(address, options = {}) {
  const response = await reach(address, options);
  const body = await response.json().catch(() => null);
  return checked(response.status, body, response.headers.get("Retry-After"));
}

/** A picture as an address for an image, which the caller revokes. Throws Problem. */
export async function pictureFrom(address, options = {}) {
  const response = await reach(address, { ...options, headers: { Accept: "image/png, application/json" } });
  if (response.ok) return URL.createObjectURL(await response.blob());
  return checked(response.status, await response.json().catch(() => null), response.headers.get("Retry-After"));
}

/** POST a form, retrying a few times while the queue is full. `onProgress` gets the share that is uploaded and the bytes
 * of the whole, `onWait` the seconds until the next try. An aborted `signal` throws the code "aborted". */
export async function upload(address, makeForm, { onProgress, onWait, signal = null }) {
  for (let tries = 1; ; tries += 1) {
    const form = await makeForm();
    const started = performance.now();
    try {
      return { body: await post(address, form, onProgress, signal), tripMs: performance.now() - started };
    } catch (problem) {
      if (problem.retryAfterS === null || tries === MOST_TRIES || signal?.aborted) throw problem;
      for (let left = Math.ceil(problem.retryAfterS); left > 0; left -= 1) {
        onWait(left);
        await new Promise((wake) => setTimeout(wake, 1000));
      }
    }
  }
}

/** `fetch` reports no upload progress, so this is the older interface. */
function post(address, form, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", address);
    request.responseType = "json";
    request.setRequestHeader("Accept", "application/json");
    request.setRequestHeader("Shoplens-Language", language);
    let timer;
    const restart = () => {
      clearTimeout(timer);
      timer = setTimeout(() => request.abort(), TIMEOUT_MS);
    };
    const abort = () => request.abort();
    signal?.addEventListener("abort", abort);
    request.upload.addEventListener("progress", (event) => {
      restart();
      if (event.lengthComputable) onProgress(event.loaded / event.total, event.total);
    });
    request.upload.addEventListener("load", (event) => {
      restart(); // the limit on time counts from the last byte
      onProgress(1, event.total);
    });
    request.addEventListener("loadend", () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    });
    request.addEventListener("abort", () => reject(signal?.aborted ? new Problem(gettext("Cancelled."), { code: "aborted" }) : timedOut()));
    request.addEventListener("error", () => reject(unreachable()));
    request.addEventListener("load", () => {
      try {
        resolve(checked(request.status, request.response, request.getResponseHeader("Retry-After")));
      } catch (problem) {
        reject(problem);
      }
    });
    if (signal?.aborted) return reject(new Problem(gettext("Cancelled."), { code: "aborted" }));
    restart();
    request.send(form);
  });
}

async function reach(address, options) {
  try {
    return await fetch(address, {
      ...options,
      credentials: "same-origin",
      headers: { Accept: "application/json", "Shoplens-Language": language, ...options.headers },
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
  } catch (error) {
    throw error.name === "TimeoutError" ? timedOut() : unreachable();
  }
}

/** The body of a successful response. Throws Problem for any other. */
function checked(status, body, retryAfter) {
  if (status >= 200 && status < 300 && body !== null) return body;
  const wait = Number(retryAfter);
  throw new Problem(body?.detail ?? gettext("The server returned status %(status)s without details.", { status }), {
    code: body?.code ?? String(status),
    status,
    requestId: body?.request_id ?? "",
    passing: status >= 500 || [408, 429].includes(status),
    retryAfterS: status === 429 ? Math.min(Math.max(wait || 1, 1), LONGEST_WAIT_S) : null,
  });
}

function timedOut() {
  const sentence = gettext("The upload timed out after %(seconds)s s. Check your connection or send a smaller photo.", { seconds: TIMEOUT_MS / 1000 });
  return new Problem(sentence, { code: "timeout" });
}

function unreachable() {
  return new Problem(gettext("Can't reach the server. Check your connection and try again."), { code: "network" });
}
