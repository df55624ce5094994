"""A run: from somebody's files to a model directory, and on from where it stopped.

data ─> tokenizer ─> token files ─> batches ─> Trainer ─> model.safetensors, scores, curves
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

import regard
from regard.checkpoints.files import write_json_atomic
from regard.config import ModelConfig
from regard.data.batches import Batches
from regard.data.tokenizers import Tokenizer
from regard.errors import ConfigError
from regard.models.transformer import build
from regard.tasks.base import Evaluation, Parts
from regard.tasks.card import generation_config
from regard.tasks.dialling import is_late, make_clock, turn_dial
from regard.tasks.ending import finish, measure_best
from regard.tasks.folders import load_parts, locked, new_run, read_config, read_run, remove_leftovers
from regard.tasks.folds import Folds, begin_folds, check_fold, split_fold, summarise
from regard.tasks.measuring import evaluate
from regard.tasks.preparation import (
    Corpus,
    Prepared,
    Reading,
    Watched,
    Working,
    fit_model,
    keep_rows,
    make_tokenizer,
    open_rows,
    split_rows,
    whole,
)
from regard.tasks.record import Data, describe, finite, given_settings, names, summary
from regard.tasks.registry import get_task
from regard.tasks.settings import (
    check_early,
    check_ends,
    check_model_settings,
    check_warmup,
    split_settings,
    train_config,
)
from regard.tasks.starting import begin, family_of, find_start, fit_start, save_tuned, store_start
from regard.tasks.stored import open_prepared, store_part, tell_alike, tell_skipped
from regard.tasks.tuning import gentle, split_tuning
from regard.training.config import FALLING, TrainConfig
from regard.training.events import Event, Result, Started, Warned
from regard.training.loop import Trainer
from regard.training.state import StateStore
from regard.training.weighting import make_loss

__all__ = [
    "Dry", "Report", "RunEvent", "RunResult", "describe", "evaluate", "load_parts", "read_run", "train", "train_folds",
]  # fmt: skip

RunEvent = Event | Working | Prepared
Report = Callable[[RunEvent], None]

CHANGEABLE = ("steps", "epochs", "minutes", "patience")
"""What may be given anew when a run is resumed."""


@dataclass(frozen=True)
class RunResult:
    """Hold what a run ended with.

    Attributes:
        path: the model directory.
        training: how the training went.
        evaluation: the best weights on all of the validation rows; after an interruption, on those of the best
            evaluation so far.
    """

    path: Path
    training: Result
    evaluation: Evaluation


class Dry(Exception):  # noqa: N818
    """Say that nothing was trained: `record` is what regard.json would hold, `summary` the line about it."""

    def __init__(self, record: Mapping[str, Any], summary: str) -> None:
        super().__init__("nothing was trained")
        self.record, self.summary = record, summary


def train(
    task: str,
    data: Data | None = None,
    *,
    out: str | Path | None = None,
    valid: Data | None = None,
    model: str | ModelConfig | None = None,
    tokenizer: str | Path | None = None,
    vocab_size: int | None = None,
    lowercase: bool = False,
    reading: Reading | None = None,
    start: str | Path | None = None,
    fold: tuple[int, int] | None = None,
    resume: bool = False,
    dry: bool = False,
    began: float | None = None,
    report: Report = lambda event: None,
    **settings: Any,
) -> RunResult:
    """Train a model on files, from nothing or from a trained one, and leave a model directory.

    Args:
        task: translate, generate, fill, denoise, classify, tag or chat.
        data: files, folders, "-" for standard input, or "hub:owner/name"; two parallel files for translate.
        out: the run's folder; None: the next free runs/TASK-N.
        valid: held-out data of the same form; None: the last tenth of `data`.
        model: a preset's name, or a whole configuration; None: what suits the task and the size of the data.
        tokenizer: char, byte, bpe, wordpiece or unigram to train one, or a folder with a trained one.
        vocab_size: of a tokenizer that is trained; None: what suits the size of the data.
        lowercase: whether the tokenizer lower-cases, and scores are lower-cased.
        reading: how the files are read, where they don't say it themselves.
        start: a model to begin from, whose configuration, tokenizer and weights are taken: a run, a published model's
            folder or a hub id. A head that it lacks is new.
        fold: (i, k): hold out every k-th row from number i on; see `train_folds`.
        resume: go on with the run in `out`; steps, epochs, minutes and patience may be given anew, everything else
            must be as it was, or left out.
        dry: choose everything, and then raise `Dry` instead of training; nothing stays.
        began: when the time of `minutes` began, as time.monotonic tells it; None: with this call.
        report: told what happens, as events.
        settings: any field of TrainConfig, ModelConfig or, with `start`, Tuning (freeze, lora, ...), by its name.

    Returns:
        The folder, how training went, and the scores on the held-out rows.

    Raises:
        ConfigError, DataError, CheckpointError: what was asked for can't be.
        TrainingError: the numbers were not finite, again and again.
        Dry: what would be trained, where that was asked for.
        KeyboardInterrupt: Ctrl-C while the data was prepared, of which nothing remains, or a second one later.
    """
    began = time.monotonic() if began is None else began
    reading = reading or Reading()
    chosen = get_task(task, reading.label_separator)
    tuning, rest = split_tuning(settings)
    of_training, of_model = split_settings(rest)
    given = given_settings(data, valid, model, tokenizer, vocab_size, lowercase, reading, start, fold)
    given |= of_training | of_model | tuning.to_dict()
    if resume:
        return _resume(out, task, given, report, began)
    if data is None or data == []:
        raise ConfigError("there is no data; name files, a folder, - for standard input or hub:owner/name.")
    begun = find_start(
        start, chosen, tuning, model=model, tokenizer=tokenizer, vocab_size=vocab_size, lowercase=lowercase
    )
    check_early(
        chosen, model=begun.config if begun else model, tokenizer=tokenizer, vocab_size=vocab_size, lowercase=lowercase,
        of_training=of_training, of_model={} if begun else of_model,
    )  # fmt: skip
    if fold is not None:
        check_fold(fold, chosen, valid)
    source = open_rows(data, chosen, reading)
    held_out = None if valid is None else open_rows(valid, chosen, reading)
    about = {
        "task": task, "version": regard.__version__, "data": names(data), "valid": names(valid),
        "lowercase": begun.lowercase if begun else lowercase, "given": given,
    }  # fmt: skip
    with new_run(out, task) as (final, folder):
        if fold is None:
            split = split_rows(source, held_out, chosen, documents=reading.documents, tell=report)
        else:
            split = split_fold(source, chosen, fold)
        parts = dict(zip(("train", "valid"), split, strict=True))
        skipped = tell_skipped(source, held_out, report)
        spec = chosen.suit(parts["train"].size)
        if begun is None:
            texts = Corpus(chosen, Watched(parts["train"], chosen, "training the tokenizer", report))
            words = make_tokenizer(texts, tokenizer, vocab_size, lowercase, spec)
        else:
            words = begun.tokenizer
        if vocab_size is not None and words.vocab_size < vocab_size:
            report(Warned(f"the data gives a vocabulary of {words.vocab_size} tokens, not {vocab_size}."))
        # Folds are comparable, and a rare label stands in some of them only: all of them know all labels.
        labelled = parts["train"] if fold is None else whole(source, chosen)
        labels, suited = chosen.labels(labelled.rows), spec.training
        tell_alike(labels, report)
        if begun is None:
            changes = of_model if model is not None else {**spec.model_settings, **of_model}
            config = fit_model(chosen, model or spec.model, words, labels, changes)
        else:
            config = fit_start(begun, chosen, labels, of_model)
            suited = gentle(suited, config.width, parts["train"].size, lora=tuning.lora is not None)
        check_model_settings(of_model, config)
        settings_ = train_config(suited, of_training)
        if begun is not None:
            about |= store_start(
                begun, folder, chosen, config, tuning, settings_, context=of_model.get("context")
            )
        stores = {}
        for name, part in parts.items():
            stores[name], parts[name], left_out = store_part(
                chosen, name, part, words, config, folder, reading, report
            )
            skipped |= {f"too_long_{name}": left_out} if left_out else {}
        kept = keep_rows(folder / "data" / "valid.jsonl", parts["valid"].rows, chosen)
        words.save(folder, segments=config.num_segments > 1)
        sizes = {name: dataclasses.asdict(part.size) for name, part in parts.items()}
        if settings_.minutes is not None and not {"steps", "epochs"} & of_training.keys():
            about["dial"], config, settings_ = turn_dial(
                chosen, folder, words, config, settings_, about, given, parts["train"].size, kept,
                began=began, report=report,
            )  # fmt: skip
        record = {
            **about, "tokenizer": f"of {begun.name}" if begun else str(tokenizer or spec.tokenizer),
            "model": config.to_dict(), "training": settings_.to_dict(), "sizes": {**sizes, "kept": kept},
            "skipped": skipped, "stores": stores, **chosen.about(chosen.open_stores(folder / "data" / "train")),
        }  # fmt: skip
        _write(folder, record, config, begun.family if begun else None)
        if dry:
            raise Dry(record, summary(record))
    report(Prepared(final, summary(record)))
    with locked(final):
        return _run(final, record, settings_, report, began, resume=False)


def _write(folder: Path, record: Mapping[str, Any], config: ModelConfig, family: str | None) -> None:
    """Write a run's configuration, and last its record."""
    write_json_atomic(folder / "config.json", family_of(config, family)[1])
    if (generation := generation_config(record["task"], config)) is not None:
        write_json_atomic(folder / "generation_config.json", generation)
    write_json_atomic(folder / "regard.json", dict(record))


