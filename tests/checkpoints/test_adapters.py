"""LoRA adapters in PEFT's format: what is saved here PEFT applies, and what PEFT saves is merged here."""

from __future__ import annotations

import json

import pytest
import torch
from tests.checkpoints.oracle import tiny

import regard
from regard.checkpoints.adapters import merge_adapter, save_adapter
from regard.checkpoints.load import load_model
from regard.config import ModelConfig
from regard.errors import CheckpointError, ConfigError
from regard.models.transformer import build
from regard.nn.lora import adapters, add_lora, merged

IDS = torch.arange(14).view(2, 7) % 11 + 3
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # in the oracle's imports

FAMILIES = ("bert", "gpt2", "llama", "modernbert", "t5")


def published(name, folder):
    """Save one of the oracle's tiny models; give it."""
    transformers = pytest.importorskip("transformers")
    small = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    make = {
        "bert": lambda: (
            transformers.BertForMaskedLM,
            transformers.BertConfig(**small, intermediate_size=32, max_position_embeddings=16),
        ),
        "gpt2": lambda: (
            transformers.GPT2LMHeadModel,
            transformers.GPT2Config(
                vocab_size=20, n_embd=16, n_layer=2, n_head=2, n_positions=16, bos_token_id=1, eos_token_id=2
            ),
        ),
        "llama": lambda: (
            transformers.LlamaForCausalLM,
            transformers.LlamaConfig(**small, **ids, intermediate_size=24, max_position_embeddings=16),
        ),
        "modernbert": lambda: (
            transformers.ModernBertForMaskedLM,
            transformers.ModernBertConfig(
                **small, intermediate_size=24, max_position_embeddings=16, **ids, cls_token_id=1, sep_token_id=2,
                reference_compile=False,
            ),
        ),
        "t5": lambda: (
            transformers.T5ForConditionalGeneration,
            transformers.T5Config(
                vocab_size=20, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, decoder_start_token_id=0
            ),
        ),
    }  # fmt: skip
    model = tiny(*make[name]())
    model.save_pretrained(folder)
    return model


def answer(model, name):
    with torch.no_grad():
        given = {"decoder_input_ids": IDS.flip(1)} if name == "t5" else {}
        return model(input_ids=IDS, **given).logits


def ours(module, name):
    with torch.no_grad():
        return module(IDS, IDS.flip(1)) if name == "t5" else module(IDS)


def noisy(weights):
    torch.manual_seed(5)
    for _, up in adapters(weights).values():
        up.normal_(std=0.5)


