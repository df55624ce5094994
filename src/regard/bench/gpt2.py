"""The sides that continue token ids with a model of GPT-2's shape: ours, transformers, CTranslate2 and llama.cpp.

Each reads the same prompts, `batch` rows of `prompt` tokens drawn from the seed, and writes `new` tokens a row,
greedily, whatever they are. `check` gives the logits after the prompts, where a library shows them, and the tokens.
With `new` 0 a side only reads the prompts and scores what comes next.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from regard.bench.made import word

FEW = 16  # tokens that a side writes before anything is timed


def prompts(seed: int, batch: int, prompt: int, vocabulary: int) -> list[list[int]]:
    """Draw the prompts; standard library only, so that every side draws the same."""
    drawn = random.Random(seed)
    return [[drawn.randrange(vocabulary - 1) for _ in range(prompt)] for _ in range(batch)]


class _Side:
    """Hold what all sides are given, and write the answers."""

    def __init__(
        self, *, folder: str, seed: int, batch: int, prompt: int, new: int, vocabulary: int, threads: int, **more: Any
    ) -> None:  # fmt: skip
        self.rows = prompts(seed, batch, prompt, vocabulary)
        self.new, self.threads = new, threads
        self.load(folder, **more)

    def load(self, folder: str, **more: Any) -> None:
        """Load the model."""
        raise NotImplementedError

    def write(self, new: int) -> list[list[int]]:
        """Give so many new tokens of every row; none with 0."""
        raise NotImplementedError

    def logits(self) -> Any:
        """Give the logits after each prompt as an array (B, V); None where the library doesn't show them."""
        return None

    def run(self) -> dict[str, Any]:
        """Write the texts, and say how many tokens that were."""
        self.write(self.new)
        rows = len(self.rows)
        return {"tokens": rows * self.new if self.new else sum(map(len, self.rows))}

    def check(self) -> dict[str, Any]:
        """Give the tokens and the logits; it warms the side up too."""
        found = self.logits()
        return {"tokens": self.write(min(self.new, FEW)), "logits": None if found is None else found.tolist()}


class Ours(_Side):
    """Run Regard."""

    def load(self, folder: str, *, precision: str) -> None:  # type: ignore[override]
        """Load the folder in a precision that `regard.load` knows."""
        import torch

        import regard

        torch.set_num_threads(self.threads)
        self.ids = torch.tensor(self.rows)
        self.module: Any = regard.load(folder, precision=precision).module

    def write(self, new: int) -> list[list[int]]:
        """Search greedily, with room for the whole text."""
        import torch

        from regard.generate.search import SearchConfig, search

        if not new:
            self.logits()
            return []
        with torch.inference_mode():
            state = self.module.start(batch=len(self.rows))
            state.reserve(self.ids.shape[1] + new)
            found = search(state, self.ids, eos_id=None, pad_id=0, config=SearchConfig(max_tokens=new))
        return [list(row[0].ids) for row in found]

    def logits(self) -> Any:
        """Score what follows the prompts."""
        import torch

        with torch.inference_mode():
            state = self.module.start(batch=len(self.rows))
            return state.advance(self.ids, None, only_last=True)[:, -1].float().numpy()


class Transformers(_Side):
    """Run transformers' generate, with its fused attention; `static` with its static cache and torch.compile."""

    def load(self, folder: str, *, precision: str, static: bool = False) -> None:  # type: ignore[override]
        """Load the folder in fp32 or bf16."""
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(self.threads)
        self.ids = torch.tensor(self.rows)
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        self.model.generation_config.eos_token_id = None
        self.model.generation_config.pad_token_id = 0
        if static:
            self.model.generation_config.cache_implementation = "static"

    def write(self, new: int) -> list[list[int]]:
        """Generate greedily."""
        import torch

        if not new:
            self.logits()
            return []
        with torch.inference_mode():
            found = self.model.generate(
                self.ids, attention_mask=torch.ones_like(self.ids), max_new_tokens=new, do_sample=False
            )
        return found[:, self.ids.shape[1] :].tolist()

    def logits(self) -> Any:
        """Score what follows the prompts."""
        import torch

        with torch.inference_mode():
            return self.model(self.ids, use_cache=True, logits_to_keep=1).logits[:, -1].float().numpy()


class CTranslate2(_Side):
    """Run CTranslate2's generator, which reads a whole prompt at once."""

    def load(self, folder: str, *, precision: str) -> None:  # type: ignore[override]
        """Load a converted model; `precision` float32 or int8."""
        import ctranslate2

        self.model = ctranslate2.Generator(
            folder, device="cpu", compute_type=precision, inter_threads=1, intra_threads=self.threads
        )
        self.words = [[word(token) for token in row] for row in self.rows]

    def write(self, new: int) -> list[list[int]]:
        """Generate greedily; one token is the least that it writes."""
        least = max(1, new)
        found = self.model.generate_batch(
            self.words, max_length=least, min_length=least, sampling_topk=1, include_prompt_in_result=False
        )
        return [list(one.sequences_ids[0]) for one in found] if new else []

    def logits(self) -> Any:
        """Score what follows the prompts, where they are short: it scores what follows every token."""
        import numpy as np

        if len(self.rows[0]) > 100:
            return None
        return np.array(self.model.forward_batch(self.words))[:, -1]


class Llama(_Side):
    """Run llama.cpp, one row; the likeliest token is found by numpy, which takes less than its own sampler."""

    def load(self, folder: str) -> None:  # type: ignore[override]
        """Load a file."""
        import llama_cpp

        assert len(self.rows) == 1
        count = len(self.rows[0])
        self.model = llama_cpp.Llama(
            str(Path(folder)), n_ctx=count + max(1, self.new), n_batch=max(512, count), n_threads=self.threads,
            n_threads_batch=self.threads, verbose=False,
        )  # fmt: skip

    def write(self, new: int) -> list[list[int]]:
        """Take the likeliest token each time."""
        tokens: list[int] = []
        following = self.rows[0]
        self.model.reset()
        for _ in range(max(1, new)):
            self.model.eval(following)
            tokens.append(int(self._last().argmax()))
            following = tokens[-1:]
        return [tokens] if new else []

    def logits(self) -> Any:
        """Score what follows the prompt."""
        self.model.reset()
        self.model.eval(self.rows[0])
        return self._last()[None].copy()

    def _last(self) -> Any:
        import llama_cpp
        import numpy as np

        found = llama_cpp.llama_get_logits_ith(self.model.ctx, -1)
        return np.ctypeslib.as_array(found, shape=(self.model.n_vocab(),))
