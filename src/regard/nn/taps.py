"""Places where a value on its way through a model can be seen, and another put in its stead.

A place is named by what passes there, with the number of its layer; `*` is `encoder`, `decoder` or `cross`:

    encoder.embedding, decoder.embedding      (B, T, D)     what a stack's first block gets, positions included
    *.3.heads                                 (B, H, T, K)  what each head mixed, before the output projection
    *.3.part                                  (B, h, t, K)  while a long text is captured: what some heads or rows mix
    *.3.attention                             (B, T, D)     what an attention adds to the residual stream
    encoder.3.feed_forward, decoder.3.…       (B, T, D)     what a feed-forward adds to it
    encoder.3, decoder.3                      (B, T, D)     what a block hands on

A model that nobody listens to pays one look at a context variable for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

__all__ = ["Tap", "is_tapped", "tap", "tapping", "unchanged"]

Tap = Callable[[str, Tensor], Tensor]
"""Gets a place's name and the value that passes there, and gives what goes on: the same one, or one like it."""

_taps: ContextVar[tuple[Tap, ...]] = ContextVar("taps", default=())


def tap(name: str, value: Tensor) -> Tensor:
    """Show a value to whoever listens, in the order in which they began to; give what goes on."""
    for listener in _taps.get():
        value = listener(name, value)
    return value


def is_tapped() -> bool:
    """Tell whether anybody listens."""
    return bool(_taps.get())


def unchanged(name: str, value: Tensor) -> Tensor:
    """Let a value pass; listening with this alone makes every module run itself, as it does under a change."""
    return value


@contextmanager
def tapping(listener: Tap) -> Iterator[None]:
    """Listen at every place of the forward passes inside."""
    token = _taps.set((*_taps.get(), listener))
    try:
        yield
    finally:
        _taps.reset(token)
