"""What learns in bfloat16 by kernels of our own: the same results and gradients as without them."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from regard.nn import attention, learning, native
from regard.nn import linear as products
from regard.nn.attention import Attend, use_kernel
from regard.nn.gelu import gelu_tanh
from regard.nn.linear import Linear
from regard.nn.masks import Mask

NAMES = ("learning_products", "learning_attention", "likelihood", "gelu")
has_kernels = pytest.mark.skipif(
    any(native.load(name) is None for name in NAMES),
    reason="no C compiler, or a processor without AVX-512 BF16 (or with AMX, where torch's kernels are faster)",
)
BITS = 0.006  # the largest error, as a part of the whole, that numbers of eight bits and their sums may have


def off(found: Tensor | None, expected: Tensor | None) -> float:
    assert found is not None and expected is not None
    assert found.shape == expected.shape
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).norm() / expected.norm())


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def learned(layer: nn.Linear, x: Tensor, change: Tensor) -> tuple[Tensor, Tensor | None]:
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x)
    out.backward(change.to(out.dtype))
    return out, x.grad


@has_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("rows", "inside", "outside"), [(64, 2, 2), (77, 34, 50), (131, 66, 130), (65, 768, 4)]
)
def test_a_layer_that_learns_by_our_kernel_learns_what_the_equation_says(
    rows: int, inside: int, outside: int, bias: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    layer = Linear(inside, outside, bias=bias)
    x, change = drawn(rows, inside, seed=1).to(dtype), drawn(rows, outside, seed=2).bfloat16()
    out, of_x = learned(layer, x, change)
    assert out.dtype == torch.bfloat16 and of_x is not None and of_x.dtype == dtype
    assert "Learning" in type(out.grad_fn).__name__ or "View" in type(out.grad_fn).__name__
    weight, seen, given = layer.weight.detach().bfloat16().double(), x.bfloat16().double(), change.double()
    expected = seen @ weight.T + (layer.bias.detach().double() if bias else 0.0)
    assert off(out, expected) < BITS
    assert off(of_x, given @ weight) < (1e-5 if dtype == torch.float32 else BITS)
    assert off(layer.weight.grad, given.T @ seen) < 1e-5  # its sums are never rounded to bfloat16
    if bias:
        assert off(layer.bias.grad, given.sum(0)) < 1e-5


@has_kernels
def test_more_is_summed_over_than_goes_in_one_turn() -> None:
    torch.manual_seed(0)
    layer = Linear(4100, 6)
    x, change = drawn(4099, 4100, seed=1), drawn(4099, 6, seed=2).bfloat16()
    x.requires_grad_()
    library = products.Products(layer.weight)
    of_weight, rows = torch.ones(6, 4100), x.detach().bfloat16()
    library.weight_gradient(change, rows, of_weight, None, add=True)
    assert off(of_weight, 1 + change.double().T @ rows.double()) < 1e-5
    wide = torch.nn.Parameter(drawn(4100, 34, seed=3))
    gradient, of_x = drawn(70, 4100, seed=4).bfloat16(), torch.empty(70, 34)
    products.Products(wide).input_gradient(gradient, of_x)
    assert off(of_x, gradient.double() @ wide.detach().bfloat16().double()) < 1e-5


@has_kernels
def test_what_isn_t_needed_isn_t_computed_and_the_rest_is_the_same() -> None:
    torch.manual_seed(0)
    layer, x, change = Linear(32, 48), drawn(3, 40, 32, seed=1), drawn(3, 40, 48, seed=2)
    _, expected = learned(layer, x, change)
    of_weight = layer.weight.grad
    layer.requires_grad_(False)
    out, frozen = learned(layer, x, change)
    assert torch.equal(frozen, expected) and out.shape == (3, 40, 48)  # type: ignore[arg-type]
    layer = layer.requires_grad_(True)
    layer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(x).backward(change.bfloat16())
    assert torch.equal(layer.weight.grad, of_weight)  # type: ignore[arg-type]


def in_bfloat16(x: Tensor, layer: nn.Linear) -> Callable[[], object]:
    def ask() -> object:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return products.products_for(x, layer.weight, layer.bias)

    return ask


@has_kernels
def test_torch_multiplies_where_our_kernel_would_not_do() -> None:
    x, layer = drawn(64, 32), Linear(32, 16)
    assert in_bfloat16(x, layer)() is not None
    assert products.products_for(x, layer.weight) is None  # single precision
    assert in_bfloat16(x[:63], layer)() is None  # few rows
    assert in_bfloat16(x.double(), layer)() is None
    assert in_bfloat16(drawn(64, 33), Linear(33, 16))() is None  # no pairs
    assert in_bfloat16(x, Linear(32, 16).bfloat16())() is None
    with torch.no_grad():
        assert in_bfloat16(x, layer)() is None


def runs_of(mask: Mask, rows: int, columns: int) -> Tensor:
    found = mask.runs(rows, columns, "cpu")
    assert found is not None
    return found


MASKS = {
    "everything": Mask(),
    "causal": Mask(causal=True),
    "window": Mask(causal=True, window=20),
    "padding": Mask(keys=torch.arange(170)[None] < torch.tensor([[170], [33]])),
    "nothing": Mask(keys=torch.arange(170)[None] < torch.tensor([[0], [65]])),
    "documents": Mask(causal=True, documents=(torch.arange(170)[None] // 60,) * 2),
}


@has_kernels
@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize(("heads", "shared", "size"), [(2, 2, 64), (4, 2, 64), (2, 1, 128)])
def test_attention_that_learns_by_our_kernel_learns_what_the_equation_says(
    name: str, heads: int, shared: int, size: int
) -> None:
    mask, length = MASKS[name], 170
    shapes = [(2, length, n, size) for n in (heads, shared, shared)]
    given = [drawn(*shape, seed=i).bfloat16().transpose(1, 2) for i, shape in enumerate(shapes)]
    change = drawn(2, heads, length, size, seed=5).bfloat16()
    ours = [x.clone().requires_grad_() for x in given]
    attend = Attend(scale=0.1)
    assert attend.runs_to_learn(*ours, mask, None) is not None
    mixed = attend(*ours, mask)
    mixed.backward(change)
    exact = [x.double().requires_grad_() for x in given]
    with use_kernel("reference"):
        expected = attend(*exact, mask)
    expected.backward(change.double())
    assert off(mixed, expected) < BITS
    for found, right in zip(ours, exact, strict=True):
        assert off(found.grad, right.grad) < BITS
    if name == "nothing":
        assert not mixed[0].any() and not ours[0].grad[0].any()  # type: ignore[index]


@has_kernels
@pytest.mark.parametrize(("rows", "columns"), [(1, 700), (5, 64), (6, 65), (97, 1), (96, 300), (193, 129)])
@pytest.mark.parametrize("size", [64, 192])
def test_attention_of_any_lengths(rows: int, columns: int, size: int) -> None:
    shapes = [(2, 3, n, size) for n in (rows, columns, columns)]
    given = [drawn(*shape, seed=i).bfloat16() for i, shape in enumerate(shapes)]
    ours, exact = [x.clone().requires_grad_() for x in given], [x.double().requires_grad_() for x in given]
    change = drawn(2, 3, rows, size, seed=5).bfloat16()
    mixed = learning.attend_learning(*ours, runs_of(Mask(), rows, columns), size**-0.5)
    mixed.backward(change)
    expected = nn.functional.scaled_dot_product_attention(*exact)
    expected.backward(change.double())
    assert off(mixed, expected) < BITS
    for found, right in zip(ours, exact, strict=True):
        # One key has all the weight, whatever it is: its gradient and the query's are zero but for rounding.
        assert columns == 1 or off(found.grad, right.grad) < BITS


@has_kernels
def test_attention_is_left_to_torch_where_our_kernel_would_not_do() -> None:
    query = drawn(1, 2, 200, 64).bfloat16().requires_grad_()
    given, mask = (query, query, query), Mask(causal=True)
    assert Attend().runs_to_learn(*given, mask, None) is not None
    assert Attend(dropout=0.1).runs_to_learn(*given, mask, None) is None
    assert Attend(softcap=5.0).runs_to_learn(*given, mask, None) is None
    assert Attend().runs_to_learn(*given, mask, torch.zeros(1)) is None
    assert Attend().runs_to_learn(*(x[:, :, :9] for x in given), mask, None) is None
    assert Attend().runs_to_learn(*(x.float() for x in given), mask, None) is None
    holes = Mask(keys=torch.arange(200)[None] % 2 == 0)
    assert Attend().runs_to_learn(*given, holes, None) is None
    with torch.no_grad():
        assert Attend().runs_to_learn(*given, mask, None) is None


@has_kernels
def test_large_scores_stay_finite() -> None:
    query = (300 * drawn(1, 1, 200, 64)).bfloat16().requires_grad_()
    mixed = attention.Attend()(query, query, query, Mask(causal=True))
    mixed.sum().backward()
    assert mixed.isfinite().all() and query.grad is not None and query.grad.isfinite().all()
    assert math.isfinite(float(query.grad.norm()))


def test_everything_learns_where_kernels_are_switched_off() -> None:
    code = """
