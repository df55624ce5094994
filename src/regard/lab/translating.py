"""Translators of the demo's world, trained for an experiment in a folder that goes when it ends."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from regard.data.world import Example, World, pronoun_correct
from regard.demo import SCENES, SHAPES, Recipe, translate_all, write_world
from regard.demo_heads import telling
from regard.lab.claim import Settings
from regard.tasks.base import Parts
from regard.tasks.metrics import score_texts

__all__ = ["held_out", "quality", "world_files"]

_MANY = 10**9


@contextmanager
def world_files(seed: int, settings: Settings) -> Iterator[Path]:
    """Write the world's train and valid, of as many sentences as the settings say, and give the folder while it is."""
    recipe = Recipe(primer=settings["primer"], whole=settings["whole"], valid=settings["valid"], test=0)
    with tempfile.TemporaryDirectory(prefix="regard-lab-") as folder:
        yield write_world(Path(folder) / "world", recipe, seed=seed)


def held_out(seed: int, part: str, count: int) -> list[Example]:
    """Give so many sentences of a part whose pronoun tells which noun was meant."""
    found = (e for e in World(seed, SHAPES, SCENES).examples(part, _MANY) if telling([e]))
    return list(islice(found, count))


def quality(parts: Parts, examples: Sequence[Example]) -> dict[str, float]:
    """Translate, and give BLEU and how often the pronoun is right."""
    texts = translate_all(parts, examples, lambda event: None)
    right = [bool(pronoun_correct(e, text)) for e, text in zip(examples, texts, strict=True)]
    bleu: Any = score_texts(texts, [e.target for e in examples]).bleu
    return {"bleu": float(bleu), "pronoun": sum(right) / len(right)}
