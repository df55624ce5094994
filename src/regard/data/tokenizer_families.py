"""The SentencePiece tokenizers of T5, Llama, mBART, XLM-R and Marian: which id each piece has in which model.

A SentencePiece file numbers its own pieces. T5 and Llama keep these numbers; T5 adds its extra ids behind
them, the last one first. Models that were trained with fairseq (mBART, XLM-R) put four tokens of their own in
front, and their language codes and the mask behind. Marian has two models, one a language, and takes every id
from a table that both share; `MarianBackend` does that with the calls of a `tokenizers` backend.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from regard.data import tokenizer_sentencepiece as spm
from regard.data.tokenizer_backends import pieces_backend
from regard.data.tokenizer_reading import Folder, read_bytes, read_vocabulary
from regard.data.tokenizer_specials import add_specials, frame_with
from regard.data.vocabularies import SPACE
from regard.errors import CheckpointError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

__all__ = ["MarianBackend", "marian", "sentencepiece"]

T5_LIKE = frozenset({"t5", "mt5", "umt5", "longt5", "switchtransformers"})
LLAMA_LIKE = frozenset(
    {"llama", "codellama", "mistral", "mixtral", "gemma", "gemma2", "gemma3", "gemma3text"}
)
FAIRSEQ_LIKE = frozenset({"mbart", "mbart50", "xlmroberta", "xlmrobertaxl"})
# Language codes in the order of their ids; mBART-50 has both rows. Source: the models' published dictionaries.
MBART_CODES = (
    "ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ ko_KR lt_LT lv_LV my_MM ne_NP "
    "nl_XX ro_RO ru_RU si_LK tr_TR vi_VN zh_CN"
)
MORE_CODES = (
    "af_ZA az_AZ bn_IN fa_IR he_IL hr_HR id_ID ka_GE km_KH mk_MK ml_IN mn_MN mr_IN pl_PL ps_AF pt_XX sv_SE sw_KE "
    "ta_IN te_IN th_TH tl_XX uk_UA ur_PK xh_ZA gl_ES sl_SI"
)


def sentencepiece(path: Path, folder: Folder) -> Backend:
    """Build the backend of a lone SentencePiece file by the family that the files beside it name.

    Where nothing names one, a model without a token for the beginning of a text is T5's and any other Llama's.
    Raises CheckpointError for a damaged file or a family with other rules.
    """
    family = folder.family
    model = spm.read(path)
    if family is None and path.name.startswith("sentencepiece.bpe"):
        raise CheckpointError(
            f"{path}: several models number these pieces differently; put config.json with its model_type beside it"
        )
    if family is None:
        family = "llama" if "<s>" in model.pieces or "<bos>" in model.pieces else "t5"
    if family in T5_LIKE:
        return _t5(model, path, folder)
    if family in LLAMA_LIKE:
        return _llama(model, path, folder)
    if family in FAIRSEQ_LIKE:
        return _fairseq(model, path, folder, family)
    raise folder.refuse(path.name, T5_LIKE | LLAMA_LIKE | FAIRSEQ_LIKE)


def _controls(model: spm.SentencePieces) -> list[str]:
    marks = {"<start_of_turn>", "<end_of_turn>"}  # Gemma has them among the pieces for users
    kinds = (spm.CONTROL, spm.UNKNOWN)
    return [p for p, t in zip(model.pieces, model.types, strict=True) if t in kinds or p in marks]


def _t5(model: spm.SentencePieces, path: Path, folder: Folder) -> Backend:
    from tokenizers import AddedToken

    backend = pieces_backend(model, str(path))
    extra = folder.settings.get("extra_ids", 100)
    if type(extra) is not int or not 0 <= extra <= 10_000:
        raise CheckpointError(f"{folder.path}: extra_ids={extra!r} must be a whole number up to 10,000")
    names = [f"<extra_id_{k}>" for k in reversed(range(extra))]
    backend.add_special_tokens(
        [AddedToken(name, special=True, normalized=False, lstrip=True, rstrip=True) for name in names]
    )
    add_specials(backend, folder, [n for n in _controls(model) if n != "<s>"])
    frame_with(backend, "A </s>", "A </s> B </s>", one_segment=True)
    return backend


def _llama(model: spm.SentencePieces, path: Path, folder: Folder) -> Backend:
    backend = pieces_backend(model, str(path))
    controls = _controls(model)
    add_specials(backend, folder, controls)
    first, last = ("<bos>", "<eos>") if "<bos>" in controls else ("<s>", "</s>")
    begin = [first] if folder.flag("add_bos_token", True) else []
    end = [last] if folder.flag("add_eos_token", False) else []
    if begin or end:
        text, other = [*begin, "A", *end], [*begin, "B", *end]
        frame_with(backend, " ".join(text), " ".join(text + other))
    return backend


def _fairseq(model: spm.SentencePieces, path: Path, folder: Folder, family: str) -> Backend:
    from tokenizers import AddedToken

    if model.pieces[:3] != ["<unk>", "<s>", "</s>"]:
        raise CheckpointError(
            f"{path}: the first pieces are {model.pieces[:3]}; those of {family} are <unk>, <s> and </s>"
        )
    shifted = replace(
        model,
        pieces=["<s>", "<pad>", "</s>", "<unk>", *model.pieces[3:]],
        scores=[0.0] * 4 + model.scores[3:],
        types=[spm.CONTROL] * 3 + [spm.UNKNOWN, *model.types[3:]],
    )
    if "<pad>" in model.pieces:
        raise CheckpointError(f"{path}: it has a piece <pad> of its own, which {family} adds")
    backend = pieces_backend(shifted, str(path))
    codes = {"mbart": MBART_CODES, "mbart50": f"{MBART_CODES} {MORE_CODES}"}.get(family, "").split()
    added = [AddedToken(code, special=True, normalized=False) for code in codes]
    added.append(AddedToken("<mask>", special=True, normalized=False, lstrip=True))
    backend.add_special_tokens(added)
    add_specials(backend, folder, ("<s>", "<pad>", "</s>", "<unk>"))
    language = folder.settings.get("src_lang") or "en_XX"
    if family.startswith("mbart") and language not in codes:
        raise CheckpointError(f"{folder.path}: src_lang={language!r} is no language code of {family}")
    if family == "mbart":
        frame_with(backend, f"A </s> {language}", f"A B </s> {language}", one_segment=True)
    elif family == "mbart50":
        frame_with(backend, f"{language} A </s>", f"{language} A B </s>", one_segment=True)
    else:
        frame_with(backend, "<s> A </s>", "<s> A </s> </s> B </s>", one_segment=True)
    return backend


# --------------------------------------------------------------------------------------------------- Marian


def marian(folder: Folder, *, target: bool) -> MarianBackend | None:
    """Build the backend of a Marian directory's source or target side; None for a target that is the source.

    Raises CheckpointError for damaged files.
    """
    side = "target.spm" if target else "source.spm"
    own_table = target and (folder.path / "target_vocab.json").is_file()
    table = read_vocabulary(folder.path / ("target_vocab.json" if own_table else "vocab.json"))
    names = ("source.spm", "target.spm", "vocab.json", "target_vocab.json")
    files = {name: read_bytes(folder.path / name) for name in names if (folder.path / name).is_file()}
    if side not in files:
        raise CheckpointError(f"{folder.path / side}: this half of the tokenizer is missing; download it too")
    if target and not own_table and files[side] == files["source.spm"]:
        return None
    for name in ("</s>", "<unk>", "<pad>"):
        if name not in table:
            raise CheckpointError(
                f"{folder.path / 'vocab.json'}: {name!r} has no id; is this a Marian vocabulary?"
            )
    pieces = spm.parse(files[side], name=str(folder.path / side))
    return MarianBackend(pieces_backend(pieces, side), table, files, {"tokenizer_class": "MarianTokenizer"})


class MarianBackend:
    """Cut text with one SentencePiece model and number the pieces by a table, as Marian does.

    It has those calls of a `tokenizers.Tokenizer` that `regard.data.tokenizers.Tokenizer` makes. `files` and
    `settings` are what saving writes: the published files as they came, for no tokenizer.json can say this.
    """

    def __init__(
        self,
        cutter: Backend,
        table: Mapping[str, int],
        files: Mapping[str, bytes],
        settings: Mapping[str, str],
    ) -> None:
        """Wrap the backend that cuts text; `table` holds the id of each piece."""
        self.files = files
        self.settings = settings
        self._cutter = cutter
        self._table = dict(table)
        self._names = {index: piece for piece, index in table.items()}
        codes = [piece for piece in table if piece.startswith(">>") and piece.endswith("<<")]
        self._special = {table[name]: name for name in ("</s>", "<unk>", "<pad>", *codes)}
        self._unknown = table["<unk>"]
        self._reachable = {p: k for p, k in table.items() if k not in self._special}
        self.encode_special_tokens = True

    def no_truncation(self) -> None:
        """Cut nothing off, which is the only way here."""

    def no_padding(self) -> None:
        """Pad nothing, which is the only way here."""

    def _numbered(self, encoding: Any) -> SimpleNamespace:
        # A piece that the model lacks comes as the characters themselves, and the table may know those.
        ids = [self._reachable.get(token, self._unknown) for token in encoding.tokens]
        return SimpleNamespace(ids=ids, tokens=encoding.tokens, offsets=encoding.offsets)

    def encode(self, text: str, *, add_special_tokens: bool) -> SimpleNamespace:
        """Give the ids, pieces and spans of a text."""
        return self._numbered(self._cutter.encode(text, add_special_tokens=add_special_tokens))

    def encode_batch(self, texts: list[str], *, add_special_tokens: bool) -> list[SimpleNamespace]:
        """Give the ids, pieces and spans of each text."""
        found = self._cutter.encode_batch(texts, add_special_tokens=add_special_tokens)
        return [self._numbered(encoding) for encoding in found]

    encode_batch_fast = encode_batch

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Give the text of ids."""
        pieces = (self._names[i] for i in ids if not (skip_special_tokens and i in self._special))
        return "".join(pieces).replace(SPACE, " ").removeprefix(" ")

    def decode_batch(self, batch: Iterable[Sequence[int]], *, skip_special_tokens: bool) -> list[str]:
        """Give the text of each list of ids."""
        return [self.decode(ids, skip_special_tokens=skip_special_tokens) for ids in batch]

    def token_to_id(self, token: str) -> int | None:
        """Give a piece's id."""
        return self._table.get(token)

    def id_to_token(self, index: int) -> str | None:
        """Give an id's piece."""
        return self._names.get(index)

    def get_vocab(self, *, with_added_tokens: bool) -> dict[str, int]:
        """Give the whole table."""
        return self._table

    def get_added_tokens_decoder(self) -> dict[int, Any]:
        """Give the special tokens by their ids."""
        from tokenizers import AddedToken

        return {i: AddedToken(name, special=True, normalized=False) for i, name in self._special.items()}

    def to_str(self) -> str:
        """Describe the parts as a tokenizer.json would; the frame is that of Marian."""
        state = json.loads(self._cutter.to_str())
        end = {"SpecialToken": {"id": "</s>", "type_id": 0}}
        first, second = ({"Sequence": {"id": which, "type_id": 0}} for which in "AB")
        state["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [first, end],
            "pair": [first, second, end],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [self._table["</s>"]], "tokens": ["</s>"]}},
        }
        return json.dumps(state)
