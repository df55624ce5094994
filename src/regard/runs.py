"""A run: from somebody's files to a model directory, and on from where it stopped.

data ─> tokenizer ─> token files ─> batches ─> Trainer ─> model.safetensors, scores, curves
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from regard.checkpoints.files import write_json_atomic
from regard.checkpoints.load import family_config, save_weights
from regard.config import ModelConfig
from regard.data.batches import Batches
from regard.data.sources import Source
from regard.data.tokenizers import Tokenizer
from regard.errors import CheckpointError, ConfigError, DataError, TrainingError
from regard.models.transformer import build
from regard.tasks.base import Evaluation, Parts, Stores, Task, Values
from regard.tasks.card import generation_config, write_card
from regard.tasks.folders import load_parts, new_run, read_config, read_run, remove_leftovers
from regard.tasks.preparation import (
    Corpus,
    Part,
    Prepared,
    Reading,
    Watched,
    Working,
    encode_part,
    first_rows,
    fit_model,
    keep_rows,
    make_tokenizer,
    open_rows,
    read_rows,
    split_rows,
    whole,
)
from regard.tasks.record import Data, describe, finite, given_settings, names, summary
from regard.tasks.registry import get_task
from regard.tasks.settings import check_early, check_model_settings, split_settings, train_config
from regard.training.config import TrainConfig
from regard.training.curves import draw_curves
from regard.training.events import Event, Result, Started, Warned
from regard.training.journal import Journal
from regard.training.loop import Trainer
from regard.training.loss import sequence_loss
from regard.training.signals import StopRequest

__all__ = ["Report", "RunEvent", "RunResult", "describe", "evaluate", "load_parts", "read_run", "train"]

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
    resume: bool = False,
    report: Report = lambda event: None,
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
        resume: go on with the run in `out`; steps, epochs, minutes and patience may be given anew, everything else
            must be as it was, or left out.
        report: told what happens, as events.
        settings: any field of TrainConfig or ModelConfig, by its name.

    Returns:
        The folder, how training went, and the scores on the held-out rows.

    Raises:
        ConfigError, DataError, CheckpointError: what was asked for can't be.
        TrainingError: the numbers were not finite, again and again.
        KeyboardInterrupt: Ctrl-C while the data was prepared, of which nothing remains, or a second one later.
    """
    chosen = get_task(task)
    of_training, of_model = split_settings(settings)
    reading = reading or Reading()
    given = (
        given_settings(data, valid, model, tokenizer, vocab_size, lowercase, reading) | of_training | of_model
    )
    if resume:
        return _resume(out, task, given, report)
    if data is None or data == []:
        raise ConfigError("there is no data; name files, a folder, - for standard input or hub:owner/name.")
    check_early(
        chosen, model=model, tokenizer=tokenizer, vocab_size=vocab_size, lowercase=lowercase,
        of_training=of_training, of_model=of_model,
    )  # fmt: skip
    source = open_rows(data, chosen, reading)
    held_out = None if valid is None else open_rows(valid, chosen, reading)
    about = {
        "task": task, "version": _version(), "data": names(data), "valid": names(valid), "lowercase": lowercase,
        "given": given,
    }  # fmt: skip
    with new_run(out, task) as (final, folder):
        split = split_rows(source, held_out, chosen, documents=reading.documents, tell=report)
        parts = dict(zip(("train", "valid"), split, strict=True))
        skipped = _tell_skipped(source, held_out, report)
        spec = chosen.suit(parts["train"].size)
        texts = Corpus(chosen, Watched(parts["train"], chosen, "training the tokenizer", report))
        words = make_tokenizer(texts, tokenizer, vocab_size, lowercase, spec)
        if vocab_size is not None and words.vocab_size < vocab_size:
            report(Warned(f"the data gives a vocabulary of {words.vocab_size} tokens, not {vocab_size}."))
        changes = of_model if model is not None else {**spec.model_settings, **of_model}
        config = fit_model(chosen, model or spec.model, words, chosen.labels(parts["train"].rows), changes)
        check_model_settings(of_model, config)
        settings_ = train_config(spec.training, of_training)
        stores = {}
        for name, part in parts.items():
            stores[name], parts[name], left_out = _encode(
                chosen, name, part, words, config, folder, reading, report
            )
            skipped |= {f"too_long_{name}": left_out} if left_out else {}
        kept = keep_rows(folder / "data" / "valid.jsonl", parts["valid"].rows, chosen)
        words.save(folder)
        sizes = {name: dataclasses.asdict(part.size) for name, part in parts.items()}
        record = {
            **about, "tokenizer": str(tokenizer or spec.tokenizer), "model": config.to_dict(),
            "training": settings_.to_dict(), "sizes": {**sizes, "kept": kept}, "skipped": skipped, "stores": stores,
        }  # fmt: skip
        write_json_atomic(folder / "config.json", family_config(config)[1])
        if (generation := generation_config(task, config)) is not None:
            write_json_atomic(folder / "generation_config.json", generation)
        write_json_atomic(folder / "regard.json", record)
    report(Prepared(final, summary(record)))
    return _run(final, record, settings_, report, resume=False)


