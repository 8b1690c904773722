"""Templates that nobody would write: rendered, or refused with a TemplateError, soon and in little memory."""

from __future__ import annotations

import contextlib
import gc
import time
import tracemalloc

import pytest
from fuzz import renderer, run
from fuzz.run import Watch

from edgellm.chat import ChatTemplate, budget
from edgellm.errors import TemplateError, UsageError

HI = [{"role": "user", "content": "Hi"}]
LONG = "{% set a = 'a' * 4000000 %}"


def grown(start, step, end, times=60):
    loop = "{% for i in range(TIMES) %}{% set ns.x = STEP %}{% endfor %}".replace("TIMES", str(times))
    return "{% set ns = namespace(x=START) %}".replace("START", start) + loop.replace("STEP", step) + end


# What once took too long, too much, or too deep a stack: refused since.
REFUSED = {
    "a deep tuple, hashed": grown("()", "(ns.x,)", "{{ {ns.x: 1} }}", 99999),
    "varargs, compared": "{% macro f(g) %}{% set g.x = varargs %}{% endmacro %}{% set p = namespace(x=1) %}"
    "{% set q = namespace(x=1) %}{% for i in range(60) %}{{ f(p, p.x, p.x) }}{{ f(q, q.x, q.x) }}{% endfor %}"
    "{{ p.x == q.x }}",
    "generators in generators": grown("[1]", "ns.x|map('string')", "{{ ns.x|list }}", 99999),
    "a view, printed": grown("{'a': 1}", "dict(a=ns.x, b=ns.x)", "{{ ns.x.items() }}"),
    "raised": grown("[1]", "[ns.x, ns.x]", "{{ raise_exception(ns.x) }}"),
    "slices, kept": LONG + grown("[]", "ns.x + [a[1:]]", "", 2000),
    "ranges, kept": grown("[]", "[ns.x, range(99999)|list]", "", 199),
    "widths in a format": "{{ ('{0:9999}' * 100000).format(1) }}",
    "widths after a percent": "{{ ('%(a)9999d' * 100000) % {'a': 1} }}",
    "widths in a date": "{{ strftime_now('%9999d' * 400000) }}",
    "an integer in base 2": "{% set b = 2**30000 %}{{ ('{0:b}' * 100000).format(b) }}",
    "an integer of a long text": "{{ (('f' * 4000000)|int(0, 16)) // (('e' * 2000000)|int(0, 16)) }}",
    "strip": "{{ ('b' * 4000000).strip('c' * 4000000 ~ 'b') }}",
    "trim": "{{ ('b' * 4000000)|trim('c' * 4000000 ~ 'b') }}",
    "striptags": "{{ ('<!-->' * 800000)|striptags }}",
    "wordwrap": "{{ ('-a' * 2000000)|wordwrap }}",
    "pprint": "{{ range(100000)|list|pprint }}",
    "slice": "{{ [1]|slice(4000000)|list }}",
    "round": "{{ 1.5|round(4000000, 'floor') }}",
    "lower case, sorted": LONG + "{{ ([a] * 100000)|sort }}",
    "lower case of attributes": LONG + "{% set n = namespace(v=a) %}{{ ([n] * 1000)|sort(attribute='v') }}",
    "split": "{% set t = 'abc ' * 1000000 %}" + grown("[]", "ns.x + [t.split()]", ""),
    "text without a tick": "{% for i in range(99999) %}" + "{% if i %}a{% endif %}" * 3000 + "{% endfor %}",
    "a long separator": LONG + "{{ [1, 2]|join([a] * 200) }}",
    "a long replacement": LONG + "{{ 'ab'|replace('b', [a] * 200) }}",
    "a long date": LONG + "{{ strftime_now([a] * 200) }}",
    "many tokens": "{{x}}" * 200_000,
    "many statements": "{%set a=1%}" * 90_000,
    "a long list": "{{ [" + "1," * 500_000 + "] }}",
    "dict.update": "{{ dict.update(messages[0], {'role': 'x'}) }}",
    "dict.setdefault": "{{ dict.setdefault(messages[0], 'x', messages[0]) }}",
}


@pytest.mark.parametrize("source", REFUSED.values(), ids=REFUSED)
def test_what_was_found_is_refused(source, monkeypatch):
    monkeypatch.setattr(budget, "MAX_SECONDS", 0.3)
    messages, before = [dict(HI[0])], run.peak()
    begin = time.thread_time()
    with pytest.raises(TemplateError):
        ChatTemplate(source).render(messages)
    assert time.thread_time() - begin < 1
    assert run.peak() - before < run.MAX_GROWTH
    assert messages == HI


def test_what_was_refused_leaves_nothing_behind():
    """A recursive loop holds itself, and with it all that it made."""
    source = "{% for x in [1, 2] recursive %}{{ loop(('user').zfill(10**6)) }}{% endfor %}"
    template = ChatTemplate(source)
    gc.disable()
    tracemalloc.start()
    try:
        with pytest.raises(TemplateError, match="made more than"):
            template.render(HI)
        left, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert most > 64 << 20
    assert left < 1 << 20


