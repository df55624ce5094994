"""What a model is: one frozen value that every family of Transformer is written in."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args, get_type_hints

from regard.config_help import HELP
from regard.errors import ConfigError, suggest

Kind = Literal["encoder", "decoder", "encoder-decoder"]
PositionKind = Literal["none", "sinusoidal", "learned", "rotary", "alibi", "t5"]
NormKind = Literal["layernorm", "rmsnorm"]
RotaryScaling = Literal["none", "linear", "llama3"]
Placement = Literal["pre", "post", "parallel", "sandwich"]
Activation = Literal["relu", "gelu", "gelu_tanh", "silu", "relu2"]
HeadKind = Literal["lm", "classify", "tag", "span", "none"]
Pooling = Literal["first", "last", "mean"]
PoolerActivation = Literal["tanh", "relu"]

_LIMITS: dict[str, tuple[float, float]] = {
    "vocab_size": (1, 10_000_000), "width": (1, 65_536), "num_layers": (1, 1_000), "num_decoder_layers": (1, 1_000),
    "num_heads": (1, 1_024), "num_kv_heads": (1, 1_024), "head_size": (1, 65_536), "ffn_width": (1, 1_048_576),
    "context": (1, 100_000_000), "position_offset": (0, 1_000), "window": (1, 100_000_000),
    "rotary_base": (1, 1e12), "rotary_window_base": (1, 1e12), "rotary_factor": (1, 1e6),
    "rotary_context": (1, 100_000_000), "rotary_low": (1e-3, 1e6), "rotary_high": (1e-3, 1e6),
    "relative_buckets": (4, 65_536), "relative_distance": (2, 1_000_000), "norm_eps": (0, 1),
    "num_segments": (0, 1_024), "ngrams": (1, 16), "ngram_rows": (1, 100_000_000), "norm_offset": (0, 1),
    "output_scale": (1e-6, 1e6),
    "attention_scale": (1e-6, 1e6), "attention_softcap": (1e-6, 1e6), "logit_softcap": (1e-6, 1e6), "init_std": (0, 10),
    "dropout": (0, 0.99), "attention_dropout": (0, 0.99), "ffn_dropout": (0, 0.99),
}  # fmt: skip
_hints = functools.cache(get_type_hints)
_MAX_PARAMETERS = 2_000_000_000_000


@dataclass(frozen=True)
class ModelConfig:
    """Describe one model of any family.

    Sizes are counts, `context` is in tokens, dropouts are probabilities in [0, 1). `None` means the usual value: as
    many key/value heads as heads, `head_size` = `width / num_heads`, `ffn_width` = 4 x `width`, as many decoder
    layers as encoder layers, scores scaled by 1/sqrt(head_size), no window, no soft cap.

    Raises:
        ConfigError: a value is out of range, or two do not fit each other.

    Example:
        >>> ModelConfig(kind="decoder", vocab_size=100, width=64, num_heads=4).head_size
        16
    """

    kind: Kind
    vocab_size: int
    width: int = 256
    num_layers: int = 4
    num_decoder_layers: int | None = None
    num_heads: int = 4
    num_kv_heads: int | None = None
    head_size: int | None = None
    ffn_width: int | None = None
    context: int = 512

    position: PositionKind = "sinusoidal"
    position_offset: int = 0  # rows of a learned table before the first token's, as in RoBERTa and BART
    sinusoid_halves: bool = False  # all sines before all cosines, as in Marian
    rotary_base: float = 10_000.0
    rotary_window_base: float | None = None  # of the layers with a window; None: as rotary_base
    rotary_scaling: RotaryScaling = "none"  # of the layers without a window
    rotary_factor: float = 1.0
    rotary_context: int | None = None
    rotary_low: float = 1.0
    rotary_high: float = 4.0
    relative_buckets: int = 32
    relative_distance: int = 128
    window: int | None = None
    global_layers: tuple[int, ...] = ()  # the layers, counted from 0, that ignore the window

    norm: NormKind = "layernorm"
    norm_placement: Placement = "pre"
    norm_eps: float = 1e-5
    norm_bias: bool = True  # of LayerNorm
    norm_offset: float = 0.0  # RMSNorm scales by offset + weight; 1 in Gemma
    first_norm: bool = True  # whether the first block's attention has a norm; ModernBERT's has none
    embedding_norm: bool = False
    query_key_norm: bool = False
    activation: Activation = "relu"
    gated: bool = False
    bias: bool = True
    qkv_bias: bool | None = None  # None: as `bias`
    ffn_bias: bool | None = None  # None: as `bias`
    attention_scale: float | None = None
    attention_softcap: float | None = None
    logit_softcap: float | None = None

    scale_embeddings: bool = False  # by sqrt(width), as in 2017
    tie_embeddings: bool = True  # output weights are the (target) embedding
    share_embeddings: bool = True  # source and target embeddings are one
    ngrams: int = 1  # the longest sequence of tokens with an embedding of its own
    ngram_rows: int = 16_384
    output_bias: bool = False
    output_scale: float | None = None  # of the states before the output; width^-1/2 in the first T5
    num_segments: int = 0
    head: HeadKind = "lm"
    head_transform: bool = False  # dense, activation and norm before the output, as in BERT
    pooling: Pooling = "first"
    pooler: bool = False  # dense and tanh on what was pooled, as in BERT
    pooler_activation: PoolerActivation = "tanh"
    labels: tuple[str, ...] = ()
    label_bias: bool = True
    multi_label: bool = False  # a text has any number of the labels, each by a sigmoid of its own
    head_transitions: bool = False  # a tagger scores which tag follows which (Lafferty et al. 2001)

    dropout: float = 0.0
    attention_dropout: float = 0.0
    ffn_dropout: float = 0.0
    init_std: float | None = None  # None: Xavier, as in 2017

    pad_id: int | None = 0
    bos_id: int | None = 1
    eos_id: int | None = 2
    start_id: int | None = None  # the decoder's first token; None: bos_id

    derived: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "head_size": ("width", "num_heads"), "num_kv_heads": ("num_heads",), "ffn_width": ("width",),
        "num_decoder_layers": ("num_layers", "kind"), "qkv_bias": ("bias",), "ffn_bias": ("bias",),
    }  # fmt: skip

    def __post_init__(self) -> None:
        fill = object.__setattr__
        check_types(vars(self), type(self))
        fill(self, "labels", tuple(self.labels))
        fill(self, "global_layers", tuple(self.global_layers))
        fill(self, "num_kv_heads", self.num_kv_heads or self.num_heads)
        if self.head_size is None:
            if self.width % self.num_heads:
                options = [h for h in range(1, self.width + 1) if self.width % h == 0]
                nearest = min(options, key=lambda h: abs(h - self.num_heads))
                raise ConfigError(
                    f"num_heads={self.num_heads} does not divide width={self.width}; try {nearest}."
                )
            fill(self, "head_size", self.width // self.num_heads)
        fill(self, "ffn_width", self.ffn_width or 4 * self.width)
        fill(self, "qkv_bias", self.bias if self.qkv_bias is None else self.qkv_bias)
        fill(self, "ffn_bias", self.bias if self.ffn_bias is None else self.ffn_bias)
        if self.kind == "encoder-decoder":
            fill(self, "num_decoder_layers", self.num_decoder_layers or self.num_layers)
        _check_fit(self)

    @property
    def start(self) -> int | None:
        """Give the id that a decoder's output begins with."""
        return self.bos_id if self.start_id is None else self.start_id

    def replace(self, **changes: Any) -> ModelConfig:
        """Give a copy with some fields changed; derived sizes are derived anew unless they are given.

        Raises:
            ConfigError: an unknown field, or the result is not valid.
        """
        values = self.to_dict()
        for derived, sources in self.derived.items():
            if any(name in changes for name in sources):
                values[derived] = None
        return self.from_dict({**values, **changes})

    def to_dict(self) -> dict[str, Any]:
        """Give the fields as plain JSON values."""
        values = dataclasses.asdict(self)
        values["labels"], values["global_layers"] = list(self.labels), list(self.global_layers)
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Make a configuration from plain values.

        Raises:
            ConfigError: an unknown key (with its nearest neighbour), a missing one, or a value that cannot be.
        """
        names = [f.name for f in dataclasses.fields(cls)]
        for key in values:
            if key not in names and key in HELP:
                raise ConfigError(f"{key} is for a recurrent model, as --model gru is; leave it out.")
            if key not in names:
                raise ConfigError(f"unknown model setting {key!r}. {suggest(key, names)}".strip())
        for key in ("kind", "vocab_size"):
            if key not in values:
                raise ConfigError(f"the model configuration has no {key!r}.")
        fields: dict[str, Any] = dict(values)
        for name in ("labels", "global_layers"):
            if isinstance(fields.get(name), list):
                fields[name] = tuple(fields[name])
        return cls(**fields)

    @classmethod
    def field_help(cls) -> dict[str, str]:
        """Give a line of help for each field, by the field's name."""
        return {field.name: HELP[field.name] for field in dataclasses.fields(cls)}

    def num_parameters(self) -> int:
        """Count the weights of this model, without making them (tied weights once).

        Norm weights and biases are included. Used for the range check and for `regard info`.
        """
        return sum(_parameter_counts(self).values())


