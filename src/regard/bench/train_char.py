"""Time to nanoGPT's loss on tiny Shakespeare by characters, against its recipe in plain torch.

The recipe: 4 layers, 4 heads, width 128, learned positions, context 64, batches of 12 random windows, AdamW
at 1e-3 (betas 0.9 and 0.99, weight decay 0.1 on matrices) falling along a cosine to 1e-4 after 100 steps of
warm-up, clipping at 1, no dropout, 2,000 steps; its published loss is 1.88 nats a character on the last tenth
of the text. Both sides are whole processes, from start to a trained model: each reads the text, makes its
vocabulary, trains, and ends with the loss on all of the last tenth. Source of the recipe: karpathy/nanoGPT,
README ("I only have a macbook") and train.py's defaults.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from regard.bench.common import Options, alternate, regard_json, run_process, summarize
from regard.bench.registry import Comparison
from regard.bench.texts import shared

TARGET_NATS = 1.8857
SETTINGS = [
    "--tokenizer", "char", "--model", "nano", "--num-layers", "2", "--context", "64", "--position", "alibi",
    "--ngrams", "4", "--steps", "60", "--schedule", "linear", "--warmup", "6", "--evaluate-every", "1000", "--seed",
]  # fmt: skip


def run(comparison: Comparison, options: Options) -> dict[str, Any]:
    """Run both sides in turn and report."""
    text = shared("data", "tinyshakespeare", "input.txt")
    losses: dict[str, list[float]] = {"ours": [], "plain torch": []}

    def ours() -> float:
        with tempfile.TemporaryDirectory() as folder:
            words = ["train", "generate", text, *SETTINGS, options.seed, "--out", Path(folder) / "run"]
            seconds, found = regard_json(*words)
        losses["ours"].append(found["metrics"]["nats"])
        return seconds

    def plain() -> float:
        words = [sys.executable, "-P", "-m", "regard.bench.train_char", str(text), str(options.seed)]
        seconds, printed = run_process(words)
        losses["plain torch"].append(json.loads(printed)["nats"])
        return seconds

    sides = {"ours": ours, "plain torch": plain}
    figures = alternate(sides, rounds=options.rounds, report=options.report)
    reached = max(losses["ours"]) <= TARGET_NATS
    if not reached:
        options.report(f"  ours ends at {max(losses['ours']):.4f} nats a character, above {TARGET_NATS}")
    more = {"nats": losses, "target_nats": TARGET_NATS, "reached": reached}
    result = summarize(
        comparison.name,
        figures,
        unit="s",
        better="less",
        options=options,
        aims=comparison.aims,
        more=more,
    )
    # Where the loss isn't reached, the time to it is not known.
    return result if reached else {**result, "against": {}, "ratio": None}


def plain_recipe(path: Path, seed: int) -> dict[str, float]:
    """Train the recipe's model in plain torch and measure it on the last tenth."""
    import math

    import torch
    from torch import nn
    from torch.nn import functional as F

    layers, heads, width, context, rows, steps = 4, 4, 128, 64, 12, 2000

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
            self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
            self.up, self.down = (
                nn.Linear(width, 4 * width, bias=False),
                nn.Linear(4 * width, width, bias=False),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = (
                t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in self.qkv(self.norm1(x)).chunk(3, -1)
            )
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(mixed.transpose(1, 2).flatten(2))
            return x + self.down(F.gelu(self.up(self.norm2(x))))

    class Model(nn.Module):
        def __init__(self, vocabulary: int) -> None:
            super().__init__()
            self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
            self.layers = nn.Sequential(*(Layer() for _ in range(layers)))
            self.norm, self.head = nn.LayerNorm(width, bias=False), nn.Linear(width, vocabulary, bias=False)
            self.head.weight = self.tokens.weight
            for name, p in self.named_parameters():
                if p.dim() > 1:
                    std = (
                        0.02 / math.sqrt(2 * layers) if name.endswith(("out.weight", "down.weight")) else 0.02
                    )
                    nn.init.normal_(p, std=std)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            x = self.tokens(ids) + self.places(torch.arange(ids.shape[1]))
            return self.head(self.norm(self.layers(x)))

    torch.manual_seed(seed)
    text = path.read_text(encoding="utf-8")
    number = {character: i for i, character in enumerate(sorted(set(text)))}
    data = torch.tensor([number[character] for character in text])
    cut = int(0.9 * len(data))
    training, held_out = data[:cut], data[cut:]
    model = Model(len(number))
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99))
    for step in range(steps):
        share = max(0.0, (step - 100) / (steps - 100))
        rate = 1e-3 * (step + 1) / 101 if step < 100 else 1e-4 + 0.5 * (1 + math.cos(math.pi * share)) * 9e-4
        for group in optimizer.param_groups:
            group["lr"] = rate
        places = torch.randint(len(training) - context, (rows,)).tolist()
        x = torch.stack([training[i : i + context] for i in places])
        y = torch.stack([training[i + 1 : i + 1 + context] for i in places])
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    count = (len(held_out) - 1) // context
    x, y = (
        held_out[: count * context].view(count, context),
        held_out[1 : count * context + 1].view(count, context),
    )
    with torch.inference_mode():
        nats = sum(
            float(F.cross_entropy(model(a).flatten(0, 1), b.flatten(), reduction="sum"))
            for a, b in zip(x.split(256), y.split(256), strict=True)
        )
    return {"nats": nats / (count * context)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(plain_recipe(Path(sys.argv[1]), int(sys.argv[2]))) + "\n")
