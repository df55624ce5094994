"""Write a whole plan of the demo's world in both languages: verb groups, clauses, shapes of sentences."""

from __future__ import annotations

import dataclasses

from regard.data.world_forms import Noun, Verb
from regard.data.world_phrases import Pieces, Writer, phrase, tail
from regard.data.world_plan import Phrase, Plan

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


def english_verb(
    out: Writer, plan: Plan, plural: bool, keys: tuple[int, int, int, int], inverted: bool
) -> None:
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
    """Write "the street that the animal didn't cross was too wide"; the participle agrees with "street"."""
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
