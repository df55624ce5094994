"""A stack in one call of the kernel: it gives what the modules give, and stands aside where they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tests.models.zoo import TOLERANCE, config, model, pad, rows, sorts
from torch import Tensor
from torch.testing import assert_close

from regard.models import decoding, program
from regard.models.transformer import build
from regard.nn import native
from regard.nn.attention import record, use_kernel
from regard.nn.lora import add_lora
from regard.nn.packed import pack
from regard.nn.taps import tapping

pytestmark = pytest.mark.skipif(
    native.load("step") is None, reason="no C compiler, or a processor without AVX-512 BF16 and VNNI"
)
WIDE = {"width": 64, "num_heads": 2, "num_kv_heads": 2, "ffn_width": 96, "context": 48, "init_std": 0.1}
SIMILAR = {"float32": 1e-4, "bfloat16": 0.03}


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Count the passes that the kernel takes."""
    made: list[str] = []
    for name in ("step", "encode"):
        real = getattr(program.Program, name)

        def spy(self: Any, *args: Any, real: Any = real, name: str = name, **kwargs: Any) -> Tensor:
            made.append(name)
            return real(self, *args, **kwargs)

        monkeypatch.setattr(program.Program, name, spy)
    return made


def fresh(sort: str, **changes: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        made = build(config(sort, **{**WIDE, **changes})).eval()
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made


def written(net: Any, *, chunks: tuple[int, ...] = (5, 1, 1, 2, 1)) -> Tensor:
    """Score texts of which one is padded, a few tokens at a time."""
    ids, mask = pad(rows(5, 3), "left")
    source: dict[str, Any] = {}
    if hasattr(net, "encoder"):
        source = dict(zip(("source", "source_mask"), pad(rows(6, 4, seed=9)), strict=True))
    state = net.start(batch=2, **source)
    more = torch.stack(rows(sum(chunks[1:]), sum(chunks[1:]), seed=4))
    scores = [state.advance(ids, mask)[:, -1:]]
    scores += [state.advance(part) for part in more.split(chunks[1:], dim=1)]
    return torch.cat(scores, 1)


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("sort", sorts("decoder", "encoder-decoder"))
def test_steps_are_those_of_the_modules(sort: str, dtype: str, calls: list[str]) -> None:
    changes = {"num_heads": 4, "num_kv_heads": 2, "query_key_norm": True} if "rotary" in sort else {}
    net = fresh(sort, **changes).to(getattr(torch, dtype))
    found = written(net)
    first = 0 if sort.startswith("decoder") else 1  # the first step of a source fills its cross cache
    assert calls.count("step") == 5 - first
    with use_kernel("fused"):
        assert relative(found, written(net)) < SIMILAR[dtype]


@pytest.mark.parametrize("bits", [8, 4])
def test_packed_steps_are_those_of_the_packed_modules(bits: Any, calls: list[str]) -> None:
    net = fresh("decoder/learned/layernorm/pre")
    exact = written(net)
    pack(net, bits)
    found = written(net)
    assert len(calls) == 10
    with use_kernel("fused"):
        assert relative(found, written(net)) < 0.02
    assert relative(found, exact) < {8: 0.03, 4: 0.25}[bits]


@pytest.mark.parametrize(
    "changes",
    [
        {"attention_softcap": 2.0, "logit_softcap": 3.0},
        {"window": 3, "global_layers": (1,), "rotary_window_base": 100.0},
        {"attention_scale": 0.3, "activation": "relu2"},
        {"activation": "gelu", "gated": False},
        {"activation": "gelu_tanh"},
        {"activation": "relu"},
        {"head_size": 24},
        {"num_kv_heads": 1, "tie_embeddings": False},
    ],
    ids=lambda changes: next(iter(changes)) + str(next(iter(changes.values()))),
)
def test_what_single_families_have(changes: dict[str, Any], calls: list[str]) -> None:
    net = fresh("decoder/rotary/rmsnorm/pre", **changes)
    found = written(net)
    assert len(calls) == 5
    with use_kernel("reference"):
        assert_close(found, written(net), **TOLERANCE)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("sort", sorts("encoder"))
def test_texts_without_padding_are_texts_with_it(sort: str, side: str, dtype: str, calls: list[str]) -> None:
    net = fresh(sort).to(getattr(torch, dtype))
    ids, mask = pad(rows(7, 1, 12), side)
    found = net.hidden(ids, key_mask=mask)
    assert calls == ["encode"]
    assert not bool(found[~mask].any())
    with use_kernel("fused"):
        assert relative(found[mask], net.hidden(ids, key_mask=mask)[mask]) < SIMILAR[dtype]
    whole = net.hidden(ids)
    with use_kernel("fused"):
        assert relative(whole, net.hidden(ids)) < SIMILAR[dtype]
    assert len(calls) == 2


def test_a_window_of_an_encoder_is_open_to_both_sides(calls: list[str]) -> None:
    net = fresh("encoder/rotary/rmsnorm/pre", window=4, global_layers=(0,), rotary_window_base=50.0)
    ids, mask = pad(rows(20, 13))
    found = net.hidden(ids, key_mask=mask)
    assert calls == ["encode"]
    with use_kernel("fused"):
        assert_close(found[mask], net.hidden(ids, key_mask=mask)[mask], **TOLERANCE)


def test_a_text_without_any_token_is_zeros(calls: list[str]) -> None:
    net = fresh("encoder/t5/rmsnorm/pre")
    ids, mask = pad([*rows(4), torch.empty(0, dtype=torch.long)])
    found = net.hidden(ids, key_mask=mask)
    assert calls == ["encode"]
    assert not bool(found[1].any())
    assert_close(found[:1, :4], net.hidden(ids[:1, :4]), **TOLERANCE)


def test_positions_of_ones_own_are_left_to_the_modules(calls: list[str]) -> None:
    ids = torch.stack(rows(6, 6))
    later = torch.arange(6).expand(2, -1) * 2
    net = fresh("encoder/rotary/layernorm/pre")
    with use_kernel("fused"):
        expected = net.hidden(ids, positions=later)
    assert_close(net.hidden(ids, positions=later), expected, **TOLERANCE)
    assert calls == []
    learned = fresh("encoder/learned/layernorm/pre")  # where they are only added, they are no matter
    with use_kernel("fused"):
        expected = learned.hidden(ids, positions=later)
    assert_close(learned.hidden(ids, positions=later), expected, **TOLERANCE)
    assert calls == ["encode"]


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    net = fresh("encoder-decoder/learned/layernorm/post", width=128, num_heads=4, num_kv_heads=4).bfloat16()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = written(net)
        torch.set_num_threads(3)
        assert torch.equal(alone, written(net))
    finally:
        torch.set_num_threads(before)


def test_it_stands_aside_while_somebody_looks_learns_or_changes_a_module(calls: list[str]) -> None:
    net = fresh("decoder/learned/layernorm/pre")
    seen: list[str] = []
    with record() as kept:
        written(net)
    assert kept.weights
    with tapping(lambda name, value: (seen.append(name), value)[1]):
        written(net)
    assert seen
    with torch.enable_grad():
        assert written(net).requires_grad
    handle = net.stack.blocks[0].register_forward_hook(lambda *_: seen.append("hook"))
    written(net)
    handle.remove()
    assert "hook" in seen
    net.train()
    written(net)
    net.eval()
    assert calls == []
    expected = written(net)
    assert len(calls) == 5
    add_lora(net, rank=2, alpha=4.0)
    with torch.no_grad():
        assert_close(written(net), expected, **TOLERANCE)
    assert len(calls) == 5


def test_somebody_may_begin_to_look_in_the_middle_of_a_text(calls: list[str]) -> None:
    net, (ids,) = fresh("decoder/rotary/rmsnorm/pre"), rows(9)
    state = net.start(batch=1)
    parts = [state.advance(ids[None, :4])]
    with record() as kept:
        parts.append(state.advance(ids[None, 4:6]))
    assert kept["decoder.0"].shape == (1, 2, 2, 6)
    parts.append(state.advance(ids[None, 6:]))
    assert len(calls) == 2
    assert_close(torch.cat(parts, 1), net(ids[None]), **TOLERANCE)


@pytest.mark.parametrize("bits", [0, 8])
def test_a_weight_that_is_no_number_is_not_hidden(bits: Any) -> None:
    net = fresh("decoder/learned/layernorm/pre")
    net.stack.blocks[0].feed_forward.down.weight[3, 5] = torch.nan
    if bits:
        pack(net, bits)
    assert bool(written(net).isnan().all())


def test_room_grows_with_the_rows() -> None:
    net, (text,) = model("decoder/alibi/layernorm/pre"), rows(6)
    state = net.start(batch=1)
    state.advance(text[None, :2])
    state.reorder(torch.tensor([0] * 40))
    grown = state.advance(text[None, 2:4].expand(40, -1))
    assert_close(grown, net(text[None, :4])[:, 2:].expand(40, -1, -1), **TOLERANCE)


def test_without_a_kernel_the_modules_run(monkeypatch: pytest.MonkeyPatch, calls: list[str]) -> None:
    net = fresh("decoder/learned/layernorm/pre")
    expected = written(net)
    monkeypatch.setattr(program, "load", lambda name: None)
    assert_close(written(net), expected, **TOLERANCE)
    assert len(calls) == 5
    assert decoding.program_for is program.program_for
