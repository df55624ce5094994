"""Transforms of one step's logits, each pure: (logits, ids so far) -> logits.

`logits` (B, V) are float logits or log-probabilities; `ids` (B, T) are the tokens so far, prompt and new
ones, and an entry below 0 is no token (padding on the left of a shorter row). A transform gives a tensor of
the same shape, forbids a token with -inf, and never changes its input. A setting at which a transform would
do nothing gives the same tensor back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from regard.errors import ConfigError, RegardError
from regard.generate.config import SearchConfig, check_count, check_number
from regard.generate.cutoffs import epsilon_cutoff, eta_cutoff, typical_p

__all__ = [
    "Transform",
    "compose",
    "filters",
    "forbid",
    "forbid_runs",
    "force",
    "frequency_penalty",
    "logit_bias",
    "min_p",
    "no_repeat_ngram",
    "not_finite",
    "nothing_left",
    "only_at",
    "penalties",
    "presence_penalty",
    "renormalise",
    "repetition_penalty",
    "temperature",
    "top_k",
    "top_p",
]

Transform = Callable[[Tensor, Tensor], Tensor]

_HUGE = 2**62
_NEVER = float("-inf")
# Most nuclei are small: that many of the likeliest tokens are looked at before the whole vocabulary is
# sorted.
_NUCLEUS = 256


def compose(*transforms: Transform) -> Transform:
    """Apply transforms one after another, the first one first."""

    def apply(logits: Tensor, ids: Tensor) -> Tensor:
        for transform in transforms:
            logits = transform(logits, ids)
        return logits

    return apply


def temperature(value: float) -> Transform:
    """Divide by `value` > 0: below 1 sharpens the distribution, above 1 flattens it."""
    check_number("temperature", value, low=0.0, high=1e6)
    if value == 0:
        raise ConfigError("temperature=0 can't divide logits; give a number above 0.")

    def apply(logits: Tensor, ids: Tensor) -> Tensor:
        if value == 1:
            return logits
        # With the largest logit at 0, a tiny temperature sends the others to -inf and nothing to infinity.
        return (logits - logits.amax(-1, keepdim=True)) / max(value, 1e-30)

    return apply


def top_k(count: int) -> Transform:
    """Keep the `count` likeliest tokens; those that tie with the last one stay too. 0 keeps all."""
    check_count("top_k", count, low=0, high=_HUGE)

    def apply(logits: Tensor, ids: Tensor) -> Tensor:
        if count == 0 or count >= logits.shape[-1]:
            return logits
        least = logits.topk(count).values[:, -1:]
        return logits.masked_fill(logits < least, _NEVER)

    return apply


def top_p(mass: float) -> Transform:
    """Keep the fewest likeliest tokens whose probabilities sum to at least `mass`, in (0, 1].

    At least one is kept, and those that tie with the last one stay too. Source: Holtzman et al. 2020,
    https://arxiv.org/abs/1904.09751.
    """
    check_number("top_p", mass, low=0.0, high=1.0)
    if mass == 0:
        raise ConfigError("top_p=0 leaves no token; give a number above 0 and at most 1.")

    def apply(logits: Tensor, ids: Tensor) -> Tensor:
        if mass == 1:
            return logits
        total = logits.logsumexp(-1, keepdim=True)
        likeliest = logits.topk(min(_NUCLEUS, logits.shape[-1])).values
        sums = (likeliest - total).exp().cumsum(-1)
        if likeliest.shape[-1] < logits.shape[-1] and not bool((sums[:, -1] >= mass).all()):
            likeliest = logits.sort(-1, descending=True).values
            sums = (likeliest - total).exp().cumsum(-1)
        # The last kept token is the first at which the sum is reached; rounding may leave the whole sum just
        # below.
        last = (sums < mass).sum(-1, keepdim=True).clamp(max=likeliest.shape[-1] - 1)
        return logits.masked_fill(logits < likeliest.gather(-1, last), _NEVER)

    return apply


def min_p(share: float) -> Transform:
    """Keep the tokens at least `share` times as likely as the likeliest one, `share` in [0, 1]; 0 keeps all.

    Source: Nguyen et al. 2024, https://arxiv.org/abs/2407.01082.
    """
    check_number("min_p", share, low=0.0, high=1.0)

    def apply(logits: Tensor, ids: Tensor) -> Tensor:
        if share == 0:
            return logits
        # p_i / p_max = exp(logit_i - logit_max): the normaliser cancels.
        relative = logits - logits.amax(-1, keepdim=True)
        return logits.masked_fill(relative.exp() < share, _NEVER)

    return apply


def repetition_penalty(penalty: float) -> Transform:
    """Make tokens seen so far less likely: divide a positive logit by `penalty`, multiply a negative one.

    How often a token was seen does not matter. Source: Keskar et al. 2019 (CTRL), section 4.1, with the usual
    care for negative logits, https://arxiv.org/abs/1909.05858.
    """
    check_number("repetition_penalty", penalty, low=1e-3, high=1e3)

    def apply(logits: Tensor, ids: Tensor) -> Tensor:
        if penalty == 1 or ids.shape[-1] == 0:
            return logits
        places, some = _places(ids)
        seen = logits.gather(1, places)
        changed = torch.where(seen < 0, seen * penalty, seen / penalty)
        return logits.scatter(1, places, torch.where(some, changed, seen))

    return apply


def frequency_penalty(penalty: float) -> Transform:
    """Subtract `penalty` from a token's logit for each time it was seen so far."""
    check_number("frequency_penalty", penalty, low=-1e3, high=1e3)

    def apply(logits: Tensor, ids: Tensor) -> Tensor:
        if penalty == 0 or ids.shape[-1] == 0:
            return logits
        return logits - penalty * _counts(logits, ids)

    return apply


