// A run's measurements, thinned as they grow: however long a page is left open, a curve has at most so many points.

/** What was measured at a step; a value that was no number is left out. */
export interface Point {
  step: number;
  /** Time of training up to here, over all sessions; null where it isn't known. */
  seconds: number | null;
  values: Record<string, number>;
}

/** Take the numbers out of what the server tells of a step. */
export function pointOf(told: Record<string, unknown>): Point {
  const values: Record<string, number> = {};
  for (const [name, value] of Object.entries(told)) {
    if (name !== "step" && name !== "elapsed" && typeof value === "number" && Number.isFinite(value)) values[name] = value;
  }
  const seconds = typeof told.elapsed === "number" ? told.elapsed : null;
  return { step: Number(told.step), seconds, values };
}

/** Let a point stand for one more: its values become means, `filled` and `more` being how many each stands for. */
function merge(into: Point, point: Point, filled: number, more = 1): void {
  for (const [name, value] of Object.entries(point.values)) {
    const before = into.values[name];
    into.values[name] = before === undefined ? value : before + ((value - before) * more) / (filled + more);
  }
  into.step = point.step;
  into.seconds = point.seconds;
}

/** Points in the order of their steps. Beyond `most` each comes to stand for twice as many measurements: their mean. */
export class Series {
  points: Point[] = [];
  /** How many measurements were told in all, and for how many of them a whole point stands. */
  told = 0;
  stride = 1;
  /** How many the last point stands for. */
  private filled = 0;

  constructor(readonly most = 2000) {}

  add(point: Point): void {
    if (!Number.isFinite(point.step)) return;
    if (this.points.length && point.step <= this.points[this.points.length - 1].step) this.rewind(point.step);
    this.told++;
    const last = this.points[this.points.length - 1];
    if (last && this.filled < this.stride) {
      merge(last, point, this.filled++);
      return;
    }
    if (this.points.length >= this.most) this.halve();
    this.points.push({ ...point, values: { ...point.values } });
    this.filled = 1;
  }

  clear(): void {
    this.points = [];
    this.told = this.filled = 0;
    this.stride = 1;
  }

  /** Forget a step and all after it: a resumed run does them again. */
  private rewind(step: number): void {
    let kept = this.points.length;
    while (kept && this.points[kept - 1].step >= step) kept--;
    this.told = Math.min(this.told, kept * this.stride);
    this.points.length = kept;
    this.filled = this.stride;
  }

  private halve(): void {
    const half: Point[] = [];
    for (let k = 0; k + 1 < this.points.length; k += 2) {
      merge(this.points[k], this.points[k + 1], 1);
      half.push(this.points[k]);
    }
    if (this.points.length % 2) half.push(this.points[this.points.length - 1]);
    this.points = half;
    this.stride *= 2;
    this.filled = this.stride;
  }
}
