"""T5 and mT5, and the family that BART founded: mBART and Marian."""

from __future__ import annotations

from dataclasses import replace

from regard.checkpoints.configs import activations, tokens
from regard.checkpoints.tables import Family, Head, Key, Row, Settings, Several, Swap
from regard.checkpoints.transforms import COLUMN
from regard.config import ModelConfig
from regard.errors import ConfigError

_WITHOUT_OUTPUT: Settings = {"output_scale": None, "output_bias": False}
_BARE: Settings = {**_WITHOUT_OUTPUT, "head": "none"}
_LM: Settings = {"head": "lm"}
# The text's vector is the decoder's state at the source's last token, which is the end-of-sequence token.
_CLASSIFY: Settings = {**_WITHOUT_OUTPUT, "head": "classify", "pooling": "last", "pooler": True}
_SPAN: Settings = {**_WITHOUT_OUTPUT, "head": "span"}
_ENCODER: Settings = {"kind": "encoder", "num_decoder_layers": None, "start_id": None}

_LM_ROW = Row("lm_head.weight", "head.output.weight")
_CLASSIFY_ROWS = (
    Row("classification_head.dense", "pooler.dense"),
    Row("classification_head.out_proj", "head.output"),
)
_SPAN_ROWS = (Row("qa_outputs", "head.output"),)
# Older files hold one embedding under several names.
_EMBEDDINGS = (
    Row("shared.weight", "embedding.weight", when={"share_embeddings": True}),
    Row("encoder.embed_tokens.weight", "embedding.weight"),
    Row("decoder.embed_tokens.weight", "target_embedding.weight"),
)


def _without_effect(*names: str) -> Several:
    """Know keys that change nothing of what a loaded model computes."""
    return Several(names, lambda theirs: {}, lambda config: {}, matters=False)


# ------------------------------------------------------------------------------------------------------------- T5

_T5_CONTEXT = 1_000_000
"""T5 knows distances, not positions, so that no text is too long for it but by memory: `n_positions` is merely the
length it was trained with. A model that shall have a limit says so in max_position_embeddings."""


def _feed_forward(usual: str) -> Several:
    """Tie feed_forward_proj, an activation's name after "gated-" or alone; what newer files repeat of it goes first."""
    swap, old = Swap(activations("relu", "gelu_new")), {"gated-gelu": "gelu_new"}

    def read(theirs: Settings) -> Settings:
        said = theirs.get("feed_forward_proj", usual)
        name = theirs.get("dense_act_fn", old.get(said, str(said).removeprefix("gated-")))
        try:
            activation = swap.to_ours(name)
        except KeyError:
            known = ", ".join(theirs for theirs, _ in swap.pairs)
            raise ConfigError(
                f"config.json: feed_forward_proj={said!r} with the activation {name!r} isn't known; known are {known}."
            ) from None
        return {"activation": activation, "gated": theirs.get("is_gated_act", str(said).startswith("gated-"))}

    def write(config: ModelConfig) -> Settings:
        name = swap.to_theirs(config.activation)
        said = next((long for long, short in old.items() if config.gated and short == name), None)
        said = said or ("gated-" if config.gated else "") + name
        return {"feed_forward_proj": said, "dense_act_fn": name, "is_gated_act": config.gated}

    return Several(("feed_forward_proj", "dense_act_fn", "is_gated_act"), read, write)


def _tied(usual: bool) -> Several:
    """Tie tie_word_embeddings, which with T5 also means that states are scaled before the output."""

    def read(theirs: Settings) -> Settings:
        tied = theirs.get("tie_word_embeddings", usual)
        return {"tie_embeddings": tied, "output_scale": theirs["d_model"] ** -0.5 if tied else None}

    def write(config: ModelConfig) -> Settings:
        return {"tie_word_embeddings": config.tie_embeddings}

    return Several(("tie_word_embeddings",), read, write)


def _dropout() -> Several:
    """Tie dropout_rate, which is one for all places."""

    def read(theirs: Settings) -> Settings:
        rate = theirs.get("dropout_rate", 0.1)
        return {"dropout": rate, "attention_dropout": rate, "ffn_dropout": rate}

    return Several(("dropout_rate",), read, lambda config: {"dropout_rate": config.dropout})


