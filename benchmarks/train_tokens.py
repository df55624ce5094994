"""Tokens trained a second, against transformers and torch's own modules, in one loop and all in bfloat16.

Two shapes. `base`: the Transformer of 2017 (6 + 6 layers, width 512, a tied vocabulary of 32,000, dropout 0.1) on pairs
about as long as Multi30k's, by length in batches of at most 4,096 tokens; peers are MarianMTModel and
torch.nn.Transformer. `gpt2`: 12 layers of width 768, 50,257 words, two rows of 512 tokens, no dropout; peers are
GPT2LMHeadModel and torch.nn.TransformerEncoder under a causal mask. Weights and words are random.

The loop is the same for all: forward pass and loss under autocast, backward pass, clipping at 1, a step of fused AdamW.
Each side is a process of its own that waits while another works, so its peak of memory is its own. A rate counts the
words that are real, of source and target.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

from common import alternate, finish, parser, summarize

LAYERS, MOST, ROWS, TOKENS = {"base": 6, "gpt2": 12}, 4096, 2, 512
SIDES = {
    "base": ("ours", "transformers", "torch.nn.Transformer"),
    "gpt2": ("ours", "transformers", "torch.nn.TransformerEncoder"),
}
SIZES = {
    "base": {"vocab_size": 32_000, "width": 512, "heads": 8, "ffn": 2048},
    "gpt2": {"vocab_size": 50_257, "width": 768, "heads": 12, "ffn": 3072},
}
Step = Callable[[Any], Any]


def main() -> None:
    """Start the sides, let them work in turn and report."""
    made = parser(__doc__, seed=1)
    made.add_argument("--shape", choices=sorted(SIDES), default="base")
    made.add_argument("--steps", type=int, default=3, help="steps of a side in a round")
    made.add_argument("--only", nargs="+", help="these sides alone")
    made.add_argument("--side", help="be one side: a line on standard input asks for a round")
    made.add_argument("--compile", action="store_true", help="the peers are compiled")
    made.add_argument("--large-pages", action="store_true", help="the peers' memory comes in large pages too")
    made.add_argument("--profile", action="store_true", help="one side: print what two steps were spent on")
    options = made.parse_args()
    if options.side:
        work(options)
        return
    names = [side for side in SIDES[options.shape] if not options.only or side in options.only]
    words = [*sys.argv[1:], "--side"]
    children = {side: _child([sys.executable, __file__, *words, side]) for side in names}
    told: dict[str, dict[str, float]] = {}

    def ask(side: str) -> float:
        told[side] = next(children[side])
        return told[side]["rate"]

    figures = alternate({side: partial(ask, side) for side in names}, rounds=options.rounds, warmup=1)
    for child in children.values():
        child.close()
    peak = told["ours"]["peak"]
    more = {
        "memory_gib": {side: told[side]["memory"] for side in names},
        "parameters": {side: told[side]["parameters"] for side in names},
        "matmul_tflops": peak / 1e12,
        "share_of_matmul": {s: median(figures[s]) * told[s]["work"] / peak for s in names},
    }
    result = summarize(
        f"train_tokens_{options.shape}", figures, unit="tokens/s", better="more", target=1.5, seed=options.seed,
        libraries=["transformers"], more=more,
    )  # fmt: skip
    finish(result, json=options.json)


def _child(words: list[str]) -> Iterator[dict[str, float]]:
    """Run a side; give what it says after each round."""
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        try:
            while True:
                process.stdin.write("\n")
                process.stdin.flush()
                yield json.loads(process.stdout.readline())
        finally:
            process.stdin.close()


def work(options: Any) -> None:
    """Be one side: make the model, then for each line that comes train for a round and print its rate."""
    import os
    import resource

    if options.side == "ours" or options.large_pages:  # the command line of ours says so always
        os.environ["THP_MEM_ALLOC_ENABLE"] = "1"
    import torch

    torch.manual_seed(options.seed)
    batches = list(make_batches(options.shape, options.seed, options.steps))
    model, step = SIDE_MAKERS[options.side](options)
    parameters = sum(p.numel() for p in model.parameters())
    real = sum(count(batch) for batch in batches)
    for _ in sys.stdin:
        if options.profile:
            _profile(lambda: [step(batch) for batch in batches[:2]], step, batches)
            return
        begin = time.perf_counter()
        for batch in batches:
            step(batch)
        seconds = time.perf_counter() - begin
        told = {
            "rate": real / seconds,
            "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            "parameters": parameters,
            "work": sum(operations(batch) for batch in batches) / real,
            "peak": matmul_peak() if options.side == "ours" else 0.0,
        }
        print(json.dumps(told), flush=True)


def _profile(run: Callable[[], Any], step: Step, batches: list[Any]) -> None:
    from torch.profiler import ProfilerActivity, profile

    for batch in batches[:2]:
        step(batch)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        run()
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=45), file=sys.stderr)


def make_batches(shape: str, seed: int, steps: int) -> Iterator[dict[str, Any]]:
    """Give the batches as our objectives make them; lengths are drawn as Multi30k's are."""
    import numpy as np
    import torch

    from regard.data.batches import Batches
    from regard.data.objectives import Translate
    from regard.data.store import TokenStore

    rng = np.random.default_rng(seed)
    words = SIZES[shape]["vocab_size"]
    if shape == "gpt2":
        for _ in range(steps):
            ids = torch.from_numpy(rng.integers(0, words, (ROWS, TOKENS + 1)))
            yield {
                "ids": ids[:, :-1].contiguous(),
                "labels": ids[:, 1:].contiguous(),
                "tokens": ROWS * TOKENS,
            }
        return
    lengths = np.clip(np.round(rng.lognormal(2.6, 0.35, 29_000)), 4, 60).astype(int)
    others = np.clip(lengths + rng.integers(-3, 4, len(lengths)), 3, None)
    stores = [TokenStore.of([rng.integers(3, words, n) for n in side], words) for side in (lengths, others)]
    data = Translate(*stores, bos=1, eos=2, pad=0)
    yield from (Batches(data, tokens_per_batch=MOST, seed=seed).batch(0, k) for k in range(steps))


