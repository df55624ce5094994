"""Scores of which tag follows which, against the enumeration of all sequences, and against tags chosen one by one."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from regard.nn import crf
from regard.nn.crf import Transitions, side_by_side

COUNTS = (4, 1, 0, 3, 2)  # words of each sentence
MASK = torch.arange(4) < torch.tensor(COUNTS)[:, None]


def chain(
    labels: int = 3, *, seed: int = 0, scale: float = 1.5, dtype: torch.dtype = torch.float64
) -> Transitions:
    torch.manual_seed(seed)
    made = Transitions(labels).to(dtype)
    with torch.no_grad():
        for scores in made.parameters():
            scores.normal_(std=scale)
    return made


def logits(
    labels: int = 3, *, seed: int = 1, scale: float = 1.5, dtype: torch.dtype = torch.float64
) -> Tensor:
    torch.manual_seed(seed)
    return scale * torch.randn(len(COUNTS), 4, labels, dtype=dtype)


def every(one: Transitions, emissions: Tensor) -> tuple[Tensor, Tensor]:
    """Give all sequences of tags for one sentence's (N, L), and the score of each, as the definition has it."""
    sequences = list(product(range(emissions.shape[1]), repeat=len(emissions)))
    scores = [
        one.start[tags[0]] + one.end[tags[-1]] + sum(emissions[t, tag] for t, tag in enumerate(tags))
        + sum(one.between[before, after] for before, after in pairwise(tags))
        for tags in sequences
    ]  # fmt: skip
    return torch.tensor(sequences), torch.stack(scores).detach()


@given(st.integers(1, 4), st.integers(0, 10**6), st.sampled_from([0.1, 3.0, 30.0]))
def test_everything_is_what_enumeration_gives(labels: int, seed: int, scale: float) -> None:
    one, emissions = chain(labels, seed=seed, scale=scale), logits(labels, seed=seed + 1, scale=scale)
    totals, shares, best = (f(emissions, MASK) for f in (one.log_partition, one.marginals, one.best))
    for i, count in enumerate(COUNTS):
        if count == 0:
            assert totals[i] == 0
            continue
        sequences, scores = every(one, emissions[i, :count])
        torch.testing.assert_close(totals[i], scores.logsumexp(0))
        ours = F.pad(sequences, (0, 4 - count))
        same = emissions[i].expand(len(ours), -1, -1), ours, MASK[i].expand(len(ours), -1)
        torch.testing.assert_close(one.score(*same), scores)
        likelihoods = one.given(*same).log_softmax(-1).gather(2, ours[..., None])[:, :count, 0].sum(1)
        torch.testing.assert_close(likelihoods, scores.log_softmax(0))
        assert scores[(sequences == best[i, :count]).all(1)].item() == pytest.approx(scores.max().item())
        sums = [[scores.softmax(0)[sequences[:, t] == k].sum() for k in range(labels)] for t in range(count)]
        torch.testing.assert_close(shares[i, :count], torch.tensor(sums, dtype=torch.float64))


def test_marginals_sum_to_one_and_are_the_gradient_of_the_partition() -> None:
    one, emissions = chain(5), logits(5).requires_grad_()
    shares = one.marginals(emissions, MASK)
    torch.testing.assert_close(shares.sum(-1), MASK.double())
    (gradient,) = torch.autograd.grad(one.log_partition(emissions, MASK).sum(), emissions)
    torch.testing.assert_close(shares, gradient)


def test_padding_changes_nothing() -> None:
    one, emissions = chain(), logits()
    for other in (emissions.masked_fill(~MASK[..., None], 50), F.pad(emissions, (0, 0, 0, 3), value=-7)):
        mask = F.pad(MASK, (0, other.shape[1] - 4))
        torch.testing.assert_close(one.log_partition(other, mask), one.log_partition(emissions, MASK))
        torch.testing.assert_close(one.marginals(other, mask)[:, :4], one.marginals(emissions, MASK))
        assert torch.equal(one.best(other, mask)[mask], one.best(emissions, MASK)[MASK])
    for i, count in enumerate(COUNTS):
        if count:  # alone, without padding
            alone = emissions[i : i + 1, :count], MASK[i : i + 1, :count]
            assert torch.equal(one.best(*alone)[0], one.best(emissions, MASK)[i, :count])
            torch.testing.assert_close(one.log_partition(*alone)[0], one.log_partition(emissions, MASK)[i])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_scores_words_are_by_themselves(dtype: torch.dtype) -> None:
    one, emissions = Transitions(3), logits(dtype=dtype)
    assert all(not scores.any() for scores in one.parameters())
    tags = torch.randint(0, 3, MASK.shape)
    found = one.given(emissions, tags, MASK)
    assert found.dtype == dtype
    torch.testing.assert_close(found.log_softmax(-1)[MASK], emissions.log_softmax(-1)[MASK])
    torch.testing.assert_close(one.marginals(emissions, MASK)[MASK], emissions.softmax(-1)[MASK])
    assert torch.equal(one.best(emissions, MASK)[MASK], emissions.argmax(-1)[MASK])


