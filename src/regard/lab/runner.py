"""Run a claim, seed by seed, and go on where a run stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from regard.checkpoints.files import atomic_file, write_json_atomic
from regard.errors import CheckpointError, ConfigError, suggest
from regard.lab.claim import Claim, Report
from regard.lab.drawing import svg
from regard.lab.kept import read_result
from regard.lab.page import page
from regard.lab.results import assemble, check_finite, read_seed, write_seed

__all__ = ["Outcome", "default_out", "run", "run_all", "write"]

_MOST_SEEDS = 100


@dataclass(frozen=True)
class Outcome:
    """Hold what `run_all` came to.

    Attributes:
        results: by id, those that were there already included.
        ran: the ids that were run now.
    """

    results: dict[str, dict[str, Any]]
    ran: tuple[str, ...]


def default_out(size: str) -> Path:
    """Give the folder in which results of a size lie unless another is named."""
    return Path("runs", "lab" if size == "laptop" else f"lab-{size}")


def run(
    claim: Claim, *, size: str = "laptop", seeds: int | None = None, out: Path, report: Report = lambda line: None
) -> dict[str, Any]:  # fmt: skip
    """Measure a claim with seeds 1 to `seeds`, write its result below `out`, and give it.

    Each seed is kept as soon as it is measured; the same call after an interruption goes on with those that are
    missing. A result that was there is replaced.

    Raises:
        ConfigError: no such size, a number of seeds that can't be, or a folder with results of another size.
        CheckpointError: the folder can't be written.
        TrainingError: a measurement is NaN or infinite.
    """
    numbers, folder = _seeds(claim, size, seeds), out / claim.id
    _refuse_other_size(claim, size, out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{folder} can't be made: {error.strerror or error}") from error
    settings = claim.sizes[size].settings
    found, seconds = [], []
    for seed in numbers:
        known = read_seed(folder, seed, size, settings)
        if known is None:
            report(f"{claim.id}: seed {seed} of {len(numbers)}")
            began = time.monotonic()
            torch.manual_seed(seed)
            # What is kept is what is concluded from, to the same types: a run that was stopped gives the same.
            fresh = json.loads(json.dumps(claim.measure(seed, settings, report)))
            check_finite(f"{claim.id}, seed {seed}", fresh)
            known = time.monotonic() - began, fresh
            write_seed(folder, seed, size, settings, *known)
        else:
            report(f"{claim.id}: seed {seed} of {len(numbers)} was measured before")
        seconds.append(known[0])
        found.append(known[1])
    finding = claim.conclude(found, settings)
    result = assemble(
        claim, finding, found, size=size, seeds=numbers, seconds=seconds, threads=torch.get_num_threads()
    )
    result = json.loads(json.dumps(result, allow_nan=False))  # as it is read again
    write(result, folder)
    for path in folder.glob("seed-*.json"):
        path.unlink()
    return result


def run_all(
    claims: Iterable[Claim], *, size: str = "laptop", seeds: int | None = None, out: Path,
    report: Report = lambda line: None,
) -> Outcome:  # fmt: skip
    """Run those claims that have no result of this size, with these settings and so many seeds, below `out`.

    Raises:
        As `run`.
    """
    results, ran = {}, []
    for claim in claims:
        numbers = _seeds(claim, size, seeds)
        _refuse_other_size(claim, size, out)
        known = read_result(claim.id, out)
        settings = json.loads(json.dumps(dict(claim.sizes[size].settings)))
        if known is not None and known["seeds"] == numbers and known["settings"] == settings:
            report(f"{claim.id}: is there already")
            results[claim.id] = known
            continue
        results[claim.id] = run(claim, size=size, seeds=seeds, out=out, report=report)
        ran.append(claim.id)
    return Outcome(results, tuple(ran))


def write(result: dict[str, Any], folder: Path) -> None:
    """Write a result's three files; result.json last, so that where it is, the others are too.

    Raises:
        CheckpointError: the folder can't be written.
    """
    figure = svg(result["figure"], title=f"{result['id']}: {result['title']}")
    try:
        for name, text in (("figure.svg", figure), ("index.html", page(result, figure))):
            with atomic_file(folder / name) as temporary:
                temporary.write_bytes(text.encode("utf-8"))
    except OSError as error:
        raise CheckpointError(f"{folder} can't be written: {error.strerror or error}") from error
    write_json_atomic(folder / "result.json", result)


def _seeds(claim: Claim, size: str, seeds: int | None) -> list[int]:
    if size not in claim.sizes:
        hint = suggest(size, claim.sizes) or f"choose from {', '.join(claim.sizes)}."
        raise ConfigError(f"--size {size} is not known; {hint}")
    count = claim.sizes[size].seeds if seeds is None else seeds
    if not 1 <= count <= _MOST_SEEDS:
        raise ConfigError(f"--seeds {count} is not allowed; give a whole number from 1 to {_MOST_SEEDS}.")
    return list(range(1, count + 1))


def _refuse_other_size(claim: Claim, size: str, out: Path) -> None:
    known = read_result(claim.id, out)
    if known is not None and known["size"] != size:
        raise ConfigError(
            f"{out / claim.id} holds a result of size {known['size']}; name another folder with --out."
        )
