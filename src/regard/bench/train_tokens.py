"""Tokens trained a second, against transformers and torch's own modules, in one loop and all in bfloat16.

`train-base`: the Transformer of 2017 (6 + 6 layers, width 512, a tied vocabulary of 32,000, dropout 0.1) on pairs about
as long as Multi30k's, by length in batches of at most 4,096 tokens; peers are MarianMTModel and torch.nn.Transformer.
`train-gpt2`: 12 layers of width 768, 50,257 words, two rows of 512 tokens, no dropout; peers are GPT2LMHeadModel and
torch.nn.TransformerEncoder under a causal mask. Weights and words are random.

The loop is the same for all: forward pass and loss under autocast, backward pass, clipping at 1, a step of fused AdamW.
A rate counts the words that are real, of source and target. With the setting `compile` the peers are compiled; with
`large_pages` their memory comes in large pages too, as ours always does where our command line trains.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any

from regard.bench.common import Options, alternate, summarize
from regard.bench.machine import measured
from regard.bench.registry import Comparison
from regard.bench.worker import Worker
from regard.errors import DependencyError

Step = Callable[[dict[str, Any]], float]


@dataclass(frozen=True)
class Shape:
    """Give the sizes of the models, and of what they are trained on.

    Attributes:
        both: whether there is an encoder beside the decoder; each has so many layers.
        tokens: of a batch at most, of its source or its target, or of each of two rows where there is no source.
    """

    both: bool
    vocabulary: int
    width: int
    heads: int
    layers: int
    ffn: int
    tokens: int


def shape_of(name: str, tiny: bool) -> Shape:
    """Give the shape of a comparison."""
    both = name == "train-base"
    words = 32_000 if both else 50_257
    if tiny:
        return Shape(both, words, width=32, heads=2, layers=2, ffn=128, tokens=128 if both else 16)
    if both:
        return Shape(both, words, width=512, heads=8, layers=6, ffn=2048, tokens=4096)
    return Shape(both, words, width=768, heads=12, layers=12, ffn=3072, tokens=512)


def run(comparison: Comparison, options: Options) -> dict[str, Any]:
    """Let the sides train in turns, each in its process."""
    settings = {**comparison.settings, **options.settings}
    given = {
        "shape": comparison.name, "seed": options.seed, "steps": settings["steps"], "threads": options.threads,
        "tiny": options.tiny, "compiled": settings["compile"], "large_pages": settings["large_pages"],
    }  # fmt: skip
    sides: dict[str, dict[str, Any]] = {}
    left_out = {}
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for name in ("ours", *comparison.peers):
            try:
                worker = Worker(
                    name, "regard.bench.train_tokens:Side", {**given, "name": name}, threads=options.threads
                )  # fmt: skip
            except DependencyError as error:
                if name == "ours":
                    raise
                left_out[name] = str(error)
                options.report(f"  {name} is left out: {error}")
                continue
            workers[name] = stack.enter_context(worker)
            sides[name] = {"load_s": worker.ready["load_s"]}
        options.report("  the machine: memory and arithmetic")
        limits = measured(options.threads, options.tiny)

        def rate(name: str) -> float:
            told = workers[name].ask("run")
            sides[name] |= {key: told[key] for key in ("peak_mib", "parameters", "operations", "loss")}
            return float(told["tokens"]) / float(told["seconds"])

        figures = alternate(
            {name: lambda name=name: rate(name) for name in workers},  # type: ignore[misc]
            rounds=options.rounds, warmup=1, report=options.report,
        )  # fmt: skip
    for name, one in sides.items():
        one["figure"] = median(figures[name])
        one["arithmetic_share"] = one["figure"] * one.pop("operations") / limits["bf16"]
    more = {
        "sides": sides, "left_out": left_out, "threads": options.threads, "limits": limits, "steps": settings["steps"],
    }  # fmt: skip
    return summarize(
        comparison.name, figures, unit="tokens/s", better="more", options=options, aims=comparison.aims,
        libraries=["transformers"] if "transformers" in sides else (), more=more,
    )  # fmt: skip


class Side:
    """Be one side: make the model, and train for some steps each time.

    Args:
        name: "ours" or a peer of the comparison.
        shape: the comparison's name.
        seed: of weights and words.
        steps: of each run.
        threads: how many it computes with.
        tiny: sizes for a test.
        compiled: whether a peer is compiled.
        large_pages: whether a peer's memory comes in large pages.
    """

    def __init__(
        self, *, name: str, shape: str, seed: int, steps: int, threads: int, tiny: bool = False, compiled: bool = False,
        large_pages: bool = False,
    ) -> None:  # fmt: skip
        # It must be said before torch is loaded; our command line does so always.
        if name == "ours" or large_pages:
            os.environ["THP_MEM_ALLOC_ENABLE"] = "1"
        else:
            os.environ.pop("THP_MEM_ALLOC_ENABLE", None)
        import torch

        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        self.shape = shape_of(shape, tiny)
        self.batches = list(make_batches(self.shape, seed, steps))
        if name == "ours":
            self.model, self.step = ours(self.shape)
        else:
            maker = transformers if name == "transformers" else plain_torch
            self.model, self.step = maker(self.shape, compiled)

    def run(self) -> dict[str, Any]:
        """Train on every batch once.

        Gives the words counted, what their matrix products take at least for each (`operations`), the loss of the last
        step in nats and the number of parameters.
        """
        loss = 0.0
        for batch in self.batches:
            loss = self.step(batch)
        tokens = sum(count(batch) for batch in self.batches)
        return {
            "tokens": tokens,
            "operations": sum(operations(self.shape, batch) for batch in self.batches) / tokens,
            "loss": loss,
            "parameters": sum(p.numel() for p in self.model.parameters()),
        }


def make_batches(shape: Shape, seed: int, steps: int) -> Iterator[dict[str, Any]]:
    """Give the batches as our objectives make them; lengths are drawn as Multi30k's are."""
    import numpy as np
    import torch

    from regard.data.batches import Batches
    from regard.data.objectives import Translate
    from regard.data.store import TokenStore

    rng = np.random.default_rng(seed)
    words = shape.vocabulary
    if not shape.both:
        for _ in range(steps):
            ids = torch.from_numpy(rng.integers(0, words, (2, shape.tokens + 1)))
            yield {
                "ids": ids[:, :-1].contiguous(), "labels": ids[:, 1:].contiguous(), "tokens": 2 * shape.tokens,
            }  # fmt: skip
        return
    lengths = np.clip(np.round(rng.lognormal(2.6, 0.35, 29_000)), 4, 60).astype(int)
    others = np.clip(lengths + rng.integers(-3, 4, len(lengths)), 3, None)
    stores = [TokenStore.of([rng.integers(3, words, n) for n in side], words) for side in (lengths, others)]
    data = Translate(*stores, bos=1, eos=2, pad=0)
    yield from (Batches(data, tokens_per_batch=shape.tokens, seed=seed).batch(0, k) for k in range(steps))


