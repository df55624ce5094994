"""The error tree, its exit codes, and the nearest neighbour of an unknown word."""

from __future__ import annotations

import pytest

from regard import errors
from regard.errors import suggest


def test_one_parent_catches_all_and_chooses_the_exit_code() -> None:
    kinds = [getattr(errors, name) for name in errors.__all__ if name != "suggest"]
    assert all(issubclass(kind, errors.RegardError) for kind in kinds)
    assert {kind for kind in kinds if kind.exit_code == 1} == {errors.TrainingError}
    assert {kind.exit_code for kind in kinds} == {1, 2}


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert errors.__doc__ is not None
    for name in errors.__all__:
        if name != "suggest":
            assert f"{name}  " in errors.__doc__


@pytest.mark.parametrize(
    ("name", "choices", "said"),
    [
        ("rotory", ["rotary", "learned"], "did you mean 'rotary'?"),
        ("ROTARY", ["learned", "Rotary"], "did you mean 'Rotary'?"),
        ("--beems", ["--beams", "--seed"], "did you mean '--beams'?"),
        ("zzz", ["rotary"], ""),
        ("", ["rotary"], ""),
        ("x", [], ""),
    ],
)
def test_suggest(name: str, choices: list[str], said: str) -> None:
    assert suggest(name, choices) == said
    assert suggest(name, iter(choices)) == said
