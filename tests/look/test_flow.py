"""What flows: against whole matrices, against autograd, and against taking tokens away."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.tasks.small import make_parts
from torch import Tensor
from torch.testing import assert_close

from regard.errors import ConfigError
from regard.look import flow as flows
from regard.look.flow import Target, gradient_attention, rollout, value_weighted
from regard.nn.attention import Attention, listening, record
from regard.tasks.base import Parts
from regard.tasks.looking import Reading, look, read

KINDS = ("encoder", "decoder", "encoder-decoder")
TEXT, TARGET = "a dog runs, it", "a cat"
GROUPED = {"num_heads": 4, "num_kv_heads": 2}


def small(kind: Any, **changes: Any) -> Parts:
    return make_parts(kind, **changes)


def reading_of(parts: Parts) -> Reading:
    return read(parts, TEXT, TARGET if parts.config.kind == "encoder-decoder" else None)


def looked(parts: Parts) -> Any:
    return look(parts, TEXT, TARGET if parts.config.kind == "encoder-decoder" else None)


def matrices(parts: Parts) -> dict[str, Tensor]:
    with torch.no_grad(), record() as recorder:
        reading_of(parts).run(parts.module)
    return {name: weights[0][0] for name, weights in recorder.weights.items()}


@pytest.mark.parametrize("residual", [0.5, 0.2])
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_a_rollout_is_the_product_of_the_matrices(
    kind: str, residual: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows, "_AT_ONCE", 40)  # blocks of two rows
    parts = small(kind, num_layers=3, position="alibi", **GROUPED)
    whole = torch.eye(len(matrices(parts)[f"{kind}.0"][0]))
    for layer in range(3):  # the paper's equation 1, with the share as a parameter
        mixed = (1 - residual) * matrices(parts)[f"{kind}.{layer}"].mean(0) + residual * torch.eye(len(whole))
        whole = mixed @ whole
    found = rollout(looked(parts), [3, "dog", -1], residual=residual)
    word = looked(parts).sides["text"].find("dog")
    expected = torch.stack([whole[3], whole[word.start : word.end].mean(0), whole[-1]])
    assert_close(found.values["text"], expected)
    assert_close(found.values["text"].sum(1), torch.ones(3))
    assert [one.text for one in found.columns["text"]] == [
        one.text for one in looked(parts).sides["text"].tokens
    ]
    assert found.rows[1] == word


def test_a_rollout_flows_through_to_the_source() -> None:
    parts = small("encoder-decoder", num_layers=3, num_decoder_layers=2)
    weights = {name: one.mean(0) for name, one in matrices(parts).items()}
    sources, targets = weights["encoder.0"].shape[0], weights["decoder.0"].shape[0]
    state = torch.eye(sources)
    for i in range(3):
        state = 0.5 * state + 0.5 * weights[f"encoder.{i}"] @ state
    encoded = torch.cat(
        [state, torch.zeros(sources, targets)], 1
    )  # over the source's tokens, then the target's
    written = torch.cat([torch.zeros(targets, sources), torch.eye(targets)], 1)
    for i in range(2):
        written = 0.5 * written + 0.5 * weights[f"decoder.{i}"] @ written
        written = 0.5 * written + 0.5 * weights[f"cross.{i}"] @ encoded
    found = rollout(looked(parts), list(range(targets)))
    assert_close(torch.cat([found.values["source"], found.values["target"]], 1), written)
    assert_close(written.sum(1), torch.ones(targets))
    only = rollout(looked(parts), list(range(sources)), side="source")
    assert list(only.values) == ["source"]
    assert_close(only.values["source"], state)


def test_a_rollout_needs_whole_layers() -> None:
    parts = small("encoder-decoder")
    for layers in (["encoder.1"], ["decoder.0"], ["encoder.0", "decoder.0"]):
        with pytest.raises(ConfigError, match="rollout"):
            rollout(look(parts, TEXT, TARGET, layers=layers), [0])
    with pytest.raises(ConfigError, match="residual=2"):
        rollout(looked(parts), [0], residual=2)
    with pytest.raises(ConfigError, match="no 'text'"):
        rollout(looked(parts), [0], side="text")


@pytest.mark.parametrize("kind", KINDS)
def test_what_arrives_is_weight_times_projected_value(kind: str) -> None:
    parts = small(kind, **GROUPED)
    names = {"encoder-decoder": ("encoder.1", "decoder.0", "cross.1")}.get(kind, (f"{kind}.1",))
    modules: dict[Any, Any] = {m.name: m for m in parts.module.modules() if isinstance(m, Attention)}
    seen = looked(parts)
    for name in names:
        layer, size = seen.layers[name], 4
        weights = matrices(parts)[name]
        projection = modules[name].output.weight.detach()
        arrived = torch.stack(
            [
                weights[h, :, :, None] * (layer.value[h // 2] @ projection[:, h * size : (h + 1) * size].T)
                for h in range(4)
            ]
        )  # (H, T, S, D)
        for h in range(4):
            found = value_weighted(seen, parts, name, h)
            assert_close(found.values, arrived[h].norm(dim=-1), atol=1e-5, rtol=1e-4)
        whole = arrived.sum(0).norm(dim=-1)
        found = value_weighted(seen, parts, name)
        assert found.head is None
        assert_close(found.values, whole, atol=1e-5, rtol=1e-4)
        shares = value_weighted(seen, parts, f"{name}.2", rows=[1, 2], normalise=True).values
        expected = arrived[2, [1, 2]].norm(dim=-1)
        assert_close(shares, expected / expected.sum(1, keepdim=True), atol=1e-5, rtol=1e-4)
    with pytest.raises(ConfigError, match="values of"):
        value_weighted(look(parts, TEXT, TARGET if kind == KINDS[2] else None, values=False), parts, names[0])


@pytest.mark.parametrize("extra", [{}, {"attention_softcap": 4.0}, {"window": 4}, {"position": "t5"}])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_weights_are_autograds(kind: str, extra: dict[str, Any]) -> None:
    parts = small(kind, **GROUPED, **extra)
    module: Any = parts.module
    reading, aim = reading_of(parts), Target(answer=7, row=3, log=True)
    for weight in module.parameters():
        weight.requires_grad_(False)  # a model that is only used
    leaves: dict[str, Tensor] = {}

    def keep(attend: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, bias: Any) -> Tensor:
        _, weights = attend.reference(query, key, value, mask, None if bias is None else bias.dense)
        leaves[attend.name] = weights if weights.requires_grad else weights.requires_grad_()
        return leaves[attend.name] @ value.repeat_interleave(query.shape[1] // key.shape[1], 1)

    with listening(keep):
        number = aim(module, reading.run(module))
    slopes = dict(
        zip(leaves, torch.autograd.grad(number.sum(), list(leaves.values()), allow_unused=True), strict=True)
    )
    found = gradient_attention(parts, reading, aim)
    assert found.value == pytest.approx(float(number.detach()), abs=1e-5)
    for name, weights in leaves.items():
        slope = slopes[name]
        slope = torch.zeros_like(weights[0]) if slope is None else slope[0]
        scale = float(slope.abs().max()) + 1e-6
        for head in range(4):
            ours = found.gradient(name, head).values
            assert_close(ours, slope[head], atol=1e-5 * scale, rtol=1e-4)
            times = (weights[0] * slope)[head].detach()
            assert_close(found.weights(name, head).values, times, atol=1e-5 * scale, rtol=1e-4)
            part = found.weights(name, head, [3, 1], slice(0, 2)).values
            assert_close(part, times[[3, 1], :2], atol=1e-5 * scale, rtol=1e-4)
        both = (weights[0] * slope).detach()
        assert_close(
            found.weights(name, positive=True).values, both.clamp(min=0).mean(0), atol=1e-5 * scale, rtol=1e-4
        )
        assert_close(found.received(name), both.sum(1), atol=1e-5 * scale, rtol=1e-4)
    assert any(bool(slope is not None and slope.any()) for slope in slopes.values())
    assert all(weight.grad is None for weight in module.parameters())


def test_what_one_head_gave_is_its_row_of_the_layers() -> None:
    parts = small("decoder")
    found = gradient_attention(parts, reading_of(parts), Target(answer=7, row=3))
    every = found.received("decoder.1")
    assert_close(found.received("decoder.1.0"), every[:1])
    assert_close(found.received(1), every)
