"""Recurrent models: padding, steps, states and weights are what the equations say, for every cell, kind and score."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.models.recurrent_zoo import (
    LOOKERS,
    SORTS,
    TOLERANCE,
    VOCABULARY,
    WRITERS,
    config,
    model,
    pad,
    rows,
)
from torch import Tensor, nn

from regard.config_recurrent import RecurrentConfig
from regard.errors import ConfigError
from regard.models.transformer import build
from regard.nn.attention import record
from regard.nn.recurrence import runs_of

SINGLE = [sort for sort in SORTS if sort not in WRITERS]
DECODERS = [sort for sort in SORTS if not sort.startswith("encoder")]


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, **TOLERANCE)


@pytest.mark.parametrize("sort", SORTS)
def test_the_configuration_counts_the_weights_of_the_model(sort: str) -> None:
    for changes in ({}, {"tie_embeddings": False, "output_bias": True}):
        made = build(config(sort, **changes))
        assert made.config.num_parameters() == sum(p.numel() for p in made.parameters())


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("sort", SINGLE)
def test_padding_changes_no_state(sort: str, side: str) -> None:
    texts = rows(7, 3, 5, 1)
    ids, mask = pad(texts, side, width=9)
    found = model(sort).hidden(ids, key_mask=mask)
    for i, text in enumerate(texts):
        close(found[i, mask[i]], model(sort).hidden(text[None])[0])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("sort", WRITERS)
def test_padding_changes_no_state_of_a_writer(sort: str, side: str) -> None:
    sources, targets = rows(7, 3, 5, 1), rows(2, 6, 4, 6, seed=4)
    source, source_mask = pad(sources, side, width=9)
    target, target_mask = pad(targets, side, width=8)
    found = model(sort).hidden(source, target, source_mask=source_mask, target_mask=target_mask)
    for i, (one, other) in enumerate(zip(sources, targets, strict=True)):
        close(found[i, target_mask[i]], model(sort).hidden(one[None], other[None])[0])


@pytest.mark.parametrize("sort", SINGLE)
def test_packed_documents_are_read_each_by_itself(sort: str) -> None:
    first, second, third = rows(4, 5, 3)
    ids = torch.cat((first, second, third))[None]
    documents = torch.tensor([[0] * 4 + [1] * 5 + [2] * 3])
    found = model(sort).hidden(ids, documents=documents)
    alone = [model(sort).hidden(text[None])[0] for text in (first, second, third)]
    close(found[0], torch.cat(alone))


@pytest.mark.parametrize("sort", [s for s in SINGLE if s.startswith("decoder")])
def test_a_later_token_moves_no_earlier_one(sort: str) -> None:
    (text,) = rows(8)
    changed = text.clone()
    changed[5:] = (changed[5:] + 1) % VOCABULARY
    found = model(sort).hidden(torch.stack((text, changed)))
    close(found[0, :5], found[1, :5])
    assert not torch.allclose(found[0, 5:], found[1, 5:])


def begin(sort: str, count: int, *, use_cache: bool = True) -> Any:
    if sort.startswith("decoder"):
        return model(sort).start(batch=count, use_cache=use_cache)
    source, mask = pad(rows(*[3 + i for i in range(count)]))
    return model(sort).start(source=source, source_mask=mask, use_cache=use_cache)


def whole(sort: str, target: Tensor) -> Tensor:
    if sort.startswith("decoder"):
        return model(sort)(target)
    source, mask = pad(rows(*[3 + i for i in range(len(target))]))
    return model(sort)(source, target, source_mask=mask)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("sort", DECODERS)
@torch.no_grad()
def test_step_by_step_is_all_at_once(sort: str, use_cache: bool) -> None:
    target = torch.stack(rows(6, 6, 6))
    wanted, state = whole(sort, target), begin(sort, 3, use_cache=use_cache)
    close(state.advance(target[:, :2]), wanted[:, :2])
    for t in range(2, 5):
        close(state.advance(target[:, t : t + 1])[:, 0], wanted[:, t])
    close(state.advance(target[:, 5:], only_last=True)[:, 0], wanted[:, 5])
    assert state.length == 6


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("sort", DECODERS)
@torch.no_grad()
def test_reordered_rows_go_on_from_where_they_were(sort: str, use_cache: bool) -> None:
    target = torch.stack(rows(4, 4, 4))
    wanted, state = whole(sort, target), begin(sort, 3, use_cache=use_cache)
    state.advance(target[:, :2])
    state.reorder(torch.tensor([2, 0, 0, 2]))
    order = torch.tensor([2, 0, 0, 2])
    close(state.advance(target[order, 2:3])[:, 0], wanted[order, 2])
    state.reorder(torch.tensor([3, 1]))
    assert state.batch == 2
    close(state.advance(target[[2, 0], 3:])[:, 0], wanted[[2, 0], 3])


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("sort", [s for s in DECODERS if s.endswith("1")])
@torch.no_grad()
def test_prompts_may_be_padded_on_the_left(sort: str, use_cache: bool) -> None:
    texts = rows(5, 2, 4)
    ids, mask = pad(texts, "left")
    state = begin(sort, 3, use_cache=use_cache)
    found = state.advance(ids, mask, only_last=True)
    more = state.advance(torch.full((3, 1), 5))
    for i, text in enumerate(texts):
        longer = torch.cat((text, torch.tensor([5])))[None]
        alone = whole(sort, longer.expand(3, -1))[i]
        close(found[i, 0], alone[-2])
        close(more[i, 0], alone[-1])


def test_a_state_refuses_to_go_beyond_the_context_and_to_go_back() -> None:
    state = model("decoder/gru/1").start(batch=1)
    with torch.no_grad():
        state.advance(torch.ones(1, 24, dtype=torch.long))
    with pytest.raises(ConfigError, match="25 tokens are more than the model's context of 24"):
        state.advance(torch.ones(1, 1, dtype=torch.long))
    with pytest.raises(ConfigError, match="can't take tokens back"):
        state.rewind(1)
    with pytest.raises(ConfigError, match="has no source"):
        model("decoder/gru/1").start(batch=1, source=torch.ones(1, 2))


def reference_cell(cell: str, layer: nn.RNNBase, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Take one step by torch's own cell of that name."""
    made = {"rnn": nn.RNNCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}[cell](
        layer.input_size, layer.hidden_size
    )
    weights = {name.removesuffix("_l0"): p.detach() for name, p in layer.named_parameters()}
    made.load_state_dict(weights)
    return made(x, state) if cell == "lstm" else (made(x, state[0]),)


