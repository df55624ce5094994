"""`regard generate`: continue a text, shown as it is written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from regard.cli.numbers import Count, OptionalCount
from regard.cli.show import Output, plain, printable
from regard.cli.texts import Job, check_sources, print_line, run_job
from regard.errors import ConfigError, DataError


def command(
    run: str,
    prompts: list[str] | None = None,
    /,
    *,
    max_tokens: Count = 200,
    temperature: float | None = None,
    greedy: bool = False,
    top_k: OptionalCount = None,
    top_p: float | None = None,
    min_p: float | None = None,
    typical_p: float | None = None,
    repetition_penalty: float | None = None,
    no_repeat_ngram: OptionalCount = None,
    bias: Annotated[list[str] | None, Parameter(negative=())] = None,
    one_of: Annotated[list[str] | None, Parameter(negative=())] = None,
    beams: OptionalCount = None,
    diverse: OptionalCount = None,
    diversity_penalty: float | None = None,
    length_penalty: float | None = None,
    n_best: Count = 1,
    draft: str | None = None,
    lookup: Count = 0,
    stop: Annotated[list[str] | None, Parameter(negative=())] = None,
    seed: OptionalCount = None,
    input: Annotated[Path | None, Parameter(name="--input")] = None,  # noqa: A002
    output: Path | None = None,
    encoding: str = "utf-8",
    skip_bad_rows: bool = False,
    stream: Annotated[bool | None, Parameter(negative="--no-stream")] = None,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """Continue prompts with a trained model; without one it writes from nothing, and - reads it from standard input.

    With --input and --output each line of a file is a prompt, and each result a JSON object on a line of its own; a job
    that was stopped goes on when the same command is given again. What isn't given is what the model was published
    with.

    Parameters
    ----------
    run
        The model's folder, or a hub id (owner/name).
    prompts
        What to continue, each by itself.
    max_tokens
        Most new tokens. A text that outgrows the model's context goes on from its last half.
    temperature
        0 always takes the likeliest token, 1 samples as the model believes, more is wilder. Unset: what the model was
        published with, or 0.8.
    greedy
        Always take the likeliest token: --temperature 0.
    top_k
        Sample among so many likeliest tokens; 0: all.
    top_p
        Sample among the fewest tokens whose probabilities reach this sum.
    min_p
        Sample among tokens at least this share as likely as the likeliest.
    typical_p
        Sample among tokens of about the usual surprise, the fewest whose probabilities reach this sum.
    repetition_penalty
        Above 1 makes tokens less likely that stand there already.
    no_repeat_ngram
        No run of so many tokens comes twice; 0: no limit.
    bias
        TEXT=NUMBER, added to the logits of a text of one token (" dog=-5"); may be given several times.
    one_of
        A text that may be written; given several times, the output is one of them.
    beams
        Hypotheses kept at each step: a search for the likeliest text, without chance.
    diverse
        So many groups of the beams keep away from each other's tokens.
    diversity_penalty
        How far they keep away; unset: 1.
    length_penalty
        With beams, larger favours longer texts.
    n_best
        How many texts to show for each prompt, with their scores.
    draft
        A smaller model with the same tokenizer, which guesses tokens: the same text, sooner.
    lookup
        Guess so many tokens by what followed the same words before: the same text, sooner where it repeats itself.
    stop
        A string that ends the text; may be given several times.
    seed
        Of the samples; the same seed gives the same text.
    input
        A text file, one prompt a line.
    output
        The file to write.
    encoding
        Of --input.
    skip_bad_rows
        With --input, leave an empty line for a prompt that is too long.
    stream
        Show the text while it is written; unset: in a terminal.
    device
        cpu, cuda, cuda:N, mps or auto.
    json
        Print one JSON object on standard output.
    """
    check_sources(prompts, input, output, skip_bad_rows=skip_bad_rows)
    if greedy and temperature:
        raise ConfigError(f"--greedy and --temperature {temperature:g} exclude each other; give one of them.")
    from regard.model import load
    from regard.tasks.generate import check_prompts

    out = Output(json)
    model = load(run, device=device)
    settings: dict[str, Any] = {
        "max_tokens": max_tokens, "temperature": 0.0 if greedy else temperature, "top_k": top_k, "top_p": top_p,
        "min_p": min_p, "typical_p": typical_p, "repetition_penalty": repetition_penalty, "seed": seed,
        "no_repeat_ngram": no_repeat_ngram, "bias": _bias(bias or []), "one_of": one_of, "num_beams": beams,
        "beam_groups": diverse, "length_penalty": length_penalty, "num_return": n_best, "lookup": lookup,
        "diversity_penalty": 1.0 if diverse and diversity_penalty is None else diversity_penalty, "stop": stop or [],
    }  # fmt: skip
    drafting = {"draft": None if draft is None else load(draft, device=device)}
    model.generate([], **settings, **drafting)  # refuses what can't be before anything is written
    if input is not None:
        # Each line has the same random numbers, so that its text depends on nothing but the line.
        settings["seed"] = 0 if seed is None else seed
        job = Job(
            "generations",
            run=lambda some: model.generate(some, rows=[0] * len(some), **settings, **drafting),
            check=lambda some: check_prompts(model.parts, some),
            show=lambda out, text, result: None,
            settings={**settings, "draft": draft},
        )
        run_job(
            out, model, job, None, source=input, target=output, encoding=encoding, skip_bad_rows=skip_bad_rows
        )
        return
    given = _prompts(prompts or [""])
    one = len(given) == 1 and n_best == 1 and (beams or 1) == 1
    shown = (out.stream.isatty() and not json and one) if stream is None else stream
    if shown and len(given) > 1:
        raise ConfigError("--stream is for one prompt; leave it out, or give one.")
    if shown and not one:
        raise ConfigError("--stream is for one text as it is written; leave out --n-best and --beams.")
    waiting = [given[0]]  # shown with the first piece of text, when nothing more can be wrong

    def write(text: str) -> None:
        out.stream.write(printable(text, keep="\n\t"))
        out.stream.flush()

    def show(number: int, text: str) -> None:
        write((waiting.pop() if waiting else "") + text)

    results = model.generate(given, on_text=show if shown else None, **settings, **drafting)
    if shown:
        write("".join(waiting) + "\n")
    elif n_best > 1:
        for result in results:
            print_line(out, result.prompt)
            for candidate in result.candidates:
                print_line(out, f"  {candidate.score:8.4f}  {candidate.text}")
    else:
        write("---\n".join(f"{result}\n" for result in results))
    out.result({"generations": plain(results)})


def _bias(words: list[str]) -> dict[str | int, float]:
    """Read TEXT=NUMBER."""
    found: dict[str | int, float] = {}
    for word in words:
        text, _, number = word.rpartition("=")
        try:
            found[text] = float(number)
        except ValueError:
            raise ConfigError(f"--bias {word!r} is not TEXT=NUMBER, such as ' dog=-5'.") from None
    return found


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
