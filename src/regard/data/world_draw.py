"""Draw plans for the demo's world at random.

Drawing rejects until the adjective fits exactly one of the nouns and the combination belongs to the split
asked for.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

from regard.data.world_forms import Adjective, Lexicon, Noun, Scene
from regard.data.world_plan import Phrase, Plan, pronoun_may_mean, split_of

T = TypeVar("T")

LANDMARKS: dict[str, tuple[str, ...]] = {
    "near": ("building", "tree", "water", "sea", "slope", "square", "barrier", "passage"),
    "behind": ("building", "tree", "barrier"),
    "in front of": ("building", "barrier"),
    "next to": ("building", "tree", "water", "passage"),
}
_BELONGINGS = frozenset(
    ("vehicle", "cart", "hauler", "machine", "object", "furniture", "garment", "dish", "text")
)
_HEAVY_KINDS = frozenset(("vehicle", "cart", "hauler", "rail", "boat"))
_LIVING = frozenset(("animal", "critter", "people"))
_YOUNG = frozenset(("child", "boy", "girl", "puppy", "kitten", "lamb", "calf", "heifer"))
# "Isn't understanding" and the like: these verbs name a moment or a state and take no progressive.
_NO_PROGRESSIVE = frozenset(
    ("understand", "find", "reach", "arrive at", "fall into", "keep", "choose", "smell")
)
_OPENINGS = {
    "past": ("yesterday", "last week", "this morning", "on Monday", "last night", "one day"),
    "present": ("today", "this morning", "now"),
    "future": ("tomorrow", "next week", "tonight", "soon"),
}
# What may be beyond someone's power, so that "can't" makes sense.
_FEATS = frozenset(
    ("cross", "climb", "reach", "enter", "push", "pull", "lift", "move", "drag", "transport", "carry", "eat",
     "swallow", "finish", "read", "understand", "repair", "translate", "follow", "jump over")
)  # fmt: skip
_STILL = frozenset(
    ("closed", "flooded", "blocked", "frozen", "open", "injured", "starving", "broken", "raw", "scalding",
     "secret", "incomplete", "out of order")
)  # fmt: skip
# What no "although" overcomes: nobody reads what is unreadable.
_IMPOSSIBLE = frozenset(
    ("closed", "blocked", "flooded", "unreadable", "incomplete", "secret", "out of order")
)
# How far the reason goes: each degree with the share of draws that end at or before it.
_DEGREES: dict[str, tuple[tuple[str, float], ...]] = {
    "although": (("very", 0.6), ("really", 0.75), ("", 1.0)),
    "willing": (("", 0.35), ("very", 0.8), ("so", 0.9), ("really", 1.0)),
    "if willing": (("", 0.45), ("very", 0.85), ("really", 1.0)),
    "hindered": (("too", 0.64), ("very", 0.78), ("so", 0.88), ("really", 1.0)),
    "if": (("too", 0.7), ("very", 0.85), ("", 1.0)),
}


class Drawer:
    """Draw plans from a lexicon with one random generator; uses only `random()`, which no version changes."""

    def __init__(self, lexicon: Lexicon, rng: random.Random, weights: Mapping[str, float]) -> None:
        self.lexicon = lexicon
        self.random = rng.random
        self.weights = weights

    def plan(self, split: str) -> Plan:
        """Draw a plan whose combination belongs to `split`."""
        shape = self._weighted(list(self.weights), list(self.weights.values()))
        draw = {
            "copula": self._copula,
            "journey": self._journey,
            "seen": self._seen,
            "plain": self._plain,
            "question": self._plain,
        }.get(shape, self._reasoned)
        while True:
            plan = draw(shape, split)
            if plan is not None:
                return plan

    def _pick(self, items: Sequence[T]) -> T:
        return items[int(self.random() * len(items))]

    def _weighted(self, items: Sequence[T], weights: Sequence[float]) -> T:
        point = self.random() * sum(weights)
        for item, weight in zip(items, weights, strict=True):
            point -= weight
            if point < 0:
                return item
        return items[-1]

    def _scene(self) -> Scene:
        scenes = self.lexicon.scenes
        return self._weighted(scenes, [scene.weight for scene in scenes])

    # -- sentences with a reason -------------------------------------------------------------------

    def _reasoned(self, shape: str, split: str) -> Plan | None:
        scene = self._scene()
        verb = self._pick(scene.verbs)
        about = "s" if self.random() < 0.38 else "o"  # reasons in the object are rejected more often
        if shape == "object relative":
            if verb.with_etre or verb.preposition:
                return None
            about = "o"
        positive, told = self._polarity(shape, scene)
        reasons = scene.reasons["+" if positive else "-", about]
        if not reasons:
            return None
        adjective = self._pick(reasons)
        noun, other = self._pick(scene.subjects), self._pick(scene.objects)
        for _ in range(2):  # prefer two genders: then the French pronoun shows which noun was chosen
            if noun.gender == other.gender and self.random() < 0.8:
                other = self._pick(scene.objects)
        combination = (noun.lemma, adjective.lemma, other.lemma)
        if split_of(combination) != split:
            return None
        subject, object_ = self._pair(noun, other, about)
        referent, rival = (subject, object_) if about == "s" else (object_, subject)
        if not self._decides(adjective, referent, rival):
            return None
        if shape == "although" and adjective.lemma in _IMPOSSIBLE:
            return None
        plan = Plan(shape, combination, subject, object_, verb, adjective=adjective, about=about)
        plan.negative = "" if told else "not"
        plan.degree = self._degree(shape, adjective, positive and not scene.inverse)
        if shape != "object relative":
            self._set_tense(plan)
        self._set_connective(plan)
        self._decorate(plan)
        return plan

    def _polarity(self, shape: str, scene: Scene) -> tuple[bool, bool]:
        """Return (the reason is one for doing it, the deed is told as done)."""
        positive = scene.inverse or self.random() < 0.4
        if shape == "but":
            positive = False
        if shape == "although":
            return positive, not positive
        return positive, positive

    def _pair(self, noun: Noun, other: Noun, about: str) -> tuple[Phrase, Phrase]:
        """Give subject and object a number, mostly the same, so that the pronoun alone can't tell."""
        plural = self.random() < (0.7 if noun.kind == "people" else 0.26)
        if noun.kind == "people" and about == "s":
            plural = True  # one person would be "he" or "she"
        other_plural = plural if self.random() < 0.96 or other.kind == "garment" else not plural
        return (
            Phrase(noun, plural and noun.countable, self._determiner(noun)),
            Phrase(other, other_plural and other.countable, self._determiner(other)),
        )

    def _decides(self, adjective: Adjective, referent: Phrase, rival: Phrase) -> bool:
        """Tell whether the adjective fits the referent and nothing else that the pronoun could mean."""
        if referent.noun.kind not in adjective.fits or (adjective.ambient and not referent.plural):
            return False
        possible = pronoun_may_mean(rival.noun, rival.plural, referent.plural)
        return not (rival.noun.kind in adjective.fits and (possible or rival.noun.kind != "people"))

    def _determiner(self, noun: Noun) -> str:
        point = self.random()
        if point < 0.08:
            return "this"
        if point < 0.2 and noun.kind in _BELONGINGS:
            return "our" if point < 0.14 else "my"
        return "the"

    def _degree(self, shape: str, adjective: Adjective, willing: bool) -> str:
        point = self.random()
        if not adjective.gradable:
            return "still" if point < 0.35 and adjective.lemma in _STILL and shape != "if" else ""
        if shape == "although":
            steps = _DEGREES["although"]
        elif shape == "if":
            steps = _DEGREES["if willing" if willing else "if"]
        else:
            steps = _DEGREES["willing" if willing else "hindered"]
        degree = next(name for name, limit in steps if point < limit)
        return "really" if adjective.absolute and degree in ("very", "too") else degree

    def _set_tense(self, plan: Plan) -> None:
        assert plan.verb is not None
        point = self.random()
        lemma = plan.verb.lemma
        if plan.shape == "if":
            plan.tense = "future"
        elif plan.shape == "but" or point < 0.62:
            plan.tense = "past"
        elif point < 0.74:
            plan.tense = "past" if lemma in _NO_PROGRESSIVE else "present"
        elif point < 0.86:
            plan.tense = "future"
        elif plan.negative:
            plan.tense = "past" if lemma not in _FEATS else "can" if point < 0.93 else "could"
        else:
            plan.tense = "habit" if plan.shape in ("because", "although") else "past"
        if plan.tense == "past" and plan.negative and plan.shape in ("because", "two sentences", "although"):
            plan.negative = "never" if self.random() < 0.12 else "not"

    def _set_connective(self, plan: Plan) -> None:
        point = self.random()
        if plan.shape == "because":
            plan.connective = "because" if point < 0.66 else "since" if point < 0.84 else "as"
        elif plan.shape == "fronted":
            plan.connective = "because" if point < 0.4 else "since" if point < 0.7 else "as"
        elif plan.shape == "but":
            assert plan.subject is not None
            must = plan.subject.noun.kind in _HEAVY_KINDS or point < 0.2
            plan.connective = "had" if must else "wanted"
        else:
            plan.connective = plan.shape

    # -- what surrounds a clause -------------------------------------------------------------------

    def _decorate(self, plan: Plan) -> None:
        """Add an opening adverb, attributes, a place or a relative clause; keep most sentences bare."""
        assert plan.subject is not None
        plan.long_form = self.random() < 0.25
        opens = plan.shape in ("because", "two sentences", "but", "plain", "journey", "if")
        if plan.tense == "habit":
            plan.opening = self._pick(("every day", "every morning", "every week"))
        elif (
            opens and plan.tense not in ("can", "could") and plan.negative != "never" and self.random() < 0.22
        ):
            choices = _OPENINGS[plan.tense]
            # The last is odd of what was not done: "one day, it didn't …".
            plan.opening = self._pick(choices[:-1] if plan.negative else choices)
        for phrase in (plan.subject, plan.object):
            if phrase is not None and self.random() < 0.14:
                self._attribute(phrase, plan.adjective)
        point = self.random()
        if point < 0.14 and plan.object is not None and plan.shape != "object relative":
            self._place(plan.object, plan, self._pick(tuple(LANDMARKS)))
        elif point < 0.26 and plan.shape != "object relative":
            self._relative(plan)

    def _attribute(self, phrase: Phrase, predicate: Adjective | None) -> None:
        choices = self.lexicon.attributes_of[phrase.noun.kind]
        if choices:
            choice = self._pick(choices)
            if choice.lemma == "old" and phrase.noun.lemma in _YOUNG:
                return
            clashes = self.lexicon.clashes.get(choice.lemma, frozenset())
            if predicate is None or predicate.lemma not in clashes:
                phrase.attribute = choice

    def _place(self, phrase: Phrase, plan: Plan, preposition: str) -> None:
        kind = self._pick(LANDMARKS[preposition])
        self._tail(phrase, plan, preposition, self._pick(self.lexicon.by_kind[kind]))

    def _tail(self, phrase: Phrase, plan: Plan, tail: str, noun: Noun) -> None:
        """Hang a third noun on a phrase, unless the adjective would fit it too."""
        taken = [p.noun.lemma for p in (plan.subject, plan.object) if p is not None]
        fits = plan.adjective is not None and noun.kind in plan.adjective.fits
        if noun.lemma in taken or (fits and noun.kind != "people"):  # one person is never "it" nor "they"
            return
        phrase.tail = tail
        phrase.landmark = Phrase(noun, self.random() < 0.12 and noun.kind != "people")
        if self.random() < 0.15:
            self._attribute(phrase.landmark, None)

    def _relative(self, plan: Plan) -> None:
        subject = plan.subject
        assert subject is not None
        kind = subject.noun.kind
        if kind not in _LIVING and kind not in _HEAVY_KINDS:
            return
        choices = ["was behind", "was near"]
        if kind in _LIVING:
            choices.append("lived near")
        if kind != "people":
            choices.append("belonged to")
        choices.append("came from")
        tail = self._pick(choices)
        source = {
            "was behind": LANDMARKS["behind"],
            "was near": LANDMARKS["near"],
            "lived near": LANDMARKS["near"],
            "belonged to": ("people",),
            "came from": ("building", "land") if kind in _LIVING else ("building",),
        }[tail]
        self._tail(subject, plan, tail, self._pick(self.lexicon.by_kind[self._pick(source)]))

    # -- sentences without a reason ----------------------------------------------------------------

    def _plain(self, shape: str, split: str) -> Plan | None:
        scene = self._scene() if self.random() < 0.6 else self._pick(self.lexicon.deeds)
        noun, other, verb = self._pick(scene.subjects), self._pick(scene.objects), self._pick(scene.verbs)
        combination = (noun.lemma, verb.lemma, other.lemma)
        if noun is other or split_of(combination) != split:
            return None
        plan = Plan(shape, combination, self._free(noun, 0.3), self._free(other, 0.3), verb)
        self._free_tense(plan)
        self._decorate(plan)
        return plan

    def _journey(self, shape: str, split: str) -> Plan | None:
        deed = self._pick(self.lexicon.journeys)
        noun, other, verb = self._pick(deed.subjects), self._pick(deed.objects), self._pick(deed.verbs)
        combination = (noun.lemma, verb.lemma, other.lemma)
        if split_of(combination) != split:
            return None
        plan = Plan(shape, combination, self._free(noun, 0.35), self._free(other, 0.05), verb)
        self._free_tense(plan)
        self._decorate(plan)
        return plan

    def _seen(self, shape: str, split: str) -> Plan | None:
        kind = self._pick(
            ("animal", "critter", "people", "vehicle", "hauler", "object", "flower", "shrub", "fruit")
        )
        noun, place = self._pick(self.lexicon.by_kind[kind]), self._pick(tuple(LANDMARKS))
        viewer = self._pick(("i", "we"))
        combination = (viewer, self._pick(("see", "find", "photograph", "draw")), noun.lemma)
        if split_of(combination) != split:
            return None
        plan = Plan(shape, combination, object=self._free(noun, 0.35))
        assert plan.object is not None
        if self.random() < 0.3:
            self._attribute(plan.object, None)
        self._place(plan.object, plan, place)
        return plan

    def _copula(self, shape: str, split: str) -> Plan | None:
        noun = self._pick(tuple(self.lexicon.nouns.values()))
        adjective = self._pick(self.lexicon.predicates_of[noun.kind])
        combination = (noun.lemma, adjective.lemma, "")
        if split_of(combination) != split or adjective.lemma == "out of order":
            return None
        plan = Plan(shape, combination, self._free(noun, 0.35), adjective=adjective)
        assert plan.subject is not None
        if plan.subject.determiner == "a":
            plan.subject.determiner = "the"
        plan.tense = "past" if self.random() < 0.5 else "present"
        plan.degree = self._pick(("", "very", "too", "really")) if adjective.gradable else ""
        if adjective.absolute and plan.degree:
            plan.degree = "really"
        if self.random() < 0.3:
            self._attribute(plan.subject, adjective)
        if self.random() < 0.3 and noun.kind not in ("land", "water", "sea", "slope", "gap"):
            self._place(plan.subject, plan, self._pick(tuple(LANDMARKS)))
        return plan

    def _free(self, noun: Noun, plural: float) -> Phrase:
        number = self.random() < plural and noun.countable
        indefinite = self.random() < 0.25 and noun.countable
        return Phrase(noun, number, "a" if indefinite else self._determiner(noun))

    def _free_tense(self, plan: Plan) -> None:
        """Choose tense and polarity for a sentence that gives no reason; what is denied is definite."""
        assert plan.verb is not None and plan.subject is not None and plan.object is not None
        point = self.random()
        plan.tense = "past" if point < 0.6 else "future" if point < 0.8 else "present"
        if plan.tense == "present" and plan.verb.lemma in _NO_PROGRESSIVE:
            plan.tense = "past"
        plan.negative = "not" if plan.shape != "question" and self.random() < 0.2 else ""
        for phrase in (plan.subject, plan.object):
            awkward = plan.verb.preposition == "à" or (phrase.plural and plan.verb.preposition)
            if phrase.determiner == "a" and (plan.negative or awkward):
                phrase.determiner = "the"
