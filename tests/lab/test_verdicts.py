"""What each claim concludes from numbers that speak for it, against it, or in part."""

from __future__ import annotations

from typing import Any

from regard.lab import l05_order, l06_linear, l14_scale
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