def check_types(values: Mapping[str, Any], owner: type = ModelConfig) -> None:
    """Refuse values of `owner`'s fields that are of another type or out of range. Raises ConfigError."""
    hints = _hints(owner)
    for name, value in values.items():
        options = get_args(hints[name])
        if value is None and type(None) in options:
            continue
        if name in ("labels", "global_layers"):
            continue
        if options and all(isinstance(o, str) for o in options):  # a Literal
            if value not in options:
                raise ConfigError(
                    f"{name}={value!r} is not one of {', '.join(options)}. {suggest(str(value), options)}".strip()
                )
            continue
        types = [o for o in options if o is not type(None)] or [hints[name]]
        if bool in types and isinstance(value, bool):
            continue
        if int in types and (isinstance(value, bool) or not isinstance(value, int)):
            raise ConfigError(f"{name}={value!r} must be a whole number.")
        if float in types and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise ConfigError(f"{name}={value!r} must be a number.")
        if bool in types:
            raise ConfigError(f"{name}={value!r} must be true or false.")
        if name in _LIMITS and isinstance(value, (int, float)):
            low, high = _LIMITS[name]
            if not low <= value <= high:
                raise ConfigError(f"{name}={value!r} is out of range; allowed are {low:g} to {high:g}.")
    labels, layers = values.get("labels", ()), values.get("global_layers", ())
    if not isinstance(labels, (tuple, list)) or not all(isinstance(label, str) for label in labels):
        raise ConfigError("labels must be a list of strings.")
    if not isinstance(layers, (tuple, list)) or not all(type(layer) is int for layer in layers):
        raise ConfigError("global_layers must be a list of whole numbers.")


