"""The tokenizers: lossless where they say so, exact in their offsets, never fooled by a special token's name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regard.data.tokenizers import Tokenizer
from regard.errors import CheckpointError, ConfigError, DataError

KINDS = ["bpe", "char", "byte", "wordpiece", "unigram"]
SPECIALS = ["<pad>", "<bos>", "<eos>", "<unk>", "<mask>"]
AWKWARD = [
    "The animal didn't cross the street because it was too tired.",
    "Élève déjà où naïve",
    "cafe\u0301 n\u0303 combining",
    "漢字とかな 한국어",
    "👩‍👩‍👧 🇫🇷 👍🏽 flags",
    "line\nbreak\r\n\ttab  two spaces ",
    "\u2028separator\u00a0no-break",
    " leading and trailing ",
    "العربية עברית",
    "a\ufffdb \x00 nul",
    "<eos>",
]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(AWKWARD)


def make(kind: str, **settings_: object) -> Tokenizer:
    """Train on a text small enough for every kind, with all that is awkward in it."""
    size = {"bpe": 330, "byte": 261}.get(kind, 700)
    return Tokenizer.train(AWKWARD[:10] * 3, **({"kind": kind, "vocab_size": size} | settings_))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    return {kind: make(kind) for kind in KINDS}


@pytest.fixture(scope="module")
def loaded(tokenizers: dict[str, Tokenizer], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same tokenizers as directories."""
    folders = {}
    for kind, tokenizer in tokenizers.items():
        folders[kind] = tmp_path_factory.mktemp(kind)
        tokenizer.save(folders[kind])
    return folders


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_have_the_first_ids(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    tokenizer = tokenizers[kind]
    assert [tokenizer.token_to_id(name) for name in SPECIALS] == [0, 1, 2, 3, 4]
    ids = tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id, tokenizer.mask_id
    assert ids == (0, 1, 2, 3, 4)
    assert tokenizer.special_ids == {0, 1, 2, 3, 4}
    assert tokenizer.tokens(range(5)) == SPECIALS
    assert tokenizer.decode(range(5)) == ""


@pytest.mark.parametrize("kind", ["bpe", "byte"])
@given(text=TEXTS)
def test_every_text_survives(tokenizers: dict[str, Tokenizer], kind: str, text: str) -> None:
    tokenizer = tokenizers[kind]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.unk_id not in ids


@given(text=TEXTS)
def test_unigram_keeps_every_text_but_its_own_space_mark(tokenizers: dict[str, Tokenizer], text: str) -> None:
    tokenizer = tokenizers["unigram"]
    assert tokenizer.decode(tokenizer.encode(text)) == text.replace("\u2581", " ")


@given(data=st.data())
def test_char_keeps_the_characters_it_has_seen(tokenizers: dict[str, Tokenizer], data: st.DataObject) -> None:
    seen = sorted(set("".join(AWKWARD[:10])))
    text = data.draw(st.text(st.sampled_from(seen)))
    tokenizer = tokenizers["char"]
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode(text)) == len(text)
    assert tokenizer.encode("ж") == [tokenizer.unk_id]


@given(words=st.lists(st.sampled_from(["animal", "street", "déjà", "漢", "tired", "kana"]), max_size=6))
def test_wordpiece_keeps_words_one_space_apart(tokenizers: dict[str, Tokenizer], words: list[str]) -> None:
    tokenizer = tokenizers["wordpiece"]
    text = "  ".join(words)
    assert tokenizer.decode(tokenizer.encode(text)) == " ".join(words)


def test_byte_ids_are_the_bytes(tokenizers: dict[str, Tokenizer]) -> None:
    text = "é漢👍 \x00"
    assert tokenizers["byte"].encode(text) == [5 + b for b in text.encode()]
    assert tokenizers["byte"].vocab_size == 261


