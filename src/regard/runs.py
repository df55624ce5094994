"""A run: from somebody's files to a model directory, and on from where it stopped.

data ─> tokenizer ─> token files ─> batches ─> Trainer ─> model.safetensors, scores, curves
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from regard.checkpoints.files import load_into, load_tensors, read_json, write_json_atomic
from regard.config import ModelConfig
from regard.data.batches import Batches
from regard.data.tokenizers import Tokenizer
from regard.errors import CheckpointError, ConfigError, DataError, suggest
from regard.models.transformer import build
from regard.tasks.base import Evaluation, Parts, Task
from regard.tasks.preparation import (
    Reading,
    Rows,
    fit_model,
    keep_rows,
    make_tokenizer,
    open_rows,
    read_rows,
    split_rows,
)
from regard.tasks.registry import get_task
from regard.training.config import TrainConfig
from regard.training.curves import draw_curves
from regard.training.events import Event, Result
from regard.training.loop import Trainer
from regard.training.loss import sequence_loss
from regard.training.precision import choose_device


@dataclass(frozen=True)
class RunResult:
    """Hold what a run ended with.

    Attributes:
        path: the model directory.
        training: how the training went.
        evaluation: the best weights on all of the validation rows.
    """

    path: Path
    training: Result
    evaluation: Evaluation


def train(
    task: str,
    data: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    valid: str | Path | Sequence[str | Path] | None = None,
    model: str | ModelConfig | None = None,
    tokenizer: str | Path | None = None,
    vocab_size: int | None = None,
    lowercase: bool = False,
    reading: Reading | None = None,
    resume: bool = False,
    report: Callable[[Event], None] = lambda event: None,
    **settings: Any,
) -> RunResult:
    """Train a model on files, from nothing, and leave a model directory.

    Args:
        task: translate, generate, fill, denoise, classify or tag.
        data: files, folders, "-" for standard input, or "hub:owner/name"; two parallel files for translate.
        out: the run's folder; None: the next free runs/TASK-N.
        valid: held-out data of the same form; None: the last tenth of `data`.
        model: a preset's name, or a whole configuration; None: what suits the task and the size of the data.
        tokenizer: char, byte, bpe, wordpiece or unigram to train one, or a folder with a trained one.
        vocab_size: of a tokenizer that is trained; None: what suits the size of the data.
        lowercase: whether the tokenizer lower-cases, and scores are lower-cased.
        reading: how the files are read, where they don't say it themselves.
        resume: go on with the run in `out`; only steps, epochs, minutes and patience may then be given anew.
        report: told what happens, as events.
        settings: any field of TrainConfig or ModelConfig, by its name.

    Returns:
        The folder, how training went, and the scores on the held-out rows.

    Raises:
        ConfigError, DataError: what was asked for can't be.
        TrainingError: the numbers were not finite, again and again.
    """
    if resume:
        given = {"valid": valid, "model": model, "tokenizer": tokenizer, "vocab_size": vocab_size}
        return resume_run(out, [name for name, value in given.items() if value is not None], settings, report)
    chosen = get_task(task)
    of_training, of_model = split_settings(settings)
    final = _new_folder(out, task)
    source = open_rows(data, chosen, reading or Reading())
    held_out = None if valid is None else open_rows(valid, chosen, reading or Reading())
    training_rows, valid_rows, size = split_rows(source, held_out, chosen)
    folder = final.with_name(f"{final.name}.preparing")  # a run appears whole or not at all
    shutil.rmtree(folder, ignore_errors=True)
    try:
        spec = chosen.suit(size)
        words = make_tokenizer(chosen, training_rows, tokenizer, vocab_size, lowercase, spec)
        if model is None:
            of_model = {**spec.model_settings, **of_model}
        config = fit_model(chosen, model or spec.model, words, chosen.labels(training_rows), of_model)
        if "steps" in of_training or "epochs" in of_training:
            spec.training.pop("epochs", None)
        settings_ = TrainConfig.from_dict({**spec.training, **of_training})
        for part, rows in (("train", training_rows), ("valid", valid_rows)):
            (folder / "data" / part).mkdir(parents=True)
            chosen.encode(rows, words, config, folder / "data" / part)
        keep_rows(folder / "data" / "valid.jsonl", valid_rows, chosen)
        words.save(folder)
        record = {
            "task": task, "data": _names(data), "valid": _names(valid), "lowercase": lowercase,
            "skipped_rows": source.skipped, "tokenizer": str(tokenizer or spec.tokenizer),
            "model": config.to_dict(), "training": settings_.to_dict(),
        }  # fmt: skip
        write_json_atomic(folder / "config.json", {"model_type": "regard", **config.to_dict()})
        write_json_atomic(folder / "regard.json", record)
        if final.is_dir():
            final.rmdir()  # it is empty
        folder.rename(final)
    except OSError as error:
        raise DataError(f"{folder} can't be written: {error.strerror}.") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _run(final, chosen, settings_, report)


def resume_run(
    out: str | Path | None,
    refused: Sequence[str],
    settings: Mapping[str, Any],
    report: Callable[[Event], None],
    *,
    task: str | None = None,
) -> RunResult:
    """Go on with a run from its last whole checkpoint; see `train`."""
    if out is None:
        raise ConfigError("resume needs the run's folder; give --out DIR.")
    folder = Path(out)
    record = read_run(folder)
    if task not in (None, record["task"]):
        raise ConfigError(f"{folder} is a run of {record['task']}, not of {task}.")
    allowed = ("steps", "epochs", "minutes", "patience")
    refused = [*refused, *(name for name in settings if name not in allowed)]
    if refused:
        raise ConfigError(
            f"a resumed run keeps its settings; leave out {', '.join(refused)}: "
            f"only {', '.join(allowed)} may change."
        )
    config = TrainConfig.from_dict({**record["training"], **settings})
    record["training"] = config.to_dict()
    write_json_atomic(folder / "regard.json", record)
    return _run(folder, get_task(record["task"]), config, report, resume=True)


def read_run(folder: Path) -> dict[str, Any]:
    """Read a run's regard.json.

    Raises:
        CheckpointError: the folder is not a run.
    """
    if not (folder / "regard.json").is_file():
        near = suggest(
            folder.name, [p.name for p in folder.parent.glob("*") if (p / "regard.json").is_file()]
        )
        raise CheckpointError(f"{folder} is not a run: it has no regard.json. {near}".strip())
    return read_json(folder / "regard.json")


def load_parts(folder: str | Path, *, device: str = "cpu") -> Parts:
    """Load a model directory's weights, tokenizer and configuration.

    Raises:
        CheckpointError: something is missing, broken, or doesn't fit.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        if folder.is_dir() or os.sep in str(folder) or not folder.parent.is_dir():
            raise CheckpointError(f"{folder} is not a model directory: it has no config.json.")
        near = suggest(
            folder.name, [p.name for p in folder.parent.glob("*") if (p / "config.json").is_file()]
        )
        raise CheckpointError(f"there is no model directory {folder}. {near}".strip())
    values = read_json(folder / "config.json")
    if values.pop("model_type", None) != "regard":
        raise CheckpointError(
            f"{folder / 'config.json'} is of another library's model, which this version doesn't read."
        )
    config = ModelConfig.from_dict(values)
    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model only {config.vocab_size}."
        )
    if not (folder / "model.safetensors").is_file():
        raise CheckpointError(
            f"{folder} has no model.safetensors: the run was stopped before its first save; go on with --resume."
        )
    module = build(config)
    load_into(module, load_tensors(folder / "model.safetensors"))
    return Parts(module.eval().to(choose_device(device)), tokenizer, config)


