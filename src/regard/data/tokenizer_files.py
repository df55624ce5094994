"""Read and write a tokenizer's directory, in any of the layouts in which checkpoints are published.

The first of these that is there counts: `tokenizer.json` as it is; Marian's `source.spm`, `target.spm` and
`vocab.json`; `vocab.json` with `merges.txt` (in older releases `encoder.json` with `vocab.bpe`); `vocab.txt`;
a SentencePiece model. How the last ones differ from model to model stands in tokenizer_families.py.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard.data import tokenizer_backends as backends
from regard.data import tokenizer_families as families
from regard.data.tokenizer_reading import MOST_IDS, Folder, read_text
from regard.errors import CheckpointError

if TYPE_CHECKING:
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Backend

__all__ = ["ROLES", "load", "load_target", "save"]

ROLES = ("pad", "bos", "eos", "unk", "mask")
# Where nothing says which of the special tokens plays which part.
USUAL_NAMES = {
    "pad": ("<pad>", "[PAD]"),
    "bos": ("<bos>", "<s>", "<|begin_of_text|>", "<|endoftext|>", "[CLS]"),
    "eos": ("<eos>", "</s>", "<|end_of_text|>", "<|endoftext|>", "[SEP]"),
    "unk": ("<unk>", "[UNK]"),
    "mask": ("<mask>", "[MASK]"),
}
BYTE_PAIR_FILES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
PIECE_FILES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "sentencepiece.model")
# Where a role isn't named, another is for it, as in BERT.
FALLBACKS = {"bos": "cls", "eos": "sep"}
GENERIC = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
# Settings that name files which aren't written here, among them code, or where the tokenizer came from.
OF_FILES = (
    "auto_map", "from_slow", "merges_file", "name_or_path", "source_spm", "special_tokens_map_file", "spm_file",
    "target_spm", "target_vocab_file", "tokenizer_file", "vocab", "vocab_file",
)  # fmt: skip


def save(
    backend: Backend,
    folder: Path,
    specials: Mapping[str, str],
    chat_template: str | None = None,
    *,
    published: Mapping[str, Any] | None = None,
    segments: bool | None = None,
) -> None:
    """Write tokenizer.json and tokenizer_config.json, each whole or not at all.

    A Marian tokenizer is written as the files it was read from.

    published
        The settings that it came with, which stay; None: it was trained here. Then other libraries too take a
        special token's name in a text for text.
    segments
        Whether the model is told which of two texts a token belongs to: others hand it exactly the inputs
        named here. None: as the tokenizer came, one that was trained here without.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = dict(published or {})
    if published is None:
        settings = {f"{role}_token": name for role, name in specials.items()} | GENERIC
        settings |= {"split_special_tokens": True, "model_max_length": 10**9}
    if segments is not None or published is None:
        kinds = ["token_type_ids"] if segments else []
        settings["model_input_names"] = ["input_ids", *kinds, "attention_mask"]
    if chat_template != _default_template(settings.get("chat_template")):
        settings["chat_template"] = chat_template
    settings = {name: value for name, value in settings.items() if name != "chat_template" or value}
    if isinstance(backend, families.MarianBackend):
        settings |= backend.settings
        for name, content in backend.files.items():
            _write(folder / name, content)
    else:
        _write(folder / "tokenizer.json", backend.to_str(pretty=True).encode())
    text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    _write(folder / "tokenizer_config.json", text.encode())


def load(given: Path) -> tuple[Backend, dict[str, str], str | None, dict[str, Any]]:
    """Read a directory or one of its files: the tokenizer, the special tokens by their parts, the chat template.

    The last of what it gives are the settings to save it with again.

    Raises CheckpointError where there is no tokenizer, a damaged one, or one whose rules are not known.
    """
    folder = Folder.read(given if given.is_dir() else given.parent)
    backend = _backend(given, folder)
    named = _named_specials(folder)
    special = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
    for role, usual in USUAL_NAMES.items():
        if role not in named:
            found = next((name for name in usual if name in special), None)
            if found is not None:
                named[role] = found
    return backend, named, _chat_template(folder), _settings(backend, folder, named)


def _settings(backend: Backend, folder: Folder, named: Mapping[str, str]) -> dict[str, Any]:
    """Give the published settings as far as they hold for tokenizer.json; where there are none, those it needs."""
    settings = {name: value for name, value in folder.settings.items() if name not in OF_FILES}
    if isinstance(backend, families.MarianBackend):
        return settings
    if not isinstance(settings.get("tokenizer_class", folder.config.get("model_type")), str) or (
        "auto_map" in folder.settings  # whose class is code of their own
    ):
        settings |= GENERIC
        given = {role for role in ROLES for key in (role, FALLBACKS.get(role)) if f"{key}_token" in settings}
        added = {token.content: token for token in backend.get_added_tokens_decoder().values()}
        for role in named.keys() - given:
            token = added.get(named[role])
            settings[f"{role}_token"] = named[role] if token is None else _written(token)
    if "ByteLevel" not in repr(backend.pre_tokenizer):
        # tokenizer.json says it; a class that reads it here would look for the SentencePiece model again.
        settings.pop("add_prefix_space", None)
    return settings


