"""Write on from prompts: rows side by side from window to window, decoded and stopped as their text comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from regard.data.tokenizers import Tokenizer
from regard.generate.config import Hypothesis, SearchConfig
from regard.generate.constraints import Allowed, constrain
from regard.generate.logits import Transform, forbid
from regard.generate.search import search
from regard.generate.speculate import Drafter
from regard.tasks.base import Parts, framed
from regard.tasks.verbs import never_written

__all__ = ["Row", "Way", "Writer", "groups", "opened", "write_window"]

_BEFORE = 8  # tokens before a text by which its own are read
_WINDOW_STEP = 0x9E3779B97F4A7C15  # sets the random streams of a text's windows apart


def _no_changes(length: int) -> Sequence[Transform]:
    """Change no logits."""
    return ()


@dataclass(frozen=True)
class Way:
    """Say how rows are written.

    Attributes:
        settings: of the search; its `max_tokens` gives way to the room of a window.
        ends: the ids that end a text.
        transforms: changes of the logits, made for prompts of one length, padding counted.
        allowed: which tokens may follow; None: any. It sees the new tokens of a window.
        drafter: makes what guesses tokens, for each batch anew; None: nothing is guessed.
    """

    settings: SearchConfig
    ends: tuple[int, ...]
    transforms: Callable[[int], Sequence[Transform]] = _no_changes
    allowed: Allowed | None = None
    drafter: Callable[[], Drafter] | None = None


def opened(parts: Parts, ids: list[int]) -> list[int]:
    """Put before a prompt what its model expects there; an empty one begins as the texts did in training."""
    ids = framed(parts.tokenizer, ids, end=None)
    while len(ids) > 1 and ids[-1] == parts.config.eos_id:
        ids = ids[:-1]  # a frame may close the text, which is to go on
    return ids or [next((i for i in (parts.config.eos_id, parts.config.start) if i is not None), 0)]


class Row:
    """Follow one continuation from window to window."""

    def __init__(self, number: int, prompt: str, ids: list[int], left: int, writer: Writer) -> None:
        self.number, self.prompt, self.window, self.left, self.writer = (
            number,
            prompt,
            list(ids),
            left,
            writer,
        )
        self.prompt_tokens, self.tokens, self.windows = len(ids), 0, 1
        self.score, self.finished = 0.0, False
        self.written: list[int] = []

    def room(self, context: int) -> int:
        """Count the tokens that this window may get; the last one is never fed and takes no place."""
        return min(self.left, context - len(self.window) + 1)

    def next_window(self, context: int) -> None:
        """Go on from the last half of a window that is full."""
        if len(self.window) > context:
            self.window, self.windows = self.window[-max(1, context // 2) :], self.windows + 1

    def take(self, found: Hypothesis, room: int) -> None:
        """Add what a search wrote: to the end token, to a stop string, or to the end of the room."""
        ended = found.finished and not self.writer.stopped and len(found.ids) < room
        self.tokens += len(found.ids) + ended
        self.left -= len(found.ids) + ended
        self.score += found.score
        self.window += found.ids
        self.written += found.ids
        self.finished = ended or self.writer.stopped

    def close(self) -> bool:
        """Let out the rest of the text, and tell whether an end token or a stop string ended it."""
        self.writer.finish()
        return self.finished or self.writer.stopped


def groups(rows: Sequence[Row], context: int, budget: int, *, same_room: bool = False) -> Iterator[list[Row]]:
    """Put rows whose windows are of similar length together, longest first, within a budget of padded tokens.

    With `same_room` those of a group may also get as many tokens each.
    """
    group: list[Row] = []
    slots = 0
    for row in rows:
        row.next_window(context)
    for row in sorted(rows, key=lambda row: (same_room * row.room(context), -len(row.window), row.number)):
        grown = max(slots, (len(group[0].window) if group else len(row.window)) + row.room(context))
        apart = group and same_room and row.room(context) != group[0].room(context)
        full = (len(group) + 1) * grown > budget
        if group and (apart or full or 2 * len(row.window) < len(group[0].window)):
            yield group
            group, grown = [], len(row.window) + row.room(context)
        group.append(row)
        slots = grown
    if group:
        yield group


def write_window(parts: Parts, rows: Sequence[Row], way: Way) -> list[list[Hypothesis]]:
    """Continue rows side by side, padded on the left, each until its own window is full; give what was found."""
    config, longest = parts.config, max(len(row.window) for row in rows)
    pad = config.pad_id or 0
    ids = torch.tensor(
        [[pad] * (longest - len(row.window)) + row.window for row in rows], device=parts.device
    )
    real = torch.tensor([len(row.window) for row in rows], device=parts.device)
    mask = torch.arange(longest, device=parts.device) >= longest - real[:, None]
    rooms = [row.room(config.context) for row in rows]
    most = max(rooms)
    # Guesses reach beyond what is written, which must not be beyond a row's own room.
    assert way.drafter is None or min(rooms) == most
    settings = way.settings
    # Rows that go on together are in the same window; each window has random numbers of its own.
    seed = None if settings.temperature == 0 else (settings.seed or 0) + (rows[0].windows - 1) * _WINDOW_STEP
    settings = replace(
        settings, max_tokens=most, min_tokens=min(settings.min_tokens, most),
        seed=None if seed is None else seed % 2**63,
    )  # fmt: skip
    alone = settings.num_beams == settings.num_return == 1

    def full(place: int, new: list[int]) -> bool:
        row = rows[place]
        return (row.writer.stopped if alone else row.writer.would_stop(new)) or len(new) >= rooms[place]

    limit = [] if way.allowed is None else [constrain(way.allowed, longest)]
    with torch.inference_mode():
        state = parts.module.start(batch=len(rows))  # type: ignore[operator]
        found = search(
            state, ids, key_mask=mask, eos_id=way.ends, pad_id=pad, config=settings,
            rows=[row.number for row in rows],
            transforms=[forbid(never_written(parts, way.ends)), *way.transforms(longest), *limit],
            on_token=(lambda place, token: rows[place].writer.add(token)) if alone else None, stop=full,
            drafter=None if way.drafter is None else way.drafter(),
        )  # fmt: skip
    for row, (best, *_), room in zip(rows, found, rooms, strict=True):
        if not alone:
            for token in best.ids:
                row.writer.add(token)
        row.take(best, room)
    return found


class Writer:
    """Decode tokens as they come, and hold back what may be the beginning of a stop string.

    `before` are the ids that they follow: how a token reads may depend on whether it is the first of a text.
    """

    def __init__(
        self, tokenizer: Tokenizer, stop: Sequence[str], tell: Callable[[str], None] | None,
        before: Sequence[int] = (),
    ) -> None:  # fmt: skip
        self._stream, self._stop, self._tell = tokenizer.stream(), tuple(stop), tell
        self._tokenizer, self._before = tokenizer, list(before[-_BEFORE:])
        shown = sum(len(self._stream.add(token)) for token in before)
        self._skip = max(0, len(tokenizer.decode(before)) - shown)  # characters of theirs that are held back
        self._held, self.text, self.stopped = "", "", False

    def add(self, token: int) -> None:
        """Take the next token."""
        if not self.stopped:
            self._take(self._stream.add(token))

    def would_stop(self, new: Sequence[int]) -> bool:
        """Tell whether these tokens after what is here would hold a stop string; nothing is added."""
        if not self._stop:
            return False
        text = self._held + self.decode(new)
        return any(s in text for s in self._stop)

    def decode(self, new: Sequence[int]) -> str:
        """Give the text of ids that follow `before`; nothing is added."""
        return self._tokenizer.decode([*self._before, *new])[len(self._tokenizer.decode(self._before)) :]

    def cut(self, text: str) -> str:
        """Cut a text before the first stop string."""
        return text[: min((text.find(s) for s in self._stop if s in text), default=len(text))]

    def finish(self) -> None:
        """Let out what is held back."""
        if not self.stopped:
            self._take(self._stream.finish())
        if not self.stopped:
            self._say(self._held)

    def _take(self, new: str) -> None:
        skipped = min(self._skip, len(new))
        self._skip -= skipped
        self._held += new[skipped:]
        places = [self._held.find(s) for s in self._stop if s in self._held]
        if places:
            self._say(self._held[: min(places)])
            self.stopped = True
            return
        keep = max((n for s in self._stop for n in range(1, len(s)) if self._held.endswith(s[:n])), default=0)
        self._say(self._held[: len(self._held) - keep])
        self._held = self._held[len(self._held) - keep :]

    def _say(self, text: str) -> None:
        self.text += text
        if text and self._tell is not None:
            self._tell(text)
