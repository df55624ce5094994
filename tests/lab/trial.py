"""A claim that costs nothing, to try the lab's machinery with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from regard.lab.claim import Claim, Figure, Finding, Measured, Panel, Report, Series, Settings, Size
from regard.lab.statistics import estimate


def measure(seed: int, settings: Settings, report: Report) -> Measured:
    """Give a number that follows from the seed."""
    report(f"at work on {seed}")
    return {"value": settings["base"] + seed / 10, "by_length": {"8": 1.0, "16": float(seed)}}


def conclude(found: Sequence[Measured], settings: Settings) -> Finding:
    """Say that it holds where the mean is above zero."""
    effect = estimate([one["value"] for one in found])
    lines = Series(
        "a <b> & c", (8.0, 16.0), tuple(estimate([one["by_length"][n] for one in found]) for n in ("8", "16"))
    )
    bars = Series("words", ("one", "two $x$"), (effect, effect), is_baseline=True)
    figure = Figure(
        "A caption & more.",
        (
            Panel("Lines", "length (tokens)", "value (units)", (lines,), True, True, ((8.0, "here"),)),
            Panel("Bars", "what", "value (units)", (bars,)),
        ),
    )  # fmt: skip
    status = "holds" if effect.above(0) else "fails"
    return Finding(status, f"the value is {effect.text('units')}.", effect, "the value, in units", figure)


def trial(**changes: Any) -> Claim:
    """Make the claim, with some fields changed."""
    fields: dict[str, Any] = {
        "id": "L99", "title": "A trial", "said": "It is said.", "question": "Is it so?", "method": "Counting.",
        "refuted_by": "A mean of zero.", "fair": "All is equal.", "tuning": "None.",
        "sizes": {"laptop": Size(3, {"base": 1.0}), "smoke": Size(2, {"base": 2.0})},
        "measure": measure, "conclude": conclude,
    }  # fmt: skip
    return Claim(**{**fields, **changes})
