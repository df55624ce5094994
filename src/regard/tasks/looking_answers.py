"""What a model answers to texts that were read, row by row, and which of its answers are right.

Every answer is a distribution: of the next or the masked token, of a text's class, of a token's tag, of the place where
an answer starts or ends, or of one label's yes and no.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from regard.data.tokenizers import Tokenizer
from regard.errors import ConfigError, suggest
from regard.models.pooling import pool
from regard.tasks.base import Parts
from regard.tasks.looking import Reading

__all__ = ["Answers", "Names", "Row"]

_EVERY = 7  # one token in so many is masked at once: 14 %, about what masked encoders learned from
_ROWS = 256  # distributions over the whole vocabulary in memory at once


@dataclass(eq=False)
class Row:
    """Hold what a model reads at once.

    Attributes:
        example: the number of its reading.
        inputs: ids, (T,), of an encoder-decoder the source's and the target's.
        segments: (T,), or None.
        places: the tokens at which it answers; of a whole text's class (0,).
        wanted: the right answer of each distribution, -1 where there is none.
    """

    example: int
    inputs: tuple[Tensor, ...]
    segments: Tensor | None
    places: tuple[int, ...]
    wanted: list[int] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Count the tokens that are read."""
        return sum(len(ids) for ids in self.inputs)


