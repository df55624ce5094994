"""What each claim concludes from numbers that speak for it, against it, or in part."""

from __future__ import annotations

from typing import Any

import torch

from regard.lab import (
    l05_order,
    l06_linear,
    l07_length,
    l08_heads,
    l09_referent,
    l10_interpretations,
    l11_memory,
    l12_scale,
    l13_pretraining,
    l14_softmax,
)
from regard.lab.learning import generator
from regard.lab.registry import find


def settings(name: str) -> Any:
    return find(name).sizes["laptop"].settings


# L5


def orders(*, none: float = 1e-15, causal: float = 1.0, mirrored: float = 1.0, told: float = 0.5) -> Any:
    def both(encoder: float, decoder: float = 1.0) -> dict[str, dict[str, float]]:
        return {
            "encoder": dict.fromkeys(l05_order.ORDERS, encoder),
            "decoder": dict.fromkeys(l05_order.ORDERS, decoder),
        }

    found = {kind: both(told) for kind in l05_order.KINDS}
    found["none"] = both(none, causal)
    found["alibi"]["encoder"]["mirrored"] = mirrored
    return found


def test_l5_holds_in_part_where_a_mask_tells_the_order() -> None:
    found = l05_order.conclude([orders(), orders()], settings("L5"))
    assert found.status == "holds in part" and "a decoder's mask alone tells the order" in found.sentence
    assert found.effect.mean == 1e-15


def test_l5_names_what_cant_tell_a_mirror_image() -> None:
    found = l05_order.conclude([orders(causal=1e-15, mirrored=1e-15)] * 2, settings("L5"))
    assert found.status == "holds in part" and "mirror image" in found.sentence


def test_l5_holds_where_order_is_lost_everywhere() -> None:
    assert l05_order.conclude([orders(causal=1e-15)] * 2, settings("L5")).status == "holds"


def test_l5_fails_where_one_seed_tells_the_order_or_positions_dont() -> None:
    for found in ([orders(), orders(none=1e-5)], [orders(), orders(told=1e-9)]):
        assert l05_order.conclude(found, settings("L5")).status == "fails"


# L6


def linear(*, known: float = 1e-13, drawn: float = 1.0) -> Any:
    chosen = settings("L6")
    every = [str(k) for k in chosen["offsets"]]
    return {
        "known": dict.fromkeys(every, known), "fitted": dict.fromkeys(every, 1e-13),
        "drawn": dict.fromkeys(every, drawn),
        "single": {str(place): 1e-4 for place in chosen["places"]},
    }  # fmt: skip


def test_l6_holds_where_nothing_is_left_over() -> None:
    assert l06_linear.conclude([linear()] * 3, settings("L6")).status == "holds"


def test_l6_fails_where_something_is_or_any_table_would_do() -> None:
    for found in ([linear(), linear(known=2e-6)], [linear(drawn=1e-9), linear(drawn=1e-9)]):
        assert l06_linear.conclude(found, settings("L6")).status == "fails"


def test_l6s_matrix_turns_by_k_alone() -> None:
    turn = l06_linear.matrix(3, 8)
    assert (turn @ turn.T).allclose(l06_linear.matrix(0, 8))  # it keeps lengths
    assert (turn @ turn).allclose(l06_linear.matrix(6, 8))


# L14


def softmax(*, scaled: float = 0.9, plain: float = 0.05, alike: float = 1e-9, sums: float = 1e-7) -> Any:
    sizes = [str(size) for size in settings("L14")["sizes"]]
    entropy = {"scaled": scaled, "plain": plain, "layer": scaled, "alike": alike, "alike_by_d": 1.0}
    return {
        "sum": sums, "variance": dict.fromkeys(sizes, 1.0),
        **{n: {s: {"entropy": e, "slope": 0.1 + e, "decided": 0.0} for s in sizes} for n, e in entropy.items()},
    }  # fmt: skip


def test_l14_holds_in_part_where_a_fitting_query_saturates_all_the_same() -> None:
    found = l14_softmax.conclude([softmax()] * 2, settings("L14"))
    assert found.status == "holds in part" and abs(found.effect.mean - 0.85) < 1e-12
    assert l14_softmax.conclude([softmax(alike=0.9)] * 2, settings("L14")).status == "holds"


def test_l14_fails_where_the_scale_doesnt_help() -> None:
    for change in ({"scaled": 0.5}, {"plain": 0.9}, {"sums": 1e-3}):
        assert l14_softmax.conclude([softmax(**change)] * 2, settings("L14")).status == "fails"


# L7


