"""Scores of which tag follows which: a linear-chain conditional random field over the words of a sentence.

scores of each word's tags ─┬─> messages from the sentence's end ─┬─> each word's tags given the one before: the loss
                            │                                     └─> the probability of each tag at each word
                            └─> the best sequence of tags
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

__all__ = ["Transitions", "side_by_side"]

_MOST = 1 << 24  # scores of pairs of tags in memory at once while the best sequence is sought


class Transitions(nn.Module):
    """Score sequences of tags, of N words each with L tags to choose from.

        score(y) = start[y_1] + sum_t emissions[t, y_t] + sum_t between[y_(t-1), y_t] + end[y_N]
        p(y) = exp(score(y)) / Z, where Z sums over all L^N sequences

    The emissions are the head's logits, and the rest is learned here. It begins at zero, where p is the product of
    the words' own softmaxes.

    All sums run from a sentence's end to its beginning. Let after[t, k] be the log of the sum over all that may follow
    tag k at word t. Given the tag before it, a tag's probability is then a softmax:

        p(y_t = k | y_(t-1) = j) = softmax_k(between[j, k] + emissions[t, k] + after[t, k])

    and their product over t is p(y). So the exact negative log-likelihood of a sentence is a sum of cross-entropies,
    one a word, over the scores that `given` gives; what smooths or weighs those of single words serves here too.

    Sums are products of matrices of exponentials, computed in fp32 (fp64 for fp64) whatever the precision around
    them; they are exact unless scores differ by more than 80 nats both among tags of a word and among tags that may
    follow one, which nothing learned comes near.

    In every method `emissions` (B, N, L) and `mask` (B, N) are as `side_by_side` gives them: a sentence's words without
    gaps, then padding, where the mask is False and what is given says nothing.

    Source: Lafferty et al. 2001, "Conditional Random Fields"; as an output layer for tags: Lample et al. 2016,
    arXiv:1603.01360, section 2.2, with their y_0 and y_(n+1) as `start` and `end`.
    """

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        self.between = nn.Parameter(torch.zeros(num_labels, num_labels))  # from a row's tag to a column's
        self.start = nn.Parameter(torch.zeros(num_labels))
        self.end = nn.Parameter(torch.zeros(num_labels))

    def score(
        self, emissions: Float[Tensor, "B N L"], tags: Int[Tensor, "B N"], mask: Bool[Tensor, "B N"]
    ) -> Float[Tensor, "B"]:
        """Give the score of one sequence of tags for each sentence, in nats."""
        emissions, between, start, end = self._wide(emissions)
        own = emissions.gather(2, tags[..., None])[..., 0]
        own = own + torch.cat([start[tags[:, :1]], between[tags[:, :-1], tags[:, 1:]]], 1)
        last = tags.gather(1, (mask.sum(1, keepdim=True) - 1).clamp(min=0))[:, 0]
        return (own * mask).sum(1) + end[last] * mask.any(1)

    def log_partition(
        self, emissions: Float[Tensor, "B N L"], mask: Bool[Tensor, "B N"]
    ) -> Float[Tensor, "B"]:
        """Give log Z of each sentence, in nats; of one without words 0, for it has one sequence."""
        after, taken = self._after(emissions, mask)
        emissions, _, start, _ = self._wide(emissions)
        total = torch.logsumexp(start + emissions[:, 0] + after[:, 0], -1) + taken
        return total * mask.any(1)

    def given(
        self, emissions: Float[Tensor, "B N L"], tags: Int[Tensor, "B N"], mask: Bool[Tensor, "B N"]
    ) -> Float[Tensor, "B N L"]:
        """Score each word's tags given the tag before it: their softmax is p(y_t | y_(t-1)), whatever follows."""
        after, _ = self._after(emissions, mask)
        emissions, between, start, _ = self._wide(emissions)
        came = torch.cat([start.expand(len(emissions), 1, -1), between[tags[:, :-1]]], 1)
        return came + emissions + after

    @torch.no_grad()
    def marginals(
        self, emissions: Float[Tensor, "B N L"], mask: Bool[Tensor, "B N"]
    ) -> Float[Tensor, "B N L"]:
        """Give the probability of each tag at each word, over all sequences; at padding zeros. Without gradient."""
        after, _ = self._after(emissions, mask)
        emissions, between, start, _ = self._wide(emissions)
        moves = (between - between.amax(1, keepdim=True)).exp()
        found = [(start + emissions[:, 0] + after[:, 0]).softmax(-1)]
        for here in (emissions + after)[:, 1:].unbind(1):
            arrive = (here - here.amax(-1, keepdim=True)).exp()
            leave = found[-1] / _product(arrive, moves.T)
            found.append(_product(leave, moves) * arrive)  # sum_j p_j softmax_k(between[j, k] + here[k])
        return torch.stack(found, 1).clamp(max=1) * mask[..., None]

    @torch.no_grad()
    def best(self, emissions: Float[Tensor, "B N L"], mask: Bool[Tensor, "B N"]) -> Int[Tensor, "B N"]:
        """Find the sequence of the highest score (Viterbi 1967); padding repeats a sentence's last tag."""
        rows, labels = len(emissions), emissions.shape[-1]
        at_once = max(1, _MOST // labels**2)
        if rows > at_once:
            parts = zip(emissions.split(at_once), mask.split(at_once), strict=True)
            return torch.cat([self.best(*part) for part in parts])
        emissions, between, start, end = self._wide(emissions)
        itself, into = torch.arange(labels, device=emissions.device).expand(rows, -1), between.T.contiguous()
        scores = start + emissions[:, 0]
        came_from = []
        for here, real in zip(emissions[:, 1:].unbind(1), mask[:, 1:, None].unbind(1), strict=True):
            scores = scores - scores.amax(-1, keepdim=True)  # so that long sentences lose no digits
            most, before = (scores[:, None] + into).max(-1)  # (B, L): over the tag before
            scores = torch.where(real, most + here, scores)
            came_from.append(torch.where(real, before, itself))
        path = [(scores + end).argmax(-1, keepdim=True)]
        for before in reversed(came_from):
            path.append(before.gather(1, path[-1]))
        return torch.cat(path[::-1], 1)

    def _after(
        self, emissions: Float[Tensor, "B N L"], mask: Bool[Tensor, "B N"]
    ) -> tuple[Float[Tensor, "B N L"], Float[Tensor, "B"]]:
        """Give `after`, each word's less a constant of its own, and the sum of those constants over the sentence."""
        emissions, between, _, end = self._wide(emissions)
        most = between.amax(1).detach()
        back = (between - most[:, None]).exp().T
        after = [end.expand(len(emissions), -1)]
        taken = emissions.new_zeros(len(emissions))
        for word, real in zip(emissions.unbind(1)[:0:-1], mask.unbind(1)[:0:-1], strict=True):
            here = word + after[-1]
            top = here.amax(-1, keepdim=True).detach()
            told = _product((here - top).exp(), back).log() + most
            after.append(torch.where(real[:, None], told, after[0]))
            taken = taken + top[:, 0] * real
        return torch.stack(after[::-1], 1), taken

    def _wide(
        self, emissions: Float[Tensor, "B N L"]
    ) -> tuple[Float[Tensor, "B N L"], Float[Tensor, "L L"], Float[Tensor, "L"], Float[Tensor, "L"]]:
        """Give all scores in fp32, or fp64 where the words' are."""
        emissions = emissions if emissions.dtype == torch.float64 else emissions.float()
        return emissions, self.between.to(emissions), self.start.to(emissions), self.end.to(emissions)


def _product(values: Float[Tensor, "B L"], matrix: Float[Tensor, "L L"]) -> Float[Tensor, "B L"]:
    """Multiply in the precision of the factors, also under autocast; a sum too small for it is its smallest number."""
    with torch.autocast(values.device.type, enabled=False):
        return (values @ matrix).clamp(min=torch.finfo(values.dtype).tiny)


def side_by_side(
    values: Shaped[Tensor, "W ..."], chosen: Bool[Tensor, "B T"]
) -> tuple[Shaped[Tensor, "B N ..."], Bool[Tensor, "B N"]]:
    """Put what belongs to chosen positions, row after row, into rows without gaps, N as long as the longest.

    Args:
        values: one for each chosen position, as `x[chosen]` gives them.
        chosen: for instance the first token of each word.

    Returns:
        The rows, zero where they are padded, and a mask that is True where they aren't; N is at least 1.
    """
    counts = chosen.sum(1, keepdim=True)
    most = max(1, int(counts.max())) if len(counts) else 1
    mask = torch.arange(most, device=chosen.device) < counts
    rows = values.new_zeros(*mask.shape, *values.shape[1:])
    rows[mask] = values
    return rows, mask
