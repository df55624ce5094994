"""`regard summarize`: texts from the command line, from standard input, or a whole file in bulk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from regard.cli.numbers import OptionalCount
from regard.cli.show import Output
from regard.cli.texts import Job, check_sources, print_line, run_job

if TYPE_CHECKING:
    from regard.tasks.summarize import Summary


def command(
    run: str,
    texts: list[str] | None = None,
    /,
    *,
    input: Annotated[Path | None, Parameter(name="--input")] = None,  # noqa: A002
    output: Path | None = None,
    windows: bool = False,
    prefix: str | None = None,
    beams: OptionalCount = None,
    length_penalty: float | None = None,
    min_tokens: OptionalCount = None,
    max_tokens: OptionalCount = None,
    no_repeat_ngram: OptionalCount = None,
    encoding: str = "utf-8",
    skip_bad_rows: bool = False,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """Summarise texts with an encoder-decoder; each line of standard input where no text is given.

    What isn't given is what the model was published with. With --input and --output a whole file is summarised line by
    line, in order. A job that was stopped goes on when the same command is given again.

    Parameters
    ----------
    run
        The model's folder, or a hub id (owner/name).
    texts
        What to summarise.
    input
        A text file, one text a line.
    output
        The file to write, one summary a line.
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
    encoding
        Of --input and of standard input.
    skip_bad_rows
        With --input, leave an empty line for a text that can't be summarised.
    device
        cpu, cuda, cuda:N, mps or auto.
    json
        Print one JSON object on standard output.
    """
    check_sources(texts, input, output, skip_bad_rows=skip_bad_rows)
    from regard.model import load
    from regard.tasks.summarize import check_summaries

    out = Output(json)
    model = load(run, device=device)
    settings = {
        "windows": windows, "prefix": prefix, "beams": beams, "length_penalty": length_penalty,
        "min_tokens": min_tokens, "max_tokens": max_tokens, "no_repeat_ngram": no_repeat_ngram,
    }  # fmt: skip
    model.summarize([], **settings)  # refuses what can't be before any text is read
    job = Job(
        "summaries",
        run=lambda some: model.summarize(some, **settings),
        check=lambda some: {} if windows else check_summaries(model.parts, some, prefix=prefix),
        show=_show,
        settings=settings,
        line=str,
    )
    run_job(
        out, model, job, texts, source=input, target=output, encoding=encoding, skip_bad_rows=skip_bad_rows
    )


def _show(out: Output, source: str, result: Summary) -> None:
    """Print a summary on one line, and how it was made where its text was cut."""
    print_line(out, result.text)
    if result.windows > 1:
        again = f", summarised {result.rounds} times over" if result.rounds > 1 else ""
        out.note(f"(from {result.windows} overlapping windows{again})")
