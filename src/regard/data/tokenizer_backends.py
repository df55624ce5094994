"""Build the `tokenizers` backends of published layouts: byte-level pairs, word pieces, SentencePiece.

Each function takes the files of one layout and gives the backend with the ids, the normalisation, the special
tokens and the frame (`tokenizer_frames`) of the family that the files beside it name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard.data import tokenizer_sentencepiece as spm
from regard.data.tokenizer_reading import (
    MOST_IDS,
    Folder,
    check_ids,
    read_lines,
    read_vocabulary,
)
from regard.data.tokenizer_specials import add_specials, frame_with, named_token
from regard.data.vocabularies import SPACE, bytes_of_characters
from regard.errors import CheckpointError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

__all__ = [
    "byte_pairs",
    "component_kinds",
    "cut_names",
    "cutting",
    "frame_with",
    "parts_of",
    "pieces_backend",
    "without_space",
    "word_pieces",
]

ROBERTA_LIKE = frozenset({"roberta", "bart", "longformer", "led", "mvp"})
GPT2_LIKE = frozenset({"gpt2", "gptj", "gptneo", "gptbigcode", "codegen", "phi", "opt", "starcoder2"})
BERT_LIKE = frozenset({"bert", "distilbert", "electra", "mobilebert", "convbert", "layoutlm", "squeezebert"})


def byte_pairs(vocabulary: Path, merges: Path, folder: Folder) -> Backend:
    """Build a byte-level BPE from its vocabulary and its merges, as GPT-2, RoBERTa and BART have it.

    Raises CheckpointError for a file that is damaged, or of a family with other rules.
    """
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    family = folder.family or "gpt2"
    if family not in ROBERTA_LIKE | GPT2_LIKE:
        raise folder.refuse(f"{vocabulary.name} with {merges.name}", ROBERTA_LIKE | GPT2_LIKE)
    table = read_vocabulary(vocabulary)
    missing = next((c for c in bytes_of_characters() if c not in table), None)
    if missing is not None:
        raise CheckpointError(
            f"{vocabulary}: not a byte-level vocabulary: the byte {bytes_of_characters()[missing]:#04x} "
            f"({missing!r}) has no id"
        )
    backend = Backend(models.BPE(vocab=table, merges=_read_merges(merges, table)))
    space = folder.flag("add_prefix_space", False)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    backend.decoder = decoders.ByteLevel()
    usual: tuple[str, ...] = (
        ("<s>", "<pad>", "</s>", "<unk>", "<mask>") if family in ROBERTA_LIKE else ("<|endoftext|>",)
    )
    if family == "opt":
        usual = ("<pad>", "</s>")
    add_specials(backend, folder, usual)
    if family in ROBERTA_LIKE:
        frame_with(backend, "<s> A </s>", "<s> A </s> </s> B </s>", one_segment=True)
    elif folder.flag("add_bos_token", family == "opt"):
        # OPT begins with what ends a text elsewhere.
        first = "</s>" if family == "opt" else named_token(folder, "bos", "<|endoftext|>")
        frame_with(backend, f"{first} A", f"{first} A {first} B")
    return backend


def _read_merges(path: Path, table: dict[str, int]) -> list[tuple[str, str]]:
    merges: list[tuple[str, str]] = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line or (number == 1 and line.startswith("#version")):
            continue
        left, _, right = line.partition(" ")
        if not left or not right or " " in right:
            raise CheckpointError(
                f"{path}:{number}: {line[:60]!r} is no merge; a line is two pieces and a space"
            )
        for piece in (left, right, left + right):
            if piece not in table:
                raise CheckpointError(
                    f"{path}:{number}: the merge {line[:60]!r} needs {piece[:60]!r}, which has no id in the "
                    "vocabulary; the two files must belong together"
                )
        merges.append((left, right))
    return merges


def word_pieces(path: Path, folder: Folder) -> Backend:
    """Build BERT's WordPiece from its vocab.txt, a piece a line.

    Where nothing says whether letter case is folded (`do_lower_case`), it is folded unless the vocabulary
    holds a piece with a capital letter, which folded text could never reach. Raises CheckpointError.
    """
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, normalizers, pre_tokenizers

    if (folder.family or "bert") not in BERT_LIKE:
        raise folder.refuse("vocab.txt", BERT_LIKE)
    if not folder.flag("do_basic_tokenize", True):
        raise CheckpointError(
            f"{folder.path}: do_basic_tokenize=false is not supported; give a tokenizer.json"
        )
    table: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if not line:
            raise CheckpointError(f"{path}:{number}: the line is empty; each must be a piece")
        if line in table:
            raise CheckpointError(f"{path}:{number}: {line[:60]!r} is already in line {table[line] + 1}")
        table[line] = number - 1
    check_ids(path, table)
    names = {role: named_token(folder, role, name) for role, name in
             (("unk", "[UNK]"), ("cls", "[CLS]"), ("sep", "[SEP]"), ("pad", "[PAD]"), ("mask", "[MASK]"))}  # fmt: skip
    for role in ("unk", "cls", "sep"):
        if names[role] not in table:
            raise CheckpointError(
                f"{path}: {names[role]!r} is not in the vocabulary; is this a vocab.txt of BERT's kind?"
            )
    capitals = any(piece != piece.lower() for piece in table if not re.fullmatch(r"\[.*\]", piece))
    lowercase = folder.flag("do_lower_case", not capitals)
    backend = Backend(models.WordPiece(table, unk_token=names["unk"], max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=folder.flag("tokenize_chinese_chars", True),
        strip_accents=folder.flag("strip_accents", lowercase),
        lowercase=lowercase,
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    add_specials(backend, folder, names.values())
    first, last = names["cls"], names["sep"]
    frame_with(backend, f"{first} A {last}", f"{first} A {last} B {last}")
    return backend


# ------------------------------------------------------------------------------------------- SentencePiece


def pieces_backend(model: spm.SentencePieces, name: str) -> Backend:
    """Build the backend of a SentencePiece model; the index of a piece is its id.

    It cuts as SentencePiece itself does, with two differences. A control piece's name in a text is text, cut
    after its first character. And where replacements overlap within one written character (half-width kana
    with a voice mark), the library's normaliser takes the shorter one. Raises CheckpointError.
    """
    from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    typed = list(zip(model.pieces, model.types, strict=True))
    users: list[str] = []
    if model.model_type == "unigram":
        backend = Backend(models.Unigram(_unigram_scores(model), model.unknown, model.byte_fallback))
    else:
        users = [piece for piece, kind in typed if kind == spm.USER]
        backend = Backend(
            models.BPE(
                vocab={piece: k for k, piece in enumerate(model.pieces)},
                merges=_merges_of_scores(model),
                unk_token=model.pieces[model.unknown],
                fuse_unk=True,
                byte_fallback=model.byte_fallback,
            )
        )
    steps: list[Any] = []
    if model.charsmap:
        try:
            steps.append(normalizers.Precompiled(model.charsmap))
        except Exception as error:  # the library raises the bare class
            raise CheckpointError(f"{name}: its table of replacements can't be read: {error}") from error
    if model.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
        steps.append(normalizers.Replace(Regex(r"\A "), ""))
        steps.append(normalizers.Replace(Regex(rf"[ {SPACE}]+\z"), ""))
    if model.add_dummy_prefix and users:
        # These are looked for in the prepared text and are prepared themselves, which must not change them.
        own = "|".join(re.escape(piece) for piece in users)
        steps.append(normalizers.Replace(Regex(rf"\A(?!(?:{own})?\z)"), SPACE))
    elif model.add_dummy_prefix:
        steps.append(normalizers.Prepend(SPACE))
    steps.append(normalizers.Replace(" ", SPACE))
    backend.normalizer = normalizers.Sequence(steps)
    cuts: list[Any] = []
    if _spaces_begin_words(model):
        cuts.append(pre_tokenizers.Split(SPACE, "merged_with_next"))
    # Byte-pair merges can't reach these names, a unigram model can.
    if model.model_type == "unigram":
        cuts += cut_names(p for p, kind in typed if kind in (spm.UNKNOWN, spm.CONTROL, spm.BYTE))
    if cuts:
        backend.pre_tokenizer = pre_tokenizers.Sequence(cuts)
    decoding: list[Any] = [decoders.Replace(SPACE, " ")]
    decoding += [decoders.ByteFallback()] if model.byte_fallback else []
    decoding.append(decoders.Fuse())
    decoding += [decoders.Strip(" ", 1, 0)] if model.add_dummy_prefix else []
    backend.decoder = decoders.Sequence(decoding)
    backend.add_tokens([AddedToken(p, normalized=True, special=False) for p in users])
    return backend


def _spaces_begin_words(model: spm.SentencePieces) -> bool:
    """Say whether no piece holds a space but at its front, so that words can be looked up one by one."""
    normal = [p for p, t in zip(model.pieces, model.types, strict=True) if t in (spm.NORMAL, spm.USER)]
    return SPACE in model.pieces and not any(SPACE in piece[1:] for piece in normal)


def _unigram_scores(model: spm.SentencePieces) -> list[tuple[str, float]]:
    """Give each piece its score; a user's piece has the one by which SentencePiece nearly always prefers it."""
    own = {spm.USER: -0.1}
    return [
        (piece, score if kind == spm.NORMAL else own.get(kind, 0.0))
        for piece, score, kind in zip(model.pieces, model.scores, model.types, strict=True)
    ]


