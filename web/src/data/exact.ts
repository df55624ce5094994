// Attention weights from what was kept of a layer: exp(cap(scale * q·k) + bias - normaliser) where a query may look,
// zero elsewhere. Or from the weights themselves where they are the smaller.

import type { Kind, Tile } from "./types";

export interface Arrays {
  numRows: number;
  numColumns: number;
  width: number;
  /** The key head that each head reads. */
  groups: number[];
  scale: number;
  softcap: number | null;
  weights: Float32Array | null;
  query: Float32Array | null;
  key: Float32Array | null;
  normaliser: Float32Array | null;
  /** The keys [lo, hi) of each query; null where each sees all. */
  spans: Int32Array | null;
  /** Added to the score of query i and key j, at j - i + numRows - 1 of the head's stretch. */
  bias: Float32Array | null;
}

/** Write weights of one row for the columns [from, to), every `step`-th, into out at `at`. */
export function rowInto(
  arrays: Arrays, head: number, row: number, from: number, to: number, step: number, out: Float32Array, at: number,
): void {
  const { numRows, numColumns, width, weights, query, key, normaliser, spans, bias, scale, softcap } = arrays;
  if (weights) {
    const start = (head * numRows + row) * numColumns;
    for (let j = from; j < to; j += step) out[at++] = weights[start + j];
    return;
  }
  if (!query || !key || !normaliser) throw new Error("neither weights nor queries and keys");
  const low = spans ? spans[2 * row] : 0;
  const high = spans ? spans[2 * row + 1] : numColumns;
  const norm = normaliser[head * numRows + row];
  const q = (head * numRows + row) * width;
  const keys = arrays.groups[head] * numColumns * width;
  const biases = bias ? head * (numRows + numColumns - 1) + numRows - 1 - row : 0;
  for (let j = from; j < to; j += step, at++) {
    if (j < low || j >= high || norm === -Infinity) {
      out[at] = 0;
      continue;
    }
    const k = keys + j * width;
    let a = 0, b = 0, c = 0, d = 0;
    let m = 0;
    for (; m + 3 < width; m += 4) {
      a += query[q + m] * key[k + m];
      b += query[q + m + 1] * key[k + m + 1];
      c += query[q + m + 2] * key[k + m + 2];
      d += query[q + m + 3] * key[k + m + 3];
    }
    for (; m < width; m++) a += query[q + m] * key[k + m];
    let score = scale * (a + b + c + d);
    if (softcap !== null) score = softcap * Math.tanh(score / softcap);
    if (bias) score += bias[biases + j];
    out[at] = Math.exp(score - norm);
  }
}

export function rowOf(arrays: Arrays, head: number, row: number): Float32Array {
  const out = new Float32Array(arrays.numColumns);
  rowInto(arrays, head, row, 0, arrays.numColumns, 1, out, 0);
  return out;
}

export function columnOf(arrays: Arrays, head: number, column: number): Float32Array {
  const out = new Float32Array(arrays.numRows);
  for (let i = 0; i < arrays.numRows; i++) rowInto(arrays, head, i, column, column + 1, 1, out, i);
  return out;
}

/**
 * Reduce a rectangle to square cells; yields between rows so that a caller may put it aside.
 *
 * A sampled window looks at about `probes` weights along each axis of a cell: its mean is an estimate and its maximum
 * a lower bound.
 */
export function* windowOf(
  arrays: Arrays, head: number, row0: number, row1: number, column0: number, column1: number, cell: number, kind: Kind,
  probes: number,
): Generator<void, Tile> {
  const rows = Math.ceil((row1 - row0) / cell);
  const columns = Math.ceil((column1 - column0) / cell);
  const values = new Float32Array(rows * columns);
  const step = probes > 0 ? Math.max(1, Math.floor(cell / probes)) : 1;
  const offset = step >> 1;
  const line = new Float32Array(Math.ceil((column1 - column0) / step));
  const isMax = kind === "max";
  for (let r = 0; r < rows; r++) {
    const last = Math.min(row1, row0 + (r + 1) * cell);
    let taken = 0;
    for (let i = Math.min(row0 + r * cell + offset, last - 1); i < last; i += step) {
      taken++;
      let count = 0;
      if (cell === 1) {
        rowInto(arrays, head, i, column0, column1, 1, values, r * columns);
      } else {
        const from = Math.min(column0 + offset, column1 - 1);
        rowInto(arrays, head, i, from, column1, step, line, 0);
        for (let j = from; j < column1; j += step, count++) {
          const at = r * columns + Math.floor((j - column0) / cell);
          if (isMax) values[at] = Math.max(values[at], line[count]);
          else values[at] += line[count];
        }
      }
      yield;
    }
    if (!isMax && cell > 1) {
      for (let c = 0; c < columns; c++) {
        const wide = Math.min(column1, column0 + (c + 1) * cell) - (column0 + c * cell);
        values[r * columns + c] /= taken * Math.max(1, Math.ceil((wide - offset) / step));
      }
    }
  }
  return { rows, columns, values, exact: step === 1 };
}
