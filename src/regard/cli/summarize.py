"""`regard summarize`: texts from the command line, from standard input, or a whole file in bulk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regard.cli.numbers import OptionalCount
from regard.cli.show import Output
from regard.cli.texts import TEXT_FLAGS, AskedTexts, Job, Named, TextFlags, print_line

if TYPE_CHECKING:
    from regard.model import Model
    from regard.tasks.summarize import Summary


def command(
    model: Named = None,
    /,
    *texts: str,
    windows: bool = False,
    prefix: str | None = None,
    beams: OptionalCount = None,
    length_penalty: float | None = None,
    min_tokens: OptionalCount = None,
    max_tokens: OptionalCount = None,
    no_repeat_ngram: OptionalCount = None,
    flags: TextFlags = TEXT_FLAGS,
) -> None:
    """Summarise texts with an encoder-decoder; each line of standard input where no text is given.

    What isn't given is what the model was published with. With --input and --output a whole file is summarised line by
    line, in order. A job that was stopped goes on when the same command is given again.

    Parameters
    ----------
    texts
        What to summarise.
    windows
        Cut a text that is too long into overlapping windows, join their summaries, and summarise those again where they
        are longer than one may be.
    prefix
        What stands before each text, such as "summarize: ". Unset: what the model was published with.
    beams
        Hypotheses kept at each step; 1 is greedy, and faster.
    length_penalty
        Larger favours longer summaries.
    min_tokens
        The shortest summary.
    max_tokens
        The longest summary.
    no_repeat_ngram
        No run of so many tokens comes twice; 0: no limit.
    """
    settings = {
        "windows": windows, "prefix": prefix, "beams": beams, "length_penalty": length_penalty,
        "min_tokens": min_tokens, "max_tokens": max_tokens, "no_repeat_ngram": no_repeat_ngram,
    }  # fmt: skip

    def job(loaded: Model) -> Job:
        from regard.tasks.summarize import check_summaries

        return Job(
            "summaries",
            run=lambda some: loaded.summarize(some, **settings),
            check=lambda some: {} if windows else check_summaries(loaded.parts, some, prefix=prefix),
            show=_show,
            settings=settings,
            line=str,
        )

    AskedTexts("summarize", model, texts, flags).do(job)


def _show(out: Output, source: str, result: Summary) -> None:
    """Print a summary on one line, and how it was made where its text was cut."""
    print_line(out, result.text)
    if result.windows > 1:
        again = f", summarised {result.rounds} times over" if result.rounds > 1 else ""
        out.note(f"(from {result.windows} overlapping windows{again})")
