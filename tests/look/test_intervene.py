"""What is switched off is gone, what is put in is there, and nothing stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.tasks.small import make_parts
from torch import Tensor
from torch.testing import assert_close

from regard.config import ModelConfig
from regard.errors import ConfigError
from regard.look.intervene import (
    intervening,
    keep_only,
    off,
    patch,
)
from regard.look.places import head_names, mean_values, place_names, record_places
from regard.models.transformer import build
from regard.nn.taps import _taps
from regard.tasks.base import Parts
from regard.tasks.looking import Reading, read

KINDS = ("encoder", "decoder", "encoder-decoder")
PLACEMENTS = ("pre", "post", "parallel", "sandwich")
TEXTS = ("the animal", "a dog runs, it was", "too tired")


def model(kind: Any, **settings: Any) -> Any:
    torch.manual_seed(0)
    values = {"vocab_size": 40, "width": 16, "num_layers": 3, "num_heads": 4, "num_kv_heads": 2, **settings}
    module = build(ModelConfig(kind=kind, **values)).eval()
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)  # biases and norms too
    return module


def run(module: Any, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        if module.config.kind == "encoder-decoder":
            return module(ids, ids[:, :5], source_mask=mask)
        return module(ids, key_mask=mask)


def ids_of(seed: int = 1, rows: int = 2, length: int = 7) -> Tensor:
    return torch.randint(5, 40, (rows, length), generator=torch.Generator().manual_seed(seed))


def attentions(module: Any) -> dict[str, Any]:
    kinds = {a.name: a for a in module.modules() if type(a).__name__ == "Attention"}
    return dict(sorted(kinds.items()))


def small(kind: Any, **changes: Any) -> Parts:
    return make_parts(kind, **changes)


def readings(parts: Parts) -> list[Reading]:
    both = parts.config.kind == "encoder-decoder" and parts.config.head == "lm"
    return [read(parts, text, text[::-1].strip() if both else None) for text in TEXTS]


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_heads_off_are_columns_of_the_projection_that_are_zero(kind: str, placement: str) -> None:
    module, ids = model(kind, norm_placement=placement, num_layers=2), ids_of()
    for name, attention in attentions(module).items():
        for head in (0, 3):
            with intervening(module, off(f"{name}.{head}")):
                found = run(module, ids)
            kept = attention.output.weight.detach().clone()
            with torch.no_grad():
                attention.output.weight[:, 4 * head : 4 * head + 4] = 0
            expected = run(module, ids)
            with torch.no_grad():
                attention.output.weight.copy_(kept)
            assert_close(found, expected)
            assert not torch.equal(found, run(module, ids))
        with intervening(module, *(off(f"{name}.{h}") for h in range(4))), record_places(module) as kept_at:
            one_by_one = run(module, ids)
        added = kept_at[f"{name}.attention"]
        if placement != "sandwich":  # only the projection's bias is left
            assert_close(added, attention.output.bias.detach().expand_as(added))
        with intervening(module, off(f"{name}.heads")):
            assert torch.equal(run(module, ids), one_by_one)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_off_is_the_model_without_that_block(kind: str, placement: str) -> None:
    module, ids = model(kind, norm_placement=placement, position="rotary"), ids_of()
    stacks = ["encoder", "decoder"] if kind == "encoder-decoder" else ["stack"]
    for stack in stacks:
        for layer in range(3):
            depth = "num_decoder_layers" if stack == "decoder" else "num_layers"
            decoder = {"num_decoder_layers": 3} if stack == "encoder" else {}
            shorter = build(module.config.replace(**{**decoder, depth: 2})).eval()
            weights = {}
            for name, value in module.state_dict().items():
                parts = name.split(".")
                if parts[:2] == [stack, "blocks"]:
                    if int(parts[2]) == layer:
                        continue
                    parts[2] = str(int(parts[2]) - (int(parts[2]) > layer))
                weights[".".join(parts)] = value
            shorter.load_state_dict(weights)
            name = kind if stack == "stack" else stack
            with intervening(module, off(f"{name}.{layer}")):
                found = run(module, ids)
            assert_close(found, run(shorter, ids))


@pytest.mark.parametrize("kind", KINDS)
def test_sublayers_and_positions(kind: str) -> None:
    module, ids = model(kind), ids_of()
    with record_places(module) as before:
        plain = run(module, ids)
    name = "decoder" if kind == "encoder-decoder" else kind
    with intervening(module, off(f"{name}.2.feed_forward")), record_places(module) as after:
        run(module, ids)
    own, got = before[f"{name}.1"], before[f"{name}.2"]
    adds = [f"{name}.2.attention", "cross.2.attention"] if name != kind else [f"{name}.2.attention"]
    assert_close(after[f"{name}.2"], own + sum((before[a] for a in adds), torch.zeros(())))
    # The last block decides each row alone: only the rows that were named change, and they are what was put there.
    for change, row in (
        (off(f"{name}.2", how="zero", positions=[1, -1]), torch.zeros_like(got)),
        (off(f"{name}.2", positions=[1, -1]), own),
    ):
        with intervening(module, change), record_places(module, f"{name}.2") as changed:
            run(module, ids)
        kept = torch.ones(got.shape[1], dtype=torch.bool)
        kept[[1, -1]] = False
        assert torch.equal(changed[f"{name}.2"][:, kept], got[:, kept])
        assert torch.equal(changed[f"{name}.2"][:, ~kept], row[:, ~kept])
    with (
        intervening(module, off(f"{name}.1.2", positions=[0])),
        record_places(module, f"{name}.1.heads") as changed,
    ):
        assert not torch.equal(run(module, ids), plain)
    heads = before[f"{name}.1.heads"].clone()
    heads[:, 2, 0] = 0
    assert torch.equal(changed[f"{name}.1.heads"], heads)
    assert torch.equal(changed[f"{name}.1.2"], heads[:, 2])


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_patching_with_its_own_values_is_nothing_and_with_anothers_is_the_other(
    kind: str, placement: str
) -> None:
    module = model(kind, norm_placement=placement)
    one, other = ids_of(1, 1), ids_of(2, 1)
    with record_places(module) as own:
        first = run(module, one)
    with record_places(module) as others:
        second = run(module, other)
    everything = place_names(module.config)
    with intervening(module, *(patch(name, own) for name in [*everything, *head_names(module.config)])):
        assert torch.equal(run(module, one), first)
    blocks = [name for name in everything if name.rpartition(".")[2].isdigit()]
    with intervening(module, *(patch(name, others) for name in blocks)):
        assert torch.equal(run(module, one), second)
        assert torch.equal(run(module, one.expand(3, -1)), second.expand(3, -1, -1))
    name = "encoder" if kind == "encoder" else "decoder"
    change = patch(f"{name}.0.1", others, positions=[2, 3], from_positions=[0, -1])
    with intervening(module, change), record_places(module, f"{name}.0.1") as found:
        run(module, one)
    expected = own[f"{name}.0.1"].clone()
    expected[:, [2, 3]] = others[f"{name}.0.1"][:, [0, -1]]
    assert torch.equal(found[f"{name}.0.1"], expected)


def test_means_take_the_place_of_what_varies() -> None:
    parts = small("encoder-decoder")
    texts = readings(parts)
    means = mean_values(parts, texts, ["cross.1.0", "decoder.0.attention"])
    rows, heads = [], []
    for text in texts:
        with torch.no_grad(), record_places(parts, "cross.1.0", "decoder.0.attention") as kept:
            text.run(parts.module)
        rows.append(kept["decoder.0.attention"][0])
        heads.append(kept["cross.1.0"][0])
    with (
        torch.no_grad(),
        intervening(parts, off("cross.1.0", "decoder.0.attention", how="mean", means=means)),
        record_places(parts, "cross.1.0", "decoder.0.attention") as changed,
    ):
        texts[0].run(parts.module)
    assert_close(changed["decoder.0.attention"][0, 2], torch.cat(rows).mean(0))
    assert_close(changed["cross.1.0"][0, 0], torch.cat(heads).mean(0))
    assert torch.equal(changed["cross.1.0"][0, 0], changed["cross.1.0"][0, 3])


def test_only_some_are_kept() -> None:
    module, ids = model("encoder-decoder"), ids_of()
    others = [name for name in head_names(module.config) if name not in ("cross.1.2", "encoder.0.0")]
    with intervening(module, off(*others)):
        expected = run(module, ids)
    with intervening(module, keep_only(["cross.1.2", "encoder.0.0"])):
        assert torch.equal(run(module, ids), expected)
    with intervening(module, off("cross.1.0", "cross.1.1", "cross.1.3")):
        expected = run(module, ids)
    with intervening(module, keep_only(["cross.1.2"], among=["cross.1"])):
        assert torch.equal(run(module, ids), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_padded_batch_is_what_each_text_is_alone(kind: str) -> None:
    module, ids = model(kind), ids_of(length=9)
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[1, 6:] = False
    top = "cross" if kind == "encoder-decoder" else kind
    changes = (off(f"{top}.1.3"), off(f"{top}.2.attention", positions=[2]), off(f"{kind[:7]}.0"))
    with intervening(module, *changes):
        together = run(module, ids, mask)
        alone = run(module, ids[1:, :6])
    assert_close(together[1, : alone.shape[1]], alone[0])


def test_calls_nest_and_nothing_stays() -> None:
    module, ids = model("decoder", norm_placement="post"), ids_of()
    plain = run(module, ids)
    with intervening(module, off("decoder.0.feed_forward"), off("decoder.1"), off("decoder.2.1")):
        expected = run(module, ids)
    with intervening(module, off("decoder.1")), intervening(module, off("decoder.0.feed_forward")):
        with intervening(module, off("decoder.2.1")):
            assert torch.equal(run(module, ids), expected)
        assert not torch.equal(run(module, ids), expected)
    with pytest.raises(RuntimeError, match="stop"), intervening(module, off("decoder.1")):
        raise RuntimeError("stop")
    with (
        pytest.raises(ConfigError, match="tokens 0 to 6"),
        intervening(module, off("decoder.1.0", positions=[7])),
    ):
        run(module, ids)
    assert _taps.get() == ()
    assert torch.equal(run(module, ids), plain)


def test_gradients_pass_by_what_is_off() -> None:
    module, ids = model("decoder"), ids_of()
    with intervening(module, off("decoder.1")):
        module(ids).sum().backward()
    skipped, other = module.stack.blocks[1], module.stack.blocks[0]
    assert all(weight.grad is None or not weight.grad.any() for weight in skipped.parameters())
    assert other.attention.value.weight.grad.any()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (off("encoder.0.1"), "there is no place 'encoder.0.1'; there are the layers decoder.0 to decoder.2"),
        (off("decoder.3"), r"and \.embedding of a stack\.$"),
        (off("decoder.0.4"), "decoder.0 has heads 0 to 3; there is no head 4"),
        (off("decoder.0.attenton"), "did you mean 'decoder.0.attention'"),
        (off("decoder.0.01"), "there is no place"),
        (off("decoder.0.1", how="skip"), "for whole blocks"),
        (off("decoder.0.1", how="mean"), "needs means"),
        (keep_only(["decoder.0"]), "no head"),
        (keep_only(["decoder.0.1"], among=["decoder.1"]), "kept anyway"),
        (keep_only(["decoder.0.1"], among=["cross"]), "no attention 'cross'"),
        (patch("decoder.0", torch.zeros(1, 7, 16), from_positions=[1]), "needs positions"),
    ],
)
def test_what_a_model_has_not_is_refused(change: Any, said: str) -> None:
    module = model("decoder")
    with pytest.raises(ConfigError, match=said), intervening(module, change):
        pass
    assert _taps.get() == ()


def test_a_patch_must_fit() -> None:
    module, ids = model("decoder"), ids_of()
    for values, said in (
        (torch.zeros(1, 6, 16), "the other run has 6"),
        (torch.zeros(3, 7, 16), "as many as"),
    ):
        with pytest.raises(ConfigError, match=said), intervening(module, patch("decoder.0", values)):
            run(module, ids)
    with record_places(module, "decoder.0") as kept:
        run(module, ids)
        with pytest.raises(ConfigError, match="not at all"):
            kept["decoder.1"]
        run(module, ids)
    with pytest.raises(ConfigError, match="2 times"):
        kept["decoder.0"]


@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
@pytest.mark.parametrize("change", ["head", "layer", "mean"])
def test_what_is_off_stays_off_while_a_text_is_written_with_a_cache(kind: Any, change: str) -> None:
    parts = small(kind)
    module: Any = parts.module
    means = mean_values(parts, readings(parts), ["decoder.0.1"])
    changes: dict[str, Callable[[], Any]] = {
        "head": lambda: off("decoder.1.0"), "layer": lambda: off("decoder.1"),
        "mean": lambda: off("decoder.0.1", how="mean", means=means),
    }  # fmt: skip
    source = None if kind == "decoder" else read(parts, TEXTS[0], "a").inputs[0]

    def write(cache: bool) -> Tensor:
        with torch.no_grad():
            state = module.start(batch=1, source=source, use_cache=cache)
            logits = [state.advance(torch.tensor([[1, 7, 9]]))]
            for _ in range(6):
                logits.append(state.advance(logits[-1][:, -1:].argmax(-1)))
        return torch.cat(logits, 1)

    plain = write(True)
    with intervening(parts, changes[change]()):
        with_cache, without = write(True), write(False)
    assert_close(with_cache, without)
    assert not torch.allclose(plain[:, 0], with_cache[:, 0])
