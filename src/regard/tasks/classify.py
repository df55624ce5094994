"""Classify: one label for a text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from regard.config import Kind, ModelConfig
from regard.data.batches import Batches
from regard.data.objectives import Classify
from regard.data.store import TokenStore
from regard.data.tokenizers import Tokenizer
from regard.errors import ConfigError, DataError
from regard.generate.config import check_count
from regard.tasks.base import (
    DataSize,
    Evaluation,
    Parts,
    Stop,
    Stores,
    Suit,
    Task,
    Values,
    encode_texts,
    label_numbers,
    marks,
    room,
    small_or_large,
)  # fmt: skip
from regard.tasks.framing import as_trained
from regard.tasks.inputs import Batch, Input, batches, check_lengths, make_inputs, refuse_long
from regard.tasks.metrics import score_classes
from regard.tasks.verbs import check_verb
from regard.training.loss import to_device

TEMPLATE = "This example is {}."
"""The sentence about a label that a text is asked to entail, where the user gives none."""


class ClassifyTask(Task):
    """Learn from texts with a label each."""

    name: ClassVar[str] = "classify"
    help: ClassVar[str] = "a label for a text"
    fields: ClassVar[tuple[str, ...]] = ("text", "label")
    kinds: ClassVar[tuple[Kind, ...]] = ("encoder", "decoder")
    metric: ClassVar[str] = "accuracy"
    labelled: ClassVar[bool] = True
    by_time: ClassVar[dict[str, Any]] = {
        "lr": 6e-4, "batch_tokens": 2048, "average": "ema", "ema_decay": 0.99, "word_dropout": 0.2,
    }  # fmt: skip

    def texts(self, values: Values) -> Iterable[str]:  # type: ignore[override]
        """Give the text; labels are no text."""
        yield values["text"]

    def labels(self, rows: Iterable[Values]) -> tuple[str, ...]:
        """Collect the labels, sorted."""
        found = sorted({values["label"] for values in rows})
        if len(found) < 2:
            raise DataError(
                f"every row has the label {found[0]!r}; there must be at least two to learn a difference."
            )
        return tuple(found)

    def model_changes(self, config: ModelConfig, labels: tuple[str, ...]) -> dict[str, Any]:
        """Ask for a head over the labels; a decoder pools its last token, which alone has seen the whole text."""
        return {
            "head": "classify",
            "labels": labels,
            "multi_label": False,
            "pooling": "last" if config.kind == "decoder" else "mean",
            "head_transform": False,
        }

    def suit(self, size: DataSize) -> Suit:
        """Choose by the number of characters."""
        presets = {"small": "encoder-tiny", "medium": "encoder-tiny", "large": "encoder-small"}
        return small_or_large(size, presets, context=256, batch_tokens=2048)

    def encode(
        self, rows: Iterable[Values], tokenizer: Tokenizer, config: ModelConfig, folder: Path
    ) -> Stores:
        """Write text.tokens and label.tokens."""
        numbers = label_numbers(config)
        texts = encode_texts((r["text"] for r in rows), tokenizer, limit=room(tokenizer, config))
        labels = ([numbers(r["label"])] for r in rows)
        return {
            "text": TokenStore.write(folder / "text.tokens", texts, vocab_size=config.vocab_size),
            "label": TokenStore.write(folder / "label.tokens", labels, vocab_size=len(config.labels)),
        }

    def objective(self, stores: Stores, tokenizer: Tokenizer, config: ModelConfig, *, seed: int) -> Any:
        """Give texts between start and end tokens, with the number of their label."""
        bos, eos = marks(tokenizer, config)
        return Classify(
            stores["text"],
            np.asarray(stores["label"].flat, np.int64),
            pad=config.pad_id or 0,
            bos=bos,
            eos=eos,
        )

    @torch.no_grad()
    def evaluate(
        self, parts: Parts, rows: Sequence[Values], stores: Stores, *, quick: bool, should_stop: Stop = lambda: False,
        lowercase: bool = False, beams: int = 1,
    ) -> Evaluation:  # fmt: skip
        """Give accuracy, macro F1, and for each class precision, recall and F1."""
        objective = self.objective(stores, parts.tokenizer, parts.config, seed=0)
        data = Batches(objective, tokens_per_batch=16_384, shuffle=False)
        names = parts.config.labels
        answers: list[str] = []
        truths: list[str] = []
        for k in range(data.num_batches(0)):
            batch = to_device(data.batch(0, k), parts.device)
            logits = parts.module(batch["ids"], key_mask=batch["key_mask"])
            answers += [names[i] for i in logits.argmax(-1).tolist()]
            truths += [names[i] for i in batch["labels"].tolist()]
            if should_stop() or (quick and len(answers) >= 5000):
                break
        table = score_classes(answers, truths, names)
        per_class = [
            {"label": label, "precision": p, "recall": r, "f1": f, "count": n}
            for label, (p, r, f, n) in table.per_class.items()
        ]
        details = {"per_class": per_class, "confusion": table.confusion, "labels": list(names)}
        return Evaluation(
            {"accuracy": table.accuracy, "macro_f1": table.macro_f1}, None, {} if quick else details
        )


@dataclass(frozen=True)
class Choice:
    """Hold a label and how probable it is, 0 to 1; of a model with a single label, its number."""

    label: str
    score: float


@dataclass(frozen=True)
class Classification:
    """Hold what a text, or a pair of texts, was taken for.

    Attributes:
        label: the most probable label.
        score: its probability, 0 to 1; of a model with a single label (regression) the number itself.
        scores: all labels, or the best of them, best first; their probabilities add up to 1 unless a text may have
            several.
        chosen: the labels that the text has: the best one, or where it may have several all that reach the threshold.
        tokens: how many tokens were read: with those around the text, the second text or the hypotheses, and those of
            overlapping windows.
        windows: in how many windows the text was read.
    """

    label: str
    score: float
    scores: tuple[Choice, ...]
    chosen: tuple[str, ...]
    tokens: int
    windows: int

    def __str__(self) -> str:
        return ", ".join(self.chosen)


@dataclass(frozen=True)
class _Way:
    """Say how logits become probabilities, and which labels are chosen."""

    labels: tuple[str, ...]
    scores: Callable[[Tensor], Tensor]  # of a window, from (1, classes) or (hypotheses, classes) to (labels,)
    threshold: float | None = None  # None: the best label alone is chosen
    hypotheses: tuple[str, ...] | None = None


def classify(
    parts: Parts, texts: Sequence[str], *, pair: Sequence[str] | None = None, labels: Sequence[str] | None = None,
    template: str | None = None, multi_label: bool = False, threshold: float | None = None, top: int | None = None,
    windows: bool = False, batch_tokens: int = 8192,
) -> list[Classification]:  # fmt: skip
    """Give the probabilities of a classifier's labels, or of any labels by a model that knows entailment.

    What a text gives depends on it alone, never on its neighbours.

    Args:
        parts: a model with a head over labels, and its tokenizer.
        texts: each must fit the model's context, but for `windows`.
        pair: a second text for each, for models of pairs (entailment, paraphrase, similarity); it is never cut.
        labels: labels of one's own: the model, which must have learned entailment, says how far a text entails a
            sentence about each of them.
        template: that sentence; {} stands for the label. None: "This example is {}."
        multi_label: with `labels`: each may be true whatever the others are.
        threshold: the least probability of a label that is chosen, where a text may have several; None: 0.5.
        top: how many labels `scores` holds; None: all.
        windows: cut longer texts into overlapping windows and average their probabilities, by their tokens.
        batch_tokens: tokens in memory at once.

    Raises:
        DataError: a text is longer than the context.
        ConfigError: the model has no head over labels, or a setting can't be or would do nothing.

    Source: Yin et al. 2019, arXiv:1909.00161, for labels by entailment.
    """
    check_count("batch_tokens", batch_tokens, low=1, high=10**9)
    check_count("top", 1 if top is None else top, low=1, high=10**6)
    way = _way(parts.config, labels, template, multi_label, threshold, pair is not None)
    inputs = _inputs(parts, texts, pair, way, windows)
    refuse_long(inputs, parts.config, texts)
    logits: dict[int, Tensor] = {}
    with torch.inference_mode():
        for batch in batches(parts, inputs, batch_tokens=batch_tokens):
            rows = _logits(parts, batch).float().cpu().double()
            logits |= {id(one): row for one, row in zip(batch.inputs, rows, strict=True)}
    read: list[dict[int, list[Input]]] = [{} for _ in texts]
    for one in inputs:
        read[one.text].setdefault(one.first, []).append(one)
    return [_result(way, [*of_text.values()], logits, top) for of_text in read]


def check_classify_texts(
    parts: Parts, texts: Sequence[str], *, pair: Sequence[str] | None = None, labels: Sequence[str] | None = None,
    template: str | None = None, multi_label: bool = False, windows: bool = False,
) -> dict[int, str]:  # fmt: skip
    """Find the texts that `classify` would refuse: the number of each, from 0, and what is wrong with it."""
    way = _way(parts.config, labels, template, multi_label, None, pair is not None)
    return check_lengths(_inputs(parts, texts, pair, way, windows), parts.config)


def _way(
    config: ModelConfig, labels: Sequence[str] | None, template: str | None, multi_label: bool,
    threshold: float | None, pair: bool,
) -> _Way:  # fmt: skip
    """Choose how logits are read, and refuse settings that can't be or would do nothing."""
    check_verb(config, "classify")
    several = config.multi_label if labels is None else multi_label or len(labels) == 1
    if threshold is not None and (not several or not 0 <= threshold <= 1):
        wrong = "is for texts that may have several labels" if not several else "is no probability, 0 to 1"
        raise ConfigError(f"threshold={threshold!r} {wrong}; leave it out or change it.")
    least = (0.5 if threshold is None else threshold) if several else None
    if labels is not None:
        if pair:
            raise ConfigError("labels of your own are judged as the second text of a pair; leave `pair` out.")
        return _by_entailment(config, labels, template, several, least)
    if template is not None or multi_label:
        raise ConfigError(
            "template and multi_label are for labels of your own; give `labels` too, or leave them out."
        )
    if several:
        return _Way(config.labels, lambda logits: logits[0].sigmoid(), least)
    if len(config.labels) == 1:
        return _Way(config.labels, lambda logits: logits[0])
    return _Way(config.labels, lambda logits: logits[0].softmax(-1))


