"""Watch a search of one text: what it sees at each step and what it chooses; and lead it along tokens that are known.

    with watching(watcher):
        translate(parts, [text])        # or any other verb: its one search goes through the watcher

A watcher changes nothing of what is written: it sees the model's own logits, and stands behind all other transforms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from jaxtyping import Float
from torch import Tensor

from regard.errors import ConfigError
from regard.generate.config import Decoding, Hypothesis
from regard.nn.attention import Attend, listening
from regard.nn.masks import Mask
from regard.nn.positions import Bias
from regard.nn.streaming import last_weights

__all__ = ["Led", "Rows", "Watcher", "watcher_now", "watching"]

_AT_ONCE = 64  # known tokens that are read in one pass, and whose logits are held


class Rows:
    """Listen to attentions, and keep the weights of the newest queries of one text.

    Args:
        prefix: of the layers' names, "cross." or "decoder.".
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.count = 1  # how many queries of the next pass are kept
        self.weights: dict[str, Float[Tensor, "H R S"]] = {}

    @property
    def layers(self) -> tuple[str, ...]:
        """Name the layers in the order in which they ran."""
        return tuple(self.weights)

    def __call__(
        self,
        attend: Attend,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Mask,
        bias: Bias | Tensor | None,
    ) -> Tensor:
        """Attend as if nobody listened, and keep the weights."""
        if attend.name.startswith(self.prefix):
            weights = last_weights(attend, query[:1], key[:1], mask, bias, self.count)
            self.weights[attend.name] = weights[0].detach().cpu()
        with listening(None):
            return attend(query, key, value, mask, bias)

    def of(self, place: int, columns: int | None) -> Float[Tensor, "L H S"]:
        """Give the weights of one of the queries that were kept.

        Args:
            place: which of them.
            columns: the keys that it may attend to, itself the last; None: all, of a source. A layer that keeps a
                window only has zeros before it.
        """
        rows = []
        for weights in self.weights.values():
            row = weights[:, place]
            if columns is not None:
                later = self.count - 1 - place  # keys of the queries after it
                row = row[:, : row.shape[1] - later]
                row = torch.nn.functional.pad(row, (columns - row.shape[1], 0))
            rows.append(row)
        return torch.stack(rows)


class Led:
    """Be a Decoding of one text that shows what goes through it, and reads tokens that are known in few passes.

    Attributes:
        logits: (W, V), what the model said last of each row.
        origin: (W,), the rows at the last step that those of now come from.
        step: how many tokens were fed after the prompt; -1 before it.
    """

    def __init__(
        self,
        state: Decoding,
        known: Sequence[int],
        most: int,
        fed: Callable[[Tensor], None],
        rows: Rows | None,
    ) -> None:
        self._state, self._fed, self._rows = state, fed, rows
        self._known, self._fed_known = tuple(known), tuple(known[: most - 1])
        self.batch, self.step = state.batch, -1
        self.logits = self.origin = torch.empty(0)
        self.prompt: list[int] = []
        self._ahead, self._first = torch.empty(0), 0
        self._nats: Tensor | None = None

    @property
    def coming(self) -> int | None:
        """Give the token that must come next; None where the search is free."""
        return self._known[self.step] if self.step < len(self._known) else None

    @property
    def nats(self) -> Float[Tensor, "W V"]:
        """Give the log-probabilities of what may come next."""
        if self._nats is None:
            self._nats = self.logits.log_softmax(-1)
        return self._nats

    @property
    def seen(self) -> Float[Tensor, "L H S"] | None:
        """Give the attention of the last query: to the text so far, or to the source."""
        if self._rows is None:
            return None
        columns = None if self._rows.prefix == "cross." else len(self.prompt) + self.step
        replayed = 0 < self.step <= len(self._fed_known)
        return self._rows.of(self.step - 1 - self._first if replayed else 0, columns)

    def advance(self, ids: Tensor, key_mask: Tensor | None = None, *, only_last: bool = False) -> Tensor:
        """Append tokens, and give the logits after the last."""
        self._fed(ids)
        if self.step < 0:
            self.prompt = ids[0].tolist()
            given = self._run(ids, key_mask, 1)[:, -1:]
        elif self.step < len(self._fed_known):
            given = self._known_logits(ids.device)
        else:
            self._spread()
            given = self._run(ids, None, 1)
        self.step += 1
        self.logits, self._nats = given[:, -1].float(), None
        self.origin = torch.arange(self.batch, device=given.device)
        return given

    def reorder(self, rows: Tensor) -> None:
        """Keep these rows; while tokens are known there is one text, however many rows a search has."""
        if self.step >= len(self._fed_known):
            self._spread()
            self._state.reorder(rows)
        self.batch, self.origin = len(rows), self.origin[rows]

    def rewind(self, count: int) -> None:
        """Refuse: what was shown can't be taken back."""
        raise AssertionError("a search that is watched never goes back")

    def _known_logits(self, device: torch.device) -> Tensor:
        place = self.step - self._first
        if place >= len(self._ahead):
            chunk = self._fed_known[self.step : self.step + _AT_ONCE]
            self._ahead = self._run(torch.tensor([chunk], device=device), None, len(chunk))[0]
            self._first, place = self.step, 0
        return self._ahead[place].expand(self.batch, 1, -1)

    def _run(self, ids: Tensor, key_mask: Tensor | None, count: int) -> Tensor:
        only_last = self.step < 0
        if self._rows is None:
            return self._state.advance(ids, key_mask, only_last=only_last)
        self._rows.count = count
        with listening(self._rows):
            return self._state.advance(ids, key_mask, only_last=only_last)

    def _spread(self) -> None:
        """Give every row of the search the text that was known."""
        if self._state.batch != self.batch:
            self._state.reorder(torch.zeros(self.batch, dtype=torch.long, device=self.logits.device))


