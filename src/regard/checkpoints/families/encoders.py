"""BERT, RoBERTa with its multilingual and French kin, and DistilBERT."""

from __future__ import annotations

from dataclasses import replace

from regard.checkpoints.configs import activations, tokens
from regard.checkpoints.tables import Family, Head, Key, Row, Settings, Several, Swap
from regard.config import ModelConfig
from regard.errors import ConfigError

BLOCK = "stack.blocks.{i}"
_BARE: Settings = {"head": "none"}
_LM: Settings = {"head": "lm", "head_transform": True, "output_bias": True}
_CLASSIFY: Settings = {"head": "classify", "pooling": "first", "pooler": True}
_TAG: Settings = {"head": "tag"}
_SPAN: Settings = {"head": "span"}
# The names that early files have for the weights and biases of norms.
_RENAMED = ((r"\.gamma$", ".weight"), (r"\.beta$", ".bias"))


def silent(*names: str) -> Several:
    """Name keys that change nothing here, so that none is taken for a misspelling of another."""
    return Several(names, lambda theirs: {}, lambda config: {}, matters=False)


def _segments(usual: int) -> Several:
    """Tie type_vocab_size, the kinds of segments; there is always one."""

    def read(theirs: Settings) -> Settings:
        count = theirs.get("type_vocab_size", usual)
        if count == 0:
            raise ConfigError("config.json: type_vocab_size=0 can't be; each token is of at least one kind.")
        return {"num_segments": count}

    return Several(("type_vocab_size",), read, lambda config: {"type_vocab_size": config.num_segments})


def _table_after_padding() -> Several:
    """Tie max_position_embeddings, the rows of RoBERTa's table, where the first token's follows that of pad_token_id.

    The rows up to there stand for nothing but padding (fairseq counts positions from the id of padding).
    """

    def read(theirs: Settings) -> Settings:
        rows, pad = theirs.get("max_position_embeddings", 512), theirs.get("pad_token_id", 1)
        if type(rows) is not int or type(pad) is not int or not 0 <= pad < rows - 1:
            raise ConfigError(
                f"config.json: max_position_embeddings={rows!r} must be more than pad_token_id={pad!r} and one."
            )
        return {"context": rows - pad - 1, "position_offset": pad + 1}

    def write(config: ModelConfig) -> Settings:
        return {"max_position_embeddings": config.context + config.position_offset}

    return Several(("max_position_embeddings",), read, write)


def _sizes(vocabulary: int) -> tuple[Key | Several, ...]:
    """Give the keys that BERT and RoBERTa share."""
    return (
        Key("vocab_size", "vocab_size", vocabulary),
        Key("hidden_size", "width", 768),
        Key("num_hidden_layers", "num_layers", 12),
        Key("num_attention_heads", "num_heads", 12),
        Key("intermediate_size", "ffn_width", 3072),
        Key("layer_norm_eps", "norm_eps", 1e-12),
        Key("hidden_dropout_prob", "dropout", 0.1),
        Key("attention_probs_dropout_prob", "attention_dropout", 0.1),
        Key("initializer_range", "init_std", 0.02),
        Key("tie_word_embeddings", "tie_embeddings", True),
        Key("position_embedding_type", None, "absolute"),
        Key("is_decoder", None, False),
        Key("add_cross_attention", None, False),
        _segments(2),
        silent(
            "classifier_dropout", "directionality", "pooler_fc_size", "pooler_num_attention_heads",
            "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type", "output_past",
        ),
    )  # fmt: skip


