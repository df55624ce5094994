"""Weights in eight and four bits: what is lost, and that the kernel multiplies what was packed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from regard.config import ModelConfig
from regard.models.transformer import build
from regard.nn import native, packed
from regard.nn.packed import PackedLinear, is_packed, pack

has_kernel = pytest.mark.skipif(
    native.load("step") is None, reason="no C compiler, or a processor without AVX-512 BF16 and VNNI"
)


def linear(outputs: int, inputs: int, *, bias: bool = True) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(outputs)
        made = nn.Linear(inputs, outputs, bias=bias)
        nn.init.normal_(made.weight)
    return made.requires_grad_(False)


def drawn(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("outputs", "inputs"), [(48, 64), (50, 32), (3, 96)])
def test_eight_bits_lose_at_most_half_a_step_of_a_rows_largest_weight(outputs: int, inputs: int) -> None:
    layer = linear(outputs, inputs)
    lost = (PackedLinear(layer, 8).weight - layer.weight).abs()
    assert bool((lost <= layer.weight.abs().amax(1, keepdim=True) / 127 * 0.5001).all())
    assert float(lost.max()) > 0


@pytest.mark.parametrize(("outputs", "inputs"), [(48, 64), (50, 32), (3, 96)])
def test_four_bits_lose_less_than_the_largest_of_each_32_divided_by_eight(outputs: int, inputs: int) -> None:
    layer = linear(outputs, inputs)
    spans = layer.weight.unflatten(1, (-1, 32))
    lost = (PackedLinear(layer, 4).weight.unflatten(1, (-1, 32)) - spans).norm(dim=2)
    plain = spans.abs().amax(2, keepdim=True) / 7  # the scale that makes the largest 7, and cuts nothing off
    rounded = ((spans / plain).round() * plain - spans).norm(dim=2)
    assert float(lost.mean()) < 0.93 * float(rounded.mean())
    assert bool((lost <= rounded * 1.25 + 1e-6).all())


@pytest.mark.parametrize("bits", [8, 4])
def test_what_fits_the_steps_is_kept_exactly(bits: int) -> None:
    layer = linear(20, 64, bias=False)
    with torch.no_grad():
        whole = torch.randint(-7, 8, (20, 64), generator=torch.Generator().manual_seed(1)).float()
        whole[:, ::32] = -8 if bits == 4 else -127  # every span has its largest
        layer.weight.copy_(whole * 0.25)
    assert torch.equal(PackedLinear(layer, bits).weight, layer.weight)
    layer.weight.data.zero_()
    assert torch.equal(PackedLinear(layer, bits).weight, layer.weight)


@has_kernel
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("rows", [1, 2, 5, 8, 9, 33, 70])
@pytest.mark.parametrize(("outputs", "inputs"), [(48, 64), (50, 32), (3, 96), (7, 2048)])
def test_the_kernel_multiplies_what_was_packed(outputs: int, inputs: int, rows: int, bits: int) -> None:
    layer = PackedLinear(linear(outputs, inputs), bits)
    x = drawn(rows, inputs)
    expected = nn.functional.linear(x.double(), layer.weight.double(), layer.bias.double())
    # x is rounded to 8 bits, 32 numbers at a time: half a step each, as errors of many numbers add up
    steps = x.unflatten(1, (-1, 32)).abs().amax(2, keepdim=True) / 127
    bound = ((0.5 * steps).expand(-1, -1, 32).flatten(1) @ layer.weight.abs().T).double() + 1e-4
    assert bool(((layer(x) - expected).abs() <= bound).all())
    assert float((layer(x) - expected).norm() / expected.norm()) < 0.01


@has_kernel
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_number_that_is_none_stays_none(bits: int, bad: float) -> None:
    x = drawn(3, 64)
    x[1, 40] = bad
    found = PackedLinear(linear(20, 64), bits)(x)
    assert bool(found[[0, 2]].isfinite().all())
    assert not bool(found[1].isfinite().any())


@pytest.mark.parametrize("bits", [8, 4])
def test_without_a_kernel_the_weights_are_unpacked(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "load", lambda name: None)
    layer, x = PackedLinear(linear(20, 64), bits), drawn(2, 3, 64).bfloat16()
    assert layer(x).dtype == torch.bfloat16
    expected = nn.functional.linear(x, layer.weight.bfloat16(), layer.bias.bfloat16())
    assert torch.equal(layer(x), expected)


def test_only_the_blocks_and_what_scores_tokens_are_packed() -> None:
    config = ModelConfig(
        kind="decoder", vocab_size=40, width=32, num_heads=2, num_layers=2, ffn_width=48, context=16
    )
    module = build(config).eval()
    assert not is_packed(module)
    pack(module, 8)
    assert is_packed(module)
    kept = {name for name, part in module.named_modules() if isinstance(part, nn.Linear)}
    assert kept == {f"stack.blocks.{i}.feed_forward.down" for i in (0, 1)}  # 48 inputs are no multiple of 32
    assert isinstance(module.head.output, PackedLinear)
    assert module.embedding.weight.dtype == torch.bfloat16
    labels = ModelConfig(
        kind="encoder",
        vocab_size=40,
        width=32,
        num_heads=2,
        num_layers=1,
        ffn_width=64,
        head="classify",
        labels=("a", "b"),
    )
    module = build(labels)
    pack(module, 4)
    assert not isinstance(module.head.output, PackedLinear)
