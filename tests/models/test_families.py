"""The presets: their sizes against published counts and against the other library's own models."""

from __future__ import annotations

import warnings
from functools import partial

import pytest
import torch

from regard.config import ModelConfig
from regard.errors import ConfigError
from regard.models.families import PRESETS, preset, presets_for
from regard.models.transformer import build

# Weights of the published checkpoints, as their files hold them; what differs here is in DIFFERENCES.
PUBLISHED = {
    "gpt2": 124_439_808, "gpt2-medium": 354_823_168, "gpt2-large": 774_030_080, "gpt2-xl": 1_557_611_200,
    "bert-base": 109_482_240, "bert-large": 335_141_888,  # BertModel: with the pooler, without the masked head
    "distilbert-base": 66_985_530, "roberta-base": 124_697_433, "roberta-large": 355_412_057,
    "modernbert-base": 149_655_232, "modernbert-large": 395_881_664,
    "t5-small": 60_506_624, "t5-base": 222_903_552, "t5-v1_1-small": 76_961_152, "t5-v1_1-base": 247_577_856,
    "bart-base": 139_420_416, "bart-large": 406_291_456, "marian": 74_410_496,
    "llama-2-7b": 6_738_415_616, "llama-3-8b": 8_030_261_248, "mistral-7b": 7_241_732_096,
    "qwen2-0.5b": 494_032_768, "qwen3-0.6b": 596_049_920, "gemma-2b": 2_506_172_416,
    "falcon-7b": 6_921_720_704, "bloom-560m": 559_214_592,
}  # fmt: skip


def masked_head(width: int, vocabulary: int) -> int:
    """Count BERT's output: dense, norm, and a bias for each token."""
    return width * width + width + 2 * width + vocabulary


DIFFERENCES = {
    "bert-base": masked_head(768, 30_522), "bert-large": masked_head(1024, 30_522),
    "marian": -2 * 512 * 512 + 58_101,  # sinusoids are no weights, the output's bias is one
}  # fmt: skip


def on_meta(config: ModelConfig) -> int:
    """Count the weights of the built model without memory for them."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(config).parameters())


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_builds_and_counts_its_weights(name: str) -> None:
    assert preset(name).num_parameters() == on_meta(preset(name))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_has_its_published_number_of_weights(name: str) -> None:
    assert preset(name).num_parameters() == PUBLISHED[name] + DIFFERENCES.get(name, 0)


def test_the_models_of_2017_have_the_millions_of_their_table() -> None:
    # Vaswani et al. 2017, table 3: 65 and 213 million, rounded, with a vocabulary given as about 37,000.
    assert preset("transformer-base").num_parameters() == pytest.approx(65e6, rel=0.03)
    assert preset("transformer-big").num_parameters() == pytest.approx(213e6, rel=0.01)


def theirs(name: str) -> int:
    """Build transformers' model of this preset on the meta device, from its own configuration, and count."""
    t = pytest.importorskip("transformers")
    rest = {
        "gpt2": (t.GPT2LMHeadModel, t.GPT2Config()),
        "gpt2-xl": (t.GPT2LMHeadModel, t.GPT2Config(n_embd=1600, n_layer=48, n_head=25)),
        "bert-base": (t.BertModel, t.BertConfig()),
        "distilbert-base": (t.DistilBertForMaskedLM, t.DistilBertConfig()),
        "roberta-base": (
            t.RobertaForMaskedLM,
            t.RobertaConfig(vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1),
        ),
        "t5-small": (t.T5ForConditionalGeneration, t.T5Config()),
        "t5-v1_1-base": (
            t.T5ForConditionalGeneration,
            t.T5Config(
                d_model=768, d_ff=2048, num_layers=12, num_heads=12, feed_forward_proj="gated-gelu",
                tie_word_embeddings=False,
            ),
        ),
        "bart-large": (t.BartForConditionalGeneration, t.BartConfig()),
        "marian": (
            t.MarianMTModel,
            t.MarianConfig(
                vocab_size=58_101, d_model=512, encoder_layers=6, decoder_layers=6, encoder_attention_heads=8,
                decoder_attention_heads=8, encoder_ffn_dim=2048, decoder_ffn_dim=2048, max_position_embeddings=512,
                pad_token_id=58_100,
            ),
        ),
        "llama-2-7b": (t.LlamaForCausalLM, t.LlamaConfig()),
        "mistral-7b": (t.MistralForCausalLM, t.MistralConfig()),
        "qwen2-0.5b": (
            t.Qwen2ForCausalLM,
            t.Qwen2Config(
                hidden_size=896, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
                intermediate_size=4864, tie_word_embeddings=True,
            ),
        ),
        "qwen3-0.6b": (
            t.Qwen3ForCausalLM,
            t.Qwen3Config(
                hidden_size=1024, num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8, head_dim=128,
                intermediate_size=3072, tie_word_embeddings=True,
            ),
        ),
        "gemma-2b": (
            t.GemmaForCausalLM,
            t.GemmaConfig(
                hidden_size=2048, num_hidden_layers=18, num_attention_heads=8, num_key_value_heads=1,
                intermediate_size=16_384,
            ),
        ),
        "falcon-7b": (t.FalconForCausalLM, t.FalconConfig()),
        "bloom-560m": (t.BloomForCausalLM, t.BloomConfig(vocab_size=250_880, hidden_size=1024, n_layer=24, n_head=16)),
    }  # fmt: skip
    made, config = rest[name]
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in made(config).parameters())


