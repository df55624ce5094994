// What is drawn over the weights of a plane: lines between cells, cross-hairs, labels.

import type { Colours, Ink } from "./colour";
import { directionOf, fit, FONT, label, widthOf } from "./text";
import type { Tiles } from "./tiles";

export interface Axes {
  numRows: number;
  numColumns: number;
  rowLabel(row: number): string;
  columnLabel(column: number): string;
}

export interface Cell {
  row: number;
  column: number;
}

/** Where a plane stands: the cell at its upper left corner, pixels a cell, and the gutters for labels. */
export interface Frame {
  x: number;
  y: number;
  scale: number;
  left: number;
  top: number;
  width: number;
  height: number;
}

const LABEL = 13;
const TEXT_FROM = 13; // pixels a cell needs before it has a label of its own

export const labelFont = (strong = false): string => `${strong ? "600 " : ""}${LABEL}px ${FONT}`;

/** The cells that are seen: first and last + 1 along each axis. */
function seen(frame: Frame, axes: Axes): { row0: number; row1: number; column0: number; column1: number } {
  return {
    row0: Math.max(0, Math.floor(frame.y)),
    row1: Math.min(axes.numRows, Math.ceil(frame.y + (frame.height - frame.top) / frame.scale)),
    column0: Math.max(0, Math.floor(frame.x)),
    column1: Math.min(axes.numColumns, Math.ceil(frame.x + (frame.width - frame.left) / frame.scale)),
  };
}

/** Thin lines of ground between the cells, and their values where there is room. */
export function drawGrid(context: CanvasRenderingContext2D, frame: Frame, axes: Axes, tiles: Tiles, colours: Colours, ink: Ink): void {
  const { x, y, scale, left, top } = frame;
  const { row0, row1, column0, column1 } = seen(frame, axes);
  const [startX, startY] = [left + (column0 - x) * scale, top + (row0 - y) * scale];
  const [wide, high] = [(column1 - column0) * scale, (row1 - row0) * scale];
  const thick = scale >= 24 ? 2 : 1;
  context.fillStyle = ink.ground;
  for (let column = column0; column <= column1; column++) {
    context.fillRect(Math.round(left + (column - x) * scale) - thick / 2, startY, thick, high);
  }
  for (let row = row0; row <= row1; row++) {
    context.fillRect(startX, Math.round(top + (row - y) * scale) - thick / 2, wide, thick);
  }
  if (scale < 34) return;
  context.font = `${Math.min(13, Math.round(scale * 0.3))}px ${FONT}`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (let row = row0; row < row1; row++) {
    for (let column = column0; column < column1; column++) {
      const value = tiles.valueAt(row, column);
      if (value === null || value < 0.005) continue;
      context.fillStyle = colours.ink(value);
      const text = value >= 0.995 ? "1" : value.toFixed(2).slice(1);
      context.fillText(text, left + (column + 0.5 - x) * scale, top + (row + 0.5 - y) * scale);
    }
  }
}

/** Lines along the row and the column of a cell, which leave the colours as they are. */
export function drawCross(context: CanvasRenderingContext2D, frame: Frame, axes: Axes, ink: Ink, cell: Cell): void {
  const { x, y, scale, left, top, width, height } = frame;
  const size = Math.max(1, scale);
  const [px, py] = [left + (cell.column - x) * scale, top + (cell.row - y) * scale];
  const [startX, startY] = [left + Math.max(0, -x * scale), top + Math.max(0, -y * scale)];
  const [endX, endY] = [left + (axes.numColumns - x) * scale, top + (axes.numRows - y) * scale];
  context.save();
  context.beginPath();
  context.rect(left - 2, top - 2, width, height);
  context.clip();
  if (size < 5) {
    context.fillStyle = ink.accent;
    context.globalAlpha = 0.55;
    context.fillRect(startX, py + size / 2 - 0.5, endX - startX, 1);
    context.fillRect(px + size / 2 - 0.5, startY, 1, endY - startY);
    context.globalAlpha = 1;
  } else {
    context.strokeStyle = ink.accent;
    context.lineWidth = 1;
    context.globalAlpha = 0.5;
    context.strokeRect(startX, py, endX - startX, size);
    context.strokeRect(px, startY, size, endY - startY);
    context.globalAlpha = 1;
  }
  context.strokeStyle = ink.accent;
  context.lineWidth = 2;
  context.strokeRect(px - 1, py - 1, size + 2, size + 2);
  context.restore();
}

const NICE = [1, 2, 5];

