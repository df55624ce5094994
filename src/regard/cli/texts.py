"""What every verb over texts shares: a model, flags, and texts, standard input, or a file that goes on after a kill."""

from __future__ import annotations

import itertools
import json as json_module
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from regard.cli.defaults import choose, find, is_name
from regard.cli.show import Output, plain, printable
from regard.errors import ConfigError, DataError

if TYPE_CHECKING:
    from regard.model import Model

_AT_ONCE = 256  # lines of standard input that are done together

Named = Annotated[
    str | None,
    Parameter(
        help="The model's folder, or a hub id (owner/name). Unset: the newest run in runs/ that was trained for this, "
        "else a small published model. A first word that can't be a name, as with a space in it, is a text."
    ),
]
"""The first word of a verb: a model, or already a text."""


@Parameter(name="*")
@dataclass(frozen=True)
class Flags:
    """Hold the flags of every verb that takes a model.

    Attributes:
        model: The model; every other word is then a text.
        device: cpu, cuda, cuda:N, mps or auto.
        precision: Of the weights in memory; with less of it a text is written faster.
        json: Print one JSON object on standard output.
    """

    model: str | None = None
    device: str = "cpu"
    precision: Literal["fp32", "bf16", "fp16", "int8", "int4"] = "fp32"
    json: bool = False


@Parameter(name="*")
@dataclass(frozen=True)
class TextFlags(Flags):
    """Hold the flags of every verb over texts.

    Attributes:
        input: A text file, one text a line.
        output: The file to write.
        encoding: Of --input and of standard input.
        skip_bad_rows: With --input, leave an empty line for a text that can't be done.
    """

    input: Path | None = None
    output: Path | None = None
    encoding: str = "utf-8"
    skip_bad_rows: bool = False


FLAGS, TEXT_FLAGS = Flags(), TextFlags()
"""The flags where none is given."""


