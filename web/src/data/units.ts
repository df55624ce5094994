// What a matrix is drawn of: tokens or words, with or without those that a reader hides.

import type { Grid } from "./pool";
import type { Side } from "./types";

export interface Choice {
  words: boolean;
  hideSpecial: boolean;
  hideFirst: boolean;
  renormalise: boolean;
}

/** One label of an axis: the tokens [first, last). */
export interface Unit {
  text: string;
  first: number;
  last: number;
  special: boolean;
  /** Whether blank space stands before it in the text. */
  spaced: boolean;
}

export function unitsOf(side: Side, choice: Choice): Unit[] {
  const units: Unit[] = [];
  const special = new Set(choice.words ? side.words.special : side.special);
  const joined = new Set(side.joined);
  const count = choice.words ? side.words.text.length : side.tokens.length;
  for (let k = 0; k < count; k++) {
    const first = choice.words ? side.words.first[k] : k;
    const last = choice.words ? side.words.last[k] : k + 1;
    const isSpecial = special.has(k);
    if ((choice.hideSpecial && isSpecial) || (choice.hideFirst && first === 0)) continue;
    const text = choice.words ? side.words.text[k] : side.tokens[k];
    units.push({ text, first, last, special: isSpecial, spaced: first > 0 && !joined.has(first) });
  }
  return units;
}

/** The unit that holds a token, or the next one that is shown. */
export function unitAt(units: Unit[], token: number): number {
  let low = 0;
  let high = units.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (units[middle].last > token) high = middle;
    else low = middle + 1;
  }
  return Math.max(0, low);
}

const isPlain = (units: Unit[], length: number): boolean =>
  units.length === length && units.every((unit, k) => unit.first === k && unit.last === k + 1);

/** Sum a row of tokens over the pieces of each column's unit. */
export function foldColumns(row: Float32Array, columns: Unit[], out: Float32Array, at = 0): void {
  columns.forEach((unit, c) => {
    let sum = 0;
    for (let j = unit.first; j < unit.last; j++) sum += row[j];
    out[at + c] += sum;
  });
}

function renormalise(values: Float32Array, from: number, to: number): void {
  let total = 0;
  for (let k = from; k < to; k++) total += values[k];
  if (total > 0) for (let k = from; k < to; k++) values[k] /= total;
}

/** From tokens to units: the sum over a unit's columns, the mean over its rows. */
export function fold(tokens: Grid, rows: Unit[], columns: Unit[], choice: Choice): Grid {
  if (isPlain(rows, tokens.rows) && isPlain(columns, tokens.columns) && !choice.renormalise) return tokens;
  const values = new Float32Array(rows.length * columns.length);
  rows.forEach((unit, r) => {
    const start = r * columns.length;
    for (let i = unit.first; i < unit.last; i++) {
      foldColumns(tokens.values.subarray(i * tokens.columns, (i + 1) * tokens.columns), columns, values, start);
    }
    const count = unit.last - unit.first;
    if (count > 1) for (let c = 0; c < columns.length; c++) values[start + c] /= count;
    if (choice.renormalise) renormalise(values, start, start + columns.length);
  });
  return { rows: rows.length, columns: columns.length, values };
}

/** One unit's row from the rows of its tokens. */
export function foldRow(tokenRows: Float32Array[], columns: Unit[], choice: Choice): Float32Array {
  const values = new Float32Array(columns.length);
  for (const row of tokenRows) foldColumns(row, columns, values);
  for (let c = 0; c < values.length; c++) values[c] /= tokenRows.length;
  if (choice.renormalise) renormalise(values, 0, values.length);
  return values;
}

/** One unit's column from the columns of its tokens; never renormalised, since it is no distribution. */
export function foldColumn(tokenColumns: Float32Array[], rows: Unit[]): Float32Array {
  const values = new Float32Array(rows.length);
  rows.forEach((unit, r) => {
    for (const column of tokenColumns) for (let i = unit.first; i < unit.last; i++) values[r] += column[i];
    values[r] /= unit.last - unit.first;
  });
  return values;
}

/** The places of the largest values, largest first. */
export function top(values: Float32Array, count: number, least = 0): number[] {
  const places: number[] = [];
  for (let k = 0; k < values.length; k++) {
    if (!(values[k] > least)) continue;
    if (places.length === count && values[k] <= values[places[count - 1]]) continue;
    let at = places.length;
    while (at > 0 && values[places[at - 1]] < values[k]) at--;
    places.splice(at, 0, k);
    if (places.length > count) places.pop();
  }
  return places;
}
