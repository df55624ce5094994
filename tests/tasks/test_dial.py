"""The dial: what is chosen for a time, how much of it measuring takes, and that what is given stays."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest
from tests.tiny_data import DATA, measured, write_all

from regard.cli import main
from regard.models.families import preset
from regard.recipes import RECIPES
from regard.runs import Dry, train
from regard.tasks import dial as dials
from regard.tasks import dialling
from regard.tasks.base import DataSize
from regard.tasks.dial import EVALUATING, Material, dial, dropout_for, expected_loss, sizes_for, useful_epochs
from regard.tasks.registry import get_task
from regard.tasks.settings import train_config
from regard.training.events import Warned
from regard.training.pace import Pace


class Examples:
    """Be 2,000 texts of 50 tokens, or pairs of twice 25."""

    def __init__(self, columns=1):
        self.costs = np.full((2000, columns), 50 // columns)

    def lengths(self, seed, epoch):
        return self.costs

    def collate(self, index, *, seed, epoch):
        return {"index": index}


def material(task, rows=2000, characters=400_000, **changes):
    values = {
        "task": get_task(task), "objective": lambda config: Examples(2 if task == "translate" else 1),
        "loss": lambda training, config: None, "size": DataSize(rows, characters), "tail": 1.0, "evaluate": None,
        "rows": 1000 if task == "translate" else 0, "held_out": 10_000,
    }  # fmt: skip
    return Material(**{**values, **changes})


@pytest.fixture
def machine(monkeypatch):
    """A machine on which a step takes as long as its products, and what it was asked to time."""
    asked = []

    def pace(module, batches, loss, training, **limits):
        asked.append(module)
        return Pace(training.batch_tokens * 6 * sum(p.numel() for p in module.parameters()) / 2e10, "fp32")

    monkeypatch.setattr(dials, "measure_pace", pace)
    return asked


def choose(task, minutes, *, config=None, given=None, start=None, **changes):
    spec = get_task(task).suit(DataSize(2000, 400_000))
    given = given or {}
    settings = train_config(spec.training, {"minutes": minutes, **given})
    base = config or preset(spec.model, vocab_size=500, **spec.model_settings)
    return dial(material(task, **changes), base, settings, minutes * 60, given=given, start=start)


@pytest.mark.parametrize("task", ["generate", "translate", "fill"])
def test_more_time_is_a_larger_model_and_more_tokens(machine, task):
    found = [choose(task, minutes) for minutes in (0.2, 2, 20, 200)]
    weights = [one.config.num_parameters() for one in found]
    assert weights == sorted(weights) and weights[0] < weights[-1]
    tokens = [one.steps * one.training.batch_tokens for one in found]
    assert tokens == sorted(tokens)
    assert all(one.training.schedule == "linear" and one.training.minutes for one in found)
    assert all(one.training.epochs is None and one.training.steps is None for one in found)


@pytest.mark.parametrize("task", ["classify", "tag"])
def test_labels_are_learned_in_few_passes_and_by_no_larger_model(machine, task):
    config = preset("encoder-tiny", vocab_size=500)
    short, long = choose(task, 0.05, config=config), choose(task, 600, config=config)
    assert not short.ends_early and short.training.epochs is None
    assert long.ends_early and long.training.epochs == math.ceil(1000 / (400_000 / 4 / 2048))
    assert long.config.width == config.width


def test_what_is_given_stays(machine):
    given = {
        "width": 48,
        "num_heads": 3,
        "lr": 0.5,
        "batch_tokens": 512,
        "dropout": 0.45,
        "evaluate_every": 7,
    }
    given |= {"schedule": "wsd", "warmup": 3, "save_every": 9, "log_every": 2, "optimizer": "adamw"}
    config = preset("generate-tiny", vocab_size=500, width=48, num_heads=3, dropout=0.45)
    training = {name: value for name, value in given.items() if hasattr(train_config({}, {"steps": 1}), name)}
    settings = train_config(get_task("generate").suit(DataSize(0, 0)).training, {"minutes": 2, **training})
    found = dial(material("generate"), config, settings, 120, given=given)
    assert found.config == config
    assert training.items() <= found.training.to_dict().items()
    assert len(machine) == 1, "there is one size, which is timed once"


def test_a_model_that_is_trained_further_keeps_its_size(machine):
    from regard.models.transformer import build

    config = preset("encoder-tiny", vocab_size=500, head="classify", labels=("a", "b"))
    found = choose("classify", 500, config=config, start=lambda: build(config))
    assert found.config == config and found.ends_early
    assert 3 <= found.training.epochs <= 20
    assert useful_epochs(get_task("classify"), DataSize(10**6, 10**9), 2048, tuned=True) == 3
    assert useful_epochs(get_task("classify"), DataSize(100, 10**4), 2048, tuned=True) == 20
    assert useful_epochs(get_task("generate"), DataSize(100, 10**4), 2048, tuned=False) is None


@pytest.mark.parametrize("task", ["translate", "generate", "classify"])
@pytest.mark.parametrize("minutes", [1, 5, 30, 90])
def test_evaluations_on_the_way_take_little(machine, task, minutes):
    found = choose(task, minutes)
    number = found.steps // found.training.evaluate_every
    assert 1 <= number <= 10
    assert number * found.evaluation <= max(EVALUATING * minutes * 60, found.evaluation)
    assert number * found.training.evaluate_every < 0.96 * found.steps or found.steps < 30


def test_repeated_tokens_are_worth_less():
    """Muennighoff et al. 2023: four passes are nearly as good as new text, forty hardly better than twenty."""
    n, unique = 10**6, 10**7
    assert expected_loss(n, unique, unique) == pytest.approx(521 / n**0.3527 + 1488 / unique**0.3527)
    fresh, repeated = expected_loss(n, 4 * unique, 4 * unique), expected_loss(n, 4 * unique, unique)
    assert fresh < repeated < 1.02 * fresh
    assert expected_loss(n, 20 * unique, unique) - expected_loss(n, 40 * unique, unique) < 0.3
    rising = [expected_loss(n, k * unique, unique) for k in (0.5, 1, 2, 4, 8, 16, 32)]
    assert rising == sorted(rising, reverse=True)


def test_dropout_of_the_published_runs():
    assert dropout_for(100, 2_600_000, 850_000) == 0.3  # Multi30k, Wu et al. 2021
    assert dropout_for(1.5, 800_000, 1_000_000) == 0.0  # nanoGPT's recipe for a processor
    assert dropout_for(80, 10_600_000, 1_000_000) >= 0.2  # and for a GPU
    assert dropout_for(80, 100_000, 10_000_000) == 0.0, "it can't learn by heart what it has no room for"


def test_sizes_rise_and_keep_what_is_not_size():
    for name in ("generate-tiny", "translate-small", "encoder-tiny"):
        base = preset(name)
        found = sizes_for(base)
        counts = [one.num_parameters() for one in found]
        assert counts == sorted(set(counts))
        assert all((one.position, one.activation, one.context) == (base.position, base.activation, base.context)
                   for one in found)  # fmt: skip


def test_recipes_that_give_their_passes_are_left_alone():
    """No recipe leaves its end to the time alone, so none is turned by the dial."""
    for recipe in RECIPES.values():
        for settings in (recipe.laptop, recipe.gpu, recipe.pretrain, recipe.first):
            assert not settings or {"steps", "epochs"} & settings.keys(), recipe.name


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(write_all(tmp_path))
    return tmp_path


@pytest.mark.parametrize("task", DATA)
def test_a_dry_run_says_what_each_task_would_train_and_leaves_nothing(here, capsys, monkeypatch, task):
    monkeypatch.setattr(dialling, "rehearse", lambda folder: 0.1)
    before = sorted(here.rglob("*"))
    assert main(["train", task, *DATA[task], "--minutes", "0.2", "--dry-run", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["training"]["minutes"] == 0.2
    assert said["model"]["dropout"] >= 0 and said["dial"]["steps"] >= 1
    assert "for 0.2 minutes: width" not in said["dial"]["summary"] and "width" in said["dial"]["summary"]
    assert sorted(here.rglob("*")) == before
    assert main(["train", task, *DATA[task], "--dry-run", "--resume", "--out", "x"]) == 2


def test_a_run_ends_with_its_minutes_at_a_rate_of_nothing(here, monkeypatch):
    monkeypatch.setattr(dialling, "rehearse", lambda folder: 0.1)
    began = time.monotonic()
    run = train("generate", "text.txt", tokenizer="char", minutes=0.1, out="run", context=16, log_every=1)
    took = time.monotonic() - began
    assert run.training.reason == "minutes"
    assert 4.5 < run.training.seconds <= took < 20, "six seconds, on however busy a machine"
    record = json.loads((here / "run" / "regard.json").read_text())
    assert record["training"]["steps"] is record["training"]["epochs"] is None
    assert record["dial"]["steps"] >= 1 and record["model"]["width"] in {c[0] for c in dials.SIZES["decoder"]}
    rates = [line["lr"] for line in measured(here / "run") if line["kind"] == "train"]
    assert rates[-1] < 0.1 * max(rates)
    more = train("generate", out="run", resume=True, minutes=0.2)
    assert more.training.steps > run.training.steps and more.training.seconds > run.training.seconds


def test_too_little_time_is_said_and_a_little_more_is_taken(here, monkeypatch):
    monkeypatch.setattr(dialling, "rehearse", lambda folder: 0.1)
    said = []
    run = train(
        "generate", "text.txt", minutes=0.05, out="run", began=time.monotonic() - 10, report=said.append
    )
    warnings = " ".join(event.text for event in said if isinstance(event, Warned))
    assert "reading and tokenising took" in warnings and "give more --minutes" in warnings
    assert run.training.reason == "minutes" and run.training.steps >= 1
    assert (here / "run" / "model.safetensors").exists()


def test_a_measurement_that_would_outlast_the_minutes_is_cut_off_and_says_so(here, monkeypatch):
    monkeypatch.setattr(dialling, "rehearse", lambda folder: 0.1)
    monkeypatch.setattr("regard.runs.is_late", lambda *now: True)
    said = []
    run = train("translate", DATA["translate"], minutes=0.1, out="run", report=said.append)
    assert run.training.reason == "minutes"
    assert run.evaluation.details["measured"] == "a part of the held-out data"
    assert any("the scores are of a part" in event.text for event in said if isinstance(event, Warned))


@pytest.mark.parametrize(("elapsed", "late"), [(50, False), (58, False), (59.5, True), (61, True)])
def test_it_is_late_when_what_comes_last_would_outlast_the_minutes(elapsed, late):
    assert dialling.is_late(elapsed, {"tail": 2.0}, 1.0) is late
    assert not dialling.is_late(elapsed, None, 1.0)


def test_minutes_beside_steps_only_limit(here):
    with pytest.raises(Dry) as found:
        train("generate", "text.txt", minutes=1, steps=3, out="run", dry=True)
    assert "dial" not in found.value.record
    assert found.value.record["training"]["steps"] == 3
