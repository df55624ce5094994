"""Entities and words: exact places in any text, by examples and by properties."""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regard.tasks.entities import STRATEGIES, Entity, clusters, find_entities, split_words

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
IOBES = ("O", "S-PER", "B-PER", "I-PER", "E-PER", "S-LOC")


def certain(tags: list[str], labels: tuple[str, ...] = LABELS) -> list[Any]:
    """Give each tag nearly all of the probability."""
    return [
        np.where(np.arange(len(labels)) == labels.index(tag), 0.9, 0.1 / (len(labels) - 1)) for tag in tags
    ]


def found(
    text: str, tags: list[str], labels: tuple[str, ...] = LABELS, strategy: str = "simple"
) -> list[Any]:
    """Tag the words of a text, which are its tokens here."""
    words = split_words(text)
    entities = find_entities(
        text, words, certain(tags, labels), [True] * len(words), labels, strategy=strategy
    )
    return [(entity.label, entity.text) for entity in entities]


@pytest.mark.parametrize(
    ("labels", "tags", "expected"),
    [
        (LABELS, "B-PER I-PER O B-LOC", [("PER", "Ada Byron"), ("LOC", "London")]),
        (LABELS, "I-PER I-PER O I-LOC", [("PER", "Ada Byron"), ("LOC", "London")]),  # IOB1
        (LABELS, "I-PER B-PER O O", [("PER", "Ada"), ("PER", "Byron")]),
        (LABELS, "B-PER I-LOC O O", [("PER", "Ada"), ("LOC", "Byron")]),
        (IOBES, "B-PER E-PER O S-LOC", [("PER", "Ada Byron"), ("LOC", "London")]),
        (IOBES, "S-PER S-PER O O", [("PER", "Ada"), ("PER", "Byron")]),
        (("N", "V", "O"), "N N V N", [("N", "Ada Byron"), ("V", "saw"), ("N", "London")]),
    ],
)
def test_every_way_of_writing_tags_is_read(labels: tuple[str, ...], tags: str, expected: list[Any]) -> None:
    assert found("Ada Byron saw London", tags.split(), labels) == expected


def test_none_gives_each_token_with_its_whole_tag() -> None:
    assert found("Ada Byron saw", ["B-PER", "I-PER", "O"], strategy="none") == [
        ("B-PER", "Ada"),
        ("I-PER", "Byron"),
    ]


def test_strategies_choose_a_words_tag() -> None:
    # One word of three tokens: the first says LOC, the surest O, the mean PER.
    rows = [np.array([0.1, 0.4, 0.5]), np.array([0.7, 0.3, 0.0]), np.array([0.1, 0.55, 0.35])]
    labels = ("O", "PER", "LOC")
    places, begins = [(0, 2), (2, 4), (4, 6)], [True, False, False]

    def entities(strategy: str) -> tuple[Entity, ...]:
        return find_entities("abcdef", places, rows, begins, labels, strategy=strategy)

    assert entities("first") == (Entity("LOC", "abcdef", 0, 6, 0.5),)
    (average,) = entities("average")
    assert (average.label, average.text) == ("PER", "abcdef")
    assert average.score == pytest.approx(1.25 / 3)
    assert entities("max") == ()
    assert [(e.label, e.text) for e in entities("simple")] == [("LOC", "ab"), ("PER", "ef")]


@pytest.mark.parametrize(
    ("text", "places", "expected"),
    [
        (
            "e\u0301a",
            [(0, 1), (2, 3)],
            ["e\u0301", "a"],
        ),  # a tokenizer that strips accents leaves the mark out
        ("👍🏽!", [(0, 1), (2, 3)], ["👍🏽", "!"]),
        ("👩\u200d👧x", [(0, 1), (2, 3), (3, 4)], ["👩\u200d👧", "x"]),
        ("🇫🇷🇩🇪", [(0, 1), (2, 4)], ["🇫🇷", "🇩🇪"]),
        ("東京", [(0, 1), (1, 2)], ["東", "京"]),
        (" a ", [(0, 3)], ["a"]),
        ("é", [(0, 1), (0, 1)], ["é"]),  # two bytes of one character
        ("ab", [(1, 2), (0, 1)], ["a", "b"]),
        ("a b", [(0, 1), (1, 2), (2, 2), (2, 3)], ["a", "b"]),  # tokens of a space and of nothing
    ],
)
def test_entities_are_whole_characters(text: str, places: list[Any], expected: list[str]) -> None:
    rows = [np.array([0.0, 1.0])] * len(places)
    entities = find_entities(text, places, rows, [True] * len(places), ("O", "X"), strategy="none")
    assert [entity.text for entity in entities] == expected


MIXED = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from("aA é\u0301\u0308👩👍🏽\u200d\ufe0f🇫🇷東京がカ゛ก็हिन्दी ..'s,—@#\u00a0\t\n"),
    ),
    max_size=30,
)


@given(MIXED, st.data(), st.sampled_from(STRATEGIES))
def test_places_are_exact_in_any_text(text: str, data: st.DataObject, strategy: str) -> None:
    place = st.integers(0, len(text))
    drawn = data.draw(st.lists(st.tuples(place, place), max_size=8))
    places = [(min(pair), max(pair)) for pair in drawn]
    numbers = data.draw(st.lists(st.integers(0, 4), min_size=len(places), max_size=len(places)))
    begins = data.draw(st.lists(st.booleans(), min_size=len(places), max_size=len(places)))
    rows = certain([LABELS[i] for i in numbers])
    entities = find_entities(text, places, rows, begins, LABELS, strategy=strategy)
    last = 0
    for entity in entities:
        assert last <= entity.start < entity.end <= len(text)
        assert text[entity.start : entity.end] == entity.text == entity.text.strip()
        after = text[entity.end : entity.end + 1]
        assert not after or unicodedata.category(after)[0] != "M"
        last = entity.end


@given(MIXED)
def test_words_hold_every_character_but_spaces_in_order(text: str) -> None:
    words = split_words(text)
    last = 0
    for start, end in words:
        assert not text[last:start].strip()
        assert start < end
        assert text[start:end].split() == [text[start:end]]
        last = end
    assert not text[last:].strip()
    bounds = clusters(text)
    assert all(bounds[start] == start and bounds[end] == end for start, end in words)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'Obama\'s visit to the U.S. ("Paris"), cost $5,000.',
            'Obama|\'s|visit|to|the|U.S.|(|"|Paris|"|)|,|cost|$|5,000|.',
        ),
        ("J. R. Smith—ok... wow!!", "J.|R.|Smith|—|ok|...|wow|!!"),
        ("Dr. Who 's in St. Ives. We 're 'so' sorry", "Dr.|Who|'s|in|St.|Ives|.|We|'re|'|so|'|sorry"),
        ("l'été à São-Paulo, don't", "l'été|à|São-Paulo|,|don't"),
        ("@user #tag a@b.org, #", "@user|#tag|a@b.org|,|#"),
        ("東京に行った。OK？", "東|京|に|行|っ|た|。|OK|？"),
        ("\u200bx 👩\u200d👧👍🏽!", "\u200bx|👩\u200d👧|👍🏽|!"),
        ("हिन्दी में।", "हिन्दी|में|।"),
        ("  ", ""),
    ],
)
def test_words_are_those_of_data_sets(text: str, expected: str) -> None:
    assert "|".join(text[start:end] for start, end in split_words(text)) == expected
