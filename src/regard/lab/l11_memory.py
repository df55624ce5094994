"""L11: attention's memory grows with n² unless the weights are never stored.

A side is a process of its own, so that its memory is its own:
`python -m regard.lab.l11_memory SIDE SEED HEADS LENGTH...`.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from regard.bench.common import run_process
from regard.bench.worker import peak_mib
from regard.lab.claim import Claim, Figure, Finding, Measured, Panel, Report, Series, Settings, Size, Status
from regard.lab.statistics import Estimate, estimate, number

SIDES = {
    "stored": "every weight stored",
    "fused": "fused, no weight stored",
    "looked at": "captured and looked at",
}
HEAD_SIZE = 64  # GPT-2's
SQUARE, LINE = (1.7, 2.3), 1.3
"""Between which exponents memory is said to grow with n², and below which with n."""
_MIB = 2**20


def measure(seed: int, settings: Settings, report: Report) -> Measured:
    """Measure each side at each length, as far as the settings let it go."""
    found: Measured = {"seconds": {}, "mib": {}, "weights_mib": {}}
    for side, label in SIDES.items():
        for what in ("seconds", "mib"):
            found[what][side] = {}
        lengths = [n for n in settings["lengths"] if n <= settings["last"].get(side, n)]
        report(f"  {label}, to {lengths[-1]:,} tokens")
        words = [sys.executable, "-P", "-m", "regard.lab.l11_memory", side, seed, settings["heads"], *lengths]
        for length, one in json.loads(run_process([str(word) for word in words])[1]).items():
            for what in ("seconds", "mib"):
                found[what][side][length] = one[what]
    for length in settings["lengths"]:
        found["weights_mib"][str(length)] = settings["heads"] * length**2 * 4 / _MIB
    return found


def attend(side: str, seed: int, heads: int, lengths: Sequence[int]) -> dict[str, dict[str, float]]:
    """Attend causally over texts of drawn vectors, and give the seconds and the MiB that each length took.

    Counted is what the process needs beyond what it had before queries, keys and values were made; where the system
    doesn't forget a peak, beyond what it had before the first length, so they must grow. To look is to keep what
    weights follow from, draw the whole map with 512 cells a side, and compute the last row exactly.
    """
    import torch

    from regard.look.capture import capture
    from regard.look.tiles import Pyramid
    from regard.nn.attention import Attend
    from regard.nn.masks import Mask

    draw = torch.Generator().manual_seed(seed)
    one = Attend(name="decoder.0")

    def work(size: int) -> None:
        query, key, value = (torch.randn(1, heads, size, HEAD_SIZE, generator=draw) for _ in range(3))
        mask = Mask(causal=True)
        with torch.inference_mode():
            if side == "stored":
                one.reference(query, key, value, mask)
            elif side == "fused":
                one.fused(query, key, value, mask)
            else:
                with capture() as kept:
                    one(query, key, value, mask)
                layer = kept.of()["decoder.0"]
                Pyramid([(layer, 0)]).preview(min(512, size))
                layer.row(0, size - 1)

    work(64)  # loads what is loaded once
    first, found = peak_mib() or 0.0, {}
    for length in lengths:
        before = _reset_peak(first)
        began = time.perf_counter()
        work(length)
        seconds = time.perf_counter() - began
        found[str(length)] = {"seconds": seconds, "mib": max(0.0, (peak_mib() or 0.0) - before)}
    return found


def _reset_peak(first: float) -> float:
    """Let the system forget this process's largest size and give its size now in MiB; where it can't, `first`."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    return first


