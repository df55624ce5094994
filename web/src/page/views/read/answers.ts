// What the server says when it has read a text.

import type { Span } from "./marks";

export const VERBS = ["classify", "tag", "fill", "embed", "answer", "score"] as const;
export type ReadVerb = (typeof VERBS)[number];
export const isVerb = (name: string): name is ReadVerb => (VERBS as readonly string[]).includes(name);

export interface Part extends Span {
  text: string;
  score: number | null;
}
/** What a part did for the answer; `of` says which of two texts it belongs to. */
export interface Cause extends Part {
  of: "text" | "pair";
}
export interface Candidate {
  text: string;
  start: number | null;
  end: number | null;
  probability: number;
}

export interface Answers {
  classify: {
    labels: { label: string; probability: number }[];
    tokens: number;
    /** Whether the model says a number, and no probability. */
    is_number?: boolean;
    parts: Cause[] | null;
    occlusion: Cause[] | null;
    unexplained?: string | null;
    how?: string;
  };
  tag: { entities: (Span & { text: string; score: number; label: string })[]; tokens: number };
  fill: { masks: (Span & { candidates: { text: string; probability: number }[] })[]; tokens: number };
  embed: {
    points: { text: string; x: number; y: number }[];
    nearest: { text: string; score: number; index: number }[];
    how: string;
    left_out?: number;
  };
  answer: Candidate & { candidates: Candidate[]; tokens: number };
  score: { nats: number; perplexity: number | null; tokens: (Span & { text: string; logprob: number | null })[] };
}

/** An answer, with the text that it is about. */
export type Shown = { [Verb in ReadVerb]: { verb: Verb; text: string; pair: string; model: string; answer: Answers[Verb] } }[ReadVerb];
