"""BERT, RoBERTa, XLM-R, CamemBERT, DistilBERT and ModernBERT against their published implementation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.checkpoints.oracle import check_round_trip, check_stack, near, padded, tiny

from regard.checkpoints.families import FAMILIES
from regard.checkpoints.load import family_config, load_model, model_config, save_model
from regard.config import ModelConfig
from regard.errors import CheckpointError, ConfigError
from regard.models.families import preset

transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 24,
    "max_position_embeddings": 32,
}  # fmt: skip
DISTIL = {
    "vocab_size": 50,
    "dim": 16,
    "n_layers": 3,
    "n_heads": 4,
    "hidden_dim": 24,
    "max_position_embeddings": 32,
}
MODERN = {
    **SIZES, "num_hidden_layers": 5, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1,
    "sep_token_id": 2, "local_attention": 4,
}  # fmt: skip
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", SIZES),
    "bert-untied": ("Bert", {**SIZES, "tie_word_embeddings": False, "hidden_act": "gelu_new", "type_vocab_size": 3}),
    "roberta": ("Roberta", {**SIZES, "type_vocab_size": 1, "layer_norm_eps": 1e-5}),
    "roberta-pads-at-3": ("Roberta", {**SIZES, "pad_token_id": 3}),
    "xlm-roberta": ("XLMRoberta", {**SIZES, "type_vocab_size": 1}),
    "camembert": ("Camembert", {**SIZES, "type_vocab_size": 1}),
    "distilbert": ("DistilBert", DISTIL),
    "distilbert-sinusoids": ("DistilBert", {**DISTIL, "sinusoidal_pos_embds": True, "activation": "relu"}),
    "modernbert": ("ModernBert", MODERN),
    # Half of an odd number, rounded down, stands on either side.
    "modernbert-odd": ("ModernBert", {**MODERN, "local_attention": 7, "global_attn_every_n_layers": 2}),
    "modernbert-everywhere": ("ModernBert", {**MODERN, "global_attn_every_n_layers": 1, "local_rope_theta": None}),
    "modernbert-with-biases": ("ModernBert", {
        **MODERN, "attention_bias": True, "classifier_bias": True, "mlp_bias": True, "norm_bias": True,
        "decoder_bias": False, "tie_word_embeddings": False, "classifier_pooling": "mean",
        "hidden_activation": "silu", "classifier_activation": "silu",
    }),
}  # fmt: skip
HEADS = ("Model", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
BASES = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "modernbert", "modernbert-with-biases")


def published(name: str) -> Any:
    """Give one of the oracle's classes. Some wish to be compiled, which takes seconds to import and isn't used here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", lambda *arguments, **settings: lambda function: function)
        return getattr(transformers, name)


def make(case: str, head: str = "ForMaskedLM") -> Any:
    name, settings = SETTINGS[case]
    config = published(f"{name}Config")(**settings)
    config.num_labels = 2 if head == "ForQuestionAnswering" else 3
    return tiny(published(name + head), config)


def put(folder: Path, case: str, head: str = "ForMaskedLM") -> Any:
    theirs = make(case, head)
    theirs.save_pretrained(folder)
    return theirs


def changed(folder: Path, **keys: Any) -> None:
    """Write keys of config.json anew; None takes one away."""
    path = folder / "config.json"
    content = {**json.loads(path.read_text()), **keys}
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("case", SETTINGS)
def test_logits_states_and_attention(case: str, side: str, tmp_path: Path) -> None:
    theirs = put(tmp_path, case)
    loaded = load_model(tmp_path)
    assert loaded.unused == ()
    assert loaded.family == theirs.config.model_type
    given: dict[str, Any] = {"positions": loaded.family in ("bert", "modernbert")}
    if loaded.family == "modernbert":
        given["last_norm"] = theirs.model.final_norm
    if loaded.family == "distilbert" and side == "left":
        # It takes no positions and counts padding, so ours are told to do the same.
        module: Any = loaded.module
        hidden, given_positions = module.hidden, torch.arange(9).expand(3, 9)
        module.hidden = lambda ids, **more: hidden(ids, **{**more, "positions": given_positions})
    with torch.no_grad():
        check_stack(loaded, theirs, side, **given)


