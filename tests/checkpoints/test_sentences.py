"""Sentence encoders: the files beside the network that say how it pools, written by hand as they are published."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.checkpoints.oracle import near, padded, tiny

from regard.checkpoints.load import Loaded, load_model, model_config, save_model
from regard.checkpoints.sentences import save_sentence_settings, sentence_settings
from regard.config import ModelConfig
from regard.errors import CheckpointError
from regard.models.transformer import build

MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]
POOLING = {
    "word_embedding_dimension": 16, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True,
    "pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False,
}  # fmt: skip
CONFIG = ModelConfig(
    kind="encoder", vocab_size=50, width=16, num_layers=2, num_heads=4, ffn_width=24, context=32, position="learned",
    norm_placement="post", norm_eps=1e-12, embedding_norm=True, activation="gelu", num_segments=2, pooler=True,
    head="none", dropout=0.1, attention_dropout=0.1, init_std=0.2, bos_id=None, eos_id=None,
)  # fmt: skip


def write(folder: Path, modules: Any = MODULES, pooling: Any = POOLING, length: Any = None) -> Path:
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    if length is not None:
        (folder / "sentence_bert_config.json").write_text(json.dumps(length))
    return folder


def bert(folder: Path) -> torch.nn.Module:
    """Save a tiny BERT without a head, with its pooler."""
    torch.manual_seed(0)
    module = build(CONFIG).eval()
    assert save_model(folder, module.state_dict(), CONFIG) == "bert"
    return module


def switched(name: str, **more: Any) -> dict[str, Any]:
    return {**POOLING, "pooling_mode_mean_tokens": False, name: True, **more}


def refused(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        sentence_settings(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_that_is_no_sentence_encoder_has_no_settings(tmp_path: Path) -> None:
    assert sentence_settings(tmp_path) is None
    bert(tmp_path)
    assert load_model(tmp_path).sentences is None


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        (POOLING, "mean"),
        (switched("pooling_mode_cls_token"), "first"),
        (switched("pooling_mode_lasttoken", include_prompt=True), "last"),
        ({"embedding_dimension": 16, "pooling_mode": "mean"}, "mean"),
        ({"embedding_dimension": 16, "pooling_mode": ["lasttoken"]}, "last"),
    ],
)
def test_poolings(pooling: dict[str, Any], expected: str, tmp_path: Path) -> None:
    assert sentence_settings(write(tmp_path, pooling=pooling)) == {
        "pooling": expected, "normalise": True, "max_length": None,
    }  # fmt: skip


def test_what_is_normalised_and_how_long_a_text_may_be(tmp_path: Path) -> None:
    folder = write(tmp_path, MODULES[:2], length={"max_seq_length": 128, "do_lower_case": False})
    assert sentence_settings(folder) == {"pooling": "mean", "normalise": False, "max_length": 128}
    write(tmp_path, MODULES, length={"max_seq_length": None})
    assert sentence_settings(folder) == {"pooling": "mean", "normalise": True, "max_length": None}


@pytest.mark.parametrize(
    ("pooling", "asked"),
    [
        (switched("pooling_mode_max_tokens"), "pooling_mode_max_tokens"),
        (switched("pooling_mode_mean_sqrt_len_tokens"), "pooling_mode_mean_sqrt_len_tokens"),
        (switched("pooling_mode_weightedmean_tokens"), "pooling_mode_weightedmean_tokens"),
        ({**POOLING, "pooling_mode_cls_token": True}, "pooling_mode_cls_token, pooling_mode_mean_tokens"),
        ({**POOLING, "pooling_mode_new_kind": True}, "pooling_mode_mean_tokens, pooling_mode_new_kind"),
        ({**POOLING, "pooling_mode_mean_tokens": False}, "no pooling"),
        ({"pooling_mode": "max"}, "max"),
        ({"pooling_mode": ["mean", "secret"]}, "mean, secret"),
        ({"pooling_mode": {"mean": 1}}, "{'mean': 1}"),
    ],
)
def test_other_poolings_are_refused(pooling: dict[str, Any], asked: str, tmp_path: Path) -> None:
    text = refused(write(tmp_path, pooling=pooling))
    assert f"asks for {asked}; built here is one of mean_tokens, cls_token and lasttoken." in text


def test_a_prompt_left_out_of_the_pooling_is_refused(tmp_path: Path) -> None:
    assert "(include_prompt), which isn't built here" in refused(
        write(tmp_path, pooling={**POOLING, "include_prompt": False})
    )


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (
            [*MODULES[:2], {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}],
            "Transformer, Pooling, Dense",
        ),
        (MODULES[:1], "has the steps Transformer; built here"),
        ([], "has the steps none"),
        ({"0": MODULES[0]}, "has the steps none"),
        (
            [{**MODULES[0], "type": "sentence_transformers.sparse_encoder.models.MLMTransformer"}],
            "MLMTransformer",
        ),
        ([{**MODULES[0], "path": "0_Transformer"}, MODULES[1]], "move its files beside modules.json"),
        ([MODULES[0], {**MODULES[1], "path": "../1_Pooling"}], "names the folder '../1_Pooling'"),
        ([MODULES[0], {**MODULES[1], "path": "/etc"}], "must be below that of modules.json"),
        ([MODULES[0], {**MODULES[1], "path": "C:\\x"}], "must be below that of modules.json"),
        ([MODULES[0], {"type": 1, "path": ""}], "each with a type and a path"),
        (["Transformer"], "each with a type and a path"),
        ([MODULES[0], {**MODULES[1], "path": "3_Pooling"}], "3_Pooling"),
    ],
)
def test_other_modules_are_refused(modules: Any, message: str, tmp_path: Path) -> None:
    assert message in refused(write(tmp_path, modules))


@pytest.mark.parametrize("length", [0, -3, "long", 1.5, True])
def test_a_length_that_cannot_be_is_refused(length: Any, tmp_path: Path) -> None:
    assert "must be a whole number of tokens" in refused(write(tmp_path, length={"max_seq_length": length}))


def test_a_pooling_file_that_is_no_object_is_refused(tmp_path: Path) -> None:
    assert "must hold an object" in refused(write(tmp_path, pooling=[1]))


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
@pytest.mark.parametrize("normalise", [True, False])
def test_what_is_written_is_read(pooling: str, normalise: bool, tmp_path: Path) -> None:
    settings = {"pooling": pooling, "normalise": normalise, "max_length": 7}
    save_sentence_settings(tmp_path, settings, 16)
    assert sentence_settings(tmp_path) == settings


def check_pooled(loaded: Loaded, module: Any, pooling: str) -> None:
    """Compare the vectors of texts with what the states say, on both sides' padding."""
    ours: Any = loaded.module
    for side in ("left", "right"):
        ids, mask = padded((9, 4, 7), side, vocabulary=50, pad=0)
        with torch.no_grad():
            found = ours.pool(ours(ids, key_mask=mask), mask)
            states = [module(row[real][None])[0] for row, real in zip(ids, mask, strict=True)]
        wanted = {"mean": lambda s: s.mean(0), "first": lambda s: s[0], "last": lambda s: s[-1]}[pooling]
        near(found, torch.stack([wanted(s) for s in states]), pooling)


