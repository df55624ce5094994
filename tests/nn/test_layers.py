"""Norms, feed-forwards, dropout: against their formulas and torch's own."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.testing import assert_close

from regard.config import ModelConfig
from regard.nn.layers import Dropout, FeedForward, RMSNorm, activate, make_norm, random_bytes_mask

GRID = torch.linspace(-4, 4, 33)


def test_rmsnorm_is_its_formula_and_torchs() -> None:
    norm, x = RMSNorm(8, 1e-5), torch.randn(3, 8)
    with torch.no_grad():
        norm.weight.copy_(torch.rand(8))
    expected = x / torch.sqrt((x * x).sum(-1, keepdim=True) / 8 + 1e-5) * norm.weight
    assert_close(norm(x), expected)
    assert_close(norm(x), F.rms_norm(x, (8,), norm.weight, 1e-5))
    assert norm(x.bfloat16()).dtype is torch.bfloat16


def test_rmsnorm_survives_numbers_whose_squares_leave_half_precision() -> None:
    norm, x = RMSNorm(4, 1e-5), torch.full((1, 4), 3e4, dtype=torch.float16)
    assert_close(norm(x), torch.ones_like(x))


def test_norms_are_made_by_their_names() -> None:
    config = ModelConfig(kind="encoder", vocab_size=5, width=8, norm_eps=1e-3)
    layernorm = make_norm(config)
    assert isinstance(layernorm, torch.nn.LayerNorm)
    assert layernorm.eps == 1e-3
    rms = make_norm(config.replace(norm="rmsnorm"))
    assert isinstance(rms, RMSNorm)
    assert rms.eps == 1e-3


def test_activations_are_their_formulas() -> None:
    x = GRID.double()
    cdf = (1 + torch.erf(x / math.sqrt(2))) / 2
    tanh = 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    expected = {
        "relu": x.clamp(min=0), "gelu": x * cdf, "gelu_tanh": tanh, "silu": x / (1 + (-x).exp()),
        "relu2": x.clamp(min=0) ** 2,
    }  # fmt: skip
    for kind, values in expected.items():
        assert_close(activate(x, kind), values, msg=lambda text, kind=kind: f"{kind}: {text}")


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("gated", [True, False], ids=["gated", "plain"])
@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh", "silu", "relu2"])
def test_a_feed_forward_is_its_formula(activation: str, gated: bool, bias: bool) -> None:
    config = ModelConfig(
        kind="encoder", vocab_size=5, width=8, ffn_width=12, activation=activation, gated=gated, bias=bias
    )
    layer, x = FeedForward(config), torch.randn(2, 3, 8)

    def linear(module: torch.nn.Linear, value: torch.Tensor) -> torch.Tensor:
        return value @ module.weight.T + (module.bias if bias else 0)

    up = linear(layer.up, x)
    inner = activate(linear(layer.gate, x), activation) * up if gated else activate(up, activation)
    assert_close(layer(x), linear(layer.down, inner))
    assert all(
        (module.bias is not None) == bias for module in layer.modules() if isinstance(module, torch.nn.Linear)
    )


@given(probability=st.floats(0.0, 0.95), shape=st.sampled_from([(1,), (7,), (64, 65), (3, 50, 41)]))
@settings(deadline=None, max_examples=40)
def test_dropout_blanks_or_scales_and_nothing_else(probability: float, shape: tuple[int, ...]) -> None:
    x = torch.rand(shape) + 0.5
    out = Dropout(probability)(x)
    if probability == 0:
        assert out is x
        return
    rounded = min(255, max(1, round(probability * 256))) / 256
    kept = out != 0
    assert_close(out[kept], x[kept] / (1 - rounded))
    if x.numel() > 4_000:  # five standard deviations
        spread = math.sqrt(rounded * (1 - rounded) / x.numel())
        assert abs(float(1 - kept.float().mean()) - rounded) < 5 * spread


def test_dropout_keeps_the_mean() -> None:
    for probability in (0.1, 0.3, 0.5, 0.001):
        mean = float(Dropout(probability)(torch.ones(400_000)).mean())
        assert mean == pytest.approx(1, abs=0.01), probability


def test_a_rare_dropout_still_drops_and_a_frequent_one_still_keeps() -> None:
    assert 0 < int((Dropout(1e-6)(torch.ones(100_000)) == 0).sum()) < 1_000
    assert int((Dropout(0.99999)(torch.ones(100_000)) != 0).sum()) > 0


def test_dropout_passes_gradients_through_the_same_mask() -> None:
    x = torch.randn(50, 40, requires_grad=True)
    out = Dropout(0.3)(x)
    upstream = torch.randn_like(out)
    out.backward(upstream)
    assert x.grad is not None
    kept = out.detach() != 0
    assert_close(x.grad, torch.where(kept, upstream * 256 / (256 - 77), 0.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_dropout_keeps_the_type_and_takes_any_layout(dtype: torch.dtype) -> None:
    x = torch.ones(6, 10, dtype=dtype).T
    out = Dropout(0.5)(x)
    assert out.dtype is dtype
    assert out.shape == (10, 6)


def test_dropout_draws_from_torchs_generator() -> None:
    layer, x = Dropout(0.4), torch.ones(1_000)
    torch.manual_seed(5)
    first, second = layer(x), layer(x)
    torch.manual_seed(5)
    assert torch.equal(layer(x), first)
    assert not torch.equal(first, second)


def test_dropout_rests_while_evaluating() -> None:
    x = torch.ones(9)
    assert Dropout(0.9).eval()(x) is x


def test_dropped_bytes_are_independent_of_their_place() -> None:
    kept = random_bytes_mask(torch.empty(80_000), 64).float().view(-1, 8)
    assert_close(kept.mean(0), torch.full((8,), 0.75), atol=0.02, rtol=0)
    correlation = torch.corrcoef(kept.T) - torch.eye(8)
    assert correlation.abs().max() < 0.06
