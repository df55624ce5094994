"""T5, mT5, BART, mBART and Marian against their published implementation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.checkpoints.oracle import check_both, check_round_trip, near, padded, tiny
from torch import Tensor

from regard.checkpoints.load import Loaded, family_config, load_model
from regard.errors import ConfigError, RegardError
from regard.models.families import preset

transformers = pytest.importorskip("transformers")

T5 = {
    "vocab_size": 50, "d_model": 16, "d_kv": 6, "d_ff": 24, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4,
    "decoder_start_token_id": 0, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 12,
}  # fmt: skip
V1_1 = {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
BART = {
    "vocab_size": 50, "d_model": 16, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 32,
}  # fmt: skip
MARIAN = {
    **BART, "pad_token_id": 49, "decoder_start_token_id": 49, "scale_embedding": True, "activation_function": "swish",
}  # fmt: skip
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("T5", T5),
    "t5-v1.1": ("T5", V1_1),
    "t5-other-activation": ("T5", {**T5, "feed_forward_proj": "gated-silu"}),
    "mt5": ("MT5", T5),
    "bart": ("Bart", BART),
    "mbart": ("MBart", {**BART, "scale_embedding": True, "activation_function": "relu"}),
    "marian": ("Marian", MARIAN),
    "marian-two-embeddings": ("Marian", {**MARIAN, "share_encoder_decoder_embeddings": False}),
}


def make(case: str, head: str = "ForConditionalGeneration") -> Any:
    name, settings = SETTINGS[case]
    config = getattr(transformers, f"{name}Config")(**settings)
    if "Classification" in head:
        config.num_labels = 3
    if name == "Marian" and head == "ForConditionalGeneration":
        head = "MTModel"
    model = tiny(getattr(transformers, name + head), config)
    for module in model.modules():
        if type(module).__name__ == "MarianSinusoidalPositionalEmbedding":
            module._init_weight()  # sines, not weights
    return model


def pair(loaded: Loaded, side: str) -> tuple[Tensor, Tensor]:
    """Give sources whose last token, and no other, is the end-of-sequence token, as the families' tokenizers do."""
    config = loaded.config
    ids, mask = padded((9, 4, 7), side, vocabulary=49, pad=config.pad_id or 0)
    last = mask & ~mask.roll(-1, 1) if side == "right" else torch.arange(9).eq(8).expand(3, 9)
    last = last if side == "left" else last | (mask & torch.arange(9).eq(8))
    return ids.masked_fill(last, config.eos_id or 0), mask


@pytest.mark.parametrize("case", SETTINGS)
def test_logits_states_and_attention_both_ways(case: str, tmp_path: Path) -> None:
    theirs = make(case)
    theirs.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.unused == ()
    check_both(loaded, theirs, "right")
    again = check_round_trip(loaded, tmp_path, tmp_path / "again", theirs)
    check_both(loaded, again, "right")


@pytest.mark.parametrize("case", ["t5", "t5-v1.1", "mt5"])
def test_relative_positions_take_padding_on_the_left_as_it_is(case: str, tmp_path: Path) -> None:
    theirs = make(case)
    theirs.save_pretrained(tmp_path)
    check_both(load_model(tmp_path), theirs, "left")


@torch.no_grad()
@pytest.mark.parametrize("case", ["t5", "bart", "mbart", "marian"])
def test_padding_on_the_left_gives_what_padding_on_the_right_gives_there(case: str, tmp_path: Path) -> None:
    # These count positions from the first column on, so they can only be asked with padding on the right.
    theirs = make(case)
    theirs.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    module: Any = loaded.module
    target, _ = padded((5, 5, 5), "right", vocabulary=49, pad=0)
    (right, right_mask), (left, left_mask) = pair(loaded, "right"), pair(loaded, "left")
    assert torch.equal(right[right_mask], left[left_mask])
    expected = theirs(input_ids=right, attention_mask=right_mask.long(), decoder_input_ids=target)
    near(module(left, target, source_mask=left_mask), expected.logits, "logits")
    near(
        module.encode(left, left_mask)[left_mask],
        expected.encoder_last_hidden_state[right_mask],
        "encoder",
    )


HEADS = (
    "Model",
    "ForSequenceClassification",
    "ForQuestionAnswering",
    "EncoderModel",
    "ForTokenClassification",
)


