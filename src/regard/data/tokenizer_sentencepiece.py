"""Read a SentencePiece model file: the pieces, their scores, and how text is prepared for them.

The file is a protocol buffer: a row of fields, each a number, a wire type and a value. The numbers are those
of `sentencepiece_model.proto` in the SentencePiece project. Only what is needed is read. Nothing is taken on
trust: every length is checked against the bytes that are there, and the table of character replacements
(a double-array trie) is walked by compiled code later, so that its every jump is checked here first.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from regard.data.tokenizer_reading import MOST_IDS, read_bytes
from regard.errors import CheckpointError

__all__ = ["BYTE", "CONTROL", "NORMAL", "UNKNOWN", "USER", "SentencePieces", "parse", "read"]

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # the type of a piece
MODEL_TYPES = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}
LONGEST_PIECE = 1024  # bytes
MOST_CHARSMAP = 16 * 2**20  # bytes; the usual one has 0.25 MB


@dataclass
class SentencePieces:
    """Hold what a SentencePiece model says; index k of the three lists is its piece k."""

    pieces: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    model_type: str = "unigram"
    byte_fallback: bool = False
    space_as_suffix: bool = False
    charsmap: bytes = b""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    escape_whitespaces: bool = True

    @property
    def unknown(self) -> int:
        """The index of the one piece that stands for what is unknown."""
        return self.types.index(UNKNOWN)


class _DamagedError(Exception):
    """Say what is wrong inside the bytes; the file's name is added outside."""


def read(path: Path) -> SentencePieces:
    """Read and check a model file. Raises CheckpointError where it is no such file, or a damaged one."""
    return parse(read_bytes(path), name=str(path))


def parse(data: bytes, *, name: str) -> SentencePieces:
    """Read and check the bytes of a model; `name` is what an error calls it. Raises CheckpointError."""
    model = SentencePieces()
    numbers = set()
    try:
        for number, wire, start, end in _fields(data, 0, len(data)):
            numbers.add(number)
            if number == 1:
                _expect(wire, 2, "a piece")
                _piece(model, data, start, end)
            elif number == 2:
                _expect(wire, 2, "the trainer's part")
                _trainer(model, data, start, end)
            elif number == 3:
                _expect(wire, 2, "the normaliser's part")
                _normalizer(model, data, start, end)
        _check(model)
        if not {2, 3} <= numbers:  # every model has them, behind the pieces
            raise _DamagedError("the parts that stand behind the pieces are missing")
    except _DamagedError as error:
        hint = "download the file again"
        if data[:64].isascii() and b"== " in data[:64]:
            hint = "it looks like a tiktoken vocabulary, which is read only as tokenizer.json"
        raise CheckpointError(
            f"{name}: not a SentencePiece model that can be read: {error}; {hint}"
        ) from error
    return model


# ----------------------------------------------------------------------------------------- protocol buffers


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Read a number in groups of seven bits: the number, and where the next byte is."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise _DamagedError(f"a number at byte {at} has no end")


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Give each field's number, wire type, and where its value starts and ends."""
    while at < end:
        key, at = _varint(data, at, end)
        number, wire = key >> 3, key & 7
        start = at
        if wire == 0:
            _, at = _varint(data, at, end)
        elif wire == 1:
            at += 8
        elif wire == 2:
            size, start = _varint(data, at, end)
            at = start + size
        elif wire == 5:
            at += 4
        else:
            raise _DamagedError(f"wire type {wire} at byte {start}")
        if number == 0 or at > end:
            raise _DamagedError(
                f"the field at byte {start} runs past the end" if number else f"field 0 at byte {start}"
            )
        yield number, wire, start, at


def _expect(wire: int, wanted: int, what: str) -> None:
    if wire != wanted:
        raise _DamagedError(f"{what} has wire type {wire} in place of {wanted}")


def _number(data: bytes, wire: int, start: int, end: int, what: str) -> int:
    _expect(wire, 0, what)
    return _varint(data, start, end)[0]


def _piece(model: SentencePieces, data: bytes, at: int, end: int) -> None:
    piece, score, kind = b"", 0.0, NORMAL
    for number, wire, start, stop in _fields(data, at, end):
        if number == 1:
            _expect(wire, 2, "a piece's text")
            piece = data[start:stop]
        elif number == 2:
            _expect(wire, 5, "a piece's score")
            score = struct.unpack_from("<f", data, start)[0]
        elif number == 3:
            kind = _number(data, wire, start, stop, "a piece's type")
    index = len(model.pieces)
    if index >= MOST_IDS:
        raise _DamagedError(f"more than {MOST_IDS:,} pieces")
    if not 0 < len(piece) <= LONGEST_PIECE:
        raise _DamagedError(f"piece {index} has {len(piece)} bytes")
    if not math.isfinite(score):
        raise _DamagedError(f"the score of piece {index} is {score}")
    if not NORMAL <= kind <= BYTE:
        raise _DamagedError(f"piece {index} has the unknown type {kind}")
    try:
        model.pieces.append(piece.decode())
    except UnicodeDecodeError as error:
        raise _DamagedError(f"piece {index} is not UTF-8") from error
    model.scores.append(score)
    model.types.append(kind)


