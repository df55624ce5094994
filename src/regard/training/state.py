"""The state from which a run resumes bit for bit: folders `checkpoints/step-N`, each whole or not there.

A folder is written under another name, its manifest last, and renamed when all of it is on the disk. The
manifest has the size and SHA-256 of every file, so a folder that something damaged later is found out too,
and the one before it is used. Nothing random is saved: each step seeds its own (`seed_step`), as each batch
is a function of its number.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regard.checkpoints.files import load_tensors, read_json, save_tensors, sync, write_json_atomic
from regard.errors import CheckpointError, ConfigError
from regard.training.config import TrainConfig

__all__ = ["Progress", "StateStore", "compare_settings", "save_weights", "seed_step"]

MANIFEST = "manifest.json"
_FOLDER = re.compile(r"step-(\d+)(\.old)?")
# What a resumed run can't change, as its optimizer, its averages and its place in the data depend on it; and
# what changes nothing about a step. All else may change, but then the run isn't the one that was begun.
_FIXED = ("seed", "batch_tokens", "optimizer", "average", "average_last")
_FREE = ("steps", "epochs", "minutes", "patience", "keep", "save_every", "log_every", "device", "precision")


@dataclass
class Progress:
    """Count what a run has done; with the weights and the optimizers' state, this is all that a resume needs.

    Attributes:
        step: optimizer steps, those left out for a NaN included; equal to the batches consumed.
        epoch: passes over the data that are complete.
        batch: batches consumed of the pass that isn't.
        batches: batches in that pass; a resume compares it, because other data would make another run.
        tokens: scored tokens.
        elapsed: seconds, over all sessions.
        prepared: those of them before the first step.
        share: how much of the time for steps had passed when the last one began, 0 to 1; None where no time limits it.
        precision: what `auto` was resolved to.
        micro_tokens: the limit now, after memory ran out; None is no limit.
        bad_steps: steps left out since the last good one.
        logged, evaluated: the last steps with a line of metrics and with an evaluation.
        window_loss, window_nll, window_tokens: sums since the last line of metrics.
        best, best_step, last: metrics of the best and of the last evaluation.
        stale: evaluations since the best one.
        grad_norm: of the last good step, before clipping.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    batches: int = 0
    tokens: int = 0
    elapsed: float = 0.0
    prepared: float = 0.0
    share: float | None = None
    precision: str = "fp32"
    micro_tokens: int | None = None
    bad_steps: int = 0
    logged: int = 0
    evaluated: int = 0
    window_loss: float = 0.0
    window_nll: float = 0.0
    window_tokens: int = 0
    best: dict[str, float] = field(default_factory=dict)
    best_step: int = 0
    last: dict[str, float] = field(default_factory=dict)
    stale: int = 0
    grad_norm: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Give the counters as plain JSON values; a metric that isn't finite, which JSON can't hold, as None."""
        values = asdict(self)
        for name in ("best", "last"):
            values[name] = {k: v if math.isfinite(v) else None for k, v in values[name].items()}
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Progress:
        """Make the counters from what `to_dict` gave."""
        metrics = {
            name: {k: math.nan if v is None else v for k, v in values[name].items()}
            for name in ("best", "last")
        }
        return cls(**{**values, **metrics})

    def add_to_window(self, loss: float, nll: float, tokens: int) -> None:
        """Add a good step's sums to those since the last line of metrics."""
        self.window_loss += loss
        self.window_nll += nll
        self.window_tokens += tokens

    def clear_window(self) -> None:
        """Begin a new line of metrics."""
        self.window_loss, self.window_nll, self.window_tokens = 0.0, 0.0, 0
        self.logged = self.step


