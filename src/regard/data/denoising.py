"""The denoising objectives: find masked tokens again, restore spans, restore a disordered text.

They have the shape that objectives.py describes, and are used from there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from regard.data import corruption
from regard.data.assemble import IGNORED, Batch, Ids, join, tensors
from regard.data.store import TokenStore
from regard.errors import ConfigError, DataError

__all__ = ["DenoiseBART", "DenoiseT5", "Fill"]


class Fill:
    """Find masked tokens again: ids (B, T), labels (B, T), key_mask (B, T).

    A document longer than `context` gives several examples. Source: Devlin et al., BERT, 2018, section 3.1.
    """

    def __init__(
        self,
        store: TokenStore,
        *,
        mask: int,
        pad: int,
        context: int,
        bos: int | None = None,
        eos: int | None = None,
        specials: Collection[int] = (),
        probability: float = 0.15,
    ) -> None:
        """Read from a store; `bos` and `eos` are put around each example if given.

        The random tokens among the noise come from the store's vocabulary without `specials`.
        """
        if not 0 < probability < 1:
            raise ConfigError(f"probability={probability} must lie between 0 and 1")
        self._frame = Frame(store, context, bos=bos, eos=eos, pad=pad)
        self._mask, self._probability = mask, probability
        excluded = {mask, pad, *specials}
        self._ordinary = np.setdiff1d(np.arange(store.vocab_size), list(excluded))
        if not len(self._ordinary):
            raise ConfigError(f"a vocabulary of {store.vocab_size} has no ordinary tokens to draw from")

    def lengths(self, seed: int, epoch: int) -> Ids:
        """Give the tokens of each example."""
        return self._frame.lengths

    def collate(self, index: Ids, *, seed: int, epoch: int) -> Batch:
        """Assemble examples with this epoch's masks."""
        frame = self._frame
        ids, key_mask = frame.empty(index)
        labels = np.full_like(ids, IGNORED)
        for line, number in enumerate(index):
            rng = np.random.default_rng([seed, epoch, 1, int(number)])
            clean = frame.window(int(number))
            noisy, chosen = corruption.mask_tokens(
                clean, rng, mask=self._mask, ordinary=self._ordinary, probability=self._probability
            )
            frame.place(ids[line], noisy)
            labels[line, frame.before : frame.before + len(clean)] = np.where(chosen, clean, IGNORED)
        count = int((labels != IGNORED).sum())
        return tensors(index, count, ids=ids, labels=labels, key_mask=key_mask)


class _Denoise:
    """Make the batches of the two denoising objectives: keys as in Translate."""

    def __init__(
        self, frame: Frame, *, start: int, eos: int, pad: int, share: float, mean_span: float
    ) -> None:
        if not 0 < share < 1:
            raise ConfigError(f"share={share} must lie between 0 and 1")
        if mean_span < 1:
            raise ConfigError(f"mean_span={mean_span} must be at least 1 token")
        self._frame, self._share, self._mean_span = frame, share, mean_span
        self._start, self._eos, self._pad = start, eos, pad

    def _pair(self, clean: Ids, rng: np.random.Generator) -> tuple[Ids, Ids]:
        """Give the noisy source and the target, both without end marks."""
        raise NotImplementedError

    def collate(self, index: Ids, *, seed: int, epoch: int) -> Batch:
        """Assemble examples with this epoch's noise."""
        pairs = []
        for number in index:
            rng = np.random.default_rng([seed, epoch, 1, int(number)])
            pairs.append(self._pair(self._frame.window(int(number)), rng))
        source, source_mask = join([s for s, _ in pairs], pad=self._pad, last=self._eos)
        target_in, target_mask = join([t for _, t in pairs], pad=self._pad, first=self._start)
        target_out, _ = join([t for _, t in pairs], pad=IGNORED, last=self._eos)
        return tensors(
            index,
            int(target_mask.sum()),
            source=source,
            source_mask=source_mask,
            target_in=target_in,
            target_out=target_out,
            target_mask=target_mask,
        )


