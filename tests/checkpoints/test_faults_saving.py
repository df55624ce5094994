"""Row 7 of what a model directory must survive: a save that is killed at any byte, or finds no room on the disk."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from regard.checkpoints.files import load_tensors, read_json, save_tensors, write_json_atomic
from regard.checkpoints.shards import Weights
from regard.training.state import Progress, StateStore

REPO = Path(__file__).resolve().parents[2]

# Each case is a process that saves over what is there and dies or fails: `byte` is killed by SIGKILL when that many
# bytes of the save are written, `moment` at that call which reaches the disk, and to `full` no file may be longer.
SAVE = """
import json, os, resource, signal, sys
from pathlib import Path
import safetensors.torch, torch
from regard.checkpoints.files import save_tensors, write_json_atomic
from regard.errors import CheckpointError
from regard.training.state import Progress, StateStore

def die_at_byte(left):
    def write(path, content):
        nonlocal left
        with open(path, "wb") as file:
            file.write(content[:left])
            file.flush()
            if len(content) > left:
                os.kill(os.getpid(), signal.SIGKILL)
        left -= len(content)
    serialise = safetensors.torch.save
    safetensors.torch.save_file = lambda t, path, metadata=None: write(path, serialise(t, metadata))
    Path.write_text = lambda self, text, encoding=None: write(self, text.encode())

def die_at_moment(left):
    def counted(call):
        def tick(*arguments, **keywords):
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **keywords)
        return tick
    os.replace, os.fsync, os.mkdir = counted(os.replace), counted(os.fsync), counted(os.mkdir)

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

for folder, what, how, number in json.load(sys.stdin):
    process = os.fork()
    if process == 0:
        {"byte": die_at_byte, "moment": die_at_moment, "full": limit}[how](number)
        new, folder = {"a": torch.full((500,), 2.0), "b": torch.full((7,), 2.0)}, Path(folder)
        try:
            if what == "weights":
                save_tensors(folder / "x.safetensors", new)
            elif what == "json":
                write_json_atomic(folder / "x.json", [2.0] * 500)
            else:
                store = StateStore(folder, keep=2, warn=print)
                store.save(Progress(step=2), {"model": new, "optimizer": new}, {})
        except CheckpointError as error:
            os._exit(3 if "could not be written" in str(error) else 4)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
