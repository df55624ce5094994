"""What the lab's own experiments train with: batches that follow from numbers, the world as words, a short loop."""

from __future__ import annotations

import math

import torch
from torch import nn

from regard.lab.l13_pretraining import Sentences, counted
from regard.lab.learning import WorldText, generator, learn
from regard.lab.registry import find


def test_a_generator_follows_from_all_of_its_numbers() -> None:
    def draw(*key: int) -> list[float]:
        return torch.rand(3, generator=generator(*key)).tolist()

    assert draw(1, 2, 3) == draw(1, 2, 3)
    assert len({tuple(draw(*key)) for key in ((1, 2, 3), (1, 3, 2), (2, 1, 3), (1, 2), (1, 2, 4))}) == 5


def test_a_line_is_learned_and_looked_at_on_the_way() -> None:
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    x = torch.linspace(-1, 1, 32)[:, None]
    seen: list[tuple[int, bool]] = []
    learn(
        model, lambda step: (model(x) - 3 * x).pow(2).mean(), steps=200, lr=0.1, at=[50, 200],
        look=lambda step: seen.append((step, model.training)),
    )  # fmt: skip
    assert abs(model.weight.item() - 3) < 0.05 and not model.training
    assert seen == [(50, False), (200, False)]


def test_the_world_is_words_and_its_parts_are_apart() -> None:
    text = WorldText.draw(1, train=40, valid=20)
    assert text.words[0] == "<other>" and "the" in text.words and "<end>" in text.words
    assert int(text.train.min()) > 0, "every word of the training part is known"
    end = text.words.index("<end>")
    assert int((text.train == end).sum()) == 40 and int((text.valid == end).sum()) == 20
    batch = text.batch(3, 8, generator(1))
    assert batch.shape == (3, 9) and torch.equal(batch, text.batch(3, 8, generator(1)))
    assert text.held_out(2, 8).shape == (2, 9)
    assert torch.equal(WorldText.draw(1, train=40, valid=20).train, text.train)


def test_labels_take_turns_so_that_few_of_them_hold_every_kind() -> None:
    settings = {**find("L13").sizes["smoke"].settings, "kinds": 3, "train": 300}
    data = Sentences(1, settings)
    ids, labels = data.parts["train"]
    assert len(data.labels) == 3 and labels[:6].tolist() == [0, 1, 2, 0, 1, 2]
    assert ids.shape == (len(labels), settings["length"]) and labels.bincount().unique().numel() == 1


def test_counting_pairs_gives_the_share_of_a_pair() -> None:
    text = WorldText(("<other>", "a", "b", "c"), torch.tensor([1, 2, 1, 2, 1, 3, 1]), torch.tensor([1]))
    alone = (2 + 0.5) / (7 + 4 * 0.5)  # b, of seven words and half a one for each of four
    wanted = -math.log((2 + 2 * alone) / (3 + 2))  # "a b" twice among three pairs that begin with a
    assert abs(text.pairs(torch.tensor([[3, 1, 2]]), 1) - wanted) < 1e-12


def test_counting_words_finds_the_kind_of_a_sentence_from_the_labels_alone() -> None:
    settings = {**find("L13").sizes["smoke"].settings, "kinds": 3, "train": 2000, "valid": 300, "test": 300}
    data = Sentences(1, settings)
    few, many = counted(data, 6), counted(data, len(data.parts["train"][0]))
    assert few < many and many > 0.8
    ids, labels = data.parts["train"]
    data.parts["train"] = ids, labels.roll(1)  # every sentence has another's label
    assert counted(data, len(ids)) < 0.4
