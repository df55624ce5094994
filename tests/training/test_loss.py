import pytest
import torch
from tests.training.tiny import VOCAB, TinyBatches, TinyModel
from torch import nn
from torch.nn import functional as F

from regard.errors import DataError
from regard.training.loss import IGNORED, cross_entropy, sequence_loss, validation_loss


def example(dtype=torch.float32):
    hidden = torch.randn(3, 5, 8, dtype=dtype, requires_grad=True)
    head = nn.Linear(8, VOCAB, dtype=dtype)
    labels = torch.randint(0, VOCAB, (3, 5))
    labels[0, 2:] = IGNORED
    labels[2, :1] = IGNORED
    return hidden, head, labels


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [None, 4])
def test_equals_torch_in_value_and_gradient(smoothing, chunk):
    hidden, head, labels = example()
    loss, tokens, nll = cross_entropy(hidden, head, labels, smoothing=smoothing, chunk=chunk)
    (3 * loss).backward()
    ours = [hidden.grad.clone(), head.weight.grad.clone(), head.bias.grad.clone()]
    hidden.grad = head.weight.grad = head.bias.grad = None

    logits = head(hidden).flatten(0, 1)
    theirs = F.cross_entropy(logits, labels.flatten(), label_smoothing=smoothing, reduction="sum")
    (3 * theirs).backward()
    assert tokens == int((labels != IGNORED).sum())
    torch.testing.assert_close(loss, theirs)
    torch.testing.assert_close(nll, F.cross_entropy(logits.detach(), labels.flatten(), reduction="sum"))
    assert not nll.requires_grad
    for mine, other in zip(ours, [hidden.grad, head.weight.grad, head.bias.grad], strict=True):
        torch.testing.assert_close(mine, other)


def test_only_scored_positions_pass_the_head():
    hidden, head, labels = example()
    seen = []
    cross_entropy(hidden, lambda h: seen.append(h.shape) or head(h), labels)
    assert seen == [(int((labels != IGNORED).sum()), 8)]


def test_nothing_scored_is_zero_with_zero_gradient():
    hidden, head, labels = example()
    loss, tokens, nll = cross_entropy(hidden, head, torch.full_like(labels, IGNORED), smoothing=0.1)
    loss.backward()
    assert (loss.item(), tokens, nll.item()) == (0.0, 0, 0.0)
    assert hidden.grad.abs().sum() == 0


def test_bf16_logits_are_summed_in_fp32():
    hidden, head, labels = example()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _, nll = cross_entropy(hidden, head, labels, smoothing=0.1)
    assert loss.dtype == nll.dtype == torch.float32
    loss.backward()
    assert hidden.grad.dtype == torch.float32


def test_the_fields_tell_the_objective():
    model = TinyModel(dropout=0)
    batch = TinyBatches().batch(0, 0)
    causal = sequence_loss(model, batch)
    assert causal.tokens == batch["tokens"]
    pair = {
        "source": batch["ids"],
        "source_mask": batch["key_mask"],
        "target_in": batch["ids"],
        "target_out": batch["labels"],
        "target_mask": batch["key_mask"],
    }
    translated = sequence_loss(model, pair, smoothing=0.1)
    assert translated.tokens == batch["tokens"]
    assert translated.loss > 0
    classes = sequence_loss(model, {**batch, "labels": torch.tensor([3, 4, 5, 6, 7])})
    assert classes.tokens == 5
    assert 0 <= int(classes.correct) <= 5


def test_validation_is_per_token_over_unequal_batches():
    model, batches = TinyModel(dropout=0), TinyBatches()
    parts = [batches.batch(0, k) for k in range(3)]
    sums = [sequence_loss(model, part, smoothing=0.1) for part in parts]
    tokens = sum(s.tokens for s in sums)
    result = validation_loss(model, parts, lambda m, b: sequence_loss(m, b, smoothing=0.1))
    assert result["loss"] == pytest.approx(sum(s.loss.item() for s in sums) / tokens)
    assert result["nll"] == pytest.approx(sum(float(s.nll) for s in sums) / tokens)


def test_validation_stops_when_asked_and_needs_a_token():
    model, batch = TinyModel(), TinyBatches().batch(0, 0)
    seen = []
    validation_loss(
        model, (seen.append(k) or batch for k in range(9)), sequence_loss, should_stop=lambda: True
    )
    assert len(seen) == 1
    with pytest.raises(DataError, match="no token to score"):
        validation_loss(model, [], sequence_loss)
