"""Read the lexicon of the demo's world and inflect its words: plurals, feminines, tenses, vowel onsets.

The exceptions to its rules are data (`world_words`, `world_verbs`). Nothing is read before `lexicon()` is
called.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from regard.data import world_scenes, world_verbs, world_words

_PLURAL_OUX = frozenset(("bijou", "caillou", "chou", "genou", "hibou", "joujou", "pou"))
VOWELS = "aeiouàâäéèêëîïôöùûüœæ"


@dataclass(frozen=True, slots=True)
class Noun:
    """Name a thing in both languages: forms (singular, plural), gender ("m" or "f") and kind."""

    english: tuple[str, str]
    french: tuple[str, str]
    gender: str
    kind: str
    countable: bool = True

    @property
    def lemma(self) -> str:
        """Give the English singular, by which the world knows the noun."""
        return self.english[0]


@dataclass(frozen=True, slots=True)
class Adjective:
    """Describe a noun; `french` holds (m. sg., f. sg., m. pl., f. pl., m. sg. before a vowel)."""

    lemma: str
    french: tuple[str, str, str, str, str]
    fits: frozenset[str]
    gradable: bool = True
    ambient: bool = False
    absolute: bool = False
    with_avoir: bool = False
    before: bool = False

    def form(self, gender: str, plural: bool) -> str:
        """Give the French form that agrees with a noun of this gender and number."""
        return self.french[2 * plural + (gender == "f")]


@dataclass(frozen=True, slots=True)
class Verb:
    """Conjugate one verb.

    English is (base, -s, past, -ing), French (infinitive, participle, after il, after ils, future stem).
    """

    lemma: str
    english: tuple[str, str, str, str]
    particle: tuple[str, ...]
    french: tuple[str, str, str, str, str]
    preposition: str
    with_etre: bool

    def participle(self, gender: str, plural: bool) -> str:
        """Give the past participle that agrees with a noun of this gender and number."""
        return agree(self.french[1], gender, plural)


@dataclass(frozen=True, slots=True)
class Scene:
    """Join verbs to kinds of subject and object and to adjectives as reasons (see `world_scenes`)."""

    name: str
    weight: float
    inverse: bool
    subjects: tuple[Noun, ...]
    verbs: tuple[Verb, ...]
    objects: tuple[Noun, ...]
    reasons: dict[tuple[str, str], tuple[Adjective, ...]]  # (polarity "-" or "+", role "s" or "o")


@dataclass(frozen=True, slots=True)
class Deed:
    """Join verbs to kinds of subject and object where no reason is told."""

    subjects: tuple[Noun, ...]
    verbs: tuple[Verb, ...]
    objects: tuple[Noun, ...]


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Hold every word of the world, read once."""

    nouns: dict[str, Noun]
    by_kind: dict[str, tuple[Noun, ...]]
    predicates: dict[str, Adjective]
    attributes: dict[str, Adjective]
    clashes: dict[str, frozenset[str]]
    verbs: dict[str, Verb]
    scenes: tuple[Scene, ...]
    deeds: tuple[Deed, ...]
    journeys: tuple[Deed, ...]
    attributes_of: dict[str, tuple[Adjective, ...]]
    predicates_of: dict[str, tuple[Adjective, ...]]


def starts_with_vowel(word: str) -> bool:
    """Tell whether a French word makes the word before it elide ("l'hôtel" but "le hérisson")."""
    first = word[0].lower()
    if first not in VOWELS and first not in "hy":
        return False
    blocked = word.lower().rstrip("sx") in world_words.ASPIRATED
    return not blocked and (first != "y" or word == "y")


def article_an(word: str) -> str:
    """Choose "a" or "an" for the English word that follows it."""
    if word in world_words.CONSONANT_ONSETS:
        return "a"
    return "an" if word[0] in "aeiou" or word in world_words.VOWEL_ONSETS else "a"


