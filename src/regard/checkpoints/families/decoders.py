"""GPT-2, and the family that Llama founded: Mistral, Qwen 2 and 3, Gemma 2 and 3."""

from __future__ import annotations

from dataclasses import replace

from regard.checkpoints.configs import activations, rope, tokens, windows
from regard.checkpoints.tables import Family, Head, Key, Row, Settings, Several, Swap
from regard.checkpoints.transforms import CONV, conv_split
from regard.config import ModelConfig

BLOCK = "stack.blocks.{i}"
_BARE: Settings = {"head": "none"}
_LM: Settings = {"head": "lm"}
_CLASSIFY: Settings = {"head": "classify", "pooling": "last", "label_bias": False}
_TAG: Settings = {"head": "tag"}
_SPAN: Settings = {"head": "span"}

# Radford et al. 2019 and transformers' configuration_gpt2.py for the keys. Its linear layers are stored as
# (inputs, outputs), and query, key and value in one.
GPT2 = Family(
    name="gpt2",
    fixed={"kind": "decoder", "position": "learned", "norm": "layernorm", "norm_placement": "pre"},
    keys=(
        Key("vocab_size", "vocab_size", 50_257),
        Key("n_embd", "width", 768, aliases=("hidden_size",)),
        Key("n_layer", "num_layers", 12, aliases=("num_hidden_layers",)),
        Key("n_head", "num_heads", 12, aliases=("num_attention_heads",)),
        Key("n_inner", "ffn_width", None),
        Key("n_positions", "context", 1024, aliases=("max_position_embeddings", "n_ctx")),
        Key("activation_function", "activation", "gelu_new", Swap(activations("gelu_new"))),
        Key("layer_norm_epsilon", "norm_eps", 1e-5),
        Key("resid_pdrop", "dropout", 0.1),
        Key("attn_pdrop", "attention_dropout", 0.1),
        Key("initializer_range", "init_std", 0.02),
        Key("tie_word_embeddings", "tie_embeddings", True),
        Key("scale_attn_weights", None, True),
        Key("scale_attn_by_inverse_layer_idx", None, False),
        tokens(bos=50_256, eos=50_256, pad=None),
    ),
    heads={
        "GPT2Model": Head(_BARE),
        "GPT2LMHeadModel": Head(_LM, (Row("lm_head.weight", "head.output.weight"),)),
        "GPT2ForSequenceClassification": Head(_CLASSIFY, (Row("score", "head.output"),)),
        "GPT2ForTokenClassification": Head(_TAG, (Row("classifier", "head.output"),)),
        "GPT2ForQuestionAnswering": Head(_SPAN, (Row("qa_outputs", "head.output"),)),
    },
    prefix="transformer.",
    rows=(
        Row("wte.weight", "embedding.weight"),
        Row("wpe.weight", "stack.position.embedding.weight"),
        Row("h.{i}.ln_1", f"{BLOCK}.attention_norm"),
        Row(
            "h.{i}.attn.c_attn",
            tuple(f"{BLOCK}.attention.{part}" for part in ("query", "key", "value")),
            conv_split(3),
        ),
        Row("h.{i}.attn.c_proj", f"{BLOCK}.attention.output", CONV),
        Row("h.{i}.ln_2", f"{BLOCK}.feed_forward_norm"),
        Row("h.{i}.mlp.c_fc", f"{BLOCK}.feed_forward.up", CONV),
        Row("h.{i}.mlp.c_proj", f"{BLOCK}.feed_forward.down", CONV),
        Row("ln_f", "stack.norm_out"),
    ),
    unused=(r"\.attn\.(bias|masked_bias)$",),
)

_LLAMA_ROWS = (
    Row("embed_tokens.weight", "embedding.weight"),
    Row("layers.{i}.input_layernorm", f"{BLOCK}.attention_norm"),
    Row("layers.{i}.self_attn.q_proj", f"{BLOCK}.attention.query"),
    Row("layers.{i}.self_attn.k_proj", f"{BLOCK}.attention.key"),
    Row("layers.{i}.self_attn.v_proj", f"{BLOCK}.attention.value"),
    Row("layers.{i}.self_attn.o_proj", f"{BLOCK}.attention.output"),
    Row("layers.{i}.self_attn.q_norm", f"{BLOCK}.attention.query_norm"),
    Row("layers.{i}.self_attn.k_norm", f"{BLOCK}.attention.key_norm"),
    Row("layers.{i}.post_attention_layernorm", f"{BLOCK}.feed_forward_norm"),
    Row("layers.{i}.mlp.gate_proj", f"{BLOCK}.feed_forward.gate"),
    Row("layers.{i}.mlp.up_proj", f"{BLOCK}.feed_forward.up"),
    Row("layers.{i}.mlp.down_proj", f"{BLOCK}.feed_forward.down"),
    Row("norm", "stack.norm_out"),
)


