"""What every task answers: which columns it reads, what it learns from, how it is measured."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from regard.config import Kind, ModelConfig
from regard.data.store import TokenStore
from regard.data.tokenizers import Tokenizer
from regard.errors import ConfigError, DataError, suggest

if TYPE_CHECKING:
    from torch import nn

    from regard.generate.published import Published

Values = Mapping[str, Any]
Stores = dict[str, TokenStore]
Stop = Callable[[], bool]


@dataclass(frozen=True)
class Parts:
    """Hold what a task works with: a network, its tokenizer, its configuration, and how it is meant to write.

    `published` is None for a model of ours, whose verbs have defaults of their own. `sentences` says how a sentence
    encoder's folder makes one vector of a text (pooling, normalise, max_length); None for any other model. `stretch`
    is how many tokens a target may have for each one of its source, beside 20 more.
    """

    module: nn.Module
    tokenizer: Tokenizer
    config: ModelConfig
    published: Published | None = None
    sentences: Mapping[str, Any] | None = None
    stretch: int = 2

    @property
    def device(self) -> Any:
        """Give the device that the weights are on."""
        return next(self.module.parameters()).device


@dataclass(frozen=True)
class Evaluation:
    """Hold what an evaluation found.

    Attributes:
        metrics: name to value; the task's own metric among them.
        sample: one example as text, to watch while training.
        details: what a report shows beside the numbers (a signature, a table of classes).
        whole: whether a quick evaluation left nothing out, so that no other of the same weights need follow.
    """

    metrics: dict[str, float]
    sample: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    whole: bool = False


@dataclass(frozen=True)
class DataSize:
    """Count the rows and characters of the training data."""

    rows: int
    characters: int

    def epochs(self, usual: int, batch_tokens: int) -> int:
        """Give the usual number of passes, or as many as make a thousand steps: small data needs more of them.

        A token is taken for four characters.
        """
        steps = max(1.0, self.characters / 4 / batch_tokens)
        return max(usual, math.ceil(1000 / steps))


@dataclass(frozen=True)
class Suit:
    """Hold what suits a task and its data, where the user says nothing.

    Attributes:
        model: a preset's name.
        model_settings: fields of ModelConfig that differ from the preset.
        training: fields of TrainConfig that differ from its own defaults.
        tokenizer: the kind that is trained, and `vocab_size` its size.
    """

    model: str
    training: dict[str, Any]
    model_settings: dict[str, Any] = field(default_factory=dict)
    tokenizer: str = "bpe"
    vocab_size: int = 8000


class Task(ABC):
    """Describe one task to the code that trains, evaluates and runs models."""

    name: ClassVar[str]
    help: ClassVar[str]
    fields: ClassVar[tuple[str, ...]]
    kinds: ClassVar[tuple[Kind, ...]]
    metric: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    writes: ClassVar[bool] = False  # whether its measure is of texts that it writes
    labelled: ClassVar[bool] = False  # whether it learns labels, of which a text has few
    by_time: ClassVar[dict[str, Any]] = {}  # of TrainConfig, what suits at width 128 where the time decides
    quick_tokens: ClassVar[int] = (
        65_536  # of held-out data, that a quick evaluation takes at most where it writes none
    )
    joins_documents: ClassVar[bool] = False  # whether a text is a stream that may be cut anywhere
    adjustable: ClassVar[tuple[str, ...]] = ()  # those of its model_changes that a user may set otherwise

    def texts(self, values: Values) -> Iterator[str]:
        """Give the texts of a row that the tokenizer is trained on."""
        for name in self.fields:
            yield values[name]

    def labels(self, rows: Iterable[Values]) -> tuple[str, ...]:
        """Collect the labels that the model chooses between, sorted; none for most tasks."""
        return ()

    def model_changes(self, config: ModelConfig, labels: tuple[str, ...]) -> dict[str, Any]:
        """Give the fields of ModelConfig that this task sets, its head among them."""
        return {"head": "lm", "labels": ()}

    def extra_tokens(self, config: ModelConfig) -> int:
        """Count the ids that the model needs beyond the tokenizer's."""
        return 0

    @abstractmethod
    def suit(self, size: DataSize) -> Suit:
        """Choose a model, a vocabulary and a way to train for data of this size."""

    @abstractmethod
    def encode(
        self, rows: Iterable[Values], tokenizer: Tokenizer, config: ModelConfig, folder: Path
    ) -> Stores:
        """Write the rows as token files below `folder`, streaming; `open_stores` finds them again."""

    def about(self, stores: Stores) -> dict[str, Any]:
        """Give what a run keeps in its record of the token files of its training data; nothing for most tasks."""
        return {}

    @abstractmethod
    def objective(self, stores: Stores, tokenizer: Tokenizer, config: ModelConfig, *, seed: int) -> Any:
        """Give the training examples of token files: what data/batches.py cuts into batches."""

    @abstractmethod
    def evaluate(
        self, parts: Parts, rows: Sequence[Values], stores: Stores, *, quick: bool, should_stop: Stop = lambda: False,
        lowercase: bool = False, beams: int = 1,
    ) -> Evaluation:  # fmt: skip
        """Measure a model on rows and their token files; `quick` is for in between, on at most some hundreds."""

    def open_stores(self, folder: Path) -> Stores:
        """Open what `encode` wrote."""
        return {path.name.split(".")[0]: TokenStore.open(path) for path in sorted(folder.glob("*.tokens"))}


