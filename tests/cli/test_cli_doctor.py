"""`edgellm doctor`: what it finds on this machine, and every problem that it knows."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys

import pytest

from edgellm import backends
from edgellm.cli import checks
from edgellm.cli.checks import CHECKS, Report, examine, is_writable
from edgellm.cli.doctor import lines
from edgellm.config import load_config
from edgellm.kernels.cache import cache_folder, write_object
from edgellm.simd import targets


@pytest.fixture
def well(monkeypatch):
    """The compiler's trial is left out: it takes seconds where the cache is empty."""
    monkeypatch.setattr(checks, "_TRIAL", "pass")
    monkeypatch.delenv("EDGELLM_TARGET", raising=False)
    monkeypatch.delenv("EDGELLM_THREADS", raising=False)


def test_a_machine_without_problems(cli, well):
    ended = cli("doctor", "--json")
    assert (ended.code, ended.json["problems"]) == (0, []), ended.out
    found = ended.json
    assert found["ok"] is True
    assert found.keys() == CHECKS.keys() | {"problems", "ok"}
    assert found["cpu"]["target"] == found["cpu"]["targets"][0]
    assert found["threads"]["chosen"] <= found["threads"]["allowed"] <= found["threads"]["cpus"]
    assert 0 < found["memory"]["available"] <= found["memory"]["total"]
    assert found["versions"]["numba"] == importlib.metadata.version("numba")
    assert found["kernels"]["writable"]
    assert found["models"]["writable"]
    assert found["backends"] == dict.fromkeys(backends.names(), "ok")


def test_people_see_every_subject(cli, well):
    shown = cli("doctor")
    assert shown.code == 0
    assert shown.out.rstrip().endswith("All is well.")
    begins = {line.split(" ")[0] for line in shown.out.splitlines()}
    assert begins >= CHECKS.keys()


@pytest.mark.parametrize("subject", CHECKS)
def test_a_look_that_fails_is_a_problem_and_no_crash(cli, well, monkeypatch, subject):
    def fail(problems):
        raise OSError(f"{subject} cannot be looked at")

    monkeypatch.setitem(CHECKS, subject, fail)
    ended = cli("doctor", "--json")
    assert (ended.code, ended.json["problems"]) == (1, [f"{subject} cannot be looked at"])
    assert f"- {subject} cannot be looked at" in cli("doctor").out


def test_neither_numba_nor_a_compiler_is_imported():
    code = (
        "import sys\nfrom edgellm.cli import checks\nchecks._TRIAL = 'pass'\nchecks.examine()\n"
        "print('numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr


def test_kernels_compile_and_load_here():
    problems: list[str] = []
    assert checks.compiler(problems) == {"works": True}
    assert problems == []


# -- every problem ---------------------------------------------------------------------------------


def problem_of(cli):
    """The one problem, a sentence in one line."""
    ended = cli("doctor", "--json")
    assert ended.code == 1
    (problem,) = ended.json["problems"]
    assert "\n" not in problem
    return problem


def test_a_target_that_the_cpu_lacks(cli, well, monkeypatch):
    monkeypatch.setattr(checks, "_TRIAL", "raise SystemExit(1)")  # as compiling would end
    monkeypatch.setenv("EDGELLM_TARGET", "vax")
    assert "vax" in problem_of(cli)


def test_more_threads_than_cpus(cli, well, monkeypatch):
    monkeypatch.setenv("EDGELLM_THREADS", "1000")
    assert "EDGELLM_THREADS is 1000" in problem_of(cli)


def test_threads_that_are_no_number(cli, well, monkeypatch):
    monkeypatch.setattr(checks, "_TRIAL", "raise SystemExit(1)")
    monkeypatch.setenv("EDGELLM_THREADS", "many")
    assert "'many'" in problem_of(cli)


def test_little_memory(cli, well, monkeypatch):
    monkeypatch.setattr(checks, "available_memory", lambda: 100 << 20)
    assert "only 100 MiB" in problem_of(cli)


def test_a_missing_package(cli, well, monkeypatch):
    monkeypatch.setattr(checks, "_PACKAGES", ("numpy", "no-such-package-at-all"))
    assert "pip install no-such-package-at-all" in problem_of(cli)
    assert "no-such-package-at-all missing" in cli("doctor").out


@pytest.mark.parametrize(
    ("trial", "said"),
    [("raise ImportError('Numba needs NumPy 1')", "Numba needs NumPy 1"), ("import os; os.abort()", "-6")],
)
def test_a_compiler_that_fails_or_dies(cli, well, monkeypatch, trial, said):
    monkeypatch.setattr(checks, "_TRIAL", trial)
    assert said in problem_of(cli)


def test_a_compiler_that_hangs(cli, well, monkeypatch):
    monkeypatch.setattr(checks, "_TRIAL", "import time; time.sleep(60)")
    monkeypatch.setattr(checks, "_TRIAL_SECONDS", 0.2)
    assert "do not compile within" in problem_of(cli)


def test_a_backend_whose_library_is_missing(cli, well, monkeypatch):
    def find(name):
        raise ImportError(f"no library for {name}")

    monkeypatch.setattr(backends, "names", lambda: ("metal",))
    monkeypatch.setattr(backends, "find", find)
    assert "the metal backend cannot be used (no library for metal)" in problem_of(cli)


def test_a_home_that_cannot_be_written(cli, well, monkeypatch, tmp_path):
    file = tmp_path / "file"
    file.write_text("not a folder")
    monkeypatch.setenv("EDGELLM_HOME", str(file / "home"))
    ended = cli("doctor", "--json")
    assert ended.code == 1
    assert len(ended.json["problems"]) == 2
    assert all("EDGELLM_HOME" in problem for problem in ended.json["problems"])


def test_a_full_disk(cli, well, monkeypatch):
    usage = checks.shutil.disk_usage("/")._replace(free=10 << 20)
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: usage)
    assert "10 MiB left" in problem_of(cli)


