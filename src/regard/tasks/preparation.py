"""Before training: rows for training and held-out rows, a tokenizer, and a configuration that fits them.

The data is read several times: to count it, to train the tokenizer, to collect the labels, to tokenise it (once for
each side of a pair), to keep some rows as text. Reading is the cheap part of that, a tenth of the time that
tokenising takes; and so nothing ever holds more than a few thousand rows, and data of any size can be trained on.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from regard.config import ModelConfig
from regard.config_recurrent import RecurrentConfig
from regard.data.sources import Source, open_source
from regard.data.tokenizers import Tokenizer
from regard.data.vocabularies import KINDS
from regard.errors import CheckpointError, ConfigError, DataError, suggest
from regard.models.families import PRESETS, preset
from regard.tasks.base import DataSize, Suit, Task, TooLongError, UnknownLabelError, Values

KEPT_ROWS, KEPT_CHARACTERS = 2000, 1_000_000
"""So much of the held-out rows is kept as text, for the task's own measure."""
STREAM_DOCUMENTS = 100
"""Running text in fewer pieces than this is one stream, cut by characters; in more, each is a document."""


@dataclass(frozen=True)
class Working:
    """Say what is going on beside the steps of training: `share` of it (0 to 1) is done, None if that isn't known."""

    what: str
    share: float | None = None
    rows: int = 0


@dataclass(frozen=True)
class Prepared:
    """Say that everything lies ready in the run's folder: `summary` tells what, in one line."""

    path: Path
    summary: str


@dataclass(frozen=True)
class Reading:
    """Say how files are read, where they don't say it themselves.

    Attributes:
        columns: the columns that hold the task's fields, in the order of the fields.
        documents: what a document of plain running text is: a file, a line, or what stands between blank lines.
        split: of a hub data set.
        encoding: of text files.
        skip_bad_rows: leave broken rows out, counted, where else the first is an error.
        skip_long: leave texts out that are longer than the context, counted, where else they are an error.
        label_separator: for classify: what stands between the labels of a text, which has any number of them.
    """

    columns: Sequence[str] | None = None
    documents: str | None = None
    split: str | None = None
    encoding: str = "utf-8"
    skip_bad_rows: bool = False
    skip_long: bool = False
    label_separator: str | None = None


class Rows:
    """Be a part of a source's rows, from `start` to `stop`, read anew each time it is iterated."""

    def __init__(
        self, source: Source, start: int = 0, stop: int | None = None, left_out: frozenset[int] = frozenset()
    ) -> None:
        self._source, self._start, self._stop, self._left_out = source, start, stop, left_out

    def __iter__(self) -> Iterator[Values]:
        return ({**row.values, "more": row.more} for _, row in self._chosen())

    def _chosen(self) -> Iterator[tuple[int, Any]]:
        numbered = enumerate(itertools.islice(self._source, self._start, self._stop))
        return ((i, row) for i, row in numbered if i not in self._left_out)

    def without(self, numbers: Collection[int]) -> Rows:
        """Leave rows out, counted from 0 among those that are left."""
        gone = set(numbers)
        absolute = {i for place, (i, _) in enumerate(self._chosen()) if place in gone}
        return Rows(self._source, self._start, self._stop, self._left_out | absolute)

    def place(self, number: int) -> str:
        """Give the path and line of a row."""
        _, row = next(itertools.islice(self._chosen(), number, None))
        return f"{row.path}:{row.line}"

    def place_of(self, label: str) -> str:
        """Give the path and line of the first row that has a label, or a tag."""
        found = (
            row
            for _, row in self._chosen()
            if label == row.values.get("label") or label in row.values.get("tags", ())
        )
        return next((f"{row.path}:{row.line}" for row in found), "the data")


class Texts:
    """Be a part of a source of running text, by characters: from `start` to `end`, cutting at most two texts."""

    def __init__(self, source: Source, start: int, end: int) -> None:
        self._source, self._start, self._end = source, start, end

    def __iter__(self) -> Iterator[Values]:
        place = 0
        for row in self._source:
            text = str(row.values["text"])
            part = text[max(0, self._start - place) : max(0, self._end - place)]
            place += len(text)
            if part:
                yield {"text": part, "more": row.more and place < self._end, "stream": True}
            if place >= self._end:
                return


class Corpus:
    """Be the texts of rows, for a tokenizer that reads them as often as it must."""

    def __init__(self, task: Task, rows: Iterable[Values]) -> None:
        self._task, self._rows = task, rows

    def __iter__(self) -> Iterator[str]:
        return itertools.chain.from_iterable(self._task.texts(values) for values in self._rows)


@dataclass(frozen=True)
class Part:
    """Hold the rows to train on, or those held out, and how many they are; a stream counts characters alone."""

    rows: Rows | Texts
    size: DataSize


