"""What a search is asked, what it gives, and the state it sees; no torch is needed to read this file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from regard.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

EarlyStopping = bool | Literal["never"]

_COUNTS = {
    "max_tokens": (1, 100_000_000),
    "min_tokens": (0, 100_000_000),
    "num_beams": (1, 100_000),
    "num_return": (1, 100_000),
    "top_k": (0, 100_000_000),
    "no_repeat_ngram": (0, 1_000_000),
    "beam_groups": (1, 100_000),
}
_NUMBERS = {
    "length_penalty": (-10.0, 10.0),
    "temperature": (0.0, 1e4),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "typical_p": (0.0, 1.0),
    "epsilon_cutoff": (0.0, 1.0),
    "eta_cutoff": (0.0, 1.0),
    "coverage_penalty": (0.0, 100.0),
    "diversity_penalty": (0.0, 1e4),
    "repetition_penalty": (1e-3, 1e3),
}


@dataclass(frozen=True)
class SearchConfig:
    """Say how tokens are chosen: greedily, by sampling (`temperature` > 0) or by beam (`num_beams` > 1).

    Attributes:
        max_tokens: at most this many new tokens a row, the end-of-sequence token counted.
        min_tokens: the end-of-sequence token is forbidden until this many tokens stand before it.
        num_beams: hypotheses kept at each step; 1 is no beam search.
        length_penalty: the exponent p of `score / length**p`, which orders hypotheses; 0 is none, larger
            favours longer.
        num_return: hypotheses given for each row: at most `num_beams` of a beam search, or that many samples.
        temperature: logits are divided by it before sampling; 0 takes the likeliest token.
        top_k: sample among the k likeliest tokens; 0 is no limit.
        top_p: sample among the fewest tokens whose probabilities reach this sum, in (0, 1]; 1 is no limit.
        min_p: sample among tokens at least this share as likely as the likeliest, in [0, 1]; 0 is no limit.
        typical_p: sample among the tokens whose surprise is nearest to the expected one, the fewest whose
            probabilities reach this sum, in (0, 1]; 1 is no limit.
        epsilon_cutoff: sample among tokens at least this probable, in [0, 1]; 0 is no limit.
        eta_cutoff: the same with a limit that falls where the model is unsure, in [0, 1]; 0 is no limit.
        repetition_penalty: divides the positive and multiplies the negative logits of tokens seen so far; 1
            is none.
        no_repeat_ngram: no run of this many tokens occurs twice in a row's prompt and text; 0 is no limit.
        seed: of the samples; None draws a fresh one at each call.
        early_stopping: when a row of a beam search is done, once `num_beams` of its hypotheses have ended:
            True, at once; False, when the best running one, normalised at its present length, is no better
            than the worst ended one (a running one could still win by growing where `length_penalty` > 0);
            "never", when no running one can get better than the worst ended one at any length up to
            `max_tokens`.
        renormalise: whether a beam search makes probabilities of what forbidden tokens and penalties leave;
            otherwise what is forbidden is lost to all.

        coverage_penalty: β of GNMT's coverage penalty, by which a beam search with an encoder-decoder prefers
            texts that looked at the whole source; 0 is none. See generate/coverage.py.
        beam_groups: so many groups of `num_beams / beam_groups` hypotheses search side by side; 1 is none.
        diversity_penalty: taken from a token's log-probability for each hypothesis of an earlier group that
            chose it at the same step; needs groups.

    Raises:
        ConfigError: a value is out of range, or one would be ignored.
    """

    max_tokens: int = 256
    min_tokens: int = 0
    num_beams: int = 1
    length_penalty: float = 1.0
    num_return: int = 1
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    epsilon_cutoff: float = 0.0
    eta_cutoff: float = 0.0
    repetition_penalty: float = 1.0
    no_repeat_ngram: int = 0
    seed: int | None = None
    early_stopping: EarlyStopping = True
    renormalise: bool = False
    coverage_penalty: float = 0.0
    beam_groups: int = 1
    diversity_penalty: float = 0.0

    def __post_init__(self) -> None:
        for name, (low, high) in _COUNTS.items():
            check_count(name, getattr(self, name), low=low, high=high)
        for name, (least, most) in _NUMBERS.items():
            check_number(name, getattr(self, name), low=least, high=most)
        for name in ("top_p", "typical_p"):
            if getattr(self, name) == 0:
                raise ConfigError(f"{name}=0 leaves no token to sample; give a number above 0 and at most 1.")
        if self.seed is not None:
            check_count("seed", self.seed, low=0, high=2**64 - 1)
        if (
            self.early_stopping is not True
            and self.early_stopping is not False
            and self.early_stopping != "never"
        ):
            raise ConfigError(
                f"early_stopping={self.early_stopping!r} is not known; give True, False or 'never'."
            )
        if not isinstance(self.renormalise, bool):
            raise ConfigError(f"renormalise={self.renormalise!r} is not known; give True or False.")
        if self.min_tokens > self.max_tokens:
            raise ConfigError(
                f"min_tokens={self.min_tokens} exceeds max_tokens={self.max_tokens}; "
                "lower one or raise the other."
            )
        self._check_kinds()

    def _check_kinds(self) -> None:
        """Refuse what the chosen kind of search would ignore."""
        if self.num_beams > 1 and self.temperature > 0:
            raise ConfigError(
                f"num_beams={self.num_beams} and temperature={self.temperature:g} exclude each other; "
                "beam search takes temperature=0, sampling takes num_beams=1."
            )
        if self.num_beams % self.beam_groups:
            raise ConfigError(
                f"beam_groups={self.beam_groups} does not divide num_beams={self.num_beams}; change one of them."
            )
        if self.coverage_penalty and self.num_beams == 1:
            raise ConfigError("coverage_penalty would be ignored without a beam search; raise num_beams.")
        if (self.beam_groups > 1) != (self.diversity_penalty > 0):
            raise ConfigError(
                f"beam_groups={self.beam_groups} and diversity_penalty={self.diversity_penalty:g} go together: "
                "without a penalty all groups find the same, without groups it has no effect."
            )
        if self.temperature == 0:
            limits = {name: getattr(self, name) for name in NO_LIMIT}
            ignored = [f"{name}={limits[name]:g}" for name, off in NO_LIMIT.items() if limits[name] != off]
            if ignored:
                raise ConfigError(
                    f"{', '.join(ignored)} would be ignored at temperature=0, which takes the likeliest "
                    "token; set temperature, for instance to 1."
                )
            if self.num_return > self.num_beams:
                raise ConfigError(
                    f"num_return={self.num_return} exceeds num_beams={self.num_beams}; "
                    "raise num_beams, or set a temperature to draw several samples."
                )


NO_LIMIT: dict[str, float] = {
    "top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0,
}  # fmt: skip
"""The settings of sampling alone, with the values at which they do nothing."""


@dataclass(frozen=True)
class Hypothesis:
    """Hold one text that a search chose for one row.

    Attributes:
        ids: the new tokens, without the prompt and without the end-of-sequence token.
        score: the model's log-probability of those tokens (and of the end-of-sequence token where it came),
            in nats, before any transform of the logits.
        normalised: what orders the hypotheses: `score / length**length_penalty`, the length being the number
            of new tokens with the end-of-sequence token. Where a beam search changes logits (a repetition
            penalty, transforms of the caller), the sum of the changed log-probabilities stands in place of
            `score`.
        finished: whether the end-of-sequence token or the caller's `stop` ended it, and not `max_tokens`.
    """

    ids: list[int]
    score: float
    normalised: float
    finished: bool


class Decoding(Protocol):
    """Be the only thing of a model that a search sees: a batch of growing sequences."""

    @property
    def batch(self) -> int:
        """Count the rows."""
        ...

    def advance(self, ids: Tensor, key_mask: Tensor | None = None, *, only_last: bool = False) -> Tensor:
        """Append tokens (B, T), and give the logits (B, T, V) after each; `key_mask` is False at padding.

        With `only_last` only those after the last token, (B, 1, V).
        """
        ...

    def reorder(self, rows: Tensor) -> None:
        """Keep these rows (R,), in this order; a row may come several times or not at all."""
        ...

    def rewind(self, count: int) -> None:
        """Forget the last `count` tokens of every row, none of them padding; only speculation asks for it."""
        ...


def check_count(name: str, value: object, *, low: int, high: int) -> int:
    """Give `value` back; Raises ConfigError unless it is a whole number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"{name}={value!r} is not allowed; give a whole number from {low} to {high}.")
    return value


def check_number(name: str, value: object, *, low: float, high: float) -> float:
    """Give `value` back; Raises ConfigError unless it is a number from `low` to `high`."""
    right = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not right or not low <= float(value) <= high:  # type: ignore[arg-type]
        raise ConfigError(f"{name}={value!r} is not allowed; give a number from {low:g} to {high:g}.")
    return float(value)  # type: ignore[arg-type]
