"""A head that was made for a role has it, and one that was made for nothing has none."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.look.made import layer, look, pointing, side, uniform
from torch import Tensor

from regard.look.corpus import measure_corpus
from regard.look.measures import MEASURES, Links, measure
from regard.look.roles import NONE, RULES, Role, roles
from regard.nn.masks import Mask

# Every word occurs twice, in the same order, so that the second half can be foretold; a separator stands between.
HALF = [f"w{i}" for i in range(14)]
WORDS = ["<s>", *HALF, "<x>", *HALF, "."]
SIZE = len(WORDS)
AGAIN = {i: WORDS.index(WORDS[i]) for i in range(SIZE) if WORDS.index(WORDS[i]) < i}
CAUSAL = uniform(SIZE, causal=True)
EVEN = uniform(SIZE)


def told(name: str, weights: Tensor, *, links: Links | None = None) -> list[Role]:
    """Give the roles of a layer of one head."""
    mask = Mask(causal=True) if name.startswith("decoder") else None
    sides = side(WORDS, "source"), side([f"t{i}" for i in range(weights.shape[0])], "target")
    text = (side(WORDS),) if weights.shape[0] == SIZE else sides
    given = look([layer(name, weights[None], mask)], *text)
    (found,) = roles(measure(given, links=links)).values()
    return found


def to(column: int, start: int = 1) -> dict[int, int]:
    return dict.fromkeys(range(start, SIZE), column)


@pytest.mark.parametrize(
    ("role", "name", "weights"),
    [
        ("sink", "decoder.0", pointing(to(0), CAUSAL)),
        ("sink", "encoder.0", pointing(to(0, 0), EVEN)),
        ("separator", "encoder.0", pointing(to(15, 0), EVEN)),
        ("punctuation", "encoder.0", pointing(to(SIZE - 1, 0), EVEN)),
        ("previous token", "decoder.0", pointing({i: i - 1 for i in range(1, SIZE)}, CAUSAL)),
        ("previous token", "encoder.0", pointing({i: i - 1 for i in range(1, SIZE)}, EVEN)),
        ("next token", "encoder.0", pointing({i: i + 1 for i in range(SIZE - 1)}, EVEN)),
        ("itself", "encoder.0", pointing({i: i for i in range(SIZE)}, EVEN)),
        ("same token", "decoder.0", pointing(AGAIN, CAUSAL)),
        ("induction", "decoder.0", pointing({i: j + 1 for i, j in AGAIN.items()}, CAUSAL)),
        ("uniform", "encoder.0", EVEN),
        ("uniform", "decoder.0", CAUSAL),
    ],
)  # fmt: skip
def test_a_head_has_the_role_that_it_was_made_for(role: str, name: str, weights: Tensor) -> None:
    found = told(name, weights)
    assert [one.name for one in found] == [role]
    assert 0.3 <= found[0].score <= 1
    assert "evenly" in found[0].why and "n=" in found[0].why


def test_near_and_far() -> None:
    place = torch.arange(SIZE)
    away = (place[:, None] - place).abs()
    near = (away <= 8).float() + 0.001
    assert [one.name for one in told("encoder.0", near / near.sum(1, keepdim=True))] == ["local"]
    far = (away > 12).float() + 0.001
    far[:, [0, 15, SIZE - 1]] *= 0.3
    assert [one.name for one in told("encoder.0", far / far.sum(1, keepdim=True))] == ["global"]


def test_cross_attention_along_the_diagonal_aligns() -> None:
    rows = 20
    rest = uniform(rows, SIZE)
    along = {i: round(i * (SIZE - 1) / (rows - 1)) for i in range(rows)}
    assert [one.name for one in told("cross.0", pointing(along, rest))] == ["alignment"]
    backwards = {i: SIZE - 1 - column for i, column in along.items()}
    assert "alignment" not in [one.name for one in told("cross.0", pointing(backwards, rest))]
    assert [one.name for one in told("cross.0", pointing(dict.fromkeys(range(rows), 15), rest))] == [
        "separator"
    ]
    assert [one.name for one in told("cross.0", rest)] == ["uniform"]


def test_links_that_were_given_are_a_role() -> None:
    linked = {i: (7 * i + 3) % SIZE for i in range(2, 14)}
    links = {"encoder": {i: [j] for i, j in linked.items()}}
    found = told("encoder.0", pointing(linked, EVEN), links=links)
    assert found[0].name == "links"
    assert "links 0.90, evenly 0.03 (n=12)" in found[0].why


def test_two_roles_stand_in_the_order_of_their_strength() -> None:
    both = pointing({i: i - 1 for i in range(2, SIZE)}, pointing(to(0, 2), CAUSAL), share=0.55)
    found = told("decoder.0", both)
    assert [one.name for one in found] == ["previous token", "sink"]
    assert found[0].score > found[1].score


def test_where_nothing_stands_out_the_nearest_is_named() -> None:
    torch.manual_seed(0)
    random = torch.randn(SIZE, SIZE).mul(3).softmax(1)
    (found,) = told("encoder.0", random)
    assert (found.name, found.score) == (NONE, 0.0)
    assert found.why.startswith("nearest is ")
    short = look([layer("encoder.0", torch.eye(3)[None])], side(list("abc")))
    assert roles(measure(short)) == {("encoder.0", 0): [Role(NONE, 0.0, "fewer than 5 rows have a choice")]}


def test_roles_are_told_of_a_corpus_too() -> None:
    looks = [look([layer("decoder.0", pointing(to(0), CAUSAL)[None], Mask(causal=True))], side(WORDS))] * 2
    assert [one.name for one in roles(measure_corpus(looks))["decoder.0", 0]] == ["sink"]


def test_every_rule_is_of_a_measure_and_says_what_it_means() -> None:
    assert len({rule.role for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.measure in MEASURES and (rule.also is None or rule.also in MEASURES)
        assert 0 < rule.least < 1 and rule.meaning


@pytest.mark.parametrize("broken", [slice(None), slice(3, 4)])
def test_what_is_no_number_has_no_role(broken: slice) -> None:
    whole = layer("decoder.0", CAUSAL[None], Mask(causal=True))
    query = whole.query.clone()
    query[:, broken] = torch.nan
    (found,) = roles(measure(look([replace(whole, query=query)], side(WORDS)))).values()
    assert (found[0].name, found[0].score) == (NONE, 0.0) and "nan" not in found[0].why
    assert broken != slice(None) or found[0].why == "its measures are not numbers"