class Watched:
    """Be rows that tell, a few times a second, how far they have been read; `size` says how many there are."""

    def __init__(
        self, part: Part, task: Task, what: str, tell: Callable[[Working], None], *, known: bool = True
    ) -> None:
        self._part, self._task, self._what, self._tell, self._known = part, task, what, tell, known

    def __iter__(self) -> Iterator[Values]:
        self._tell(Working(self._what, 0.0 if self._known else None))
        last, characters = time.monotonic(), 0
        for rows, values in enumerate(self._part.rows, 1):
            yield values
            characters += sum(map(len, self._task.texts(values)))
            if (now := time.monotonic()) - last > 0.2:
                last = now
                share = min(1.0, characters / max(1, self._part.size.characters)) if self._known else None
                self._tell(Working(self._what, share, rows))


def open_rows(data: str | Path | Sequence[str | Path], task: Task, reading: Reading) -> Source:
    """Open data as rows with the fields of a task; see `regard.data.sources.open_source`."""
    paths = [data] if isinstance(data, (str, Path)) else list(data)
    if reading.skip_long and task.joins_documents:
        raise ConfigError(
            f"skip_long has no effect on {task.name}, which cuts texts into windows; leave it out."
        )
    return open_source(
        paths, fields=task.fields, columns=reading.columns, documents=reading.documents, split=reading.split,
        encoding=reading.encoding, skip_bad_rows=reading.skip_bad_rows,
    )  # fmt: skip


def split_rows(
    source: Source,
    held_out: Source | None,
    task: Task,
    *,
    documents: str | None = None,
    tell: Callable[[Working], None] = lambda event: None,
) -> tuple[Part, Part]:
    """Hold the last tenth out where no validation data was given: of the rows, or of running text's characters."""
    size = _measure(source, task, "reading the data", tell)
    stream = _is_stream(size, task, documents)
    if held_out is not None:
        held = _measure(held_out, task, "reading the held-out data", tell)
        return _whole(source, size, stream), _whole(held_out, held, stream)
    count = size.characters if stream else size.rows
    tenth = count // 10
    if tenth == 0:
        what = "character" if stream else "row"
        raise DataError(
            f"{count} {what}{'s are' if count > 1 else ' is'} too few to hold a tenth of them out; "
            f"give at least 10 {what}s, or --valid."
        )
    cut = count - tenth
    if stream:
        return (
            Part(Texts(source, 0, cut), DataSize(0, cut)),
            Part(Texts(source, cut, count), DataSize(0, tenth)),
        )
    characters = size.characters * cut // size.rows
    return (
        Part(Rows(source, 0, cut), DataSize(cut, characters)),
        Part(Rows(source, cut), DataSize(tenth, size.characters - characters)),
    )


def whole(source: Source, task: Task, *, documents: str | None = None) -> Part:
    """Take all rows of a source, in the form in which `split_rows` gives them."""
    size = _measure(source, task, "reading the data", lambda event: None)
    return _whole(source, size, _is_stream(size, task, documents))


def _is_stream(size: DataSize, task: Task, documents: str | None) -> bool:
    """Tell whether texts are one stream: where they are few, unless somebody said what a document is."""
    return task.joins_documents and size.rows < STREAM_DOCUMENTS and documents in (None, "file")


def _whole(source: Source, size: DataSize, stream: bool) -> Part:
    if stream:
        return Part(Texts(source, 0, size.characters), replace(size, rows=0))
    return Part(Rows(source), size)


def _measure(source: Source, task: Task, what: str, tell: Callable[[Working], None]) -> DataSize:
    """Read a source once, which also finds its broken rows before anything is made."""
    rows = characters = 0
    for values in Watched(Part(Rows(source), DataSize(0, 0)), task, what, tell, known=False):
        rows += 1
        characters += sum(map(len, task.texts(values)))
    return DataSize(rows, characters)


def make_tokenizer(
    texts: Iterable[str],
    given: str | Path | None,
    vocab_size: int | None,
    lowercase: bool,
    spec: Suit,
) -> Tokenizer:
    """Train a tokenizer on texts, or load the one that was given."""
    check_tokenizer(given, vocab_size, lowercase, spec)
    if given is not None and str(given) not in KINDS:
        return Tokenizer.load(given)
    kind = str(given or spec.tokenizer)
    return Tokenizer.train(texts, kind=kind, vocab_size=vocab_size or spec.vocab_size, lowercase=lowercase)


def check_tokenizer(given: str | Path | None, vocab_size: int | None, lowercase: bool, spec: Suit) -> None:
    """Refuse a tokenizer that can't be, before any data is read.

    Raises:
        ConfigError: it is neither a kind nor a folder, or a setting would have no effect on it.
        CheckpointError: the folder holds none.
    """
    if given is None or str(given) in KINDS:
        kind = str(given or spec.tokenizer)
        if vocab_size is not None and kind in ("char", "byte"):
            raise ConfigError(f"vocab_size has no effect on a {kind} tokenizer; leave it out.")
        if vocab_size is not None and (type(vocab_size) is not int or not 6 <= vocab_size <= 10_000_000):
            raise ConfigError(f"vocab_size={vocab_size!r} must be a whole number from 6 to 10,000,000.")
        return
    if vocab_size is not None or lowercase:
        raise ConfigError("vocab_size and lowercase are for a tokenizer that is trained; this one is loaded.")
    if not Path(given).exists():
        hint = suggest(str(given), KINDS)
        raise ConfigError(
            f"tokenizer={str(given)!r} is neither a folder nor one of {', '.join(KINDS)}. {hint}".strip()
        )
    Tokenizer.load(given)


