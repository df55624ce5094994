"""Write the demo's world: parallel English-French sentences in which a pronoun must find its noun.

    "The animal didn't cross the street because it was too tired."  ->  "… parce qu'il était trop fatigué."
    "The animal didn't cross the street because it was too wide."   ->  "… parce qu'elle était trop large."

In French the pronoun agrees with its noun in gender and number, so translating `it` right requires finding
the noun; the adjective alone says which one it is, for it fits exactly one noun of its sentence. Whole
combinations of subject, adjective and object are kept for validation and test, so that a score there shows
composition, not memory.

The example of one seed, split and index is always the same. Standard library only.

    >>> tired, wide = World().famous()
    >>> tired.target
    "L'animal n'a pas traversé la rue parce qu'il était trop fatigué."
    >>> wide.links[0].form, wide.target_words[wide.links[0].referent_target]
    ('elle', 'rue')
"""

from __future__ import annotations

import dataclasses
import functools
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from regard.data.world_draw import Drawer
from regard.data.world_forms import Lexicon, lexicon
from regard.data.world_plan import FAMOUS, SHAPES, SPLITS, Phrase, Plan, pronoun_may_mean
from regard.data.world_render import render
from regard.errors import ConfigError, suggest

__all__ = ["Example", "Link", "World", "chance", "majority", "pronoun_correct", "split_words", "write"]

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Link:
    """Tie a pronoun to the noun it stands for; all places are indices of words.

    `source` and `target` are the pronoun's, `referent_source` and `referent_target` its noun's (of several
    words, the head). `distractors_source` are the other nouns of the sentence that the English pronoun could
    stand for by number alone. `form` is the French pronoun in lower case and `forms` both genders of it.
    `distinguishes` is true where the form shows which noun was chosen: subject and object could both be meant
    and differ in gender.
    """

    source: int
    target: int
    referent_source: int
    referent_target: int
    distractors_source: tuple[int, ...]
    form: str
    forms: tuple[str, ...]
    distinguishes: bool


@dataclass(frozen=True, slots=True)
class Example:
    """Hold one sentence in both languages with its gold words, alignment and links.

    A word is what `split_words` makes of the text, and its span is (start, end) in characters. `alignment`
    holds pairs (source word, target word); every word of either side is in some pair. `combination` (subject,
    adjective or verb, object) decides the split. `shape` is one of `World.SHAPES`.
    """

    source: str
    target: str
    source_words: tuple[str, ...]
    target_words: tuple[str, ...]
    source_spans: tuple[Span, ...]
    target_spans: tuple[Span, ...]
    alignment: tuple[tuple[int, int], ...]
    links: tuple[Link, ...]
    combination: tuple[str, str, str]
    shape: str


class World:
    """Generate examples from one seed; `shapes` gives other weights to the shapes of sentences, by name.

    Shapes left out of `shapes` are not drawn. `scenes` names what the reasons may be about; None: everything.
    Raises `ConfigError` for an unknown shape, scene or split, or weights that are negative or all zero.
    """

    SHAPES: Mapping[str, float] = SHAPES

    def __init__(
        self, seed: int = 0, shapes: Mapping[str, float] | None = None, scenes: Iterable[str] | None = None
    ) -> None:
        weights = dict(SHAPES if shapes is None else shapes)
        for name, weight in weights.items():
            if name not in SHAPES:
                hint = suggest(name, SHAPES) or f"choose from {', '.join(SHAPES)}."
                raise ConfigError(f"{name!r} is no shape of the world's sentences; {hint}")
            if not 0 <= weight < float("inf"):
                raise ConfigError(f"the weight of shape {name!r} is {weight}; give a number of at least 0.")
        if not any(weights.values()):
            raise ConfigError("every shape has weight 0; give at least one a weight above 0.")
        self.seed = seed
        self._lexicon = _of_scenes(scenes)
        self._shapes = {name: float(weights[name]) for name in SHAPES if weights.get(name)}

    def example(self, split: str, index: int) -> Example:
        """Write the example at `index` of a split; it depends on seed, split and index alone."""
        if split not in SPLITS:
            raise ConfigError(f"{split!r} is no split; choose from {', '.join(SPLITS)}.")
        # A string seeds through SHA-512: the same on every version, unlike hash().
        rng = random.Random(f"regard world {self.seed} {split} {index}")
        return _example(Drawer(self._lexicon, rng, self._shapes).plan(split))

    def examples(self, split: str, count: int) -> Iterator[Example]:
        """Write the first `count` examples of a split; a text may recur within it, never in another."""
        return (self.example(split, index) for index in range(count))

    def famous(self) -> tuple[Example, Example]:
        """Write the famous pair, "too tired" and "too wide"; both belong to the test split."""
        words = lexicon()
        pair = []
        for combination, about in zip(FAMOUS, ("s", "o"), strict=True):
            subject, adjective, object_ = combination
            plan = Plan(
                shape="because",
                combination=combination,
                subject=Phrase(words.nouns[subject]),
                object=Phrase(words.nouns[object_]),
                verb=words.verbs["cross"],
                negative="not",
                adjective=words.predicates[adjective],
                about=about,
                degree="too",
                connective="because",
            )
            pair.append(_example(plan))
        return pair[0], pair[1]


