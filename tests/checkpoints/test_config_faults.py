"""A config.json of others: null, old keys and misspellings, and values that can't be, each one named error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from regard.checkpoints.families import FAMILIES
from regard.checkpoints.load import model_config
from regard.errors import CheckpointError

transformers = pytest.importorskip("transformers")

CONFIGS = {
    "gpt2": "GPT2", "llama": "Llama", "mistral": "Mistral", "gemma2": "Gemma2", "t5": "T5", "bart": "Bart",
    "bert": "Bert", "modernbert": "ModernBert",
}  # fmt: skip


def configuration(folder: Path, family: str, **changes: Any) -> Path:
    """Write the family's usual configuration with changes; `...` takes a key away."""
    config = getattr(transformers, f"{CONFIGS[family]}Config")()
    values = {**json.loads(config.to_json_string(use_diff=False)), "model_type": family, **changes}
    values.setdefault("architectures", None)
    values = {name: value for name, value in values.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(values))
    return folder


HUGE = 10**9
BAD: list[tuple[str, dict[str, Any], str]] = [
    # Counts that lists are made of.
    ("gemma2", {"num_hidden_layers": HUGE, "layer_types": None}, "num_hidden_layers=1000000000 is out of range"),
    ("mistral", {"num_hidden_layers": HUGE}, "num_hidden_layers=1000000000 is out of range"),
    ("modernbert", {"num_hidden_layers": HUGE}, "num_hidden_layers=1000000000 is out of range"),
    (
        "bert", {"architectures": ["BertForSequenceClassification"], "num_labels": HUGE, "id2label": None},
        "num_labels=1000000000 must be",
    ),
    # Values of another type.
    ("gpt2", {"vocab_size": "300"}, "vocab_size='300' must be a whole number"),
    ("llama", {"vocab_size": None}, "vocab_size is missing"),
    ("llama", {"architectures": [["x"]]}, "architectures=[['x']] must be a list of names"),
    ("llama", {"architectures": {}}, "architectures={} must be a list of names"),
    ("gemma2", {"layer_types": 5}, "layer_types=5"),
    ("gemma2", {"layer_types": None, "sliding_window_pattern": "x"}, "sliding_window_pattern='x'"),
    ("gemma2", {"num_hidden_layers": None}, "num_hidden_layers is missing"),
    ("modernbert", {"num_hidden_layers": 1.5}, "num_hidden_layers=1.5 must be a whole number"),
    ("gemma2", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar=0"),
    ("gemma2", {"query_pre_attn_scalar": 10**400}, "query_pre_attn_scalar=1000000"),
    ("t5", {"d_model": "16"}, "d_model='16' must be a whole number"),
    ("t5", {"d_model": 0}, "d_model=0 is out of range"),
    ("t5", {"feed_forward_proj": [], "dense_act_fn": None}, "feed_forward_proj=[]"),
    ("bart", {"encoder_attention_heads": []}, "encoder_attention_heads=[]"),
    ("bart", {"encoder_ffn_dim": [[1]]}, "encoder_ffn_dim=[[1]]"),
    ("llama", {"rope_theta": 10**400}, "rotary positions can't be read"),
    ("llama", {"num_attention_heads": 7}, "num_attention_heads=7"),
    # Misspellings.
    ("gpt2", {"n_head": ..., "n_hed": 2}, "unknown key 'n_hed'. did you mean 'n_head'?"),
    ("llama", {"rope_theta": ..., "rope_thta": 2}, "did you mean 'rope_theta'?"),
    ("llama", {"model_type": "deberta-v2"}, "'deberta-v2', which isn't built here. Known are gpt2"),
    ("llama", {"model_type": "lama"}, "did you mean 'llama'?"),
    ("llama", {"model_type": ["llama"]}, "which isn't built here"),
]  # fmt: skip


@pytest.mark.parametrize(("family", "changes", "words"), BAD)
def test_what_cannot_be_is_one_named_error(
    tmp_path: Path, family: str, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        model_config(configuration(tmp_path, family, **changes))
    text = str(caught.value)
    assert words in text and "\n" not in text and len(text) < 500 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("bert", {"eos_token_ids": 0, "embedding_size": 768}),
        ("llama", {"attention_bias": None, "mlp_bias": None, "tie_word_embeddings": None}),
        ("gemma2", {"attention_bias": None, "use_bidirectional_attention": None}),
        ("bart", {"scale_embedding": None, "activation_function": None}),
    ],
)
def test_null_and_old_keys_mean_the_default(tmp_path: Path, family: str, changes: dict[str, Any]) -> None:
    usual = model_config(configuration(tmp_path, family))[1]
    assert model_config(configuration(tmp_path, family, **changes))[1] == usual


def test_null_says_something_where_it_is_a_value(tmp_path: Path) -> None:
    config = model_config(configuration(tmp_path, "mistral", sliding_window=None, pad_token_id=None))[1]
    assert (config.window, config.pad_id) == (None, None)
    assert (
        model_config(configuration(tmp_path, "gemma2", attn_logit_softcapping=None))[1].attention_softcap
        is None
    )
    assert set(CONFIGS) <= set(FAMILIES)
