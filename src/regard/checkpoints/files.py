"""Files of weights and settings: written whole or not at all, checked before they are believed.

Writing goes to a temporary file beside the target, reaches the disk, and then takes the target's name in one
step: a kill or a full disk at any byte leaves what was there before. Reading a file of weights checks its
whole header before any memory is taken for what the header claims.
"""

from __future__ import annotations

import json
import os
import stat
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regard.checkpoints.header import (
    MAX_TENSORS,
    SHARED,
    check_exists,
    is_lfs_pointer,
    listed,
    read_header,
    reason_of,
    shared_names,
)
from regard.errors import CheckpointError, suggest

__all__ = [
    "atomic_file",
    "is_finite",
    "load_into",
    "load_tensors",
    "read_json",
    "save_tensors",
    "sync",
    "write_json_atomic",
]

MAX_JSON_BYTES = 256 * 2**20


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

    When it doesn't, the temporary file is removed and `path` is as it was. What a link points to is replaced, never the
    link. A device or a pipe, which can't be, is given itself, to be written to as it is.

    Raises:
        OSError: it can't be written.
    """
    if _takes_a_stream(path):
        yield path
        return
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
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


def _takes_a_stream(path: Path) -> bool:
    """Tell whether a path is neither a file nor a folder nor free, or leads to where this process prints."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    if not path.is_symlink() or not stat.S_ISREG(there.st_mode):
        return not (stat.S_ISREG(there.st_mode) or stat.S_ISDIR(there.st_mode))
    return any(_is_open(number, there) for number in (1, 2))  # /dev/stdout, sent to a file


def _is_open(number: int, there: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.fstat(number), there)
    except OSError:  # closed
        return False


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
    from safetensors.torch import save, save_file

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
        notes[SHARED] = json.dumps(shared)
    try:
        with atomic_file(path) as temporary:
            if temporary == path:  # a device or a pipe, which safetensors would replace
                path.write_bytes(save(kept, metadata=notes))
            else:
                save_file(kept, temporary, metadata=notes)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} could not be written ({reason_of(error)}); what was there is still whole."
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
    header = read_header(path, max_tensors=MAX_TENSORS)
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} can't be read ({reason_of(error)}); fetch or save it again."
        ) from error
    for name, owner in shared_names(path, header).items():
        if name not in tensors and owner in tensors:
            tensors[name] = tensors[owner]
    if check_finite:
        bad = [name for name, tensor in tensors.items() if not is_finite(tensor)]
        if bad:
            warn(f"{path} holds NaN or infinite weights in {listed(bad)}; results will be of no use.")
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
            f"{path} could not be written ({reason_of(error)}); what was there is still whole."
        ) from error


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        CheckpointError: there is no such file, it is far too large, a git-lfs pointer, or no JSON; the message says
        where.
    """
    path = Path(path)
    check_exists(path)
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise CheckpointError(
                f"{path} has {path.stat().st_size:,} bytes; settings have at most {MAX_JSON_BYTES:,}."
            )
        text = path.read_text(encoding="utf-8-sig")
        if is_lfs_pointer(text):
            raise CheckpointError(
                f"{path} is a git-lfs pointer, not the settings; download the file itself (git lfs pull)."
            )
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise CheckpointError(
            f"{path}:{error.lineno}: not valid JSON ({error.msg}); fetch or save it again."
        ) from error
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path} can't be read as JSON ({reason_of(error)}).") from error


def is_finite(tensor: Tensor) -> bool:
    """Tell whether a tensor is free of NaN and infinite values; types of one byte are not looked at."""
    if not tensor.is_floating_point() or tensor.dtype.itemsize == 1:
        return True
    # A finite sum has finite terms, and needs no second tensor; an infinite sum may only be a large one. Bfloat16 goes
    # as far as single precision does, and its own sum takes a twentieth of the time of one in single precision.
    total = tensor.sum(dtype=torch.float32 if tensor.dtype == torch.float16 else None)
    return bool(total.isfinite()) or bool(tensor.isfinite().all())


def _present(names: list[str], tensors: Mapping[str, Tensor]) -> list[str]:
    return [name for name in names if name in tensors] or names[:1]


def _with_hint(name: str, known: Mapping[str, Tensor]) -> str:
    hint = suggest(name, known)
    return f"{name} ({hint})" if hint else name
