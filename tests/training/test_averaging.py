from contextlib import suppress

import pytest
import torch
from tests.training.tiny import TinyModel, settings

from regard.errors import CheckpointError
from regard.training.averaging import EMA, Averaging, LastMean, make_averaging


def move(model, seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p))


def test_ema_is_its_recurrence():
    model = TinyModel()
    average = EMA(model, decay=0.5)
    expected = model.inner.weight.detach().clone()
    for t in range(8):
        move(model, t)
        average.after_step()
        d = min(0.5, (1 + t) / (10 + t))
        expected = d * expected + (1 - d) * model.inner.weight.detach()
    with average.applied(model):
        torch.testing.assert_close(model.inner.weight.detach(), expected)


def test_last_is_the_mean_of_the_last_points():
    model = TinyModel()
    average = LastMean(model, count=2)
    points = []
    for step in range(3):
        move(model, step)
        points.append(model.inner.weight.detach().clone())
        average.at_evaluation(step)
        average.at_evaluation(step)  # begun again after an interruption: counts once
    with average.applied(model):
        torch.testing.assert_close(model.inner.weight.detach(), (points[1] + points[2]) / 2)


@pytest.mark.parametrize("kind", ["none", "ema", "last"])
def test_applied_gives_back_the_weights_also_after_an_error(kind):
    model = TinyModel()
    average = make_averaging(model, settings(average=kind))
    move(model, 1)
    average.after_step()
    average.at_evaluation(1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    pointers = [p.data_ptr() for p in model.parameters()]
    with suppress(ZeroDivisionError), average.applied(model):
        assert model.head.weight is model.embedding.weight
        raise ZeroDivisionError
    assert [p.data_ptr() for p in model.parameters()] == pointers
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("kind", ["none", "ema", "last"])
def test_state_and_back(kind):
    model = TinyModel()
    first, second = (make_averaging(model, settings(average=kind)) for _ in range(2))
    for step in (1, 2, 10):
        move(model, step)
        first.after_step()
        first.at_evaluation(step)
    saved = {name: tensor.clone() for name, tensor in first.tensors().items()}
    second.restore(saved)
    assert second.tensors().keys() == saved.keys()
    assert all(torch.equal(second.tensors()[name], saved[name]) for name in saved)
    with pytest.raises(CheckpointError):
        Averaging(model).restore({"mean.other": torch.zeros(1)})
