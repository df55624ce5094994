"""L7: sinusoids generalise to unseen lengths, and learned positions don't."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regard.config import ModelConfig, PositionKind
from regard.lab.claim import Claim, Figure, Finding, Measured, Panel, Report, Series, Settings, Size, Status
from regard.lab.learning import WorldText, generator, learn, make, on
from regard.lab.statistics import difference, estimate

KINDS: tuple[PositionKind, ...] = ("none", "sinusoidal", "learned", "rotary", "alibi", "t5")
LOST, WORSE = 0.05, 0.1
"""Accuracy, and nats, that a kind may lose beyond the trained length and still be said to generalise."""
_CHANCE = 0.5
_BACK = 2


def measure(seed: int, settings: Settings, report: Report) -> Measured:
    """Train a decoder of every kind on either task, and measure both at every length."""
    with on(settings["device"]):
        return _measure_on(seed, settings, report)


def _measure_on(seed: int, settings: Settings, report: Report) -> Measured:
    text = WorldText.draw(seed, train=settings["sentences"], valid=settings["held_out"])
    far = settings["judged_at"]
    found: Measured = {"accuracy": {}, "loss": {}, "moved": {}, "parameters": {}}
    rows = text.held_out(settings["test_rows"], settings["lengths"][-1])
    found["pairs"] = text.pairs(rows, settings["scored"])
    for kind in KINDS:
        report(f"  {kind} positions: the task")
        tagger = _model(kind, settings, seed, head="tag")
        learn(
            tagger, partial(_task_loss, tagger, settings, seed), steps=settings["task_steps"], lr=settings["lr"]
        )  # fmt: skip
        found["accuracy"][kind] = {str(n): _accuracy(tagger, settings, seed, n) for n in settings["lengths"]}
        report(f"  {kind} positions: the text")
        writer = _model(kind, settings, seed, words=len(text.words))
        learn(
            writer, partial(_text_loss, writer, text, settings, seed), steps=settings["text_steps"],
            lr=settings["lr"],
        )  # fmt: skip
        found["loss"][kind] = {str(n): _loss(writer, text, settings, n) for n in settings["lengths"]}
        found["moved"][kind] = {
            "accuracy": _accuracy(tagger, settings, seed, settings["trained"], far),
            "loss": _loss(writer, text, settings, settings["trained"], far),
        }
        found["parameters"][kind] = sum(p.numel() for p in writer.parameters())
    return found


def _model(
    kind: PositionKind, settings: Settings, seed: int, *, head: Literal["lm", "tag"] = "lm", words: int = 0
) -> nn.Module:
    torch.manual_seed(seed)
    symbols = words or settings["symbols"]
    return make(
        ModelConfig(
            kind="decoder", vocab_size=symbols, width=settings["width"], num_layers=settings["layers"],
            num_heads=settings["heads"], context=settings["lengths"][-1], position=kind, head=head,
            labels=("another", "same") if head == "tag" else (), pad_id=None, bos_id=None, eos_id=None,
            scale_embeddings=kind == "sinusoidal",  # as in 2017; drawn small, words would drown in the sinusoids
        )
    )  # fmt: skip


def two_back(rows: int, length: int, symbols: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Write rows (rows, length) of symbols, and tell for each whether it is the one two places before; half are."""
    ids = torch.randint(symbols, (rows, length), generator=draw)
    repeats = torch.rand(rows, length, generator=draw) < _CHANCE
    repeats[:, :_BACK] = False
    others = torch.randint(1, symbols, (rows, length), generator=draw)
    for place in range(_BACK, length):
        before = ids[:, place - _BACK]
        ids[:, place] = torch.where(repeats[:, place], before, (before + others[:, place]) % symbols)
    return ids, repeats.long()


def _task_loss(model: nn.Module, settings: Settings, seed: int, step: int) -> Tensor:
    ids, same = two_back(settings["rows"], settings["trained"], settings["symbols"], generator(seed, 7, step))
    return F.cross_entropy(model(ids)[:, _BACK:].flatten(0, 1), same[:, _BACK:].flatten())


def _text_loss(model: nn.Module, text: WorldText, settings: Settings, seed: int, step: int) -> Tensor:
    ids = text.batch(settings["rows"], settings["trained"], generator(seed, 8, step))
    return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def _places(length: int, end: int | None) -> Tensor:
    return torch.arange(length) + (0 if end is None else end - length)