@functools.lru_cache(maxsize=8)
def _cut(scenes: tuple[str, ...]) -> Lexicon:
    words = lexicon()
    return dataclasses.replace(words, scenes=tuple(s for s in words.scenes if s.name in scenes))


def _of_scenes(scenes: Iterable[str] | None) -> Lexicon:
    """Give the lexicon with these scenes alone."""
    if scenes is None:
        return lexicon()
    wanted = tuple(scenes)
    names = [scene.name for scene in lexicon().scenes]
    for name in wanted:
        if name not in names:
            hint = suggest(name, names) or f"choose from {', '.join(names)}."
            raise ConfigError(f"{name!r} is no scene of the world; {hint}")
    if not wanted:
        raise ConfigError("a world needs at least one scene.")
    return _cut(wanted)


def _example(plan: Plan) -> Example:
    out = render(plan)
    source, source_words, source_spans = _join(out.source, space_before="")
    target, target_words, target_spans = _join(out.target, space_before="?")
    links: tuple[Link, ...] = ()
    if out.pronoun is not None:
        about, rival = (plan.subject, plan.object) if plan.about == "s" else (plan.object, plan.subject)
        assert about is not None and rival is not None
        places = {id(phrase): (s, t) for phrase, s, t in out.nouns}
        plural = about.plural
        link = Link(
            source=out.pronoun[0],
            target=out.pronoun[1],
            referent_source=places[id(about)][0],
            referent_target=places[id(about)][1],
            distractors_source=tuple(
                s
                for phrase, s, _ in out.nouns
                if phrase is not about and pronoun_may_mean(phrase.noun, phrase.plural, plural)
            ),
            form=out.target[out.pronoun[1]].lower(),
            forms=("ils", "elles") if plural else ("il", "elle"),
            distinguishes=pronoun_may_mean(rival.noun, rival.plural, plural)
            and rival.noun.gender != about.noun.gender,
        )
        links = (link,)
    return Example(
        source=source,
        target=target,
        source_words=source_words,
        target_words=target_words,
        source_spans=source_spans,
        target_spans=target_spans,
        alignment=out.alignment(),
        links=links,
        combination=plan.combination,
        shape=plan.shape,
    )


def _join(words: list[str], *, space_before: str) -> tuple[str, tuple[str, ...], tuple[Span, ...]]:
    """Join words into a text: capitals where sentences start, no space after elision or before a mark."""
    text, spans, capital = "", [], True
    for i, word in enumerate(words):
        if capital:
            word = words[i] = word[0].upper() + word[1:]
        if i and text[-1] != "'" and (word not in ".,?" or word in space_before):
            text += " "
        spans.append((len(text), len(text) + len(word)))
        text += word
        capital = word in ".?"
    return text, tuple(words), tuple(spans)


