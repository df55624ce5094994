"""What each claim concludes from numbers that speak for it, against it, or in part."""

from __future__ import annotations

from typing import Any

from regard.lab import l05_order, l06_linear, l07_length, l11_memory, l14_scale
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
    found = l14_scale.conclude([softmax()] * 2, settings("L14"))
    assert found.status == "holds in part" and abs(found.effect.mean - 0.85) < 1e-12
    assert l14_scale.conclude([softmax(alike=0.9)] * 2, settings("L14")).status == "holds"


def test_l14_fails_where_the_scale_doesnt_help() -> None:
    for change in ({"scaled": 0.5}, {"plain": 0.9}, {"sums": 1e-3}):
        assert l14_scale.conclude([softmax(**change)] * 2, settings("L14")).status == "fails"


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
        "parameters": dict.fromkeys(kept, 1000),
    }


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
