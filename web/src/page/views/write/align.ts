// Words made of tokens, and the attention between them.

/** A word: its text, the tokens [first, last) that make it, and whether it is a mark or a token that stands around a text. */
export interface Word {
  text: string;
  first: number;
  last: number;
  /** What stands between it and the word before, as the text has it. */
  gap: string;
  minor: boolean;
}

export interface Piece {
  text: string;
  start: number;
  end: number;
}

const ELIDED = /(?:^|[^\p{L}\p{M}])(?:[cdjlmnst]|\p{L}*qu)['’]$/iu;
const LETTER = /[\p{L}\p{M}\p{N}]/u;

/** Where a word ends between two characters: at a blank, at a mark, and after a French elision (qu’ | il). */
function parts(before: string, after: string): boolean {
  const [last, first] = [[...before.slice(-2)].at(-1) ?? "", [...after.slice(0, 2)][0] ?? ""];
  if (/\s/u.test(last) || /\s/u.test(first)) return true;
  if (/['’]/.test(last) && LETTER.test(first)) return ELIDED.test(before.slice(-40));
  if (/['’-]/.test(first) && LETTER.test(last)) return !LETTER.test([...after.slice(1, 3)][0] ?? "") && !/['’]/.test(first);
  if (/-/.test(last) && LETTER.test(first)) return false;
  return LETTER.test(last) !== LETTER.test(first) || (!LETTER.test(last) && last !== first);
}

/** Join tokens that share a word; a token without characters of its own stands alone. */
export function wordsOf(text: string, pieces: Piece[], special: (place: number) => string): Word[] {
  const words: Word[] = [];
  let end = 0;
  pieces.forEach((piece, k) => {
    let { start } = piece;
    while (start < piece.end && /\s/u.test(text[start])) start++;
    if (start >= piece.end && piece.end > piece.start) start = piece.start;
    const own = text.slice(start, piece.end);
    if (piece.end <= piece.start) {
      words.push({ text: special(k), first: k, last: k + 1, gap: "", minor: true });
      return;
    }
    const word = words.at(-1);
    // Tokens may overlap: two that share a character of many bytes have the same span.
    const overlaps = start < end;
    if (word && !(word.minor && word.gap === "" && pieces[word.first].end <= pieces[word.first].start) && (overlaps || !parts(text.slice(Math.max(0, end - 40), start), text.slice(start, start + 4)))) {
      if (piece.end > end) word.text += text.slice(Math.max(end, start), piece.end);
      word.last = k + 1;
      word.minor &&= !LETTER.test(own);
    } else {
      words.push({ text: own, first: k, last: k + 1, gap: text.slice(end, start), minor: !LETTER.test(own) });
    }
    end = Math.max(end, piece.end);
  });
  return words;
}

/** The attention of one token: for each layer and head a weight for each column. */
export interface Seen {
  layers: string[];
  heads: number;
  columns: number;
  values: Float32Array;
}

/** One head, or null for the mean over all of them. */
export interface Head {
  layer: number;
  head: number;
}

const means = new WeakMap<Seen, Float32Array>();

/** A token's row: that of a head, or the mean over all heads of all layers. */
export function rowOf(seen: Seen, head: Head | null): Float32Array {
  const { heads, columns, values, layers } = seen;
  if (head) {
    const at = (head.layer * heads + head.head) * columns;
    return values.subarray(at, at + columns);
  }
  const known = means.get(seen);
  if (known) return known;
  const count = layers.length * heads;
  const row = new Float32Array(columns);
  for (let h = 0; h < count; h++) for (let j = 0; j < columns; j++) row[j] += values[h * columns + j] / count;
  means.set(seen, row);
  return row;
}

/** Words against words: the sum over the pieces of the word looked at, the mean over those of the word that was written. */
export function fold(seen: (Seen | null)[], rows: Word[], columns: Word[], head: Head | null): Float32Array[] {
  return rows.map((word) => {
    const row = new Float32Array(columns.length);
    let count = 0;
    for (let k = word.first; k < word.last; k++) {
      const token = seen[k];
      if (!token) continue;
      count++;
      const values = rowOf(token, head);
      columns.forEach((column, c) => {
        for (let j = column.first; j < column.last; j++) row[c] += values[j] ?? 0;
      });
    }
    return count > 1 ? row.map((value) => value / count) : row;
  });
}

/** The places of the largest values above nothing, falling. */
export function strongest(row: ArrayLike<number>, count: number, allowed: (place: number) => boolean = () => true): number[] {
  return Array.from(row, (value, place) => ({ value, place }))
    .filter(({ value, place }) => value > 0 && allowed(place))
    .sort((a, b) => b.value - a.value)
    .slice(0, count)
    .map(({ place }) => place);
}

export function floatsOf(base64: string): Float32Array {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let k = 0; k < text.length; k++) bytes[k] = text.charCodeAt(k);
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length >> 2 }, (_, k) => view.getFloat32(4 * k, true));
}
