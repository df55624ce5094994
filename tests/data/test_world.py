"""The demo's world: what it writes is correct, unambiguous, reproducible and split by combination."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from regard.data.world import Example, World, chance, majority, pronoun_correct, split_words, write
from regard.data.world_forms import Noun, lexicon
from regard.data.world_plan import FAMOUS, split_of
from regard.errors import ConfigError

COUNT = {"train": 8_000, "valid": 1_000, "test": 1_000}


@functools.cache
def sample(split: str, seed: int = 0) -> tuple[Example, ...]:
    return tuple(World(seed).examples(split, COUNT[split]))


@functools.cache
def everything() -> tuple[Example, ...]:
    return sample("train")[:3_000] + sample("valid") + sample("test") + World().famous()


# -- the famous pair -------------------------------------------------------------------------------


def test_the_famous_pair() -> None:
    tired, wide = World(seed=5).famous()
    assert tired.source == "The animal didn't cross the street because it was too tired."
    assert wide.source == "The animal didn't cross the street because it was too wide."
    assert tired.target == "L'animal n'a pas traversé la rue parce qu'il était trop fatigué."
    assert wide.target == "L'animal n'a pas traversé la rue parce qu'elle était trop large."
    assert (tired.combination, wide.combination) == FAMOUS
    for example, noun, form, other in ((tired, "animal", "il", "street"), (wide, "rue", "elle", "animal")):
        (link,) = example.links
        assert example.source_words[link.source] == "it"
        assert example.target_words[link.target] == link.form == form
        assert example.target_words[link.referent_target] == noun
        assert [example.source_words[i] for i in link.distractors_source] == [other]
        assert link.forms == ("il", "elle") and link.distinguishes
    pairs = {(tired.source_words[i], tired.target_words[j]) for i, j in tired.alignment}
    negation = {
        ("didn't", "n'"),
        ("didn't", "a"),
        ("didn't", "pas"),
        ("because", "parce"),
        ("because", "qu'"),
    }
    assert negation <= pairs
    assert {("it", "il"), ("cross", "traversé"), ("tired", "fatigué"), (".", ".")} <= pairs


# -- order and splits ------------------------------------------------------------------------------


def test_an_example_depends_on_seed_split_and_index_alone() -> None:
    many = list(World(3).examples("valid", 40))
    assert list(World(3).examples("valid", 15)) == many[:15]
    assert World(3).example("valid", 31) == many[31]
    assert list(World(4).examples("valid", 40)) != many


def test_the_world_needs_no_torch_and_no_hash_order() -> None:
    program = (
        "import sys; from regard.data.world import World; assert 'torch' not in sys.modules;"
        "sys.stdout.reconfigure(encoding='utf-8');"
        "[print(e.source, e.target, e.alignment) for e in World().examples('test', 60)]"
    )
    texts = []
    for seed in ("1", "2"):
        source = str(Path(__file__).parents[2] / "src")
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": source}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=environment, capture_output=True, check=True, encoding="utf-8")
        texts.append(done.stdout)
    here = "".join(f"{e.source} {e.target} {e.alignment}\n" for e in World().examples("test", 60))
    assert texts == [here, here]


def test_splits_share_no_combination_and_no_text() -> None:
    parts = {name: sample(name) + tuple(World(9).examples(name, 500)) for name in COUNT}
    for name, examples in parts.items():
        assert all(split_of(example.combination) == name for example in examples)
    for key in ("combination", "source"):
        seen = [{getattr(example, key) for example in examples} for examples in parts.values()]
        assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]
    assert not {example.combination for example in parts["train"]} & set(FAMOUS)


def test_every_word_is_in_training() -> None:
    train = sample("train")
    told = {word for example in train for word in example.combination}
    words = lexicon()
    assert set(words.nouns) <= told
    assert set(words.predicates) <= told
    used = {word for example in train for word in example.source_words}
    assert set(words.attributes) <= used


def test_the_size_of_the_world() -> None:
    words = lexicon()
    assert len(words.nouns) >= 400 and len(words.verbs) >= 60
    assert len(words.predicates) + len(words.attributes) >= 140
    genders = [noun.gender for noun in words.nouns.values()]
    assert 0.4 < genders.count("f") / len(genders) < 0.6
    train = sample("train")
    linked = [example.links[0] for example in train if example.links]
    assert len(linked) / len(train) >= 0.7
    assert sum(link.distinguishes for link in linked) / len(train) >= 0.4
    assert {example.shape for example in train} == set(World.SHAPES)
    assert 11 <= sum(len(example.source_words) for example in train) / len(train) <= 14


# -- one reading -----------------------------------------------------------------------------------


def test_the_adjective_fits_only_the_referent() -> None:
    words = lexicon()
    named = by_form()
    for example in everything():
        for link in example.links:
            fits = words.predicates[example.combination[1]].fits
            referent = named[head(example, link.referent_source)]
            assert referent[0].kind in fits, example.source
            assert referent[0].lemma in (example.combination[0], example.combination[2])
            for place in link.distractors_source:
                rival = named[head(example, place)]
                assert rival[0].kind not in fits, example.source
                assert rival[1] == referent[1], "a distractor has the pronoun's number"
            rivals = [named[head(example, place)][0].gender for place in link.distractors_source]
            assert not link.distinguishes or {"m", "f"} == {referent[0].gender, *rivals}
            assert example.source_words[link.source].lower() == ("they" if referent[1] else "it")


def test_a_plural_can_be_seen_in_english() -> None:
    nouns = lexicon().nouns.values()
    assert all(noun.english[0] != noun.english[1] for noun in nouns)
    forms = [form for noun in nouns for form in noun.english]
    assert len(set(forms)) == len(forms)


# -- an independent reading of the French ----------------------------------------------------------

STEMS = "hérisson hibou haie harpe hache haricot hamster héron hangar héros yacht haut haute hanté hantée"
ASPIRATED = {word + end for word in STEMS.split() for end in ("", "s", "x")}
ARTICLES = {
    "the": {"ms": "le", "fs": "la", "p": "les", "vowel": "l'"},
    "this": {"ms": "ce", "fs": "cette", "p": "ces", "vowel m": "cet"},
    "our": {"ms": "notre", "fs": "notre", "p": "nos"},
    "my": {"ms": "mon", "fs": "ma", "p": "mes", "vowel f": "mon"},
    "a": {"ms": "un", "fs": "une", "p": "des"},
}
ENGLISH = {"these": "this", "an": "a", "some": "a"}


def opens_with_vowel(word: str) -> bool:
    return word.lower() not in ASPIRATED and word.lower()[0] in "aeiouhyéèêâàîôûœ"


@functools.cache
def by_form() -> dict[str, tuple[Noun, bool]]:
    return {
        form: (noun, plural)
        for noun in lexicon().nouns.values()
        for plural, form in ((False, noun.english[0]), (True, noun.english[1]))
    }


def head(example: Example, place: int) -> str:
    """Read the whole English noun that ends at a word."""
    two = " ".join(example.source_words[max(place - 1, 0) : place + 1]).lower()
    return two if two in by_form() else example.source_words[place].lower()


def phrases(example: Example) -> list[tuple[str, str, Noun, bool, int]]:
    """Find (determiner, attribute, noun, plural, place of the noun) by reading the English alone."""
    out = []
    words = [word.lower() for word in example.source_words]
    for i, word in enumerate(words):
        if ENGLISH.get(word, word) not in ARTICLES or words[i + 1] in ("morning", "week"):
            continue
        attribute = words[i + 1] if words[i + 1] in lexicon().attributes else ""
        start = i + 1 + bool(attribute)
        # "the orange" has no attribute; none of the attributes is a noun of the world.
        for length in (2, 1):
            form = " ".join(words[start : start + length])
            if form in by_form():
                noun, plural = by_form()[form]
                out.append((ENGLISH.get(word, word), attribute, noun, plural, start + length - 1))
                break
        else:
            raise AssertionError(f"no noun after {word!r}: {example.source}")
    return out


def test_determiners_and_attributes_agree_with_their_noun() -> None:
    for example in everything():
        for determiner, attribute, noun, plural, place in phrases(example):
            first = next(j for i, j in example.alignment if i == place)
            french = [word.lower() for word in example.target_words]
            expected = noun.french[plural].split()
            assert french[first : first + len(expected)] == expected, example.target
            at = first - 1
            if attribute:
                adjective = lexicon().attributes[attribute]
                form = adjective.form(noun.gender, plural)
                if adjective.before:
                    special = {"beau": "bel", "vieux": "vieil", "nouveau": "nouvel"}
                    if not plural and opens_with_vowel(french[first]):
                        form = special.get(form, form)
                    assert french[at] == form, example.target
                    at -= 1
                else:
                    assert french[first + len(expected)] == form, example.target
            check_determiner(example, determiner, noun, plural, french, at)


def check_determiner(
    example: Example, determiner: str, noun: Noun, plural: bool, french: list[str], at: int
) -> None:
    forms = ARTICLES[determiner]
    expected = forms["p"] if plural else forms[noun.gender + "s"]
    if not plural and opens_with_vowel(french[at + 1]):
        expected = forms.get("vowel", forms.get(f"vowel {noun.gender}", expected))
    before = french[at - 1] if at else ""
    contracted = {"le": ("du", "au"), "les": ("des", "aux")}.get(expected, ())
    pre_attribute = determiner == "a" and plural and french[at] in ("de", "d'")
    assert french[at] == expected or french[at] in contracted or pre_attribute, (example.target, french[at])
    if french[at] == expected and expected in ("le", "les"):
        assert before not in ("de", "à"), example.target


def test_elision_and_contraction() -> None:
    short = {"le", "la", "de", "ne", "que", "je", "puisque", "se"}
    for example in everything():
        words = [word.lower() for word in example.target_words]
        for word, following in itertools.pairwise(words):
            if word.endswith("'"):
                assert opens_with_vowel(following), example.target
                assert word in ("l'", "n'", "qu'", "d'", "j'", "s'", "puisqu'"), example.target
                assert word != "s'" or following in ("il", "ils")
            elif word in short or word in ("ma", "ce"):
                assert not opens_with_vowel(following), example.target
            assert (word, following) not in (("si", "il"), ("si", "ils"), ("de", "le"), ("de", "les"))
            assert (word, following) not in (("à", "le"), ("à", "les"), ("de", "des"))


def test_pronouns_predicates_and_participles_agree() -> None:
    words = lexicon()
    moving = {verb.french[1] for verb in words.verbs.values() if verb.with_etre}
    for example in everything():
        french = [word.lower() for word in example.target_words]
        for link in example.links:
            noun, plural = by_form()[head(example, link.referent_source)]
            assert link.form == {"m": "il", "f": "elle"}[noun.gender] + ("s" if plural else "")
            assert french[link.target] == link.form
            be, *after = french[link.target + 1 :]
            adjective = words.predicates[example.combination[1]]
            have, exist = ("avait", "a", "avaient", "ont"), ("était", "est", "étaient", "sont")
            helpers = have if adjective.with_avoir else exist
            assert be in helpers[2 * plural :][:2], example.target
            form = adjective.form(noun.gender, plural).split()
            degree = after[0] in ("trop", "très", "si", "vraiment", "encore")
            assert after[degree : degree + len(form)] == form, example.target
        if example.links and example.shape != "but":
            check_motion(example, french, moving)


def check_motion(example: Example, french: list[str], moving: set[str]) -> None:
    """A participle after est or sont agrees with the subject, the first noun of the combination."""
    noun = lexicon().nouns[example.combination[0]]
    for place, word in enumerate(french):
        stem = next((m for m in moving if word in (m, m + "e", m + "s", m + "es")), None)
        helper = {"est", "sont"} & set(french[max(place - 3, 0) : place])
        if stem and helper:
            assert word == stem + ("e" if noun.gender == "f" else "") + ("s" if "sont" in helper else "")


def test_the_participle_agrees_with_an_object_before_it() -> None:
    for example in World(2, {"object relative": 1.0}).examples("train", 300):
        _, _, noun, plural, _ = phrases(example)[0]
        ending = ("e" if noun.gender == "f" else "") + ("s" if plural else "")
        verbs = {verb.french[1] for verb in lexicon().verbs.values()}
        expected = {verb + ending if not (ending == "s" and verb[-1] == "s") else verb for verb in verbs}
        assert expected & set(example.target_words), example.target


def test_irregular_forms() -> None:
    plurals = """cheval chevaux, chacal chacals, hibou hiboux, trou trous, bateau bateaux, portail portails, œuf œufs,
        souris souris, journal journaux, hôpital hôpitaux, pont-levis ponts-levis"""
    pairs = {noun.french for noun in lexicon().nouns.values()}
    for item in plurals.split(","):
        assert tuple(item.split()) in pairs, item
    assert ("pomme de terre", "pommes de terre") in pairs
    adjectives = """long longue longs longues, sec sèche secs sèches, jaloux jalouse jaloux jalouses,
        doux douce doux douces, bas basse bas basses, frais fraîche frais fraîches, léger légère légers légères,
        curieux curieuse curieux curieuses, large large larges larges"""
    forms = {adjective.french[:4] for adjective in lexicon().predicates.values()}
    for item in adjectives.split(","):
        assert tuple(item.split()) in forms, item


# -- the text, its words and their alignment -------------------------------------------------------


def test_spans_and_splitting_give_the_words() -> None:
    for example in everything():
        for text, words, spans, language in (
            (example.source, example.source_words, example.source_spans, "en"),
            (example.target, example.target_words, example.target_spans, "fr"),
        ):
            assert tuple(text[start:end] for start, end in spans) == words
            assert tuple(split_words(text, language)) == spans, text
            assert text[0].isupper() and text[-1] in ".?" and "  " not in text
            for before, after in itertools.pairwise(words):
                if before in (".", "?"):
                    assert after[0].isupper()


def test_every_word_is_aligned() -> None:
    for example in everything():
        assert {i for i, _ in example.alignment} == set(range(len(example.source_words))), example.source
        assert {j for _, j in example.alignment} == set(range(len(example.target_words))), example.target
        assert list(example.alignment) == sorted(set(example.alignment))
        for link in example.links:
            assert (link.source, link.target) in example.alignment
            assert (link.referent_source, link.referent_target) in example.alignment


def test_english_articles() -> None:
    for example in everything():
        words = [word.lower() for word in example.source_words]
        for word, following in itertools.pairwise(words):
            if word in ("a", "an"):
                vowel = following[0] in "aeiou" and following not in ("university", "ewe")
                assert word == ("an" if vowel else "a"), example.source


# -- scoring ---------------------------------------------------------------------------------------


def test_pronoun_correct_reads_paraphrases() -> None:
    tired, wide = World().famous()
    assert pronoun_correct(tired, tired.target) and pronoun_correct(wide, wide.target)
    assert not pronoun_correct(tired, wide.target) and not pronoun_correct(wide, tired.target)
    assert pronoun_correct(tired, "L’animal n’a pas traversé la rue, car il était très las.")
    assert pronoun_correct(tired, "L'animal a-t-il traversé ? Non, il était fatigué.")
    assert pronoun_correct(wide, "Comme elle était trop large, l'animal n'a pas traversé la rue.")
    assert pronoun_correct(wide, "Il y avait une rue. Elle était large.")
    assert pronoun_correct(tired, "L'animal n'a pas traversé.") is False
    assert pronoun_correct(tired, "") is False
    plain = next(World(shapes={"plain": 1.0}).examples("train", 1))
    assert pronoun_correct(plain, plain.target) is None
    assert all(pronoun_correct(example, example.target) for example in sample("test") if example.links)


def test_chance_and_majority() -> None:
    test = sample("test")
    assert chance(test) == 0.5
    assert 0.4 < majority(sample("train"), test) < 0.6
    tired, wide = World().famous()
    assert majority([tired], [tired, wide]) == 0.5 and majority([wide], [wide]) == 1.0
    assert chance([]) != chance([])  # NaN


def test_write(tmp_path: Path) -> None:
    folder = write(tmp_path / "world", train=30, valid=4, test=5, seed=2)
    assert sorted(path.name for path in folder.iterdir()) == [
        "test.en", "test.fr", "test.jsonl", "train.en", "train.fr", "valid.en", "valid.fr",
    ]  # fmt: skip
    assert len((folder / "train.fr").read_text(encoding="utf-8").splitlines()) == 30
    gold = [json.loads(line) for line in (folder / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    expected = [json.loads(json.dumps(dataclasses.asdict(e))) for e in World(2).examples("test", 5)]
    assert gold == expected


def test_scenes_limit_what_is_told() -> None:
    few = World(5, {"because": 1.0}, ["drive", "sail"])
    examples = list(few.examples("train", 60))
    subjects = {example.combination[0] for example in examples}
    assert "car" in subjects or "truck" in subjects
    assert not subjects & {"animal", "child", "dog"}
    assert examples == list(World(5, {"because": 1.0}, ["drive", "sail"]).examples("train", 60))
    assert examples != list(World(5, {"because": 1.0}).examples("train", 60))


def test_bad_settings_are_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'because'"):
        World(shapes={"becuase": 1.0})
    with pytest.raises(ConfigError, match="every shape has weight 0"):
        World(shapes={"because": 0.0})
    with pytest.raises(ConfigError, match="at least 0"):
        World(shapes={"because": -1.0})
    with pytest.raises(ConfigError, match="did you mean 'drive'"):
        World(scenes=["drvie"])
    with pytest.raises(ConfigError, match="at least one scene"):
        World(scenes=[])
    with pytest.raises(ConfigError, match="train, valid, test"):
        World().example("dev", 0)
    with pytest.raises(ConfigError, match="at least 0"):
        write(tmp_path, train=-1, valid=0, test=0)
