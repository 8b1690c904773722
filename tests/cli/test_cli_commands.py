"""The commands of `edgellm chat`, and conversations in files."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import stat

import pytest
from fake_engine import FakeEngine, Reply, fake_model

from edgellm.cli import archive, talk
from edgellm.cli.commands import COMMANDS, Session, do
from edgellm.cli.conversation import Conversation
from edgellm.engine.request import Progress
from edgellm.errors import EdgeLLMError, TemplateError, UsageError
from edgellm.sampling import SamplingParams


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGELLM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def session():
    """Two turns are over."""
    conversation = Conversation(fake_model(FakeEngine()), SamplingParams(temperature=0.5))
    conversation.say("one", lambda text: None)
    conversation.say("two", lambda text: None)
    return Session(conversation)


def said(session):
    return [turn["content"] for turn in session.conversation.turns[::2]]


def test_help_lists_every_command(session, capsys):
    do(session, "/help")
    shown = capsys.readouterr().out
    assert all(name in shown and function.__doc__ in shown for name, function in COMMANDS.items())


def test_a_command_that_there_is_not_names_the_nearest(session):
    with pytest.raises(UsageError, match=r"no /rety \(did you mean /retry\?\); /help"):
        do(session, "/rety")


def test_set_changes_one_parameter(session, capsys):
    do(session, "/set temperature 0.9")
    do(session, "/set top-p 0.25")
    do(session, '/set stop ["END"]')
    do(session, "/set xtc_threshold 0.2")
    do(session, "/set ignore_eos on")
    params = session.conversation.params
    assert (params.temperature, params.top_p, list(params.stop)) == (0.9, 0.25, ["END"])
    capsys.readouterr()
    do(session, "/set")
    shown = capsys.readouterr().out
    assert "temperature        0.9" in shown
    assert "xtc_threshold      0.2" in shown
    assert "seed               none" in shown
    assert "ignore_eos         true" in shown


@pytest.mark.parametrize(
    ("typed", "value"),
    [("seed none", None), ("stop none", ()), ("stop 5", ("5",)), ("stop the end", ("the end",))],
)
def test_set_takes_what_a_person_would_type(session, typed, value):
    do(session, "/set seed 5")
    do(session, f"/set {typed}")
    assert getattr(session.conversation.params, typed.partition(" ")[0]) == value


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/set temprature 1", "did you mean temperature"),
        ("/set temperature", "wants a value; it is 0.5 now"),
        ("/set temperature hot", "temperature"),
        ("/set top_p 7", "top_p"),
        ("/set top_k none", "top_k is None"),
        ("/set temperature " + "[" * 100_000, "temperature"),
        ("/set n 2", "no parameter 'n'"),
    ],
)
def test_set_refuses_what_makes_no_sense_and_changes_nothing(session, line, message):
    before = session.conversation.params
    with pytest.raises(UsageError, match=message):
        do(session, line)
    assert session.conversation.params == before


def test_undo_takes_the_last_turn_back_and_edit_gives_it_back(session):
    do(session, "/undo")
    assert said(session) == ["one"]
    do(session, "/edit")
    assert (said(session), session.draft) == ([], "one")
    with pytest.raises(UsageError, match="no message"):
        do(session, "/undo")


@pytest.mark.parametrize("text", ["/usr is a folder", " /usr", '"""is a fence'])
def test_what_only_a_fence_makes_a_message_is_edited_in_one(session, text):
    session.conversation.say(text, lambda text: None)
    do(session, "/edit")
    assert session.draft == f'"""{text}"""'


def test_retry_asks_again_with_the_next_seed(session, capsys):
    do(session, "/set seed 7")
    do(session, "/retry")
    assert (said(session), session.again, session.conversation.params.seed) == (["one"], "two", 8)
    do(session, "/set temperature 0")
    do(session, "/retry")
    assert "the answer is the same" in capsys.readouterr().out
    assert session.again == "one"


def test_a_message_without_an_answer_can_be_asked_again_or_edited(session):
    session.conversation.params = SamplingParams(temperature=0)
    engine = FakeEngine([Reply(("never",), error=EdgeLLMError("broken"))])
    session.conversation._model = fake_model(engine)
    with pytest.raises(EdgeLLMError, match="broken"):
        session.conversation.say("three", lambda text: None)
    do(session, "/undo")
    assert said(session) == ["one"]
    do(session, "/retry")
    assert (session.again, said(session)) == ("three", ["one"])
    do(session, "/edit")
    assert (session.draft, said(session)) == ("one", [])


def test_the_meter_follows_all_that_changes_the_prompt(session):
    conversation = session.conversation
    before = conversation.used
    conversation.system = "Be brief."
    assert conversation.used > before
    do(session, "/undo")
    assert 0 < conversation.used < before
    do(session, "/clear")
    assert conversation.used == 0