@pytest.mark.parametrize("case", ["bert", "roberta", "distilbert", "modernbert"])
def test_a_text_in_a_padded_batch_is_the_text_alone(case: str, tmp_path: Path) -> None:
    theirs = put(tmp_path, case)
    module: Any = load_model(tmp_path).module
    for side in ("left", "right"):
        ids, mask = padded((9, 4, 7), side, vocabulary=50, pad=0)
        with torch.no_grad():
            logits = module(ids, key_mask=mask)
            for row, real, found in zip(ids, mask, logits, strict=True):
                near(found[real], theirs(row[real][None]).logits[0], "logits")


@pytest.mark.parametrize("case", SETTINGS)
def test_a_round_trip_is_bitwise(case: str, tmp_path: Path) -> None:
    theirs = put(tmp_path, case)
    loaded = load_model(tmp_path)
    again = check_round_trip(loaded, tmp_path, tmp_path / "again", theirs)
    ids = torch.randint(5, 50, (2, 9))
    with torch.no_grad():
        near(loaded.module(ids), again(ids).logits, "logits")


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("case", BASES)
def test_heads(case: str, head: str, tmp_path: Path) -> None:
    theirs = put(tmp_path, case, head)
    loaded = load_model(tmp_path)
    assert loaded.unused == ()
    module: Any = loaded.module
    ids, mask = padded((9, 4, 7), "right", vocabulary=50, pad=0)
    with torch.no_grad():
        expected, found = theirs(ids, attention_mask=mask.long()), module(ids, key_mask=mask)
        if head == "Model":
            near(found[mask], expected.last_hidden_state[mask], "states")
            if "pooler_output" in expected:
                near(module.pool(found, mask), expected.pooler_output, "pooled")
        elif head == "ForQuestionAnswering":
            near(
                found[mask],
                torch.stack((expected.start_logits, expected.end_logits), -1)[mask],
                "start and end",
            )
        else:
            per_text = head == "ForSequenceClassification"
            near(
                found if per_text else found[mask],
                expected.logits if per_text else expected.logits[mask],
                "classes",
            )
    check_round_trip(loaded, tmp_path, tmp_path / "again", theirs)


def test_the_pooler_is_optional(tmp_path: Path) -> None:
    for i, name in enumerate(("Bert", "Roberta")):
        config = published(f"{name}Config")(**SIZES)
        theirs = tiny(lambda c, name=name: published(f"{name}Model")(c, add_pooling_layer=False), config)
        theirs.save_pretrained(tmp_path / str(i))
        loaded = load_model(tmp_path / str(i))
        assert not loaded.config.pooler
        assert loaded.unused == ()


def test_bert_for_pre_training_has_one_of_its_outputs(tmp_path: Path) -> None:
    theirs = put(tmp_path, "bert", "ForPreTraining")
    loaded = load_model(tmp_path)
    assert loaded.unused == ("cls.seq_relationship.bias", "cls.seq_relationship.weight")
    module: Any = loaded.module
    ids, mask = padded((9, 4, 7), "right", vocabulary=50, pad=0)
    segments = (torch.arange(9) > 2).long().expand(3, 9)
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask.long(), token_type_ids=segments)
        near(module(ids, key_mask=mask, segments=segments)[mask], expected.prediction_logits[mask], "logits")
    assert save_model(tmp_path / "again", module.state_dict(), loaded.config) == "bert"
    again, notes = transformers.BertForPreTraining.from_pretrained(
        tmp_path / "again", output_loading_info=True
    )
    assert sorted(notes["missing_keys"]) == sorted(loaded.unused)
    assert not notes["unexpected_keys"]
    state = again.state_dict()
    assert all(torch.equal(state[n], t) for n, t in theirs.state_dict().items() if n not in loaded.unused)


@pytest.mark.parametrize("case", ["bert", "roberta", "distilbert", "modernbert"])
def test_a_bare_model_from_the_file_of_one_with_a_head(case: str, tmp_path: Path) -> None:
    theirs = put(tmp_path, case)
    name = SETTINGS[case][0]
    changed(tmp_path, architectures=[f"{name}Model"])
    loaded = load_model(tmp_path)
    assert loaded.config.head == "none"
    prefix = FAMILIES[theirs.config.model_type].prefix
    file = load_file(tmp_path / "model.safetensors")
    assert set(loaded.unused) == {name for name in file if not name.startswith(prefix)}
    ids = torch.randint(5, 50, (2, 9))
    with torch.no_grad():
        near(loaded.module(ids), theirs.base_model(ids).last_hidden_state, "states")


