"""The demo: train the Transformer of 2017 on the famous pair's world, and see what it has learned.

    world ─> train ─> held-out combinations: BLEU, pronouns ─> every head: does it look from `it` to its noun?

`run_demo` is the whole of it. The world's eight commonest scenes are learned, from a primer, short sentences of one
shape with common adjectives, and from all the rest; without the primer the pronoun takes several times as long
(docs/log.md). What is measured is combinations of subject, adjective and object that training never has.
"""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from regard.config import ModelConfig
from regard.data.world import Example, World, chance, majority, pronoun_correct
from regard.demo_heads import Head, Picture, find_heads, picture, telling
from regard.errors import ConfigError, DataError
from regard.models.transformer import build
from regard.runs import Report, RunResult, load_parts, read_run, train
from regard.tasks.base import Parts
from regard.tasks.card import write_card
from regard.tasks.folders import replace_run, was_being_prepared
from regard.tasks.metrics import score_texts
from regard.tasks.preparation import Working
from regard.tasks.translate import translate
from regard.training.config import TrainConfig
from regard.training.loss import sequence_loss
from regard.training.pace import Pace, measure_pace

__all__ = ["DemoResult", "Famous", "Recipe", "run_demo", "write_world"]

SCENES = ("cross", "eat", "fetch", "enter", "drive", "buy", "shun", "jump")
"""The part of the world that the demo learns: its commonest scenes; all of them take longer (docs/log.md)."""

SHAPES = {name: weight for name, weight in World.SHAPES.items() if name != "if"}
"""The shapes of its sentences: all but conditional ones, where French has chosen a word before the pronoun: s'il, but
si elle."""

TRAINING_SHAPES = {**SHAPES, "because": 20.0, "fronted": 16.0}
"""The same in training: more of the sentences whose noun comes after its pronoun, which are hardest."""

LIMIT = 110.0
"""Seconds of training after which it ends in any case; the last evaluation comes on top."""
_MEASURING = 4.0  # seconds that a step's time is measured, at most, where steps are not slow


@dataclass(frozen=True)
class Recipe:
    """Say what the demo trains, on how much, and how; the values were found by the experiments in docs/log.md.

    Attributes:
        scenes: the scenes of the world that are learned and measured.
        primer: sentences of the primer; each occurs `primer_times` in the training data.
        whole: training sentences of all shapes.
        valid, test: held-out sentences; those of valid are translated at every evaluation.
        search: validation sentences on which heads are compared.
        vocab_size: of the tokenizer.
        model: fields of ModelConfig.
        training: fields of TrainConfig.
    """

    scenes: tuple[str, ...] = SCENES
    primer: int = 6000
    primer_times: int = 2
    primer_words: int = 11
    primer_adjectives: int = 24
    whole: int = 15_000
    valid: int = 200
    test: int = 1200
    search: int = 1200
    vocab_size: int = 3000
    model: dict[str, Any] = field(
        default_factory=lambda: {
            "width": 128, "num_layers": 2, "num_heads": 4, "context": 64, "position": "sinusoidal",
            "norm": "layernorm", "norm_placement": "post", "activation": "relu", "scale_embeddings": True,
        }
    )  # fmt: skip
    training: dict[str, Any] = field(
        default_factory=lambda: {
            "steps": 850,
            "batch_tokens": 2048,
            "optimizer": "muon",
            "lr": 4e-3,
            "schedule": "linear",
            "warmup": 60,
            "label_smoothing": 0.1,
            "average": "ema",
            "ema_decay": 0.98,
            "evaluate_every": 250,
            "save_every": 125,
            "keep": 7,  # in which the page shows a head forming
        }
    )


@dataclass(frozen=True)
class Famous:
    """Hold one of the famous pair: `correct` is whether the translation is the expected one to the letter."""

    source: str
    translation: str
    expected: str
    correct: bool


@dataclass(frozen=True)
class DemoResult:
    """Hold what the demo found.

    Attributes:
        run: the model directory.
        world: the folder of its data.
        reused: whether the model had been trained before.
        seconds: what training took, its evaluations included.
        steps: optimizer steps; `tokens_per_second` counts target tokens.
        parameters: weights of the model.
        reason: why training ended: at its steps, or its minutes.
        bleu: on `test_sentences` held-out sentences.
        pronoun_accuracy: how often the pronoun is right, on the `pronouns` sentences of them where it depends on which
            noun was meant.
        chance, majority: what guessing, and always taking the commonest form, would reach there.
        referent_head: the head that carries the referent best.
        it_head: the one that does best from `it` in the encoder; often the same.
        famous: the famous pair, translated.
        pictures: `referent_head` in the famous pair; `it_pictures`: `it_head` there.
    """

    run: Path
    world: Path
    reused: bool
    seconds: float
    steps: int
    tokens_per_second: float
    parameters: int
    reason: str
    bleu: float
    test_sentences: int
    pronoun_accuracy: float
    pronouns: int
    chance: float
    majority: float
    referent_head: Head
    it_head: Head
    famous: tuple[Famous, ...]
    pictures: tuple[Picture, ...]
    it_pictures: tuple[Picture, ...]


