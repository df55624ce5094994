"""The sides that classify sentences with a model of BERT-base's size: ours, and transformers' pipeline."""

from __future__ import annotations

from typing import Any

from regard.bench.texts import sentences

ROWS = 32


class _Side:
    def __init__(
        self, *, folder: str, seed: int, count: int, precision: str, threads: int
    ) -> None:  # fmt: skip
        import torch

        torch.set_num_threads(threads)
        _, self.texts = sentences(count, seed)
        self.load(folder, precision)

    def load(self, folder: str, precision: str) -> None:
        """Load the model."""
        raise NotImplementedError

    def classify(self, texts: list[str]) -> list[float]:
        """Give the probability of the first label of each text."""
        raise NotImplementedError

    def run(self) -> dict[str, Any]:
        """Classify everything."""
        self.classify(self.texts)
        return {"sentences": len(self.texts)}

    def check(self) -> dict[str, Any]:
        """Classify the first batch."""
        return {"scores": self.classify(self.texts[:ROWS])}


class Ours(_Side):
    """Run Regard's verb, which batches by itself."""

    def load(self, folder: str, precision: str) -> None:
        """Load the folder in a precision that `regard.load` knows."""
        import regard

        self.model = regard.load(folder, precision=precision)

    def classify(self, texts: list[str]) -> list[float]:
        """Classify, from texts to labels."""
        found = self.model.classify(texts)
        return [next(one.score for one in each.scores if one.label == "negative") for each in found]


class Transformers(_Side):
    """Run transformers' pipeline in batches, as its documentation says."""

    def load(self, folder: str, precision: str) -> None:
        """Load the folder in fp32 or bf16."""
        import torch
        from transformers import pipeline

        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        self.pipeline: Any = pipeline(
            "text-classification", model=folder, dtype=dtype, device="cpu", top_k=None
        )

    def classify(self, texts: list[str]) -> list[float]:
        """Classify, from texts to labels."""
        found = self.pipeline(texts, batch_size=ROWS)
        return [next(one["score"] for one in each if one["label"] == "negative") for each in found]