_FIXED: Settings = {
    "kind": "encoder", "position": "learned", "norm": "layernorm", "norm_placement": "post", "embedding_norm": True,
}  # fmt: skip
_BERT_ROWS = (
    Row("embeddings.word_embeddings.weight", "embedding.weight"),
    Row("embeddings.token_type_embeddings.weight", "segment_embedding.weight"),
    Row("embeddings.position_embeddings.weight", "stack.position.embedding.weight"),
    Row("embeddings.LayerNorm", "stack.norm_in"),
    Row("encoder.layer.{i}.attention.self.query", f"{BLOCK}.attention.query"),
    Row("encoder.layer.{i}.attention.self.key", f"{BLOCK}.attention.key"),
    Row("encoder.layer.{i}.attention.self.value", f"{BLOCK}.attention.value"),
    Row("encoder.layer.{i}.attention.output.dense", f"{BLOCK}.attention.output"),
    Row("encoder.layer.{i}.attention.output.LayerNorm", f"{BLOCK}.attention_norm"),
    Row("encoder.layer.{i}.intermediate.dense", f"{BLOCK}.feed_forward.up"),
    Row("encoder.layer.{i}.output.dense", f"{BLOCK}.feed_forward.down"),
    Row("encoder.layer.{i}.output.LayerNorm", f"{BLOCK}.feed_forward_norm"),
)
_BERT_OUTPUT = (
    Row("cls.predictions.transform.dense", "head.transform"),
    Row("cls.predictions.transform.LayerNorm", "head.transform_norm"),
    Row("cls.predictions.bias", "head.output.bias"),
    Row("cls.predictions.decoder.bias", "head.output.bias"),
    Row("cls.predictions.decoder.weight", "head.output.weight"),
)

# Devlin et al. 2018, arXiv:1810.04805. Its class for pre-training has a second output, whether one sentence follows
# the other; it isn't built here, and its two rows of weights are left out.
BERT = Family(
    name="bert",
    fixed=_FIXED,
    keys=(
        *_sizes(30_522),
        Key("max_position_embeddings", "context", 512),
        Key("hidden_act", "activation", "gelu", Swap(activations("gelu"))),
        tokens(bos=None, eos=None, pad=0),
    ),
    heads={
        "BertModel": Head(_BARE),
        "BertForMaskedLM": Head({**_LM, "pooler": False}, _BERT_OUTPUT),
        "BertForPreTraining": Head({**_LM, "pooler": True}, _BERT_OUTPUT),
        "BertForSequenceClassification": Head(_CLASSIFY, (Row("classifier", "head.output"),)),
        "BertForTokenClassification": Head({**_TAG, "pooler": False}, (Row("classifier", "head.output"),)),
        "BertForQuestionAnswering": Head({**_SPAN, "pooler": False}, (Row("qa_outputs", "head.output"),)),
    },
    prefix="bert.",
    rows=(*_BERT_ROWS, Row("pooler.dense", "pooler.dense")),
    optional={"pooler": "pooler.dense.weight"},
    renamed=_RENAMED,
    unused=(
        r"(^|\.)embeddings\.(position_ids|token_type_ids)$",
        r"(^|\.)pooler\.",
        r"^cls\.seq_relationship\.",
    ),
)

# Sanh et al. 2019, arXiv:1910.01108: every second layer of BERT, without segments.
DISTILBERT = Family(
    name="distilbert",
    fixed={**_FIXED, "num_segments": 0, "norm_eps": 1e-12},
    keys=(
        Key("vocab_size", "vocab_size", 30_522),
        Key("dim", "width", 768, aliases=("hidden_size",)),
        Key("n_layers", "num_layers", 6, aliases=("num_hidden_layers",)),
        Key("n_heads", "num_heads", 12, aliases=("num_attention_heads",)),
        Key("hidden_dim", "ffn_width", 3072),
        Key("max_position_embeddings", "context", 512),
        Key("activation", "activation", "gelu", Swap(activations("gelu"))),
        Key("dropout", "dropout", 0.1),
        Key("attention_dropout", "attention_dropout", 0.1),
        Key("initializer_range", "init_std", 0.02),
        Key("tie_word_embeddings", "tie_embeddings", True),
        tokens(bos=None, eos=None, pad=0),
        # Sinusoids are stored as a table like any other.
        silent("sinusoidal_pos_embds", "qa_dropout", "seq_classif_dropout", "tie_weights_", "output_past"),
    ),
    heads={
        "DistilBertModel": Head(_BARE),
        "DistilBertForMaskedLM": Head(
            _LM,
            (
                Row("vocab_transform", "head.transform"),
                Row("vocab_layer_norm", "head.transform_norm"),
                Row("vocab_projector", "head.output"),
            ),
        ),
        "DistilBertForSequenceClassification": Head(
            {**_CLASSIFY, "pooler_activation": "relu"},
            (Row("pre_classifier", "pooler.dense"), Row("classifier", "head.output")),
        ),
        "DistilBertForTokenClassification": Head(_TAG, (Row("classifier", "head.output"),)),
        "DistilBertForQuestionAnswering": Head(_SPAN, (Row("qa_outputs", "head.output"),)),
    },
    prefix="distilbert.",
    rows=(
        Row("embeddings.word_embeddings.weight", "embedding.weight"),
        Row("embeddings.position_embeddings.weight", "stack.position.embedding.weight"),
        Row("embeddings.LayerNorm", "stack.norm_in"),
        Row("transformer.layer.{i}.attention.q_lin", f"{BLOCK}.attention.query"),
        Row("transformer.layer.{i}.attention.k_lin", f"{BLOCK}.attention.key"),
        Row("transformer.layer.{i}.attention.v_lin", f"{BLOCK}.attention.value"),
        Row("transformer.layer.{i}.attention.out_lin", f"{BLOCK}.attention.output"),
        Row("transformer.layer.{i}.sa_layer_norm", f"{BLOCK}.attention_norm"),
        Row("transformer.layer.{i}.ffn.lin1", f"{BLOCK}.feed_forward.up"),
        Row("transformer.layer.{i}.ffn.lin2", f"{BLOCK}.feed_forward.down"),
        Row("transformer.layer.{i}.output_layer_norm", f"{BLOCK}.feed_forward_norm"),
    ),
    renamed=_RENAMED,
    unused=(r"(^|\.)embeddings\.position_ids$",),
)