def test_a_template_that_refuses_the_messages_leaves_the_meter_as_it_was(session, monkeypatch):
    def refuse(messages):
        raise TemplateError("no system messages")

    before = session.conversation.used
    model = dataclasses.replace(session.conversation._model, chat_prompt=refuse)
    monkeypatch.setattr(session.conversation, "_model", model)
    session.conversation.system = "Be brief."
    assert session.conversation.used == before


def test_a_saved_conversation_comes_back_whole(session, home):
    do(session, "/system Be brief.")
    do(session, "/set temperature 0.9")
    do(session, "/save monday")
    assert sorted(path.name for path in (home / "chats").iterdir()) == ["monday.json"]
    other = Session(Conversation(fake_model(FakeEngine()), SamplingParams()))
    do(other, "/load monday")
    assert other.conversation.messages == session.conversation.messages
    assert other.conversation.params == session.conversation.params
    assert other.conversation.used > 0
    other.conversation.say("three", lambda text: None)
    assert said(other) == ["one", "two", "three"]


def test_load_alone_lists_what_is_saved(session, capsys):
    do(session, "/load")
    assert "nothing is saved" in capsys.readouterr().out
    do(session, "/save b")
    do(session, "/save a")
    capsys.readouterr()
    do(session, "/load")
    assert capsys.readouterr().out.split() == ["a", "b"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[1]",
        "[" * 100_000,
        "{}",
        '{"format": "edgellm-chat-1", "messages": [{"role": "assistant", "content": "x"}], "params": {}}',
        '{"format": "edgellm-chat-1", "messages": [{"role": "user", "content": "x"}], "params": {}}',
        '{"format": "edgellm-chat-1", "messages": [5, 6], "params": {}}',
        '{"format": "edgellm-chat-1", "messages": [], "params": {"temperature": "hot"}}',
        '{"format": "edgellm-chat-1", "messages": [], "params": {"nonesuch": 1}}',
        '{"format": "edgellm-chat-1", "messages": [], "params": {}, "system": 5}',
    ],
)
def test_a_foreign_file_is_refused_and_changes_nothing(session, tmp_path, content):
    path = tmp_path / "foreign.json"
    path.write_text(content)
    before = session.conversation.messages
    with pytest.raises(EdgeLLMError, match=r"foreign\.json"):
        do(session, f"/load {path}")
    assert session.conversation.messages == before


def test_a_conversation_that_is_not_there(session):
    with pytest.raises(EdgeLLMError, match=r"no conversation .*nonesuch"):
        do(session, "/load nonesuch")
    with pytest.raises(UsageError, match="give a name"):
        do(session, "/save")


def test_save_replaces_a_conversation_but_no_other_file(session, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(EdgeLLMError, match=r"notes\.txt holds no conversation.* give another name"):
        do(session, f"/save {path}")
    assert path.read_text() == "mine"
    do(session, f"/save {tmp_path}/kept.json")
    do(session, "/undo")
    do(session, f"/save {tmp_path}/kept.json")
    assert len(json.loads((tmp_path / "kept.json").read_text())["messages"]) == 2


@pytest.mark.parametrize("name", ["/dev/zero", "/", "x/" + "y" * 5000, "~nobody-of-that-name/x", "a\0b"])
def test_names_that_are_no_files_are_refused_in_a_sentence(session, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EdgeLLMError):
        do(session, f"/load {name}")
    with contextlib.suppress(EdgeLLMError):  # a folder `~nobody-of-that-name` is possible
        do(session, f"/save {name}")
    assert said(session) == ["one", "two"]


def test_saving_writes_all_or_nothing(session, tmp_path, monkeypatch):
    path = tmp_path / "kept.json"
    do(session, f"/save {path}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_text()
    session.conversation.say("three", lambda text: None)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(EdgeLLMError, match="No space left"):
        do(session, f"/save {path}")
    assert path.read_text() == before
    assert list(tmp_path.glob(".saving*")) == []
    assert json.loads(before)["model"] == session.conversation.as_json()["model"]
    assert archive.place("a/b") == archive.Path("a/b")


def test_a_long_prompt_is_followed_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(talk, "_QUIET_SECONDS", 0.0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    reading = talk.Reading()
    reading.show(Progress(1024, 4096, 0))
    reading.show(Progress(4096, 4096, 0))
    reading.clear()
    assert capsys.readouterr().err == "\rreading the prompt: 1,024 of 4,096 tokens\x1b[K\r\x1b[K"


def test_a_short_prompt_is_not(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    engine = FakeEngine([Reply(("x",))])
    Conversation(fake_model(engine), SamplingParams()).say("x", lambda text: None)
    assert capsys.readouterr().err == ""