"""


def old_tensors():
    return {"a": torch.full((500,), 1.0), "b": torch.full((7,), 1.0)}


def stored(folder, what):
    """Read what is there; give 1 where it is what was there before, 2 where it is the new one, each whole."""
    said = []
    if what == "json":
        values = read_json(folder / "x.json")
        assert len(values) == 500
    elif what == "weights":
        values = [v for tensor in load_tensors(folder / "x.safetensors").values() for v in tensor.tolist()]
        assert len(values) == 507
    else:
        found = StateStore(folder, keep=2, warn=said.append).load(torch.device("cpu"))
        assert found is not None
        _, progress, groups, _ = found
        values = [v for tensors in groups.values() for t in tensors.values() for v in t.tolist()]
        assert len(values) == 2 * 507
        assert set(values) == {float(progress.step)}
    assert not said  # what was killed never had a state's name, so there is nothing to be loud about
    (value,) = set(values)
    return value


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_row_7_a_kill_at_any_byte_or_a_full_disk_leaves_a_whole_checkpoint(tmp_path):
    draw, cases = random.Random(7), []
    for what, size, moments in (("weights", 2400, 4), ("json", 3500, 4), ("state", 6500, 18)):
        numbers = [("byte", draw.randrange(size)) for _ in range(6)] + [("byte", 0), ("byte", 10**6)]
        numbers += [("moment", n + 1) for n in range(moments)]
        numbers += [("full", 0), ("full", draw.randrange(1, 1000)), ("full", 10**6)]
        for how, number in numbers:
            folder = tmp_path / f"{what}-{how}-{number}"
            folder.mkdir()
            if what == "weights":
                save_tensors(folder / "x.safetensors", old_tensors())
            elif what == "json":
                write_json_atomic(folder / "x.json", [1.0] * 500)
            else:
                groups = {"model": old_tensors(), "optimizer": old_tensors()}
                StateStore(folder, keep=2, warn=print).save(Progress(step=1), groups, {})
            cases.append((folder, what, how, number))
    environment = {**os.environ, "PYTHONPATH": str(REPO / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SAVE], input=json.dumps([(str(folder), *rest) for folder, *rest in cases]),
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    codes = [int(line) for line in done.stdout.splitlines()]
    ended = set()
    for (folder, what, how, number), code in zip(cases, codes, strict=True):
        value = stored(folder, what)
        ended.add((what, how, code, value))
        assert code in ((0, 3) if how == "full" else (0, -9)), (what, how, number)
        if code == 0 or how != "moment":  # the last moments of a save come after its rename
            assert value == (2.0 if code == 0 else 1.0), (what, how, number)
        if code == 3:
            assert not list(folder.glob(".*")), (what, how, number)
        if what == "state":  # the next save clears away what the kill left
            StateStore(folder, keep=2, warn=print).save(Progress(step=3), {"model": old_tensors()}, {})
            assert not list(folder.glob(".*")), (how, number)
    for what in ("weights", "json", "state"):
        every = {("byte", -9, 1.0), ("byte", 0, 2.0), ("moment", -9, 1.0), ("full", 3, 1.0), ("full", 0, 2.0)}
        assert {(what, *end) for end in every | {("moment", -9, 2.0)}} <= ended


@pytest.mark.parametrize("seed", range(6))
def test_row_7_a_half_written_newest_state_is_recognised_loudly(tmp_path, seed):
    """As after a loss of power on a disk that forgets what it had confirmed."""
    draw, said = random.Random(seed), []
    store = StateStore(tmp_path, keep=2, warn=said.append)
    for step in (1, 2):
        groups = {name: {"a": torch.full((50,), float(step))} for name in ("model", "optimizer")}
        store.save(Progress(step=step), groups, {})
    file = draw.choice(sorted((tmp_path / "step-2").iterdir()))
    whole = file.read_bytes()
    kept = draw.randrange(len(whole) - 1)  # a text without its last newline would be whole
    file.write_bytes(whole[:kept] + (bytes(len(whole) - kept) if seed % 2 else b""))
    path, progress, tensors, _ = store.load(torch.device("cpu"))
    assert (path.name, progress.step) == ("step-1", 1)
    assert torch.equal(tensors["model"]["a"], torch.ones(50))
    (text,) = said
    assert "step-2 is not whole" in text and "the state before it is used" in text


def test_row_7_saving_over_the_file_that_is_being_read(tmp_path):
    path = tmp_path / "model.safetensors"
    save_tensors(path, {"a": torch.arange(1000.0), "b": torch.ones(3)})
    with Weights(path) as weights:
        before = weights.tensor("a")
        save_tensors(path, {"a": before + 1, "b": torch.zeros(3)})
        assert torch.equal(before, torch.arange(1000.0))  # still the old file's pages
        assert torch.equal(weights.tensor("b"), torch.ones(3))
    assert torch.equal(load_tensors(path)["a"], torch.arange(1000.0) + 1)


def test_row_7_a_file_takes_its_name_only_when_all_of_it_is_on_the_disk(tmp_path, monkeypatch):
    """What a kill can't show: after a loss of power a name must not stand for bytes that never arrived."""
    calls, fsync, replace = [], os.fsync, os.replace

    def synced(descriptor):
        calls.append(("fsync", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def renamed(source, target):
        calls.append(("replace", os.stat(source).st_ino))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    for name, save in (("x.safetensors", save_tensors), ("x.json", write_json_atomic)):
        calls.clear()
        save(tmp_path / name, {} if name == "x.json" else old_tensors())
        file, folder = (tmp_path / name).stat().st_ino, tmp_path.stat().st_ino
        assert calls == [("fsync", file), ("replace", file), ("fsync", folder)]
