"""The published results that `regard reproduce` trains for: data, settings for two sizes of machine, and the figures.

A recipe reads a data set in the files that its publishers give, makes rows of it, and says how to train on them. The
settings were found on the development data alone (docs/log.md); figures on test data are for whoever has them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regard.data.published_sets import (
    Split,
    read_cogs,
    read_conll,
    read_labelled,
    read_parallel,
    read_scan,
    read_shakespeare,
    read_snips,
    read_sst2,
)

__all__ = ["RECIPES", "Figure", "Recipe"]


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
        pretrain: settings of a masked pre-training on the same texts that comes before all; None: none.
        first: settings of the same task on the rows called "first", before those to train on; None: none.
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
    first: dict[str, Any] | None = None
    hub: str | None = None
    lowercase: bool = False
    percent: bool = True


_CNN = "Kim 2014, arXiv:1408.5882, table 2, CNN-rand"
_SMALL: dict[str, Any] = {
    "model": "encoder-tiny", "tokenizer": "bpe", "optimizer": "adamw", "schedule": "linear", "warmup": 100,
    "batch_tokens": 4096, "average": "ema",
}  # fmt: skip
# Whole words and few passes: what more is learned from so few texts is their wording.
_WORDS: dict[str, Any] = {
    **_SMALL, "tokenizer": "wordpiece", "warmup": 50, "batch_tokens": 2048, "ema_decay": 0.99, "dropout": 0.3,
    "word_dropout": 0.4, "evaluate_every": 50, "save_every": 1000,
}  # fmt: skip
_SENTENCES: dict[str, Any] = {**_WORDS, "warmup": 100, "batch_tokens": 1024, "word_dropout": 0.3}
_SHALLOW = {**_WORDS, "num_layers": 1, "vocab_size": 12_000, "lr": 6e-4, "epochs": 6, "minutes": 5}
_PRETRAIN: dict[str, Any] = {**_SMALL, "lr": 2e-3, "epochs": 10}
_PRETRAIN_WORDS: dict[str, Any] = {
    **_SMALL, "tokenizer": "wordpiece", "optimizer": "muon", "lr": 2e-3, "batch_tokens": 2048, "dropout": 0.1,
    "ema_decay": 0.99, "evaluate_every": 200, "save_every": 1000,
}  # fmt: skip
_TAGS: dict[str, Any] = {**_PRETRAIN_WORDS, "evaluate_every": 100}
_EXACT: dict[str, Any] = {
    "model": "translate-tiny", "context": 256, "position": "rotary", "scale_embeddings": False, "dropout": 0.1,
    "tokenizer": "unigram", "optimizer": "muon", "schedule": "linear", "warmup": 100, "batch_tokens": 4096, "lr": 3e-3,
    "label_smoothing": 0.0, "average": "ema", "ema_decay": 0.99, "evaluate_every": 200, "minutes": 20,
}  # fmt: skip
_LONG: dict[str, Any] = {**_PRETRAIN_WORDS, "tokenizer": "bpe", "context": 1024}
_TREC = ("DESC", "ENTY", "ABBR", "HUM", "NUM", "LOC")


def _multi30k(source: str, target: str, figures: tuple[Figure, ...]) -> Recipe:
    return Recipe(
        name=f"multi30k-{source}-{target}",
        about=f"image captions, {source} to {target}",
        task="translate",
        metric="bleu",
        read=read_parallel(source, target),
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
        read=read_shakespeare,
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
        read=read_sst2,
        files=("train.tsv", "dev.tsv"),
        figures=(
            Figure(0.827, "test", _CNN),
            Figure(
                0.923,
                "dev",
                "huggingface/transformers, examples/pytorch/text-classification, README, bert-base-cased",
            ),
        ),
        laptop={**_SENTENCES, "lr": 2e-4, "epochs": 3, "minutes": 3},
        first={**_SENTENCES, "lr": 4e-4, "epochs": 1, "ema_decay": 0.995, "minutes": 5},
        pretrain={**_PRETRAIN_WORDS, "vocab_size": 10_000, "epochs": 25, "minutes": 12},
    ),
    Recipe(
        name="trec",
        about="what a question asks for, of six kinds",
        task="classify",
        metric="accuracy",
        read=read_labelled("TREC.train.all", _TREC, "latin-1", 10),
        files=("TREC.train.all",),
        figures=(Figure(0.912, "test", _CNN),),
        laptop={
            **_WORDS,
            "lr": 6e-4,
            "epochs": 10,
            "batch_tokens": 1024,
            "word_dropout": 0.2,
            "label_smoothing": 0.1,
            "minutes": 4,
        },
        pretrain={**_PRETRAIN_WORDS, "vocab_size": 5000, "epochs": 50, "minutes": 8},
        lowercase=True,
    ),
    Recipe(
        name="subj",
        about="whether a sentence is subjective",
        task="classify",
        metric="accuracy",
        read=read_labelled("subj.all", ("subjective", "objective"), "latin-1", 10),
        files=("subj.all",),
        figures=(Figure(0.896, "ten folds", _CNN),),
        laptop={**_SHALLOW, "context": 256},
    ),
    Recipe(
        name="mr",
        about="whether a film review's sentence is positive",
        task="classify",
        metric="accuracy",
        read=read_labelled("rt-polarity.all", ("negative", "positive"), "latin-1", 10),
        files=("rt-polarity.all",),
        figures=(Figure(0.761, "ten folds", _CNN),),
        laptop=_SHALLOW,
    ),
    Recipe(
        name="snips-intents",
        about="what a spoken command wants, of seven kinds",
        task="classify",
        metric="accuracy",
        read=read_snips("intent"),
        files=tuple(f"{part}/{name}" for part in ("train", "dev") for name in ("seq.in", "seq.out", "label")),
        figures=(Figure(0.980, "test", "monologg/JointBERT, README, DistilBERT"),),
        laptop={**_SMALL, "vocab_size": 4000, "lr": 1e-3, "epochs": 16, "dropout": 0.3, "minutes": 5},
    ),
    Recipe(
        name="snips-slots",
        about="the slots of spoken commands",
        task="tag",
        metric="f1",
        read=read_snips("slots"),
        files=tuple(f"{part}/{name}" for part in ("train", "dev") for name in ("seq.in", "seq.out", "label")),
        figures=(Figure(0.961, "test", "monologg/JointBERT, README, DistilBERT"),),
        laptop={**_TAGS, "epochs": 20, "dropout": 0.3, "word_dropout": 0.1, "minutes": 12},
        pretrain={**_PRETRAIN_WORDS, "vocab_size": 8000, "epochs": 12, "minutes": 7},
    ),
    Recipe(
        name="wnut17",
        about="rare entities in tweets",
        task="tag",
        metric="f1",
        read=read_conll("wnut17train.conll", "emerging.dev.conll"),
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
        read=read_conll("en/train", "en/dev", "en:"),
        files=("en/train", "en/dev"),
        figures=(Figure(0.85, "test", "Hu et al. 2020, arXiv:2003.11080 (XTREME), multilingual BERT"),),
        laptop={**_TAGS, "epochs": 8, "dropout": 0.3, "word_dropout": 0.2, "minutes": 9},
        pretrain={**_LONG, "vocab_size": 4000, "num_layers": 3, "epochs": 10, "minutes": 10},
    ),
    *(
        Recipe(
            name=f"scan-{split}",
            about=f"commands to actions, the {split} split",
            task="translate",
            metric="exact",
            read=read_scan(file),
            files=(file,),
            figures=(
                Figure(figure, "test", "Lake and Baroni 2018, arXiv:1711.00350, section 4, the best LSTM"),
            ),
            laptop={**_EXACT, "vocab_size": 400, "epochs": 24},
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
        read=read_cogs,
        files=("train.tsv", "dev.tsv"),
        figures=(
            Figure(
                0.96, "test, in distribution", "Kim and Linzen 2020, arXiv:2010.05465, table 2, Transformer"
            ),
        ),
        laptop={**_EXACT, "vocab_size": 1000, "epochs": 9, "evaluate_every": 600},
    ),
)
RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _ALL}
"""Every recipe, by its name."""