def run_demo(
    out: str | Path = "runs/demo",
    *,
    seed: int | None = None,
    again: bool = False,
    minutes: float | None = None,
    recipe: Recipe | None = None,
    report: Report = lambda event: None,
) -> DemoResult | RunResult:
    """Train on the world, or take what an earlier call trained, and measure what it learned.

    Args:
        out: the run's folder; the data goes beside it, to OUT-world.
        seed: of the world, weights and order; None: 1, or that of the run that is there.
        again: train anew; what an earlier call trained is replaced when that has ended.
        minutes: the most that training may take; None: a little less than two.
        recipe: what is trained; None: the demo's own.
        report: told what happens, as events.

    Returns:
        What was found; where training was interrupted, only that run, with which the next call goes on.

    Raises:
        ConfigError: the folder holds something else, or a run with another seed.
        DataError: it can't be written to.
    """
    out, recipe = Path(out), recipe or Recipe()
    if out.name in ("", ".."):
        raise ConfigError(f"--out {out} has no name of its own; name a folder, as in --out runs/demo.")
    TrainConfig(steps=1, seed=1 if seed is None else seed, minutes=minutes)  # refuses what can't be
    world = out.with_name(f"{out.name}-world")
    fresh = out.with_name(f".{out.name}-again") / out.name
    trained_before(out, world, seed=None)  # refuses a folder of something else
    place = fresh if again and (_is_demo(out, world) or _is_demo(fresh, world)) else out
    if place == fresh and _is_demo(fresh, world) and seed not in (None, read_run(fresh)["training"]["seed"]):
        shutil.rmtree(fresh)  # an attempt with another seed, never finished
    reused = trained_before(place, world, seed=seed)
    if reused and place == out and minutes is not None:
        raise ConfigError(f"{out} is trained already, so minutes has no effect; add --again to train anew.")
    if not reused:
        if _is_demo(place, world):
            result = train("translate", out=place, resume=True, minutes=minutes, report=report)
        else:
            result = _train(place, world, 1 if seed is None else seed, minutes, recipe, report)
        if result.training.reason == "interrupted":
            return result
    if place == fresh:
        replace_run(out, fresh)
        write_card(out, read_run(out))
    return _measure(out, world, recipe, reused=reused and place == out, report=report)


def trained_before(out: Path, world: Path, *, seed: int | None) -> bool:
    """Tell whether a folder holds a demo that was trained to its end.

    Raises:
        ConfigError: what it holds is something else, or was trained with another seed.
    """
    if not _is_demo(out, world):
        if out.exists() and (not out.is_dir() or any(out.iterdir())) and not was_being_prepared(out):
            raise ConfigError(f"{out} holds something else than a demo; name another folder with --out.")
        return False
    record = read_run(out)
    if seed is not None and seed != record["training"]["seed"]:
        raise ConfigError(
            f"{out} was trained with seed {record['training']['seed']}, not {seed}; add --again to train anew, or name "
            "another folder with --out."
        )
    return record.get("result", {}).get("reason", "interrupted") != "interrupted"


