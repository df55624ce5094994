"""L1: recurrence is sequential and attention parallel, so that recurrent networks train slowly."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regard.config import ModelConfig
from regard.config_recurrent import Cell, RecurrentConfig
from regard.lab.claim import Claim, Figure, Finding, Measured, Panel, Report, Series, Settings, Size, Status
from regard.lab.equal import of_size
from regard.lab.learning import generator, make, on
from regard.lab.statistics import Estimate, difference, estimate, number

READER, WRITER = "Transformer", "Transformer, encoder and decoder"
CELLS: dict[str, Cell] = {"RNN": "rnn", "LSTM": "lstm", "GRU": "gru"}
ATTENDING = "GRU with attention"
BESIDE = {**dict.fromkeys(CELLS, READER), ATTENDING: WRITER}
"""What each recurrent model is compared with."""
LITTLE = 1.1
"""How many times the Transformer's time must be shown to be out of reach before a model is said not to be slower."""


def configurations(settings: Settings) -> dict[str, ModelConfig]:
    """Give the models by their names, each with as many weights as the one that it is compared with."""
    common: dict[str, Any] = {
        "vocab_size": settings["symbols"], "num_layers": settings["layers"], "context": settings["lengths"][-1],
        "pad_id": None, "bos_id": None, "eos_id": None,
    }  # fmt: skip
    attends: dict[str, Any] = {
        "width": settings["width"],
        "num_heads": settings["heads"],
        "position": "sinusoidal",
    }
    made: dict[str, ModelConfig] = {
        READER: ModelConfig(kind="decoder", **attends, **common),
        WRITER: ModelConfig(kind="encoder-decoder", **attends, **common),
    }

    def recurrent(cell: Cell, both: bool, width: int) -> ModelConfig:
        more: dict[str, Any] = (
            {"kind": "encoder-decoder", "score": "additive"} if both else {"kind": "decoder"}
        )
        return RecurrentConfig(cell=cell, width=width, **more, **common)

    for name, cell in CELLS.items():
        made[name] = of_size(partial(recurrent, cell, False), made[READER].num_parameters())
    made[ATTENDING] = of_size(partial(recurrent, "gru", True), made[WRITER].num_parameters())
    return made


def measure(seed: int, settings: Settings, report: Report) -> Measured:
    """Time a step of every model at every length, forward and backward, taking turns."""
    with on(settings["device"]) as device:
        return _measure_on(device, seed, settings, report)


