"""Chat templates out of a grammar, and mutations of real ones."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random

from fuzz.words import (
    ATTACKS,
    ATTRS,
    BINARY,
    FILTERS,
    GLOBALS,
    GROWTHS,
    METHODS,
    NAMES,
    NUMBERS,
    START,
    TESTS,
    TEXTS,
    UNARY,
)


def expression(rng: Random, depth: int) -> str:
    if depth <= 0 or rng.random() < 0.15:
        return rng.choice(rng.choice([NAMES, NAMES, TEXTS, NUMBERS]))
    inner: Callable[[], str] = lambda: expression(rng, depth - 1)  # noqa: E731
    how = rng.randrange(14)
    if how <= 2:
        return f"({inner()} {rng.choice(BINARY)} {inner()})"
    if how <= 5:
        return f"({inner()})|{rng.choice(FILTERS)}"
    if how == 6:
        return rng.choice([f"[{inner()}, {inner()}]", f"({inner()},)", f"({inner()}, {inner()})", "[]"])
    if how == 7:
        return rng.choice([f"{{{inner()}: {inner()}}}", f"{{'a': {inner()}}}", f"[{inner()}]"])
    if how == 8:
        return f"{inner()}.{rng.choice(ATTRS)}"
    if how == 9:
        return rng.choice([f"{inner()}[{inner()}]", f"{inner()}[{inner()}:{inner()}]", f"{inner()}[::-1]"])
    if how == 10:
        return f"({inner()} is {rng.choice(['', 'not '])}{rng.choice(TESTS)})"
    if how == 11:
        return f"({inner()}).{rng.choice(METHODS)}"
    if how == 12:
        return rng.choice(GLOBALS).format(inner(), inner())
    return rng.choice([f"({rng.choice(UNARY)}{inner()})", f"({inner()} if {inner()} else {inner()})"])


def statement(rng: Random, depth: int) -> str:
    def e() -> str:
        return expression(rng, rng.randrange(4))

    def body() -> str:
        return "".join(statement(rng, depth - 1) for _ in range(rng.choice([1, 1, 2])))

    if depth <= 0:
        return rng.choice(
            ["a", "\n", "{{ " + e() + " }}", "{{ " + e() + " }}", "{% set ns.x = " + e() + " %}"]
        )
    rules: list[Callable[[], str]] = [
        lambda: f"{{% for x in {e()} %}}{body()}{{% endfor %}}",
        lambda: f"{{% for x, m in {e()} if {e()} %}}{body()}{{% else %}}{body()}{{% endfor %}}",
        lambda: f"{{% for x in {e()} recursive %}}{{{{ loop({e()}) }}}}{body()}{{% endfor %}}",
        lambda: f"{{% for x in range({times(rng)}) %}}{body()}{{% endfor %}}",
        lambda: f"{{% for x in range(60) %}}{{% set ns.x = {growth(rng)} %}}{{% endfor %}}{{{{ {e()} }}}}",
        lambda: (
            f"{{% for x in range({times(rng)}) %}}{{% set ns.x = {growth(rng)} %}}{{% endfor %}}"
            f"{{{{ {e()} }}}}"
        ),
        lambda: f"{{% if {e()} %}}{body()}{{% elif {e()} %}}{body()}{{% else %}}{body()}{{% endif %}}",
        lambda: f"{{% set x = {e()} %}}",
        lambda: f"{{% set ns.x = {e()} %}}",
        lambda: f"{{% set x %}}{body()}{{% endset %}}",
        lambda: f"{{% set x | {rng.choice(FILTERS)} %}}{body()}{{% endset %}}",
        lambda: f"{{% macro f(x, m={e()}) %}}{body()}{{{{ f({e()}) }}}}{{% endmacro %}}{{{{ f({e()}) }}}}",
        lambda: (
            f"{{% macro f(x) %}}{{{{ caller() }}}}{body()}{{% endmacro %}}"
            f"{{% call f({e()}) %}}{body()}{{% endcall %}}"
        ),
        lambda: f"{{% filter {rng.choice(FILTERS)} %}}{body()}{{% endfilter %}}",
        lambda: f"{{% with x = {e()} %}}{body()}{{% endwith %}}",
        lambda: f"{{% block b %}}{body()}{{{{ self.b() }}}}{{% endblock %}}",
        lambda: f"{{% {rng.choice(['include', 'import', 'extends'])} {e()} {rng.choice(['', 'as z'])} %}}",
        lambda: f"{{% generation %}}{body()}{{% endgeneration %}}",
        lambda: f"{{% autoescape true %}}{body()}{{% endautoescape %}}",
        lambda: rng.choice(
            ["{% break %}", "{% continue %}", "{# c #}", "{% raw %}{{ x }}{% endraw %}", "{%- if", "{{"]
        ),
        lambda: "{{ " + e() + " }}" + body(),
        lambda: "{% set n" + f" = namespace(x={e()}, y=ns) %}}{{% set ns.x = n %}}" + body(),
    ]
    return rng.choice(rules)()


def times(rng: Random) -> int:
    """How often; seldom so often that only time stops it."""
    return 99999 if rng.random() < 0.02 else rng.choice([3, 20, 60, 60, 250, 1000])


def growth(rng: Random) -> str:
    """What makes a value out of itself."""
    return rng.choice(GROWTHS) if rng.random() < 0.9 else expression(rng, 3)


def attack(rng: Random) -> str:
    """A value grown twice, and then what visits all of it."""
    start, step, count = rng.choice(START), growth(rng), times(rng)
    grow = f"{{% for i in range({count}) %}}{{% set ns.x = {step} %}}{{% endfor %}}"
    grow = f"{{% set ns = namespace(x={start}) %}}{grow}"
    grow = rng.choice(["{% macro f() %}{% set ns.x = varargs %}{% endmacro %}", ""]) + grow
    return f"{grow}{{% set y = ns.x %}}{grow}{rng.choice(ATTACKS)}"


# -- real ones ---------------------------------------------------------------------------------------

SMALL = [
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{{ message['content'] + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set m = messages[1:] %}{% else %}"
    "{% set m = messages %}{% endif %}{% for x in m %}"
    "{% if (x.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('no') }}"
    "{% endif %}{{ '[INST] ' + x.content | trim + ' [/INST]' }}{% endfor %}",
    "{%- set ns = namespace(x=false, n=messages|length) %}{%- for message in messages[::-1] %}"
    "{%- if message.tool_calls %}{%- set ns.x = true %}{%- for t in message.tool_calls %}"
    "{{ t.function.name }}{{ t.function.arguments | tojson }}"
    "{%- endfor %}{%- endif %}{%- endfor %}{{ tools | tojson(indent=4) if tools else '' }}{{ ns.x }}",
]


@cache
def real(folder: Path | None) -> tuple[str, ...]:
    """The templates of the reference data, where it is; and a few small ones."""
    path = None if folder is None else folder / "expected.json"
    if path is None or not path.exists():
        return tuple(SMALL)
    return (*SMALL, *(t["template"] for t in json.loads(path.read_text())["templates"].values()))


_TOKEN = re.compile(r"\{[%{]-?|-?[%}]\}|\w+|'[^']*'|\"[^\"]*\"|\s+|.", re.DOTALL)


def mutated(source: str, others: tuple[str, ...] | list[str], rng: Random) -> str:
    """With words of it changed, lost, repeated or taken from elsewhere."""
    tokens = _TOKEN.findall(source)
    for _ in range(rng.choice([1, 1, 2, 4, 8])):
        if not tokens:
            break
        at, how = rng.randrange(len(tokens)), rng.randrange(7)
        if how == 0:
            del tokens[at : at + rng.choice([1, 2, 9])]
        elif how == 1:
            tokens[at:at] = tokens[at : at + rng.choice([1, 5, 40])]
        elif how == 2:
            tokens[at] = rng.choice(tokens)
        elif how == 3:
            tokens[at] = rng.choice(rng.choice([NAMES, TEXTS, NUMBERS, BINARY]))
        elif how == 4:
            tokens[at:at] = ["{{ ", expression(rng, 3), " }}"]
        elif how == 5:
            tokens[at:at] = [" | ", rng.choice(FILTERS)]
        else:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            tokens[at:at] = [other[start : start + 60]]
    return "".join(tokens)
