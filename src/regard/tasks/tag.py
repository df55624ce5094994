"""Tag: a label for every word, names and their kinds for instance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from regard.config import Kind, ModelConfig
from regard.data.batches import Batches
from regard.data.objectives import Tag
from regard.data.store import TokenStore
from regard.data.tokenizers import Tokenizer
from regard.errors import ConfigError, DataError, suggest
from regard.generate.config import check_count
from regard.nn.crf import Transitions, side_by_side
from regard.tasks.base import (
    DataSize,
    Evaluation,
    Lengths,
    Parts,
    Stop,
    Stores,
    Suit,
    Task,
    Values,
    label_numbers,
    marks,
    room,
    small_or_large,
)  # fmt: skip
from regard.tasks.confusion import tag_details
from regard.tasks.entities import STRATEGIES, Entity, Span, find_entities, split_words
from regard.tasks.framing import as_trained
from regard.tasks.inputs import Input, batches, check_lengths, make_inputs, refuse_long
from regard.tasks.metrics import score_spans
from regard.tasks.verbs import check_verb
from regard.training.loss import IGNORED, to_device


class TagTask(Task):
    """Learn from sentences of words with a tag each."""

    name: ClassVar[str] = "tag"
    help: ClassVar[str] = "a tag for every word (names, parts of speech)"
    fields: ClassVar[tuple[str, ...]] = ("words", "tags")
    kinds: ClassVar[tuple[Kind, ...]] = ("encoder", "decoder")
    metric: ClassVar[str] = "f1"
    labelled: ClassVar[bool] = True
    by_time: ClassVar[dict[str, Any]] = {
        "optimizer": "muon", "lr": 2e-3, "batch_tokens": 2048, "average": "ema", "ema_decay": 0.99, "word_dropout": 0.1,
    }  # fmt: skip
    adjustable: ClassVar[tuple[str, ...]] = ("head_transitions",)

    def texts(self, values: Values) -> Iterator[str]:
        """Give the sentence."""
        yield " ".join(values["words"])

    def labels(self, rows: Iterable[Values]) -> tuple[str, ...]:
        """Collect the tags, sorted."""
        found = sorted({tag for values in rows for tag in values["tags"]})
        if len(found) < 2:
            raise DataError(
                f"every word has the tag {found[0]!r}; there must be at least two to learn a difference."
            )
        return tuple(found)

    def model_changes(self, config: ModelConfig, labels: tuple[str, ...]) -> dict[str, Any]:
        """Ask for a head over the tags, with scores of which follows which, unless a tagger is given."""
        transitions = config.head != "tag" or config.head_transitions
        return {"head": "tag", "labels": labels, "head_transform": False, "head_transitions": transitions}

    def suit(self, size: DataSize) -> Suit:
        """Choose by the number of characters."""
        presets = {"small": "encoder-tiny", "medium": "encoder-tiny", "large": "encoder-small"}
        return small_or_large(size, presets, context=512, batch_tokens=2048)

    def encode(
        self, rows: Iterable[Values], tokenizer: Tokenizer, config: ModelConfig, folder: Path
    ) -> Stores:
        """Write text.tokens, word.tokens (the number of each token's word) and tag.tokens (each word's tag)."""
        numbers = label_numbers(config)
        most = room(tokenizer, config)

        def encoded() -> Iterator[tuple[list[int], list[int]]]:
            lengths = Lengths(most)
            for values in rows:
                ids, words = tokenizer.encode_words(values["words"])
                if lengths.fits(len(ids)):
                    yield ids, words
            lengths.check()

        tags = ([numbers(tag) for tag in values["tags"]] for values in rows)
        return {
            "text": TokenStore.write(
                folder / "text.tokens", (ids for ids, _ in encoded()), vocab_size=config.vocab_size
            ),
            "word": TokenStore.write(
                folder / "word.tokens", (words for _, words in encoded()), vocab_size=config.context
            ),
            "tag": TokenStore.write(folder / "tag.tokens", tags, vocab_size=len(config.labels)),
        }

    def objective(self, stores: Stores, tokenizer: Tokenizer, config: ModelConfig, *, seed: int) -> Any:
        """Give sentences between start and end tokens, a tag on the first token of each word."""
        bos, eos = marks(tokenizer, config)
        return Tag(stores["text"], stores["word"], stores["tag"], pad=config.pad_id or 0, bos=bos, eos=eos)

    @torch.no_grad()
    def evaluate(
        self, parts: Parts, rows: Sequence[Values], stores: Stores, *, quick: bool, should_stop: Stop = lambda: False,
        lowercase: bool = False, beams: int = 1,
    ) -> Evaluation:  # fmt: skip
        """Give precision, recall and F1 of whole spans, and the share of right tags."""
        objective = self.objective(stores, parts.tokenizer, parts.config, seed=0)
        data = Batches(objective, tokens_per_batch=16_384, shuffle=False)
        names, chain = parts.config.labels, _chain(parts)
        answers: list[list[str]] = []
        truths: list[list[str]] = []
        for k in range(data.num_batches(0)):
            batch = to_device(data.batch(0, k), parts.device)
            first = batch["labels"] != IGNORED
            logits, mask = side_by_side(parts.module(batch["ids"], key_mask=batch["key_mask"])[first], first)
            best = logits.argmax(-1) if chain is None else chain.best(logits, mask)
            for row, labels, real, own in zip(best, batch["labels"], mask, first, strict=True):
                answers.append([names[i] for i in row[real].tolist()])
                truths.append([names[i] for i in labels[own].tolist()])
            if should_stop() or (quick and len(answers) >= 5000):
                break
        precision, recall, f1 = score_spans(answers, truths)
        pairs = [(a, t) for x, y in zip(answers, truths, strict=True) for a, t in zip(x, y, strict=True)]
        accuracy = sum(a == t for a, t in pairs) / max(1, len(pairs))
        details = {} if quick else tag_details(answers, truths, names)
        return Evaluation(
            {"f1": f1, "precision": precision, "recall": recall, "accuracy": accuracy}, None, details
        )


@dataclass(frozen=True)
class Tagging:
    """Hold what was found in one text.

    Attributes:
        entities: in their order in the text; none overlaps another.
        tokens: how many tokens were read, those around the text and those of overlapping windows included.
        windows: in how many windows.
    """

    entities: tuple[Entity, ...]
    tokens: int
    windows: int

    def __str__(self) -> str:
        return ", ".join(f"{entity.text} ({entity.label})" for entity in self.entities)


@dataclass(frozen=True)
class _Encoded:
    """Hold the ids of a text, the characters that each stands for, and whether it begins a word.

    Of a run of ours, which learned from words, the first id of a word stands for all of it and the others for nothing.
    """

    ids: list[int]
    places: list[Span]
    begins: list[bool]


def tag(
    parts: Parts, texts: Sequence[str], *, strategy: str | None = None, windows: bool = False, batch_tokens: int = 8192
) -> list[Tagging]:  # fmt: skip
    """Find entities, or parts of speech, with their places in the texts as given.

    What a text gives depends on it alone, never on its neighbours. A model with scores of which tag follows which
    gives a text's best sequence of tags, and a word's score is the probability of its tag over all sequences.

    Args:
        parts: a model with a head over tags, and its tokenizer.
        texts: each must fit the model's context, but for `windows`.
        strategy: "none", "simple", "first", "average" or "max", see `entities.find_entities`; None: "first", since
            most taggers learn the tag of a word's first token. A run of ours reads words, and knows "none" (a word
            each) and "first" alone.
        windows: cut longer texts into overlapping windows; each token is tagged where it stands farthest from the
            cuts (for a decoder, which sees nothing behind, from the one before it).
        batch_tokens: tokens in memory at once.

    Raises:
        DataError: a text is longer than the context.
        ConfigError: the model has no head over tags, or a setting can't be.
    """
    check_verb(parts.config, "tag")
    check_count("batch_tokens", batch_tokens, low=1, high=10**9)
    strategy = _strategy(parts, strategy)
    encoded = [_encoded(parts, text) for text in texts]
    inputs = _inputs(parts, encoded, windows)
    refuse_long(inputs, parts.config, texts)
    rows, chosen = _decide(parts, encoded, _logits(parts, encoded, inputs, batch_tokens), batch_tokens)
    read: list[list[int]] = [[] for _ in texts]
    for window in inputs:
        read[window.text].append(len(window.ids))
    results = []
    for number, (text, one) in enumerate(zip(texts, encoded, strict=True)):
        entities = find_entities(
            text, one.places, list(rows[number]), one.begins, parts.config.labels, strategy=strategy,
            chosen=chosen[number],
        )  # fmt: skip
        results.append(Tagging(entities, sum(read[number]), len(read[number])))
    return results


def check_tag_texts(parts: Parts, texts: Sequence[str], *, windows: bool = False) -> dict[int, str]:
    """Find the texts that `tag` would refuse: the number of each, from 0, and what is wrong with it."""
    return check_lengths(_inputs(parts, [_encoded(parts, text) for text in texts], windows), parts.config)


def _inputs(parts: Parts, encoded: Sequence[_Encoded], windows: bool) -> list[Input]:
    """Frame texts: between start and end tokens for a run of ours, as its family does for a published model."""
    as_it_was = parts if parts.published is None else as_trained(parts)
    return make_inputs(as_it_was, [one.ids for one in encoded], windows=windows)


def _strategy(parts: Parts, strategy: str | None) -> str:
    if strategy is None:
        return "first"
    if strategy not in STRATEGIES:
        raise ConfigError(
            f"strategy={strategy!r} is not one of {', '.join(STRATEGIES)}. {suggest(strategy, STRATEGIES)}".strip()
        )
    if parts.published is None and strategy not in ("none", "first"):
        raise ConfigError(
            f"strategy={strategy!r} looks at all tokens of a word; this run learned the tags of first ones, so it is "
            "for published models: choose none or first."
        )
    return strategy


def _encoded(parts: Parts, text: str) -> _Encoded:
    if not isinstance(text, str):
        raise DataError(f"a text must be a string, not {type(text).__name__}: {str(text)[:40]!r}")
    tokenizer, words = parts.tokenizer, split_words(text)
    if parts.published is None:
        ids, numbers = tokenizer.encode_words([text[start:end] for start, end in words])
        begins = [i == 0 or numbers[i - 1] != number for i, number in enumerate(numbers)]
        places = [words[number] if first else (0, 0) for number, first in zip(numbers, begins, strict=True)]
        return _Encoded(ids, places, begins)
    ids, places = tokenizer.offsets(text)
    if tokenizer.continuing:
        names = [tokenizer.id_to_token(i) or "" for i in ids]
        return _Encoded(ids, places, [not name.startswith(tokenizer.continuing) for name in names])
    # Other kinds don't say where a word begins, so the text does: at spaces and punctuation, as in the data sets.
    first = {start for start, _ in words}
    starts = [end - len(text[start:end].lstrip()) for start, end in places]
    return _Encoded(ids, places, [start in first for start in starts])


@torch.inference_mode()
def _logits(
    parts: Parts, encoded: Sequence[_Encoded], inputs: Sequence[Input], batch_tokens: int
) -> list[NDArray[np.float64]]:
    """Give for each text the logits (tokens, tags), each token's from the window that shows most around it."""
    count = len(parts.config.labels)
    rows = [np.zeros((len(one.ids), count)) for one in encoded]
    nearest = [np.full(len(one.ids), -1.0) for one in encoded]
    for batch in batches(parts, [one for one in inputs if one.count], batch_tokens=batch_tokens):
        given = {} if batch.segments is None else {"segments": batch.segments}
        logits = parts.module(batch.ids, key_mask=batch.mask, **given)
        found = logits.float().cpu().double().numpy()
        for one, row in zip(batch.inputs, found, strict=True):
            here = slice(one.first, one.first + one.count)
            near = _from_cuts(one, len(encoded[one.text].ids), causal=parts.config.kind == "decoder")
            # Windows of one text are as long as each other and come in order: of equals it is the first.
            better = near > nearest[one.text][here]
            rows[one.text][here][better] = row[one.start : one.start + one.count][better]
            nearest[one.text][here][better] = near[better]
    return rows