def _resume(
    out: str | Path | None, task: str, given: Mapping[str, Any], report: Report, began: float
) -> RunResult:
    """Go on with a run from its last whole checkpoint; see `train`."""
    if out is None:
        raise ConfigError("resume needs the run's folder; give --out DIR.")
    folder = Path(out)
    record = read_run(folder)
    if task != record["task"]:
        raise ConfigError(f"{folder} is a run of {record['task']}, not of {task}.")
    before = {**record["model"], **record["training"], **record["given"]}
    differing = [n for n, value in given.items() if n not in CHANGEABLE and before.get(n) != value]
    if differing:
        raise ConfigError(
            f"a resumed run keeps its settings and its data; leave out {', '.join(differing)}: "
            f"only {', '.join(CHANGEABLE)} may change."
        )
    anew = {name: value for name, value in given.items() if name in CHANGEABLE}
    values = dict(record["training"])
    for name, other in (("steps", "epochs"), ("epochs", "steps")):
        if name in anew and other not in record["given"]:
            values[other] = None  # it was ours, not the user's
    config = TrainConfig.from_dict({**values, **anew})
    saved = StateStore(folder / "checkpoints", keep=1, warn=lambda text: None)
    check_ends(anew, record["training"], saved.progress())
    ends = ("steps", "epochs") if config.steps or config.epochs else ("minutes",)
    if config.schedule in FALLING and any(getattr(config, n) != record["training"][n] for n in ends):
        text = (
            "the learning rate now falls to the new end; a run that had this end from its start would differ."
        )
        report(Warned(text))
    record["training"], record["given"] = config.to_dict(), {**record["given"], **anew}
    with locked(folder):
        remove_leftovers(folder)
        report(Prepared(folder, summary(record)))
        return _run(folder, record, config, report, began, resume=True)