def _measure_on(device: torch.device, seed: int, settings: Settings, report: Report) -> Measured:
    torch.manual_seed(seed)
    configs = configurations(settings)
    models = {name: make(config).train() for name, config in configs.items()}
    found: Measured = {
        "seconds": {name: {} for name in models}, "device": device.type, "threads": torch.get_num_threads(),
        "parameters": {name: config.num_parameters() for name, config in configs.items()},
    }  # fmt: skip
    for length in settings["lengths"]:
        report(f"  {length:,} tokens")
        rows = max(1, settings["tokens"] // length)
        ids = torch.randint(settings["symbols"], (rows, length + 2), generator=generator(seed, 1, length))
        steps = {
            name: partial(_step, model, ids)
            for name, model in models.items()
            if length <= settings["last"].get(name, length)
        }
        times: dict[str, list[float]] = {name: [] for name in steps}
        for turn in range(1 + settings["rounds"]):  # the first one warms up
            for name in list(steps) if turn % 2 else list(steps)[::-1]:
                seconds = _timed(steps[name], device)
                if turn:
                    times[name].append(seconds)
        for name, taken in times.items():
            found["seconds"][name][str(length)] = statistics.median(taken) / (rows * length)
    return found


def _step(model: nn.Module, ids: Tensor) -> None:
    """Go forward and back over texts of T tokens; of an encoder-decoder a half of them is source, and a half target.

    Args:
        model: its gradients are made and forgotten.
        ids: (B, T + 2); what comes last is only scored.
    """
    length = ids.shape[1] - 2
    if model.config.kind == "decoder":  # type: ignore[union-attr]
        logits, wanted = model(ids[:, :length]), ids[:, 1 : length + 1]
    else:
        half = length // 2
        logits, wanted = model(ids[:, :half], ids[:, half:length]), ids[:, half + 1 : length + 1]
    F.cross_entropy(logits.flatten(0, 1), wanted.flatten()).backward()
    for parameter in model.parameters():
        parameter.grad = None


def _timed(work: Callable[[], None], device: torch.device) -> float:
    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    began = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - began


def conclude(found: Sequence[Measured], settings: Settings) -> Finding:
    """Say how much slower a training token is in a recurrence, and whether that grows with the length."""
    lengths = settings["lengths"]
    short, far = lengths[0], next(n for n in lengths if n >= settings["judged_at"])

    def of(name: str, length: int) -> list[float]:
        return [one["seconds"][name][str(length)] for one in found]

    def ratio(name: str, length: int) -> list[float]:
        return [a / b for a, b in zip(of(name, length), of(BESIDE[name], length), strict=True)]

    times = {name: estimate(ratio(name, far)) for name in BESIDE}
    rises = {name: difference(ratio(name, far), ratio(name, short)) for name in BESIDE}
    slow = [name for name in BESIDE if times[name].above(1)]
    rising = [name for name in slow if rises[name].above(0)]
    status: Status = "fails" if all(one.below(LITTLE) for one in times.values()) else "undecided"
    if slow:
        status = "holds" if len(rising) == len(BESIDE) else "holds in part"

    def listed(length: int) -> str:
        return ", ".join(f"{name} {estimate(ratio(name, length)).text()}" for name in BESIDE)

    where = sorted({one["device"] for one in found})
    threads = sorted({one["threads"] for one in found})
    machine = " and ".join(where)
    if where == ["cpu"]:
        machine = f"a processor with {' or '.join(map(str, threads))} thread{'s' if threads != [1] else ''}"
    sentence = (
        f"on {machine}, a training token of a text of {far:,} takes so many times as long as in a Transformer of as "
        f"many weights: {listed(far)}; at {short:,} tokens {listed(short)}"
    )
    rest = [name for name in BESIDE if name not in slow]
    if rest and slow:
        sentence += f"; not shown to be slower: {', '.join(rest)}"
    still = [name for name in slow if name not in rising]
    if still:
        sentence += f"; not shown to grow with the length: {', '.join(still)}"
    lines = {
        name: tuple(n for n in lengths if str(n) in found[0]["seconds"][name]) for name in found[0]["seconds"]
    }

    def series(name: str, values: Callable[[str, int], list[float]], factor: float = 1.0) -> Series:
        points = tuple(estimate([factor * one for one in values(name, n)]) for n in lines[name])
        return Series(name, tuple(float(n) for n in lines[name]), points, name in (READER, WRITER))

    common = [n for n in lengths if all(n in of_one for of_one in lines.values())]
    assert {short, far} <= set(common), "what is judged is measured of all"
    panels = (
        Panel(
            "Language models", "length of the texts (tokens)", "time of a training token (µs)",
            tuple(series(name, of, 1e6) for name in (READER, *CELLS)), True, True,
        ),
        Panel(
            "Encoder-decoders", "length of source and target (tokens)", "time of a training token (µs)",
            tuple(series(name, of, 1e6) for name in (WRITER, ATTENDING)), True, True,
        ),
        Panel(
            "Against the Transformer", "length (tokens)", "time (times the Transformer's)",
            tuple(series(name, ratio) for name in BESIDE), True, True,
        ),
    )  # fmt: skip
    least = min(BESIDE, key=lambda name: times[name].mean)
    everywhere: dict[str, dict[str, Estimate]] = {
        name: {str(n): estimate(ratio(name, n)) for n in lines[name]} for name in BESIDE
    }
    return Finding(
        status, f"{sentence}.", times[least],
        f"time of a training token of the quickest recurrent model ({least}) against the Transformer's, at {far:,} "
        "tokens (times)",
        Figure(
            f"Forward and backward over batches of {number(settings['tokens'], 6)} tokens, whatever the length: "
            "short texts come many at once, long ones few.", panels,
        ),
        {
            "ratio": {name: {n: one.mean for n, one in values.items()} for name, values in everywhere.items()},
            "quickest": least, "slow": slow, "rising": rising, "parameters": found[0]["parameters"],
        },
    )  # fmt: skip


CLAIM = Claim(
    id="L1",
    title="One token after the other",
    said="Recurrence is sequential and attention parallel: recurrent networks train slowly.",
    question="What does a training token cost in a recurrence and in a Transformer, as texts grow?",
    method=(
        "A step's forward and backward pass is timed over batches of equally many tokens, in texts of more "
        "and more of them, the models taking turns. The median of the rounds counts, for each token. "
        "Language models are an RNN, an LSTM, a GRU and a Transformer; a GRU with attention (Bahdanau's) "
        "stands beside a Transformer with encoder and decoder, with half of the tokens in the source. The "
        "optimizer's part, which knows no length, is left out."
    ),
    refuted_by=(
        "Recurrent models that are all shown to take less than 1.1 times the Transformer's time for a token "
        "at the judged length; with wider intervals it is undecided. If only some are shown to take more, "
        "or a surplus isn't shown to be larger there than in the shortest texts, it holds in part."
    ),
    fair=(
        "Equal weights, within a hundredth or so: widths are chosen for it. Equal layers, tokens of a "
        "batch, vocabulary, precision (single) and threads. Not equal: what is multiplied, since "
        "attention's n² has no weights. It holds for the machine that it was measured on: two cores are "
        "busy with a row's one step, and an accelerator, which has room for thousands, is not (`--size gpu` "
        "measures that)."
    ),
    tuning="None: every model runs as the library has it, with torch's own kernels where there are such.",
    sizes={
        "laptop": Size(
            3,
            {
                "device": "cpu", "symbols": 256, "width": 128, "layers": 2, "heads": 4, "tokens": 2048, "rounds": 5,
                "lengths": [16, 32, 64, 128, 256, 512, 1024, 2048], "last": {ATTENDING: 1024}, "judged_at": 512,
            },
        ),
        "gpu": Size(
            3,
            {
                "device": "auto", "symbols": 256, "width": 512, "layers": 4, "heads": 8, "tokens": 16_384, "rounds": 7,
                "lengths": [16, 32, 64, 128, 256, 512, 1024, 2048, 4096], "last": {ATTENDING: 512}, "judged_at": 512,
            },
        ),
        "smoke": Size(
            2,
            {
                "device": "cpu", "symbols": 16, "width": 16, "layers": 1, "heads": 2, "tokens": 32, "rounds": 1,
                "lengths": [4, 8, 16], "last": {ATTENDING: 8}, "judged_at": 8,
            },
        ),
    },
    measure=measure,
    conclude=conclude,
    repeats=False,
)  # fmt: skip
