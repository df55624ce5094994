"""Published layouts against the libraries that they come from: the same ids, texts and frames."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regard.data.tokenizers import Tokenizer

pytestmark = pytest.mark.filterwarnings("ignore")  # what the other libraries warn of is their affair

TEXTS = [
    "the cat sat on the mat",
    "Hello world  again   and again",
    "déjà vu naïve Cafe\u0301 n\u0303",
    "漢字とかな 한국어 中文字",
    "  leading and trailing  ",
    "tab\tnew\nline\r\n x",
    "emoji 👩‍👩‍👧 🇫🇷 👍🏽",
    "a\x00b\x07c\u200dd \ufffd \u00a0 nb\u2028sep",
    "½ ﬁ ＡＢＣ ① İ ß",
    "supercalifragilisticexpialidocious" * 4,
    "x" * 150,
    "\u2581 under \u2581\u2581 x\u2581",
    "",
    "   ",
    "العربية עברית हिन्दी",
    "don't we'll I'm 1,234.56 (x) [y] {z}",
    "quick brown fox, jumped over; the lazy dog!?",
    "unknownж漢ж x",
]
CORPUS = [
    "the cat sat on the mat and the dog ran over the hill",
    "hello world again and again we go",
    "déjà vu naïve café",
    "quick brown fox jumped over the lazy dog 1234",
    "don't we will I am (x) [y]",
] * 20
NAMES = [
    "<|im_start|>",
    "[SEP]",
    "</s>",
    "<extra_id_0>",
    "<s>",
    "<0x0A>",
    "en_XX",
    "<mask>",
    ">>fra<<",
    "<pad>",
]


def train(path: Path, corpus: list[str] = CORPUS, **options: Any) -> Any:
    """Train a SentencePiece model, write it, and give its own processor."""
    spm = pytest.importorskip("sentencepiece")
    options = {"vocab_size": 120, "hard_vocab_limit": False, "minloglevel": 2} | options
    if options.get("model_type") == "bpe":
        options |= {"hard_vocab_limit": True}
    out = io.BytesIO()
    spm.SentencePieceTrainer.train(sentence_iterator=iter(corpus), model_writer=out, **options)
    path.write_bytes(out.getvalue())
    return spm.SentencePieceProcessor(model_proto=out.getvalue())


LLAMA: dict[str, Any] = {"byte_fallback": True, "normalization_rule_name": "identity",
         "remove_extra_whitespaces": False, "split_digits": True, "allow_whitespace_only_pieces": True}  # fmt: skip


def make(kind: str, folder: Path) -> tuple[Tokenizer, Any]:
    """Give our tokenizer and theirs, from the same files."""
    transformers = pytest.importorskip("transformers")
    family, _, model_type = kind.partition(" ")
    (folder / "config.json").write_text(json.dumps({"model_type": family}))
    bpe_file, spiece, model = (
        folder / f for f in ("sentencepiece.bpe.model", "spiece.model", "tokenizer.model")
    )
    if family == "t5":
        train(spiece, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
        theirs = transformers.T5Tokenizer(str(spiece), legacy=True)
    elif family == "llama":
        train(model, model_type=model_type, vocab_size=420, **LLAMA)
        theirs = transformers.LlamaTokenizer(str(model), legacy=True)
    elif family == "mbart":
        train(bpe_file)
        theirs = transformers.MBartTokenizer(str(bpe_file), src_lang="en_XX")
    elif family == "mbart50":
        train(bpe_file)
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "MBart50Tokenizer"}')
        theirs = transformers.MBart50Tokenizer(str(bpe_file), src_lang="en_XX")
    elif family == "xlm-roberta":
        train(bpe_file)
        theirs = transformers.XLMRobertaTokenizer(str(bpe_file))
    else:
        source = train(folder / "source.spm")
        target = train(
            folder / "target.spm", ["le chat est assis sur le tapis", "bonjour le monde 漢字"] * 20
        )
        pieces = {source.id_to_piece(i) for i in range(3, source.get_piece_size() - 5)}
        pieces |= {target.id_to_piece(i) for i in range(3, target.get_piece_size())}
        # A piece that only the table has, and a language code.
        table = ["</s>", "<unk>", *sorted(pieces | {"ж", ">>fra<<"}), "<pad>"]
        (folder / "vocab.json").write_text(json.dumps({piece: k for k, piece in enumerate(table)}))
        files = [str(folder / name) for name in ("source.spm", "target.spm", "vocab.json")]
        theirs = transformers.MarianTokenizer(*files)
    return Tokenizer.load(folder), theirs


KINDS = ["t5", "llama bpe", "llama unigram", "mbart", "mbart50", "xlm-roberta", "marian"]
# Where theirs follows no rule of the model: all zero with a wrong length, or 0 and 1 without the special tokens.
NO_SEGMENTS = {"mbart", "mbart50", "marian"}


@pytest.mark.parametrize("kind", KINDS)
def test_sentencepiece_layouts(kind: str, tmp_path: Path) -> None:
    ours, theirs = make(kind, tmp_path)
    assert ours.vocab_size == len(theirs)
    for text in TEXTS:
        ids = theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.encode(text) == ids, text
        # Theirs strips the text, or takes two spaces off in place of the one that was added.
        assert ours.decode(ids).strip() == theirs.decode(ids, skip_special_tokens=True).strip()
        assert ours.frame(ids)[0] == theirs(text)["input_ids"]
        pair = theirs(text, TEXTS[0], return_token_type_ids=True)
        framed, segments = ours.frame(ids, ours.encode(TEXTS[0]))
        assert framed == pair["input_ids"]
        assert len(segments) == len(framed)
        if kind not in NO_SEGMENTS:
            assert segments == pair["token_type_ids"]
    assert ours.frames
    assert (ours.pad_id, ours.eos_id) == (theirs.pad_token_id, theirs.eos_token_id)


@pytest.mark.parametrize("kind", KINDS)
def test_a_special_name_is_text_and_nothing_is_lost(kind: str, tmp_path: Path) -> None:
    ours, _ = make(kind, tmp_path)
    for name in NAMES:
        text = f"the {name} cat"
        ids = ours.encode(text)
        assert not ids or not (ours.special_ids - {ours.unk_id}).intersection(ids)
        if ours.unk_id not in ids:
            assert ours.decode(ids) == text
        assert ours.offsets(text)[0] == ids


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_it_is_the_same(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    ours, _ = make(kind, tmp_path / "a")
    ours.save(tmp_path / "b")
    again = Tokenizer.load(tmp_path / "b")
    for text in [*TEXTS, *NAMES]:
        assert again.offsets(text) == ours.offsets(text)
        assert again.frame([5], [6]) == ours.frame([5], [6])
    assert again.vocab_size == ours.vocab_size
    assert again.special_ids == ours.special_ids


def test_marian_reads_and_writes_two_languages(tmp_path: Path) -> None:
    ours, theirs = make("marian", tmp_path)
    target = Tokenizer.load_target(tmp_path)
    assert target is not None
    for text in [*TEXTS, "bonjour le monde"]:
        ids = theirs(text_target=text, add_special_tokens=False)["input_ids"]
        assert target.encode(text) == ids
        assert ours.decode(ids) == target.decode(ids)
    code = ours.token_to_id(">>fra<<")
    assert ours.frame([5], language="fra") == ours.frame([5], language=">>fra<<") == ([code, 5, 0], [0, 0, 0])
    assert theirs(">>fra<< the cat")["input_ids"] == ours.frame(ours.encode("the cat"), language="fra")[0]
    (tmp_path / "target.spm").write_bytes((tmp_path / "source.spm").read_bytes())
    assert Tokenizer.load_target(tmp_path) is None


def test_mbart_frames_in_any_of_its_languages(tmp_path: Path) -> None:
    ours, theirs = make("mbart", tmp_path)
    ids = ours.encode("the cat")
    theirs.tgt_lang = "ro_RO"
    assert ours.frame(ids, language="ro_RO")[0] == theirs(text_target="the cat")["input_ids"]
    assert Tokenizer.load_target(tmp_path) is None


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_pieces_of_users(model_type: str, prefix: bool, tmp_path: Path) -> None:
    """Gemma's models hold runs of spaces and marks as pieces of users, which win over all others."""
    corpus = ["the cat sat on the mat <x> and the dog ran over the hill", "hello world again and again"] * 20
    theirs = train(
        tmp_path / "tokenizer.model",
        corpus,
        model_type=model_type,
        vocab_size=340,
        user_defined_symbols=["<x>", "\u2581\u2581", "\u2581\u2581\u2581", "\n\n"],
        add_dummy_prefix=prefix,
        **LLAMA,
    )
    ours = Tokenizer.load(tmp_path)
    for text in [*TEXTS, "a<x>b <x> c", "  two   three\n\nlines", "<x>", " <x>"]:
        if text != "<x>" or not prefix or model_type == "unigram":
            assert ours.encode(text) == theirs.encode(text), text
        assert ours.decode(ours.encode(text)) == text.replace("\u2581", " ")


