"""`regard fill`: what may stand in a text's masks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from regard.cli.numbers import Count
from regard.cli.show import Output
from regard.cli.texts import Job, check_sources, print_line, run_job

if TYPE_CHECKING:
    from regard.tasks.fill import Filling


def command(
    run: str,
    texts: list[str] | None = None,
    /,
    *,
    input: Annotated[Path | None, Parameter(name="--input")] = None,  # noqa: A002
    output: Path | None = None,
    top: Count = 5,
    windows: bool = False,
    encoding: str = "utf-8",
    skip_bad_rows: bool = False,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """Fill the masks of texts with a masked language model; each line of standard input where no text is given.

    A mask is [MASK], <mask>, three or more underscores, or the model's own name of it, whichever is typed. There may be
    several in a text. With --input and --output each line of a file gives a JSON object on a line; a job that was
    stopped goes on when the same command is given again.

    Parameters
    ----------
    run
        The model's folder, or a hub id (owner/name).
    texts
        Texts with masks.
    input
        A text file, one text a line.
    output
        The file to write.
    top
        How many candidates to show for each mask.
    windows
        Cut texts beyond the context into overlapping windows, rather than refuse them.
    encoding
        Of --input and of standard input.
    skip_bad_rows
        With --input, leave an empty line for a text that can't be done.
    device
        cpu, cuda, cuda:N, mps or auto.
    json
        Print one JSON object on standard output.
    """
    check_sources(texts, input, output, skip_bad_rows=skip_bad_rows)
    from regard.model import load
    from regard.tasks.fill import check_fill

    out = Output(json)
    model = load(run, device=device)
    model.fill([], top=top)  # refuses what can't be before any text is read
    job = Job(
        "fillings",
        run=lambda some: model.fill(some, top=top, windows=windows),
        check=lambda some: check_fill(model.parts, some, windows=windows),
        show=_show,
        settings={"top": top, "windows": windows},
    )
    run_job(
        out, model, job, texts, source=input, target=output, encoding=encoding, skip_bad_rows=skip_bad_rows
    )


def _show(out: Output, source: str, result: Filling) -> None:
    """Print a text, and below it each mask's candidates with their probabilities and the filled text."""
    print_line(out, source)
    for number, candidates in enumerate(result.masks, 1):
        if len(result.masks) > 1:
            print_line(out, f"  mask {number}")
        for one in candidates:
            print_line(out, f"  {one.probability:8.4f}  {one.token.strip() or repr(one.token)}  {one.text}")
