"""Turn text into token ids and back: one face for the five kinds of tokenizer that Regard trains.

The work is done by the `tokenizers` library, imported at first use. A saved tokenizer is a Hugging Face one
(`tokenizer.json` beside `tokenizer_config.json`), so what Regard trains opens elsewhere, and what others
saved opens here. How the five kinds are trained is in vocabularies.py.

**Text is never a special token.** A user who types `<eos>` gets the pieces of five ordinary characters.
Through this class that holds for every tokenizer, trained here or loaded. In `tokenizer.json` itself the
library has no place for the rule: transformers keeps it when it loads the directory, because
`tokenizer_config.json` says `split_special_tokens`; whoever opens the lone `tokenizer.json` elsewhere must
ask for it there.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard.data import tokenizer_files, vocabularies
from regard.data.tokenizer_files import ROLES
from regard.data.vocabularies import bytes_of_characters
from regard.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

__all__ = ["TextStream", "Tokenizer"]

CHUNK_TEXTS, CHUNK_CHARACTERS = 1000, 4_000_000
BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Tokenizer:
    """Turn text into ids and ids into text.

    Make one with `Tokenizer.train` or `Tokenizer.load`. `pad_id`, `bos_id`, `eos_id`, `unk_id` and `mask_id`
    are None where the tokenizer has no such token; a tokenizer that knows only classification and separator
    tokens (BERT) gives those as bos and eos.
    """

    def __init__(self, backend: Backend, *, specials: Mapping[str, str]) -> None:
        """Wrap a `tokenizers.Tokenizer`; `specials` maps pad, bos, eos, unk and mask to token strings."""
        backend.no_truncation()  # a tokenizer.json may ask for a silent cut
        backend.no_padding()
        backend.encode_special_tokens = True  # "<eos>" typed by a user stays text
        self._backend = backend
        self._specials = {
            role: name for role, name in specials.items() if backend.token_to_id(name) is not None
        }
        self._special_ids = frozenset(i for i, t in backend.get_added_tokens_decoder().items() if t.special)
        self.vocab_size: int = max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        for role in ROLES:
            name = self._specials.get(role)
            setattr(self, f"{role}_id", None if name is None else backend.token_to_id(name))
        self._forbidden = self._special_ids - {self.unk_id}
        state = json.loads(backend.to_str())
        kinds = _component_kinds(state)
        self._byte_level = "ByteLevel" in kinds
        self._continuing: str | None = None
        if state["model"]["type"] == "WordPiece":
            self._continuing = state["model"]["continuing_subword_prefix"]
        marks_words = kinds & {"Metaspace", "Prepend", "BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
        self._word_prefix = "" if marks_words else " "

    pad_id: int | None
    bos_id: int | None
    eos_id: int | None
    unk_id: int | None
    mask_id: int | None

    @staticmethod
    def train(
        texts: Iterable[str],
        *,
        kind: str = "bpe",
        vocab_size: int = 8000,
        lowercase: bool = False,
        min_count: int = 1,
    ) -> Tokenizer:
        """Learn a vocabulary from texts; the same texts give the same tokenizer, to the byte.

        kind
            `bpe`: byte-level pairs, lossless for every text. `char`: every character seen. `byte`: the 256
            bytes, lossless, nothing to learn. `wordpiece`: BERT's, whole words first; decoding puts one space
            between words and none before closing punctuation. `unigram`: pieces with probabilities, unseen
            characters as bytes, lossless but for the character U+2581, which comes back as a space.
        vocab_size
            The most ids there may be, the five special ones (`<pad>` `<bos>` `<eos>` `<unk>` `<mask>`, ids 0
            to 4) included. A small text may fill fewer.
        lowercase
            Fold the case before anything else; decoding then gives lower-case text.
        min_count
            How often a pair, a piece or (for `char`) a character must have been seen to earn an id.

        Raises ConfigError for an unknown kind, or a vocab_size too small for the kind (it names the minimum);
        DataError where the texts hold nothing.
        """
        backend = vocabularies.train(
            texts, kind=kind, vocab_size=vocab_size, lowercase=lowercase, min_count=min_count
        )
        return Tokenizer(backend, specials=dict(zip(ROLES, vocabularies.SPECIALS, strict=True)))

    # ------------------------------------------------------------------------------------------- text to ids

    def encode(self, text: str) -> list[int]:
        """Give the ids of one text; nothing is added at either end. Raises DataError for what is not text."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Give the ids of many texts at once, which is several times faster than one by one."""
        return [self._guard(t, e.ids) for t, e in zip(texts, self._encodings(texts), strict=True)]

    def encode_stream(self, texts: Iterable[str], *, end: int | None = None) -> Iterator[list[int]]:
        """Give the ids of any number of texts in order, in bulk, with a bounded amount of text in memory.

        end: an id to put after each text, such as `eos_id` between documents. The way to fill a TokenStore.
        """
        tail = [] if end is None else [end]
        chunk: list[str] = []
        size = 0
        for text in texts:
            chunk.append(text)
            size += len(text)
            if len(chunk) == CHUNK_TEXTS or size > CHUNK_CHARACTERS:
                yield from (ids + tail for ids in self.encode_batch(chunk))
                chunk, size = [], 0
        yield from (ids + tail for ids in self.encode_batch(chunk))

    def encode_words(self, words: Sequence[str]) -> tuple[list[int], list[int]]:
        """Give the ids of a sentence already cut into words, and for each id the number of its word.

        Each word has at least one id, so that a tag for each word always finds its place: a word that leaves
        nothing (control characters alone) gets `unk_id`, or is an error where there is none. In kinds whose
        words carry their own space, each word but the first is read with a space before it, as in running
        text.
        """
        spaced = [word if k == 0 else self._word_prefix + word for k, word in enumerate(words)]
        ids: list[int] = []
        numbers: list[int] = []
        for k, pieces in enumerate(self.encode_batch(spaced)):
            if not pieces:
                if self.unk_id is None:
                    raise DataError(
                        f"word {k + 1} of a sentence is empty: {words[k]!r}; a word must leave a token"
                    )
                pieces = [self.unk_id]
            ids += pieces
            numbers += [k] * len(pieces)
        return ids, numbers

    def offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Give the ids of a text and, for each, the characters [start, end) of the text it stands for.

        The characters are those of the text as given, before lower-casing. Ids that share one character (the
        bytes of an accent or an emoji) all have that character's span; a mark the tokenizer adds has an empty
        one.
        """
        encoding = self._encodings([text], spans=True)[0]
        ids = list(encoding.ids)
        if self._forbidden.intersection(ids):
            return self._split_special(text)
        return ids, [(int(start), int(end)) for start, end in encoding.offsets]

    def _encodings(self, texts: Sequence[str], *, spans: bool = False) -> list[Any]:
        run = self._backend.encode_batch if spans else self._backend.encode_batch_fast
        try:
            return run(list(texts), add_special_tokens=False)
        except TypeError:
            for text in texts:
                _check_text(text)
            raise

    def _guard(self, text: str, ids: list[int]) -> list[int]:
        """Keep the ids, unless the model itself holds a special token as a piece and text has become one."""
        if self._forbidden.isdisjoint(ids):
            return ids
        return self._split_special(text)[0]

    def _split_special(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Encode a text that holds names of special tokens, each name cut after its first character."""
        names = sorted((self._backend.id_to_token(i) for i in self._forbidden), key=len, reverse=True)
        cuts = [m.start() + 1 for m in re.finditer("|".join(map(re.escape, names)), text)]
        ids: list[int] = []
        spans: list[tuple[int, int]] = []
        for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
            encoding = self._backend.encode(text[start:end], add_special_tokens=False)
            for i, (a, b) in zip(encoding.ids, encoding.offsets, strict=True):
                if i not in self._forbidden:
                    ids.append(i)
                    spans.append((start + a, start + b))
        return ids, spans

    # ------------------------------------------------------------------------------------------- ids to text

    def decode(self, ids: Iterable[int]) -> str:
        """Give the text of ids; special tokens leave nothing. Raises DataError for an id out of range."""
        return self._backend.decode(self._checked(ids), skip_special_tokens=True)

    def decode_batch(self, batch: Iterable[Iterable[int]]) -> list[str]:
        """Give the texts of many lists of ids at once."""
        return self._backend.decode_batch([self._checked(ids) for ids in batch], skip_special_tokens=True)

    def tokens(self, ids: Iterable[int]) -> list[str]:
        r"""Give each id's piece as a reader would see it, for pictures and tables.

        Spaces are spaces, a special token has its name, and bytes that are not a whole character are shown
        escaped (`\xe4`). Raises DataError for an id out of range.
        """
        return [self._surface(i) for i in self._checked(ids)]

    def stream(self) -> TextStream:
        """Start decoding one id at a time, for text that appears while it is generated."""
        return TextStream(self)

    def _surface(self, index: int) -> str:
        piece = self._backend.id_to_token(index) or ""
        if index in self._special_ids:
            return piece
        if self._byte_level:
            table = bytes_of_characters()
            if all(c in table for c in piece):
                return bytes(table[c] for c in piece).decode("utf-8", "backslashreplace")
            return piece
        if self._is_byte(piece):
            return bytes([int(piece[3:5], 16)]).decode("utf-8", "backslashreplace")
        if self._continuing is not None:
            return piece.removeprefix(self._continuing)
        return piece.replace("\u2581", " ") if not self._word_prefix else piece

    def _is_byte(self, piece: str | None) -> bool:
        return piece is not None and not self._byte_level and BYTE_PIECE.fullmatch(piece) is not None

    def _checked(self, ids: Iterable[int]) -> list[int]:
        """Give the ids as a plain list, refused if one is outside the vocabulary."""
        plain: list[int] = ids.tolist() if hasattr(ids, "tolist") else list(ids)
        if plain and not (min(plain) >= 0 and max(plain) < self.vocab_size):
            wrong = next(i for i in plain if not 0 <= i < self.vocab_size)
            raise DataError(
                f"token id {wrong} is outside the vocabulary: ids run from 0 to {self.vocab_size - 1}"
            )
        return plain

    # ------------------------------------------------------------------------------------------ single tokens

    def token_to_id(self, token: str) -> int | None:
        """Give the id of a token by its name, special ones included; None where it has none."""
        return self._backend.token_to_id(token)

    def id_to_token(self, index: int) -> str | None:
        """Give the name of an id (see `tokens` for readable pieces); None where it is out of range."""
        return self._backend.id_to_token(index) if 0 <= index < self.vocab_size else None

    @property
    def special_ids(self) -> frozenset[int]:
        """The ids that decoding leaves out."""
        return self._special_ids

    def __len__(self) -> int:
        return self.vocab_size

    def __repr__(self) -> str:
        return f"Tokenizer(vocab_size={self.vocab_size})"

    # --------------------------------------------------------------------------------------------- directories

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write tokenizer.json and tokenizer_config.json into a directory, made if it is not there."""
        tokenizer_files.save(self._backend, Path(directory), self._specials)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Tokenizer:
        """Read a tokenizer from a directory or from a tokenizer.json.

        Which special token plays which part is read from tokenizer_config.json or special_tokens_map.json,
        and guessed from the usual names where neither is there. Raises CheckpointError where there is no
        tokenizer, or a damaged one.
        """
        backend, specials = tokenizer_files.load(Path(path))
        return Tokenizer(backend, specials=specials)


class TextStream:
    """Decode ids one at a time; the parts joined equal the decoding of all ids together.

    A part is held back while it may still change: half a character, or a run of single bytes that has not
    ended.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Start at the beginning of a text; `Tokenizer.stream` is the usual way here."""
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        # Decoding starts again at `start`, a little before the first id not yet shown at `shown`, since
        # what a token looks like may depend on whether it is the first.
        self._start = 0
        self._shown = 0

    def add(self, index: int) -> str:
        """Take the next id and give the text that is certain by now; often that is an empty string."""
        tokenizer = self._tokenizer
        tokenizer._checked([index])
        if index in tokenizer._special_ids:
            return ""
        self._ids.append(index)
        # A broken byte spoils the whole run of byte pieces it stands in, so such a run is shown when it has
        # ended.
        if tokenizer._is_byte(tokenizer._backend.id_to_token(index)):
            return ""
        fresh = self._fresh()
        if not fresh or fresh.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""
        self._start, self._shown = self._shown, len(self._ids)
        if self._start > 64:
            del self._ids[: self._start]
            self._start, self._shown = 0, self._shown - self._start
        return fresh

    def finish(self) -> str:
        """Give what was held back; the stream starts anew afterwards."""
        fresh = self._fresh()
        self._ids, self._start, self._shown = [], 0, 0
        return fresh

    def _fresh(self) -> str:
        decode = self._tokenizer.decode
        before = decode(self._ids[self._start : self._shown])
        return decode(self._ids[self._start :])[len(before) :]


def _check_text(text: object) -> None:
    if not isinstance(text, str):
        raise DataError(f"a text must be a string, not {type(text).__name__}: {str(text)[:40]!r}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"character {error.start} of a text is half a surrogate pair; decode the text again"
        ) from error


def _component_kinds(state: Mapping[str, Any]) -> set[str]:
    """Name the kinds of all parts before and after the model, however they are nested."""
    found: set[str] = set()
    waiting = [state.get("normalizer"), state.get("pre_tokenizer"), state.get("decoder")]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if part.get("type") != "Metaspace" or part.get("prepend_scheme") != "never":
                found.add(str(part.get("type")))
            for key in ("normalizers", "pretokenizers", "decoders"):
                waiting += part.get(key) or []
    return found
