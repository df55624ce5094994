"""Runs of tag with scores of which tag follows which: what they learn and keep, how they go on and are written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.checkpoints.oracle import tiny
from tests.tasks.small import make_parts, save
from tests.tiny_data import measured, write_all

import regard
from regard import runs
from regard.cli import main
from regard.config import ModelConfig
from regard.conversion import convert
from regard.errors import ConfigError
from regard.tasks.preparation import fit_model
from regard.tasks.tag import TagTask
from regard.training.config import TrainConfig
from regard.training.optim import make_optimizers, set_learning_rate

FAST: dict[str, Any] = {"precision": "fp32", "steps": 4, "evaluate_every": 2, "save_every": 2, "log_every": 1}
TINY: dict[str, Any] = {**FAST, "width": 16, "num_heads": 2, "num_layers": 1, "warmup": 2, "lr": 0.01}
SCORES = [f"head.transitions.{name}" for name in ("between", "start", "end")]
TAGGER: dict[str, Any] = {"kind": "encoder", "vocab_size": 9, "width": 8, "num_heads": 2, "num_layers": 1,
                          "head": "tag", "labels": ["a", "b", "c"]}  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(write_all(tmp_path))
    # A picture takes as long as a run here.
    monkeypatch.setattr("regard.tasks.ending.draw_curves", lambda *args, **kwargs: None)
    return tmp_path


def kept(run: str) -> dict[str, torch.Tensor]:
    return load_file(f"{run}/model.safetensors")


def record(run: str) -> dict[str, Any]:
    return json.loads(Path(run, "regard.json").read_text())


# What only they can tell


def test_only_scores_of_what_follows_tell_these_tags(here: Path) -> None:
    """The first word says the first tag, then tags alternate; a model without positions sees equal words as one."""
    sentences = []
    for i in range(120):
        count, odd = 3 + i % 5, i % 2
        words = ["xy"[odd], *["a"] * count]
        sentences.append("\n".join(f"{word}\t{('O', 'B-N')[(k + odd) % 2]}" for k, word in enumerate(words)))
    Path("turns.conll").write_text("\n\n".join(sentences) + "\n")
    settings = {**TINY, "steps": 60, "evaluate_every": 60, "save_every": 60, "position": "none", "lr": 0.02,
                "dropout": 0.0, "schedule": "constant"}  # fmt: skip
    found = {}
    for transitions in (False, True):
        run = runs.train(
            "tag", "turns.conll", out=f"run{transitions}", head_transitions=transitions, **settings
        )
        found[transitions] = run.evaluation.metrics
        assert runs.load_parts(run.path).config.head_transitions == transitions
    assert found[True]["f1"] == found[True]["accuracy"] == 1
    assert found[False]["f1"] < 0.7 and found[False]["accuracy"] < 0.7
    model = regard.load("runTrue")
    entities = model.tag("y a a a a a a a a a").entities  # longer than any that it has seen
    assert [one.start for one in entities] == [0, 4, 8, 12, 16]
    assert all(0.5 < one.score <= 1 for one in entities)


# What is kept


def test_they_are_kept_and_resumed_exactly(here: Path) -> None:
    settings = {**TINY, "schedule": "constant", "average": "ema", "word_dropout": 0.2, "micro_tokens": 64,
                "class_weights": "balanced", "batch_tokens": 256}  # fmt: skip
    runs.train("tag", "tags.conll", out="whole", **settings)
    runs.train("tag", "tags.conll", out="part", **{**settings, "steps": 2})
    runs.train("tag", out="part", resume=True, steps=4)
    whole, part = kept("whole"), kept("part")
    assert set(SCORES) <= set(whole)
    assert whole.keys() == part.keys() and all(torch.equal(whole[name], part[name]) for name in whole)
    assert measured(here / "whole") == measured(here / "part")
    assert whole[SCORES[0]].any()
    parts = runs.load_parts("whole")
    assert parts.config.head_transitions and record("whole")["model"]["head_transitions"]
    assert sum(p.numel() for p in parts.module.parameters()) == parts.config.num_parameters()
    assert torch.equal(parts.module.state_dict()[SCORES[1]], whole[SCORES[1]])


def test_bf16_runs_and_a_loaded_bf16_model_tags(here: Path) -> None:
    runs.train("tag", "tags.conll", out="run", **{**TINY, "precision": "bf16"})
    exact, rough = (regard.load("run", precision=p).tag("the dog sees a cat") for p in ("fp32", "bf16"))
    assert [one.score for one in rough.entities] == pytest.approx(
        [one.score for one in exact.entities], abs=0.05
    )


def test_a_run_from_before_they_were_there_is_as_it_was(tmp_path: Path) -> None:
    parts = make_parts("encoder", head="tag", labels=("B-N", "O"))
    folder = save(parts, tmp_path / "old")
    content = json.loads((folder / "config.json").read_text())
    assert content.pop("head_transitions") is False
    (folder / "config.json").write_text(json.dumps(content))
    model = regard.load(folder)
    assert not model.config.head_transitions and model.module.head.transitions is None
    assert not any("transitions" in name for name in model.module.state_dict())


def test_another_librarys_format_is_refused(here: Path) -> None:
    runs.train("tag", "tags.conll", out="run", model="gpt2", **TINY)
    assert json.loads(Path("run/config.json").read_text())["model_type"] == "regard"
    with pytest.raises(
        ConfigError, match=r"gpt2 has no scores of which tag follows which; .*head_transitions=False"
    ):
        regard.load("run").save("theirs", family="gpt2")
    with pytest.raises(ConfigError, match="gpt2 has no scores"):
        convert("run", "theirs", family="gpt2")
    assert not Path("theirs", "model.safetensors").exists()
    assert convert("run", "ours").written is None
    assert all(torch.equal(kept("ours")[name], kept("run")[name]) for name in SCORES)
    runs.train("tag", "tags.conll", out="plain", model="gpt2", head_transitions=False, **TINY)
    assert json.loads(Path("plain/config.json").read_text())["model_type"] == "gpt2"


# From a trained model


def test_from_a_tagger_they_go_on(here: Path) -> None:
    runs.train("tag", "tags.conll", out="run", **TINY)
    runs.train("tag", "tags.conll", start="run", out="again", **{**FAST, "lr": 1e-12})
    assert record("again")["start"]["new"] == []
    for name in SCORES:
        torch.testing.assert_close(kept("again")[name], kept("run")[name], rtol=0, atol=1e-6)
    runs.train("tag", "tags.conll", start="run", out="thin", lora=2, **FAST)
    assert all(torch.equal(kept("thin")[name], kept("run")[name]) for name in SCORES)
    runs.train("tag", "tags.conll", start="run", out="frozen", freeze=["head"], **FAST)
    assert all(torch.equal(kept("frozen")[name], kept("run")[name]) for name in SCORES)
    runs.train("tag", "tags.conll", start="run", out="without", head_transitions=False, **FAST)
    assert not set(SCORES) & set(kept("without"))
    runs.train("tag", "tags.conll", start="without", out="plain", **FAST)
    assert not runs.load_parts("plain").config.head_transitions
    runs.train("tag", "tags.conll", start="without", out="with", head_transitions=True, **FAST)
    assert record("with")["start"]["new"] == SCORES
    runs.train("classify", "labels.tsv", start="run", out="classes", **FAST)
    assert not runs.load_parts("classes").config.head_transitions


def test_from_what_is_no_tagger_they_are_new_and_from_a_published_model_asked_for(here: Path) -> None:
    runs.train("fill", "text.txt", out="filler", **TINY)
    runs.train("tag", "tags.conll", start="filler", out="run", lora=2, **FAST)
    assert set(SCORES) <= set(record("run")["start"]["new"])
    assert kept("run")[SCORES[0]].any()  # what is new learns beside adapters
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=12, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    tiny(transformers.BertModel, config).save_pretrained("bert")
    Path("bert/vocab.txt").write_text(
        "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\na\ndog\ncat\nman\nsees\nlikes\n"
    )
    runs.train("tag", "tags.conll", start="bert", out="theirs", **FAST)
    assert json.loads(Path("theirs/config.json").read_text())["architectures"] == [
        "BertForTokenClassification"
    ]
    runs.train("tag", "tags.conll", start="bert", out="ours", head_transitions=True, **FAST)
    assert set(SCORES) < set(record("ours")["start"]["new"])
    assert regard.load("ours").family is None and regard.load("ours").tag("the dog").tokens


# The settings


def test_they_are_for_taggers_who_may_do_without(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ModelConfig.from_dict({**TAGGER, "head_transitions": True})
    assert config.num_parameters() == ModelConfig.from_dict(TAGGER).num_parameters() + 3 * 3 + 3 + 3
    with pytest.raises(ConfigError, match="head_transitions is for head='tag', not 'lm'"):
        ModelConfig(kind="encoder", vocab_size=9, head_transitions=True)
    task, words = TagTask(), make_parts("encoder").tokenizer
    for given, changes, wanted in (("encoder-tiny", {}, True), ("encoder-tiny", {"head_transitions": False}, False),
                                   (ModelConfig.from_dict(TAGGER), {}, False), (config, {}, True)):  # fmt: skip
        assert fit_model(task, given, words, ("a", "b"), changes).head_transitions == wanted
    with pytest.raises(ConfigError, match="head_transitions='no' must be true or false"):
        runs.train("tag", "tags.conll", out="run", head_transitions="no")
    for flag in ("--head-transitions", "--no-head-transitions"):
        assert main(["train", "classify", "labels.tsv", "--out", "run", flag]) == 2
        assert "head_transitions" in capsys.readouterr().err
    assert main(["train", "tag", "tags.conll", "--out", "run", "--no-head-transitions", "--width", "16", "--num-heads",
                 "2", "--num-layers", "1", "--steps", "2", "--precision", "fp32"]) == 0  # fmt: skip
    assert "--no-head-transitions" in Path("run/README.md").read_text()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_they_learn_ten_times_as_fast(optimizer: Any) -> None:
    module = make_parts("encoder", head="tag", labels=("a", "b"), head_transitions=True).module
    made = make_optimizers(module, TrainConfig(steps=1, optimizer=optimizer))
    set_learning_rate(made, 0.1)
    rates = {id(p): group["lr"] for one in made for group in one.param_groups for p in group["params"]}
    for name, p in module.named_parameters():
        assert rates[id(p)] == pytest.approx(1.0 if name in SCORES else 0.1)