def _run(
    folder: Path, record: dict[str, Any], config: TrainConfig, report: Report, began: float, *, resume: bool
) -> RunResult:
    """Train, or train on, in a prepared folder; then measure the best weights on every kept row."""
    task = get_task(record["task"], record["given"].get("label_separator"))
    model_config, tokenizer = read_config(folder), Tokenizer.load(folder)
    stores, rows = open_prepared(folder, task, record)
    read = model_config.replace(context=record["window"]) if record.get("window") else model_config
    examples = task.objective(stores["train"], tokenizer, read, seed=config.seed)
    batches = Batches(examples, tokens_per_batch=config.batch_tokens, seed=config.seed)
    torch.manual_seed(config.seed)
    module = build(model_config)
    begin(module, folder, record)
    began_at, dialled, latest = 0, record.get("dial"), Evaluation({})
    few = rows[: dialled["quick_rows"]] if dialled else rows  # None: all

    def told(event: Event) -> None:
        nonlocal began_at
        if isinstance(event, Started):  # all settings have been found to fit
            began_at, record["precision"] = event.step, event.precision
            write_json_atomic(folder / "regard.json", record)
        report(event)

    def evaluate(
        network: torch.nn.Module, should_stop: Callable[[], bool]
    ) -> tuple[dict[str, float], str | None]:
        nonlocal latest
        report(Working("evaluating"))
        latest = task.evaluate(
            Parts(network, tokenizer, read, stretch=record.get("stretch", 2)), few, stores["valid"], quick=True,
            should_stop=should_stop, lowercase=record["lowercase"],
        )  # fmt: skip
        return latest.metrics, latest.sample

    # What `auto` was found to be is kept: a run killed before its first save must not find something else.
    settings = config.replace(precision=record.get("precision", config.precision))
    trainer = Trainer(
        module, batches, make_loss(config, model_config, stores["train"], hidden=tokenizer.mask_id), settings, folder,
        evaluate=evaluate, metric=task.metric, higher_is_better=task.higher_is_better, report=told, resume=resume,
        save_model=partial(save_tuned, model_config, record),
        clock=make_clock(dialled, config.minutes, began, resume=resume),
    )  # fmt: skip
    if not resume:
        check_warmup(record["given"], config, trainer.horizon, report)
    result = trainer.train()
    known = record.get("result", {})
    if (
        resume
        and began_at == result.steps == known.get("steps")
        and known["reason"] == result.reason != "interrupted"
    ):
        limit = "" if (value := getattr(config, result.reason)) is None else f"={value:g}"
        report(
            Warned(
                f"this run had already ended ({result.reason}{limit}) and is as it was; to go on, "
                f"give a larger --{result.reason}."
            )
        )
        return RunResult(folder, result, Evaluation(known["metrics"], None, known["details"]))
    final = None
    if result.reason != "interrupted" and latest.whole and few == rows and result.best_step == result.steps:
        final = dataclasses.replace(latest, sample=None)  # of these weights, just now
    elif result.reason != "interrupted":
        report(Working("measuring the best weights"))
        final = measure_best(
            folder, record, task, rows, stores["valid"], read, device=config.device, report=report,
            is_late=lambda: is_late(trainer.clock.elapsed(), dialled, config.minutes),
        )  # fmt: skip
        if final is None:
            result = dataclasses.replace(result, reason="interrupted")
    final = final or Evaluation(dict(result.best))
    finish(folder, record, result, final, task, report)
    return RunResult(folder, result, final)


