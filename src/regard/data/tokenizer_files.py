"""Read and write a tokenizer's directory in the Hugging Face layout."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard.errors import CheckpointError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

__all__ = ["ROLES", "load", "save"]

ROLES = ("pad", "bos", "eos", "unk", "mask")
# Where a lone tokenizer.json does not say which of its special tokens plays which part.
USUAL_NAMES = {
    "pad": ("<pad>", "[PAD]"),
    "bos": ("<bos>", "<s>", "<|begin_of_text|>", "<|endoftext|>", "[CLS]"),
    "eos": ("<eos>", "</s>", "<|end_of_text|>", "<|endoftext|>", "[SEP]"),
    "unk": ("<unk>", "[UNK]"),
    "mask": ("<mask>", "[MASK]"),
}


def save(backend: Backend, folder: Path, specials: Mapping[str, str]) -> None:
    """Write tokenizer.json and tokenizer_config.json, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    settings: dict[str, object] = {f"{role}_token": name for role, name in specials.items()}
    settings |= {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
        "model_max_length": 10**9,
    }
    _write(folder / "tokenizer.json", backend.to_str(pretty=True))
    _write(folder / "tokenizer_config.json", json.dumps(settings, indent=2, ensure_ascii=False) + "\n")


def load(given: Path) -> tuple[Backend, dict[str, str]]:
    """Read a directory or a tokenizer.json: the tokenizer, and the special tokens by the parts they play."""
    file = given / "tokenizer.json" if given.is_dir() else given
    if not file.is_file():
        raise CheckpointError(
            f"{file}: there is no tokenizer here; give a directory that holds tokenizer.json"
        )
    text = _read(file)
    if text.startswith("version https://git-lfs"):
        raise CheckpointError(
            f"{file}: this is a git-lfs pointer, not the tokenizer; download the file itself"
        )
    from tokenizers import Tokenizer as Backend

    try:
        backend = Backend.from_str(text)
    except Exception as error:  # the library raises the bare class
        raise CheckpointError(f"{file}: not a tokenizer.json that can be read: {error}") from error
    named = _named_specials(file.parent)
    for role, usual in USUAL_NAMES.items():
        if role not in named:
            found = next((name for name in usual if _is_special(backend, name)), None)
            if found is not None:
                named[role] = found
    return backend, named


def _is_special(backend: Backend, name: str) -> bool:
    return any(
        token.special and token.content == name for token in backend.get_added_tokens_decoder().values()
    )


def _named_specials(folder: Path) -> dict[str, str]:
    """Read from the files beside a tokenizer.json which token plays which part."""
    merged: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            try:
                content = json.loads(_read(folder / name))
            except ValueError as error:
                raise CheckpointError(f"{folder / name}: not valid JSON: {error}") from error
            if isinstance(content, dict):
                merged |= content
    found: dict[str, str] = {}
    for role, fallback in zip(ROLES, (None, "cls", "sep", None, None), strict=True):
        for key in (role, fallback):
            value = merged.get(f"{key}_token")
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str) and role not in found:
                found[role] = value
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: can't be read: {error}") from error


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