@torch.no_grad()
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("case", ["t5", "mt5", "bart", "mbart", "marian"])
def test_heads(case: str, head: str, tmp_path: Path) -> None:
    name = SETTINGS[case][0]
    if not hasattr(transformers, name + head):
        pytest.skip(f"{name} has no class {head}")
    if case == "mbart" and head != "Model":
        pytest.skip("starts the decoder with a text's language")
    theirs = make(case, head)
    theirs.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    for side in ("right", "left"):
        (right, right_mask), (ids, mask) = pair(loaded, "right"), pair(loaded, side)
        given: dict[str, Any] = {"attention_mask": right_mask.long()}
        if head == "Model":
            target, _ = padded((5, 5, 5), "right", vocabulary=49, pad=0)
            expected = theirs(right, decoder_input_ids=target, **given).last_hidden_state
            near(loaded.module(ids, target, source_mask=mask), expected, f"states, {side}")
        elif head == "ForSequenceClassification":
            near(loaded.module(ids, source_mask=mask), theirs(right, **given).logits, f"classes, {side}")
        elif head == "ForQuestionAnswering":
            answer = theirs(right, **given)
            both = torch.stack((answer.start_logits, answer.end_logits), -1)
            near(loaded.module(ids, source_mask=mask)[mask], both[right_mask], f"answers, {side}")
        else:
            found = theirs(right, **given)
            expected = found.logits if head == "ForTokenClassification" else found.last_hidden_state
            near(loaded.module(ids, key_mask=mask)[mask], expected[right_mask], f"tokens, {side}")
    if case == "marian":
        # The bare class writes its tables of sines, which say nothing.
        _without(tmp_path, "embed_positions")
        assert load_model(tmp_path).unused == ()
        save_loads_again(load_model(tmp_path), tmp_path / "again")
    else:
        check_round_trip(loaded, tmp_path, tmp_path / "again", theirs)


def save_loads_again(loaded: Loaded, folder: Path) -> None:
    from regard.checkpoints.load import save_model

    save_model(folder, loaded.module.state_dict(), loaded.config, family=loaded.family)
    again = load_model(folder)
    assert again.config == loaded.config
    own = loaded.module.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in again.module.state_dict().items())


def _without(folder: Path, part: str) -> None:
    file = folder / "model.safetensors"
    save_file({n: t for n, t in load_file(file).items() if part not in n}, file, {"format": "pt"})


def edit(folder: Path, **changes: Any) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, **changes}))


def test_older_files_load_with_a_note(tmp_path: Path) -> None:
    theirs = make("bart")
    theirs.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    extra = {
        "model.encoder.version": torch.ones(1), "model.decoder.version": torch.ones(1),
        "classification_head.dense.weight": torch.ones(16, 16), "lm_head.weight": stored["model.shared.weight"].clone(),
        "model.encoder.embed_tokens.weight": stored["model.shared.weight"].clone(),
    }  # fmt: skip
    save_file({**stored, **extra}, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path)
    assert set(loaded.unused) == {n for n in extra if "version" in n or "classification" in n}
    check_both(loaded, theirs, "right")

    # Its bare class, and names without the prefix.
    edit(tmp_path, architectures=["BartModel"])
    assert load_model(tmp_path).config.head == "none"
    bare = {name.removeprefix("model."): tensor for name, tensor in stored.items()}
    save_file(bare, tmp_path / "model.safetensors")
    edit(tmp_path, architectures=["BartForConditionalGeneration"])
    check_both(load_model(tmp_path), theirs, "right")

    # Files of the first years have no bias of the output.
    del bare["final_logits_bias"]
    save_file(bare, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path)
    assert not loaded.config.output_bias
    theirs.final_logits_bias.zero_()
    check_both(loaded, theirs, "right")


