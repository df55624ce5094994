"""What a loop over time is made of: products with one gradient, additive scores, cells step by step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from regard.config_recurrent import Cell
from regard.nn.additive import Additive, AdditiveScores
from regard.nn.attention import record
from regard.nn.deferred import Product
from regard.nn.masks import Mask
from regard.nn.recurrence import Recurrence, Steps, is_trailing, step


@pytest.mark.parametrize("batched", [False, True])
def test_a_products_gradient_is_that_of_all_its_steps(batched: bool) -> None:
    torch.manual_seed(0)
    shape = (3, 4, 5) if batched else (4, 5)
    matrix = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    start = torch.randn((3, 2, 4) if batched else (2, 4), dtype=torch.float64, requires_grad=True)
    back = torch.randn(5, 4, dtype=torch.float64)

    def run(times: object) -> torch.Tensor:
        x = start
        for _ in range(3):
            x = torch.tanh(times(x) @ back)  # type: ignore[operator]
        return x.square().sum()

    wanted = torch.autograd.grad(run(lambda x: x @ matrix), [matrix, start])
    found = torch.autograd.grad(run(Product(matrix)), [matrix, start])
    torch.testing.assert_close(found, wanted)


def test_a_product_keeps_nothing_where_nothing_learns() -> None:
    matrix = torch.randn(4, 5)
    product = Product(matrix)
    x = torch.randn(2, 4, requires_grad=True)
    torch.testing.assert_close(torch.autograd.grad(product(x).sum(), x)[0], matrix.sum(1).expand(2, 4))
    assert not product._factors
    with torch.no_grad():
        assert not product(x).requires_grad


def test_a_product_under_autocast_rounds_its_matrix_once_and_gives_the_type_it_got() -> None:
    matrix = torch.randn(64, 8, requires_grad=True)
    x = torch.randn(2, 64)
    with torch.autocast("cpu", torch.bfloat16):
        narrow, wide = Product(matrix), Product(matrix, narrow=False)
        found, whole = narrow(x), wide(x)
    torch.testing.assert_close(whole, x @ matrix)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, (x.bfloat16() @ matrix.bfloat16()).float(), atol=0.05, rtol=0.02)
    found.sum().backward()
    assert matrix.grad is not None
    assert matrix.grad.dtype == torch.float32


@pytest.mark.parametrize("scale", [0.5, 3.0, 40.0])
def test_additive_scores_are_the_equation_however_large_the_numbers(scale: float) -> None:
    torch.manual_seed(0)
    key, query = (scale * torch.randn(2, 3, 5)).requires_grad_(), (scale * torch.randn(2, 5)).requires_grad_()
    weight = torch.randn(5, requires_grad=True)
    aim = torch.randn(2, 3)
    wanted = torch.tanh(key + query[:, None]) @ weight
    found = AdditiveScores(key, weight)(query)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    gradients = [
        torch.autograd.grad((scores * aim).sum(), [key, query, weight]) for scores in (found, wanted)
    ]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


def test_gradients_of_several_additive_queries_add_up() -> None:
    torch.manual_seed(0)
    key, weight = torch.randn(2, 3, 5, requires_grad=True), torch.randn(5, requires_grad=True)
    queries, aim = torch.randn(4, 2, 5), torch.randn(4, 2, 3)
    scores = AdditiveScores(key, weight)
    found = sum((scores(q) * a).sum() for q, a in zip(queries, aim, strict=True))
    wanted = ((torch.tanh(key + queries[:, :, None]) @ weight) * aim).sum()
    assert isinstance(found, torch.Tensor)
    torch.testing.assert_close(
        torch.autograd.grad(found, [key, weight]), torch.autograd.grad(wanted, [key, weight]),
        atol=1e-5, rtol=1e-4,
    )  # fmt: skip


def test_the_additive_seam_gives_zeros_where_nothing_may_be_seen_and_can_be_listened_to() -> None:
    attend = Additive(name="cross.0", weight=torch.randn(4))
    query, key, value = torch.randn(2, 1, 3, 4), torch.randn(2, 1, 5, 4), torch.randn(2, 1, 5, 4)
    mask = Mask(keys=torch.tensor([[True] * 5, [False] * 5]))
    plain = attend(query, key, value, mask)
    assert not plain[1].any()
    with record() as recorder:
        torch.testing.assert_close(attend(query, key, value, mask), plain)
    weights = recorder["cross.0"]
    torch.testing.assert_close(weights[0].sum(-1), torch.ones(1, 3))
    torch.testing.assert_close(weights[0] @ value[0], plain[0])


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_a_step_is_torchs_cell(cell: Cell) -> None:
    torch.manual_seed(0)
    made = {"rnn": nn.RNNCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}[cell](3, 5)
    x, state = torch.randn(2, 3), tuple(torch.randn(2, 5) for _ in range(2 if cell == "lstm" else 1))
    given, own = x @ made.weight_ih.T + made.bias_ih, state[0] @ made.weight_hh.T + made.bias_hh
    wanted = made(x, state if cell == "lstm" else state[0])
    wanted = wanted if cell == "lstm" else (wanted,)
    torch.testing.assert_close(step(cell, given, own, state), wanted)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_steps_are_the_stack(cell: Cell) -> None:
    torch.manual_seed(0)
    stack = Recurrence(cell, inputs=3, width=4, num_layers=2)
    x = torch.randn(2, 5, 3)
    state = torch.randn_like(stack.zeros(x))
    wanted, end = stack(x, None, state)
    steps, first = Steps(stack, state), stack.cells[0]
    found = [steps.take(one @ first.weight_ih_l0.T + first.bias_ih_l0) for one in x.unbind(1)]
    torch.testing.assert_close(torch.stack(found, 1), wanted)
    torch.testing.assert_close(steps.state, end)
    torch.testing.assert_close(steps.top, wanted[:, -1])


def test_dropout_stands_between_layers_while_training() -> None:
    torch.manual_seed(0)
    stack = Recurrence("gru", inputs=3, width=4, num_layers=2, dropout=0.5)
    x = torch.randn(2, 5, 3)
    assert torch.equal(stack.eval()(x)[0], stack(x)[0])
    assert not torch.equal(stack.train()(x)[0], stack(x)[0])
    one = Recurrence("gru", inputs=3, width=4, num_layers=1, dropout=0.5).train()
    assert torch.equal(one(x)[0], one(x)[0])


def test_padding_is_trailing_where_no_token_follows_it() -> None:
    assert is_trailing(torch.tensor([[1, 1, 0], [1, 1, 1], [0, 0, 0]]).bool())
    assert not is_trailing(torch.tensor([[1, 1, 0], [0, 1, 1]]).bool())
    assert not is_trailing(torch.tensor([[1, 0, 1]]).bool())