def english_plural(word: str) -> str:
    """Form a regular English plural."""
    if word[-1] == "y" and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "z", "ch", "sh")) else "s")


def french_plural(word: str) -> str:
    """Form a French plural by the rules for nouns; words that break them carry theirs in the lexicon."""
    if word[-1] in "sxz":
        return word
    if word.endswith("al"):
        return word[:-2] + "aux"
    takes_x = word.endswith(("au", "eu")) or word in _PLURAL_OUX
    return word + ("x" if takes_x else "s")


def french_feminine(word: str) -> str:
    """Form the feminine of a regular French adjective or participle."""
    if word.endswith("eux"):
        return word[:-1] + "se"
    return word if word[-1] == "e" else word + "e"


def agree(participle: str, gender: str, plural: bool) -> str:
    """Inflect a past participle from its masculine singular."""
    form = participle + "e" if gender == "f" else participle
    return form + "s" if plural and form[-1] != "s" else form


def adjective_forms(text: str) -> tuple[str, str, str, str, str]:
    """Derive the five French forms from ``masculine[/feminine[/masculine before a vowel]]``."""
    parts = text.split("/")
    masculine = parts[0]
    feminine = parts[1] if len(parts) > 1 else french_feminine(masculine)
    plural = masculine if masculine[-1] in "sx" else masculine + ("x" if masculine.endswith("eau") else "s")
    return masculine, feminine, plural, feminine + "s", parts[2] if len(parts) > 2 else masculine


# Words that lose their last letter before a vowel; articles are elided with their noun, "si" before "il".
ELIDING = frozenset(("de", "ne", "que", "je", "puisque"))
CONTRACTIONS = {("de", "le"): "du", ("de", "les"): "des", ("à", "le"): "au", ("à", "les"): "aux"}


def _kinds(text: str) -> list[str]:
    """Expand the names of sets of kinds, in a fixed order."""
    out: list[str] = []
    for word in text.split():
        out.extend(world_words.KIND_SETS[word].split() if word in world_words.KIND_SETS else [word])
    assert all(kind in world_words.NOUNS for kind in out), text
    return out


def _noun(item: str, kind: str) -> Noun:
    english, french = (" ".join(side.split()) for side in item.split("="))
    french, gender = french.rsplit(" ", 1)
    singular, _, plural = english.partition("/")
    masculine, _, many = french.partition("/")
    return Noun(
        english=(singular, plural or english_plural(singular)),
        french=(masculine, many or french_plural(masculine)),
        gender=gender[0],
        kind=kind,
        countable="~" not in gender,
    )


def _adjective(line: str, *, attribute: bool) -> Adjective:
    lemma, french, kinds, marks = [*(part.strip() for part in line.split(";")), ""][:4]
    return Adjective(
        lemma=lemma,
        french=(french,) * 5 if "i" in marks or "h" in marks else adjective_forms(french),
        fits=frozenset(_kinds(kinds)),
        gradable="n" not in marks,
        ambient="a" in marks,
        absolute="r" in marks,
        with_avoir="h" in marks,
        before=attribute and "b" in marks,
    )