def _heads(name: str, *, span_prefix: str | None = "transformer.") -> dict[str, Head]:
    return {
        f"{name}Model": Head(_BARE),
        f"{name}ForCausalLM": Head(_LM, (Row("lm_head.weight", "head.output.weight"),)),
        f"{name}ForSequenceClassification": Head(_CLASSIFY, (Row("score", "head.output"),)),
        f"{name}ForTokenClassification": Head(_TAG, (Row("score", "head.output"),)),
        f"{name}ForQuestionAnswering": Head(_SPAN, (Row("qa_outputs", "head.output"),), prefix=span_prefix),
    }


def _sizes(
    *, kv_heads: int | None, context: int, eps: float, tied: bool, head: int | None = None
) -> tuple[Key, ...]:
    return (
        Key("vocab_size", "vocab_size"),
        Key("hidden_size", "width"),
        Key("num_hidden_layers", "num_layers"),
        Key("num_attention_heads", "num_heads"),
        Key("num_key_value_heads", "num_kv_heads", kv_heads),
        Key("head_dim", "head_size", head),
        Key("intermediate_size", "ffn_width"),
        Key("max_position_embeddings", "context", context),
        Key("rms_norm_eps", "norm_eps", eps),
        Key("attention_dropout", "attention_dropout", 0.0),
        Key("initializer_range", "init_std", 0.02),
        Key("tie_word_embeddings", "tie_embeddings", tied),
    )


_FIXED: Settings = {
    "kind": "decoder", "position": "rotary", "norm": "rmsnorm", "norm_placement": "pre", "gated": True, "bias": False,
}  # fmt: skip


def _biases() -> Several:
    """Tie attention_bias, which is for all four projections, and mlp_bias."""

    def write(config: ModelConfig) -> Settings:
        return {"attention_bias": config.bias, "mlp_bias": config.ffn_bias}

    def read(theirs: Settings) -> Settings:
        attention = theirs.get("attention_bias", False)
        return {"bias": attention, "qkv_bias": attention, "ffn_bias": theirs.get("mlp_bias", False)}

    return Several(("attention_bias", "mlp_bias"), read, write)


_SILU = Key("hidden_act", "activation", "silu", Swap(activations("silu")))

# Touvron et al. 2023, arXiv:2302.13971 and 2307.09288; Grattafiori et al. 2024, arXiv:2407.21783.
LLAMA = Family(
    name="llama",
    fixed=_FIXED,
    keys=(
        *_sizes(kv_heads=None, context=2048, eps=1e-6, tied=False),
        _SILU,
        _biases(),
        rope(),
        tokens(bos=1, eos=2, pad=None),
    ),
    heads=_heads("Llama"),
    prefix="model.",
    rows=_LLAMA_ROWS,
    unused=(r"rotary_emb\.inv_freq$",),
)

# Jiang et al. 2023, arXiv:2310.06825.
MISTRAL = replace(
    LLAMA,
    name="mistral",
    keys=(
        *_sizes(kv_heads=8, context=131_072, eps=1e-6, tied=False),
        _SILU,
        rope(),
        windows(size=4096),
        tokens(bos=1, eos=2, pad=None),
    ),
    heads=_heads("Mistral", span_prefix=None),
)

# Yang et al. 2024, arXiv:2407.10671: biases at query, key and value.
QWEN2 = replace(
    LLAMA,
    name="qwen2",
    fixed={**_FIXED, "qkv_bias": True},
    keys=(
        *_sizes(kv_heads=32, context=32_768, eps=1e-6, tied=False),
        _SILU,
        rope(),
        windows(size=4096, switch="use_sliding_window", first="max_window_layers"),
        tokens(bos=None, eos=None, pad=None),
    ),
    heads=_heads("Qwen2"),
)

