"""`regard tag`: texts, standard input, or a whole file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from regard.cli.show import Output
from regard.cli.texts import TEXT_FLAGS, AskedTexts, Job, Named, TextFlags, print_line

if TYPE_CHECKING:
    from regard.model import Model
    from regard.tasks.tag import Tagging


def command(
    model: Named = None,
    /,
    *texts: str,
    strategy: Literal["none", "simple", "first", "average", "max"] | None = None,
    windows: bool = False,
    flags: TextFlags = TEXT_FLAGS,
) -> None:
    """Find names and their kinds, or parts of speech; in each line of standard input where no text is given.

    Their places are characters of the text as given. With --input and --output a whole file is done, a JSON object a
    line; a job that was stopped goes on when the same command is given again.

    Parameters
    ----------
    texts
        Where to look.
    strategy
        How a word's tokens share a tag: the first one's, the average's or the surest's (max); simple joins tokens of
        one kind, none gives each token. Unset: first.
    windows
        Cut longer texts into overlapping windows.
    """
    asked = AskedTexts("tag", model, texts, flags)

    def job(loaded: Model) -> Job:
        from regard.tasks.tag import check_tag_texts

        return Job(
            "taggings",
            run=lambda some: loaded.tag(some, strategy=strategy, windows=windows),
            check=lambda some: check_tag_texts(loaded.parts, some, windows=windows),
            show=lambda out, text, result: _show(out, text, result, len(asked.texts) == 1),
            settings={"strategy": strategy, "windows": windows},
        )

    asked.do(job)


def _show(out: Output, text: str, result: Tagging, alone: bool) -> None:
    """Print a table of what was found, below its text where there are several."""
    if not alone:
        print_line(out, text)
    elif not result.entities:
        out.note("nothing found.")
    out.table(
        [
            {"text": one.text, "label": one.label, "start": one.start, "end": one.end, "score": one.score}
            for one in result.entities
        ]
    )