def presence_penalty(penalty: float) -> Transform:
    """Subtract `penalty` from a token's logit where it was seen so far, however often."""
    check_number("presence_penalty", penalty, low=-1e3, high=1e3)

    def apply(logits: Tensor, ids: Tensor) -> Tensor:
        if penalty == 0 or ids.shape[-1] == 0:
            return logits
        return torch.where(_counts(logits, ids) > 0, logits - penalty, logits)

    return apply


def no_repeat_ngram(size: int) -> Transform:
    """Forbid each token that would repeat a run of `size` tokens of its row; 0 forbids nothing."""
    check_count("no_repeat_ngram", size, low=0, high=_HUGE)

    def apply(logits: Tensor, ids: Tensor) -> Tensor:
        length = ids.shape[-1]
        if size == 0 or length < size:
            return logits
        runs = ids.unfold(1, size, 1)  # (B, T - size + 1, size)
        present = ids[:, length - size + 1 :]
        same = (runs[..., :-1] == present[:, None]).all(-1) & (runs >= 0).all(-1)
        places, some = _places(torch.where(same, runs[..., -1], -1))
        return logits.scatter(1, places, torch.where(some, _NEVER, logits.gather(1, places)))

    return apply


def forbid(tokens: Sequence[int]) -> Transform:
    """Forbid these tokens."""
    banned = [check_count("forbid", token, low=0, high=_HUGE) for token in tokens]

    def apply(logits: Tensor, ids: Tensor) -> Tensor:
        if not banned:
            return logits
        _check_inside("forbid", banned, logits.shape[-1])
        return logits.index_fill(-1, torch.tensor(banned, device=logits.device), _NEVER)

    return apply


def forbid_runs(runs: Sequence[Sequence[int]]) -> Transform:
    """Forbid each run's last token where a row ends with the tokens before it; always, where there are none."""
    for run in runs:
        if not run:
            raise ConfigError("forbid_runs has an empty run; give at least one token each.")
    single = forbid([run[0] for run in runs if len(run) == 1])
    longer = [
        torch.tensor([check_count("forbid_runs", t, low=0, high=_HUGE) for t in r])
        for r in runs
        if len(r) > 1
    ]

    def apply(logits: Tensor, ids: Tensor) -> Tensor:
        logits = single(logits, ids)
        for run in longer:
            before, last = run[:-1].to(ids.device), int(run[-1])
            if len(before) > ids.shape[-1]:
                continue
            _check_inside("forbid_runs", run.tolist(), logits.shape[-1])
            ending = (ids[:, -len(before) :] == before).all(-1, keepdim=True)
            column = torch.where(ending, _NEVER, logits[:, last : last + 1])
            logits = logits.index_copy(-1, torch.tensor([last], device=logits.device), column)
        return logits

    return apply


def force(tokens: Sequence[int]) -> Transform:
    """Allow these tokens alone, each at 0: the log-probability of what is certain."""
    allowed = [check_count("force", token, low=0, high=_HUGE) for token in tokens]
    if not allowed:
        raise ConfigError("force has no token, which leaves none; give at least one.")

    def apply(logits: Tensor, ids: Tensor) -> Tensor:
        _check_inside("force", allowed, logits.shape[-1])
        never = torch.full_like(logits, _NEVER)
        return never.index_fill(-1, torch.tensor(allowed, device=logits.device), 0.0)

    return apply


