import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import naive_stop

from edgellm.sampling import StopMatcher


def feed(stops, chunks):
    matcher, out = StopMatcher(stops), ""
    for chunk in chunks:
        text, stopped = matcher.push(chunk)
        out += text
        if stopped:
            return out, True
    return out + matcher.finish(), False


def test_text_that_may_become_a_stop_string_is_held_back():
    matcher = StopMatcher(["END"])
    assert matcher.push("abcE") == ("abc", False)
    assert matcher.push("N") == ("", False)
    assert matcher.push("T") == ("ENT", False)
    assert matcher.push("xEND") == ("x", True)


def test_what_is_held_at_the_end_is_output():
    matcher = StopMatcher(["END"])
    assert matcher.push("aEN") == ("a", False)
    assert matcher.finish() == "EN"


def test_a_stop_string_may_be_complete_only_at_the_end():
    matcher = StopMatcher(["END"])
    matcher.push("aEN")
    assert matcher.finish("D!") == ""


@pytest.mark.parametrize(
    ("stops", "text", "expected"),
    [
        (["b"], "abc", "a"),
        (["bc", "abcd"], "xabcd", "xa"),  # the first to be complete wins
        (["cd", "bcd"], "abcd", "a"),  # of those complete together, the longest
        (["aa"], "baaa", "b"),
        (["zz"], "abc", None),
    ],
)
def test_cuts(stops, text, expected):
    assert feed(stops, [text]) == ((text, False) if expected is None else (expected, True))
    assert feed(stops, list(text)) == feed(stops, [text])


@settings(max_examples=200, deadline=None)
@given(
    stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    chunks=st.lists(st.text("abc", max_size=4), max_size=12),
)
def test_chunks_make_no_difference_and_the_naive_twin_agrees(stops, chunks):
    assert feed(stops, chunks) == naive_stop(stops, "".join(chunks))
