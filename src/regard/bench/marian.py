"""The sides that translate token ids with a model of Marian's size: ours, transformers and CTranslate2.

The sentences are those of `texts.pairs`, a number for each word; batches hold sentences of like length. The weights
are drawn, so no translation would end: every row of a batch gets as many tokens as its references have on average.
"""

from __future__ import annotations

from typing import Any

from regard.bench.made import word
from regard.bench.texts import numbered, pairs

BEAMS, ROWS = 4, 32
FEW = 8  # sentences whose references are scored before anything is timed
Batch = tuple[list[list[int]], int]


def batches(count: int, seed: int, vocabulary: int) -> list[Batch]:
    """Give batches of sources, each ended by token 0, with the number of tokens that every row of it is to get."""
    _, found = pairs(count, seed)
    rows = [
        ([*numbered(source, vocabulary), 0], len(numbered(target, vocabulary)) + 1)
        for source, target in found
    ]
    rows.sort(key=lambda row: len(row[0]))
    groups = [rows[i : i + ROWS] for i in range(0, len(rows), ROWS)]
    return [([ids for ids, _ in group], round(sum(n for _, n in group) / len(group))) for group in groups]


class _Side:
    def __init__(
        self, *, folder: str, seed: int, count: int, vocabulary: int, threads: int, **more: Any
    ) -> None:  # fmt: skip
        self.batches, self.vocabulary, self.seed = batches(count, seed, vocabulary), vocabulary, seed
        self.threads = threads
        self.load(folder, **more)

    def load(self, folder: str, **more: Any) -> None:
        """Load the model."""
        raise NotImplementedError

    def translate(self, sources: list[list[int]], tokens: int) -> list[list[int]]:
        """Give the best translation of each source, of so many tokens."""
        raise NotImplementedError

    def score(self, sources: list[list[int]], targets: list[list[int]]) -> list[list[float]]:
        """Give the log-probability of each token of a target for each source."""
        raise NotImplementedError

    def run(self) -> dict[str, Any]:
        """Translate everything; gives the number of sentences, and of tokens written."""
        for sources, tokens in self.batches:
            self.translate(sources, tokens)
        return {
            "sentences": sum(len(sources) for sources, _ in self.batches),
            "tokens": sum(len(sources) * tokens for sources, tokens in self.batches),
        }

    def check(self) -> dict[str, Any]:
        """Give the log-probability of every token of some references, and the translations of the first batch."""
        _, found = pairs(FEW, self.seed)
        sources = [[*numbered(source, self.vocabulary), 0] for source, _ in found]
        targets = [numbered(target, self.vocabulary) for _, target in found]
        return {"logits": self.score(sources, targets), "tokens": self.translate(*self.batches[0])}


class Ours(_Side):
    """Run Regard."""

    def load(self, folder: str, *, precision: str) -> None:  # type: ignore[override]
        """Load the folder in a precision that `regard.load` knows."""
        import torch

        import regard

        torch.set_num_threads(self.threads)
        self.module: Any = regard.load(folder, precision=precision).module

    def translate(self, sources: list[list[int]], tokens: int) -> list[list[int]]:
        """Search by beams, until all have their tokens."""
        import torch

        from regard.generate.search import SearchConfig, search

        ids, mask = padded(sources, self.vocabulary - 1)
        begin = torch.full((len(sources), 1), self.vocabulary - 1)
        config = SearchConfig(max_tokens=tokens, min_tokens=tokens, num_beams=BEAMS)
        with torch.inference_mode():
            state = self.module.start(source=ids, source_mask=mask)
            state.reserve(1 + tokens)
            found = search(state, begin, eos_id=0, pad_id=self.vocabulary - 1, config=config)
        return [list(row[0].ids) for row in found]

    def score(self, sources: list[list[int]], targets: list[list[int]]) -> list[list[float]]:
        """Score with the targets fed."""
        import torch

        ids, mask = padded(sources, self.vocabulary - 1)
        begun, _ = padded([[self.vocabulary - 1, *row[:-1]] for row in targets], self.vocabulary - 1)
        with torch.inference_mode():
            return chosen(self.module(ids, begun, source_mask=mask), targets)


class Transformers(_Side):
    """Run transformers' generate."""

    def load(self, folder: str, *, precision: str) -> None:  # type: ignore[override]
        """Load the folder in fp32 or bf16."""
        import torch
        from transformers import MarianMTModel

        torch.set_num_threads(self.threads)
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        self.model: Any = MarianMTModel.from_pretrained(folder, dtype=dtype).eval()

    def translate(self, sources: list[list[int]], tokens: int) -> list[list[int]]:
        """Generate by beams."""
        import torch

        ids, mask = padded(sources, self.vocabulary - 1)
        with torch.inference_mode():
            found = self.model.generate(
                ids, attention_mask=mask.long(), num_beams=BEAMS, do_sample=False, min_new_tokens=tokens,
                max_new_tokens=tokens, forced_eos_token_id=None, early_stopping=True,
            )  # fmt: skip
        return found[:, 1 : tokens + 1].tolist()

    def score(self, sources: list[list[int]], targets: list[list[int]]) -> list[list[float]]:
        """Score with the targets fed."""
        import torch

        ids, mask = padded(sources, self.vocabulary - 1)
        begun, _ = padded([[self.vocabulary - 1, *row[:-1]] for row in targets], self.vocabulary - 1)
        with torch.inference_mode():
            return chosen(
                self.model(ids, attention_mask=mask.long(), decoder_input_ids=begun).logits, targets
            )


class CTranslate2(_Side):
    """Run CTranslate2's translator."""

    def load(self, folder: str, *, precision: str) -> None:  # type: ignore[override]
        """Load a converted model; `precision` float32 or int8."""
        import ctranslate2

        self.model = ctranslate2.Translator(
            folder, device="cpu", compute_type=precision, inter_threads=1, intra_threads=self.threads
        )

    def translate(self, sources: list[list[int]], tokens: int) -> list[list[int]]:
        """Search by beams."""
        found = self.model.translate_batch(
            [[word(token) for token in row] for row in sources], beam_size=BEAMS, max_decoding_length=tokens,
            min_decoding_length=tokens,
        )  # fmt: skip
        return [[int(token[1:]) for token in one.hypotheses[0]] for one in found]

    def score(self, sources: list[list[int]], targets: list[list[int]]) -> list[list[float]]:
        """Score with the targets fed; the end's score, which comes last, is left out."""
        found = self.model.score_batch(
            [[word(token) for token in row] for row in sources],
            [[word(token) for token in row] for row in targets],
        )
        return [one.log_probs[: len(row)] for one, row in zip(found, targets, strict=True)]


def chosen(logits: Any, targets: list[list[int]]) -> list[list[float]]:
    """Take the log-probability of each target's tokens from logits (B, T, V)."""
    import torch

    nats = logits.float().log_softmax(-1)
    return [nats[i, torch.arange(len(row)), torch.tensor(row)].tolist() for i, row in enumerate(targets)]


def padded(rows: list[list[int]], pad: int) -> Any:
    """Give ids (B, S) padded on the right, and the mask of real ones."""
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return ids, torch.arange(width) < lengths[:, None]
