"""`regard embed`: a vector of each text, and the texts nearest to a query."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from regard.cli.numbers import OptionalCount
from regard.cli.show import Output, printable
from regard.cli.texts import Job, check_sources, lines_of_stdin, print_line, run_job
from regard.errors import ConfigError

if TYPE_CHECKING:
    from regard.model import Model
    from regard.tasks.embed import Embedding


Kind = Literal["mean", "first", "last"]


def command(
    run: str,
    texts: list[str] | None = None,
    /,
    *,
    input: Annotated[Path | None, Parameter(name="--input")] = None,  # noqa: A002
    output: Path | None = None,
    search: Path | None = None,
    top: OptionalCount = None,
    pooling: Kind | None = None,
    normalise: bool | None = None,
    windows: bool = False,
    encoding: str = "utf-8",
    skip_bad_rows: bool = False,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """Make a vector of each text, or find the lines of a file that are nearest to it.

    Each line of standard input is a text where none is given. With --input and --output each line of a file gives a
    JSON object on a line, and such a job goes on after a stop when the same command is given again; an --output that
    ends in .npy gets a matrix in numpy's format, one row a line, and begins again.

    Parameters
    ----------
    run
        The model's folder, or a hub id (owner/name).
    texts
        What to make vectors of.
    input
        A text file, one text a line.
    output
        The file to write.
    search
        A text file: show those of its lines that are nearest to each text, by the cosine of their vectors.
    top
        How many lines --search shows; unset: 5.
    pooling
        mean, first or last token's state; unset: as the model's folder says, else the mean.
    normalise
        Divide each vector by its length; unset: as the model's folder says, else no.
    windows
        Cut texts beyond the context into overlapping windows, rather than refuse them.
    encoding
        Of --input and of standard input.
    skip_bad_rows
        With --input, leave an empty line for a text that can't be done; in a matrix, NaN.
    device
        cpu, cuda, cuda:N, mps or auto.
    json
        Print one JSON object on standard output.
    """
    check_sources(texts, input, output, skip_bad_rows=skip_bad_rows)
    if search is not None and (input is not None or normalise is not None):
        raise ConfigError(
            "--search is for texts and standard input, and takes cosines; leave the other flags out."
        )
    if search is None and top is not None:
        raise ConfigError("--top is for --search.")
    from regard.model import load
    from regard.tasks.embed import check_embed

    out = Output(json)
    model = load(run, device=device)
    settings: dict[str, Any] = {"pooling": pooling, "windows": windows}
    if input is not None and output is not None and output.suffix == ".npy":
        more = {**settings, "normalise": normalise, "encoding": encoding, "skip_bad_rows": skip_bad_rows}
        _matrix(out, model, input, output, more)
        return
    if search is not None:
        _search(
            out, model, texts, search, top=5 if top is None else top, encoding=encoding, settings=settings
        )
        return
    settings["normalise"] = normalise
    job = Job(
        "embeddings",
        run=lambda some: model.embed(some, **settings),
        check=lambda some: check_embed(model.parts, some, windows=windows),
        show=_show,
        settings=settings,
    )
    run_job(
        out, model, job, texts, source=input, target=output, encoding=encoding, skip_bad_rows=skip_bad_rows
    )


def _show(out: Output, source: str, result: Embedding) -> None:
    """Print the numbers of a vector on one line."""
    print_line(out, " ".join(f"{value:.6g}" for value in result.vector))


def _search(
    out: Output,
    model: Model,
    texts: list[str] | None,
    file: Path,
    *,
    top: int,
    encoding: str,
    settings: dict[str, Any],
) -> None:
    """Print the nearest lines of a file below each query."""
    from regard.tasks.embed import lines_of, search

    queries = texts or list(lines_of_stdin(encoding))
    found = search(model.parts, queries, lines_of(file, encoding), top=top, what=f"{file}: line", **settings)
    for one in found:
        if len(found) > 1:
            print_line(out, one.query)
        for match in one.matches:
            print_line(out, f"{match.similarity:8.4f}  {match.number:6}  {match.text}")
    out.result({"searches": found})


def _matrix(out: Output, model: Model, source: Path, target: Path, settings: dict[str, Any]) -> None:
    """Write the vectors of a file's lines, with a progress bar where there is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    from regard.tasks.embed import write_vectors

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        row = bar.add_task(printable(target.name), total=None)
        lines, bad = write_vectors(
            model.parts,
            source,
            target,
            progress=lambda done, total: bar.update(row, completed=done, total=total),
            **settings,
        )
    left = f"; rows of NaN for {', '.join(map(str, bad))}" if bad else ""
    out.line(f"{target}: {lines} rows of {model.config.width} numbers{left}")
    out.result({"output": target, "lines": lines, "width": model.config.width, "bad": bad})
