"""Before training: rows for training and held-out rows, a tokenizer, and a configuration that fits them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regard.config import ModelConfig
from regard.data.sources import Source, open_source
from regard.data.tokenizers import Tokenizer
from regard.errors import ConfigError, DataError
from regard.models.families import PRESETS, preset
from regard.tasks.base import DataSize, Suit, Task, Values

_KEPT_ROWS = 2000  # of the held-out rows, as text, for the task's own measure


class Rows:
    """Be a part of a source's rows, read anew each time it is iterated."""

    def __init__(self, source: Source, keep: Callable[[int], bool] = lambda i: True) -> None:
        self._source, self._keep = source, keep

    def __iter__(self) -> Iterator[Values]:
        return ({**row.values, "more": row.more} for i, row in enumerate(self._source) if self._keep(i))


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


@dataclass(frozen=True)
class Reading:
    """Say how files are read, where they don't say it themselves.

    Attributes:
        columns: the columns that hold the task's fields, in the order of the fields.
        documents: what a document of plain running text is: a file, a line, or what stands between blank lines.
        split: of a hub data set.
        encoding: of text files.
        skip_bad_rows: leave broken rows out, counted, where else the first is an error.
    """

    columns: Sequence[str] | None = None
    documents: str | None = None
    split: str | None = None
    encoding: str = "utf-8"
    skip_bad_rows: bool = False


def open_rows(data: str | Path | Sequence[str | Path], task: Task, reading: Reading) -> Source:
    """Open data as rows with the fields of a task; see `regard.data.sources.open_source`."""
    paths = [data] if isinstance(data, (str, Path)) else list(data)
    return open_source(
        paths, fields=task.fields, columns=reading.columns, documents=reading.documents, split=reading.split,
        encoding=reading.encoding, skip_bad_rows=reading.skip_bad_rows,
    )  # fmt: skip


def split_rows(
    source: Source, held_out: Source | None, task: Task
) -> tuple[Iterable[Values], Iterable[Values], DataSize]:
    """Hold the last tenth out where no validation data was given: of the rows, or of running text's characters."""
    rows, characters = _measure(source, task)
    if held_out is not None:
        _measure(held_out, task)
        return Rows(source), Rows(held_out), DataSize(rows, characters)
    if task.joins_documents and rows < 100:
        cut = characters - characters // 10
        if cut == characters:
            raise DataError(
                f"{characters} characters are too few to hold a tenth of them out; give more data or --valid."
            )
        return Texts(source, 0, cut), Texts(source, cut, characters), DataSize(rows, cut)
    cut = rows - rows // 10
    if cut == rows:
        raise DataError(
            f"{rows} rows are too few to hold a tenth of them out; give at least 10 rows, or --valid."
        )
    return (
        Rows(source, lambda i: i < cut),
        Rows(source, lambda i: i >= cut),
        DataSize(cut, characters * cut // rows),
    )


def _measure(source: Source, task: Task) -> tuple[int, int]:
    """Read a source once, which also finds its broken rows before anything is made."""
    rows = characters = 0
    for row in source:
        rows += 1
        characters += sum(len(text) for text in task.texts(row.values))
    return rows, characters


def make_tokenizer(
    task: Task,
    rows: Iterable[Values],
    given: str | Path | None,
    vocab_size: int | None,
    lowercase: bool,
    spec: Suit,
) -> Tokenizer:
    """Train a tokenizer on the training rows, or load the one that was given."""
    if given is not None and str(given) not in ("char", "byte", "bpe", "wordpiece", "unigram"):
        if vocab_size is not None or lowercase:
            raise ConfigError(
                "vocab_size and lowercase are for a tokenizer that is trained; this one is loaded."
            )
        return Tokenizer.load(given)
    kind = str(given or spec.tokenizer)
    if vocab_size is not None and kind in ("char", "byte"):
        raise ConfigError(f"vocab_size has no effect on a {kind} tokenizer; leave it out.")
    texts = itertools.chain.from_iterable(task.texts(values) for values in rows)
    return Tokenizer.train(texts, kind=kind, vocab_size=vocab_size or spec.vocab_size, lowercase=lowercase)


def fit_model(
    task: Task,
    model: str | ModelConfig,
    words: Tokenizer,
    labels: tuple[str, ...],
    changes: Mapping[str, Any],
) -> ModelConfig:
    """Fit a preset or configuration to the task, the tokenizer and the labels."""
    base = model if isinstance(model, ModelConfig) else preset(model)
    if base.kind not in task.kinds:
        fitting = [name for name in PRESETS if preset(name).kind in task.kinds]
        raise ConfigError(
            f"{task.name} needs a model of kind {' or '.join(task.kinds)}, not {base.kind}; "
            f"try {', '.join(fitting[:4])}."
        )
    tied_to_data = {
        "vocab_size": words.vocab_size, "pad_id": words.pad_id, "bos_id": words.bos_id, "eos_id": words.eos_id,
        "start_id": None, **task.model_changes(base, labels),
    }  # fmt: skip
    tied_to_data["vocab_size"] += task.extra_tokens(
        base.replace(**{k: v for k, v in changes.items() if k not in tied_to_data})
    )
    clash = [name for name in tied_to_data if name in changes]
    if clash:
        raise ConfigError(f"{', '.join(clash)} follows from the data and the tokenizer; leave it out.")
    return base.replace(**tied_to_data, **changes)


def keep_rows(path: Path, rows: Iterable[Values], task: Task) -> None:
    """Write the first held-out rows as JSON lines: what the task's own measure reads."""
    with path.open("w", encoding="utf-8") as file:
        for values in itertools.islice(rows, _KEPT_ROWS):
            file.write(json.dumps({name: values[name] for name in task.fields}, ensure_ascii=False) + "\n")


def read_rows(path: Path) -> list[Values]:
    """Read what `keep_rows` wrote."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
