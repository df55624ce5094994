"""The published models, and small ones of ours, as settings of the one ModelConfig.

A preset holds what its publication states and nothing that ModelConfig derives from it. The files in which these models
are published are read and written by the tables in `checkpoints/families/`.
"""

from __future__ import annotations

from typing import Any, Final

from regard.config import Kind, ModelConfig
from regard.config_recurrent import config_from
from regard.errors import ConfigError, suggest

Settings = dict[str, Any]

# Vaswani et al. 2017, arXiv:1706.03762, table 3 and sections 3.1 to 3.4 and 5.1 (shared vocabulary of
# English-German). The paper is silent on biases of the projections; they are here, as in most implementations
# since.
_TRANSFORMER: Settings = {
    "kind": "encoder-decoder", "vocab_size": 37_000, "num_layers": 6, "context": 1024,
    "position": "sinusoidal", "norm": "layernorm", "norm_placement": "post", "activation": "relu",
    "scale_embeddings": True,
}  # fmt: skip

# Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3, and openai/gpt-2's
# hparams.
_GPT2: Settings = {
    "kind": "decoder", "vocab_size": 50_257, "context": 1024,
    "position": "learned", "norm": "layernorm", "norm_placement": "pre", "activation": "gelu_tanh",
    "dropout": 0.1, "attention_dropout": 0.1, "init_std": 0.02,
    "pad_id": None, "bos_id": 50_256, "eos_id": 50_256,
}  # fmt: skip

# Devlin et al. 2018, arXiv:1810.04805, section 3, and google-research/bert's bert_config.json (uncased).
# bos_id is [CLS] and eos_id is [SEP]. The second task's two-way output (next sentence) is no part of it; the pooler
# below that output is.
_BERT: Settings = {
    "kind": "encoder", "vocab_size": 30_522, "context": 512,
    "position": "learned", "norm": "layernorm", "norm_placement": "post", "norm_eps": 1e-12,
    "embedding_norm": True, "activation": "gelu", "num_segments": 2,
    "head": "lm", "head_transform": True, "output_bias": True, "pooler": True,
    "dropout": 0.1, "attention_dropout": 0.1, "init_std": 0.02,
    "pad_id": 0, "bos_id": 101, "eos_id": 102,
}  # fmt: skip

# Liu et al. 2019, arXiv:1907.11692, and roberta-base's config.json. Positions begin at row 2 of their table, after a
# row that is never used and one for padding. One segment, added to every token.
_ROBERTA: Settings = {
    **_BERT, "vocab_size": 50_265, "position_offset": 2, "norm_eps": 1e-5, "num_segments": 1, "pooler": False,
    "pad_id": 1, "bos_id": 0, "eos_id": 2,
}  # fmt: skip

# Warner et al. 2024, arXiv:2412.13663, section 2.1 and table 4: layers 0, 3, 6, ... see everything, the others 64
# tokens to either side.
_MODERNBERT: Settings = {
    "kind": "encoder", "vocab_size": 50_368, "context": 8192, "position": "rotary", "rotary_base": 160_000.0,
    "rotary_window_base": 10_000.0, "window": 65, "norm": "layernorm", "norm_placement": "pre", "norm_bias": False,
    "first_norm": False, "embedding_norm": True, "activation": "gelu", "gated": True, "bias": False,
    "head": "lm", "head_transform": True, "output_bias": True, "init_std": 0.02,
    "pad_id": 50_283, "bos_id": 50_281, "eos_id": 50_282,
}  # fmt: skip

# Raffel et al. 2020, arXiv:1910.10683, section 2.1, and t5-small's and t5-base's config.json. The scores are
# the final states times width^-1/2 times the embedding. The context is the one it was trained with: relative
# positions have no last one.
_T5: Settings = {
    "kind": "encoder-decoder", "vocab_size": 32_128, "context": 512,
    "position": "t5", "relative_buckets": 32, "relative_distance": 128,
    "norm": "rmsnorm", "norm_placement": "pre", "norm_eps": 1e-6, "activation": "relu", "bias": False,
    "attention_scale": 1.0, "dropout": 0.1, "attention_dropout": 0.1, "ffn_dropout": 0.1,
    "pad_id": 0, "bos_id": None, "eos_id": 1, "start_id": 0,
}  # fmt: skip

# google-research/text-to-text-transfer-transformer, released_checkpoints.md: T5 1.1, gated and untied,
# without the factor of width^-1/2. FLAN-T5 (arXiv:2210.11416) has the same sizes.
_T5_V1_1: Settings = {**_T5, "activation": "gelu_tanh", "gated": True, "tie_embeddings": False}

