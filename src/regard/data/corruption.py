"""The noise of the denoising objectives, on numpy arrays: masking, span corruption, infilling.

Every function takes the generator of random numbers it draws from; equal generators give equal noise.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["corrupt_spans", "infill", "mask_tokens", "permute_sentences", "span_counts"]

Ids = NDArray[np.int64]


def mask_tokens(
    ids: Ids,
    rng: np.random.Generator,
    *,
    mask: int,
    ordinary: Ids,
    probability: float,
) -> tuple[Ids, NDArray[np.bool_]]:
    """Choose a share of the tokens, at least one, to be found again; gives the noisy ids and what was chosen.

    Of those chosen, 80 % become `mask`, 10 % a random one of the `ordinary` ids and 10 % stay as they are.
    Source: Devlin et al., BERT, 2018, section 3.1.
    """
    noisy = ids.copy()
    chosen = np.zeros(len(ids), bool)
    if len(ids):
        number = max(1, round(probability * len(ids)))
        places = rng.permutation(len(ids))[:number]
        chosen[places] = True
        fate = rng.random(number)
        noisy[places[fate < 0.8]] = mask
        random = places[(fate >= 0.8) & (fate < 0.9)]
        noisy[random] = rng.choice(ordinary, len(random))
    return noisy, chosen


def span_counts(lengths: Ids, *, share: float, mean_span: float, most_spans: int) -> tuple[Ids, Ids]:
    """Give for sequences of these lengths the number of tokens to leave out, and of spans they lie in."""
    noise = np.clip(np.round(lengths * share), 1, np.maximum(lengths - 1, 1)).astype(np.int64)
    noise = np.minimum(noise, lengths)
    spans = np.maximum(np.round(noise / mean_span), 1).astype(np.int64)
    # Between two spans something must stay, and each needs a sentinel.
    spans = np.minimum(spans, np.minimum(np.maximum(lengths - noise, 1), most_spans))
    return noise, np.minimum(spans, noise)


def corrupt_spans(
    ids: Ids,
    rng: np.random.Generator,
    *,
    sentinels: Sequence[int],
    share: float,
    mean_span: float,
) -> tuple[Ids, Ids]:
    """Leave spans out of a sequence; gives what is left, and what was left out.

    In the first, the k-th span is replaced by the k-th sentinel; the second lists each sentinel and its span,
    and ends with one more sentinel. Source: Raffel et al., T5, 2019, section 3.1.4 and figure 2. Unlike the
    released code, the noise may begin a sequence.
    """
    if not len(ids):
        return ids.copy(), np.array(sentinels[:1], np.int64)
    noise, spans = span_counts(
        np.array([len(ids)]), share=share, mean_span=mean_span, most_spans=len(sentinels) - 1
    )
    number = int(spans[0])
    inside = _parts(int(noise[0]), number, rng, smallest=1)
    outside = _between(len(ids) - int(noise[0]), number, rng)
    kept: list[Ids] = []
    left_out: list[Ids] = []
    place = 0
    for k in range(number):
        kept += [ids[place : place + outside[k]], np.array([sentinels[k]], np.int64)]
        place += outside[k]
        left_out += [np.array([sentinels[k]], np.int64), ids[place : place + inside[k]]]
        place += inside[k]
    kept.append(ids[place:])
    left_out.append(np.array([sentinels[number]], np.int64))
    return np.concatenate(kept), np.concatenate(left_out)


def _parts(total: int, number: int, rng: np.random.Generator, *, smallest: int) -> list[int]:
    """Cut a total into parts of at least the smallest size, every way as likely as the others."""
    spare = total - number * smallest
    assert spare >= 0
    cuts = np.sort(rng.permutation(spare + number - 1)[: number - 1])
    edges = np.concatenate(([-1], cuts, [spare + number - 1]))
    return (np.diff(edges) - 1 + smallest).tolist()


def _between(total: int, spans: int, rng: np.random.Generator) -> list[int]:
    """Say how much to keep before each span and after the last; something stays between two spans."""
    inner = min(spans - 1, total)
    parts = _parts(total - inner, spans + 1, rng, smallest=0)
    return [part + (1 if 0 < k <= inner else 0) for k, part in enumerate(parts)]


def infill(
    ids: Ids,
    rng: np.random.Generator,
    *,
    mask: int,
    share: float,
    mean_span: float,
) -> Ids:
    """Replace spans, with lengths drawn from a Poisson distribution, by a single mask each.

    A span may have no token: then a mask is put in between, as long as the result is no longer than the
    original. Source: Lewis et al., BART, 2019, section 2.2, text infilling.
    """
    budget = max(1, round(share * len(ids))) if len(ids) else 0
    lengths: list[int] = []
    covered = 0
    while covered < budget:
        length = min(int(rng.poisson(mean_span)), budget - covered)
        # A mask for nothing makes the text longer, which spans of several tokens have to make up for.
        if length or len(lengths) < covered:
            lengths.append(length)
            covered += length
    rng.shuffle(lengths)
    gaps = _parts(len(ids) - covered, len(lengths) + 1, rng, smallest=0)
    pieces: list[Ids] = []
    place = 0
    for gap, length in zip(gaps, lengths, strict=False):
        pieces += [ids[place : place + gap], np.array([mask], np.int64)]
        place += gap + length
    pieces.append(ids[place:])
    return np.concatenate(pieces)


def permute_sentences(ids: Ids, rng: np.random.Generator, *, ends: Collection[int]) -> Ids:
    """Put the sentences into a random order; a sentence ends with one of the ids `ends`.

    Source: Lewis et al., BART, 2019, section 2.2, sentence permutation.
    """
    after = np.flatnonzero(np.isin(ids, list(ends))) + 1
    sentences = [s for s in np.split(ids, after) if len(s)]
    if len(sentences) < 2:
        return ids
    return np.concatenate([sentences[k] for k in rng.permutation(len(sentences))])
