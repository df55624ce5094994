"""Every claim, at smoke size: it says what it must, runs, draws, and gives the same numbers again."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import get_args

import pytest

from regard.errors import ConfigError
from regard.lab.claim import SIZES, Claim, Status
from regard.lab.kept import COMMITTED, read_result
from regard.lab.registry import MODULES, claims, find
from regard.lab.runner import run
from regard.lab.table import BEGIN, END, markdown, put_table

REPO = Path(__file__).resolve().parents[2]
REPEATED = [name for name in MODULES if find(name).repeats]


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no curves of the trainings, which nobody looks at here."""
    monkeypatch.setattr("regard.tasks.ending.draw_curves", lambda *_, **__: None)


@pytest.mark.parametrize("claim", claims(), ids=lambda claim: claim.id)
def test_a_claim_says_what_it_must(claim: Claim) -> None:
    assert find(claim.id) is claim and find(claim.id.lower()) is claim
    assert tuple(claim.sizes) == SIZES
    assert claim.question.endswith("?")
    for text in (claim.said, claim.method, claim.refuted_by, claim.fair, claim.tuning):
        assert len(text) > 20 and text.endswith(".")
    for size in claim.sizes.values():
        assert size.seeds >= 2 and set(size.settings) == set(claim.sizes["laptop"].settings)
        assert json.loads(json.dumps(dict(size.settings))) == dict(size.settings), (
            "settings must be plain JSON"
        )


@pytest.mark.parametrize("name", MODULES)
def test_a_claim_runs_and_draws(name: str, tmp_path: Path) -> None:
    claim = find(name)
    result = run(claim, size="smoke", seeds=None if claim.repeats else 1, out=tmp_path)
    assert result["status"] in get_args(Status) and result["verdict"].endswith(".")
    assert result["verdict"].count("\n") == 0 and any(c.isdigit() for c in result["verdict"])
    low, high = result["interval"] or [result["effect"]] * 2
    assert low <= result["effect"] <= high
    for panel in result["figure"]["panels"]:
        assert (panel["x"] and "(" in panel["y"]) or "of" in panel["y"], "an axis says its unit"
        assert all(len(series["x"]) == len(series["points"]) > 0 for series in panel["series"])
    ET.fromstring((tmp_path / name / "figure.svg").read_text())
    assert result["verdict"].split(": ")[0] in (tmp_path / name / "index.html").read_text()


@pytest.mark.parametrize("name", REPEATED)
def test_a_claim_gives_the_same_numbers_again(name: str, tmp_path: Path) -> None:
    first, second = (run(find(name), size="smoke", seeds=1, out=tmp_path / part) for part in ("a", "b"))
    assert first["runs"] == second["runs"] and first["figure"] == second["figure"]


def test_an_unknown_claim_is_refused() -> None:
    with pytest.raises(ConfigError, match="'L99' is no claim of the lab; "):
        find("L99")


@pytest.mark.parametrize("name", [name for name in MODULES if (COMMITTED / name).exists()])
def test_a_committed_result_is_of_this_claim(name: str) -> None:
    """What is committed was measured at laptop size with the settings and words that the claim has now."""
    result, claim = read_result(name, COMMITTED), find(name)
    assert result is not None and result["size"] == "laptop"
    assert result["settings"] == json.loads(json.dumps(dict(claim.sizes["laptop"].settings)))
    assert result["commit"] and not result["commit"].endswith("-dirty")
    assert len(result["seeds"]) >= claim.sizes["laptop"].seeds
    assert sum(result["seconds"]) < 600
    for part in ("question", "method", "refuted_by", "fair", "tuning", "said", "title"):
        assert result[part] == getattr(claim, part)
    finding = claim.conclude(result["runs"], result["settings"])
    assert result["verdict"] == f"{finding.status.capitalize()}: {finding.sentence}"
    assert result["figure"] == json.loads(json.dumps(finding.figure.to_dict()))


def test_no_result_is_of_a_claim_that_is_gone() -> None:
    assert {path.name for path in COMMITTED.glob("*")} <= set(MODULES)


def test_the_document_is_made_from_the_results(tmp_path: Path) -> None:
    path = REPO / "docs" / "lab.md"
    text = path.read_text(encoding="utf-8")
    inside = text.partition(BEGIN)[2].partition(END)[0]
    assert inside.strip() == markdown(COMMITTED, path.parent).strip()
    copy = tmp_path / "lab.md"
    copy.write_text(f"before {BEGIN} old {END} after")
    assert put_table(copy, COMMITTED) and not put_table(copy, COMMITTED)
    assert copy.read_text().startswith("before ") and copy.read_text().endswith(" after")
