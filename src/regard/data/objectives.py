"""What a model is trained to do, as a way to make batches: one small class for each objective.

All have the same shape. `lengths(seed, epoch)` gives what each example costs in tokens, (N,) or, with a
source and a target, (N, 2); `collate(index, seed=…, epoch=…)` assembles the examples of those numbers as
tensors on the processor: B examples, S source and T target positions, int64 ids, padded on the right. Labels
are -100 where nothing is scored. Each batch also has `tokens`, how many labels are scored, and `index` (B,),
the numbers of its examples.

Random noise is drawn anew in each epoch, and depends on (seed, epoch, example) alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from regard.data import packing
from regard.data.assemble import IGNORED, Batch, Ids, cut, fitting, gather, tensors
from regard.data.denoising import DenoiseBART, DenoiseT5, Fill
from regard.data.store import TokenStore
from regard.errors import ConfigError, DataError

__all__ = [
    "IGNORED",
    "Classify",
    "ClassifySeveral",
    "Converse",
    "DenoiseBART",
    "DenoiseT5",
    "Fill",
    "Generate",
    "Objective",
    "Tag",
    "Translate",
]


class Objective(Protocol):
    """Be what every objective offers to `Batches`."""

    def lengths(self, seed: int, epoch: int) -> Ids:
        """Give the cost of each example in tokens, (N,) or (N, 2)."""
        ...

    def collate(self, index: Ids, *, seed: int, epoch: int) -> Batch:
        """Assemble a batch of the examples with these numbers."""
        ...


class Translate:
    """Text to text: source (B, S), source_mask, target_in (B, T), target_out (B, T), target_mask.

    The source ends with `eos`; target_in begins with `bos` (the decoder's first token) and target_out ends
    with `eos`.
    """

    def __init__(
        self,
        source: TokenStore,
        target: TokenStore,
        *,
        bos: int,
        eos: int,
        pad: int,
        context: int | None = None,
        skip_long: bool = False,
    ) -> None:
        """Pair two stores; `context` is the most tokens either side may have, end marks included.

        Raises DataError where the stores differ in size, or for a longer example, unless `skip_long` leaves
        those out (`skipped` then counts them).
        """
        if len(source) != len(target):
            raise DataError(f"{len(source)} sources but {len(target)} targets: they must be pairs")
        self._source, self._target = source, target
        self._bos, self._eos, self._pad = bos, eos, pad
        costs = np.stack([source.lengths + 1, target.lengths + 1], axis=1)
        self._numbers, self.skipped = fitting(costs.max(axis=1, initial=0), context, skip_long)
        self._lengths = costs[self._numbers]

    def lengths(self, seed: int, epoch: int) -> Ids:
        """Give the tokens of source and target, end marks included, (N, 2)."""
        return self._lengths

    def collate(self, index: Ids, *, seed: int, epoch: int) -> Batch:
        """Assemble pairs; `index` counts those kept, the batch's own index all that were given."""
        numbers = self._numbers[index]
        source, source_mask = gather(self._source, numbers, pad=self._pad, last=self._eos)
        target_in, target_mask = gather(self._target, numbers, pad=self._pad, first=self._bos)
        target_out, _ = gather(self._target, numbers, pad=IGNORED, last=self._eos)
        return tensors(
            numbers,
            int(target_mask.sum()),
            source=source,
            source_mask=source_mask,
            target_in=target_in,
            target_out=target_out,
            target_mask=target_mask,
        )


class Generate:
    """Predict each next token: ids (B, T), labels (B, T); where packed also documents and positions (B, T).

    The store is read as one stream, in windows of `context` tokens that begin at another place in each epoch;
    every token but the first is predicted exactly once an epoch. Documents are expected to end with an end
    mark. With `packed`, each row holds whole documents, and `documents` numbers them within the row (-1 is
    padding) so that no token sees another document; `positions` begins anew with each.
    """

    def __init__(
        self,
        store: TokenStore,
        *,
        context: int,
        pad: int,
        packed: bool = False,
        bos: int | None = None,
        random_phase: bool = True,
    ) -> None:
        """Read from a store; `bos`, only where packed, stands before each document, whose first token then counts.

        random_phase=False lets the windows begin at the first token always, as evaluation wants it. A
        document longer than `context` is packed as several, each beginning at position 0. Raises DataError
        for a store with nothing to predict, ConfigError for a `context` that can't be.
        """
        if context < 1:
            raise ConfigError(f"context={context} must be at least 1 token")
        if bos is not None and not packed:
            raise ConfigError("bos has no effect on a stream of tokens; leave it out, or pack the documents")
        self._store, self._context, self._pad = store, context, pad
        self._packed, self._bos, self._random = packed, bos, random_phase
        self._plan: tuple[tuple[int, int], packing.Plan] | None = None
        predicted = len(store.flat) - 1
        if packed:
            self._slots = store.lengths - (1 if bos is None else 0)
            predicted = int(np.maximum(self._slots, 0).sum())
        self._predicted = predicted
        if predicted < 1:
            raise DataError("there is nothing to predict: the text has fewer than two tokens")

    def lengths(self, seed: int, epoch: int) -> Ids:
        """Give the tokens of each window, or of each packed row."""
        if self._packed:
            return self._packing(seed, epoch).row_lengths
        count = 1 + -(-(self._predicted - self._phase(seed, epoch)) // self._context)
        return np.diff(self._edges(np.arange(max(count, 1) + 1), seed, epoch))

    def collate(self, index: Ids, *, seed: int, epoch: int) -> Batch:
        """Assemble windows, or packed rows."""
        if self._packed:
            return self._collate_packed(index, seed, epoch)
        starts = self._edges(index, seed, epoch)
        size = self._edges(index + 1, seed, epoch) - starts
        # One more than the inputs: the labels are the same tokens, one place on.
        tokens, real = cut(self._store.flat, starts, size + 1, self._pad)
        labels = np.where(real[:, 1:], tokens[:, 1:], IGNORED)
        ids = np.where(real[:, 1:], tokens[:, :-1], self._pad)
        return tensors(index, int(size.sum()), ids=ids, labels=labels)

    def _phase(self, seed: int, epoch: int) -> int:
        """Give the size of the first window, which decides where all others begin."""
        if not self._random:
            return self._context
        return int(np.random.default_rng([seed, epoch, 0]).integers(1, self._context + 1))

    def _edges(self, numbers: Ids, seed: int, epoch: int) -> Ids:
        """Give the place at which windows of these numbers begin, and those before them end."""
        edges = self._phase(seed, epoch) + (numbers - 1) * self._context
        return np.clip(edges, 0, self._predicted)

    def _packing(self, seed: int, epoch: int) -> packing.Plan:
        plan = self._plan
        if plan is None or plan[0] != (seed, epoch):
            order = np.arange(len(self._slots))
            if self._random:
                order = np.random.default_rng([seed, epoch, 0]).permutation(len(self._slots))
            plan = self._plan = (seed, epoch), packing.pack(self._slots, order, self._context)
        return plan[1]

    def _collate_packed(self, index: Ids, seed: int, epoch: int) -> Batch:
        plan = self._packing(seed, epoch)
        shape = len(index), int(plan.row_lengths[index].max())
        ids = np.full(shape, self._pad, np.int64)
        labels = np.full(shape, IGNORED, np.int64)
        documents = np.full(shape, -1, np.int64)
        positions = np.zeros(shape, np.int64)
        bos = self._bos
        before = 0 if bos is None else 1
        for line, number in enumerate(index):
            place = 0
            for k, (document, start, size) in enumerate(plan.rows(int(number))):
                tokens = self._store[document]
                here = slice(place, place + size)
                if bos is not None and start == 0:
                    ids[line, place] = bos
                    ids[line, place + 1 : place + size] = tokens[: size - 1]
                else:
                    ids[line, here] = tokens[start - before : start - before + size]
                labels[line, here] = tokens[start + 1 - before : start + 1 - before + size]
                documents[line, here] = k
                positions[line, here] = np.arange(size)
                place += size
        count = int((labels != IGNORED).sum())
        return tensors(index, count, ids=ids, labels=labels, documents=documents, positions=positions)


class Classify:
    """Tell the class of a text: ids (B, T), key_mask (B, T), labels (B,)."""

    def __init__(
        self,
        store: TokenStore,
        labels: Sequence[int] | Ids,
        *,
        pad: int,
        bos: int | None = None,
        eos: int | None = None,
        context: int | None = None,
        skip_long: bool = False,
    ) -> None:
        """Pair texts with the numbers of their classes; `bos` and `eos` are put around each text if given.

        Raises DataError where the numbers differ, or for a text longer than `context`, unless `skip_long`.
        """
        if len(store) != len(labels):
            raise DataError(f"{len(store)} texts but {len(labels)} labels: they must be pairs")
        self._store, self._labels = store, np.asarray(labels, np.int64)
        self._pad, self._bos, self._eos = pad, bos, eos
        costs = store.lengths + (bos is not None) + (eos is not None)
        self._numbers, self.skipped = fitting(costs, context, skip_long)
        self._lengths = costs[self._numbers]

    def lengths(self, seed: int, epoch: int) -> Ids:
        """Give the tokens of each text, marks included."""
        return self._lengths

    def collate(self, index: Ids, *, seed: int, epoch: int) -> Batch:
        """Assemble texts; `tokens` is their number, since each has one label."""
        numbers = self._numbers[index]
        ids, key_mask = gather(self._store, numbers, pad=self._pad, first=self._bos, last=self._eos)
        return tensors(numbers, len(numbers), ids=ids, key_mask=key_mask, labels=self._labels[numbers])


class ClassifySeveral(Classify):
    """Tell all classes of a text: ids (B, T), key_mask (B, T), classes (B, L), 1 where a text is of a class."""

    def __init__(
        self, store: TokenStore, labels: TokenStore, *, num_labels: int, pad: int, bos: int | None = None,
        eos: int | None = None,
    ) -> None:  # fmt: skip
        """Pair texts with the numbers of their classes, any number of them, less than `num_labels`.

        Raises DataError where there are not as many texts as lists of classes.
        """
        super().__init__(store, np.zeros(len(labels), np.int64), pad=pad, bos=bos, eos=eos)
        self._classes, self._num_labels = labels, num_labels

    def collate(self, index: Ids, *, seed: int, epoch: int) -> Batch:
        """Assemble texts; `tokens` is their number."""
        numbers = self._numbers[index]
        ids, key_mask = gather(self._store, numbers, pad=self._pad, first=self._bos, last=self._eos)
        classes = np.zeros((len(numbers), self._num_labels), np.float32)
        for row, number in enumerate(numbers):
            classes[row, self._classes[number]] = 1
        return tensors(numbers, len(numbers), ids=ids, key_mask=key_mask, classes=classes)


class Converse:
    """Predict each next token of the answers in conversations: ids (B, T), labels (B, T), key_mask (B, T)."""

    def __init__(self, store: TokenStore, answers: TokenStore, *, pad: int) -> None:
        """Take for each conversation its ids, and the places of its answers: start, end, start, end.

        Raises DataError where the two do not belong together, or there is no conversation.
        """
        if len(store) != len(answers):
            raise DataError(f"{len(store)} conversations but answers of {len(answers)}: they must be pairs")
        if not len(store):
            raise DataError("there are no conversations")
        self._store, self._answers, self._pad = store, answers, pad

    def lengths(self, seed: int, epoch: int) -> Ids:
        """Give the tokens of each conversation."""
        return np.asarray(self._store.lengths, np.int64)

    def collate(self, index: Ids, *, seed: int, epoch: int) -> Batch:
        """Assemble conversations; the last token of each is a label alone."""
        tokens, real = gather(self._store, index, pad=self._pad)
        labels = np.full(tokens.shape, IGNORED, np.int64)
        for row, number in enumerate(index):
            for start, end in np.asarray(self._answers[int(number)], np.int64).reshape(-1, 2):
                labels[row, start:end] = tokens[row, start:end]
        labels = labels[:, 1:]
        count = int((labels != IGNORED).sum())
        return tensors(index, count, ids=tokens[:, :-1], labels=labels, key_mask=real[:, 1:])


class Tag:
    """Tell the tag of each word: ids, key_mask, labels, all (B, T); scored on a word's first piece."""

    def __init__(
        self,
        store: TokenStore,
        words: TokenStore,
        tags: TokenStore,
        *,
        pad: int,
        bos: int | None = None,
        eos: int | None = None,
        context: int | None = None,
        skip_long: bool = False,
    ) -> None:
        """Take for each sentence its ids, for each id the number of its word, and for each word its tag.

        The first two are what `Tokenizer.encode_words` gives. Raises DataError where they do not belong
        together, or for a sentence longer than `context`, unless `skip_long`.
        """
        if not (len(store) == len(words) == len(tags)) or not np.array_equal(store.lengths, words.lengths):
            raise DataError("ids, word numbers and tags do not belong to the same sentences")
        self._store, self._words, self._tags = store, words, tags
        self._pad, self._bos, self._eos = pad, bos, eos
        costs = store.lengths + (bos is not None) + (eos is not None)
        self._numbers, self.skipped = fitting(costs, context, skip_long)
        self._lengths = costs[self._numbers]

    def lengths(self, seed: int, epoch: int) -> Ids:
        """Give the tokens of each sentence, marks included."""
        return self._lengths

    def collate(self, index: Ids, *, seed: int, epoch: int) -> Batch:
        """Assemble sentences."""
        numbers = self._numbers[index]
        ids, key_mask = gather(self._store, numbers, pad=self._pad, first=self._bos, last=self._eos)
        first = None if self._bos is None else -1
        last = None if self._eos is None else -1
        word, _ = gather(self._words, numbers, pad=-1, first=first, last=last)
        starts = np.diff(word, axis=1, prepend=-1) != 0
        starts &= word >= 0
        place = self._tags.offsets[numbers][:, None] + word
        if (word.max(axis=1, initial=-1) >= self._tags.lengths[numbers]).any():
            raise DataError("a sentence has more words than tags")
        labels = np.full_like(ids, IGNORED)
        labels[starts] = self._tags.flat[place[starts]]
        return tensors(numbers, int(starts.sum()), ids=ids, key_mask=key_mask, labels=labels)
