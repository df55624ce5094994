"""`regard translate`: texts, standard input, or a whole file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from regard.cli.numbers import Count, OptionalCount
from regard.cli.show import Output
from regard.cli.texts import Job, check_sources, print_line, run_job
from regard.errors import ConfigError

if TYPE_CHECKING:
    from regard.tasks.translate import Translation


def command(
    run: str,
    texts: list[str] | None = None,
    /,
    *,
    input: Annotated[Path | None, Parameter(name="--input")] = None,  # noqa: A002
    output: Path | None = None,
    beams: OptionalCount = None,
    length_penalty: float | None = None,
    coverage_penalty: float = 0.0,
    source_language: str | None = None,
    target_language: str | None = None,
    n_best: Count = 1,
    max_tokens: OptionalCount = None,
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
        The model's folder, or a hub id (owner/name).
    texts
        What to translate.
    input
        A text file, one text a line.
    output
        The file to write.
    beams
        Hypotheses kept at each step; 1 is greedy, and faster. Unset: what the model was published with, or 4.
    length_penalty
        Larger favours longer translations. Unset: what the model was published with, or 1.
    coverage_penalty
        Above 0 prefers translations that looked at the whole source; 0.2 is usual. Slower.
    source_language
        The code of the texts' language, for a model that has such codes (en_XX).
    target_language
        The code of the language to translate into (ro_RO, fra).
    n_best
        How many translations to show for each text, with their scores.
    max_tokens
        Longest translation; unset: some more than twice the source.
    encoding
        Of --input and of standard input.
    skip_bad_rows
        With --input, leave an empty line for a text that can't be translated.
    device
        cpu, cuda, cuda:N, mps or auto.
    json
        Print one JSON object on standard output.
    """
    check_sources(texts, input, output, skip_bad_rows=skip_bad_rows)
    if input is not None and n_best != 1:
        raise ConfigError("--n-best is for texts and standard input; a file gets one translation a line.")
    if beams is not None and n_best > beams >= 1:
        raise ConfigError(f"--n-best {n_best} is more than --beams {beams}; raise --beams or lower --n-best.")
    from regard.model import load
    from regard.tasks.translate import check_texts

    out = Output(json)
    model = load(run, device=device)
    settings = {
        "beams": beams, "length_penalty": length_penalty, "coverage_penalty": coverage_penalty,
        "max_tokens": max_tokens,
        "source_language": source_language, "target_language": target_language,
    }  # fmt: skip
    model.translate([], num_return=n_best, **settings)  # refuses what can't be before any text is read
    job = Job(
        "translations",
        run=lambda some: model.translate(some, num_return=n_best, **settings),
        check=lambda some: check_texts(
            model.parts, some, source_language=source_language, target_language=target_language
        ),
        show=lambda out, text, result: _show(out, text, result, n_best),
        settings=settings,
        line=str,
    )
    run_job(
        out, model, job, texts, source=input, target=output, encoding=encoding, skip_bad_rows=skip_bad_rows
    )


def _show(out: Output, source: str, result: Translation, n_best: int) -> None:
    """Print one translation on one line, or the source and a line for each of the n best."""
    if n_best == 1:
        print_line(out, result.text)
        return
    print_line(out, source)
    for candidate in result.candidates:
        print_line(out, f"  {candidate.score:8.4f}  {candidate.text}")
