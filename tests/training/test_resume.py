"""A run that is killed anywhere and resumed is, bit for bit, the run that was never stopped."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from tests.training.tiny import Recorder, TinyModel, make_trainer, settings

from regard.checkpoints import files
from regard.checkpoints.files import load_tensors
from regard.errors import CheckpointError
from regard.training.events import Started, Warned
from regard.training.state import Progress, StateStore

REPO = Path(__file__).resolve().parents[2]
TIMES = {"elapsed", "tokens_per_second"}


class Killed(BaseException):
    """Stand for a kill: nothing in the library catches it."""


def journal(out):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def outcome(out, step=12):
    state = out / "checkpoints" / f"step-{step}"
    groups = {name: load_tensors(state / f"{name}.safetensors") for name in ("model", "optimizer")}
    if (state / "average.safetensors").exists():
        groups["average"] = load_tensors(state / "average.safetensors")
    groups["best"] = load_tensors(out / "model.safetensors")
    return {f"{group}/{name}": t for group, tensors in groups.items() for name, t in tensors.items()}


def assert_same_run(out, calm):
    ours, theirs = outcome(out), outcome(calm)
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert torch.equal(ours[name], theirs[name]), name
    assert journal(out) == journal(calm)


@pytest.mark.parametrize("average", ["none", "ema", "last"])
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_random_moments(tmp_path, monkeypatch, average, seed):
    config = settings(average=average, average_last=2, micro_tokens=14)
    make_trainer(tmp_path / "calm", config).train()

    moments = random.Random(seed)
    replace, fsync, countdown = os.replace, os.fsync, [0]

    def tick():
        countdown[0] -= 1
        if countdown[0] == 0:
            raise Killed

    # A kill comes at the n-th of: an objective's call, a file's fsync, a rename, a line of metrics.
    monkeypatch.setattr(os, "replace", lambda *a: (tick(), replace(*a), tick()))
    monkeypatch.setattr(os, "fsync", lambda *a: (tick(), fsync(*a)))
    kills = 0
    while True:
        countdown[0] = moments.randint(1, 60) if kills < 8 else 10**9
        trainer = make_trainer(tmp_path / "run", config, resume=True)
        objective, add = trainer.loss, trainer.journal.add
        trainer.loss = lambda m, b, f=objective: (tick(), f(m, b))[1]
        trainer.journal.add = lambda *a, f=add: (tick(), f(*a), tick())
        try:
            trainer.train()
            break
        except Killed:
            kills += 1
    assert kills
    monkeypatch.undo()
    assert_same_run(tmp_path / "run", tmp_path / "calm")


def test_resumed_at_an_epochs_last_batch_and_after_the_end(tmp_path):
    make_trainer(tmp_path / "calm", settings(steps=12)).train()
    for end in (5, 11):  # epochs of five and six batches
        make_trainer(tmp_path / f"run{end}", settings(steps=end, evaluate_every=4)).train()
        state = tmp_path / f"run{end}" / "checkpoints" / f"step-{end}" / "progress.json"
        assert json.loads(state.read_text())["progress"]["batch"] == 0
        resumed = make_trainer(tmp_path / f"run{end}", settings(steps=12), resume=True)
        resumed.train()
        calm = load_tensors(tmp_path / "calm" / "checkpoints" / "step-12" / "model.safetensors")
        for name, weight in resumed.model.state_dict().items():
            assert torch.equal(weight, calm[name])
    before = outcome(tmp_path / "calm")
    again = make_trainer(tmp_path / "calm", settings(steps=12), resume=True).train()
    assert again.reason == "steps"
    assert again.best_step
    assert all(torch.equal(t, before[name]) for name, t in outcome(tmp_path / "calm").items())


def test_nothing_saved_yet_begins_and_says_so(tmp_path):
    events = Recorder()
    make_trainer(tmp_path, settings(steps=2), resume=True, report=events).train()
    assert events.of(Started)[0].resumed_from is None
    assert "nothing is saved" in events.of(Warned)[0].text


def test_a_smaller_part_after_out_of_memory_is_remembered(tmp_path):
    trainer = make_trainer(tmp_path, settings(steps=3))
    trainer.progress.micro_tokens = 14
    trainer.train()
    resumed = make_trainer(tmp_path, settings(steps=4), resume=True)
    resumed.train()
    assert resumed.progress.micro_tokens == 14


# The store


def small_state(step):
    torch.manual_seed(step)
    return Progress(step=step), {"model": TinyModel().state_dict(), "optimizer": {"a::b": torch.randn(3)}}


def make_store(folder, warnings, keep=2):
    return StateStore(folder, keep=keep, warn=warnings.append)


def saved_steps(store):
    return [path.name for path in store.states()]


def test_a_state_comes_back_as_it_was(tmp_path):
    store = make_store(tmp_path, [])
    progress, tensors = small_state(7)
    progress.best, progress.elapsed = {"loss": 0.1 + 0.2}, 1 / 3
    store.save(progress, tensors, {"lr": 1e-3})
    path, again, loaded, config = store.load(torch.device("cpu"))
    assert path.name == "step-7"
    assert again == progress
    assert config == {"lr": 1e-3}
    for group, expected in tensors.items():
        assert all(torch.equal(loaded[group][name], expected[name]) for name in expected)


def test_keeps_the_newest(tmp_path):
    store = make_store(tmp_path, [])
    for step in (5, 10, 15, 20):
        store.save(*small_state(step), {})
    assert saved_steps(store) == ["step-20", "step-15"]
    store.save(*small_state(20), {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-15", "step-20"]


def test_a_failure_at_any_write_leaves_a_whole_state(tmp_path, monkeypatch):
    """The disk fills up, or a kill comes, at the n-th call that touches it; for every n, and for a step saved again."""
    for again in (False, True):
        for kind in (OSError(28, "No space left on device"), Killed()):
            n = 0
            while True:
                n += 1
                warnings = []
                folder = tmp_path / f"{again}-{type(kind).__name__}-{n}"
                store = make_store(folder, warnings, keep=1)
                store.save(*small_state(5), {})
                calls = [0]

                def tick(call, calls=calls, n=n, kind=kind):
                    def counted(*arguments, **keywords):
                        calls[0] += 1
                        if calls[0] == n or (calls[0] > n and isinstance(kind, Killed)):
                            raise kind  # after a kill nothing is written or cleaned up any more
                        return call(*arguments, **keywords)

                    return counted

                with monkeypatch.context() as patch:
                    for module, name in ((os, "replace"), (os, "fsync"), (os, "mkdir"), (shutil, "rmtree")):
                        patch.setattr(module, name, tick(getattr(module, name)))
                    patch.setattr(files, "sync", tick(files.sync))
                    patch.setattr(Path, "write_text", tick(Path.write_text))
                    with suppress(Killed if isinstance(kind, Killed) else CheckpointError):
                        store.save(*small_state(5 if again else 6), {"new": True})
                found = make_store(folder, warnings, keep=1).load(torch.device("cpu"))
                assert found is not None
                _, progress, tensors, _ = found
                assert progress.step in (5, 6)
                reference = small_state(progress.step)[1]["model"]
                assert all(torch.equal(tensors["model"][name], reference[name]) for name in reference)
                if calls[0] < n:  # nothing failed this time
                    break
            assert n > 8


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.safetensors", "progress.json", "manifest.json"]
)
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_newest_state_is_put_aside_loudly(tmp_path, name, damage):
    warnings = []
    store = make_store(tmp_path, warnings)
    store.save(*small_state(5), {})
    store.save(*small_state(6), {})
    file = tmp_path / "step-6" / name
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    else:
        middle = len(content) // 2
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 0x55]) + content[middle + 1 :])
    _, progress, _, _ = store.load(torch.device("cpu"))
    assert progress.step == 5
    (warning,) = warnings
    assert "step-6 is not whole" in warning
    assert "broken-step-6" in warning
    (tmp_path / "step-5" / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="none of the 1 saved states"):
        store.load(torch.device("cpu"))


def test_a_state_saved_by_another_version_is_refused(tmp_path):
    store = make_store(tmp_path, [])
    progress, tensors = small_state(5)
    store.save(progress, tensors, {})
    file = tmp_path / "step-5" / "progress.json"
    saved = json.loads(file.read_text())
    saved["progress"]["flux"] = 1
    file.write_text(json.dumps(saved))
    manifest = tmp_path / "step-5" / "manifest.json"
    listed = json.loads(manifest.read_text())
    from regard.training.state import _sha256

    listed["files"]["progress.json"] = {"bytes": file.stat().st_size, "sha256": _sha256(file)}
    manifest.write_text(json.dumps(listed))
    with pytest.raises(CheckpointError, match="another version: it counts flux"):
        store.load(torch.device("cpu"))


# Real signals, in a process of their own

RUN = """
import sys, threading
from pathlib import Path
from regard.training.events import Ended, Evaluated, Stepped
from tests.training.tiny import make_trainer, settings

