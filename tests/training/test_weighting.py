"""What a loss has beside the labels: hidden words, drawn anew at each step and the same for the same seed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from regard.config import ModelConfig
from regard.errors import ConfigError
from regard.models.transformer import build
from regard.training.config import TrainConfig
from regard.training.loss import Batch, LossSums, sequence_loss
from regard.training.weighting import hiding_loss, make_loss


def test_so_many_words_are_hidden_and_no_label_is() -> None:
    seen: list[torch.Tensor] = []

    def loss(model: Any, batch: Batch) -> LossSums:
        seen.append(batch["ids"])
        assert batch["labels"] is labels
        return LossSums(torch.zeros(()), torch.zeros(()), 1)

    ids, labels = torch.randint(5, 50, (40, 50)), torch.zeros(40, dtype=torch.int64)
    hiding = hiding_loss(loss, 0.3, 4)
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        hiding(None, {"ids": ids, "labels": labels})  # type: ignore[arg-type]
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])
    for found in seen:
        gone = found == 4
        assert 0.25 < gone.float().mean() < 0.35 and torch.equal(found[~gone], ids[~gone])
    assert (ids != 4).all()  # the batch itself stays as it was


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_a_run_hides_words_only_where_asked(weights: str) -> None:
    config = ModelConfig(
        kind="encoder", vocab_size=20, width=8, num_heads=2, num_layers=1, head="classify", labels=("a", "b")
    )
    module = build(config).eval()
    labels = torch.randint(0, 2, (30,))
    batch = {"ids": torch.randint(5, 20, (30, 6)), "key_mask": torch.ones(30, 6).bool(), "labels": labels}
    store: Any = {"label": type("Store", (), {"flat": labels.numpy()})}
    plain = make_loss(TrainConfig(steps=1, class_weights=weights), config, store)  # type: ignore[arg-type]
    hiding = make_loss(
        TrainConfig(steps=1, class_weights=weights, word_dropout=0.5),
        config,
        store,
        hidden=4,  # type: ignore[arg-type]
    )
    assert plain(module, batch).loss == plain(module, batch).loss != hiding(module, batch).loss
    if weights == "none":
        torch.testing.assert_close(plain(module, batch).loss, sequence_loss(module, batch).loss)
    with pytest.raises(ConfigError, match=r"word_dropout=0.5 is for classify and tag"):
        make_loss(TrainConfig(steps=1, word_dropout=0.5), ModelConfig(kind="decoder", vocab_size=9), {})