def _merges_of_scores(model: spm.SentencePieces) -> list[tuple[str, str]]:
    """Give the merges, best first, that a BPE model keeps only as scores of their results."""
    normal = {
        piece: score
        for piece, score, kind in zip(model.pieces, model.scores, model.types, strict=True)
        if kind == spm.NORMAL
    }
    merges: list[tuple[float, int, str, str]] = []
    for piece, score in normal.items():
        for cut in range(1, len(piece)):
            if piece[:cut] in normal and piece[cut:] in normal:
                merges.append((-score, -cut, piece[:cut], piece[cut:]))
        if len(merges) > 4 * MOST_IDS:
            raise CheckpointError("a BPE model with too many merges; give a tokenizer.json")
    merges.sort(key=lambda merge: merge[:2])
    return [(left, right) for _, _, left, right in merges]


def cut_names(names: Iterable[str]) -> list[Any]:
    """Make the pre-tokenizer that cuts each of these names after its first character; none for no names."""
    from tokenizers import Regex, pre_tokenizers

    by_first: dict[str, list[str]] = {}
    for name in names:
        if len(name) > 1:
            by_first.setdefault(name[0], []).append(name[1:])
    if not by_first:
        return []
    found = (
        f"{re.escape(first)}(?={'|'.join(re.escape(rest) for rest in sorted(rests))})"
        for first, rests in sorted(by_first.items())
    )
    return [pre_tokenizers.Split(Regex("|".join(found)), "merged_with_previous")]