def test_some_thousand_renderings(monkeypatch):
    monkeypatch.setattr(budget, "MAX_SECONDS", budget.MAX_SECONDS)  # put back afterwards
    watch = Watch()
    outcomes = run.renderer(watch, 800, seed=7)
    assert not watch.found, watch.examples
    assert outcomes > 50


def test_a_way_to_be_wrong_is_seen(monkeypatch):
    """The harness itself: an error that is not ours is found."""
    monkeypatch.setattr(renderer.ChatTemplate, "render", lambda *_, **__: {}["x"])
    watch = Watch()
    with watch.one("a template"):
        renderer.rendered(ChatTemplate("a"), run.Random(0))
    assert [name.split()[0] for name in watch.found] == ["KeyError"]


def deep(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("role", [deep(900), deep(50_000), ["x" * 10**6] * 10])
def test_a_role_of_any_shape_gives_a_short_message(role):
    with pytest.raises(UsageError, match="role is a string") as caught:
        ChatTemplate("a").render([{"role": role}])
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "use", ["{{ m.x == m.y }}", "{{ m.x in [m.y] }}", "{{ m.x }}", "{{ [m.x, m.y]|sort }}"]
)
def test_deep_values_of_a_message(use):
    messages = [{"role": "user", "content": "", "x": deep(5000), "y": deep(5000)}]
    with pytest.raises(TemplateError):
        ChatTemplate("{% set m = messages[0] %}" + use).render(messages)


def test_a_long_refusal_is_cut():
    with pytest.raises(TemplateError) as caught:
        ChatTemplate("{{ raise_exception('no ' * 100000) }}").render(HI)
    assert len(str(caught.value)) < 1200


WORKS = {
    "{{ {'a': 1} == {'a': 1} }}{{ [1, 2] != [1] }}{{ 1 < 2 <= 2 }}": "TrueTrueTrue",
    "{{ 'role' in messages[0] }}{{ 'x' not in ['y'] }}{{ 'H' in 'Hi' }}": "TrueTrueTrue",
    "{{ messages[0] in messages }}{{ messages.index(messages[0]) }}": "True0",
    "{{ messages|selectattr('role', 'in', ['user'])|list|length }}": "1",
    "{{ 'ok' if messages|map(attribute='role') else 'no' }}": "ok",
    "{{ ['b', 'A']|sort|join(',') }}{{ messages|join(',', 'role') }}": "A,buser",
    "{% for k, v in dict(a=1).items() %}{{ k }}{{ v }}{% endfor %}{{ 'abc'[1:] }}{{ (1, 2)[0] }}": "a1bc1",
    "{{ '**%s**' % 'b' }}{{ '%5.1f|%-3d' % (1.25, 7) }}{{ '{:>4}'.format('x') }}": "**b**  1.2|7     x",
    "{{ [3, 1]|min }}{{ [1, 1]|unique|list }}{{ {'b': 1, 'a': 2}|dictsort }}": "1[1][('a', 2), ('b', 1)]",
    "{{ 1 is eq 1 }}{{ [1] is eq [1] }}{{ 2 is in [2] }}{{ 3 is divisibleby 3 }}": "TrueTrueTrueTrue",
    "{{ 7 - 2 }}{{ 2.5|round(1) }}{{ ' x '|trim }}{{ 'xax'.strip('x') }}": "52.5xa",
}


# Namespaces may hold themselves, or two others each; nothing that prints one may go down into it.
PRINTED = [
    "{{ ns }}",
    "{{ [ns.x]|string }}",
    "{{ [1].index(ns.x) }}",
    "{{ [1][ns.x].x }}",
    "{{ [1]|map(ns.x)|list }}",
]
PRINTED += [
    "{{ raise_exception(ns) }}",
    "{{ ns.x.nothing.x }}",
    "{{ '%s{}' % ns }}",
    "{{ '{}'.format(ns) }}",
    "{{ ns|e }}",
]


@pytest.mark.parametrize(
    "step", ["ns", "namespace(x=ns.x, y=ns.x)", "[namespace(x=ns.x), namespace(x=ns.x)]"]
)
@pytest.mark.parametrize("use", PRINTED)
def test_namespaces_are_not_printed(step, use):
    begin = time.thread_time()
    with contextlib.suppress(TemplateError):
        assert len(ChatTemplate(grown("1", step, use, 150)).render(HI)) < 100
    assert time.thread_time() - begin < 0.2


@pytest.mark.parametrize(("source", "text"), WORKS.items())
def test_what_templates_do_with_values_still_works(source, text):
    assert ChatTemplate(source).render(HI) == text


@pytest.mark.parametrize(
    "source",
    ["\ud800", "{{ '\ud800' }}", "{% set \ud800 = 1 %}", "{{ messages[0].content }}", "{{ x.\ud800 }}"],
)
def test_half_a_surrogate_pair(source):
    with contextlib.suppress(TemplateError):
        assert "\ud800" in ChatTemplate(source).render([{"role": "user", "content": "\ud800"}])
