"""The folder of a run: it appears with everything that the run needs, or not at all; and what is read from it."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from regard.checkpoints.files import read_json, sync
from regard.checkpoints.hub import Place, locate
from regard.checkpoints.load import Loaded, load_model, model_config
from regard.config import ModelConfig
from regard.data.tokenizers import Tokenizer
from regard.errors import CheckpointError, ConfigError, DataError, suggest
from regard.tasks.base import Parts
from regard.tasks.stretch import read_stretch
from regard.training.precision import choose_device

PRECISIONS = {
    "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.float32, "int4": torch.float32,
}  # fmt: skip
"""What weights are loaded as; those of int8 and int4 are packed once they are complete."""

"""The types that weights may be loaded in."""

_TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", "encoder.json", "*.model", "*.spm")
_GATHERED = ".preparing"
_TRIES = 5  # to lock a folder, within a tenth of a second
_PREPARED = (
    "data", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
)  # fmt: skip


def check_names(*given: object) -> None:
    """Refuse names of files that are not UTF-8: a run writes down what it was made of, in a file that is.

    Raises:
        ConfigError: one of these names isn't.
    """
    for value in given:
        if isinstance(value, (list, tuple)):
            check_names(*value)
        elif isinstance(value, (str, Path)) and not _is_unicode(str(value)):
            raise ConfigError(
                f"the name {str(value)!r} is not valid UTF-8, which a run's files need; rename it."
            )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second process out of a run's folder, where the system can; the lock goes with the process.

    Raises:
        ConfigError: another process is at work there.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    held = os.open(folder, os.O_RDONLY)
    try:
        for tries_left in reversed(range(_TRIES)):
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if tries_left:  # it may be `is_locked`, which is gone at once
                    time.sleep(0.02)
                    continue
                raise ConfigError(
                    f"another process is training in {folder}; wait for it, or stop it."
                ) from None
            except OSError:  # a file system without locks
                break
        yield
    finally:
        os.close(held)


def is_locked(folder: Path) -> bool:
    """Tell whether a process is at work in a run's folder; where the system can't say, no."""
    try:
        import fcntl

        held = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        return False
    try:
        fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(held)
    return False


@contextmanager
def new_run(out: str | Path | None, task: str) -> Iterator[tuple[Path, Path]]:
    """Make a run's folder, empty but for one to fill; what is in that at the end becomes the run.

    regard.json, without which a folder is no run, comes last. Where the block doesn't end well nothing remains; where
    it is killed, a folder that is no run and that the next attempt clears. The names are (the run's folder, the one to
    fill).

    Raises:
        ConfigError: the folder is not empty, its name is no text, or another process is at work in it.
        DataError: nothing can be written there, or the disk is full.
    """
    if out is not None:
        check_names(out)
        _check_free(Path(out))
    made: list[Path] = []
    try:
        folder = _next_free(task, made) if out is None else _make(Path(out), made)
        with locked(folder):
            gathered = folder / _GATHERED
            _clear(folder)
            try:
                gathered.mkdir()
                yield folder, gathered
                for path in sorted(gathered.iterdir(), key=lambda path: path.name == "regard.json"):
                    path.rename(folder / path.name)
                sync(folder)
                made.clear()
                gathered.rmdir()
            except BaseException:
                if not (folder / "regard.json").exists():
                    _clear(folder)
                raise
    except OSError as error:
        place = error.filename or out or "the run's folder"
        hint = "make room or name" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "name"
        raise DataError(
            f"{place} can't be written: {error.strerror or error}; {hint} another --out."
        ) from error
    finally:
        for path in reversed(made):
            with suppress(OSError):  # somebody has put something there
                path.rmdir()


def replace_run(old: Path, new: Path) -> None:
    """Put a run, the only thing in its folder's parent, in the place of another, which is removed.

    A kill on the way leaves the new one whole, in one of its two places.

    Raises:
        DataError: a folder can't be renamed.
    """
    before = new.with_name(f"{new.name}.old")
    try:
        if old.exists():
            shutil.rmtree(before, ignore_errors=True)
            old.rename(before)
        new.rename(old)
        shutil.rmtree(new.parent)
    except OSError as error:
        raise DataError(f"{new} can't take the place of {old}: {error.strerror or error}.") from error


def was_being_prepared(folder: Path) -> bool:
    """Tell whether a folder is what a killed preparation leaves."""
    return (folder / _GATHERED).is_dir() and not (folder / "regard.json").is_file()


def remove_leftovers(folder: Path) -> None:
    """Remove what a kill in the middle of a write leaves in a run's folder: files that never got their name."""
    # Ours, and those that safetensors makes on its way.
    for path in (*folder.glob(".*.tmp"), *folder.glob(".tmp??????")):
        with suppress(OSError):
            path.unlink()
    with suppress(OSError):
        (folder / _GATHERED).rmdir()  # of a preparation killed after its last rename


def _clear(folder: Path) -> None:
    """Remove what a preparation has gathered, and what of it had already been put in its place."""
    if was_being_prepared(folder):
        for name in _PREPARED:
            with suppress(OSError):
                (folder / name).unlink()
        shutil.rmtree(folder / "data", ignore_errors=True)
        shutil.rmtree(folder / _GATHERED, ignore_errors=True)