@pytest.mark.parametrize("sort", LOOKERS)
@torch.no_grad()
def test_attention_is_the_papers(sort: str) -> None:
    """A plain loop over one text, with torch's cells and the papers' formulas, gives the same states and weights."""
    own, (source, target) = model(sort), rows(6, 5)
    writer, cell = own.decoder, own.config.cell
    memory, end = own.encoder(own.embedding(source[None]))
    h = memory[0]  # (S, D)
    begin_with = [end[i] for i in range(len(writer.blocks))]
    if own.config.score == "additive":
        begin_with = [torch.cat((torch.tanh(dense(b[0]))[None], b[1:]))
                      for dense, b in zip(writer.bridge, begin_with, strict=True)]  # fmt: skip
    state = [tuple(part for part in layer) for layer in begin_with]
    last, outs, found_weights = torch.zeros(1, 16), [], []

    def score(s: Tensor) -> Tensor:
        if own.config.score == "additive":
            inner = writer.query.weight @ s + h @ writer.key.weight.T + writer.key.bias
            return torch.tanh(inner) @ writer.energy
        return (
            h @ s if own.config.score == "dot" else torch.stack([s @ (writer.key.weight @ one) for one in h])
        )

    for y in own.target_embedding(target):
        x = y[None]
        if own.config.score == "additive":
            weights = score(state[-1][0][0]).softmax(-1)
            context = (weights @ h)[None]
            x = torch.cat((x, context), -1)
        elif own.config.input_feeding:
            x = torch.cat((x, last), -1)
        for i, layer in enumerate(writer.blocks):
            state[i] = reference_cell(cell, layer, x, state[i])
            x = state[i][0]
        if own.config.score == "additive":
            out = torch.tanh(writer.readout(torch.cat((x, context, y[None]), -1)))
        else:
            weights = score(x[0]).softmax(-1)
            out = last = torch.tanh(writer.readout(torch.cat(((weights @ h)[None], x), -1)))
        outs.append(out)
        found_weights.append(weights)
    close(own.hidden(source[None], target[None])[0], torch.cat(outs))
    with record() as recorder:
        close(own.hidden(source[None], target[None])[0], torch.cat(outs))
    close(recorder["cross.0"][0, 0], torch.stack(found_weights))


