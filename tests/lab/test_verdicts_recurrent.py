"""What the claims about recurrence conclude from numbers for them, against them, or in part; and what they ask."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from regard.config import ModelConfig
from regard.lab import l01_parallel, l02_distance, l03_bottleneck, l04_alignment
from regard.lab.equal import of_size
from regard.lab.learning import generator
from regard.lab.registry import find
from regard.look.alignment import Bitext


def settings(name: str, size: str = "laptop") -> Any:
    return find(name).sizes[size].settings


@pytest.mark.parametrize("size", ["laptop", "gpu"])
def test_models_that_are_compared_have_equally_many_weights(size: str) -> None:
    configs = l01_parallel.configurations(settings("L1", size))
    pairs = [(configs[ours], configs[theirs]) for ours, theirs in l01_parallel.BESIDE.items()]
    for task in l02_distance.TASKS:
        recalling = l02_distance.configurations(settings("L2", size), task)
        assert tuple(recalling) == l02_distance.SIDES
        pairs += [(config, recalling["Transformer"]) for config in recalling.values()]
    for ours, theirs in pairs:
        assert abs(ours.num_parameters() / theirs.num_parameters() - 1) < 0.03


def test_the_nearest_size_is_taken() -> None:
    def made(width: int) -> ModelConfig:
        return ModelConfig(kind="decoder", vocab_size=10, width=width, num_layers=1, num_heads=1)

    wanted = made(20).num_parameters()
    assert of_size(made, wanted).width == 20
    assert of_size(made, wanted + 5).width == 20 and of_size(made, wanted - 5).width == 20
    assert of_size(made, 1).width == 2


# L1


def times(*, rnn: float = 2.0, others: float = 2.0, growth: float = 4.0) -> Any:
    """Give times: recurrent ones are so many Transformers', and `growth` times as many as in short texts."""
    chosen = settings("L1")
    names = [*l01_parallel.BESIDE, l01_parallel.READER, l01_parallel.WRITER]

    def seconds(name: str, length: int) -> float:
        if name in (l01_parallel.READER, l01_parallel.WRITER):
            return 1e-5
        ratio = rnn if name == "RNN" else others
        return 1e-5 * (ratio if length >= chosen["judged_at"] else ratio / growth)

    lengths = {name: [n for n in chosen["lengths"] if n <= chosen["last"].get(name, n)] for name in names}
    return {
        "seconds": {name: {str(n): seconds(name, n) for n in lengths[name]} for name in names},
        "parameters": dict.fromkeys(names, 1000), "device": "cpu", "threads": 2,
    }  # fmt: skip


def test_l1_holds_where_every_recurrence_is_slower_and_the_more_so_the_longer() -> None:
    found = l01_parallel.conclude([times()] * 3, settings("L1"))
    assert found.status == "holds" and found.effect.mean == pytest.approx(2)
    assert "a processor with 2 threads" in found.sentence


def test_l1_holds_in_part_where_one_is_as_fast_or_the_length_is_no_matter() -> None:
    fast = l01_parallel.conclude([times(rnn=0.5)] * 3, settings("L1"))
    assert fast.status == "holds in part" and "not shown to be slower: RNN" in fast.sentence
    flat = l01_parallel.conclude([times(growth=1.0)] * 3, settings("L1"))
    assert flat.status == "holds in part" and "not shown to grow with the length: RNN, LSTM" in flat.sentence


def test_l1_fails_where_no_recurrence_is_slower() -> None:
    assert l01_parallel.conclude([times(rnn=0.9, others=0.8)] * 3, settings("L1")).status == "fails"


def test_l1_is_undecided_where_seeds_differ() -> None:
    seeds = [times(rnn=ratio, others=ratio) for ratio in (0.7, 1.6, 0.6)]
    assert l01_parallel.conclude(seeds, settings("L1")).status == "undecided"


# L2


def recall(first: dict[str, float] | None = None, **changes: float) -> Any:
    """Give accuracies that are perfect near, and what is said far off: in `first` of that task, else of the other."""
    chosen = settings("L2")
    far = dict.fromkeys(l02_distance.RECURRENT, 0.3) | dict.fromkeys(l02_distance.ATTENDING, 0.99)
    named = {name.replace(" ", "_"): name for name in l02_distance.SIDES}

    def told(values: dict[str, float]) -> Any:
        return {
            "accuracy": {
                name: {
                    str(n): value if n >= chosen["judged_at"] else min(1.0, value + 0.7) for n in chosen["lengths"]
                }
                for name, value in values.items()
            },
            "rate": dict.fromkeys(values, 2e-3), "parameters": dict.fromkeys(values, 1000),
        }  # fmt: skip

    anything = far | {named[name]: value for name, value in changes.items()}
    return {l02_distance.FIRST: told(far | (first or {})), l02_distance.ANY: told(anything)}