_WORD = re.compile(r"aujourd'hui|\w+(?:-\w+)*'?|[^\w\s]", re.IGNORECASE)
_ENGLISH_WORD = re.compile(r"\w+(?:['-]\w+)*|[^\w\s]")


def split_words(text: str, language: str) -> list[tuple[int, int]]:
    """Find the words of a text of this world, as spans of characters; `language` is "en" or "fr".

    A punctuation mark is a word. English contractions are one word ("didn't"); a French word that is elided
    keeps its apostrophe and ends there ("L'", "animal"), save in "aujourd'hui". Words with hyphens are one
    ("Est-ce").
    """
    assert language in ("en", "fr"), language
    pattern = _WORD if language == "fr" else _ENGLISH_WORD
    return [match.span() for match in pattern.finditer(text.replace("\u2019", "'"))]


_PRONOUNS = frozenset(("il", "elle", "ils", "elles"))
# What a clause with a subject pronoun starts after, in this world and in paraphrases of it.
_BEFORE_SUBJECT = frozenset(
    ("que", "qu'", "puisque", "puisqu'", "car", "comme", "si", "s'", "mais", "donc", "et", "quand", *".?!,;:")
)


def pronoun_correct(example: Example, hypothesis: str) -> bool | None:
    """Tell whether a French translation uses the gold pronoun for each link; None where there is no link.

    Whatever else the translation says, its subject pronouns (il, elle, ils, elles) are compared in order with
    the gold ones. Where it has more of them than the example has links, only those that open a clause count.
    The impersonal "il y a" and inverted pronouns ("a-t-il") do not count.
    """
    if not example.links:
        return None
    text = hypothesis.lower().replace("\u2019", "'")
    words = [text[start:end] for start, end in split_words(text, "fr")]
    found = [
        i
        for i, word in enumerate(words)
        if word in _PRONOUNS and words[i + 1 : i + 2] != ["y"] and words[i + 1 : i + 3] != ["n'", "y"]
    ]
    if len(found) > len(example.links):
        found = [i for i in found if i == 0 or words[i - 1] in _BEFORE_SUBJECT]
    return [words[i] for i in found] == [link.form.lower() for link in example.links]


def chance(examples: Iterable[Example]) -> float:
    """Give the expected accuracy of guessing a form for every link that distinguishes.

    Returns NaN where no link does.
    """
    shares = [1 / len(link.forms) for example in examples for link in example.links if link.distinguishes]
    return sum(shares) / len(shares) if shares else float("nan")


def majority(train_examples: Iterable[Example], examples: Iterable[Example]) -> float:
    """Give the accuracy of always choosing the form that is commonest in training, for each number apart.

    Both counts are over links that distinguish. Returns NaN where `examples` has none.
    """
    counts = Counter(link.form for example in train_examples for link in example.links if link.distinguishes)
    links = [link for example in examples for link in example.links if link.distinguishes]
    right = sum(link.form == max(link.forms, key=lambda form: counts[form]) for link in links)
    return right / len(links) if links else float("nan")


def write(folder: str | Path, *, train: int, valid: int, test: int, seed: int = 0) -> Path:
    """Write the world to files: `train.en`, `train.fr` and so on, one sentence a line, and `test.jsonl`.

    Each line of test.jsonl is an `Example` with all its gold data. Returns the folder, which is made where
    missing. Files of these names are replaced.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    world = World(seed)
    for split, count in zip(SPLITS, (train, valid, test), strict=True):
        if count < 0:
            raise ConfigError(f"{split}={count} examples can't be written; give a number of at least 0.")
        with (
            open(folder / f"{split}.en", "w", encoding="utf-8", newline="\n") as english,
            open(folder / f"{split}.fr", "w", encoding="utf-8", newline="\n") as french,
        ):
            for example in world.examples(split, count):
                english.write(example.source + "\n")
                french.write(example.target + "\n")
    with open(folder / "test.jsonl", "w", encoding="utf-8", newline="\n") as gold:
        for example in world.examples("test", test):
            gold.write(json.dumps(dataclasses.asdict(example), ensure_ascii=False) + "\n")
    return folder
