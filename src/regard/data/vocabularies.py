"""Learn the vocabularies of the five kinds of tokenizer (see `tokenizers.Tokenizer.train` for what each is).

Byte pairs and word pieces are learned by the `tokenizers` library. Its unigram trainer gives another result
each time (it visits the words in the order of a randomly seeded table), so that one is ours.

In every kind `<` stands alone before the model sees it. So no sequence of characters in a text can become
one of the pieces `<eos>` or `<0x0A>` that stand in the vocabulary.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from regard.errors import ConfigError, DataError, suggest

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

__all__ = ["KINDS", "SPECIALS", "train"]

SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>", "<mask>")
KINDS = ("bpe", "byte", "char", "unigram", "wordpiece")
SPACE = "\u2581"  # how unigram vocabularies write a space
LONGEST_PIECE = 16  # characters in a unigram piece
MOST_WORDS = 200_000  # different words that unigram training looks at, the most frequent ones


def train(texts: Iterable[str], *, kind: str, vocab_size: int, lowercase: bool, min_count: int) -> Backend:
    """Learn a vocabulary of one of the KINDS; the arguments and errors are those of `Tokenizer.train`."""
    if kind not in KINDS:
        hint = suggest(kind, KINDS)
        raise ConfigError(
            f"unknown kind of tokenizer {kind!r}: it is one of {', '.join(KINDS)}; {hint}".rstrip("; ")
        )
    if min_count < 1:
        raise ConfigError(f"min_count={min_count} must be at least 1")
    if kind == "byte":
        if min_count != 1:
            raise ConfigError(
                f"min_count={min_count} has no effect for kind='byte', which has every byte; leave it out"
            )
        _require(vocab_size, len(SPECIALS) + 256, "256 bytes", kind)
    checked = _Checked(texts)
    try:
        backend = _TRAINERS[kind](checked, vocab_size, lowercase, min_count)
    finally:
        checked.close()
    _add_specials(backend)
    return backend


class _Checked:
    """Give the texts again and again, each a string, and not all of them empty."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts
        self._spool: Any = None

    def close(self) -> None:
        """Remove what was kept of an iterator's texts."""
        if self._spool is not None:
            self._spool.close()

    def __iter__(self) -> Iterator[str]:
        found = False
        for text in self._source():
            if not isinstance(text, str):
                raise DataError(
                    f"a tokenizer is trained on strings, not {type(text).__name__}: {str(text)[:40]!r}"
                )
            found = found or bool(text.strip())
            yield text
        if not found:
            raise DataError("there is no text to train a tokenizer on: every text is empty")

    def _source(self) -> Iterator[str]:
        if iter(self._texts) is not self._texts:
            yield from self._texts
            return
        # An iterator can be read once: keep what it gives in a file in case another pass is needed.
        if self._spool is None:
            self._spool = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - lives as long as we do
            for text in self._texts:
                self._spool.write(json.dumps(text) + "\n")
        self._spool.seek(0)
        for line in self._spool:
            yield json.loads(line)


def _require(vocab_size: int, needed: int, what: str, kind: str) -> None:
    if vocab_size < needed:
        raise ConfigError(
            f"vocab_size={vocab_size} is too small for kind={kind!r}: at least {needed} "
            f"({what} and {len(SPECIALS)} special tokens)"
        )


def _add_specials(backend: Backend) -> None:
    from tokenizers import AddedToken

    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIALS])
    assert [backend.token_to_id(name) for name in SPECIALS] == list(range(len(SPECIALS)))


def _ids(pieces: Iterable[str]) -> dict[str, int]:
    return {piece: k for k, piece in enumerate((*SPECIALS, *pieces))}


_BYTE_TABLE: dict[str, int] = {}


def bytes_of_characters() -> dict[str, int]:
    """Map the characters in which byte-level vocabularies are written to the bytes they stand for."""
    if not _BYTE_TABLE:  # made at first use
        shown = [
            *range(ord("!"), ord("~") + 1),
            *range(ord("¡"), ord("¬") + 1),
            *range(ord("®"), ord("ÿ") + 1),
        ]
        hidden = [b for b in range(256) if b not in shown]
        _BYTE_TABLE.update({chr(b): b for b in shown} | {chr(256 + k): b for k, b in enumerate(hidden)})
    return _BYTE_TABLE