def _by_entailment(
    config: ModelConfig, labels: Sequence[str], template: str | None, several: bool, threshold: float | None
) -> _Way:
    """Let a model of entailment judge a sentence about each label."""
    known = [label.lower() for label in config.labels]
    entail = next((i for i, name in enumerate(known) if name.startswith("entail")), None)
    if entail is None or len(known) < 2 or config.multi_label:
        raise ConfigError(
            f"labels of your own need a model that knows entailment; this one's labels are {', '.join(config.labels)}."
        )
    if isinstance(labels, str) or not labels or not all(labels) or len(set(labels)) < len(labels):
        raise ConfigError("labels must be a list of different texts, at least one, none of them empty.")
    template = TEMPLATE if template is None else template
    if "{}" not in template:
        raise ConfigError(f"template={template!r} must hold {{}}, where the label stands.")
    usual = len(known) - 1 if entail == 0 else 0  # the other end of the list, where no label says so
    against = next((i for i, name in enumerate(known) if name.startswith("contra")), usual)

    def scores(logits: Tensor) -> Tensor:
        return logits[:, [against, entail]].softmax(-1)[:, 1] if several else logits[:, entail].softmax(-1)

    return _Way(tuple(labels), scores, threshold, tuple(template.replace("{}", label) for label in labels))


