"""Denoising: T5's sentinels beyond the tokenizer's ids, BART's noise with masks; the same damage at every measure."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.tasks.small import SENTENCES, TEXT, make_parts

from regard.data.denoising import DenoiseBART, DenoiseT5
from regard.tasks.base import Parts, Stores
from regard.tasks.denoise import NUM_SENTINELS, DenoiseTask
from regard.tasks.translate import translate

TASK = DenoiseTask()
ROWS = [{"text": TEXT}]


def restorer(position: str) -> Parts:
    config = make_parts("encoder-decoder", position=position).config
    return make_parts("encoder-decoder", position=position, extra=TASK.extra_tokens(config))


def stored(parts: Parts, folder: Path) -> Stores:
    TASK.encode(ROWS, parts.tokenizer, parts.config, folder)
    return TASK.open_stores(folder)


@pytest.mark.parametrize(("position", "kind"), [("t5", DenoiseT5), ("sinusoidal", DenoiseBART)])
def test_the_damage_follows_the_family_and_the_measure_is_always_the_same(
    tmp_path: Path, position: str, kind: type
) -> None:
    parts = restorer(position)
    extra = parts.config.vocab_size - parts.tokenizer.vocab_size
    assert extra == (NUM_SENTINELS if position == "t5" else 0)
    stores = stored(parts, tmp_path)
    examples = TASK.objective(stores, parts.tokenizer, parts.config, seed=0)
    assert isinstance(examples, kind)
    first = TASK.evaluate(parts, ROWS, stores, quick=False).metrics
    assert first == TASK.evaluate(parts, ROWS, stores, quick=False).metrics
    assert first["nats"] > 0
    assert TASK.evaluate(parts, ROWS, stores, quick=True, should_stop=lambda: True).metrics["nats"] > 0


def test_a_restored_text_never_holds_a_sentinel() -> None:
    for found in translate(restorer("t5"), SENTENCES, beams=2, max_tokens=8):
        assert len(found.text) == found.tokens - found.finished