def only_at(length: int, transform: Transform) -> Transform:
    """Apply a transform where the rows, prompt and padding counted, have just this many tokens."""
    check_count("only_at", length, low=0, high=_HUGE)
    return lambda logits, ids: transform(logits, ids) if ids.shape[-1] == length else logits


def renormalise() -> Transform:
    """Make log-probabilities of what earlier transforms left; a row without any token stays as it is."""

    def apply(logits: Tensor, ids: Tensor) -> Tensor:
        empty = logits.amax(-1, keepdim=True) == _NEVER
        return torch.where(empty, logits, logits.log_softmax(-1))

    return apply


def logit_bias(bias: Mapping[int, float]) -> Transform:
    """Add to the logits of the given tokens; -inf forbids one."""
    for token, value in bias.items():
        check_count("logit_bias", token, low=0, high=_HUGE)
        if value != _NEVER:
            check_number(f"logit_bias of token {token}", value, low=-1e9, high=1e9)

    def apply(logits: Tensor, ids: Tensor) -> Tensor:
        if not bias:
            return logits
        _check_inside("logit_bias", list(bias), logits.shape[-1])
        where = torch.tensor(list(bias), device=logits.device)
        added = torch.tensor(list(bias.values()), device=logits.device, dtype=logits.dtype)
        return logits.index_add(-1, where, added.expand(logits.shape[0], -1))

    return apply


def penalties(config: SearchConfig) -> list[Transform]:
    """List the transforms of `config` that every search applies: repetition penalty, n-grams, normalising anew."""
    chosen: list[Transform] = []
    if config.repetition_penalty != 1:
        chosen.append(repetition_penalty(config.repetition_penalty))
    if config.no_repeat_ngram:
        chosen.append(no_repeat_ngram(config.no_repeat_ngram))
    if config.renormalise:
        chosen.append(renormalise())
    return chosen


def filters(config: SearchConfig) -> list[Transform]:
    """List the transforms that shape sampling: temperature, then each filter of what the one before it left."""
    chosen: list[Transform] = []
    if config.temperature not in (0, 1):
        chosen.append(temperature(config.temperature))
    if config.top_k:
        chosen.append(top_k(config.top_k))
    if config.top_p < 1:
        chosen.append(top_p(config.top_p))
    if config.min_p:
        chosen.append(min_p(config.min_p))
    if config.typical_p < 1:
        chosen.append(typical_p(config.typical_p))
    if config.epsilon_cutoff:
        chosen.append(epsilon_cutoff(config.epsilon_cutoff))
    if config.eta_cutoff:
        chosen.append(eta_cutoff(config.eta_cutoff))
    return chosen


def not_finite(row: int, step: int) -> RegardError:
    """Make the error of logits that are no numbers, for the token after `step` new ones."""
    return RegardError(
        f"the model's logits for row {row} are NaN or infinite at new token {step + 1}; its weights hold or "
        "lead to values that are not finite: load another checkpoint, or compute in float32."
    )


def nothing_left(row: int, step: int) -> RegardError:
    """Make the error of a row whose every token is forbidden, after `step` new ones."""
    return RegardError(
        f"every token is forbidden for row {row} at new token {step + 1}; loosen no_repeat_ngram, min_tokens "
        "or the forbidden tokens."
    )


def _counts(logits: Tensor, ids: Tensor) -> Tensor:
    """Count each token in `ids`: (B, V) in the logits' dtype; entries below 0 count nowhere."""
    vocabulary = logits.shape[-1]
    places = torch.where(ids < 0, vocabulary, ids)
    counts = logits.new_zeros(logits.shape[0], vocabulary + 1)
    return counts.scatter_add_(1, places, logits.new_ones(()).expand_as(places))[:, :vocabulary]


def _places(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Give indices (B, N) that name a row's tokens (B, N) and no others, and whether the row has any (B, 1).

    An entry below 0 becomes another token of its row, so that work on a few tokens costs no pass over the
    vocabulary.
    """
    some = tokens.amax(-1, keepdim=True)
    return torch.where(tokens < 0, some, tokens).clamp(min=0), some >= 0


def _check_inside(name: str, tokens: Sequence[int], vocabulary: int) -> None:
    outside = [token for token in tokens if token >= vocabulary]
    if outside:
        raise ConfigError(
            f"{name} names token {outside[0]}, but the vocabulary has {vocabulary}; give ids below that."
        )
