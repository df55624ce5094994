// One look at a text: asked for, called off when another is wanted, and shown from the page itself or from the server.

import { EmbeddedSource, type Payload } from "../data/embedded";
import type { AttentionSource, Meta } from "../data/types";
import { get, sentence, stream, wasStopped } from "./api";
import { RemoteSource } from "./remote";
import type { Looked, Progress } from "./types";

export interface Asked {
  model: string;
  text: string;
  target?: string;
  file?: string;
  max_tokens?: number;
}

export class Looking {
  source = $state.raw<AttentionSource | null>(null);
  id = $state("");
  /** What the source shows. */
  asked = $state.raw<Asked | null>(null);
  tokens = $state.raw<Record<string, number>>({});
  isWhole = $state(true);
  isBusy = $state(false);
  /** How much has been done, 0 to 1, and how many wait before; null where nobody knows. */
  share = $state<number | null>(null);
  ahead = $state<number | null>(null);
  /** What is being done: reading, writing or checking. */
  what = $state("");
  problem = $state("");
  /** How far the exact picture of a head in a long text is. */
  exact = $state<number | null>(null);
  private stop: AbortController | null = null;

  /** Look at a text; what was being looked at is called off, and what is shown stays until the new one is there. */
  async look(asked: Asked): Promise<boolean> {
    this.cancel();
    const stop = new AbortController();
    this.stop = stop;
    [this.isBusy, this.share, this.ahead, this.problem] = [true, null, null, ""];
    this.what = "";
    try {
      let looked: Looked | undefined;
      await stream("/api/look", asked, (name, told: Looked & Progress & { ahead: number }) => {
        if (name === "queued") this.ahead = told.ahead;
        else if (name === "started") this.ahead = null;
        else if (name === "progress") [this.share, this.what] = [told.total ? told.done / told.total : null, told.what ?? ""];
        else if (name === "done") looked = told;
      }, stop.signal);
      const source = await this.fetch(looked!, asked, stop.signal);
      if (stop.signal.aborted) {
        source.close();
        return false;
      }
      this.source?.close();
      [this.source, this.id, this.asked, this.tokens, this.isWhole] = [source, looked!.id, asked, looked!.tokens, looked!.whole];
      return true;
    } catch (error) {
      if (!stop.signal.aborted && !wasStopped(error)) this.problem = sentence(error);
      return false;
    } finally {
      if (this.stop === stop) [this.stop, this.isBusy] = [null, false];
    }
  }

  private async fetch({ id, whole }: Looked, asked: Asked, signal: AbortSignal): Promise<AttentionSource> {
    if (whole) return new EmbeddedSource(await get<Payload>("/api/looks/payload", { id }, signal));
    const source = new RemoteSource(id, await get<Meta>("/api/looks/meta", { id }, signal));
    source.onprogress = (share) => (this.exact = share);
    let isAskedAgain = false;
    source.onlost = () => {
      if (isAskedAgain || this.source !== source || this.stop) return; // what is being looked at now takes its place
      isAskedAgain = true; // the server has begun anew, or has looked at much since
      void this.look(asked);
    };
    return source;
  }

  cancel(): void {
    this.stop?.abort();
    this.stop = null;
    this.isBusy = false;
  }

  close(): void {
    this.cancel();
    this.source?.close();
    [this.source, this.id, this.asked, this.exact, this.problem] = [null, "", null, null, ""];
  }
}
