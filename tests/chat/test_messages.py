from __future__ import annotations

import pytest

from edgellm.chat.messages import check_messages, simplified
from edgellm.errors import UsageError


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (None, "not NoneType"),
        ("hello", "not str"),
        ({"role": "user"}, "not dict"),
        ([], "empty"),
        (["hello"], r"messages\[0\] is a dict"),
        ([{"content": "x"}], r"messages\[0\]\.role"),
        ([{"role": 1, "content": "x"}], r"messages\[0\]\.role"),
        ([{"role": "user", "content": "x"}, {"role": "user", "content": 3}], r"messages\[1\]\.content .*int"),
        ([{"role": "user", "content": ["x"]}], r"content\[0\] is a dict"),
        ([{"role": "user", "content": [{"type": "text"}]}], r"content\[0\]\.text"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "'image_url'.*only text"),
        ([{"role": "assistant", "tool_calls": "f()"}], "tool_calls"),
    ],
)
def test_malformed_messages_are_named(messages, message):
    with pytest.raises(UsageError, match=message) as caught:
        check_messages(messages)
    assert caught.value.param == "messages"


def test_well_formed_messages_are_copied():
    messages = ({"role": "assistant", "content": None, "name": "x"}, {"role": "tool"})
    checked = check_messages(messages)
    assert checked == list(messages)
    assert checked[0] is not messages[0]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [('{"a": 1}', {"a": 1}), ("{", "{"), ("[1]", "[1]"), ({"a": 1}, {"a": 1}), (None, None)],
)
def test_arguments_become_the_object_that_they_spell(given, wanted):
    calls = [{"id": "1", "function": {"name": "f", "arguments": given}}, {"id": "2"}]
    (message,) = simplified([{"role": "assistant", "content": "", "tool_calls": calls}])
    assert message["tool_calls"] == [{"id": "1", "function": {"name": "f", "arguments": wanted}}, {"id": "2"}]
