"""The routes of runs: what there is, how it stands, and to start, stop and resume a training."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from regard.errors import ConfigError, suggest
from regard.models.families import PRESETS
from regard.runs import read_run
from regard.serve.events import EventResponse
from regard.serve.fields import Asked, Count, Name, Seed, Share
from regard.serve.files import data_file
from regard.serve.house import House, Missing, Shared
from regard.serve.names import check_new, wrong_with
from regard.serve.plain import Plain
from regard.serve.runs_events import Story, follow
from regard.serve.runs_folder import about, find_run, has_ended, run_names, standing, summary
from regard.serve.runs_started import LOCK, Started, Starter
from regard.tasks.folders import is_locked, was_being_prepared
from regard.tasks.settings import check_ends
from regard.training.state import StateStore

__all__ = ["router"]

router = APIRouter(prefix="/api")

Called = Annotated[Name, Query(description="A run's name; NAME/PART for a part of one.")]

_TAILS = 128  # clients that may listen at once
_RETRY = 60  # seconds
_listening = 0

Big = Annotated[int, Field(ge=1, le=10**9)]
Minutes = Annotated[float, Field(gt=0, le=10**6)]
Rate = Annotated[float, Field(gt=0, le=10)]
Size = Annotated[int, Field(ge=1, le=65_536)]
Files = Annotated[list[Name], Field(max_length=64)]


class Ends(Asked):
    """Say when a run ends, at whichever comes first."""

    minutes: Minutes | None = None
    steps: Big | None = None
    epochs: Big | None = None
    patience: Count | None = None


class Start(Ends):
    """Say what shall be trained: a task, on files of data by their names; or the demo, which makes its own."""

    task: Literal["translate", "generate", "fill", "denoise", "classify", "tag", "chat", "demo"]
    data: Files = Field([])
    valid: Files = Field([])
    name: Name | None = None
    start: Name | None = None
    preset: Name | None = None
    tokenizer: Literal["bpe", "byte", "char", "unigram", "wordpiece"] | None = None
    vocab_size: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    lowercase: bool = False
    columns: Annotated[list[Name], Field(max_length=16)] = Field([])
    documents: Literal["file", "line", "blank"] | None = None
    label_separator: Annotated[Name, Field(max_length=16)] | None = None
    skip_bad_rows: bool = False
    skip_long: bool = False
    seed: Seed | None = None
    lr: Rate | None = None
    batch_tokens: Big | None = None
    warmup: Annotated[int, Field(ge=0, le=10**9)] | None = None
    evaluate_every: Big | None = None
    save_every: Big | None = None
    log_every: Big | None = None
    keep: Annotated[int, Field(ge=1, le=1000)] | None = None
    width: Size | None = None
    num_layers: Annotated[int, Field(ge=1, le=256)] | None = None
    num_heads: Annotated[int, Field(ge=1, le=1024)] | None = None
    context: Annotated[int, Field(ge=1, le=2**20)] | None = None
    dropout: Share | None = None
    precision: Literal["auto", "fp32", "bf16"] | None = None


class Stop(Asked):
    """Name the run that shall save and stop; or end at once, and be as it was when it was saved last."""

    name: Name
    at_once: bool = False


class Resume(Ends):
    """Name the run that shall go on, and its new ends."""

    name: Name


_FLAGS = (
    "minutes", "steps", "epochs", "patience", "tokenizer", "vocab_size", "documents", "label_separator", "seed", "lr",
    "batch_tokens", "warmup", "evaluate_every", "save_every", "log_every", "keep", "width", "num_layers", "num_heads",
    "context", "dropout", "precision",
)  # fmt: skip
_SWITCHES = ("lowercase", "skip_bad_rows", "skip_long")
_OF_DEMO = {"task", "name", "seed", "minutes"}


def _known(shared: House, name: str) -> tuple[Path | None, Started | None]:
    """Find a run's folder and its process.

    Raises:
        Missing: there is neither.
    """
    started = Starter(shared.settings).known(name)
    folder: Path | None = None
    try:
        folder = find_run(shared.models.runs, name)
    except Missing:
        if started is None:
            raise
    return folder, started


@router.get("/runs", response_class=Plain)
def list_runs(shared: Shared) -> Response:
    """List the runs: those below the server's folder, and those that were started and have no folder yet."""
    starter = Starter(shared.settings)
    names = dict.fromkeys([*run_names(shared.models.runs), *starter.names()])
    runs = []
    for name in names:
        with suppress(Missing):  # it has just gone
            runs.append(summary(name, *_known(shared, name), shared.say))
    runs.sort(key=lambda run: (run["state"] not in ("running", "preparing"), -(run["when"] or 0.0)))
    return Plain({"runs": runs, "most": starter.most})


@router.get("/run", response_class=Plain)
def one_run(shared: Shared, name: Called) -> Response:
    """Say everything of one run."""
    return Plain(about(name, *_known(shared, name), shared.say))


@router.get("/run/events", response_class=EventResponse)
async def run_events(shared: Shared, name: Called) -> Response:
    """Tell what a run did and does, as server-sent events, until it ends."""
    await asyncio.to_thread(_known, shared, name)
    if _listening >= _TAILS:
        return _later("too many clients listen to runs.")

    def find() -> tuple[Path | None, Started | None]:
        try:
            return _known(shared, name)
        except Missing:  # it was removed meanwhile
            return None, None

    async def counted() -> AsyncIterator[bytes]:
        global _listening
        _listening += 1
        try:
            async for event in follow(Story(name, find, shared.say)):
                yield event
        finally:
            _listening -= 1

    return EventResponse(counted())


