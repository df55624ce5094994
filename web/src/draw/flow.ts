// Words on lines, as a sentence is set, on a canvas; from the right where its letters run so.

import type { Unit } from "../data/units";
import { directionOf, fit, FONT, widthOf } from "./text";

export interface Box {
  place: number;
  text: string;
  x: number;
  y: number;
  width: number;
}

export interface Flow {
  boxes: Box[];
  height: number;
  lines: number;
  /** Size of the letters. */
  size: number;
}

const PAD = 5;

/** Set words from `top` on lines that are `leading` apart; x and y are the middle of a word's box. */
export function flow(
  context: CanvasRenderingContext2D, units: Unit[], labels: string[], from: number, to: number, width: number,
  top: number, leading: number, size: number,
): Flow {
  context.font = `${size}px ${FONT}`;
  const direction = directionOf(units.slice(from, to).map((unit) => (unit.special ? "" : unit.text)).join(" "));
  const boxes: Box[] = [];
  let x = 0;
  let line = 0;
  for (let place = from; place < to; place++) {
    const text = fit(context, labels[place], Math.min(width - 2 * PAD, 320));
    const wide = widthOf(context, text) + 2 * PAD;
    const gap = place === from ? 0 : units[place].spaced ? size * 0.28 : 1;
    if (x > 0 && x + gap + wide > width) {
      line++;
      x = 0;
    } else x += gap;
    boxes.push({ place, text, x: x + wide / 2, y: top + (line + 0.5) * leading, width: wide });
    x += wide;
  }
  if (direction === "rtl") for (const box of boxes) box.x = width - box.x;
  else if (line === 0) {
    const shift = Math.max(0, (width - x) / 2);
    for (const box of boxes) box.x += shift;
  }
  return { boxes, height: (line + 1) * leading, lines: line + 1, size };
}

export function boxAt(flow: Flow | null, x: number, y: number): Box | null {
  if (!flow) return null;
  const high = flow.size * 1.1;
  return flow.boxes.find((box) => Math.abs(x - box.x) <= box.width / 2 + 2 && Math.abs(y - box.y) <= high) ?? null;
}

/** Draw a word on a ground of its own, if it has one. */
export function drawBox(
  context: CanvasRenderingContext2D, box: Box, size: number, ground: string | null, ink: string, frame: string | null,
): void {
  const high = size * 1.62;
  context.beginPath();
  context.roundRect(box.x - box.width / 2, box.y - high / 2, box.width, high, 5);
  if (ground) {
    context.fillStyle = ground;
    context.fill();
  }
  if (frame) {
    context.strokeStyle = frame;
    context.lineWidth = 2;
    context.stroke();
  }
  context.font = `${size}px ${FONT}`;
  context.fillStyle = ink;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.direction = directionOf(box.text);
  context.fillText(box.text, box.x, box.y + 1);
}

/** The units to show around one, where there are too many for a page: [from, to). */
export function around(count: number, place: number, most: number): [number, number] {
  if (count <= most) return [0, count];
  const from = Math.min(count - most, Math.max(0, place - (most >> 1)));
  return [from, from + most];
}
