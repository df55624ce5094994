// A canvas as wide as its place that is drawn at most once a frame, sharp on any screen.

export type Paint = (context: CanvasRenderingContext2D, width: number, height: number) => void;

export class Sheet {
  readonly canvas = document.createElement("canvas");
  private asked = 0;
  private observer: ResizeObserver;

  constructor(private host: HTMLElement, private paint: Paint, private heightFor: (width: number) => number) {
    this.canvas.setAttribute("aria-hidden", "true");
    host.append(this.canvas);
    this.observer = new ResizeObserver(() => this.redraw());
    this.observer.observe(host);
    this.redraw();
  }

  redraw(): void {
    this.asked ||= requestAnimationFrame(() => {
      this.asked = 0;
      const width = this.host.clientWidth;
      if (!width) return;
      const height = Math.max(1, Math.ceil(this.heightFor(width)));
      const ratio = Math.min(3, window.devicePixelRatio || 1, Math.sqrt(4e7 / (width * height)));
      const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
      if (this.canvas.width !== wide || this.canvas.height !== high) {
        [this.canvas.width, this.canvas.height] = [wide, high];
        this.canvas.style.width = `${width}px`;
        this.canvas.style.height = `${height}px`;
      }
      const context = this.canvas.getContext("2d");
      if (!context) return;
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, width, height);
      this.paint(context, width, height);
    });
  }

  close(): void {
    cancelAnimationFrame(this.asked);
    this.observer.disconnect();
    this.canvas.remove();
  }
}