@router.post("/runs", response_class=Plain)
def start_run(shared: Shared, asked: Start) -> Response:
    """Start a training as a process of its own, which goes on when the server ends."""
    task = asked.task
    words = _demo(asked) if task == "demo" else _training(shared, asked)
    with LOCK:
        name = _free_name(shared, task) if asked.name is None else asked.name
        _check_free(shared, name, is_demo=task == "demo")
        out = shared.settings.runs.resolve() / name
        has_started = Starter(shared.settings).start(name, task, [*words, f"--out={out}"])
    return Plain({"name": name}) if has_started else _full(shared)


@router.post("/run/stop", response_class=Plain)
def stop_run(shared: Shared, asked: Stop) -> Response:
    """Ask a training to save and stop, as Ctrl-C does; a second time does nothing more, but for `at_once`."""
    folder, _ = _known(shared, asked.name)
    if not Starter(shared.settings).stop(asked.name, at_once=asked.at_once):
        if folder is not None and is_locked(folder):
            raise ConfigError(f"{asked.name!r} was not started from this page; press Ctrl-C where it was.")
        raise ConfigError(f"{asked.name!r} is not at work.")
    return Plain({"name": asked.name})


@router.post("/run/resume", response_class=Plain)
def resume_run(shared: Shared, asked: Resume) -> Response:
    """Go on with a training from its last saved state."""
    folder, started = _known(shared, asked.name)
    ends = asked.model_dump(exclude={"name"}, exclude_none=True)
    with LOCK:
        if (started is not None and started.is_alive()) or (folder is not None and is_locked(folder)):
            raise ConfigError(f"{asked.name!r} is at work already.")
        if folder is None or wrong_with(asked.name):
            raise ConfigError(f"{asked.name!r} has no folder of its own to go on with; begin it again.")
        record = read_run(folder)
        if has_ended(record, standing(folder).step) and not ends:
            raise ConfigError("this run has come to its end; to go on, give it a later one.")
        check_ends(
            ends, record["training"], StateStore(folder / "checkpoints", keep=1, warn=_ignore).progress()
        )
        task = str(record["task"])
        words = ["train", task, "--resume", f"--out={folder}", *_flags(ends)]
        has_started = Starter(shared.settings).start(asked.name, task, words)
    return Plain({"name": asked.name}) if has_started else _full(shared)


def _ignore(text: str) -> None:
    pass


def _later(why: str) -> Response:
    return Plain({"error": why}, 503, {"retry-after": str(_RETRY)})


def _full(shared: House) -> Response:
    most = shared.settings.most_trainings
    return _later(f"only {most} trainings may be at work at once; wait for one, or stop it.")


def _flags(values: dict[str, Any]) -> list[str]:
    """Write settings as words of the command line, each in one word, so that no value can be taken for a flag."""
    return [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]


def _demo(asked: Start) -> list[str]:
    given = {name for name in asked.model_fields_set if getattr(asked, name) not in (None, [], False)}
    if idle := sorted(given - _OF_DEMO):
        raise ConfigError(f"the demo makes its own data and model; leave {', '.join(idle)} out.")
    return ["demo", *_flags(asked.model_dump(include={"seed", "minutes"}, exclude_none=True))]


def _training(shared: House, asked: Start) -> list[str]:
    """Write the command that trains.

    Raises:
        Missing: there is no such file or model.
        ConfigError: something is missing or can't be.
    """
    if not asked.data:
        raise ConfigError("there is no data; name at least one file.")
    data = [str(data_file(shared.settings, name)) for name in asked.data]
    words = ["train", asked.task, *data]
    words += [f"--valid={data_file(shared.settings, name)}" for name in asked.valid]
    if asked.preset is not None:
        if asked.preset not in PRESETS:
            hint = suggest(asked.preset, PRESETS)
            raise ConfigError(f"there is no preset {asked.preset!r}. {hint}".strip())
        words.append(f"--model={asked.preset}")
    if asked.start is not None:
        words.append(f"--from={shared.models.folder(asked.start).resolve()}")
    words += [f"--columns={column}" for column in asked.columns]
    words += [f"--{name.replace('_', '-')}" for name in _SWITCHES if getattr(asked, name)]
    return words + _flags({name: value for name in _FLAGS if (value := getattr(asked, name)) is not None})


def _free_name(shared: House, task: str) -> str:
    """Give the first of TASK, TASK-2, ... that nothing has."""
    known = set(Starter(shared.settings).names())
    for number in itertools.count(1):
        name = f"{task}-{number}"
        if name not in known and not (shared.settings.runs / name).exists():
            return name
    raise AssertionError("count has no end")


def _check_free(shared: House, name: str, *, is_demo: bool) -> None:
    """Refuse a name that a run can't have, or that one has.

    Raises:
        ConfigError: it says which.
    """
    check_new(name, "run")
    folder = shared.settings.runs / name
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ConfigError(f"{name!r} is there already and is no folder; give another name.")
    if folder.is_dir():
        if is_locked(folder):
            raise ConfigError(f"{name!r} is at work already.")
        if any(folder.iterdir()) and not was_being_prepared(folder):
            raise ConfigError(f"there is something in {name!r} already; give another name, or resume it.")
    if is_demo and (shared.settings.runs / f"{name}-world").is_symlink():
        raise ConfigError(f"{name}-world is a link; give another name.")
