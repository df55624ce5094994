"""`regard heads` on models of each kind, and on a run of the demo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.verb_models import make
from tests.tasks.small import save

from regard import demo
from regard.cli import main
from regard.config import Kind, ModelConfig
from regard.data.tokenizers import Tokenizer
from regard.data.world import World
from regard.demo_heads import world_seed
from regard.look.measures import MEASURES
from regard.models.transformer import build
from regard.tasks.base import Parts

TEXTS = ["a dog runs and a dog sleeps.", "a cat, a dog and a bird", "the dog sees the cat again"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    kinds: tuple[Kind, ...] = ("encoder", "decoder", "encoder-decoder")
    for kind in kinds:
        save(make(kind), folder / kind)
    (folder / "texts").write_text("\n".join(TEXTS) + "\n\n")
    (folder / "others").write_text("\n".join(reversed(TEXTS)) + "\n\n")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make what the demo leaves, with weights that nobody trained."""
    folder = tmp_path_factory.mktemp("demo") / "run"
    examples = World(3, demo.SHAPES, demo.SCENES).examples("train", 200)
    texts = [text for example in examples for text in (example.source, example.target)]
    tokenizer = Tokenizer.train(texts, kind="bpe", vocab_size=500)
    config = ModelConfig(
        kind="encoder-decoder",
        vocab_size=tokenizer.vocab_size,
        width=16,
        num_layers=1,
        num_heads=2,
        context=64,
    )
    save(Parts(build(config).eval(), tokenizer, config), folder)
    data = ["elsewhere/run-world/train.en", "elsewhere/run-world/train.fr"]
    record = {"task": "translate", "data": data, "training": {"seed": 3}, "valid": [], "model": {}, "given": {},
              "stores": {}, "sizes": {}}  # fmt: skip
    (folder / "regard.json").write_text(json.dumps(record))
    return folder


def data_of(kind: str, folder: Path) -> list[str]:
    return [str(folder / "texts"), *([str(folder / "others")] if kind == "encoder-decoder" else [])]


def printed(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(words) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("kind", ["encoder", "decoder", "encoder-decoder"])
def test_every_head_has_a_line(kind: str, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["heads", str(models / kind), *data_of(kind, models)]
    found = printed([*words, "--effects", "--json"], capsys)
    assert (found["texts"], found["skipped"]) == (3, 0)
    kinds = ["encoder", "decoder", "cross"] if kind == "encoder-decoder" else [kind]
    layers = {one["layer"] for one in found["heads"]}
    assert layers == {f"{name}.0" for name in kinds}
    assert len(found["heads"]) == 2 * len(kinds)
    for head in found["heads"]:
        assert {"layer", "head", "roles", "measures", "rows", "sampled", "effect"} == set(head)
        assert all({"name", "score", "why"} == set(role) for role in head["roles"])
        assert set(head["measures"]) <= set(MEASURES)
        entropy = head["measures"]["entropy"]
        wanted = {"value", "baseline", "n", "deviation", "low", "high", "texts", "best", "worst"}
        assert wanted == set(entropy) and entropy["texts"] == 3
        assert {"change", "low", "high", "n"} <= set(head["effect"]) and head["effect"]["n"] == 3
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert all(f"{layer}.1" in shown for layer in layers) and "evenly" in shown


def test_what_is_shown_can_be_chosen_and_ordered(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["heads", str(models / "encoder-decoder"), *data_of("encoder-decoder", models), "--json"]
    every = printed(words, capsys)["heads"]
    some = printed([*words, "--layer", "cross.0", "encoder.0", "--sort", "entropy"], capsys)["heads"]
    values = [one["measures"]["entropy"]["value"] for one in some]
    assert values == sorted(values, reverse=True)
    assert all(one in every for one in some) and {one["layer"] for one in some} == {"cross.0", "encoder.0"}
    one = printed([*words, "--layer", "cross.0.1", "cross.0.1"], capsys)["heads"]
    assert one == [head for head in every if (head["layer"], head["head"]) == ("cross.0", 1)]
    effects = printed([*words, "--effects", "--how", "mean", "--sort", "effect"], capsys)["heads"]
    changes = [one["effect"]["change"] for one in effects]
    assert changes == sorted(changes, reverse=True)
    assert printed([*words, "--limit", "1"], capsys)["texts"] == 1
    sample = printed([*words, "--rows", "2", "--sort", "role"], capsys)["heads"]
    assert all(one["sampled"] for one in sample)


def test_a_text_that_is_too_long_is_told_or_left_out(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts").write_text("a dog\n" + "a dog " * 200 + "\na cat\n")
    words = ["heads", str(models / "decoder"), str(tmp_path / "texts"), "--json"]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "texts:2" in told and "--skip-long" in told and told.count("\n") == 1
    found = printed([*words, "--skip-long"], capsys)
    assert (found["texts"], found["skipped"]) == (2, 1)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--sort", "effect"], "needs --effects"), (["--sort", "entrop"], "entropy"), (["--how", "mean"], "--effects"),
        (["--limit", "0"], "at least 1"), (["--rows", "-1"], "at least 1"), (["--layer", "decoder.7"], "decoder.0"),
    ],
)  # fmt: skip
def test_what_can_not_be_is_refused(
    more: list[str], told: str, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["heads", str(models / "decoder"), str(models / "texts"), *more]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1


def test_without_data_it_wants_a_run_of_the_demo(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["heads", str(models / "decoder")]) == 2
    assert "name data" in capsys.readouterr().err
    for more in (["--effects"], ["--layer", "decoder.0"], ["--sort", "role"]):
        assert main(["heads", str(models / "decoder"), *more]) == 2
        assert "is for data" in capsys.readouterr().err


def test_on_a_demo_it_finds_heads_and_switches_the_best_one_off(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world_seed(run) == 3
    study = printed(["heads", str(run), "--limit", "12", "--json"], capsys)["study"]
    assert {"referent", "aligners", "guessing", "diagonal", "off", "chance", "majority", "chosen_on"} == set(
        study
    )
    assert len({(one["spot"]["layer"], one["spot"]["head"]) for one in study["referent"]}) == 5
    assert [one["spot"]["layer"] for one in study["aligners"]] == ["cross.0", "cross.0"]
    assert 0 < study["guessing"]["agreement"] < study["diagonal"]["agreement"] < 1
    best, off = study["referent"][0]["spot"], study["off"]
    assert (off["layer"], off["head"]) == (best["layer"], best["head"])
    for change in (off["written"], off["choice"]):
        assert change["change"] == pytest.approx(change["after"] - change["before"])
        assert change["others"] == pytest.approx(sum(change["each"].values()))
        assert len(change["each"]) == 1 and change["n"] == study["diagonal"]["n"] > 0
    assert main(["heads", str(run), "--limit", "8"]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("pronoun's noun", "align", "without", "others off", "n = "))


def test_a_run_of_something_else_is_no_demo(models: Path, run: Path, tmp_path: Path) -> None:
    assert world_seed(models / "decoder") is None
    record = json.loads((run / "regard.json").read_text())
    record["data"] = ["elsewhere/train.en", "elsewhere/train.fr"]
    (tmp_path / "regard.json").write_text(json.dumps(record))
    assert world_seed(tmp_path) is None
