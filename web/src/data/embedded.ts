// Attention that stands in the page itself, worked out in a worker made from a blob: nothing is fetched from anywhere.

import type { AttentionSource, Kind, Layer, Meta, Numbers, Region, Side, Tile } from "./types";
import { type Ask, Calculator, type PackedLayer } from "./worker";
import CalculatorWorker from "./worker?worker&inline";

export interface Payload {
  version: 1;
  title: string;
  model: string;
  sides: Record<string, Side>;
  layers: (PackedLayer & { name: string; rows: string; columns: string; heads: number[]; error: number | null })[];
}

type Answer = Float32Array | Tile | Numbers | null;
type Waiting = { done: (answer: Answer) => void; fail: (error: Error) => void };

export class EmbeddedSource implements AttentionSource {
  readonly meta: Meta;
  private worker: Worker | null = null;
  private local: Calculator | null = null;
  private waiting = new Map<number, Waiting>();
  private count = 0;

  constructor(payload: Payload) {
    const { title, model, sides } = payload;
    this.meta = { title, model, sides, layers: payload.layers.map(layerOf) };
    try {
      this.worker = new CalculatorWorker();
      this.worker.onmessage = (event) => this.settle(event.data);
    } catch {
      this.local = new Calculator(); // a host that forbids workers: the same answers, in the page's own time
    }
    payload.layers.forEach((layer, place) => {
      const { name: _name, rows: _rows, columns: _columns, heads: _heads, error: _error, ...packed } = layer;
      void this.ask({ op: "load", layer: place, packed });
    });
  }

  row(layer: number, head: number, row: number): Promise<Float32Array> {
    return this.ask({ op: "row", layer, head, at: row }) as Promise<Float32Array>;
  }

  column(layer: number, head: number, column: number): Promise<Float32Array> {
    return this.ask({ op: "column", layer, head, at: column }) as Promise<Float32Array>;
  }

  window(layer: number, head: number, region: Region, signal?: AbortSignal): Promise<Tile> {
    return this.ask({ op: "window", layer, head, region }, signal) as Promise<Tile>;
  }

  overview(layer: number, head: number, size: number, kind: Kind): Promise<Tile> {
    return this.ask({ op: "overview", layer, head, size, kind }) as Promise<Tile>;
  }

  numbers(layer: number, head: number, row: number, column: number): Promise<Numbers | null> {
    return this.ask({ op: "numbers", layer, head, row, column }) as Promise<Numbers | null>;
  }

  close(): void {
    this.worker?.terminate();
  }

  private ask(ask: Ask, signal?: AbortSignal): Promise<Answer> {
    const id = ++this.count;
    if (this.local) return this.local.answer(id, ask);
    return new Promise((done, fail) => {
      this.waiting.set(id, { done, fail });
      this.worker?.postMessage({ id, ask });
      signal?.addEventListener("abort", () => {
        if (!this.waiting.delete(id)) return;
        this.worker?.postMessage({ id: ++this.count, ask: { op: "cancel", which: id } });
        fail(new DOMException("no longer wanted", "AbortError"));
      });
    });
  }

  private settle(message: { id: number; result: Answer; error?: string }): void {
    const waiting = this.waiting.get(message.id);
    this.waiting.delete(message.id);
    if (message.error) waiting?.fail(new Error(message.error));
    else waiting?.done(message.result);
  }
}

function layerOf(layer: Payload["layers"][number]): Layer {
  const { name, rows, columns, numRows, numColumns, heads, error } = layer;
  return { name, rows, columns, numRows, numColumns, heads, error, hasNumbers: Boolean(layer.query && layer.key) };
}
