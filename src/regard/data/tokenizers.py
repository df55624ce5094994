"""Turn text into token ids and back: one face for the kinds that Regard trains and for published ones.

The work is done by the `tokenizers` library, imported at first use. A saved tokenizer is a Hugging Face one
(`tokenizer.json` beside `tokenizer_config.json`), so what Regard trains opens elsewhere, and what others
saved opens here. How the five kinds are trained is in vocabularies.py, how published ones are read in
tokenizer_files.py, and how conversations become ids in chat.py.

**Text is never a special token.** A user who types `<eos>` gets the pieces of five ordinary characters.
Through this class that holds for every tokenizer, trained here or loaded. In `tokenizer.json` itself the
library has no place for the rule: transformers keeps it when it loads the directory of a tokenizer trained
here, because `tokenizer_config.json` says `split_special_tokens`; a published one is saved with its own
settings. Whoever opens the lone `tokenizer.json` elsewhere must ask for the rule there.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard.data import tokenizer_files, vocabularies
from regard.data.tokenizer_backends import component_kinds, cutting, parts_of, without_space
from regard.data.tokenizer_files import ROLES
from regard.data.tokenizer_frames import Frame, SpecialToken, read_frame
from regard.data.tokenizer_stream import TextStream
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

    def __init__(
        self, backend: Backend, *, specials: Mapping[str, str], chat_template: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Wrap a `tokenizers.Tokenizer`; `specials` maps pad, bos, eos, unk and mask to token strings.

        settings: of a published one's tokenizer_config.json, which saving keeps.
        """
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
        state = parts_of(backend)
        kinds = component_kinds(state)
        self._byte_level = "ByteLevel" in kinds
        self.continuing: str | None = None  # the mark of a piece within a word, "##"
        if state["model"]["type"] == "WordPiece":
            self.continuing = state["model"]["continuing_subword_prefix"]
        marks_words = kinds & {"Metaspace", "Prepend", "BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
        self._word_prefix = "" if marks_words else " "
        self._marks_spaces = bool(marks_words) or "\\u2581" in json.dumps(state.get("decoder"))
        self._cutting: Backend | None = None
        self._later: Tokenizer | None = None
        names = {t.content: i for i, t in backend.get_added_tokens_decoder().items() if t.special}
        self._frame: Frame = read_frame(state, names, self.vocab_size)
        self.chat_template: str | None = chat_template
        self._settings = settings
        self._marked: dict[frozenset[str], Tokenizer] = {}  # as chat.py needs it

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
        """Give the ids of one text; nothing is added at either end. Raises DataError for what is not text.

        Tokens that were added to a published vocabulary without being marked as special (`<think>`) are found in
        a text, as published. In a conversation those that its template writes are special: see `encode_chat`.
        """
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
        if self._cutting is None:
            self._cutting = cutting(self._backend, self._forbidden)
        encoding = self._cutting.encode(text, add_special_tokens=False)
        found = zip(encoding.ids, encoding.offsets, strict=True)
        kept = [(i, (int(a), int(b))) for i, (a, b) in found if i not in self._forbidden]
        return [i for i, _ in kept], [span for _, span in kept]

    # ----------------------------------------------------------------------------------------- special tokens

    @property
    def special_tokens(self) -> Mapping[str, SpecialToken]:
        """The special tokens by their names, each with its id and whether it takes the space beside it."""
        added = self._backend.get_added_tokens_decoder().items()
        return {t.content: SpecialToken(i, t.lstrip, t.rstrip) for i, t in added if t.special}

    @property
    def roles(self) -> Mapping[str, str]:
        """The names of the special tokens by the parts they play: pad, bos, eos, unk, mask."""
        return dict(self._specials)

    @property
    def languages(self) -> Mapping[str, int]:
        """The ids of the language codes by their names: `ro_RO`, `>>fra<<`; empty where there are none."""
        return dict(self._frame.languages)

    @property
    def frames(self) -> bool:
        """Whether `frame` adds anything: whether this tokenizer's model expects special tokens around a text."""
        return self._frame.adds

    def frame(
        self, ids: Sequence[int], pair: Sequence[int] | None = None, *, language: str | None = None
    ) -> tuple[list[int], list[int]]:
        """Put the special tokens around the ids of a text, or of two, as the model was trained with them.

        BERT: `[CLS]` text `[SEP]`. GPT-2: nothing. Give `pair=[]` for a pair whose second text is empty.

        language
            The text's language by the name of its code, for models with language codes: `ro_RO` (mBART; for
            both sides), `>>fra<<` or `fra` (Marian with several targets; the language to translate into).
            None takes what the tokenizer names, mostly `en_XX`.

        Returns the framed ids, and for each its segment: 0, or 1 in the second text of a pair where the model
        tells them apart. Raises ConfigError for a language that the tokenizer hasn't.
        """
        return self._frame.around(ids, pair, language)

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Any] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Give the ids of a conversation, written out by `chat_template`; see `regard.data.chat.encode_chat`.

        The special tokens that the template writes become special ids; what stands in a message is text.
        Raises CheckpointError where there is no template or a broken one, DataError where it refuses these
        messages.
        """
        from regard.data import chat

        return chat.encode_chat(
            self, messages, add_generation_prompt=add_generation_prompt, tools=tools, variables=variables
        )

    def encode_part(self, text: str, *, first: bool) -> list[int]:
        """Give the ids of a part of a text between special tokens; `first` where nothing stands before it.

        Some tokenizers put a space before the first part only.
        """
        if first:
            return self.encode(text)
        if self._later is None:
            backend = without_space(self._backend)
            self._later = self if backend is self._backend else Tokenizer(backend, specials=self._specials)
        return self._later.encode(text)

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
        if self.continuing is not None:
            return piece.removeprefix(self.continuing)
        return piece.replace("\u2581", " ") if self._marks_spaces else piece

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

    def save(self, directory: str | os.PathLike[str], *, segments: bool | None = None) -> None:
        """Write tokenizer.json and tokenizer_config.json into a directory, made if it is not there.

        segments: whether its model is told which of two texts a token belongs to; None: as it came.
        """
        tokenizer_files.save(
            self._backend, Path(directory), self._specials, self.chat_template, published=self._settings,
            segments=segments,
        )  # fmt: skip

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Tokenizer:
        """Read a tokenizer from a directory, in whichever layout it was published, or from one of its files.

        tokenizer.json, Marian's pair, vocab.json with merges.txt, vocab.txt or a SentencePiece model, in this
        order. Which special token plays which part is read from tokenizer_config.json or
        special_tokens_map.json, and guessed from the usual names where neither says so. Of Marian's two
        tokenizers it is the source's, which decodes both. Raises CheckpointError where there is no tokenizer,
        a damaged one, or one whose model has rules that are not known here.
        """
        backend, specials, chat_template, settings = tokenizer_files.load(Path(path))
        return Tokenizer(backend, specials=specials, chat_template=chat_template, settings=settings)

    @staticmethod
    def load_target(path: str | os.PathLike[str]) -> Tokenizer | None:
        """Read the tokenizer for target texts; None where source and target share one, as mostly.

        Raises CheckpointError as `load` does.
        """
        found = tokenizer_files.load_target(Path(path))
        return None if found is None else Tokenizer(found[0], specials=found[1])


def _check_text(text: object) -> None:
    if not isinstance(text, str):
        raise DataError(f"a text must be a string, not {type(text).__name__}: {str(text)[:40]!r}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"character {error.start} of a text is half a surrogate pair; decode it again (a shell: LC_ALL=C.UTF-8)"
        ) from error
