"""ModernBERT."""

from __future__ import annotations

from regard.checkpoints.configs import activations, tokens
from regard.checkpoints.families.encoders import silent
from regard.checkpoints.tables import Family, Head, Key, Row, Settings, Several, Swap
from regard.checkpoints.transforms import split
from regard.config import ModelConfig
from regard.errors import ConfigError

BLOCK = "stack.blocks.{i}"


def _local_windows() -> Several:
    """Tie local_attention, the tokens that a local layer sees in all, and global_attn_every_n_layers.

    A local layer sees half of local_attention to each side, and the token itself besides; our window counts it to one
    side, the token included. Layers 0, n, 2n, ... see everything; newer files name each layer in layer_types.
    """

    def read(theirs: Settings) -> Settings:
        count, every = theirs.get("num_hidden_layers", 22), theirs.get("global_attn_every_n_layers", 3)
        size, kinds = theirs.get("local_attention", 128), theirs.get("layer_types")
        if type(size) is not int or size < 0 or type(every) is not int or every < 1 or type(count) is not int:
            raise ConfigError(
                f"config.json: local_attention={size!r}, global_attn_every_n_layers={every!r} and "
                f"num_hidden_layers={count!r} must be whole numbers."
            )
        everywhere = list(range(0, count, every))
        if kinds is not None:
            known = ("full_attention", "sliding_attention")
            if not isinstance(kinds, list) or len(kinds) != count or any(kind not in known for kind in kinds):
                raise ConfigError(
                    f"config.json: layer_types must name {count} layers, full or sliding attention."
                )
            everywhere = [i for i, kind in enumerate(kinds) if kind == "full_attention"]
        if len(everywhere) == count:
            return {"window": None, "global_layers": []}
        return {"window": size // 2 + 1, "global_layers": everywhere}

    def write(config: ModelConfig) -> Settings:
        layers, everywhere = config.num_layers, list(config.global_layers)
        if config.window is None:
            return {"local_attention": 128, "global_attn_every_n_layers": 1}
        gap = next((n for n in range(1, layers + 1) if list(range(0, layers, n)) == everywhere), None)
        if gap is None:
            raise ConfigError(f"the layers {everywhere} that ignore the window aren't every n-th from 0 on.")
        return {"local_attention": 2 * (config.window - 1), "global_attn_every_n_layers": gap}

    return Several(("local_attention", "global_attn_every_n_layers", "layer_types"), read, write)


def _two_bases() -> Several:
    """Tie global_rope_theta and local_rope_theta, or the rope_parameters of each kind of layer in newer files."""

    def read(theirs: Settings) -> Settings:
        both = theirs.get("rope_parameters") or {}
        bases = []
        for kind, key, usual in (
            ("full_attention", "global_rope_theta", 160_000.0),
            ("sliding_attention", "local_rope_theta", 10_000.0),
        ):
            of_kind = both.get(kind) or {} if isinstance(both, dict) else None
            if not isinstance(of_kind, dict) or of_kind.get("rope_type", "default") != "default":
                raise ConfigError(f"modernbert with rope_parameters={both!r} isn't built here.")
            base = theirs.get(key, of_kind.get("rope_theta", usual))
            if base is not None and (isinstance(base, bool) or not isinstance(base, (int, float))):
                raise ConfigError(f"config.json: {key}={base!r} must be a number.")
            bases.append(None if base is None else float(base))
        if bases[0] is None:
            raise ConfigError("config.json: global_rope_theta must be a number.")
        return {"rotary_base": bases[0], "rotary_window_base": bases[1]}

    def write(config: ModelConfig) -> Settings:
        return {"global_rope_theta": config.rotary_base, "local_rope_theta": config.rotary_window_base}

    return Several(
        ("global_rope_theta", "local_rope_theta", "rope_parameters"), read, write, null=("local_rope_theta",)
    )


def _biases() -> Several:
    """Tie attention_bias, mlp_bias and classifier_bias; the head's dense layer has one where the attention has."""

    def read(theirs: Settings) -> Settings:
        attention, head = theirs.get("attention_bias", False), theirs.get("classifier_bias", False)
        if attention != head:
            raise ConfigError(
                f"modernbert with attention_bias={attention} and classifier_bias={head} isn't built here."
            )
        return {"bias": attention, "qkv_bias": attention, "ffn_bias": theirs.get("mlp_bias", False)}

    def write(config: ModelConfig) -> Settings:
        return {"attention_bias": config.bias, "classifier_bias": config.bias, "mlp_bias": config.ffn_bias}

    return Several(("attention_bias", "mlp_bias", "classifier_bias"), read, write)


def _activations() -> Several:
    """Tie hidden_activation and classifier_activation, the head's; one is for both here."""
    names = Swap(activations("gelu"))

    def read(theirs: Settings) -> Settings:
        blocks, head = (theirs.get(key, "gelu") for key in ("hidden_activation", "classifier_activation"))
        try:
            ours = names.to_ours(blocks)
        except KeyError:
            raise ConfigError(f"config.json: hidden_activation={blocks!r} isn't known.") from None
        if head != blocks:
            raise ConfigError(
                f"modernbert with {blocks!r} in its blocks and {head!r} in its head isn't built here."
            )
        return {"activation": ours}

    def write(config: ModelConfig) -> Settings:
        theirs = names.to_theirs(config.activation)
        return {"hidden_activation": theirs, "classifier_activation": theirs}

    return Several(("hidden_activation", "classifier_activation"), read, write)


_MODERN_HEAD = (Row("head.dense", "head.transform"), Row("head.norm", "head.transform_norm"))
_MODERN_CLASSES = (*_MODERN_HEAD, Row("classifier", "head.output"))

# Warner et al. 2024, arXiv:2412.13663: rotary positions of two bases, windows in two layers of three, gates, no biases,
# and no norm before the first attention, as the embeddings have just had one.
MODERNBERT = Family(
    name="modernbert",
    fixed={
        "kind": "encoder",
        "position": "rotary",
        "norm": "layernorm",
        "norm_placement": "pre",
        "first_norm": False,
        "embedding_norm": True,
        "gated": True,
    },
    keys=(
        Key("vocab_size", "vocab_size", 50_368),
        Key("hidden_size", "width", 768),
        Key("num_hidden_layers", "num_layers", 22),
        Key("num_attention_heads", "num_heads", 12),
        Key("intermediate_size", "ffn_width", 1152),
        Key("max_position_embeddings", "context", 8192),
        Key("norm_eps", "norm_eps", 1e-5),
        Key("norm_bias", "norm_bias", False),
        Key("decoder_bias", "output_bias", True),
        Key("classifier_pooling", "pooling", "cls", Swap((("cls", "first"), ("mean", "mean")))),
        Key("embedding_dropout", "dropout", 0.0),
        Key("attention_dropout", "attention_dropout", 0.0),
        Key("mlp_dropout", "ffn_dropout", 0.0),
        Key("initializer_range", "init_std", 0.02),
        Key("tie_word_embeddings", "tie_embeddings", True),
        Key("rope_scaling", None, None),
        _activations(),
        _biases(),
        _local_windows(),
        _two_bases(),
        tokens(bos=50_281, eos=50_282, pad=50_283),
        silent(
            "initializer_cutoff_factor",
            "classifier_dropout",
            "deterministic_flash_attn",
            "sparse_prediction",
            "sparse_pred_ignore_index",
            "reference_compile",
            "repad_logits_with_grad",
            "cls_token_id",
            "position_embedding_type",
            "layer_norm_eps",
        ),
    ),
    heads={
        "ModernBertModel": Head({"head": "none"}),
        "ModernBertForMaskedLM": Head(
            {"head": "lm", "head_transform": True}, (*_MODERN_HEAD, Row("decoder", "head.output"))
        ),
        "ModernBertForSequenceClassification": Head(
            {"head": "classify", "head_transform": True}, _MODERN_CLASSES
        ),
        "ModernBertForTokenClassification": Head({"head": "tag", "head_transform": True}, _MODERN_CLASSES),
        "ModernBertForQuestionAnswering": Head({"head": "span", "head_transform": True}, _MODERN_CLASSES),
    },
    prefix="model.",
    rows=(
        Row("embeddings.tok_embeddings.weight", "embedding.weight"),
        Row("embeddings.norm", "stack.norm_in"),
        Row("layers.{i}.attn_norm", f"{BLOCK}.attention_norm"),
        Row(
            "layers.{i}.attn.Wqkv",
            tuple(f"{BLOCK}.attention.{part}" for part in ("query", "key", "value")),
            split(3),
        ),
        Row("layers.{i}.attn.Wo", f"{BLOCK}.attention.output"),
        Row("layers.{i}.mlp_norm", f"{BLOCK}.feed_forward_norm"),
        # What the activation passes stands above what it is multiplied with.
        Row("layers.{i}.mlp.Wi", (f"{BLOCK}.feed_forward.gate", f"{BLOCK}.feed_forward.up"), split(2)),
        Row("layers.{i}.mlp.Wo", f"{BLOCK}.feed_forward.down"),
        Row("final_norm", "stack.norm_out"),
    ),
    unused=(r"rotary_emb\.inv_freq$",),
)

ALL = (MODERNBERT,)
