"""What one head is worth to a share of right answers: switched off, beside each other head of its layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from regard.look.corpus import interval_of_mean
from regard.look.intervene import intervening, off
from regard.look.places import Configured

__all__ = ["Change", "switch_off"]


@dataclass(frozen=True)
class Change:
    """Hold what a share of right answers becomes when a head is switched off: zeros in place of what it mixes.

    Attributes:
        before, after: the share without and with the change.
        change: their difference; `low` and `high` its interval with 95 % confidence, paired, by Student's t.
        others: the baseline: the mean of `after` over the other heads of the layer, each switched off alone; None
            where there are none. `each` has them by their numbers.
        n: how many answers.
    """

    before: float
    after: float
    change: float
    low: float
    high: float
    others: float | None
    each: dict[int, float]
    n: int


def switch_off(
    model: Configured,
    layer: str,
    head: int,
    answers: Callable[[], Mapping[str, Sequence[bool]]],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Change]:
    """Ask a model with all its heads, without one of them, and without each other head of the layer in its stead.

    Args:
        model: a Model, its parts or its network.
        layer: of the head: encoder.1, cross.0.
        head: its number.
        answers: asks the model; whether each answer is right, in one order, for each way of asking by its name.
        progress: told (times asked, times in all).

    Raises:
        ConfigError: there is no such head.
    """
    runs = [None, head, *(other for other in range(model.config.num_heads) if other != head)]
    right: dict[int | None, Mapping[str, Sequence[bool]]] = {}
    for done, one in enumerate(runs):
        progress(done, len(runs))
        with nullcontext() if one is None else intervening(model, off(f"{layer}.{one}")):
            right[one] = answers()
    progress(len(runs), len(runs))
    return {name: _change({run: found[name] for run, found in right.items()}, head) for name in right[None]}


def _change(right: Mapping[int | None, Sequence[bool]], head: int) -> Change:
    n = len(right[None])
    shares = {run: sum(found) / n for run, found in right.items()}
    _, low, high = interval_of_mean([float(a) - b for a, b in zip(right[head], right[None], strict=True)])
    each = {run: share for run, share in shares.items() if run is not None and run != head}
    others = sum(each.values()) / len(each) if each else None
    return Change(shares[None], shares[head], shares[head] - shares[None], low, high, others, each, n)
