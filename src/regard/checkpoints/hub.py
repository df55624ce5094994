"""Where a model is: a folder, a file, or a repository of the Hugging Face hub, fetched without anything that could run.

Of a repository only settings, tokenizer files and safetensors are asked for; a pickle or a program is never
fetched. Nothing here needs torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regard.checkpoints.header import PICKLE_SUFFIXES, reason_of, refuse_other_kinds
from regard.errors import CheckpointError, ConfigError, suggest

__all__ = ["Place", "locate"]

SETTINGS = (
    "config.json", "generation_config.json", "regard.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "vocab.txt", "encoder.json", "vocab.bpe", "*.model", "*.spm", "chat_template.jinja",
    "modules.json", "sentence_bert_config.json", "1_Pooling/config.json",
)  # fmt: skip
INDEX = "model.safetensors.index.json"

# A name, or owner/name, as the hub allows them.
_ID = re.compile(r"(?=.{1,96}$)(?!.*(?:--|\.\.|\.git$))(?:@/)?@".replace("@", r"\w(?:[\w.-]*\w)?"), re.ASCII)
_REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][\w.+-]*(?:/[\w.+-]+)*", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PATIENCE = 10.0  # seconds in which the hub must answer; what was fetched before will do otherwise
_FILE_SUFFIXES = (".safetensors", ".json", *PICKLE_SUFFIXES)


@dataclass(frozen=True)
class Place:
    """Say where a model is on this disk, and where it came from.

    Attributes:
        folder: the folder with its files.
        file: the file of weights, if one was named instead of a folder.
        id: the hub id it was fetched by, as owner/name.
        revision: the commit on the hub, 40 hexadecimal digits; pin it to get the same files again.
    """

    folder: Path
    file: Path | None = None
    id: str | None = None
    revision: str | None = None

    @property
    def weights(self) -> Path:
        """Give what `Weights` opens: the file if one was named, else the folder."""
        return self.file or self.folder


def locate(where: str | Path, *, revision: str | None = None, offline: bool | None = None) -> Place:
    """Find a model: a folder or a .safetensors file as it is, or a hub id through the hub and its cache.

    What exists on this disk is never taken for an id, nor is what can only be a path: `./x`, `~/x`, `/x`, `a/b/c`, the
    name of a file, or a `Path`.

    Args:
        where: a path, or `owner/name`, or a bare `name` of the hub.
        revision: a branch, a tag or a commit of a hub repository; its main branch if not given.
        offline: look at the cache only; None: as the environment's HF_HUB_OFFLINE says.

    Raises:
        CheckpointError: nothing is there, the hub doesn't give it, or it has no weights that are safe to read.
        ConfigError: a revision was given with a path, or can't be one.
    """
    try:
        path = Path(where).expanduser() if str(where).startswith("~") else Path(where)
        is_here = bool(str(where)) and path.exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long, no such user, or a closed folder
        raise CheckpointError(f"{str(where)[:80]!r} can't be looked at ({reason_of(error)}).") from error
    if is_here or _is_path(where):
        if revision is not None:
            raise ConfigError(f"revision={revision!r} is for a hub id; {where} is a path.")
        return _local(path)
    name = str(where)
    if _ID.fullmatch(name) is None:
        raise CheckpointError(
            f"{name[:200]!r} is neither there nor an id of the hub, which is owner/name. {_near(path)}".strip()
        )
    if revision is not None and _REVISION.fullmatch(revision) is None:
        raise ConfigError(f"revision={revision[:80]!r} is no branch, tag or commit.")
    return _fetch(name, revision, offline)


def _is_path(where: str | Path) -> bool:
    text = str(where)
    begins = text.startswith((".", "~", "/", os.sep))
    return (
        isinstance(where, Path)
        or begins
        or text.count("/") > 1
        or text.endswith(("/", *_FILE_SUFFIXES))
        or "\\" in text
    )


def _local(path: Path) -> Place:
    if path.is_dir():
        return Place(path)
    if path.is_file():
        refuse_other_kinds(path)
        if not path.name.endswith((".safetensors", ".safetensors.index.json")):
            raise CheckpointError(f"{path} is no safetensors file; name one, or the folder of a model.")
        return Place(path.parent, path)
    raise CheckpointError(f"{path} doesn't exist. {_near(path)}".strip())


def _near(path: Path) -> str:
    """Suggest the model folder or file beside a path that isn't there; an empty string where none is near."""
    try:
        near = {
            str(entry): "folder" if entry.is_dir() else "file"
            for entry in path.parent.iterdir()
            if entry.suffix == ".safetensors" or (entry / "config.json").is_file()
        }
    except OSError:
        return ""
    hint = suggest(str(path), near)
    kind = next((kind for name, kind in near.items() if repr(name) in hint), "folder")
    return hint.replace("did you mean", f"did you mean the {kind}")


