"""The house rules: quick start-up, documented names, imports that point down, documents that are true."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import json
import os
import pkgutil
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import regard
from regard.cli import VERBS, parse

REPO = Path(__file__).resolve().parents[1]
SOURCE = REPO / "src" / "regard"
DOCUMENTS = sorted([*REPO.glob("*.md"), *REPO.glob("docs/**/*.md"), *REPO.glob("benchmarks/*.md")])
MODULES = ["regard", *(found.name for found in pkgutil.walk_packages([str(SOURCE)], "regard."))]


def loaded_by(program: str) -> set[str]:
    """Run a program in a new interpreter and return the modules that it loaded beyond a bare one."""
    text = (
        f"import sys; sys.path.insert(0, {str(REPO / 'src')!r}); before = set(sys.modules)\n"
        "import contextlib, io, json\n"
        f"with contextlib.redirect_stdout(io.StringIO()):\n    {program}\n"
        "print(json.dumps({name: getattr(module, '__file__', None) or '' "
        "for name, module in sys.modules.items() if name not in before}))"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def roots(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def not_of_the_standard_library(modules: set[str]) -> set[str]:
    return roots(modules) - set(sys.stdlib_module_names) - {"regard", "sitecustomize"}


def test_import_loads_nothing_else() -> None:
    loaded = loaded_by("import regard")
    assert not not_of_the_standard_library(loaded)
    assert {name for name in loaded if name.startswith("regard")} == {"regard"}


@pytest.mark.parametrize("switch", ["enable", "disable"])
def test_a_public_name_leaves_garbage_to_whom_it_was_left(switch: str) -> None:
    program = (
        f"import gc; gc.{switch}(); import regard; regard.load; import torch; print(gc.isenabled())\n"
        "class Thing: pass\n"
        "import weakref; one = Thing(); one.self = one; gone = weakref.ref(one); del one; gc.collect()\n"
        "print(gone() is None)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(switch == "enable"), "True"]


@pytest.mark.parametrize("words", [[], ["--help"], ["--version"]])
def test_the_root_command_loads_only_itself(words: list[str]) -> None:
    loaded = loaded_by(f"from regard.cli import main; main({words!r})")
    assert not not_of_the_standard_library(loaded)
    assert {name for name in loaded if name.startswith("regard")} == {"regard", "regard.cli", "regard.errors"}
    if words != ["--version"]:
        assert not {"asyncio", "dataclasses", "difflib", "inspect", "importlib.metadata"} & loaded


@pytest.mark.parametrize("verb", VERBS)
def test_a_verbs_help_loads_no_torch(verb: str) -> None:
    loaded = roots(loaded_by(f"from regard.cli import main; assert main([{verb!r}, '--help']) == 0"))
    assert not {"torch", "numpy", "tokenizers", "matplotlib", "pyarrow", "sacrebleu"} & loaded


def test_the_public_names_are_the_table() -> None:
    assert set(regard.__all__) <= set(dir(regard))
    assert len(regard.__all__) == len(set(regard.__all__))
    with pytest.raises(AttributeError, match="nonsense"):
        regard.nonsense  # noqa: B018


@pytest.mark.parametrize("name", sorted(regard.__all__))
def test_a_public_name_exists_and_has_a_docstring(name: str) -> None:
    value = getattr(regard, name)
    assert not inspect.ismodule(value), f"regard.{name} is hidden by a module of that name"
    if name != "__version__":
        assert (value.__doc__ or "").strip(), f"regard.{name} has no docstring"
        assert not re.match(rf"{name}\(.*\)", value.__doc__), f"regard.{name} has only a generated docstring"
    assert getattr(regard, name) is value


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_of_a_module_has_a_docstring(module: str) -> None:
    if module == "regard.__main__":
        return
    loaded = importlib.import_module(module)
    assert (loaded.__doc__ or "").strip(), f"{module} has no docstring"
    if module != "regard":
        for name in getattr(loaded, "__all__", []):
            assert hasattr(loaded, name), f"{module}.__all__ names {name}, which is not there"
    for name, value in vars(loaded).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module:
            continue
        if inspect.isfunction(value):
            assert inspect.getdoc(value), f"{module}.{name} has no docstring"
        elif inspect.isclass(value):
            assert value.__doc__, f"{module}.{name} has no docstring"
            for member, function in vars(value).items():
                if inspect.isfunction(function) and not member.startswith("_"):
                    assert inspect.getdoc(getattr(value, member)), (
                        f"{module}.{name}.{member} has no docstring"
                    )


def test_imports_point_down() -> None:
    lint = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", lint, "--no-cache", "--no-logo"],
        cwd=REPO,
        env={**os.environ, "PYTHONPATH": str(REPO / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_is_short_enough_to_read(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize(
    "path", [*DOCUMENTS, *sorted(SOURCE.rglob("*.py"))], ids=lambda path: str(path.relative_to(REPO))
)
def test_no_absolute_path_is_named(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"(?<![\w./:])/(?:home|root|work|tmp|Users|opt|usr|mnt)/[\w.-]*|[A-Z]:\\\\", text)
    assert not found, f"{path.name} names {found[0]}"


def code_blocks(path: Path) -> Iterator[list[str]]:
    """Give the lines of every shell block of a document, with continued lines joined."""
    for block in re.findall(
        r"^```(?:sh|bash|console|shell)\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S
    ):
        yield block.replace("\\\n", " ").splitlines()


def commands(program: str) -> list[tuple[str, str, list[str]]]:
    """Find the calls of a program in all documents: document, line, and the words after the program."""
    found = []
    for path in DOCUMENTS:
        for line in (line for block in code_blocks(path) for line in block):
            lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="|&;<>")
            lexer.whitespace_split = True
            calls: list[list[str]] = [[]]
            redirected = False
            for token in lexer:
                if set(token) <= set("<>"):
                    redirected = True
                elif set(token) <= set("|&;"):
                    calls.append([])
                elif redirected:
                    redirected = False
                else:
                    calls[-1].append(token)
            found += [
                (path.name, line, call[1:])
                for call in calls
                if call and call[0].removeprefix(".venv/bin/") == program
            ]
    return found


def test_the_readme_shows_the_verbs() -> None:
    shown = {words[0] for name, _, words in commands("regard") if name == "README.md" and words}
    assert set(VERBS) <= shown


@pytest.mark.parametrize(
    ("name", "line", "words"),
    commands("regard"),
    ids=lambda value: "" if isinstance(value, list) else str(value),
)
def test_a_documented_command_is_one_that_the_command_line_takes(
    name: str, line: str, words: list[str]
) -> None:
    if words and not words[0].startswith("-"):
        assert words[0] in VERBS, f"{name}: no verb {words[0]}"
        parse(words)


def test_documented_make_targets_exist() -> None:
    makefile = (REPO / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.M))
    assert {"demo", "test", "check", "bench", "venv"} <= targets
    for name, _, words in commands("make"):
        assert {word for word in words if "=" not in word} <= targets, name
    for path in DOCUMENTS:
        for target in re.findall(r"`make ([a-z]+)`", path.read_text(encoding="utf-8")):
            assert target in targets, f"{path.name}: no target {target}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_architecture_names_what_is_there() -> None:
    text = (REPO / "ARCHITECTURE.md").read_text(encoding="utf-8").partition("## Planned")[0]
    named = set(re.findall(r"`([\w./-]+(?:\.py|\.md|\.toml|/))`", text))
    assert named
    missing = {name for name in named if not ((SOURCE / name).exists() or (REPO / name).exists())}
    assert not missing, f"ARCHITECTURE.md names {sorted(missing)}"
    rooms = {path.name + "/" for path in SOURCE.iterdir() if (path / "__init__.py").exists()}
    assert rooms <= named, f"ARCHITECTURE.md says nothing of {sorted(rooms - named)}"


def test_every_direct_dependency_is_pinned_within_its_range() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = {}
    for line in (REPO / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, pinned = line.partition("==")
            pins[canonicalize_name(name)] = pinned
    for line in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        wanted = Requirement(line)
        assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), line


def test_no_module_prints_around_the_face() -> None:
    """Only the command line prints; the library below it reports through callables and return values."""
    for path in SOURCE.rglob("*.py"):
        if "cli" in path.relative_to(SOURCE).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", f"{path.relative_to(SOURCE)}:{node.lineno} prints"


def test_no_source_is_kept_out_of_the_repository() -> None:
    if not (REPO / ".git").exists():
        pytest.skip("no repository here")
    asked = [
        "git",
        "ls-files",
        "--others",
        "--ignored",
        "--exclude-standard",
        "--",
        "src",
        "tests",
        "web/src",
        "docs",
    ]
    found = subprocess.run(asked, cwd=REPO, capture_output=True, text=True, check=True).stdout.splitlines()
    built = ("src/regard/look/draw/assets/", "src/regard/serve/page/")
    assert not [name for name in found if "__pycache__" not in name and not name.startswith(built)]
