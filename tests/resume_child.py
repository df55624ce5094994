"""Run `regard` and die by SIGKILL at a moment that is named beforehand: `python resume_child.py LABEL:N WORDS...`.

A moment is the n-th file that reaches the disk, rename, or step of training with a label: `prepare`, `state` (a
checkpoint), `best` (the weights), `record` or `step`. With `list` every moment is printed, and none is deadly.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter

from regard.cli import main
from regard.training.loop import Trainer

fatal = sys.argv[1]
counts: Counter[str] = Counter()


def label_of(path: str) -> str:
    if ".preparing" in path:
        return "prepare"
    if "checkpoints" in path:
        return "state"
    return "best" if "model.safetensors" in path else "record"


def tick(label: str) -> None:
    counts[label] += 1
    moment = f"{label}:{counts[label]}"
    if fatal == "list":
        print("moment", moment, file=sys.stderr)
    elif fatal == moment:
        os.kill(os.getpid(), signal.SIGKILL)


def watch(module: object, name: str) -> None:
    call = getattr(module, name)

    def watched(*arguments, **keywords):
        first = arguments[0]
        path = os.readlink(f"/proc/self/fd/{first}") if isinstance(first, int) else os.fspath(first)
        tick(label_of(str(path)))
        result = call(*arguments, **keywords)
        tick(label_of(str(path)))
        return result

    setattr(module, name, watched)


for name in ("fsync", "replace", "rename"):
    watch(os, name)

step = Trainer._step


def counted_step(self, batch):
    tick("step")
    step(self, batch)


Trainer._step = counted_step  # type: ignore[method-assign]
sys.exit(main(sys.argv[2:]))