@dataclass(frozen=True)
class Job:
    """Say what a verb does with texts.

    Attributes:
        name: of the list of results under --json ("translations").
        run: gives a result for each text, in their order, none of them depending on its neighbours; without texts it
            refuses settings that can't be.
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


class Asked:
    """Be what somebody asked of a verb: a model, or the usual one for a purpose, and texts.

    `model` and `texts` are words of the command line, of which the first may be a text too. Nothing is loaded before
    `open`, so that a verb may refuse its flags first.
    """

    flags: Flags

    def __init__(self, purpose: str, model: str | None, texts: Sequence[str], flags: Flags) -> None:
        words = [*([] if model is None else [model]), *texts]
        self._purpose, self._is_flag = purpose, flags.model is not None
        self._model = words.pop(0) if not self._is_flag and words and is_name(words[0]) else flags.model
        self.texts, self.flags, self.out = words, flags, Output(flags.json)

    def open(self) -> Model:
        """Choose the model where none is named, and load it.

        Raises:
            CheckpointError: it isn't there, or is damaged.
            ConfigError: none is named and there is none to choose; or there is no such device.
        """
        if self._model is None:
            self._model = choose(self._purpose, self.out.note)
        else:
            alone = not self.texts or "/" not in self._model
            find(self._model, maybe_text=alone and not self._is_flag)
        from regard.model import load

        return load(
            self._model, device=self.flags.device, precision=self.flags.precision, offline=True
        )  # from the hub it was just fetched

    def result(self, values: Mapping[str, Any]) -> None:
        """Print a verb's one JSON object under --json, the model's name in it."""
        self.out.result({"model": self._model, **values})


class AskedTexts(Asked):
    """Be what somebody asked of a verb over texts, standard input or a file.

    Raises:
        ConfigError: the flags don't go together.
    """

    flags: TextFlags

    def __init__(self, purpose: str, model: str | None, texts: Sequence[str], flags: TextFlags) -> None:
        super().__init__(purpose, model, texts, flags)
        if (flags.input is None) != (flags.output is None):
            raise ConfigError("--input and --output go together.")
        if flags.input is not None and self.texts:
            raise ConfigError("give texts or --input, not both.")
        if flags.input is None and flags.skip_bad_rows:
            raise ConfigError("--skip-bad-rows is for --input.")

    def do(self, make: Callable[[Model], Job]) -> None:
        """Open the model, and do the job that is made with it.

        Raises:
            CheckpointError, ConfigError: as `open`.
            ConfigError, DataError: as `run`.
        """
        model = self.open()
        self.run(model, make(model))

    def run(self, model: Model, job: Job) -> None:
        """Do a job with texts, with a file, or with the lines of standard input as they come; print what it gives.

        Raises:
            DataError: a text can't be done, or a file can't be read or written.
            ConfigError: a setting can't be, there is no such encoding, or the output belongs to another job.
        """
        job.run([])  # refuses what can't be before any text is read
        if self.flags.input is not None and self.flags.output is not None:
            _bulk(self, model, job, self.flags.input, self.flags.output)
            return
        at_once = 1 if not self.texts and sys.stdin.isatty() else _AT_ONCE
        given = iter(self.texts or lines_of_stdin(self.flags.encoding))
        shown, before = [], 0
        while part := list(itertools.islice(given, at_once)):
            for i, problem in sorted(job.check(part).items()):
                raise DataError(f"text {before + i + 1} ({_beginning(part[i])!r}) {problem}")
            for text, result in zip(part, job.run(part), strict=True):
                job.show(self.out, text, result)
                if self.out.json:
                    shown.append({"source": text, **plain(result)})
            before += len(part)
        self.result({job.name: shown})


def lines_of_stdin(encoding: str) -> Iterator[str]:
    """Give the lines of standard input as they come; only line feeds end them.

    Raises:
        DataError: there is none, or it isn't text of that encoding.
    """
    from regard.data.formats import text_encoding
    from regard.tasks.bulk import Broken, lines_from

    encoding, number = text_encoding(encoding), 0
    try:
        for number, line in enumerate(lines_from(sys.stdin.buffer, encoding), 1):
            if isinstance(line, Broken):
                raise DataError(f"standard input, line {number}: {line.problem}")
            yield line
    except UnicodeError:
        raise DataError(
            f"standard input is no {encoding} text after line {number}; name its --encoding."
        ) from None
    if not number:
        raise DataError("there is no text; give some, or pipe lines to standard input.")


def print_line(out: Output, text: str) -> None:
    """Print a line that stays one, and whose tabs stay: other programs may read it."""
    print(printable(text.replace("\n", " "), keep="\t"), file=out.stream, flush=True)


def _beginning(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"


def _bulk(asked: AskedTexts, model: Model, job: Job, source: Path, target: Path) -> None:
    """Run a bulk job with a progress bar where there is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from regard.tasks.bulk import file_digest, run_bulk

    line = job.line or (lambda result: json_module.dumps(plain(result), ensure_ascii=False))
    assert model.place is not None
    # Whatever a result may depend on, but not what a run says of its training.
    patterns = ("*.json", "*.txt", "*.model", "*.spm", "*.safetensors", "1_Pooling/*.json")
    files = sorted(
        f for pattern in patterns for f in model.place.folder.glob(pattern) if f.name != "regard.json"
    )
    made_by = [[f.name, file_digest(f)] for f in files]
    began = time.perf_counter()
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, disable=not console.is_terminal,
    ) as bar:  # fmt: skip
        row = bar.add_task(printable(target.name), total=None)
        result = run_bulk(
            source, target, lambda texts: [line(found) for found in job.run(texts)], check=job.check,
            settings={
                **job.settings, "verb": job.name, "model": made_by, "precision": asked.flags.precision,
            }, encoding=asked.flags.encoding,
            skip_bad_rows=asked.flags.skip_bad_rows,
            progress=lambda done, total: bar.update(row, completed=done, total=total),
        )  # fmt: skip
    seconds = time.perf_counter() - began
    resumed = f", {result.resumed} of them by an earlier session" if result.resumed else ""
    bad = f"; empty lines left for {', '.join(map(str, result.bad))}" if result.bad else ""
    asked.out.line(f"{target}: {result.lines} lines in {seconds:.1f} s{resumed}{bad}")
    asked.result(
        {
            "output": target,
            "lines": result.lines,
            "resumed": result.resumed,
            "bad": list(result.bad),
            "seconds": seconds,
        }
    )
