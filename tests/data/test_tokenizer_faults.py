"""Damaged and hostile tokenizer files: each is one clear CheckpointError, before memory is taken."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regard.data import tokenizer_reading
from regard.data.tokenizer_sentencepiece import parse
from regard.data.tokenizers import Tokenizer
from regard.data.vocabularies import bytes_of_characters
from regard.errors import CheckpointError, ConfigError

SPACE = "\u2581"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 1\n"
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


# ---------------------------------------------------------------------- a small writer of SentencePiece files


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def field(number: int, content: bytes | int | float) -> bytes:
    if isinstance(content, bytes):
        return varint(number << 3 | 2) + varint(len(content)) + content
    if isinstance(content, float):
        return varint(number << 3 | 5) + struct.pack("<f", content)
    return varint(number << 3) + varint(content)


def piece(text: str, score: float = 0.0, kind: int = NORMAL) -> bytes:
    return field(1, field(1, text.encode()) + field(2, score) + field(3, kind))


HEAD = piece("<unk>", kind=UNKNOWN) + piece("<s>", kind=CONTROL) + piece("</s>", kind=CONTROL)


def model(*pieces: str, head: bytes = HEAD, trainer: bytes = b"", normalizer: bytes = b"") -> bytes:
    body = b"".join(piece(text, -1.0 - k) for k, text in enumerate(pieces))
    return head + body + field(2, field(3, 1) + trainer) + field(3, normalizer)


LETTERS = model(SPACE, SPACE + "ab", *"abcs/<>")


def test_a_model_written_by_hand_is_read(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(LETTERS)
    ours = Tokenizer.load(tmp_path)
    assert ours.tokens(ours.encode("ab  c")) == [" ab", " ", "c"]
    assert ours.decode(ours.encode(" ab c</s> ")) == "ab c</s>"
    assert ours.frame([5]) == ([1, 5], [0, 0])
    assert ours.frame([5], [6]) == ([1, 5, 1, 6], [0, 0, 1, 1])
    assert ours.frames


def test_each_way_to_cut_a_model_off_is_an_error() -> None:
    for end in range(len(LETTERS)):
        with pytest.raises(CheckpointError, match=r"^x: not a SentencePiece model") as caught:
            parse(LETTERS[:end], name="x")
        assert "\n" not in str(caught.value)
    assert parse(LETTERS, name="x").pieces[3] == SPACE


def test_random_bytes_never_do_more_than_raise() -> None:
    rng = random.Random(0)
    for _ in range(2000):
        data = bytearray(LETTERS)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            parse(bytes(data), name="x")
        except CheckpointError:
            pass


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "runs past the end"),
        (b"\xff" * 20, "has no end"),
        (b"\x0b", "wire type 3"),
        (b"IQ== 0\nIg== 1\n", "tiktoken"),
        (field(1, 5), "wire type 0 in place of 2"),
        (HEAD + piece("a") + piece("a"), "stands twice"),
        (HEAD + piece(""), "has 0 bytes"),
        (HEAD + piece("a" * 5000), "has 5000 bytes"),
        (HEAD + piece("a", float("nan")), "score of piece 3 is nan"),
        (HEAD + piece("a", kind=9), "unknown type 9"),
        (HEAD + field(1, field(1, b"\xff")), "not UTF-8"),
        (piece("a"), "0 pieces stand for what is unknown"),
        (HEAD + piece("b", kind=UNKNOWN), "2 pieces stand for what is unknown"),
        (HEAD + piece("a", kind=UNUSED), "unused"),
        (HEAD + field(2, field(3, 3)), "'word'"),
        (HEAD + field(2, field(3, 7)), "model_type 7"),
        (HEAD + field(2, field(24, 1)), "spaces at the end"),
        (HEAD + field(3, field(5, 0)), "not escaped"),
        (HEAD + field(3, field(2, b"\x00\x01")), "cut off"),
        (HEAD + field(3, field(2, struct.pack("<II", 4, 1 << 20) + b"a\x00")), "outside itself"),
        (HEAD + field(3, field(2, struct.pack("<II", 4, 1 << 31 | 99) + b"a\x00")), "outside itself"),
    ],
)
def test_damaged_models(tmp_path: Path, data: bytes, match: str) -> None:
    (tmp_path / "tokenizer.model").write_bytes(data)
    with pytest.raises(CheckpointError, match=match) as caught:
        Tokenizer.load(tmp_path)
    assert "\n" not in str(caught.value)
    assert "tokenizer.model" in str(caught.value)


# ------------------------------------------------------------------------------------------- byte-level pairs


def write_pairs(
    folder: Path, *, merges: str = "a b\n", change: Callable[[dict[str, Any]], object] = len
) -> None:
    table: dict[str, Any] = {c: k for k, c in enumerate([*bytes_of_characters(), "ab"])}
    change(table)
    (folder / "vocab.json").write_text(json.dumps(table))
    (folder / "merges.txt").write_text(merges, encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.update(a=5), "both have the id 5"),
        (lambda t: t.update(zz=10**12), "id of 'zz' is 1000000000000"),
        (lambda t: t.update(zz=-1), "id of 'zz' is -1"),
        (lambda t: t.update(zz=300), "no piece has the id 257"),
        (lambda t: t.update(zz="5"), "must be a whole number"),
        (lambda t: t.update(zz=1.5), "must be a whole number"),
        (lambda t: t.update(zz=True), "must be a whole number"),
        (lambda t: t.clear(), "vocabulary is empty"),
        (lambda t: t.update({"zz": t.pop("a")}), "not a byte-level vocabulary"),
    ],
)
def test_a_damaged_vocabulary(tmp_path: Path, change: Callable[[dict[str, Any]], object], match: str) -> None:
    write_pairs(tmp_path, change=change)
    with pytest.raises(CheckpointError, match=match) as caught:
        Tokenizer.load(tmp_path)
    assert "vocab.json" in str(caught.value)


@pytest.mark.parametrize(
    ("merges", "match"),
    [
        ("#version: 0.2\na b\nab\n", "merges.txt:3: 'ab' is no merge"),
        ("a b c\n", "merges.txt:1: 'a b c' is no merge"),
        (" b\n", "merges.txt:1: ' b' is no merge"),
        ("a b\n\n<<<<<<< HEAD\n", "merges.txt:3"),
        ("a c\n", "needs 'ac', which has no id"),
        (POINTER, "git-lfs pointer"),
        ("", "file is empty"),
    ],
)
def test_damaged_merges(tmp_path: Path, merges: str, match: str) -> None:
    write_pairs(tmp_path, merges=merges)
    with pytest.raises(CheckpointError, match=match):
        Tokenizer.load(tmp_path)


def test_whole_pairs_are_read(tmp_path: Path) -> None:
    write_pairs(tmp_path, merges="#version: 0.2\r\na b\r\n")
    ours = Tokenizer.load(tmp_path)
    assert ours.tokens(ours.encode("abba")) == ["ab", "b", "a"]
    assert not ours.frames
    assert ours.frame([1], [2]) == ([1, 2], [0, 1])


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('{"a": 0, "a": 1}', "'a' stands twice"),
        ("[1]", "must be an object"),
        ('{"a": ', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        (POINTER, "git-lfs pointer"),
    ],
)
def test_a_vocabulary_that_is_no_table(tmp_path: Path, text: str, match: str) -> None:
    write_pairs(tmp_path)
    (tmp_path / "vocab.json").write_text(text)
    with pytest.raises(CheckpointError, match=match):
        Tokenizer.load(tmp_path)


# ----------------------------------------------------------------------------------------------- word pieces

BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (POINTER, "git-lfs pointer"),
        ("\n".join([*BERT, "a"]), "vocab.txt:7: 'a' is already in line 6"),
        ("\n".join([*BERT, "", "b"]), "vocab.txt:7: the line is empty"),
        ("a\nb\n", "is not in the vocabulary"),
        ("", "file is empty"),
    ],
)
def test_a_damaged_vocab_txt(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "vocab.txt").write_text(text)
    with pytest.raises(CheckpointError, match=match):
        Tokenizer.load(tmp_path)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes(b"[PAD]\n\xff\n")
    with pytest.raises(CheckpointError, match=r"not UTF-8 text \(byte 6\)"):
        Tokenizer.load(tmp_path)


def test_giant_files_are_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tokenizer.json", "vocab.txt", "tokenizer.model"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(50 * 2**30)  # a hole: no disk is used
        with pytest.raises(CheckpointError, match="too many for a tokenizer's file"):
            Tokenizer.load(tmp_path)
        (tmp_path / name).unlink()
    monkeypatch.setattr(tokenizer_reading, "MOST_IDS", 5)
    (tmp_path / "vocab.txt").write_text("\n".join(BERT))
    with pytest.raises(CheckpointError, match="6 lines are too many, at most 5"):
        Tokenizer.load(tmp_path)


# ---------------------------------------------------------------------------------------- which layout it is


def test_half_a_layout_and_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no tokenizer here"):
        Tokenizer.load(tmp_path)
    with pytest.raises(CheckpointError, match="there is no tokenizer here"):
        Tokenizer.load_target(tmp_path)
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"vocab.json but not the file that belongs to it"):
        Tokenizer.load(tmp_path)
    (tmp_path / "source.spm").write_bytes(LETTERS)
    (tmp_path / "vocab.json").write_text('{"</s>": 0, "<unk>": 1, "<pad>": 2}')
    assert len(Tokenizer.load(tmp_path)) == 3
    with pytest.raises(CheckpointError, match=r"target.spm: this half"):
        Tokenizer.load_target(tmp_path)


@pytest.mark.parametrize("family", ["clip", "m2m_100", "deberta-v2", "pegasus"])
def test_a_family_with_other_rules_is_refused(tmp_path: Path, family: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    (tmp_path / "spiece.model").write_bytes(LETTERS)
    with pytest.raises(CheckpointError, match=r"is not known.*give a tokenizer.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(BERT))
    with pytest.raises(CheckpointError, match="is not known"):
        Tokenizer.load(tmp_path)
    write_pairs(tmp_path)
    with pytest.raises(CheckpointError, match="is not known"):
        Tokenizer.load(tmp_path)


def test_pieces_that_several_models_number_differently(tmp_path: Path) -> None:
    (tmp_path / "sentencepiece.bpe.model").write_bytes(LETTERS)
    with pytest.raises(CheckpointError, match=r"put config\.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "mbart"}')
    ours = Tokenizer.load(tmp_path)
    assert ours.token_to_id(SPACE) == 4
    assert ours.frame([4]) == ([4, 2, ours.token_to_id("en_XX")], [0, 0, 0])
    with pytest.raises(ConfigError, match="did you mean 'ro_RO'"):
        ours.frame([4], language="ro_Ro")
    with pytest.raises(ConfigError, match="has no effect"):
        Tokenizer.train(["a"], kind="byte").frame([4], language="ro_RO")


@pytest.mark.parametrize(
    ("added", "match"),
    [
        ({"x": 300}, "has the id 300, but nothing has 6"),
        ({"x": 3}, "wants the id 3"),
        ({"a": 6}, "stands in the vocabulary as id 5"),
        ({"x": 10**12}, "it can't be one"),
        ({"x": "7"}, "it can't be one"),
    ],
)
def test_added_tokens_that_do_not_fit(tmp_path: Path, added: dict[str, Any], match: str) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(BERT))
    (tmp_path / "added_tokens.json").write_text(json.dumps(added))
    with pytest.raises(CheckpointError, match=match):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("processor", "match"),
    [
        ({"type": "BertProcessing", "sep": ["[SEP]", 9999], "cls": ["[CLS]", 2]}, "adds id 9999"),
        ({"type": "Sequence", "processors": [{"type": "BertProcessing", "sep": ["", 3], "cls": ["", 2]}] * 2},
         "frames its texts twice"),
    ],
)  # fmt: skip
def test_a_tokenizer_json_with_a_bad_frame(tmp_path: Path, processor: dict[str, Any], match: str) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(BERT))
    Tokenizer.load(tmp_path).save(tmp_path)
    state = json.loads((tmp_path / "tokenizer.json").read_text())
    assert state["post_processor"]["type"] == "TemplateProcessing"
    state["post_processor"] = processor
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match=match):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("kind", ["BertProcessing", "RobertaProcessing"])
def test_the_older_kinds_of_frames(tmp_path: Path, kind: str) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(BERT))
    Tokenizer.load(tmp_path).save(tmp_path)
    state = json.loads((tmp_path / "tokenizer.json").read_text())
    state["post_processor"] = {"type": kind, "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
    if kind == "RobertaProcessing":
        state["post_processor"] |= {"trim_offsets": True, "add_prefix_space": False}
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    ours = Tokenizer.load(tmp_path)
    expected = ours._backend.encode("a", "a a")
    assert ours.frame([5], [5, 5]) == (expected.ids, expected.type_ids)
    assert ours.frame([5]) == ([2, 5, 3], [0, 0, 0])
