"""Published data sets in the files of their publishers: each read into rows, split as the publishers or a seed say.

A reader takes a folder. What isn't as its publishers write it is a DataError that names the file and the line.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from regard.errors import DataError

__all__ = [
    "Rows", "Split", "read_cogs", "read_conll", "read_labelled", "read_parallel", "read_scan", "read_shakespeare",
    "read_snips", "read_sst2",
]  # fmt: skip

Rows = list[dict[str, Any]]
Split = dict[str, Rows]
"""Rows for "train" and "valid", and perhaps others to train on before, for "first"."""


def _lines(path: Path, encoding: str = "utf-8") -> list[str]:
    try:
        text = path.read_text(encoding=encoding)
    except OSError as error:
        raise DataError(f"{path} can't be read ({error.strerror or error}).") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no {encoding} text: {error}.") from None
    return text.split("\n")[: -1 if text.endswith("\n") else None]


def _rows(
    path: Path, parse: Callable[[str], dict[str, Any]], encoding: str = "utf-8", *, begin: int = 0
) -> Rows:
    """Read each line from `begin` on; blank ones are left out.

    Raises:
        DataError: a line isn't as `parse` wants it, with its number; or there is none.
    """
    rows = []
    for number, line in enumerate(_lines(path, encoding)[begin:], begin + 1):
        try:
            if line.strip():
                rows.append(parse(line))
        except (ValueError, KeyError, IndexError):
            raise DataError(
                f"{path}:{number}: {line[:60]!r} is not as the publishers of this data write it."
            ) from None
    if not rows:
        raise DataError(f"{path} is empty.")
    return rows


def _equal(folder: Path, sides: Sequence[Sequence[str]], names: str) -> None:
    if len({len(side) for side in sides}) > 1:
        raise DataError(
            f"{folder}: {names} differ in length ({', '.join(str(len(side)) for side in sides)} lines)."
        )


def read_parallel(source: str, target: str) -> Callable[[Path], Split]:
    """Read train and val, a file for each language."""

    def read(folder: Path) -> Split:
        found: Split = {}
        for split, name in (("train", "train"), ("valid", "val")):
            sides = [_lines(folder / f"{name}.{language}") for language in (source, target)]
            _equal(folder, sides, f"{name}.{source} and {name}.{target}")
            found[split] = [{"source": a, "target": b} for a, b in zip(*sides, strict=True)]
        return found

    return read


def read_shakespeare(folder: Path) -> Split:
    """Read one text; its last tenth is held out."""
    text = "\n".join(_lines(folder / "input.txt")) + "\n"
    cut = int(len(text) * 0.9)
    return {"train": [{"text": text[:cut]}], "valid": [{"text": text[cut:]}]}


def read_sst2(folder: Path) -> Split:
    """Read GLUE's files: all phrases to train on first, and then those that are no part of another, the sentences."""
    names = {"0": "negative", "1": "positive"}

    def parse(line: str) -> dict[str, Any]:
        text, label = line.rsplit("\t", 1)
        return {"text": text.strip(), "label": names[label.strip()]}

    found = {
        split: _rows(folder / name, parse, begin=1)
        for split, name in (("train", "train.tsv"), ("valid", "dev.tsv"))
    }
    found["first"] = found["train"]
    found["train"] = _sentences(found["first"])
    return found


def _sentences(rows: Rows) -> Rows:
    """Leave out the rows whose texts are a part of another one's."""
    parts: set[str] = set()
    kept = []
    for row in sorted(rows, key=lambda row: len(row["text"].split()), reverse=True):
        words = row["text"].split()
        if " ".join(words) not in parts:
            kept.append({**row, "text": " ".join(words)})
            parts.update(" ".join(words[i:j]) for j in range(len(words) + 1) for i in range(j))
    return kept


def read_labelled(file: str, names: Sequence[str], encoding: str, part: int) -> Callable[[Path], Split]:
    """Read lines of a label and a text; every `part`-th of them, drawn by a fixed seed, is held out."""
    known = {str(number): name for number, name in enumerate(names)}

    def parse(line: str) -> dict[str, Any]:
        label, text = line.split(" ", 1)
        return {"text": text.strip(), "label": known[label]}

    def read(folder: Path) -> Split:
        rows = _rows(folder / file, parse, encoding)
        order = list(range(len(rows)))
        random.Random(0).shuffle(order)
        held = set(order[: len(rows) // part])
        return {
            "train": [row for i, row in enumerate(rows) if i not in held],
            "valid": [row for i, row in enumerate(rows) if i in held],
        }

    return read


def read_snips(kind: str) -> Callable[[Path], Split]:
    """Read commands with their intents, or with the slots of their words."""

    def read(folder: Path) -> Split:
        found: Split = {}
        for split, name in (("train", "train"), ("valid", "dev")):
            texts, tags, labels = sides = [
                _lines(folder / name / part) for part in ("seq.in", "seq.out", "label")
            ]
            _equal(folder / name, sides, "seq.in, seq.out and label")
            found[split] = [
                {"text": text.strip(), "label": label.strip()}
                if kind == "intent"
                else {"words": text.split(), "tags": tag.split()}
                for text, tag, label in zip(texts, tags, labels, strict=True)
            ]
        return found

    return read


def read_conll(train: str, valid: str, prefix: str = "") -> Callable[[Path], Split]:
    """Read a word and its tag a line, between blank lines; a prefix of the words is left out."""

    def sentences(path: Path) -> Iterator[dict[str, Any]]:
        words: list[str] = []
        tags: list[str] = []
        for number, line in enumerate([*_lines(path), ""], 1):
            if line.strip():
                word, tab, tag = line.rpartition("\t")
                if not tab:
                    raise DataError(f"{path}:{number}: {line[:60]!r} has no tab between a word and its tag.")
                words.append(word.removeprefix(prefix).strip() or "�")
                tags.append(tag.strip())
            elif words:
                yield {"words": words, "tags": tags}
                words, tags = [], []

    return lambda folder: {
        "train": list(sentences(folder / train)),
        "valid": list(sentences(folder / valid)),
    }


def read_scan(file: str) -> Callable[[Path], Split]:
    """Read IN: … OUT: … lines; a twentieth is held out, for the published files have training commands alone."""

    def parse(line: str) -> dict[str, Any]:
        source, target = line.removeprefix("IN:").split("OUT:")
        return {"source": source.strip(), "target": target.strip()}

    def read(folder: Path) -> Split:
        rows = _rows(folder / file, parse)
        random.Random(0).shuffle(rows)
        cut = len(rows) // 20
        return {"train": rows[cut:], "valid": rows[:cut]}

    return read


def read_cogs(folder: Path) -> Split:
    """Read a sentence, its logical form and a kind, between tabs."""

    def parse(line: str) -> dict[str, Any]:
        source, target, *_ = line.split("\t")
        return {"source": source.strip(), "target": target.strip()}

    return {
        split: _rows(folder / name, parse) for split, name in (("train", "train.tsv"), ("valid", "dev.tsv"))
    }
