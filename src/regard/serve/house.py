"""What every route shares: the settings, the models, the work, and what is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

if TYPE_CHECKING:
    from regard.serve.models import Models
    from regard.serve.sentences import Sentences
    from regard.serve.store import Store
    from regard.serve.work import Work

__all__ = ["House", "Missing", "Settings", "Shared", "Unkept", "house"]


class Missing(LookupError):  # noqa: N818 - an answer, more than an error
    """Say that nothing has the name that was asked for; the answer is 404, and the sentence."""


class Unkept(Exception):  # noqa: N818 - an answer, more than an error
    """Say that what should be remembered can't be; the answer is 507, and the sentence."""


@dataclass(frozen=True)
class Settings:
    """Hold how the server was started.

    Attributes:
        models: names of models beside the runs: folders, files or ids of the hub.
        runs: the folder in which runs are found and made.
        data: a folder from which data may be chosen; None: uploads alone.
        home: the server's own folder: uploads, history, saved views.
        host: the address it listens at.
        hosts: further names under which it may be asked.
        token: what a client must know; None where only this machine can ask.
        device: where models compute.
        waiting: requests that may wait for their turn.
        workers: requests that are worked on at once.
        most_upload: bytes of a file that is sent.
        most_models: bytes of weights that are kept in memory.
        most_trainings: trainings that may be at work at once.
    """

    models: tuple[str, ...] = ()
    runs: Path = Path("runs")
    data: Path | None = None
    home: Path = Path("runs/.serve")
    host: str = "127.0.0.1"
    hosts: tuple[str, ...] = ()
    token: str | None = field(default=None, repr=False)
    device: str = "cpu"
    waiting: int = 64
    workers: int = 2
    most_upload: int = 512 * 2**20
    most_models: int = 4 * 2**30
    most_trainings: int = 2

    @property
    def uploads(self) -> Path:
        """Give the folder of what was sent."""
        return self.home / "uploads"


@dataclass
class House:
    """Hold the parts of a running server."""

    settings: Settings
    models: Models
    work: Work
    store: Store
    say: Sentences


def house(request: Request) -> House:
    """Give the server's parts to a route."""
    found: House = request.app.state.house
    return found


Shared = Annotated[House, Depends(house)]
"""A route's parameter of this type is the house."""
