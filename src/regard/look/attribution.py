"""Attribute an answer to the tokens that the model read.

    gradient              Σ_d x_d ∂y/∂x_d, for x what the first block gets    Shrikumar et al. 2016, arXiv:1605.01713
    integrated            Σ_d (x_d - b_d) ∫ ∂y/∂x_d, from a baseline b to x   Sundararajan et al. 2017, arXiv:1703.01365
    gradient-attention    weights times gradients, summed over rows, heads and layers, see `regard.look.flow`
    rollout               the token's share in the answering row's last state, see `regard.look.flow`

None of these is a proof: `regard.look.occlusion` takes tokens away, and says how well an attribution foretold it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from regard.errors import ConfigError
from regard.look.capture import capture
from regard.look.flow import Aim, Read, Target, gradient_attention, gradients_at, rollout
from regard.look.places import Holder
from regard.look.reading import Look, Word
from regard.nn.taps import tapping

__all__ = [
    "Attribution",
    "Instead",
    "Method",
    "Occlude",
    "attribute",
]

Method = Literal["gradient", "integrated", "gradient-attention", "rollout"]
Occlude = Literal["replace", "zero", "leave out"]
"""What becomes of a token: another token stands there, its embedding is zero, or the text is read without it."""

TOKENS = 8192
"""How many are run at once."""


@dataclass(frozen=True, eq=False)
class Attribution:
    """Hold what each token contributed to a number.

    Attributes:
        values: (S,), by the texts' names; NaN where a token can't be left out.
        columns: the tokens, by the texts' names.
        target: the number that is explained.
        method: how it was attributed.
        how: the same in words, with what stands for an absent token.
        gap: how far the values are from adding up to the number less that of the baseline; None where they needn't.
    """

    values: Mapping[str, Float[Tensor, " S"]]
    columns: Mapping[str, tuple[Word, ...]]
    target: float
    method: str
    how: str
    gap: float | None = None

    def top(self, count: int = 5) -> list[tuple[str, Word, float]]:
        """List the tokens that contributed most: the text, the token, and its value."""
        every = [
            (name, self.columns[name][j], float(v))
            for name, values in self.values.items()
            for j, v in enumerate(values)
            if not math.isnan(float(v))
        ]
        return sorted(every, key=lambda one: -one[2])[:count]


@dataclass(frozen=True)
class Instead:
    """Say what stands in a token's stead.

    Attributes:
        how: "replace" it by the token `id`, "zero" what the first block gets there, or "leave out" the token.
        id: the token, for "replace": the tokenizer's mask, or what pads.
    """

    how: Occlude = "replace"
    id: int | None = None

    def token(self, model: Holder) -> int:
        """Give the token that replaces; where none is named, what pads.

        Raises:
            ConfigError: there is none.
        """
        found = model.config.pad_id if self.id is None else self.id
        if found is None or not 0 <= found < model.config.vocab_size:
            raise ConfigError(
                f"no token {found} can stand for an absent one; give Instead(id=...), or Instead('zero')."
            )
        return found

    def __str__(self) -> str:
        if self.how == "replace":
            return "a token is replaced by " + (
                "the one that pads" if self.id is None else f"token {self.id}"
            )
        return "a token's embedding is zero" if self.how == "zero" else "a token is left out"


def attribute(
    model: Holder,
    reading: Read,
    aim: Aim,
    method: Method = "integrated",
    *,
    instead: Instead | None = None,
    steps: int = 32,
) -> Attribution:
    """Say what each token contributed to a number.

    Args:
        model: a Model or its parts.
        reading: the text, from `regard.tasks.looking.read`.
        aim: the number: a `Target`, or a function of the network and its last states.
        method: see the module's text. Rollout is of the target's row, and knows nothing of the answer.
        instead: the baseline of "integrated", whose special tokens stay: "replace" or "zero" (near which a norm that
            comes first turns sharply: look at the gap). None: what pads.
        steps: points on the line of "integrated" at which a gradient is taken (Gauss and Legendre's).

    Raises:
        ConfigError: a setting would be ignored or can't be.
    """
    if (instead is not None or steps != 32) and method != "integrated":
        raise ConfigError(f"instead and steps have no effect on {method!r}; they are for 'integrated'.")
    module = model.module
    columns = {
        name: tuple(side.find(j) for j in range(len(side.ids))) for name, side in reading.sides.items()
    }
    if method == "integrated":
        instead = instead or Instead("zero" if model.config.pad_id is None else "replace")
        values, number, gap = _integrate(model, reading, aim, instead, steps)
        how = f"gradients at {steps} points of the line from the baseline, on which {instead}; special ones stay"
        return Attribution(values, columns, number, method, how, gap)
    if method == "gradient":
        number, found = gradients_at(module, reading, aim, ".embedding")
        values = {side_of(reading, name): (x * g).sum(-1)[0].float().cpu() for name, (x, g) in found.items()}
        return Attribution(values, columns, number, method, "gradient times what the first block gets")
    if method == "gradient-attention":
        joined = gradient_attention(model, reading, aim)
        values = {name: torch.zeros(len(side.ids)) for name, side in reading.sides.items()}
        for name in joined.look.layers:
            values[joined.look.columns_of(name).name] += joined.received(name).sum(0)
        how = "weights times gradients, summed over rows, heads and layers"
        return Attribution(values, columns, joined.value, method, how)
    if method != "rollout":
        raise ConfigError(
            f"method={method!r} is not one of gradient, integrated, gradient-attention, rollout."
        )
    if not isinstance(aim, Target):
        raise ConfigError("a rollout is of one row; give a Target.")
    with capture(values=False) as kept:
        states = reading.run(module)
    flow = rollout(Look(reading.sides, kept.of(), holder=kept), [aim.row])
    with torch.inference_mode():
        number = float(aim(module, states))
    return Attribution({n: v[0] for n, v in flow.values.items()}, columns, number, method, flow.how)


def side_of(reading: Read, tap: str) -> str:
    """Give the text whose tokens pass at a stack's embedding."""
    if "text" in reading.sides:
        return "text"
    return "source" if tap.startswith("encoder") else "target"


def hidden(module: Any, inputs: Sequence[Tensor], segments: Tensor | None) -> Tensor:
    """Give the last states of a batch without padding."""
    more = {} if segments is None else {"segments": segments}
    states: Tensor = module.hidden(*inputs, **more)
    return states


def _integrate(
    model: Holder, reading: Read, aim: Aim, instead: Instead, steps: int
) -> tuple[dict[str, Tensor], float, float]:
    """Integrate gradients along the line from the baseline; give the values, the number, and what is missing."""
    if instead.how == "leave out" or steps < 1:
        raise ConfigError(
            "the line of integrated gradients needs steps, and a baseline: 'replace' or 'zero'."
        )
    inputs = [ids.clone() for ids in reading.inputs]
    own = {
        name: torch.tensor([not token.special for token in side.tokens])
        for name, side in reading.sides.items()
    }
    if instead.how == "replace":
        for ids, name in zip(inputs, reading.sides, strict=True):
            ids[0, own[name].to(ids.device)] = instead.token(model)
    ends: list[dict[str, Tensor]] = []
    with torch.no_grad():
        for some in (reading.inputs, inputs):
            seen: dict[str, Tensor] = {}
            with tapping(lambda name, value, seen=seen: _kept(seen, name, value)):  # type: ignore[misc]
                hidden(model.module, some, reading.segments)
            ends.append(seen)
    whole, base = ends
    if instead.how == "zero":
        base = {
            name: x.masked_fill(own[side_of(reading, name)].to(x.device)[None, :, None], 0)
            for name, x in whole.items()
        }
    points, weights = np.polynomial.legendre.leggauss(steps)
    places = [*((points + 1) / 2).tolist(), 0.0, 1.0]
    shares = [*(weights / 2).tolist(), 0.0, 0.0]
    sums = {name: torch.zeros_like(x[0], dtype=torch.float64) for name, x in whole.items()}
    numbers: list[float] = []
    most = max(1, TOKENS // sum(ids.shape[1] for ids in inputs))
    for start in range(0, len(places), most):
        at = torch.tensor(places[start : start + most], device=inputs[0].device)[:, None, None]
        leaves = {
            name: (base[name] + at.to(x.dtype) * (x - base[name])).detach().requires_grad_()
            for name, x in whole.items()
        }
        with torch.enable_grad(), tapping(lambda name, value, leaves=leaves: leaves.get(name, value)):  # type: ignore[misc]
            many = [copies(ids, len(at)) for ids in reading.inputs]
            segments = None if reading.segments is None else copies(reading.segments, len(at))
            found = aim(model.module, hidden(model.module, many, segments))
            slopes = torch.autograd.grad(found.sum(), list(leaves.values()), allow_unused=True)
        numbers += found.detach().double().tolist()
        share = torch.tensor(shares[start : start + most], dtype=torch.float64, device=at.device)
        for name, slope in zip(leaves, slopes, strict=True):
            if slope is not None:
                sums[name] += (slope.double() * share[:, None, None]).sum(0)
    values = {
        side_of(reading, name): ((x - base[name])[0].double() * sums[name]).sum(-1).float().cpu()
        for name, x in whole.items()
    }
    first, last = numbers[-2:]
    return values, last, abs(sum(float(v.sum()) for v in values.values()) - (last - first))


def _kept(seen: dict[str, Tensor], name: str, value: Tensor) -> Tensor:
    if name.endswith(".embedding"):
        seen[name] = value
    return value


def copies(ids: Tensor, count: int) -> Tensor:
    """Give so many copies of a text, (1, T), side by side."""
    return ids.repeat(count, 1)
