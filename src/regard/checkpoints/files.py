"""Files of weights and settings: written whole or not at all, checked before they are believed.

Writing goes to a temporary file beside the target, reaches the disk, and then takes the target's name in one
step: a kill or a full disk at any byte leaves what was there before. Reading a file of weights checks its
whole header before any memory is taken for what the header claims.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regard.errors import CheckpointError, suggest

__all__ = [
    "atomic_file",
    "load_into",
    "load_tensors",
    "read_json",
    "save_tensors",
    "sync",
    "write_json_atomic",
]

MAX_HEADER_BYTES = 16 * 2**20
MAX_TENSORS = 50_000
MAX_JSON_BYTES = 256 * 2**20

_ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_SHARED = "shared"  # the metadata key under which names of one storage are listed


def sync(path: Path) -> None:
    """Wait until a file or a folder's list of names is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; when the block ends well it is on the disk under the name `path`.

    When it doesn't, the temporary file is removed and `path` is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.chmod(_usual_mode())  # some writers make files that their owner alone can read
        sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def _usual_mode() -> int:
    """Give the permissions that a new file has by this process's mask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return 0o666 & ~mask


def save_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors to one safetensors file, atomically.

    Names that share one storage are written once, under the first of them; the others are listed in the
    file's metadata, from which `load_tensors` ties them again.

    Raises:
        CheckpointError: the disk is full or the folder can't be written; the file that was there is still
        whole.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = Path(path)
    owners: dict[tuple[Any, ...], str] = {}
    kept: dict[str, Tensor] = {}
    shared: dict[str, str] = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach()
        place = (tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if tensor.numel() and place in owners:
            shared[name] = owners[place]
        else:
            owners[place] = name
            kept[name] = tensor.contiguous()
    # Tensors that overlap without being the same (one a slice of another) can't stand in one file as they
    # are.
    storages: set[int] = set()
    for name, tensor in kept.items():
        pointer = tensor.untyped_storage().data_ptr()
        if tensor.numel() and pointer in storages:
            kept[name] = tensor.clone()
        storages.add(pointer)
    notes = {"format": "pt", **(metadata or {})}
    if shared:
        notes[_SHARED] = json.dumps(shared)
    try:
        with atomic_file(path) as temporary:
            save_file(kept, temporary, metadata=notes)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} could not be written ({_reason(error)}); what was there is still whole."
        ) from error


def load_tensors(
    path: str | Path, device: str | torch.device = "cpu", *, check_finite: bool = True,
    warn: Callable[[str], None] = warnings.warn,
) -> dict[str, Tensor]:  # fmt: skip
    """Read a safetensors file; tied names come back as one tensor.

    Nothing in it is run, and nothing it claims is believed before it is checked against the file's own size.

    Args:
        path: the file.
        device: where the tensors shall be.
        check_finite: pass over the weights and name those with NaN or infinite values in a warning.
        warn: takes that warning.

    Raises:
        CheckpointError: there is no such file; it is a pickle, a git-lfs pointer, incomplete, or not
        consistent.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    header = _checked_header(path)
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} can't be read ({_reason(error)}); fetch or save it again.") from error
    for name, owner in _shared_names(path, header).items():
        if name not in tensors and owner in tensors:
            tensors[name] = tensors[owner]
    if check_finite:
        bad = [name for name, tensor in tensors.items() if not _is_finite(tensor)]
        if bad:
            warn(f"{path} holds NaN or infinite weights in {_listed(bad)}; results will be of no use.")
    return tensors


def load_into(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy weights into a model; either all of them fit, or nothing is copied.

    Weights that are tied in the model need be there under one of their names only.

    Raises:
        CheckpointError: one message with every tensor that is missing, unexpected or of another shape.
    """
    own = model.state_dict(keep_vars=True)
    tied: dict[int, list[str]] = {}
    for name, tensor in own.items():
        tied.setdefault(tensor.data_ptr() if tensor.numel() else id(tensor), []).append(name)
    given = {name for names in tied.values() if any(n in tensors for n in names) for name in names}
    problems = {
        "missing": [name for name in own if name not in given],
        "unexpected": [_with_hint(name, own) for name in tensors if name not in own],
        "of another shape": [
            f"{name} {tuple(tensor.shape)} where the model has {tuple(own[name].shape)}"
            for name, tensor in tensors.items()
            if name in own and tensor.shape != own[name].shape
        ],
        "different though tied": [
            f"{first} and {name}"
            for first, *others in (_present(names, tensors) for names in tied.values())
            for name in others
            if tensors[first] is not tensors[name] and not torch.equal(tensors[first], tensors[name])
        ],
    }
    if any(problems.values()):
        listed = "; ".join(f"{what}: {', '.join(names)}" for what, names in problems.items() if names)
        raise CheckpointError(f"these weights don't fit the model. {listed}.")
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def write_json_atomic(path: str | Path, value: object) -> None:
    """Write a value as indented JSON, atomically.

    Raises:
        CheckpointError: the disk is full or the folder can't be written; the file that was there is still
        whole.
    """
    path = Path(path)
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        with atomic_file(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(
            f"{path} could not be written ({_reason(error)}); what was there is still whole."
        ) from error


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        CheckpointError: there is no such file, it is far too large, or it isn't JSON; the message says where.
    """
    path = Path(path)
    _check_exists(path)
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise CheckpointError(
                f"{path} has {path.stat().st_size:,} bytes; settings have at most {MAX_JSON_BYTES:,}."
            )
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise CheckpointError(
            f"{path}:{error.lineno}: not valid JSON ({error.msg}); fetch or save it again."
        ) from error
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path} can't be read as JSON ({_reason(error)}).") from error


