"""Whatever is wrong with the words or the data: one clear line on stderr, exit code 2, and nothing made or lost."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from tests.tiny_data import DATA, TINY, write_all

from regard.cli import main

PAIRS = DATA["translate"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(write_all(tmp_path))
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    return tmp_path


def refused(folder, capsys, words, told, code=2):
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    assert main(words) == code
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    assert line.startswith("regard: ")
    assert told in line
    assert "Traceback" not in line
    assert "--debug" not in line
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()} == before
    assert not (folder / "runs").exists()
    assert not list(folder.glob(".*"))
    return line


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["translat", *PAIRS], 'Did you mean "translate"?'),
        ([], "TASK requires an argument"),
        (["translate"], "there is no data"),
        (["translate", *PAIRS, "--steos", "5"], "Did you mean --steps?"),
        (["translate", *PAIRS, "--steps", "many"], "many is not a whole number"),
        (["translate", *PAIRS, "--steps", "5.5"], "5.5 is not a whole number"),
        (["translate", *PAIRS, "--steps", "0"], "steps=0 is out of range"),
        (["translate", *PAIRS, "--steps", "-5"], "steps=-5 is out of range"),
        (["translate", *PAIRS, "--lr", "nan"], "lr=nan must be a number"),
        (["translate", *PAIRS, "--lr", "inf"], "lr=inf must be a number"),
        (["translate", *PAIRS, "--lr", "1e6"], "lr=1000000.0 is out of range"),
        (["translate", *PAIRS, "--lr", "0"], "allowed are more than 0"),
        (["translate", *PAIRS, "--minutes", "-1"], "minutes=-1.0 is out of range"),
        (["translate", *PAIRS, "--epochs", "9999999999999999"], "epochs=9999999999999999 is out of range"),
        (["translate", *PAIRS, "--dropout", "1.5"], "dropout=1.5 is out of range"),
        (["translate", *PAIRS, "--seed", "-1"], "seed=-1 is out of range"),
        (["translate", *PAIRS, "--schedule", "cosin"], 'Did you mean "cosine"?'),
        (["translate", *PAIRS, "--micro-tokens", "99999"], "micro_tokens=99999 is more than batch_tokens"),
        (["translate", *PAIRS, "--min-lr-ratio", "0.1", "--schedule", "constant"], "min_lr_ratio=0.1 has no effect"),
        (["translate", *PAIRS, "--decay-fraction", "0.3"], "decay_fraction=0.3 has no effect here"),
        (["classify", "labels.tsv", "--ema-decay", "0.9"], "ema_decay=0.9 has no effect here"),
        (["classify", "labels.tsv", "--average-last", "3"], "average_last=3 has no effect here"),
        (["translate", *PAIRS, "--rotary-base", "500"], "rotary_base=500.0 has no effect here"),
        (["translate", *PAIRS, "--pooling", "mean"], "pooling='mean' has no effect here"),
        (["generate", "text.txt", "--no-share-embeddings"], "share_embeddings=False has no effect here"),
        (["generate", "text.txt", "--num-decoder-layers", "2"], "num_decoder_layers is for kind='encoder-decoder'"),
        (["generate", "text.txt", "--skip-long"], "skip_long has no effect on generate"),
        (["generate", "text.txt", "--columns", "text"], "--columns names columns of tables"),
        (["classify", "labels.tsv", "--documents", "line"], "--documents has no effect"),
        (["generate", "text.txt", "--split", "test"], "--split chooses a part of a hub"),
        (["translate", *PAIRS, "--columns", "x"], "2 are needed"),
        (["translate", *PAIRS, "--width", "7"], "does not divide width=7"),
        (["translate", *PAIRS, "--width", "65536", "--num-heads", "8", "--num-layers", "900"], "make it smaller"),
        (["translate", *PAIRS, "--context", "0"], "context=0 is out of range"),
        (["translate", *PAIRS, "--model", "gpt2"], "needs a model of kind encoder-decoder, not decoder"),
        (["translate", *PAIRS, "--model", "transformer-bas"], "did you mean 'transformer-base'?"),
        (["translate", *PAIRS, "--tokenizer", "wordpice"], "did you mean 'wordpiece'?"),
        (["translate", *PAIRS, "--tokenizer", "."], "there is no tokenizer here"),
        (["translate", *PAIRS, "--vocab-size", "9"], "at least 261"),
        (["translate", *PAIRS, "--vocab-size", "-3"], "vocab_size=-3 must be a whole number"),
        (["translate", *PAIRS, "--vocab-size", "99", "--tokenizer", "char"], "no effect on a char tokenizer"),
        (["translate", *PAIRS, "--device", "cuda:7"], "device='cuda:7' isn't there"),
        (["translate", *PAIRS, "--device", "tpu!"], "device='tpu!' is unknown"),
        (["translate", *PAIRS, "--encoding", "utf-88"], "unknown encoding 'utf-88'"),
        (["translate", *PAIRS, "--resume", "--out", "nowhere"], "nowhere is not a run"),
        (["translate", *PAIRS, "--out", "pairs.en"], "--out pairs.en is a file"),
        (["translate", *PAIRS, "--out", "pairs.en/run"], "pairs.en/run can't be"),
        (["translate", *PAIRS, "--out", "."], "is not empty"),
        (["translate", "pairs.en"], "give two parallel files"),
        (["translate", "pairs.en", "pairs.fn"], "did you mean 'pairs.fr'?"),
        (["translate", *PAIRS, "--valid", "pairs.en", "gone.fr"], "gone.fr: there is no such file"),
        (["translate", "no/where.tsv"], "no folder no"),
        (["generate", "hub:nobody"], "hub"),
    ],
)  # fmt: skip
def test_words_that_can_not_be(here, capsys, words, told):
    out = [] if "--out" in words else ["--out", "run"]
    refused(here, capsys, ["train", *words, *out], told)
    assert not (here / "run").exists()


def damaged(folder: Path) -> dict[str, tuple[list[str], str]]:
    """Write one damaged input of each kind; give the words to train on it and what must be said."""
    files = {
        "empty.txt": b"", "spaces.txt": b"  \n\n \n", "one.tsv": b"a dog\tun chien\n", "nul.txt": b"a dog\0 sleeps\n",
        "binary.txt": bytes(range(256)) * 20, "latin.txt": "caf\xe9 au lait\n".encode("latin-1") * 20,
        "wide.txt": "a dog\n".encode("utf-16"), "few.txt": b"dog",
        "ragged.tsv": b"a\tb\n" * 20 + b"a\tb\tc\n", "short.fr": b"un chien\n",
        "cut.txt.gz": gzip.compress(b"dog " * 99)[:-9],
        "alike.tsv": b"a dog\tnoun\n" * 20, "rows.jsonl": b'{"text": 5, "label": "x"}\n' * 20,
        "half.conll": b"dog\tN\ncat\n\n" * 20, "same.conll": b"dog\tN\n\ncat\tN\n\n" * 20,
        "object.json": b'{"text": "a", ', "columns.csv": b"uno,due\na,b\n" * 20,
        "valid.tsv": b"a dog\tplant\na rose\tplants\n",
        "long.tsv": b"dog cat\tx\n" * 15 + b"dog " * 500 + b"\ty\n" + b"cat\tx\n" * 20,
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "hollow").mkdir()
    (folder / "array.json").write_text(json.dumps([{"text": "a dog"}] * 20)[:-9])
    return {
        "empty": (["generate", "empty.txt"], "empty.txt: the file is empty"),
        "spaces": (["generate", "spaces.txt"], "spaces.txt: there are no rows to use"),
        "one row": (["translate", "one.tsv"], "1 row is too few to hold a tenth of them out; give at least 10 rows"),
        "few characters": (["generate", "few.txt"], "3 characters are too few"),
        "NUL": (["generate", "nul.txt"], "nul.txt:1: there is a NUL byte"),
        "binary": (["generate", "binary.txt"], "binary.txt:1: there is a NUL byte"),
        "encoding": (["generate", "latin.txt"], "--encoding latin-1"),
        "UTF-16": (["generate", "wide.txt"], "--encoding utf-16"),
        "ragged": (["translate", "ragged.tsv"], "ragged.tsv:21: 3 columns where the table has 2; use --skip-bad-rows"),
        "unequal": (["translate", "pairs.en", "short.fr"], "pairs.en has 60 lines, short.fr has 1 lines"),
        "cut archive": (["generate", "cut.txt.gz"], "cut.txt.gz: can't be read: Compressed file ended"),
        "one label": (["classify", "alike.tsv"], "every row has the label 'noun'"),
        "type": (["classify", "rows.jsonl"], "rows.jsonl:1: the text is 5, not a string"),
        "half a line": (["tag", "half.conll"], "half.conll"),
        "one tag": (["tag", "same.conll"], "every word has the tag 'N'"),
        "no object": (["generate", "object.json"], "object.json"),
        "cut array": (["generate", "array.json"], "array.json"),
        "empty folder": (["generate", "hollow"], "there are no files in this folder"),
        "unknown label": (["classify", "labels.tsv", "--valid", "valid.tsv"], "valid.tsv:1: the label 'plant'"),
        "long": (["classify", "long.tsv", "--context", "64"], "long.tsv:16: 1 of 33 texts need"),
        "long held out": (["classify", "labels.tsv", "--valid", "long.tsv", "--context", "64"], "long.tsv:16: 1 of 36"),
        "small context": (["translate", *PAIRS, "--context", "4"], "54 of 54 texts need more than the context of 4"),
        "long sentences": (["tag", "tags.conll", "--context", "4"], "context"),
        "wrong task": (["translate", "text.txt"], "plain text alone has no source and target"),
    }  # fmt: skip


CASES = [
    "empty", "spaces", "one row", "few characters", "NUL", "binary", "encoding", "UTF-16", "ragged", "unequal",
    "cut archive", "one label", "type", "half a line", "one tag", "no object", "cut array", "empty folder",
    "unknown label", "long", "long held out", "small context", "long sentences", "wrong task",
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_data_that_can_not_be(here, capsys, case):
    cases = damaged(here)
    assert list(cases) == CASES
    words, told = cases[case]
    refused(here, capsys, ["train", *words, "--out", "run", *TINY], told)
    assert not (here / "run").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_places_without_permission(here, capsys):
    for name, mode, words in (
        ("closed", 0o000, ["closed/text.txt"]), ("closed", 0o500, ["text.txt", "--out", "closed/run"]),
    ):  # fmt: skip
        folder = here / name
        folder.mkdir(exist_ok=True)
        folder.chmod(mode)
        try:
            refused(here, capsys, ["train", "generate", *words, *TINY], "closed")
        finally:
            folder.chmod(0o700)


def test_a_place_where_nothing_can_be_written(here, capsys, monkeypatch):
    def mkdir(self, *arguments, **keywords):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    refused(
        here,
        capsys,
        ["train", "generate", "text.txt", "--out", "run", *TINY],
        "can't be written: Permission denied",
    )


def test_a_full_disk(here, capsys, monkeypatch):
    from regard.data import store

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "_write", full)
    refused(
        here,
        capsys,
        ["train", "generate", "text.txt", "--out", "run", *TINY],
        "No space left on device; make room",
    )
    assert not (here / "run").exists()


def test_a_full_disk_at_the_last_save(here, capsys, monkeypatch):
    """The run stops with a reason; with room again it goes on from the save before."""
    from regard.training import state

    save, count = state.save_tensors, [0]

    def full(path, tensors):
        count[0] += 1
        if count[0] > 3:
            raise state.CheckpointError(f"{path} could not be written (No space left on device)")
        save(path, tensors)

    words = ["train", "classify", "labels.tsv", "--out", "run", *TINY]
    with monkeypatch.context() as patch:
        patch.setattr(state, "save_tensors", full)
        assert main(words) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0


def test_numbers_that_explode_end_in_one_reason_and_code_1(here, capsys):
    words = ["train", "generate", "text.txt", "--out", "run", *TINY, "--lr", "100", "--clip", "0"]
    words[words.index("--steps") + 1] = "500"
    assert main([*words, "--max-bad-steps", "3"]) == 1
    shown = capsys.readouterr()
    assert "that makes 3 steps in a row that aren't finite" in shown.err.splitlines()[-1]
    assert "Traceback" not in shown.err
    assert (here / "run" / "model.safetensors").exists() == (here / "run" / "checkpoints").exists()


def test_resume_needs_a_folder(here, capsys):
    refused(here, capsys, ["train", "translate", *PAIRS, "--resume"], "give --out DIR")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["evaluate", "nowhere", "text.txt"], "nowhere is not a run"),
        (["evaluate", "."], "requires"),
        (["evaluate", ".", "text.txt"], "is not a run"),
        (["info"], "name a run's folder or a model, or give --presets"),
        (["info", "nowhere"], "nowhere is not in the hub's cache"),
        (["info", "text.txt"], "text.txt is no safetensors file"),
        (["tokenize"], "give data and --out"),
        (["tokenize", "text.txt"], "give data and --out"),
        (["tokenize", "text.tx", "--out", "t"], "did you mean 'text.txt'?"),
        (["tokenize", "text.txt", "--out", "text.txt"], "text.txt can't be written"),
        (["tokenize", "text.txt", "--out", "t", "--vocab-size", "3"], "at least 261"),
        (["tokenize", "text.txt", "--out", "t", "--kind", "char", "--vocab-size", "300"], "no effect on a char"),
        (["tokenize", "text.txt", "--out", "t", "--kind", "bp"], 'Did you mean "bpe"?'),
        (["tokenize", "--tokenizer", "nowhere", "--text", "a"], "there is no tokenizer here"),
        (["tokenize", "text.txt", "--tokenizer", "t", "--text", "a"], "--tokenizer goes with --text alone"),
    ],
)  # fmt: skip
def test_the_other_commands(here, capsys, words, told):
    refused(here, capsys, words, told)
