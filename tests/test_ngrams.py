"""A model with embedded n-grams, from its training to its looks: everything that other models do."""

import pytest
import torch
from tests.tiny_data import DATA, write_all

import regard
from regard import runs
from regard.checkpoints.files import load_tensors

SETTINGS = {
    "width": 16, "num_heads": 2, "num_layers": 1, "steps": 4, "evaluate_every": 2, "save_every": 2, "warmup": 2,
    "ngrams": 3, "ngram_rows": 100, "position": "alibi", "context": 16, "tokenizer": "char",
}  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(write_all(tmp_path))


def train(out, **changes):
    return runs.train("generate", DATA["generate"], out=out, **{**SETTINGS, **changes})


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_is_the_run_that_never_stopped(here, optimizer, precision):
    given = {"optimizer": optimizer, "precision": precision, "schedule": "constant"}
    train("whole", **given, steps=6)
    train("parts", **given, steps=4)
    runs.train("generate", out="parts", resume=True, steps=6)
    whole, parts = load_tensors("whole/model.safetensors"), load_tensors("parts/model.safetensors")
    assert any("ngram" in name for name in whole)
    for name, value in whole.items():
        assert torch.equal(value, parts[name]), name


def test_what_is_trained_writes_and_is_looked_into(here):
    train("run", precision="fp32")
    model = regard.load("run")
    assert model.config.ngrams == 3
    settings = {"max_tokens": 40, "temperature": 0.0}  # longer than the context: windows too
    text = str(model.generate("the dog", **settings))
    assert len(text) == len("the dog") + 40
    assert str(model.generate("the dog", lookup=4, **settings)) == text
    look = model.look("the dog sees")
    assert look is not None
    many = [str(one) for one in model.generate(["the dog", "a"], **settings)]
    assert many[0] == text