def count(batch: dict[str, Any]) -> int:
    """Count a batch's real words."""
    return int(batch["tokens"]) + (int(batch["source_mask"].sum()) if "source" in batch else 0)


def operations(shape: Shape, batch: dict[str, Any]) -> float:
    """Count what the matrix products of a step need at least: forward once, backward twice; attention left out."""
    square, wide = shape.width**2, 2 * shape.width * shape.ffn
    target, output = int(batch["tokens"]), shape.width * shape.vocabulary
    if not shape.both:
        return 6.0 * target * (shape.layers * (4 * square + wide) + output)
    source = int(batch["source_mask"].sum())
    encoder, decoder = shape.layers * (4 * square + wide + 2 * square), shape.layers * (6 * square + wide)
    return 6.0 * (source * encoder + target * (decoder + output))


def ours(shape: Shape) -> tuple[Any, Step]:
    """Make our model and its step."""
    import torch

    from regard.models.families import preset
    from regard.models.transformer import build
    from regard.training.config import TrainConfig
    from regard.training.loss import sequence_loss
    from regard.training.optim import make_optimizers
    from regard.training.precision import autocast

    sizes = {
        "vocab_size": shape.vocabulary, "width": shape.width, "num_heads": shape.heads, "ffn_width": shape.ffn,
        "num_layers": shape.layers,
    }  # fmt: skip
    if shape.both:
        config = preset("transformer-base", **sizes, num_decoder_layers=shape.layers, dropout=0.1)
    else:
        config = preset("gpt2", **sizes, dropout=0.0, attention_dropout=0.0)
    model = build(config).train()
    optimizers = make_optimizers(model, TrainConfig(steps=1, lr=1e-4))
    device = torch.device("cpu")

    def step(batch: dict[str, Any]) -> float:
        with autocast("bf16", device):
            sums = sequence_loss(model, batch)
        loss = sums.loss / int(batch["tokens"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad()
        return loss.item()

    return model, step


def _peer_step(model: Any, loss_of: Callable[[dict[str, Any]], Any]) -> Step:
    """Make the step of a model that is not ours."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step(batch: dict[str, Any]) -> float:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        model.zero_grad()
        return float(loss.item())

    return step


def transformers(shape: Shape, compiled: bool) -> tuple[Any, Step]:
    """Make transformers' model and its step."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, MarianConfig, MarianMTModel

    model: Any
    if not shape.both:
        config: Any = GPT2Config(
            vocab_size=shape.vocabulary, n_embd=shape.width, n_head=shape.heads, n_layer=shape.layers,
            n_inner=shape.ffn, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, attn_implementation="sdpa",
            use_cache=False,
        )  # fmt: skip
        model = GPT2LMHeadModel(config).train()
    else:
        config = MarianConfig(
            vocab_size=shape.vocabulary, d_model=shape.width, encoder_layers=shape.layers, decoder_layers=shape.layers,
            encoder_attention_heads=shape.heads, decoder_attention_heads=shape.heads, encoder_ffn_dim=shape.ffn,
            decoder_ffn_dim=shape.ffn,
            dropout=0.1, attention_dropout=0.0, activation_dropout=0.0, activation_function="relu",
            scale_embedding=True, pad_token_id=0, eos_token_id=2, decoder_start_token_id=1,
            attn_implementation="sdpa", use_cache=False,
        )  # fmt: skip
        model = MarianMTModel(config).train()
    called: Any = torch.compile(model, dynamic=True) if compiled else model

    def loss_of(batch: dict[str, Any]) -> Any:
        if not shape.both:
            logits = called(input_ids=batch["ids"]).logits
            return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
        return called(
            input_ids=batch["source"], attention_mask=batch["source_mask"].long(),
            decoder_input_ids=batch["target_in"], decoder_attention_mask=batch["target_mask"].long(),
            labels=batch["target_out"],
        ).loss  # fmt: skip

    return model, _peer_step(model, loss_of)


def plain_torch(shape: Shape, compiled: bool) -> tuple[Any, Step]:
    """Make a model of torch's own modules, with embeddings and an output layer, and its step."""
    import torch
    from torch import nn

    width, both = shape.width, shape.both

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(shape.vocabulary, width), nn.Embedding(1024, width)
            if both:
                self.body: Any = nn.Transformer(
                    width, shape.heads, shape.layers, shape.layers, shape.ffn, dropout=0.1, batch_first=True
                )
            else:
                layer = nn.TransformerEncoderLayer(
                    width, shape.heads, shape.ffn, 0.0, "gelu", batch_first=True, norm_first=True
                )
                self.body = nn.TransformerEncoder(
                    layer, shape.layers, nn.LayerNorm(width), enable_nested_tensor=False
                )
            self.dropout = nn.Dropout(0.1 if both else 0.0)
            self.output = nn.Linear(width, shape.vocabulary, bias=False)
            nn.init.normal_(self.words.weight, std=width**-0.5)
            self.output.weight = self.words.weight

        def embed(self, ids: Any) -> Any:
            scale = width**0.5 if both else 1.0
            return self.dropout(self.words(ids) * scale + self.places(torch.arange(ids.shape[1])))

        def forward(self, batch: dict[str, Any]) -> Any:
            text = batch["target_in"] if both else batch["ids"]
            causal = nn.Transformer.generate_square_subsequent_mask(text.shape[1]).isinf()
            if not both:
                return self.output(self.body(self.embed(text), mask=causal, is_causal=True))
            source, target = ~batch["source_mask"], ~batch["target_mask"]
            mixed = self.body(
                self.embed(batch["source"]), self.embed(text), tgt_mask=causal, tgt_is_causal=True,
                src_key_padding_mask=source, tgt_key_padding_mask=target, memory_key_padding_mask=source,
            )  # fmt: skip
            return self.output(mixed)

    model = Plain().train()
    called: Any = torch.compile(model, dynamic=True) if compiled else model

    def loss_of(batch: dict[str, Any]) -> Any:
        labels = batch["target_out"] if both else batch["labels"]
        return nn.functional.cross_entropy(called(batch).flatten(0, 1), labels.flatten())

    return model, _peer_step(model, loss_of)
