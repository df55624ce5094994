"""Read the weights of a model folder: one file or many shards, a tensor at a time, none of them believed unchecked.

Opening reads the headers alone. A tensor is then a view of the file in memory, so that a model takes the room of its
own weights and, for a while, that of one shard's pages.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from regard.checkpoints.files import is_finite, read_json
from regard.checkpoints.header import (
    MAX_TENSORS,
    check_exists,
    listed,
    quoted,
    read_header,
    reason_of,
    refuse_other_kinds,
    shared_names,
)
from regard.errors import CheckpointError, suggest

__all__ = ["Weights"]

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_INDEX_BYTES = 16 * 2**20
# Weights of other libraries, none of which is a pickle.
_FOREIGN_SUFFIXES = (".h5", ".msgpack", ".gguf", ".onnx", ".npz", ".tflite", ".index", ".ot")

_DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "U16": torch.uint16,
    "I32": torch.int32, "U32": torch.uint32, "I64": torch.int64, "U64": torch.uint64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F16": torch.float16, "BF16": torch.bfloat16,
    "F32": torch.float32, "F64": torch.float64, "C64": torch.complex64,
}  # fmt: skip


class Weights:
    """Hold the names, shapes and types of a model's weights, and read each tensor when it is asked for.

    Tensors are on the processor and share the file's pages, with one another too where one is read twice: copy before
    you write. What is written doesn't reach the file. At most one shard is held open; `close`, or the end of a
    `with`, lets go of it, and a later call opens it again.

    Args:
        where: a folder with model.safetensors, with model.safetensors.index.json and its shards, or with one other
            safetensors file; or such a file or index itself.
        warn: takes a sentence about what is odd and does no harm.

    Attributes:
        files: the files that the weights stand in.

    Raises:
        CheckpointError: there are no weights, or they are pickles, git-lfs pointers, incomplete or not consistent.

    Example:
        >>> with Weights("model") as weights:  # doctest: +SKIP
        ...     table = weights.tensor("embedding.weight")
    """

    def __init__(self, where: str | Path, *, warn: Callable[[str], None] = warnings.warn) -> None:
        where = Path(where)
        self._where = where
        self._open: tuple[Path, Any] | None = None
        try:
            found = _find(where) if where.is_dir() else where
            check_exists(found)
            is_index = found.name.endswith(".index.json")
            index = _read_index(found) if is_index else {}
            self.files: list[Path] = _shards(found, index) if is_index else [found]
        except OSError as error:
            raise CheckpointError(f"{where} can't be read ({reason_of(error)}).") from error
        self._entries: dict[str, tuple[Path, dict[str, Any]]] = {}
        self._tied: dict[str, str] = {}
        twice: list[str] = []
        for path in self.files:
            header = read_header(path)
            self._tied |= shared_names(path, header)
            header.pop("__metadata__", None)
            twice += [
                f"{name} ({self._entries[name][0].name} and {path.name})"
                for name in header
                if name in self._entries
            ]
            self._entries |= {name: (path, entry) for name, entry in header.items()}
            if len(self._entries) > MAX_TENSORS:
                raise CheckpointError(f"{where} lists more than {MAX_TENSORS:,} tensors; that is no model.")
        if twice:
            raise CheckpointError(f"{where} has tensors in two shards: {listed(twice)}; fetch it again.")
        self._tied = {n: o for n, o in self._tied.items() if n not in self._entries and o in self._entries}
        if is_index:
            self._compare(found, index, warn)

    def _compare(self, path: Path, index: Mapping[str, Any], warn: Callable[[str], None]) -> None:
        """Check that the shards hold what their index says."""
        lacking = [
            f"{quoted(name)} ({shard})"
            for name, shard in index["weight_map"].items()
            if name not in self._tied
            and (name not in self._entries or self._entries[name][0] != path.parent / shard)
        ]
        if lacking:
            raise CheckpointError(
                f"{path} promises tensors that its shards don't hold: {listed(lacking)}; fetch the folder again."
            )
        total = _total_size(path, index)
        if total is not None and total != self.num_bytes:
            warn(f"{path} says that the weights have {total:,} bytes; they have {self.num_bytes:,}.")

    @property
    def num_bytes(self) -> int:
        """Give the size of all tensors in bytes, tied ones once."""
        return sum(entry["data_offsets"][1] - entry["data_offsets"][0] for _, entry in self._entries.values())

    def names(self) -> list[str]:
        """Give the names of all tensors, in the order of the files; tied names come last."""
        return [*self._entries, *self._tied]

    def tied(self) -> dict[str, str]:
        """Give each tied name with the name under which its tensor is saved."""
        return dict(self._tied)

    def shape(self, name: str) -> tuple[int, ...]:
        """Give a tensor's shape. Raises CheckpointError for an unknown name, with its nearest neighbour."""
        return tuple(self._entry(name)[1]["shape"])

    def dtype(self, name: str) -> torch.dtype:
        """Give the type of a tensor's numbers. Raises CheckpointError for an unknown name."""
        return _DTYPES[self._entry(name)[1]["dtype"]]

    def tensor(self, name: str) -> Tensor:
        """Read a tensor; its numbers are fetched from the file when they are first looked at.

        Raises:
            CheckpointError: there is none of that name, or the file can't be read any more.
        """
        path, _ = self._entry(name)
        return self._read(path, self._tied.get(name, name))

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Give every name with its tensor, shard by shard; tied names come with the same tensor, after its owner.

        Raises:
            CheckpointError: a file can't be read any more.
        """
        aliases: dict[str, list[str]] = {}
        for name, owner in self._tied.items():
            aliases.setdefault(owner, []).append(name)
        for name, (path, _) in self._entries.items():
            tensor = self._read(path, name)
            yield name, tensor
            for alias in aliases.get(name, ()):
                yield alias, tensor
        self.close()

    def not_finite(self) -> list[str]:
        """Name the tensors that hold NaN or infinite values; this reads all of them."""
        names = [name for name, (path, _) in self._entries.items() if not is_finite(self._read(path, name))]
        self.close()
        return names

    def close(self) -> None:
        """Let go of the shard that is open; tensors that were read from it stay as they are."""
        if self._open is not None:
            self._open[1].__exit__(None, None, None)
            self._open = None

    def __enter__(self) -> Weights:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._entries) + len(self._tied)

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._tied

    def __repr__(self) -> str:
        return f"Weights({str(self._where)!r}, {len(self)} tensors, {len(self.files)} files)"

    def _entry(self, name: str) -> tuple[Path, dict[str, Any]]:
        owner = self._tied.get(name, name)
        if owner not in self._entries:
            raise CheckpointError(
                f"{self._where} has no tensor {quoted(name)}. {suggest(name, self.names())}".strip()
            )
        return self._entries[owner]

    def _read(self, path: Path, name: str) -> Tensor:
        from safetensors import SafetensorError, safe_open

        try:
            if self._open is None or self._open[0] != path:
                self.close()
                # Entered at once, and left in `close`: a shard stays open from one tensor to the next.
                self._open = (path, safe_open(path, framework="pt", device="cpu").__enter__())
            return self._open[1].get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{path} can't be read ({reason_of(error)}); fetch or save it again."
            ) from error


def _find(folder: Path) -> Path:
    """Choose a folder's file of weights, or the index of its shards; say what to do where it has neither."""
    for name in (WEIGHTS, INDEX):
        if (folder / name).is_file():
            return folder / name
    visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    ours = [path for path in visible if path.suffix == ".safetensors"]
    broken = [path.name for path in ours if not path.is_file()]
    if broken:
        raise CheckpointError(
            f"{folder} has links to weights that aren't there: {listed(broken)}; fetch them again."
        )
    if len(ours) == 1:
        return ours[0]
    if ours:
        names = listed([path.name for path in ours])
        raise CheckpointError(
            f"{folder} has several files of weights and no {INDEX}: {names}; fetch the index, or name one file."
        )
    # The folder of a training run may hold pickles of other things beside its weights.
    for path in sorted(visible, key=lambda path: not path.name.startswith("pytorch_model")):
        refuse_other_kinds(path)
    foreign = [path.name for path in visible if path.suffix in _FOREIGN_SUFFIXES]
    if foreign:
        raise CheckpointError(
            f"{folder} has weights in another library's format only ({listed(foreign)}); "
            f"fetch {WEIGHTS} too, or {INDEX} and its shards."
        )
    raise CheckpointError(f"{folder} holds no weights; fetch {WEIGHTS}, or {INDEX} and its shards.")