def test_l2_holds_where_recurrences_forget_and_attention_doesnt() -> None:
    found = l02_distance.conclude([recall()] * 3, settings("L2"))
    assert found.status == "holds" and found.effect.mean == pytest.approx(0.69)


def test_l2_holds_in_part_where_a_recurrence_can_keep_one_word_or_attention_loses_too() -> None:
    keep = dict.fromkeys(l02_distance.RECURRENT, 1.0)
    latched = l02_distance.conclude([recall(keep)] * 3, settings("L2"))
    assert latched.status == "holds in part" and latched.more[l02_distance.FIRST]["status"] == "fails"
    assert latched.more[l02_distance.ANY]["status"] == "holds"
    losing = l02_distance.conclude([recall(LSTM_with_attention=0.5)] * 3, settings("L2"))
    assert losing.status == "holds in part" and losing.more[l02_distance.ANY]["kept"] == ["Transformer"]


def test_l2_fails_where_nothing_is_forgotten_and_is_undecided_where_nothing_was_learned() -> None:
    keep = dict.fromkeys(l02_distance.RECURRENT, 1.0)
    assert l02_distance.conclude([recall(keep, **keep)] * 3, settings("L2")).status == "fails"
    found = recall()
    for told in found.values():
        told["accuracy"] = {
            name: dict.fromkeys(by_length, 0.25) for name, by_length in told["accuracy"].items()
        }
    assert l02_distance.conclude([found] * 3, settings("L2")).status == "undecided"


def test_l2_is_undecided_where_a_loss_is_neither_shown_nor_ruled_out() -> None:
    keep = dict.fromkeys(l02_distance.RECURRENT, 1.0)
    seeds = [recall(keep, **dict.fromkeys(l02_distance.RECURRENT, far)) for far in (0.5, 0.95, 0.9)]
    found = l02_distance.conclude(seeds, settings("L2"))
    assert found.status == "undecided" and found.more[l02_distance.ANY]["status"] == "undecided"


@pytest.mark.parametrize("test", [False, True])
def test_l2_asks_about_a_thing_that_occurs_once(test: bool) -> None:
    chosen = settings("L2")
    ids, questions, answers = l02_distance.any_word(64, 10, chosen, generator(1, 2), test=test)
    things, told = ids // chosen["properties"], ids % chosen["properties"]
    asked = questions - chosen["things"] * chosen["properties"]
    hits = things == asked
    assert hits.sum(1).tolist() == [1] * 64 and torch.equal(told[hits], answers[:, 0])
    places = hits.float().argmax(1)
    assert (places == 0).all() if test else len(places.unique()) > 5
    ids, questions, answers = l02_distance.first_word(8, 10, chosen, generator(1))
    assert torch.equal(ids[:, :1], answers) and int(ids.max()) < int(questions.min())


# L3


def fifths(one: list[float], attention: list[float]) -> Any:
    return {
        "data": "made up", "words": [4.0, 6.0, 8.0, 10.0, 14.0], "bleu": {"one vector": one, "attention": attention},
        "whole": {"one vector": sum(one) / 5, "attention": sum(attention) / 5},
        "rate": dict.fromkeys(l03_bottleneck.SIDES, 8e-3), "parameters": dict.fromkeys(l03_bottleneck.SIDES, 1000),
    }  # fmt: skip


def test_l3_follows_the_gain_and_its_growth_with_the_length() -> None:
    rising = [24.0, 24.5, 25.0, 25.5, 26.0]
    for one, attention, status, said in (
        ([22.0, 20.0, 18.0, 15.0, 12.0], rising, "holds", "in the longest fifth"),
        ([22.0, 21.0, 21.0, 21.0, 21.0], rising, "holds in part", "less than 8"),
        ([10.0, 10.0, 10.0, 11.0, 12.0], rising, "holds in part", "grows with the length isn't shown"),
        (rising, rising, "fails", "a gain of 0"),
        ([1.0] * 5, [5.0] * 5, "undecided", "too little was learned"),
    ):
        found = l03_bottleneck.conclude([fifths(one, attention)] * 3, settings("L3"))
        assert found.status == status and said in found.sentence, (one, status)
        assert "on made up," in found.sentence


