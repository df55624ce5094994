"""What every verb over texts shares: texts, standard input, or a whole file that goes on after a kill."""

from __future__ import annotations

import io
import itertools
import json as json_module
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard.cli.show import Output, plain, printable
from regard.errors import ConfigError, DataError

if TYPE_CHECKING:
    from regard.model import Model

_AT_ONCE = 256  # lines of standard input that are done together


@dataclass(frozen=True)
class Job:
    """Say what a verb does with texts.

    Attributes:
        name: of the list of results under --json ("translations").
        run: gives a result for each text, in their order, none of them depending on its neighbours.
        check: finds the texts that `run` would refuse, by their numbers from 0, and what is wrong with each.
        show: prints one result for people.
        settings: whatever a result depends on, by which an unfinished file is known to be of the same job.
        line: gives a result as one line of --output; None: as a JSON object.
    """

    name: str
    run: Callable[[Sequence[str]], Sequence[Any]]
    check: Callable[[Sequence[str]], Mapping[int, str]]
    show: Callable[[Output, str, Any], None]
    settings: Mapping[str, object]
    line: Callable[[Any], str] | None = None


def check_sources(
    texts: Sequence[str] | None, source: Path | None, target: Path | None, *, skip_bad_rows: bool
) -> None:
    """Refuse flags that don't go together, before a model is loaded.

    Raises:
        ConfigError: they don't.
    """
    if (source is None) != (target is None):
        raise ConfigError("--input and --output go together.")
    if source is not None and texts:
        raise ConfigError("give texts or --input, not both.")
    if source is None and skip_bad_rows:
        raise ConfigError("--skip-bad-rows is for --input.")


def run_job(
    out: Output,
    model: Model,
    job: Job,
    texts: Sequence[str] | None,
    *,
    source: Path | None = None,
    target: Path | None = None,
    encoding: str = "utf-8",
    skip_bad_rows: bool = False,
) -> None:
    """Run a verb on texts, on a file, or on the lines of standard input as they come; print what it gives.

    Raises:
        DataError: a text can't be done, or a file can't be read or written.
        ConfigError: there is no such encoding, or the output belongs to another job.
    """
    if source is not None and target is not None:
        _bulk(out, model, job, source, target, encoding=encoding, skip_bad_rows=skip_bad_rows)
        return
    at_once = 1 if not texts and sys.stdin.isatty() else _AT_ONCE
    given = iter(texts or lines_of_stdin(encoding))
    shown, before = [], 0
    while part := list(itertools.islice(given, at_once)):
        for i, problem in sorted(job.check(part).items()):
            raise DataError(f"text {before + i + 1} ({_beginning(part[i])!r}) {problem}")
        for text, result in zip(part, job.run(part), strict=True):
            job.show(out, text, result)
            if out.json:
                shown.append({"source": text, **plain(result)})
        before += len(part)
    out.result({job.name: shown})


def lines_of_stdin(encoding: str) -> Iterator[str]:
    """Give the lines of standard input as they come; only line feeds end them.

    Raises:
        DataError: there is none, or it isn't text of that encoding.
    """
    from regard.data.formats import text_encoding

    stream = io.TextIOWrapper(sys.stdin.buffer, encoding=text_encoding(encoding), newline="\n")
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


def print_line(out: Output, text: str) -> None:
    """Print a line that stays one, and whose tabs stay: other programs may read it."""
    print(printable(text.replace("\n", " "), keep="\t"), file=out.stream, flush=True)


def _beginning(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"


def _bulk(
    out: Output, model: Model, job: Job, source: Path, target: Path, *, encoding: str, skip_bad_rows: bool
) -> None:
    """Run a bulk job with a progress bar where there is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from regard.tasks.bulk import file_digest, run_bulk

    line = job.line or (lambda result: json_module.dumps(plain(result), ensure_ascii=False))
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
            source, target, lambda texts: [line(found) for found in job.run(texts)], check=job.check,
            settings={**job.settings, "verb": job.name, "model": made_by}, encoding=encoding,
            skip_bad_rows=skip_bad_rows, progress=lambda done, total: bar.update(row, completed=done, total=total),
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
