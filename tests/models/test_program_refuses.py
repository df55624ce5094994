"""Where the kernel for decoding must stand aside, or must not read what isn't there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import torch
from tests.models.test_program import fresh, written
from tests.models.zoo import pad, rows
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.testing import assert_close

from regard.models.transformer import build
from regard.nn import native
from regard.nn.attention import use_kernel
from regard.nn.layers import Dropout

pytestmark = pytest.mark.skipif(
    native.load("step") is None, reason="no C compiler, or a processor without AVX-512 BF16 and VNNI"
)
DECODER, ENCODER, BOTH = (f"{kind}/rotary/rmsnorm/pre" for kind in ("decoder", "encoder", "encoder-decoder"))
IDS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def same(run: Callable[[], Tensor], kernel: Any = "fused") -> None:
    found = run()
    with use_kernel(kernel):
        assert_close(found.float(), run().float(), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_torchs_default_type_changes_nothing(dtype: torch.dtype) -> None:
    decoder, encoder = fresh(DECODER), fresh(ENCODER)
    ids, mask = pad(rows(7, 12))
    expected = written(decoder), encoder.hidden(ids, key_mask=mask)
    torch.set_default_dtype(dtype)
    try:
        found = written(decoder), encoder.hidden(ids, key_mask=mask)
    finally:
        torch.set_default_dtype(torch.float32)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_torchs_default_device_changes_nothing() -> None:
    decoder, encoder = fresh(DECODER), fresh(ENCODER)
    expected = encoder.hidden(IDS), decoder.start(batch=2).advance(IDS)
    with torch.device("meta"):
        found = encoder.hidden(IDS), decoder.start(batch=2).advance(IDS)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_a_mask_of_sources_may_lie_otherwise() -> None:
    net = fresh(BOTH)
    source, mask = pad(rows(6, 4, 3))

    def scores(mask: Tensor) -> Tensor:
        state = net.start(batch=3, source=source, source_mask=mask)
        state.advance(torch.ones(3, 1, dtype=torch.long))
        return state.advance(torch.ones(3, 2, dtype=torch.long))

    assert torch.equal(scores(mask), scores(mask.T.contiguous().T))


@pytest.mark.parametrize("length", [0, 1])
def test_a_source_may_be_empty(length: int) -> None:
    net = fresh("encoder-decoder/sinusoidal/layernorm/post")

    def scores() -> Tensor:
        state = net.start(batch=2, source=IDS[:, :length])
        state.advance(IDS[:, :1])
        return state.advance(IDS[:, 1:3])

    same(scores)


def test_what_modules_kept_in_another_type_is_left_to_them() -> None:
    net = fresh(BOTH)
    source, mask = pad(rows(6, 4))

    def scores() -> Tensor:
        with torch.autocast("cpu", torch.float16):
            state = net.start(batch=2, source=source, source_mask=mask)
            state.advance(IDS[:, :1])
            return state.advance(IDS[:, 1:3])

    found = scores()
    with use_kernel("reference"):
        assert_close(found.float(), scores().float(), atol=0.05, rtol=0.05)


def test_dropout_that_is_kept_on_is_applied() -> None:
    net = fresh(ENCODER, dropout=0.5)
    for part in net.modules():
        if isinstance(part, Dropout):
            part.train()
    assert not torch.equal(net(IDS), net(IDS))


def test_gradients_may_begin_within_a_text() -> None:
    net = fresh(DECODER)
    state = net.start(batch=2)
    state.advance(IDS)
    with torch.enable_grad():
        assert state.advance(IDS[:, :1]).requires_grad


def _wrapped(net: Any) -> None:
    class Twice(nn.Module):
        def __init__(self, block: nn.Module) -> None:
            super().__init__()
            self.block = block

        def forward(self, x: Tensor, **given: Any) -> Tensor:
            out: Tensor = self.block(x, **given)
            return 2 * out

    net.stack.blocks[0] = Twice(net.stack.blocks[0])


def _replaced(net: Any) -> None:
    net.stack.blocks[0].feed_forward = nn.Identity()


def _patched(net: Any) -> None:
    net.stack.blocks[0].feed_forward.forward = lambda x: 0 * x


def _expanded(net: Any) -> None:
    net.stack.blocks[0].attention_norm.weight.data = torch.tensor([2.0]).expand(64)


def _one_bias(net: Any) -> None:
    net.stack.blocks[0].feed_forward.down.bias = nn.Parameter(torch.ones(1))


def _cut(net: Any) -> None:
    net.head.output.weight = nn.Parameter(net.head.output.weight[:10].clone())


@pytest.mark.parametrize("change", [_wrapped, _replaced, _patched, _expanded, _one_bias, _cut])
def test_a_model_that_was_changed_by_hand(change: Callable[[Any], None]) -> None:
    net = fresh(DECODER, tie_embeddings=False)
    plain = net.start(batch=2).advance(IDS)
    change(net)
    same(lambda: net.start(batch=2).advance(IDS))
    changed = net.start(batch=2).advance(IDS)
    assert changed.shape != plain.shape or not torch.equal(changed, plain)


def test_tensors_that_only_stand_for_numbers_go_through_the_modules() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    parts = fresh(ENCODER).config, fresh(DECODER).config
    with FakeTensorMode():
        encoder, decoder = (cast(Any, build(part).eval()) for part in parts)
        ids = torch.zeros(2, 5, dtype=torch.long)
        mask = torch.ones(2, 5, dtype=torch.bool)
        assert encoder.hidden(ids, key_mask=mask).shape == (2, 5, 64)
        assert decoder.start(batch=2).advance(ids).shape == (2, 5, 23)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_several_models_at_once_are_each_of_them() -> None:
    net = fresh(ENCODER)
    weights = {name: torch.stack([p.detach(), 1.1 * p.detach()]) for name, p in net.named_parameters()}
    found = vmap(lambda own: functional_call(net, own, (IDS,)))(weights)
    assert_close(found[0], net(IDS), atol=1e-4, rtol=1e-3)
    assert not torch.allclose(found[0], found[1])


def test_all_rows_may_have_left() -> None:
    state = fresh(DECODER).start(batch=2)
    state.advance(IDS)
    state.reorder(torch.empty(0, dtype=torch.long))
    assert state.advance(torch.empty(0, 1, dtype=torch.long)).shape == (0, 1, 23)


def test_a_window_counts_what_is_masked_between_others() -> None:
    net = fresh(ENCODER, window=3)
    ids = torch.randint(0, 20, (2, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[0, 3:6] = False
    same(lambda: net.hidden(ids, key_mask=mask)[mask])