# Lewis et al. 2019, arXiv:1910.13461, section 2.1, and bart-base's and bart-large's config.json.
_BART: Settings = {
    "kind": "encoder-decoder", "vocab_size": 50_265, "context": 1024,
    "position": "learned", "position_offset": 2, "norm": "layernorm", "norm_placement": "post", "embedding_norm": True,
    "activation": "gelu", "dropout": 0.1, "attention_dropout": 0.1, "ffn_dropout": 0.1, "init_std": 0.02,
    "pad_id": 1, "bos_id": 0, "eos_id": 2, "start_id": 2,
}  # fmt: skip

# Junczys-Dowmunt et al. 2018, arXiv:1804.00344, and opus-mt-en-de's config.json (other pairs have other
# vocabularies).
_MARIAN: Settings = {
    **_TRANSFORMER, "vocab_size": 58_101, "width": 512, "num_heads": 8, "context": 512, "sinusoid_halves": True,
    "activation": "silu", "output_bias": True, "dropout": 0.1, "init_std": 0.02,
    "pad_id": 58_100, "bos_id": None, "eos_id": 0, "start_id": 58_100,
}  # fmt: skip

# Touvron et al. 2023, arXiv:2302.13971, section 2.2.
_LLAMA: Settings = {
    "kind": "decoder", "position": "rotary", "norm": "rmsnorm", "norm_placement": "pre", "norm_eps": 1e-5,
    "activation": "silu", "gated": True, "bias": False, "tie_embeddings": False, "init_std": 0.02,
    "pad_id": None, "bos_id": 1, "eos_id": 2,
}  # fmt: skip

# Bai et al. 2023, arXiv:2309.16609, section 2.3: Llama with biases at query, key and value.
_QWEN: Settings = {
    **_LLAMA, "vocab_size": 151_936, "rotary_base": 1_000_000.0, "norm_eps": 1e-6,
    "bos_id": 151_643, "eos_id": 151_643,
}  # fmt: skip

# What has held up since 2017, for models that train on one computer. The inner width of a gated feed-forward
# is two thirds of the usual one, so that it has as many weights (arXiv:2002.05202, section 3). The vocabulary
# is a default that the tokenizer's own replaces.
_OURS: Settings = {
    "vocab_size": 8_000, "position": "rotary", "norm": "rmsnorm", "norm_placement": "pre",
    "activation": "silu", "gated": True, "bias": False,
}  # fmt: skip
# Short texts on a processor: LayerNorm and ReLU are one pass each there, RMSNorm and gates several (docs/log.md).
_TRANSLATE: Settings = {
    "kind": "encoder-decoder", "vocab_size": 8_000, "position": "sinusoidal", "norm": "layernorm",
    "norm_placement": "pre", "activation": "relu", "bias": False, "dropout": 0.1,
    "scale_embeddings": True,
}  # fmt: skip
_GENERATE: Settings = {
    "kind": "decoder", "vocab_size": 8_000, "position": "rotary", "norm": "layernorm", "norm_placement": "pre",
    "activation": "relu2", "bias": False, "init_std": 0.02,
}  # fmt: skip
_ENCODE: Settings = {**_OURS, "kind": "encoder", "dropout": 0.1}
# With attention: Bahdanau et al. 2014, arXiv:1409.0473. Without it a model's kind follows from the task, and an
# encoder-decoder is that of Cho et al. 2014, arXiv:1406.1078.
_RECURRENT: Settings = {
    "kind": "decoder", "vocab_size": 8_000, "width": 512, "num_layers": 2, "context": 256, "dropout": 0.2,
}  # fmt: skip
_ALIGNED: Settings = {**_RECURRENT, "kind": "encoder-decoder", "num_layers": 1, "score": "additive"}
_TINY: Settings = {"width": 128, "num_heads": 4, "ffn_width": 344}
_SMALL: Settings = {"width": 256, "num_heads": 4, "ffn_width": 688}
_MEDIUM: Settings = {"width": 512, "num_heads": 8, "ffn_width": 1_376}

