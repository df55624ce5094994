"""Token ids on disk, mapped into memory when used, so that a corpus larger than memory trains.

The file, in the machine-independent little-endian order: a 64-byte header (the magic word, then as int64 the
format, bytes per id, vocabulary size, number of sequences, number of ids), the ids, zeros up to a multiple of
8, and the offsets (int64, one more than sequences) at which the sequences begin.
"""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from regard.errors import DataError

__all__ = ["TokenStore"]

MAGIC = b"REGARDTK"
HEADER_BYTES = 64
FORMAT = 1
FLUSH_IDS = 1 << 18  # ids gathered before they are written


class TokenStore:
    """Hold sequences of token ids: `store[i]` is the i-th as an array that must not be written to.

    `flat` is all ids in a row (uint16 or uint32), `offsets` (int64) where each sequence begins in it and,
    last, where all end, `lengths` (int64) the number of ids of each.
    """

    def __init__(self, flat: NDArray[Any], offsets: NDArray[np.int64], *, vocab_size: int) -> None:
        """Hold arrays that are in memory or mapped; `write`, `open` and `of` are the usual ways here."""
        self.flat = flat
        self.offsets = offsets
        self.vocab_size = vocab_size
        self.lengths: NDArray[np.int64] = np.diff(offsets)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> NDArray[Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)}")
        index %= len(self)
        return self.flat[self.offsets[index] : self.offsets[index + 1]]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"TokenStore({len(self)} sequences, {len(self.flat)} ids)"

    @staticmethod
    def of(sequences: Iterable[Sequence[int] | NDArray[Any]], vocab_size: int) -> TokenStore:
        """Hold sequences in memory, for data that is small."""
        kind = _kind(vocab_size)
        parts, lengths = [], array("q", [0])
        for block, sizes in _blocks(sequences, vocab_size):
            parts.append(block.astype(kind))
            lengths.extend(sizes)
        flat = np.concatenate(parts) if parts else np.zeros(0, kind)
        return TokenStore(flat, np.cumsum(np.frombuffer(lengths, np.int64)), vocab_size=vocab_size)

    @staticmethod
    def write(
        path: str | os.PathLike[str],
        sequences: Iterable[Sequence[int] | NDArray[Any]],
        vocab_size: int,
    ) -> TokenStore:
        """Write sequences to a file as they come, and open it; the file appears whole or not at all.

        Raises DataError for an id outside the vocabulary, naming the sequence.
        """
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as out:
                _write(out, sequences, vocab_size)
                out.flush()
                os.fsync(out.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return TokenStore.open(target)

    @staticmethod
    def open(path: str | os.PathLike[str]) -> TokenStore:
        """Map a file into memory. Raises DataError where it is missing, cut off or not such a file."""
        try:
            size = os.path.getsize(path)
            with open(path, "rb") as handle:
                header = handle.read(HEADER_BYTES)
        except OSError as error:
            raise DataError(f"{path}: can't be read: {error.strerror}") from error
        if len(header) < HEADER_BYTES or header[:8] != MAGIC:
            raise DataError(f"{path}: not a file of token ids")
        version, width, vocab_size, number, total = np.frombuffer(header, "<i8", 5, 8).tolist()
        if version != FORMAT or width not in (2, 4) or min(vocab_size, number, total) < 0:
            raise DataError(f"{path}: token file of an unknown format ({version}); write it again")
        place = _aligned(HEADER_BYTES + total * width)
        if size != place + 8 * (number + 1):
            raise DataError(f"{path}: the token file is cut off or damaged; write it again")
        offsets = np.fromfile(path, "<i8", number + 1, offset=place)
        if offsets[0] != 0 or offsets[-1] != total or (np.diff(offsets) < 0).any():
            raise DataError(f"{path}: the token file is damaged: its sequences overlap; write it again")
        kind = np.dtype(f"<u{width}")
        # A map of nothing can't be made.
        flat = np.memmap(path, kind, "r", HEADER_BYTES, (total,)) if total else np.zeros(0, kind)
        return TokenStore(flat, offsets, vocab_size=vocab_size)


def _kind(vocab_size: int) -> np.dtype[Any]:
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def _aligned(size: int) -> int:
    return -(-size // 8) * 8


def _write(out: BinaryIO, sequences: Iterable[Sequence[int] | NDArray[Any]], vocab_size: int) -> None:
    kind = _kind(vocab_size)
    out.write(bytes(HEADER_BYTES))
    lengths = array("q", [0])
    total = 0
    for block, sizes in _blocks(sequences, vocab_size):
        out.write(block.astype(kind).tobytes())
        lengths.extend(sizes)
        total += len(block)
    end = HEADER_BYTES + total * kind.itemsize
    out.write(bytes(_aligned(end) - end))
    out.write(np.cumsum(np.frombuffer(lengths, np.int64)).astype("<i8").tobytes())
    numbers = (FORMAT, kind.itemsize, vocab_size, len(lengths) - 1, total)
    out.seek(0)
    out.write(MAGIC + np.array(numbers, "<i8").tobytes())


def _blocks(
    sequences: Iterable[Sequence[int] | NDArray[Any]], vocab_size: int
) -> Iterator[tuple[NDArray[np.int64], list[int]]]:
    """Join many sequences into one array at a time, which is far cheaper than an array for each."""
    held: list[int] = []
    sizes: list[int] = []
    done = 0
    for sequence in sequences:
        held.extend(sequence.tolist() if isinstance(sequence, np.ndarray) else sequence)
        sizes.append(len(sequence))
        if len(held) >= FLUSH_IDS:
            yield _checked(held, sizes, vocab_size, done), sizes
            done += len(sizes)
            held, sizes = [], []
    if sizes:
        yield _checked(held, sizes, vocab_size, done), sizes


def _checked(held: list[int], sizes: list[int], vocab_size: int, done: int) -> NDArray[np.int64]:
    try:
        block = np.array(held, np.int64)
        wrong = np.flatnonzero((block < 0) | (block >= vocab_size))
        place = int(wrong[0]) if len(wrong) else None
    except OverflowError:
        place = next(k for k, value in enumerate(held) if not 0 <= value < vocab_size)
    if place is not None:
        sequence = done + int(np.searchsorted(np.cumsum(sizes), place, side="right"))
        raise DataError(
            f"sequence {sequence} has the id {held[place]}, and the vocabulary has {vocab_size}; "
            "ids run from 0; use the tokenizer that the vocabulary belongs to"
        )
    return block
