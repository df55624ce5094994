"""Every command that README shows is run, in its words and its order, on small files and tiny models."""

from __future__ import annotations

import functools
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tests.checkpoints.test_hub import cached
from tests.readme_world import write_files, write_models
from tests.tasks.readers import bert
from tests.test_house import code_blocks

import regard
from regard.cli import main

README = Path(__file__).resolve().parents[1] / "README.md"
LINES = [line for block in code_blocks(README) for line in block if line.strip()]

NOT_RUN = {
    "make demo": "it makes an environment and trains for two minutes; tests/test_demo.py runs the demo, small",
    "make test": "it is what runs this",
    "pip install -e .": "it changes the environment and needs a network",
    "regard demo": "it trains for two minutes; tests/test_demo.py runs it, small",
    "regard lab all": "it trains for hours; tests/lab runs every claim, small",
    "regard serve": "it stays until it is stopped; tests/serve/test_serve_verb.py runs it",
}
"""What can't be run here, each with the reason."""

QUICK = ["--steps", "2", "--precision", "fp32"]
MORE = {
    "regard train translate train.tsv --model": [*QUICK, "--width", "16"],
    "regard train translate": [*QUICK, "--width", "16", "--num-heads", "2"],
    "regard train": QUICK,
    "regard reproduce": ["--epochs", "1"],
    "regard compare": ["--set=batch_tokens=100000", "--set=width=16", "--set=precision=fp32"],
}
"""What is put behind a command that begins so: it makes it short, and a --steps of its own gives way to it."""

TYPED = {"regard chat": "Hello.\nWhat is tired?\n"}
"""What is typed into a command that begins so; the others must not ask."""

pytest.importorskip("transformers")


def test_a_command_is_run_or_listed_with_the_reason() -> None:
    """The list names nothing that README shows no longer; beyond it README shows `regard` and what feeds it."""
    assert set(NOT_RUN) <= set(LINES)
    for line in LINES:
        programs = {part.split()[0] for part in line.split("|")}
        assert line in NOT_RUN or "regard" in programs <= {"regard", "cat"}, line


def shortened(line: str) -> list[str]:
    """Give the words of a command with those that make it short."""
    words = shlex.split(line)
    more = [*next((more for begins, more in MORE.items() if line.startswith(begins)), [])]
    if "--steps" in words:
        place = words.index("--steps")
        del words[place : place + 2]
    if "--resume" in words:  # there is something left to do
        more[more.index("--steps") + 1] = "4"
    return [*words, *more]


def in_a_shell(line: str, folder: Path) -> int:
    """Run a line as it stands, by a shell that finds `regard`."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "regard").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m regard "$@"\n')
    (programs / "regard").chmod(0o755)
    path = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(["sh", "-c", line], cwd=folder, env={**os.environ, **path}, check=False).returncode


def written(words: list[str]) -> list[Path]:
    """Name the files and folders that a command says it makes."""
    return [Path(words[i + 1]) for i, word in enumerate(words) if word in ("--out", "--output", ">")]


@pytest.mark.timeout(600)  # half a minute where nothing else runs
def test_the_commands_of_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # A picture takes as long as a run here.
    monkeypatch.setattr("regard.tasks.ending.draw_curves", lambda *_, **__: None)
    write_files(tmp_path)
    write_models(tmp_path)
    assert (
        main(["train", "translate", "short.tsv", "--out", "runs/short", *MORE["regard train translate"]]) == 0
    )
    capfd.readouterr()
    shells = 0
    for line in LINES:
        if line in NOT_RUN:
            continue
        if re.search(r"[|>]", line):
            code, words, shells = in_a_shell(line, tmp_path), shlex.split(line), shells + 1
        else:
            typed = next((text for begins, text in TYPED.items() if line.startswith(begins)), "")
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed.encode())))
            words = shortened(line)
            code = main(words[1:])
        shown = capfd.readouterr()
        assert code == 0, f"{line}\n{shown.err}"
        assert "Traceback" not in shown.err, line
        made = written(words)
        assert all(path.exists() for path in made), line
        assert made or shown.out + shown.err, line
        if "--resume" in words:
            assert "going on from step 2" in shown.err + shown.out
    assert shells
    for source, target in (("test.en", "test.fr"), ("val.en", "val.hyp"), ("articles.txt", "summaries.txt")):
        assert Path(target).read_bytes().count(b"\n") == Path(source).read_bytes().count(b"\n")
    call = 'regard.load("openai-community/gpt2", adapter="runs/letters/adapter")'
    assert call in README.read_text(encoding="utf-8")
    assert regard.load("openai-community/gpt2", adapter="runs/letters/adapter").family == "gpt2"


def test_the_python_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is run whole; its training is a short one, and the published model lies in the hub's cache."""
    (block,) = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.M | re.S)
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    assert main(["train", "generate", "book.txt", "--out", "runs/book", *QUICK]) == 0
    bert(tmp_path / "published")
    files = {file.name: file.read_bytes() for file in (tmp_path / "published").iterdir()}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    cached(tmp_path, "google-bert/bert-base-uncased", files)
    short = functools.partial(regard.train, steps=2, width=16, num_heads=2, precision="fp32")
    monkeypatch.setattr(regard, "train", short, raising=False)
    Path("block.py").write_text(block, encoding="utf-8")
    names = runpy.run_path("block.py")
    assert names["model"].config.kind == "encoder-decoder"
    assert names["bert"].family == regard.load("bert").family == "bert"
