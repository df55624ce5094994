// Which token of one text is which of another: the words are matched in order, and tokens within them.

import type { Side } from "../data/types";

const MOST = 4_000_000; // pairs of words that are compared; beyond that, equal places are matched

/** For each token of `from`, its counterpart in `to`; -1 where there is none. */
export function align(from: Side, to: Side): Int32Array {
  const words = matchWords(from.words.text.map(plain), to.words.text.map(plain));
  const found = new Int32Array(from.tokens.length).fill(-1);
  words.forEach((other, word) => {
    if (other < 0) return;
    const [first, last] = [to.words.first[other], to.words.last[other]];
    for (let k = from.words.first[word]; k < from.words.last[word]; k++) {
      found[k] = Math.min(last - 1, first + k - from.words.first[word]);
    }
  });
  return found;
}

const plain = (word: string): string => word.trim().toLocaleLowerCase();

function matchWords(a: string[], b: string[]): Int32Array {
  const found = new Int32Array(a.length).fill(-1);
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) found[start] = start++;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) {
    end++;
    found[a.length - end] = b.length - end;
  }
  const [height, width] = [a.length - start - end, b.length - start - end];
  // What is equal in the middle, by the longest common sequence.
  if (height * width > 0 && height * width <= MOST) {
    const longest = Array.from({ length: height + 1 }, () => new Uint16Array(width + 1));
    for (let i = height - 1; i >= 0; i--) {
      for (let j = width - 1; j >= 0; j--) {
        longest[i][j] = a[start + i] === b[start + j] ? longest[i + 1][j + 1] + 1 : Math.max(longest[i + 1][j], longest[i][j + 1]);
      }
    }
    for (let i = 0, j = 0; i < height && j < width;) {
      if (a[start + i] === b[start + j]) found[start + i++] = start + j++;
      else if (longest[i + 1][j] >= longest[i][j + 1]) i++;
      else j++;
    }
  }
  fillGaps(found, b.length);
  return found;
}

/** What stands between two matches in both texts belongs together, place by place. */
function fillGaps(found: Int32Array, length: number): void {
  for (let i = 0; i < found.length; i++) {
    if (found[i] >= 0) continue;
    let last = i;
    while (last < found.length && found[last] < 0) last++;
    const from = i ? found[i - 1] + 1 : 0;
    const room = (last < found.length ? found[last] : length) - from;
    for (let k = i; k < last; k++) found[k] = room > 0 ? from + Math.floor(((k - i) * room) / (last - i)) : -1;
    i = last;
  }
}