@pytest.mark.parametrize(
    "name",
    [
        "gpt2", "gpt2-xl", "bert-base", "distilbert-base", "roberta-base", "t5-small", "t5-v1_1-base", "bart-large",
        "marian", "llama-2-7b", "mistral-7b", "qwen2-0.5b", "qwen3-0.6b", "gemma-2b", "falcon-7b", "bloom-560m",
    ],
)  # fmt: skip
def test_transformers_counts_the_same(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' own, at import
        counted = theirs(name)
    assert counted == PUBLISHED[name]


SHRINK = {
    "width": 16, "num_layers": 2, "num_heads": 4, "num_kv_heads": None, "head_size": 4, "ffn_width": 24, "context": 16,
    "vocab_size": 30, "pad_id": 0, "bos_id": 1, "eos_id": 2, "start_id": None,
}  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_every_family_runs_when_made_small(name: str) -> None:
    known = preset(name).to_dict()
    config = preset(name, **{key: value for key, value in SHRINK.items() if key in known})
    net, ids = build(config).eval(), torch.randint(3, 30, (2, 7))
    call = partial(net, ids) if config.kind == "encoder-decoder" else net
    with torch.no_grad():
        logits = call(ids)
    assert logits.shape == (2, 7, 30)
    assert logits.isfinite().all()
    assert config.num_parameters() == sum(p.numel() for p in net.parameters())


def test_nano_has_the_size_of_nanogpts_recipe_on_a_cpu() -> None:
    # Its 4 layers of width 128 with 65 characters are reported there as 0.80 million weights.
    nano = preset("nano", vocab_size=65)
    assert nano.num_parameters() == pytest.approx(0.80e6, rel=0.01)
    assert (nano.num_layers, nano.num_heads, nano.width) == (4, 4, 128)


def test_bert_without_its_masked_head_is_the_published_bert() -> None:
    plain = preset("bert-base", head="none", head_transform=False)
    assert plain.num_parameters() == PUBLISHED["bert-base"]


def test_overrides_derive_anew_what_the_preset_leaves_open() -> None:
    small = preset("gpt2", width=384)
    assert (small.head_size, small.ffn_width) == (32, 1536)
    assert preset("translate-small", vocab_size=1234).vocab_size == 1234


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown preset 'gtp2'; did you mean 'gpt2'"):
        preset("gtp2")
    with pytest.raises(ConfigError, match="unknown preset 'zzzzzz'; There are transformer-base, "):
        preset("zzzzzz")
    with pytest.raises(ConfigError, match="did you mean 'num_layers'"):
        preset("gpt2", num_layer=3)


def test_presets_are_listed_by_kind() -> None:
    listed = [presets_for(kind) for kind in ("encoder", "decoder", "encoder-decoder")]
    assert sorted(name for names in listed for name in names) == sorted(PRESETS)
    assert "bert-base" in listed[0]
    assert "nano" in listed[1]
    assert "translate-small" in listed[2]
    with pytest.raises(ConfigError, match="did you mean 'decoder'"):
        presets_for("decodr")  # type: ignore[arg-type]


def test_asking_for_a_preset_changes_none() -> None:
    before = {name: dict(settings) for name, settings in PRESETS.items()}
    preset("gpt2", width=384, num_heads=6)
    assert before == PRESETS
