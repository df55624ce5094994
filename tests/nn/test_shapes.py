"""The shapes that signatures in nn and models promise are the ones that are passed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_every_signature_tells_the_truth(repo: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(repo / "src"), str(repo)])}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.nn.check_shapes"], cwd=repo, env=environment,
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3_000:]
