"""ModelConfig: what can't be is refused in one line, what is given comes back, what is derived is derived anew."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from regard.config import _LIMITS, ModelConfig
from regard.config_help import HELP
from regard.config_recurrent import RecurrentConfig
from regard.errors import ConfigError

BASE = {"kind": "decoder", "vocab_size": 20, "width": 16, "num_heads": 4}
TYPES = {f.name: str(f.type) for f in dataclasses.fields(ModelConfig)}
BOTH = {**BASE, "kind": "encoder-decoder"}


def refuse(values: dict, *words: str) -> str:
    """Check that these values are refused with one line that has these words."""
    with pytest.raises(ConfigError) as caught:
        ModelConfig.from_dict(values)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    return message


@pytest.mark.parametrize("name", sorted(_LIMITS))
def test_every_number_has_a_range(name: str) -> None:
    low, high = _LIMITS[name]
    base = BOTH if name == "num_decoder_layers" else BASE
    number = float if "float" in TYPES[name] else int
    for value in (low - 1, high * 2 + 1):
        refuse({**base, name: number(value)}, name, "out of range")
    for value in (-math.inf, math.nan):
        refuse({**base, name: value}, name, "out of range" if number is float else "whole number")
    refuse({**base, name: "many"}, name, "must be")
    refuse({**base, name: True}, name, "must be")


def test_every_numeric_field_is_in_the_table_of_ranges() -> None:
    ids = {"pad_id", "bos_id", "eos_id", "start_id"}
    numeric = {
        name for name, hint in TYPES.items() if ("int" in hint or "float" in hint) and "tuple" not in hint
    }
    assert numeric - ids == set(_LIMITS)


@pytest.mark.parametrize("name", ["gated", "bias", "tie_embeddings", "embedding_norm", "pooler"])
def test_a_switch_is_true_or_false(name: str) -> None:
    refuse({**BASE, name: 1}, name, "true or false")
    refuse({**BASE, name: None}, name, "true or false")


@pytest.mark.parametrize(
    ("name", "wrong", "near"),
    [
        ("kind", "decodr", "decoder"), ("position", "rotery", "rotary"), ("norm", "rms_norm", "rmsnorm"),
        ("norm_placement", "prenorm", "pre"), ("activation", "gelu_tan", "gelu_tanh"),
        ("head", "classifier", "classify"),
    ],
)  # fmt: skip
def test_an_unknown_choice_names_the_allowed_ones_and_the_nearest(name: str, wrong: str, near: str) -> None:
    refuse({**BASE, name: wrong}, name, repr(wrong), f"{near}")


def test_an_unknown_key_names_its_nearest_neighbour() -> None:
    assert "did you mean 'num_heads'?" in refuse({**BASE, "num_head": 2}, "num_head")
    assert "did you mean" not in refuse({**BASE, "zzz": 2}, "zzz")
    with pytest.raises(ConfigError, match="did you mean 'dropout'"):
        ModelConfig(**BASE).replace(dropot=0.1)


@pytest.mark.parametrize("name", ["kind", "vocab_size"])
def test_what_is_necessary_is_asked_for(name: str) -> None:
    refuse({k: v for k, v in BASE.items() if k != name}, f"has no {name!r}")


UNFIT = {
    "heads": ({"num_heads": 3}, "num_heads=3 does not divide width=16; try 2."),
    "kv-heads": ({"num_kv_heads": 3}, "num_kv_heads=3 does not divide num_heads=4"),
    "rotary": ({"position": "rotary", "width": 12}, "even head_size"),
    "sinusoidal": ({"position": "sinusoidal", "width": 15, "num_heads": 3}, "even width"),
    "decoder-layers": ({"num_decoder_layers": 2}, "num_decoder_layers"),
    "no-labels": ({"head": "classify"}, "needs labels"),
    "labels-without-use": ({"labels": ["a", "b"]}, "labels are for"),
    "labels-of-numbers": ({"head": "tag", "labels": [1, 2]}, "list of strings"),
    "labels-as-text": ({"head": "tag", "labels": "ab"}, "list of strings"),
    "tag-both": ({"kind": "encoder-decoder", "head": "tag", "labels": ["a", "b"]}, "head='tag'"),
    "transform": ({"head": "none", "head_transform": True}, "head_transform"),
    "pad": ({"pad_id": 20}, "pad_id=20 is outside the vocabulary of 20"),
    "bos": ({"bos_id": -1}, "bos_id=-1"),
    "start": ({"start_id": 99}, "start_id=99"),
    "giant": ({"width": 65_536, "num_layers": 1_000, "num_heads": 64}, "GiB in fp32"),
    "ngrams-encoder": ({"kind": "encoder", "ngrams": 2}, "ngrams=2 is for"),
    "segments-both": ({"kind": "encoder-decoder", "num_segments": 2}, "num_segments"),
    "pooler-both": ({"kind": "encoder-decoder", "pooler": True}, "pooler"),
    "global-without-window": ({"global_layers": [1]}, "global_layers"),
    "global-beyond": ({"global_layers": [4], "window": 3}, "0 to 3"),
    "global-as-text": ({"global_layers": "1", "window": 3}, "list of whole numbers"),
    "llama3-without-context": ({"position": "rotary", "rotary_scaling": "llama3"}, "rotary_context"),
    "llama3-crossed": (
        {"position": "rotary", "rotary_scaling": "llama3", "rotary_context": 8, "rotary_low": 4.0},
        "rotary_low",
    ),
    "t5-distance": ({"position": "t5", "relative_buckets": 32, "relative_distance": 16}, "relative_distance"),
    "zero-cap": ({"logit_softcap": 0.0}, "logit_softcap"),
    "zero-scale": ({"attention_scale": 0.0}, "attention_scale"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_does_not_fit_together_is_refused(case: str) -> None:
    changes, words = UNFIT[case]
    refuse({**BASE, **changes}, words)


def test_usual_values_are_derived() -> None:
    config = ModelConfig(**BOTH, num_layers=3)
    derived = (
        config.head_size,
        config.num_kv_heads,
        config.ffn_width,
        config.num_decoder_layers,
        config.qkv_bias,
    )
    assert derived == (4, 4, 64, 3, True)
    assert config.start == config.bos_id == 1
    assert config.replace(start_id=7).start == 7
    assert ModelConfig(**BASE).num_decoder_layers is None


def test_replacing_a_size_derives_what_hangs_on_it() -> None:
    config = ModelConfig(**BOTH)
    assert config.replace(width=32).head_size == 8
    assert config.replace(width=32).ffn_width == 128
    assert config.replace(width=32, ffn_width=10).ffn_width == 10
    assert config.replace(num_heads=8).num_kv_heads == 8
    assert config.replace(num_layers=2).num_decoder_layers == 2
    assert config.replace(bias=False).qkv_bias is False
    assert config.replace(kind="decoder").num_decoder_layers is None
    assert config.replace(dropout=0.5).head_size == config.head_size
    assert ModelConfig(**BASE, ffn_width=10).replace(dropout=0.5).ffn_width == 10


TAGGER = {**BASE, "kind": "encoder", "head": "tag", "labels": ["x", "y"], "window": 3, "dropout": 0.1}


@pytest.mark.parametrize("values", [BASE, BOTH, TAGGER], ids=["decoder", "encoder-decoder", "tagger"])
def test_a_configuration_comes_back_from_json(values: dict) -> None:
    config = ModelConfig.from_dict(values)
    again = ModelConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert hash(again) == hash(config)


@pytest.mark.parametrize("kind", [ModelConfig, RecurrentConfig])
def test_every_field_has_a_line_of_help(kind: type[ModelConfig]) -> None:
    texts = kind.field_help()
    assert set(texts) == {f.name for f in dataclasses.fields(kind)}
    assert set(HELP) == {f.name for f in dataclasses.fields(RecurrentConfig)}
    assert all(text and "\n" not in text for text in texts.values())


def test_a_configuration_is_a_frozen_value() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelConfig(**BASE).width = 3  # type: ignore[misc]