def _t5_keys(*, feed_forward: str, tied: bool) -> tuple[Key | Several, ...]:
    return (
        Key("vocab_size", "vocab_size"),
        Key("d_model", "width"),
        Key("num_layers", "num_layers"),
        Key("num_decoder_layers", "num_decoder_layers", None),
        Key("num_heads", "num_heads"),
        Key("d_kv", "head_size", 64),
        Key("d_ff", "ffn_width"),
        Key("max_position_embeddings", "context", _T5_CONTEXT),
        Key("relative_attention_num_buckets", "relative_buckets", 32),
        Key("relative_attention_max_distance", "relative_distance", 128),
        Key("layer_norm_epsilon", "norm_eps", 1e-6),
        _feed_forward(feed_forward),
        _tied(tied),
        _dropout(),
        tokens(bos=None, eos=1, pad=0, start=0),
        _without_effect("n_positions", "classifier_dropout", "output_past"),
    )


_T5_BIAS = "SelfAttention.relative_attention_bias.weight"


def _t5_stack(theirs: str, ours: str) -> tuple[Row, ...]:
    """Tie one of T5's stacks; its blocks are numbered sublayers, and the first holds the bias of all."""
    block, own = theirs + ".block.{i}.layer", ours + ".blocks.{i}"
    last = 2 if theirs == "decoder" else 1
    parts = {"q": "query", "k": "key", "v": "value", "o": "output"}
    return (
        Row(f"{theirs}.block.0.layer.0.{_T5_BIAS}", f"{ours}.position.embedding.weight"),
        Row(f"{block}.0.layer_norm", f"{own}.attention_norm"),
        *(Row(f"{block}.0.SelfAttention.{a}", f"{own}.attention.{b}") for a, b in parts.items()),
        Row(f"{block}.1.layer_norm", f"{own}.cross_norm"),
        *(Row(f"{block}.1.EncDecAttention.{a}", f"{own}.cross.{b}") for a, b in parts.items()),
        Row(f"{block}.{last}.layer_norm", f"{own}.feed_forward_norm"),
        Row(f"{block}.{last}.DenseReluDense.wi", f"{own}.feed_forward.up", when={"gated": False}),
        Row(f"{block}.{last}.DenseReluDense.wi_0", f"{own}.feed_forward.gate"),
        Row(f"{block}.{last}.DenseReluDense.wi_1", f"{own}.feed_forward.up", when={"gated": True}),
        Row(f"{block}.{last}.DenseReluDense.wo", f"{own}.feed_forward.down"),
        Row(f"{theirs}.final_layer_norm", f"{ours}.norm_out"),
    )


def _t5_heads(name: str) -> dict[str, Head]:
    return {
        f"{name}Model": Head(_BARE),
        f"{name}ForConditionalGeneration": Head(_LM, (_LM_ROW,)),
        f"{name}ForSequenceClassification": Head(_CLASSIFY, _CLASSIFY_ROWS, "transformer."),
        f"{name}ForQuestionAnswering": Head(_SPAN, _SPAN_ROWS),
        # These two read with the encoder alone.
        f"{name}EncoderModel": Head({**_BARE, **_ENCODER}),
        f"{name}ForTokenClassification": Head(
            {**_BARE, **_ENCODER, "head": "tag"}, (Row("classifier", "head.output"),), "transformer."
        ),
    }


# Raffel et al. 2020, arXiv:1910.10683, and transformers' configuration_t5.py for the keys. T5 1.1 and FLAN-T5
# (arXiv:2210.11416) are gated and untied.
T5 = Family(
    name="t5",
    fixed={
        "kind": "encoder-decoder", "position": "t5", "norm": "rmsnorm", "norm_placement": "pre", "bias": False,
        "attention_scale": 1.0,
    },
    keys=_t5_keys(feed_forward="relu", tied=True),
    heads=_t5_heads("T5"),
    rows=(
        *_EMBEDDINGS,
        *_t5_stack("encoder", "encoder"), *_t5_stack("encoder", "stack"), *_t5_stack("decoder", "decoder"),
    ),
    # The first T5 files have a bias for the decoder's look at the source, which nothing reads.
    unused=(
        r"EncDecAttention\.relative_attention_bias\.weight$",
        r"^(lm_head|classification_head|classifier|qa_outputs)\.",
    ),
)  # fmt: skip