def exponent(found: Measured, what: str, side: str) -> float:
    """Give e of a growth with n^e, by least squares over the upper half of the lengths."""
    points = [(int(n), value) for n, value in found[what][side].items() if value > 0]
    points = sorted(points)[-max(2, -(-len(points) // 2)) :]
    if len(points) < 2:
        return 0.0
    x, y = ([math.log(pair[k]) for pair in points] for k in (0, 1))
    middle = math.fsum(x) / len(x)
    return math.fsum((a - middle) * b for a, b in zip(x, y, strict=True)) / math.fsum(
        (a - middle) ** 2 for a in x
    )


def conclude(found: Sequence[Measured], settings: Settings) -> Finding:
    """Say how memory and time grow on each side."""
    memory = {side: estimate([exponent(one, "mib", side) for one in found]) for side in SIDES}
    times = {side: estimate([exponent(one, "seconds", side) for one in found]) for side in SIDES}
    lengths = settings["lengths"]
    longest = {side: max(int(n) for n in found[0]["mib"][side]) for side in SIDES}

    def at(what: str, side: str, length: int) -> Estimate:
        return estimate([one[what][side][str(length)] for one in found])

    grows = SQUARE[0] < memory["stored"].mean < SQUARE[1]
    saves = {side: memory[side].mean < LINE for side in ("fused", "looked at")}
    if grows and all(saves.values()):
        status: Status = "holds"
    elif grows and any(saves.values()):
        status = "holds in part"
    else:
        status = "fails"
    last = longest["looked at"]
    sentence = (
        f"memory grows with n to the power of {memory['stored'].text()} where weights are stored, "
        f"{memory['fused'].text()} where they aren't, and {memory['looked at'].text()} where they are looked at all "
        f"the same: at {last:,} tokens that takes {at('mib', 'looked at', last).text('MiB')}, and the weights alone "
        f"would take {number(settings['heads'] * last**2 * 4 / _MIB, 4)} MiB; time grows with n to the power of "
        f"{times['fused'].text()} even so"
    )

    def lines(what: str) -> tuple[Series, ...]:
        return tuple(
            Series(
                label, tuple(float(n) for n in lengths if str(n) in found[0][what][side]),
                tuple(at(what, side, n) for n in lengths if str(n) in found[0][what][side]),
            )
            for side, label in SIDES.items()
        )  # fmt: skip

    alone = Series(
        "the weights alone, computed", tuple(float(n) for n in lengths),
        tuple(estimate([one["weights_mib"][str(n)] for one in found]) for n in lengths), True,
    )  # fmt: skip
    heads = f"{settings['heads']} {'head' if settings['heads'] == 1 else 'heads'} of {HEAD_SIZE}"
    panels = (
        Panel(f"Memory, {heads}", "length n (tokens)", "memory (MiB)", (*lines("mib"), alone), True, True),
        Panel(f"Time, {heads}", "length n (tokens)", "time (s)", lines("seconds"), True, True),
    )
    more: dict[str, Any] = {
        "memory_exponents": {side: one.mean for side, one in memory.items()},
        "time_exponents": {side: one.mean for side, one in times.items()},
        "longest": longest,
    }
    return Finding(
        status, f"{sentence}.", memory["stored"], "the power of n with which memory grows where weights are stored",
        Figure(
            "One attention layer over drawn vectors, each side a process of its own. To look is to keep what every "
            "weight follows from, to draw the whole map, and to compute a row exactly.", panels,
        ),
        more,
    )  # fmt: skip


CLAIM = Claim(
    id="L11",
    title="Memory and length",
    said="Attention's memory grows with the square of the text's length, unless its weights are never stored.",
    question="How do memory and time of attention grow with the length: weights stored, not stored, looked at?",
    method=(
        "One causal attention layer in single precision over texts of drawn vectors, by the equation with every "
        "weight stored, by torch's fused kernel, and as the library looks: fused, with queries, keys and one "
        "number a row kept, then a picture of the whole map and an exact row. Each side is a process of its own; "
        "counted is its largest size beyond what it was before. The power of n is fitted over the upper half of "
        "the lengths."
    ),
    refuted_by=(
        "A power below 1.7 or above 2.3 with weights stored; or above 1.3 without, or for looking. If one of the "
        "two grows slowly and the other doesn't, it holds in part."
    ),
    fair="All sides attend over the same queries, keys and values, with the same threads; seeds are repetitions.",
    tuning="None: kernels are as they are.",
    sizes={
        "laptop": Size(
            3, {"lengths": [1024, 4096, 16_384, 65_536, 131_072], "last": {"stored": 16_384}, "heads": 1}
        ),
        "gpu": Size(
            5, {"lengths": [1024, 4096, 16_384, 65_536, 131_072], "last": {"stored": 16_384}, "heads": 4}
        ),
        "smoke": Size(2, {"lengths": [256, 1024], "last": {"stored": 1024}, "heads": 1}),
    },
    measure=measure,
    conclude=conclude,
    repeats=False,
)


def main(side: str, *numbers: str) -> None:
    """Measure one side, and give it as JSON on standard output."""
    seed, heads, *lengths = map(int, numbers)
    sys.stdout.write(json.dumps(attend(side, seed, heads, lengths)) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
