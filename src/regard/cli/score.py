"""`regard score`: how likely a text is under a model."""

from __future__ import annotations

import dataclasses
import json as json_module
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from regard.cli.numbers import OptionalCount
from regard.cli.show import Output, plain
from regard.cli.texts import TEXT_FLAGS, AskedTexts, Job, Named, TextFlags, print_line

if TYPE_CHECKING:
    from regard.model import Model
    from regard.tasks.score import Score


def command(
    model: Named = None,
    /,
    *texts: str,
    source: str | None = None,
    tokens: bool = False,
    stride: OptionalCount = None,
    windows: bool = False,
    flags: TextFlags = TEXT_FLAGS,
) -> None:
    """Give the log-probability and perplexity of texts; of each line of standard input where no text is given.

    A decoder scores each token after those before it; a masked encoder each token given all others; an encoder-decoder
    a target given a source, which is --source, or stands before the text and a tab. With --input and --output each line
    of a file gives a JSON object on a line; a job that was stopped goes on when the same command is given again.

    Parameters
    ----------
    texts
        What to score.
    source
        What an encoder-decoder reads, the same for all texts.
    tokens
        Show each token with its log-probability.
    stride
        Tokens by which a decoder's windows move on; unset: half the context.
    windows
        Read texts beyond the context in overlapping windows, rather than refuse them.
    """
    settings: dict[str, Any] = {"source": source, "windows": windows, "stride": stride}

    def job(loaded: Model) -> Job:
        from regard.tasks.score import check_score

        paired = loaded.config.kind == "encoder-decoder" and source is None

        def score(some: Sequence[str]) -> list[Score]:
            if not paired:
                return loaded.score(some, **settings)
            sources, targets = _pairs(some)
            return loaded.score(targets, **{**settings, "source": sources})

        def check(some: Sequence[str]) -> dict[int, str]:
            more: dict[str, Any] = {"target_tokenizer": loaded.target_tokenizer}
            if not paired:
                return check_score(loaded.parts, some, **settings, **more)
            sources, targets = _pairs(some)
            wrong = check_score(loaded.parts, targets, **{**settings, "source": sources}, **more)
            alone = "has no source: give --source, or a source, a tab and a target."
            return {**wrong, **{i: alone for i, text in enumerate(some) if "\t" not in text}}

        return Job(
            "scores",
            run=score,
            check=check,
            show=lambda out, text, result: _show(out, text, result, tokens),
            settings={**settings, "tokens": tokens},
            line=lambda result: _line(result, tokens),
        )

    AskedTexts("score" if source is None else "translate", model, texts, flags).do(job)


def _pairs(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Cut each text at its first tab."""
    parts = [text.partition("\t") for text in texts]
    return [part[0] for part in parts], [part[2] for part in parts]


def _line(result: Score, tokens: bool) -> str:
    """Write a result as a JSON object on a line; its tokens only where they were asked for."""
    values = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    if not tokens:
        del values["token_scores"]
    return json_module.dumps(plain(values), ensure_ascii=False)


def _show(out: Output, text: str, result: Score, tokens: bool) -> None:
    """Print a line for a text, and a table of its tokens where that was asked for."""
    if result.perplexity is None:
        print_line(out, f"no token was scored  {text}")
    else:
        bits = "-" if result.bits_per_character is None else f"{result.bits_per_character:.4g}"
        print_line(
            out,
            f"{result.logprob:10.4f} nats  perplexity {result.perplexity:.4g}  {bits} bits a character  "
            f"{result.scored} tokens  {text}",
        )
    if tokens:
        rows = [
            {"token": one.token, "from": one.start, "to": one.end, "nats": one.logprob}
            for one in result.token_scores
        ]
        out.table(rows)
