"""A run: from somebody's files to a model directory, and on from where it stopped.

    data ─> tokenizer ─> token files ─> batches ─> Trainer ─> model.safetensors, scores, curves
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from regard.checkpoints.files import load_into, load_tensors, read_json, write_json_atomic
from regard.config import ModelConfig
from regard.data.batches import Batches
from regard.data.sources import Source, open_source
from regard.data.tokenizers import Tokenizer
from regard.errors import CheckpointError, ConfigError, DataError, suggest
from regard.models.families import PRESETS, preset
from regard.models.transformer import build
from regard.tasks.base import DataSize, Evaluation, Parts, Suit, Task, Values
from regard.tasks.registry import get_task
from regard.training.config import TrainConfig
from regard.training.curves import draw_curves
from regard.training.events import Event, Result
from regard.training.loop import Trainer
from regard.training.loss import sequence_loss
from regard.training.precision import choose_device

_KEPT_ROWS = 2000  # of the held-out rows, as text, for the task's own measure


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
    columns: Sequence[str] | None = None,
    encoding: str = "utf-8",
    skip_bad_rows: bool = False,
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
        columns: the columns that hold the task's fields, where the file's own names don't say.
        encoding: of text files.
        skip_bad_rows: leave broken rows out, counted, where else the first is an error.
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
        given = dict(valid=valid, model=model, tokenizer=tokenizer, vocab_size=vocab_size, columns=columns)
        return resume_run(out, [name for name, value in given.items() if value is not None], settings, report)
    chosen = get_task(task)
    of_training, of_model = split_settings(settings)
    source = _open(data, chosen, columns, encoding, skip_bad_rows)
    held_out = None if valid is None else _open(valid, chosen, columns, encoding, skip_bad_rows)
    training_rows, valid_rows, size = _split(source, held_out, chosen)
    folder = _new_folder(out, task)
    try:
        spec = chosen.suit(size)
        words = _tokenizer(chosen, training_rows, tokenizer, vocab_size, lowercase, spec)
        if model is None:
            of_model = {**spec.model_settings, **of_model}
        config = _model_config(chosen, model or spec.model, words, chosen.labels(training_rows), of_model)
        settings_ = TrainConfig.from_dict({**spec.training, **of_training})
        for part, rows in (("train", training_rows), ("valid", valid_rows)):
            (folder / "data" / part).mkdir(parents=True)
            chosen.encode(rows, words, config, folder / "data" / part)
        _keep_rows(folder / "data" / "valid.jsonl", valid_rows, chosen)
        words.save(folder)
        record = {
            "task": task, "data": _names(data), "valid": _names(valid), "lowercase": lowercase,
            "skipped_rows": source.skipped, "model": config.to_dict(), "training": settings_.to_dict(),
        }  # fmt: skip
        write_json_atomic(folder / "config.json", {"model_type": "regard", **config.to_dict()})
        write_json_atomic(folder / "regard.json", record)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # nothing was trained yet: leave no half-made run behind
        raise
    return _run(folder, chosen, settings_, report)


def resume_run(
    out: str | Path | None, refused: Sequence[str], settings: Mapping[str, Any], report: Callable[[Event], None]
) -> RunResult:
    """Go on with a run from its last whole checkpoint; see `train`."""
    if out is None:
        raise ConfigError("resume needs the run's folder; give --out DIR.")
    folder = Path(out)
    record = read_run(folder)
    allowed = ("steps", "epochs", "minutes", "patience")
    refused = [*refused, *(name for name in settings if name not in allowed)]
    if refused:
        raise ConfigError(f"a resumed run keeps its settings; leave out {', '.join(refused)} (only {', '.join(allowed)} may change).")
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
        near = suggest(folder.name, [p.name for p in folder.parent.glob("*") if (p / "regard.json").is_file()])
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
        near = suggest(folder.name, [p.name for p in folder.parent.glob("*") if (p / "config.json").is_file()])
        raise CheckpointError(f"there is no model directory {folder}. {near}".strip())
    values = read_json(folder / "config.json")
    if values.pop("model_type", None) != "regard":
        raise CheckpointError(f"{folder / 'config.json'} is of another library's model, which this version doesn't read.")
    config = ModelConfig.from_dict(values)
    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model only {config.vocab_size}.")
    if not (folder / "model.safetensors").is_file():
        raise CheckpointError(f"{folder} has no model.safetensors: the run was stopped before its first save; go on with --resume.")
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


def _run(folder: Path, task: Task, config: TrainConfig, report: Callable[[Event], None], *, resume: bool = False) -> RunResult:
    """Train, or train on, in a prepared folder; then measure the best weights on every kept row."""
    record, model_values = read_run(folder), read_json(folder / "config.json")
    model_values.pop("model_type")
    model_config, tokenizer = ModelConfig.from_dict(model_values), Tokenizer.load(folder)
    stores = {part: task.open_stores(folder / "data" / part) for part in ("train", "valid")}
    rows = _read_rows(folder / "data" / "valid.jsonl")
    examples = task.objective(stores["train"], tokenizer, model_config, seed=config.seed)
    batches = Batches(examples, tokens_per_batch=config.batch_tokens, seed=config.seed)
    torch.manual_seed(config.seed)
    module = build(model_config)

    def parts(network: torch.nn.Module) -> Parts:
        return Parts(network, tokenizer, model_config)

    def evaluate(network: torch.nn.Module, should_stop: Callable[[], bool]) -> tuple[dict[str, float], str | None]:
        found = task.evaluate(parts(network), rows, stores["valid"], quick=True, should_stop=should_stop, lowercase=record["lowercase"])
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


def _open(
    data: str | Path | Sequence[str | Path], task: Task, columns: Sequence[str] | None, encoding: str, skip_bad_rows: bool
) -> Source:
    paths = [data] if isinstance(data, (str, Path)) else list(data)
    return open_source(paths, fields=task.fields, columns=columns, encoding=encoding, skip_bad_rows=skip_bad_rows)


def _split(source: Source, held_out: Source | None, task: Task) -> tuple[Iterable[Values], Iterable[Values], DataSize]:
    """Hold the last tenth out where no validation data was given: of the rows, or of the characters of running text."""
    rows, characters = _measure(source, task)
    if held_out is not None:
        _measure(held_out, task)
        return Rows(source), Rows(held_out), DataSize(rows, characters)
    if task.joins_documents and rows < 100:
        cut = characters - characters // 10
        if cut == characters:
            raise DataError(f"{characters} characters are too few to hold a tenth of them out; give more data or --valid.")
        return Texts(source, 0, cut), Texts(source, cut, characters), DataSize(rows, cut)
    cut = rows - rows // 10
    if cut == rows:
        raise DataError(f"{rows} rows are too few to hold a tenth of them out; give at least 10 rows, or --valid.")
    return Rows(source, lambda i: i < cut), Rows(source, lambda i: i >= cut), DataSize(cut, characters * cut // rows)


def _measure(source: Source, task: Task) -> tuple[int, int]:
    """Read a source once, which also finds its broken rows before anything is made."""
    rows = characters = 0
    for row in source:
        rows += 1
        characters += sum(len(text) for text in task.texts(row.values))
    return rows, characters


def _tokenizer(
    task: Task, rows: Iterable[Values], given: str | Path | None, vocab_size: int | None, lowercase: bool, spec: Suit
) -> Tokenizer:
    """Train a tokenizer on the training rows, or load the one that was given."""
    if given is not None and str(given) not in ("char", "byte", "bpe", "wordpiece", "unigram"):
        if vocab_size is not None or lowercase:
            raise ConfigError("vocab_size and lowercase are for a tokenizer that is trained; this one is loaded.")
        return Tokenizer.load(given)
    kind = str(given or spec.tokenizer)
    if vocab_size is not None and kind in ("char", "byte"):
        raise ConfigError(f"vocab_size has no effect on a {kind} tokenizer; leave it out.")
    texts = itertools.chain.from_iterable(task.texts(values) for values in rows)
    return Tokenizer.train(texts, kind=kind, vocab_size=vocab_size or spec.vocab_size, lowercase=lowercase)


def _model_config(
    task: Task, model: str | ModelConfig, words: Tokenizer, labels: tuple[str, ...], changes: Mapping[str, Any]
) -> ModelConfig:
    """Fit a preset or configuration to the task, the tokenizer and the labels."""
    base = model if isinstance(model, ModelConfig) else preset(model)
    if base.kind not in task.kinds:
        fitting = [name for name in PRESETS if preset(name).kind in task.kinds]
        raise ConfigError(f"{task.name} needs a model of kind {' or '.join(task.kinds)}, not {base.kind}; try {', '.join(fitting[:4])}.")
    tied_to_data = {
        "vocab_size": words.vocab_size, "pad_id": words.pad_id, "bos_id": words.bos_id, "eos_id": words.eos_id,
        "start_id": None, **task.model_changes(base, labels),
    }  # fmt: skip
    tied_to_data["vocab_size"] += task.extra_tokens(base.replace(**{k: v for k, v in changes.items() if k not in tied_to_data}))
    clash = [name for name in tied_to_data if name in changes]
    if clash:
        raise ConfigError(f"{', '.join(clash)} follows from the data and the tokenizer; leave it out.")
    return base.replace(**tied_to_data, **changes)


def _new_folder(out: str | Path | None, task: str) -> Path:
    """Make the run's folder; a folder that holds something is never written into."""
    if out is None:
        out = next(p for n in itertools.count(1) if not (p := Path("runs") / f"{task}-{n}").exists())
    folder = Path(out)
    if folder.is_file():
        raise ConfigError(f"--out {folder} is a file; name a folder.")
    if folder.is_dir() and any(folder.iterdir()):
        hint = "go on with it by --resume, or name another" if (folder / "regard.json").is_file() else "name another"
        raise ConfigError(f"--out {folder} is not empty; {hint} folder.")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _keep_rows(path: Path, rows: Iterable[Values], task: Task) -> None:
    with path.open("w", encoding="utf-8") as file:
        for values in itertools.islice(rows, _KEPT_ROWS):
            file.write(json.dumps({name: values[name] for name in task.fields}, ensure_ascii=False) + "\n")