@torch.inference_mode()
def _accuracy(model: nn.Module, settings: Settings, seed: int, length: int, end: int | None = None) -> float:
    """Give the accuracy at the last places of texts of a length, the same symbols there for every length.

    The positions of a text end at `end`; None: they begin at 0.
    """
    scored, longest = settings["scored"], settings["lengths"][-1]
    ids, same = two_back(settings["test_rows"], longest, settings["symbols"], generator(seed, 9))
    right = [
        model(part[:, -length:], positions=_places(length, end))[:, -scored:].argmax(-1)
        == answers[:, -scored:]
        for part, answers in zip(ids.split(16), same.split(16), strict=True)
    ]
    return float(torch.cat(right).double().mean())


@torch.inference_mode()
def _loss(
    model: nn.Module, text: WorldText, settings: Settings, length: int, end: int | None = None
) -> float:
    """Give the loss of the last words of texts of a length, in nats a word, the same words for every length.

    Positions are as in `_accuracy`.
    """
    scored = settings["scored"]
    total = 0.0
    for part in text.held_out(settings["test_rows"], settings["lengths"][-1]).split(16):
        logits = model(part[:, -length - 1 : -1], positions=_places(length, end))[:, -scored:]
        total += float(F.cross_entropy(logits.flatten(0, 1), part[:, -scored:].flatten(), reduction="sum"))
    return total / (settings["test_rows"] * scored)


def conclude(found: Sequence[Measured], settings: Settings) -> Finding:
    """Say which kinds keep what they have learned at lengths they haven't seen."""
    lengths, trained, far = settings["lengths"], settings["trained"], settings["judged_at"]

    def of(what: str, kind: str, length: int) -> list[float]:
        return [one[what][kind][str(length)] for one in found]

    def change(what: str, kind: str) -> list[float]:
        return [a - b for a, b in zip(of(what, kind, far), of(what, kind, trained), strict=True)]

    kept = {kind: estimate(change("accuracy", kind)) for kind in KINDS}
    rise = {kind: estimate(change("loss", kind)) for kind in KINDS}
    moved = {
        what: {
            kind: estimate([one["moved"][kind][what] - one[what][kind][str(trained)] for one in found])
            for kind in KINDS
        }
        for what in ("accuracy", "loss")
    }
    pairs = [float(one["pairs"]) for one in found]
    learned = {
        kind: estimate(of("accuracy", kind, trained)).above(_CHANCE + 0.2)
        and difference(of("loss", kind, trained), pairs).below(0)
        for kind in KINDS
    }
    good = {kind: kept[kind].above(-LOST) and rise[kind].below(WORSE) for kind in KINDS}
    bad = {kind: kept[kind].below(-LOST) or rise[kind].above(WORSE) for kind in KINDS}
    both_bad = kept["sinusoidal"].below(-LOST) and rise["sinusoidal"].above(WORSE)
    better = difference(change("accuracy", "sinusoidal"), change("accuracy", "learned"))
    able = [kind for kind in KINDS if learned[kind] and good[kind]]
    status: Status
    if not (learned["sinusoidal"] and learned["learned"]):
        status = "undecided"
    elif good["learned"] or (both_bad and not better.above(0)):
        status = "fails"
    elif bad["learned"] and good["sinusoidal"]:
        status = "holds"
    elif bad["learned"] and (
        kept["sinusoidal"].above(-LOST) or rise["sinusoidal"].below(WORSE) or better.above(0)
    ):
        status = "holds in part"
    else:
        status = "undecided"
    sentence = (
        f"trained on {trained} tokens and read at {far}, sinusoids change their accuracy by "
        f"{kept['sinusoidal'].text('points', 3, 100)} and their loss by {rise['sinusoidal'].text('nats')}, learned "
        f"positions by {kept['learned'].text('points', 3, 100)} and {rise['learned'].text('nats')}; what was "
        f"learned is kept, within {LOST * 100:g} points and {WORSE:g} nats, by "
        f"{', '.join(able) if able else 'no kind'}; positions moved to {far} at the trained length change the "
        f"accuracy of sinusoids by {moved['accuracy']['sinusoidal'].text('points', 3, 100)}"
    )
    if not (learned["sinusoidal"] and learned["learned"]):
        sentence += "; but not both had learned the task and more than pairs of words at the trained length"
    elif status == "undecided":
        sentence += "; intervals are too wide to tell"
    marks = ((float(trained), "trained"),)
    x = tuple(float(n) for n in lengths)
    panels = tuple(
        Panel(
            title, "length of the text (tokens)", unit,
            (
                *(Series(kind, x, tuple(estimate(of(what, kind, n)) for n in lengths)) for kind in KINDS),
                Series("nothing learned: guessing; pairs of words, counted", x, (floor,) * len(x), True),
            ),
            x_log=True, marks=marks,
        )
        for what, title, unit, floor in (
            (
                "accuracy", "Is this symbol the one two places before?", "accuracy (part of the answers)",
                estimate([_CHANCE] * len(found)),
            ),
            (
                "loss", "Sentences of the demo's world", "loss of the last words (nats a word)", estimate(pairs),
            ),
        )
    ) + tuple(
        Panel(
            f"{trained} tokens whose positions end at {far}", "kind of position", unit,
            (Series("moved less not moved", KINDS, tuple(moved[what][kind] for kind in KINDS)),),
        )
        for what, unit in (
            ("accuracy", "change of accuracy (part of the answers)"), ("loss", "change of loss (nats a word)"),
        )
    )  # fmt: skip
    return Finding(
        status, f"{sentence}.", kept["sinusoidal"],
        f"accuracy of sinusoidal positions at {far} tokens less that at {trained} (part of the answers)",
        Figure(
            f"The last {settings['scored']} tokens are scored, the same ones at every length; what changes is how "
            "much "
            "stands before them.", panels,
        ),
        {
            "accuracy_kept": {kind: kept[kind].mean for kind in KINDS},
            "loss_risen": {kind: rise[kind].mean for kind in KINDS},
            "generalise": able, "sinusoidal_less_learned": better.mean,
            "moved": {what: {kind: one.mean for kind, one in kinds.items()} for what, kinds in moved.items()},
            "pairs": estimate(pairs).mean, "parameters": found[0]["parameters"],
        },
    )  # fmt: skip


