// One text being written: what was asked, and all that the server has told of it so far.

import { sentence, stream, wasStopped } from "../../api";
import { counted } from "../read/marks";
import { floatsOf, type Piece, type Seen } from "./align";
import type { Node } from "./tree";

export interface Message {
  role: "system" | "user" | "assistant";
  content: string;
}

/** What is asked of POST /api/write; the rest is added here. */
export interface Asked {
  model: string;
  verb: string;
  text?: string;
  messages?: Message[];
  beams?: number;
  temperature?: number;
  top_k?: number;
  top_p?: number;
  min_p?: number;
  max_tokens?: number;
  seed?: number;
  length_penalty?: number;
  source_language?: string;
  target_language?: string;
  alternatives?: number;
  attention?: boolean;
}

export interface Alternative {
  id: number;
  text: string;
  logprob: number;
}

export interface Token extends Alternative {
  /** The characters of the text that it made certain; none while a character of several tokens is not whole. */
  delta: string;
  alternatives: Alternative[];
  seen: Seen | null;
  /** Whether it ends the text, of which it is no part. */
  end: boolean;
}

export interface Result {
  text: string;
  score: number | null;
  tokens: number;
  prompt_tokens: number;
  finished: boolean;
  candidates: { text: string; score: number }[];
  ids: number[];
}

export type Phase = "idle" | "waiting" | "running" | "done" | "stopped" | "failed";

// Between two looks of the page at what has come; a longer text takes longer to be drawn.
const FRAME_MS = 16;

export class Writing {
  phase = $state<Phase>("idle");
  ahead = $state(0);
  problem = $state("");
  /** What the answer is to. */
  asked = $state.raw<Asked | null>(null);
  source = $state.raw<Piece[]>([]);
  tokens = $state.raw<Token[]>([]);
  nodes = $state.raw<Node[]>([]);
  best = $state.raw<number[]>([]);
  step = $state(0);
  alive = $state(0);
  result = $state.raw<Result | null>(null);

  isBusy = $derived(this.phase === "waiting" || this.phase === "running");
  /** The text so far, and each token's characters in it. */
  text: string = $derived.by(() => this.tokens.map((token) => token.delta).join(""));
  pieces: Piece[] = $derived.by(() => {
    let end = 0;
    const pieces = this.tokens.map(({ text, delta }) => ({ text, start: end, end: (end += delta.length) }));
    // A token of a character that others make whole stands where these do.
    for (let k = pieces.length - 2; k >= 0; k--) if (pieces[k].start === pieces[k].end && !this.tokens[k].end) pieces[k].end = pieces[k + 1].end;
    return pieces;
  });

  private controller: AbortController | null = null;
  private list: Token[] = [];
  /** How many of the list were kept from before, and how many the server has told. */
  private kept = 0;
  private told = 0;
  private grown: Node[] = [];
  private later: ReturnType<typeof setTimeout> | undefined;

  /** Begin anew, behind tokens that are kept; what was being written before is called off. */
  async start(asked: Asked, kept: Token[] = []): Promise<void> {
    this.controller?.abort();
    const controller = (this.controller = new AbortController());
    this.asked = asked;
    [this.list, this.grown] = [[...kept], []];
    [this.kept, this.told] = [kept.length, 0];
    this.tokens = this.list;
    [this.nodes, this.best, this.step, this.alive] = [[], [], 0, 0];
    [this.result, this.problem, this.ahead] = [null, "", 0];
    this.phase = "waiting";
    const body = kept.length ? { ...asked, kept: kept.map(({ id }) => id) } : asked;
    try {
      await stream("/api/write", body, (name, data) => { if (this.controller === controller) this.hear(name, data); }, controller.signal);
      if (this.controller === controller && this.isBusy) this.phase = "stopped";
    } catch (error) {
      if (this.controller !== controller) return;
      if (wasStopped(error) || controller.signal.aborted) this.phase = "stopped";
      else [this.phase, this.problem] = ["failed", sentence(error)];
    } finally {
      if (this.controller === controller) this.flush();
    }
  }

  /** Stop; what was written stays. */
  stop(): void {
    this.controller?.abort();
    if (this.isBusy) this.phase = "stopped";
    this.flush();
  }

  /** Stop and forget. */
  clear(): void {
    this.controller?.abort();
    this.controller = null;
    this.list = [];
    this.tokens = this.list;
    [this.nodes, this.best, this.source] = [[], [], []];
    [this.result, this.problem, this.asked, this.phase] = [null, "", null, "idle"];
  }

  // The events of a stream differ by their names.
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  private hear(name: string, data: any): void {
    if (name === "queued") this.ahead = data.ahead;
    else if (name === "started") this.phase = "running";
    else if (name === "source") {
      // The server counts characters, the page halves of UTF-16 pairs.
      const at = counted(this.asked?.text ?? "");
      this.source = data.tokens.map((one: Piece) => ({ text: one.text, start: at(one.start), end: at(one.end) }));
    }
    else if (name === "token") {
      const { id, text, logprob, alternatives, attention, end } = data;
      const seen = attention ? { ...attention, values: floatsOf(attention.values) } : null;
      if (!data.kept) this.told = Math.max(this.told, this.kept);
      this.list[this.told++] = { id, text, logprob, delta: "", alternatives: alternatives ?? [], seen, end: end === true };
      this.soon();
    } else if (name === "text") {
      // What was held back until the end comes before or after the end token, which has no text of its own.
      const at = this.told - (this.list[this.told - 1]?.end ? 2 : 1);
      const last = this.list[at];
      if (last) this.list[at] = { ...last, delta: last.delta + data.text };
      this.soon();
    } else if (name === "beams") {
      this.step = data.step;
      this.alive = data.alive.length;
      for (const one of data.alive) this.grown.push({ ...one, logprob: NaN, step: data.step, end: false });
      this.soon();
    } else if (name === "tree") {
      this.grown = data.nodes;
      this.best = data.best;
      this.soon();
    } else if (name === "done") {
      this.flush();
      this.result = data;
      this.phase = "done";
    }
  }

  private soon(): void {
    this.later ??= setTimeout(() => this.flush(), FRAME_MS + this.list.length / 10);
  }

  private flush(): void {
    clearTimeout(this.later);
    this.later = undefined;
    this.tokens = [...this.list];
    if (this.grown.length) this.nodes = [...this.grown];
  }
}
