"""L6: the sinusoidal encoding of position p + k is a linear function of that of p."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from regard.lab.claim import Claim, Figure, Finding, Measured, Panel, Report, Series, Settings, Size
from regard.lab.statistics import estimate, number
from regard.nn.positions import Sinusoidal

EXACT = 1e-6
_NOISE = 1e-12  # of a fit by least squares


def encode(positions: Tensor, width: int) -> Tensor:
    """Compute the encoding in double precision; the library's own is the same in single.

    Source: Vaswani et al. 2017, section 3.5.
    """
    angles = positions.double()[:, None] / 10_000 ** (torch.arange(0, width, 2).double() / width)
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(-2)


def matrix(offset: int, width: int) -> Tensor:
    """Give M_k, (D, D): sines and cosines of k alone, which turn each pair of coordinates.

    sin(a + b) = sin a cos b + cos a sin b,   cos(a + b) = cos a cos b - sin a sin b
    """
    sine, cosine = encode(torch.tensor([offset]), width)[0].unflatten(0, (-1, 2)).unbind(-1)
    turns = torch.stack((torch.stack((cosine, sine), -1), torch.stack((-sine, cosine), -1)), -2)
    return torch.block_diag(*turns)


def measure(seed: int, settings: Settings, report: Report) -> Measured:
    """Measure what M_k leaves over, and what the best matrix leaves over for encodings without that structure."""
    width, count = settings["width"], settings["positions"]
    places = torch.arange(count + max(settings["offsets"]))
    exact, single = encode(places, width), Sinusoidal(width).encode(places).double()
    drawn = torch.randn(
        len(places), width, dtype=torch.float64
    )  # a table as before training, of the same size
    drawn = drawn * exact.pow(2).mean().sqrt()
    mixed = torch.randperm(count)
    # Even and odd halves of a random order: what is fitted on one is measured on the other.
    fitted_on, measured_on = mixed[: count // 2], mixed[count // 2 :]
    found: Measured = {"known": {}, "fitted": {}, "drawn": {}, "single": {}}
    for offset in settings["offsets"]:
        known = matrix(offset, width)
        moved = exact[:count] @ known.T
        found["known"][str(offset)] = _largest(moved - exact[offset : offset + count])
        for name, table in (("fitted", exact), ("drawn", drawn)):
            best = torch.linalg.lstsq(table[fitted_on], table[fitted_on + offset], driver="gelsd").solution
            left = table[measured_on] @ best - table[measured_on + offset]
            # What is less, or in later digits, is rounding, which isn't the same every time.
            found[name][str(offset)] = max(_NOISE, float(f"{_rms(left) / _rms(table):.6g}"))
    last = settings["offsets"][-1]
    left = (single[:count] @ matrix(last, width).T - single[last : last + count]).abs().amax(-1)
    for place in settings["places"]:
        found["single"][str(place)] = float(left[: place + 1].max())
    return found


def _largest(values: Tensor) -> float:
    return float(values.abs().max())


def _rms(values: Tensor) -> float:
    return float(values.pow(2).mean().sqrt())


def conclude(found: Sequence[Measured], settings: Settings) -> Finding:
    """Say whether a matrix of k alone gives the encoding k places on."""
    offsets = settings["offsets"]
    worst = [max(one["known"].values()) for one in found]
    drawn = estimate([min(one["drawn"].values()) for one in found])
    single = estimate([max(one["single"].values()) for one in found])
    holds = max(worst) < EXACT and drawn.above(0.1)
    sentence = (
        f"one matrix for each distance moves all of {settings['positions']:,} positions to within "
        f"{number(max(worst), 2)}, while the best one for a drawn table leaves {drawn.text('%', 3, 100)} of it "
        f"over; in single precision rounding of the angles leaves {number(single.mean, 2)} at the last position"
    )
    if not holds:
        sentence = (
            f"the matrix of a distance leaves up to {number(max(worst), 2)} over, the best one for a drawn table "
            f"{drawn.text('%', 3, 100)}"
        )

    def series(name: str, label: str, *, baseline: bool = False) -> Series:
        return Series(
            label, tuple(float(k) for k in offsets),
            tuple(estimate([max(one[name][str(k)], 1e-17) for one in found]) for k in offsets), baseline,
        )  # fmt: skip

    panels = (
        Panel(
            "What a matrix leaves over, by distance", "distance k (positions)", "residual (size of the encoding = 1)",
            (
                series("known", "sinusoids, the matrix of the sum rules (largest)"),
                series("fitted", "sinusoids, fitted on half of the positions"),
                series("drawn", "a drawn table, fitted on half", baseline=True),
            ),
            x_log=True, y_log=True,
        ),
        Panel(
            f"In single precision, k = {offsets[-1]:,}", "positions up to", "largest residual (absolute)",
            (
                Series(
                    "the library's encoding", tuple(float(place) for place in settings["places"]),
                    tuple(estimate([one["single"][str(p)] for one in found]) for p in settings["places"]),
                ),
            ),
            x_log=True, y_log=True,
        ),
    )  # fmt: skip
    return Finding(
        "holds" if holds else "fails", f"{sentence}.", estimate(worst),
        "the largest residual of PE(p + k) - M_k PE(p), absolute, in double precision",
        Figure(
            "Left: the rule of the sum of angles gives a matrix that knows k alone, exact for every p; a table "
            "without "
            "that structure has none. Right: angles grow with the position, and so does their rounding.", panels,
        ),
        {"single_precision": single.mean, "drawn_table": drawn.mean},
    )  # fmt: skip


CLAIM = Claim(
    id="L6",
    title="Sinusoids turn",
    said="The encoding of p + k is a linear function of the encoding of p, so a model can learn to look k places away.",
    question="Is there one matrix for each distance k that turns every position's encoding into the one k places on?",
    method=(
        "The matrix follows from the sum rules of sine and cosine: for each pair of coordinates a turn by k times "
        "its frequency. It is applied to the encoding of every position, in double precision. Beside it the best "
        "matrix by least squares, fitted on one half of the positions and measured on the other, for the sinusoids "
        "and for a table of drawn numbers; and the library's own encoding in single precision."
    ),
    refuted_by=(
        "A residual of more than 1e-6 at any position and distance; or a drawn table for which a matrix does as "
        "well, which would make it no property of sinusoids."
    ),
    fair="All encodings have the same width, positions and size; the drawn table gets the better, fitted matrix.",
    tuning="None: nothing is trained. The fits are exact least squares.",
    sizes={
        "laptop": Size(
            5,
            {
                "width": 128,
                "positions": 8192,
                "offsets": [1, 4, 16, 64, 256, 1024],
                "places": [16, 64, 256, 1024, 4096, 8191],
            },
        ),
        "gpu": Size(
            20,
            {
                "width": 512,
                "positions": 65_536,
                "offsets": [1, 4, 16, 64, 256, 1024, 4096],
                "places": [16, 256, 4096, 65_535],
            },
        ),
        "smoke": Size(2, {"width": 16, "positions": 128, "offsets": [1, 8], "places": [16, 127]}),
    },
    measure=measure,
    conclude=conclude,
)