def train_folds(
    task: str,
    data: Data,
    *,
    folds: int,
    out: str | Path,
    report: Report = lambda event: None,
    **settings: Any,
) -> Folds:
    """Train as many models as folds, each with another part of the rows held out, and give mean and spread.

    The runs are OUT/fold-1, OUT/fold-2, ..., all kept; OUT/folds.json has their scores and names the best.

    Args:
        task: of `train`, whose rows aren't running text.
        data: as for `train`.
        folds: how many, from 2 on.
        out: a folder that isn't there yet, is empty, or has what the same call began.
        report: told what happens in each run.
        settings: whatever else `train` takes.

    Raises:
        ConfigError, DataError, CheckpointError, TrainingError: as in `train`.
        KeyboardInterrupt: a run was interrupted; the same call goes on with it, and with those after it.
    """
    folder = Path(out)
    if type(folds) is not int or not 2 <= folds <= 1000:
        raise ConfigError(f"folds={folds!r} must be a whole number from 2 to 1000.")
    begin_folds(folder, {"task": task, "data": data, "folds": folds, **settings})
    reading: Reading = settings.get("reading") or Reading()
    chosen, scores = get_task(task, reading.label_separator), []
    for number in range(folds):
        own = folder / f"fold-{number + 1}"
        if (own / "regard.json").is_file():
            run = train(task, out=own, resume=True, report=report)
        else:
            run = train(task, data, out=own, fold=(number, folds), report=report, **settings)
        if run.training.reason == "interrupted":
            raise KeyboardInterrupt
        scores.append(run.evaluation.metrics)
    found = summarise(folder, scores, chosen)
    values = {**dataclasses.asdict(found), "path": str(folder), "best": found.best.name}
    write_json_atomic(folder / "folds.json", finite(values))
    return found