def _trainer(model: SentencePieces, data: bytes, at: int, end: int) -> None:
    for number, wire, start, stop in _fields(data, at, end):
        if number == 3:
            kind = _number(data, wire, start, stop, "model_type")
            if kind not in MODEL_TYPES:
                raise _DamagedError(f"model_type {kind} is not known")
            model.model_type = MODEL_TYPES[kind]
        elif number == 24:
            model.space_as_suffix = bool(_number(data, wire, start, stop, "treat_whitespace_as_suffix"))
        elif number == 35:
            model.byte_fallback = bool(_number(data, wire, start, stop, "byte_fallback"))


def _normalizer(model: SentencePieces, data: bytes, at: int, end: int) -> None:
    for number, wire, start, stop in _fields(data, at, end):
        if number == 2:
            _expect(wire, 2, "precompiled_charsmap")
            model.charsmap = data[start:stop]
        elif number == 3:
            model.add_dummy_prefix = bool(_number(data, wire, start, stop, "add_dummy_prefix"))
        elif number == 4:
            model.remove_extra_whitespaces = bool(
                _number(data, wire, start, stop, "remove_extra_whitespaces")
            )
        elif number == 5:
            model.escape_whitespaces = bool(_number(data, wire, start, stop, "escape_whitespaces"))


# ---------------------------------------------------------------------------------------------------- checks


def _check(model: SentencePieces) -> None:
    if not model.pieces:
        raise _DamagedError("it has no pieces")
    if model.types.count(UNKNOWN) != 1:
        raise _DamagedError(
            f"{model.types.count(UNKNOWN)} pieces stand for what is unknown, there must be one"
        )
    if len(set(model.pieces)) != len(model.pieces):
        seen: set[str] = set()
        for piece in model.pieces:
            if piece in seen:
                raise _DamagedError(f"the piece {piece[:60]!r} stands twice")
            seen.add(piece)
    for what, fault in (
        (f"model type {model.model_type!r}", model.model_type not in ("unigram", "bpe")),
        ("spaces at the end of words", model.space_as_suffix),
        ("spaces that are not escaped", not model.escape_whitespaces),
        ("pieces marked as unused", UNUSED in model.types),
    ):
        if fault:
            raise _DamagedError(f"{what} can't be used here, only unigram and BPE models of the usual form")
    if model.charsmap:
        _check_charsmap(model.charsmap)


def _check_charsmap(blob: bytes) -> None:
    """Refuse a table of replacements in which following a jump could leave the table.

    The table is the trie's size in bytes, the trie's units (32 bits each), and the replacements, each ended
    by a zero. A unit holds a replacement's place, or a jump and the label by which it was reached.
    Source: darts-clone's `DoubleArrayUnit`.
    """
    import numpy as np

    if len(blob) > MOST_CHARSMAP:
        raise _DamagedError(f"its table of replacements has {len(blob):,} bytes, at most {MOST_CHARSMAP:,}")
    size = int.from_bytes(blob[:4], "little")
    texts = blob[4 + size :]
    if len(blob) < 8 or size % 4 or size == 0 or not texts or texts[-1] != 0:
        raise _DamagedError("its table of replacements is cut off")
    try:
        texts.decode()
    except UnicodeDecodeError as error:
        raise _DamagedError("its table of replacements is not UTF-8") from error
    units = np.frombuffer(blob, dtype="<u4", count=size // 4, offset=4).astype(np.int64)
    is_leaf = (units >> 31) == 1
    jump = (units >> 10) << ((units & 0x200) >> 6)
    reach = (np.arange(len(units)) ^ jump) | 0xFF
    places = units[is_leaf] & 0x7FFFFFFF
    letters = np.frombuffer(texts, dtype=np.uint8)
    if (reach[~is_leaf] >= len(units)).any() or (places >= len(texts)).any():
        raise _DamagedError("its table of replacements points outside itself")
    ends_here = ~is_leaf & ((units & 0x100) != 0)
    if not is_leaf[(np.arange(len(units)) ^ jump)[ends_here]].all():
        raise _DamagedError("its table of replacements points outside itself")
    if ((letters[places] & 0xC0) == 0x80).any():
        raise _DamagedError("its table of replacements points into the middle of a character")