def _read_index(path: Path) -> dict[str, Any]:
    """Read an index of shards: an object with a map of tensor names to file names."""
    size = path.stat().st_size
    if size > MAX_INDEX_BYTES:
        raise CheckpointError(f"{path} has {size:,} bytes; an index has at most {MAX_INDEX_BYTES:,}.")
    # Before it is parsed, as its parts take far more room than its text; a comma stands between any two tensors.
    if path.read_bytes().count(b",") > MAX_TENSORS + 1000:
        raise CheckpointError(f"{path} lists more than {MAX_TENSORS:,} tensors; that is no model.")
    index = read_json(path)
    table = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(table, dict) or not table or not all(isinstance(n, str) for n in table.values()):
        raise CheckpointError(
            f"{path} is no index of weights: it needs a weight_map of tensor names to files."
        )
    _total_size(path, index)
    return index


def _total_size(path: Path, index: Mapping[str, Any]) -> int | None:
    metadata = index.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    if total is None:
        return None
    # Some writers leave it as a float.
    is_count = isinstance(total, (int, float)) and not isinstance(total, bool) and 0 <= total < 2**63
    if not is_count or int(total) != total:
        raise CheckpointError(f"{path}: metadata.total_size={quoted(total)} is no size in bytes.")
    return int(total)