@pytest.mark.parametrize(
    ("key", "pooling"),
    [
        ("pooling_mode_mean_tokens", "mean"),
        ("pooling_mode_cls_token", "first"),
        ("pooling_mode_lasttoken", "last"),
    ],
)
def test_a_sentence_encoder_pools_as_its_folder_says(key: str, pooling: str, tmp_path: Path) -> None:
    module = bert(tmp_path)
    write(tmp_path, pooling=switched(key), length={"max_seq_length": 16})
    loaded = load_model(tmp_path)
    assert loaded.config == CONFIG.replace(pooling=pooling, pooler=False)
    assert loaded.sentences == {"pooling": pooling, "normalise": True, "max_length": 16}
    # BERT's own pooler is no part of the vector.
    assert loaded.unused == ("pooler.dense.bias", "pooler.dense.weight")
    check_pooled(loaded, module, pooling)
    again = tmp_path / "again"
    weights = loaded.module.state_dict()
    assert save_model(again, weights, loaded.config, family="bert", sentences=loaded.sentences) == "bert"
    second = load_model(again)
    assert (second.config, second.sentences, second.unused) == (loaded.config, loaded.sentences, ())
    assert all(torch.equal(second.module.state_dict()[name], tensor) for name, tensor in weights.items())


def test_without_its_files_a_pooling_that_the_family_lacks_is_kept_as_ours(tmp_path: Path) -> None:
    config = CONFIG.replace(pooling="mean", pooler=False)
    assert save_model(tmp_path, build(config).state_dict(), config) is None
    assert load_model(tmp_path).config == config


def test_the_class_that_a_sentence_encoder_names_does_not_matter(tmp_path: Path) -> None:
    # As in several published ones, whose files hold no such head.
    bert(tmp_path)
    write(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "architectures": ["BertForMaskedLM"]}))
    assert model_config(tmp_path)[1] == CONFIG.replace(pooling="mean", pooler=False)
    assert load_model(tmp_path).config.head == "none"


def test_a_sentence_encoder_that_is_not_built_here_is_not_loaded_in_part(tmp_path: Path) -> None:
    bert(tmp_path)
    write(tmp_path, [*MODULES[:2], {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}])
    with pytest.raises(CheckpointError, match="To load the network alone, take that file away"):
        load_model(tmp_path)
    (tmp_path / "modules.json").unlink()
    assert load_model(tmp_path).config == CONFIG


def test_a_decoder_may_be_one_too(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.Qwen3Config(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=24, head_dim=4, pad_token_id=0,
    )  # fmt: skip
    theirs = tiny(transformers.Qwen3ForCausalLM, config)
    theirs.save_pretrained(tmp_path)
    write(tmp_path, pooling=switched("pooling_mode_lasttoken"))
    loaded = load_model(tmp_path)
    assert (loaded.config.kind, loaded.config.head, loaded.config.pooling) == ("decoder", "none", "last")
    check_pooled(loaded, lambda ids: theirs.model(ids).last_hidden_state, "last")


def test_an_encoder_decoder_is_not(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.T5Config(
        vocab_size=50, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4, decoder_start_token_id=0
    )
    config.save_pretrained(tmp_path)
    write(tmp_path)
    with pytest.raises(CheckpointError, match="sentence vectors of an encoder-decoder aren't built here"):
        model_config(tmp_path)
    shutil.rmtree(tmp_path / "1_Pooling")
    (tmp_path / "modules.json").unlink()
    assert model_config(tmp_path)[1].kind == "encoder-decoder"
