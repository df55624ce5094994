// Parts of a text, as the server counts them: in characters, where the page counts in halves of UTF-16 pairs.

export interface Span {
  start: number;
  end: number;
}

/** A run of text: one of the parts, or what stands between two. */
export interface Run<T> {
  text: string;
  part: T | null;
  /** The part's number. */
  place: number;
}

/** Where each character of a text begins, as the page counts; a function, for most texts have no pairs. */
export function counted(text: string): (place: number) => number {
  if (!/[\ud800-\udfff]/.test(text)) return (place) => Math.min(text.length, Math.max(0, place));
  const begins: number[] = [];
  let at = 0;
  for (const character of text) {
    begins.push(at);
    at += character.length;
  }
  return (place) => (place >= begins.length ? text.length : begins[Math.max(0, place)]);
}

/** Cut a text at its parts; one that overlaps the part before begins where that ended, and empty ones are left out. */
export function runsOf<T extends Span>(text: string, parts: T[]): Run<T>[] {
  const at = counted(text);
  const runs: Run<T>[] = [];
  let done = 0;
  const order = parts.map((part, place) => ({ part, place })).sort((a, b) => a.part.start - b.part.start || a.part.end - b.part.end);
  for (const { part, place } of order) {
    const [start, end] = [Math.max(done, at(part.start)), at(part.end)];
    if (end <= start) continue;
    if (start > done) runs.push({ text: text.slice(done, start), part: null, place: -1 });
    runs.push({ text: text.slice(start, end), part, place });
    done = end;
  }
  if (done < text.length) runs.push({ text: text.slice(done), part: null, place: -1 });
  return runs;
}

/** How many of the `count` strongest of one list are among the `count` strongest of another. */
export function agreement(one: number[], other: number[], count: number): number {
  const strongest = (values: number[]): number[] =>
    values.map((value, place) => ({ value: Math.abs(value), place })).sort((a, b) => b.value - a.value).slice(0, count).map(({ place }) => place);
  const found = new Set(strongest(other));
  return strongest(one).filter((place) => found.has(place)).length;
}
