"""What a run tells while it goes on; a display shows these, the loop prints nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

__all__ = [
    "Ended",
    "Evaluated",
    "Event",
    "Reason",
    "Report",
    "Result",
    "Saved",
    "Started",
    "Stepped",
    "Warned",
]

Reason = Literal["steps", "epochs", "minutes", "patience", "interrupted"]
"""Why a run ended."""


@dataclass(frozen=True)
class Started:
    """Say that training begins or goes on at `step` (0: a fresh run).

    `steps` is where the schedule ends, None if that isn't known; `parameters` counts the trainable weights
    once.
    """

    step: int
    steps: int | None
    epoch: int
    parameters: int
    device: str
    precision: str
    resumed_from: Path | None


@dataclass(frozen=True)
class Stepped:
    """Say how training stands, once every `log_every` steps.

    `loss` and `nll` are nats per token, means since the event before; `grad_norm` is the last step's, before
    clipping; `elapsed` and `remaining` are seconds, the first over all sessions, the second None if unknown.
    """

    step: int
    steps: int | None
    epoch: int
    loss: float
    nll: float
    lr: float
    grad_norm: float
    tokens_per_second: float
    elapsed: float
    remaining: float | None


@dataclass(frozen=True)
class Evaluated:
    """Say what an evaluation found, whether it is the best so far, and show a sample if the task has one."""

    step: int
    metrics: Mapping[str, float]
    improved: bool
    sample: str | None


@dataclass(frozen=True)
class Saved:
    """Say that the state of `step` is whole on the disk, in the folder `path`."""

    step: int
    path: Path


@dataclass(frozen=True)
class Warned:
    """Say something that the user should know, in one sentence; the run goes on."""

    text: str


@dataclass(frozen=True)
class Ended:
    """Say that the run is over, or interrupted, with everything saved."""

    reason: Reason
    result: Result


Event = Started | Stepped | Evaluated | Saved | Warned | Ended
Report = Callable[[Event], None]


@dataclass(frozen=True)
class Result:
    """Hold what a run came to.

    Attributes:
        reason: why it ended.
        best: the metrics of the best evaluation, whose weights lie at the root of the run.
        best_step: the step of that evaluation; 0 if there was none.
        last: the metrics of the last evaluation.
        steps: optimizer steps over all sessions.
        seconds: time over all sessions, evaluations and saves included.
        tokens: scored tokens over all sessions.
    """

    reason: Reason
    best: Mapping[str, float] = field(default_factory=dict)
    best_step: int = 0
    last: Mapping[str, float] = field(default_factory=dict)
    steps: int = 0
    seconds: float = 0.0
    tokens: int = 0
