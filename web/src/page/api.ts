// The server, and nothing else: JSON, floats, files and streams of events, each of which can be called off.

export type Params = Record<string, string | number | boolean | null | undefined>;
/** What an event carries differs by its name, and whoever reads the event knows which. */
export type Told = (name: string, data: any) => void;

const MOST_AGAIN = 6; // that a busy server is asked, within some 13 seconds

/** The server said no; the message is its own sentence. */
export class Failure extends Error {
  constructor(readonly status: number, message: string) {
    super(message);
    this.name = "Failure";
  }
}

/** Whether a call ended because the page called it off, which nobody needs to be told. */
export const wasStopped = (error: unknown): boolean => error instanceof DOMException && error.name === "AbortError";

/** The sentence of a failure, for a reader. */
export const sentence = (error: unknown): string => (error instanceof Error ? error.message : String(error));

export function address(path: string, params: Params = {}): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    if (value !== null && value !== undefined) query.set(name, String(value));
  }
  return query.size ? `${path}?${query}` : path;
}

/** Ask once; a refusal becomes a Failure with the server's sentence, no answer at all one with status 0. */
async function ask(where: string, options: RequestInit): Promise<Response> {
  const response = await arriving(fetch(where, options));
  if (response.ok) return response;
  throw new Failure(response.status, await arriving(refusal(response)));
}

/** Ask once, and read what comes back as JSON. */
async function told<T>(where: string, options: RequestInit): Promise<T> {
  const response = await ask(where, options);
  return arriving(response.json() as Promise<T>);
}

/** Wait for what comes over the connection, which may break at every byte. */
async function arriving<T>(coming: Promise<T>): Promise<T> {
  try {
    return await coming;
  } catch (error) {
    if (wasStopped(error)) throw error;
    throw new Failure(0, unreachable());
  }
}

let unreachable = (): string => "The server does not answer.";
/** What to say where nothing answers; the catalogue sets it. */
export const sayUnreachable = (say: () => string): void => void (unreachable = say);

async function refusal(response: Response): Promise<string> {
  const text = await response.text();
  try {
    const said = JSON.parse(text) as { error?: unknown; detail?: unknown };
    if (typeof said.error === "string") return said.error;
    if (typeof said.detail === "string") return said.detail;
    if (Array.isArray(said.detail)) {
      return said.detail.map((one: { loc?: unknown[]; msg?: string }) => `${(one.loc ?? []).slice(1).join(".")}: ${one.msg ?? ""}`).join("; ");
    }
  } catch {
    // not JSON: the status must do
  }
  return `${response.status} ${response.statusText}`.trim();
}

const asJson = (body: unknown): RequestInit => ({ body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
const heeding = (signal?: AbortSignal): RequestInit => (signal ? { signal } : {});

export async function get<T>(path: string, params: Params = {}, signal?: AbortSignal): Promise<T> {
  return told<T>(address(path, params), heeding(signal));
}

export async function post<T>(path: string, body: unknown, signal?: AbortSignal): Promise<T> {
  return told<T>(path, { method: "POST", ...asJson(body), ...heeding(signal) });
}

/** Send a file as it is, or an object as JSON; `path` may carry a query made by `address`. */
export async function put<T>(path: string, content: Blob | object, signal?: AbortSignal): Promise<T> {
  const sent = content instanceof Blob ? { body: content, headers: { "Content-Type": "application/octet-stream" } } : asJson(content);
  return told<T>(path, { method: "PUT", ...sent, ...heeding(signal) });
}

export async function del<T>(path: string, params: Params = {}): Promise<T> {
  return told<T>(address(path, params), { method: "DELETE" });
}

/** Little-endian float32, as the server sends it. */
export async function getFloats(path: string, params: Params = {}, signal?: AbortSignal): Promise<{ values: Float32Array; headers: Headers }> {
  const response = await ask(address(path, params), heeding(signal));
  return { values: new Float32Array(await arriving(response.arrayBuffer())), headers: response.headers };
}

/**
 * Post, and read the events that come back until "done".
 *
 * `on` is told every event but "failed", which rejects with its sentence, as a stream that breaks off does.
 */
export async function stream(path: string, body: unknown, on: Told, signal?: AbortSignal): Promise<void> {
  const response = await ask(path, { method: "POST", ...asJson(body), ...heeding(signal) });
  let isDone = false;
  await events(response, (name, data) => {
    if (name === "done") isDone = true;
    on(name, data);
  });
  if (!isDone && !signal?.aborted) throw new Failure(0, unreachable());
}

/**
 * Listen (GET) until the server closes the stream.
 *
 * Where the connection breaks it is made again; the server then tells all so far once more, which `on` learns by "lost" and "again".
 */
export async function listen(path: string, params: Params, on: Told, signal?: AbortSignal): Promise<void> {
  for (let wait = 500, isFirst = true; ; isFirst = false) {
    try {
      const response = await ask(address(path, params), heeding(signal));
      if (!isFirst) on("again", {});
      wait = 500;
      return await events(response, on);
    } catch (error) {
      if (signal?.aborted || !(error instanceof Failure) || (error.status !== 0 && error.status !== 503)) throw error;
      on("lost", {});
    }
    await pause(wait, signal);
    wait = Math.min(8000, 2 * wait);
  }
}

/** Do something again as long as the server is busy (503), each time after a longer wait. */
export async function patiently<T>(act: () => Promise<T>, signal?: AbortSignal): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await act();
    } catch (error) {
      const isBusy = error instanceof Failure && error.status === 503;
      if (!isBusy || attempt >= MOST_AGAIN) throw error;
    }
    await pause(200 * 2 ** attempt, signal);
  }
}

/** Wait for something that goes on for others as well, but no longer than the signal allows. */
export const heed = <T>(coming: Promise<T>, signal?: AbortSignal): Promise<T> =>
  new Promise((done, fail) => {
    const leave = (): void => fail(new DOMException("no longer wanted", "AbortError"));
    if (signal?.aborted) leave();
    signal?.addEventListener("abort", leave, { once: true });
    void coming.then(done, fail).finally(() => signal?.removeEventListener("abort", leave));
  });

export async function pause(milliseconds: number, signal?: AbortSignal): Promise<void> {
  let later: ReturnType<typeof setTimeout> | undefined;
  try {
    await heed(new Promise<void>((done) => (later = setTimeout(done, milliseconds))), signal);
  } finally {
    clearTimeout(later);
  }
}

async function events(response: Response, on: Told): Promise<void> {
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const read = await arriving(reader.read());
      if (read.done) return;
      const blocks = (rest + read.value.replaceAll("\r\n", "\n")).split("\n\n");
      rest = blocks.pop() ?? "";
      for (const block of blocks) tell(block, on);
    }
  } catch (error) {
    reader.cancel().catch(() => {});
    throw error;
  }
}

function tell(block: string, on: Told): void {
  let name = "message";
  const data: string[] = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) name = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
  }
  if (!data.length) return;
  const told = JSON.parse(data.join("\n")) as { error?: string };
  if (name === "failed") throw new Failure(422, told.error ?? name);
  on(name, told);
}
