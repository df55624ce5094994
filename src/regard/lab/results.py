"""Results on the disk: what a claim's result.json holds, and where it lies.

    OUT/L5/result.json    the verdict, its numbers, every seed's, and what it takes to get them again
    OUT/L5/figure.svg     the figure, light and dark
    OUT/L5/index.html     both on one page, which needs nothing else
    OUT/L5/seed-3.json    what a seed gave, while a run isn't at its end

Those of laptop size that the project has measured lie in `results/` beside this file, so that a package has them too.
"""

from __future__ import annotations

import json
import math
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regard.bench.common import SOURCE, commit, machine, versions
from regard.checkpoints.files import write_json_atomic
from regard.errors import TrainingError
from regard.lab.claim import Claim, Finding, Measured
from regard.lab.statistics import INTERVAL

__all__ = ["assemble", "check_finite", "read_seed", "seed_file", "write_seed"]


def assemble(
    claim: Claim,
    finding: Finding,
    runs: Sequence[Measured],
    *,
    size: str,
    seeds: Sequence[int],
    seconds: Sequence[float],
    threads: int,
) -> dict[str, Any]:
    """Put together what result.json holds.

    `interval` is null where there was one seed. `runs` has what each seed gave, in the order of `seeds`, and `seconds`
    how long it took.
    """
    effect = finding.effect
    words = ["regard", "lab", "run", claim.id, "--size", size, "--seeds", str(len(seeds))]
    return {
        "id": claim.id,
        "title": claim.title,
        "said": claim.said,
        "question": claim.question,
        "verdict": f"{finding.status.capitalize()}: {finding.sentence}",
        "status": finding.status,
        "effect": effect.mean,
        "effect_of": finding.effect_of,
        "interval": None if effect.interval is None else list(effect.interval),
        "interval_of": INTERVAL,
        "seeds": list(seeds),
        "command": shlex.join(words),
        "commit": _commit(),
        "size": size,
        "settings": dict(claim.sizes[size].settings),
        "method": claim.method,
        "refuted_by": claim.refuted_by,
        "fair": claim.fair,
        "tuning": claim.tuning,
        "repeats": claim.repeats,
        "more": dict(finding.more),
        "figure": finding.figure.to_dict(),
        "runs": list(runs),
        "seconds": list(seconds),
        "threads": threads,
        "machine": machine(),
        "versions": versions(),
    }


def seed_file(folder: Path, seed: int) -> Path:
    """Name the file that keeps what a seed gave until a run is at its end."""
    return folder / f"seed-{seed}.json"


def write_seed(
    folder: Path, seed: int, size: str, settings: Mapping[str, Any], seconds: float, found: Measured
) -> None:
    """Keep what one seed gave.

    Raises:
        CheckpointError: the folder can't be written.
    """
    values = {"seed": seed, "size": size, "settings": dict(settings), "seconds": seconds, "found": found}
    write_json_atomic(seed_file(folder, seed), values)


def read_seed(
    folder: Path, seed: int, size: str, settings: Mapping[str, Any]
) -> tuple[float, Measured] | None:
    """Give what a stopped run with the same settings had found with this seed, and its seconds; else None."""
    try:
        values = json.loads(seed_file(folder, seed).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    same = {"seed": seed, "size": size, "settings": json.loads(json.dumps(dict(settings)))}
    if not isinstance(values, dict) or any(values.get(key) != value for key, value in same.items()):
        return None
    return float(values["seconds"]), values["found"]


def _commit() -> str | None:
    """Give the commit that is checked out, marked where the code differs from it; that results do is no matter."""
    found = commit()
    if found is None or not found.endswith("-dirty"):
        return found
    words = ["git", "status", "--porcelain", "--", "regard", ":(exclude)regard/lab/results"]
    done = subprocess.run(words, cwd=SOURCE, capture_output=True, text=True, check=False)
    is_same = done.returncode == 0 and not done.stdout.strip()
    return found.removesuffix("-dirty") if is_same else found


def check_finite(name: str, value: Any) -> None:
    """Refuse a measurement with a number that is NaN or infinite.

    Raises:
        TrainingError: there is one; it says where.
    """
    if isinstance(value, Mapping):
        for key, one in value.items():
            check_finite(f"{name}.{key}", one)
    elif isinstance(value, (list, tuple)):
        for place, one in enumerate(value):
            check_finite(f"{name}[{place}]", one)
    elif isinstance(value, float) and not math.isfinite(value):
        raise TrainingError(
            f"{name} is {value}: nothing can be concluded from that; a training may have diverged."
        )