def _check_free(folder: Path) -> None:
    try:
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"--out {folder} is a file; name a folder.")
        if folder.is_dir() and any(folder.iterdir()) and not was_being_prepared(folder):
            is_run = (folder / "regard.json").is_file()
            hint = "go on with it by --resume, or name another" if is_run else "name another"
            raise ConfigError(f"--out {folder} is not empty; {hint} folder.")
    except OSError as error:
        raise ConfigError(f"--out {folder} can't be used: {error.strerror}; name another folder.") from error


def _next_free(task: str, made: list[Path]) -> Path:
    """Make the first of runs/TASK-1, -2, ... that isn't there; two commands at once get different ones."""
    runs = _make(Path("runs"), made)
    for number in itertools.count(1):
        folder = runs / f"{task}-{number}"
        with suppress(FileExistsError):
            folder.mkdir()
            made.append(folder)
            return folder
    raise AssertionError("count has no end")


def _make(folder: Path, made: list[Path]) -> Path:
    """Make a folder and those above it; note which ones weren't there."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        made.append(path)
    return folder


def read_run(folder: Path) -> dict[str, Any]:
    """Read a run's regard.json.

    Raises:
        CheckpointError: the folder is not a run.
    """
    path = folder / "regard.json"
    if not path.is_file():
        if was_being_prepared(folder):
            raise CheckpointError(
                f"{folder} was stopped while its data was prepared; begin it again, without --resume."
            )
        raise CheckpointError(
            f"{folder} is not a run: it has no regard.json. {_near(folder, path.name)}".strip()
        )
    record = read_json(path)
    needed = {
        "task": str,
        "data": list,
        "valid": list,
        "model": dict,
        "training": dict,
        "given": dict,
        "stores": dict,
        "sizes": dict,
    }
    if not isinstance(record, dict) or any(not isinstance(record.get(n), kind) for n, kind in needed.items()):
        raise CheckpointError(f"{path} is damaged, or was written by another version of Regard.")
    return record


@dataclass(frozen=True)
class Opened:
    """Hold a model that was opened: where it is, its network, and its tokenizer if it has one."""

    place: Place
    loaded: Loaded
    tokenizer: Tokenizer | None


def open_model(
    where: str | Path,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    revision: str | None = None,
    offline: bool | None = None,
) -> Opened:
    """Find a model and load it: ours or a published family's, a folder, a file or a hub id.

    Raises:
        CheckpointError: something is missing, broken, or doesn't fit.
        ConfigError: the device isn't there, or the precision isn't known.
    """
    at = choose_device(device)
    if precision not in PRECISIONS:
        raise ConfigError(f"precision={precision!r} is not one of {', '.join(PRECISIONS)}.")
    place = locate(where, revision=revision, offline=offline)
    folder = place.folder
    read_config(folder)
    tokenizer = Tokenizer.load(folder) if has_tokenizer(folder) else None
    if (
        place.file is None
        and (folder / "regard.json").is_file()
        and not (folder / "model.safetensors").is_file()
    ):
        raise CheckpointError(
            f"{folder} has no model.safetensors: the run was stopped before its first evaluation; go on with --resume."
        )
    loaded = load_model(folder, place.file, device=at, dtype=PRECISIONS[precision])
    if tokenizer is not None:
        check_vocabulary(folder, tokenizer, loaded.config)
    return Opened(place, loaded, tokenizer)


def load_parts(where: str | Path, *, device: str = "cpu") -> Parts:
    """Load a folder's weights, tokenizer and configuration.

    Raises:
        CheckpointError: something is missing, broken, or doesn't fit.
        ConfigError: the device isn't there.
    """
    read_config(Path(where))
    opened = open_model(Path(where), device=device)
    words = need_tokenizer(opened.tokenizer, where)
    return Parts(opened.loaded.module, words, opened.loaded.config, stretch=read_stretch(opened.place.folder))


def has_tokenizer(folder: Path) -> bool:
    """Tell whether a folder holds any file that a tokenizer is made of."""
    return any(next(folder.glob(pattern), None) for pattern in _TOKENIZERS)


def need_tokenizer(tokenizer: Tokenizer | None, where: object) -> Tokenizer:
    """Give the tokenizer.

    Raises:
        CheckpointError: there is none.
    """
    if tokenizer is None:
        raise CheckpointError(f"{where} has no tokenizer: fetch tokenizer.json too.")
    return tokenizer


def check_vocabulary(folder: Path, tokenizer: Tokenizer, config: ModelConfig) -> None:
    """Refuse a tokenizer whose ids the model has no embedding for.

    Raises:
        CheckpointError: it has more tokens than the model.
    """
    if tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model only {config.vocab_size}."
        )


def read_config(folder: Path) -> ModelConfig:
    """Read a model directory's config.json.

    Raises:
        CheckpointError: there is none, or it can't be used.
    """
    path = folder / "config.json"
    if not path.is_file():
        if folder.is_dir():
            raise CheckpointError(f"{folder} is not a model directory: it has no config.json.")
        what = "a file, not a model directory" if folder.is_file() else "not there"
        raise CheckpointError(f"{folder} is {what}. {_near(folder, path.name)}".strip())
    return model_config(folder)[1]


def _near(folder: Path, file: str) -> str:
    """Suggest a neighbour of a folder that holds what this one lacks."""
    try:
        return suggest(folder.name, [p.name for p in folder.parent.iterdir() if (p / file).is_file()])
    except OSError:
        return ""
