"""Every field of every table: right values pass, wrong ones are named, neutral ones are neutral."""

from __future__ import annotations

from typing import Any

import pytest
from asgi_client import Client

from edgellm.errors import UsageError
from edgellm.server.fields import CHAT, COMPLETION, DETOKENIZE, TOKENIZE, Field, Unsupported, check_fields

TABLES = {"chat": CHAT, "completion": COMPLETION, "tokenize": TOKENIZE, "detokenize": DETOKENIZE}
ROWS = [(name, row) for name, table in TABLES.items() for row in table]
IDS = [f"{name}-{row.name}" for name, row in ROWS]

# A right value for each field that is used, and wrong ones: of another type, or out of range.
RIGHT: dict[str, Any] = {
    "model": "fake:1",
    "stream": False,
    "stream_options": {"include_usage": True},
    "user": "me",
    "temperature": 0,
    "top_p": 0.5,
    "top_k": 40,
    "min_p": 0.1,
    "typical_p": 0.9,
    "repeat_penalty": 1.1,
    "repeat_last_n": -1,
    "presence_penalty": -2,
    "frequency_penalty": 2,
    "seed": -1,
    "max_tokens": 1,
    "stop": ["a", "b"],
    "n": 2,
    "logit_bias": {"5": -100},
    "ignore_eos": True,
    "messages": [{"role": "user", "content": "x"}],
    "max_completion_tokens": 5,
    "logprobs": None,
    "top_logprobs": 3,
    "metadata": {"a": "b"},
    "safety_identifier": "me",
    "prompt_cache_key": "me",
    "prompt": ["a", [1, 2]],
    "content": "text",
    "add_special": True,
    "parse_special": True,
    "tokens": [1, 2],
    "skip_special": True,
}
WRONG: dict[str, list[Any]] = {
    "stream_options": [True, {"include_usage": 1}, {"other": True}],
    "temperature": ["1", True, -0.1, 2.1, [], 10**400],
    "top_p": [-0.1, 1.1],
    "top_k": [1.5, -1, "5"],
    "min_p": [-1, 2],
    "repeat_penalty": [0, 101],
    "presence_penalty": [-2.1, 2.1],
    "frequency_penalty": [-2.1, 2.1],
    "seed": [1.5, 2**70, "1"],
    "max_tokens": [0, -1, 1.5, True, 2**40],
    "max_completion_tokens": [0, -1],
    "stop": [5, "", [""], [5], ["x"] * 65],
    "n": [0, 129, 1.5],
    "logit_bias": [[], {"x": 1}, {"5": "1"}, {"5": 101}, {"5": True}, {"-1": 0}, {"٣": 1}],
    "top_logprobs": [-1, 21, True],
    "messages": [
        [],
        "hi",
        ["hi"],
        [{}],
        [{"role": "user"}],
        [{"role": "boss", "content": "x"}],
        [{"role": ["user"], "content": "x"}],
    ],
    "metadata": [{"a": 1}, []],
    "prompt": [[], {}, [[]], [1.5], ["a"] * 65, [["a"]], [-1]],
    "tokens": [[1.5], [True], [-1], {}],
}


@pytest.mark.parametrize(("name", "row"), ROWS, ids=IDS)
def test_wrong_values_are_named(name, row):
    wrong = [*WRONG.get(row.name, []), {"some": ["object"]}]
    required = {r.name: RIGHT[r.name] for r in TABLES[name] if isinstance(r, Field) and r.required}
    for value in wrong:
        with pytest.raises(UsageError) as caught:
            check_fields({**required, row.name: value}, TABLES[name], strict=False)
        assert caught.value.param == row.name, value
        assert row.name in str(caught.value)


@pytest.mark.parametrize(("name", "row"), ROWS, ids=IDS)
def test_right_and_neutral_values_pass(name, row):
    required = {r.name: RIGHT[r.name] for r in TABLES[name] if isinstance(r, Field) and r.required}
    values = (None, *row.neutral) if isinstance(row, Unsupported) else (RIGHT[row.name],)
    for value in values:
        checked = check_fields({**required, row.name: value}, TABLES[name], strict=True)
        assert checked.unknown == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("store", True),
        ("store", 0),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("tool_choice", "required"),
        ("response_format", {"type": "json_object"}),
        ("modalities", ["text", "audio"]),
        ("reasoning_effort", "high"),
    ],
)
def test_what_is_known_but_not_supported_is_a_400(name, value):
    answer = Client().chat(**{name: value})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == name
    assert "not supported" in error["message"]


def test_unknown_fields_are_named_in_the_header_and_the_log(caplog):
    client = Client()
    answer = client.chat(**{"zap": 1, "a b\r\n": 2, "none": None})
    assert answer.status_code == 200
    assert answer.headers["x-edgellm-ignored"] == "zap, a%20b%0D%0A"
    assert "zap" in caplog.text
    streamed = client.chat(zap=1, stream=True)
    assert streamed.headers["x-edgellm-ignored"] == "zap"
    assert "x-edgellm-ignored" not in client.chat().headers


def test_strict_refuses_unknown_fields():
    from edgellm.server.config import ServerConfig

    answer = Client(config=ServerConfig(strict=True)).chat(zap=1)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "zap"


def test_what_is_wrong_is_shown_cut_short():
    with pytest.raises(UsageError) as unknown:
        check_fields({"z" * 10_000: 1}, TABLES["chat"], strict=True)
    with pytest.raises(UsageError) as role:
        check_fields({"messages": [{"role": "z" * 10_000}]}, TABLES["chat"], strict=False)
    assert "zzz..." in str(unknown.value)
    assert len(str(unknown.value)) < 300
    assert "has role 'zzz" in str(role.value)
    assert len(str(role.value)) < 300


def test_null_is_a_fields_default():
    assert Client().chat(temperature=None, stop=None, stream=None, tools=None).status_code == 200


def test_every_sampling_field_arrives():
    client = Client(defaults={"temperature": 0.3, "min_p": 0.2})
    given = {
        "temperature": 0.7,
        "top_p": 0.5,
        "top_k": 7,
        "seed": 5,
        "max_completion_tokens": 9,
        "stop": "END",
        "n": 2,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "logit_bias": {"65": 3},
        "repeat_penalty": 1.2,
        "ignore_eos": True,
        "logprobs": True,
        "top_logprobs": 2,
    }
    assert client.chat(**given).status_code == 200
    params = client.engine.requests[0].params
    assert (params.temperature, params.top_p, params.top_k, params.min_p) == (0.7, 0.5, 7, 0.2)
    assert (params.seed, params.max_tokens, params.stops, params.n) == (5, 9, ("END",), 2)
    assert (params.presence_penalty, params.frequency_penalty, params.repeat_penalty) == (0.5, -0.5, 1.2)
    assert (params.logit_bias, params.ignore_eos, params.logprobs) == ({65: 3.0}, True, 2)


def test_the_models_defaults_hold_where_nothing_is_said():
    client = Client(defaults={"temperature": 0.3})
    client.chat()
    params = client.engine.requests[0].params
    assert params.temperature == 0.3
    assert params.max_tokens is None


def test_limits_are_whole_numbers_where_values_are():
    with pytest.raises(UsageError, match=r"from 1 to 2147483647$"):
        check_fields({"max_tokens": 0}, TABLES["chat"], strict=False)
