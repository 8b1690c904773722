import math

import pytest

from edgellm.errors import UsageError
from edgellm.sampling.params import NUMBERS, SamplingParams

NOT_NUMBERS = ["1", True, math.nan, [1], {}, object()]


def test_defaults_are_llama_cpps():
    p = SamplingParams()
    assert (p.temperature, p.top_k, p.top_p, p.min_p, p.typical_p) == (0.8, 40, 0.95, 0.05, 1.0)
    assert (p.repeat_penalty, p.repeat_last_n, p.presence_penalty, p.frequency_penalty) == (1.0, 64, 0, 0)
    assert (p.seed, p.max_tokens, p.n, p.logprobs, p.stops) == (None, None, 1, None, ())


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", NOT_NUMBERS, ids=repr)
def test_what_is_no_number_is_refused_by_name(name, value):
    with pytest.raises(UsageError, match=rf"^{name} is ") as caught:
        SamplingParams(**{name: value})
    assert caught.value.param == name


@pytest.mark.parametrize("name", NUMBERS)
def test_limits_are_held_and_named(name):
    limits = NUMBERS[name]
    SamplingParams(**{name: limits.kind(limits.low)})
    SamplingParams(**{name: limits.kind(limits.high)})
    for wrong in (limits.low - 1, limits.high + (1 if limits.kind is int else 0.5)):
        with pytest.raises(UsageError, match="it must be") as caught:
            SamplingParams(**{name: limits.kind(wrong)})
        assert caught.value.param == name


@pytest.mark.parametrize("name", NUMBERS)
def test_none_is_for_optional_fields_only(name):
    if NUMBERS[name].optional:
        assert getattr(SamplingParams(**{name: None}), name) is None
    else:
        with pytest.raises(UsageError):
            SamplingParams(**{name: None})


def test_the_message_has_value_and_limits():
    with pytest.raises(UsageError, match=r"^temperature is -1: it must be a number from 0 to 100$"):
        SamplingParams(temperature=-1)


@pytest.mark.parametrize("value", [1.5, "3", None])
def test_whole_numbers_are_whole(value):
    with pytest.raises(UsageError, match=r"^top_k is"):
        SamplingParams(top_k=value)


def test_stop_is_a_string_or_some():
    assert SamplingParams(stop="x").stops == ("x",)
    assert SamplingParams(stop=["x", "yz"]).stops == ("x", "yz")


@pytest.mark.parametrize("value", ["", ["a", ""], [1], 3, None, ["a"] * 65], ids=repr)
def test_stop_of_another_kind_is_refused(value):
    with pytest.raises(UsageError) as caught:
        SamplingParams(stop=value)
    assert caught.value.param == "stop"


@pytest.mark.parametrize("value", [{"a": 1}, {-1: 1}, {1: math.nan}, {1: "x"}, {1: math.inf}, [1]], ids=repr)
def test_logit_bias_of_another_kind_is_refused(value):
    with pytest.raises(UsageError) as caught:
        SamplingParams(logit_bias=value)
    assert caught.value.param == "logit_bias"


@pytest.mark.parametrize("bias", [1e39, 3e38, -1e39, 1.1e15])
def test_a_bias_that_f32_cannot_work_with_is_refused_with_its_limit(bias):
    with pytest.raises(UsageError, match=r"must be a number from -1e\+15 to 1e\+15, or -inf") as caught:
        SamplingParams(logit_bias={3: 1, 5: bias})
    assert repr(bias) in str(caught.value)


@pytest.mark.parametrize("value", [[-1], ["a"], 7, [True], [1.0]], ids=repr)
def test_stop_token_ids_of_another_kind_are_refused(value):
    with pytest.raises(UsageError) as caught:
        SamplingParams(stop_token_ids=value)
    assert caught.value.param == "stop_token_ids"


def test_ignore_eos_is_a_bool():
    with pytest.raises(UsageError, match="ignore_eos is 1"):
        SamplingParams(ignore_eos=1)  # type: ignore[arg-type]
