"""`edgellm run`."""

from __future__ import annotations

import pytest
from fake_engine import FakeEngine, Reply

from edgellm.cli.options import SAMPLING
from edgellm.cli.run import looks_like_model, split_arguments
from edgellm.config import DEFAULT_MODEL
from edgellm.sampling import SamplingParams

GIVEN = {"temperature": 0.5, "stop": ["x"], "top_k": 3, "repeat_last_n": 7, "seed": 9, "max_tokens": 11}


@pytest.mark.parametrize(
    "text", ["smollm2:135m", "a/b.gguf", "model.GGUF".lower(), "hf.co/a/b:Q4_0", "no-such:model"]
)
def test_what_looks_like_a_model(text):
    assert looks_like_model(text)
    assert split_arguments(text, None) == (text, None)


@pytest.mark.parametrize(
    "text", ["Hi", "Why is the sky blue?", "note: this", "what is x.gguf", "a" * 9999, "\0"]
)
def test_what_looks_like_a_prompt(text):
    assert not looks_like_model(text)
    assert split_arguments(text, None) == (DEFAULT_MODEL, text)


def test_two_arguments_are_model_and_prompt():
    assert split_arguments("Hi", "there") == ("Hi", "there")
    assert split_arguments(None, None) == (DEFAULT_MODEL, None)


def test_the_answer_is_all_that_stdout_has(cli, fake):
    fake.reply(Reply(("Grü", "ße")))
    ended = cli("run", "Hi")
    assert (ended.code, ended.out, ended.err) == (0, "Grüße\n", "")
    [request] = fake.engine.requests
    assert "".join(map(chr, request.prompt_token_ids)) == "<user>Hi"
    assert fake.engine.closed


def test_json_has_the_fields_that_are_promised(cli, fake):
    ended = cli("run", "Hi", "--json")
    assert ended.code == 0
    found = ended.json
    assert found["text"] == "Hello there"
    assert found["token_ids"] == [ord(c) for c in "Hello there"]
    assert (found["prompt_tokens"], found["completion_tokens"], found["finish_reason"]) == (8, 11, "stop")
    assert found["timings"]["ttft_s"] == pytest.approx(0.011)
    assert found["timings"]["decode_tps"] == pytest.approx(100)
    assert set(found["timings"]) == {"load_s", "ttft_s", "prompt_tps", "decode_tps"}
    assert ended.out.count("\n") == 1


def test_system_stdin_and_model(cli, fake):
    assert cli("run", "some:model", "--system", "S", "--ctx", "99", "--threads", "2", stdin="U\n").code == 0
    assert "".join(map(chr, fake.engine.requests[0].prompt_token_ids)) == "<system>S<user>U\n"
    assert fake.asked[0][:3] == ("some:model", 2, 99)


def test_raw_skips_the_template_and_the_models_defaults(cli, fake):
    fake.defaults = {"temperature": 0.1}
    cli("run", "--raw", "Once")
    cli("run", "Once")
    raw, templated = fake.engine.requests[0], fake.engine.requests
    assert raw.prompt_token_ids == [2, *map(ord, "Once")]
    assert raw.params.temperature == SamplingParams().temperature
    assert len(templated) == 1  # the engine was closed with the first command


def test_the_models_defaults_hold_where_no_option_is_given(cli, fake):
    fake.defaults = {"temperature": 0.1, "top_k": 5}
    cli("run", "Hi", "--top-k", "6")
    params = fake.engine.requests[0].params
    assert (params.temperature, params.top_k) == (0.1, 6)


@pytest.mark.parametrize("name", SAMPLING)
def test_every_sampling_option_arrives(cli, fake, name):
    flag = "--" + name.replace("_", "-")
    value = GIVEN.get(name, 1.0)
    arguments = [flag] if name == "ignore_eos" else [flag, str(value[0] if name == "stop" else value)]
    assert cli("run", "Hi", *arguments).code == 0
    expected = True if name == "ignore_eos" else tuple(value) if name == "stop" else value
    assert getattr(fake.engine.requests[0].params, name) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ("Hi", "--temperature", "-1"),
        ("Hi", "--top-p", "2"),
        ("Hi", "--max-tokens", "many"),
        ("Hi", "--threads", "0"),
        ("Hi", "--raw", "--system", "S"),
        ("smollm2:135m",),
        ("a", "b", "c"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_loaded(cli, fake, arguments):
    ended = cli("run", *arguments, stdin=" \n")
    assert (ended.code, ended.out) == (2, "")
    assert fake.asked == []


def test_stdin_that_is_no_text_is_wrong_usage(cli, fake):
    assert cli("run", stdin=b"\xff\xfe\xfa").code == 2


def test_a_prompt_that_does_not_fit_is_a_failure(cli, fake):
    fake.engine = FakeEngine(context_length=3)
    ended = cli("run", "Hi there")
    assert ended.code == 1
    assert "the context holds 3" in ended.err


def test_stats_go_to_stderr(cli, fake):
    ended = cli("run", "Hi", "--stats")
    assert ended.out == "Hello there\n"
    assert "prompt 8 tokens (4 cached)" in ended.err
