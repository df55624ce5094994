"""Recurrent models through the front door: train, resume, load, write, look; and what they can't do, in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_data import DATA, write_all

import regard
from regard.checkpoints.files import load_tensors
from regard.config_recurrent import RecurrentConfig
from regard.errors import ConfigError, RegardError
from regard.look.attribution import attribute
from regard.look.draw.payload import payload
from regard.look.draw.views import numbers
from regard.look.flow import Target
from regard.look.intervene import intervening, keep_only
from regard.models.transformer import build
from regard.tasks.looking import read
from regard.tasks.steps import Token, write
from regard.training.loss import sequence_loss

TINY: dict[str, Any] = {
    "width": 16, "num_layers": 1, "precision": "fp32", "steps": 4, "evaluate_every": 2, "save_every": 2,
    "log_every": 1, "warmup": 2,
}  # fmt: skip
MODELS = {
    "translate": ["rnn", "lstm", "gru", "gru-attention", "lstm-attention"],
    "generate": ["lstm"], "fill": ["gru"], "denoise": ["gru-attention"], "classify": ["rnn"], "tag": ["lstm"],
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., regard.Model]:
    """Train a tiny model, once for each sort, and load it."""
    made: dict[str, Path] = {}

    def make(task: str, model: str, **settings: Any) -> regard.Model:
        key = f"{task}-{model}-{settings}"
        if key not in made:
            made[key] = tmp_path_factory.mktemp("runs") / "run"
            files = [data / name for name in DATA[task]]
            regard.train(task, files, model=model, out=made[key], **{**TINY, **settings})
        return regard.load(made[key])

    return make


@pytest.mark.parametrize(("task", "model"), [(task, model) for task in MODELS for model in MODELS[task]])
def test_a_run_is_read_back_bit_by_bit(
    task: str, model: str, trained: Callable[..., regard.Model], tmp_path: Path
) -> None:
    made = trained(task, model)
    assert isinstance(made.config, RecurrentConfig)
    assert made.place is not None
    content = json.loads((made.place.folder / "config.json").read_text())
    assert content["model_type"] == "regard"
    assert content["cell"] == model.removesuffix("-attention")
    assert "num_heads" not in content
    assert made.save(tmp_path / "again") is None
    saved, own = load_tensors(tmp_path / "again" / "model.safetensors"), made.module.state_dict()
    assert all(torch.equal(saved[name], own[name]) for name in saved)
    again = regard.load(tmp_path / "again")
    assert again.config == made.config
    ids = [[5, 6, 7, 8]]
    target = ids if made.config.kind == "encoder-decoder" else None
    assert torch.equal(again.logits(ids, target), made.logits(ids, target))


@pytest.mark.parametrize("model", ["gru-attention", "lstm"])
def test_a_resumed_run_is_the_one_that_never_stopped(model: str, data: Path, tmp_path: Path) -> None:
    files = [data / name for name in DATA["translate"]]
    settings = {**TINY, "model": model, "schedule": "constant"}
    regard.train("translate", files, out=tmp_path / "whole", **settings)
    regard.train("translate", files, out=tmp_path / "parts", **{**settings, "steps": 2})
    regard.train("translate", out=tmp_path / "parts", resume=True, steps=4)
    whole, parts = (load_tensors(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_seed_decides_a_run(data: Path, tmp_path: Path) -> None:
    files = [data / name for name in DATA["generate"]]
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        regard.train("generate", files, model="gru", out=tmp_path / name, seed=seed, **TINY)
    a, b, c = (load_tensors(tmp_path / name / "model.safetensors") for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], c[name]) for name in a)


@pytest.mark.parametrize("settings", [{}, {"score": "dot"}, {"score": "general", "input_feeding": False}])
def test_what_a_translation_looks_at_is_seen(
    settings: dict[str, Any], trained: Callable[..., regard.Model]
) -> None:
    made = trained("translate", "gru-attention", **settings)
    look = made.look("the dog sees", "le chien")
    assert list(look.layers) == ["cross.0"]
    layer = look.layers["cross.0"]
    assert layer.heads == 1
    assert layer.error < 1e-5
    weights = layer.weights(0, slice(None), slice(None))
    torch.testing.assert_close(weights.sum(-1), torch.ones(len(weights)))
    torch.testing.assert_close(layer.row(0, 1).float(), weights[1], atol=1e-6, rtol=1e-4)
    packed = payload(look)["layers"][0]
    assert ("weights" in packed) == (
        not settings
    )  # additive scores can't be made again from queries and keys
    assert packed["error"] < 1e-3
    assert made.look("the dog").layers["cross.0"].shape[1] == look.layers["cross.0"].shape[1] - 1


@pytest.mark.parametrize("settings", [{}, {"score": "dot"}])
def test_what_each_step_of_a_translation_sees_is_what_a_look_shows(
    settings: dict[str, Any], trained: Callable[..., regard.Model]
) -> None:
    made = trained("translate", "gru-attention", **settings)
    events: list[Any] = []
    kept = made.tokenizer.encode("le chien voit") if made.tokenizer else []
    write(
        made.parts, "translate", "the dog sees", kept=kept, attention=True, tell=events.append, max_tokens=6
    )
    steps = [event for event in events if isinstance(event, Token)][: len(kept)]
    layer = made.look("the dog sees", "le chien voit").layers["cross.0"]
    weights = layer.weights(0, slice(None), slice(None))
    seen = torch.cat([step.seen[:, 0] for step in steps if step.seen is not None])
    torch.testing.assert_close(seen, weights[: len(seen)], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"score": "dot"}])
def test_beams_with_coverage_batches_and_halves_of_precision(
    settings: dict[str, Any], trained: Callable[..., regard.Model]
) -> None:
    made = trained("translate", "gru-attention", **settings)
    texts = ["the dog", "a cat sees the man", "the man"]
    together = made.translate(texts, beams=3, num_return=2)
    for text, found in zip(texts, together, strict=True):
        alone = made.translate(text, beams=3, num_return=2)
        assert alone.text == found.text
        assert alone.score == pytest.approx(found.score, abs=1e-5)
    assert made.translate("the dog", beams=2, coverage_penalty=0.2).tokens > 0
    assert made.place is not None
    half = regard.load(made.place.folder, precision="bf16")
    assert half.score("le chien", source="the dog").logprob == pytest.approx(
        made.score("le chien", source="the dog").logprob, rel=0.05
    )


def test_gradients_say_which_words_mattered(trained: Callable[..., regard.Model]) -> None:
    made = trained("translate", "gru-attention")
    reading = read(made.parts, "the dog sees", "le chien")
    found = attribute(made, reading, Target(7), "integrated", steps=8)
    assert {name: len(values) for name, values in found.values.items()} == {
        name: len(side.ids) for name, side in reading.sides.items()
    }
    assert found.gap is not None
    assert abs(found.gap) < 0.05


def test_what_a_recurrent_model_cannot_do_is_said_in_a_line(
    trained: Callable[..., regard.Model], data: Path, tmp_path: Path
) -> None:
    made, plain = trained("translate", "gru-attention"), trained("translate", "lstm")
    language = trained("generate", "lstm")
    reading = read(made.parts, "the dog", "le chien")
    files = [data / name for name in DATA["translate"]]
    assert made.place is not None
    folder = made.place.folder

    def change() -> None:
        with intervening(made, keep_only("cross.0.0")):
            pass

    tries: dict[str, Callable[[], Any]] = {
        "no attention to tell": lambda: write(language.parts, "generate", "the", attention=True),
        "has no attention: there is nothing to look at": lambda: plain.look("the dog"),
        "recurrent and has no attention": lambda: language.look("the dog"),
        "no places to record or to change": change,
        "additive scores": lambda: numbers(made.look("the dog", "le chien"), "cross.0", 0, row=1),
        "no layer 'encoder.0'": lambda: made.look("the dog", layers=["encoder.0"]),
        "nothing that ends in '.heads'": lambda: attribute(made, reading, Target(7), "gradient-attention"),
        "int8 is for a Transformer's blocks": lambda: regard.load(folder, precision="int8"),
        "marian has no model": lambda: made.save(tmp_path / "marian", family="marian"),
        "can't take tokens back": lambda: language.generate("the", lookup=3, temperature=0.0, max_tokens=6),
        "this model looks at no source": lambda: plain.translate("the dog", coverage_penalty=0.2),
        "lora is for a Transformer's layers": lambda: regard.train("translate", files, start=folder, lora=2),
        "num_heads is for a Transformer": lambda: regard.train(
            "translate", files, model="gru-attention", num_heads=2
        ),
        "cell is for a recurrent model": lambda: regard.train("translate", files, cell="gru"),
        "generate needs a model of kind decoder": lambda: regard.train(
            "generate", files[:1], model="gru-attention"
        ),
        "did you mean 'gru-attention'": lambda: regard.train("translate", files, model="gru-atention"),
    }
    for text, act in tries.items():
        with pytest.raises(RegardError) as found:
            act()
        assert text in str(found.value)
        assert "\n" not in str(found.value)


def test_parts_of_a_recurrent_model_stay_frozen(
    trained: Callable[..., regard.Model], data: Path, tmp_path: Path
) -> None:
    made = trained("translate", "gru-attention")
    assert made.place is not None
    files = [data / name for name in DATA["translate"]]
    own = {k: v for k, v in TINY.items() if k not in ("width", "num_layers")} | {"lr": 0.01}
    start = made.place.folder
    regard.train("translate", files, start=start, out=tmp_path / "run", freeze=["encoder.0"], **own)
    before, after = made.module.state_dict(), load_tensors(tmp_path / "run" / "model.safetensors")
    same = {name for name in after if torch.equal(before[name], after[name])}
    assert same == {name for name in after if name.startswith("encoder.")}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"cell": "grue"}, "did you mean 'gru'?"),
        ({"kind": "decoder", "score": "dot"}, "score is for kind='encoder-decoder', not 'decoder'"),
        ({"kind": "decoder", "score": "none", "bidirectional": True}, "a decoder sees only what came before"),
        ({"input_feeding": True}, "input_feeding is for score='dot' or 'general', not 'additive'"),
        ({"repeat_context": True}, "repeat_context is for score='none', not 'additive'"),
        ({"width": 15}, "a bidirectional encoder needs an even width, not 15"),
        ({"head": "span"}, "is for an encoder or decoder"),
        ({"window": 3}, "window is for a Transformer"),
        ({"width": "16"}, "width='16' must be a whole number"),
        ({"scores": "dot"}, "did you mean 'score'?"),
    ],
)
def test_a_configuration_that_cannot_be_says_why(changes: dict[str, Any], text: str) -> None:
    values = {"kind": "encoder-decoder", "vocab_size": 9, "width": 16, "score": "additive", **changes}
    with pytest.raises(ConfigError) as found:
        RecurrentConfig.from_dict(values)
    assert text in str(found.value)


@pytest.mark.parametrize("form", ["additive", "dot", "general", "none"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_gradients_in_bfloat16_are_near_those_in_single_precision(form: Any, cell: Any) -> None:
    torch.manual_seed(0)
    config = RecurrentConfig(kind="encoder-decoder", vocab_size=64, width=64, cell=cell, score=form)
    module = build(config)
    source, target = torch.randint(3, 64, (16, 6)), torch.randint(3, 64, (16, 7))
    batch = {"source": source, "target_in": target[:, :-1], "target_out": target[:, 1:],
             "source_mask": torch.arange(6) < torch.randint(2, 7, (16, 1))}  # fmt: skip
    found = []
    for narrow in (False, True):
        module.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            sums = sequence_loss(module, batch, 0.1)
        sums.loss.backward()
        found.append({name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys() == dict(module.named_parameters()).keys()
    for name, wide in found[0].items():
        assert torch.cosine_similarity(wide.flatten(), found[1][name].flatten(), 0) > 0.9, name
