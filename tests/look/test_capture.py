"""A capture gives every weight that the model had, and proves it by what each layer mixed."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from regard.config import ModelConfig
from regard.errors import ConfigError
from regard.look import capture as captures
from regard.look.capture import Capture, capture
from regard.models.transformer import build
from regard.nn import streaming
from regard.nn.attention import Attend, listening, record
from regard.nn.masks import Mask
from regard.nn.taps import tapping

POSITIONS = ("none", "sinusoidal", "learned", "rotary", "alibi", "t5")
EXTRAS: dict[str, dict[str, Any]] = {
    "plain": {}, "window": {"window": 4}, "softcap": {"attention_softcap": 5.0}, "grouped": {"num_kv_heads": 2},
    "query-key-norm": {"query_key_norm": True}, "scale": {"attention_scale": 0.5},
}  # fmt: skip
SOURCE, TARGET = 11, 9


def model(kind: str, **settings: Any) -> Any:
    torch.manual_seed(0)
    config = ModelConfig(kind=kind, vocab_size=50, width=32, num_layers=2, num_heads=4, **settings)
    return build(config).eval()


def padding(side: str) -> Tensor:
    mask = torch.ones(2, SOURCE, dtype=torch.bool)
    mask[1, slice(7, None) if side == "right" else slice(0, 4)] = False
    return mask


def run(module: Any, ids: Tensor, mask: Tensor | None) -> None:
    if module.config.kind == "encoder-decoder":
        module(ids, ids[:, :TARGET], source_mask=mask)
    else:
        module(ids, key_mask=mask)


def check(module: Any, ids: Tensor, mask: Tensor | None) -> None:
    with torch.no_grad(), record() as recorder:
        run(module, ids, mask)
    with capture() as captured:
        run(module, ids, mask)
    for text in range(len(ids)):
        layers = captured.of(text)
        assert list(layers) == list(recorder.weights)
        for name, layer in layers.items():
            expected = recorder[name][text]
            own = not name.startswith("cross") and (
                name.startswith("encoder") or module.config.kind == "decoder"
            )
            if mask is not None and own:
                expected = expected * mask[text][None, :, None]  # a look leaves out what padding looks at
            for head in range(layer.heads):
                assert_close(layer.weights(head, slice(None), slice(None)), expected[head], atol=1e-6, rtol=0)
                some = [0, 5, layer.shape[0] - 1]
                rows = torch.stack([layer.row(head, i) for i in some])
                assert_close(rows.float(), expected[head][some], atol=1e-6, rtol=0)
                sums = rows.sum(1)
                assert (((sums - 1).abs() < 1e-12) | (sums == 0)).all()
            assert layer.error < 2e-6


@pytest.mark.parametrize("kind", ["encoder", "decoder", "encoder-decoder"])
@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("position", POSITIONS)
def test_every_weight_is_the_models_own(kind: str, extra: str, position: str) -> None:
    module = model(kind, position=position, **EXTRAS[extra])
    ids = torch.randint(5, 50, (2, SOURCE))
    for mask in (None, padding("right"), padding("left")):
        check(module, ids, mask)


@pytest.mark.parametrize("position", ["rotary", "alibi", "t5"])
def test_packed_documents_are_looked_at_one_by_one(position: str) -> None:
    module, ids = model("decoder", position=position), torch.randint(5, 50, (1, SOURCE))
    documents = torch.tensor([[0] * 5 + [1] * 6])
    positions = torch.tensor([[*range(5), *range(6)]])
    with capture() as packed:
        module.hidden(ids, documents=documents, positions=positions)
    with capture() as alone:
        module.hidden(ids[:, 5:])
    for name, layer in packed.of().items():
        assert layer.error < 2e-6
        for head in range(4):
            ours = layer.weights(head, slice(None), slice(None))
            assert_close(
                ours[5:, 5:], alone.of()[name].weights(head, slice(None), slice(None)), atol=1e-6, rtol=0
            )
            assert not ours[5:, :5].any()


def test_any_part_is_cut_out_of_the_whole() -> None:
    module = model("decoder", position="t5", window=6)
    with capture() as captured:
        module.hidden(torch.randint(5, 50, (1, SOURCE)))
    layer = captured.of()["decoder.1"]
    whole = layer.weights(2, slice(None), slice(None))
    for rows in (slice(3, 7), [9, 2, 2], torch.tensor([0, 10]), slice(0, 11, 3), slice(4, 4)):
        for columns in (slice(0, 5), [1, 8, 0], slice(10, 11), slice(5, 5)):
            at_rows, at_columns = (
                torch.arange(SOURCE)[x] if isinstance(x, slice) else torch.as_tensor(x)
                for x in (rows, columns)
            )
            assert_close(layer.weights(2, rows, columns), whole[at_rows][:, at_columns])
    assert_close(layer.column(2, 4), whole[:, 4])


def test_what_keys_are_given_is_summed_up_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    module, ids = model("decoder"), torch.randint(5, 50, (1, SOURCE))
    with capture() as kept:
        run(module, ids, None)
    layer = kept.of()["decoder.0"]
    whole = layer.weights(1, slice(None), slice(2, 5)).sum(1)
    monkeypatch.setattr(captures, "_AT_ONCE", 7)  # two rows at a time
    assert_close(layer.given(1, slice(2, 5)), whole)
    assert layer.nbytes > layer.query.nbytes + layer.key.nbytes


def test_blocks_of_rows_give_what_the_equation_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_AT_ONCE", 2 * 4 * 7)  # a row or two at a time
    query, key, value = torch.randn(2, 4, 9, 8), torch.randn(2, 2, 9, 8), torch.randn(2, 2, 9, 8)
    bias = torch.randn(1, 4, 9, 9)
    masks = [
        Mask(causal=True, window=3), Mask(keys=padding("left")[:, :9]), Mask(causal=True, prefix=torch.tensor([4, 0])),
        Mask(causal=True, keys=padding("right")[:, :9]),
    ]  # fmt: skip
    for mask in masks:
        attend = Attend(softcap=2.0)
        mixed, normaliser = streaming.attend_with_normaliser(attend, query, key, value, mask, bias)
        expected, weights = attend.reference(query, key, value, mask, bias)
        assert_close(mixed, expected, atol=2e-6, rtol=1e-5)
        assert ((normaliser == -math.inf) == (weights.sum(-1) == 0)).all()


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("threads", [1, 2, 3, 16])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_a_long_text_is_captured_in_parts_that_are_told(
    kv_heads: int, threads: int, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, heads, 12, 8) for heads in (4, kv_heads, kv_heads))
    mask = Mask(causal=True, window=window)
    whole = streaming.attend_with_normaliser(Attend(name="decoder.0"), query, key, value, mask, None)
    monkeypatch.setattr(streaming, "_LONG", 16)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    seen: list[tuple[str, torch.Size]] = []

    def listen(name: str, part: Tensor) -> Tensor:
        seen.append((name, part.shape))
        return part

    with tapping(listen):
        parts = streaming.attend_with_normaliser(Attend(name="decoder.0"), query, key, value, mask, None)
    assert {name for name, _ in seen} == {"decoder.0.part"}
    assert sum(shape[1] * shape[2] for _, shape in seen) == 4 * 12
    assert window or threads > 2 or len(seen) >= 2
    for one, other in zip(whole, parts, strict=True):
        assert_close(one, other)


def test_a_budget_moves_what_is_kept_to_a_file() -> None:
    module, ids = model("decoder"), torch.randint(5, 50, (1, SOURCE))
    with capture(budget=6000) as small:
        module.hidden(ids)
    with capture() as large:
        module.hidden(ids)
    folder = small._folder
    assert folder is not None
    assert list(folder.iterdir())
    for name, layer in large.of().items():
        assert torch.equal(small.of()[name].query, layer.query)
        assert small.of()[name].error < 2e-6
    assert large._folder is None
    del small
    assert not folder.exists()


def test_only_the_layers_that_were_asked_for_are_kept() -> None:
    module, ids = model("encoder-decoder"), torch.randint(5, 50, (1, SOURCE))
    with capture(["cross.1"], values=False) as captured:
        run(module, ids, None)
    (layer,) = captured.of().values()
    assert layer.name == "cross.1"
    assert layer.value is None
    assert layer.error < 2e-6
    with pytest.raises(ConfigError, match=r"values of cross\.1 were not kept"):
        layer.mixed(0, [0])
    with pytest.raises(ConfigError, match="heads 0 to 3"):
        layer.row(4, 0)


def test_what_cannot_be_kept_is_refused() -> None:
    module, ids = model("decoder"), torch.randint(5, 50, (1, SOURCE))
    with capture():
        module.hidden(ids)
        with pytest.raises(ConfigError, match="ran twice"):
            module.hidden(ids)
    holes = torch.ones(1, SOURCE, dtype=torch.bool)
    holes[0, 4] = False
    with pytest.raises(ConfigError, match="padding at the ends"), capture():
        module.hidden(ids, key_mask=holes)
    with pytest.raises(ConfigError, match="several parts"), capture():
        module.hidden(ids, documents=torch.tensor([[0, 1] * 5 + [0]]))
    jumping = model("decoder", position="alibi")
    with pytest.raises(ConfigError, match="positions that jump"), capture():
        jumping.hidden(ids, positions=torch.tensor([[*range(5), *range(50, 56)]]))


def test_half_precision_is_held_as_it_was_computed() -> None:
    module, ids = model("decoder").bfloat16(), torch.randint(5, 50, (1, SOURCE))
    with capture() as captured:
        module.hidden(ids)
    layer = captured.of()["decoder.0"]
    assert layer.query.dtype == torch.bfloat16
    assert layer.error < 0.02
    assert float(layer.weights(0, slice(None), slice(None)).sum(1).sub(1).abs().max()) < 2e-3


def test_listeners_nest_and_leave() -> None:
    outer, inner, seen = Capture(), Capture(), Attend(name="x")
    ones = torch.ones(1, 1, 2, 4)
    with listening(outer):
        with listening(inner):
            seen(ones, ones, ones, Mask())
        assert not outer.of()
        seen(ones, ones, ones, Mask(causal=True))
    assert list(inner.of()) == list(outer.of()) == ["x"]
    assert outer.of()["x"].weights(0, [0], slice(None)).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("position", ["rotary", "t5"])
def test_places_count_from_the_end_and_end_where_the_text_does(position: str) -> None:
    module = model("decoder", position=position)
    with capture() as kept:
        module.hidden(torch.randint(5, 50, (1, SOURCE)))
    layer = kept.of()["decoder.1"]
    whole = layer.weights(2, slice(None), slice(None))
    assert_close(layer.weights(2, [-1, 3], [-2, 0]), whole[[-1, 3]][:, [-2, 0]])
    assert_close(layer.weights(2, slice(5, 2, 2), [-SOURCE]), whole[5:2, :1])
    assert_close(layer.weights(2, slice(None, None, -1), [0]), whole.flip(0)[:, :1])
    assert_close(layer.row(2, -1).float(), whole[-1])
    assert_close(layer.column(2, -1), whole[:, -1])
    for rows, columns in (([SOURCE], [0]), ([-SOURCE - 1], [0]), ([0], [SOURCE]), ([0], [-SOURCE - 1])):
        with pytest.raises(ConfigError, match="there are tokens 0 to 10"):
            layer.weights(2, rows, columns)
    with pytest.raises(ConfigError, match="there is no 11"):
        layer.row(2, SOURCE)
    with pytest.raises(ConfigError, match="heads 0 to 3"):
        layer.weights(4, [0], [0])


@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize("head", [0, 3])
def test_no_proof_of_what_is_no_number(head: int, number: float) -> None:
    module = model("decoder")
    with capture() as kept:
        module.hidden(torch.randint(5, 50, (1, SOURCE)))
    layer = kept.of()["decoder.0"]
    assert layer.value is not None
    value, mixed = layer.value.clone(), layer.checked[1].clone()
    value[head], mixed[head] = number, 0.0
    broken = dataclasses.replace(layer, value=value, checked=(layer.checked[0], mixed))
    assert not math.isfinite(broken.error_of(head))
    assert not math.isfinite(broken.error)
    assert broken.error_of(1) < 2e-6


def test_the_worst_of_several_errors_is_one_that_is_no_number() -> None:
    assert captures.worst_of([0.1, 0.3, 0.2]) == 0.3
    assert all(math.isnan(captures.worst_of(some)) for some in ([math.nan, 1.0], [1.0, math.nan]))