class Watcher:
    """See a search from within; a subclass says what it does with it.

    A verb may search several times, one window of a text after another; `written` is what came before the present one.

    Args:
        kept: the first tokens of the text, which are taken whatever the search would take.
        rows: keeps attentions, for a search of one row.
    """

    def __init__(self, kept: Sequence[int] = (), *, rows: Rows | None = None) -> None:
        self.kept, self.rows = tuple(kept), rows
        self.written: list[int] = []
        self.ends: tuple[int, ...] = ()
        self.most = 0

    def begin(self, state: Decoding, ends: tuple[int, ...], most: int) -> Decoding:
        """Take the state of a search of at most `most` tokens, and give what the search sees instead.

        Raises:
            ConfigError: an end token is kept, and others after it.
        """
        assert state.batch == 1, f"one text is watched at a time, not {state.batch}"
        early = next((token for token in self.kept[:-1] if token in ends), None)
        if early is not None:
            raise ConfigError(f"token {early} ends the text, but more tokens are kept after it.")
        self.ends, self.most = ends, most
        self.state = Led(state, self.kept[len(self.written) :][:most], most, self._fed, self.rows)
        return self.state

    def change(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Be the last transform: allow the token alone that must come next, if there is one."""
        token = self.state.coming
        if token is None:
            return logits
        # With its own log-probability, which counts in a beam search.
        forced = torch.full_like(logits, float("-inf"))
        forced[:, token] = self.state.nats[0, token]
        return forced

    def end(self, found: Sequence[Hypothesis]) -> None:
        """Take what the search found, the best first: of a beam search all that it has."""
        self.written += found[0].ids

    def prompted(self, ids: Sequence[int]) -> None:
        """Hear what the text follows, before it is read."""

    def chose(self, tokens: Sequence[int]) -> None:
        """Hear which tokens were chosen, one for each row, before they are read.

        `state.logits` and `state.origin` say what they were chosen by.
        """

    def _fed(self, ids: Tensor) -> None:
        if self.state.step < 0:
            self.prompted(ids[0].tolist())
        else:
            self.chose(ids[:, 0].tolist())


_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Show the searches inside to a watcher: each of one text, without guesses of tokens, and with one sample."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def watcher_now() -> Watcher | None:
    """Give who watches; None where nobody does."""
    return _watcher.get()
