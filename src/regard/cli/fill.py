"""`regard fill`: what may stand in a text's masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regard.cli.numbers import Count
from regard.cli.show import Output
from regard.cli.texts import TEXT_FLAGS, AskedTexts, Job, Named, TextFlags, print_line

if TYPE_CHECKING:
    from regard.model import Model
    from regard.tasks.fill import Filling


def command(
    model: Named = None,
    /,
    *texts: str,
    top: Count = 5,
    windows: bool = False,
    flags: TextFlags = TEXT_FLAGS,
) -> None:
    """Fill the masks of texts with a masked language model; each line of standard input where no text is given.

    A mask is [MASK], <mask>, three or more underscores, or the model's own name of it, whichever is typed. There may be
    several in a text. With --input and --output each line of a file gives a JSON object on a line; a job that was
    stopped goes on when the same command is given again.

    Parameters
    ----------
    texts
        Texts with masks.
    top
        How many candidates to show for each mask.
    windows
        Cut texts beyond the context into overlapping windows, rather than refuse them.
    """

    def job(loaded: Model) -> Job:
        from regard.tasks.fill import check_fill

        return Job(
            "fillings",
            run=lambda some: loaded.fill(some, top=top, windows=windows),
            check=lambda some: check_fill(loaded.parts, some, windows=windows),
            show=_show,
            settings={"top": top, "windows": windows},
        )

    AskedTexts("fill", model, texts, flags).do(job)


def _show(out: Output, source: str, result: Filling) -> None:
    """Print a text, and below it each mask's candidates with their probabilities and the filled text."""
    print_line(out, source)
    for number, candidates in enumerate(result.masks, 1):
        if len(result.masks) > 1:
            print_line(out, f"  mask {number}")
        for one in candidates:
            print_line(out, f"  {one.probability:8.4f}  {one.token.strip() or repr(one.token)}  {one.text}")
