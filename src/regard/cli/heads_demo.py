"""What `regard heads` prints of a run of `regard demo`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regard.cli.show import Output
    from regard.demo_heads import Head, Study
    from regard.look.switching import Change

__all__ = ["show_study"]


def show_study(study: Study, out: Output) -> None:
    """Print the heads that carry the referent, those that align, and what the pronoun is worth without the best."""
    best = study.referent[0]
    out.line(
        f"Heads were chosen on {study.chosen_on:,} held-out sentences, and measured on {study.off.written.n:,} others."
    )
    out.line("\nWhich head carries the pronoun's noun?")
    if not best.carries:
        out.line("(The best is not surely better than a fixed choice.)")
    out.table([_carrier(head) for head in study.referent])
    out.line(
        f"most on the noun: more than on every other noun it could mean. Beside that: guessing "
        f"{_share(best.chance)}, always the first noun {_share(best.first)}, the nearest {_share(best.nearest)}."
    )
    out.line("\nWhich heads align the words of the two languages?")
    out.table(
        [
            {
                "head": str(one.spot), "right word": _share(one.agreement), "95 %": _interval(one.low, one.high),
                "alignment error": _share(one.error), "": "aligns" if one.low > study.diagonal.agreement else "",
            }
            for one in study.aligners
        ]
    )  # fmt: skip
    guessing, diagonal = study.guessing, study.diagonal
    out.line(
        f"Of {diagonal.words:,} words in {diagonal.n:,} sentences. Beside that: a random word "
        f"{_share(guessing.agreement)} (error {_share(guessing.error)}), the word equally far in its sentence "
        f"{_share(diagonal.agreement)} (error {_share(diagonal.error)})."
    )
    name = f"{study.off.layer}.{study.off.head}"
    out.line(f"\nWhat becomes of il and elle without {name}?")
    what = {"in the translation": study.off.written, "where all before it is given": study.off.choice}
    out.table([_changed(text, change) for text, change in what.items()])
    out.line(
        f"n = {study.off.written.n:,}; the change is paired, with its interval of 95 %. others off: the baseline, the "
        f"mean over\n{len(study.off.written.each)} other heads of {study.off.layer}, each switched off alone. Guessing "
        f"gives {_share(study.chance)}, always the commonest form {_share(study.majority)}."
    )


def _carrier(head: Head) -> dict[str, str]:
    return {
        "head": head.where, "most on the noun": _share(head.accuracy), "95 %": _interval(head.low, head.high),
        "its share": _share(head.share), "n": f"{head.n:,}", "": "carries it" if head.carries else "",
    }  # fmt: skip


def _changed(text: str, change: Change) -> dict[str, str]:
    return {
        "right pronoun": text, "whole": _share(change.before), "switched off": _share(change.after),
        "change": f"{100 * change.change:+.1f} ({100 * change.low:+.1f} to {100 * change.high:+.1f})",
        "others off": "-" if change.others is None else _share(change.others),
    }  # fmt: skip


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _interval(low: float, high: float) -> str:
    return f"{100 * low:.1f} to {100 * high:.1f}"