def _encode(
    task: Task, name: str, part: Part, words: Tokenizer, config: ModelConfig, folder: Path, reading: Reading,
    report: Report,
) -> tuple[list[str], Part, int]:  # fmt: skip
    """Write a part's token files; give their names, what is left of the part, and how many rows are left out."""
    place = folder / "data" / name
    place.mkdir(parents=True)
    what = "tokenising" if name == "train" else "tokenising the held-out data"
    part, left_out = encode_part(
        task, part, words, config, place, what=what, skip_long=reading.skip_long, tell=report
    )
    if left_out:
        texts = "text is" if left_out == 1 else "texts are"
        report(
            Warned(f"{left_out} {texts} longer than the context of {config.context} and left out ({name}).")
        )
    return sorted(task.open_stores(place)), part, left_out


def _resume(out: str | Path | None, task: str, given: Mapping[str, Any], report: Report) -> RunResult:
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
    if config.schedule in ("linear", "cosine", "wsd") and any(
        getattr(config, name) != record["training"][name] for name in ("steps", "epochs")
    ):
        report(
            Warned(
                "the learning rate now falls to the new end; a run that had this end from its start would differ."
            )
        )
    record["training"], record["given"] = config.to_dict(), {**record["given"], **anew}
    remove_leftovers(folder)
    report(Prepared(folder, summary(record)))
    return _run(folder, record, config, report, resume=True)


def _run(
    folder: Path, record: dict[str, Any], config: TrainConfig, report: Report, *, resume: bool
) -> RunResult:
    """Train, or train on, in a prepared folder; then measure the best weights on every kept row."""
    task = get_task(record["task"])
    model_config, tokenizer = read_config(folder), Tokenizer.load(folder)
    stores, rows = _open_prepared(folder, task, record)
    examples = task.objective(stores["train"], tokenizer, model_config, seed=config.seed)
    batches = Batches(examples, tokens_per_batch=config.batch_tokens, seed=config.seed)
    torch.manual_seed(config.seed)
    module = build(model_config)
    began_at = 0

    def told(event: Event) -> None:
        nonlocal began_at
        if isinstance(event, Started):  # all settings have been found to fit
            began_at, record["precision"] = event.step, event.precision
            write_json_atomic(folder / "regard.json", record)
        report(event)

    def evaluate(
        network: torch.nn.Module, should_stop: Callable[[], bool]
    ) -> tuple[dict[str, float], str | None]:
        report(Working("evaluating"))
        found = task.evaluate(
            Parts(network, tokenizer, model_config), rows, stores["valid"], quick=True, should_stop=should_stop,
            lowercase=record["lowercase"],
        )  # fmt: skip
        return found.metrics, found.sample

    # What `auto` was found to be is kept: a run killed before its first save must not find something else.
    settings = config.replace(precision=record.get("precision", config.precision))
    trainer = Trainer(
        module, batches, partial(sequence_loss, smoothing=config.label_smoothing), settings, folder, evaluate=evaluate,
        metric=task.metric, higher_is_better=task.higher_is_better, report=told, resume=resume,
        save_model=partial(_save_weights, model_config),
    )  # fmt: skip
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
    final = Evaluation(dict(result.best))
    if result.reason != "interrupted":
        if not (folder / "model.safetensors").exists():
            raise TrainingError(
                f"no evaluation gave a number for {task.metric}, so no weights were kept; "
                "begin again with a lower lr or in fp32."
            )
        report(Working("measuring the best weights"))
        with StopRequest() as stop:
            best = load_parts(folder, device=config.device)
            measured = task.evaluate(
                best,
                rows,
                stores["valid"],
                quick=False,
                should_stop=stop.requested,
                lowercase=record["lowercase"],
            )
        if stop.requested():
            result = dataclasses.replace(result, reason="interrupted")
        else:
            final = measured
    _finish(folder, record, result, final, task, report)
    return RunResult(folder, result, final)


