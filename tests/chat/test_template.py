from __future__ import annotations

import json

import pytest

from edgellm.chat import ChatTemplate, default_template
from edgellm.errors import TemplateError, UsageError

HI = [{"role": "user", "content": "Hi"}]
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def render(source: str, messages: list[dict] = HI, **extra: object) -> str:
    return ChatTemplate(source, "<BOS>", "<EOS>").render(messages, **extra)


@pytest.fixture(scope="module")
def expected(shared) -> dict:
    return json.loads((shared("templates") / "expected.json").read_text())


def test_real_templates_render_as_in_transformers(expected):
    cases = 0
    for name, entry in expected["templates"].items():
        template = ChatTemplate(entry["template"], expected["bos_token"], expected["eos_token"])
        for case, result in entry["cases"].items():
            conversation = expected["conversations"][case]
            try:
                text = template.render(conversation["messages"], tools=conversation["tools"])
            except TemplateError:
                assert "error" in result, (name, case)
            else:
                assert "error" not in result, (name, case)
                assert result.get("dated") or text == result["text"], (name, case)
            cases += 1
    assert cases > 200


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}", "<BOS>Hi<EOS>"),
        ("{% if add_generation_prompt %}yes{% endif %}", "yes"),
        ("{{ tools is defined }}{{ tools is none }}{{ documents is none }}", "TrueTrueTrue"),
        ("  {% if true %}\nx\n  {% endif %}\ny", "x\ny"),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% for i in range(3) %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "02"),
        ("{% for m in messages %}{{ loop.length }}{{ loop.last }}{{ loop.index0 }}{% endfor %}", "1True0"),
        ("{% for i in none_such %}x{% else %}none{% endfor %}", "none"),
        ("{% for i in [1, [2, [3]]] recursive %}{{ loop(i) if i is iterable else i }}{% endfor %}", "123"),
        ("{% for k, v in {'a': 1}|items %}{{ k ~ v ~ none ~ nothing }}{% endfor %}", "a1None"),
        ("{% generation %}{{ messages[0].role }}{% endgeneration %}", "user"),
        ("{{ {'b': '<é&>', 'a': [1, none]}|tojson }}", '{"b": "<é&>", "a": [1, null]}'),
        ("{{ {'b': 1, 'a': 2}|tojson(sort_keys=true, separators=(',', ':')) }}", '{"a":2,"b":1}'),
        ("{{ 'é'|tojson(ensure_ascii=true) }}{{ [1]|tojson(indent=1) }}", '"\\u00e9"[\n 1\n]'),
        ("{{ '%s-%05.1f' % ('a', 2) }}{{ '{:>3}'.format(7) }}{{ '-'.join(['a', 'b']) }}", "a-002.0  7a-b"),
        ("{{ 'a,b'.split(',')|join('+') }}{{ 'x'|indent(2, true) }}{{ [1, 2]|sum }}", "a+b  x3"),
        ("{{ strftime_now('%Y')|length }}", "4"),
    ],
)
def test_the_language(source, text):
    assert render(source) == text


def test_extra_variables_reach_the_template():
    assert (
        render("{{ enable_thinking }}{{ tools|length }}", enable_thinking=False, tools=[WEATHER]) == "False1"
    )


def test_the_default_is_chatml():
    text = "<|im_start|>user\nHi<|im_end|>\n"
    assert default_template().render(HI, add_generation_prompt=False) == text
    assert default_template().render(HI) == text + "<|im_start|>assistant\n"


def test_a_template_that_refuses_is_quoted_with_its_line():
    with pytest.raises(TemplateError, match=r"line 2 of the chat template refuses.*System role!") as caught:
        render("{{ bos_token }}\n{{ raise_exception('System role!') }}")
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("\n{% if %}", "line 2 of the chat template is no valid Jinja2"),
        ("\n\n{{ messages[0].content + 1 }}", "line 3 of the chat template failed.*TypeError"),
        ("{{ nothing.at.all }}", "UndefinedError: 'nothing' is undefined"),
        ("{{ messages|no_filter }}", "No filter named 'no_filter'"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{% include 'other' %}", "failed"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "cannot be compiled: RecursionError"),
        ("x" * (2**20 + 1), "more than 1048576"),
    ],
)
def test_a_broken_template_is_explained(source, message):
    with pytest.raises(TemplateError, match=message):
        render(source)


def test_a_template_is_text():
    with pytest.raises(TemplateError, match="NoneType"):
        ChatTemplate(None)


def test_what_simplifying_breaks_is_given_as_it_came():
    parts = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    assert render("{{ messages[0].content }}", parts) == "a\nb"
    only_parts = "{% if messages[0].content is string %}{{ raise_exception('parts!') }}{% endif %}"
    source = only_parts + "{% for part in messages[0].content %}{{ part.text }};{% endfor %}"
    assert render(source, parts) == "a;b;"
    with pytest.raises(TemplateError, match="parts!"):
        render(source, HI)


def test_rendering_does_not_change_what_it_is_given():
    call = {"function": {"name": "f", "arguments": '{"a": 1}'}}
    messages = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    assert render("{{ messages[0].tool_calls[0].function.arguments.a }}", messages) == "1"
    assert call["function"]["arguments"] == '{"a": 1}'


def test_tools_are_a_list_of_dicts():
    with pytest.raises(UsageError) as caught:
        render("", tools=[len])
    assert caught.value.param == "tools"
