"""A whole file through a verb, killed and started again: byte for byte the output of a job that was left alone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.tasks.small import SENTENCES, make_parts, save

CHUNK = 512  # lines that reach the disk together
MODELS = {
    "translate": {"kind": "encoder-decoder"},
    "classify": {"kind": "encoder", "head": "classify", "labels": ("a", "b", "c")},
}
FLAGS = {"translate": ["--beams", "1", "--max-tokens", "6"], "classify": []}


def start(folder: Path, verb: str, target: str) -> subprocess.Popen[str]:
    words = ["run", "--input", "in.txt", "--output", target, *FLAGS[verb], "--json"]
    return subprocess.Popen(
        [sys.executable, "-m", "regard", verb, *words], cwd=folder, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> dict[str, int]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out)


def kill_at(process: subprocess.Popen[str], part: Path, lines: int) -> int:
    """Kill a job once its unfinished output holds so many lines; give how many it holds then."""
    while not part.exists() or part.read_bytes().count(b"\n") < lines:
        try:
            process.wait(0.01)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(process.communicate()[1])
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    return part.read_bytes().count(b"\n")


def killed_and_started_again(folder: Path, verb: str, lines: int, kills: int, seed: int) -> None:
    """Do a file in one go; do it again with kills at random lines, each time with the same words."""
    draw = random.Random(seed)
    words = " ".join(SENTENCES).split()
    texts = [" ".join(draw.choices(words, k=draw.randint(0, 6))) for _ in range(lines)]
    (folder / "in.txt").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    save(make_parts(**MODELS[verb]), folder / "run")  # type: ignore[arg-type]
    assert finish(start(folder, verb, "whole.txt"))["lines"] == lines
    part, kept = folder / "out.txt.part", 0
    for number in sorted(draw.sample(range(1, lines - CHUNK), kills)):
        kept = kill_at(start(folder, verb, "out.txt"), part, max(number, kept + 1))
        assert kept < lines and not (folder / "out.txt").exists()
    found = finish(start(folder, verb, "out.txt"))
    assert (found["lines"], found["resumed"]) == (lines, kept - kept % CHUNK)
    whole = (folder / "whole.txt").read_bytes()
    assert (folder / "out.txt").read_bytes() == whole
    assert (
        whole.count(b"\n") == lines and len(set(whole.split(b"\n"))) > 100
    )  # a line in another's place shows
    assert {path.name for path in folder.iterdir()} == {"in.txt", "run", "whole.txt", "out.txt"}


@pytest.mark.timeout(300)
def test_a_job_killed_in_the_middle_ends_with_the_same_bytes(tmp_path: Path) -> None:
    killed_and_started_again(tmp_path, "translate", lines=2000, kills=1, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("verb", MODELS)
def test_twenty_thousand_texts_killed_three_times_end_with_the_same_bytes(tmp_path: Path, verb: str) -> None:
    killed_and_started_again(tmp_path, verb, lines=20_000, kills=3, seed=2)
