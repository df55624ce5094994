"""Looks that are kept while a page asks about them, and the two threads that answer beside the models' work."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

import torch
from fastapi import Depends, Request

from regard.look.capture import Captured
from regard.look.draw.payload import WHOLE
from regard.look.reading import Look
from regard.look.tiles import Pyramid
from regard.serve.house import Missing
from regard.serve.work import Busy, Left

__all__ = ["Kept", "Looking", "Looks", "Quick", "Room", "is_whole", "payload_size", "room"]

T = TypeVar("T")
_WHOLE_BYTES = 16_000_000  # of a payload
_THREADS = 2
_WAITING = 256  # quick questions that may wait; more are refused


@dataclass(eq=False)
class Kept:
    """Hold a look, and what was found out about it.

    Attributes:
        look: what was captured.
        whole: whether the page can have all of it.
        found: answers that took long, by their names.
    """

    look: Look
    whole: bool
    found: dict[str, Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def layer(self, place: int) -> Captured:
        """Give a layer by its place in `meta`.

        Raises:
            Missing: there is none.
        """
        layers = list(self.look.layers.values())
        if place >= len(layers):
            raise Missing(f"this look has layers 0 to {len(layers) - 1}; there is no layer {place}.")
        return layers[place]

    def head(self, layer: int, head: int) -> tuple[Captured, int]:
        """Give a layer and a head of it, by their places in `meta`.

        Raises:
            Missing: there is none.
        """
        found = self.layer(layer)
        if head >= found.heads:
            raise Missing(f"{found.name} has heads 0 to {found.heads - 1}; there is no head {head}.")
        return found, head

    def tiles(self, layer: int, head: int) -> Pyramid:
        """Give the map of a head, the same for all who ask.

        Raises:
            Missing: there is no such layer or head.
        """
        found, number = self.head(layer, head)
        with self._lock:
            return self.look.tiles(found.name, number)


class Looks:
    """Keep looks by ids that nobody guesses; those that were asked about longest ago go first.

    Args:
        most: looks.
        most_bytes: of all together; the newest is kept whatever it takes.
    """

    def __init__(self, *, most: int = 64, most_bytes: int = 4 * 2**30) -> None:
        self.most, self.most_bytes = most, most_bytes
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Count the looks."""
        return len(self._kept)

    def add(self, look: Look) -> str:
        """Keep a look and give its id."""
        name = secrets.token_urlsafe(12)
        with self._lock:
            self._kept[name] = Kept(look, is_whole(look))
        self.trim()
        return name

    def get(self, name: str) -> Kept:
        """Give a look by its id.

        Raises:
            Missing: it was never there, or is no longer kept.
        """
        with self._lock:
            if name not in self._kept:
                raise Missing("this look is no longer kept; look again.")
            self._kept.move_to_end(name)
            return self._kept[name]

    def trim(self) -> None:
        """Let go of what is too much; maps grow after a look was added."""
        with self._lock:
            held = sum(one.look.nbytes for one in self._kept.values())
            while len(self._kept) > 1 and (len(self._kept) > self.most or held > self.most_bytes):
                held -= self._kept.popitem(last=False)[1].look.nbytes


def is_whole(look: Look) -> bool:
    """Tell whether a look is small enough to be sent to the page at once."""
    shapes = (layer.shape for layer in look.layers.values())
    return all(rows * columns <= WHOLE for rows, columns in shapes) and payload_size(look) <= _WHOLE_BYTES


def payload_size(look: Look) -> int:
    """Tell about how many bytes a look's payload has, without making it: at most, where no token is escaped."""
    size = 0
    for layer in look.layers.values():
        each = min(4, layer.query.element_size())
        size += each * (layer.query.numel() + layer.key.numel()) + 4 * layer.normaliser.numel()
        size += 4 * layer.spans.numel() + (0 if layer.relative is None else 4 * layer.relative.numel())
    names = sum(len(token.text) + 8 for side in look.sides.values() for token in side.tokens)
    return size * 4 // 3 + 4 * names + 1000 * (1 + len(look.layers))


class Quick:
    """Answer small questions beside the models' work, two at a time; what takes longer never holds both threads."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, "looks", _alone)
        self._places, self._slow = asyncio.Semaphore(_THREADS), asyncio.Semaphore(_THREADS - 1)
        self._waiting = 0

    async def run(self, call: Callable[[], T], request: Request | None = None, *, slow: bool = False) -> T:
        """Do something in one of the threads; nothing where the client left before its turn.

        Raises:
            Busy: too many wait.
            Left: the client has gone.
        """
        if self._waiting >= _WAITING:
            raise Busy
        self._waiting += 1
        try:
            if slow:
                async with self._slow:
                    return await self._turn(call, request)
            return await self._turn(call, request)
        finally:
            self._waiting -= 1

    async def _turn(self, call: Callable[[], T], request: Request | None) -> T:
        async with self._places:
            if request is not None and await request.is_disconnected():
                raise Left
            return await asyncio.get_running_loop().run_in_executor(self._pool, call)


def _alone() -> None:
    """Let a thread compute alone: two windows side by side beat one that waits for a core that another thread has."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    # That is a thread's own number, and besides what later threads begin with, which is put back from another one.
    other = threading.Thread(target=torch.set_num_threads, args=(usual,))
    other.start()
    other.join()


@dataclass
class Room:
    """Hold what the routes of looks share."""

    looks: Looks = field(default_factory=Looks)
    quick: Quick = field(default_factory=Quick)


async def room(request: Request) -> Room:
    """Give the server's looks to a route; they are made when they are first asked for, in the loop's one thread."""
    state = request.app.state
    if not hasattr(state, "looks"):
        state.looks = Room()
    found: Room = state.looks
    return found


Looking = Annotated[Room, Depends(room)]
"""A route's parameter of this type is the room."""
