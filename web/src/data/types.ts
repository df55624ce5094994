// What the component knows of the attention that it shows. It asks an AttentionSource and never cares where the
// numbers come from: from the page itself, from a server, or from a notebook's kernel.

export type Kind = "mean" | "max";

/** A text as the model reads it. */
export interface Side {
  name: string;
  tokens: string[];
  /** Places of the tokens that follow the one before without a blank. */
  joined: number[];
  /** Places of the tokens that the tokenizer added. */
  special: number[];
  words: Words;
}

/** The words of a side: word w is the tokens [first[w], last[w]). */
export interface Words {
  text: string[];
  first: number[];
  last: number[];
  special: number[];
}

/** One layer's attention: rows are the tokens that look, columns those that are looked at. */
export interface Layer {
  name: string;
  rows: string;
  columns: string;
  numRows: number;
  numColumns: number;
  /** The number by which each head that is here is called. */
  heads: number[];
  /** Whether a weight can be taken apart into query, key and product. */
  hasNumbers: boolean;
  /** Largest difference between the weights here and those that the model computed; null where unknown. */
  error: number | null;
}

export interface Meta {
  title: string;
  model: string;
  sides: Record<string, Side>;
  layers: Layer[];
}

/** A rectangle of the matrix in square cells, row by row. */
export interface Tile {
  rows: number;
  columns: number;
  values: Float32Array;
  /** False where only some of each cell's weights were looked at. */
  exact: boolean;
}

export interface Region {
  row0: number;
  row1: number;
  column0: number;
  column1: number;
  /** Tokens per cell, along both axes. */
  cell: number;
  kind: Kind;
  /** Whether a sampled answer is good enough. */
  sampled: boolean;
}

/** Everything that makes one weight. */
export interface Numbers {
  query: Float32Array;
  key: Float32Array;
  scale: number;
  softcap: number | null;
  bias: number | null;
  normaliser: number;
  visible: boolean;
}

/** A cell in tokens: pointed at, or selected where it is kept. */
export interface Spot {
  row: number;
  column: number;
  kept: boolean;
}

/** Where attention comes from. Layers and heads are places in `meta`, not names; rejections are shown to the reader. */
export interface AttentionSource {
  readonly meta: Meta;
  row(layer: number, head: number, row: number): Promise<Float32Array>;
  column(layer: number, head: number, column: number): Promise<Float32Array>;
  window(layer: number, head: number, region: Region, signal?: AbortSignal): Promise<Tile>;
  /** The whole of a head in at most `size` cells along each axis. */
  overview(layer: number, head: number, size: number, kind: Kind): Promise<Tile>;
  numbers(layer: number, head: number, row: number, column: number): Promise<Numbers | null>;
  close(): void;
}