def _byte_level(backend: Backend, *, lowercase: bool, words: bool) -> None:
    from tokenizers import decoders, normalizers, pre_tokenizers

    if lowercase:
        backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words)
    backend.decoder = decoders.ByteLevel()


def _byte(texts: _Checked, vocab_size: int, lowercase: bool, min_count: int) -> Backend:
    from tokenizers import Tokenizer as Backend
    from tokenizers import models

    for text in texts:
        if text.strip():
            break
    in_order = sorted(bytes_of_characters().items(), key=lambda pair: pair[1])
    backend = Backend(models.BPE(vocab=_ids(c for c, _ in in_order), merges=[]))
    _byte_level(backend, lowercase=lowercase, words=False)
    return backend


def _char(texts: _Checked, vocab_size: int, lowercase: bool, min_count: int) -> Backend:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, normalizers

    fold = normalizers.Lowercase() if lowercase else None
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(fold.normalize_str(text) if fold else text)
    characters = sorted(c for c, n in counts.items() if n >= min_count)
    if not characters:
        raise ConfigError(f"no character was seen min_count={min_count} times; lower it")
    _require(vocab_size, len(SPECIALS) + len(characters), f"{len(characters)} characters", "char")
    # Pairs without a single merge: every character is its own token.
    backend = Backend(models.BPE(vocab=_ids(characters), merges=[], unk_token="<unk>"))
    if fold is not None:
        backend.normalizer = fold
    backend.decoder = decoders.Fuse()
    return backend


def _bpe(texts: _Checked, vocab_size: int, lowercase: bool, min_count: int) -> Backend:
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers, trainers

    _require(vocab_size, len(SPECIALS) + 256, "256 bytes", "bpe")
    backend = Backend(models.BPE())
    _byte_level(backend, lowercase=lowercase, words=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_count,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(iter(texts), trainer)
    return backend


def _wordpiece(texts: _Checked, vocab_size: int, lowercase: bool, min_count: int) -> Backend:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

    def learn(size: int, first: list[str]) -> Backend:
        fresh = Backend(models.WordPiece(unk_token="<unk>"))
        fresh.normalizer = normalizers.BertNormalizer(strip_accents=False, lowercase=lowercase)
        fresh.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(
            vocab_size=size,
            min_frequency=min_count,
            special_tokens=first,
            limit_alphabet=0x110000,
            show_progress=False,
        )
        fresh.train_from_iterator(iter(texts), trainer)
        return fresh

    # The library numbers the pieces that continue a word as it meets them, in an order that changes from run
    # to run. A first pass finds the alphabet alone; the second is given it, sorted, as tokens that must
    # exist.
    alphabet = sorted(set(learn(0, list(SPECIALS)).get_vocab()) - set(SPECIALS))
    _require(
        vocab_size, len(SPECIALS) + len(alphabet), f"{len(alphabet)} pieces of one character", "wordpiece"
    )
    learned = learn(vocab_size, [*SPECIALS, *alphabet])
    in_order = sorted(learned.get_vocab().items(), key=lambda pair: pair[1])
    backend = Backend(models.WordPiece(vocab=dict(in_order), unk_token="<unk>"))
    backend.normalizer = learned.normalizer
    backend.pre_tokenizer = learned.pre_tokenizer
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return backend


def _unigram(texts: _Checked, vocab_size: int, lowercase: bool, min_count: int) -> Backend:
    from tokenizers import Regex, decoders, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    in_bytes = [f"<0x{b:02X}>" for b in range(256)]
    fixed = len(SPECIALS) + len(in_bytes)
    _require(vocab_size, fixed + 1, "256 bytes, the space", "unigram")
    fold = normalizers.Lowercase() if lowercase else None
    pieces = _learn_unigram(_count_words(texts, fold), vocab_size - fixed, min_count)
    lowest = min(score for _, score in pieces)
    # A byte never wins where a piece fits; special tokens can't be reached at all (see the top of the file).
    vocabulary = [(name, 0.0) for name in SPECIALS] + [(name, lowest - 10.0) for name in in_bytes] + pieces
    backend = Backend(_unigram_model(vocabulary, unknown=SPECIALS.index("<unk>"), in_bytes=True))
    steps: list[Any] = [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
    backend.normalizer = normalizers.Sequence(([fold] if fold else []) + steps)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex("[<\n]"), "isolated"), pre_tokenizers.Metaspace(prepend_scheme="never")]
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return backend


