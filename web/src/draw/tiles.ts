// Where a plane's tiles come from: a matrix in memory, or an AttentionSource that is asked for what is looked at.

import { cut, type Grid, type Level, levelsFrom } from "../data/pool";
import type { AttentionSource, Kind } from "../data/types";
import type { Colours } from "./colour";

export const TILE = 256;
const KEPT = 320;

/** A square of cells, coloured; `exact` is false for a preview. */
export interface Painted {
  picture: HTMLCanvasElement;
  rows: number;
  columns: number;
  exact: boolean;
}

interface Entry {
  grid: Grid;
  exact: boolean;
  painted: Painted | null;
}

export abstract class Tiles {
  private entries = new Map<string, Entry>();
  protected colours: Colours;
  onchange: () => void = () => {};
  onfail: (error: unknown) => void = () => {};

  constructor(readonly numRows: number, readonly numColumns: number, colours: Colours) {
    this.colours = colours;
  }

  /** The coarsest level: cells of 2 ** topLevel tokens. */
  get topLevel(): number {
    return Math.max(0, Math.ceil(Math.log2(Math.max(this.numRows, this.numColumns, 1) / TILE)));
  }

  recolour(colours: Colours): void {
    this.colours = colours;
    for (const entry of this.entries.values()) entry.painted = null;
    this.onchange();
  }

  /** The tile if it is there; otherwise null, and it is asked for if that is wanted. */
  tile(level: number, row: number, column: number, wanted = true): Painted | null {
    const name = `${level}.${row}.${column}`;
    const entry = this.entries.get(name);
    if (!entry) {
      if (wanted) this.want(level, row, column, name);
      const now = this.entries.get(name);
      return now ? this.paint(now) : null;
    }
    this.entries.delete(name);
    this.entries.set(name, entry); // used last, dropped last
    if (!entry.exact && wanted) this.want(level, row, column, name);
    return this.paint(entry);
  }

  /** The weight of a single cell where a tile of single weights is there. */
  valueAt(row: number, column: number): number | null {
    const entry = this.entries.get(`0.${Math.floor(row / TILE)}.${Math.floor(column / TILE)}`);
    if (!entry?.exact) return null;
    return entry.grid.values[(row % TILE) * entry.grid.columns + (column % TILE)] ?? null;
  }

  protected keep(name: string, grid: Grid, exact: boolean): void {
    this.entries.delete(name);
    this.entries.set(name, { grid, exact, painted: null });
    for (const old of this.entries.keys()) {
      if (this.entries.size <= KEPT) break;
      if (!old.startsWith(`${this.topLevel}.`)) this.entries.delete(old);
    }
  }

  protected abstract want(level: number, row: number, column: number, name: string): void;

  /** Say which tiles are looked at, so that others need not be worked out any more. */
  watch(_names: Set<string>): void {}

  close(): void {}

  private paint(entry: Entry): Painted {
    if (entry.painted) return entry.painted;
    const { rows, columns, values } = entry.grid;
    const picture = document.createElement("canvas");
    picture.width = Math.max(1, columns);
    picture.height = Math.max(1, rows);
    const context = picture.getContext("2d");
    if (context && rows && columns) {
      const image = new ImageData(columns, rows);
      this.colours.paint(values, new Uint32Array(image.data.buffer));
      context.putImageData(image, 0, 0);
    }
    entry.painted = { picture, rows, columns, exact: entry.exact };
    return entry.painted;
  }
}

/** Tiles of a matrix that is all there. */
export class GridTiles extends Tiles {
  private levels: Level[];

  constructor(readonly grid: Grid, kind: Kind, colours: Colours) {
    super(grid.rows, grid.columns, colours);
    this.levels = levelsFrom({ ...grid, cell: 1 }, grid.rows, grid.columns, kind);
  }

  override valueAt(row: number, column: number): number {
    return this.grid.values[row * this.grid.columns + column];
  }

  protected want(level: number, row: number, column: number, name: string): void {
    const grid = this.levels[level];
    if (!grid || row * TILE >= grid.rows || column * TILE >= grid.columns) return;
    this.keep(name, cut(grid, row * TILE, (row + 1) * TILE, column * TILE, (column + 1) * TILE), true);
  }
}

/** Tiles from a source, a sampled preview first where the exact tile takes long. */
export class SourceTiles extends Tiles {
  private asked = new Map<string, AbortController>();

  constructor(
    private source: AttentionSource, private layer: number, private head: number, private kind: Kind, colours: Colours,
  ) {
    super(source.meta.layers[layer].numRows, source.meta.layers[layer].numColumns, colours);
  }

  /** How many tiles are still being worked out. */
  get pending(): number {
    return this.asked.size;
  }

  protected want(level: number, row: number, column: number, name: string): void {
    if (this.asked.has(name)) return;
    const stop = new AbortController();
    this.asked.set(name, stop);
    void this.fetch(level, row, column, name, stop);
  }

  override watch(names: Set<string>): void {
    for (const [name, stop] of this.asked) {
      if (!names.has(name)) {
        stop.abort();
        this.asked.delete(name);
      }
    }
  }

  override close(): void {
    this.watch(new Set());
  }

  private async fetch(level: number, row: number, column: number, name: string, stop: AbortController): Promise<void> {
    const cell = 2 ** level;
    const span = cell * TILE;
    const region = {
      row0: row * span, row1: Math.min(this.numRows, (row + 1) * span), cell, kind: this.kind,
      column0: column * span, column1: Math.min(this.numColumns, (column + 1) * span),
    };
    try {
      for (const sampled of cell > 2 ? [true, false] : [false]) {
        const tile = await this.source.window(this.layer, this.head, { ...region, sampled }, stop.signal);
        if (stop.signal.aborted) return;
        this.keep(name, tile, tile.exact);
        this.onchange();
        if (tile.exact) break;
      }
    } catch (error) {
      if (stop.signal.aborted) return;
      this.onfail(error);
      return; // and not asked again at once
    } finally {
      if (this.asked.get(name) === stop) this.asked.delete(name);
    }
    this.onchange();
  }
}