import torch
from regard.nn.attention import Attend
from regard.nn.linear import Linear
from regard.nn.masks import Mask
layer = Linear(128, 128)
with torch.autocast("cpu", dtype=torch.bfloat16):
    x = layer(torch.ones(1, 200, 128)).unflatten(-1, (2, 64)).transpose(1, 2)
    Attend()(x, x, x, Mask(causal=True)).sum().backward()
assert layer.weight.grad is not None and layer.weight.grad.isfinite().all()
"""
    environment = {**os.environ, "REGARD_NATIVE": "0"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)


@has_kernels
@pytest.mark.parametrize("count", [1, 16, 37, 40_000])
def test_gelu_by_our_kernel_is_gelu(count: int) -> None:
    x = (
        torch.cat((torch.linspace(-60, 60, count), torch.tensor([0.0, 1e30, -1e30])))
        .bfloat16()
        .requires_grad_()
    )
    change = drawn(len(x)).bfloat16()
    out = gelu_tanh(x)
    assert "Learning" in type(out.grad_fn).__name__
    out.backward(change)
    exact = x.detach().double().requires_grad_()
    expected = nn.functional.gelu(exact, approximate="tanh")
    expected.backward(change.double())
    torch.testing.assert_close(out.double(), expected, rtol=0.004, atol=1e-6)
    assert x.grad is not None and exact.grad is not None
    torch.testing.assert_close(x.grad[:-2].double(), exact.grad[:-2], rtol=0.004, atol=1e-5)
    assert x.grad.isfinite().all()
    assert gelu_tanh(torch.tensor([math.nan]).bfloat16().requires_grad_()).isnan().all()
