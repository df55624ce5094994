"""Variants under one budget: what is read, trained, told apart, and gone on with."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_data import write_all

from regard.cli import main
from regard.config import ModelConfig
from regard.config_recurrent import RecurrentConfig
from regard.errors import ConfigError
from regard.lab import compare as module
from regard.lab.compare import Variant, compare, read_variant, read_variants
from regard.runs import read_run

SMALL = {"width": 16, "num_layers": 1, "precision": "fp32", "batch_tokens": 256, "log_every": 1}
TWO = [Variant("one head", None, {"num_heads": 1}), Variant("two heads", None, {"num_heads": 2})]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Write small files, work beside them, and draw no curves."""
    monkeypatch.chdir(write_all(tmp_path))
    monkeypatch.setattr("regard.tasks.ending.draw_curves", lambda *_, **__: None)
    return ["text.txt"]


def test_variants_are_presets_settings_or_files(tmp_path: Path) -> None:
    assert read_variant("generate-small") == Variant("generate-small", "generate-small", {})
    text = "generate-small,position=alibi,lr=2e-3,gated=true,num_heads=2"
    settings = {"position": "alibi", "lr": 2e-3, "gated": True, "num_heads": 2}
    assert read_variant(text) == Variant(text, "generate-small", settings)
    config = ModelConfig(kind="decoder", vocab_size=50, width=16, num_heads=2)
    (tmp_path / "mine.json").write_text(json.dumps({"model": config.to_dict(), "lr": 0.1}))
    assert read_variant(str(tmp_path / "mine.json")) == Variant("mine", config, {"lr": 0.1})
    gru = RecurrentConfig(kind="decoder", vocab_size=50, width=16, cell="gru")
    (tmp_path / "gru.json").write_text(json.dumps({"model": gru.to_dict()}))
    assert read_variant(str(tmp_path / "gru.json")) == Variant("gru", gru, {})
    (tmp_path / "named.json").write_text(json.dumps({"name": "a b", "vocab_size": 300}))
    named = read_variant(str(tmp_path / "named.json"))
    assert named == Variant("a b", None, {"vocab_size": 300}) and named.folder == "a_b"


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["num_heads=1"], "two variants at least"),
        (["num_heads=1", "num_heads=1"], "two variants are called num_heads=1"),
        (["num_head=1", "lr=1"], "did you mean 'num_heads'"),
        (["generate-smal", "lr=1"], "did you mean 'generate-small'"),
        (["lr=1,warmup", "lr=1"], "'warmup' in 'lr=1,warmup' is no setting"),
        (["lr=", "lr=1"], "is no setting"),
        (["steps=5", "lr=1"], "steps is the comparison's own"),
        (["seed=5", "lr=1"], "seed is the comparison's own"),
        (["nowhere.json", "lr=1"], "nowhere.json can't be read: No such file"),
    ],
)
def test_what_is_no_variant_is_refused(texts: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_variants(texts)


def test_a_recurrent_model_stands_beside_a_transformer(data: list[str], tmp_path: Path) -> None:
    two = [Variant("gru", "gru"), Variant("transformer", None, {"num_heads": 2})]
    result = compare("generate", two, data, out=tmp_path / "out", tokens=256, seeds=1, common=SMALL)
    cells = [read_run(tmp_path / "out" / one.folder / "seed-1")["model"].get("cell") for one in two]
    assert cells == ["gru", None]
    ours, theirs = (one["parameters"] for one in result["variants"])
    assert 0 < ours != theirs > 0


def test_every_variant_gets_the_same_steps_and_seeds(data: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = compare("generate", TWO, data, out=out, tokens=1024, seeds=2, common=SMALL)
    assert result == json.loads((out / "compare.json").read_text())
    for one, variant in zip(result["variants"], TWO, strict=True):
        runs = [read_run(out / variant.folder / f"seed-{seed}") for seed in (1, 2)]
        assert [run["training"]["steps"] for run in runs] == [4, 4]
        assert [run["training"]["seed"] for run in runs] == [1, 2]
        assert {run["model"]["num_heads"] for run in runs} == {variant.settings["num_heads"]}
        assert one["values"] == [run["result"]["metrics"][result["metric"]] for run in runs]
        assert one["parameters"] == result["variants"][0]["parameters"]
    first, second = result["variants"]
    assert first["against_first"] is None
    apart = [b - a for a, b in zip(first["values"], second["values"], strict=True)]
    assert second["against_first"]["mean"] == pytest.approx(sum(apart) / 2)
    ET.fromstring((out / "compare.svg").read_text())


def test_the_same_call_goes_on_and_another_is_refused(
    data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, trained = tmp_path / "out", []
    real = module.train

    def counting(*words: Any, **settings: Any) -> Any:
        if len(trained) == 1:
            trained.append("stopped")
            raise KeyboardInterrupt
        trained.append(str(settings["out"]))
        return real(*words, **settings)

    monkeypatch.setattr(module, "train", counting)
    with pytest.raises(KeyboardInterrupt):
        compare("generate", TWO, data, out=out, tokens=512, seeds=1, common=SMALL)
    compare("generate", TWO, data, out=out, tokens=512, seeds=1, common=SMALL)
    assert len(trained) == 3, "the first run isn't trained again"
    more = compare("generate", TWO, data, out=out, tokens=512, seeds=2, common=SMALL)
    assert len(trained) == 5 and more["seeds"] == [1, 2]
    with pytest.raises(ConfigError, match="begun with another tokens;"):
        compare("generate", TWO, data, out=out, tokens=1024, seeds=2, common=SMALL)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("")
    with pytest.raises(ConfigError, match="holds something else than a comparison"):
        compare("generate", TWO, data, out=tmp_path / "other", tokens=512, common=SMALL)


def test_minutes_are_a_budget_too(data: list[str], tmp_path: Path) -> None:
    small = {"num_layers": 1, "precision": "fp32"}
    sides = [Variant("a", None, {**small, "width": 16}), Variant("b", None, {**small, "width": 32})]
    result = compare("generate", sides, data, out=tmp_path / "out", minutes=0.02, seeds=1)
    assert [one["parameters"] for one in result["variants"]] == sorted(
        {one["parameters"] for one in result["variants"]}
    )
    record = read_run(tmp_path / "out" / "a" / "seed-1")
    assert record["training"]["minutes"] == 0.02 and record["model"]["width"] == 16
    assert result["variants"][0]["metrics"][result["metric"]]["low"] is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "either minutes or tokens"),
        ({"minutes": 1.0, "tokens": 5}, "either minutes or tokens"),
        ({"tokens": 0}, "tokens=0 train nothing"),
        ({"tokens": 5, "seeds": 0}, "seeds=0 is not allowed"),
        ({"tokens": 5, "common": {"steps": 3}}, "steps is the comparison's own"),
    ],
)
def test_what_cant_be_is_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        compare("generate", TWO, ["x.txt"], out=tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_the_verb_prints_a_table_or_one_object(data: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", "num_heads=1", "num_heads=2", "--data", *data, "--tokens", "512", "--seeds", "2"]
    words += [f"--set={name}={value}" for name, value in SMALL.items()]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found["variants"]] == ["num_heads=1", "num_heads=2"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "less the first" in shown and "num_heads=2" in shown and "2 seeds, Student's t" in shown
    assert main(["compare", "num_heads=1", "--data", *data, "--tokens", "9"]) == 2
    assert main(["compare", "lr=1", "lr=2", "--data", *data, "--tokens", "9", "--set", "lr"]) == 2
    assert "--set lr is no setting" in capsys.readouterr().err
