// The filters of sampling, as src/regard/generate/logits.py has them and in its order: temperature, then top-k, top-p and
// min-p, each of what the one before it left. All are pure: (log-probabilities) -> log-probabilities, forbidden ones -inf.

export interface Sampling {
  /** 0 takes the likeliest token; the shape is then that of temperature 1, and one token alone is left. */
  temperature: number;
  /** 0 is no limit. */
  topK: number;
  /** 1 is no limit. */
  topP: number;
  /** 0 is no limit. */
  minP: number;
}

export type Cut = "topK" | "topP" | "minP";

const NEVER = -Infinity;
// As the library does: so many of the likeliest are looked at before the whole vocabulary is sorted.
const NUCLEUS = 256;

export function largest(values: Float32Array): number {
  let best = NEVER;
  for (let k = 0; k < values.length; k++) if (values[k] > best) best = values[k];
  return best;
}

/** The logarithm of the sum of exponentials; -inf where nothing is left. */
export function logSumExp(values: Float32Array): number {
  const best = largest(values);
  if (best === NEVER) return NEVER;
  let sum = 0;
  for (let k = 0; k < values.length; k++) sum += Math.exp(values[k] - best);
  return best + Math.log(sum);
}

/** The `count` largest values, falling. */
function likeliest(values: Float32Array, count: number): Float32Array {
  if (count >= values.length) return values.slice().sort().reverse();
  // A heap of the best so far, its least at the root.
  const heap = new Float32Array(count).fill(NEVER);
  for (let k = 0; k < values.length; k++) {
    const value = values[k];
    if (!(value > heap[0])) continue;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= count) break;
      if (child + 1 < count && heap[child + 1] < heap[child]) child++;
      if (heap[child] >= value) break;
      heap[at] = heap[child];
      at = child;
    }
    heap[at] = value;
  }
  return heap.sort().reverse();
}

const keep = (values: Float32Array, least: number): Float32Array => values.map((value) => (value < least ? NEVER : value));

export function temperature(values: Float32Array, by: number): Float32Array {
  if (by === 1) return values;
  const best = largest(values);
  if (best === NEVER) return values;
  const divisor = Math.max(by, 1e-30);
  return values.map((value) => Math.fround(value - best) / divisor);
}

export function topK(values: Float32Array, count: number): Float32Array {
  if (count === 0 || count >= values.length) return values;
  return keep(values, likeliest(values, count)[count - 1]);
}

export function topP(values: Float32Array, mass: number): Float32Array {
  if (mass >= 1) return values;
  const total = logSumExp(values);
  if (total === NEVER) return values;
  const reach = (best: Float32Array): number => {
    let sum = 0;
    for (let k = 0; k < best.length; k++) {
      sum += Math.exp(best[k] - total);
      if (Math.fround(sum) >= mass) return k;
    }
    return -1;
  };
  let best = likeliest(values, Math.min(NUCLEUS, values.length));
  let last = reach(best);
  if (last < 0 && best.length < values.length) {
    best = values.slice().sort().reverse();
    last = reach(best);
  }
  return keep(values, best[last < 0 ? best.length - 1 : last]);
}

export function minP(values: Float32Array, share: number): Float32Array {
  if (share === 0) return values;
  const best = largest(values);
  if (best === NEVER) return values;
  return values.map((value) => (Math.exp(value - best) < share ? NEVER : value));
}

/** Give the log-probabilities after all filters, normalised, and which filter took each token away. */
export function shape(logprobs: Float32Array, sampling: Sampling): { logprobs: Float32Array; cuts: Map<number, Cut>; left: number } {
  const cuts = new Map<number, Cut>();
  let now = sampling.temperature === 0 ? logprobs : temperature(logprobs, sampling.temperature);
  const steps: [Cut, (values: Float32Array) => Float32Array][] = [
    ["topK", (values) => topK(values, sampling.topK)],
    ["topP", (values) => topP(values, sampling.topP)],
    ["minP", (values) => minP(values, sampling.minP)],
  ];
  for (const [name, step] of steps) {
    const next = step(now);
    if (next !== now) for (let k = 0; k < now.length; k++) if (next[k] === NEVER && now[k] !== NEVER) cuts.set(k, name);
    now = next;
  }
  const total = logSumExp(now);
  let left = 0;
  const normal = now.map((value) => {
    if (value === NEVER) return NEVER;
    left++;
    return value - total;
  });
  return { logprobs: normal, cuts, left };
}

/** The places of the `count` largest values, falling; among equals the first place first. */
export function best(values: Float32Array, count: number): number[] {
  const least = likeliest(values, Math.min(count, values.length)).at(-1) ?? NEVER;
  const found: number[] = [];
  for (let k = 0; k < values.length; k++) if (values[k] >= least && values[k] > NEVER) found.push(k);
  return found.sort((a, b) => values[b] - values[a] || a - b).slice(0, count);
}