def write_world(folder: Path, recipe: Recipe, *, seed: int, report: Report = lambda event: None) -> Path:
    """Write train, valid and test as pairs of files, .en and .fr, one sentence a line; give the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    world = World(seed, SHAPES, recipe.scenes)
    parts = {
        "train": itertools.chain(
            _primer(recipe, seed) * recipe.primer_times,
            _whole(World(seed, TRAINING_SHAPES, recipe.scenes), recipe.whole),
        ),
        "valid": world.examples("valid", recipe.valid),
        "test": world.examples("test", recipe.test),
    }
    total = recipe.primer * recipe.primer_times + recipe.whole + recipe.valid + recipe.test
    done = itertools.count(1)
    report(Working("writing the world", 0.0))
    for part, examples in parts.items():
        with (
            open(folder / f"{part}.en", "w", encoding="utf-8", newline="\n") as english,
            open(folder / f"{part}.fr", "w", encoding="utf-8", newline="\n") as french,
        ):
            for example in examples:
                english.write(example.source + "\n")
                french.write(example.target + "\n")
                if (number := next(done)) % 1000 == 0:
                    report(Working("writing the world", number / total))
    return folder


def _primer(recipe: Recipe, seed: int) -> list[Example]:
    """Draw short sentences of the commonest shape, in which the pronoun depends on the noun, with common adjectives."""
    drawn = (
        example
        for example in World(seed, {"because": 1.0}, recipe.scenes).examples("train", 10**9)
        if telling([example]) and len(example.source_words) <= recipe.primer_words
    )
    sample = list(itertools.islice(drawn, min(2000, recipe.primer)))
    counts = Counter(example.combination[1] for example in sample)
    common = {adjective for adjective, _ in counts.most_common(recipe.primer_adjectives)}
    kept = (example for example in itertools.chain(sample, drawn) if example.combination[1] in common)
    return list(itertools.islice(kept, recipe.primer))


def _whole(world: World, count: int) -> Iterator[Example]:
    """Draw from the whole world, one sentence in four at most without a pronoun that depends on its noun."""
    kept = others = 0
    for example in world.examples("train", 10**9):
        if kept == count:
            return
        if not telling([example]):
            if others * 4 > kept:
                continue
            others += 1
        kept += 1
        yield example


def _train(
    out: Path, world: Path, seed: int, minutes: float | None, recipe: Recipe, report: Report
) -> RunResult:
    limit = LIMIT if minutes is None else minutes * 60
    try:
        write_world(world, recipe, seed=seed, report=report)
    except OSError as error:
        raise DataError(f"{world} can't be written: {error.strerror or error}; name another --out.") from None
    config = ModelConfig(kind="encoder-decoder", vocab_size=recipe.vocab_size, **recipe.model)
    report(Working("measuring this processor"))
    training = TrainConfig(**{**recipe.training, "seed": seed})
    pace = _time_a_step(config, training)
    assert training.steps is not None
    # The rest of the time is for evaluations, saves and luck.
    steps = max(10, min(training.steps, int(0.85 * limit / pace.seconds)))
    return train(
        "translate", [world / "train.en", world / "train.fr"], valid=[world / "valid.en", world / "valid.fr"], out=out,
        model=config, tokenizer="bpe", vocab_size=recipe.vocab_size, report=report,
        **{**recipe.training, "seed": seed, "steps": steps, "minutes": limit / 60, "precision": pace.precision,
           "warmup": min(training.warmup, max(1, steps // 10))},
    )  # fmt: skip


def _time_a_step(config: ModelConfig, training: TrainConfig) -> Pace:
    """Find the precision in which this processor is fast, and how many seconds a step takes, on random words.

    The steps are chosen by it, since a learning rate that falls to its end in fewer steps is better than one cut off
    on its way.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        length = 16  # of the world's sentences, about, on either side
        ids = torch.randint(5, config.vocab_size, (max(1, training.batch_tokens // (2 * length)), length))
        real = torch.ones_like(ids, dtype=torch.bool)
        batch = {
            "source": ids, "source_mask": real, "target_in": ids, "target_out": ids, "target_mask": real,
        }  # fmt: skip
        loss = partial(sequence_loss, smoothing=training.label_smoothing)
        wanted = max(8, (training.steps or 0) // 20)
        return measure_pace(build(config), [batch], loss, training, seconds=_MEASURING, least=8, most=wanted)


def _measure(out: Path, world: Path, recipe: Recipe, *, reused: bool, report: Report) -> DemoResult:
    """Translate the test part and the famous pair, search the heads, and gather it all."""
    record = read_run(out)
    training = record["result"]
    parts = load_parts(out)
    drawn = World(record["training"]["seed"], SHAPES, recipe.scenes)
    test = list(drawn.examples("test", recipe.test))
    found = translate_all(parts, test, report)
    pairs = [(example, text) for example, text in zip(test, found, strict=True) if telling([example])]
    if not pairs:
        raise ConfigError(f"{recipe.test} test sentences hold no pronoun to measure; take more.")
    report(Working("searching the heads"))
    telling_test = [example for example, _ in pairs]
    head, it_head = find_heads(parts, telling(drawn.examples("valid", recipe.search)), telling_test)
    famous = drawn.famous()
    texts = [translation.text for translation in translate(parts, [example.source for example in famous])]
    return DemoResult(
        run=out, world=world, reused=reused, seconds=training["seconds"], steps=training["steps"],
        tokens_per_second=training["tokens"] / max(1e-9, training["seconds"]),
        parameters=parts.config.num_parameters(), reason=training["reason"],
        bleu=score_texts(found, [example.target for example in test]).bleu, test_sentences=len(test),
        pronoun_accuracy=sum(bool(pronoun_correct(example, text)) for example, text in pairs) / len(pairs),
        pronouns=len(pairs), chance=chance(telling_test),
        majority=majority(drawn.examples("train", 4000), telling_test),
        referent_head=head, it_head=it_head,
        famous=tuple(
            Famous(example.source, text, example.target, text == example.target)
            for example, text in zip(famous, texts, strict=True)
        ),
        pictures=tuple(picture(parts, example, head.spot) for example in famous),
        it_pictures=tuple(picture(parts, example, it_head.spot) for example in famous),
    )  # fmt: skip


def translate_all(parts: Parts, examples: Iterable[Example], report: Report) -> list[str]:
    """Translate the sources of examples, greedily, and tell how far it is."""
    texts = [example.source for example in examples]
    what, done = "translating held-out sentences", 0

    def told(count: int) -> None:
        nonlocal done
        done += count
        report(Working(what, done / len(texts)))

    report(Working(what, 0.0))
    return [translation.text for translation in translate(parts, texts, beams=1, on_done=told)]


def _is_demo(out: Path, world: Path) -> bool:
    """Tell whether a folder is a run of this demo: one that learned from the world beside it."""
    if not (out / "regard.json").is_file():
        return False
    record = read_run(out)
    names = [(Path(path).parent.name, Path(path).name) for path in record["data"]]
    return record["task"] == "translate" and names == [(world.name, "train.en"), (world.name, "train.fr")]
