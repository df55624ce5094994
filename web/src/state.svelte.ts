// What the reader looks at, and the numbers for it. The views read this and draw.

import type { Grid } from "./data/pool";
import type { AttentionSource, Layer, Side } from "./data/types";
import { type Choice, fold, foldRow, foldColumn, top, type Unit, unitAt, unitsOf } from "./data/units";
import { Colours, type Ink, INKS, type Theme } from "./draw/colour";
import { label } from "./draw/text";
import type { Cell } from "./draw/plane";
import type { Place, View } from "./hash";
import { say } from "./messages";

/** Weights that are held as one matrix; beyond it rows and tiles are asked for one by one. */
export const WHOLE = 6_600_000;
const GRIDS = 24_000_000;

export class LookState {
  view = $state<View>("matrix");
  layer = $state(0);
  head = $state(0);
  /** The selected tokens. */
  row = $state(0);
  column = $state(0);
  words = $state(true);
  hideSpecial = $state(false);
  hideFirst = $state(false);
  renormalise = $state(false);
  scale = $state<"linear" | "log">("linear");
  kind = $state<"mean" | "max">("mean");
  theme = $state<"auto" | Theme>("auto");
  systemDark = $state(false);
  reverse = $state(false);
  table = $state(false);
  /** The units under the pointer; what is selected where there are none. */
  hover = $state.raw<Cell | null>(null);
  grid = $state.raw<Grid | null>(null);
  line = $state.raw<{ row: number; values: Float32Array } | null>(null);
  /** A cell that is to be brought into view and made large enough to be read. */
  goal = $state.raw<Cell | null>(null);
  failure = $state("");
  /** Whether somebody chose a column; until then it is what the row attends to most. */
  private isChosen = false;

  constructor(readonly source: AttentionSource) {
    const { layers } = source.meta;
    // In a long text most weights are tiny, and the few that aren't would drown in a mean.
    const longest = Math.max(...layers.map((layer) => Math.max(layer.numRows, layer.numColumns)));
    if (longest > 256) [this.scale, this.kind] = ["log", "max"];
    this.row = layers[0].numRows >> 1;
    this.column = Math.min(this.row, layers[0].numColumns - 1);
  }

  at: Layer = $derived.by(() => this.source.meta.layers[this.layer]);
  isWhole = $derived(this.at.numRows * this.at.numColumns <= WHOLE);
  isCross = $derived(this.at.rows !== this.at.columns);
  rowSide: Side = $derived.by(() => this.source.meta.sides[this.at.rows]);
  columnSide: Side = $derived.by(() => this.source.meta.sides[this.at.columns]);
  choice: Choice = $derived({
    words: this.words && this.isWhole,
    hideSpecial: this.hideSpecial && this.isWhole,
    hideFirst: this.hideFirst && this.isWhole,
    renormalise: this.renormalise && this.isWhole,
  });
  rowUnits: Unit[] = $derived.by(() => this.unitsFor(this.rowSide));
  columnUnits: Unit[] = $derived.by(() => this.unitsFor(this.columnSide));
  rowLabels: string[] = $derived.by(() => this.rowUnits.map((unit) => label(unit.text)));
  columnLabels: string[] = $derived.by(() => this.columnUnits.map((unit) => label(unit.text)));
  shade: Theme = $derived(this.theme === "auto" ? (this.systemDark ? "dark" : "light") : this.theme);
  ink: Ink = $derived.by(() => INKS[this.shade]);
  colours: Colours = $derived.by(() => {
    const low = Math.min(1e-3, 0.05 / Math.max(this.at.numColumns, 1));
    return new Colours(this.shade, this.scale, low, 1);
  });
  selected: Cell = $derived.by(() => ({
    row: unitAt(this.rowUnits, this.row),
    column: unitAt(this.columnUnits, this.column),
  }));
  active: Cell = $derived(this.hover ?? this.selected);
  /** The row that is pointed at, unit by unit; null until it is known. */
  values: Float32Array | null = $derived.by(() => {
    const { row } = this.active;
    if (this.grid && row < this.grid.rows) {
      return this.grid.values.subarray(row * this.grid.columns, (row + 1) * this.grid.columns);
    }
    return this.line?.row === row ? this.line.values : null;
  });
  caption: string = $derived.by(() => {
    const { caption } = say;
    const parts = [caption.head(this.at.name, this.at.heads[this.head])];
    parts.push(this.choice.words ? caption.words : caption.tokens);
    const hidden = [this.choice.hideSpecial && caption.special, this.choice.hideFirst && caption.first];
    const names = hidden.filter((name) => name !== false);
    if (names.length) parts.push(caption.hidden(names.join(caption.and)));
    if (this.choice.renormalise) parts.push(caption.renormalised);
    else if (names.length) parts.push(caption.notRenormalised);
    if (this.at.error !== null) parts.push(caption.error(this.at.error === 0 ? "0" : this.at.error.toExponential(0)));
    return `${parts.join("; ")}.`;
  });