def _check_exists(path: Path) -> None:
    if path.is_file():
        return
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; a file is needed here.")
    near = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    raise CheckpointError(f"{path} doesn't exist. {suggest(path.name, near)}".strip())


def _checked_header(path: Path) -> dict[str, Any]:
    """Read the header of a safetensors file and check every claim in it; the layout is huggingface/safetensors' own."""
    _check_exists(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(64)
            _refuse_other_kinds(path, start)
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
        raise CheckpointError(f"{path} can't be read ({_reason(error)}).") from error
    if raw.count(b'"data_offsets"') > MAX_TENSORS:
        raise CheckpointError(f"{path} lists more than {MAX_TENSORS:,} tensors; that is no model.")
    try:
        header = json.loads(raw, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is no safetensors file: its header isn't valid ({_reason(error)})."
        ) from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path} is no safetensors file: its header isn't an object.")
    spans = sorted(_span(path, name, entry) for name, entry in header.items() if name != "__metadata__")
    end, previous = 0, ""
    for begin, stop, name in spans:
        if begin < end:
            raise CheckpointError(
                f"{path}: the tensors {previous!r} and {name!r} claim the same bytes; the file is damaged."
            )
        end, previous = stop, name
    if end > size - 8 - length:
        raise CheckpointError(
            f"{path} is incomplete: {previous!r} ends at byte {8 + length + end:,} of {size:,}; fetch it again."
        )
    return header


def _refuse_other_kinds(path: Path, start: bytes) -> None:
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path} is a git-lfs pointer, not the weights; download the file itself (git lfs pull)."
        )
    # A zip is what torch.save writes, byte 0x80 begins a pickle; a header so long would be refused in any
    # case.
    is_pickle = (
        start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and start[8:9] != b"{"
    )
    if start.startswith(b"PK\x03\x04") or is_pickle or path.suffix in _PICKLE_SUFFIXES:
        raise CheckpointError(
            f"{path} is a pickle, which can run code when it is opened, so it isn't; if you trust it, convert it once: "
            "read it with torch's weights_only=True and write it with safetensors.torch.save_file."
        )


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
        raise CheckpointError(f"{path}: the entry of {name!r} isn't valid; the file is damaged.")
    if entry.get("dtype") not in _ITEM_BYTES:
        raise CheckpointError(
            f"{path}: {name!r} has the type {entry.get('dtype')!r}; known are {', '.join(_ITEM_BYTES)}."
        )
    claimed = prod(shape) * _ITEM_BYTES[entry["dtype"]]
    if claimed != offsets[1] - offsets[0]:
        raise CheckpointError(
            f"{path}: {name!r} of shape {tuple(shape)} needs {claimed:,} bytes and has {offsets[1] - offsets[0]:,}; "
            "the file is damaged."
        )
    return offsets[0], offsets[1], name


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int and 0 <= v < 2**63 for v in value)


def _shared_names(path: Path, header: Mapping[str, Any]) -> dict[str, str]:
    metadata = header.get("__metadata__")
    text = metadata.get(_SHARED) if isinstance(metadata, dict) else None
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


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or tensor.dtype.itemsize == 1:
        return True
    # A finite sum has finite terms, and needs no second tensor; an infinite sum may only be a large one.
    total = tensor.sum(dtype=torch.float32 if tensor.dtype.itemsize == 2 else None)
    return bool(total.isfinite()) or bool(tensor.isfinite().all())


def _present(names: list[str], tensors: Mapping[str, Tensor]) -> list[str]:
    return [name for name in names if name in tensors] or names[:1]


def _with_hint(name: str, known: Mapping[str, Tensor]) -> str:
    hint = suggest(name, known)
    return f"{name} ({hint})" if hint else name


def _listed(names: list[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _reason(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