def split_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sort settings into training's and the model's.

    Raises:
        ConfigError: one is neither.
    """
    of_training = {f.name for f in dataclasses.fields(TrainConfig)}
    of_model = {f.name for f in dataclasses.fields(ModelConfig)}
    for name in settings:
        if name not in of_training | of_model:
            raise ConfigError(f"unknown setting {name!r}. {suggest(name, of_training | of_model)}".strip())
    return (
        {name: value for name, value in settings.items() if name in of_training},
        {name: value for name, value in settings.items() if name not in of_training},
    )


def _run(
    folder: Path, task: Task, config: TrainConfig, report: Callable[[Event], None], *, resume: bool = False
) -> RunResult:
    """Train, or train on, in a prepared folder; then measure the best weights on every kept row."""
    record, model_values = read_run(folder), read_json(folder / "config.json")
    model_values.pop("model_type")
    model_config, tokenizer = ModelConfig.from_dict(model_values), Tokenizer.load(folder)
    stores = {part: task.open_stores(folder / "data" / part) for part in ("train", "valid")}
    rows = read_rows(folder / "data" / "valid.jsonl")
    examples = task.objective(stores["train"], tokenizer, model_config, seed=config.seed)
    batches = Batches(examples, tokens_per_batch=config.batch_tokens, seed=config.seed)
    torch.manual_seed(config.seed)
    module = build(model_config)

    def parts(network: torch.nn.Module) -> Parts:
        return Parts(network, tokenizer, model_config)

    def evaluate(
        network: torch.nn.Module, should_stop: Callable[[], bool]
    ) -> tuple[dict[str, float], str | None]:
        found = task.evaluate(
            parts(network),
            rows,
            stores["valid"],
            quick=True,
            should_stop=should_stop,
            lowercase=record["lowercase"],
        )
        return found.metrics, found.sample

    trainer = Trainer(
        module, batches, partial(sequence_loss, smoothing=config.label_smoothing), config, folder, evaluate=evaluate,
        metric=task.metric, higher_is_better=task.higher_is_better, report=report, resume=resume,
    )  # fmt: skip
    result = trainer.train()
    best = load_parts(folder)
    final = task.evaluate(best, rows, stores["valid"], quick=False, lowercase=record["lowercase"])
    record["result"] = {**dataclasses.asdict(result), "metrics": final.metrics, "details": final.details}
    write_json_atomic(folder / "regard.json", record)
    draw_curves(folder / "metrics.jsonl", folder / "curves.png")
    return RunResult(folder, result, final)


def _new_folder(out: str | Path | None, task: str) -> Path:
    """Name the run's folder; a folder that holds something is never written into."""
    if out is None:
        out = next(p for n in itertools.count(1) if not (p := Path("runs") / f"{task}-{n}").exists())
    folder = Path(out)
    if folder.is_file():
        raise ConfigError(f"--out {folder} is a file; name a folder.")
    if folder.is_dir() and any(folder.iterdir()):
        hint = (
            "go on with it by --resume, or name another"
            if (folder / "regard.json").is_file()
            else "name another"
        )
        raise ConfigError(f"--out {folder} is not empty; {hint} folder.")
    return folder


