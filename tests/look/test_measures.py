"""Each measure is what a dense computation gives, at any block size, for any mask; and so is its baseline."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.look.made import layer, look, pointing, side, uniform
from torch import Tensor

from regard.config import Kind, ModelConfig
from regard.errors import ConfigError
from regard.look import measures as module
from regard.look.capture import capture
from regard.look.corpus import CorpusMeasure, interval_of_mean, measure_corpus
from regard.look.measures import BAND, MEASURES, NEAR, HeadMeasures, measure
from regard.look.reading import Look
from regard.look.sides import Side
from regard.models.transformer import build
from regard.nn.masks import Mask

TEXT = "<s> a cat , a dog and a cat saw a bird . then the dog saw <x> the cat again . </s>"
WORDS = TEXT.split()
OTHER = "<s> die katze sah den hund , der hund sah die katze"
TARGET = OTHER.split()
LINKS = {2: [1, 2], 5: [3], 7: [0], 10: [4, 5, 9]}


def asked(
    name: str, seen: Side, looking: Side, cross: bool, i: int, j: int, links: dict[int, list[int]]
) -> bool:
    """Say whether a measure asks for the weight of row i on column j, as its description says."""
    token = seen.tokens[j]
    height, width = len(looking.ids), len(seen.ids)
    return {
        "first": j == 0,
        "special": token.special and j > 0,
        "punctuation": token.text in (",", "."),
        "self": not cross and i == j,
        "previous": not cross and j == i - 1,
        "next": not cross and j == i + 1,
        "same": not cross and i != j and looking.ids[i] == seen.ids[j],
        "induction": not cross and 0 < j < i and seen.ids[j - 1] == looking.ids[i],
        "local": not cross and abs(i - j) <= NEAR,
        "global": not cross and abs(i - j) > NEAR,
        "diagonal": cross and abs((i + 0.5) / height - (j + 0.5) / width) <= BAND,
        "links": j in links.get(i, []),
    }[name]  # fmt: skip


def dense(
    weights: Tensor, spans: Tensor, seen: Side, looking: Side, cross: bool, links: dict[int, list[int]]
) -> dict[str, tuple[float, int]]:
    """Compute all measures of one matrix, row by row."""
    found: dict[str, list[float]] = {}
    means: list[tuple[float, float]] = []
    for i, row in enumerate(weights.double().tolist()):
        a, b = spans[i].tolist()
        if b - a > 1:
            entropy = -sum(w * math.log(w) for w in row if w > 0)
            found.setdefault("entropy", []).append(entropy)
            found.setdefault("relative entropy", []).append(entropy / math.log(b - a))
            if not cross:
                found.setdefault("distance", []).append(sum(w * abs(i - j) for j, w in enumerate(row)))
            means.append((i, sum(w * j for j, w in enumerate(row))))
        for name in MEASURES:
            if name in ("entropy", "relative entropy", "distance", "monotone", "links first"):
                continue
            cells = [j for j in range(a, b) if asked(name, seen, looking, cross, i, j, links)]
            if 0 < len(cells) < b - a:
                found.setdefault(name, []).append(sum(row[j] for j in cells))
                if name == "links":
                    found.setdefault("links first", []).append(float(row.index(max(row)) in cells))
    result = {name: (sum(values) / len(values), len(values)) for name, values in found.items()}
    if cross and means:
        x, y = torch.tensor(means, dtype=torch.float64).T
        still = float(y.std(correction=0)) < 1e-4 * weights.shape[1]
        result["monotone"] = (0.0 if still else float(torch.corrcoef(torch.stack((x, y)))[0, 1])), len(means)
    return result


def agrees(one: HeadMeasures, given: Look, links: dict[int, list[int]]) -> None:
    captured = given.layers[one.layer]
    spans, cross = captured.spans, one.layer.startswith("cross")
    weights = captured.weights(one.head, slice(None), slice(None))
    place = torch.arange(captured.shape[1])
    allowed = ((place >= spans[:, :1]) & (place < spans[:, 1:])).double()
    even = allowed / allowed.sum(1, keepdim=True).clamp(min=1)
    texts = given.columns_of(one.layer), given.rows_of(one.layer)
    values = dense(weights, spans, *texts, cross, links)
    chance = dense(even, spans, *texts, cross, links)
    if "links" in chance:
        chance["links first"] = chance["links"]
    assert set(one.values) == set(values)
    for name, found in one.values.items():
        assert found.n == values[name][1], name
        assert found.value == pytest.approx(values[name][0], rel=1e-4, abs=2e-6), name
        assert found.baseline == pytest.approx(chance[name][0], rel=1e-9, abs=1e-9), name


def looked(kind: Kind, **settings: Any) -> Look:
    torch.manual_seed(1)
    config = ModelConfig(kind=kind, vocab_size=50, width=32, num_layers=2, num_heads=4, **settings)
    network: Any = build(config).eval()
    for weight in network.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3)
    paired = kind == "encoder-decoder"
    texts = [side(WORDS, "source"), side(TARGET, "target")] if paired else [side(WORDS)]
    with capture() as kept:
        network.hidden(*(torch.tensor([text.ids]) for text in texts))
    return Look({text.name: text for text in texts}, kept.of())


@pytest.mark.parametrize("at_once", [2**24, 100])
@pytest.mark.parametrize("extra", [{}, {"window": 4}, {"num_kv_heads": 2, "position": "alibi"}])
@pytest.mark.parametrize("kind", ["encoder", "decoder", "encoder-decoder"])
def test_every_measure_is_that_of_the_whole_matrix(
    kind: Kind, extra: dict[str, Any], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", at_once)
    given = looked(kind, **extra)
    links = {name.partition(".")[0]: LINKS for name in given.layers}
    found = measure(given, links=links)
    assert [(one.layer, one.head) for one in found] == [(n, h) for n in given.layers for h in range(4)]
    for one in found:
        assert not one.sampled
        agrees(one, given, LINKS)


def test_rows_without_any_key_count_for_nothing() -> None:
    words = ["<pad>", "<pad>", *"abab", "<pad>"]
    real = torch.tensor([[word != "<pad>" for word in words]])
    made = layer("encoder.0", torch.rand(2, 7, 7), Mask(keys=real))
    given = look([made], side(words))
    assert [int(n) for n in made.spans[:, 1] - made.spans[:, 0]] == [0, 0, 4, 4, 4, 4, 0]
    for one in measure(given):
        assert one.values["entropy"].n == 4
        agrees(one, given, {})
    nobody = layer("encoder.0", torch.rand(1, 7, 7), Mask(keys=torch.zeros(1, 7, dtype=torch.bool)))
    (one,) = measure(look([nobody], side(words)))
    assert one.values == {}


def test_packed_documents_and_equal_tokens() -> None:
    numbers = torch.tensor([[0] * 4 + [1] * 8])
    for words in (["a"] * 12, ["a", "b"] * 6):  # all equal: more cells than are worth listing
        made = layer("decoder.0", torch.rand(2, 12, 12), Mask(causal=True, documents=(numbers, numbers)))
        given = look([made], side(words))
        for one in measure(given):
            agrees(one, given, {})


def test_even_attention_is_its_own_baseline() -> None:
    made = [
        layer("encoder.0", uniform(23)[None]), layer("decoder.0", uniform(12, causal=True)[None], Mask(causal=True)),
        layer("cross.0", uniform(12, 23)[None]),
    ]  # fmt: skip
    for one in measure(look(made, side(WORDS, "source"), side(TARGET, "target"))):
        for name, found in one.values.items():
            assert found.value == pytest.approx(found.baseline, abs=1e-5), name


def test_a_sample_is_marked_and_is_of_evenly_spaced_rows() -> None:
    made = layer("decoder.0", torch.rand(2, 23, 23), Mask(causal=True, window=9))
    given = look([made], side(WORDS))
    every = measure(given)
    for one, sample, most in zip(every, measure(given, rows=5), measure(given, rows=99), strict=True):
        assert (sample.rows, sample.sampled) == (5, True)
        assert sample.values["entropy"].n == 4  # the first row sees itself alone
        assert (most.rows, most.sampled) == (23, False)
        assert most.values == one.values
    rows = torch.tensor([6, 11, 16, 22])
    weights = made.weights(0, rows, slice(None))
    expected = float(torch.special.entr(weights).sum(1).mean())
    assert measure(given, rows=5)[0].values["entropy"].value == pytest.approx(expected, rel=1e-5)


def test_what_can_not_be_measured_is_refused() -> None:
    given = look([layer("encoder.0", uniform(23)[None])], side(WORDS))
    with pytest.raises(ConfigError, match=r"no layer 'encoder\.1'"):
        measure(given, layers=["encoder.1"])
    with pytest.raises(ConfigError, match="rows=0"):
        measure(given, rows=0)
    with pytest.raises(ConfigError, match="'cross', which is no layer"):
        measure(given, links={"cross": {}})
    for bad in ({23: [1]}, {-1: [0]}, {0: [23]}):
        with pytest.raises(ConfigError, match="outside the text"):
            measure(given, links={"encoder": bad})


def test_over_a_corpus_each_text_counts_once() -> None:
    shares = [0.2, 0.5, 0.9]
    looks = [
        look(
            [layer("encoder.0", pointing(dict.fromkeys(range(n), 0), uniform(n), share)[None])],
            side(["<s>", *(f"w{i}" for i in range(n - 1))]),
        )
        for n, share in zip((10, 20, 15), shares, strict=True)
    ]
    alone = [measure(one)[0].values["first"] for one in looks]
    (head,) = measure_corpus(iter(looks), extremes=1)
    found = head.values["first"]
    assert isinstance(found, CorpusMeasure)
    assert (head.rows, found.n, found.texts) == (45, 45, 3)
    values = [one.value for one in alone]
    assert found.value == pytest.approx(sum(values) / 3)
    assert found.baseline == pytest.approx((1 / 10 + 1 / 20 + 1 / 15) / 3)
    assert (found.deviation, found.low, found.high) == pytest.approx(interval_of_mean(values))
    assert found.best == ((2, values[2]),)
    assert found.worst == ((0, values[0]),)


def test_links_of_a_corpus_go_with_its_texts() -> None:
    given = look([layer("encoder.0", torch.eye(5)[None])], side(list("abcde")))
    links = [{"encoder": {1: [1]}}, {"encoder": {1: [2]}}]
    (head,) = measure_corpus([given, given], links=links)
    assert head.values["links first"].value == pytest.approx(0.5)
    assert head.values["links"].baseline == pytest.approx(0.2)
    with pytest.raises(ValueError, match="shorter"):
        measure_corpus([given, given], links=links[:1])


def test_the_interval_is_students() -> None:
    # t of 9 degrees of freedom at 97.5 %: 2.262; of 29: 2.045 (any table of the distribution)
    for n, t in ((10, 2.262), (30, 2.045)):
        values = [float(i) for i in range(n)]
        deviation, low, high = interval_of_mean(values)
        assert (high - low) / 2 == pytest.approx(t * deviation / math.sqrt(n), rel=2e-3)
    assert interval_of_mean([3.0]) == (0.0, -math.inf, math.inf)


def test_a_layer_counts_once_and_a_head_alone() -> None:
    found = look([layer(f"encoder.{i}", uniform(8).expand(2, 8, 8)) for i in range(3)], side(WORDS[:8]))
    every = measure(found)
    assert measure(found, layers=["encoder.1", "encoder.1"]) == every[2:4]
    assert measure(found, layers=["encoder.1.1"]) == every[3:4]
    assert measure(found, layers=["encoder.2.0", "encoder.0", "encoder.0.1"]) == [every[4], *every[:2]]
    (one, two) = measure_corpus([found, found], layers=["encoder.1", "encoder.1"])
    assert (one.rows, two.rows) == (16, 16) and one.values["entropy"].n == 2 * every[2].values["entropy"].n
    for layers, told in (
        ([], "name at least one"),
        (["encoder.1.2"], "no head 2"),
        (["encoder.0.²"], "no head"),
    ):
        with pytest.raises(ConfigError, match=told):
            measure(found, layers=layers)
