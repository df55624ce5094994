"""`regard generate`: continue a text, shown as it is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import Parameter

from regard.cli.numbers import Count, OptionalCount
from regard.cli.show import plain, printable
from regard.cli.texts import TEXT_FLAGS, AskedTexts, Job, Named, TextFlags, lines_of_stdin, print_line
from regard.errors import ConfigError


def command(
    model: Named = None,
    /,
    *prompts: str,
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
    stream: Annotated[bool | None, Parameter(negative="--no-stream")] = None,
    flags: TextFlags = TEXT_FLAGS,
) -> None:
    """Continue prompts with a trained model; without one it writes from nothing, and - reads it from standard input.

    With --input and --output each line of a file is a prompt, and each result a JSON object on a line of its own; a job
    that was stopped goes on when the same command is given again. What isn't given is what the model was published
    with.

    Parameters
    ----------
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
    stream
        Show the text while it is written; unset: in a terminal.
    """
    asked = AskedTexts("generate", model, prompts, flags)
    if greedy and temperature:
        raise ConfigError(f"--greedy and --temperature {temperature:g} exclude each other; give one of them.")
    if stream and flags.input is not None:
        raise ConfigError("--stream is for texts in a terminal; leave it out with --input.")
    if diverse is not None and (beams or 1) % diverse:
        raise ConfigError(
            f"--diverse {diverse} groups need as many --beams, or a multiple; there are {beams or 1}."
        )
    if n_best > (beams or 1) and beams is not None:
        raise ConfigError(f"--n-best {n_best} is more than --beams {beams}; raise --beams or lower --n-best.")
    settings: dict[str, Any] = {
        "max_tokens": max_tokens, "temperature": 0.0 if greedy else temperature, "top_k": top_k, "top_p": top_p,
        "min_p": min_p, "typical_p": typical_p, "repetition_penalty": repetition_penalty, "seed": seed,
        "no_repeat_ngram": no_repeat_ngram, "bias": _bias(bias or []), "one_of": one_of, "num_beams": beams,
        "beam_groups": diverse, "length_penalty": length_penalty, "num_return": n_best, "lookup": lookup,
        "diversity_penalty": 1.0 if diverse and diversity_penalty is None else diversity_penalty, "stop": stop or [],
    }  # fmt: skip
    loaded, out = asked.open(), asked.out
    from regard.model import load
    from regard.tasks.generate import check_prompts

    drafting = {"draft": None if draft is None else load(draft, device=flags.device)}
    if flags.input is not None:
        # Each line has the same random numbers, so that its text depends on nothing but the line.
        settings["seed"] = 0 if seed is None else seed
        job = Job(
            "generations",
            run=lambda some: loaded.generate(some, rows=[0] * len(some), **settings, **drafting),
            check=lambda some: check_prompts(
                loaded.parts, some, one_of=one_of, num_return=n_best, max_tokens=max_tokens
            ),
            show=lambda out, text, result: None,
            settings={**settings, "draft": draft},
        )
        asked.run(loaded, job)
        return
    loaded.generate([], **settings, **drafting)  # refuses what can't be before anything is written
    given = _prompts(asked.texts or [""], flags.encoding)
    one = len(given) == 1 and n_best == 1 and (beams or 1) == 1
    shown = (out.stream.isatty() and not flags.json and one) if stream is None else stream
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

    results = loaded.generate(given, on_text=show if shown else None, **settings, **drafting)
    if shown:
        write("".join(waiting) + "\n")
    elif n_best > 1:
        for result in results:
            print_line(out, result.prompt)
            for candidate in result.candidates:
                print_line(out, f"  {candidate.score:8.4f}  {candidate.text}")
    else:
        write("---\n".join(f"{result}\n" for result in results))
    asked.result({"generations": plain(results)})


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


def _prompts(words: Sequence[str], encoding: str) -> list[str]:
    """Put standard input, less the line feed at its end, in the place of `-`."""
    if words.count("-") > 1:
        raise ConfigError("- stands for standard input, which can be read once.")
    return ["\n".join(lines_of_stdin(encoding)) if word == "-" else word for word in words]
