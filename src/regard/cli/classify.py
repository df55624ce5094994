"""`regard classify`: texts, standard input, or a whole file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from regard.cli.numbers import OptionalCount
from regard.cli.show import Output
from regard.cli.texts import TEXT_FLAGS, AskedTexts, Job, Named, TextFlags, print_line
from regard.errors import ConfigError

if TYPE_CHECKING:
    from regard.model import Model
    from regard.tasks.classify import Classification

_SHOWN = 5


def command(
    model: Named = None,
    /,
    *texts: str,
    pair: str | None = None,
    pairs: bool = False,
    labels: list[str] | None = None,
    template: str | None = None,
    multi_label: bool = False,
    threshold: float | None = None,
    top: OptionalCount = None,
    windows: bool = False,
    flags: TextFlags = TEXT_FLAGS,
) -> None:
    """Give the probability of each label; for each line of standard input where no text is given.

    One text gives a table, several give a line each: the label, its probability, the text. With --input and --output
    a whole file is done, a JSON object a line; a job that was stopped goes on when the same command is given again.

    Parameters
    ----------
    texts
        What to classify.
    pair
        A second text that goes with each, for models of pairs (entailment, paraphrase).
    pairs
        Each text holds two, with a tab between them.
    labels
        Labels of your own, with commas between them, for a model that knows entailment.
    template
        The sentence about a label that a text may entail, {} in its place; unset: This example is {}.
    multi_label
        With --labels: each may be true whatever the others are.
    threshold
        The least probability of a label that is chosen, where a text may have several; unset: 0.5.
    top
        How many labels to give; unset: all, of which five are shown.
    windows
        Cut longer texts into overlapping windows, and average over them.
    """
    is_plain = labels is None and pair is None and not pairs
    asked = AskedTexts("classify" if is_plain else "entailment", model, texts, flags)
    if pair is not None and pairs:
        raise ConfigError("give --pair or --pairs, not both.")
    own = None if labels is None else [label.strip() for part in labels for label in part.split(",")]
    reading: dict[str, Any] = {
        "labels": own,
        "template": template,
        "multi_label": multi_label,
        "windows": windows,
    }
    settings = {**reading, "threshold": threshold, "top": top}

    def job(loaded: Model) -> Job:
        from regard.tasks.classify import check_classify_texts

        def check(some: Sequence[str]) -> dict[int, str]:
            lone = {i: _LONE for i, text in enumerate(some) if pairs and text.count("\t") != 1}
            firsts, seconds = _split(
                ["\t" if i in lone else text for i, text in enumerate(some)], pair, pairs
            )
            return {**check_classify_texts(loaded.parts, firsts, pair=seconds, **reading), **lone}

        return Job(
            "classifications",
            run=lambda some: _run(loaded, some, pair, pairs, settings),
            check=check,
            show=lambda out, text, result: _show(out, text, result, len(asked.texts) == 1, top),
            settings={**settings, "pair": pair, "pairs": pairs},
        )

    asked.do(job)


_LONE = "must hold two texts with one tab between them, as --pairs says."


def _split(texts: Sequence[str], pair: str | None, pairs: bool) -> tuple[list[str], list[str] | None]:
    """Give the first texts, and the second ones where there are any."""
    if pairs:
        halves = [text.split("\t") for text in texts]
        return [first for first, _ in halves], [second for _, second in halves]
    return list(texts), None if pair is None else [pair] * len(texts)


def _run(
    model: Model, texts: Sequence[str], pair: str | None, pairs: bool, settings: dict[str, Any]
) -> list[Classification]:
    firsts, seconds = _split(texts, pair, pairs)
    return model.classify(firsts, pair=seconds, **settings)


def _show(out: Output, text: str, result: Classification, alone: bool, top: int | None) -> None:
    """Print a table for a text that came alone or whose best labels were asked for, else a line."""
    if alone or top is not None:
        if not alone:
            print_line(out, text)
        rows = result.scores if top is not None else result.scores[:_SHOWN]
        several = len(result.chosen) != 1
        out.table(
            [
                {
                    "label": choice.label, "score": choice.score,
                    **({"chosen": "yes" if choice.label in result.chosen else ""} if several else {}),
                }
                for choice in rows
            ]
        )  # fmt: skip
        return
    print_line(out, f"{str(result) or '-'}\t{result.score:.4f}\t{text}")