def _check_effect(c: ModelConfig) -> None:
    if c.kind == "encoder-decoder" and (c.num_segments or (c.pooler and c.head != "classify")):
        raise ConfigError(
            "num_segments and pooler are for encoders and decoders, not for kind='encoder-decoder'."
        )
    if c.ngrams > 1 and c.kind != "decoder":
        raise ConfigError(f"ngrams={c.ngrams} is for kind='decoder', not {c.kind!r}.")
    if c.multi_label and c.head != "classify":
        raise ConfigError(f"multi_label is for head='classify', not {c.head!r}.")
    if c.head_transitions and c.head != "tag":
        raise ConfigError(f"head_transitions is for head='tag', not {c.head!r}.")
    if c.global_layers and c.window is None:
        raise ConfigError(
            f"global_layers={list(c.global_layers)} has no effect without a window; set window too."
        )
    if any(not 0 <= layer < c.num_layers for layer in c.global_layers):
        raise ConfigError(f"global_layers={list(c.global_layers)} must be 0 to {c.num_layers - 1}.")
    if c.rotary_scaling == "llama3" and c.rotary_context is None:
        raise ConfigError("rotary_scaling='llama3' needs rotary_context, the context before stretching.")
    if c.rotary_scaling == "llama3" and c.rotary_low >= c.rotary_high:
        raise ConfigError(f"rotary_low={c.rotary_low:g} must be less than rotary_high={c.rotary_high:g}.")


