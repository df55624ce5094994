"""`regard demo`: train on the famous pair's world, and show what was learned."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard.cli.show import Output

if TYPE_CHECKING:
    from rich.console import Console

    from regard.demo import DemoResult
    from regard.demo_heads import Head, Picture


def command(
    *, out: Path = Path("runs/demo"), seed: int | None = None, again: bool = False, minutes: float | None = None,
    json: bool = False,
) -> int | None:  # fmt: skip
    """Train the Transformer of 2017 in two minutes, and see where `it` looks.

    It learns to translate sentences like "The animal didn't cross the street because it was too tired.", where the
    French pronoun shows which noun was understood; and it is tested on combinations of words that it never saw.

    Parameters
    ----------
    out
        The run's folder; its data goes to OUT-world.
    seed
        Of the sentences and the weights; unset: 1.
    again
        Train anew where an earlier demo is; else that one is shown.
    minutes
        The most that training may take; unset: a little less than two.
    json
        Print one JSON object on standard output, all else on standard error.
    """
    from regard.cli import INTERRUPTED
    from regard.cli.display import Display
    from regard.demo import DemoResult, run_demo

    output = Output(json)
    with Display(output, "translate: the demo") as display:
        result = run_demo(out, seed=seed, again=again, minutes=minutes, report=display)
    if not isinstance(result, DemoResult):
        output.note("interrupted; the same command goes on from here.")
        return INTERRUPTED
    show(result, output)
    output.result(as_json(result))
    return None


def show(result: DemoResult, output: Output) -> None:
    """Print what was found, for people."""
    from rich.console import Console

    console = Console(file=output.stream, highlight=False, markup=False, soft_wrap=False)
    if result.reused:
        output.line(f"{result.run} was trained before, in {result.seconds:.0f} s; --again trains anew.")
    ended = ", its limit of time" if result.reason == "minutes" else ""
    _title(console, "The model")
    output.line(
        f"  {result.run}: {result.parameters:,} weights, from nothing in {result.seconds:.0f} s{ended}: "
        f"{result.steps:,} steps,\n  {result.tokens_per_second:,.0f} tokens a second"
    )
    _title(console, "On held-out combinations of subject, adjective and object")
    output.line(f"  BLEU           {result.bleu:6.1f}    on {result.test_sentences:,} sentences")
    output.line(
        f"  right pronoun  {_percent(result.pronoun_accuracy)}  of {result.pronouns:,} that depend on the noun; "
        f"guessing {_percent(result.chance).strip()},\n"
        f"                           always the commonest form {_percent(result.majority).strip()}"
    )
    _title(console, "The famous pair")
    for famous in result.famous:
        output.line(f"  {famous.source}\n  {famous.translation}")
        output.line("" if famous.correct else f"  expected: {famous.expected}\n")
    _heads(result, output, console)
    _title(console, "Next")
    output.line(
        f'  regard translate {result.run} "The giraffe didn\'t enter the tunnel because it was too narrow."'
    )
    output.line(f"  regard heads {result.run}")
    where = "" if Path(result.run).parent == Path("runs") else f" --runs {Path(result.run).parent}"
    output.line(f"  regard serve{where}    and see it in the browser")


def _heads(result: DemoResult, output: Output, console: Console) -> None:
    """Print the heads that were found, and draw them in the famous pair."""
    head, it_head = result.referent_head, result.it_head
    _title(console, "Which head carries the noun?")
    output.line(
        f"  Of {head.searched} rows of attention, this one was chosen on other sentences:" if head.carries else
        f"  None of {head.searched} rows of attention is surely better than a fixed choice. The best:"
    )  # fmt: skip
    _describe(head, output)
    for example, picture in zip(result.famous, result.pictures, strict=True):
        _draw(console, picture, head, example.expected)
    _matrix(console, result.pictures[0], head)
    if it_head.spot != head.spot:
        _title(console, "And from `it` itself, in the encoder?")
        verdict = (
            "carries the noun too"
            if it_head.carries
            else "does not find the noun more often than a fixed choice"
        )
        output.line(f"  The best head there {verdict}:")
        _describe(it_head, output)
        for example, picture in zip(result.famous, result.it_pictures, strict=True):
            _draw(console, picture, it_head, example.expected)


def _describe(head: Head, output: Output) -> None:
    output.line(f"  {head.where}")
    output.line(
        f"    most on the right noun  {_percent(head.accuracy)}  of {head.n:,} held-out sentences "
        f"(95 %: {100 * head.low:.1f} to {100 * head.high:.1f})"
    )
    output.line(f"    its share               {_percent(head.share)}  of the attention, on average")
    output.line(
        f"    beside that             {_percent(head.chance)}  guessing, "
        f"{_percent(head.first).strip()} the first noun, {_percent(head.nearest).strip()} the nearest,\n"
        f"                            {_percent(head.all_heads)}  all rows on average\n"
    )


def _draw(console: Console, picture: Picture, head: Head, expected: str) -> None:
    from rich.text import Text

    from regard.look.draw.terminal import Row

    console.print(Row(picture.words, picture.weights, looker=picture.looker, numbered=picture.nouns))
    console.print(Text())


def _matrix(console: Console, picture: Picture, head: Head) -> None:
    from rich.text import Text

    from regard.look.draw.terminal import Matrix

    matrix = Matrix(picture.rows, picture.words, picture.matrix)
    if matrix.width <= console.width:
        console.print(Text(f"  The whole of {head.spot.layer}.{head.spot.head}, in per cent:", style="dim"))
        console.print(matrix)
        console.print(Text())


def _title(console: Console, text: str) -> None:
    from rich.text import Text

    console.print(Text(f"\n{text}", style="bold"))


def _percent(share: float) -> str:
    return f"{100 * share:5.1f} %"


def as_json(result: DemoResult) -> dict[str, Any]:
    """Give the result as plain values; the pictures without their matrices."""
    values = asdict(result)
    for name in ("referent_head", "it_head"):
        del values[name]["spot"]
    for name in ("pictures", "it_pictures"):
        values[name] = [
            {key: value for key, value in picture.items() if key not in ("rows", "matrix")}
            for picture in values[name]
        ]
    return values
