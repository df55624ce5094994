"""The searches on real models: with the cache as without, in a batch as alone, padded as not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from regard.config import ModelConfig
from regard.generate.search import Hypothesis, SearchConfig, search
from regard.models.transformer import build

POSITIONS = ["none", "sinusoidal", "learned", "rotary", "alibi", "t5"]
PAD, BOS, EOS, VOCAB = 0, 1, 2, 20
SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "penalised": {"repetition_penalty": 1.3, "no_repeat_ngram": 3},
    "sampling": {"temperature": 1.0, "top_p": 0.95, "seed": 1, "num_return": 2},
    "beam": {"num_beams": 4, "num_return": 4, "early_stopping": "never"},
}


def model_of(kind: Any, position: Any) -> Any:
    torch.manual_seed(3)
    config = ModelConfig(
        kind=kind,
        vocab_size=VOCAB,
        width=16,
        num_layers=2,
        num_heads=2,
        context=32,
        position=position,
        dropout=0.0,
        pad_id=PAD,
        bos_id=BOS,
        eos_id=EOS,
        start_id=BOS,
        tie_embeddings=False,
    )
    model = build(config).eval()
    with torch.no_grad():
        # Fresh weights say much the same after every prefix; larger ones make texts that differ and end.
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.5)
    return model


def ragged(lengths: list[int], *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Make texts of these lengths, padded on one side, and their mask."""
    generator = torch.Generator().manual_seed(5)
    longest = max(lengths)
    ids = torch.full((len(lengths), longest), PAD)
    mask = torch.zeros(len(lengths), longest, dtype=torch.bool)
    for row, length in enumerate(lengths):
        span = slice(longest - length, longest) if left else slice(0, length)
        ids[row, span] = torch.randint(3, VOCAB, (length,), generator=generator)
        mask[row, span] = True
    return ids, mask


def run(
    model: Any,
    ids: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    use_cache: bool = True,
    rows: list[int] | None = None,
    **options: Any,
) -> list[list[Hypothesis]]:
    """Continue prompts, or write targets for sources, as the model's kind has it."""
    config = SearchConfig(**{"max_tokens": 9, **options})
    if model.config.kind == "decoder":
        state = model.start(batch=len(ids), use_cache=use_cache)
        return search(state, ids, key_mask=mask, eos_id=EOS, pad_id=PAD, config=config, rows=rows)
    state = model.start(source=ids, source_mask=mask, use_cache=use_cache)
    first = torch.full((len(ids), 1), BOS)
    return search(state, first, eos_id=EOS, pad_id=PAD, config=config, rows=rows)


def same(ours: list[list[Hypothesis]], theirs: list[list[Hypothesis]]) -> None:
    for left, right in zip(ours, theirs, strict=True):
        assert [(one.ids, one.finished) for one in left] == [(one.ids, one.finished) for one in right]
        assert [one.score for one in left] == pytest.approx([one.score for one in right], abs=1e-3)


@pytest.mark.parametrize("options", SEARCHES.values(), ids=SEARCHES)
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
def test_cached_is_uncached_and_a_batch_is_its_rows(
    kind: str, position: str, options: dict[str, Any]
) -> None:
    model, lengths = model_of(kind, position), [3, 6, 1, 4]
    ids, mask = ragged(lengths, left=kind == "decoder")
    together = run(model, ids, mask, **options)
    same(together, run(model, ids, mask, use_cache=False, **options))
    assert len({round(row[0].score, 4) for row in together}) == len(lengths)  # what the rows hold matters
    for row in range(len(lengths)):
        alone = run(model, ids[row][mask[row]][None], None, rows=[row], **options)
        same([together[row]], alone)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
def test_scores_are_those_of_the_models_forward(kind: str, position: str) -> None:
    model = model_of(kind, position)
    ids, _ = ragged([4, 4, 4], left=True)
    for row, texts in enumerate(run(model, ids, None, num_beams=3, num_return=3)):
        for one in texts:
            new = torch.tensor([[*one.ids, *([EOS] if one.finished else [])]])
            if kind == "decoder":
                whole = torch.cat((ids[row][None], new), 1)
                logits = model(whole[:, :-1])[:, ids.shape[1] - 1 :]
            else:
                logits = model(ids[row][None], torch.cat((torch.tensor([[BOS]]), new[:, :-1]), 1))
            nats = logits.detach().log_softmax(-1).gather(-1, new[..., None]).sum()
            assert one.score == pytest.approx(float(nats), abs=1e-3)


def test_the_model_is_left_as_it_was() -> None:
    model = model_of("encoder-decoder", "rotary")
    ids, mask = ragged([3, 5], left=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = run(model, ids, mask, num_beams=2)
    same(first, run(model, ids, mask, num_beams=2))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model(ids, ids, source_mask=mask).sum().backward()  # nothing of inference mode clings to it
