// A head in little: painted once at its own size, then laid wherever it is wanted.

import { type Grid, halve } from "../data/pool";
import type { Kind } from "../data/types";
import type { Colours } from "./colour";

export interface Thumb {
  grid: Grid;
  picture: HTMLCanvasElement;
  /** How many cells of the whole one of its own stands for. */
  cell: number;
}

/** Paint a grid, pooled to at most `most` cells along each axis. */
export function thumbOf(grid: Grid, colours: Colours, most: number, kind: Kind): Thumb {
  let level = { ...grid, cell: 1 };
  while (Math.max(level.rows, level.columns) > most) level = halve(level, grid.rows, grid.columns, kind);
  const picture = document.createElement("canvas");
  picture.width = Math.max(1, level.columns);
  picture.height = Math.max(1, level.rows);
  const context = picture.getContext("2d");
  if (context && level.rows && level.columns) {
    const image = new ImageData(level.columns, level.rows);
    colours.paint(level.values, new Uint32Array(image.data.buffer));
    context.putImageData(image, 0, 0);
  }
  return { grid, picture, cell: level.cell };
}

/** Lay a thumb into a square, its shape kept; gives the rectangle that it takes. */
export function place(
  context: CanvasRenderingContext2D, thumb: Thumb, x: number, y: number, side: number,
): { x: number; y: number; width: number; height: number } {
  const longest = Math.max(thumb.grid.rows, thumb.grid.columns);
  const width = Math.max(2, (side * thumb.grid.columns) / longest);
  const height = Math.max(2, (side * thumb.grid.rows) / longest);
  const left = x + (side - width) / 2;
  const top = y + (side - height) / 2;
  context.imageSmoothingEnabled = thumb.picture.width > width;
  context.imageSmoothingQuality = "high";
  context.drawImage(thumb.picture, left, top, width, height);
  return { x: left, y: top, width, height };
}
