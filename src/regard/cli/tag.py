"""`regard tag`: texts, standard input, or a whole file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from regard.cli.show import Output
from regard.cli.texts import Job, check_sources, print_line, run_job

if TYPE_CHECKING:
    from regard.tasks.tag import Tagging


def command(
    run: str,
    texts: list[str] | None = None,
    /,
    *,
    strategy: Literal["none", "simple", "first", "average", "max"] | None = None,
    windows: bool = False,
    input: Annotated[Path | None, Parameter(name="--input")] = None,  # noqa: A002
    output: Path | None = None,
    encoding: str = "utf-8",
    skip_bad_rows: bool = False,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """Find names and their kinds, or parts of speech; in each line of standard input where no text is given.

    Their places are characters of the text as given. With --input and --output a whole file is done, a JSON object a
    line; a job that was stopped goes on when the same command is given again.

    Parameters
    ----------
    run
        The model's folder, or a hub id (owner/name).
    texts
        Where to look.
    strategy
        How a word's tokens share a tag: the first one's, the average's or the surest's (max); simple joins tokens of
        one kind, none gives each token. Unset: first.
    windows
        Cut longer texts into overlapping windows.
    input
        A text file, one text a line.
    output
        The file to write, a JSON object a line.
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
    from regard.tasks.tag import check_tag_texts

    out, model = Output(json), load(run, device=device)
    model.tag([], strategy=strategy, windows=windows)  # refuses what can't be before any text is read
    alone = texts is not None and len(texts) == 1
    job = Job(
        "taggings",
        run=lambda some: model.tag(some, strategy=strategy, windows=windows),
        check=lambda some: check_tag_texts(model.parts, some, windows=windows),
        show=lambda out, text, result: _show(out, text, result, alone),
        settings={"strategy": strategy, "windows": windows},
    )
    run_job(
        out, model, job, texts, source=input, target=output, encoding=encoding, skip_bad_rows=skip_bad_rows
    )


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