class TooLongError(DataError):
    """Report texts that don't fit the model's context, all of them at once.

    Attributes:
        numbers: which ones, counted from 0.
        total: how many texts there were.
        longest: tokens of the longest one.
        limit: tokens that a text may have.
    """

    def __init__(self, numbers: Sequence[int], *, total: int, longest: int, limit: int) -> None:
        super().__init__(
            f"{len(numbers)} of {total} texts have more than {limit} tokens, the most that this model reads, "
            f"the first of them is number {numbers[0] + 1}, the longest has {longest}; shorten them or leave them out."
        )
        self.numbers, self.total, self.longest, self.limit = numbers, total, longest, limit


class UnknownLabelError(DataError):
    """Report a label that the model doesn't know; `label` is that label."""

    def __init__(self, label: str, known: Iterable[str]) -> None:
        super().__init__(
            f"the label {label!r} does not occur in the training data. {suggest(label, known)}".strip()
        )
        self.label = label


class Lengths:
    """Watch texts go by, and refuse those beyond a limit once all of them are known."""

    def __init__(self, limit: int | None) -> None:
        self._limit, self._count, self._longest = limit, 0, 0
        self._too_long: list[int] = []

    def fits(self, tokens: int) -> bool:
        """Take note of the next text; False once there is one that is too long, since nothing will be kept then."""
        if self._limit is not None and tokens > self._limit:
            self._too_long.append(self._count)
            self._longest = max(self._longest, tokens)
        self._count += 1
        return not self._too_long

    def check(self) -> None:
        """Refuse what was too long.

        Raises:
            TooLongError: it names all of them.
        """
        if self._too_long:
            assert self._limit is not None
            raise TooLongError(self._too_long, total=self._count, longest=self._longest, limit=self._limit)


def framed(
    tokenizer: Tokenizer, ids: list[int], *, end: int | None, language: str | None = None
) -> list[int]:
    """Put around a text what its model expects there: the tokenizer's own frame, or `end` where it has none.

    Raises:
        ConfigError: a language that the tokenizer doesn't know.
    """
    if tokenizer.frames or language is not None:
        return tokenizer.frame(ids, language=language)[0]
    return ids if end is None else [*ids, end]