def _read_rows(path: Path) -> list[Values]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


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
    columns: Sequence[str] | None = None,
    encoding: str = "utf-8",
    skip_bad_rows: bool = False,
    device: str = "cpu",
) -> Evaluation:
    """Measure a run on data of its task's form.

    Raises:
        CheckpointError, DataError, ConfigError: the run or the data can't be used.
    """
    record = read_run(Path(run))
    task = get_task(record["task"])
    parts = load_parts(run, device=device)
    source = _open(data, task, columns, encoding, skip_bad_rows)
    rows = list(Rows(source))
    with tempfile.TemporaryDirectory() as folder:
        stores = task.encode(rows, parts.tokenizer, parts.config, Path(folder))
        return task.evaluate(parts, rows, stores, quick=False, lowercase=lowercase or record["lowercase"], beams=beams)


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
        "model": {"task": record["task"], "weights": config.num_parameters(), **{k: v for k, v in values.items() if v not in (None, [])}},
        "tokenizer": {"tokens": tokenizer.vocab_size, "kind": tokenizer.kind},
        "data": {"training": " ".join(record["data"]), "validation": " ".join(record["valid"]) or "the last tenth of it"},
        "training": {k: v for k, v in record["training"].items() if v is not None},
        "result": {
            **{k: result[k] for k in ("reason", "steps", "best_step", "seconds", "tokens") if k in result},
            **result.get("metrics", {}), **{k: v for k, v in result.get("details", {}).items() if isinstance(v, str)},
        },
    }  # fmt: skip