def lengths(**changes: tuple[float, float]) -> Any:
    """Give accuracy and loss for every kind, as (accuracy lost, loss risen) beyond the trained length."""
    chosen = settings("L7")
    kept = dict.fromkeys(l07_length.KINDS, (0.0, 0.0)) | {"learned": (0.4, 3.0)} | changes

    def over(at: float, beyond: float) -> dict[str, float]:
        return {str(n): at if n <= chosen["trained"] else beyond for n in chosen["lengths"]}

    return {
        "accuracy": {kind: over(0.95, 0.95 - lost) for kind, (lost, _) in kept.items()},
        "loss": {kind: over(1.5, 1.5 + risen) for kind, (_, risen) in kept.items()},
        "parameters": dict.fromkeys(kept, 1000), "pairs": 2.0,
        "moved": {kind: {"accuracy": 0.9, "loss": 1.6} for kind in kept},
    }  # fmt: skip


def test_l7_holds_where_sinusoids_keep_both_and_learned_positions_neither() -> None:
    found = l07_length.conclude([lengths()] * 3, settings("L7"))
    assert found.status == "holds" and found.effect.mean == 0
    assert found.more["generalise"] == ["none", "sinusoidal", "rotary", "alibi", "t5"]


def test_l7_holds_in_part_where_sinusoids_keep_one_or_lose_less() -> None:
    for change in ((0.0, 2.0), (0.4, 0.0), (0.2, 1.0)):
        found = l07_length.conclude([lengths(sinusoidal=change)] * 3, settings("L7"))
        assert found.status == "holds in part", change


def test_l7_fails_where_sinusoids_do_as_badly_or_learned_positions_as_well() -> None:
    for changes in ({"sinusoidal": (0.41, 3.0)}, {"learned": (0.0, 0.0)}):
        found = l07_length.conclude([lengths(**changes)] * 3, settings("L7"))
        assert found.status == "fails", changes


def test_l7_is_undecided_where_the_task_was_not_learned() -> None:
    found = lengths()
    found["accuracy"]["sinusoidal"] = dict.fromkeys(found["accuracy"]["sinusoidal"], 0.5)
    assert l07_length.conclude([found] * 3, settings("L7")).status == "undecided"


def test_l7_is_undecided_where_counting_pairs_of_words_does_as_well() -> None:
    found = l07_length.conclude([lengths() | {"pairs": 1.4}] * 3, settings("L7"))
    assert found.status == "undecided" and "pairs of words" in found.sentence


def test_l7_takes_no_wide_interval_for_a_loss() -> None:
    seeds = [lengths(learned=(lost, 0.0)) for lost in (0.0, 0.02, 0.12)]
    assert l07_length.conclude(seeds, settings("L7")).status == "undecided", (
        "learned positions may lose nothing"
    )
    seeds = [lengths(sinusoidal=(lost, 3.0), learned=(0.2, 3.0)) for lost in (0.0, 0.1, 0.4)]
    assert l07_length.conclude(seeds, settings("L7")).status == "undecided", "sinusoids may lose nothing"


def test_l7_tells_what_moved_positions_do() -> None:
    found = l07_length.conclude([lengths()] * 3, settings("L7"))
    assert abs(found.more["moved"]["accuracy"]["rotary"] + 0.05) < 1e-12 and "-5.00 points" in found.sentence


def test_two_back_is_balanced_and_right() -> None:
    ids, same = l07_length.two_back(64, 40, 5, generator(1, 2))
    assert bool(((ids[:, 2:] == ids[:, :-2]) == same[:, 2:].bool()).all())
    assert not bool(same[:, :2].any()) and 0.45 < float(same[:, 2:].double().mean()) < 0.55


# L11


def growth(stored: float = 2.0, fused: float = 1.0, looked: float = 1.0) -> Any:
    chosen = settings("L11")
    powers = {"stored": stored, "fused": fused, "looked at": looked}
    every = {
        side: [n for n in chosen["lengths"] if n <= chosen["last"].get(side, n)] for side in l11_memory.SIDES
    }
    return {
        "mib": {side: {str(n): 1e-3 * n ** powers[side] for n in every[side]} for side in every},
        "seconds": {side: {str(n): 1e-9 * n**2 for n in every[side]} for side in every},
        "weights_mib": {str(n): n**2 * 4 / 2**20 for n in chosen["lengths"]},
    }


def test_l11_reads_the_power_of_n() -> None:
    found = l11_memory.conclude([growth()] * 2, settings("L11"))
    assert found.status == "holds" and abs(found.effect.mean - 2) < 1e-9
    assert "131,072 tokens" in found.sentence


def test_l11_fails_or_holds_in_part_where_powers_are_others() -> None:
    for powers, status in (
        ((1.5, 1.0, 1.0), "fails"), ((2.0, 2.0, 2.0), "fails"), ((2.0, 1.0, 1.9), "holds in part")
    ):  # fmt: skip
        assert l11_memory.conclude([growth(*powers)] * 2, settings("L11")).status == status


