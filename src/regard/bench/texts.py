"""What the comparisons read: the data sets beside the project where they are, else sentences of the demo's world."""

from __future__ import annotations

import os
import re
import zlib
from pathlib import Path

from regard.errors import DataError


def find_shared(*parts: str) -> Path | None:
    """Find a data set that is no part of the project, below REGARD_SHARED or ../shared; None where it isn't."""
    named = os.environ.get("REGARD_SHARED")
    path = (Path(named) if named else Path("..", "shared")).joinpath(*parts)
    return path if path.exists() else None


def shared(*parts: str) -> Path:
    """Find a data set that is no part of the project.

    Raises:
        DataError: it isn't there.
    """
    found = find_shared(*parts)
    if found is None:
        raise DataError(
            f"no {'/'.join(parts)}: set REGARD_SHARED to the folder that holds the data sets, or put it in ../shared."
        )
    return found


def sentences(count: int, seed: int) -> tuple[str, list[str]]:
    """Give sentences to classify, and what they are: SST-2's development sentences, or the world's."""
    path = find_shared("data", "sst2-glue", "dev.tsv")
    if path is None:
        return "the demo's world", [source for source, _ in _world(count, seed)]
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    return "SST-2, dev", [line.partition("\t")[0].strip() for line in lines][:count]


def pairs(count: int, seed: int) -> tuple[str, list[tuple[str, str]]]:
    """Give sentences to translate with their references, and what they are: Multi30k's, or the world's."""
    folder = find_shared("data", "multi30k")
    if folder is None:
        return "the demo's world", _world(count, seed)
    sides = [(folder / name).read_text(encoding="utf-8").splitlines() for name in ("val.en", "val.de")]
    return "Multi30k, val", list(zip(*sides, strict=True))[:count]


def numbered(text: str, vocabulary: int) -> list[int]:
    """Give every word and mark of a text a number from 2 to below `vocabulary` - 1, the same each time."""
    return [2 + zlib.crc32(word.encode()) % (vocabulary - 3) for word in re.findall(r"\w+|[^\w\s]", text)]


def _world(count: int, seed: int) -> list[tuple[str, str]]:
    from regard.data.world import World

    world = World(seed=seed)
    return [(one.source, one.target) for one in (world.example("train", k) for k in range(count))]