def _roberta_heads(name: str) -> dict[str, Head]:
    plain = {"pooler": False}
    output = (
        Row("lm_head.dense", "head.transform"),
        Row("lm_head.layer_norm", "head.transform_norm"),
        Row("lm_head.bias", "head.output.bias"),
        Row("lm_head.decoder.bias", "head.output.bias"),
        Row("lm_head.decoder.weight", "head.output.weight"),
    )
    classes = (Row("classifier.dense", "pooler.dense"), Row("classifier.out_proj", "head.output"))
    return {
        f"{name}Model": Head(_BARE),
        f"{name}ForMaskedLM": Head({**_LM, **plain}, output),
        f"{name}ForSequenceClassification": Head(_CLASSIFY, classes),
        f"{name}ForTokenClassification": Head({**_TAG, **plain}, (Row("classifier", "head.output"),)),
        f"{name}ForQuestionAnswering": Head({**_SPAN, **plain}, (Row("qa_outputs", "head.output"),)),
    }


def _roberta_keys(vocabulary: int) -> tuple[Key | Several, ...]:
    return (
        *_sizes(vocabulary),
        _table_after_padding(),
        # Its masked head has GELU whatever the blocks have; one activation is for both here.
        Key("hidden_act", "activation", "gelu", Swap((("gelu", "gelu"),))),
        tokens(bos=0, eos=2, pad=1),
    )


# Liu et al. 2019, arXiv:1907.11692: BERT with one kind of segment, and what classifies has a pooler of its own.
ROBERTA = Family(
    name="roberta",
    fixed=_FIXED,
    keys=_roberta_keys(50_265),
    heads=_roberta_heads("Roberta"),
    prefix="roberta.",
    rows=(*_BERT_ROWS, Row("pooler.dense", "pooler.dense", when={"head": "none"})),
    optional={"pooler": "pooler.dense.weight"},
    renamed=_RENAMED,
    unused=(r"(^|\.)embeddings\.(position_ids|token_type_ids)$", r"(^|\.)pooler\."),
)
# Conneau et al. 2019, arXiv:1911.02116, and Martin et al. 2019, arXiv:1911.03894: other data and vocabularies.
XLM_ROBERTA = replace(
    ROBERTA, name="xlm-roberta", keys=_roberta_keys(30_522), heads=_roberta_heads("XLMRoberta")
)
CAMEMBERT = replace(ROBERTA, name="camembert", keys=_roberta_keys(30_522), heads=_roberta_heads("Camembert"))

ALL = (BERT, ROBERTA, XLM_ROBERTA, CAMEMBERT, DISTILBERT)
