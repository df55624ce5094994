"""The loss that is scored in parts, and embeddings that learn where their head does: equal to the plain ones."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from regard.models.embeddings import scored_by
from regard.models.families import preset
from regard.models.transformer import Decoder, Encoder, EncoderDecoder, build
from regard.nn import native
from regard.training import likelihood, loss
from regard.training.likelihood import scored_in_parts
from regard.training.loss import IGNORED, LossSums, cross_entropy, sequence_loss

has_kernels = pytest.mark.skipif(
    any(native.load(name) is None for name in ("learning_products", "likelihood")),
    reason="no C compiler, or a processor without AVX-512 BF16 (or with AMX, where torch's products are faster)",
)
WORDS = 301  # an odd number, so that rows of logits have something behind them


def made(**changes: Any) -> Decoder | Encoder | EncoderDecoder:
    torch.manual_seed(0)
    settings = {
        "vocab_size": WORDS,
        "width": 32,
        "num_heads": 2,
        "num_layers": 1,
        "dropout": 0.0,
        "bos_id": 1,
        "eos_id": 2,
    }
    return build(preset("gpt2", **{"attention_dropout": 0.0, "init_std": 0.3, **settings, **changes}))


def off(found: Tensor | None, expected: Tensor | None) -> float:
    assert found is not None and expected is not None
    return float((found.detach() - expected.detach()).double().norm() / expected.detach().double().norm())


@has_kernels
@pytest.mark.parametrize(
    "changes", [{}, {"output_bias": True}, {"tie_embeddings": False, "output_scale": 0.5}]
)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [None, 64, 37])
def test_a_loss_in_parts_is_the_loss(
    chunk: int | None, smoothing: float, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, draw = made(**changes), torch.Generator().manual_seed(1)
    states = torch.randn(3, 50, 32, generator=draw)
    labels = torch.randint(0, WORDS, (3, 50), generator=draw)
    labels[:, ::7] = IGNORED

    def learned() -> list[Tensor | None]:
        model.zero_grad()
        x = states.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            total, tokens, nll = cross_entropy(x, model.head, labels, smoothing=smoothing, chunk=chunk)
        (total / tokens).backward()
        bias = model.head.output.bias
        return [total, nll, x.grad, model.head.output.weight.grad, x.grad if bias is None else bias.grad]

    assert likelihood.output_of(model.head, states) is None  # single precision
    ours = learned()
    monkeypatch.setattr(loss, "output_of", lambda head, hidden: None)
    for found, expected, bound in zip(ours, learned(), (1e-5, 1e-5, 0.006, 0.006, 0.006), strict=True):
        assert off(found, expected) < bound


@has_kernels
def test_logits_of_any_size_have_a_gradient_and_a_nan_shows() -> None:
    model = made()
    labels = torch.arange(70)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states = 1e4 * torch.randn(70, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
        total, _, _ = cross_entropy(states, model.head, labels)
        total.backward()
        assert total.isfinite() and model.head.output.weight.grad.isfinite().all()
        states = states.detach().clone().requires_grad_()
        states.data[3, 4] = float("nan")
        assert cross_entropy(states, model.head, labels)[0].isnan()


@has_kernels
def test_a_label_that_is_no_word_is_refused() -> None:
    model = made()
    states = torch.zeros(70, 32, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(IndexError, match="vocabulary of 301"):
        cross_entropy(states, model.head, torch.full((70,), WORDS))


@pytest.mark.parametrize("precision", [torch.bfloat16, None])
@pytest.mark.parametrize("preset_name", ["gpt2", "transformer-base"])
def test_a_tied_embedding_learns_the_same_where_its_rows_are_added(
    preset_name: str, precision: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    settings = {"vocab_size": WORDS, "width": 32, "num_heads": 2, "num_layers": 1, "dropout": 0.0}
    model = build(
        preset(preset_name, **settings, **({"bos_id": 1, "eos_id": 2} if preset_name == "gpt2" else {}))
    )
    model.eval()
    ids = torch.randint(3, 20, (4, 40), generator=torch.Generator().manual_seed(1))
    batch = {"ids": ids, "labels": ids.roll(-1, 1)}
    if preset_name != "gpt2":
        batch = {"source": ids, "target_in": ids, "target_out": ids.roll(-1, 1)}

    def learned() -> Tensor:
        model.zero_grad()
        with torch.autocast("cpu", dtype=precision) if precision else nullcontext():
            sums: LossSums = sequence_loss(model, batch)
        sums.loss.backward()
        gradient = model.get_parameter("embedding.weight").grad
        assert gradient is not None and gradient.layout == torch.strided
        return gradient

    found = learned()
    monkeypatch.setattr(loss, "scored_by", lambda head: nullcontext())
    assert off(found, learned()) < 1e-6


def test_an_embedding_that_isn_t_tied_learns_by_itself() -> None:
    model = made(tie_embeddings=False)
    batch = {"ids": torch.arange(80)[None], "labels": torch.arange(1, 81)[None]}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sequence_loss(model, batch).loss.backward()
    gradient = model.get_parameter("embedding.weight").grad
    assert gradient is not None and gradient[:80].any(1).all() and not gradient[80:].any()


def test_states_that_nobody_scores_learn_too() -> None:
    model = made()
    with scored_by(model.head):
        model.hidden(torch.arange(9)[None]).square().sum().backward()  # type: ignore[arg-type]
    gradient = model.get_parameter("embedding.weight").grad
    assert gradient is not None and gradient[:9].any(1).all() and not gradient[9:].any()


@has_kernels
def test_the_gradient_of_a_tied_embedding_is_not_copied() -> None:
    model = made()
    batch = {"ids": torch.arange(80)[None], "labels": torch.arange(1, 81)[None]}
    made_by_the_head = []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sums = sequence_loss(model, batch)
    node = sums.loss.grad_fn
    node.register_hook(lambda into, out: made_by_the_head.append(into[1].data_ptr()))  # type: ignore[union-attr]
    sums.loss.backward()
    assert model.head.output.weight.grad.data_ptr() == made_by_the_head[0]


@has_kernels
@pytest.mark.parametrize("also", ["another loss", "a penalty", "a penalty before"])
def test_a_tied_embedding_learns_from_several_things_at_once(
    also: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = made()
    ids = torch.randint(0, WORDS, (2, 40), generator=torch.Generator().manual_seed(3))

    def learned() -> Tensor:
        model.zero_grad()
        weight = model.get_parameter("embedding.weight")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            first = sequence_loss(model, {"ids": ids, "labels": ids.roll(-1, 1)}).loss
            second = sequence_loss(model, {"ids": ids.flip(0), "labels": ids}).loss
        penalty = 100 * weight.square().sum()
        total = {
            "another loss": first + second, "a penalty": first + penalty, "a penalty before": penalty + first,
        }[also]  # fmt: skip
        total.backward()
        assert weight.grad is not None
        return weight.grad

    found = learned()
    monkeypatch.setattr(loss, "scored_by", lambda head: nullcontext())
    assert off(found, learned()) < 1e-6


@has_kernels
def test_labels_of_32_bits_are_labels() -> None:
    model = made()
    states, labels = torch.randn(70, 32, requires_grad=True), torch.arange(70)
    output = model.head.output
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = (scored_in_parts(states, output, x)[0] for x in (labels.int(), labels))  # type: ignore[arg-type]
    assert torch.equal(found, expected)