# Xue et al. 2021, arXiv:2010.11934: T5 1.1 with another vocabulary.
MT5 = replace(
    T5,
    name="mt5",
    keys=_t5_keys(feed_forward="gated-gelu", tied=False),
    heads=_t5_heads("MT5"),
)

# ----------------------------------------------------------------------------------------------------------- BART


def _alike(ours: str, *names: str) -> Several:
    """Tie two keys, the encoder's and the decoder's, to the one field that we have for both; others are aliases."""

    def read(theirs: Settings) -> Settings:
        found = {theirs[name] for name in names if theirs.get(name) is not None}
        if not found:
            raise ConfigError(f"config.json says too little: {names[0]} is missing.")
        if len(found) > 1:
            values = ", ".join(f"{name}={theirs[name]!r}" for name in names if name in theirs)
            raise ConfigError(f"encoder and decoder with different sizes aren't built here: {values}.")
        return {ours: found.pop()}

    return Several(names, read, lambda config: dict.fromkeys(names[:2], getattr(config, ours)))


def _same_vocabulary() -> Several:
    """Tie share_encoder_decoder_embeddings; a vocabulary of the decoder's own is refused."""

    def read(theirs: Settings) -> Settings:
        own = theirs.get("decoder_vocab_size")
        if own is not None and own != theirs["vocab_size"]:
            raise ConfigError(
                f"decoder_vocab_size={own} beside vocab_size={theirs['vocab_size']} isn't built here."
            )
        return {"share_embeddings": theirs.get("share_encoder_decoder_embeddings", True)}

    def write(config: ModelConfig) -> Settings:
        return {
            "share_encoder_decoder_embeddings": config.share_embeddings,
            "decoder_vocab_size": config.vocab_size,
        }

    return Several(("share_encoder_decoder_embeddings", "decoder_vocab_size"), read, write)


def _bart_keys(*, tokens: Several, activation: Key, placement: str) -> tuple[Key | Several, ...]:
    return (
        Key("vocab_size", "vocab_size"),
        Key("d_model", "width", aliases=("hidden_size",)),
        Key("encoder_layers", "num_layers"),
        Key("decoder_layers", "num_decoder_layers"),
        _alike("num_heads", "encoder_attention_heads", "decoder_attention_heads", "num_attention_heads"),
        _alike("ffn_width", "encoder_ffn_dim", "decoder_ffn_dim"),
        Key("max_position_embeddings", "context", 1024),
        activation,
        Key("dropout", "dropout", 0.1),
        Key("attention_dropout", "attention_dropout", 0.0),
        Key("activation_dropout", "ffn_dropout", 0.0),
        Key("init_std", "init_std", 0.02),
        Key("scale_embedding", "scale_embeddings", False),
        Key("tie_word_embeddings", "tie_embeddings", True),
        # Older files repeat what the class says; in a file that contradicts it the weights are another model's.
        Key("normalize_before", None, placement == "pre"),
        Key("add_final_layer_norm", None, placement == "pre"),
        tokens,
        _without_effect(
            "encoder_layerdrop", "decoder_layerdrop", "classifier_dropout", "classif_dropout", "add_bias_logits",
            "normalize_embedding", "static_position_embeddings", "extra_pos_embeddings",
            "force_bos_token_to_be_generated", "save_step", "output_past",
        ),
    )  # fmt: skip