def _save_weights(config: ModelConfig, folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """Write the best weights, by the names of the published family whose model this is, if there is one."""
    save_weights(folder, weights, config, family_config(config)[0])


def _finish(
    folder: Path, record: dict[str, Any], result: Result, final: Evaluation, task: Task, report: Report
) -> None:
    """Write down what the run came to; the picture and the card are worth a warning, not a failure."""
    numbers = {
        name: value for name, value in dataclasses.asdict(result).items() if name not in ("best", "last")
    }
    record["result"] = {**numbers, "metrics": final.metrics, "details": final.details}
    write_json_atomic(folder / "regard.json", finite(record))
    try:
        if (folder / "model.safetensors").exists():
            write_card(folder, record)
        journal = folder / "metrics.jsonl"
        if any(
            line.get("kind") == "train" for line in Journal(journal).read()
        ):  # else stopped before the first
            draw_curves(journal, folder / "curves.png", metric=task.metric, title=folder.name)
    except OSError as error:
        report(Warned(f"the curves or the card could not be written: {error.strerror or error}."))


def _open_prepared(
    folder: Path, task: Task, record: Mapping[str, Any]
) -> tuple[dict[str, Stores], list[Values]]:
    """Open the token files and rows that were prepared.

    Raises:
        CheckpointError: something is missing or damaged.
    """
    try:
        stores = {part: task.open_stores(folder / "data" / part) for part in ("train", "valid")}
    except DataError as error:
        raise CheckpointError(f"{error}; the run needs it, so begin the run again.") from error
    for part, found in stores.items():
        if missing := [name for name in record["stores"][part] if name not in found]:
            raise CheckpointError(
                f"{folder / 'data' / part / missing[0]}.tokens is missing; the run needs it, so begin the run again."
            )
    return stores, read_rows(folder / "data" / "valid.jsonl")


def evaluate(
    run: str | Path,
    data: Data,
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
    record, reading = read_run(Path(run)), reading or Reading()
    task = get_task(record["task"])
    parts = load_parts(run, device=device)
    part = whole(open_rows(data, task, reading), task, documents=reading.documents)
    with tempfile.TemporaryDirectory() as folder:
        part, left_out = encode_part(
            task, part, parts.tokenizer, parts.config, Path(folder), what="tokenising", skip_long=reading.skip_long,
            fixed_context=True,
        )  # fmt: skip
        rows = list(first_rows(part.rows) if task.joins_documents else part.rows)
        found = task.evaluate(
            parts, rows, task.open_stores(Path(folder)), quick=False, lowercase=lowercase or record["lowercase"],
            beams=beams,
        )  # fmt: skip
    details = {"too_long": left_out} if left_out else {}
    return dataclasses.replace(found, details={**found.details, **details})


def _tell_skipped(source: Source, held_out: Source | None, report: Report) -> dict[str, int]:
    """Say which broken rows were left out, in the pass that has just counted all of them."""
    skipped = {}
    for part, read in (("train", source), ("valid", held_out)):
        if read is not None and read.skipped:
            skipped[f"bad_{part}"] = read.skipped
            rows = "1 broken row is" if read.skipped == 1 else f"{read.skipped} broken rows are"
            report(Warned(f"{rows} left out, first {read.faults[0]}."))
    return skipped


def _version() -> str:
    import regard

    return regard.__version__
