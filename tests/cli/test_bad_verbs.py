"""Whatever is wrong with what `translate` and `generate` are given: one line, exit code 2, nothing written."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.tasks.small import make_parts, save, translator, writer

from regard.checkpoints.files import save_tensors
from regard.cli import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with a translator, a writer and a classifier, and text files."""
    save(translator(), tmp_path / "translate-1")
    save(writer(), tmp_path / "generate-1")
    save(make_parts("encoder", head="classify", labels=("a", "b")), tmp_path / "classify-1")
    (tmp_path / "in.txt").write_text("a dog\na cat\n")
    return tmp_path


@pytest.fixture
def refused(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Run words that must be refused with these parts in the one line, and nothing left behind."""
    monkeypatch.chdir(folder)

    def run(words: list[str], *said: str, code: int = 2) -> None:
        before = sorted(str(path) for path in folder.rglob("*"))
        assert main(words) == code
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.startswith("regard: ")
        assert shown.err.count("\n") == 1
        assert "Traceback" not in shown.err
        for part in said:
            assert part in shown.err
        assert sorted(str(path) for path in folder.rglob("*")) == before

    return run


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


FILES = ["--input", "in.txt", "--output", "out.txt"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no model is named, and none in runs/ translates. Train one (`regard demo`"),
        (["translate-1", "a", "--beams", "0"], "beams=0"),
        (["translate-1", "a", "--beams", "-2"], "beams=-2"),
        (["translate-1", "a", "--beams", "two"], "two"),
        (["translate-1", "a", "--beams", "2", "--n-best", "3"], "--n-best 3 is more than --beams 2"),
        (["translate-1", "a", "--n-best", "0"], "num_return=0"),
        (["translate-1", "a", "--length-penalty", "nan"], "length_penalty=nan"),
        (["translate-1", "a", "--max-tokens", "0"], "max_tokens=0"),
        (["translate-1", "a", "--max-tokens", "9999"], "from 1 to 64"),
        (["translate-1", "a", "--device", "cuda:99"], "device='cuda:99' isn't there"),
        (["translate-1", "a", "--device", "toaster"], "device='toaster' is unknown"),
        (["translate-1", "a", "--beems", "3"], "Did you mean --beams?"),
        (["translate-1", "z" * 64], "has 65 tokens with its end; this model reads at most 64"),
        (["translate-1", "ok", "z" * 64], "text 2 ('zzz"),
        (["translate-1", "a", "--skip-bad-rows"], "--skip-bad-rows is for --input"),
        (["translate-1", "a", *FILES], "give texts or --input, not both"),
        (["translate-1", "--input", "in.txt"], "--input and --output go together"),
        (["translate-1", "--output", "out.txt"], "--input and --output go together"),
        (["translate-1", *FILES, "--n-best", "2"], "a file gets one translation a line"),
        (["translate-1", *FILES, "--beams", "0"], "beams=0"),
        (["translate-1", *FILES, "--encoding", "klingon"], "unknown encoding 'klingon'"),
        (["translate-1", "--input", "in.txt", "--output", "in.txt"], "in.txt exists already"),
        (["translate-1", "--input", "no.txt", "--output", "out.txt"], "there is no file no.txt"),
        (["translate-1", "--input", ".", "--output", "out.txt"], "no ordinary file"),
        (["translate-1", "--input", "in.txt", "--output", "no/out.txt"], "no/out.txt can't be written"),
        (["translate-9", "a"], "'translate-1'?"),
        (["in.txt", "a"], "in.txt"),
        ([".", "a"], "config.json"),
        (
            ["generate-1", "a"],
            "is a decoder and can't translate, which takes an encoder-decoder; it can generate, ",
        ),
        (["classify-1", "a"], "is an encoder that learned to classify and can't translate"),
        (["generate-1", *FILES], "it can generate, "),
    ],
)
def test_translate_refuses(refused: Callable[..., None], words: list[str], said: str) -> None:
    refused(["translate", *words], said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            [],
            "no model is named, and none in runs/ generates; openai-community/gpt2 is not in the hub's cache",
        ),
        (["generate-1", "a", "--temperature", "-1"], "temperature=-1.0"),
        (["generate-1", "a", "--temperature", "nan"], "temperature=nan"),
        (["generate-1", "a", "--temperature", "inf"], "temperature=inf"),
        (["generate-1", "a", "--top-p", "1.5"], "top_p=1.5"),
        (["generate-1", "a", "--top-p", "0"], "top_p=0"),
        (["generate-1", "a", "--top-k", "-1"], "top_k=-1"),
        (["generate-1", "a", "--min-p", "2"], "min_p=2.0"),
        (
            ["generate-1", "a", "--temperature", "0", "--top-k", "5"],
            "top_k=5 would be ignored at temperature=0",
        ),
        (["generate-1", "a", "--repetition-penalty", "0"], "repetition_penalty=0.0"),
        (["generate-1", "a", "--max-tokens", "0"], "max_tokens=0"),
        (["generate-1", "a", "--seed", "-1"], "seed=-1"),
        (["generate-1", "a", "--stop", ""], "stop takes a list"),
        (["generate-1", "a", "--device", "cuda:99"], "device='cuda:99' isn't there"),
        (["generate-1", "a", "b", "--stream"], "--stream is for one prompt"),
        (["generate-1", "-", "-"], "can be read once"),
        (["generate-1", "a" * 33], "prompt 1 has 33 tokens; this model's context is 32"),
        (["generate-1", "a" * 33, "--stream"], "prompt 1 has 33 tokens"),
        (["generate-2", "a"], "'generate-1'?"),
        (["translate-1", "a"], "is an encoder-decoder and can't generate"),
        (["classify-1", "a"], "it can classify and embed."),
    ],
)
def test_generate_refuses(refused: Callable[..., None], words: list[str], said: str) -> None:
    refused(["generate", *words], said)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "in.txt is empty"),
        (b"a\n\xff\xfe\n", "byte 2 is no utf-8 text"),
        (b"PK\x03\x04\0\0", "in.txt:1: a NUL character"),
        (b"a\n" + b"z" * 64, "in.txt:2: has 65 tokens"),
    ],
)
def test_an_input_that_is_no_text(refused: Callable[..., None], folder: Path, data: bytes, said: str) -> None:
    (folder / "in.txt").write_bytes(data)
    refused(["translate", "translate-1", *FILES], said)


def test_an_output_that_is_there(refused: Callable[..., None], folder: Path) -> None:
    (folder / "out.txt").write_text("mine")
    refused(["translate", "translate-1", *FILES], "out.txt exists already; name another --output")
    (folder / "out.txt").rename(folder / "out.txt.part")
    refused(["translate", "translate-1", *FILES], "was begun with another model, input or settings")
    assert (folder / "out.txt.part").read_text() == "mine"


def test_an_output_of_another_model(
    refused: Callable[..., None],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    replace = os.replace

    def crash(source: str, target: str) -> None:
        if str(target).endswith("out.txt"):
            raise OSError(5, "Input/output error")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crash)
        assert main(["translate", "translate-1", *FILES, "--max-tokens", "4"]) == 2
    assert "what is done is kept in out.txt.part" in capsys.readouterr().err
    save(make_parts("encoder-decoder", seed=9), folder / "other")
    refused(["translate", "other", *FILES, "--max-tokens", "4"], "was begun with another model")
    refused(["translate", "translate-1", *FILES, "--max-tokens", "5"], "was begun with another model")
    assert main(["translate", "translate-1", *FILES, "--max-tokens", "4"]) == 0


@pytest.mark.parametrize(
    ("words", "data", "said"),
    [
        (["translate", "translate-1"], b"", "there is no text"),
        (["translate", "translate-1"], b"a\n" * 9 + b"z" * 99, "text 10 ('zzz"),
        (["translate", "translate-1"], b"\xff\n", "standard input, line 1: byte 0 is no utf-8 text"),
        (["translate", "translate-1", "--encoding", "klingon"], b"a\n", "klingon"),
        (["generate", "generate-1", "-"], b"", "there is no text"),
        (["generate", "generate-1", "-"], b"a\xff", "standard input, line 1: byte 1 is no utf-8 text"),
        (["generate", "generate-1", "-"], b"a" * 40, "prompt 1 has 40 tokens"),
    ],
)
def test_standard_input_that_is_no_text(
    refused: Callable[..., None], monkeypatch: pytest.MonkeyPatch, words: list[str], data: bytes, said: str
) -> None:
    stdin(monkeypatch, data)
    refused(words, said)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_library(run: Path) -> None:
    (run / "config.json").write_text(json.dumps({"model_type": "wav2vec2", "hidden_size": 8}))


def unknown_key(run: Path) -> None:
    values = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**values, "widht": 8}))


def another_vocabulary(run: Path) -> None:
    make_parts("encoder-decoder", words="byte").tokenizer.save(run)


def another_size(run: Path) -> None:
    parts = make_parts("encoder-decoder", width=32)
    save_tensors(run / "model.safetensors", parts.module.state_dict())


def pickled(run: Path) -> None:
    (run / "model.safetensors").write_bytes(b"\x80\x02}q\x00.")


def only_a_list(run: Path) -> None:
    (run / "config.json").write_text("[1, 2]")


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda run: cut(run / "config.json"), "config.json"),
        (other_library, "model_type 'wav2vec2', which isn't built here"),
        (only_a_list, "config.json"),
        (unknown_key, "did you mean 'width'?"),
        (lambda run: cut(run / "tokenizer.json"), "tokenizer.json"),
        (lambda run: (run / "tokenizer.json").unlink(), "tokenizer.json"),
        (lambda run: cut(run / "model.safetensors"), "model.safetensors is incomplete"),
        (lambda run: (run / "model.safetensors").unlink(), "model.safetensors"),
        (lambda run: (run / "model.safetensors").write_bytes(b"junk"), "model.safetensors"),
        (pickled, "is a pickle"),
        (another_vocabulary, "tokens"),
        (another_size, "don't fit the model"),
    ],
)
def test_a_broken_run(
    refused: Callable[..., None], folder: Path, break_it: Callable[[Path], None], said: str
) -> None:
    break_it(folder / "translate-1")
    refused(["translate", "translate-1", "a dog"], said)
    refused(["translate", "translate-1", *FILES], said)


@pytest.mark.filterwarnings("ignore:.*NaN or infinite weights")
def test_weights_that_are_no_numbers(refused: Callable[..., None], folder: Path) -> None:
    parts = make_parts("encoder-decoder")
    with torch.no_grad():
        for weight in parts.module.parameters():
            weight.fill_(float("nan"))
    save_tensors(folder / "translate-1" / "model.safetensors", parts.module.state_dict())
    refused(["translate", "translate-1", "a dog"], "NaN or infinite")