def test_the_gradient_is_right_and_reaches_every_score() -> None:
    one, emissions, tags = chain(), logits().requires_grad_(), torch.randint(0, 3, MASK.shape)

    def loss(emissions: Tensor, between: Tensor, start: Tensor, end: Tensor) -> Tensor:
        scores = {"between": between, "start": start, "end": end}
        found = torch.func.functional_call(
            Given(one), {f"one.{k}": v for k, v in scores.items()}, (emissions, tags)
        )
        return F.cross_entropy(found[MASK], tags[MASK], reduction="sum")

    inputs = (emissions, *one.parameters())
    assert torch.autograd.gradcheck(loss, inputs)
    exact = (one.log_partition(emissions, MASK) - one.score(emissions, tags, MASK)).sum()
    torch.testing.assert_close(loss(*inputs), exact)
    for mine, other in zip(
        torch.autograd.grad(loss(*inputs), inputs), torch.autograd.grad(exact, inputs), strict=True
    ):
        torch.testing.assert_close(mine, other)
        assert mine.abs().sum() > 0


class Given(torch.nn.Module):
    def __init__(self, one: Transitions) -> None:
        super().__init__()
        self.one = one

    def forward(self, emissions: Tensor, tags: Tensor) -> Tensor:
        return self.one.given(emissions, tags, MASK)


def test_long_sentences_lose_no_digits_and_stay_finite() -> None:
    exact, words = chain(4, scale=3.0), 3000
    rough = Transitions(4)
    rough.load_state_dict(exact.state_dict())
    emissions, mask = (
        5 * torch.randn(2, words, 4, dtype=torch.float64),
        torch.ones(2, words, dtype=torch.bool),
    )
    tags = exact.best(emissions, mask)
    assert torch.equal(rough.best(emissions.float(), mask), tags)
    fine = exact.given(emissions, tags, mask).log_softmax(-1)
    torch.testing.assert_close(
        rough.given(emissions.float(), tags, mask).log_softmax(-1).double(), fine, atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(rough.marginals(emissions.float(), mask).sum(-1), torch.ones(2, words))


def test_what_is_forbidden_never_follows() -> None:
    one = chain()
    with torch.no_grad():
        one.between[0, 1] = one.start[2] = -1e4
    best, shares = (f(logits(), MASK) for f in (one.best, one.marginals))
    assert not ((best[:, :-1] == 0) & (best[:, 1:] == 1) & MASK[:, 1:]).any()
    assert (shares[:, 0, 2] == 0).all() and torch.isfinite(shares).all()
    torch.testing.assert_close(shares.sum(-1), MASK.double())


def test_half_precision_around_it_changes_only_what_it_is_given() -> None:
    one, tags = chain(dtype=torch.float32), torch.randint(0, 3, MASK.shape)
    emissions = logits().bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = one.given(emissions, tags, MASK)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, one.given(emissions.float(), tags, MASK), rtol=0, atol=0)


def test_many_sentences_are_searched_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    one, emissions = chain(), logits()
    whole = one.best(emissions, MASK)
    monkeypatch.setattr(crf, "_MOST", 2 * 3**2)
    assert torch.equal(one.best(emissions, MASK), whole)


def test_gaps_are_taken_out() -> None:
    chosen = torch.tensor([[0, 1, 0, 1, 1], [0, 0, 0, 0, 0], [1, 0, 0, 0, 1]]).bool()
    values = torch.arange(15.0).view(3, 5)
    rows, mask = side_by_side(values[chosen], chosen)
    assert rows.tolist() == [[1, 3, 4], [0, 0, 0], [10, 14, 0]]
    assert mask.tolist() == [[True, True, True], [False] * 3, [True, True, False]]
    assert torch.equal(rows[mask], values[chosen])
    nothing, mask = side_by_side(values[chosen & False][:, None], chosen & False)
    assert nothing.shape == (3, 1, 1) and not mask.any()