def _inputs(
    parts: Parts, texts: Sequence[str], pair: Sequence[str] | None, way: _Way, windows: bool
) -> list[Input]:
    """Frame texts; with a second text each, or with each hypothesis, as pairs whose first text may be cut."""
    # A run of ours learned from texts between start and end tokens, whatever kind of model it is.
    framing = parts if parts.published is None else as_trained(parts)
    firsts = parts.tokenizer.encode_batch(list(texts))
    if way.hypotheses is not None:
        hypotheses = parts.tokenizer.encode_batch(list(way.hypotheses))
        seconds = [hypotheses for _ in texts]
    elif pair is not None:
        if isinstance(pair, str) or len(pair) != len(texts):
            raise ConfigError(f"pair must be a list of {len(texts)} texts, one for each of `texts`.")
        seconds = [[ids] for ids in parts.tokenizer.encode_batch(list(pair))]
    else:
        return make_inputs(framing, firsts, windows=windows)
    inputs = []
    for number, (first, others) in enumerate(zip(firsts, seconds, strict=True)):
        around = max(one.total for one in make_inputs(framing, others, pairs=[[] for _ in others]))
        for begin, end in _spans(number, len(first), parts.config.context - around, windows):
            framed = make_inputs(framing, others, pairs=[first[begin:end] for _ in others])
            inputs += [replace(one, text=number, first=begin, count=end - begin) for one in framed]
    return inputs


def _spans(number: int, length: int, room: int, windows: bool) -> list[tuple[int, int]]:
    """Cut a text into spans of at most `room` tokens that overlap by half."""
    if not windows or length <= room:
        return [(0, length)]
    if room < 2:
        raise ConfigError(f"text {number + 1} has no room beside the text that it is paired with.")
    last = length - room
    return [(at, at + room) for at in (*range(0, last, room - room // 2), last)]


def _logits(parts: Parts, batch: Batch) -> Tensor:
    if parts.config.kind == "encoder-decoder":
        return parts.module(batch.ids, source_mask=batch.mask)
    given = {} if batch.segments is None else {"segments": batch.segments}
    return parts.module(batch.ids, key_mask=batch.mask, **given)


def _result(
    way: _Way, read: Sequence[Sequence[Input]], logits: Mapping[int, Tensor], top: int | None
) -> Classification:
    """Average the windows of a text, each with its hypotheses, by their tokens."""
    weights = torch.tensor([max(1, window[0].count) for window in read], dtype=torch.float64)
    found = torch.stack([way.scores(torch.stack([logits[id(one)] for one in window])) for window in read])
    scores = ((weights / weights.sum()) @ found).tolist()
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    ranked = tuple(Choice(way.labels[i], scores[i]) for i in order)
    chosen = tuple(
        choice.label for choice in ranked if way.threshold is None or choice.score >= way.threshold
    )
    return Classification(
        ranked[0].label, ranked[0].score, ranked[:top], chosen[:1] if way.threshold is None else chosen,
        sum(len(one.ids) for window in read for one in window), len(read),
    )  # fmt: skip
