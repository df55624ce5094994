"""Where kernels must stand aside, and what lies at the edge of what they do."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from regard.nn import native
from regard.nn.attention import Attend, use_kernel
from regard.nn.layers import activate
from regard.nn.linear import Linear, linear
from regard.nn.masks import Mask
from regard.nn.native import log_sum_exp
from regard.nn.packed import PackedLinear

learns = pytest.mark.skipif(
    any(native.load(name) is None for name in ("learning_products", "learning_attention")),
    reason="no C compiler, or a processor without AVX-512 BF16 (or with AMX, where torch's kernels are faster)",
)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@learns
@pytest.mark.parametrize("padding", [80, 96, 140])
def test_attention_learns_from_texts_with_much_padding_on_the_left(padding: int) -> None:
    keys = torch.ones(2, 200, dtype=torch.bool)
    keys[1, :padding] = False
    mask, found = Mask(causal=True, keys=keys), []
    for kernel in ("auto", "reference"):
        own = [drawn(2, 2, 200, 64, seed=i).bfloat16().requires_grad_() for i in range(3)]
        with use_kernel(kernel):
            mixed = Attend()(own[0], own[1], own[2], mask)
        mixed.float().square().sum().backward()
        found.append([mixed, *(x.grad for x in own)])
    for ours, plain in zip(*found, strict=True):
        assert ours is not None and plain is not None
        assert float((ours - plain).detach().float().norm() / plain.detach().float().norm()) < 0.02


@learns
def test_a_layer_with_many_inputs_learns() -> None:
    layer, x = Linear(5120, 16), drawn(80, 5120).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x)
    out.float().sum().backward()
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad[0], x.detach().sum(0), atol=0.3, rtol=0.02)


@learns
@pytest.mark.parametrize("width", [32, 128])
def test_inputs_of_another_width_are_refused(width: int) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(RuntimeError, match="shapes cannot be"):
        Linear(64, 32)(drawn(4096, width))


@learns
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_gradients_do_not_depend_on_torchs_default_type(dtype: torch.dtype) -> None:
    layer, x = Linear(64, 32), drawn(128, 64)

    def gradient() -> Tensor:
        layer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = layer(x)
        out.float().square().sum().backward()
        assert layer.weight.grad is not None
        return layer.weight.grad

    expected = gradient()
    torch.set_default_dtype(dtype)
    try:
        found = gradient()
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["linear", "short", "relu2", "gelu_tanh"])
def test_torchs_transforms_of_functions_see_through(name: str) -> None:
    weight = drawn(32, 64)

    def loss(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            if name == "linear":
                out = linear(x, weight, None)
            elif name == "short":
                heads = x.view(8, 2, 8, 64)
                out = Attend()(heads, heads, heads, Mask(causal=True))
            else:
                out = activate(x.bfloat16(), name)  # type: ignore[arg-type]
        return out.float().square().sum()

    x = drawn(128, 64).requires_grad_()
    (expected,) = torch.autograd.grad(loss(x), x)
    found = torch.func.grad(loss)(x.detach())
    torch.testing.assert_close(found, expected, atol=0.05 * float(expected.abs().max()), rtol=0.1)


def test_second_derivatives_are_refused_where_they_would_be_wrong() -> None:
    x = drawn(1, 1, 4, 8).requires_grad_()
    for out in (Attend()(x, x, x, Mask(causal=True)), activate(x, "relu2")):
        (first,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            first.sum().backward()


def test_the_log_of_a_sum_is_torchs_with_infinities_too() -> None:
    large, none = math.inf, math.nan
    x = torch.tensor(
        [[-large] * 3, [large, 1, 2], [large, large, -large], [none, 1, 2], [none, large, 2], [-large, 3, 1]]
    )
    torch.testing.assert_close(log_sum_exp(x), x.logsumexp(-1), equal_nan=True)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_weight_that_is_no_number_is_not_packed_away(bits: int, bad: float) -> None:
    layer = nn.Linear(64, 3)
    layer.weight.data[1, 40] = bad
    out = PackedLinear(layer, bits)(torch.ones(1, 64))  # type: ignore[arg-type]
    assert out.isfinite().tolist() == [[True, False, True]]


def test_gradients_pass_packed_weights() -> None:
    layer, x = PackedLinear(nn.Linear(64, 5), 8), drawn(3, 64).requires_grad_()
    layer(x).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(3, 64))


def test_packed_weights_refuse_inputs_of_another_width() -> None:
    with torch.no_grad(), pytest.raises((AssertionError, RuntimeError)):
        PackedLinear(nn.Linear(64, 5), 8)(drawn(4, 128))
