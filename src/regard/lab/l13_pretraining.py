"""L13: pre-train once, fine-tune cheaply."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regard.config import ModelConfig
from regard.data.world import Example, World
from regard.data.world_forms import lexicon
from regard.demo import SCENES, SHAPES
from regard.lab.claim import Claim, Figure, Finding, Measured, Panel, Report, Series, Settings, Size, Status
from regard.lab.learning import generator, learn, make, on
from regard.lab.statistics import difference, estimate

_PAD, _MASK, _OTHER = 0, 1, 2
_HIDDEN = 0.15  # of the words; Devlin et al. 2018, section 3.1
SIDES = {"nothing": "from nothing", "pretrained": "pre-trained"}
_LITTLE = 0.05
"""A gain of accuracy that must be shown to be out of reach before pre-training is said to bring nothing."""
_SMOOTHING = (0.03, 0.1, 0.3, 1.0)


class Sentences:
    """Hold the world's English sentences as words, with the kind of thing that each is about as its label.

    A label needs the meaning of one noun: whether it is an animal, a vehicle, people, ... The commonest kinds are kept,
    and as many sentences of each, in turns, so that few labels hold all of them too. Sentences of the parts share no
    combination of subject, adjective and object.
    """

    def __init__(self, seed: int, settings: Settings) -> None:
        kinds = {noun.lemma: noun.kind for noun in lexicon().nouns.values()}
        world = World(seed, SHAPES, SCENES)
        drawn = {part: list(world.examples(part, settings[part])) for part in ("train", "valid", "test")}
        words = sorted({word.lower() for example in drawn["train"] for word in example.source_words})
        self.numbers = {word: _OTHER + 1 + i for i, word in enumerate(words)}
        counts = Counter(kinds[e.combination[0]] for e in drawn["train"] if e.combination[0] in kinds)
        self.labels = tuple(sorted(kind for kind, _ in counts.most_common(settings["kinds"])))
        self.length = settings["length"]
        self.parts = {part: self._part(examples, kinds) for part, examples in drawn.items()}

    def _part(self, examples: Sequence[Example], kinds: dict[str, str]) -> tuple[Tensor, Tensor]:
        """Give ids (N, L), padded, and labels (N), which take turns; sentences that are too long are left out."""
        rows: list[list[list[int]]] = [[] for _ in self.labels]
        for example in examples:
            kind = kinds.get(example.combination[0])
            ids = [self.numbers.get(word.lower(), _OTHER) for word in example.source_words]
            if kind in self.labels and len(ids) <= self.length:
                rows[self.labels.index(kind)].append(ids + [_PAD] * (self.length - len(ids)))
        turns = list(zip(*rows, strict=False))  # to the end of the rarest
        return torch.tensor(turns).flatten(0, 1), torch.arange(len(self.labels)).repeat(len(turns))


def measure(seed: int, settings: Settings, report: Report) -> Measured:
    """Pre-train one encoder on sentences without labels, and let it and a fresh one learn from few labels."""
    with on(settings["device"]):
        return _measure_on(seed, settings, report)


def _measure_on(seed: int, settings: Settings, report: Report) -> Measured:
    data = Sentences(seed, settings)
    torch.manual_seed(seed)
    reader = make(_config(data, settings, head="lm"))
    report(f"  pre-training on {len(data.parts['train'][0]):,} sentences")
    learn(
        reader,
        partial(_masked_loss, reader, data, settings, seed),
        steps=settings["pretraining"],
        lr=settings["lr"],
    )
    known = {name: value for name, value in reader.state_dict().items() if not name.startswith("head.")}
    found: Measured = {
        "accuracy": {side: {} for side in SIDES},
        "rate": {side: {} for side in SIDES},
        "steps": {},
    }
    found["counted"] = {}

    def tuned(side: str, count: int, rate: float, steps: int) -> tuple[float, float, int, float]:
        """Fine-tune, and give the accuracy on validation, what was tried, and the accuracy on the test."""
        torch.manual_seed(seed)
        model = make(_config(data, settings, head="classify"))
        if side == "pretrained":
            missing = model.load_state_dict(known, strict=False).missing_keys
            assert all(name.startswith("head.") for name in missing)
        learn(model, partial(_label_loss, model, data, count, settings, seed), steps=steps, lr=rate)
        return _accuracy(model, data, "valid"), rate, steps, _accuracy(model, data, "test")

    for count in settings["labelled"]:
        key, steps = str(count), settings["tuning"]
        for side, label in SIDES.items():
            report(f"  {count} labels, {label}")
            tried = [tuned(side, count, rate, steps) for rate in settings["rates"]]
            best = max(tried, key=lambda one: one[0])
            if side == "nothing":
                best = max(
                    best, tuned(side, count, best[1], steps * settings["longer"]), key=lambda one: one[0]
                )
                found["steps"][key] = best[2]
            found["accuracy"][side][key], found["rate"][side][key] = best[3], best[1]
        found["counted"][key] = counted(data, count)
    test = data.parts["test"][1]
    found["majority"] = float(test.bincount().max() / len(test))
    found["labels"] = len(data.labels)
    return found


def _config(data: Sentences, settings: Settings, *, head: Any) -> ModelConfig:
    return ModelConfig(
        kind="encoder", vocab_size=_OTHER + 1 + len(data.numbers), width=settings["width"], num_heads=4,
        num_layers=settings["layers"], position="learned", context=settings["length"], head=head, pooling="mean",
        labels=data.labels if head == "classify" else (), pad_id=_PAD, bos_id=None, eos_id=None, init_std=0.02,
    )  # fmt: skip


def _masked_loss(model: nn.Module, data: Sentences, settings: Settings, seed: int, step: int) -> Tensor:
    ids = data.parts["train"][0]
    draw = generator(seed, 13, step)
    rows = ids[torch.randint(len(ids), (settings["rows"],), generator=draw)]
    hidden = (torch.rand(rows.shape, generator=draw) < _HIDDEN) & (rows != _PAD)
    hidden[:, 0] |= ~hidden.any()  # at least one
    logits = model(rows.masked_fill(hidden, _MASK), key_mask=rows != _PAD)
    return F.cross_entropy(logits[hidden], rows[hidden])


def _label_loss(
    model: nn.Module, data: Sentences, count: int, settings: Settings, seed: int, step: int
) -> Tensor:
    ids, labels = data.parts["train"]
    chosen = torch.randint(min(count, len(ids)), (settings["rows"],), generator=generator(seed, 14, step))
    rows = ids[chosen]
    return F.cross_entropy(model(rows, key_mask=rows != _PAD), labels[chosen])


def counted(data: Sentences, count: int) -> float:
    """Give the accuracy of naive Bayes: the words of the labelled sentences, counted by label, and nothing learned.

    What is added to each count is chosen on the validation sentences.
    """
    ids, labels = (part[:count] for part in data.parts["train"])
    seen = torch.stack([_bags(ids[labels == label], data).sum(0) for label in range(len(data.labels))])

    def accuracy(part: str, more: float) -> float:
        rows, wanted = data.parts[part]
        shares = ((seen + more) / (seen + more).sum(1, keepdim=True)).log()
        return float(((_bags(rows, data) @ shares.T).argmax(1) == wanted).double().mean())

    return accuracy("test", max(_SMOOTHING, key=lambda more: accuracy("valid", more)))


def _bags(ids: Tensor, data: Sentences) -> Tensor:
    """Give which words are in each sentence, (N, V) of zeros and ones; padding is none."""
    bags = torch.zeros(len(ids), _OTHER + 1 + len(data.numbers)).scatter_(1, ids, 1.0)
    bags[:, _PAD] = 0
    return bags


@torch.inference_mode()
def _accuracy(model: nn.Module, data: Sentences, part: str) -> float:
    ids, labels = data.parts[part]
    said = torch.cat([model(rows, key_mask=rows != _PAD).argmax(-1) for rows in ids.split(128)])
    return float((said == labels).double().mean())


def conclude(found: Sequence[Measured], settings: Settings) -> Finding:
    """Say how much pre-training brings at each number of labels, and how many labels it is worth."""
    counts = [str(n) for n in settings["labelled"]]

    def of(side: str, count: str) -> list[float]:
        return [one["accuracy"][side][count] for one in found]

    gains = {count: difference(of("pretrained", count), of("nothing", count)) for count in counts}
    fewest = counts[0]
    helped = [count for count in counts if gains[count].above(0)]
    counting = [[one["counted"][count] for one in found] for count in counts]
    beyond = [difference(of("pretrained", n), words) for n, words in zip(counts, counting, strict=True)]
    few, many = next(
        (
            (int(few), int(more))
            for few in counts
            for more in reversed(counts)
            if int(more) > int(few) and difference(of("pretrained", few), of("nothing", more)).above(0)
        ),
        (1, 1),
    )
    enough = many / few
    status: Status = "fails" if all(gain.below(_LITTLE) for gain in gains.values()) else "undecided"
    if helped:
        whole = gains[fewest].above(0) and enough >= 4 and beyond[0].above(0)
        status = "holds" if whole else "holds in part"
    steps = settings["pretraining"] / settings["tuning"]
    worth = (
        f"with {few:,} labels it is ahead of nothing with {many:,}"
        if enough > 1
        else "it saves no labels that show over seeds"
    )
    sentence = (
        f"with {fewest} labels pre-training brings {gains[fewest].text('points', 3, 100)} of accuracy, with "
        f"{counts[-1]} {gains[counts[-1]].text('points', 3, 100)}; {worth}, and it takes as many steps as {steps:.3g} "
        f"fine-tunings; against counting the words of the same labelled sentences it is worth "
        f"{beyond[0].text('points', 3, 100)} with {fewest} labels and {beyond[-1].text('points', 3, 100)} with "
        f"{counts[-1]}"
    )
    numbers = tuple(float(n) for n in counts)
    guess = tuple(estimate([one["majority"] for one in found]) for _ in counts)
    panels = (
        Panel(
            f"Which of {found[0]['labels']} kinds of thing is a sentence about", "labelled sentences",
            "accuracy (part of the test sentences)",
            (
                *(Series(label, numbers, tuple(estimate(of(s, n)) for n in counts)) for s, label in SIDES.items()),
                Series("words counted", numbers, tuple(estimate(words) for words in counting)),
                Series("always the commonest", numbers, guess, True),
            ),
            True,
        ),
        Panel(
            "What pre-training brings", "labelled sentences", "accuracy gained (part of the test sentences)",
            (
                Series("pre-trained less from nothing", numbers, tuple(gains[n] for n in counts)),
                Series("pre-trained less words counted", numbers, tuple(beyond)),
            ),
            True,
        ),
    )  # fmt: skip
    return Finding(
        status, f"{sentence}.", gains[fewest],
        f"accuracy of the pre-trained model less that from nothing, with {fewest} labels (part of the sentences)",
        Figure(
            "The same encoder, from fresh weights and from those that learned to fill masks in sentences without "
            "labels. Counting is naive Bayes on the same labelled sentences.", panels,
        ),
        {
            "worth": enough, "helped_at": [int(n) for n in helped],
            "counted": {n: estimate(words).mean for n, words in zip(counts, counting, strict=True)},
        },
    )  # fmt: skip


CLAIM = Claim(
    id="L13",
    title="Pre-train once",
    said="Pre-train once on plain text, then fine-tune cheaply: few labels are enough.",
    question="How many labelled sentences does an encoder need, from nothing and after filling masks?",
    method=(
        "An encoder learns to fill hidden words in English sentences of the demo's world. Then it, and a fresh one "
        "of the same shape, learn from a few labelled sentences which kind of thing a sentence is about (animals, "
        "vehicles, people, ...), and are measured on others. What the labels don't show, nouns that none of them "
        "has, only pre-training can have seen. Beside them stands naive Bayes, which counts the words of the same "
        "labelled sentences and learns nothing."
    ),
    refuted_by=(
        "No number of labels at which the pre-trained encoder is better, and none at which it may be by 5 points; with "
        "intervals too wide for that it is undecided. If it isn't better with the fewest, or "
        "isn't ahead of a fresh one with four times the labels, or isn't better than counting words with the "
        "fewest, it holds in part. Each number of labels is compared by itself: that one of several shows a gain "
        "is likelier by luck than that a given one does."
    ),
    fair=(
        "Equal parameters, labels and order, and steps of fine-tuning but that the fresh side may also train four "
        "times as long. Not equal: the time and the sentences without labels that pre-training takes, once; the "
        "verdict says how many fine-tunings that is. The sentences are the labelled ones' own kind, without their "
        "labels, and their generator draws words by the very kinds that are asked for: pre-training can't fit better."
    ),
    tuning=(
        "Both sides are fine-tuned at the same rates; the rate, and whether longer is better from nothing, is chosen "
        "on validation sentences, which have more labels than the fewest trained on: nobody with 16 labels could "
        "choose so well. A first design, with all 31 kinds as they fall, was given up: few labels held hardly half "
        "of them (docs/log.md)."
    ),
    sizes={
        "laptop": Size(
            3,
            {
                "device": "cpu",
                "width": 64, "layers": 2, "length": 24, "kinds": 4, "train": 40_000, "valid": 2000, "test": 6000,
                "rows": 32, "pretraining": 2500, "lr": 2e-3, "labelled": [16, 64, 256, 1024], "rates": [5e-4, 2e-3],
                "tuning": 150, "longer": 4,
            },
        ),
        "gpu": Size(
            8,
            {
                "device": "auto",
                "width": 256, "layers": 4, "length": 32, "kinds": 8, "train": 200_000, "valid": 5000,
                "test": 20_000, "rows": 128,
                "pretraining": 20_000, "lr": 5e-4, "labelled": [16, 64, 256, 1024, 4096], "rates": [1e-4, 3e-4, 1e-3],
                "tuning": 600, "longer": 4,
            },
        ),
        "smoke": Size(
            2,
            {
                "device": "cpu",
                "width": 16, "layers": 1, "length": 20, "kinds": 2, "train": 120, "valid": 60, "test": 60, "rows": 4,
                "pretraining": 3, "lr": 2e-3, "labelled": [8, 16], "rates": [2e-3], "tuning": 3, "longer": 2,
            },
        ),
    },
    measure=measure,
    conclude=conclude,
)  # fmt: skip