out, mode = Path(sys.argv[1]), sys.argv[2]
told = threading.Event()

def report(event):
    print(type(event).__name__, getattr(event, "step", ""), getattr(event, "reason", ""), flush=True)
    if isinstance(event, Stepped) and event.step == 6 and mode != "calm":
        sys.stdin.readline()  # the test has sent its signal when this returns

config = settings(steps=12, log_every=1, save_every=100)
try:
    make_trainer(out, config, report=report, resume=mode == "resume").train()
except KeyboardInterrupt:
    print("KeyboardInterrupt", flush=True)
"""


def start(out, mode):
    environment = {**os.environ, "PYTHONPATH": f"{REPO / 'src'}{os.pathsep}{REPO}", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(out), mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=environment, cwd=REPO,
    )  # fmt: skip


def read_until(process, start_of_line):
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if line.startswith(start_of_line):
            return lines
    raise AssertionError(f"no {start_of_line!r} in {lines}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_once_and_the_resumed_run_is_the_same(tmp_path, number):
    make_trainer(tmp_path / "calm", settings(steps=12, log_every=1, save_every=100)).train()
    with start(tmp_path / "run", "stop") as process:
        read_until(process, "Stepped 6")
        process.send_signal(number)
        out, _ = process.communicate("\n", timeout=60)
    lines = [line.strip() for line in out.splitlines()]
    assert lines == ["Saved 6", "Ended  interrupted"]
    assert process.returncode == 0
    make_trainer(tmp_path / "run", settings(steps=12, log_every=1, save_every=100), resume=True).train()
    assert_same_run(tmp_path / "run", tmp_path / "calm")


def test_a_second_signal_ends_it_at_once(tmp_path):
    with start(tmp_path / "run", "stop") as process:
        read_until(process, "Stepped 6")
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate("\n", timeout=60)
    assert "KeyboardInterrupt" in out
    assert "Saved" not in out


def test_killed_for_good(tmp_path):
    make_trainer(tmp_path / "calm", settings(steps=12, log_every=1, save_every=2)).train()
    with start(tmp_path / "run", "stop") as process:
        read_until(process, "Stepped 6")
        process.kill()
    resumed = make_trainer(tmp_path / "run", settings(steps=12, log_every=1, save_every=2), resume=True)
    resumed.train()
    calm = outcome(tmp_path / "calm")
    ours = outcome(tmp_path / "run")
    assert all(torch.equal(ours[name], calm[name]) for name in calm)


def test_handlers_are_put_back(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    trainer = make_trainer(tmp_path, settings(steps=2))
    trainer.train()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