# -- the cache of kernels --------------------------------------------------------------------------


def test_kernels_are_counted_and_the_stale_are_told_apart(cli, well, tmp_path):
    current = cache_folder(targets.choose())
    write_object(current / "a.o", b"code")
    write_object(current / "b.o", b"code")
    (current / "b.o").write_bytes(b"damaged")
    write_object(load_config().kernels / "avx2-0123456789abcdef" / "a.o", b"of another version")
    found = cli("doctor", "--json").json
    assert found["problems"] == []
    kernels = found["kernels"]
    assert (kernels["folder"], kernels["entries"], kernels["damaged"]) == (str(current), 2, ["b.o"])
    assert kernels["bytes"] == sum(f.stat().st_size for f in current.glob("*.o"))
    assert [folder.rsplit("/", 1)[1] for folder in kernels["stale_folders"]] == ["avx2-0123456789abcdef"]
    assert kernels["stale_bytes"] == 32 + len(b"of another version")
    assert "may be removed" in cli("doctor").out


def test_nothing_is_made_by_looking(cli, well, tmp_path):
    assert cli("doctor").code == 0
    assert not (tmp_path / "home").exists()


# -- why so many threads ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "forced", "allowed", "quota", "words"),
    [
        (3, 3, 8, None, "EDGELLM_THREADS"),
        (2, None, 8, 2.5, "2.5 CPUs"),
        (1, None, 8, 0.5, "0.5 CPUs"),
        (4, None, 8, None, "physical core"),
        (4, None, 8, 6.0, "physical core"),
        (8, None, 8, 8.0, "all that"),
    ],
)
def test_why(chosen, forced, allowed, quota, words):
    assert words in checks._why(chosen, forced, allowed, quota)


@pytest.mark.parametrize(
    ("text", "want"), [("max 100000\n", None), ("150000 100000\n", 1.5), ("", None), ("x y", None)]
)
def test_quota(monkeypatch, text, want):
    monkeypatch.setattr(checks, "_read", lambda path: text)
    assert checks._quota() == want


@pytest.mark.parametrize(
    ("files", "want"),
    [
        ({"/proc/cpuinfo": "processor\t: 0\nmodel name\t: AMD X\n"}, "AMD X"),
        ({"/proc/cpuinfo": "processor : 0\nHardware : BCM\nModel : Raspberry Pi 5\n"}, "Raspberry Pi 5"),
        ({"/sys/firmware/devicetree/base/model": "A Board\0"}, "A Board"),
        ({}, None),
    ],
)
def test_what_the_cpu_is_called(monkeypatch, files, want):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(checks, "_read", lambda path: files.get(path, ""))
    assert checks._cpu_name() == want


def test_the_report_is_json_and_lines_whatever_is_unknown(well, monkeypatch):
    monkeypatch.setattr(checks, "available_memory", lambda: None)
    report = examine()
    json.dumps(report.facts)
    assert any("unknown amount" in line for line in lines(report))
    assert lines(Report(problems=["all is lost"]))[-1] == "- all is lost"


def test_writable(tmp_path):
    (tmp_path / "file").write_text("")
    assert is_writable(tmp_path / "not" / "there")
    assert not is_writable(tmp_path / "file")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