# L8


def heads(*, cost: float = 0.0, apart: float = 0.4, pronoun: float = 0.2, bleu: float = 3.0) -> Any:
    every = [str(n) for n in settings("L8")["heads"]]
    more = {n: float(n != every[0]) for n in every}
    return {
        "parameters": {n: 1000 * (1 + cost * more[n]) for n in every},
        "bleu": {n: 80 + bleu * more[n] for n in every},
        "pronoun": {n: 0.6 + pronoun * more[n] for n in every},
        "apart": dict.fromkeys(every, apart),
        "fresh": dict.fromkeys(every, 0.1),
        "roles": dict.fromkeys(every, 2),
    }


def test_l8_holds_where_heads_cost_nothing_differ_and_help() -> None:
    found = l08_heads.conclude([heads()] * 3, settings("L8"))
    assert found.status == "holds" and abs(found.effect.mean - 0.3) < 1e-12


def test_l8_holds_in_part_where_they_dont_help_and_fails_where_they_cost_or_are_alike() -> None:
    idle = l08_heads.conclude([heads(pronoun=0.0, bleu=-1.0)] * 3, settings("L8"))
    assert idle.status == "holds in part" and "is not shown" in idle.sentence
    for change in ({"cost": 0.1}, {"apart": 0.1}):
        assert l08_heads.conclude([heads(**change)] * 3, settings("L8")).status == "fails"


def test_heads_that_look_at_other_words_are_a_bit_apart() -> None:
    one = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]])
    assert l08_heads._apart([{"encoder.0": one}]) == 1.0
    assert l08_heads._apart([{"encoder.0": one[:1].expand(3, -1, -1)}]) == 0.0


# L9


def referent(*, it: float = 0.8, best: float = 0.8, without: float = 0.6, another: float = 0.9) -> Any:
    def head(accuracy: float) -> dict[str, Any]:
        fixed = {"chance": 0.5, "first": 0.55, "nearest": 0.6, "all_heads": 0.5}
        return {"where": "encoder.1.2 from `it`", "accuracy": accuracy, "share": 0.4, "n": 400, **fixed}

    quality = {"bleu": 90.0, "pronoun": 0.95}
    return {
        "from_it": head(it), "best": head(best), **quality, "without": without, "without_another": another,
    }  # fmt: skip


def test_l9_holds_where_it_looks_and_the_head_matters() -> None:
    found = l09_referent.conclude([referent()] * 3, settings("L9"))
    assert found.status == "holds" and abs(found.effect.mean - 0.2) < 1e-12


def test_l9_holds_in_part_where_another_row_knows_better_or_the_head_doesnt_matter() -> None:
    elsewhere = l09_referent.conclude([referent(best=0.95)] * 3, settings("L9"))
    assert elsewhere.status == "holds in part" and "a row elsewhere" in elsewhere.sentence
    idle = l09_referent.conclude([referent(without=0.9)] * 3, settings("L9"))
    assert idle.status == "holds in part" and "doesn't explain" in idle.sentence


def test_l9_fails_where_the_nearest_noun_does_as_well() -> None:
    assert l09_referent.conclude([referent(it=0.6)] * 3, settings("L9")).status == "fails"


# L10


def two(one: float, many: float, longer: float, deep: float) -> Any:
    names = list(l10_interpretations.sides(settings("L10")))
    accuracy = dict.fromkeys(names, many) | {names[0]: one, names[-2]: longer, names[-1]: deep}
    return {
        "accuracy": accuracy, "each": {name: [0.9, 0.9] for name in names}, "on": {name: [0.5, 0.5] for name in names},
        "parameters": dict.fromkeys(names, 1000), "rate": {},
    }  # fmt: skip


def test_l10_follows_the_gain_and_what_more_steps_or_a_second_layer_do() -> None:
    for values, status in (
        ((0.5, 0.95, 0.6, 0.6), "holds"), ((0.5, 0.95, 0.6, 0.95), "holds in part"),
        ((0.5, 0.95, 0.95, 0.6), "holds in part"), ((0.95, 0.96, 0.95, 0.5), "fails"), ((0.9, 0.3, 0.9, 0.5), "fails"),
        ((0.1, 0.6, 0.1, 0.1), "undecided"),
    ):  # fmt: skip
        assert l10_interpretations.conclude([two(*values)] * 3, settings("L10")).status == status, values


