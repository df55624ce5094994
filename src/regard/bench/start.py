"""From the start of a process to the first token of a GPT-2 model's folder: seconds.

Each side is a new process every round that imports its library, loads the folder with its tokenizer, reads a short
text and writes one token; see begin.py. The clock stops when the token is there, not when the process has ended. The
files are in the page cache for both.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from regard.bench.common import Options, alternate, is_installed, run_process, summarize
from regard.bench.contest import make
from regard.bench.registry import Comparison
from regard.bench.worker import SideError

TEXT = "It was a dark and stormy night"
PEERS = ("fp32", "bf16")


def run(comparison: Comparison, options: Options) -> dict[str, Any]:
    """Start the processes in turns."""
    precision = options.precision or comparison.precision
    folder = options.work / f"gpt2-{options.seed}{'-tiny' if options.tiny else ''}"
    make("gpt2", folder, options)
    sides = {f"ours {precision}": ("ours", precision)}
    left_out = {}
    if is_installed("transformers"):
        sides |= {f"transformers {one}": ("transformers", one) for one in PEERS}
    else:
        left_out = {"transformers": "transformers is not installed"}
        options.report("  transformers is left out: it is not installed")
    found: dict[str, dict[str, Any]] = {label: {} for label in sides}

    def seconds(label: str) -> float:
        kind, chosen = sides[label]
        words = [sys.executable, "-P", "-m", "regard.bench.begin", kind, str(folder), TEXT, chosen]
        began = time.time()
        _, printed = run_process(words, threads=options.threads)
        token, there, peak = printed.split()[-3:]
        found[label] = {"token": int(token), "peak_mib": None if peak == "None" else float(peak)}
        return float(there) - began

    figures = alternate(
        {label: lambda label=label: seconds(label) for label in sides},  # type: ignore[misc]
        rounds=options.rounds, report=options.report,
    )  # fmt: skip
    _check({label: found[label]["token"] for label, (_, chosen) in sides.items() if chosen == "fp32"})
    for label in sides:
        found[label]["figure"] = sorted(figures[label])[len(figures[label]) // 2]
    more = {"sides": found, "left_out": left_out, "threads": options.threads}
    return summarize(
        comparison.name, figures, unit="s", better="less", options=options, aims=comparison.aims,
        libraries=("transformers",), ours=f"ours {precision}", more=more,
    )  # fmt: skip


def _check(tokens: dict[str, int]) -> None:
    """Refuse sides in fp32 that write different tokens."""
    if len(set(tokens.values())) > 1:
        said = ", ".join(f"{label} {token}" for label, token in tokens.items())
        raise SideError(f"the sides write different tokens ({said}): it is not the same model.")
