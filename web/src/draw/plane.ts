// A matrix on a canvas that is moved and zoomed like a street map: tiles below, cross-hairs and labels above, so that
// pointing redraws lines and letters but never a weight.

import { type Colours, type Ink, INKS } from "./colour";
import { type Axes, type Cell, drawCross, drawGrid, drawInset, drawLabels, type Frame, labelFont } from "./overlay";
import { label } from "./text";
import { TILE, type Tiles } from "./tiles";

export type { Axes, Cell };

const LARGEST_CELL = 84;

export class Plane {
  private base: HTMLCanvasElement;
  private above: HTMLCanvasElement;
  private width = 0;
  private height = 0;
  private ratio = 1;
  private scale = 1; // pixels a cell
  private x = 0; // the cell at the left edge
  private y = 0;
  private gutter = { left: 60, top: 60 };
  private asked = 0;
  private stale = { base: true, above: true };
  private isFitted = true;
  private pointers = new Map<number, { x: number; y: number }>();
  private moved = 0;
  private hover: Cell | null = null;
  private selected: Cell | null = null;
  private ink: Ink;
  private stops: (() => void)[] = [];
  /** Called while pointing, with null when the pointer leaves. */
  onhover: (cell: Cell | null) => void = () => {};
  onpick: (cell: Cell) => void = () => {};
  onview: (view: { cell: number; exact: boolean }) => void = () => {};

  constructor(private host: HTMLElement, private axes: Axes, private tiles: Tiles, private colours: Colours) {
    this.ink = INKS[colours.theme];
    [this.base, this.above] = [0, 1].map((k) => {
      const canvas = document.createElement("canvas");
      canvas.className = k ? "rg-above" : "rg-base";
      canvas.setAttribute("aria-hidden", "true");
      host.append(canvas);
      return canvas;
    }) as [HTMLCanvasElement, HTMLCanvasElement];
    tiles.onchange = () => this.draw(true);
    const observer = new ResizeObserver(() => this.resize());
    observer.observe(host);
    this.stops.push(() => observer.disconnect());
    this.listen();
    this.resize();
  }

  close(): void {
    cancelAnimationFrame(this.asked);
    for (const stop of this.stops) stop();
    this.tiles.close();
    this.base.remove();
    this.above.remove();
  }

  show(axes: Axes, tiles: Tiles, colours: Colours): void {
    const isOther = axes.numRows !== this.axes.numRows || axes.numColumns !== this.axes.numColumns;
    if (tiles !== this.tiles) this.tiles.close();
    [this.axes, this.tiles, this.colours, this.ink] = [axes, tiles, colours, INKS[colours.theme]];
    tiles.onchange = () => this.draw(true);
    this.hover = null;
    this.measure();
    if (isOther || this.isFitted) this.fitAll();
    this.draw(true);
  }

  select(cell: Cell | null, follow = false): void {
    this.selected = cell;
    if (cell && follow) this.reveal(cell);
    this.draw(false);
  }

  /** Show a cell as pointed at that somebody points at elsewhere. */
  point(cell: Cell | null): void {
    if (cell?.row === this.hover?.row && cell?.column === this.hover?.column) return;
    this.hover = cell;
    this.draw(false);
  }

  zoomBy(factor: number): void {
    this.zoomAt(factor, this.gutter.left + this.room.width / 2, this.gutter.top + this.room.height / 2);
  }

  fitAll(): void {
    const { numRows, numColumns } = this.axes;
    this.scale = Math.min(this.room.width / numColumns, this.room.height / numRows, 56);
    this.x = Math.min(0, (numColumns - this.room.width / this.scale) / 2);
    this.y = 0;
    this.isFitted = true;
    this.draw(true);
  }

  /** Bring a cell into the middle, at a size at which it can be read. */
  goTo(cell: Cell, pixels = 28): void {
    this.scale = Math.max(this.scale, pixels);
    this.x = cell.column + 0.5 - this.room.width / this.scale / 2;
    this.y = cell.row + 0.5 - this.room.height / this.scale / 2;
    this.isFitted = false;
    this.clamp();
    this.draw(true);
  }

  private get room(): { width: number; height: number } {
    return { width: Math.max(20, this.width - this.gutter.left), height: Math.max(20, this.height - this.gutter.top) };
  }

  private resize(): void {
    const [width, height] = [this.host.clientWidth, this.host.clientHeight];
    if (!width || !height) return;
    [this.width, this.height, this.ratio] = [width, height, Math.min(3, window.devicePixelRatio || 1)];
    for (const canvas of [this.base, this.above]) {
      canvas.width = Math.round(width * this.ratio);
      canvas.height = Math.round(height * this.ratio);
    }
    this.measure();
    if (this.isFitted) this.fitAll();
    this.clamp();
    this.draw(true);
  }

