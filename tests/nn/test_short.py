"""Attention over short texts: the equation's values and gradients, in one function of its own."""

import pytest
import torch

from regard.nn import attention
from regard.nn.attention import Attend, use_kernel
from regard.nn.layers import activate
from regard.nn.masks import Mask
from regard.nn.short import is_short


def parts(heads: int = 4, shared: int = 4, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    torch.manual_seed(2)
    shapes = [(2, heads, 7, 8), (2, shared, 7, 8), (2, shared, 7, 8)]
    return [torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("shared", [4, 2])
@pytest.mark.parametrize("bias", [None, torch.randn(1, 4, 7, 7)])
@pytest.mark.parametrize("mask", [Mask(), Mask(causal=True), Mask(causal=True, window=3)])
def test_values_and_gradients_are_those_of_the_equation(shared, bias, mask):
    found = []
    for kernel in ("auto", "reference"):
        own = parts(shared=shared, dtype=torch.float32)
        with use_kernel(kernel):
            assert is_short(own[0], own[1], mask, bias, 20)
            mixed = Attend(0.3)(*own, mask, bias)
        (mixed * torch.arange(8.0)).sum().backward()
        found.append([mixed, *(part.grad for part in own)])
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)


def test_gradients_are_those_of_small_steps():
    attend = Attend()
    assert torch.autograd.gradcheck(lambda q, k, v: attend(q, k, v, Mask(causal=True)), parts())


def test_what_it_cannot_do_is_left_to_the_others():
    query, key, _ = parts()
    masked = Mask(keys=torch.tensor([[True] * 7, [False] * 7]))
    assert is_short(query, key, Mask(), None, 7)
    assert not is_short(query, key, Mask(), None, 6)
    assert not is_short(query, key, Mask(), torch.zeros(1, 4, 7, 7, requires_grad=True), 20)
    assert not is_short(query, key, masked, None, 20)
    assert not is_short(query.detach(), key, Mask(), None, 20)


@pytest.mark.parametrize("attend", [Attend(softcap=5.0), Attend(dropout=0.1)])
def test_neither_caps_nor_dropout_of_weights_are_forgotten(attend, monkeypatch):
    monkeypatch.setattr(attention, "attend_short", None)
    query, key, value = parts()
    assert attend(query, key, value, Mask()).requires_grad


def test_squared_relu_has_the_gradient_of_its_formula():
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: activate(y, "relu2"), x)
