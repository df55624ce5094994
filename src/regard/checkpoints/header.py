"""The header of a safetensors file: every claim in it is checked before any memory is taken for one.

Nothing here needs torch, so that a path can be looked at before anything heavy is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from regard.errors import CheckpointError, suggest

__all__ = [
    "MAX_HEADER_BYTES",
    "MAX_TENSORS",
    "PICKLE_SUFFIXES",
    "SHARED",
    "check_exists",
    "is_lfs_pointer",
    "listed",
    "quoted",
    "read_header",
    "reason_of",
    "refuse_other_kinds",
    "shared_names",
]

MAX_HEADER_BYTES = 16 * 2**20
MAX_TENSORS = 50_000
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
SHARED = "shared"  # the metadata key under which names of one storage are listed

_ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
_MAX_COMMAS = 16 * MAX_TENSORS  # an entry has 3, and one less than its shape has sizes


def read_header(path: Path, *, max_tensors: int = MAX_TENSORS) -> dict[str, Any]:
    """Read the header of a safetensors file and check every claim in it; the layout is huggingface/safetensors' own.

    Gives the entries (dtype, shape, data_offsets) by the tensors' names, and `__metadata__` where the file has it.

    Raises:
        CheckpointError: there is no such file; it is a pickle, a git-lfs pointer, incomplete, or not consistent.
    """
    check_exists(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(64)
            refuse_other_kinds(path, start)
            length = int.from_bytes(start[:8], "little")
            if size < 8 or length > size - 8:
                raise CheckpointError(
                    f"{path} is incomplete or no safetensors file: its header doesn't end within its {size:,} bytes."
                )
            if length > MAX_HEADER_BYTES:
                raise CheckpointError(
                    f"{path} has a header of {length:,} bytes; at most {MAX_HEADER_BYTES:,} are read."
                )
            file.seek(8)
            raw = file.read(length)
    except OSError as error:
        raise CheckpointError(f"{path} can't be read ({reason_of(error)}).") from error
    # Before it is parsed: a small value in JSON is a far larger one in memory.
    if raw.count(b'"data_offsets"') > max_tensors:
        raise CheckpointError(f"{path} lists more than {max_tensors:,} tensors; that is no model.")
    if raw.count(b",") > _MAX_COMMAS:
        raise CheckpointError(f"{path} has a header of more than {_MAX_COMMAS:,} parts; that is no model.")
    try:
        header = json.loads(raw, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is no safetensors file: its header isn't valid ({reason_of(error)})."
        ) from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path} is no safetensors file: its header isn't an object.")
    _check_spans(path, header, size - 8 - length)
    return header


def _check_spans(path: Path, header: Mapping[str, Any], room: int) -> None:
    """Refuse tensors that overlap, that leave bytes between them, or that end after the file."""
    spans = sorted(_span(path, name, entry) for name, entry in header.items() if name != "__metadata__")
    end, previous = 0, ""
    for begin, stop, name in spans:
        if begin < end:
            raise CheckpointError(
                f"{path}: the tensors {quoted(previous)} and {quoted(name)} claim the same bytes; the file is damaged."
            )
        if begin > end:
            raise CheckpointError(
                f"{path} can't be read: {quoted(name)} begins at byte {begin:,} of the data, where {end:,} is due; "
                "fetch or save it again."
            )
        end, previous = stop, name
    if end > room:
        raise CheckpointError(
            f"{path} is incomplete: {quoted(previous)} ends at byte {end:,} of the data, which has {room:,}; "
            "fetch it again."
        )
    if end < room:
        raise CheckpointError(
            f"{path} can't be read: {room - end:,} bytes at its end belong to no tensor; fetch or save it again."
        )


def refuse_other_kinds(path: Path, start: bytes = b"") -> None:
    """Refuse a git-lfs pointer and a pickle, by the file's name and its first bytes, with what to do instead.

    Raises:
        CheckpointError: it is one of them.
    """
    if is_lfs_pointer(start):
        raise CheckpointError(
            f"{path} is a git-lfs pointer, not the weights; download the file itself (git lfs pull)."
        )
    # A zip is what torch.save writes, byte 0x80 begins a pickle; a header so long would be refused in any
    # case.
    is_pickle = (
        start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and start[8:9] != b"{"
    )
    if start.startswith(b"PK\x03\x04") or is_pickle or path.suffix in PICKLE_SUFFIXES:
        raise CheckpointError(
            f"{path} is a pickle, which can run code when it is opened, so it isn't; if you trust it, convert it once: "
            "read it with torch's weights_only=True and write it with safetensors.torch.save_file."
        )


def is_lfs_pointer(start: bytes | str) -> bool:
    """Tell whether a file that begins so is what git-lfs leaves in the place of a large file."""
    text = start if isinstance(start, str) else start.decode("latin-1")
    return text.startswith("version https://git-lfs")


def shared_names(path: Path, header: Mapping[str, Any]) -> dict[str, str]:
    """Give the tied names that a header's metadata lists, each with the name under which the tensor is saved.

    Raises:
        CheckpointError: the list isn't one.
    """
    metadata = header.get("__metadata__")
    text = metadata.get(SHARED) if isinstance(metadata, dict) else None
    if text is None:
        return {}
    try:
        names = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        names = None
    if not isinstance(names, dict) or not all(isinstance(owner, str) for owner in names.values()):
        raise CheckpointError(
            f"{path}: the list of tied names in its metadata isn't valid; the file is damaged."
        )
    return names


def check_exists(path: Path) -> None:
    """Refuse a path that is no file; the message names its nearest neighbour.

    Raises:
        CheckpointError: it is a folder, or nothing is there.
    """
    if path.is_file():
        return
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; a file is needed here.")
    near = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    raise CheckpointError(f"{path} doesn't exist. {suggest(path.name, near)}".strip())


def listed(names: list[str], most: int = 20) -> str:
    """Join names for a message, and count those beyond `most`."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def quoted(value: object, most: int = 120) -> str:
    """Show a value that a file holds: escaped, so that it stays on one line, and cut where it is very long."""
    text = repr(value)
    return text if len(text) <= most else text[: most - 3] + "..."


def reason_of(error: BaseException) -> str:
    """Give what an error says, on one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name stands in it twice")
    return values


def _span(path: Path, name: str, entry: Any) -> tuple[int, int, str]:
    """Check one tensor's entry by itself; give its first byte, the one after its last, and its name."""
    entry = entry if isinstance(entry, dict) else {}
    shape: Any = entry.get("shape")
    offsets: Any = entry.get("data_offsets")
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2 or len(shape) > 64:
        raise CheckpointError(f"{path}: the entry of {quoted(name)} isn't valid; the file is damaged.")
    dtype = entry.get("dtype")
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise CheckpointError(
            f"{path}: {quoted(name)} has the type {quoted(dtype)}; known are {', '.join(_ITEM_BYTES)}."
        )
    claimed = prod(shape) * _ITEM_BYTES[dtype]
    if claimed != offsets[1] - offsets[0]:
        raise CheckpointError(
            f"{path}: {quoted(name)} of shape {tuple(shape)} needs {claimed:,} bytes and has "
            f"{offsets[1] - offsets[0]:,}; the file is damaged."
        )
    return offsets[0], offsets[1], name


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int and 0 <= v < 2**63 for v in value)
