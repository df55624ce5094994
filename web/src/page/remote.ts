// Attention that the server keeps: rows, columns and windows are asked for when they are looked at.

import { Failure, get, getFloats, heed, patiently, stream, wasStopped } from "./api";
import type { AttentionSource, Kind, Meta, Numbers, Region, Tile } from "../data/types";

/** Weights of a window up to which every one of them is asked for at once: some 5 ms of the server's time. */
const AT_ONCE = 2 ** 20;
/** Weights up to which the server works out a window by itself; a larger one waits for all of its head. */
const ALONE = 2 ** 24;
const KEPT = 256;
const LANES = 4; // a browser has six connections to a server, and rows and events need theirs
const SLOW_LANES = 1; // of these, for windows that take long: a preview never waits for them

type Packed = Omit<Numbers, "query" | "key"> & { query: number[]; key: number[] };

export class RemoteSource implements AttentionSource {
  private stop = new AbortController();
  private lines = new Map<string, Promise<Float32Array>>();
  private lanes = { all: new Lanes(LANES), slow: new Lanes(SLOW_LANES) };
  private whole: { name: string; stop: AbortController; done: Promise<void> } | null = null;
  /** Told how far the exact picture of a head is, 0 to 1, and null when nothing is being worked out. */
  onprogress: (share: number | null) => void = () => {};
  /** Told when the server doesn't hold this look any more. */
  onlost: () => void = () => {};

  constructor(readonly id: string, readonly meta: Meta) {}

  row(layer: number, head: number, row: number): Promise<Float32Array> {
    return this.line("row", { layer, head, row });
  }

  column(layer: number, head: number, column: number): Promise<Float32Array> {
    return this.line("column", { layer, head, column });
  }

  /** A window; an exact one of a large part waits until all of the head has been worked out. */
  async window(layer: number, head: number, region: Region, signal?: AbortSignal): Promise<Tile> {
    const size = (region.row1 - region.row0) * (region.column1 - region.column0);
    const isSampled = region.sampled && region.cell > 1 && size > AT_ONCE;
    const isLarge = region.cell > 1 && size > ALONE;
    if (isLarge && !region.sampled) await this.pyramid(layer, head, signal);
    const both = signal ? AbortSignal.any([signal, this.stop.signal]) : this.stop.signal;
    const asked = { id: this.id, layer, head, ...region, sampled: isSampled ? 1 : 0 };
    const ask = async (): Promise<Tile> => {
      const { values, headers } = await this.lanes.all.take(both, () => this.ask("/api/looks/window", asked, both));
      const [rows, columns] = [Number(headers.get("X-Rows")), Number(headers.get("X-Columns"))];
      return { rows, columns, values, exact: headers.get("X-Exact") === "1" };
    };
    return !isSampled && !isLarge && size > AT_ONCE ? this.lanes.slow.take(both, ask) : ask();
  }

  overview(layer: number, head: number, size: number, kind: Kind): Promise<Tile> {
    const { numRows, numColumns } = this.meta.layers[layer];
    const cell = 2 ** Math.max(0, Math.ceil(Math.log2(Math.max(numRows, numColumns) / size)));
    return this.window(layer, head, { row0: 0, row1: numRows, column0: 0, column1: numColumns, cell, kind, sampled: true });
  }

  async numbers(layer: number, head: number, row: number, column: number): Promise<Numbers | null> {
    const found = await get<Packed>("/api/looks/numbers", { id: this.id, layer, head, row, column }, this.stop.signal);
    return { ...found, query: Float32Array.from(found.query), key: Float32Array.from(found.key) };
  }

  close(): void {
    this.stop.abort();
    this.whole?.stop.abort();
  }

  private line(what: "row" | "column", at: Record<string, number>): Promise<Float32Array> {
    const name = [what, ...Object.values(at)].join(".");
    let found = this.lines.get(name);
    if (!found) {
      found = this.ask(`/api/looks/${what}`, { id: this.id, ...at }, this.stop.signal).then(({ values }) => values);
      found.catch(() => this.lines.delete(name));
      this.lines.set(name, found);
      for (const old of this.lines.keys()) if (this.lines.size > KEPT) this.lines.delete(old);
    }
    return found;
  }

  private async ask(path: string, params: Record<string, string | number>, signal: AbortSignal): ReturnType<typeof getFloats> {
    try {
      return await patiently(() => getFloats(path, params, signal), signal);
    } catch (error) {
      if (error instanceof Failure && error.status === 404) this.onlost();
      throw error;
    }
  }

  /** Have the server work out a head once and for all; one head at a time, the one that is looked at. */
  private async pyramid(layer: number, head: number, signal?: AbortSignal): Promise<void> {
    const name = `${layer}.${head}`;
    if (this.whole?.name !== name) {
      this.whole?.stop.abort();
      const stop = new AbortController();
      const done = patiently(() => stream("/api/looks/pyramid", { id: this.id, layer, head }, (event, told: { done: number; total: number }) => {
        if (event === "progress" && !stop.signal.aborted) this.onprogress(told.done / Math.max(1, told.total));
      }, stop.signal), stop.signal);
      const own = { name, stop, done };
      this.whole = own;
      done.catch((error) => {
        if (this.whole === own) this.whole = null;
        if (error instanceof Failure && error.status === 404) this.onlost();
      }).finally(() => {
        if (this.whole === own || !this.whole) this.onprogress(null);
      });
    }
    try {
      await heed(this.whole.done, signal);
    } catch (error) {
      if (wasStopped(error) && !signal?.aborted) throw new DOMException("another head is looked at", "AbortError");
      throw error;
    }
  }
}

/** So many at a time; whoever is called off leaves the line. */
class Lanes {
  private waiting = new Set<() => void>();

  constructor(private free: number) {}

  async take<T>(signal: AbortSignal, act: () => Promise<T>): Promise<T> {
    await this.turn(signal);
    try {
      return await act();
    } finally {
      const [next] = this.waiting;
      if (next) next();
      else this.free++;
    }
  }

  private async turn(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.free > 0) {
      this.free--;
      return;
    }
    await new Promise<void>((go, stop) => {
      const leave = (): void => {
        this.waiting.delete(next);
        stop(signal.reason);
      };
      const next = (): void => {
        this.waiting.delete(next);
        signal.removeEventListener("abort", leave);
        go();
      };
      this.waiting.add(next);
      signal.addEventListener("abort", leave, { once: true });
    });
  }
}