def save_weights(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a model's weights to `model.safetensors` in a folder, atomically; the least that a best model is."""
    save_tensors(folder / "model.safetensors", weights)


def seed_step(seed: int, step: int, device: torch.device) -> None:
    """Seed torch's generators for one step: dropout is then a function of the run's seed and the step alone.

    A step that is done again, after a kill or with less memory, draws what it drew before; and whatever else used
    the generator in between, an evaluation for instance, makes no difference.
    """
    digest = hashlib.blake2b(f"{seed}/{step}".encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "little") >> 1
    # Not torch.manual_seed: it seeds every kind of device there might be, which takes longer than a small step.
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(number)
    elif device.type == "mps":
        torch.mps.manual_seed(number)


def compare_settings(before: Mapping[str, Any], config: TrainConfig) -> str | None:
    """Say in a sentence which settings of a resumed run differ from those it began with; None if none does.

    Raises:
        ConfigError: one differs that a resumed run can't change.
    """
    now = config.to_dict()
    for name in _FIXED:
        if now[name] != before.get(name):
            raise ConfigError(
                f"{name}={now[name]!r} can't be changed when a run is resumed; it began with {before.get(name)!r}."
            )
    differing = [
        f"{name}={value!r} (was {before.get(name)!r})"
        for name, value in now.items()
        if name not in _FREE
        and name in before
        and value != before[name]  # an older state lacks newer settings
    ]
    return f"the run goes on with other settings than before: {', '.join(differing)}." if differing else None


class StateStore:
    """Keep the newest states of a run in a folder.

    Args:
        folder: the run's `checkpoints` folder; made when the first state is saved.
        keep: how many states stay.
        warn: takes a sentence about a state that isn't whole.
    """

    def __init__(self, folder: Path, *, keep: int, warn: Callable[[str], None]) -> None:
        self.folder = folder
        self.keep = keep
        self.warn = warn

    def states(self) -> list[Path]:
        """Give the folders of states, whole or not, newest first."""
        if not self.folder.is_dir():
            return []
        found = [
            (m, path)
            for path in self.folder.iterdir()
            if (m := _FOLDER.fullmatch(path.name)) and path.is_dir()
        ]
        found.sort(key=lambda item: (int(item[0][1]), item[0][2] is None), reverse=True)
        return [path for _, path in found]

    def progress(self) -> Progress | None:
        """Read how far the newest state is; None where there is none, or `load` will find it damaged."""
        for path in self.states()[:1]:
            with suppress(CheckpointError, KeyError, TypeError, AttributeError):
                return Progress.from_dict(read_json(path / "progress.json")["progress"])
        return None

    def path(self, step: int) -> Path:
        """Give the folder of a step's state, whether it is there or not."""
        return self.folder / f"step-{step}"

    def save(
        self, progress: Progress, tensors: Mapping[str, Mapping[str, Tensor]], settings: Mapping[str, Any]
    ) -> Path:
        """Write one state and remove those that are no longer kept; give its folder.

        Args:
            progress: the counters.
            tensors: files of tensors by name, without suffix: model, optimizer, average.
            settings: the run's settings, to compare when it resumes.

        Raises:
            CheckpointError: it could not be written; the states from before are still whole.
        """
        path = self.path(progress.step)
        old = path.with_name(path.name + ".old")
        temporary = self.folder / f".{path.name}.{os.getpid()}.tmp"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
            temporary.mkdir()
            for name, group in tensors.items():
                save_tensors(temporary / f"{name}.safetensors", group)
            write_json_atomic(
                temporary / "progress.json", {"progress": progress.to_dict(), "settings": dict(settings)}
            )
            files = {
                f.name: {"bytes": f.stat().st_size, "sha256": _sha256(f)} for f in sorted(temporary.iterdir())
            }
            write_json_atomic(temporary / MANIFEST, {"step": progress.step, "files": files})
            # A state of the same step (an interrupted evaluation leaves one) gives way; a kill between these
            # two lines leaves it under the name .old, where it is still found.
            if path.exists():
                if old.exists():
                    shutil.rmtree(old)
                os.replace(path, old)
            os.replace(temporary, path)
            sync(self.folder)
            self._remove_beyond(path)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            reason = error.strerror or type(error).__name__
            raise CheckpointError(
                f"the state of step {progress.step} could not be written ({reason})."
            ) from error
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        return path

    def load(
        self, device: torch.device
    ) -> tuple[Path, Progress, dict[str, dict[str, Tensor]], dict[str, Any]] | None:
        """Read the newest whole state: its folder, counters, tensors by file name, and settings; None if there is none.

        A newer one that isn't whole is put aside under the name `broken-step-N`, with a warning.

        Raises:
            CheckpointError: there are states and none of them is whole.
        """
        states = self.states()
        for path in states:
            problem = _problem(path)
            if problem is None:
                return path, *_read(path, device)
            aside = path.with_name(f"broken-{path.name}")
            self.warn(
                f"{path} is not whole ({problem}); it is put aside as {aside.name}, and the state before it is used."
            )
            if aside.exists():
                shutil.rmtree(aside)
            os.replace(path, aside)
        if states:
            raise CheckpointError(
                f"none of the {len(states)} saved states in {self.folder} is whole; "
                "remove that folder to begin the run again from its first step."
            )
        return None

    def _remove_leftovers(self) -> None:
        """Remove what a killed save left behind."""
        for path in self.folder.glob(".step-*.tmp"):
            shutil.rmtree(path, ignore_errors=True)

    def _remove_beyond(self, newest: Path) -> None:
        others = [path for path in self.states() if path != newest and not path.name.endswith(".old")]
        stale = [path for path in self.states() if path.name.endswith(".old")]
        for path in [*others[self.keep - 1 :], *stale]:
            # Under another name first: a kill in the middle leaves no folder that looks like a state and
            # isn't.
            gone = path.with_name(f".{path.name}.tmp")
            os.replace(path, gone)
            shutil.rmtree(gone, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _problem(path: Path) -> str | None:
    """Say in a few words why a folder isn't a whole state; None if it is one."""
    try:
        files = read_json(path / MANIFEST)["files"]
        for name, expected in files.items():
            file = path / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != expected["bytes"]:
                return f"{name} has {file.stat().st_size:,} bytes instead of {expected['bytes']:,}"
            if _sha256(file) != expected["sha256"]:
                return f"{name} has changed"
        return None if "progress.json" in files else "progress.json is missing"
    except (CheckpointError, OSError, KeyError, TypeError, AttributeError):
        return f"its {MANIFEST} is missing or damaged"


def _read(path: Path, device: torch.device) -> tuple[Progress, dict[str, dict[str, Tensor]], dict[str, Any]]:
    saved = read_json(path / "progress.json")
    known = {f.name for f in fields(Progress)}
    unknown = sorted(set(saved["progress"]) - known)
    if unknown:
        raise CheckpointError(f"{path} was saved by another version: it counts {', '.join(unknown)}.")
    tensors = {
        file.stem: load_tensors(file, device, check_finite=False)
        for file in sorted(path.glob("*.safetensors"))
    }
    return Progress.from_dict(saved["progress"]), tensors, saved["settings"]