CLAIM = Claim(
    id="L7",
    title="Unseen lengths",
    said="Sinusoids generalise to lengths that training never had; learned positions don't.",
    question="What is left of a decoder's skill on texts longer than in training, for each kind of position?",
    method=(
        "For every kind of position a decoder learns two things from texts of one length: to say of each symbol "
        "whether it is the one two places before (exact, guessing gives a half), and to predict the next word of "
        "the demo's world. Then texts grow. Scored are the last tokens, the same ones at every length, so that "
        "only what stands before them changes. A longer text has positions that are new and more to look at; which "
        "of them does harm is told by texts of the trained length whose positions are moved. Rows of the learned "
        "table beyond the trained length are as they were drawn. Both tasks need near tokens alone: asked is "
        "whether more text in front disturbs, not whether it is used, which suits kinds that favour the near, "
        "ALiBi before all."
    ),
    refuted_by=(
        "Sinusoids that lose more than 5 points of accuracy and 0.1 nats at four times the trained length and do "
        "no better than learned positions; or learned positions that lose neither. If sinusoids keep one of the "
        "two, or lose less than learned ones, it holds in part. A loss must be shown over seeds as much as its "
        "absence: otherwise, or where either hasn't learned the task (0.7) and more than pairs of words, it is "
        "undecided."
    ),
    fair=(
        "Equal data, order, steps and parameters, but for the tables: learned positions have a row for every "
        "position, T5's a few numbers a head. Not equal: with sinusoids alone embeddings are scaled by √D and "
        "drawn to fit, as in 2017, else words would drown. Learned positions can't but fail in one sense: no row "
        "beyond the trained length was ever trained; how much that harms hangs on how small it was drawn (0.02). "
        "What has learned less has less to lose."
    ),
    tuning=(
        "One rate and one number of steps for all kinds; none was tuned for a kind, but that embeddings are scaled "
        "with sinusoids was chosen when they learned nothing without. Steps are few (hundreds on a laptop): the text "
        "is learned little beyond pairs of words, whose loss is drawn."
    ),
    sizes={
        "laptop": Size(
            3,
            {
                "device": "cpu",
                "width": 64, "layers": 2, "heads": 4, "lr": 3e-3, "rows": 16, "trained": 64, "symbols": 16,
                "lengths": [32, 64, 96, 128, 256, 512], "judged_at": 256, "scored": 16, "test_rows": 64,
                "task_steps": 400, "text_steps": 300, "sentences": 20_000, "held_out": 2000,
            },
        ),
        "gpu": Size(
            5,
            {
                "device": "auto",
                "width": 256, "layers": 4, "heads": 8, "lr": 1e-3, "rows": 64, "trained": 128, "symbols": 32,
                "lengths": [64, 128, 192, 256, 512, 1024, 2048], "judged_at": 512, "scored": 32, "test_rows": 128,
                "task_steps": 3000, "text_steps": 3000, "sentences": 100_000, "held_out": 6000,
            },
        ),
        "smoke": Size(
            2,
            {
                "device": "cpu",
                "width": 16, "layers": 1, "heads": 2, "lr": 2e-3, "rows": 4, "trained": 8, "symbols": 4,
                "lengths": [8, 16, 32], "judged_at": 32, "scored": 4, "test_rows": 8,
                "task_steps": 3, "text_steps": 3, "sentences": 50, "held_out": 20,
            },
        ),
    },
    measure=measure,
    conclude=conclude,
)  # fmt: skip
