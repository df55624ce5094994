"""`regard translate`: texts, standard input, or a whole file."""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from regard.cli.numbers import Count, OptionalCount
from regard.cli.show import Output, plain, printable
from regard.errors import ConfigError, DataError

if TYPE_CHECKING:
    from regard.model import Model
    from regard.tasks.translate import Translation

_AT_ONCE = 256  # lines of standard input that are translated together


def command(
    run: str,
    texts: list[str] | None = None,
    /,
    *,
    input: Annotated[Path | None, Parameter(name="--input")] = None,  # noqa: A002
    output: Path | None = None,
    beams: OptionalCount = None,
    length_penalty: float | None = None,
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
    if (input is None) != (output is None):
        raise ConfigError("--input and --output go together.")
    if input is not None and texts:
        raise ConfigError("give texts or --input, not both.")
    if input is not None and n_best != 1:
        raise ConfigError("--n-best is for texts and standard input; a file gets one translation a line.")
    if input is None and skip_bad_rows:
        raise ConfigError("--skip-bad-rows is for --input.")
    if beams is not None and n_best > beams >= 1:
        raise ConfigError(f"--n-best {n_best} is more than --beams {beams}; raise --beams or lower --n-best.")
    from regard.model import load
    from regard.tasks.translate import translate_stream

    out = Output(json)
    model = load(run, device=device)
    settings = {
        "beams": beams, "length_penalty": length_penalty, "max_tokens": max_tokens,
        "source_language": source_language, "target_language": target_language,
    }  # fmt: skip
    model.translate([], num_return=n_best, **settings)  # refuses what can't be before any text is read
    if input is not None and output is not None:
        _bulk(out, model, input, output, settings, encoding=encoding, skip_bad_rows=skip_bad_rows)
        return
    given, sources = itertools.tee(texts or lines_of_stdin(encoding))
    at_once = 1 if not texts and sys.stdin.isatty() else _AT_ONCE
    shown = []
    results = translate_stream(model.parts, given, chunk=at_once, num_return=n_best, **settings)
    for result in results:
        source = next(sources)
        _show(out, source, result, n_best)
        if json:
            shown.append({"source": source, **plain(result)})
    out.result({"translations": shown})


def lines_of_stdin(encoding: str) -> Iterator[str]:
    """Give the lines of standard input as they come; only line feeds end them.

    Raises:
        DataError: there is none, or it isn't text of that encoding.
    """
    try:
        stream = io.TextIOWrapper(sys.stdin.buffer, encoding=encoding, newline="\n")
    except LookupError:
        raise ConfigError(f"--encoding {encoding} is no encoding of text; utf-8 and latin-1 are.") from None
    number = 0
    try:
        for number, line in enumerate(stream, 1):
            text = line.removeprefix("\ufeff") if number == 1 else line
            yield text.removesuffix("\n").removesuffix("\r")
    except UnicodeError:
        raise DataError(
            f"standard input is no {encoding} text after line {number}; name its --encoding."
        ) from None
    finally:
        stream.detach()  # standard input stays open
    if not number:
        raise DataError("there is no text; give some, or pipe lines to standard input.")


def _show(out: Output, source: str, result: Translation, n_best: int) -> None:
    """Print one translation on one line, or the source and a line for each of the n best."""
    if n_best == 1:
        _line(out, result.text)
        return
    _line(out, source)
    for candidate in result.candidates:
        _line(out, f"  {candidate.score:8.4f}  {candidate.text}")


def _line(out: Output, text: str) -> None:
    """Print a line that stays one, and whose tabs stay: other programs may read it."""
    print(printable(text.replace("\n", " "), keep="\t"), file=out.stream, flush=True)


def _bulk(
    out: Output, model: Model, source: Path, target: Path, settings: Mapping[str, object], *,
    encoding: str, skip_bad_rows: bool,
) -> None:  # fmt: skip
    """Run a bulk job with a progress bar where there is a terminal."""
    import time

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from regard.tasks.bulk import file_digest, run_bulk
    from regard.tasks.translate import check_texts

    def work(lines: Sequence[str]) -> list[str]:
        return [result.text for result in model.translate(lines, **settings)]

    assert model.place is not None
    files = [*model.place.folder.glob("*.json"), *model.place.folder.glob("*.safetensors")]
    names = ("config.json", "tokenizer.json", "vocab.json", "model.safetensors.index.json")
    made_by = [file_digest(f) for f in sorted(files) if f.name in names or f.suffix == ".safetensors"]
    began = time.perf_counter()
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, disable=not console.is_terminal,
    ) as bar:  # fmt: skip
        row = bar.add_task(printable(target.name), total=None)
        result = run_bulk(
            source, target, work, check=lambda lines: check_texts(model.parts, lines),
            settings={**settings, "model": made_by}, encoding=encoding, skip_bad_rows=skip_bad_rows,
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
