"""`regard answer`: the words of a passage that answer a question."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from regard.cli.numbers import Count
from regard.cli.show import Output
from regard.cli.texts import Job, check_sources, print_line, run_job

if TYPE_CHECKING:
    from regard.tasks.answer import Answer, Span


def command(
    run: str,
    passages: list[str] | None = None,
    /,
    *,
    input: Annotated[Path | None, Parameter(name="--input")] = None,  # noqa: A002
    output: Path | None = None,
    question: str,
    top: Count = 1,
    max_answer: Count = 30,
    allow_none: bool = False,
    windows: bool = False,
    encoding: str = "utf-8",
    skip_bad_rows: bool = False,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """Find the answer to a question in passages; in each line of standard input where no passage is given.

    With --input and --output each line of a file is a passage and gives a JSON object on a line; a job that was stopped
    goes on when the same command is given again.

    Parameters
    ----------
    run
        The model's folder, or a hub id (owner/name).
    passages
        Where to look.
    input
        A text file, one text a line.
    output
        The file to write.
    question
        What to look for.
    top
        How many candidates to show.
    max_answer
        Longest answer, in tokens.
    allow_none
        Let "no answer" be one, for models that were trained with such questions.
    windows
        Cut passages beyond the context into overlapping windows, rather than refuse them.
    encoding
        Of --input and of standard input.
    skip_bad_rows
        With --input, leave an empty line for a text that can't be done.
    device
        cpu, cuda, cuda:N, mps or auto.
    json
        Print one JSON object on standard output.
    """
    check_sources(passages, input, output, skip_bad_rows=skip_bad_rows)
    from regard.model import load
    from regard.tasks.answer import check_answer

    out = Output(json)
    model = load(run, device=device)
    settings = {"top": top, "max_answer": max_answer, "allow_none": allow_none, "windows": windows}
    model.answer([], question=question, **settings)  # refuses what can't be before any text is read
    several = not passages or len(passages) > 1
    job = Job(
        "answers",
        run=lambda some: model.answer(some, question=question, **settings),
        check=lambda some: check_answer(model.parts, some, question=question, windows=windows),
        show=lambda out, text, result: _show(out, text, result, several),
        settings={**settings, "question": question},
    )
    run_job(
        out, model, job, passages, source=input, target=output, encoding=encoding, skip_bad_rows=skip_bad_rows
    )


def _show(out: Output, passage: str, result: Answer, several: bool) -> None:
    """Print the candidates with their probabilities and characters; below the passage where there are several."""
    if several:
        print_line(out, passage)
    for one in result.candidates:
        print_line(out, f"{one.probability:8.4f}  {_place(one)}")
    if not result.candidates:
        print_line(out, "no words to look in")


def _place(one: Span) -> str:
    return "no answer" if one.start is None else f"{one.start}-{one.end}  {one.text}"
