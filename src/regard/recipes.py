"""The published results that `regard reproduce` trains for: data, settings for two sizes of machine, and the figures.

A recipe reads a data set in the files that its publishers give, makes rows of it, and says how to train on them. The
settings were found on the development data alone (docs/log.md); figures on test data are for whoever has them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regard.errors import DataError

__all__ = ["RECIPES", "Figure", "Recipe", "Rows", "Split"]

Rows = list[dict[str, Any]]
Split = dict[str, Rows]
"""Rows for "train" and "valid", and perhaps unlabelled texts for "pretrain"."""


@dataclass(frozen=True)
class Figure:
    """Hold one published result: its value in the metric's unit, on which data, and where it is from."""

    value: float
    on: str
    source: str


@dataclass(frozen=True)
class Recipe:
    """Say how one published result is reproduced.

    Attributes:
        name: what `regard reproduce` calls it.
        about: one line for people.
        task: of `regard train`.
        metric: what is compared; `percent` tells whether it is shown in per cent.
        read: rows from a folder with the publishers' files.
        files: those files, to say which are missing.
        hub: the data set's id on the hub, for whoever has no folder; None: there is none that fits.
        figures: what others published.
        laptop, gpu: settings of `regard train` for 2 cores, and for a GPU.
        pretrain: settings of a masked pre-training on the same texts that comes first; None: none.
        lowercase: whether texts are lower-cased.
    """

    name: str
    about: str
    task: str
    metric: str
    read: Callable[[Path], Split]
    files: tuple[str, ...]
    figures: tuple[Figure, ...]
    laptop: dict[str, Any]
    gpu: dict[str, Any] = field(default_factory=dict)
    pretrain: dict[str, Any] | None = None
    hub: str | None = None
    lowercase: bool = False
    percent: bool = True


def _lines(path: Path, encoding: str = "utf-8") -> list[str]:
    try:
        text = path.read_text(encoding=encoding)
    except OSError as error:
        raise DataError(f"{path} can't be read ({error.strerror or error}).") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no {encoding} text: {error}.") from None
    return text.split("\n")[: -1 if text.endswith("\n") else None]


def _parallel(source: str, target: str) -> Callable[[Path], Split]:
    def read(folder: Path) -> Split:
        found: Split = {}
        for split, name in (("train", "train"), ("valid", "val")):
            sides = [_lines(folder / f"{name}.{language}") for language in (source, target)]
            if len(sides[0]) != len(sides[1]):
                raise DataError(f"{folder}: {name}.{source} and {name}.{target} differ in length.")
            found[split] = [{"source": a, "target": b} for a, b in zip(*sides, strict=True)]
        return found

    return read


def _shakespeare(folder: Path) -> Split:
    text = "\n".join(_lines(folder / "input.txt")) + "\n"
    cut = int(len(text) * 0.9)
    return {"train": [{"text": text[:cut]}], "valid": [{"text": text[cut:]}]}


def _sst2(folder: Path) -> Split:
    names = {"0": "negative", "1": "positive"}
    found: Split = {}
    for split, name in (("train", "train.tsv"), ("valid", "dev.tsv")):
        pairs = [line.rsplit("\t", 1) for line in _lines(folder / name)[1:]]
        found[split] = [{"text": text.strip(), "label": names[label]} for text, label in pairs]
    return found


