"""What a recurrent model is: a ModelConfig of its own kind, in which what only a Transformer has can't be set."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from regard.config import ModelConfig, Pooling, PositionKind
from regard.errors import ConfigError

Cell = Literal["rnn", "lstm", "gru"]
Score = Literal["none", "additive", "dot", "general"]

GATES: dict[str, int] = {"rnn": 1, "gru": 3, "lstm": 4}
"""How many times its width a cell computes at a step."""

_SHARED = (
    "kind", "vocab_size", "width", "num_layers", "num_decoder_layers", "context", "tie_embeddings",
    "share_embeddings", "output_bias", "head", "pooling", "labels", "label_bias", "multi_label", "head_transitions",
    "dropout", "pad_id", "bos_id", "eos_id", "start_id",
)  # fmt: skip


@dataclass(frozen=True)
class RecurrentConfig(ModelConfig):
    """Describe one recurrent model: a language model, an encoder, or an encoder-decoder.

    `width` is that of embeddings, states and annotations; of a bidirectional encoder each direction has half of it.
    `None` means what was published: with additive scores a bidirectional encoder, and the context enters the cell
    (Bahdanau et al. 2014, arXiv:1409.0473); with dot and general a unidirectional one and input feeding (Luong et al.
    2015, arXiv:1508.04025); without attention a unidirectional one whose last state is one context vector, which the
    decoder reads at each step (Cho et al. 2014, arXiv:1406.1078) or, with `repeat_context` off, only begins with
    (Sutskever et al. 2014, arXiv:1409.3215). An encoder by itself is bidirectional.

    Raises:
        ConfigError: a value is out of range, two do not fit each other, or one is a Transformer's.

    Example:
        >>> RecurrentConfig(kind="encoder-decoder", vocab_size=100, score="additive").bidirectional
        True
    """

    num_layers: int = 1
    num_heads: int = 1
    position: PositionKind = "none"
    pooling: Pooling = "mean"

    cell: Cell = "gru"
    bidirectional: bool | None = None
    score: Score = "none"
    input_feeding: bool | None = None
    repeat_context: bool | None = None

    own: ClassVar[tuple[str, ...]] = ("cell", "bidirectional", "score", "input_feeding", "repeat_context")
    derived: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "num_decoder_layers": ("num_layers", "kind"),
        **dict.fromkeys(("bidirectional", "input_feeding", "repeat_context"), ("score", "kind")),
    }

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.name in (*_SHARED, *self.own):
                continue
            if getattr(self, field.name) != field.default:
                raise ConfigError(
                    f"{field.name} is for a Transformer, and this model is recurrent ({self.cell}); leave it out."
                )
        fill, both = object.__setattr__, self.kind == "encoder-decoder"
        _check_fit(self)
        published = {
            "bidirectional": self.kind == "encoder" or self.score == "additive",
            "input_feeding": self.score in ("dot", "general"),
            "repeat_context": both and self.score == "none",
        }
        for name, value in published.items():
            if getattr(self, name) is None:
                fill(self, name, value)
        if self.bidirectional and isinstance(self.width, int) and self.width % 2:
            raise ConfigError(f"a bidirectional encoder needs an even width, not {self.width}.")
        super().__post_init__()

    def to_dict(self) -> dict[str, Any]:
        """Give the fields that a recurrent model has as plain JSON values."""
        values = super().to_dict()
        return {name: values[name] for name in (*_SHARED, *self.own)}

    def num_parameters(self) -> int:
        """Count the weights of this model, without making them (tied weights once)."""
        d, both = self.width, self.kind == "encoder-decoder"
        decodes = self.num_decoder_layers or 0
        total = self.vocab_size * d * (2 if both and not self.share_embeddings else 1)
        total += self._layers(self.num_layers, 2 if self.bidirectional else 1, d)
        total += self._layers(decodes, 1, 2 * d if both and self.is_fed else d)
        if both and (self.score == "additive" or self.repeat_context):
            total += decodes * (d * d + d) + (d * d + d if self.repeat_context else 0)
        total += {"additive": 2 * d * d + 2 * d, "general": d * d}.get(self.score, 0)
        if self.score != "none" or self.repeat_context:
            total += (2 if self.score in ("dot", "general") else 3) * d * d + d
        outputs = {"classify": len(self.labels), "tag": len(self.labels), "span": 2}.get(self.head, 0)
        total += outputs * (d + int(self.label_bias))
        total += outputs * (outputs + 2) if self.head_transitions else 0
        if self.head == "lm":
            total += 0 if self.tie_embeddings else self.vocab_size * d
            total += self.vocab_size if self.output_bias else 0
        return total

    @property
    def is_fed(self) -> bool:
        """Tell whether a decoder's cell gets something beside the word before: a context, or its own last output."""
        return self.score == "additive" or bool(self.input_feeding or self.repeat_context)

    def _layers(self, number: int, directions: int, first: int) -> int:
        """Count the weights of stacked layers, the first of which gets `first` numbers."""
        size, gates = self.width // directions, GATES[self.cell]
        inputs = [first, *[self.width] * (number - 1)][:number]
        return sum(directions * gates * size * (i + size + 2) for i in inputs)


def config_from(values: Mapping[str, Any]) -> ModelConfig:
    """Make the configuration of a Transformer or of a recurrent model from plain values; the latter name a cell.

    Raises:
        ConfigError: an unknown key (with its nearest neighbour), a missing one, or a value that cannot be.
    """
    return (RecurrentConfig if "cell" in values else ModelConfig).from_dict(dict(values))


def _check_fit(c: RecurrentConfig) -> None:
    """Refuse settings that would do nothing."""
    if c.kind != "encoder-decoder":
        for name, idle in (("score", "none"), ("repeat_context", False), ("input_feeding", False)):
            if getattr(c, name) not in (idle, None):
                raise ConfigError(f"{name} is for kind='encoder-decoder', not {c.kind!r}; leave it out.")
    if c.kind == "encoder-decoder" and c.head not in ("lm", "none"):
        raise ConfigError(
            f"head={c.head!r} of a recurrent model is for an encoder or decoder, not for {c.kind!r}."
        )
    if c.kind == "decoder" and c.bidirectional:
        raise ConfigError(
            "a decoder sees only what came before: bidirectional is for an encoder; leave it out."
        )
    if c.input_feeding and c.score not in ("dot", "general"):
        raise ConfigError(f"input_feeding is for score='dot' or 'general', not {c.score!r}; leave it out.")
    if c.repeat_context and c.score != "none":
        raise ConfigError(f"repeat_context is for score='none', not {c.score!r}; leave it out.")
