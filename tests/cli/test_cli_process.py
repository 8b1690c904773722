"""`edgellm run` as a process of its own, with the default model."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgellm.cli import piped

# The command line with a fake model that says "Grün".
_FAKE = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import edgellm.cli.loading
from edgellm.cli import main
from fake_engine import FakeEngine, Reply, fake_model
edgellm.cli.loading.load_model = lambda *asked: fake_model(FakeEngine([Reply(("Grün",))]))
main()
"""
# Ctrl-C as the commands are imported.
_INTERRUPTED = """
import sys

class Interrupt:
    def find_spec(self, name, *rest):
        if name == "edgellm.cli.app":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
from edgellm.cli import main
main()
"""
ASKED = ["Name a colour.", "--temperature", "0", "--max-tokens", "12", "--ctx", "256"]


def run(*arguments, **more):
    command = [sys.executable, "-m", "edgellm", "run", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **more)


def test_text_and_json_say_the_same(default_model):
    plain = run(default_model, *ASKED)
    assert plain.returncode == 0, plain.stderr
    answer = json.loads(run(default_model, *ASKED, "--json").stdout)
    assert answer["text"].rstrip("\n") == plain.stdout.rstrip("\n")
    assert 0 < answer["completion_tokens"] <= 12
    assert all(value >= 0 for value in answer["timings"].values())


def test_stdin_is_the_prompt(default_model):
    asked = [default_model, *ASKED[1:], "--json"]
    by_pipe = json.loads(run(*asked, input=ASKED[0]).stdout)
    by_argument = json.loads(run(default_model, *ASKED, "--json").stdout)
    assert by_pipe["token_ids"] == by_argument["token_ids"]


def test_stdin_comes_before_the_prompt(default_model, tmp_path):
    whole = json.loads(run(default_model, "A small house.\n\nSum this up:", *ASKED[1:], "--json").stdout)
    by_pipe = run(default_model, "Sum this up:", *ASKED[1:], "--json", input="A small house.\n")
    assert json.loads(by_pipe.stdout)["token_ids"] == whole["token_ids"]
    assert json.loads(by_pipe.stdout)["prompt_tokens"] == whole["prompt_tokens"]


def test_a_socket_is_read_as_a_pipe_is(monkeypatch):
    """Some programs give one to those that they start."""
    ours, theirs = socket.socketpair()
    with ours, theirs, os.fdopen(os.dup(theirs.fileno())) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        ours.sendall(b"text")
        ours.shutdown(socket.SHUT_WR)
        assert piped.with_piped("Hi") == "text\n\nHi"


def test_a_pipe_in_which_nothing_comes_is_not_waited_for(monkeypatch, capsys):
    ours, theirs = os.pipe()
    monkeypatch.setattr(piped, "_WAIT_S", 0.05)
    with os.fdopen(ours, "r") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert piped.with_piped("Hi") == "Hi"
        assert "nothing came on standard input for 0.05 s" in capsys.readouterr().err
        os.close(theirs)
        assert piped.with_piped("Hi") == "Hi"
    assert capsys.readouterr().err == ""


def test_control_c_ends_an_answer_with_130(default_model):
    process = subprocess.Popen(
        [sys.executable, "-m", "edgellm", "run", default_model, "Hi", "--ignore-eos"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdout.read(1)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert time.monotonic() - began < 2
        assert b"Traceback" not in process.stderr.read()


def test_control_c_ends_a_long_prompt_with_130(default_model):
    process = subprocess.Popen(
        [sys.executable, "-m", "edgellm", "run", default_model, "--ctx", "8192", "--ignore-eos"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        process.stdin.write(b"word " * 6000)
        process.stdin.close()
        time.sleep(2.5)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert time.monotonic() - began < 2
        assert b"Traceback" not in process.stderr.read()


def test_control_c_while_the_program_starts_is_no_traceback():
    done = subprocess.run([sys.executable, "-c", _INTERRUPTED], capture_output=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full here")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["run", "Hi"], ["run", "Hi", "--json"], ["list"]])
def test_output_that_cannot_be_written_is_said_in_a_sentence(arguments, unbuffered):
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", _FAKE, *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            timeout=30,
        )
    assert done.returncode == 1
    assert done.stderr == b"edgellm: the output could not be written: No space left on device\n"


def test_a_short_output_that_nobody_reads_is_no_crash():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as output:
        environment = {**os.environ, "PYTHONUNBUFFERED": ""}
        command = [sys.executable, "-c", _FAKE, "list"]
        done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, env=environment, timeout=30)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_reader_that_goes_away_is_no_crash(default_model):
    process = subprocess.Popen(
        [sys.executable, "-m", "edgellm", "run", default_model, "Hi", "--ignore-eos", "--max-tokens", "200"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert process.wait(60) == 1
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()


@pytest.mark.parametrize("command", ["run", "chat"])
def test_bytes_that_are_no_text_are_named_in_any_locale(command):
    done = subprocess.run(
        [sys.executable, "-c", _FAKE, command],
        input=b"a\xff\n",
        capture_output=True,
        env={**os.environ, "LC_ALL": "C"},
        timeout=30,
    )
    assert done.returncode == 2
    assert done.stderr == b"edgellm: standard input is not utf-8 text: invalid start byte\n"


@pytest.mark.parametrize(("stream", "code"), [("stdin", 2), ("stdout", 0)])
def test_a_closed_stream_is_an_empty_one(stream, code):
    number = {"stdin": 0, "stdout": 1}[stream]
    arguments = [sys.executable, "-c", _FAKE, "run", *(["Hi"] if stream == "stdout" else [])]
    done = subprocess.run(
        ["sh", "-c", f'exec {number}>&-; exec "$@"', "sh", *arguments], capture_output=True, timeout=30
    )
    assert done.returncode == code
    assert b"should not have happened" not in done.stderr


def test_a_terminal_that_cannot_show_a_letter_is_no_crash():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", _FAKE, "run", "Hi"], capture_output=True, env=environment, timeout=30
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"Gr?n\n", b"")
