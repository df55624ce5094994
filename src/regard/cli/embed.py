"""`regard embed`: a vector of each text, and the texts nearest to a query."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from regard.cli.numbers import OptionalCount
from regard.cli.show import Output, printable
from regard.cli.texts import TEXT_FLAGS, AskedTexts, Job, Named, TextFlags, lines_of_stdin, print_line
from regard.errors import ConfigError

if TYPE_CHECKING:
    from regard.model import Model
    from regard.tasks.embed import Embedding

Kind = Literal["mean", "first", "last"]


def command(
    model: Named = None,
    /,
    *texts: str,
    search: Path | None = None,
    top: OptionalCount = None,
    pooling: Kind | None = None,
    normalise: bool | None = None,
    windows: bool = False,
    flags: TextFlags = TEXT_FLAGS,
) -> None:
    """Make a vector of each text, or find the lines of a file that are nearest to it.

    Each line of standard input is a text where none is given. With --input and --output each line of a file gives a
    JSON object on a line, and such a job goes on after a stop when the same command is given again; an --output that
    ends in .npy gets a matrix in numpy's format, one row a line (NaN for a bad one), and begins again.

    Parameters
    ----------
    texts
        What to make vectors of.
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
    """
    asked = AskedTexts("embed", model, texts, flags)
    if search is not None and (flags.input is not None or normalise is not None):
        raise ConfigError(
            "--search is for texts and standard input, and takes cosines; leave the other flags out."
        )
    if search is None and top is not None:
        raise ConfigError("--top is for --search.")
    settings: dict[str, Any] = {"pooling": pooling, "windows": windows}
    if search is not None:
        _search(asked, search, top=5 if top is None else top, settings=settings)
        return
    settings["normalise"] = normalise
    if flags.input is not None and flags.output is not None and flags.output.suffix == ".npy":
        _matrix(asked, flags.input, flags.output, settings)
        return

    def job(loaded: Model) -> Job:
        from regard.tasks.embed import check_embed

        return Job(
            "embeddings",
            run=lambda some: loaded.embed(some, **settings),
            check=lambda some: check_embed(loaded.parts, some, windows=windows),
            show=_show,
            settings=settings,
        )

    asked.do(job)


def _show(out: Output, source: str, result: Embedding) -> None:
    """Print the numbers of a vector on one line."""
    print_line(out, " ".join(f"{value:.6g}" for value in result.vector))


def _search(asked: AskedTexts, file: Path, *, top: int, settings: dict[str, Any]) -> None:
    """Print the nearest lines of a file below each query."""
    model, out, encoding = asked.open(), asked.out, asked.flags.encoding
    from regard.tasks.embed import lines_of, search

    queries = asked.texts or list(lines_of_stdin(encoding))
    found = search(model.parts, queries, lines_of(file, encoding), top=top, what=f"{file}: line", **settings)
    for one in found:
        if len(found) > 1:
            print_line(out, one.query)
        for match in one.matches:
            print_line(out, f"{match.similarity:8.4f}  {match.number:6}  {match.text}")
    asked.result({"searches": found})


def _matrix(asked: AskedTexts, source: Path, target: Path, settings: dict[str, Any]) -> None:
    """Write the vectors of a file's lines, with a progress bar where there is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    model, flags = asked.open(), asked.flags
    from regard.tasks.embed import write_vectors

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        row = bar.add_task(printable(target.name), total=None)
        lines, bad = write_vectors(
            model.parts, source, target, encoding=flags.encoding, skip_bad_rows=flags.skip_bad_rows,
            progress=lambda done, total: bar.update(row, completed=done, total=total), **settings,
        )  # fmt: skip
    left = f"; rows of NaN for {', '.join(map(str, bad))}" if bad else ""
    asked.out.line(f"{target}: {lines} rows of {model.config.width} numbers{left}")
    asked.result({"output": target, "lines": lines, "width": model.config.width, "bad": bad})