def read_both(shared: Path, name: str) -> tuple[Tokenizer, list[Any]]:
    folder = shared / "weights" / "tokenizers" / name
    if not folder.is_dir():
        pytest.skip(f"needs the tokenizer {name} in the data folder")
    transformers = pytest.importorskip("transformers")
    if name == "gpt2":
        files = [str(folder / "encoder.json"), str(folder / "vocab.bpe")]
        return Tokenizer.load(folder), [
            transformers.GPT2TokenizerFast(*files),
            transformers.GPT2Tokenizer(*files),
        ]
    file = str(folder / "vocab.txt")
    return Tokenizer.load(folder), [transformers.BertTokenizerFast(file), transformers.BertTokenizer(file)]


@pytest.mark.parametrize("name", ["gpt2", "bert-base-uncased"])
def test_gpt2_and_bert(shared: Path, name: str) -> None:
    ours, others = read_both(shared, name)
    for theirs in others:
        for text in TEXTS:
            ids = theirs(text, add_special_tokens=False)["input_ids"]
            assert ours.encode(text) == ids, text
            if name == "gpt2":
                assert ours.decode(ids) == text
            assert ours.frame(ids)[0] == theirs(text)["input_ids"]
            if name != "gpt2":
                # Theirs folds contractions together once more, when asked to clean up.
                quiet = theirs.decode(ids, clean_up_tokenization_spaces=False, skip_special_tokens=True)
                assert ours.decode(ids).replace(" ", "") == quiet.replace(" ", "")
                pair = theirs(text, TEXTS[0])
                framed = ours.frame(ids, ours.encode(TEXTS[0]))
                assert framed == (pair["input_ids"], pair["token_type_ids"])
    assert ours.frames is (name != "gpt2")
    assert len(ours) == len(others[0])