class Answers:
    """Ask a model for its answers to some readings, in batches.

    Args:
        parts: a model and its tokenizer.
        readings: the texts.
        labels: the right answers, see `regard.tasks.looking_effects.effect`; where the head is over labels and
            there are none, what the model says now counts as right.
        batch_tokens: tokens in memory at once.
        alone: batch nothing but the rows of one reading, so that no row is padded.
    """

    def __init__(
        self, parts: Parts, readings: Sequence[Reading], labels: Sequence[Any] | None, *, batch_tokens: int = 8192,
        alone: bool = False,
    ) -> None:  # fmt: skip
        if not readings:
            raise ConfigError("there are no texts; give some.")
        if parts.config.head == "none":
            raise ConfigError("this model has no head: it says nothing that could change.")
        if labels is not None and len(labels) != len(readings):
            raise ConfigError(f"{len(labels)} labels and {len(readings)} texts; give one for each.")
        if labels is not None and parts.config.head != "lm" and any(label is None for label in labels):
            raise ConfigError("a label is None; give one for each text, or none at all.")
        self.parts, self.batch_tokens, self.alone = parts, batch_tokens, alone
        self.how = ""
        self.rows: list[Row] = []
        for k, reading in enumerate(readings):
            self.rows += self._rows_of(k, reading, None if labels is None else labels[k])
        self.count = len(readings)
        if parts.config.head != "lm" and labels is None:
            self.how = "the answers before the change count as right"
            for group in self.groups():
                for row, states in zip(group, self.states(group), strict=True):
                    row.wanted = [int(i) for part in self.answers(states) for i in part.argmax(-1)]

    def groups(self) -> Iterator[list[Row]]:
        """Put rows of like lengths side by side, at most as many padded tokens as were allowed."""
        group: list[Row] = []
        width = 0
        order = self.rows if self.alone else sorted(self.rows, key=lambda row: -row.size)
        for row in order:
            apart = self.alone and bool(group) and group[-1].example != row.example
            if group and (apart or (len(group) + 1) * max(width, row.size) > self.batch_tokens):
                yield group
                group, width = [], 0
            group.append(row)
            width = max(width, row.size)
        if group:
            yield group

    def states(self, rows: Sequence[Row]) -> list[Float[Tensor, "N D"]]:
        """Run one batch and give the states from which each row's answers are made."""
        module: Any = self.parts.module
        config = self.parts.config
        (ids, mask), *rest = (
            self._padded([row.inputs[i] for row in rows]) for i in range(len(rows[0].inputs))
        )
        with torch.inference_mode():
            if rest:
                ((target, target_mask),) = rest
                hidden = module.hidden(ids, target, source_mask=mask, target_mask=target_mask)
            elif rows[0].segments is None:
                hidden = module.hidden(ids, key_mask=mask)
            else:
                segments, _ = self._padded([row.segments for row in rows if row.segments is not None])
                hidden = module.hidden(ids, key_mask=mask, segments=segments)
            if config.head == "classify":
                pooled = pool(hidden, mask, config.pooling)
                pooled = pooled if module.pooler is None else module.pooler(pooled)
                return list(pooled[:, None])
            return [hidden[k, list(row.places)] for k, row in enumerate(rows)]

    def answers(self, states: Float[Tensor, "N D"]) -> Iterator[Float[Tensor, "M C"]]:
        """Give the log-probabilities of all answers to a row, in pieces."""
        parts = [states] if self.parts.config.head == "span" else states.split(_ROWS)
        for part in parts:
            yield self._logprobs(part)  # no mode is left open between two pieces

    @torch.inference_mode()
    def _logprobs(self, states: Tensor) -> Tensor:
        module: Any = self.parts.module
        logits = module.head(states).float()
        if self.parts.config.head == "span":
            return logits.T.log_softmax(-1)  # (2, N): starts and ends
        if self.parts.config.multi_label:  # (1, L): of each label, no and yes
            return torch.nn.functional.logsigmoid(torch.stack((-logits[0], logits[0]), -1))
        return logits.log_softmax(-1)

    def losses(self) -> Float[Tensor, " E"]:
        """Give each example's mean loss over what is right in it, in nats; NaN where there is nothing."""
        sums = torch.zeros(self.count, dtype=torch.float64)
        counts = torch.zeros(self.count, dtype=torch.float64)
        for group in self.groups():
            for row, states in zip(group, self.states(group), strict=True):
                at = 0
                for part in self.answers(states):
                    wanted = torch.tensor(row.wanted[at : at + len(part)], device=part.device)
                    at += len(part)
                    known = wanted >= 0
                    said = part.gather(1, wanted.clamp(min=0)[:, None])[:, 0]
                    sums[row.example] -= said[known].double().sum().cpu()
                    counts[row.example] += int(known.sum())
        return sums / counts

    def _padded(self, rows: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        lengths = torch.tensor([len(row) for row in rows], device=rows[0].device)
        ids = torch.nn.utils.rnn.pad_sequence(list(rows), True, self.parts.config.pad_id or 0)
        if int(lengths.min()) == ids.shape[1]:
            return ids, None
        return ids, torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]

    def _rows_of(self, k: int, reading: Reading, label: Any) -> list[Row]:
        config, inputs = self.parts.config, tuple(ids[0] for ids in reading.inputs)
        segments = None if reading.segments is None else reading.segments[0]
        side = reading.sides["target" if "target" in reading.sides else "text"]
        every = tuple(range(len(side.ids)))
        if config.head == "lm":
            if config.kind == "encoder":
                return self._fillings(k, reading, inputs[0], segments, label)
            self._refuse(label)
            self.how = "each next token" + (", the end among them" if config.kind != "decoder" else "")
            end = -1 if config.kind == "decoder" or config.eos_id is None else config.eos_id
            wanted = [-1 if t.special else i for i, t in zip(side.ids, side.tokens, strict=True)][1:]
            return [Row(k, inputs, segments, every, [*wanted, end])]
        self.how = "the given labels"
        if config.head == "classify":
            return [Row(k, inputs, segments, (0,), [] if label is None else self._classes(label))]
        if config.head == "span":
            return [Row(k, inputs, segments, every, [] if label is None else self._span(label, len(every)))]
        places = tuple(i for i, token in enumerate(side.tokens) if not token.special)
        if label is None:
            return [Row(k, inputs, segments, places)]
        if len(label) != len(every):
            raise ConfigError(f"{len(label)} tags for {len(every)} tokens; give one, or None, for each.")
        return [Row(k, inputs, segments, places, [self._class(label[i], none=-1) for i in places])]

    def _fillings(
        self, k: int, reading: Reading, ids: Tensor, segments: Tensor | None, label: Any
    ) -> list[Row]:
        """Mask every token once, some in each pass; or read the text as it is, where labels or no mask are there."""
        mask = self.parts.tokenizer.mask_id
        tokens = reading.sides["text"].tokens
        if label is not None:
            self.how = "the given labels"
            if not isinstance(label, Mapping) or any(not 0 <= i < len(ids) for i in label):
                raise ConfigError("the label of an encoder's text is {token number: id of the right token}.")
            return [Row(k, (ids,), segments, tuple(label), [int(i) for i in label.values()])]
        own = [i for i, t in enumerate(tokens) if not t.special and int(ids[i]) != mask]
        if mask is None:
            self.how = "each token of the text while it is seen"
            return [Row(k, (ids,), segments, tuple(own), [int(ids[i]) for i in own])]
        self.how = "each token of the text while it is masked, every seventh at once"
        rows = []
        for first in range(min(_EVERY, len(own))):
            places = tuple(own[first::_EVERY])
            masked = ids.clone()
            masked[list(places)] = mask
            rows.append(Row(k, (masked,), segments, places, [int(ids[i]) for i in places]))
        return rows

    def _refuse(self, label: Any) -> None:
        if label is not None:
            raise ConfigError(
                f"labels have no effect on {self.parts.config.kind}s that write; leave them out."
            )

    def _class(self, label: Any, none: int | None = None) -> int:
        names = self.parts.config.labels
        if label is None and none is not None:
            return none
        if isinstance(label, str):
            if label not in names:
                raise ConfigError(f"there is no label {label!r}. {suggest(label, names)}".strip())
            return names.index(label)
        if not isinstance(label, int) or not 0 <= label < len(names):
            raise ConfigError(f"{label!r} is no label; give a name or 0 to {len(names) - 1}.")
        return label

    def _classes(self, label: Any) -> list[int]:
        if not self.parts.config.multi_label:
            return [self._class(label)]
        several: Collection[Any] = (label,) if isinstance(label, (str, int)) else label
        chosen = {self._class(one) for one in several}
        return [int(i in chosen) for i in range(len(self.parts.config.labels))]

    def _span(self, label: Any, size: int) -> list[int]:
        first, last = label
        if not 0 <= first <= last < size:
            raise ConfigError(
                f"an answer's first and last token are 0 to {size - 1}, not {first} and {last}."
            )
        return [int(first), int(last)]


class Names:
    """Say in words what an answer is, and which token gives it."""

    def __init__(self, parts: Parts, readings: Sequence[Reading], writer: Tokenizer | None = None) -> None:
        self.config, self.tokenizer = parts.config, writer or parts.tokenizer
        self.sides = [one.sides["target" if "target" in one.sides else "text"] for one in readings]

    def answer(self, row: Row, number: int, index: int) -> str:
        """Name one answer of a row's distribution."""
        head, labels = self.config.head, self.config.labels
        if head == "lm":
            return self.tokenizer.tokens([index])[0]
        if head == "span":
            return self.sides[row.example].tokens[index].text
        if self.config.multi_label:
            return f"{'' if index else 'not '}{labels[number]}"
        return labels[index]

    def place(self, row: Row, number: int) -> tuple[int, str]:
        """Give the token that answers: its number and its text."""
        if self.config.head == "span":
            return 0, ("start", "end")[number]
        if self.config.head == "classify":
            return 0, self.config.labels[number] if self.config.multi_label else "class"
        at = row.places[number]
        return at, self.sides[row.example].tokens[at].text
