"""A real `regard train`, killed with SIGKILL and resumed, gives the weights and measurements of one that never was."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from tests.tiny_data import measured, write_all

from regard.checkpoints.files import load_tensors

REPO = Path(__file__).resolve().parents[1]
WORDS = [
    "train", "translate", "pairs.en", "pairs.fr", "--width", "16", "--num-heads", "2", "--num-layers", "1",
    "--dropout", "0.2", "--epochs", "3", "--batch-tokens", "200", "--evaluate-every", "5", "--save-every", "3",
    "--log-every", "2", "--warmup", "4", "--precision", "fp32", "--average", "ema", "--ema-decay", "0.9",
]  # fmt: skip

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's list of open files")


def start(folder, moment, *words):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(REPO / "tests" / "resume_child.py"), moment, *words], cwd=folder, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def run(folder, moment, *words):
    process = start(folder, moment, *words)
    out, err = process.communicate(timeout=100)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """Train without a kill; give the folder and how many moments of each kind there were."""
    folder = write_all(tmp_path_factory.mktemp("calm"))
    code, _, err = run(folder, "list", *WORDS, "--out", "run")
    assert code == 0, err
    moments = Counter(
        line.split()[1].partition(":")[0] for line in err.splitlines() if line.startswith("moment")
    )
    assert set(moments) == {"prepare", "state", "best", "record", "step"}
    return folder, moments


def assert_same(run_folder, calm_folder):
    ours, theirs = (sorted((f / "checkpoints").iterdir())[-1] for f in (run_folder, calm_folder))
    assert ours.name == theirs.name
    for file in (
        "model.safetensors",
        "optimizer.safetensors",
        "average.safetensors",
        "../../model.safetensors",
    ):
        a, b = load_tensors(ours / file), load_tensors(theirs / file)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a), file
    assert measured(run_folder) == measured(calm_folder)
    results = [json.loads((f / "regard.json").read_text())["result"] for f in (run_folder, calm_folder)]
    for result in results:
        del result["seconds"]
    assert results[0] == results[1]


def killed_and_resumed(folder, calm, moments):
    """Kill at each of the moments in turn, resume after each, and compare the end."""
    words = WORDS
    for moment in moments:
        code, _, err = run(folder, moment, *words, "--out", "run")
        assert code == -signal.SIGKILL, (moment, err)
        if moment.startswith("prepare"):
            assert not (folder / "run" / "regard.json").exists()
            code, _, err = run(folder, "none", *WORDS, "--out", "run", "--resume")
            assert code == 2
            assert "stopped while its data was prepared; begin it again, without --resume" in err
        else:
            words = [*WORDS, "--resume"]
    code, _, err = run(folder, "none", *words, "--out", "run")
    assert code == 0, err
    assert_same(folder / "run", calm[0] / "run")
    assert not list(folder.rglob(".*"))


def test_killed_before_the_first_save_and_during_one(tmp_path, calm):
    draw = random.Random(1)
    state = f"state:{draw.randint(1, calm[1]['state'] // 4)}"
    killed_and_resumed(write_all(tmp_path), calm, [f"step:{draw.randint(1, 3)}", state])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_each_kind_of_moment(tmp_path, calm):
    """In preparation, at the last batch of an epoch, in a save, while the best weights are written, at the end."""
    draw, most = random.Random(2), calm[1]
    epoch = most["step"] // 3
    moments = [
        f"prepare:{draw.randint(1, most['prepare'])}", f"step:{epoch + 1}", f"best:{draw.randint(1, 4)}",
        f"state:{draw.randint(1, most['state'] // 4)}", f"record:{draw.randint(2, 6)}",
    ]  # fmt: skip
    killed_and_resumed(write_all(tmp_path), calm, moments)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [3, 4])
def test_killed_at_five_random_times(tmp_path, calm, seed):
    """By the clock, wherever the process is by then: five kills at least, until a run gets to its end."""
    draw, folder, kills, words = random.Random(seed), write_all(tmp_path), 0, WORDS
    while True:
        process = start(folder, "none", *words, "--out", "run")
        try:
            process.communicate(timeout=draw.uniform(1.5, 7) if kills < 5 else 100)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
        else:
            assert process.returncode == 0
            if kills >= 5:
                break
            # It ended before its time: what is left to kill is a run that has nothing to do.
        words = [*WORDS, "--resume"] if (folder / "run" / "regard.json").exists() else WORDS
    assert_same(folder / "run", calm[0] / "run")