def _names(data: str | Path | Sequence[str | Path] | None) -> list[str]:
    if data is None:
        return []
    return [str(p) for p in ([data] if isinstance(data, (str, Path)) else data)]


def evaluate(
    run: str | Path,
    data: Sequence[str | Path],
    *,
    beams: int = 4,
    lowercase: bool = False,
    reading: Reading | None = None,
    device: str = "cpu",
) -> Evaluation:
    """Measure a run on data of its task's form.

    Raises:
        CheckpointError, DataError, ConfigError: the run or the data can't be used.
    """
    record = read_run(Path(run))
    task = get_task(record["task"])
    parts = load_parts(run, device=device)
    source = open_rows(data, task, reading or Reading())
    rows = list(Rows(source))
    with tempfile.TemporaryDirectory() as folder:
        stores = task.encode(rows, parts.tokenizer, parts.config, Path(folder))
        return task.evaluate(
            parts, rows, stores, quick=False, lowercase=lowercase or record["lowercase"], beams=beams
        )


def describe(run: str | Path) -> dict[str, dict[str, Any]]:
    """Say what a run holds, in groups of names and values.

    Raises:
        CheckpointError: the folder is not a run.
    """
    folder = Path(run)
    record = read_run(folder)
    values = dict(record["model"])
    config = ModelConfig.from_dict(dict(values))
    tokenizer = Tokenizer.load(folder)
    result = record.get("result", {})
    return {
        "model": {
            "task": record["task"], "weights": config.num_parameters(),
            **{k: v for k, v in values.items() if v not in (None, [])},
        },
        "tokenizer": {"tokens": tokenizer.vocab_size, "kind": record["tokenizer"]},
        "data": {
            "training": " ".join(record["data"]),
            "validation": " ".join(record["valid"]) or "the last tenth of it",
        },
        "training": {k: v for k, v in record["training"].items() if v is not None},
        "result": {
            **{k: result[k] for k in ("reason", "steps", "best_step", "seconds", "tokens") if k in result},
            **result.get("metrics", {}),
            **{k: v for k, v in result.get("details", {}).items() if isinstance(v, str)},
        },
    }  # fmt: skip
