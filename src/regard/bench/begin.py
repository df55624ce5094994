"""A process from its start to the first token of a GPT-2 model: ours, or transformers' generate.

    python -m regard.bench.begin ours FOLDER TEXT PRECISION

prints the token's id, when it was there (seconds since 1970) and the largest memory. This file imports nothing but what
its side needs, so that the time is that of the process from its start on.
"""

from __future__ import annotations

import sys
import time
from typing import Any


def ours(folder: str, text: str, precision: str) -> int:
    """Load with Regard and write one token."""
    import regard

    return regard.load(folder, precision=precision).generate(text, max_tokens=1, temperature=0.0).ids[0]


def transformers(folder: str, text: str, precision: str) -> int:
    """Load with transformers and write one token."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    asked = tokenizer(text, return_tensors="pt")
    model.generation_config.eos_token_id = None
    found = model.generate(**asked, max_new_tokens=1, do_sample=False, pad_token_id=0)
    return int(found[0, -1])


def main(words: list[str]) -> None:
    """Run one side, and leave its token, when that was there, and its largest memory."""
    token = {"ours": ours, "transformers": transformers}[words[0]](*words[1:4])
    there = time.time()
    from regard.bench.worker import peak_mib

    sys.stdout.write(f"{token} {there} {peak_mib()}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