def _bart_stack(stack: str) -> tuple[Row, ...]:
    theirs, own = stack + ".layers.{i}", stack + ".blocks.{i}"
    parts = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "output"}
    return (
        Row(f"{stack}.embed_positions.weight", f"{stack}.position.embedding.weight"),
        Row(f"{stack}.layernorm_embedding", f"{stack}.norm_in"),
        *(Row(f"{theirs}.self_attn.{a}", f"{own}.attention.{b}") for a, b in parts.items()),
        Row(f"{theirs}.self_attn_layer_norm", f"{own}.attention_norm"),
        *(Row(f"{theirs}.encoder_attn.{a}", f"{own}.cross.{b}") for a, b in parts.items()),
        Row(f"{theirs}.encoder_attn_layer_norm", f"{own}.cross_norm"),
        Row(f"{theirs}.fc1", f"{own}.feed_forward.up"),
        Row(f"{theirs}.fc2", f"{own}.feed_forward.down"),
        Row(f"{theirs}.final_layer_norm", f"{own}.feed_forward_norm"),
        Row(f"{stack}.layer_norm", f"{stack}.norm_out"),
    )


_GENERATE_ROWS = (_LM_ROW, Row("final_logits_bias", "head.output.bias", COLUMN))
_BART_FIXED: Settings = {
    "kind": "encoder-decoder", "position": "learned", "position_offset": 2, "norm": "layernorm",
    "norm_placement": "post", "norm_eps": 1e-5, "embedding_norm": True,
}  # fmt: skip
_GELU = Key("activation_function", "activation", "gelu", Swap(activations("gelu")))

# Lewis et al. 2019, arXiv:1910.13461, and transformers' configuration_bart.py for the keys.
BART = Family(
    name="bart",
    fixed=_BART_FIXED,
    keys=_bart_keys(tokens=tokens(bos=0, eos=2, pad=1, start=2), activation=_GELU, placement="post"),
    heads={
        "BartModel": Head(_BARE),
        "BartForConditionalGeneration": Head(_LM, _GENERATE_ROWS),
        "BartForSequenceClassification": Head(_CLASSIFY, _CLASSIFY_ROWS),
        "BartForQuestionAnswering": Head(_SPAN, _SPAN_ROWS),
    },
    prefix="model.",
    generation={"forced_eos_token_id": 2},
    rows=(*_EMBEDDINGS, *_bart_stack("encoder"), *_bart_stack("decoder")),
    optional={"output_bias": "final_logits_bias"},
    unused=(
        r"^final_logits_bias$", r"^(lm_head|classification_head|qa_outputs)\.", r"(encoder|decoder)\.version$",
        r"embed_positions\._float_tensor$",
    ),
)  # fmt: skip

# Liu et al. 2020, arXiv:2001.08210: norms in front, and one more after each stack. Its classes that classify and find
# answers start the decoder with each text's language, and aren't built here.
MBART = replace(
    BART,
    name="mbart",
    fixed={**_BART_FIXED, "norm_placement": "pre"},
    keys=_bart_keys(tokens=tokens(bos=0, eos=2, pad=1), activation=_GELU, placement="pre"),
    heads={"MBartModel": Head(_BARE), "MBartForConditionalGeneration": Head(_LM, _GENERATE_ROWS)},
)

# Junczys-Dowmunt et al. 2018, arXiv:1804.00344: sinusoids, all sines in front, which files may hold as tables; no norm
# of the embeddings.
MARIAN = replace(
    BART,
    name="marian",
    generation={"forced_eos_token_id": 0},
    fixed={
        "kind": "encoder-decoder", "position": "sinusoidal", "sinusoid_halves": True, "norm": "layernorm",
        "norm_placement": "post", "norm_eps": 1e-5,
    },
    keys=(
        *_bart_keys(
            tokens=tokens(bos=None, eos=0, pad=58_100, start=58_100),
            activation=Key("activation_function", "activation", "gelu", Swap(activations("gelu", "swish"))),
            placement="post",
        ),
        _same_vocabulary(),
    ),
    heads={"MarianModel": Head(_BARE), "MarianMTModel": Head(_LM, _GENERATE_ROWS)},
    unused=(*BART.unused, r"(encoder|decoder)\.embed_positions\.weight$"),
)  # fmt: skip

ALL = (T5, MT5, BART, MBART, MARIAN)
