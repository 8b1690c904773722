"""Command lines of the benches: what makes no sense is refused before anything is measured."""

from __future__ import annotations

import argparse
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import tiny_llama

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import arguments
import arm_table
import compare
import engines

from edgellm.config import MAX_THREADS

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
BUDGET, PI_CHECK = SCRIPTS / "compile_budget.py", SCRIPTS / "pi_check.py"


def test_tests_of_all_kinds():
    assert len(compare.Test.parse_all(compare.DEFAULT_TESTS)) == 6
    assert compare.Test.parse("pp512") == compare.Test("pp512", "pp", 512)
    assert compare.Test.parse("tg64@2048") == compare.Test("tg64@2048", "tg", 64, 2048)
    assert compare.Test.parse("tg32x8") == compare.Test("tg32x8", "tg", 32, 0, 8)


@pytest.mark.parametrize(
    "name", ["", "pp", "pp0", "tg0", "tg8x0", "pp64x4", "pp64@256", "tg2,foo", "1" * 5000]
)
def test_tests_that_are_none(name):
    with pytest.raises(argparse.ArgumentTypeError):
        compare.Test.parse_all(name)


def test_numbers():
    assert arguments.numbers()("1,2") == [1, 2]
    assert arguments.numbers(0)("0,1") == [0, 1]
    for text in ("", "0", "-1", "x", "1,", "1.5", "1" * 5000):
        with pytest.raises(argparse.ArgumentTypeError):
            arguments.numbers()(text)


def test_threads_are_as_many_as_edgellm_takes():
    assert arguments.numbers(most=MAX_THREADS)("1,1024") == [1, 1024]
    for text in ("0", "1025"):
        with pytest.raises(argparse.ArgumentTypeError, match="from 1 to 1024"):
            arguments.number(most=MAX_THREADS)(text)


def test_a_model_that_is_none_ends_the_script_in_a_sentence(tmp_path):
    with pytest.raises(SystemExit, match=r"nothing\.gguf"):
        arguments.path_of(str(tmp_path / "nothing.gguf"))
    (tmp_path / "text.gguf").write_text("hello")
    with pytest.raises(SystemExit, match=r"text\.gguf is not a GGUF file"):
        arguments.path_of(str(tmp_path / "text.gguf"))


def test_without_the_peer_it_is_said_what_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(SystemExit, match=r"pip install -e '\.\[bench\]'"):
        engines.system_info()


def test_a_step_reads_few_rows_of_a_table_that_is_only_looked_up(tmp_path):
    tied, untied = (
        compare.Model.open(str(tiny_llama(tmp_path / f"{tied}.gguf", tied=tied))) for tied in (True, False)
    )
    assert tied.step_bytes == untied.step_bytes


@pytest.mark.parametrize("option", ["--cpus", "--forms"])
def test_what_the_table_of_arm_does_not_know_is_refused(monkeypatch, capsys, option):
    monkeypatch.setattr(sys, "argv", ["arm_table.py", option, "foo"])
    with pytest.raises(SystemExit):
        arm_table.main()
    said = capsys.readouterr()
    assert f"{option} has 'foo', which is none of " in said.err
    assert said.out == ""


def test_what_the_compiling_process_says_is_shown():
    with pytest.raises(SystemExit, match=r"matmul\.foo cannot be compiled for .*\n(?s:.*)KeyError"):
        arm_table.assemblies(arm_table.CPUS["Pi 5"], ["matmul.foo"])


@pytest.mark.parametrize("name", ["nosuch", "matmul.nosuch"])
def test_a_kernel_that_there_is_not_has_no_budget(name):
    """In a process of its own: what makes the compiler lean for kernels unfits it for other functions."""
    done = subprocess.run([sys.executable, str(BUDGET), name], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"no kernel is called {name!r}; there are " in done.stderr
    assert "matmul.q8_0" in done.stderr


def test_the_checks_of_emulated_cpus_want_their_folder(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pi_check.py"])
    with pytest.raises(SystemExit, match="scripts/pi"):
        runpy.run_path(str(PI_CHECK), run_name="__main__")