  place(): Place {
    const { view, layer, head, row, column, words, hideSpecial, hideFirst, renormalise, scale, kind } = this;
    return { view, layer, head, row, column, words, hideSpecial, hideFirst, renormalise, scale, kind };
  }

  go(place: Partial<Place>): void {
    Object.assign(this, place);
    if (place.column !== undefined) this.isChosen = true;
    this.head = Math.min(this.head, this.at.heads.length - 1);
    this.row = Math.min(this.row, this.at.numRows - 1);
    this.column = Math.min(this.column, this.at.numColumns - 1);
    this.hover = null;
  }

  select(cell: Cell): void {
    const row = this.rowUnits[Math.min(this.rowUnits.length - 1, Math.max(0, cell.row))];
    const column = this.columnUnits[Math.min(this.columnUnits.length - 1, Math.max(0, cell.column))];
    if (row) this.row = row.first;
    if (column) this.column = column.first;
    this.isChosen = true;
  }

  /** Take in the matrix of the head, and begin at something that is worth a look. */
  take(grid: Grid): void {
    this.grid = grid;
    const { row } = this.selected;
    if (this.isChosen || row >= grid.rows) return;
    const best = top(grid.values.subarray(row * grid.columns, (row + 1) * grid.columns), 1)[0];
    if (best !== undefined) this.column = this.columnUnits[best].first;
  }

  /** The matrix of a head in the units that are shown, from the tokens' matrix, which is kept. */
  async gridOf(layer: number, head: number): Promise<Grid> {
    const { numRows, numColumns, rows, columns } = this.source.meta.layers[layer];
    const name = `${layer}.${head}`;
    let tokens = this.tokens.get(name);
    if (!tokens) {
      const whole = { row0: 0, row1: numRows, column0: 0, column1: numColumns };
      tokens = this.source.window(layer, head, { ...whole, cell: 1, kind: "mean", sampled: false });
      tokens.catch(() => this.tokens.delete(name));
      this.tokens.set(name, tokens);
      const kept = Math.max(2, Math.floor(GRIDS / (numRows * numColumns)));
      for (const old of this.tokens.keys()) if (this.tokens.size > kept) this.tokens.delete(old);
    }
    const { sides } = this.source.meta;
    return fold(await tokens, this.unitsFor(sides[rows]), this.unitsFor(sides[columns]), this.choice);
  }

  async lineOf(row: number): Promise<Float32Array> {
    const unit = this.rowUnits[row];
    const places = Array.from({ length: unit.last - unit.first }, (_, k) => unit.first + k);
    const rows = await Promise.all(places.map((i) => this.source.row(this.layer, this.head, i)));
    return foldRow(rows, this.columnUnits, this.choice);
  }

  async standingOf(column: number): Promise<Float32Array> {
    const { grid } = this;
    if (grid) return Float32Array.from({ length: grid.rows }, (_, r) => grid.values[r * grid.columns + column]);
    const unit = this.columnUnits[column];
    const places = Array.from({ length: unit.last - unit.first }, (_, k) => unit.first + k);
    const columns = await Promise.all(places.map((j) => this.source.column(this.layer, this.head, j)));
    return foldColumn(columns, this.rowUnits);
  }

  private tokens = new Map<string, Promise<Grid>>();
  private units = new Map<string, Unit[]>();

  private unitsFor(side: Side): Unit[] {
    const { words, hideSpecial, hideFirst } = this.choice;
    const name = `${side.name}.${words}.${hideSpecial}.${hideFirst}`;
    let units = this.units.get(name);
    if (!units) {
      units = unitsOf(side, this.choice);
      if (!units.length) units = unitsOf(side, { ...this.choice, hideSpecial: false, hideFirst: false });
      this.units.set(name, units);
    }
    return units;
  }
}