class DenoiseT5(_Denoise):
    """Restore spans that were left out: source, source_mask, target_in, target_out, target_mask.

    Source: Raffel et al., T5, 2019, section 3.1.4.
    """

    def __init__(
        self,
        store: TokenStore,
        *,
        sentinels: Sequence[int],
        start: int,
        eos: int,
        pad: int,
        context: int,
        share: float = 0.15,
        mean_span: float = 3.0,
    ) -> None:
        """Read from a store in windows of `context`; `sentinels` are the ids that mark spans, at least two.

        `start` is the decoder's first token. Where there are few sentinels there are fewer, longer spans.
        """
        if len(sentinels) < 2:
            raise ConfigError(f"{len(sentinels)} sentinels were given; at least 2 are needed")
        frame = Frame(store, context, bos=None, eos=eos, pad=pad)
        super().__init__(frame, start=start, eos=eos, pad=pad, share=share, mean_span=mean_span)
        self._sentinels = list(sentinels)

    def lengths(self, seed: int, epoch: int) -> Ids:
        """Give the tokens of source and target, (N, 2)."""
        clean = self._frame.lengths - 1
        noise, spans = corruption.span_counts(
            clean, share=self._share, mean_span=self._mean_span, most_spans=len(self._sentinels) - 1
        )
        return np.stack([clean - noise + spans + 1, noise + spans + 2], axis=1)

    def _pair(self, clean: Ids, rng: np.random.Generator) -> tuple[Ids, Ids]:
        return corruption.corrupt_spans(
            clean, rng, sentinels=self._sentinels, share=self._share, mean_span=self._mean_span
        )


class DenoiseBART(_Denoise):
    """Restore a text with spans masked and sentences shuffled.

    Batches have source, source_mask, target_in, target_out and target_mask, as in Translate.
    Source: Lewis et al., BART, 2019, section 2.2.
    """

    def __init__(
        self,
        store: TokenStore,
        *,
        mask: int,
        start: int,
        eos: int,
        pad: int,
        context: int,
        sentence_ends: Collection[int] = (),
        share: float = 0.3,
        mean_span: float = 3.0,
    ) -> None:
        """Read from a store in windows of `context`; sentences that end with `sentence_ends` change places.

        `start` is the decoder's first token; `share` of the tokens are masked, in spans of `mean_span` on
        average.
        """
        frame = Frame(store, context, bos=None, eos=eos, pad=pad)
        super().__init__(frame, start=start, eos=eos, pad=pad, share=share, mean_span=mean_span)
        self._mask, self._ends = mask, frozenset(sentence_ends)

    def lengths(self, seed: int, epoch: int) -> Ids:
        """Give the most tokens that source and target may have, (N, 2)."""
        return np.stack([self._frame.lengths, self._frame.lengths], axis=1)

    def _pair(self, clean: Ids, rng: np.random.Generator) -> tuple[Ids, Ids]:
        shuffled = corruption.permute_sentences(clean, rng, ends=self._ends) if self._ends else clean
        noisy = corruption.infill(
            shuffled, rng, mask=self._mask, share=self._share, mean_span=self._mean_span
        )
        return noisy, clean


class Frame:
    """Cut a store's documents into windows of at most `context` tokens, room for the marks left."""

    def __init__(
        self, store: TokenStore, context: int, *, bos: int | None, eos: int | None, pad: int
    ) -> None:
        self.before, self.after = int(bos is not None), int(eos is not None)
        self._store, self._bos, self._eos, self._pad = store, bos, eos, pad
        room = context - self.before - self.after
        if room < 1:
            raise ConfigError(f"context={context} leaves no room for text beside the start and end marks")
        counts = -(-store.lengths // room)
        self._document = np.repeat(np.arange(len(store)), counts)
        if not len(self._document):
            raise DataError("there is no text: every document is empty")
        first = np.repeat(np.cumsum(counts) - counts, counts)
        begin = (np.arange(len(first)) - first) * room
        self._start = store.offsets[self._document] + begin
        self._size = np.minimum(store.lengths[self._document] - begin, room)
        self.lengths: Ids = self._size + self.before + self.after

    def window(self, number: int) -> Ids:
        """Give the ids of an example, without marks."""
        start = self._start[number]
        return np.asarray(self._store.flat[start : start + self._size[number]], np.int64)

    def empty(self, index: Ids) -> tuple[Ids, NDArray[np.bool_]]:
        """Give rows of padding for these examples, and the mask of what will be real."""
        sizes = self.lengths[index]
        key_mask = np.arange(sizes.max())[None] < sizes[:, None]
        return np.full(key_mask.shape, self._pad, np.int64), key_mask

    def place(self, line: Ids, ids: Ids) -> None:
        """Write ids into a row, between the marks."""
        end = self.before + len(ids)
        line[self.before : end] = ids
        if self._bos is not None:
            line[0] = self._bos
        if self._eos is not None:
            line[end] = self._eos