# Yang et al. 2025, arXiv:2505.09388: query-key norm in their place.
QWEN3 = replace(
    QWEN2,
    name="qwen3",
    fixed={**_FIXED, "query_key_norm": True},
    keys=(
        *_sizes(kv_heads=32, context=32_768, eps=1e-6, tied=False, head=128),
        _SILU,
        _biases(),
        rope(),
        windows(size=4096, switch="use_sliding_window", first="max_window_layers"),
        tokens(bos=None, eos=None, pad=None),
    ),
    heads=_heads("Qwen3"),
)


def _query_scale() -> Several:
    """Tie query_pre_attn_scalar, whose root the scores are divided by, to the factor."""

    def read(theirs: Settings) -> Settings:
        scalar, size = theirs.get("query_pre_attn_scalar", 256), theirs.get("head_dim", 256)
        return {"attention_scale": None if scalar == size else scalar**-0.5}

    def write(config: ModelConfig) -> Settings:
        assert config.head_size is not None
        scale = config.attention_scale
        scalar = config.head_size if scale is None else round(scale**-2, 6)
        return {"query_pre_attn_scalar": int(scalar) if scalar == int(scalar) else scalar}

    return Several(("query_pre_attn_scalar",), read, write, null=("head_dim",))


_GEMMA_FIXED: Settings = {
    **_FIXED, "norm_placement": "sandwich", "norm_offset": 1.0, "scale_embeddings": True,
}  # fmt: skip
_GEMMA_ACTIVATION = Key(
    "hidden_activation", "activation", "gelu_pytorch_tanh", Swap(activations("gelu_pytorch_tanh")),
    aliases=("hidden_act",),
)  # fmt: skip
_GEMMA_ROWS = (
    *(row for row in _LLAMA_ROWS if row.theirs != "layers.{i}.post_attention_layernorm"),
    Row("layers.{i}.post_attention_layernorm", f"{BLOCK}.attention_norm_out"),
    Row("layers.{i}.pre_feedforward_layernorm", f"{BLOCK}.feed_forward_norm"),
    Row("layers.{i}.post_feedforward_layernorm", f"{BLOCK}.feed_forward_norm_out"),
)

# Gemma Team 2024, arXiv:2408.00118: norms on both sides of each sublayer, soft caps, a window in every second layer.
GEMMA2 = Family(
    name="gemma2",
    fixed=_GEMMA_FIXED,
    keys=(
        *_sizes(kv_heads=4, context=8192, eps=1e-6, tied=True, head=256),
        _GEMMA_ACTIVATION,
        _biases(),
        rope(),
        windows(size=4096, every=2),
        _query_scale(),
        Key("attn_logit_softcapping", "attention_softcap", 50.0),
        Key("final_logit_softcapping", "logit_softcap", 30.0),
        Key("use_bidirectional_attention", None, None),
        tokens(bos=2, eos=1, pad=0),
    ),
    heads=_heads("Gemma2"),
    prefix="model.",
    rows=_GEMMA_ROWS,
    unused=(r"rotary_emb\.",),
)

# Gemma Team 2025, arXiv:2503.19786: query-key norm in the caps' place, five layers with a window to one without, and
# a base of rotary positions for each.
GEMMA3 = replace(
    GEMMA2,
    name="gemma3_text",
    fixed={**_GEMMA_FIXED, "query_key_norm": True},
    keys=(
        *_sizes(kv_heads=4, context=131_072, eps=1e-6, tied=True, head=256),
        _GEMMA_ACTIVATION,
        _biases(),
        rope(base=1_000_000.0),
        Key("rope_local_base_freq", "rotary_window_base", 10_000.0),
        windows(size=4096, every=6),
        _query_scale(),
        Key("attn_logit_softcapping", "attention_softcap", None),
        Key("final_logit_softcapping", "logit_softcap", None),
        Key("use_bidirectional_attention", None, False),
        tokens(bos=2, eos=1, pad=0),
    ),
    heads={
        name: head
        for name, head in _heads("Gemma3").items()
        if "Token" not in name and "Question" not in name
    }
    | {"Gemma3TextModel": Head(_BARE)},
)

ALL = (GPT2, LLAMA, MISTRAL, QWEN2, QWEN3, GEMMA2, GEMMA3)