PRESETS: Final[dict[str, Settings]] = {
    "transformer-base": {**_TRANSFORMER, "width": 512, "num_heads": 8, "dropout": 0.1},
    "transformer-big": {**_TRANSFORMER, "width": 1024, "num_heads": 16, "dropout": 0.3},
    "gpt2": {**_GPT2, "width": 768, "num_layers": 12, "num_heads": 12},
    "gpt2-medium": {**_GPT2, "width": 1024, "num_layers": 24, "num_heads": 16},
    "gpt2-large": {**_GPT2, "width": 1280, "num_layers": 36, "num_heads": 20},
    "gpt2-xl": {**_GPT2, "width": 1600, "num_layers": 48, "num_heads": 25},
    "bert-base": {**_BERT, "width": 768, "num_layers": 12, "num_heads": 12},
    "bert-large": {**_BERT, "width": 1024, "num_layers": 24, "num_heads": 16},
    # Sanh et al. 2019, arXiv:1910.01108: every second layer of BERT, without segments and pooler.
    "distilbert-base": {
        **_BERT, "width": 768, "num_layers": 6, "num_heads": 12, "num_segments": 0, "pooler": False,
    },
    "roberta-base": {**_ROBERTA, "width": 768, "num_layers": 12, "num_heads": 12},
    "roberta-large": {**_ROBERTA, "width": 1024, "num_layers": 24, "num_heads": 16},
    "modernbert-base": {
        **_MODERNBERT, "width": 768, "num_layers": 22, "num_heads": 12, "ffn_width": 1152,
        "global_layers": list(range(0, 22, 3)),
    },
    "modernbert-large": {
        **_MODERNBERT, "width": 1024, "num_layers": 28, "num_heads": 16, "ffn_width": 2624,
        "global_layers": list(range(0, 28, 3)),
    },
    "t5-small": {**_T5, "width": 512, "num_layers": 6, "num_heads": 8, "output_scale": 512**-0.5},
    "t5-base": {**_T5, "width": 768, "num_layers": 12, "num_heads": 12, "output_scale": 768**-0.5},
    "t5-v1_1-small": {
        **_T5_V1_1, "width": 512, "num_layers": 8, "num_heads": 6, "head_size": 64, "ffn_width": 1024,
    },
    "t5-v1_1-base": {**_T5_V1_1, "width": 768, "num_layers": 12, "num_heads": 12, "ffn_width": 2048},
    "bart-base": {**_BART, "width": 768, "num_layers": 6, "num_heads": 12},
    "bart-large": {**_BART, "width": 1024, "num_layers": 12, "num_heads": 16},
    "marian": _MARIAN,
    # Touvron et al. 2023, arXiv:2307.09288, section 2.2, and the released params.json.
    "llama-2-7b": {
        **_LLAMA, "vocab_size": 32_000, "width": 4096, "num_layers": 32, "num_heads": 32, "ffn_width": 11_008,
        "context": 4096,
    },
    # Grattafiori et al. 2024, arXiv:2407.21783, table 3; 3.0, so before the rotary scaling of 3.1.
    "llama-3-8b": {
        **_LLAMA, "vocab_size": 128_256, "width": 4096, "num_layers": 32, "num_heads": 32, "num_kv_heads": 8,
        "ffn_width": 14_336, "context": 8192, "rotary_base": 500_000.0, "bos_id": 128_000, "eos_id": 128_001,
    },
    # Jiang et al. 2023, arXiv:2310.06825, table 1 (0.1, the version with a sliding window).
    "mistral-7b": {
        **_LLAMA, "vocab_size": 32_000, "width": 4096, "num_layers": 32, "num_heads": 32, "num_kv_heads": 8,
        "ffn_width": 14_336, "context": 32_768, "window": 4096,
    },
    # Yang et al. 2024, arXiv:2407.10671, table 1.
    "qwen2-0.5b": {
        **_QWEN, "width": 896, "num_layers": 24, "num_heads": 14, "num_kv_heads": 2, "ffn_width": 4864,
        "context": 131_072, "qkv_bias": True, "tie_embeddings": True,
    },
    # Yang et al. 2025, arXiv:2505.09388, table 1: query-key norm in place of the biases.
    "qwen3-0.6b": {
        **_QWEN, "width": 1024, "num_layers": 28, "num_heads": 16, "num_kv_heads": 8, "head_size": 128,
        "ffn_width": 3072, "context": 40_960, "query_key_norm": True, "tie_embeddings": True,
    },
    # Gemma Team 2024, arXiv:2403.08295, table 1. Norm weights are stored less 1.
    "gemma-2b": {
        **_LLAMA, "vocab_size": 256_000, "width": 2048, "num_layers": 18, "num_heads": 8, "num_kv_heads": 1,
        "head_size": 256, "ffn_width": 16_384, "context": 8192, "norm_eps": 1e-6, "activation": "gelu_tanh",
        "scale_embeddings": True, "tie_embeddings": True, "pad_id": 0, "bos_id": 2, "eos_id": 1,
    },
    # Almazrouei et al. 2023, arXiv:2311.16867: parallel sublayers, one key/value head.
    "falcon-7b": {
        "kind": "decoder", "vocab_size": 65_024, "width": 4544, "num_layers": 32, "num_heads": 71,
        "num_kv_heads": 1, "context": 2048, "position": "rotary", "norm": "layernorm",
        "norm_placement": "parallel", "activation": "gelu", "bias": False, "init_std": 0.02, "pad_id": None,
        "bos_id": 11, "eos_id": 11,
    },
    # BigScience 2022, arXiv:2211.05100, section 3.2: ALiBi and a norm after the embeddings.
    "bloom-560m": {
        "kind": "decoder", "vocab_size": 250_880, "width": 1024, "num_layers": 24, "num_heads": 16,
        "context": 2048, "position": "alibi", "norm": "layernorm", "norm_placement": "pre",
        "embedding_norm": True, "activation": "gelu_tanh", "init_std": 0.02,
        "pad_id": 3, "bos_id": 1, "eos_id": 2,
    },
    # Ours. `nano` has the layers, heads, width and, with 65 characters, the number of weights of nanoGPT's recipe
    # for a processor.
    "nano": {**_GENERATE, "width": 128, "num_heads": 4, "num_layers": 4, "context": 128},
    "generate-tiny": {**_GENERATE, "width": 128, "num_heads": 4, "num_layers": 4, "context": 256},
    "generate-small": {**_GENERATE, "width": 256, "num_heads": 4, "num_layers": 6, "context": 512},
    "generate-medium": {**_GENERATE, "width": 512, "num_heads": 8, "num_layers": 8, "context": 1024},
    "translate-tiny": {**_TRANSLATE, "width": 128, "num_heads": 4, "ffn_width": 256, "num_layers": 2, "context": 128},
    "translate-small": {**_TRANSLATE, "width": 256, "num_heads": 4, "ffn_width": 512, "num_layers": 3, "context": 256},
    "translate-medium": {**_TRANSLATE, "width": 512, "num_heads": 8, "num_layers": 6, "context": 512},
    "encoder-tiny": {**_ENCODE, **_TINY, "num_layers": 2, "context": 128},
    "encoder-small": {**_ENCODE, **_SMALL, "num_layers": 4, "context": 512},
    "encoder-medium": {**_ENCODE, **_MEDIUM, "num_layers": 8, "context": 512},
    "rnn": {**_RECURRENT, "cell": "rnn"},
    "lstm": {**_RECURRENT, "cell": "lstm"},
    "gru": {**_RECURRENT, "cell": "gru"},
    "rnn-attention": {**_ALIGNED, "cell": "rnn"},
    "lstm-attention": {**_ALIGNED, "cell": "lstm"},
    "gru-attention": {**_ALIGNED, "cell": "gru"},
}  # fmt: skip
"""The settings of every preset, by its name; what is not named is ModelConfig's default."""