def _shards(index: Path, content: Mapping[str, Any]) -> list[Path]:
    """Give the files that an index names, each inside the index's folder and there."""
    folder = index.parent
    names = list(dict.fromkeys(content["weight_map"].values()))
    missing = []
    for name in names:
        _check_inside(index, name)
        path = folder / name
        if not path.is_file():
            missing.append(name)
            continue
        if not _is_inside(path, folder):
            raise CheckpointError(
                f"{path} is a link that leaves its folder; a shard must stand in the folder of its index."
            )
    if missing:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of its {len(names)} shards: {listed(missing)}; fetch them too."
        )
    return [folder / name for name in names]


def _check_inside(index: Path, name: str) -> None:
    """Refuse a shard's name that could mean another folder on any system, or that is no safetensors file's."""
    windows, posix = PureWindowsPath(name), PurePosixPath(name)
    leaves = windows.anchor or posix.is_absolute() or ".." in windows.parts or "\\" in name
    if leaves or not name.isprintable() or str(posix) != name:
        raise CheckpointError(
            f"{index} names the file {quoted(name)}; a shard must stand in the folder of its index."
        )
    refuse_other_kinds(index.parent / name)
    if posix.suffix != ".safetensors":
        raise CheckpointError(f"{index} names {quoted(name)}, which is no safetensors file.")


def _is_inside(path: Path, folder: Path) -> bool:
    """Tell whether a file is in a folder when all links are followed; the hub cache's blobs count as inside.

    The cache keeps a repository's files in `blobs`, and links to them from `snapshots/<commit>` beside it.
    """
    target, root = path.resolve(), folder.resolve()
    if target.is_relative_to(root):
        return True
    return root.parent.name == "snapshots" and target.is_relative_to(root.parent.parent / "blobs")