@pytest.mark.parametrize("case", ["bert", "roberta", "distilbert", "modernbert"])
def test_a_head_beside_names_without_prefix(case: str, tmp_path: Path) -> None:
    theirs = put(tmp_path, case, "ForSequenceClassification")
    prefix = FAMILIES[theirs.config.model_type].prefix
    path = tmp_path / "model.safetensors"
    save_file({name.removeprefix(prefix): tensor for name, tensor in load_file(path).items()}, path)
    loaded = load_model(tmp_path)
    ids = torch.randint(5, 50, (2, 9))
    with torch.no_grad():
        near(loaded.module(ids), theirs(ids).logits, "classes")


def test_older_files_names_and_other_heads_tensors(tmp_path: Path) -> None:
    theirs = put(tmp_path, "bert", "ForPreTraining")
    path = tmp_path / "model.safetensors"
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in load_file(path).items()
    }
    assert any(name.endswith("gamma") for name in old)
    # As they stood in files of the first releases; a buffer of positions too, and the output's weights twice.
    old["bert.embeddings.position_ids"] = torch.arange(32)[None]
    old["cls.predictions.decoder.weight"] = old["bert.embeddings.word_embeddings.weight"].clone()
    save_file(old, path)
    changed(tmp_path, architectures=["BertForMaskedLM"])
    loaded = load_model(tmp_path)
    assert set(loaded.unused) == {
        "bert.embeddings.position_ids", "bert.pooler.dense.bias", "bert.pooler.dense.weight",
        "cls.seq_relationship.bias", "cls.seq_relationship.weight",
    }  # fmt: skip
    ids = torch.randint(5, 50, (2, 9))
    with torch.no_grad():
        near(loaded.module(ids), theirs(ids).prediction_logits, "logits")
    changed(tmp_path, architectures=["BertForSequenceClassification"])
    with pytest.raises(CheckpointError, match=r"missing: classifier\.weight, classifier\.bias\."):
        load_model(tmp_path)
    save_file({**old, "bert.encoder.layer.9.output.dense.bias": torch.zeros(16)}, path)
    with pytest.raises(CheckpointError, match=r"unexpected: bert\.encoder\.layer\.9\.output\.dense\.bias"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("case", "keys", "message"),
    [
        ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key' isn't built"),
        ("roberta", {"position_embedding_type": "relative_key_query"}, "isn't built here"),
        ("bert", {"is_decoder": True}, "is_decoder=True isn't built here"),
        ("bert", {"add_cross_attention": True}, "add_cross_attention=True isn't built here"),
        ("bert", {"architectures": ["BertLMHeadModel"]}, "the class 'BertLMHeadModel' of bert isn't built here"),
        ("bert", {"type_vocab_size": 0}, "type_vocab_size=0 can't be"),
        ("bert", {"hiden_size": 16, "hidden_size": None}, "unknown key 'hiden_size'. did you mean 'hidden_size'?"),
        ("roberta", {"hidden_act": "relu"}, "hidden_act='relu' isn't known; known are gelu"),
        ("roberta", {"pad_token_id": 40}, "must be more than pad_token_id=40"),
        ("modernbert", {"classifier_activation": "relu"}, "'gelu' in its blocks and 'relu' in its head"),
        ("modernbert", {"classifier_bias": True}, "classifier_bias=True isn't built here"),
        ("modernbert", {"rope_scaling": {"rope_type": "yarn"}}, "rope_scaling="),
        ("modernbert", {"global_attn_every_n_layers": 0}, "must be whole numbers"),
        ("modernbert", {"layer_types": [[]] * 5}, "layer_types must name 5 layers"),
        ("modernbert", {"layer_types": ["full_attention"]}, "layer_types must name 5 layers"),
        ("modernbert", {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "isn't built here"),
        ("modernbert", {"hidden_activation": "mish"}, "hidden_activation='mish' isn't known"),
        ("modernbert", {"classifier_pooling": "max"}, "classifier_pooling='max' isn't known; known are cls, mean"),
    ],
)  # fmt: skip
def test_what_is_not_built_is_refused(case: str, keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    name, settings = SETTINGS[case]
    published(f"{name}Config")(**settings).save_pretrained(tmp_path)
    changed(tmp_path, **keys)
    with pytest.raises((CheckpointError, ConfigError)) as caught:
        model_config(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("case", "keys"),
    [
        ("bert", {
            "directionality": "bidi", "pooler_fc_size": 768, "pooler_num_attention_heads": 12,
            "pooler_num_fc_layers": 3, "pooler_size_per_head": 128, "pooler_type": "first_token_transform",
            "gradient_checkpointing": False, "classifier_dropout": None, "pruned_heads": {},
        }),
        ("roberta", {"output_past": True, "bos_token_id": 0}),
        ("distilbert", {"tie_weights_": True, "qa_dropout": 0.1, "seq_classif_dropout": 0.2, "output_past": True}),
        ("modernbert", {
            "layer_norm_eps": 1e-5, "position_embedding_type": "absolute", "reference_compile": False,
            "repad_logits_with_grad": False, "sparse_pred_ignore_index": -100, "initializer_cutoff_factor": 2.0,
        }),
    ],
)  # fmt: skip
def test_keys_of_published_files_that_say_nothing_are_no_misspellings(
    case: str, keys: dict[str, Any], tmp_path: Path
) -> None:
    name, settings = SETTINGS[case]
    published(f"{name}Config")(**settings).save_pretrained(tmp_path)
    _, before = model_config(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))
    assert model_config(tmp_path)[1] == before


def test_newer_files_of_modernbert_name_layers_and_bases(tmp_path: Path) -> None:
    published("ModernBertConfig")(**MODERN).save_pretrained(tmp_path)
    _, old = model_config(tmp_path)
    assert (old.window, old.global_layers) == (3, (0, 3))
    assert (old.rotary_base, old.rotary_window_base) == (160_000.0, 10_000.0)
    kinds = ["full_attention" if i % 3 == 0 else "sliding_attention" for i in range(5)]
    bases = {
        "full_attention": {"rope_type": "default", "rope_theta": 80_000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0},
    }
    changed(
        tmp_path, layer_types=kinds, rope_parameters=bases, global_rope_theta=None, local_rope_theta=None,
        global_attn_every_n_layers=None,
    )  # fmt: skip
    _, new = model_config(tmp_path)
    assert new == old.replace(rotary_base=80_000.0, rotary_window_base=5000.0)
    # Layers that aren't every n-th can't be said in the older words that are written.
    assert family_config(old.replace(global_layers=(1, 3)))[0] is None


PRESETS = {
    "bert-base": ("bert", "BertForPreTraining", {}, 768 * 2 + 2),  # less the output for the next sentence
    "bert-large": ("bert", "BertForPreTraining", {
        "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
    }, 1024 * 2 + 2),
    "distilbert-base": ("distilbert", "DistilBertForMaskedLM", {}, 0),
    "roberta-base": ("roberta", "RobertaForMaskedLM", {"max_position_embeddings": 514, "type_vocab_size": 1}, 0),
    "roberta-large": ("roberta", "RobertaForMaskedLM", {
        "max_position_embeddings": 514, "type_vocab_size": 1, "hidden_size": 1024, "num_hidden_layers": 24,
        "num_attention_heads": 16, "intermediate_size": 4096,
    }, 0),
    "modernbert-base": ("modernbert", "ModernBertForMaskedLM", {}, 0),
    "modernbert-large": ("modernbert", "ModernBertForMaskedLM", {
        "hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "intermediate_size": 2624,
    }, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_the_published_models(name: str) -> None:
    family, made, settings, fewer = PRESETS[name]
    config = preset(name)
    found, written = family_config(config)
    assert (found, written["architectures"]) == (family, [made])
    cls = published(made)
    with torch.device("meta"):
        theirs = cls(cls.config_class(**settings))
    assert config.num_parameters() == sum(p.numel() for p in theirs.parameters()) - fewer
    # The written configuration means the same model there.
    with torch.device("meta"):
        again = cls(cls.config_class.from_dict(written))
    assert {n: p.shape for n, p in again.named_parameters()} == {
        n: p.shape for n, p in theirs.named_parameters()
    }


def test_a_model_of_no_family_is_written_as_ours(tmp_path: Path) -> None:
    config = preset("bert-base", width=16, num_heads=4, num_layers=1, vocab_size=200, norm_placement="pre")
    assert family_config(config)[0] is None
    with pytest.raises(ConfigError, match="bert has no model with these settings"):
        family_config(config, "bert")
    assert (
        ModelConfig.from_dict({k: v for k, v in family_config(config)[1].items() if k != "model_type"})
        == config
    )