def _written(token: AddedToken) -> dict[str, Any]:
    flags = ("lstrip", "normalized", "rstrip", "single_word", "special")
    return {
        "__type": "AddedToken",
        "content": token.content,
        **{name: getattr(token, name) for name in flags},
    }


def load_target(given: Path) -> tuple[Backend, dict[str, str]] | None:
    """Read the tokenizer of the texts that come out, where it is another than that of the texts that go in."""
    folder = Folder.read(given)
    if (given / "tokenizer.json").is_file() or not _is_marian(given):
        load(given)  # the errors of a directory without a tokenizer
        return None
    backend: Any = families.marian(folder, target=True)
    return (
        None
        if backend is None
        else (backend, {role: f"<{role}>" for role in ("pad", "unk")} | {"eos": "</s>"})
    )


def _is_marian(path: Path) -> bool:
    return (path / "source.spm").is_file() and (path / "vocab.json").is_file()


def _backend(given: Path, folder: Folder) -> Backend:
    """Find the layout and build its backend."""
    if not given.is_dir():
        return _of_file(given, folder)
    if (given / "tokenizer.json").is_file():
        return _tokenizer_json(given / "tokenizer.json")
    if _is_marian(given):
        backend: Any = families.marian(folder, target=False)
        return backend
    for vocabulary, merges in BYTE_PAIR_FILES:
        if (given / vocabulary).is_file() and (given / merges).is_file():
            return backends.byte_pairs(given / vocabulary, given / merges, folder)
    for name in ("vocab.txt", *PIECE_FILES):
        if (given / name).is_file():
            return _of_file(given / name, folder)
    half = next((name for pair in BYTE_PAIR_FILES for name in pair if (given / name).is_file()), None)
    if half is not None:
        pairs = " or ".join(" with ".join(pair) for pair in BYTE_PAIR_FILES)
        raise CheckpointError(f"{given}: there is {half} but not the file that belongs to it: {pairs}")
    raise CheckpointError(
        f"{given}: there is no tokenizer here; give a directory that holds tokenizer.json, vocab.json with "
        "merges.txt, vocab.txt or a SentencePiece model"
    )


def _of_file(file: Path, folder: Folder) -> Backend:
    if not file.is_file():
        raise CheckpointError(
            f"{file}: there is no tokenizer here; give a directory that holds tokenizer.json"
        )
    if file.name == "vocab.txt":
        return backends.word_pieces(file, folder)
    if file.suffix in (".model", ".spm"):
        return families.sentencepiece(file, folder)
    return _tokenizer_json(file)


def _tokenizer_json(file: Path) -> Backend:
    text = read_text(file)
    from tokenizers import Tokenizer as Backend

    try:
        backend = Backend.from_str(text)
    except BaseException as error:  # the library raises the bare class, and for some faults not even that
        if isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError)):
            raise
        raise CheckpointError(f"{file}: not a tokenizer.json that can be read: {error}") from error
    highest = max(backend.get_vocab(with_added_tokens=True).values(), default=0)
    if highest >= MOST_IDS:
        raise CheckpointError(f"{file}: ids go up to {highest:,}; a vocabulary has {MOST_IDS:,} ids at most")
    return backend


def _named_specials(folder: Folder) -> dict[str, str]:
    """Read from the files beside a tokenizer which token plays which part."""
    found: dict[str, str] = {}
    for role in ROLES:
        for key in (role, FALLBACKS.get(role)):
            value = folder.settings.get(f"{key}_token")
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str) and role not in found:
                found[role] = value
    return found


def _chat_template(folder: Folder) -> str | None:
    """Find the chat template: a file of its own, or a setting; of several named ones the default."""
    if (folder.path / "chat_template.jinja").is_file():
        return read_text(folder.path / "chat_template.jinja")
    value = _default_template(folder.settings.get("chat_template"))
    if value is not None and not isinstance(value, str):
        raise CheckpointError(
            f"{folder.path / 'tokenizer_config.json'}: chat_template is a {type(value).__name__}; it must be text"
        )
    return value


def _default_template(value: Any) -> Any:
    """Give the default of several named templates, or the only one; anything else as it is."""
    if not isinstance(value, list):
        return value
    named = {str(v.get("name")): v.get("template") for v in value if isinstance(v, dict)}
    return named.get("default", next(iter(named.values())) if len(named) == 1 else None)


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
