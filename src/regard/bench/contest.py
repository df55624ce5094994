"""Sides that are processes of their own: checked against each other, run in turns, measured with their memory.

Before anything is timed every side shows what it makes of the same input. The reference is ours in fp32, in a process
that ends then; a side that is farther from it than its precision explains is an error, for it is another model.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regard.bench.common import Options, alternate
from regard.bench.machine import measured
from regard.bench.worker import SideError, Worker
from regard.errors import DependencyError

Need = tuple[str, Path, dict[str, Any]]
"""What must be made: its kind, its folder, and the arguments of `Made`."""
Difference = Callable[[dict[str, Any], dict[str, Any]], float | None]

# Bytes that a weight takes where it is read, and the arithmetic of the product. llama.cpp stores 32 weights with one
# scale in fp16 (ggml's docs), and so do we with four bits, in bf16; with eight bits we and CTranslate2 have a scale a
# row, which is left out.
WEIGHT_BYTES = {
    "fp32": 4.0, "float32": 4.0, "bf16": 2.0, "F16": 2.0, "int8": 1.0, "Q8_0": 34 / 32, "int4": 18 / 32,
    "Q4_0": 18 / 32,
}  # fmt: skip
# The most that logits may differ from those in fp32, as a share of their spread, in each precision: two to five times
# what the models of published shapes show, whose drawn weights are worse to round than learned ones (bf16 0.014; int8
# 0.03 to 0.05; int4 0.3, and 0.46 in Marian's). Those of another model are 1.4 apart.
TOLERANCES = {
    "fp32": 1e-3, "float32": 1e-3, "bf16": 0.06, "F16": 0.06, "int8": 0.15, "Q8_0": 0.15, "int4": 0.7, "Q4_0": 0.7,
}  # fmt: skip


@dataclass(frozen=True)
class Side:
    """Name one side: what its process makes, with which arguments, in which precision, and what it needs.

    Attributes:
        label: its name in tables; ours begin with "ours".
        target: "module:Class", see worker.py.
        precision: a key of WEIGHT_BYTES.
        arguments: what the class is called with.
        library: the peer's package; None for ours.
        needs: what must be made before it can run, in this order.
        read: the file that one pass reads whole; None: so many weights of its precision.
    """

    label: str
    target: str
    precision: str
    arguments: dict[str, Any]
    library: str | None = None
    needs: tuple[Need, ...] = ()
    read: Path | None = None


@dataclass
class Outcome:
    """Hold what a contest gave.

    Attributes:
        figures: every figure of each side, rates of the unit that was counted.
        sides: for each side its memory (`peak_mib`), `load_s`, `difference` from the reference, and shares of what
            the machine can do.
        left_out: what could not take part, and why.
    """

    figures: dict[str, list[float]] = field(default_factory=dict)
    sides: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def contest(
    sides: Sequence[Side],
    reference: Side,
    options: Options,
    *,
    difference: Difference,
    counted: str = "tokens",
    weights_read: int = 0,
    reads: float = 1.0,
    products: float = 0,
) -> Outcome:
    """Check the sides, run them in turns, and give rates of what is `counted` in their answers.

    Args:
        sides: who takes part; ours must be able to, a peer whose library isn't installed is left out.
        reference: ours in fp32, what the others' answers are compared with.
        options: rounds, threads and folders.
        difference: how far an answer of `check` is from the reference's, 0 for the same; None where it can't be said.
        counted: the key of a side's answer that is divided by the seconds.
        weights_read: how many weights one pass reads; 0 where memory is no bound.
        reads: passes for each thing counted, such as 1/8 of a token in a batch of 8.
        products: multiplications with a weight for each thing counted.

    Raises:
        SideError: a side fails, or its answers differ by more than its precision explains.
        DependencyError: ours lacks a library.
    """
    outcome = Outcome()
    with ExitStack() as stack:
        truth = _truth(reference, options)
        workers: dict[str, Worker] = {}
        for side in sides:
            try:
                worker = _start(stack, side, options)
                outcome.sides[side.label] = _checked(side, worker, truth, difference, options)
                workers[side.label] = worker
            except DependencyError as error:
                if side.library is None:
                    raise
                outcome.left_out[side.label] = str(error)
                options.report(f"  {side.label} is left out: {error}")
        options.report("  the machine: memory and arithmetic")
        limits = measured(options.threads, options.tiny)

        def rate(label: str) -> float:
            found = workers[label].ask("run")
            outcome.sides[label]["peak_mib"] = found["peak_mib"]
            return float(found[counted]) / float(found["seconds"])

        outcome.figures = alternate(
            {label: lambda label=label: rate(label) for label in workers},  # type: ignore[misc]
            rounds=options.rounds, report=options.report,
        )  # fmt: skip
    for side in sides:
        if side.label in outcome.figures:
            figure = statistics.median(outcome.figures[side.label])
            each = WEIGHT_BYTES[side.precision] * weights_read
            size = reads * (each if side.read is None else side.read.stat().st_size)
            peak = limits["fp32" if WEIGHT_BYTES[side.precision] == 4 else "bf16"]
            outcome.sides[side.label] |= {
                "figure": figure,
                "bandwidth_share": figure * size / limits["bandwidth"] if weights_read else None,
                "arithmetic_share": figure * 2 * products / peak if products else None,
            }
    return outcome


def details(outcome: Outcome, options: Options) -> dict[str, Any]:
    """Give what a result has beside its figures: the sides, who was left out, and what the machine can do."""
    return {
        "sides": outcome.sides,
        "left_out": outcome.left_out,
        "threads": options.threads,
        "limits": measured(options.threads, options.tiny),
    }


def libraries(sides: Iterable[Side]) -> list[str]:
    """Name the packages of the peers."""
    return list(dict.fromkeys(side.library for side in sides if side.library is not None))


def make(kind: str, folder: Path, options: Options, **arguments: Any) -> None:
    """Make a model, or another library's form of it, in a process of its own; see made.py."""
    if folder.exists():
        return
    options.report(f"  making {folder.name}")
    given = {"kind": kind, "folder": str(folder), "seed": options.seed, "tiny": options.tiny, **arguments}
    with Worker(folder.name, "regard.bench.made:Made", given, threads=options.threads) as worker:
        worker.ask("run")


def _truth(reference: Side, options: Options) -> dict[str, Any]:
    with ExitStack() as stack:
        return _start(stack, reference, options).ask("check")


def _start(stack: ExitStack, side: Side, options: Options) -> Worker:
    for kind, folder, arguments in side.needs:
        make(kind, folder, options, **arguments)
    given = {**side.arguments, "threads": options.threads}
    return stack.enter_context(Worker(side.label, side.target, given, threads=options.threads))


def _checked(
    side: Side, worker: Worker, truth: dict[str, Any], difference: Difference, options: Options
) -> dict[str, Any]:
    apart = difference(worker.ask("check"), truth)
    said = "not compared" if apart is None else f"{apart:.2g} from ours in fp32"
    options.report(f"  {side.label}: loaded in {worker.ready['load_s']:.2f} s, {said}")
    if apart is not None and apart > TOLERANCES[side.precision]:
        raise SideError(
            f"{side.label} differs from ours in fp32 by {apart:.3g}, more than {TOLERANCES[side.precision]:g}: "
            "it is not the same model."
        )
    return {"load_s": worker.ready["load_s"], "difference": apart, "peak_mib": worker.ready["peak_mib"]}