def base_model(task: Task, model: str | ModelConfig) -> ModelConfig:
    """Give the configuration that a model is fitted from; a recurrent preset without attention is of any kind.

    Raises:
        ConfigError: an unknown preset, or a kind of model that the task can't use.
    """
    base = model if isinstance(model, ModelConfig) else preset(model)
    if isinstance(base, RecurrentConfig) and isinstance(model, str) and base.score == "none":
        base = base.replace(kind=task.kinds[0])
    if base.kind not in task.kinds:
        fitting = [name for name in PRESETS if preset(name).kind in task.kinds]
        ours = [name for name in fitting if name.endswith(("-tiny", "-small", "-medium"))]
        raise ConfigError(
            f"{task.name} needs a model of kind {' or '.join(task.kinds)}, not {base.kind}; "
            f"try {', '.join((ours or fitting)[-3:])}."
        )
    return base


def fit_model(
    task: Task,
    model: str | ModelConfig,
    words: Tokenizer,
    labels: tuple[str, ...],
    changes: Mapping[str, Any],
) -> ModelConfig:
    """Fit a preset or configuration to the task, the tokenizer and the labels."""
    base = base_model(task, model)
    tied_to_data = {
        "vocab_size": words.vocab_size, "pad_id": words.pad_id, "bos_id": words.bos_id, "eos_id": words.eos_id,
        "start_id": None, **task.model_changes(base, labels),
    }  # fmt: skip
    clash = [name for name in tied_to_data if name in changes and name not in task.adjustable]
    if clash:
        raise ConfigError(f"{', '.join(clash)} follows from the task and its data; leave it out.")
    free = {name: value for name, value in changes.items() if name not in task.adjustable}
    tied_to_data["vocab_size"] += task.extra_tokens(base.replace(**free))
    return base.replace(**{**tied_to_data, **changes})


def encode_part(
    task: Task,
    part: Part,
    words: Tokenizer,
    config: ModelConfig,
    folder: Path,
    *,
    what: str,
    skip_long: bool = False,
    fixed_context: bool = False,
    tell: Callable[[Working], None] = lambda event: None,
) -> tuple[Part, int]:
    """Write a part's token files; give the part without the rows that were too long, and how many those are.

    Raises:
        DataError: texts are longer than the context, unless `skip_long`; it says how many, the first and the longest.
    """
    skipped = 0
    while True:
        try:
            task.encode(Watched(part, task, what, tell), words, config, folder)
            return part, skipped
        except UnknownLabelError as error:
            place = part.rows.place_of(error.label) if isinstance(part.rows, Rows) else ""
            raise DataError(f"{place}: {error}") from None
        except TooLongError as error:
            assert isinstance(part.rows, Rows), "running text is never too long"
            number = len(error.numbers)
            if not skip_long:
                needed = error.longest + config.context - error.limit
                what_to_do = "" if fixed_context else f"set --context {needed}, or "
                raise DataError(
                    f"{part.rows.place(error.numbers[0])}: {number} of {error.total} texts need more than the context "
                    f"of {config.context} tokens, this one first, the longest {needed}; {what_to_do}leave such texts "
                    "out with --skip-long."
                ) from None
            if number == error.total:
                raise DataError(
                    f"all {number} texts are longer than the context of {config.context}."
                ) from None
            part = replace(
                part,
                rows=part.rows.without(error.numbers),
                size=replace(part.size, rows=part.size.rows - number),
            )
            skipped += number


def first_rows(rows: Iterable[Values]) -> Iterator[Values]:
    """Give the first rows, as many as are kept as text."""
    characters = 0
    for values in itertools.islice(rows, KEPT_ROWS):
        if characters > KEPT_CHARACTERS:
            return
        yield values
        characters += len(str(values.get("text", "")))


def keep_rows(path: Path, rows: Iterable[Values], task: Task) -> int:
    """Write the first held-out rows as JSON lines, which is what the task's own measure reads; give their number."""
    number = 0
    with path.open("w", encoding="utf-8") as file:
        for values in first_rows(rows):
            file.write(json.dumps({name: values[name] for name in task.fields}, ensure_ascii=False) + "\n")
            number += 1
    return number


def read_rows(path: Path) -> list[Values]:
    """Read what `keep_rows` wrote.

    Raises:
        CheckpointError: it isn't there, or isn't whole.
    """
    try:
        with path.open(encoding="utf-8") as file:
            return [json.loads(line) for line in file]
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} can't be read ({error}); the run needs it, so begin the run again."
        ) from None
