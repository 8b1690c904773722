"""Hostile templates: stopped in time, within bounds, and away from Python's internals."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from edgellm.chat import ChatTemplate, budget
from edgellm.errors import TemplateError

HI = [{"role": "user", "content": "Hi"}]
DOUBLING = "{% set ns = namespace(x=START) %}{% for i in range(60) %}{% set ns.x = STEP %}{% endfor %}"
NESTED = DOUBLING.replace("START", "[1]").replace("STEP", "[ns.x, ns.x]")
LONG = "{% set a = 'a' * 200000 %}"

ENDLESS = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "calls": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "filters": "{% set r = range(99999) %}{% for i in r %}{% set x = r|map('string')|list %}{% endfor %}",
}
HUGE = {
    "times": "{{ 'a' * 10**10 }}",
    "times list": "{{ ([1] * 10**10)|length }}",
    "power": "{{ 10**(10**8) }}",
    "squares": DOUBLING.replace("START", "9**999").replace("STEP", "ns.x * ns.x"),
    "concatenation": DOUBLING.replace("START", "'aaaa'").replace("STEP", "ns.x ~ ns.x"),
    "plus": DOUBLING.replace("START", "'aaaa'").replace("STEP", "ns.x + ns.x"),
    "output": "{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}",
    "captured": "{% set x %}{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}{% endset %}",
    "hoard": "{% set ns = namespace(l=[]) %}"
    "{% for i in range(99999) %}{% set ns.l = ns.l + ['a' * 200000] %}{% endfor %}",
    "range": "{{ range(10**9)|list|length }}",
    "center": "{{ 'a'|center(10**10) }}",
    "ljust": "{{ 'a'.ljust(10**10) }}",
    "zfill": "{{ '1'.zfill(10**10) }}",
    "expandtabs": "{{ ('\t' * 1000).expandtabs(10**9) }}",
    "bytes": "{{ 'a'.encode().center(10**10) }}",
    "to_bytes": "{{ (1).to_bytes(10**11, 'big') }}",
    "format": "{{ '{:>1000000000}'.format(1) }}",
    "format nested": "{{ '{:{}}'.format(1, 10**9) }}",
    "percent": "{{ '%1000000000d' % 1 }}",
    "percent star": "{{ '%*d' % (10**9, 1) }}",
    "format filter": "{{ '%1000000000d'|format(1) }}",
    "format repeated": LONG + "{{ ('%(a)s' * 10000) % {'a': a} }}",
    "strftime": "{{ strftime_now('%1000000000d') }}",
    "printed": NESTED + "{{ ns.x }}",
    "stringified": NESTED + "{{ (ns.x|string)|length }}",
    "tojson": NESTED + "{{ (ns.x|tojson)|length }}",
    "tojson indent": "{{ [1]|tojson(indent=10**9) }}",
    "replace filter": LONG + "{{ a|replace('a', a) }}",
    "replace": LONG + "{{ a.replace('a', a) }}",
    "translate": LONG + "{{ a.translate({97: a}) }}",
    "join filter": LONG + "{{ ['b'] * 10000|join(a) }}{{ (range(10000)|map('string')|list)|join(a) }}",
    "join": LONG + "{{ a.join(['b'] * 10000) }}",
    "indent": "{{ ('a\n' * 100000)|indent(100000) }}",
    "wordwrap": "{{ ('a b ' * 100000)|wordwrap(1, wrapstring='x' * 100000) }}",
    "round": "{{ 1.5|round(10**9, 'floor') }}",
    "sum": "{{ ([[1] * 1000] * 1000)|sum(start=[])|length }}",
    "lorem": "{{ lipsum(100000) }}",
}
INTERNALS = {
    "class": "{{ ''.__class__.__mro__ }}",
    "attr": "{{ (''|attr('__class__')).mro() }}",
    "item": "{{ ''['__class__'].__mro__ }}",
    "format": "{{ '{0.__class__.__mro__}'.format('') }}",
    "format_map": "{{ '{a.__class__.__mro__}'.format_map({'a': 1}) }}",
    "map": "{{ ['']|map(attribute='__class__')|list|first }}",
    "alone": "{{ raise_exception.__globals__ }}",
    "globals": "{{ raise_exception.__globals__['json'] }}",
    "function": "{{ strftime_now.__code__.co_code }}",
    "self": "{{ self.__init__.__globals__ }}",
    "cycler": "{{ cycler.__init__.__globals__.os }}",
    "generator": "{{ (messages|map('string')).gi_frame.f_globals }}",
    "append": "{{ messages.append(1) }}",
    "update": "{{ messages[0].update({'role': 'x'}) }}",
}


TWICE = {  # lists that hold another twice, which holds another twice, and so on, and what visits all of it
    "compared": DOUBLING.replace("START", "[1]").replace("STEP", "[ns.x, ns.x]") + "{{ ns.x == ns.x[0] }}",
    "hashed": DOUBLING.replace("START", "(1,)").replace("STEP", "(ns.x, ns.x)") + "{{ {ns.x: 1} }}",
    "in a batch": DOUBLING.replace("START", "[1]").replace(
        "STEP", "[1]|batch(2, ns.x)|list|batch(2, ns.x)|list"
    ),
    "by name": DOUBLING.replace("START", "1").replace("STEP", "dict(a=ns.x, b=ns.x)")
    + "{{ ns.x in [ns.x] }}",
    "added": DOUBLING.replace("START", "[1]").replace("STEP", "[ns.x] + [ns.x]") + "{{ [ns.x]|sort }}",
}


@pytest.mark.parametrize("source", TWICE.values(), ids=TWICE)
def test_what_holds_itself_twice_is_bounded(source, monkeypatch):
    monkeypatch.setattr(budget, "MAX_SECONDS", 60)  # on a slow machine, too, the parts are what ends it
    with pytest.raises(TemplateError, match="more than 262144 parts"):
        ChatTemplate(source).render(HI)


def test_a_list_that_grows_with_the_conversation_is_fine():
    grown = "{% set ns = namespace(l=[]) %}{% for m in messages %}{% set ns.l = ns.l + [m] %}{% endfor %}"
    assert ChatTemplate(grown + "{{ ns.l|length }}").render(HI * 2000) == "2000"


@pytest.mark.parametrize("source", ENDLESS.values(), ids=ENDLESS)
def test_time_is_bounded(source, monkeypatch):
    monkeypatch.setattr(budget, "MAX_SECONDS", 0.3)
    begin = time.perf_counter()
    with pytest.raises(TemplateError, match="was stopped: it"):
        ChatTemplate(source).render(HI)
    assert time.perf_counter() - begin < 3


@pytest.mark.parametrize(("messages", "seconds"), [(1, 0.04), (200, 0.04), (600, 0.12), (5000, 0.2)])
def test_more_messages_have_more_time_up_to_a_limit(messages, seconds, monkeypatch):
    monkeypatch.setattr(budget, "MAX_SECONDS", 0.04)
    with pytest.raises(TemplateError, match=f"it ran for more than {seconds} s"):
        ChatTemplate(ENDLESS["loops"]).render(HI * messages)


@pytest.mark.parametrize("source", HUGE.values(), ids=HUGE)
def test_size_is_bounded(source, monkeypatch):
    monkeypatch.setattr(budget, "MAX_CHARS", 2**18)
    monkeypatch.setattr(budget, "MAX_TOTAL_CHARS", 2**22)
    tracemalloc.start()
    with pytest.raises(TemplateError):
        ChatTemplate(source).render(HI)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32 * 2**20


@pytest.mark.parametrize("source", INTERNALS.values(), ids=INTERNALS)
def test_internals_are_out_of_reach(source):
    messages = [dict(HI[0])]
    try:
        text = ChatTemplate(source).render(messages)
    except TemplateError:
        text = ""
    assert text == ""
    assert messages == HI


def test_a_budget_is_for_one_rendering(monkeypatch):
    monkeypatch.setattr(budget, "MAX_TOTAL_CHARS", 2**20)
    template = ChatTemplate("{{ 'a' * 600000 }}")
    assert len(template.render(HI)) == len(template.render(HI)) == 600000


def test_a_long_conversation_is_fine():
    messages = [{"role": "user", "content": "word " * 200}] * 1000
    source = "{% for m in messages %}{{ m.content.strip()|replace('w', 'v') ~ '\n' }}{% endfor %}"
    assert len(ChatTemplate(source).render(messages)) == 1000 * 1000


def test_what_was_stopped_is_not_tried_again(monkeypatch):
    monkeypatch.setattr(budget, "MAX_SECONDS", 0.3)
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    begin = time.thread_time()
    with pytest.raises(TemplateError, match=r"more than 0\.3 s"):
        ChatTemplate(ENDLESS["loops"]).render(parts)
    assert time.thread_time() - begin < 2 * 0.3
