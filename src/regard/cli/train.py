"""`regard train`: from files to a model directory."""

from __future__ import annotations

import dataclasses
import inspect
import shlex
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_type_hints

from cyclopts import Parameter

from regard.cli import INTERRUPTED, began
from regard.cli.details import show_details
from regard.cli.numbers import OptionalCount, whole_number
from regard.cli.show import Output
from regard.config_recurrent import RecurrentConfig, config_from
from regard.errors import ConfigError
from regard.tasks.tuning import Tuning
from regard.training.config import TrainConfig

if TYPE_CHECKING:
    from regard.tasks.folds import Folds

Documents = Literal["file", "line", "blank"]
TaskName = Literal["translate", "generate", "fill", "denoise", "classify", "tag", "chat"]

# What follows from the data, or is set by --model alone.
_NOT_FLAGS = {"kind", "vocab_size", "head", "labels", "pad_id", "bos_id", "eos_id", "start_id", "multi_label"}
_SEVERAL = Parameter(consume_multiple=True, negative=())


def train(
    task: TaskName,
    data: list[str] | None = None,
    /,
    *,
    out: Path | None = None,
    valid: Annotated[list[str] | None, _SEVERAL] = None,
    resume: bool = False,
    start: Annotated[str | None, Parameter(name="--from")] = None,
    folds: OptionalCount = None,
    model: str | None = None,
    tokenizer: str | None = None,
    vocab_size: OptionalCount = None,
    lowercase: bool = False,
    columns: Annotated[list[str] | None, _SEVERAL] = None,
    documents: Documents | None = None,
    split: str | None = None,
    encoding: str = "utf-8",
    skip_bad_rows: bool = False,
    skip_long: bool = False,
    label_separator: str | None = None,
    dry_run: bool = False,
    json: bool = False,
    **settings: Any,
) -> int | None:
    """Train a model, from nothing or from a trained one.

    The data decides what isn't given: a model, a vocabulary and a way to train that suit its size. With --minutes, and
    neither --steps nor --epochs, this machine is measured too, and the model and its training are those that are best
    when the time is up, with everything. Ctrl-C saves and stops; --resume goes on.

    Parameters
    ----------
    task
        translate (any text to text), generate, fill (masked words), denoise, classify, tag or chat.
    data
        Files, folders, - for standard input or hub:owner/name. For translate, two parallel files or one of pairs.
        None with --resume.
    out
        The run's folder; unset: the next free runs/TASK-N.
    valid
        Held-out data of the same form; unset: the last tenth of the data.
    resume
        Go on with the run in --out. --steps, --epochs, --minutes and --patience may be given anew.
    start
        A model to begin from: a run, a published model's folder or a hub id. A head that it lacks is new.
    folds
        Train so many models, each with another part of the rows held out, and give mean and spread.
    model
        A preset: `regard info --presets` lists them.
    tokenizer
        char, byte, bpe, wordpiece or unigram to train one, or a folder that holds one.
    vocab_size
        Tokens of a tokenizer that is trained.
    lowercase
        Lower-case all text, and the scores.
    columns
        The columns that hold the task's fields, in their order.
    documents
        What a document of plain text is; unset: a file.
    split
        Of a hub data set.
    encoding
        Of text files.
    skip_bad_rows
        Leave broken rows out, counted.
    skip_long
        Leave texts out that are longer than the context, counted.
    label_separator
        For classify: what stands between the labels of a text, which then has any number of them; alone, it is none.
    dry_run
        Say what would be trained, and leave nothing.
    json
        Print one JSON object on standard output, all else on standard error.
    """
    from regard.cli.display import Display
    from regard.runs import Dry, train_folds
    from regard.runs import train as run
    from regard.tasks.card import ENDINGS, model_line
    from regard.tasks.preparation import Reading

    output = Output(json)
    if folds is not None and (resume or out is None):
        raise ConfigError(
            "--folds needs --out, a new folder; the same command again goes on with folds that were stopped."
        )
    if dry_run and (resume or folds is not None):
        raise ConfigError("--dry-run is for a new run; leave out --resume and --folds.")
    reading = Reading(columns, documents, split, encoding, skip_bad_rows, skip_long, label_separator)
    with Display(output, task) as display, _terminable():
        try:
            common: dict[str, Any] = {
                "valid": valid, "model": model, "tokenizer": tokenizer, "vocab_size": vocab_size,
                "lowercase": lowercase, "reading": reading, "start": start, "report": display, **settings,
            }  # fmt: skip
            if folds is not None:
                assert out is not None
                several = train_folds(task, data or [], folds=folds, out=out, **common)
            else:
                result = run(task, data, out=out, resume=resume, dry=dry_run, began=began(), **common)
        except Dry as plan:
            display.close()
            output.line(plan.summary)
            output.line(model_line(config_from(plan.record["model"])))
            output.result({"task": task, **{name: plan.record[name] for name in ("model", "training")},
                           "dial": plan.record.get("dial")})  # fmt: skip
            return None
        except KeyboardInterrupt:
            display.close()
            if display.path is None:
                output.note("interrupted while the data was prepared; nothing is kept of that.")
            elif folds is not None:
                output.note("the same command again goes on with this fold and those after it.")
            else:
                output.note(_go_on(task, display.path))
            raise
    if folds is not None:
        _show_folds(several, output)
        return None
    training, found = result.training, result.evaluation
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in found.metrics.items())
    output.line(
        f"{result.path}: {metrics + ' ' if metrics else ''}after {training.steps:,} steps, {training.seconds:,.1f} s; "
        f"{ENDINGS[training.reason]}"
    )
    show_details(output, found.details)
    output.result(
        {
            "run": result.path, "task": task, "metrics": found.metrics, "details": found.details,
            "steps": training.steps, "seconds": training.seconds, "tokens": training.tokens,
            "reason": training.reason, "best_step": training.best_step,
        }
    )  # fmt: skip
    if training.reason != "interrupted":
        return None
    output.note(_go_on(task, result.path))
    return INTERRUPTED