def _check_fit(config: ModelConfig) -> None:
    c = config
    _check_effect(c)
    assert c.num_kv_heads is not None and c.head_size is not None
    if c.num_heads % c.num_kv_heads:
        raise ConfigError(f"num_kv_heads={c.num_kv_heads} does not divide num_heads={c.num_heads}.")
    if c.position == "rotary" and c.head_size % 2:
        raise ConfigError(
            f"rotary positions need an even head_size, not {c.head_size}; change width or num_heads."
        )
    if not c.first_norm and c.norm_placement != "pre":
        raise ConfigError("first_norm=False is for norm_placement='pre'.")
    if c.position == "sinusoidal" and c.width % 2:
        raise ConfigError(f"sinusoidal positions need an even width, not {c.width}.")
    if c.kind != "encoder-decoder" and c.num_decoder_layers is not None:
        raise ConfigError(
            f"num_decoder_layers is for kind='encoder-decoder', not {c.kind!r}; use num_layers."
        )
    if c.head == "tag" and c.kind == "encoder-decoder":
        raise ConfigError("head='tag' is for an encoder or decoder, not for kind='encoder-decoder'.")
    if c.head in ("classify", "tag") and not c.labels:
        raise ConfigError(f"head={c.head!r} needs labels.")
    if c.labels and c.head not in ("classify", "tag"):
        raise ConfigError(f"labels are for head='classify' or 'tag', not {c.head!r}.")
    if c.head_transform and c.head == "none":
        raise ConfigError("head_transform is for a head, not for head='none'.")
    if c.position == "t5" and c.relative_distance <= c.relative_buckets // 2:
        raise ConfigError(
            f"relative_distance={c.relative_distance} must be more than half of relative_buckets={c.relative_buckets}."
        )
    for name in ("pad_id", "bos_id", "eos_id", "start_id"):
        value = getattr(c, name)
        if value is not None and not 0 <= value < c.vocab_size:
            raise ConfigError(f"{name}={value} is outside the vocabulary of {c.vocab_size} tokens.")
    parameters = c.num_parameters()
    if parameters > _MAX_PARAMETERS:
        raise ConfigError(
            f"this model would have {parameters:,} weights, {parameters * 4 / 2**30:,.0f} GiB in fp32; make it smaller."
        )


def _parameter_counts(c: ModelConfig) -> dict[str, int]:
    assert c.num_kv_heads is not None and c.head_size is not None and c.ffn_width is not None
    d, k = c.width, c.head_size
    norm = d * (2 if c.norm == "layernorm" and c.norm_bias else 1)
    q, kv = c.num_heads * k, c.num_kv_heads * k
    attention = d * q + 2 * d * kv + q * d + (d if c.bias else 0) + (q + 2 * kv if c.qkv_bias else 0)
    attention += 2 * k if c.query_key_norm else 0
    inner = c.ffn_width * (2 if c.gated else 1)
    ffn = d * inner + c.ffn_width * d + (inner + d if c.ffn_bias else 0)
    sublayer_norms = 2 if c.norm_placement == "sandwich" else 1
    block = attention + ffn + norm * (1 if c.norm_placement == "parallel" else 2 * sublayer_norms)
    cross_block = block + attention + (0 if c.norm_placement == "parallel" else norm * sublayer_norms)
    both = c.kind == "encoder-decoder"
    stacks = 2 if both else 1
    position = {"learned": (c.context + c.position_offset) * d, "t5": c.relative_buckets * c.num_heads}.get(
        c.position, 0
    )
    around = position + norm * (int(c.embedding_norm) + int(c.norm_placement != "post"))
    transform = d * d + (d if c.bias else 0) + norm if c.head_transform else 0
    outputs = {"classify": len(c.labels), "tag": len(c.labels), "span": 2}.get(c.head, 0)
    head = transform + outputs * (d + int(c.label_bias))
    head += outputs * (outputs + 2) if c.head_transitions else 0
    if c.head == "lm":
        head += (0 if c.tie_embeddings else c.vocab_size * d) + (c.vocab_size if c.output_bias else 0)
    return {
        "embedding": c.vocab_size * d * (2 if both and not c.share_embeddings else 1)
        + (c.num_segments + (c.ngrams - 1) * c.ngram_rows) * d,
        "around": around * stacks,
        "blocks": c.num_layers * block
        + (c.num_decoder_layers or 0) * cross_block
        - (0 if c.first_norm else norm * stacks),
        "head": head + (d * d + d if c.pooler else 0),
    }
