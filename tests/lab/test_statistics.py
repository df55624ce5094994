"""Means, intervals and how numbers are written."""

from __future__ import annotations

import math
import statistics

import pytest

from regard.lab.statistics import Estimate, difference, estimate, number, student


@pytest.mark.parametrize(
    ("freedom", "border"),
    [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (30, 2.042), (1000, 1.962)],
)
def test_students_borders_are_those_of_the_tables(freedom: int, border: float) -> None:
    """Fisher and Yates, table III, two-sided 5 %."""
    assert student(freedom) == pytest.approx(border, abs=6e-4)


def test_another_confidence_has_another_border() -> None:
    assert student(9, 0.99) == pytest.approx(3.250, abs=6e-4)


def test_an_interval_is_the_mean_and_students_border_times_its_error() -> None:
    values = [1.0, 2.0, 4.0, 7.0]
    found = estimate(values)
    half = student(3) * statistics.stdev(values) / 2
    assert found == Estimate(3.5, pytest.approx(3.5 - half), pytest.approx(3.5 + half), 4)


def test_one_value_has_no_interval_and_is_judged_by_itself() -> None:
    found = estimate([2.0])
    assert found.interval is None and found.above(1.9) and not found.above(2.0) and found.below(2.1)


def test_a_border_within_the_interval_is_neither_above_nor_below() -> None:
    found = estimate([0.0, 1.0, 2.0])
    assert not found.above(0.5) and not found.below(1.5)


def test_differences_are_taken_seed_by_seed() -> None:
    noisy = [10.0, -20.0, 5.0]
    found = difference([x + 1 for x in noisy], noisy)
    assert found.mean == pytest.approx(1) and found.interval == pytest.approx((1, 1))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.12345, "0.123"), (12.345, "12.3"), (123.4, "123"), (12345.6, "12,346"), (1.234e-7, "1.23e-07"),
     (-0.5, "-0.500"), (math.inf, "inf")],
)  # fmt: skip
def test_a_number_is_short(value: float, text: str) -> None:
    assert number(value) == text


def test_a_text_has_mean_interval_and_unit() -> None:
    assert estimate([0.5, 0.5]).text("%", 3, 100) == "50.0 %"
    assert estimate([0.4, 0.6]).text("%", 3, 100) == "50.0 [-77.1, 177] %"
