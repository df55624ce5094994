import math
from itertools import pairwise

import pytest

from regard.training.config import TrainConfig
from regard.training.schedule import learning_rate


@pytest.mark.parametrize("schedule", ["inverse-sqrt", "cosine", "wsd", "constant", "linear"])
@pytest.mark.parametrize("warmup", [0, 1, 10])
def test_rises_to_the_peak_and_never_above(schedule, warmup):
    config = TrainConfig(steps=100, lr=0.3, schedule=schedule, warmup=warmup)
    rates = [learning_rate(config, step, 100) for step in range(1, 121)]
    assert max(rates) == pytest.approx(0.3)
    assert rates[max(0, warmup - 1)] == pytest.approx(0.3)
    assert all(b >= a for a, b in pairwise(rates[:warmup]))
    assert all(b <= a + 1e-12 for a, b in pairwise(rates[warmup:]))
    assert min(rates) >= 0


def test_inverse_sqrt_is_the_papers_formula():
    width, warmup = 512, 4000
    config = TrainConfig(lr=width**-0.5 * warmup**-0.5, schedule="inverse-sqrt", warmup=warmup)
    for step in (1, 17, 4000, 4001, 100_000):
        paper = width**-0.5 * min(step**-0.5, step * warmup**-1.5)
        assert learning_rate(config, step, None) == pytest.approx(paper)


@pytest.mark.parametrize("schedule", ["cosine", "wsd", "linear"])
def test_the_last_step_reaches_the_floor_and_stays(schedule):
    config = TrainConfig(steps=100, lr=1.0, schedule=schedule, warmup=10, min_lr_ratio=0.1)
    assert learning_rate(config, 100, 100) == pytest.approx(0.1)
    assert learning_rate(config, 250, 100) == pytest.approx(0.1)


def test_shapes_between():
    config = TrainConfig(steps=100, lr=1.0, warmup=0)
    assert learning_rate(config.replace(schedule="wsd", decay_fraction=0.2), 80, 100) == 1.0
    assert learning_rate(config.replace(schedule="wsd", decay_fraction=0.2), 90, 100) == pytest.approx(0.5)
    middle = learning_rate(config.replace(schedule="cosine"), 51, 101)
    assert middle == pytest.approx((1 + math.cos(math.pi / 2)) / 2)
