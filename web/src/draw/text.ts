// Words of strangers on a canvas or in the page: shown as text, whatever they hold.

const HIDDEN = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu;
const JOINED = /(?<=[\p{L}\p{M}\p{Extended_Pictographic}])[\u200c\u200d](?=[\p{L}\p{M}\p{Extended_Pictographic}])/gu;
const SHORT: Record<string, string> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

function escape(character: string): string {
  const code = character.codePointAt(0) ?? 0;
  if (SHORT[character]) return SHORT[character];
  if (code < 0x100) return `\\x${code.toString(16).padStart(2, "0")}`;
  if (code < 0x10000) return `\\u${code.toString(16).padStart(4, "0")}`;
  return `\\U${code.toString(16).padStart(8, "0")}`;
}

/** Show what has no form of its own, or would turn the text around, as an escape such as `\x1b` or `\u202e`. */
export function safe(text: string): string {
  const joins = new Set([...text.matchAll(JOINED)].map((match) => match.index));
  return text.replace(HIDDEN, (character, at: number) => (joins.has(at) ? character : escape(character)));
}

/** A label: safe, never empty, and with blanks at its ends to be seen. */
export function label(text: string): string {
  if (!text) return "∅";
  return safe(text).replace(/^ +| +$/g, (blanks) => "␣".repeat(blanks.length));
}

const RTL = /[\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}]/u;

/** The direction of the first letter that has one, as dir="auto" finds it. */
export function directionOf(text: string): "ltr" | "rtl" {
  const letter = text.match(/\p{L}/u);
  return letter && RTL.test(letter[0]) ? "rtl" : "ltr";
}

const widths = new Map<string, number>();

export function widthOf(context: CanvasRenderingContext2D, text: string): number {
  const name = `${context.font}\n${text}`;
  let width = widths.get(name);
  if (width === undefined) {
    if (widths.size > 20000) widths.clear();
    width = context.measureText(text).width;
    widths.set(name, width);
  }
  return width;
}

/** Shorten a text to a width, with an ellipsis. */
export function fit(context: CanvasRenderingContext2D, text: string, room: number): string {
  if (text.length > 200) text = `${text.slice(0, 200)}…`;
  if (widthOf(context, text) <= room) return text;
  const letters = [...text];
  let low = 0;
  let high = letters.length;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (context.measureText(`${letters.slice(0, middle).join("")}…`).width <= room) low = middle;
    else high = middle - 1;
  }
  return `${letters.slice(0, low).join("")}…`;
}

/** A weight for reading: three digits that count. */
export function figure(weight: number): string {
  if (weight === 0) return "0";
  const size = Math.abs(weight);
  if (size >= 0.01) return weight.toFixed(3);
  if (size >= 0.0001) return weight.toFixed(5);
  return weight.toExponential(2);
}

export const FONT = '"Inter", "Source Sans 3", system-ui, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", sans-serif';
