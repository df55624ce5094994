"""Many new tokens at once: the kernel's panels of weights and blocks of queries give what the modules give."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tests.models.test_program import fresh, relative
from tests.models.zoo import TOLERANCE, pad, rows
from torch import nn
from torch.testing import assert_close

from regard.nn import native
from regard.nn.attention import use_kernel
from regard.nn.packed import PackedLinear, product_of

pytestmark = pytest.mark.skipif(
    native.load("step") is None, reason="no C compiler, or a processor without AVX-512 BF16 and VNNI"
)
LONG = {"context": 640, "relative_distance": 300}
POSITIONS = ("none", "sinusoidal", "learned", "rotary", "alibi", "t5")


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def scores(net: Any) -> Any:
    """Score two texts, one of which is padded, in three parts of many tokens, the last beginning within a block."""
    ids, mask = pad(rows(230, 41), "left")
    source: dict[str, Any] = {}
    if hasattr(net, "encoder"):
        source = dict(zip(("source", "source_mask"), pad(rows(150, 6, seed=9)), strict=True))
    state = net.start(batch=2, **source)
    more = torch.stack(rows(260, 260, seed=4))
    return torch.cat(
        [state.advance(ids, mask)[1:], state.advance(more[:, :7])[1:], state.advance(more[:, 7:])[1:]], 1
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
def test_parts_of_many_tokens(kind: str, position: str, dtype: str) -> None:
    net = fresh(f"{kind}/{position}/layernorm/pre", **LONG).to(getattr(torch, dtype))
    found = scores(net)[:, 189:]  # before, there is only padding
    with use_kernel("fused"):
        assert relative(found, scores(net)[:, 189:]) < {"float32": 1e-4, "bfloat16": 0.03}[dtype]


@pytest.mark.parametrize(
    "changes",
    [
        {"attention_softcap": 2.0},
        {"window": 100, "global_layers": (1,), "rotary_window_base": 100.0},
        {"window": 3},
        {"head_size": 24},
        {"head_size": 72, "num_kv_heads": 1},
        {"query_key_norm": True, "attention_scale": 0.3},
    ],
    ids=lambda changes: "-".join(map(str, changes)),
)
def test_what_single_families_have(changes: dict[str, Any]) -> None:
    net = fresh("decoder/rotary/rmsnorm/pre", **LONG, **changes)
    found = scores(net)[:, 189:]
    with use_kernel("reference"):
        assert_close(found, scores(net)[:, 189:], **TOLERANCE)


@pytest.mark.parametrize("changes", [{}, {"window": 30}], ids=["whole", "window"])
@pytest.mark.parametrize("position", POSITIONS)
def test_whole_texts(position: str, changes: dict[str, Any]) -> None:
    net = fresh(f"encoder/{position}/layernorm/post", **LONG, **changes)
    ids, mask = pad(rows(401, 5, 130))
    found = net.hidden(ids, key_mask=mask)
    with use_kernel("fused"):
        assert_close(found[mask], net.hidden(ids, key_mask=mask)[mask], **TOLERANCE)


@pytest.mark.parametrize(
    "changes",
    [
        {"head_size": 64},
        {"head_size": 128, "num_kv_heads": 1, "attention_softcap": 2.0},
        {"head_size": 64, "window": 100, "global_layers": (1,), "rotary_window_base": 100.0},
    ],
    ids=lambda changes: "-".join(map(str, changes)),
)
@pytest.mark.parametrize("position", ["rotary", "t5"])
def test_heads_that_are_multiplied_in_pairs(position: str, changes: dict[str, Any]) -> None:
    if position == "t5":
        changes = {name: value for name, value in changes.items() if "rotary" not in name}
    exact = fresh(f"decoder/{position}/rmsnorm/pre", **LONG, **changes)
    net = fresh(f"decoder/{position}/rmsnorm/pre", **LONG, **changes).bfloat16()
    found, single = scores(net)[:, 189:], scores(exact)[:, 189:]
    with use_kernel("reference" if "attention_softcap" in changes else "fused"):
        theirs = scores(net)[:, 189:]
        assert relative(found, theirs) < 0.03
        assert (
            relative(found, single) < 1.2 * relative(theirs, single) + 1e-3
        )  # no farther from single precision


def test_one_token_after_many_is_as_all_at_once() -> None:
    net = fresh("decoder/rotary/rmsnorm/pre", **LONG)
    ids = torch.stack(rows(301))
    whole = net.start(batch=1).advance(ids)
    state = net.start(batch=1)
    state.advance(ids[:, :300])
    assert_close(state.advance(ids[:, 300:]), whole[:, 300:], **TOLERANCE)


@pytest.mark.parametrize("bits", [32, 16, 8, 4])
@pytest.mark.parametrize(
    ("width", "columns"), [(70, 96), (33, 34), (257, 768), (64, 4128), (100, 8256)], ids=str
)
@pytest.mark.parametrize("count", [17, 198, 401])
def test_products_of_many_rows(count: int, width: int, columns: int, bits: int) -> None:
    if bits < 16 and columns % 32:
        pytest.skip("weights of eight and four bits come in spans of 32")
    torch.manual_seed(count + width)
    layer: Any = nn.Linear(columns, width)
    x = torch.randn(count, columns)
    if bits < 16:
        layer = PackedLinear(layer, bits)
    else:
        layer = layer.to(torch.bfloat16 if bits == 16 else torch.float32)
    weight = layer.weight
    exact = x.to(layer.weight.dtype) if bits == 16 else x
    expected = (exact.double() @ weight.double().T + layer.bias.double()).float()
    results = []
    for threads in (1, 5):
        out = torch.full((count + 1, width), 7.0)
        product, _kept = product_of(layer, out)
        assert not native.load("step").multiply(  # type: ignore[union-attr]
            ctypes.byref(product),
            ctypes.c_void_p(x.data_ptr()),
            ctypes.c_int64(count),
            ctypes.c_int64(threads),
        )
        assert bool((out[count] == 7).all()), "a row beyond the last was written"
        assert relative(out[:count], expected) < (1e-5 if bits >= 16 else 0.02)
        results.append(out)
    assert torch.equal(*results)
