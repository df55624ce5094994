"""`regard translate`: texts, standard input, or a whole file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regard.cli.numbers import Count, OptionalCount
from regard.cli.show import Output
from regard.cli.texts import TEXT_FLAGS, AskedTexts, Job, Named, TextFlags, print_line
from regard.errors import ConfigError

if TYPE_CHECKING:
    from regard.model import Model
    from regard.tasks.translate import Translation


def command(
    model: Named = None,
    /,
    *texts: str,
    beams: OptionalCount = None,
    length_penalty: float | None = None,
    coverage_penalty: float = 0.0,
    source_language: str | None = None,
    target_language: str | None = None,
    n_best: Count = 1,
    max_tokens: OptionalCount = None,
    flags: TextFlags = TEXT_FLAGS,
) -> None:
    """Translate texts with a trained model; each line of standard input where no text is given.

    With --input and --output a whole file is translated line by line, in order. A job that was stopped goes on when
    the same command is given again.

    Parameters
    ----------
    texts
        What to translate.
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
    """
    asked = AskedTexts("languages" if target_language else "translate", model, texts, flags)
    if flags.input is not None and n_best != 1:
        raise ConfigError("--n-best is for texts and standard input; a file gets one translation a line.")
    if beams is not None and n_best > beams >= 1:
        raise ConfigError(f"--n-best {n_best} is more than --beams {beams}; raise --beams or lower --n-best.")
    languages = {"source_language": source_language, "target_language": target_language}
    settings = {
        "beams": beams, "length_penalty": length_penalty, "coverage_penalty": coverage_penalty,
        "max_tokens": max_tokens, **languages,
    }  # fmt: skip

    def job(loaded: Model) -> Job:
        from regard.tasks.translate import check_texts

        return Job(
            "translations",
            run=lambda some: loaded.translate(some, num_return=n_best, **settings),
            check=lambda some: check_texts(loaded.parts, some, **languages),
            show=lambda out, text, result: _show(out, text, result, n_best),
            settings=settings,
            line=str,
        )

    asked.do(job)


def _show(out: Output, source: str, result: Translation, n_best: int) -> None:
    """Print one translation on one line, or the source and a line for each of the n best."""
    if n_best == 1:
        print_line(out, result.text)
        return
    print_line(out, source)
    for candidate in result.candidates:
        print_line(out, f"  {candidate.score:8.4f}  {candidate.text}")