def preset(name: str, **overrides: Any) -> ModelConfig:
    """Give the configuration of a published model, or of one of ours, with some settings changed.

    A setting that the preset leaves to ModelConfig is derived anew: `preset("gpt2", width=384)` has smaller
    heads and a narrower feed-forward. With fewer layers, those that ignore the window are the ones that are left.
    Another `vocab_size` usually comes with the tokenizer's `pad_id`,
    `bos_id` and `eos_id`.

    Raises:
        ConfigError: an unknown name or setting (with its nearest neighbour), or a value that cannot be.

    Example:
        >>> preset("gpt2").num_parameters()
        124439808
    """
    if name not in PRESETS:
        hint = suggest(name, PRESETS) or f"There are {', '.join(PRESETS)}."
        raise ConfigError(f"unknown preset {name!r}; {hint}")
    settings = {**PRESETS[name], **overrides}
    if "num_layers" in overrides and "global_layers" not in overrides and "global_layers" in settings:
        settings["global_layers"] = [i for i in settings["global_layers"] if i < settings["num_layers"]]
    return config_from(settings)


def presets_for(kind: Kind) -> tuple[str, ...]:
    """List the presets of one kind of model.

    Raises:
        ConfigError: there is no such kind.
    """
    kinds = dict.fromkeys(settings["kind"] for settings in PRESETS.values())
    if kind not in kinds:
        raise ConfigError(f"kind={kind!r} is not one of {', '.join(kinds)}. {suggest(kind, kinds)}".strip())
    return tuple(name for name, settings in PRESETS.items() if settings["kind"] == kind)