def _unigram_model(pieces: list[tuple[str, float]], *, unknown: int, in_bytes: bool) -> Any:
    from tokenizers import models

    return models.Unigram(pieces, unknown, in_bytes)


def _count_words(texts: Iterable[str], fold: Any) -> list[tuple[str, int]]:
    """Count the words, a space at the front of each, as the pre-tokenizer of `_unigram` cuts them."""
    cut = re.compile(f"[<\n]|{SPACE}?[^{SPACE}<\n]+|{SPACE}")
    counts: Counter[str] = Counter()
    for text in texts:
        folded = fold.normalize_str(text) if fold else text
        counts.update(cut.findall(SPACE + folded.replace(" ", SPACE)))
        if len(counts) > 10 * MOST_WORDS:  # a bound on memory: forget the rarest
            counts = Counter(dict(_most_frequent(counts, 5 * MOST_WORDS)))
    return _most_frequent(counts, MOST_WORDS)


def _most_frequent(counts: Counter[str], number: int) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:number]


def _learn_unigram(words: list[tuple[str, int]], size: int, min_count: int) -> list[tuple[str, float]]:
    """Find at most `size` pieces, with log probabilities, that explain the words well.

    Source: T. Kudo, Subword Regularization, 2018, section 3.2, with each word's best cut in place of the
    expectation over all of them. Start with all frequent substrings; then in turn find each word's best cut,
    set the probabilities from the counts, and drop those pieces whose loss costs the least.
    """
    characters: Counter[str] = Counter()
    seeds: Counter[str] = Counter()
    for word, count in words:
        for start, character in enumerate(word):
            characters[character] += count
            for end in range(start + 2, min(start + LONGEST_PIECE, len(word)) + 1):
                seeds[word[start:end]] += count
    # Characters too rare to have a piece are written in bytes; the space always has one.
    kept = [c for c, n in _most_frequent(characters, max(1, size // 2)) if n >= min_count and c != SPACE]
    kept = [SPACE, *kept][:size]
    enough = max(2, min_count)
    ranked = sorted((p for p, n in seeds.items() if n >= enough), key=lambda p: (-seeds[p] * len(p), p))
    pieces = kept + ranked[: 8 * size]
    scores = dict.fromkeys(pieces, -1.0)  # at first, the fewest pieces win
    while True:
        for _ in range(2):
            counts = _count_pieces(words, scores)
            total = sum(counts.values())
            scores = {p: _log((counts[p] + 0.5) / total) for p in scores}
        if len(scores) <= size:
            break
        target = max(size, int(0.6 * len(scores)))
        single = set(kept)
        cost = {p: _loss(p, counts[p], scores) for p in scores if p not in single}
        best = sorted(cost, key=lambda p: (-cost[p], p))[: target - len(kept)]
        scores = {p: scores[p] for p in (*kept, *best)}
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))


def _log(value: float) -> float:
    import math

    return round(math.log(value), 6)


def _count_pieces(words: list[tuple[str, int]], scores: dict[str, float]) -> Counter[str]:
    """Count how often each piece stands in the best cut of the words."""
    from tokenizers import Tokenizer as Backend

    pieces = list(scores)
    backend = Backend(_unigram_model([("<unk>", 0.0), *scores.items()], unknown=0, in_bytes=False))
    counts: Counter[str] = Counter()
    cuts = backend.encode_batch_fast([word for word, _ in words], add_special_tokens=False)
    for (_, count), cut in zip(words, cuts, strict=True):
        for index in cut.ids:
            if index:
                counts[pieces[index - 1]] += count
    return counts


def _loss(piece: str, count: int, scores: dict[str, float]) -> float:
    """Give the log probability lost if a piece, used `count` times, had to be written with other pieces."""
    if not count:
        return 0.0
    best = [0.0] + [-1e9] * len(piece)
    for end in range(1, len(piece) + 1):
        for start in range(end):
            score = scores.get(piece[start:end])
            if score is not None and best[start] + score > best[end] and end - start < len(piece):
                best[end] = best[start] + score
    return count * (scores[piece] - max(best[-1], -100.0 * len(piece)))


_TRAINERS = {"bpe": _bpe, "byte": _byte, "char": _char, "unigram": _unigram, "wordpiece": _wordpiece}