def _labelled(file: str, names: Sequence[str], encoding: str, part: int) -> Callable[[Path], Split]:
    """Read lines of a label and a text; every `part`-th of them, drawn by a fixed seed, is held out."""

    def read(folder: Path) -> Split:
        rows = []
        for line in _lines(folder / file, encoding):
            label, text = line.split(" ", 1)
            rows.append({"text": text.strip(), "label": names[int(label)]})
        order = list(range(len(rows)))
        random.Random(0).shuffle(order)
        held = set(order[: len(rows) // part])
        return {
            "train": [row for i, row in enumerate(rows) if i not in held],
            "valid": [row for i, row in enumerate(rows) if i in held],
        }

    return read


def _snips(kind: str) -> Callable[[Path], Split]:
    def read(folder: Path) -> Split:
        found: Split = {}
        for split, name in (("train", "train"), ("valid", "dev")):
            texts, tags, labels = (_lines(folder / name / part) for part in ("seq.in", "seq.out", "label"))
            found[split] = [
                {"text": text.strip(), "label": label.strip()}
                if kind == "intent"
                else {"words": text.split(), "tags": tag.split()}
                for text, tag, label in zip(texts, tags, labels, strict=True)
            ]
        return found

    return read


def _conll(train: str, valid: str, prefix: str = "") -> Callable[[Path], Split]:
    def sentences(path: Path) -> Iterator[dict[str, Any]]:
        words: list[str] = []
        tags: list[str] = []
        for line in [*_lines(path), ""]:
            if line.strip():
                word, _, tag = line.rpartition("\t")
                words.append(word.removeprefix(prefix).strip() or "�")
                tags.append(tag.strip())
            elif words:
                yield {"words": words, "tags": tags}
                words, tags = [], []

    return lambda folder: {
        "train": list(sentences(folder / train)),
        "valid": list(sentences(folder / valid)),
    }


def _scan(file: str) -> Callable[[Path], Split]:
    """Read IN: … OUT: … lines; a twentieth is held out, for the published files have training commands alone."""

    def read(folder: Path) -> Split:
        pairs = [line.removeprefix("IN:").split("OUT:") for line in _lines(folder / file) if line.strip()]
        rows = [{"source": a.strip(), "target": b.strip()} for a, b in pairs]
        random.Random(0).shuffle(rows)
        cut = len(rows) // 20
        return {"train": rows[cut:], "valid": rows[:cut]}

    return read


def _cogs(folder: Path) -> Split:
    found: Split = {}
    for split, name in (("train", "train.tsv"), ("valid", "dev.tsv")):
        rows = [line.split("\t") for line in _lines(folder / name)]
        found[split] = [{"source": row[0].strip(), "target": row[1].strip()} for row in rows]
    return found


_CNN = "Kim 2014, arXiv:1408.5882, table 2, CNN-rand"
_SMALL: dict[str, Any] = {
    "model": "encoder-tiny", "tokenizer": "bpe", "optimizer": "adamw", "schedule": "linear", "warmup": 100,
    "batch_tokens": 4096, "average": "ema",
}  # fmt: skip
_PRETRAIN: dict[str, Any] = {**_SMALL, "lr": 2e-3, "epochs": 10}
_EXACT: dict[str, Any] = {
    "model": "translate-tiny", "context": 256, "tokenizer": "bpe", "vocab_size": 1000, "optimizer": "muon",
    "schedule": "linear", "warmup": 200, "batch_tokens": 4096, "average": "ema",
}  # fmt: skip
_TREC = ("DESC", "ENTY", "ABBR", "HUM", "NUM", "LOC")


def _multi30k(source: str, target: str, figures: tuple[Figure, ...]) -> Recipe:
    return Recipe(
        name=f"multi30k-{source}-{target}",
        about=f"image captions, {source} to {target}",
        task="translate",
        metric="bleu",
        read=_parallel(source, target),
        files=tuple(f"{part}.{side}" for part in ("train", "val") for side in (source, target)),
        figures=figures,
        laptop={"epochs": 12, "minutes": 45},
        gpu={"epochs": 30, "model": "translate-small", "dropout": 0.3},
        lowercase=True,
        percent=False,
    )


_ALL = (
    _multi30k(
        "en",
        "de",
        (
            Figure(
                41.02,
                "test2016, tokenised, lower-cased, beam 5",
                "Wu et al. 2021, LividWo/Revisit-MMT, Transformer-tiny",
            ),
        ),
    ),
    _multi30k(
        "de",
        "en",
        (
            Figure(
                36.52,
                "test2016, greedy",
                "bentrevett/pytorch-seq2seq, 6: attention is all you need",
            ),
        ),
    ),
    _multi30k("en", "fr", ()),
    Recipe(
        name="tiny-shakespeare",
        about="the next character of Shakespeare",
        task="generate",
        metric="nats",
        read=_shakespeare,
        files=("input.txt",),
        figures=(
            Figure(1.88, "the last tenth", "karpathy/nanoGPT, README, on a processor"),
            Figure(1.4697, "the last tenth", "karpathy/nanoGPT, README, 10.6 M weights on an A100"),
        ),
        laptop={"tokenizer": "char", "model": "nano", "steps": 1000, "minutes": 10},
        gpu={"tokenizer": "char", "model": "generate-small", "steps": 3000, "dropout": 0.2},
        percent=False,
    ),
    Recipe(
        name="sst2",
        about="whether a film review is positive",
        task="classify",
        metric="accuracy",
        read=_sst2,
        files=("train.tsv", "dev.tsv"),
        figures=(
            Figure(0.827, "test", _CNN),
            Figure(
                0.923,
                "dev",
                "huggingface/transformers, examples/pytorch/text-classification, README, bert-base-cased",
            ),
        ),
        laptop={**_SMALL, "vocab_size": 8000, "lr": 1e-3, "epochs": 6, "dropout": 0.3, "minutes": 12},
        pretrain={**_PRETRAIN, "vocab_size": 8000, "minutes": 7},
    ),
    Recipe(
        name="trec",
        about="what a question asks for, of six kinds",
        task="classify",
        metric="accuracy",
        read=_labelled("TREC.train.all", _TREC, "latin-1", 10),
        files=("TREC.train.all",),
        figures=(Figure(0.912, "test", _CNN),),
        laptop={**_SMALL, "vocab_size": 4000, "lr": 1e-3, "epochs": 30, "dropout": 0.3, "minutes": 5},
        pretrain={**_PRETRAIN, "vocab_size": 4000, "epochs": 40, "minutes": 4},
    ),
    Recipe(
        name="subj",
        about="whether a sentence is subjective",
        task="classify",
        metric="accuracy",
        read=_labelled("subj.all", ("subjective", "objective"), "latin-1", 10),
        files=("subj.all",),
        figures=(Figure(0.896, "ten folds", _CNN),),
        laptop={**_SMALL, "vocab_size": 6000, "lr": 1e-3, "epochs": 10, "dropout": 0.4, "minutes": 5},
        pretrain={**_PRETRAIN, "vocab_size": 6000, "epochs": 30, "minutes": 6},
    ),
    Recipe(
        name="mr",
        about="whether a film review's sentence is positive",
        task="classify",
        metric="accuracy",
        read=_labelled("rt-polarity.all", ("negative", "positive"), "latin-1", 10),
        files=("rt-polarity.all",),
        figures=(Figure(0.761, "ten folds", _CNN),),
        laptop={**_SMALL, "vocab_size": 6000, "lr": 1e-3, "epochs": 10, "dropout": 0.4, "minutes": 5},
        pretrain={**_PRETRAIN, "vocab_size": 6000, "epochs": 40, "minutes": 8},
    ),
    Recipe(
        name="snips-intents",
        about="what a spoken command wants, of seven kinds",
        task="classify",
        metric="accuracy",
        read=_snips("intent"),
        files=tuple(f"{part}/{name}" for part in ("train", "dev") for name in ("seq.in", "seq.out", "label")),
        figures=(Figure(0.980, "test", "monologg/JointBERT, README, DistilBERT"),),
        laptop={**_SMALL, "vocab_size": 4000, "lr": 1e-3, "epochs": 16, "dropout": 0.3, "minutes": 5},
    ),
    Recipe(
        name="snips-slots",
        about="the slots of spoken commands",
        task="tag",
        metric="f1",
        read=_snips("slots"),
        files=tuple(f"{part}/{name}" for part in ("train", "dev") for name in ("seq.in", "seq.out", "label")),
        figures=(Figure(0.961, "test", "monologg/JointBERT, README, DistilBERT"),),
        laptop={**_SMALL, "vocab_size": 4000, "lr": 1.5e-3, "epochs": 20, "dropout": 0.2, "minutes": 10},
        pretrain={**_PRETRAIN, "vocab_size": 4000, "epochs": 20, "minutes": 4},
    ),
    Recipe(
        name="wnut17",
        about="rare entities in tweets",
        task="tag",
        metric="f1",
        read=_conll("wnut17train.conll", "emerging.dev.conll"),
        files=("wnut17train.conll", "emerging.dev.conll"),
        figures=(Figure(0.419, "test", "Derczynski et al. 2017, W17-4418, table 3, the best system"),),
        laptop={**_SMALL, "vocab_size": 6000, "lr": 1e-3, "epochs": 30, "dropout": 0.3, "minutes": 8},
        pretrain={**_PRETRAIN, "vocab_size": 6000, "epochs": 30, "minutes": 5},
    ),
    Recipe(
        name="wikiann",
        about="names in English Wikipedia",
        task="tag",
        metric="f1",
        read=_conll("en/train", "en/dev", "en:"),
        files=("en/train", "en/dev"),
        figures=(Figure(0.85, "test", "Hu et al. 2020, arXiv:2003.11080 (XTREME), multilingual BERT"),),
        laptop={**_SMALL, "vocab_size": 12_000, "lr": 1.5e-3, "epochs": 16, "dropout": 0.3, "minutes": 15},
        pretrain={**_PRETRAIN, "vocab_size": 12_000, "epochs": 15, "minutes": 8},
    ),
    *(
        Recipe(
            name=f"scan-{split}",
            about=f"commands to actions, the {split} split",
            task="translate",
            metric="exact",
            read=_scan(file),
            files=(file,),
            figures=(
                Figure(figure, "test", "Lake and Baroni 2018, arXiv:1711.00350, section 4, the best LSTM"),
            ),
            laptop={
                **_EXACT,
                "lr": 2e-3,
                "epochs": 10,
                "label_smoothing": 0.0,
                "dropout": 0.1,
                "minutes": 15,
            },
        )
        for split, file, figure in (
            ("simple", "simple_split/tasks_train_simple.txt", 0.998),
            ("length", "length_split/tasks_train_length.txt", 0.208),
            ("jump", "add_prim_split/tasks_train_addprim_jump.txt", 0.012),
        )
    ),
    Recipe(
        name="cogs",
        about="English sentences to logical forms",
        task="translate",
        metric="exact",
        read=_cogs,
        files=("train.tsv", "dev.tsv"),
        figures=(
            Figure(
                0.96, "test, in distribution", "Kim and Linzen 2020, arXiv:2010.05465, table 2, Transformer"
            ),
        ),
        laptop={**_EXACT, "lr": 2e-3, "epochs": 12, "label_smoothing": 0.0, "dropout": 0.1, "minutes": 20},
    ),
)
RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _ALL}
"""Every recipe, by its name."""
