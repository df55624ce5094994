"""GPT-2, Llama, Mistral, Qwen 2 and 3, Gemma 2 and 3 against their published implementation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.checkpoints.oracle import check_round_trip, check_stack, padded, tiny

from regard.checkpoints.load import load_model

transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", {"vocab_size": 50, "n_embd": 16, "n_layer": 3, "n_head": 4, "n_positions": 32, "pad_token_id": 0,
                      "bos_token_id": 1, "eos_token_id": 2}),
    "llama": ("Llama", SIZES),
    "llama-3.1": ("Llama", {**SIZES, "rope_theta": 500_000.0, "rope_scaling": LLAMA3, "tie_word_embeddings": True}),
    "llama-with-biases": ("Llama", {**SIZES, "attention_bias": True, "head_dim": 8}),
    "mistral": ("Mistral", {**SIZES, "sliding_window": 4}),
    "mistral-everywhere": ("Mistral", {**SIZES, "sliding_window": None}),
    "qwen2": ("Qwen2", SIZES),
    "qwen2-windows": ("Qwen2", {**SIZES, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    "qwen3": ("Qwen3", {**SIZES, "head_dim": 8}),
    "gemma2": ("Gemma2", {**SIZES, "head_dim": 8, "sliding_window": 4, "query_pre_attn_scalar": 24}),
    "gemma3": ("Gemma3", {**SIZES, "num_hidden_layers": 7, "head_dim": 8, "sliding_window": 4,
                          "query_pre_attn_scalar": 8, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
}  # fmt: skip
HEADS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")


def make(case: str, head: str = "ForCausalLM") -> Any:
    name, settings = SETTINGS[case]
    config = getattr(transformers, f"{name}TextConfig" if name == "Gemma3" else f"{name}Config")(**settings)
    config.num_labels = 3
    if name == "GPT2" and head == "ForCausalLM":
        head = "LMHeadModel"
    if name == "Gemma3" and head == "Model":
        head = "TextModel"
    return tiny(getattr(transformers, name + head), config)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("case", SETTINGS)
def test_logits_states_and_attention(case: str, side: str, tmp_path: Path) -> None:
    theirs = make(case)
    theirs.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.unused == ()
    check_stack(loaded, theirs, side, positions=True)


@pytest.mark.parametrize("case", SETTINGS)
def test_a_round_trip_is_bitwise(case: str, tmp_path: Path) -> None:
    theirs = make(case)
    theirs.save_pretrained(tmp_path)
    check_round_trip(load_model(tmp_path), tmp_path, tmp_path / "again", theirs)


@pytest.mark.parametrize("head", ["Model", *HEADS])
@pytest.mark.parametrize("case", ["gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3"])
def test_heads(case: str, head: str, tmp_path: Path) -> None:
    name = SETTINGS[case][0]
    if name == "Gemma3" and head in HEADS:
        pytest.skip("the text model of Gemma 3 has no such class")
    if not hasattr(transformers, name + head) and head != "Model":
        pytest.skip(f"{name} has no class {head}")
    theirs = make(case, head)
    theirs.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    ids, mask = padded((9, 4, 7), "right", vocabulary=50, pad=0)
    with torch.no_grad():
        expected, found = theirs(ids, attention_mask=mask.long()), loaded.module(ids, key_mask=mask)
    if head == "ForQuestionAnswering":
        pair = torch.stack((expected.start_logits, expected.end_logits), -1)
        torch.testing.assert_close(found[mask], pair[mask], rtol=1e-4, atol=1e-5)
    elif head == "ForSequenceClassification":
        torch.testing.assert_close(found, expected.logits, rtol=1e-4, atol=1e-5)
    else:
        scores = expected.last_hidden_state if head == "Model" else expected.logits
        torch.testing.assert_close(found[mask], scores[mask], rtol=1e-4, atol=1e-5)
    check_round_trip(loaded, tmp_path, tmp_path / "again", theirs)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_weights_stored_transposed_lie_as_they_are_used_once_they_are(dtype: Any, tmp_path: Path) -> None:
    make("gpt2").save_pretrained(tmp_path)
    module = load_model(tmp_path, dtype=dtype).module
    before = {name: weight.clone() for name, weight in module.state_dict().items()}
    assert any(not p.is_contiguous() for p in module.parameters()) == (dtype is None)
    with torch.inference_mode():
        module.start(batch=1).advance(torch.tensor([[1, 2, 3]]))
    assert all(p.is_contiguous() for p in module.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in module.state_dict().items())
    module.train()(torch.tensor([[1, 2, 3]])).float().sum().backward()  # and they can still learn
    assert all(p.grad is not None for p in module.parameters() if p.requires_grad)