def _show_folds(found: Folds, output: Output) -> None:
    """Print the scores of each fold, and what they come to."""
    rows = [{"fold": f"fold-{number}", **scores} for number, scores in enumerate(found.scores, 1)]
    output.table([*rows, {"fold": "mean", **found.mean}, {"fold": "spread", **found.spread}])
    output.line(f"the best is {found.best}")
    output.result(
        {
            "out": found.path,
            "scores": list(found.scores),
            "mean": found.mean,
            "spread": found.spread,
            "best": found.best,
        }
    )


def _go_on(task: str, path: Path) -> str:
    return f"to go on: {shlex.join(['regard', 'train', task, '--resume', '--out', str(path)])}"


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does; while the model trains, the loop listens for both itself."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _flags() -> list[inspect.Parameter]:
    """Make a flag of every field of TrainConfig and of both configurations; unset ones are left to the task."""
    flags = []
    for owner, group in (
        (Tuning, "Fine-tuning, with --from"),
        (TrainConfig, "Training"),
        (RecurrentConfig, "Model"),
    ):
        hints, helps = get_type_hints(owner), owner.field_help()
        for field in dataclasses.fields(owner):
            if owner is RecurrentConfig and field.name in _NOT_FLAGS:
                continue
            off = f"--no-{field.name.replace('_', '-')}" if hints[field.name] in (bool, bool | None) else ()
            whole = whole_number if int in (hints[field.name], *get_args(hints[field.name])) else None
            several = True if list[str] in get_args(hints[field.name]) else None
            own = owner is RecurrentConfig and field.name in RecurrentConfig.own
            note = Parameter(
                help=helps[field.name], group="Model, recurrent" if own else group, negative=() if several else off,
                converter=whole, consume_multiple=several,
            )  # fmt: skip
            annotation: Any = Annotated[hints[field.name] | None, note]
            flags.append(
                inspect.Parameter(
                    field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
                )
            )
    return flags


def _with_flags() -> inspect.Signature:
    signature = inspect.signature(train, eval_str=True)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    return signature.replace(parameters=[*own, *_flags()])


def command(*args: Any, **kwargs: Any) -> int | None:
    """Stand in for `train`, with its flags spelled out in the signature."""
    return train(*args, **kwargs)


command.__doc__ = train.__doc__
command.__signature__ = _with_flags()  # type: ignore[attr-defined]
