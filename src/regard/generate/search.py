"""Choose tokens: one face for greedy search, sampling and beam search.

A search sees a model only as a `Decoding` state: it feeds tokens, reads logits, and drops or repeats rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from regard.errors import ConfigError
from regard.generate.beam import beam_search
from regard.generate.config import Decoding, Hypothesis, SearchConfig
from regard.generate.coverage import Covered
from regard.generate.drawing import OnToken, Stop, Streams, Text, sample
from regard.generate.logits import Transform, compose, filters, not_finite, nothing_left, penalties
from regard.generate.speculate import Drafter, speculate
from regard.generate.watch import watcher_now
from regard.nn.native import log_sum_exp

__all__ = ["Decoding", "Hypothesis", "OnToken", "SearchConfig", "Stop", "search"]


@torch.inference_mode()
def search(
    state: Decoding,
    first_ids: Tensor,
    *,
    key_mask: Tensor | None = None,
    eos_id: int | Sequence[int] | None,
    pad_id: int,
    config: SearchConfig,
    rows: Sequence[int] | None = None,
    transforms: Sequence[Transform] = (),
    on_token: OnToken | None = None,
    stop: Stop | None = None,
    drafter: Drafter | None = None,
) -> list[list[Hypothesis]]:
    """Continue every row of a batch, and give its hypotheses, the best first.

    Each row gets what it would get alone: padding is never seen, a row that is done leaves the computation,
    and a sample depends only on the seed, the row's own number and its prompt.

    Where logits are changed (`repetition_penalty`, `transforms`), greedy search and sampling change the
    model's logits and a beam search its log-probabilities, which are normalised again only with
    `config.renormalise`.

    Args:
        state: a fresh state of the model, of as many rows as `first_ids`; it is used up.
        first_ids: (B, T) int64, T at least 1: the prompts, or the decoder's first token; shorter ones padded
            on the left.
        key_mask: (B, T) bool, False at padding; None where there is none.
        eos_id: the token or tokens that end a text; None where only `max_tokens` and `stop` do.
        pad_id: what is fed for hypotheses of a beam that have ended, until their row is done; any valid
            token.
        config: how to choose.
        rows: the own numbers of the rows in a larger whole, which number their random streams; None counts
            from 0.
        transforms: further transforms of the logits, applied before those of `config`.
        on_token: called as `on_token(row, id)` for each new token as it comes, the end-of-sequence token left
            out, `row` counting within the batch; not with a beam search or several samples, whose texts are
            known only at the end.
        stop: called as `stop(row, ids)` with a row's new tokens, the newest one included; True ends that
            hypothesis. It may be asked about hypotheses of a beam search that are dropped later. The list
            must not be changed.
        drafter: guesses tokens, which saves steps and changes no text; see generate/speculate.py.

    Returns:
        For each row `config.num_return` hypotheses, best first; fewer where fewer exist.

    Raises:
        ConfigError: `eos_id` or `pad_id` lies outside the vocabulary, padding is not on the left, or
            `on_token` would be called for more than one text a row, a drafter would be ignored, or there is
            no source for `coverage_penalty`.
        RegardError: the model's logits are NaN or infinite, or every token of a row is forbidden.
    """
    _check_stream(config, on_token)
    if drafter is not None and (config.num_beams > 1 or config.num_return > 1):
        raise ConfigError("guessing tokens is for one text a row: greedy search, or one sample.")
    batch, length = first_ids.shape
    if batch == 0:
        return []
    assert length > 0, "a search needs at least one first token a row"
    assert batch == state.batch, f"{batch} prompts for a state of {state.batch} rows"
    numbers = list(range(batch)) if rows is None else list(rows)
    assert len(numbers) == batch, f"{len(numbers)} row numbers for {batch} rows"
    prompt, key_mask = _without_padding(first_ids, key_mask)
    watcher, asked = watcher_now(), config
    if watcher is not None:
        assert drafter is None and not config.coverage_penalty
        state = watcher.begin(state, _several(eos_id), config.max_tokens)
        config = replace(config, num_return=max(config.num_return, config.num_beams))  # it sees all of them

    if config.coverage_penalty:
        state = Covered(state)
    logits = state.advance(first_ids, key_mask, only_last=True)[:, -1].float()
    eos = _end_tokens(eos_id, pad_id, logits.shape[-1])
    changes = [*transforms, *penalties(config), *([] if watcher is None else [watcher.change])]
    if drafter is not None:
        return speculate(
            state, logits, prompt, drafter=drafter, eos=eos, pad_id=pad_id, config=config, rows=numbers,
            transforms=changes, on_token=on_token, stop=stop,
        )  # fmt: skip
    if not changes:
        prompt = prompt[:, :0]
    if config.num_beams > 1:
        found = beam_search(
            state, logits, prompt, eos=eos, pad_id=pad_id, config=config, rows=numbers, transforms=changes, stop=stop,
        )  # fmt: skip
    else:
        found = _one_by_one(
            state, logits, prompt, eos=eos, config=config, rows=numbers, transforms=changes, on_token=on_token,
            stop=stop,
        )  # fmt: skip
    if watcher is not None:
        watcher.end(found[0])
        found = [hypotheses[: asked.num_return] for hypotheses in found]
    return found


def _one_by_one(
    state: Decoding,
    logits: Tensor,
    ids: Tensor,
    *,
    eos: tuple[int, ...],
    config: SearchConfig,
    rows: list[int],
    transforms: Sequence[Transform],
    on_token: OnToken | None,
    stop: Stop | None,
) -> list[list[Hypothesis]]:
    """Search greedily or by sampling: `num_return` texts for each row, which go on side by side."""
    copies = config.num_return
    if copies > 1:
        spread = torch.arange(len(rows), device=logits.device).repeat_interleave(copies)
        state.reorder(spread)
        logits, ids = logits[spread], ids[spread]
    streams = Streams(config, rows) if config.temperature > 0 else None
    change, shape = compose(*transforms), compose(*filters(config))
    texts = [Text() for _ in range(len(rows) * copies)]
    live = list(range(len(texts)))

    for step in range(config.max_tokens):
        allowed = logits
        if eos and step < config.min_tokens:
            allowed = logits.index_fill(-1, torch.tensor(eos, device=logits.device), float("-inf"))
        allowed = change(allowed, ids)
        if streams is None:
            chosen = allowed.argmax(-1, keepdim=True)
        else:
            chosen = sample(shape(allowed, ids), streams.numbers(step, live))
        scores = logits.gather(-1, chosen) - log_sum_exp(logits)[..., None]
        # One transfer a step: the tokens (exact in float32), the model's log-probability of each, and whether
        # it was allowed.
        tokens, nats, left = torch.cat((chosen.float(), scores, allowed.gather(-1, chosen)), -1).T.tolist()
        going = []
        for place, copy in enumerate(live):
            row = copy // copies
            if not (math.isfinite(nats[place]) and math.isfinite(left[place])):
                error = nothing_left if math.isfinite(logits[place].logsumexp(-1)) else not_finite
                raise error(rows[row], step)
            if texts[copy].add(int(tokens[place]), nats[place], eos, row, on_token, stop):
                going.append(place)
        if not going or step + 1 == config.max_tokens:
            break
        if len(going) < len(live):
            live = [live[place] for place in going]
            kept = torch.tensor(going, device=logits.device)
            state.reorder(kept)
            chosen, ids = chosen[kept], ids[kept]
        if transforms:
            ids = torch.cat((ids, chosen), 1)
        logits = state.advance(chosen)[:, -1].float()

    results = [text.hypothesis(config.length_penalty) for text in texts]
    return [
        sorted(results[start : start + copies], key=lambda found: -found.normalised)
        for start in range(0, len(results), copies)
    ]


def _without_padding(first_ids: Tensor, key_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Give the prompts with -1 in place of padding, and the mask or None where nothing is padded."""
    if key_mask is None or bool(key_mask.all()):
        return first_ids, None
    assert key_mask.shape == first_ids.shape, f"key_mask {key_mask.shape} for first_ids {first_ids.shape}"
    started = key_mask.long().cumsum(-1) > 0
    if not bool((started == key_mask).all() and key_mask[:, -1].all()):
        raise ConfigError(
            "prompts of a batch must be padded on the left and hold at least one token, but key_mask is "
            "False after a token or everywhere in a row; move the padding to the front."
        )
    return first_ids.masked_fill(~key_mask, -1), key_mask


def _several(eos_id: int | Sequence[int] | None) -> tuple[int, ...]:
    return () if eos_id is None else (eos_id,) if isinstance(eos_id, int) else tuple(dict.fromkeys(eos_id))


def _end_tokens(eos_id: int | Sequence[int] | None, pad_id: int, vocabulary: int) -> tuple[int, ...]:
    eos = _several(eos_id)
    for name, token in [*(("eos_id", token) for token in eos), ("pad_id", pad_id)]:
        if not 0 <= token < vocabulary:
            raise ConfigError(
                f"{name}={token} is not in the model's vocabulary; give an id from 0 to {vocabulary - 1}."
            )
    return eos


def _check_stream(config: SearchConfig, on_token: OnToken | None) -> None:
    if on_token is not None and (config.num_beams > 1 or config.num_return > 1):
        raise ConfigError(
            f"tokens can't be streamed with num_beams={config.num_beams} and num_return={config.num_return}, "
            "whose texts are known only at the end; stream with both at 1."
        )