def count(batch: dict[str, Any]) -> int:
    """Count a batch's real words."""
    return int(batch["tokens"]) + (int(batch["source_mask"].sum()) if "source" in batch else 0)


def operations(batch: dict[str, Any]) -> float:
    """Count what the matrix products of a step need at least: forward once, backward twice; attention left out."""
    if "source" not in batch:
        size = SIZES["gpt2"]
        body = 12 * (4 * size["width"] ** 2 + 2 * size["width"] * size["ffn"])
        return 6.0 * int(batch["tokens"]) * (body + size["width"] * size["vocab_size"])
    size = SIZES["base"]
    square, wide = size["width"] ** 2, 2 * size["width"] * size["ffn"]
    source, target = int(batch["source_mask"].sum()), int(batch["tokens"])
    encoder, decoder = 6 * (4 * square + wide + 2 * square), 6 * (6 * square + wide)
    return 6.0 * (source * encoder + target * (decoder + size["width"] * size["vocab_size"]))


def matmul_peak() -> float:
    """Measure what one large product in bfloat16 reaches, in operations a second."""
    import torch

    left, right = torch.ones(4096, 2048).bfloat16(), torch.ones(2048, 2048).bfloat16()
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - begin)
    return 2 * 4096 * 2048 * 2048 / min(seconds)


def ours(options: Any) -> tuple[Any, Step]:
    """Make our model and its step."""
    import torch

    from regard.models.families import preset
    from regard.models.transformer import build
    from regard.training.config import TrainConfig
    from regard.training.loss import sequence_loss
    from regard.training.optim import make_optimizers
    from regard.training.precision import autocast

    if options.shape == "gpt2":
        config = preset("gpt2", dropout=0.0, attention_dropout=0.0)
    else:
        config = preset("transformer-base", vocab_size=SIZES["base"]["vocab_size"], dropout=0.1)
    model = build(config).train()
    optimizers = make_optimizers(model, TrainConfig(steps=1, lr=1e-4))
    device = torch.device("cpu")

    def step(batch: dict[str, Any]) -> None:
        with autocast("bf16", device):
            sums = sequence_loss(model, batch)
        (sums.loss / int(batch["tokens"])).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad()

    return model, step


def _peer_step(model: Any, loss_of: Callable[[dict[str, Any]], Any]) -> Step:
    """Make the step of a model that is not ours."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step(batch: dict[str, Any]) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        model.zero_grad()

    return step


def transformers(options: Any) -> tuple[Any, Step]:
    """Make transformers' model and its step."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, MarianConfig, MarianMTModel

    model: Any
    if options.shape == "gpt2":
        config: Any = GPT2Config(
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, attn_implementation="sdpa", use_cache=False
        )
        model = GPT2LMHeadModel(config).train()
    else:
        size = SIZES["base"]
        config = MarianConfig(
            vocab_size=size["vocab_size"], d_model=size["width"], encoder_layers=6, decoder_layers=6,
            encoder_attention_heads=8, decoder_attention_heads=8, encoder_ffn_dim=2048, decoder_ffn_dim=2048,
            dropout=0.1, attention_dropout=0.0, activation_dropout=0.0, activation_function="relu",
            scale_embedding=True, pad_token_id=0, eos_token_id=2, decoder_start_token_id=1,
            attn_implementation="sdpa", use_cache=False,
        )  # fmt: skip
        model = MarianMTModel(config).train()
    called = torch.compile(model, dynamic=True) if options.compile else model

    def loss_of(batch: dict[str, Any]) -> Any:
        if options.shape == "gpt2":
            logits = called(input_ids=batch["ids"]).logits
            return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
        return called(
            input_ids=batch["source"], attention_mask=batch["source_mask"].long(),
            decoder_input_ids=batch["target_in"], decoder_attention_mask=batch["target_mask"].long(),
            labels=batch["target_out"],
        ).loss  # fmt: skip

    return model, _peer_step(model, loss_of)


def plain_torch(options: Any) -> tuple[Any, Step]:
    """Make a model of torch's own modules, with embeddings and an output layer, and its step."""
    import torch
    from torch import nn

    size = SIZES[options.shape]
    width, both = size["width"], options.shape == "base"

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(size["vocab_size"], width), nn.Embedding(1024, width)
            if both:
                self.body: Any = nn.Transformer(
                    width, size["heads"], 6, 6, size["ffn"], dropout=0.1, batch_first=True
                )
            else:
                layer = nn.TransformerEncoderLayer(
                    width, size["heads"], size["ffn"], 0.0, "gelu", batch_first=True, norm_first=True
                )
                self.body = nn.TransformerEncoder(layer, 12, nn.LayerNorm(width), enable_nested_tensor=False)
            self.dropout = nn.Dropout(0.1 if both else 0.0)
            self.output = nn.Linear(width, size["vocab_size"], bias=False)
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
    called = torch.compile(model, dynamic=True) if options.compile else model

    def loss_of(batch: dict[str, Any]) -> Any:
        labels = batch["target_out"] if both else batch["labels"]
        return nn.functional.cross_entropy(called(batch).flatten(0, 1), labels.flatten())

    return model, _peer_step(model, loss_of)


SIDE_MAKERS = {
    "ours": ours,
    "transformers": transformers,
    "torch.nn.Transformer": plain_torch,
    "torch.nn.TransformerEncoder": plain_torch,
}

if __name__ == "__main__":
    main()