def test_l10_takes_no_wide_interval_for_a_verdict() -> None:
    found = [two(0.5, many, 0.6, 0.6) for many in (0.45, 0.95, 0.99)]
    assert l10_interpretations.conclude(found, settings("L10")).status == "undecided", (
        "the gain may be nothing"
    )
    found = [two(0.5, 0.95, 0.6, deep) for deep in (0.5, 0.9, 1.0)]
    assert l10_interpretations.conclude(found, settings("L10")).status == "holds in part", (
        "depth may do as well"
    )


def test_l10s_sides_have_equal_parameters() -> None:
    for size in ("laptop", "gpu"):
        chosen = find("L10").sizes[size].settings
        shapes = l10_interpretations.sides(chosen).values()
        counts = [l10_interpretations.config(chosen, shape).num_parameters() for shape in shapes]
        assert max(counts) < 1.05 * min(counts), size


def test_l10s_answers_are_the_symbols_before() -> None:
    chosen = settings("L10")
    ids, answers = l10_interpretations.two_questions(chosen, generator(1), 4)
    near, far = chosen["distances"]
    at = 10
    assert (answers[:, at] == ids[:, at - near] * chosen["symbols"] + ids[:, at - far]).all()


# L12


def law(floor: float = 1.5, a: float = 0.5, b: float = 0.4, noise: float = 0.0) -> Any:
    chosen = settings("L12")
    weights = {str(width): 24 * width**2 for width in chosen["widths"]}
    tokens = [steps * chosen["rows"] * chosen["length"] for steps in chosen["steps"]]
    loss = {
        width: {str(n): floor + 20 * size**-a + 60 * n**-b + noise for n in tokens}
        for width, size in weights.items()
    }
    return {"parameters": weights, "tokens": tokens, "loss": loss}


def test_l12_holds_for_a_power_law_and_finds_it() -> None:
    found = l12_scale.conclude([law(noise=0.01), law(), law(noise=-0.01)], settings("L12"))
    assert found.status == "holds" and found.more["missed"] < 1e-3
    assert abs(found.more["law"]["a"] - 0.5) < 0.11 and abs(found.more["law"]["b"] - 0.4) < 0.11


def test_l12_fails_where_a_step_harms_and_holds_in_part_where_one_brings_nothing() -> None:
    widths = [str(width) for width in settings("L12")["widths"]]
    harmed = law()
    harmed["loss"][widths[-1]] = {n: value + 1 for n, value in harmed["loss"][widths[-2]].items()}
    assert l12_scale.conclude([harmed] * 3, settings("L12")).status == "fails"
    idle = law()
    idle["loss"][widths[-1]] = idle["loss"][widths[-2]]
    assert l12_scale.conclude([idle] * 3, settings("L12")).status == "holds in part"


# L13


def labels(gains: dict[str, float], counted: float = 0.3) -> Any:
    chosen = settings("L13")["labelled"]
    nothing = {str(n): 0.3 + 0.1 * k for k, n in enumerate(chosen)}
    pretrained = {n: value + gains.get(n, 0.0) for n, value in nothing.items()}
    return {
        "accuracy": {"nothing": nothing, "pretrained": pretrained},
        "rate": {},
        "steps": {},
        "counted": dict.fromkeys(nothing, counted),
        "majority": 0.2,
        "labels": 9,
    }


def test_l13_holds_where_few_labels_are_enough() -> None:
    found = l13_pretraining.conclude([labels({"16": 0.35, "64": 0.2})] * 3, settings("L13"))
    assert found.status == "holds" and found.more["worth"] == 64 and abs(found.effect.mean - 0.35) < 1e-12


def test_l13_holds_in_part_or_fails_where_it_brings_less() -> None:
    plain = l13_pretraining.conclude([labels({"16": 0.35, "64": 0.2}, counted=0.7)] * 3, settings("L13"))
    assert plain.status == "holds in part" and "-5.00 points with 16 labels" in plain.sentence
    late = l13_pretraining.conclude([labels({"256": 0.05})] * 3, settings("L13"))
    assert late.status == "holds in part" and "saves no labels" in late.sentence
    soon = l13_pretraining.conclude([labels({"16": 0.15})] * 3, settings("L13"))
    assert soon.status == "holds" and "with 16 labels it is ahead of nothing with 64" in soon.sentence
    none = l13_pretraining.conclude([labels({})] * 3, settings("L13"))
    assert none.status == "fails" and "saves no labels" in none.sentence


def test_l13_takes_no_wide_interval_for_a_failure() -> None:
    found = [labels({"16": gain}) for gain in (0.0, 0.2, 0.05)]
    assert l13_pretraining.conclude(found, settings("L13")).status == "undecided"
    found = [labels({"16": gain}) for gain in (0.0, 0.01, -0.01)]
    assert l13_pretraining.conclude(found, settings("L13")).status == "fails"
