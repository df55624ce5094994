"""Small files of every form that a task reads, and the flags of a model that trains on them in a moment."""

from __future__ import annotations

import json
import random
from pathlib import Path

TINY = [
    "--width", "16", "--num-heads", "2", "--num-layers", "1", "--precision", "fp32", "--steps", "4",
    "--evaluate-every", "2", "--save-every", "2", "--log-every", "1", "--warmup", "2",
]  # fmt: skip
WORDS = {
    "the": "le",
    "dog": "chien",
    "cat": "chat",
    "man": "homme",
    "sees": "voit",
    "likes": "aime",
    "a": "un",
}
DATA = {
    "translate": ["pairs.en", "pairs.fr"],
    "generate": ["text.txt"],
    "fill": ["text.txt"],
    "denoise": ["text.txt"],
    "classify": ["labels.tsv"],
    "tag": ["tags.conll"],
}


def sentences(number: int = 60) -> list[str]:
    """Draw sentences, always the same."""
    draw = random.Random(0)
    nouns, verbs = ["the dog", "a cat", "the man"], ["sees", "likes"]
    return [f"{draw.choice(nouns)} {draw.choice(verbs)} {draw.choice(nouns)}" for _ in range(number)]


def write_all(folder: Path) -> Path:
    """Write one small file, or two, for every task."""
    found = sentences()
    (folder / "pairs.en").write_text("\n".join(found) + "\n")
    (folder / "pairs.fr").write_text("\n".join(" ".join(WORDS[w] for w in s.split()) for s in found) + "\n")
    (folder / "text.txt").write_text(".\n".join(found) + ".\n")
    rows = [f"{s}\t{'animal' if 'dog' in s or 'cat' in s else 'other'}" for s in found]
    (folder / "labels.tsv").write_text(
        "text\tlabel\n" + "\n".join([*rows[:-2], "the man likes the man\tother", rows[-1]]) + "\n"
    )
    tagged = [
        "\n".join(f"{w}\t{'B-N' if w in ('dog', 'cat', 'man') else 'O'}" for w in s.split()) for s in found
    ]
    (folder / "tags.conll").write_text("\n\n".join(tagged) + "\n")
    return folder


def measured(run: Path) -> list[dict[str, object]]:
    """Give the lines of metrics.jsonl without what is a time."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("elapsed", "tokens_per_second")} for line in lines]
