"""What tokens contribute: against autograd, sums that are known, and taking tokens away."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.tasks.small import make_parts
from torch import Tensor
from torch.testing import assert_close

from regard.errors import ConfigError
from regard.look.attribution import Attribution, Instead, attribute
from regard.look.flow import Target
from regard.look.occlusion import _spearman, check_attribution, occlude
from regard.tasks.base import Parts
from regard.tasks.looking import Reading, read
from regard.tasks.looking_targets import absent_token, target_of

KINDS = ("encoder", "decoder", "encoder-decoder")
TEXT, TARGET = "a dog runs, it", "a cat"


def small(kind: Any, **changes: Any) -> Parts:
    return make_parts(kind, **changes)


def reading_of(parts: Parts) -> Reading:
    return read(parts, TEXT, TARGET if parts.config.kind == "encoder-decoder" else None)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_times_input_is_autograds(kind: str) -> None:
    parts = small(kind)
    module: Any = parts.module
    reading = reading_of(parts)
    aim = Target(answer=9, row=2)
    found = attribute(parts, reading, aim, "gradient")
    tables = [module.embedding] if kind != "encoder-decoder" else [module.embedding, module.target_embedding]
    kept: list[Tensor] = []

    def keep(table: Any, given: Any, out: Tensor) -> None:
        out.retain_grad()
        kept.append(out)

    hooks = [table.register_forward_hook(keep) for table in dict.fromkeys(tables)]
    states = reading.run(module)
    for hook in hooks:
        hook.remove()
    stacks = (module.encoder, module.decoder) if kind == "encoder-decoder" else (module.stack,)
    aim(module, states).sum().backward()
    for ids, values, stack, ours in zip(reading.inputs, kept, stacks, found.values.values(), strict=True):
        given = stack.position.add(values, torch.arange(ids.shape[1]))
        assert values.grad is not None
        assert_close(ours, (given * values.grad).sum(-1)[0].detach(), atol=1e-5, rtol=1e-4)
    assert found.target == pytest.approx(float(module.head(states)[0, 2, 9].detach()), abs=1e-5)


@pytest.mark.parametrize("instead", [Instead(), Instead("zero"), Instead(id=9)])
@pytest.mark.parametrize("kind", KINDS)
def test_integrated_gradients_add_up(kind: str, instead: Instead) -> None:
    # Without kinks, and for the zero vector without a norm that comes first, the sums converge quickly.
    placement = "post" if instead.how == "zero" else "pre"
    parts = small(kind, num_layers=1, activation="gelu", norm_placement=placement)
    module: Any = parts.module
    with torch.no_grad():
        for weight in module.parameters():
            weight.mul_(0.5 if weight.ndim > 1 else 1.0)  # a gentler line
    reading, aim = reading_of(parts), Target(answer=9, row=-1)
    found = attribute(parts, reading, aim, instead=instead, steps=200)
    inputs = [ids.clone() for ids in reading.inputs]
    for ids, side in zip(inputs, reading.sides.values(), strict=True):
        ids[0, [not token.special for token in side.tokens]] = 9 if instead.id else 0
    with torch.no_grad():
        number = float(aim(module, reading.run(module)))
        base = float(aim(module, module.hidden(*inputs)))
    total = sum(float(values.sum()) for values in found.values.values())
    if instead.how == "replace":
        assert total == pytest.approx(number - base, abs=1e-3)
    assert found.target == pytest.approx(number, abs=1e-5)
    assert found.gap is not None
    assert found.gap < 1e-3
    for side, values in zip(reading.sides.values(), found.values.values(), strict=True):
        assert all(v == 0 for v, token in zip(values.tolist(), side.tokens, strict=True) if token.special)
    few = attribute(parts, reading, aim, instead=instead, steps=1)
    assert few.gap is not None
    assert few.gap > found.gap


@pytest.mark.parametrize("how", ["replace", "zero", "leave out"])
@pytest.mark.parametrize("kind", KINDS)
def test_occlusion_is_what_is_lost_without_a_token(kind: str, how: Any) -> None:
    parts = small(kind, position="rotary")
    module: Any = parts.module
    reading, aim = reading_of(parts), Target(answer=9, row=2)
    instead = Instead(how, 11 if how == "replace" else None)
    found = occlude(parts, reading, aim, instead=instead)
    name, ids = next(iter(reading.sides)), reading.inputs[0]
    with torch.no_grad():
        whole = float(aim(module, reading.run(module)))
        for j in (1, 2, 4):
            row, rest = 2, list(reading.inputs[1:])
            if how == "leave out":
                changed = torch.cat([ids[:, :j], ids[:, j + 1 :]], 1)
                if not rest:
                    row -= j < 2
            else:
                changed = ids.clone()
                changed[0, j] = 11
            if how == "zero":
                kept = module.embedding.weight[11].clone()
                module.embedding.weight[11] = 0
            value = float(module.head(module.hidden(changed, *rest))[0, row, 9])
            if how == "zero":
                module.embedding.weight[11] = kept
            got = float(found.values[name][j])
            if how == "leave out" and not rest and j == 2:
                assert math.isnan(got)
            elif how != "zero" or parts.config.head != "lm" or not parts.config.tie_embeddings:
                assert got == pytest.approx(whole - value, abs=1e-5)
    assert float(found.values[name][0]) == 0 or not reading.sides[name].tokens[0].special
    assert found.target == pytest.approx(whole, abs=1e-5)


def test_what_a_model_ignores_contributes_nothing() -> None:
    parts = small("decoder", num_layers=2)
    module: Any = parts.module
    reading = reading_of(parts)
    with torch.no_grad():  # no token can look at another one: only the row itself is left
        for block in module.stack.blocks:
            block.attention.output.weight.zero_()
    target = Target(answer=5, row=6)
    for method in ("gradient", "integrated"):
        values = attribute(parts, reading, target, method).values["text"]
        assert not values[torch.arange(len(values)) != 6].any()
    lost = occlude(parts, reading, target).values["text"]
    assert float(lost[torch.arange(len(lost)) != 6].abs().max()) < 1e-6
    assert abs(float(lost[6])) > 1e-3
    best = attribute(parts, reading, target, "gradient-attention").values["text"]
    assert not best.any()
    later = attribute(small("decoder"), reading, target, "gradient").values["text"]
    assert not later[7:].any()  # what stands behind a causal row
    assert later[:7].any()


@pytest.mark.parametrize("method", ["gradient", "integrated", "gradient-attention", "rollout"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_check_sets_an_attribution_beside_chance(kind: str, method: Any) -> None:
    parts = small(kind)
    reading, target = reading_of(parts), Target(answer=9, row=2)
    found = attribute(parts, reading, target, method)
    for instead in (Instead(), Instead("zero"), Instead("leave out")):
        checked = check_attribution(parts, reading, target, found, k=2, draws=20, instead=instead)
        assert -1 <= checked.correlation <= 1
        assert 0 <= checked.beaten <= 1
        assert checked.k == 2
        with torch.no_grad():
            logits = parts.module.head(reading.run(parts.module))[0, 2]  # type: ignore[operator]
        assert checked.probability == pytest.approx(float(logits.softmax(-1)[9]), abs=1e-5)
        again = check_attribution(parts, reading, target, found, k=2, draws=20, instead=instead)
        assert again == checked
    assert len(found.top(3)) == 3


def test_a_true_attribution_is_trusted_and_a_false_one_is_not() -> None:
    parts = small("encoder")
    reading, target = reading_of(parts), Target(answer=9, row=2, log=True)
    real = occlude(parts, reading, target)
    best = check_attribution(parts, reading, target, real, k=1)
    assert best.correlation == pytest.approx(1.0)
    assert best.beaten > 0.8
    turned = Attribution({"text": -real.values["text"]}, real.columns, real.target, "mine", "turned round")
    worst = check_attribution(parts, reading, target, turned, k=1)
    assert worst.correlation == pytest.approx(-1.0)
    assert worst.drop_top < best.drop_top
    # k of one token: the drop is that token's own
    (name, word, _), *_ = real.top(1)
    ids = reading.inputs[0].clone()
    ids[0, word.start] = 0
    with torch.no_grad():
        less = float(target.probability(parts.module, parts.module.hidden(ids)))  # type: ignore[operator]
    assert name == "text"
    assert best.drop_top == pytest.approx(best.probability - less, abs=1e-6)


def test_ranks_are_spearmans() -> None:
    one = torch.tensor([1.0, 2.0, 2.0, 5.0, -1.0])
    other = torch.tensor([0.0, 3.0, 1.0, 9.0, 1.0])
    # ranks 2 3.5 3.5 5 1 and 1 4 2.5 5 2.5; Pearson's of these by hand: 7.25 / sqrt(9.5 · 9.5)
    assert _spearman(one, other) == pytest.approx(7.25 / 9.5)
    assert math.isnan(_spearman(one, torch.ones(5)))


HEADS: dict[str, tuple[Any, dict[str, Any]]] = {
    "classify": ("encoder", {"head": "classify", "labels": ("a", "b", "c")}),
    "both": ("encoder-decoder", {"head": "classify", "labels": ("a", "b"), "pooling": "last"}),
    "several": ("encoder", {"head": "classify", "labels": ("a", "b"), "multi_label": True, "pooler": True}),
    "tag": ("encoder", {"head": "tag", "labels": ("O", "B-x")}), "span": ("encoder", {"head": "span"}),
}  # fmt: skip


@pytest.mark.parametrize("head", HEADS)
def test_answers_of_every_head_are_explained(head: str) -> None:
    kind, settings = HEADS[head]
    parts = small(kind, **settings)
    reading = read(parts, TEXT)
    target = Target(answer=1, row=2, log=True)
    with torch.no_grad():
        hidden = reading.run(parts.module)
        logits = parts.module(*reading.inputs[:1])
        probability = float(target.probability(parts.module, hidden))
    if head == "several":
        expected = logits[0, 1].sigmoid()
    elif head == "span":
        expected = logits[0, :, 1].softmax(0)[2]
    else:
        expected = (logits[0, 2] if head == "tag" else logits[0]).softmax(-1)[1]
    assert probability == pytest.approx(float(expected), abs=1e-6)
    found = attribute(parts, reading, target, "integrated", steps=8)
    checked = check_attribution(parts, reading, target, found, k=2, draws=5, instead=Instead("leave out"))
    assert checked.n > 5


def test_an_answer_is_named_in_words() -> None:
    parts = small("decoder")
    reading = reading_of(parts)
    side = reading.sides["text"]
    with torch.no_grad():
        logits = parts.module(reading.inputs[0])[0]
    dog = side.find("dog").start
    assert target_of(parts, reading, "dog") == Target(side.ids[dog], dog - 1, log=True)
    assert target_of(parts, reading, log=False) == Target(int(logits[-1].argmax()), len(side.ids) - 1)
    assert target_of(parts, reading, 3, "t").answer == parts.tokenizer.encode_part("t", first=False)[0]
    for call, said in (
        (lambda: target_of(parts, reading, 0), "nothing stands before"),
        (lambda: target_of(parts, reading, 3, "two"), "3 tokens"),
        (lambda: target_of(parts, reading, "cat"), "no word 'cat'"),
    ):
        with pytest.raises(ConfigError, match=said):
            call()
    both = small("encoder-decoder")
    written = reading_of(both).sides["target"]
    cat = written.find("cat").start
    assert target_of(both, reading_of(both), "cat") == Target(written.ids[cat], cat - 1, log=True)
    encoder = small("encoder")
    with pytest.raises(ConfigError, match="0 masks"):
        target_of(encoder, reading_of(encoder))
    assert target_of(encoder, reading_of(encoder), 3, 7) == Target(7, 3, log=True)
    assert absent_token(encoder) == Instead("replace", encoder.tokenizer.mask_id)
    assert absent_token(parts) == Instead()
    named = small("encoder", head="classify", labels=("good", "bad"))
    assert target_of(named, reading_of(named), answer="bad").answer == 1
    with pytest.raises(ConfigError, match="did you mean 'good'"):
        target_of(named, reading_of(named), answer="god")
    with pytest.raises(ConfigError, match="whole text"):
        target_of(named, reading_of(named), 2)
    span = small("encoder", head="span")
    assert target_of(span, reading_of(span), 4, "end") == Target(1, 4, log=True)
    with pytest.raises(ConfigError, match="'start' or its 'end'"):
        target_of(span, reading_of(span), 4)


def test_settings_without_effect_are_refused() -> None:
    parts = small("decoder")
    reading, target = reading_of(parts), Target(answer=9)
    for call, said in (
        (lambda: attribute(parts, reading, target, "gradient", steps=4), "have no effect on 'gradient'"),
        (lambda: attribute(parts, reading, target, "best"), "not one of"),  # type: ignore[arg-type]
        (lambda: attribute(parts, reading, lambda m, h: h.sum((1, 2)), "rollout"), "give a Target"),
        (lambda: attribute(parts, reading, target, instead=Instead("leave out")), "needs steps"),
        (
            lambda: occlude(parts, reading, lambda m, h: h.sum((1, 2)), instead=Instead("leave out")),
            "give a Target",
        ),
        (lambda: occlude(parts, reading, target, instead=Instead(id=10**6)), "no token 1000000"),
        (lambda: occlude(parts, reading, Target(answer=9, row=99)), "there is no row 99"),
        (lambda: occlude(parts, reading, Target(answer=10**6)), "there is no 1000000"),
        (
            lambda: check_attribution(parts, reading, target, occlude(parts, reading, target), k=0),
            "nothing to take",
        ),
    ):
        with pytest.raises(ConfigError, match=said):
            call()
    number = occlude(parts, reading, lambda m, h: h.sum((1, 2)))
    assert number.values["text"].any()
