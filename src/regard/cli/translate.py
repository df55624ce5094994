"""`regard translate`: texts, standard input, or a whole file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from regard.cli.show import Output
from regard.errors import ConfigError


def command(
    run: Path,
    texts: list[str] | None = None,
    /,
    *,
    input: Annotated[Path | None, Parameter(name="--input")] = None,  # noqa: A002
    output: Path | None = None,
    beams: int = 4,
    length_penalty: float = 1.0,
    n_best: int = 1,
    max_tokens: int | None = None,
    encoding: str = "utf-8",
    skip_bad_rows: bool = False,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """Translate texts with a trained model; each line of standard input where no text is given.

    With --input and --output a whole file is translated line by line, in order. A job that was stopped goes on when
    the same command is given again.

    Parameters
    ----------
    run
        The model's folder.
    texts
        What to translate.
    input
        A text file, one text a line.
    output
        The file to write.
    beams
        Hypotheses kept at each step; 1 is greedy, and faster.
    length_penalty
        Larger favours longer translations.
    n_best
        How many translations to show for each text, with their scores.
    max_tokens
        Longest translation; unset: some more than twice the source.
    encoding
        Of --input.
    skip_bad_rows
        Leave an empty line for a text that can't be translated.
    device
        cpu, cuda, cuda:N, mps or auto.
    json
        Print one JSON object on standard output.
    """
    if (input is None) != (output is None):
        raise ConfigError("--input and --output go together.")
    if input is not None and texts:
        raise ConfigError("give texts or --input, not both.")
    from regard.model import load

    out = Output(json)
    model = load(run, device=device)
    settings = {"beams": beams, "length_penalty": length_penalty, "max_tokens": max_tokens}
    if input is not None and output is not None:
        if n_best != 1:
            raise ConfigError("--n-best is for texts and standard input; a file gets one translation a line.")

        def work(lines: Sequence[str]) -> list[str]:
            return [result.text for result in model.translate(lines, **settings)]

        bulk(out, run, input, output, work, settings, encoding=encoding, skip_bad_rows=skip_bad_rows)
        return
    given = texts or [line.rstrip("\r\n") for line in sys.stdin]
    if not given:
        raise ConfigError("there is no text; give some, or pipe lines to standard input.")
    results = model.translate(given, num_return=n_best, **settings)
    for source, result in zip(given, results, strict=True):
        if n_best == 1:
            out.line(result.text)
        else:
            out.line(source)
            for candidate in result.candidates:
                out.line(f"  {candidate.score:8.4f}  {candidate.text}")
    out.result({"translations": [{"source": s, **_plain(r)} for s, r in zip(given, results, strict=True)]})


def bulk(
    out: Output, run: Path, source: Path, target: Path, work: Callable[[Sequence[str]], list[str]],
    settings: Mapping[str, object], *, encoding: str, skip_bad_rows: bool,
) -> None:  # fmt: skip
    """Run a bulk job with a progress bar where there is a terminal."""
    import time

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from regard.tasks.bulk import file_digest, run_bulk

    began = time.perf_counter()
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console,
        disable=not console.is_terminal,
    ) as bar:  # fmt: skip
        row = bar.add_task(target.name, total=None)
        result = run_bulk(
            source, target, work, settings={**settings, "model": file_digest(run / "model.safetensors")},
            encoding=encoding, skip_bad_rows=skip_bad_rows,
            progress=lambda done, total: bar.update(row, completed=done, total=total),
        )  # fmt: skip
    seconds = time.perf_counter() - began
    resumed = f", {result.resumed} of them by an earlier session" if result.resumed else ""
    bad = f"; empty lines left for {', '.join(map(str, result.bad))}" if result.bad else ""
    out.line(f"{target}: {result.lines} lines in {seconds:.1f} s{resumed}{bad}")
    out.result(
        {
            "output": target,
            "lines": result.lines,
            "resumed": result.resumed,
            "bad": list(result.bad),
            "seconds": seconds,
        }
    )


def _plain(result: object) -> dict[str, object]:
    import dataclasses

    return dataclasses.asdict(result)  # type: ignore[call-overload]