@pytest.mark.parametrize("name", FAMILIES)
def test_peft_applies_what_is_saved_here(name, tmp_path):
    peft = pytest.importorskip("peft")
    theirs = published(name, tmp_path / "base")
    loaded = load_model(tmp_path / "base")
    # Of fused query, key and value only two are adapted; of a fused gate and up only one.
    add_lora(loaded.module, rank=2, alpha=6.0, targets=["query", "value", "output", "up"])
    weights = loaded.module.state_dict()
    noisy(weights)
    applied = ours(loaded.module, name)
    before = answer(theirs, name)
    save_adapter(
        tmp_path / "a", weights, loaded.config, loaded.family, alpha=6.0, base=str(tmp_path / "base")
    )
    found = answer(peft.PeftModel.from_pretrained(theirs, tmp_path / "a").eval(), name)
    assert float((found - before).abs().max()) > 0.05
    torch.testing.assert_close(found, applied, rtol=1e-4, atol=1e-4)
    again = merge_adapter(
        load_model(tmp_path / "base").module.state_dict(), loaded.config, name, tmp_path / "a"
    )
    expected = merged(weights, alpha=6.0)
    assert again.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(again[key], tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "targets", "extra"),
    [
        ("bert", ["query", "key", "dense"], {"use_rslora": True}),
        ("gpt2", ["c_attn", "c_proj", "c_fc"], {"fan_in_fan_out": True}),
        ("llama", ["q_proj", "o_proj", "down_proj"], {"rank_pattern": {"o_proj": 5}, "alpha_pattern": {"o_proj": 1}}),
        ("modernbert", ["Wqkv", "Wi"], {}),
        ("t5", ["q", "wo"], {}),
    ],
    ids=FAMILIES,
)  # fmt: skip
def test_what_peft_saves_is_merged_here(name, targets, extra, tmp_path):
    peft = pytest.importorskip("peft")
    theirs = published(name, tmp_path / "base")
    before = answer(theirs, name)
    targets = r".*encoder\..*\.(query|key|dense)" if name == "bert" else targets
    config = peft.LoraConfig(r=3, lora_alpha=7, target_modules=targets, init_lora_weights=False, **extra)
    torch.manual_seed(2)
    model = peft.get_peft_model(theirs, config).eval()
    expected = answer(model, name)
    model.save_pretrained(tmp_path / "a", save_embedding_layers=False)
    assert float((expected - before).abs().max()) > 0.05
    found = ours(regard.load(tmp_path / "base", adapter=tmp_path / "a").module, name)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_fresh_head_goes_along(tmp_path):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    published("bert", tmp_path / "base")
    base = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=3)
    config = peft.LoraConfig(
        task_type="SEQ_CLS", r=2, target_modules=["query"], init_lora_weights=False, modules_to_save=["classifier"]
    )  # fmt: skip
    model = peft.get_peft_model(base, config).eval()
    with torch.no_grad():
        for weight in model.base_model.model.classifier.parameters():
            weight.add_(1.0)
    expected = answer(model, "bert")
    base.base_model.save_pretrained(tmp_path / "unused")
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=3)
    state = {k: v for k, v in base.state_dict().items() if "lora" not in k and "modules_to_save" not in k}
    names = {k.replace(".base_layer", "").replace(".original_module", ""): v for k, v in state.items()}
    plain.load_state_dict(names)
    plain.save_pretrained(tmp_path / "classifier")
    model.save_pretrained(tmp_path / "a", save_embedding_layers=False)
    found = ours(regard.load(tmp_path / "classifier", adapter=tmp_path / "a").module, "bert")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def own(tmp_path):
    """Give a model of ours with an adapter, saved under our own names."""
    config = ModelConfig(kind="decoder", vocab_size=20, width=16, num_heads=2, num_layers=1, context=16)
    module = build(config)
    plain = {name: t.clone() for name, t in module.state_dict().items()}
    add_lora(module, rank=2, alpha=4.0)
    weights = module.state_dict()
    noisy(weights)
    save_adapter(tmp_path / "a", weights, config, None, alpha=4.0, base="runs/base")
    return config, plain, weights, tmp_path / "a"


def test_a_run_of_ours_has_adapters_by_our_names(own):
    config, plain, weights, folder = own
    found, expected = merge_adapter(plain, config, None, folder), merged(weights, alpha=4.0)
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in expected)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"peft_type": "IA3"}, "only adapters of peft_type LORA"),
        ({"use_dora": True}, "use_dora=True isn't built here"),
        ({"bias": "all"}, "bias='all' isn't built here"),
        ({"r": "two"}, "r must be a number"),
    ],
)
def test_another_kind_of_adapter_is_refused(own, change, problem):
    config, plain, _, folder = own
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match=problem):
        merge_adapter(plain, config, None, folder)


def test_an_adapter_of_another_model_is_refused(own, tmp_path):
    config, _, _, folder = own
    wider = config.replace(width=32)
    with pytest.raises(CheckpointError, match="is it an adapter of another model"):
        merge_adapter(build(wider).state_dict(), wider, None, folder)
    both = ModelConfig(kind="encoder-decoder", vocab_size=20, width=16, num_heads=2, num_layers=1, context=16)
    with pytest.raises(CheckpointError, match="4 tensors without a place in this model"):
        merge_adapter(build(both).state_dict(), both, None, folder)
    with pytest.raises(CheckpointError, match="is no adapter"):
        merge_adapter(build(config).state_dict(), config, None, tmp_path)


def test_weights_without_adapters_are_refused(tmp_path):
    config = ModelConfig(kind="decoder", vocab_size=20, width=16, num_heads=2, num_layers=1, context=16)
    with pytest.raises(ConfigError, match="no adapters"):
        save_adapter(tmp_path, build(config).state_dict(), config, None, alpha=1.0, base="x")