def _fetch(name: str, revision: str | None, offline: bool | None) -> Place:
    from huggingface_hub import constants, snapshot_download

    only_cache = constants.HF_HUB_OFFLINE if offline is None else offline
    patterns: list[str] = []
    problem: Exception | None = None
    if not only_cache:
        try:
            patterns = [*SETTINGS, *_weights_of(name, revision)]
        except CheckpointError:
            raise
        except Exception as error:  # the library raises whatever its layers raise
            problem = error  # what was fetched before will do
    try:
        folder = Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=patterns or None,
                ignore_patterns=["*/*.safetensors", "*/*.model", "*/*.spm"],
                local_files_only=only_cache or problem is not None,
            )
        )
    except Exception as error:
        raise CheckpointError(_failure(name, revision, error, problem, only_cache)) from (problem or error)
    files = {path.name for path in folder.iterdir() if path.is_file()}
    if not any(file.endswith(".safetensors") for file in files):
        _refuse_pickles(name, files)
        raise CheckpointError(
            f"{name} is in the hub's cache without its weights, as after a download that was interrupted; "
            "locate it once while online."
        )
    return Place(folder, None, name, folder.name if _COMMIT.fullmatch(folder.name) else None)


def _weights_of(name: str, revision: str | None) -> list[str]:
    """Ask the hub which files a repository has, and choose those of its weights.

    Many repositories hold their weights several times over, in other layouts or precisions; one is enough.
    """
    from huggingface_hub import HfApi

    listed = HfApi().model_info(name, revision=revision, timeout=_PATIENCE).siblings or []
    files = {entry.rfilename for entry in listed if "/" not in entry.rfilename}
    if "model.safetensors" in files:
        return ["model.safetensors"]
    if INDEX in files:
        return [INDEX, "*-of-*.safetensors"]
    if any(file.endswith(".safetensors") for file in files):
        return ["*.safetensors"]
    _refuse_pickles(name, files)
    raise CheckpointError(f"{name} has no model.safetensors on the hub; name a repository that has.")


def _refuse_pickles(name: str, files: Iterable[str]) -> None:
    """Refuse a repository without safetensors if it has pickles, with what to do instead."""
    pickles = sorted(file for file in files if file.endswith(PICKLE_SUFFIXES))
    if pickles:
        first = next((file for file in pickles if file.startswith("pytorch_model")), pickles[0])
        raise CheckpointError(
            f"{name} has its weights as a pickle only ({first}), which can run code when it is opened, so it isn't "
            "read; look for a revision with model.safetensors, or, if you trust it, convert it once: read it with "
            "torch's weights_only=True and write it with safetensors.torch.save_file."
        )


def _refusal(name: str, revision: str | None, error: Exception) -> str | None:
    """Say why the hub won't give a repository; None if it was only not to be reached."""
    from huggingface_hub.utils import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    near = _near(Path(name))
    log_in = "log in with `hf auth login`, or set HF_TOKEN"
    if isinstance(error, GatedRepoError):  # a kind of RepositoryNotFoundError
        return f"{name} is gated: ask for access on its page of the hub, then {log_in}."
    if isinstance(error, RepositoryNotFoundError):
        there = f"no repository {name} on the hub and no such path here (if it is private, {log_in})"
        return f"there is {there}. {near}".strip()
    if isinstance(error, RevisionNotFoundError):
        return f"{name} has no revision {revision!r} on the hub; name a branch, a tag or a commit."
    status = _status(error) if isinstance(error, HfHubHTTPError) else None
    if status is not None and 400 <= status < 500 and status != 429:
        return (
            f"the hub refuses {name} (status {status}); if it is private or gated, {log_in}. {near}".strip()
        )
    return None


def _failure(
    name: str, revision: str | None, error: Exception, problem: Exception | None, only_cache: bool
) -> str:
    """Say why there is no snapshot: not in the cache, refused, no network, or a download that was interrupted."""
    at = "" if revision is None else f" at revision {revision!r}"
    near = _near(Path(name))
    if only_cache:
        ask = "fetch it once while online (offline=False, HF_HUB_OFFLINE not set)"
        return f"{name}{at} is not in the hub's cache, and this is offline; {ask}. {near}".strip()
    refusal = _refusal(name, revision, problem or error)
    if refusal is not None:
        return refusal
    if problem is not None:
        why = f"the hub can't be reached ({_short(problem)})"
        return f"{name}{at} is not on this disk and {why}; try again when it can. {near}".strip()
    return f"the download of {name}{at} was interrupted ({_short(error)}); what came is kept: call it again to go on."


def _short(error: Exception) -> str:
    """Give an error of the network in a few words; its own text is often a wall."""
    from huggingface_hub.utils import LocalEntryNotFoundError, OfflineModeIsEnabled

    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # why the file that isn't in the cache couldn't be fetched
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    status = _status(error)
    if status is not None:
        return f"status {status}"
    if isinstance(error, OSError) and error.errno is not None:
        return reason_of(error)
    return type(error).__name__


def _status(error: Exception) -> int | None:
    response: Any = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else None