  /** Room for the labels: as wide as the widest, within reason. */
  private measure(): void {
    const context = this.above.getContext("2d");
    if (!context) return;
    context.font = labelFont();
    const widest = (count: number, of: (k: number) => string): number => {
      const step = Math.max(1, Math.floor(count / 400));
      let width = Math.max(24, context.measureText(count.toLocaleString("en")).width);
      for (let k = 0; k < count; k += step) width = Math.max(width, context.measureText(label(of(k)).slice(0, 24)).width);
      return Math.ceil(Math.min(width, this.width < 560 ? 84 : 132)) + 14;
    };
    this.gutter = {
      left: widest(this.axes.numRows, (k) => this.axes.rowLabel(k)),
      top: widest(this.axes.numColumns, (k) => this.axes.columnLabel(k)),
    };
  }

  private clamp(): void {
    const { numRows, numColumns } = this.axes;
    const fitting = Math.min(this.room.width / numColumns, this.room.height / numRows);
    this.scale = Math.min(LARGEST_CELL, Math.max(Math.min(fitting, 56), this.scale));
    const within = (at: number, shown: number, count: number, middle: boolean): number =>
      shown >= count ? (middle ? (count - shown) / 2 : 0) : Math.min(count - shown, Math.max(0, at));
    this.x = within(this.x, this.room.width / this.scale, numColumns, true);
    this.y = within(this.y, this.room.height / this.scale, numRows, false);
  }

  private reveal({ row, column }: Cell): void {
    const [wide, high] = [this.room.width / this.scale, this.room.height / this.scale];
    const before = [this.x, this.y];
    if (column < this.x) this.x = column;
    else if (column + 1 > this.x + wide) this.x = column + 1 - wide;
    if (row < this.y) this.y = row;
    else if (row + 1 > this.y + high) this.y = row + 1 - high;
    if (before[0] === this.x && before[1] === this.y) return;
    this.clamp();
    this.draw(true);
  }

  private zoomAt(factor: number, px: number, py: number): void {
    const [atX, atY] = [this.x + (px - this.gutter.left) / this.scale, this.y + (py - this.gutter.top) / this.scale];
    const before = this.scale;
    this.scale *= factor;
    this.clamp();
    if (this.scale === before) return;
    this.x = atX - (px - this.gutter.left) / this.scale;
    this.y = atY - (py - this.gutter.top) / this.scale;
    this.isFitted = false;
    this.clamp();
    this.draw(true);
  }

  private cellAt(px: number, py: number): Cell | null {
    if (px < this.gutter.left && py < this.gutter.top) return null;
    const column = Math.floor(this.x + (Math.max(px, this.gutter.left) - this.gutter.left) / this.scale);
    const row = Math.floor(this.y + (Math.max(py, this.gutter.top) - this.gutter.top) / this.scale);
    if (row < 0 || column < 0 || row >= this.axes.numRows || column >= this.axes.numColumns) return null;
    return { row, column };
  }

  private listen(): void {
    const on = <K extends keyof HTMLElementEventMap>(
      name: K, act: (event: HTMLElementEventMap[K]) => void, options?: AddEventListenerOptions,
    ): void => {
      this.above.addEventListener(name, act as EventListener, options);
      this.stops.push(() => this.above.removeEventListener(name, act as EventListener));
    };
    on("pointerdown", (event) => {
      this.above.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
      this.moved = 0;
    });
    on("pointermove", (event) => this.move(event));
    const lift = (event: PointerEvent): void => {
      const held = this.pointers.delete(event.pointerId);
      const cell = this.cellAt(event.offsetX, event.offsetY);
      if (held && this.moved < 5 && cell && event.type === "pointerup") this.onpick(cell);
    };
    on("pointerup", lift);
    on("pointercancel", lift);
    on("pointerleave", () => {
      if (this.pointers.size || !this.hover) return;
      this.hover = null;
      this.onhover(null);
      this.draw(false);
    });
    on("dblclick", (event) => this.zoomAt(2, event.offsetX, event.offsetY));
    on("wheel", (event) => {
      event.preventDefault();
      if (event.shiftKey) this.pan(-event.deltaY, 0);
      else this.zoomAt(Math.exp(-Math.sign(event.deltaY) * Math.min(60, Math.abs(event.deltaY)) * 0.004), event.offsetX, event.offsetY);
    }, { passive: false });
  }

