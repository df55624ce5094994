"""Write a plan of the demo's world in English and French at once, keeping which word translates which.

Both sides are written by one hand: every word carries the keys of what it expresses, and words that share a key are
aligned. French elision and contraction happen as words meet.
"""

from __future__ import annotations

import dataclasses
import functools

from regard.data.world_forms import CONTRACTIONS, ELIDING, Noun, Verb, article_an, starts_with_vowel
from regard.data.world_plan import Phrase, Plan

_vowel = functools.lru_cache(maxsize=4096)(starts_with_vowel)

# Fixed expressions: English and French words, each with the number of the piece of meaning it shares.
Pieces = tuple[tuple[tuple[str, int], ...], tuple[tuple[str, int], ...]]
OPENINGS: dict[str, Pieces] = {
    "yesterday": ((("yesterday", 0),), (("hier", 0),)),
    "last week": ((("last", 0), ("week", 1)), (("la", 1), ("semaine", 1), ("dernière", 0))),
    "this morning": ((("this", 0), ("morning", 1)), (("ce", 0), ("matin", 1))),
    "one day": ((("one", 0), ("day", 1)), (("un", 0), ("jour", 1))),
    "on Monday": ((("on", 0), ("Monday", 0)), (("lundi", 0),)),
    "last night": ((("last", 0), ("night", 1)), (("hier", 0), ("soir", 1))),
    "today": ((("today", 0),), (("aujourd'hui", 0),)),
    "now": ((("now", 0),), (("maintenant", 0),)),
    "tomorrow": ((("tomorrow", 0),), (("demain", 0),)),
    "next week": ((("next", 0), ("week", 1)), (("la", 1), ("semaine", 1), ("prochaine", 0))),
    "soon": ((("soon", 0),), (("bientôt", 0),)),
    "tonight": ((("tonight", 0),), (("ce", 0), ("soir", 0))),
    "every day": ((("every", 0), ("day", 1)), (("chaque", 0), ("jour", 1))),
    "every morning": ((("every", 0), ("morning", 1)), (("chaque", 0), ("matin", 1))),
    "every week": ((("every", 0), ("week", 1)), (("chaque", 0), ("semaine", 1))),
}
PLACES: dict[str, Pieces] = {
    "near": ((("near", 0),), (("près", 0), ("de", 0))),
    "behind": ((("behind", 0),), (("derrière", 0),)),
    "in front of": ((("in", 0), ("front", 0), ("of", 0)), (("devant", 0),)),
    "next to": ((("next", 0), ("to", 0)), (("à", 0), ("côté", 0), ("de", 0))),
}
# Relative clauses: English (past one, past many, present one, present many), the same in French, what follows.
RELATIVES: dict[str, tuple[tuple[str, ...], tuple[str, ...], Pieces]] = {
    "was near": (("was", "were", "is", "are"), ("était", "étaient", "est", "sont"), PLACES["near"]),
    "was behind": (("was", "were", "is", "are"), ("était", "étaient", "est", "sont"), PLACES["behind"]),
    "lived near": (("lived", "lived", "lives", "live"), ("vivait", "vivaient", "vit", "vivent"), PLACES["near"]),
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
CONNECTIVES: dict[str, Pieces] = {
    "because": ((("because", 0),), (("parce", 0), ("que", 0))),
    "since": ((("since", 0),), (("puisque", 0),)),
    "as": ((("as", 0),), (("car", 0),)),
    "fronted as": ((("as", 0),), (("comme", 0),)),
    "although": ((("although", 0),), (("même", 0), ("si", 0))),
    "if": ((("if", 0),), (("si", 0),)),
    "but": ((("but", 0),), (("mais", 0),)),
}
_DEGREES = {"too": "trop", "very": "très", "so": "si", "really": "vraiment", "still": "encore"}
_LONG_FORMS = {
    "didn't": "did not",
    "doesn't": "does not",
    "don't": "do not",
    "isn't": "is not",
    "aren't": "are not",
    "won't": "will not",
    "couldn't": "could not",
}
_SIGHTS = {"see": ("saw", "vu"), "find": ("found", "trouvé"), "photograph": ("photographed", "photographié"),
           "draw": ("drew", "dessiné")}  # fmt: skip
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
            if last in ELIDING:
                if _vowel(word):
                    self.target[-1] = last[:-1] + "'"
                elif (last, word) in CONTRACTIONS:
                    self.target[-1] = CONTRACTIONS[last, word]
                    self.target_keys[-1] += keys
                    return len(self.target) - 1
            elif last == "à" and (last, word) in CONTRACTIONS:
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
        return tuple(
            (i, j)
            for i, keys in enumerate(self.source_keys)
            for j in (places.get(keys[0], ()) if len(keys) == 1 else sorted({j for k in keys for j in places.get(k, ())}))
        )


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


def _auxiliary(tense: str, negative: bool, plural: bool) -> str:
    """Give the English auxiliary of a tense, or "" where a plain past or present has none."""
    positive, denied = {
        "past": ("did", "didn't"),
        "habit": ("do", "don't") if plural else ("does", "doesn't"),
        "present": ("are", "aren't") if plural else ("is", "isn't"),
        "future": ("will", "won't"),
        "can": ("can", "can't"),
        "could": ("could", "couldn't"),
    }[tense]
    return denied if negative else positive


def english_verb(out: Writer, plan: Plan, plural: bool, keys: tuple[int, int, int, int], inverted: bool) -> None:
    """Write the English verb group; `keys` are those of tense, negation, verb and particle."""
    verb = plan.verb
    assert verb is not None
    time, no, deed, particle = keys
    base, third, past, ing = verb.english
    helped = plan.tense in ("present", "future", "can", "could") or plan.negative == "not"
    if inverted:
        out.english(ing if plan.tense == "present" else base, deed)
    elif plan.negative == "never":
        out.english("never", no)
        out.english(past, time, deed)
    elif helped:
        word = _auxiliary(plan.tense, bool(plan.negative), plural)
        if plan.long_form and word in _LONG_FORMS:
            helper, negation = _LONG_FORMS[word].split()
            out.english(helper, time)
            out.english(negation, no)
        elif plan.negative:
            out.english(word, time, no)
        else:
            out.english(word, time)
        out.english(ing if plan.tense == "present" else base, deed)
    else:
        word = past if plan.tense == "past" else base if plural else third
        out.english(word, time, deed)
    for word in verb.particle:
        out.english(word, particle)


def french_verb(out: Writer, plan: Plan, noun: Noun, plural: bool, keys: tuple[int, int, int, int]) -> None:
    """Write the French verb group, its participle agreeing where the past is made with `être`."""
    verb = plan.verb
    assert verb is not None
    time, no, deed, particle = keys
    infinitive, _, one, many, future = verb.french
    rest = ""
    if plan.tense == "past":
        head = ("sont" if plural else "est") if verb.with_etre else ("ont" if plural else "a")
        rest = verb.participle(noun.gender, plural) if verb.with_etre else verb.french[1]
    elif plan.tense in ("can", "could"):
        forms = ("peut", "peuvent") if plan.tense == "can" else ("pouvait", "pouvaient")
        head, rest = forms[plural], infinitive
    elif plan.tense == "future":
        head = future + ("ont" if plural else "a")
    else:
        head = many if plural else one
    if plan.negative:
        out.french("ne", no)
    out.french(head, *((time,) if rest else (time, deed)))
    if plan.negative:
        out.french("jamais" if plan.negative == "never" else "pas", no)
    if rest:
        out.french(rest, deed)
    if verb.preposition:
        out.french(verb.preposition, particle)


def _verb_keys(out: Writer, verb: Verb) -> tuple[int, int, int, int]:
    time, no, deed = out.key(), out.key(), out.key()
    return time, no, deed, out.key() if verb.particle and verb.preposition else deed


def clause(out: Writer, plan: Plan) -> None:
    """Write "the animal didn't cross the street" with what hangs on its nouns."""
    subject, verb = plan.subject, plan.verb
    assert subject is not None and verb is not None and plan.object is not None
    phrase(out, subject)
    tail(out, subject, plan.tense)
    keys = _verb_keys(out, verb)
    english_verb(out, plan, subject.plural, keys, inverted=False)
    french_verb(out, plan, subject.noun, subject.plural, keys)
    phrase(out, plan.object)
    tail(out, plan.object, plan.tense)


def wish(out: Writer, plan: Plan) -> None:
    """Write "the animal wanted to cross the street"."""
    subject, verb = plan.subject, plan.verb
    assert subject is not None and verb is not None and plan.object is not None
    phrase(out, subject)
    tail(out, subject, plan.tense)
    time, _, deed, particle = _verb_keys(out, verb)
    stem = "voulai" if plan.connective == "wanted" else "devai"
    out.english(plan.connective, time)
    out.english("to", deed)
    out.english(verb.english[0], deed)
    for word in verb.particle:
        out.english(word, particle)
    out.french(stem + ("ent" if subject.plural else "t"), time)
    out.french(verb.french[0], deed)
    if verb.preposition:
        out.french(verb.preposition, particle)
    phrase(out, plan.object)
    tail(out, plan.object, plan.tense)


def question(out: Writer, plan: Plan, *, why: bool) -> None:
    """Write a question with `est-ce que`, which needs no pronoun; "why" alone keeps the plan's negation."""
    if not why:
        plan = dataclasses.replace(plan, negative="")
    subject, verb = plan.subject, plan.verb
    assert subject is not None and verb is not None and plan.object is not None
    asked, keys = out.key(), _verb_keys(out, verb)
    if why:
        key = out.key()
        out.english("why", key)
        out.french("pourquoi", key)
    helper = _auxiliary(plan.tense, bool(plan.negative), subject.plural)
    out.english(helper, asked, keys[0], *((keys[1],) if plan.negative else ()))
    out.french("est-ce", asked)
    out.french("que", asked)
    phrase(out, subject)
    tail(out, subject, plan.tense)
    english_verb(out, plan, subject.plural, keys, inverted=True)
    french_verb(out, plan, subject.noun, subject.plural, keys)
    phrase(out, plan.object)
    tail(out, plan.object, plan.tense)
    out.both("?")


def predicate(out: Writer, plan: Plan, about: Phrase) -> None:
    """Write "was too tired"."""
    adjective = plan.adjective
    assert adjective is not None
    past, plural = plan.tense in ("past", "could"), about.plural
    key = out.key()
    out.english(("were" if plural else "was") if past else ("are" if plural else "is"), key)
    if adjective.with_avoir:
        out.french(("avaient" if plural else "avait") if past else ("ont" if plural else "a"), key)
    else:
        out.french(("étaient" if plural else "était") if past else ("sont" if plural else "est"), key)
    if plan.degree:
        key = out.key()
        out.english(plan.degree, key)
        out.french(_DEGREES[plan.degree], key)
    key = out.key()
    for word in adjective.lemma.split(" "):
        out.english(word, key)
    for word in adjective.form(about.noun.gender, plural).split(" "):
        out.french(word, key)


def reason(out: Writer, plan: Plan) -> None:
    """Write "it was too tired", its pronoun agreeing with the noun that the plan is about."""
    about = plan.subject if plan.about == "s" else plan.object
    assert about is not None
    key = out.key()
    source = out.english("they" if about.plural else "it", key)
    word = ("elle" if about.noun.gender == "f" else "il") + ("s" if about.plural else "")
    out.pronoun = (source, out.french(word, key))
    predicate(out, plan, about)


def render(plan: Plan) -> Writer:
    """Write the whole sentence of a plan, in lower case; `world` adds capitals and spaces."""
    out = Writer()
    if plan.opening:
        out.pieces(OPENINGS[plan.opening])
        out.both(",")
    shape = plan.shape
    if shape in ("because", "although", "if"):
        clause(out, plan)
        out.pieces(CONNECTIVES[plan.connective])
        reason(out, plan)
    elif shape == "two sentences":
        clause(out, plan)
        out.both(".")
        reason(out, plan)
    elif shape == "but":
        wish(out, plan)
        out.both(",")
        out.pieces(CONNECTIVES["but"])
        reason(out, plan)
    elif shape == "fronted":
        out.pieces(CONNECTIVES["fronted as" if plan.connective == "as" else plan.connective])
        reason(out, plan)
        out.both(",")
        clause(out, plan)
    elif shape == "asked":
        question(out, plan, why=False)
        key = out.key()
        out.english("no" if plan.negative else "yes", key)
        out.french("non" if plan.negative else "oui", key)
        out.both(",")
        reason(out, plan)
    elif shape == "why":
        question(out, plan, why=True)
        out.pieces(CONNECTIVES["because"])
        reason(out, plan)
    else:
        _without_pronoun(out, plan)
    if shape != "question":
        out.both(".")
    return out


def _without_pronoun(out: Writer, plan: Plan) -> None:
    if plan.shape == "question":
        question(out, plan, why=False)
    elif plan.shape == "copula":
        assert plan.subject is not None
        phrase(out, plan.subject)
        tail(out, plan.subject, plan.tense)
        predicate(out, plan, plan.subject)
    elif plan.shape == "seen":
        _seen(out, plan)
    elif plan.shape == "object relative":
        _object_relative(out, plan)
    else:
        clause(out, plan)


def _seen(out: Writer, plan: Plan) -> None:
    """Write "I saw a dog near the river"."""
    assert plan.object is not None
    viewer, verb, _ = plan.combination
    key, deed = out.key(), out.key()
    out.english("I" if viewer == "i" else "we", key)
    out.english(_SIGHTS[verb][0], deed)
    out.french("je" if viewer == "i" else "nous", key)
    out.french("ai" if viewer == "i" else "avons", deed)
    out.french(_SIGHTS[verb][1], deed)
    phrase(out, plan.object)
    tail(out, plan.object, "past")


def _object_relative(out: Writer, plan: Plan) -> None:
    """Write "the street that the animal didn't cross was too wide"; the participle agrees with what comes first."""
    subject, object_, verb = plan.subject, plan.object, plan.verb
    assert subject is not None and object_ is not None and verb is not None
    phrase(out, object_)
    key = out.key()
    out.english("that", key)
    out.french("que", key)
    phrase(out, subject)
    tail(out, subject, plan.tense)
    keys = _verb_keys(out, verb)
    english_verb(out, plan, subject.plural, keys, inverted=False)
    if plan.negative:
        out.french("ne", keys[1])
    out.french("ont" if subject.plural else "a", keys[0])
    if plan.negative:
        out.french("pas", keys[1])
    out.french(verb.participle(object_.noun.gender, object_.plural), keys[2])
    predicate(out, plan, object_)