def test_l3_is_undecided_where_seeds_differ() -> None:
    seeds = [fifths([20.0] * 5, [20.0] * 4 + [long]) for long in (18.0, 26.0, 21.0)]
    found = l03_bottleneck.conclude(seeds, settings("L3"))
    assert found.status == "undecided" and "seeds differ too much" in found.sentence


def test_l3_cuts_all_texts_into_fifths_by_their_words() -> None:
    texts = ["a " * (1 + 7 * k % 23) for k in range(23)]
    parts = l03_bottleneck.by_length(texts)
    assert sorted(i for part in parts for i in part) == list(range(23)) and {len(part) for part in parts} == {
        4,
        5,
    }
    lengths = [[len(texts[i].split()) for i in part] for part in parts]
    assert all(max(a) <= min(b) for a, b in itertools.pairwise(lengths))


def test_l3_reads_multi30k_or_says_what_it_reads_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {**settings("L3", "smoke"), "data": "multi30k"}
    monkeypatch.setenv("REGARD_SHARED", str(tmp_path))
    lines: list[str] = []
    texts = l03_bottleneck.read_texts(1, chosen, lines.append)
    assert "the demo's world" in texts.name and "no Multi30k" in lines[0]
    assert not set(texts.test) & set(texts.train)
    folder = tmp_path / "data" / "multi30k"
    folder.mkdir(parents=True)
    for part, count in (("train", 20), ("val", 5)):
        for language in ("de", "en"):
            (folder / f"{part}.{language}").write_text(
                "".join(f"{part} {language} {k}\n" for k in range(count))
            )
    texts = l03_bottleneck.read_texts(1, chosen, lines.append)
    assert texts.name.startswith("Multi30k") and len(lines) == 1
    assert (len(texts.train), len(texts.valid), len(texts.test)) == (16, 4, 5)
    assert texts.valid[0] == ("train de 16", "train en 16") and texts.test[0] == ("val de 0", "val en 0")
    assert "the demo's world" in l03_bottleneck.read_texts(1, settings("L3", "smoke"), lines.append).name


# L4


def aligned(gru: float = 0.15, best: float = 0.1) -> Any:
    names = (l04_alignment.GRU, l04_alignment.TRANSFORMER)
    others = {l04_alignment.DIAGONAL: 0.35, l04_alignment.UNIFORM: 0.93}
    errors = dict(zip(names, (gru, best), strict=True)) | others
    return {
        "error": {**errors, l04_alignment.FLOOR: 0.03},
        "agreement": {name: 1 - error for name, error in errors.items()},
        "bleu": dict.fromkeys(names, 80.0), "where": dict.fromkeys(names, "cross.0.0"), "heads": 0.6,
        "parameters": dict.fromkeys(names, 1000),
    }  # fmt: skip


def test_l4_holds_where_both_align_better_than_the_diagonal() -> None:
    found = l04_alignment.conclude([aligned()] * 3, settings("L4"))
    assert found.status == "holds" and found.effect.mean == pytest.approx(0.2)


def test_l4_holds_in_part_where_one_does_and_fails_where_neither_does() -> None:
    one = l04_alignment.conclude([aligned(gru=0.4)] * 3, settings("L4"))
    assert one.status == "holds in part" and one.sentence.endswith("not shown to align: GRU's attention.")
    assert l04_alignment.conclude([aligned(gru=0.4, best=0.33)] * 3, settings("L4")).status == "fails"


def test_l4_is_undecided_where_seeds_differ() -> None:
    seeds = [aligned(gru=error, best=error) for error in (0.1, 0.5, 0.3)]
    assert l04_alignment.conclude(seeds, settings("L4")).status == "undecided"


def test_l4_knows_what_one_link_a_word_can_reach() -> None:
    pairs = ((0, 0), (1, 1), (0, 1))
    text = Bitext((5, 6, 2), (1, 7, 8), ((0,), (1,)), ((1,), (2,)), pairs)
    assert l04_alignment.least_error([text]) == pytest.approx(1 - 2 * 2 / (2 + 3))
    assert l04_alignment.least_error([Bitext((5, 2), (1, 7), ((0,),), ((1,),), ((0, 0),))]) == 0
