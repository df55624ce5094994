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
    found: Measured = {"accuracy": {}, "loss": {}, "parameters": {}}
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


@torch.inference_mode()
def _accuracy(model: nn.Module, settings: Settings, seed: int, length: int) -> float:
    """Give the accuracy at the last places of texts of a length, the same symbols there for every length."""
    scored, longest = settings["scored"], settings["lengths"][-1]
    ids, same = two_back(settings["test_rows"], longest, settings["symbols"], generator(seed, 9))
    right = [
        model(part[:, -length:])[:, -scored:].argmax(-1) == answers[:, -scored:]
        for part, answers in zip(ids.split(16), same.split(16), strict=True)
    ]
    return float(torch.cat(right).double().mean())


@torch.inference_mode()
def _loss(model: nn.Module, text: WorldText, settings: Settings, length: int) -> float:
    """Give the loss of the last words of texts of a length, in nats a word, the same words for every length."""
    scored = settings["scored"]
    total = 0.0
    for part in text.held_out(settings["test_rows"], settings["lengths"][-1]).split(16):
        logits = model(part[:, -length - 1 : -1])[:, -scored:]
        total += float(F.cross_entropy(logits.flatten(0, 1), part[:, -scored:].flatten(), reduction="sum"))
    return total / (settings["test_rows"] * scored)


def conclude(found: Sequence[Measured], settings: Settings) -> Finding:
    """Say which kinds keep what they have learned at lengths they haven't seen."""
    lengths, trained = settings["lengths"], settings["trained"]
    far = next(n for n in lengths if n >= settings["judged_at"])

    def of(what: str, kind: str, length: int) -> list[float]:
        return [one[what][kind][str(length)] for one in found]

    def change(what: str, kind: str) -> list[float]:
        return [a - b for a, b in zip(of(what, kind, far), of(what, kind, trained), strict=True)]

    kept = {kind: estimate(change("accuracy", kind)) for kind in KINDS}
    rise = {kind: estimate(change("loss", kind)) for kind in KINDS}
    learned = {kind: estimate(of("accuracy", kind, trained)).above(_CHANCE + 0.2) for kind in KINDS}
    good = {kind: kept[kind].above(-LOST) and rise[kind].below(WORSE) for kind in KINDS}
    better = difference(change("accuracy", "sinusoidal"), change("accuracy", "learned"))
    able = [kind for kind in KINDS if learned[kind] and good[kind]]
    table_fails = not good["learned"]
    status: Status
    if not (learned["sinusoidal"] and learned["learned"]):
        status = "undecided"
    elif good["sinusoidal"] and table_fails:
        status = "holds"
    elif table_fails and (
        kept["sinusoidal"].above(-LOST) or rise["sinusoidal"].below(WORSE) or better.above(0)
    ):
        status = "holds in part"
    else:
        status = "fails"
    sentence = (
        f"trained on {trained} tokens and read at {far}, sinusoids change their accuracy by "
        f"{kept['sinusoidal'].text('points', 3, 100)} and their loss by {rise['sinusoidal'].text('nats')}, learned "
        f"positions by {kept['learned'].text('points', 3, 100)} and {rise['learned'].text('nats')}; what was "
        f"learned is kept, within {LOST * 100:g} points and {WORSE:g} nats, by "
        f"{', '.join(able) if able else 'no kind'}"
    )
    if status == "undecided":
        sentence += "; but not both had learned the task at the trained length"
    marks = ((float(trained), "trained"),)
    panels = tuple(
        Panel(
            title, "length of the text (tokens)", unit,
            tuple(
                Series(
                    kind, tuple(float(n) for n in lengths), tuple(estimate(of(what, kind, n)) for n in lengths),
                    kind == "none",
                )
                for kind in KINDS
            ),
            x_log=True, marks=marks,
        )
        for what, title, unit in (
            ("accuracy", "Is this symbol the one two places before?", "accuracy (part of the answers; guessing 0.5)"),
            ("loss", "Sentences of the demo's world", "loss of the last words (nats a word)"),
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
            "parameters": found[0]["parameters"],
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
        "only what stands before them changes. Rows of the learned table beyond the trained length are as they "
        "were drawn."
    ),
    refuted_by=(
        "Sinusoids that lose more than 5 points of accuracy and 0.1 nats at four times the trained length and do "
        "no better than learned positions; or learned positions that lose neither. If sinusoids keep one of the "
        "two, or lose less than learned ones, it holds in part."
    ),
    fair=(
        "Equal data, order, steps and parameters, but for the tables: learned positions have a row for every "
        "position, T5's a few numbers a head. With sinusoids embeddings are scaled by √D, as in 2017; else words "
        "would drown."
    ),
    tuning="One rate and one number of steps for all kinds, taken as they were; none was tuned for a kind.",
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
