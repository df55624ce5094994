"""Take tokens away and see what an answer loses: the check of every attribution.

Occlusion is what really happens, to one token at a time (Zeiler and Fergus 2014, arXiv:1311.2901; Li et al. 2016,
arXiv:1612.08220). It knows nothing of tokens that stand in for each other, so `check_attribution` takes the best ones
away at once too, beside as many at random (DeYoung et al. 2020, arXiv:1911.03429, section 5).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from regard.errors import ConfigError
from regard.look.attribution import TOKENS, Attribution, Instead, copies, hidden, side_of
from regard.look.flow import Aim, Read, Target
from regard.look.places import Holder
from regard.look.reading import Token
from regard.nn.taps import tapping

__all__ = ["Check", "check_attribution", "occlude"]

Spot = tuple[str, int]
"""A text's name and a token's number."""


@dataclass(frozen=True)
class Check:
    """Hold how an attribution stands beside what taking tokens away does.

    Attributes:
        correlation: Spearman's, between the attribution and single occlusions; NaN where one of them is constant.
        n: over how many tokens.
        probability: of the answer for the whole text.
        k: how many tokens were taken away at once.
        drop_top: what the probability loses without the k tokens of the highest attribution.
        drop_random: what it loses without k random ones, the mean over `draws`.
        spread: the standard deviation of that over the draws.
        beaten: the share of draws that lost less than `drop_top`; near 1 for an attribution that finds what matters.
        draws: how many random choices there were.
        how: what stands for an absent token, in words.
    """

    correlation: float
    n: int
    probability: float
    k: int
    drop_top: float
    drop_random: float
    spread: float
    beaten: float
    draws: int
    how: str


def occlude(
    model: Holder, reading: Read, aim: Aim, *, instead: Instead | None = None, special: bool = False
) -> Attribution:
    """Say what the number loses without each token, one after another.

    Args:
        model: as in `attribute`.
        reading: as in `attribute`.
        aim: as in `attribute`; a `Target` where tokens are left out.
        instead: what stands in a token's stead; None: what pads.
        special: occlude special tokens too; they else have 0.

    A token that is left out moves those behind it; where the row that answers is itself left out, the value is NaN.
    """
    instead = instead or Instead()
    spots = [spot for spot in _spots(reading) if special or not _token(reading, spot).special]
    (whole,) = _without(model, reading, aim, [()], instead)
    values = {name: torch.zeros(len(side.ids)) for name, side in reading.sides.items()}
    for spot, value in zip(spots, _without(model, reading, aim, [(s,) for s in spots], instead), strict=True):
        values[spot[0]][spot[1]] = whole - value
    columns = {
        name: tuple(side.find(j) for j in range(len(side.ids))) for name, side in reading.sides.items()
    }
    return Attribution(values, columns, whole, "occlusion", f"the number less what it is when {instead}")


def check_attribution(
    model: Holder,
    reading: Read,
    target: Target,
    attribution: Attribution,
    *,
    k: int = 3,
    draws: int = 50,
    instead: Instead | None = None,
    seed: int = 0,
) -> Check:
    """Set an attribution beside occlusion, and beside chance: is it to be trusted here?

    Args:
        model: as in `attribute`.
        reading: as in `attribute`.
        target: the answer that was attributed.
        attribution: of these texts.
        k: how many tokens are taken away at once; fewer where the texts have fewer.
        draws: how many random choices are made to compare with.
        instead: what stands in their stead; a token that answers itself is never left out.
        seed: of the choices.

    Raises:
        ConfigError: the attribution is of other texts, or there is nothing to take away.
    """
    instead = instead or Instead()
    alone = occlude(model, reading, target, instead=instead)
    for name, values in alone.values.items():
        if name in attribution.values and len(attribution.values[name]) != len(values):
            raise ConfigError("this attribution is of other texts.")
    spots = [
        (name, j) for name, j in _spots(reading)
        if name in attribution.values and not _token(reading, (name, j)).special
        and not math.isnan(float(alone.values[name][j]) + float(attribution.values[name][j]))
    ]  # fmt: skip
    k = min(k, len(spots))
    if k < 1 or draws < 1:
        raise ConfigError("there is nothing to take away; give a text, k and draws above 0.")
    given = torch.tensor([float(attribution.values[name][j]) for name, j in spots], dtype=torch.float64)
    real = torch.tensor([float(alone.values[name][j]) for name, j in spots], dtype=torch.float64)
    order = given.argsort(descending=True, stable=True)[:k]
    generator = torch.Generator().manual_seed(seed)
    random = [torch.randperm(len(spots), generator=generator)[:k] for _ in range(draws)]
    chosen = [tuple(spots[int(i)] for i in some) for some in (order, *random)]
    whole, best, *others = _without(model, reading, target, [(), *chosen], instead, probability=True)
    drops = torch.tensor([whole - other for other in others], dtype=torch.float64)
    spread = float(drops.std()) if draws > 1 else math.nan
    return Check(
        _spearman(given, real), len(spots), whole, k, whole - best, float(drops.mean()), spread,
        float((drops < whole - best).double().mean()), draws, str(instead),
    )  # fmt: skip


def _spots(reading: Read) -> list[Spot]:
    return [(name, j) for name, side in reading.sides.items() for j in range(len(side.ids))]


def _token(reading: Read, spot: Spot) -> Token:
    return reading.sides[spot[0]].tokens[spot[1]]


def _without(
    model: Holder, reading: Read, aim: Aim, missing: Sequence[tuple[Spot, ...]], instead: Instead,
    *, probability: bool = False,
) -> list[float]:  # fmt: skip
    """Give the number for copies of the text, each without some tokens; NaN where the row that answers is gone."""
    if instead.how == "leave out":
        if not isinstance(aim, Target):
            raise ConfigError("where tokens are left out, the row that answers moves; give a Target.")
        return [_shortened(model, reading, aim, spots, probability) for spots in missing]
    number = aim.probability if probability and isinstance(aim, Target) else aim
    found: list[float] = []
    most = max(1, TOKENS // sum(ids.shape[1] for ids in reading.inputs))
    for start in range(0, len(missing), most):
        part = missing[start : start + most]
        places = {
            name: tuple(
                zip(*((b, j) for b, spots in enumerate(part) for n, j in spots if n == name), strict=True)
            )
            for name in reading.sides
        }
        many = [copies(ids, len(part)) for ids in reading.inputs]

        def blank(name: str, value: Tensor, places: Mapping[str, Any] = places) -> Tensor:
            own = places[side_of(reading, name)] if name.endswith(".embedding") else ()
            if not own:
                return value
            value = value.clone()
            value[own] = 0
            return value

        if instead.how == "replace":
            for ids, name in zip(many, reading.sides, strict=True):
                if places[name]:
                    ids[places[name]] = instead.token(model)
        segments = None if reading.segments is None else copies(reading.segments, len(part))
        with torch.inference_mode(), tapping(blank) if instead.how == "zero" else nullcontext():
            found += number(model.module, hidden(model.module, many, segments)).tolist()
    return found


def _shortened(
    model: Holder, reading: Read, target: Target, spots: tuple[Spot, ...], probability: bool
) -> float:
    """Give the number for the text without some tokens."""
    answering = list(reading.sides)[-1]
    gone = {name: {j for n, j in spots if n == name} for name in reading.sides}
    kept = [
        torch.tensor(
            [j for j in range(ids.shape[1]) if j not in gone[name]], dtype=torch.long, device=ids.device
        )
        for name, ids in zip(reading.sides, reading.inputs, strict=True)
    ]
    row = target.row % len(reading.sides[answering].ids)
    if any(not len(one) for one in kept) or (model.config.head != "classify" and row in gone[answering]):
        return math.nan
    moved = replace(target, row=row - sum(j < row for j in gone[answering]))
    inputs = [ids[:, one] for ids, one in zip(reading.inputs, kept, strict=True)]
    segments = None if reading.segments is None else reading.segments[:, kept[0]]
    with torch.inference_mode():
        states = hidden(model.module, inputs, segments)
        return float((moved.probability if probability else moved)(model.module, states))


def _spearman(one: Float[Tensor, " N"], other: Float[Tensor, " N"]) -> float:
    """Correlate ranks, tied ones at their mean; NaN where all are tied."""
    ranks = torch.stack([_ranks(one), _ranks(other)])
    return float(torch.corrcoef(ranks)[0, 1]) if bool((ranks.std(1) > 0).all()) else math.nan


def _ranks(values: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    _, place, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts.double() - 1) / 2)[place]
