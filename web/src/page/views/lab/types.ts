// What the server tells of the lab: regard/serve/lab.py.

export type Status = "holds" | "holds in part" | "fails" | "undecided";

export interface Claim {
  id: string;
  title: string;
  question: string;
  verdict: string;
  status: Status;
  /** Measured on this machine, not by the project. */
  own: boolean;
}

export interface Point { mean: number; low: number | null; high: number | null }
export interface Series { name: string; x: (number | string)[]; points: Point[]; is_baseline: boolean }
export interface Panel { title: string; x: string; y: string; series: Series[] }

export interface Result extends Claim {
  said: string;
  effect: number;
  effect_of: string;
  interval: [number, number] | null;
  seeds: number[];
  command: string;
  method: string;
  refuted_by: string;
  fair: string;
  tuning: string;
  repeats: boolean;
  figure: { caption: string; panels: Panel[] };
  machine: { processor: string; cores: number };
}