/** A round number of tokens between numbers on an axis that are some 70 pixels apart. */
function round(scale: number): number {
  for (let ten = 1; ; ten *= 10) for (const part of NICE) if (part * ten * scale >= 70) return part * ten;
}

export function drawLabels(context: CanvasRenderingContext2D, frame: Frame, axes: Axes, ink: Ink, cell: Cell | null): void {
  const { x, y, scale, left, top, width, height } = frame;
  const { row0, row1, column0, column1 } = seen(frame, axes);
  const hasWords = scale * 3 >= TEXT_FROM; // else every third word would say nothing: places instead
  const skip = hasWords ? Math.ceil(TEXT_FROM / scale) : round(scale);
  const edge = Math.max(0, -x * scale);
  context.textBaseline = "middle";
  const write = (text: string, strong: boolean, room: number): void => {
    context.font = labelFont(strong);
    context.fillStyle = strong ? ink.accent : ink.quiet;
    context.direction = directionOf(text);
    context.fillText(fit(context, label(text), room), 0, 0);
  };
  const cover = (from: number, wide: number): void => {
    context.fillStyle = ink.ground;
    context.fillRect(from, -LABEL * 0.75, wide, LABEL * 1.5);
  };
  const row = (k: number, strong: boolean): void => {
    const at = top + (k + 0.5 - y) * scale;
    if (at < top - 2 || at > height) return;
    if (!hasWords && !strong && cell && Math.abs(k - cell.row) * scale < 18) return;
    context.save();
    context.translate(left + edge - 8, at);
    context.textAlign = "right";
    if (strong) cover(8 - left, left - 8);
    write(hasWords || strong ? axes.rowLabel(k) : k.toLocaleString("en"), strong, left - 12);
    context.restore();
  };
  const column = (k: number, strong: boolean): void => {
    const at = left + (k + 0.5 - x) * scale;
    if (at < left - 2 || at > width) return;
    if (!hasWords && !strong && cell && Math.abs(k - cell.column) * scale < 64) return;
    context.save();
    context.translate(at, top - 8);
    if (hasWords) {
      context.rotate(-Math.PI / 2);
      context.textAlign = "left";
      if (strong) cover(0, top - 8);
    } else {
      context.translate(0, -4);
      context.textAlign = "center";
      if (strong) {
        const wide = widthOf(context, label(axes.columnLabel(k))) + 16;
        cover(-wide / 2, wide);
      }
    }
    write(hasWords || strong ? axes.columnLabel(k) : k.toLocaleString("en"), strong, hasWords ? top - 12 : 160);
    context.restore();
  };
  const first = (from: number): number => Math.ceil(from / skip) * skip;
  for (let k = first(row0); k < row1; k += skip) if (k !== cell?.row) row(k, false);
  for (let k = first(column0); k < column1; k += skip) if (k !== cell?.column) column(k, false);
  if (cell) {
    row(cell.row, true);
    column(cell.column, true);
  }
}

/** The whole in the corner of a part: where on the map one is. Gives the square that it takes. */
export function drawInset(
  context: CanvasRenderingContext2D, frame: Frame, axes: Axes, tiles: Tiles, ink: Ink,
): void {
  const whole = tiles.tile(tiles.topLevel, 0, 0);
  if (!whole) return;
  const side = Math.min(150, (frame.width - frame.left) / 3.2);
  const longest = Math.max(axes.numRows, axes.numColumns);
  const [wide, high] = [(side * axes.numColumns) / longest, (side * axes.numRows) / longest];
  const [left, top] = [frame.width - wide - 12, frame.top + 12];
  context.fillStyle = ink.ground;
  context.fillRect(left - 5, top - 5, wide + 10, high + 10);
  context.imageSmoothingEnabled = true;
  context.drawImage(whole.picture, left, top, wide, high);
  context.strokeStyle = ink.quiet;
  context.lineWidth = 1;
  context.strokeRect(left - 0.5, top - 0.5, wide + 1, high + 1);
  const [sx, sy] = [wide / axes.numColumns, high / axes.numRows];
  const [x0, y0] = [Math.max(0, frame.x), Math.max(0, frame.y)];
  const w = Math.min(axes.numColumns - x0, (frame.width - frame.left) / frame.scale);
  const h = Math.min(axes.numRows - y0, (frame.height - frame.top) / frame.scale);
  context.strokeStyle = ink.accent;
  context.lineWidth = 2;
  const [boxWide, boxHigh] = [Math.max(5, w * sx), Math.max(5, h * sy)];
  context.strokeRect(left + x0 * sx + (w * sx - boxWide) / 2, top + y0 * sy + (h * sy - boxHigh) / 2, boxWide, boxHigh);
}
