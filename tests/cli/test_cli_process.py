"""`edgellm run` as a process of its own, with the default model."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

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
