// How a text shall be written: what the sliders say, as the server and the filters take it.

import type { Sampling } from "./filters";
import type { Kept } from "./kept.svelte";
import type { Asked } from "./writing.svelte";

export interface Wishes {
  model: Kept;
  temperature: Kept;
  topK: Kept;
  topP: Kept;
  minP: Kept;
  most: Kept;
  seed: Kept;
}

export const samplingOf = (wishes: Wishes): Sampling => ({
  temperature: wishes.temperature.number(0, 100),
  topK: Math.round(wishes.topK.number(0, 1e7)),
  topP: wishes.topP.number(0.01, 1),
  minP: wishes.minP.number(0, 1),
});

/** The settings of a request; a filter that is off, and those that greedy search would ignore, are left out: they would be refused. */
export function settingsOf(wishes: Wishes, written: number): Partial<Asked> {
  const { temperature, topK, topP, minP } = samplingOf(wishes);
  const drawn = temperature === 0 ? { temperature } : {
    temperature,
    seed: Math.round(wishes.seed.number(0, 2 ** 53 - 1)),
    ...(topK ? { top_k: topK } : {}),
    ...(topP < 1 ? { top_p: topP } : {}),
    ...(minP ? { min_p: minP } : {}),
  };
  // Tokens that are kept count too.
  return { max_tokens: written + Math.round(wishes.most.number(1, 4096)), ...drawn };
}
