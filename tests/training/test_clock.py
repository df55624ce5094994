"""Time that is told, not waited for: what the clock says, and runs that must end when their minutes do."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from tests.training.tiny import Recorder, evaluation, make_trainer, settings

from regard.training.clock import Clock
from regard.training.events import Evaluated, Stepped
from regard.training.loss import sequence_loss
from regard.training.schedule import learning_rate


class Time:
    """Be a clock that others move."""

    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds


def run(
    out, *, minutes=1.0, step, evaluation_seconds=0.5, save_seconds=0.2, before=0.0, after=None, **changes
):
    """Train with steps that take `step(elapsed)` seconds; give trainer, result and events."""
    now, events = Time(), Recorder()
    began = now() - before
    measure = changes.pop("evaluate", None)

    def loss(model, batch):
        now.seconds += step(now() - began)
        return sequence_loss(model, batch)

    def evaluate(model, should_stop):
        now.seconds += evaluation_seconds
        return measure(model, should_stop) if measure else ({"loss": 1.0}, None)

    ending = (lambda latest: 2 * (latest or 0.0) + 1.0) if after is None else after
    clock = Clock(began=began, ending=ending, now=now)
    values = {"steps": None, "minutes": minutes, "schedule": "linear", "warmup": 5, "evaluate_every": 16}
    config = settings(**{**values, "save_every": 50, "log_every": 1, **changes})
    trainer = make_trainer(out, config, loss=loss, evaluate=evaluate, report=events, clock=clock)
    save = trainer.store.save
    trainer.store.save = lambda *a: (setattr(now, "seconds", now() + save_seconds), save(*a))[1]
    result = trainer.train()
    return trainer, result, events, now() - began


@pytest.mark.parametrize("evaluation_seconds", [0.1, 2.0])
@pytest.mark.parametrize(
    "step",
    [
        lambda t: 1.0,
        lambda t: 0.3 if t < 20 else 1.2,  # something else begins to take the machine
        lambda t: 1.2 if t < 30 else 0.3,  # or lets go of it
        lambda t: 25.0 if 20 < t < 21 else 0.8,  # or it stands still
    ],
)
def test_the_steps_and_what_follows_fill_the_minutes(tmp_path, step, evaluation_seconds):
    _, result, events, took = run(tmp_path, step=step, evaluation_seconds=evaluation_seconds, before=5.0)
    assert result.reason == "minutes"
    # What comes after training is what `ending` says: twice the latest evaluation, and a second.
    whole = took + 2 * evaluation_seconds + 1.0
    assert whole == pytest.approx(60, abs=0.7)
    assert result.seconds == pytest.approx(took)
    rates = [event.lr for event in events.of(Stepped)]
    assert all(b <= a * 1.1 for a, b in pairwise(rates[5:]))
    assert rates[-1] < 0.05 * max(rates)


def test_a_slower_machine_has_the_same_rate_at_the_same_time(tmp_path):
    rates = {}
    for name, seconds in (("fast", 0.25), ("slow", 1.0)):
        _, _, events, _ = run(tmp_path / name, step=lambda t, s=seconds: s)
        times, values = zip(*((event.elapsed, event.lr) for event in events.of(Stepped)), strict=True)
        rates[name] = np.interp(range(10, 55, 5), times, values)
    np.testing.assert_allclose(rates["slow"], rates["fast"], atol=0.002)


def test_an_interrupted_run_goes_on_at_the_rate_where_it_stopped(tmp_path):
    now = Time()

    def loss(model, batch):
        now.seconds += 0.5
        return sequence_loss(model, batch)

    config = settings(steps=None, minutes=1.0, schedule="linear", warmup=2, save_every=10, log_every=1)
    first = make_trainer(tmp_path, config, loss=loss, clock=Clock(ending=lambda latest: 0.0, now=now))
    first.report = lambda event: (
        first.stop._handle(2, None) if isinstance(event, Stepped) and event.step == 30 else None
    )
    assert first.train().reason == "interrupted"
    now.seconds += 10_000  # nobody was at work
    events = Recorder()
    clock = Clock(began=now() - 3.0, ending=lambda latest: 0.0, now=now)
    again = make_trainer(tmp_path, config, loss=loss, clock=clock, resume=True, report=events)
    result = again.train()
    # 15 s of steps, then 3 s until the second session began to train.
    expected = config.lr * (1 - 18 / 60)
    assert events.of(Stepped)[0].lr == pytest.approx(expected, rel=0.01)
    assert result.seconds == pytest.approx(60, abs=0.5)
    state = json.loads((tmp_path / "checkpoints" / f"step-{result.steps}" / "progress.json").read_text())
    assert 0.97 < state["progress"]["share"] <= 1


def test_steps_that_are_given_are_exact_whatever_the_time(tmp_path):
    """With steps the rate is a function of the step alone, on a slow machine as on a fast one."""
    rates = []
    for name, seconds in (("fast", 0.01), ("slow", 0.9)):
        _, result, events, _ = run(tmp_path / name, step=lambda t, s=seconds: s, steps=20)
        assert result.reason == "steps"
        rates.append([event.lr for event in events.of(Stepped)])
    assert rates[0] == rates[1]


def test_the_last_weights_are_evaluated(tmp_path):
    _, result, events, _ = run(tmp_path, step=lambda t: 1.0, evaluate=evaluation(make_batches()))
    assert events.of(Evaluated)[-1].step == result.steps
    assert result.last["loss"] < 2.4


def make_batches():
    from tests.training.tiny import TinyBatches

    return TinyBatches()


def test_without_a_word_about_the_end_little_is_kept_for_it():
    now = Time()
    clock = Clock(now=now)
    clock.start(0, 0.0)
    assert clock.end(1) == 60
    with clock.evaluation():
        now.seconds += 10
    assert clock.end(1) == pytest.approx(60 - 0.03 * 60)
    assert clock.end(100) == 6000 - 20
    assert not clock.over(1)
    now.seconds += 49
    assert clock.over(1)


def test_the_rate_by_time():
    config = settings(steps=None, minutes=5.0, schedule="linear", warmup=10, lr=1.0)
    assert learning_rate(config, 5, None, share=0.0) == 0.5
    assert learning_rate(config, 10, None, share=0.3) == pytest.approx(0.7)
    assert learning_rate(config, 99, None, share=1.0) == 0.0
    stays = config.replace(schedule="wsd", decay_fraction=0.4)
    assert learning_rate(stays, 99, None, share=0.6) == 1.0
    assert learning_rate(stays, 99, None, share=0.8) == pytest.approx(0.5)
    cosine = config.replace(schedule="cosine", min_lr_ratio=0.1)
    assert learning_rate(cosine, 99, None, share=0.5) == pytest.approx(
        0.1 + 0.9 * (1 + math.cos(math.pi / 2)) / 2
    )
    # Where steps are given, the time has no say.
    assert learning_rate(config, 55, 100, share=0.0) == learning_rate(config, 55, 100)
