// Coarser pictures from finer ones. A cell at the edge stands for fewer weights, so each axis carries its counts.

import type { Kind } from "./types";

export interface Grid {
  rows: number;
  columns: number;
  values: Float32Array;
}

export interface Level extends Grid {
  cell: number;
}

/** How many tokens cell k of `cell` tokens holds on an axis of `length`. */
const held = (k: number, cell: number, length: number): number => Math.min(length, (k + 1) * cell) - k * cell;

/** Halve a level along both axes. */
export function halve(fine: Level, numRows: number, numColumns: number, kind: Kind): Level {
  const rows = Math.ceil(fine.rows / 2);
  const columns = Math.ceil(fine.columns / 2);
  const cell = fine.cell * 2;
  const values = new Float32Array(rows * columns);
  const isMax = kind === "max";
  const { values: from, columns: wide } = fine;
  // All cells but those of the last row and column stand for as many weights as any other.
  for (let r = 0; r < rows - 1; r++) {
    for (let c = 0; c < columns - 1; c++) {
      const at = 2 * r * wide + 2 * c;
      const [p, q, s, t] = [from[at], from[at + 1], from[at + wide], from[at + wide + 1]];
      values[r * columns + c] = isMax ? Math.max(p, q, s, t) : (p + q + s + t) / 4;
    }
  }
  const edge = (r: number, c: number): void => {
    let sum = 0;
    let count = 0;
    for (let i = 2 * r; i < Math.min(2 * r + 2, fine.rows); i++) {
      for (let j = 2 * c; j < Math.min(2 * c + 2, wide); j++) {
        const value = from[i * wide + j];
        const weight = held(i, fine.cell, numRows) * held(j, fine.cell, numColumns);
        sum = isMax ? Math.max(sum, value) : sum + weight * value;
        count += weight;
      }
    }
    values[r * columns + c] = isMax ? sum : sum / Math.max(1, count);
  };
  for (let r = 0; r < rows; r++) edge(r, columns - 1);
  for (let c = 0; c < columns - 1; c++) edge(rows - 1, c);
  return { rows, columns, values, cell };
}

/** All levels above one, down to a single cell. */
export function levelsFrom(finest: Level, numRows: number, numColumns: number, kind: Kind): Level[] {
  const levels = [finest];
  let level = finest;
  while (level.rows > 1 || level.columns > 1) {
    level = halve(level, numRows, numColumns, kind);
    levels.push(level);
  }
  return levels;
}

export function cut(grid: Grid, row0: number, row1: number, column0: number, column1: number): Grid {
  const rows = Math.min(row1, grid.rows) - row0;
  const columns = Math.min(column1, grid.columns) - column0;
  const values = new Float32Array(rows * columns);
  for (let r = 0; r < rows; r++) {
    const start = (row0 + r) * grid.columns;
    values.set(grid.values.subarray(start + column0, start + column0 + columns), r * columns);
  }
  return { rows, columns, values };
}
