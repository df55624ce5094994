"""What each token did for a label: integrated gradients, and beside them what taking the token away does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from regard.errors import ConfigError, RegardError, suggest
from regard.look.attribution import Attribution, attribute
from regard.look.flow import Target
from regard.look.occlusion import occlude
from regard.look.reading import Side, Token, Word
from regard.model import Model
from regard.tasks.base import Parts
from regard.tasks.classify import TEMPLATE
from regard.tasks.framing import as_trained
from regard.tasks.inputs import make_inputs, refuse_long
from regard.tasks.looking import Reading, read
from regard.tasks.looking_targets import absent_token, target_of

__all__ = ["explain", "read_classified"]

_MOST_TOKENS = 1024  # for which gradients are taken
_MOST_OCCLUDED = 512  # each of which is taken away in turn


def explain(
    model: Model, text: str, pair: str | None, label: str, labels: Sequence[str], *, is_own: bool,
    template: str | None, windows: int,
) -> dict[str, Any]:  # fmt: skip
    """Explain a label: what each token gives it, and what it loses without each token.

    Args:
        model: with a head over labels.
        text: what was classified.
        pair: the second text, where there is one.
        label: which is explained.
        labels: those that were asked about.
        is_own: whether these are labels of one's own, judged by entailment.
        template: the sentence about such a label.
        windows: in how many windows the text was read.

    Returns:
        `parts` and `occlusion`, each a list of {start, end, text, of, score}, or None with the reason `unexplained`;
        the label as `explained`; the number that was explained as `target`, and how as `how`.

    Raises:
        ConfigError: there is no such label.
    """
    if label not in labels:
        raise ConfigError(
            f"there is no label {label!r}; there are {', '.join(labels)}. {suggest(label, labels)}".strip()
        )
    parts = model.parts
    second, answer = pair, label
    if is_own:
        second = (TEMPLATE if template is None else template).replace("{}", label)
        answer = next(one for one in parts.config.labels if one.lower().startswith("entail"))
    told: dict[str, Any] = {"explained": label, "parts": None, "occlusion": None, "unexplained": None}
    try:
        if windows > 1:
            raise ConfigError("it was read in several windows, and only one can be explained.")
        reading = read_classified(parts, text, second)
    except RegardError as error:
        return told | {"unexplained": " ".join(str(error).split())}
    size = sum(len(side.ids) for side in reading.sides.values())
    if size > _MOST_TOKENS:
        return told | {"unexplained": f"it has {size:,} tokens; {_MOST_TOKENS:,} can be explained at most."}
    number = list(parts.config.labels).index(answer)
    # Of labels that may all hold, and of a single number, the logits don't compete.
    competes = len(parts.config.labels) > 1 and not parts.config.multi_label
    target = target_of(parts, reading, answer=number, log=competes)
    instead = absent_token(parts)
    found = attribute(model, reading, target, "integrated", instead=instead)
    told |= {"parts": _spans(reading, found, text, second, is_own), "how": found.how, "gap": found.gap}
    told |= {"target": found.target, "is_log": competes, "probability": _probability(model, reading, target)}
    if size > _MOST_OCCLUDED:
        return told | {
            "unexplained": f"it has {size:,} tokens; {_MOST_OCCLUDED:,} are taken away in turn at most."
        }
    alone = occlude(model, reading, target, instead=instead)
    return told | {"occlusion": _spans(reading, alone, text, second, is_own), "how_occlusion": alone.how}


def read_classified(parts: Parts, text: str, pair: str | None) -> Reading:
    """Frame a text, or a pair, as `regard.tasks.classify` does, and name its tokens.

    Raises:
        ConfigError: a pair for a model other than an encoder.
        DataError: it is empty, or longer than the context.
    """
    framing = parts if parts.published is None else as_trained(parts)
    ids, spans = parts.tokenizer.offsets(text)
    if pair is not None:
        if parts.config.kind != "encoder":
            raise ConfigError(
                f"a pair can be explained in an encoder alone; this is the {parts.config.kind}."
            )
        return read(parts, text, pair=pair)
    (one,) = make_inputs(framing, [ids])
    refuse_long([one], parts.config, [text])
    if parts.config.kind == "encoder-decoder":
        reading = read(parts, text)
        if reading.sides["source"].ids != one.ids:
            raise ConfigError("this model classifies a text in another frame than it is looked at in.")
        return reading
    tokens, at = [], 0
    for i, index in enumerate(one.ids):
        if one.start <= i < one.start + one.count:
            start, at = spans[i - one.start]
            tokens.append(Token(text[start:at], start, at))
        else:
            tokens.append(Token(parts.tokenizer.tokens([index])[0], at, at, special=True))
    words = tuple(Word(token.text, i, i + 1, token.special) for i, token in enumerate(tokens))
    side = Side("text", text, one.ids, tuple(tokens), words)
    segments = None
    if parts.config.num_segments > 1:
        segments = torch.tensor([one.segments], device=parts.device)
    return Reading({"text": side}, (torch.tensor([one.ids], device=parts.device),), segments)


def _probability(model: Model, reading: Reading, target: Target) -> float:
    """Give what the explained reading says, for the reader to compare with what was classified."""
    with torch.inference_mode():
        return float(target.probability(model.module, reading.run(model.module))[0])


def _spans(
    reading: Reading, found: Attribution, text: str, pair: str | None, is_own: bool
) -> list[dict[str, Any]]:
    """Give the scores by characters of the text, or of its pair; what a model reads twice is added up."""
    scores: dict[tuple[str, int, int], float] = {}
    behind = len(text) + 1  # in a pair's reading the second text stands there, after a line's end
    for name, values in found.values.items():
        for token, value in zip(reading.sides[name].tokens, values.tolist(), strict=True):
            if token.special or token.start == token.end:
                continue
            is_second = pair is not None and token.start >= behind
            if is_second and is_own:  # the sentence about the label is not the client's text
                continue
            shift = behind if is_second else 0
            place = ("pair" if is_second else "text", token.start - shift, token.end - shift)
            scores[place] = scores.get(place, 0.0) + value
    texts = {"text": text, "pair": pair or ""}
    return [
        {"start": start, "end": end, "text": texts[of][start:end], "of": of, "score": score}
        for (of, start, end), score in scores.items()
    ]
