"""`edgellm chat`, with lines from a pipe."""

from __future__ import annotations

import pytest
from fake_engine import FakeEngine, Reply, fake_model

from edgellm.cli.conversation import Conversation
from edgellm.errors import ContextLengthError
from edgellm.sampling import SamplingParams


def prompts(engine):
    return ["".join(map(chr, r.prompt_token_ids)) for r in engine.requests]


def test_a_line_is_a_turn_and_every_turn_has_the_whole_conversation(cli, fake):
    fake.reply(Reply(("one",)), Reply(("t", "wo")))
    ended = cli("chat", "--system", "S", stdin="a\n\nb\r\n")
    assert (ended.code, ended.out, ended.err) == (0, "one\ntwo\n", "")
    assert prompts(fake.engine) == ["<system>S<user>a", "<system>S<user>a<assistant>one<user>b"]


def test_a_conversation_that_is_full_says_so(cli, fake):
    fake.engine = FakeEngine(context_length=5)
    ended = cli("chat", stdin="hello\n")
    assert ended.code == 1
    assert "the context holds 5" in ended.err


def test_a_turn_that_fails_is_taken_back():
    engine = FakeEngine(context_length=12)
    conversation = Conversation(fake_model(engine), SamplingParams())
    with pytest.raises(ContextLengthError):
        conversation.say("far too long", print)
    assert conversation.messages == []
    conversation.say("short", print)
    assert [m["role"] for m in conversation.messages] == ["user", "assistant"]


def test_an_interrupted_answer_stays_in_the_conversation():
    engine = FakeEngine([Reply(("half", "never"), hold=True)])
    conversation = Conversation(fake_model(engine), SamplingParams())

    def interrupt(text):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        conversation.say("x", interrupt)
    assert conversation.messages[-1] == {"role": "assistant", "content": "half"}


def test_the_system_message_can_change_and_the_turns_be_forgotten():
    conversation = Conversation(fake_model(FakeEngine()), SamplingParams(), "old")
    conversation.say("x", lambda text: None)
    conversation.system = "new"
    assert conversation.messages[0] == {"role": "system", "content": "new"}
    conversation.clear()
    assert conversation.messages == [{"role": "system", "content": "new"}]


def test_a_line_that_is_no_text_is_wrong_usage(cli, fake):
    ended = cli("chat", stdin=b"a\n\xff\n")
    assert ended.code == 2
    assert ended.err == "edgellm: standard input is not utf-8 text: invalid start byte\n"
