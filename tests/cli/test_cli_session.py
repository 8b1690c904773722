"""`edgellm chat` in a real terminal."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

pexpect = pytest.importorskip("pexpect")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX's")

TESTS = Path(__file__).resolve().parents[1]
FAKE = """
import sys
import edgellm.cli.loading
from edgellm.cli import main
from fake_engine import FakeEngine, Reply, fake_model

replies = [Reply(("first\\x1b[31m ", "answer")), Reply(("begun ", "never"), hold=True), Reply(("third",))]
engine = FakeEngine(replies, context_length=80)
edgellm.cli.loading.load_model = lambda *asked: fake_model(engine)
main()
"""
WAIT = 15
READ = "\x1b[?2004l"  # the editor has ended
READY = "\x1b[?2004h"  # asks for bracketed paste: the editor has begun to read
ALT_ENTER, ENTER = "\x1b\r", "\r"


def start(tmp_path, arguments, home=None):
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    environment = {**os.environ, "PYTHONPATH": paths, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
    if home is not None:
        environment["EDGELLM_HOME"] = str(home)
    terminal = pexpect.spawn(
        sys.executable, arguments, env=environment, encoding="utf-8", timeout=WAIT, dimensions=(50, 200)
    )
    terminal.expect_exact(READY)
    return terminal


@pytest.fixture
def terminal(tmp_path):
    terminal = start(tmp_path, ["-c", FAKE, "chat"], tmp_path / "home")
    yield terminal
    terminal.close(force=True)


def ended(terminal):
    terminal.expect(pexpect.EOF)
    terminal.close()
    return terminal.exitstatus


def test_a_conversation(terminal, tmp_path):
    terminal.send("hello" + ENTER)
    # The model's text has an escape sequence in it, which must not reach the terminal as one.
    terminal.expect_exact("first[31m answer")
    terminal.expect_exact(READY)
    terminal.send("again" + ENTER)
    terminal.expect("begun ")
    terminal.sendintr()
    terminal.expect("stopped")
    terminal.expect_exact(READY)
    terminal.send("/stats" + ENTER)
    terminal.expect("stats are on")
    terminal.expect_exact(READY)
    terminal.send("more" + ENTER)
    terminal.expect("third")
    terminal.expect("answer 5 tokens")
    terminal.expect_exact(READY)
    terminal.send("/bye" + ENTER)
    assert ended(terminal) == 0
    assert "+hello" in (tmp_path / "home" / "history").read_text()


def test_a_full_conversation_is_said_and_can_begin_anew(terminal):
    terminal.send("x" * 90 + ENTER)
    terminal.expect("the conversation is full")
    terminal.expect_exact(READY)
    terminal.send("/clear" + ENTER)
    terminal.expect("forgotten")
    terminal.expect_exact(READY)
    terminal.send("short" + ENTER)
    terminal.expect("answer")


def test_control_c_at_the_prompt_stays_and_control_d_leaves(terminal):
    terminal.send("half a line")
    terminal.sendintr()
    terminal.expect("Ctrl-D or /bye")
    terminal.expect_exact(READY)
    terminal.sendeof()
    assert ended(terminal) == 0


@pytest.mark.parametrize(
    "typed", ["one" + ALT_ENTER + "two", '"""one' + ENTER + 'two"""', '"""one' + ENTER + 'two""" ']
)
def test_several_lines_are_one_turn(terminal, typed):
    terminal.send(typed + ENTER)
    terminal.expect("answer")
    terminal.expect_exact(READY)
    terminal.send("/stats" + ENTER)
    terminal.expect(r"prompt (\d+) tokens")
    assert int(terminal.match[1]) == len("<user>one\ntwo")


@pytest.mark.parametrize(
    ("typed", "says"), [("/help", "/system"), ("/nope", "no /nope"), ("/system be brief", "message is set")]
)
def test_commands(terminal, typed, says):
    terminal.send(typed + ENTER)
    terminal.expect(says)
    terminal.expect_exact(READY)


def test_what_follows_a_fence_within_a_line_is_not_lost(terminal):
    terminal.send('"""a""" b' + ENTER + 'c"""' + ENTER)
    terminal.expect("answer")
    terminal.expect_exact(READY)
    terminal.send("/stats" + ENTER)
    terminal.expect(r"prompt (\d+) tokens")
    assert int(terminal.match[1]) == len('<user>a""" b\nc')


def test_fences_make_a_message_of_what_looks_like_a_command(terminal):
    terminal.send('"""/etc"""' + ENTER)
    terminal.expect_exact("answer")


def test_bytes_that_are_no_text_are_no_crash(tmp_path):
    terminal = start(tmp_path, ["-c", FAKE, "chat"], tmp_path / "home")
    terminal.send("/set stop ab")
    os.write(terminal.child_fd, b"\xff")
    terminal.send(ENTER)
    terminal.expect_exact("stop is")
    terminal.expect_exact(READY)
    terminal.send("/save x" + ENTER)
    terminal.expect("saved as")
    terminal.close(force=True)


def test_a_message_that_was_stopped_before_its_answer_comes_back(tmp_path):
    waits = FAKE.replace('Reply(("begun ", "never"), hold=True)', 'Reply(("never",), hold=True)')
    terminal = start(tmp_path, ["-c", waits, "chat"], tmp_path / "home")
    terminal.send("hello" + ENTER)
    terminal.expect_exact("answer")
    terminal.expect_exact(READY)
    terminal.send("again" + ENTER)
    terminal.expect_exact(READ)
    time.sleep(0.2)
    terminal.sendintr()
    began = time.monotonic()
    terminal.expect_exact("stopped")
    assert time.monotonic() - began < 1
    terminal.expect_exact(READY)
    terminal.send("/retry" + ENTER)
    terminal.expect_exact("third")
    terminal.close(force=True)


def test_the_default_model_in_a_terminal(tmp_path, default_model):
    terminal = start(
        tmp_path, ["-m", "edgellm", "chat", "--ctx", "512", "--max-tokens", "400", "--ignore-eos"]
    )
    terminal.send("Tell me a long story." + ENTER)
    terminal.expect_exact(READ)
    terminal.expect(r"\w+ \w+ \w+ \w+")
    terminal.sendintr()
    terminal.expect("stopped")
    terminal.expect_exact(READY)
    terminal.send("/bye" + ENTER)
    assert ended(terminal) == 0


def test_commands_and_the_meter(terminal, tmp_path):
    terminal.send("hello" + ENTER)
    terminal.expect_exact("answer")
    terminal.expect(r"\d+ of 80 tokens")
    terminal.send("/save x" + ENTER)
    terminal.expect("saved as")
    terminal.expect_exact(READY)
    terminal.send("/set nonesuch 1" + ENTER)
    terminal.expect("there is no parameter")
    terminal.expect_exact(READY)
    terminal.send("/edit" + ENTER)
    terminal.expect_exact(READY)
    terminal.expect("hello")
    terminal.send("\x15" + "/bye" + ENTER)
    assert ended(terminal) == 0
    assert (tmp_path / "home" / "chats" / "x.json").exists()
