"""How long a step takes is told by the quicker ones, whatever else the machine does, and nothing is moved by it."""

from functools import partial

import pytest
import torch
from tests.training.tiny import TinyBatches, TinyModel, settings

from regard.training import pace
from regard.training.loss import sequence_loss
from regard.training.pace import measure_pace


class Time:
    """Be a clock on which every call of the objective takes the next of some seconds."""

    def __init__(self, *seconds):
        self.now, self.seconds, self.calls = 0.0, seconds, 0

    def __call__(self):
        return self.now

    def loss(self, model, batch):
        self.now += self.seconds[min(self.calls, len(self.seconds) - 1)]
        self.calls += 1
        return sequence_loss(model, batch, 0.1)


def measure(monkeypatch, time, batches=1, **limits):
    monkeypatch.setattr(pace.time, "perf_counter", time)
    some = [TinyBatches().batch(0, k) for k in range(batches)]
    return measure_pace(TinyModel(), some, time.loss, settings(optimizer="muon", average="ema"), **limits)


def test_a_busy_machine_is_not_what_is_measured(monkeypatch):
    time = Time(9.0, *[1.0, 3.0, 2.5] * 8)
    assert measure(monkeypatch, time, seconds=100, most=12).seconds == pytest.approx(1.0)
    assert time.calls == 13


def test_the_mean_over_batches_counts(monkeypatch):
    time = Time(5.0, 5.0, *[1.0, 2.0] * 10)
    assert measure(monkeypatch, time, batches=2, seconds=100, most=4).seconds == pytest.approx(1.5)


def test_a_slow_step_is_taken_once(monkeypatch):
    time = Time(50.0)
    assert measure(monkeypatch, time, seconds=2.0, least=3).seconds == pytest.approx(50.0)
    assert time.calls == 1


def test_weights_and_randomness_stay_as_they_were():
    torch.manual_seed(5)
    model = TinyModel()
    before, state = [p.detach().clone() for p in model.parameters()], torch.get_rng_state()
    loss = partial(sequence_loss, smoothing=0.1)
    assert measure_pace(model, [TinyBatches().batch(0, 0)], loss, settings(), seconds=0.01).seconds > 0
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert torch.equal(state, torch.get_rng_state())
