"""`regard answer`: the words of a passage that answer a question."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regard.cli.numbers import Count
from regard.cli.show import Output
from regard.cli.texts import TEXT_FLAGS, AskedTexts, Job, Named, TextFlags, print_line

if TYPE_CHECKING:
    from regard.model import Model
    from regard.tasks.answer import Answer, Span


def command(
    model: Named = None,
    /,
    *passages: str,
    question: str,
    top: Count = 1,
    max_answer: Count = 30,
    allow_none: bool = False,
    windows: bool = False,
    flags: TextFlags = TEXT_FLAGS,
) -> None:
    """Find the answer to a question in passages; in each line of standard input where no passage is given.

    With --input and --output each line of a file is a passage and gives a JSON object on a line; a job that was stopped
    goes on when the same command is given again.

    Parameters
    ----------
    passages
        Where to look.
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
    """
    asked = AskedTexts("answer", model, passages, flags)
    settings = {"top": top, "max_answer": max_answer, "allow_none": allow_none, "windows": windows}

    def job(loaded: Model) -> Job:
        from regard.tasks.answer import check_answer

        return Job(
            "answers",
            run=lambda some: loaded.answer(some, question=question, **settings),
            check=lambda some: check_answer(loaded.parts, some, question=question, windows=windows),
            show=lambda out, text, result: _show(out, text, result, len(asked.texts) != 1),
            settings={**settings, "question": question},
        )

    asked.do(job)


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