@pytest.mark.parametrize("sort", LOOKERS)
@torch.no_grad()
def test_weights_sum_to_one_and_pass_over_padding(sort: str) -> None:
    source, mask = pad(rows(7, 3))
    target = torch.stack(rows(4, 4))
    with record() as recorder:
        model(sort).hidden(source, target, source_mask=mask)
    weights = recorder["cross.0"]
    assert weights.shape == (2, 1, 4, 7)
    close(weights.sum(-1), torch.ones(2, 1, 4))
    assert not weights[1, :, :, 3:].any()


@pytest.mark.parametrize("sort", SORTS)
def test_every_weight_gets_the_gradient_of_differences(sort: str) -> None:
    """The gradient along a random direction equals the difference quotient, in double precision where it may be."""
    made, generator = build(config(sort)).double(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    ids, mask = pad(rows(5, 3))
    target = torch.stack(rows(4, 4, seed=9))
    aim = torch.randn(2, 4 if sort in WRITERS else 5, 16, generator=generator, dtype=torch.float64)

    def loss() -> Tensor:
        if sort in WRITERS:
            return (made.hidden(ids, target, source_mask=mask) * aim).sum()
        return (made.hidden(ids, key_mask=mask) * mask[..., None] * aim).sum()

    loss().backward()
    used = {n: p for n, p in made.named_parameters() if not n.startswith("head.")}
    missing = [name for name, p in used.items() if p.grad is None]
    assert not missing
    for name, p in used.items():
        direction = torch.randn(p.shape, generator=generator, dtype=torch.float64)
        given = float((p.grad * direction).sum())
        with torch.no_grad():
            p.add_(direction, alpha=1e-4)
            high = float(loss())
            p.sub_(direction, alpha=2e-4)
            low = float(loss())
            p.add_(direction, alpha=1e-4)
        # Scores of the shared seam are in single precision, whatever the model's.
        error = 5e-2 if sort.startswith("unfed") else 1e-4
        assert given == pytest.approx((high - low) / 2e-4, rel=error, abs=error), name


def test_runs_are_the_real_tokens_longest_first() -> None:
    mask = torch.tensor([[0, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    runs = runs_of(mask)
    assert runs.sizes.tolist() == [2, 2, 1]
    assert runs.rows.tolist() == [1, 0]
    assert runs.index.tolist() == [4, 1, 5, 2, 6]


def test_fresh_weights_are_orthogonal_and_an_lstm_remembers() -> None:
    torch.manual_seed(0)
    layer = build(RecurrentConfig(kind="decoder", vocab_size=9, width=8, cell="lstm")).stack.blocks[0]
    for gate in layer.weight_hh_l0.split(8):
        torch.testing.assert_close(gate @ gate.T, torch.eye(8))
    assert layer.bias_ih_l0.tolist() == [0.0] * 8 + [1.0] * 8 + [0.0] * 16


def learn(made: Any, loss: Any, steps: int, lr: float = 0.01) -> float:
    optimizer = torch.optim.Adam(made.parameters(), lr)
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)
        optimizer.step()
    return float(value.detach())


@pytest.mark.parametrize("form", ["cho", "sutskever", "additive", "dot", "general", "unfed"])
def test_a_writer_learns_to_copy(form: str) -> None:
    torch.manual_seed(0)
    made = build(config(f"{form}/gru/1", width=32)).train()
    ids = torch.randint(3, VOCABULARY, (48, 3))
    target = torch.cat((torch.ones(48, 1, dtype=torch.long), ids[:, :-1]), 1)

    def loss() -> Tensor:
        return nn.functional.cross_entropy(made(ids, target).flatten(0, 1), ids.flatten())

    assert learn(made, loss, 120) < 0.3


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_a_language_model_learns_what_it_reads(cell: str) -> None:
    torch.manual_seed(0)
    made = build(config(f"decoder/{cell}/1", width=32)).train()
    ids = torch.randint(3, VOCABULARY, (8, 9))

    def loss() -> Tensor:
        return nn.functional.cross_entropy(made(ids[:, :-1])[:, 1:].flatten(0, 1), ids[:, 2:].flatten())

    assert learn(made, loss, 100) < 0.3
