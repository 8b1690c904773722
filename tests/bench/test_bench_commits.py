"""scripts/bench-commits: what it leaves behind (nothing), what it borrows, what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import bench_commits


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits of a file that says which it is."""
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "--quiet")
    for text in ("first", "second"):
        (root / "file").write_text(text)
        git(root, "add", "file")
        git(root, "commit", "--quiet", "-m", text)
    return root


@pytest.mark.parametrize("stop", [None, KeyboardInterrupt, SystemExit])
def test_worktrees_go_away_however_it_ends(repository, tmp_path, stop):
    folder, texts = tmp_path / "tree", []

    def use() -> None:
        with bench_commits.worktree(repository, "HEAD~1", folder) as tree:
            texts.append((tree / "file").read_text())
            (tree / "left over").write_text("by a run")
            if stop is not None:
                raise stop

    if stop is None:
        use()
    else:
        with pytest.raises(stop):
            use()
    assert texts == ["first"]
    assert not folder.exists()
    assert len(git(repository, "worktree", "list").splitlines()) == 1
    assert (repository / "file").read_text() == "second"


def test_a_commit_that_does_not_exist_is_said_so(repository, tmp_path):
    with pytest.raises(SystemExit, match="no-such"):
        bench_commits.worktree(repository, "no-such", tmp_path / "tree").__enter__()


@pytest.mark.parametrize("has_cases", [True, False])
def test_a_commit_keeps_its_own_cases_and_is_timed_like_the_other(tmp_path, has_cases):
    own = tmp_path / bench_commits.CASES[0]
    if has_cases:
        own.parent.mkdir()
        own.write_text("own")
    bench_commits.lend(bench_commits.ROOT, tmp_path)
    for name in bench_commits.METHOD:
        assert (tmp_path / name).read_bytes() == (bench_commits.ROOT / name).read_bytes()
    assert (own.read_text() == "own") is has_cases
    assert (tmp_path / bench_commits.CASES[1]).exists() is not has_cases


@pytest.mark.parametrize(
    ("ratios", "word"),
    [
        ([1.0, 1.02, 0.99], "equal"),
        ([1.4, 1.3, 1.5], "slower"),
        ([0.8, 0.7, 0.9], "faster"),
        ([1.2, 0.9, 1.3], "unclear"),
    ],
)
def test_verdicts(ratios, word):
    assert bench_commits.verdict(ratios) == word


def test_lines_give_the_median_and_what_only_one_has():
    rounds = [({"k": 1.0, "old": 1.0}, {"k": b, "new": 1.0}) for b in (1.5, 1.4, 1.6)]
    both, old, new = bench_commits.lines(rounds)
    assert "1.500 (1.400-1.600) slower" in both
    assert old.endswith("only in the first")
    assert new.endswith("only in the second")


def test_a_command_that_fails_is_reported(tmp_path):
    side = bench_commits.Side("A", tmp_path)
    assert side.measure(["matmul"], model=False) == {}
    assert len(side.trouble) == 1
    assert "bench/kernels.py" in side.trouble.pop()
