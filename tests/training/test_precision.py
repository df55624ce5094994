import pytest
import torch
from tests.training.tiny import TinyModel

from regard.errors import ConfigError
from regard.training import precision
from regard.training.precision import autocast, choose_device, choose_precision, compiled, measure_bf16_gain


def test_measures_both_and_only_for_so_long():
    seen = []
    gain = measure_bf16_gain(lambda: seen.append(torch.is_autocast_enabled("cpu")), rounds=3)
    assert gain > 0
    assert seen == [False, True] * 4
    seen.clear()
    measure_bf16_gain(lambda: seen.append(1), rounds=3, seconds=0)
    assert len(seen) == 4


@pytest.mark.parametrize(("gain", "expected"), [(0.5, "fp32"), (1.2, "fp32"), (1.4, "bf16")])
def test_auto_takes_bf16_only_where_it_is_worth_it(monkeypatch, gain, expected):
    monkeypatch.setattr(precision, "measure_bf16_gain", lambda attempt: gain)
    assert choose_precision("auto", torch.device("cpu"), None) == expected
    assert choose_precision("fp32", torch.device("cpu"), None) == "fp32"
    assert choose_precision("bf16", torch.device("cpu"), None) == "bf16"


def test_autocast_leaves_parameters_alone():
    model = TinyModel()
    with autocast("bf16", torch.device("cpu")):
        assert model.inner(torch.randn(2, 8)).dtype == torch.bfloat16
    assert model.inner.weight.dtype == torch.float32
    with autocast("fp32", torch.device("cpu")):
        assert model.inner(torch.randn(2, 8)).dtype == torch.float32


def test_unknown_and_absent_devices():
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(ConfigError, match="unknown"):
        choose_device("gpu")
    with pytest.raises(ConfigError, match="isn't there"):
        choose_device(f"cuda:{torch.cuda.device_count()}")


def test_compiled_only_inside(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function: lambda *a, **k: function(*a, **k) * 2)
    model, ids = TinyModel(dropout=0), torch.ones(1, 3, dtype=torch.long)
    plain = model.hidden(ids)
    with compiled(model, True):
        torch.testing.assert_close(model.hidden(ids), plain * 2)
    torch.testing.assert_close(model.hidden(ids), plain)
    with compiled(model, False):
        torch.testing.assert_close(model.hidden(ids), plain)
