"""`regard generate`: continue a text, shown as it is written."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from regard.cli.numbers import Count, OptionalCount
from regard.cli.show import Output, plain, printable
from regard.errors import ConfigError, DataError


def command(
    run: str,
    prompts: list[str] | None = None,
    /,
    *,
    max_tokens: Count = 200,
    temperature: float = 0.8,
    top_k: Count = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    stop: Annotated[list[str] | None, Parameter(negative=())] = None,
    seed: OptionalCount = None,
    stream: Annotated[bool | None, Parameter(negative="--no-stream")] = None,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """Continue prompts with a trained model; without one it writes from nothing, and - reads it from standard input.

    Parameters
    ----------
    run
        The model's folder, or a hub id (owner/name).
    prompts
        What to continue, each by itself.
    max_tokens
        Most new tokens. A text that outgrows the model's context goes on from its last half.
    temperature
        0 always takes the likeliest token, 1 samples as the model believes, more is wilder.
    top_k
        Sample among so many likeliest tokens; 0: all.
    top_p
        Sample among the fewest tokens whose probabilities reach this sum.
    min_p
        Sample among tokens at least this share as likely as the likeliest.
    repetition_penalty
        Above 1 makes tokens less likely that stand there already.
    stop
        A string that ends the text; may be given several times.
    seed
        Of the samples; the same seed gives the same text.
    stream
        Show the text while it is written; unset: in a terminal.
    device
        cpu, cuda, cuda:N, mps or auto.
    json
        Print one JSON object on standard output.
    """
    from regard.model import load

    out = Output(json)
    model = load(run, device=device)
    given = _prompts(prompts or [""])
    shown = (out.stream.isatty() and not json and len(given) == 1) if stream is None else stream
    if shown and len(given) > 1:
        raise ConfigError("--stream is for one prompt; leave it out, or give one.")
    waiting = [given[0]]  # shown with the first piece of text, when nothing more can be wrong

    def write(text: str) -> None:
        out.stream.write(printable(text, keep="\n\t"))
        out.stream.flush()

    def show(number: int, text: str) -> None:
        write((waiting.pop() if waiting else "") + text)

    results = model.generate(
        given, max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
        repetition_penalty=repetition_penalty, stop=stop or [], seed=seed, on_text=show if shown else None,
    )  # fmt: skip
    if shown:
        write("".join(waiting) + "\n")
    else:
        write("---\n".join(f"{result}\n" for result in results))
    out.result({"generations": plain(results)})


def _prompts(words: list[str]) -> list[str]:
    """Put standard input, less the line feed at its end, in the place of `-`."""
    if words.count("-") > 1:
        raise ConfigError("- stands for standard input, which can be read once.")
    return [_stdin() if word == "-" else word for word in words]


def _stdin() -> str:
    try:
        text = sys.stdin.read()
    except UnicodeError:
        raise DataError("standard input is no text in the encoding of this system.") from None
    if not text:
        raise DataError("standard input is empty; leave - out to write from nothing.")
    return text.removesuffix("\n").removesuffix("\r")
