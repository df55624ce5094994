"""Attention: against torch's own module, between the kernels, and what the recorder keeps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from regard.config import ModelConfig
from regard.errors import ConfigError
from regard.nn.attention import Attend, Attention, record, use_kernel
from regard.nn.cache import CrossCache, LayerCache
from regard.nn.masks import Mask
from regard.nn.positions import Bias, Rotary, Terms

KERNELS = ("fused", "reference", "flex")
KEYS = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 1, 1, 1]]).bool()
BLANK = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [0, 0, 1, 1, 1]]).bool()
DOCUMENTS = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 2, 3, 3], [5, 5, 5, 5, 5]])
MASKS = {
    "none": Mask(),
    "causal": Mask(causal=True),
    "window": Mask(causal=True, window=2),
    "both-ways-window": Mask(window=2),
    "padding": Mask(keys=KEYS),
    "causal-left-padding": Mask(keys=KEYS, causal=True),
    "blank": Mask(keys=BLANK),
    "causal-blank": Mask(keys=BLANK, causal=True, window=3),
    "documents": Mask(documents=(DOCUMENTS, DOCUMENTS), causal=True),
    "prefix": Mask(causal=True, prefix=torch.tensor([0, 2, 5])),
}
needs_warnings = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")


def config(**changes) -> ModelConfig:
    values = {"kind": "encoder", "vocab_size": 5, "width": 16, "num_heads": 4, "position": "none"}
    return ModelConfig(**{**values, **changes})


def tensors(
    heads: int = 4, groups: int = 4, *, queries: int = 5, keys: int = 5
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(3, heads, queries, 8), torch.randn(3, groups, keys, 8), torch.randn(3, groups, keys, 8)


def by_hand(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Mask,
    bias: Tensor | None,
    *,
    scale: float = 8**-0.5,
    cap: float | None = None,
) -> Tensor:
    """Compute attention one query at a time, over the allowed keys only."""
    out = torch.zeros_like(query)
    dense = mask.dense(query.shape[2], key.shape[2], "cpu")
    for b in range(query.shape[0]):
        for h in range(query.shape[1]):
            g = h * key.shape[1] // query.shape[1]
            for t in range(query.shape[2]):
                seen = torch.ones(key.shape[2], dtype=torch.bool)
                if dense is not None:
                    seen = dense[b if len(dense) > 1 else 0, 0, t]
                if not seen.any():
                    continue
                scores = key[b, g] @ query[b, h, t] * scale
                scores = cap * torch.tanh(scores / cap) if cap else scores
                scores = scores + bias[b if len(bias) > 1 else 0, h, t] if bias is not None else scores
                out[b, h, t] = scores[seen].softmax(0) @ value[b, g, seen]
    return out


@needs_warnings
@pytest.mark.parametrize("biased", ["", "one-bias", "row-bias"])
@pytest.mark.parametrize("groups", [4, 2])
@pytest.mark.parametrize("name", MASKS)
def test_every_kernel_is_the_equation(name: str, groups: int, biased: str) -> None:
    (query, key, value), mask = tensors(4, groups), MASKS[name]
    bias = torch.randn(3 if biased == "row-bias" else 1, 4, 5, 5) if biased else None
    scale = 0.7 if groups == 2 else None
    expected = by_hand(query, key, value, mask, bias, scale=scale or 8**-0.5)
    for kernel in KERNELS:
        with use_kernel(kernel):
            mixed = Attend(scale=scale)(query, key, value, mask, bias)
        assert_close(mixed, expected, atol=1e-5, rtol=1e-5)


@needs_warnings
@pytest.mark.parametrize("name", ["none", "causal-left-padding", "blank"])
def test_the_softcap_bends_scores_before_the_mask(name: str) -> None:
    (query, key, value), bias = tensors(4, 2), torch.randn(1, 4, 5, 5)
    expected = by_hand(5 * query, key, value, MASKS[name], bias, cap=1.5)
    for kernel in ("auto", "reference", "flex"):
        with use_kernel(kernel):
            mixed = Attend(softcap=1.5)(5 * query, key, value, MASKS[name], bias)
        assert_close(mixed, expected, atol=1e-5, rtol=1e-5)
    with use_kernel("fused"), pytest.raises(ConfigError, match="can't cap scores"):
        Attend(softcap=1.5)(query, key, value, Mask())


@pytest.mark.parametrize("biased", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("name", MASKS)
def test_fused_and_reference_gradients_are_one(name: str, biased: bool) -> None:
    inputs = [x.requires_grad_() for x in tensors(4, 2)]
    if biased:
        inputs.append(torch.randn(1, 4, 5, 5, requires_grad=True))
    upstream, found = torch.randn(3, 4, 5, 8), []
    for kernel in ("fused", "reference"):
        with use_kernel(kernel):
            mixed = Attend()(*inputs[:3], MASKS[name], inputs[3] if biased else None)
        found.append(torch.autograd.grad(mixed, inputs, upstream))
    for fused, reference in zip(*found, strict=True):
        assert fused.isfinite().all()
        assert_close(fused, reference, atol=1e-5, rtol=1e-5)


@needs_warnings
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_query_that_may_see_nothing_gets_zeros(kernel: str) -> None:
    query, key, value = tensors()
    with use_kernel(kernel):
        blank = Attend()(query, key, value, MASKS["blank"])
        assert not blank[1].any()
        assert blank[0].any()
        causal = Attend()(query, key, value, MASKS["causal-left-padding"])
        assert not causal[2, :, :2].any()
        assert causal[2, :, 2:].any()


def test_more_queries_than_keys_under_a_causal_mask() -> None:
    query, key, value = tensors(queries=5, keys=3)
    for kernel in ("fused", "reference"):
        with use_kernel(kernel):
            mixed = Attend()(query, key, value, Mask(causal=True))
        assert not mixed[:, :, :2].any(), "the first queries stand before every key"
        assert_close(mixed[:, :, 2], value[:, :, 0])


@needs_warnings
def test_a_chunk_of_queries_stands_where_its_offset_says() -> None:
    query, key, value = tensors(keys=9, queries=9)
    whole = Attend()(query, key, value, Mask(causal=True, window=4))
    for kernel in KERNELS:
        with use_kernel(kernel):
            part = Attend()(
                query[:, :, 3:5], key[:, :, :5], value[:, :, :5], Mask(causal=True, window=4, offset=3)
            )
        assert_close(part, whole[:, :, 3:5], atol=1e-6, rtol=1e-5)


def test_the_flexible_kernel_says_that_it_cannot_train_on_a_cpu() -> None:
    query, key, value = (x.requires_grad_() for x in tensors())
    with use_kernel("flex"), pytest.raises(ConfigError, match="no gradients on a CPU"):
        Attend()(query, key, value, Mask())


def test_dropout_of_weights_keeps_the_mean_and_stops_outside_training() -> None:
    query, key, value = tensors(keys=5)
    value = torch.ones_like(value)
    with use_kernel("auto"):
        mixed = torch.stack([Attend(dropout=0.25)(query, key, value, Mask()) for _ in range(200)])
    assert float(mixed.mean()) == pytest.approx(1, abs=0.02)
    assert float(mixed.std()) > 0.1
    layer = Attention(config(attention_dropout=0.5))
    assert layer.attend.dropout == 0.5
    assert layer.eval().attend.dropout == 0
    with use_kernel("flex"), pytest.raises(ConfigError, match="no dropout of weights"):
        Attend(dropout=0.1)(query, key, value, Mask())


def test_the_choice_of_a_kernel_ends_with_its_block() -> None:
    query, key, value = tensors()
    with pytest.raises(ConfigError), use_kernel("fused"):
        Attend(softcap=1.0)(query, key, value, Mask())
    Attend(softcap=1.0)(query, key, value, Mask())


@pytest.mark.parametrize("groups", [4, 1])
@pytest.mark.parametrize("name", ["none", "causal", "padding", "blank", "documents"])
def test_recorded_weights_times_values_are_the_layers_own_output(name: str, groups: int) -> None:
    layer, x = Attention(config(num_kv_heads=groups), name="here"), torch.randn(3, 5, 16)
    plain = layer(x, mask=MASKS[name])
    with record() as recorder:
        out = layer(x, mask=MASKS[name])
    weights = recorder["here"]
    values = layer.value(x).unflatten(-1, (groups, 4)).transpose(1, 2).repeat_interleave(4 // groups, 1)
    assert_close(layer.output((weights @ values).transpose(1, 2).flatten(2)), out)
    assert_close(out, plain)
    seen = MASKS[name].dense(5, 5, "cpu")
    blank = torch.zeros(3, 4, 5, dtype=torch.bool) if seen is None else ~seen.any(-1).expand(3, 4, 5)
    assert_close(weights.sum(-1), 1.0 - blank.float())
    assert not weights.requires_grad


def test_the_recorder_keeps_every_pass_and_stops_with_its_block() -> None:
    layer, x = Attention(config(), name="here"), torch.randn(1, 3, 16)
    with record() as recorder:
        layer(x)
        layer(x)
        with record() as inner:
            layer(x)
    layer(x)
    assert len(recorder.weights["here"]) == 2
    assert inner["here"].shape == (1, 4, 3, 3)
    with pytest.raises(ValueError, match="unpack"):
        recorder["here"]


def test_query_key_norm_makes_scores_blind_to_lengths() -> None:
    layer, x = Attention(config(query_key_norm=True, norm_eps=1e-12, bias=False)), torch.randn(2, 5, 16)
    _, weights = layer.with_weights(x)
    _, larger = layer.with_weights(1_000 * x)
    assert_close(weights, larger)
    query, key = (linear(x).unflatten(-1, (4, 4)).transpose(1, 2) for linear in (layer.query, layer.key))
    unit = [v / v.square().mean(-1, keepdim=True).sqrt() for v in (query, key)]
    assert_close(weights, (unit[0] @ unit[1].mT / 2).softmax(-1))


def test_grouped_heads_are_full_heads_with_repeated_keys() -> None:
    grouped, full = Attention(config(num_kv_heads=2)), Attention(config())
    weights = grouped.state_dict()
    for name in ("key.weight", "key.bias", "value.weight", "value.bias"):
        weights[name] = weights[name].unflatten(0, (2, 4)).repeat_interleave(2, 0).flatten(0, 1)
    full.load_state_dict(weights)
    x = torch.randn(2, 5, 16)
    assert_close(grouped(x), full(x))


def test_heads_may_be_wider_than_their_share() -> None:
    layer = Attention(config(head_size=10))
    assert layer(torch.randn(2, 3, 16)).shape == (2, 3, 16)
    assert layer.query.out_features == 40


def test_caches_continue_where_they_were_left() -> None:
    layer, x, memory = Attention(config()), torch.randn(2, 6, 16), torch.randn(2, 4, 16)
    rotary = Rotary(
        ModelConfig(kind="decoder", vocab_size=3, width=4, num_heads=1, position="rotary", rotary_base=100.0)
    )
    whole = layer(x, mask=Mask(causal=True), terms=rotary.terms(torch.arange(6), torch.arange(6)))
    cache, parts = LayerCache(), []
    for start, stop in ((0, 2), (2, 3), (3, 6)):
        terms = rotary.terms(torch.arange(start, stop), torch.arange(stop))
        parts.append(layer(x[:, start:stop], mask=Mask(causal=True, offset=start), terms=terms, cache=cache))
    assert_close(torch.cat(parts, 1), whole)
    crossed, kept = layer(x, memory), CrossCache()
    assert_close(layer(x[:, :3], memory, cache=kept), crossed[:, :3])
    assert_close(layer(x[:, 3:], torch.full_like(memory, 99.0), cache=kept), crossed[:, 3:])


@pytest.mark.parametrize("batch_first", [True, False], ids=["batch-first", "time-first"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("case", ["self", "padding", "causal", "padding-causal", "cross", "cross-padding"])
def test_torchs_module_gives_the_same_results_and_weights(case: str, bias: bool, batch_first: bool) -> None:
    theirs = nn.MultiheadAttention(16, 4, bias=bias, batch_first=batch_first).eval()
    if bias:
        nn.init.normal_(theirs.in_proj_bias)
        nn.init.normal_(theirs.out_proj.bias)
    x = torch.randn(3, 5, 16)
    memory = torch.randn(3, 5, 16) if "cross" in case else None
    padding = "padding" in case
    keys = KEYS.flip(1) if case == "padding-causal" else KEYS
    keys = keys.clone()
    keys[:, 0] = True  # torch's module gives NaN where there is nothing to see
    hidden = torch.ones(5, 5, dtype=torch.bool).triu(1) if "causal" in case else None
    seen = x if memory is None else memory
    query, key = (y if batch_first else y.transpose(0, 1) for y in (x, seen))
    expected, heads = theirs(
        query,
        key,
        key,
        key_padding_mask=~keys if padding else None,
        attn_mask=hidden,
        average_attn_weights=False,
    )
    ours = Attention.from_torch(theirs)
    mask = Mask(keys=keys if padding else None, causal=hidden is not None)
    out, weights = ours.with_weights(x, memory, mask=mask)
    assert_close(out, expected if batch_first else expected.transpose(0, 1), atol=1e-6, rtol=1e-5)
    assert_close(weights, heads, atol=1e-6, rtol=1e-5)
    assert_close(ours(x, memory, mask=mask), out, atol=1e-6, rtol=1e-5)
    back = ours.to_torch()
    assert back.batch_first
    for name, value in theirs.state_dict().items():
        assert torch.equal(value, back.state_dict()[name]), name


def test_taking_over_keeps_dropout_and_mode() -> None:
    theirs = nn.MultiheadAttention(8, 2, dropout=0.25)
    ours = Attention.from_torch(theirs)
    assert ours.training
    assert ours.dropout == 0.25
    assert ours.to_torch().dropout == 0.25
    assert not Attention.from_torch(theirs.eval()).to_torch().training


def test_what_torchs_module_cannot_hold_is_refused() -> None:
    for changes in (
        {"num_kv_heads": 2}, {"query_key_norm": True}, {"attention_softcap": 5.0}, {"attention_scale": 1.0},
        {"head_size": 8}, {"qkv_bias": False},
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="can't hold this attention"):
            Attention(config(**changes)).to_torch()
    for changes in ({"kdim": 8, "vdim": 8}, {"add_bias_kv": True}, {"add_zero_attn": True}):
        with pytest.raises(ConfigError, match="only a MultiheadAttention"):
            Attention.from_torch(nn.MultiheadAttention(16, 4, **changes))


def test_scores_in_half_precision_stay_finite() -> None:
    layer, x = Attention(config()).bfloat16(), 30 * torch.randn(2, 5, 16).bfloat16()
    place, drawn = torch.arange(5), torch.randn(1, 4, 5, 5)
    mask, terms = Mask(keys=BLANK[:2].flip(1)), Terms(bias=Bias(place, place, lambda distance: drawn))
    for kernel in ("fused", "reference"):
        with use_kernel(kernel):
            out = layer(x, mask=mask, terms=terms)
        assert out.dtype is torch.bfloat16
        assert out.isfinite().all()
        assert_close(out[1], layer.output.bias.expand(5, 16))