def cutting(backend: Backend, forbidden: Iterable[int]) -> Backend:
    """Copy a backend so that the names of some ids are cut after their first character.

    For a vocabulary of others that holds its special tokens among the pieces that text can reach. The cut is
    the last step before the model, when a space has been put before the text but not before its parts.
    """
    from tokenizers import Tokenizer as Backend
    from tokenizers import pre_tokenizers

    copy = Backend.from_str(backend.to_str())
    copy.encode_special_tokens = True
    cuts = cut_names(backend.id_to_token(i) for i in forbidden)
    copy.pre_tokenizer = pre_tokenizers.Sequence(([copy.pre_tokenizer] if copy.pre_tokenizer else []) + cuts)
    return copy


def without_space(backend: Backend) -> Backend:
    """Copy a backend so that no space is put before a text, where it puts one before the first part only.

    Any other backend treats all parts of a text alike and is given back itself.
    """
    from tokenizers import Tokenizer as Backend

    state = json.loads(backend.to_str())
    waiting = [state.get("pre_tokenizer")]
    changed = False
    while waiting:
        part = waiting.pop() or {}
        waiting += part.get("pretokenizers", [])
        if part.get("type") == "Metaspace" and part.get("prepend_scheme") == "first":
            part["prepend_scheme"] = "never"
            changed = True
    return Backend.from_str(json.dumps(state)) if changed else backend


def parts_of(backend: Backend) -> dict[str, Any]:
    """Describe a backend as its tokenizer.json does, but for the table of tokens, which takes a tenth of a second."""
    from tokenizers import Tokenizer as Backend

    if not isinstance(backend, Backend):
        state: dict[str, Any] = json.loads(backend.to_str())
        return state
    thin = Backend(type(backend.model)())
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if getattr(backend, part) is not None:
            setattr(thin, part, getattr(backend, part))
    state = json.loads(thin.to_str())
    state["model"]["continuing_subword_prefix"] = getattr(backend.model, "continuing_subword_prefix", None)
    return state


def component_kinds(state: Mapping[str, Any]) -> set[str]:
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
