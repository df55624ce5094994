"""Write phrases of the demo's world in English and French at once, keeping which word translates which.

Both sides are written by one hand: every word carries the keys of what it expresses, and words that share a
key are aligned. French elision and contraction happen as words meet.
"""

from __future__ import annotations

import functools

from regard.data.world_forms import CONTRACTIONS, ELIDING, Noun, article_an, starts_with_vowel
from regard.data.world_plan import Phrase

_vowel = functools.lru_cache(maxsize=4096)(starts_with_vowel)

# Fixed expressions: English and French words, each with the number of the piece of meaning it shares.
Pieces = tuple[tuple[tuple[str, int], ...], tuple[tuple[str, int], ...]]
PLACES: dict[str, Pieces] = {
    "near": ((("near", 0),), (("près", 0), ("de", 0))),
    "behind": ((("behind", 0),), (("derrière", 0),)),
    "in front of": ((("in", 0), ("front", 0), ("of", 0)), (("devant", 0),)),
    "next to": ((("next", 0), ("to", 0)), (("à", 0), ("côté", 0), ("de", 0))),
}
# Relative clauses: English (past one, past many, present one, present many), French alike, what follows.
RELATIVES: dict[str, tuple[tuple[str, ...], tuple[str, ...], Pieces]] = {
    "was near": (("was", "were", "is", "are"), ("était", "étaient", "est", "sont"), PLACES["near"]),
    "was behind": (("was", "were", "is", "are"), ("était", "étaient", "est", "sont"), PLACES["behind"]),
    "lived near": (
        ("lived", "lived", "lives", "live"),
        ("vivait", "vivaient", "vit", "vivent"),
        PLACES["near"],
    ),
    "came from": (
        ("came", "came", "comes", "come"),
        ("venait", "venaient", "vient", "viennent"),
        ((("from", 0),), (("de", 0),)),
    ),
    "belonged to": (
        ("belonged", "belonged", "belongs", "belong"),
        ("appartenait", "appartenaient", "appartient", "appartiennent"),
        ((("to", 0),), (("à", 0),)),
    ),
}
_DETERMINERS = {"this": ("ce", "cette", "ces"), "our": ("notre", "notre", "nos"), "my": ("mon", "ma", "mes"),
                "a": ("un", "une", "des")}  # fmt: skip


class Writer:
    """Collect the words of both languages with their keys, sentence starts and nouns."""

    def __init__(self) -> None:
        self.source: list[str] = []
        self.target: list[str] = []
        self.source_keys: list[tuple[int, ...]] = []
        self.target_keys: list[tuple[int, ...]] = []
        self.nouns: list[tuple[Phrase, int, int]] = []
        self.pronoun: tuple[int, int] | None = None
        self._keys = 0

    def key(self) -> int:
        """Make a new piece of meaning."""
        self._keys += 1
        return self._keys

    def english(self, word: str, *keys: int) -> int:
        """Write an English word; return its index."""
        self.source.append(word)
        self.source_keys.append(keys)
        return len(self.source) - 1

    def french(self, word: str, *keys: int) -> int:
        """Write a French word, eliding or contracting the one before it; return its index."""
        if self.target:
            last = self.target[-1]
            if last in ELIDING and _vowel(word):
                self.target[-1] = last[:-1] + "'"
            elif last in ("de", "à") and (last, word) in CONTRACTIONS:
                self.target[-1] = CONTRACTIONS[last, word]
                self.target_keys[-1] += keys
                return len(self.target) - 1
            elif last == "si" and word in ("il", "ils"):
                self.target[-1] = "s'"
        self.target.append(word)
        self.target_keys.append(keys)
        return len(self.target) - 1

    def both(self, mark: str) -> None:
        """Write a punctuation mark on both sides."""
        key = self.key()
        self.english(mark, key)
        self.french(mark, key)

    def pieces(self, expression: Pieces) -> None:
        """Write a fixed expression."""
        first = self._keys + 1
        self._keys += 2
        for word, number in expression[0]:
            self.english(word, first + number)
        for word, number in expression[1]:
            self.french(word, first + number)

    def alignment(self) -> tuple[tuple[int, int], ...]:
        """Pair every source word with the target words that share a key with it."""
        places: dict[int, list[int]] = {}
        for j, keys in enumerate(self.target_keys):
            for key in keys:
                places.setdefault(key, []).append(j)
        pairs = []
        for i, keys in enumerate(self.source_keys):
            found = [j for key in keys for j in places.get(key, ())]
            pairs += [(i, j) for j in (found if len(keys) == 1 else sorted(set(found)))]
        return tuple(pairs)


def phrase(out: Writer, plan: Phrase) -> None:
    """Write a noun phrase: determiner, attribute, noun."""
    noun, plural, attribute = plan.noun, plan.plural, plan.attribute
    article, about = out.key(), out.key()
    french_words = noun.french[plural].split(" ")
    before = after = ""
    if attribute is not None:
        form = attribute.form(noun.gender, plural)
        if attribute.before:
            masculine = noun.gender == "m" and not plural
            before = attribute.french[4] if masculine and _vowel(french_words[0]) else form
        else:
            after = form
    english_words = noun.english[plural].split(" ")
    first = attribute.lemma if attribute is not None else english_words[0]
    out.english(_english_determiner(plan.determiner, plural, first), article)
    described = out.key()
    if attribute is not None:
        out.english(attribute.lemma, described)
    for word in english_words:
        source = out.english(word, about)
    _french_determiner(out, plan.determiner, noun, plural, before or french_words[0], article, bool(before))
    if before:
        out.french(before, described)
    target = out.french(french_words[0], about)
    for word in french_words[1:]:
        out.french(word, about)
    if after:
        out.french(after, described)
    out.nouns.append((plan, source, target))


def _english_determiner(name: str, plural: bool, following: str) -> str:
    if name == "this":
        return "these" if plural else "this"
    if name == "a":
        return "some" if plural else article_an(following)
    return name


def _french_determiner(
    out: Writer, name: str, noun: Noun, plural: bool, following: str, key: int, adjective_first: bool
) -> None:
    """Write the French determiner, which looks at the word after it."""
    feminine, vowel = noun.gender == "f", _vowel(following)
    if name == "the":
        word = "les" if plural else "l'" if vowel else "la" if feminine else "le"
    else:
        forms = _DETERMINERS[name]
        word = forms[2] if plural else forms[feminine]
        if vowel and word in ("ce", "ma"):
            word = "cet" if word == "ce" else "mon"
        elif word == "des" and adjective_first:
            word = "de"
    out.french(word, key)


def tail(out: Writer, plan: Phrase, tense: str) -> None:
    """Write what hangs on a noun: a place, or a relative clause."""
    if plan.landmark is None:
        return
    if plan.tail in PLACES:
        out.pieces(PLACES[plan.tail])
    else:
        english, french, following = RELATIVES[plan.tail]
        column = plan.plural + (0 if tense in ("past", "could") else 2)
        key = out.key()
        out.english("who" if plan.noun.kind == "people" else "that", key)
        out.french("qui", key)
        key = out.key()
        out.english(english[column], key)
        out.french(french[column], key)
        out.pieces(following)
    phrase(out, plan.landmark)
