// One scale of colour from nothing to everything. Lightness rises or falls all the way and hue runs between blue and
// yellow, so that it reads alike with any kind of colour vision, and in grey.

export type Theme = "light" | "dark";
export type Scale = "linear" | "log";

type Lab = [number, number, number];

// Anchors in OKLCH: lightness, chroma, hue in degrees.
const ANCHORS: Record<Theme, Lab[]> = {
  light: [[0.975, 0.006, 95], [0.91, 0.07, 98], [0.79, 0.105, 140], [0.62, 0.1, 200], [0.43, 0.115, 255], [0.27, 0.1, 275]],
  dark: [[0.215, 0.014, 262], [0.33, 0.09, 270], [0.47, 0.105, 245], [0.63, 0.105, 200], [0.79, 0.12, 145], [0.94, 0.12, 102]],
};

function toRgb([lightness, a, b]: Lab): [number, number, number] {
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const linear = [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
  return linear.map((value) => {
    const curved = value <= 0.0031308 ? 12.92 * value : 1.055 * Math.max(0, value) ** (1 / 2.4) - 0.055;
    return Math.round(255 * Math.min(1, Math.max(0, curved)));
  }) as [number, number, number];
}

const flat = ([lightness, chroma, hue]: Lab): Lab => {
  const angle = (hue * Math.PI) / 180;
  return [lightness, chroma * Math.cos(angle), chroma * Math.sin(angle)];
};

/** The colour at a part of the way, 0 to 1. */
export function colourAt(theme: Theme, part: number): [number, number, number] {
  const anchors = ANCHORS[theme];
  const place = Math.min(1, Math.max(0, part)) * (anchors.length - 1);
  const k = Math.min(anchors.length - 2, Math.floor(place));
  const [from, to] = [flat(anchors[k]), flat(anchors[k + 1])];
  return toRgb(from.map((value, m) => value + (to[m] - value) * (place - k)) as Lab);
}

export const css = ([r, g, b]: [number, number, number], alpha = 1): string => `rgba(${r},${g},${b},${alpha})`;

/** How weights become parts of the scale, and parts colours. */
export class Colours {
  /** A pixel for each upper half of a float's bits: any scale is then one look-up a weight. */
  readonly pixels = new Uint32Array(65536);

  constructor(readonly theme: Theme, readonly scale: Scale, readonly low: number, readonly high: number) {
    const upper = new Uint32Array(1);
    const value = new Float32Array(upper.buffer);
    const shades = Array.from({ length: 512 }, (_, k) => colourAt(theme, k / 511));
    for (let code = 0; code < 65536; code++) {
      upper[0] = (code << 16) | 0x8000;
      const weight = code === 0 ? 0 : value[0];
      const [r, g, b] = shades[Math.round(511 * this.part(weight > 0 ? weight : 0))];
      this.pixels[code] = (255 << 24) | (b << 16) | (g << 8) | r;
    }
  }

  part(weight: number): number {
    if (!(weight > 0)) return 0;
    if (this.scale === "linear") return Math.min(1, weight / this.high);
    const part = Math.log(weight / this.low) / Math.log(this.high / this.low);
    return Math.min(1, Math.max(0, part));
  }

  weightAt(part: number): number {
    return this.scale === "linear" ? part * this.high : this.low * (this.high / this.low) ** part;
  }

  css(weight: number, alpha = 1): string {
    return css(colourAt(this.theme, this.part(weight)), alpha);
  }

  /** The colour of a line, which must be seen on the ground however little it stands for. */
  line(weight: number, alpha = 1): string {
    return css(colourAt(this.theme, 0.36 + 0.64 * Math.sqrt(this.part(weight))), alpha);
  }

  /** Black or white, whichever is read on the colour of a weight. */
  ink(weight: number): string {
    const [r, g, b] = colourAt(this.theme, this.part(weight));
    return 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#15181d" : "#f7f5ef";
  }

  paint(values: Float32Array, out: Uint32Array): void {
    const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
    for (let k = 0; k < bits.length; k++) out[k] = this.pixels[bits[k] >>> 16];
  }
}

/** What a canvas draws with besides weights; style.css has the same colours for the page. */
export interface Ink {
  ground: string;
  panel: string;
  text: string;
  quiet: string;
  line: string;
  accent: string;
  negative: string;
}

export const INKS: Record<Theme, Ink> = {
  light: {
    ground: "#fdfcf9", panel: "#ffffff", text: "#1e2229", quiet: "#5f6670", line: "#e4e0d6", accent: "#b4490f",
    negative: "#3567a8",
  },
  dark: {
    ground: "#14171c", panel: "#1b1f26", text: "#ebe8e0", quiet: "#9aa2ad", line: "#2e343d", accent: "#ff9d5c",
    negative: "#76a7e8",
  },
};