def test_tables_of_sines_and_a_bias_that_nothing_reads_are_unused(tmp_path: Path) -> None:
    made = {"marian": make("marian"), "t5": make("t5")}
    extra = {
        "marian": {
            f"model.{part}.embed_positions.weight": torch.ones(32, 16) for part in ("encoder", "decoder")
        },
        "t5": {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": torch.ones(8, 4)},
    }
    for name, theirs in made.items():
        theirs.save_pretrained(tmp_path / name)
        file = tmp_path / name / "model.safetensors"
        save_file({**load_file(file), **extra[name]}, file)
        loaded = load_model(tmp_path / name)
        assert set(loaded.unused) == set(extra[name])
        check_both(loaded, theirs, "right")


@pytest.mark.parametrize("kept", ["shared", "encoder.embed_tokens", "decoder.embed_tokens"])
def test_t5s_embedding_under_any_of_its_names(kept: str, tmp_path: Path) -> None:
    theirs = make("t5")
    theirs.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    stored[f"{kept}.weight"] = stored.pop("shared.weight")
    save_file(stored, tmp_path / "model.safetensors")
    check_both(load_model(tmp_path), theirs, "right")


@torch.no_grad()
def test_t5_reads_more_than_it_was_trained_with(tmp_path: Path) -> None:
    theirs = make("t5")
    theirs.save_pretrained(tmp_path)
    edit(tmp_path, n_positions=16)
    loaded = load_model(tmp_path)
    source, mask = padded((80, 30), "right", vocabulary=50, pad=0)
    target, _ = padded((40, 40), "right", vocabulary=50, pad=0)
    expected = theirs(source, attention_mask=mask.long(), decoder_input_ids=target).logits
    near(loaded.module(source, target, source_mask=mask), expected, "logits")
    edit(tmp_path, max_position_embeddings=70)
    with pytest.raises(ConfigError, match="context of 70"):
        load_model(tmp_path).module(source, target)


@pytest.mark.parametrize(
    ("case", "changes", "words"),
    [
        ("bart", {"decoder_attention_heads": 2}, "encoder_attention_heads=4, decoder_attention_heads=2"),
        ("bart", {"decoder_ffn_dim": 32}, "different sizes"),
        ("bart", {"normalize_before": True}, "normalize_before=True isn't built"),
        ("bart", {"architectures": ["BartForCausalLM"]}, "BartForCausalLM"),
        ("mbart", {"architectures": ["MBartForQuestionAnswering"]}, "MBartForQuestionAnswering"),
        ("marian", {"decoder_vocab_size": 60}, "decoder_vocab_size=60"),
        ("t5", {"dense_act_fn": "mish"}, "'mish' isn't known; known are "),
        ("t5", {"max_position_embeding": 70}, "did you mean 'max_position_embeddings'"),
    ],
)
def test_what_is_not_built_is_refused_by_its_name(
    case: str, changes: Any, words: str, tmp_path: Path
) -> None:
    make(case).save_pretrained(tmp_path)
    edit(tmp_path, **changes)
    with pytest.raises(RegardError, match=words):
        load_model(tmp_path)


PRESETS = {
    "t5-small": "t5", "t5-base": "t5", "t5-v1_1-small": "t5", "t5-v1_1-base": "t5", "bart-base": "bart",
    "bart-large": "bart", "marian": "marian",
}  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_the_published_model(name: str) -> None:
    config = preset(name)
    family, settings = family_config(config)
    assert family == PRESETS[name]
    there = transformers.AutoConfig.for_model(**settings)
    with torch.device("meta"):
        model = getattr(transformers, settings["architectures"][0])(there)
    sizes = {n: p.numel() for n, p in model.named_parameters()}
    if family == "marian":
        # Sines are no weights; the bias of the output is no parameter there.
        sizes = {n: size for n, size in sizes.items() if "embed_positions" not in n} | {
            "bias": config.vocab_size
        }
    assert config.num_parameters() == sum(sizes.values())


@pytest.mark.parametrize("case", SETTINGS)
def test_config_json_means_the_same_there_after_a_round_trip(case: str, tmp_path: Path) -> None:
    theirs = make(case)
    theirs.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    _, settings = family_config(loaded.config, loaded.family)
    first, second = theirs.config.to_dict(), type(theirs.config).from_dict(settings).to_dict()
    ignored = ["dtype", "transformers_version"]
    if "t5" in case:
        ignored.append("max_position_embeddings")  # a limit that isn't known there
    for values in (first, second):
        # Two names of one activation.
        values["activation_function"] = str(values.get("activation_function")).replace("swish", "silu")
        for name in ignored:
            values.pop(name, None)
    assert first == second