@pytest.mark.parametrize("name", ["gpt2", "bert-base-uncased"])
def test_gpt2_and_bert_take_no_special_token_from_text(shared: Path, name: str) -> None:
    ours, _ = read_both(shared, name)
    for special in [*NAMES, "<|endoftext|>", "[CLS]", "[MASK]"]:
        ids = ours.encode(f"a {special} b")
        assert not ours.special_ids.intersection(ids)
        assert special.lower() in ours.decode(ids).replace(" ", "").lower()


@pytest.mark.parametrize(
    ("settings", "text", "expected"),
    [
        ({}, "Été 漢字", ["ete", "漢", "字"]),
        ({"do_lower_case": False}, "Été", ["[UNK]"]),
        ({"strip_accents": False}, "Été", ["été"]),
        ({"tokenize_chinese_chars": False}, "漢字", ["漢字"]),
    ],
)
def test_the_settings_of_bert(
    tmp_path: Path, settings: dict[str, bool], text: str, expected: list[str]
) -> None:
    transformers = pytest.importorskip("transformers")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ete", "été", "漢", "字", "漢字"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    ours = Tokenizer.load(tmp_path)
    assert [ours.id_to_token(i) for i in ours.encode(text)] == expected
    theirs = transformers.BertTokenizer(str(tmp_path / "vocab.txt"), **settings)
    assert theirs.tokenize(text) == expected


def test_a_vocabulary_with_capitals_is_not_folded(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Cat", "cat"])
    )
    assert Tokenizer.load(tmp_path).tokens(Tokenizer.load(tmp_path).encode("Cat cat")) == ["Cat", "cat"]


def byte_vocabulary(folder: Path, first: list[str], settings: dict[str, Any], family: str) -> None:
    from regard.data.vocabularies import bytes_of_characters

    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("a", "t"), ("Ġ", "c")]
    pieces = [*first, *bytes_of_characters(), *(a + b for a, b in merges), "<mask>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({piece: k for k, piece in enumerate(pieces)}))
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": family}))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


OTHERS: list[tuple[str, dict[str, Any], Callable[[Any], Any]]] = [
    ("roberta", {}, lambda t: t.RobertaTokenizer),
    ("bart", {"add_prefix_space": True}, lambda t: t.BartTokenizer),
    ("gpt2", {"add_bos_token": True}, lambda t: t.GPT2Tokenizer),
]


@pytest.mark.parametrize(("family", "settings", "cls"), OTHERS, ids=[family for family, *_ in OTHERS])
def test_byte_level_families(tmp_path: Path, family: str, settings: dict[str, Any], cls: Callable) -> None:
    transformers = pytest.importorskip("transformers")
    byte_vocabulary(tmp_path, ["<s>", "<pad>", "</s>", "<unk>"], settings, family)
    ours = Tokenizer.load(tmp_path)
    theirs = cls(transformers)(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"), **settings)
    for text in TEXTS:
        ids = theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.encode(text) == ids
        assert ours.frame(ids)[0] == theirs(text)["input_ids"]
        pair = theirs(text, "the cat", return_token_type_ids=True)
        framed, segments = ours.frame(ids, ours.encode("the cat"))
        assert framed == pair["input_ids"]
        if family != "gpt2":  # whose segments leave the special tokens out
            assert segments == pair["token_type_ids"]
    for name in NAMES:
        assert not ours.special_ids.intersection(ours.encode(name))


def test_added_tokens_get_their_ids(tmp_path: Path) -> None:
    byte_vocabulary(tmp_path, [], {"pad_token": "[PAD]"}, "gpt2")
    size = len(json.loads((tmp_path / "vocab.json").read_text()))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"[PAD]": size, "<|im_start|>": size + 1}))
    ours = Tokenizer.load(tmp_path)
    assert (ours.pad_id, ours.token_to_id("<|im_start|>"), len(ours)) == (size, size + 1, size + 2)
    assert not ours.special_ids.intersection(ours.encode("[PAD]<|im_start|>"))
