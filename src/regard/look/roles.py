"""Roles of heads, told from their measures: each by one rule of the table, which says how much is enough.

Mass is judged by its gain over even attention: what lies above the baseline, as a share of what could.

    gain  =  (value - baseline) / (1 - baseline)          0: as even attention gives; 1: all of it

Sources: previous and next token, separators: Clark et al. 2019, arXiv:1906.04341; induction: Olsson et al. 2022,
arXiv:2209.11895; the sink: Xiao et al. 2023, arXiv:2309.17453.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from regard.look.measures import HeadMeasures, Measure

__all__ = ["NONE", "RULES", "Role", "Rule", "roles"]

NONE = "no clear role"

_FEWEST = 5  # rows below which nothing is said


@dataclass(frozen=True)
class Rule:
    """Say when a head has a role.

    Attributes:
        role: its name.
        measure: what speaks for it.
        least: the gain from which on it stands out.
        meaning: what such a head does.
        broad: whether it is told only of heads that have no other role.
        also: a second measure, whose gain must reach `also_least`.
    """

    role: str
    measure: str
    least: float
    meaning: str
    broad: bool = False
    also: str | None = None
    also_least: float = 0.0


RULES: tuple[Rule, ...] = (
    Rule("links", "links", 0.3, "looks at what is linked with a word"),
    Rule("induction", "induction", 0.3, "looks at what followed the same token earlier"),
    Rule("previous token", "previous", 0.4, "looks at the token before"),
    Rule("next token", "next", 0.4, "looks at the token after"),
    Rule("same token", "same", 0.3, "looks at other occurrences of the token"),
    Rule("itself", "self", 0.4, "looks at the token itself"),
    Rule(
        "alignment", "monotone", 0.7, "walks through the source as it writes", also="diagonal", also_least=0.2
    ),
    Rule("separator", "special", 0.3, "looks at special tokens, for want of anything else"),
    Rule("punctuation", "punctuation", 0.3, "looks at marks and line ends"),
    Rule("sink", "first", 0.3, "looks at the first token, for want of anything else"),
    Rule("local", "local", 0.5, "looks at what is near", broad=True),
    Rule("global", "global", 0.3, "looks at what is far", broad=True),
    Rule("uniform", "relative entropy", 0.9, "spreads its attention evenly", broad=True),
)
"""The rules. Of uniform heads the relative entropy is taken as it is, of monotone ones the correlation."""


@dataclass(frozen=True)
class Role:
    """Hold a role of a head: its name, how strong it is (0 to 1), and the figures that speak for it."""

    name: str
    score: float
    why: str

    def __str__(self) -> str:
        return self.name if self.name == NONE else f"{self.name} {self.score:.2f}"


def roles(measures: Iterable[HeadMeasures]) -> dict[tuple[str, int], list[Role]]:
    """Tell the roles of heads from their measures, of one text or of a corpus, the strongest first.

    A head in which nothing stands out has one role called `NONE`, which says what came nearest.
    """
    return {(one.layer, one.head): _roles(one) for one in measures}


def _roles(one: HeadMeasures) -> list[Role]:
    able = [rule for rule in RULES if rule.measure in one.values and one.values[rule.measure].n >= _FEWEST]
    judged = [
        (rule, _gain(rule.measure, one.values[rule.measure]))
        for rule in able
        if math.isfinite(one.values[rule.measure].value)
    ]
    found = [(rule, gain) for rule, gain in judged if gain >= rule.least and _also(rule, one)]
    kept = [pair for pair in found if not pair[0].broad] or found
    if kept:
        ordered = sorted(kept, key=lambda pair: -pair[1])
        return [Role(rule.role, gain, _why(rule, one)) for rule, gain in ordered]
    if not judged:
        why = "its measures are not numbers" if able else f"fewer than {_FEWEST} rows have a choice"
        return [Role(NONE, 0.0, why)]
    nearest, _ = max(judged, key=lambda pair: pair[1] / pair[0].least)
    return [Role(NONE, 0.0, f"nearest is {nearest.role}: {_why(nearest, one)}")]


def _also(rule: Rule, one: HeadMeasures) -> bool:
    if rule.also is None:
        return True
    second = one.values.get(rule.also)
    return second is not None and _gain(rule.also, second) >= rule.also_least


def _gain(name: str, found: Measure) -> float:
    if name == "relative entropy":
        return min(1.0, found.value)
    return (found.value - found.baseline) / max(1e-12, 1 - found.baseline)


def _why(rule: Rule, one: HeadMeasures) -> str:
    names = (rule.measure, *((rule.also,) if rule.also in one.values else ()))
    told = [
        f"{name} {found.value:.2f}, evenly {found.baseline:.2f} (n={found.n:,})"
        for name, found in ((name, one.values[name]) for name in names if name is not None)
    ]
    return "; ".join(told)