@pytest.mark.parametrize("kind", KINDS)
@given(ids=st.data())
def test_streamed_text_is_the_whole_text(
    tokenizers: dict[str, Tokenizer], kind: str, ids: st.DataObject
) -> None:
    tokenizer = tokenizers[kind]
    anything = ids.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=100))
    # Also long runs of characters in several bytes, which random ids never make.
    sequence = anything + tokenizer.encode(ids.draw(TEXTS)) + anything[:3]
    stream = tokenizer.stream()
    parts = [stream.add(i) for i in sequence]
    assert "".join(parts) + stream.finish() == tokenizer.decode(sequence)
    assert stream.finish() == ""


@pytest.mark.parametrize("kind", ["bpe", "byte", "unigram"])
def test_half_a_character_is_held_back(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    tokenizer = tokenizers[kind]
    stream = tokenizer.stream()
    shown = ""
    for i in tokenizer.encode("x 🦜 e"):
        part = stream.add(i)
        assert "\ufffd" not in part
        shown += part
        assert "x 🦜 e".startswith(shown)
    assert shown == "x 🦜 e"


@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", AWKWARD)
def test_offsets_are_characters_of_the_text(kind: str, text: str, lowercase: bool) -> None:
    tokenizer = make(kind, lowercase=lowercase)
    ids, spans = tokenizer.offsets(text)
    assert ids == tokenizer.encode(text)
    reached = 0
    for start, end in spans:
        assert 0 <= start <= end <= len(text)
        assert start <= reached <= end or kind == "wordpiece"  # word pieces leave the spaces out
        reached = end
    # Each piece that is not part of a character reads as the characters it stands for.
    for k, (piece, (start, end)) in enumerate(zip(tokenizer.tokens(ids), spans, strict=True)):
        shared = (start, end) in spans[:k] + spans[k + 1 :]
        if shared or "\\x" in piece or ids[k] == tokenizer.unk_id:
            continue
        own = text[start:end].lower() if lowercase else text[start:end]
        if kind == "wordpiece":  # leaves control characters out
            own = re.sub("[\ufffd\x00\u200d]", "", own)
        assert piece == own or (kind == "unigram" and start == 0 and piece == " " + own)


@given(text=TEXTS)
@pytest.mark.parametrize("kind", ["bpe", "byte", "char", "unigram"])
def test_offsets_cover_any_text(tokenizers: dict[str, Tokenizer], kind: str, text: str) -> None:
    ids, spans = tokenizers[kind].offsets(text)
    assert ids == tokenizers[kind].encode(text)
    covered = {place for start, end in spans for place in range(start, end)}
    assert covered == set(range(len(text)))


def test_offsets_where_lowering_changes_the_length() -> None:
    tokenizer = Tokenizer.train(["istanbul i\u0307x"], kind="char", lowercase=True)
    _, spans = tokenizer.offsets("İx")  # one character that becomes two
    assert spans == [(0, 1), (0, 1), (1, 2)]


def plain_ways(kind: str, tokenizers: dict[str, Tokenizer], loaded: dict[str, Path]) -> list[Callable]:
    again = Tokenizer.load(loaded[kind])
    alone = Tokenizer.load(loaded[kind] / "tokenizer.json")
    return [tokenizers[kind].encode, again.encode, alone.encode, lambda t: again.encode_batch([t])[0]]


@pytest.mark.parametrize(
    "name", [*SPECIALS, "<EOS>", "<0x0A>", " <eos>", "a<eos>b", "<eos><eos>", "##ing <unk>"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_special_tokens_name_is_plain_text(
    tokenizers: dict[str, Tokenizer], loaded: dict[str, Path], kind: str, name: str
) -> None:
    unknown = {tokenizers[kind].unk_id} if kind in ("char", "wordpiece") else set()
    for encode in plain_ways(kind, tokenizers, loaded):
        ids = encode(name)
        assert not (tokenizers[kind].special_ids - unknown).intersection(ids)
        if kind in ("bpe", "byte", "unigram"):
            assert tokenizers[kind].decode(ids) == name
    ids, spans = tokenizers[kind].offsets(name)
    assert len(ids) == len(spans)
    assert not (tokenizers[kind].special_ids - unknown).intersection(tokenizers[kind].encode_words([name])[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_full_of_special_names_teaches_no_special_token(kind: str) -> None:
    texts = ["a <unk> b <eos> <|im_start|> <0x0A>"] * 50
    tokenizer = Tokenizer.train(texts, kind=kind, vocab_size=600)
    for text in ("<unk>", "<eos>", "<0x0A>", "<|im_start|>"):
        ids = tokenizer.encode(text)
        assert not tokenizer.special_ids.intersection(ids)
        assert tokenizer.decode(ids).replace(" ", "") == text


def test_a_foreign_vocabulary_that_holds_its_special_tokens_as_pieces(tmp_path: Path) -> None:
    """A unigram model of others can reach `</s>` from text; it is then cut."""
    state = {
        "added_tokens": [
            {"id": 0, "content": "</s>", "special": True, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False},
        ],
        "model": {"type": "Unigram", "unk_id": 1, "byte_fallback": False,
                  "vocab": [["</s>", 0.0], ["<unk>", 0.0], *[[c, -1.0] for c in "</s>ab"]]},
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.eos_id == 0
    ids, spans = tokenizer.offsets("a</s>b")
    assert tokenizer.tokens(ids) == list("a</s>b")
    assert spans == [(k, k + 1) for k in range(6)]
    assert tokenizer.encode("a</s>b") == ids


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_transformers_reads_the_directory(
    tokenizers: dict[str, Tokenizer], loaded: dict[str, Path], kind: str
) -> None:
    transformers = pytest.importorskip("transformers")
    ours = tokenizers[kind]
    for cls in (transformers.PreTrainedTokenizerFast, transformers.AutoTokenizer):
        theirs = cls.from_pretrained(loaded[kind])
        assert (theirs.pad_token_id, theirs.bos_token_id, theirs.eos_token_id) == (0, 1, 2)
        for text in AWKWARD:
            ids = ours.encode(text)
            assert theirs(text, add_special_tokens=False)["input_ids"] == ids
            assert theirs.decode([1, *ids, 2], skip_special_tokens=True) == ours.decode(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_load_gives_what_was_saved(
    tokenizers: dict[str, Tokenizer], loaded: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    again = Tokenizer.load(loaded[kind])
    assert again.vocab_size == tokenizers[kind].vocab_size == len(again)
    for text in AWKWARD:
        assert again.offsets(text) == tokenizers[kind].offsets(text)
    again.save(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (loaded[kind] / name).read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_the_same_in_every_process(kind: str) -> None:
    program = (
        "import sys\nfrom regard.data.tokenizers import Tokenizer\n"
        f"t = Tokenizer.train({AWKWARD[:10]!r} * 3, kind={kind!r}, vocab_size=700)\n"
        "sys.stdout.buffer.write(t._backend.to_str().encode())\n"
    )
    path = os.pathsep.join(p for p in sys.path if p)
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        check=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    here = Tokenizer.train(iter(AWKWARD[:10] * 3), kind=kind, vocab_size=700)
    assert run.stdout.decode() == here._backend.to_str()


@pytest.mark.parametrize("kind", KINDS)
def test_words_keep_their_numbers(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    tokenizer = tokenizers[kind]
    words = ["The", "animal", "didn't", "\u200d", "déjà", "漢字", "<eos>", "."]
    ids, numbers = tokenizer.encode_words(words)
    assert len(ids) == len(numbers)
    assert sorted(set(numbers)) == list(range(len(words)))
    assert numbers == sorted(numbers)
    for k, word in enumerate(words):
        own = [i for i, n in zip(ids, numbers, strict=True) if n == k]
        if tokenizer.unk_id not in own:
            assert tokenizer.decode(own).replace(" ", "") == word


@given(words=st.lists(st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=5), max_size=5))
@pytest.mark.parametrize("kind", ["bpe", "byte", "char", "unigram"])
def test_words_read_as_in_running_text(tokenizers: dict[str, Tokenizer], kind: str, words: list[str]) -> None:
    ids, _ = tokenizers[kind].encode_words(words)
    assert ids == tokenizers[kind].encode(" ".join(words))


def test_a_word_of_nothing_is_an_error_where_unk_is_missing() -> None:
    tokenizer = make("bpe")
    tokenizer.unk_id = None
    with pytest.raises(DataError, match="word 1 of a sentence is empty"):
        tokenizer.encode_words([""])


@pytest.mark.parametrize("kind", KINDS)
def test_many_at_once_is_one_by_one(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    tokenizer = tokenizers[kind]
    single = [tokenizer.encode(text) for text in AWKWARD]
    assert tokenizer.encode_batch(AWKWARD) == single
    assert list(tokenizer.encode_stream(iter(AWKWARD), end=2)) == [[*ids, 2] for ids in single]
    assert tokenizer.decode_batch(single) == [tokenizer.decode(ids) for ids in single]
    assert tokenizer.encode_batch([]) == [] and tokenizer.encode("") == []


def test_readable_pieces(tokenizers: dict[str, Tokenizer]) -> None:
    bpe = tokenizers["bpe"]
    assert "".join(bpe.tokens(bpe.encode("the street"))) == "the street"
    byte = tokenizers["byte"]
    assert byte.tokens(byte.encode("é!")) == ["\\xc3", "\\xa9", "!"]
    unigram = tokenizers["unigram"]
    assert unigram.tokens(unigram.encode("ж")) == [" ", "\\xd0", "\\xb6"]
    assert not any(t.startswith("##") for t in tokenizers["wordpiece"].tokens(range(5, 100)))


@pytest.mark.parametrize("kind", KINDS)
def test_ids_out_of_range_are_refused(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    tokenizer = tokenizers[kind]
    for wrong in (tokenizer.vocab_size, -1, 10**30):
        with pytest.raises(DataError, match="outside the vocabulary"):
            tokenizer.decode([wrong])
        with pytest.raises(DataError, match="outside the vocabulary"):
            tokenizer.stream().add(wrong)
    assert tokenizer.id_to_token(tokenizer.vocab_size) is None
    assert tokenizer.token_to_id("no such piece") is None


@pytest.mark.parametrize(("kind", "minimum"), [("bpe", 261), ("byte", 261), ("unigram", 262)])
def test_too_small_a_vocabulary_names_the_minimum(kind: str, minimum: int) -> None:
    with pytest.raises(ConfigError, match=f"at least {minimum} "):
        Tokenizer.train(["hello"], kind=kind, vocab_size=minimum - 1)
    assert Tokenizer.train(["hello"], kind=kind, vocab_size=minimum).vocab_size <= minimum


@pytest.mark.parametrize("kind", ["char", "wordpiece"])
def test_too_small_a_vocabulary_for_the_characters(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"at least 1[0-9] ") as caught:
        Tokenizer.train(["hello words"], kind=kind, vocab_size=6)
    minimum = int(str(caught.value).split("at least ")[1].split()[0])
    assert Tokenizer.train(["hello words"], kind=kind, vocab_size=minimum).vocab_size == minimum
    with pytest.raises(ConfigError):
        Tokenizer.train(["hello words"], kind=kind, vocab_size=minimum - 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [300, 340])
def test_the_vocabulary_is_never_larger_than_asked(kind: str, size: int) -> None:
    tokenizer = Tokenizer.train(AWKWARD * 2, kind=kind, vocab_size=size)
    assert tokenizer.vocab_size <= size
    if kind == "bpe":
        assert tokenizer.vocab_size == size


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("texts", [[], [""], ["  ", "\n"]])
def test_no_text_to_train_on(kind: str, texts: list[str]) -> None:
    with pytest.raises(DataError, match="no text to train a tokenizer on"):
        Tokenizer.train(texts, kind=kind)


def test_wrong_settings_are_one_line() -> None:
    with pytest.raises(ConfigError, match="did you mean 'wordpiece'"):
        Tokenizer.train(["a"], kind="word-piece")
    with pytest.raises(ConfigError, match="min_count=0"):
        Tokenizer.train(["a"], min_count=0)
    with pytest.raises(ConfigError, match="no effect for kind='byte'"):
        Tokenizer.train(["a"], kind="byte", min_count=2)
    with pytest.raises(ConfigError, match="lower it"):
        Tokenizer.train(["a"], kind="char", min_count=2)
    with pytest.raises(DataError, match="strings, not int"):
        Tokenizer.train([1])  # type: ignore[list-item]
    with pytest.raises(DataError, match="must be a string, not int"):
        make("byte").encode(3)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="character 1 of a text is half a surrogate"):
        make("byte").encode("a\ud800")


def test_min_count_leaves_rare_characters_out() -> None:
    tokenizer = Tokenizer.train(["aab"], kind="char", min_count=2)
    assert tokenizer.encode("ab") == [5, tokenizer.unk_id]


@pytest.mark.parametrize("kind", KINDS)
def test_lowercase_folds_everything(kind: str) -> None:
    tokenizer = make(kind, lowercase=True)
    assert tokenizer.encode("The STREET") == tokenizer.encode("the street")
    assert tokenizer.decode(tokenizer.encode("The STREET")) == "the street"


def test_damaged_directories_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no tokenizer here"):
        Tokenizer.load(tmp_path)
    file = tmp_path / "tokenizer.json"
    for content, reason in (
        ("version https://git-lfs.github.com/spec/v1\noid", "git-lfs pointer"),
        ("{", "not a tokenizer.json"),
        ('{"model": {"type": "Nothing"}}', "not a tokenizer.json"),
    ):
        file.write_text(content)
        with pytest.raises(CheckpointError, match=reason):
            Tokenizer.load(tmp_path)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match="can't be read"):
        Tokenizer.load(file)
    make("byte").save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        Tokenizer.load(tmp_path)
    assert not list(tmp_path.glob("*.part"))


def test_parts_of_special_tokens_of_others(tmp_path: Path) -> None:
    make("byte").save(tmp_path)
    config = {"cls_token": {"content": "<bos>"}, "sep_token": "<eos>", "pad_token": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer.load(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, 0)


def test_a_saved_cut_is_not_obeyed(tmp_path: Path) -> None:
    tokenizer = make("byte")
    tokenizer._backend.enable_truncation(2)
    tokenizer._backend.enable_padding(length=9)
    tokenizer.save(tmp_path)
    assert len(Tokenizer.load(tmp_path).encode("hello")) == 5


def test_no_torch_is_needed() -> None:
    program = (
        "import sys, regard.data, regard.data.tokenizers, regard.data.sources, regard.data.store\n"
        "assert 'torch' not in sys.modules and 'tokenizers' not in sys.modules"
    )
    path = os.pathsep.join(p for p in sys.path if p)
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | {"PYTHONPATH": path})


@settings(deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_any_text_can_be_learned_from(texts: list[str]) -> None:
    if not any(text.strip() for text in texts):
        texts = [*texts, "x"]
    for kind in ("unigram", "bpe"):
        tokenizer = Tokenizer.train(texts, kind=kind, vocab_size=280)
        for text in texts:
            assert tokenizer.decode(tokenizer.encode(text)) == text.replace("\u2581", " ") or kind == "bpe"


def test_pieces_of_real_text_are_sensible(shared: Path) -> None:
    lines = (shared / "data/multi30k/train.de").read_text(encoding="utf-8").split("\n")[:3000]
    for kind in ("bpe", "wordpiece", "unigram"):
        tokenizer = Tokenizer.train(lines, kind=kind, vocab_size=2000)
        assert tokenizer.vocab_size == 2000
        tokens = sum(map(len, tokenizer.encode_batch(lines)))
        words = sum(len(line.split()) for line in lines)
        assert words < tokens < 1.9 * words
        pieces = [t.strip() for t in tokenizer.tokens(tokenizer.encode("Ein Mann in einem blauen Hemd"))]
        assert pieces == ["Ein", "Mann", "in", "einem", "blauen", "Hemd"]
