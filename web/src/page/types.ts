// What the server answers with, as far as more than one view reads it.

export type Kind = "encoder" | "decoder" | "encoder-decoder";
export type Verb =
  | "translate" | "summarize" | "generate" | "chat" | "classify" | "tag" | "fill" | "embed" | "answer" | "score" | "look";

export interface ModelInfo {
  name: string;
  title: string;
  kind: Kind;
  verbs: string[];
  task: string | null;
  family: string | null;
  /** How many weights it has. */
  weights: number;
  /** The longest text that it reads, in tokens. */
  context: number;
  layers: string[];
  heads: number;
  labels: string[];
  is_run: boolean;
  chat: boolean;
}

export interface RunInfo {
  name: string;
  task: string;
  state: "running" | "stopped" | "finished" | "preparing" | "failed";
  step: number;
  steps: number;
  best: Record<string, unknown>;
  seconds: number;
  checkpoints: number[];
  resumable: boolean;
}

export interface FileInfo {
  name: string;
  bytes: number;
  when: string | number;
  folder: "uploads" | "data";
}

/** What a stream of /api/look says at its end. */
export interface Looked {
  id: string;
  tokens: Record<string, number>;
  whole: boolean;
}

export interface Progress {
  done: number;
  total: number;
  what?: string;
}

export interface Measured {
  value: number;
  baseline: number;
}

export const NO_ROLE = "no clear role";

export interface HeadRoles {
  layer: string;
  head: number;
  /** The strongest first; one called NO_ROLE where nothing stands out. */
  roles: ({ name: string; score: number; why: string; n: number } & Measured)[];
  measures: Record<string, Measured>;
}

export interface Link {
  layer: string;
  head: number;
  from: string;
  weight: number;
  row: number;
  column: number;
}

export interface Effect {
  /** What was changed, in words. */
  changes: string[];
  kl: number;
  /** The share of tokens whose likeliest answer is another. */
  changed: number;
  loss_before: number | null;
  loss_after: number | null;
  tokens: { token: number; text: string; kl: number; before: [string, number]; after: [string, number] }[];
  texts: [string, string][];
  how: string;
}