@torch.inference_mode()
def _decide(
    parts: Parts, encoded: Sequence[_Encoded], logits: Sequence[NDArray[np.float64]], batch_tokens: int
) -> tuple[list[NDArray[np.float64]], list[list[int] | None]]:
    """Give for each text the probabilities (tokens, tags); and each token's tag, None: its likeliest one.

    With scores of which tag follows which, both are those of a word in the whole text, its windows joined, and stand
    at its first token.
    """
    chain = _chain(parts)
    if chain is None:
        return [torch.from_numpy(row).softmax(-1).numpy() for row in logits], [None] * len(logits)
    begins = [np.flatnonzero(one.begins) for one in encoded]
    rows = [np.zeros_like(row) for row in logits]
    tags = [np.zeros(len(row), np.int64) for row in logits]
    order = sorted((i for i, own in enumerate(begins) if len(own)), key=lambda i: -len(begins[i]))
    while order:
        size = max(1, batch_tokens // len(begins[order[0]]))
        group, order = order[:size], order[size:]
        counts = torch.tensor([len(begins[i]) for i in group])
        words = torch.from_numpy(np.concatenate([logits[i][begins[i]] for i in group]))
        emissions, mask = side_by_side(words, torch.arange(int(counts[0])) < counts[:, None])
        best, shares = chain.best(emissions, mask).numpy(), chain.marginals(emissions, mask).numpy()
        for i, row, own in zip(group, best, shares, strict=True):
            tags[i][begins[i]] = row[: len(begins[i])]
            rows[i][begins[i]] = own[: len(begins[i])]
    return rows, [own.tolist() for own in tags]


def _chain(parts: Parts) -> Transitions | None:
    """Give a model's scores of which tag follows which."""
    return getattr(parts.module.head, "transitions", None)


def _from_cuts(one: Input, total: int, *, causal: bool) -> NDArray[np.float64]:
    """Give how far each token of a window stands from a cut; the text's own ends are none."""
    after = np.arange(one.count, dtype=np.float64)
    before = np.arange(one.count, dtype=np.float64)[::-1].copy()
    if one.first == 0:
        after[:] = np.inf
    if causal or one.first + one.count == total:
        before[:] = np.inf
    return np.minimum(after, before)
