"""What a change does is measured: answers, losses, texts and measures, and every head over a corpus."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.tasks.small import make_parts
from torch import Tensor

from regard.errors import ConfigError
from regard.look.intervene import intervening, off, patch
from regard.look.places import head_names, record_places
from regard.tasks.base import Parts
from regard.tasks.generate import generate
from regard.tasks.looking import Reading, read
from regard.tasks.looking_effects import effect, head_effects
from regard.tasks.score import score

TEXTS = ("the animal", "a dog runs, it was", "too tired")


def small(kind: Any, **changes: Any) -> Parts:
    return make_parts(kind, **changes)


def readings(parts: Parts) -> list[Reading]:
    both = parts.config.kind == "encoder-decoder" and parts.config.head == "lm"
    return [read(parts, text, text[::-1].strip() if both else None) for text in TEXTS]


HEADS: dict[str, tuple[Any, dict[str, Any]]] = {
    "decoder": ("decoder", {}), "encoder": ("encoder", {}), "both": ("encoder-decoder", {}),
    "classify": ("encoder", {"head": "classify", "labels": ("a", "b", "c")}),
    "classify-both": ("encoder-decoder", {"head": "classify", "labels": ("a", "b"), "pooling": "last"}),
    "several": ("encoder", {"head": "classify", "labels": ("a", "b"), "multi_label": True, "pooler": True}),
    "tag": ("encoder", {"head": "tag", "labels": ("O", "B-x")}), "span": ("encoder", {"head": "span"}),
}  # fmt: skip


@pytest.mark.parametrize("head", HEADS)
def test_every_head_has_its_effect(head: str) -> None:
    kind, settings = HEADS[head]
    parts = small(kind, **settings)
    texts = readings(parts)
    told: list[tuple[int, int]] = []
    found = head_effects(parts, texts, progress=lambda done, total: told.append((done, total)))
    names = head_names(parts.config)
    assert sorted(one.name for one in found) == sorted(names)
    assert told == [(i, len(names)) for i in range(1, len(names) + 1)]
    assert [one.change for one in found] == sorted((one.change for one in found), reverse=True)
    for one in found[:2]:
        assert one.n == len(texts)
        assert one.low <= one.change <= one.high
        assert one.change == pytest.approx(one.loss_after - one.loss_before, abs=1e-6)
        alone = [effect(parts, [text], [off(one.name)]) for text in texts]
        assert one.loss_after == pytest.approx(sum(a.loss_after for a in alone) / len(texts), abs=1e-5)
    few = head_effects(parts, texts, heads=[names[0]], how="mean", batch_tokens=1)
    assert few[0].loss_before == pytest.approx(found[0].loss_before, abs=1e-5)
    assert few[0].loss_after != pytest.approx(
        next(f for f in found if f.name == names[0]).loss_after, abs=1e-6
    )


@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
def test_the_loss_is_that_of_the_scores(kind: Any) -> None:
    parts = small(kind)
    texts = readings(parts)
    if kind == "decoder":
        scored = score(parts, TEXTS)
    else:
        scored = score(parts, [text.sides["target"].text for text in texts], source=TEXTS)
    expected = -sum(one.per_token or 0.0 for one in scored) / len(scored)
    found = effect(parts, texts, [off(head_names(parts.config)[0])])
    assert found.loss_before == pytest.approx(expected, abs=1e-5)


def test_an_encoder_is_scored_where_it_is_masked() -> None:
    parts = small("encoder")
    (text,) = [read(parts, TEXTS[1])]
    found = effect(parts, [text], [off("encoder.0.0")])
    assert "every seventh" in found.how
    assert [t.token for t in found.tokens] == [
        i for i, t in enumerate(text.sides["text"].tokens) if not t.special
    ]
    ids = text.inputs[0].clone()
    chosen = [t.token for t in found.tokens][2::7]
    ids[0, chosen] = parts.tokenizer.mask_id or 0
    with torch.no_grad():
        logprobs = parts.module(ids)[0].log_softmax(-1)
    for place in chosen:
        loss = next(t.loss_before for t in found.tokens if t.token == place)
        assert loss == pytest.approx(-float(logprobs[place, text.inputs[0][0, place]]), abs=1e-5)
    given = effect(parts, [text], [off("encoder.0.0")], labels=[{3: 7}])
    with torch.no_grad():
        expected = -float(parts.module(text.inputs[0])[0, 3].log_softmax(-1)[7])
    assert given.loss_before == pytest.approx(expected, abs=1e-5)


def test_labels_are_what_is_right() -> None:
    parts = small("encoder", head="classify", labels=("a", "b", "c"))
    texts = readings(parts)
    found = effect(parts, texts, [off("encoder.0.0")], labels=["b", 1, "c"])
    with torch.no_grad():
        rows = [parts.module(text.inputs[0])[0].log_softmax(-1) for text in texts]
    expected = -float(torch.stack([rows[0][1], rows[1][1], rows[2][2]]).mean())
    assert found.loss_before == pytest.approx(expected, abs=1e-5)
    assert found.n == 3
    for labels, said in ((["b"], "1 labels and 3"), (["b", "d", 1], "no label 'd'"), ([9, 1, 1], "0 to 2")):
        with pytest.raises(ConfigError, match=said):
            effect(parts, texts, [off("encoder.0.0")], labels=labels)
    with pytest.raises(ConfigError, match="labels have no effect"):
        effect(small("decoder"), readings(small("decoder")), [], labels=[1, 1, 1])


@pytest.mark.parametrize("head", HEADS)
def test_no_change_changes_nothing(head: str) -> None:
    kind, settings = HEADS[head]
    parts = small(kind, **settings)
    calls: list[int] = []

    def metric() -> float:
        calls.append(1)
        return 0.5

    writes = None if kind == "encoder" or settings else 4
    found = effect(parts, readings(parts), [], max_tokens=writes, metric=metric)
    assert (found.kl, found.changed, found.change) == (0.0, 0.0, 0.0)
    assert found.metric == (0.5, 0.5)
    assert len(calls) == 2
    assert all(before == after for before, after in found.texts)
    assert len(found.texts) == (3 if writes else 0)


def test_divergence_and_texts_under_a_change() -> None:
    parts = small("decoder")
    (text,) = [read(parts, TEXTS[1])]
    changes = [off("decoder.1"), off("decoder.0.1")]
    found = effect(parts, [text], changes, max_tokens=6, metric=lambda: float(run_ids(parts, text)[0, -1, 3]))
    with torch.no_grad():
        old = run_ids(parts, text)[0].log_softmax(-1)
        with intervening(parts, *changes):
            new = run_ids(parts, text)[0].log_softmax(-1)
    kl = (old.exp() * (old - new)).sum(-1)
    assert [t.kl for t in found.tokens] == pytest.approx(kl.tolist(), abs=1e-5)
    assert found.kl == pytest.approx(float(kl.mean()), abs=1e-5)
    assert found.changed == pytest.approx(float((old.argmax(-1) != new.argmax(-1)).float().mean()))
    assert found.changes == ("without decoder.1", "without decoder.0.1")
    assert found.metric is not None
    assert found.metric[0] != found.metric[1]
    assert not torch.is_inference_mode_enabled()
    ((before, after),) = found.texts
    assert before == generate(parts, [TEXTS[1]], temperature=0.0, max_tokens=6)[0].text
    assert after != before


def run_ids(parts: Parts, text: Reading) -> Tensor:
    with torch.no_grad():
        return parts.module(text.inputs[0])


def test_positions_of_a_text_that_grows_are_refused() -> None:
    parts = small("decoder")
    texts = readings(parts)
    with pytest.raises(ConfigError, match=r"decoder\.1 is changed at positions"):
        effect(parts, texts, [off("decoder.1", positions=[0])], max_tokens=4)
    found = effect(parts, texts, [off("decoder.0.1", positions=[-1])])
    alone = [effect(parts, [text], [off("decoder.0.1", positions=[-1])]) for text in texts]
    assert found.loss_after == pytest.approx(sum(one.loss_after for one in alone) / 3, abs=1e-6)
    both = small("encoder-decoder")
    (text,) = [read(both, TEXTS[1], "it")]
    with torch.no_grad(), record_places(both, "encoder.1") as kept:
        read(both, TEXTS[1][::-1], "it").run(both.module)
    effect(both, [text], [patch("encoder.1", kept)], max_tokens=4)


def test_what_cannot_be_scored_is_refused() -> None:
    parts = small("decoder")
    with pytest.raises(ConfigError, match="no texts"):
        head_effects(parts, [])
    with pytest.raises(ConfigError, match="no head;"):
        head_effects(parts, readings(parts), heads=["decoder.0"])
    with pytest.raises(ConfigError, match="not for heads"):
        head_effects(parts, readings(parts), how="skip")
    bare = small("encoder", head="none")
    with pytest.raises(ConfigError, match="no head: it says nothing"):
        head_effects(bare, readings(bare))
