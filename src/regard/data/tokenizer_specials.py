"""Give a backend its special tokens, and the frame in which its model expects a text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from regard.data.tokenizer_reading import MOST_IDS, Folder, read_json
from regard.errors import CheckpointError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

__all__ = ["add_specials", "frame_with", "named_token"]


def add_specials(backend: Backend, folder: Folder, usual: Iterable[str]) -> None:
    """Mark the special tokens, and add those that the files beside the vocabulary list with new ids.

    usual: the family's own; one that has no id is left out. Raises CheckpointError where an added id is taken
    or leaves a gap.
    """
    from tokenizers import AddedToken

    listed = _listed(folder)
    named = [named_token(folder, role, "") for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")]
    more = folder.settings.get("additional_special_tokens")
    named += [_content(token) for token in more] if isinstance(more, list) else []
    names = dict.fromkeys(name for name in (*usual, *named) if name)
    for index in sorted(listed):
        content, options = listed[index]
        size = backend.get_vocab_size(with_added_tokens=True)
        if index < size and backend.token_to_id(content) != index:
            raise CheckpointError(
                f"{folder.path}: the added token {content[:60]!r} wants the id {index}, which is that of "
                f"{str(backend.id_to_token(index))[:60]!r}"
            )
        if index > size:
            raise CheckpointError(
                f"{folder.path}: the added token {content[:60]!r} has the id {index}, but nothing has {size}; "
                "there must be no gap"
            )
        backend.add_tokens(
            [AddedToken(content, **options | {"special": options["special"] or content in names})]
        )
        if backend.token_to_id(content) != index:
            raise CheckpointError(
                f"{folder.path}: the added token {content[:60]!r} stands in the vocabulary as id "
                f"{backend.token_to_id(content)}, not {index}"
            )
    known = {content for content, _ in listed.values()}
    for name in names:
        if backend.token_to_id(name) is not None and name not in known:
            # A mask stands for a word, and takes the space before it.
            token = AddedToken(name, special=True, normalized=False, lstrip=name == "<mask>")
            backend.add_special_tokens([token])


def _listed(folder: Folder) -> dict[int, tuple[str, dict[str, bool]]]:
    """Collect the tokens that added_tokens.json and tokenizer_config.json list, by their ids."""
    found: dict[int, tuple[str, dict[str, bool]]] = {}
    path = folder.path / "added_tokens.json"
    if path.is_file():
        for content, index in read_json(path).items():
            if type(index) is not int or not 0 <= index < MOST_IDS:
                raise CheckpointError(
                    f"{path}: {content[:60]!r} has the id {str(index)[:40]}; it can't be one"
                )
            found[index] = (content, {"special": True, "normalized": False})
    listed = folder.settings.get("added_tokens_decoder")
    for key, value in listed.items() if isinstance(listed, dict) else ():
        where = folder.path / "tokenizer_config.json"
        if not (key.isascii() and key.isdigit() and len(key) < 10 and int(key) < MOST_IDS):
            raise CheckpointError(f"{where}: added_tokens_decoder has the id {key[:40]!r}; it can't be one")
        if not isinstance(value, dict) or not isinstance(value.get("content"), str) or not value["content"]:
            raise CheckpointError(f"{where}: added_tokens_decoder: the token {key} has no content")
        flags = ("special", "lstrip", "rstrip", "normalized", "single_word")
        found[int(key)] = (value["content"], {name: value.get(name) is True for name in flags})
    return found


def _content(token: object) -> str:
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else ""


def named_token(folder: Folder, role: str, usual: str) -> str:
    """Give the token that the settings name for a part, or the usual one."""
    return _content(folder.settings.get(f"{role}_token")) or usual


def frame_with(backend: Backend, single: str, pair: str, *, one_segment: bool = False) -> None:
    """Give a backend its frame, in words such as `[CLS] A [SEP] B [SEP]`; B and what follows is segment 1.

    one_segment: everything is in segment 0. Raises CheckpointError for a token that has no id.
    """
    from tokenizers import processors

    used = [word for word in f"{single} {pair}".split() if word not in ("A", "B")]
    for word in used:
        if backend.token_to_id(word) is None:
            raise CheckpointError(
                f"the vocabulary lacks {word!r}, which frames every text of this kind of model"
            )

    def template(words: Sequence[str]) -> list[str]:
        segment, parts = 0, []
        for k, word in enumerate(words):
            # The token that begins A begins B too (Llama's <s>) and then belongs to it.
            begins_b = k > 0 and word == words[0] and words[k + 1 : k + 2] == ["B"]
            if (word == "B" or begins_b) and not one_segment:
                segment = 1
            parts.append(f"${word}:{segment}" if word in ("A", "B") else f"{word}:{segment}")
        return parts

    backend.post_processor = processors.TemplateProcessing(
        single=template(single.split()),
        pair=template(pair.split()),
        special_tokens=[(word, backend.token_to_id(word)) for word in dict.fromkeys(used)],
    )