def marks(tokenizer: Tokenizer, config: ModelConfig) -> tuple[int | None, int | None]:
    """Give the token before and the one after a text: of the tokenizer's frame, or without one the model's own.

    Raises:
        ConfigError: the frame has more than one on a side.
    """
    if not tokenizer.frames:
        return config.bos_id, config.eos_id
    empty, one = tokenizer.frame([])[0], tokenizer.frame([-1])[0]
    place = one.index(-1)
    if place > 1 or len(empty) - place > 1:
        raise ConfigError(
            f"this tokenizer puts {len(empty)} special tokens around a text; training with more than one on a side "
            "isn't built here."
        )
    return (empty[0] if place else None), (empty[-1] if len(empty) > place else None)


def room(tokenizer: Tokenizer, config: ModelConfig) -> int:
    """Count the tokens that a text may have of its own, beside the marks."""
    return config.context - sum(mark is not None for mark in marks(tokenizer, config))


def encode_texts(
    texts: Iterable[str], tokenizer: Tokenizer, *, limit: int | None = None
) -> Iterator[list[int]]:
    """Tokenise texts in bulk, in order.

    Raises:
        TooLongError: texts have more than `limit` tokens; raised after the last text, so that it names all of them.
    """
    lengths = Lengths(limit)
    yield from (ids for ids in tokenizer.encode_stream(texts) if lengths.fits(len(ids)))
    lengths.check()


def encode_running_text(
    rows: Iterable[Values], tokenizer: Tokenizer, config: ModelConfig, folder: Path, *, end: int | None
) -> Stores:
    """Write running text: `documents.tokens` where each row is a document of its own, else `stream.tokens`.

    A long file comes in several rows, each but the last with `more` set; `end` follows the last.
    """
    first, second = [*itertools.islice(rows, 2), None, None][:2]
    assert first is not None, "a source without rows is an error before this"
    name = "stream" if first.get("stream") or first.get("more") or second is None else "documents"
    ends: deque[bool] = (
        deque()
    )  # whether a document ends here, for the few rows that are read but not yet tokenised

    def texts() -> Iterator[str]:
        for row in rows:
            ends.append(not row.get("more"))
            yield row["text"]

    def pieces() -> Iterator[list[int]]:
        for ids in tokenizer.encode_stream(texts()):
            yield [*ids, end] if ends.popleft() and end is not None else ids

    return {name: TokenStore.write(folder / f"{name}.tokens", pieces(), vocab_size=config.vocab_size)}


def text_store(stores: Stores) -> TokenStore:
    """Give the one store of running text, whichever form it has."""
    (store,) = stores.values()
    return store


def label_numbers(config: ModelConfig) -> Callable[[str], int]:
    """Give the way from a label to its number.

    Raises, when it is used:
        UnknownLabelError: the model doesn't know the label.
    """
    numbers = {label: i for i, label in enumerate(config.labels)}

    def number(label: str) -> int:
        if label not in numbers:
            raise UnknownLabelError(label, numbers)
        return numbers[label]

    return number


def need(value: int | None, name: str) -> int:
    """Give an id that a task can't do without.

    Raises:
        ConfigError: this model or tokenizer has none.
    """
    if value is None:
        raise ConfigError(f"this task needs a {name}, and the model or its tokenizer has none.")
    return value


def small_or_large(
    size: DataSize, presets: Mapping[str, str], *, batch_tokens: int = 4096, **model_settings: Any
) -> Suit:
    """Choose among three sizes of model by the number of characters, and a vocabulary with it.

    The borders and the figures of each are round first choices, where no experiment has been made yet.
    """
    small, medium = size.characters < 1_000_000, size.characters < 50_000_000
    name = "small" if small else "medium" if medium else "large"
    return Suit(
        model=presets[name],
        vocab_size=4000 if small else 8000 if medium else 16_000,
        model_settings={"dropout": 0.3 if small else 0.2 if medium else 0.1, **model_settings},
        training={
            "epochs": size.epochs(30 if small else 15 if medium else 5, batch_tokens),
            "schedule": "linear",
            "batch_tokens": batch_tokens,
            "lr": 1e-3,
        },
    )
