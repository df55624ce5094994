// The page's own calculator: keeps what a layer left, and answers for rows, columns and windows in turn. A long window
// is put aside whenever something quicker is asked for.

import { floats, integers, type Packed } from "./decode";
import { type Arrays, columnOf, rowOf, windowOf } from "./exact";
import { cut, type Level, levelsFrom } from "./pool";
import type { Kind, Numbers, Region, Tile } from "./types";

export interface PackedLayer {
  numRows: number;
  numColumns: number;
  width: number;
  groups: number[];
  scale: number;
  softcap: number | null;
  weights?: Packed;
  query?: Packed;
  key?: Packed;
  normaliser?: Packed;
  spans?: Packed;
  bias?: Packed;
  /** For each head that has one: its finest level, mean and maximum. */
  pyramids?: Record<string, { cell: number; mean: Packed; max: Packed }>;
}

export type Ask =
  | { op: "load"; layer: number; packed: PackedLayer }
  | { op: "row" | "column"; layer: number; head: number; at: number }
  | { op: "window"; layer: number; head: number; region: Region }
  | { op: "overview"; layer: number; head: number; size: number; kind: Kind }
  | { op: "numbers"; layer: number; head: number; row: number; column: number }
  | { op: "cancel"; which: number };

interface Loaded {
  arrays: Arrays;
  pyramid(head: number, kind: Kind): Promise<Level[] | undefined>;
}

const SLICE_MS = 12;
const PROBES = 2;

export class Calculator {
  private packed = new Map<number, PackedLayer>();
  private layers = new Map<number, Promise<Loaded>>();
  private jobs: { id: number; cost: number; work: Generator<void, Tile>; done: (tile: Tile) => void }[] = [];
  private cancelled = new Set<number>();
  private running = false;

  async answer(id: number, ask: Ask): Promise<Float32Array | Tile | Numbers | null> {
    switch (ask.op) {
      case "load":
        this.packed.set(ask.layer, ask.packed);
        return null;
      case "cancel":
        this.jobs = this.jobs.filter((job) => job.id !== ask.which);
        this.cancelled.add(ask.which);
        return null;
    }
    const loaded = await this.layer(ask.layer);
    const { arrays } = loaded;
    switch (ask.op) {
      case "row":
        return rowOf(arrays, ask.head, ask.at);
      case "column":
        return columnOf(arrays, ask.head, ask.at);
      case "numbers":
        return numbersOf(arrays, ask.head, ask.row, ask.column);
      case "window":
        return this.window(id, loaded, ask.head, ask.region);
      case "overview": {
        const longest = Math.max(arrays.numRows, arrays.numColumns);
        const cell = 2 ** Math.max(0, Math.ceil(Math.log2(longest / ask.size)));
        const whole = { row0: 0, row1: arrays.numRows, column0: 0, column1: arrays.numColumns };
        return this.window(id, loaded, ask.head, { ...whole, cell, kind: ask.kind, sampled: cell > PROBES });
      }
    }
  }

  /** A layer is unpacked when it is first asked for. */
  private layer(place: number): Promise<Loaded> {
    let loaded = this.layers.get(place);
    if (!loaded) {
      const packed = this.packed.get(place);
      if (!packed) throw new Error(`no layer ${place}`);
      this.packed.delete(place);
      loaded = unpack(packed);
      this.layers.set(place, loaded);
    }
    return loaded;
  }

  private async window(id: number, loaded: Loaded, head: number, region: Region): Promise<Tile> {
    const { arrays } = loaded;
    const { cell, kind } = region;
    const row1 = Math.min(region.row1, arrays.numRows);
    const column1 = Math.min(region.column1, arrays.numColumns);
    const level = (await loaded.pyramid(head, kind))?.find((one) => one.cell === cell);
    if (level) {
      const [r0, r1] = [region.row0 / cell, Math.ceil(row1 / cell)];
      const [c0, c1] = [region.column0 / cell, Math.ceil(column1 / cell)];
      return { ...cut(level, r0, r1, c0, c1), exact: true };
    }
    if (this.cancelled.delete(id)) throw new Error("cancelled");
    const probes = region.sampled ? PROBES : 0;
    const work = windowOf(arrays, head, region.row0, row1, region.column0, column1, cell, kind, probes);
    const step = probes ? Math.max(1, Math.floor(cell / probes)) : 1;
    const cost = ((row1 - region.row0) / step) * ((column1 - region.column0) / step);
    return new Promise((done) => {
      this.jobs.push({ id, cost, work, done });
      if (!this.running) void this.run();
    });
  }

  private async run(): Promise<void> {
    this.running = true;
    while (this.jobs.length) {
      // The cheapest first, and of equals the one asked last: what the reader looks at now.
      let job = this.jobs[0];
      for (const other of this.jobs) if (other.cost <= job.cost) job = other;
      const until = performance.now() + SLICE_MS;
      let step = job.work.next();
      while (!step.done && performance.now() < until) step = job.work.next();
      if (step.done) {
        this.jobs = this.jobs.filter((other) => other !== job);
        job.done(step.value);
      }
      await new Promise((next) => setTimeout(next));
    }
    this.running = false;
  }
}

async function unpack(packed: PackedLayer): Promise<Loaded> {
  const { numRows, numColumns, width, groups, scale, softcap } = packed;
  const get = (part?: Packed): Promise<Float32Array> | null => (part ? floats(part) : null);
  const arrays: Arrays = {
    numRows, numColumns, width, groups, scale, softcap,
    weights: await get(packed.weights),
    query: await get(packed.query),
    key: await get(packed.key),
    normaliser: await get(packed.normaliser),
    spans: packed.spans ? await integers(packed.spans) : null,
    bias: await get(packed.bias),
  };
  const pyramids = new Map<string, Promise<Level[]>>();
  const grow = async (head: number, kind: Kind): Promise<Level[]> => {
    const { cell, ...kinds } = packed.pyramids![head];
    const [rows, columns] = [Math.ceil(numRows / cell), Math.ceil(numColumns / cell)];
    return levelsFrom({ rows, columns, cell, values: await floats(kinds[kind]) }, numRows, numColumns, kind);
  };
  return {
    arrays,
    async pyramid(head, kind) {
      if (!packed.pyramids?.[head]) return undefined;
      const name = `${head}.${kind}`;
      if (!pyramids.has(name)) pyramids.set(name, grow(head, kind));
      return pyramids.get(name);
    },
  };
}

function numbersOf(arrays: Arrays, head: number, row: number, column: number): Numbers | null {
  const { query, key, normaliser, width, numRows, numColumns, bias, spans } = arrays;
  if (!query || !key || !normaliser) return null;
  const q = (head * numRows + row) * width;
  const k = (arrays.groups[head] * numColumns + column) * width;
  return {
    query: query.slice(q, q + width),
    key: key.slice(k, k + width),
    scale: arrays.scale,
    softcap: arrays.softcap,
    bias: bias ? bias[head * (numRows + numColumns - 1) + column - row + numRows - 1] : null,
    normaliser: normaliser[head * numRows + row],
    visible: !spans || (column >= spans[2 * row] && column < spans[2 * row + 1]),
  };
}

declare const WorkerGlobalScope: (new () => object) | undefined;

if (typeof WorkerGlobalScope !== "undefined" && self instanceof WorkerGlobalScope) {
  const calculator = new Calculator();
  self.onmessage = async (event: MessageEvent<{ id: number; ask: Ask }>) => {
    const { id, ask } = event.data;
    try {
      self.postMessage({ id, result: await calculator.answer(id, ask) });
    } catch (error) {
      self.postMessage({ id, error: String(error) });
    }
  };
}
