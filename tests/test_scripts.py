"""A script finds its checkout from wherever, and through whatever, it is called."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"
pytestmark = pytest.mark.skipif(
    os.name != "posix" or not shutil.which("bash"), reason="the scripts are bash's"
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose .venv is said to be whole, and whose programs print what they are given."""
    root = tmp_path / "check out"
    shutil.copytree(SCRIPTS, root / "scripts")
    (root / "pyproject.toml").write_text("[project]\n")
    (root / ".venv" / "bin").mkdir(parents=True)
    for name in ("python", "edgellm"):
        program = root / ".venv" / "bin" / name
        program.write_text('#!/bin/sh\necho "$@"\n')
        program.chmod(0o755)
    stamp = 'source scripts/venv.sh; wanted_stamp >"$venv/.edgellm"'
    subprocess.run(["bash", "-c", stamp], cwd=root, check=True)
    return root


def called(path: Path | str, cwd: Path) -> str:
    """What a script prints that is given `a b`; CDPATH makes `cd` print, too."""
    environment = {**os.environ, "CDPATH": ".:/"}
    child = subprocess.run(
        [path, "a b"], cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert (child.returncode, child.stderr) == (0, "")
    return child.stdout.splitlines()[-1]


@pytest.mark.parametrize("call", ["scripts/edgellm", "./scripts/edgellm", "../check out/scripts/edgellm"])
def test_a_script_is_called_by_its_path(checkout: Path, call: str):
    assert called(call, checkout) == "a b"


def test_edgellm_is_called_through_links(checkout: Path, tmp_path: Path):
    home = tmp_path / "bin"
    home.mkdir()
    (home / "absolute").symlink_to(checkout / "scripts" / "edgellm")
    (home / "relative").symlink_to("../check out/scripts/edgellm")
    (home / "link of a link").symlink_to("relative")
    (home / "folder").symlink_to(checkout / "scripts")
    for link in ("absolute", "relative", "link of a link", "folder/edgellm"):
        assert called(home / link, tmp_path) == "a b"