def _verb(line: str) -> Verb:
    left, right = (side.strip() for side in line.split("="))
    words, _, particle = left.partition(" + ")
    base, past, ing = [*words.split(), "", ""][:3]
    stem = base[:-1] if base[-1] == "e" and base[-2:] != "ee" else base
    third = base[:-1] + "ies" if base[-1] == "y" and base[-2] not in "aeou" else base
    third = (
        third if third != base else base + ("es" if base.endswith(("s", "x", "z", "ch", "sh", "o")) else "s")
    )
    regular = base[:-1] + "ied" if base[-1] == "y" and base[-2] not in "aeou" else stem + "ed"
    with_etre = right.endswith(" ê")
    forms, _, preposition = right.removesuffix(" ê").partition(" + ")
    infinitive, *given = forms.split()
    root = infinitive[:-2]
    participle, one, many, future = given or [root + "é", root + "e", root + "ent", infinitive]
    return Verb(
        lemma=f"{base} {particle}".strip(),
        english=(base, third, past or regular, ing or stem + "ing"),
        particle=tuple(particle.split()),
        french=(infinitive, participle, one, many, future),
        preposition=preposition,
        with_etre=with_etre,
    )


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _scene(
    block: str, lexicon: tuple[dict[str, tuple[Noun, ...]], dict[str, Adjective], dict[str, Verb]]
) -> Scene:
    by_kind, predicates, verbs = lexicon
    head, body = block.split("]", 1)
    weight, *marks = body.split("\n", 1)[0].split()
    fields: dict[str, str] = {}
    for line in body.split("\n", 1)[1].splitlines():
        name, colon, value = line.partition(":")
        if colon:
            last = name
        fields[last] = fields.get(last, "") + " " + (value if colon else line)
    lists = {"unable": ("-", "s"), "forbidding": ("-", "o"), "eager": ("+", "s"), "inviting": ("+", "o")}
    return Scene(
        name=head.strip(),
        weight=float(weight),
        inverse="inverse" in marks,
        subjects=tuple(noun for kind in _kinds(fields["subjects"]) for noun in by_kind[kind]),
        verbs=tuple(verbs[name.strip()] for name in fields["verbs"].split(",")),
        objects=tuple(noun for kind in _kinds(fields["objects"]) for noun in by_kind[kind]),
        reasons={
            key: tuple(predicates[word.replace("_", " ")] for word in fields.get(name, "").split())
            for name, key in lists.items()
        },
    )


def _deeds(text: str, by_kind: dict[str, tuple[Noun, ...]], verbs: dict[str, Verb]) -> tuple[Deed, ...]:
    deeds = []
    for line in _lines(text):
        subjects, names, objects = line.split(";")
        deeds.append(
            Deed(
                subjects=tuple(noun for kind in _kinds(subjects) for noun in by_kind[kind]),
                verbs=tuple(verbs[name.strip()] for name in names.split(",")),
                objects=tuple(noun for kind in _kinds(objects) for noun in by_kind[kind]),
            )
        )
    return tuple(deeds)


@functools.cache
def lexicon() -> Lexicon:
    """Read the tables of `world_words`, `world_verbs` and `world_scenes`, once."""
    by_kind = {
        kind: tuple(_noun(item, kind) for item in text.replace("\n", " ").split(","))
        for kind, text in world_words.NOUNS.items()
    }
    predicates = {
        a.lemma: a for a in (_adjective(line, attribute=False) for line in _lines(world_words.PREDICATES))
    }
    attributes = {
        a.lemma: a for a in (_adjective(line, attribute=True) for line in _lines(world_words.ATTRIBUTES))
    }
    verbs = {verb.lemma: verb for verb in (_verb(line) for line in _lines(world_verbs.VERBS))}
    return Lexicon(
        nouns={noun.lemma: noun for nouns in by_kind.values() for noun in nouns},
        by_kind=by_kind,
        predicates=predicates,
        attributes=attributes,
        clashes={name: frozenset(text.split()) for name, text in world_words.CLASHES.items()},
        verbs=verbs,
        scenes=tuple(
            _scene(block, (by_kind, predicates, verbs))
            for block in world_scenes.SCENES.split("\n[")
            if block.strip()
        ),
        deeds=_deeds(world_verbs.DEEDS, by_kind, verbs),
        journeys=_deeds(world_verbs.JOURNEYS, by_kind, verbs),
        attributes_of={
            kind: tuple(a for a in attributes.values() if kind in a.fits) for kind in world_words.NOUNS
        },
        predicates_of={
            kind: tuple(a for a in predicates.values() if kind in a.fits) for kind in world_words.NOUNS
        },
    )