  private move(event: PointerEvent): void {
    const held = this.pointers.get(event.pointerId);
    if (!held) {
      const cell = this.cellAt(event.offsetX, event.offsetY);
      if (cell?.row === this.hover?.row && cell?.column === this.hover?.column) return;
      this.hover = cell;
      this.onhover(cell);
      this.draw(false);
      return;
    }
    const [dx, dy] = [event.offsetX - held.x, event.offsetY - held.y];
    this.moved += Math.abs(dx) + Math.abs(dy);
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const before = Math.hypot(held.x - other.x, held.y - other.y);
      const after = Math.hypot(event.offsetX - other.x, event.offsetY - other.y);
      this.zoomAt(after / Math.max(1, before), other.x, other.y);
    } else if (this.moved >= 5) this.pan(dx, dy);
    this.pointers.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
  }

  pan(dx: number, dy: number): void {
    this.x -= dx / this.scale;
    this.y -= dy / this.scale;
    this.isFitted = false;
    this.clamp();
    this.draw(true);
  }

  private draw(base: boolean): void {
    this.stale.base ||= base;
    this.stale.above = true;
    this.asked ||= requestAnimationFrame(() => {
      this.asked = 0;
      if (this.stale.base) this.drawBase();
      this.drawAbove();
      this.stale = { base: false, above: false };
    });
  }

  private begin(canvas: HTMLCanvasElement): CanvasRenderingContext2D | null {
    const context = canvas.getContext("2d");
    context?.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    return context;
  }

  private drawBase(): void {
    const context = this.begin(this.base);
    if (!context || !this.width) return;
    context.fillStyle = this.ink.ground;
    context.fillRect(0, 0, this.width, this.height);
    const { left, top } = this.gutter;
    const level = Math.min(this.tiles.topLevel, Math.max(0, Math.floor(Math.log2(1 / (this.scale * this.ratio)) + 0.01)));
    const span = TILE * 2 ** level;
    const edgeRow = Math.min(this.axes.numRows, this.y + this.room.height / this.scale);
    const edgeColumn = Math.min(this.axes.numColumns, this.x + this.room.width / this.scale);
    const wanted = new Set<string>();
    let exact = true;
    context.save();
    context.beginPath();
    context.rect(left, top, this.width, this.height);
    context.clip();
    for (let row = Math.floor(Math.max(0, this.y) / span); row * span < edgeRow; row++) {
      for (let column = Math.floor(Math.max(0, this.x) / span); column * span < edgeColumn; column++) {
        wanted.add(`${level}.${row}.${column}`);
        exact = this.drawTile(context, level, row, column) && exact;
      }
    }
    if (this.scale >= 9) drawGrid(context, this.frame, this.axes, this.tiles, this.colours, this.ink);
    context.restore();
    this.tiles.watch(wanted);
    this.onview({ cell: 2 ** level, exact });
  }

  /** Draw a tile, or until it is there the part of a coarser one; says whether it is exact. */
  private drawTile(context: CanvasRenderingContext2D, level: number, row: number, column: number): boolean {
    const own = this.tiles.tile(level, row, column);
    let found = own;
    let up = 0;
    while (!found && level + up < this.tiles.topLevel) {
      up++;
      found = this.tiles.tile(level + up, row >> up, column >> up, level + up === this.tiles.topLevel);
    }
    if (!found) return false;
    const cell = 2 ** (level + up);
    const part = TILE / 2 ** up;
    const [sx, sy] = [(column % 2 ** up) * part, (row % 2 ** up) * part];
    const sw = Math.min(part, found.columns - sx);
    const sh = Math.min(part, found.rows - sy);
    if (sw <= 0 || sh <= 0) return true;
    const span = TILE * 2 ** level;
    const snap = (value: number): number => Math.round(value * this.ratio) / this.ratio;
    const x0 = snap(this.gutter.left + (column * span - this.x) * this.scale);
    const y0 = snap(this.gutter.top + (row * span - this.y) * this.scale);
    const x1 = snap(this.gutter.left + (Math.min(column * span + sw * cell, this.axes.numColumns) - this.x) * this.scale);
    const y1 = snap(this.gutter.top + (Math.min(row * span + sh * cell, this.axes.numRows) - this.y) * this.scale);
    context.imageSmoothingEnabled = cell * this.scale < 1;
    context.drawImage(found.picture, sx, sy, sw, sh, x0, y0, x1 - x0, y1 - y0);
    return own?.exact ?? false;
  }

  private drawAbove(): void {
    const context = this.begin(this.above);
    if (!context || !this.width) return;
    context.clearRect(0, 0, this.width, this.height);
    const { frame } = this;
    const cell = this.hover ?? this.selected;
    if (cell) drawCross(context, frame, this.axes, this.ink, cell);
    drawLabels(context, frame, this.axes, this.ink, cell);
    const shown = (this.room.width / this.scale) * (this.room.height / this.scale);
    if (shown < 0.7 * this.axes.numRows * this.axes.numColumns && this.axes.numRows > 100) {
      drawInset(context, frame, this.axes, this.tiles, this.ink);
    }
  }

  private get frame(): Frame {
    const { x, y, scale, width, height, gutter } = this;
    return { x, y, scale, width, height, ...gutter };
  }
}
