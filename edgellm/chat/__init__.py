"""Conversations to prompt text: the model's own chat template, rendered as Transformers renders it.

    messages --messages.py: checked, text parts joined--> plain dicts
             --template.py: Jinja2 in a sandbox--> prompt text

A template comes out of a model file, so it is a stranger's program. `sandbox.py` keeps it from Python's
internals, `budget.py` from going on for long, from keeping much, and from values too large to compare;
`guards.py`, `formats.py` and `filters.py` from making huge values in one step; `rewrite.py` puts these checks
where Jinja2 has no hook.

How to add one: a function or filter that templates call is a row in `sandbox.py`; if what it makes can be
much larger than what it is given, or takes longer than to read that once, also a check in `guards.py` (for
operators and methods) or a row of `_CHECKS` in `filters.py`.
"""

from edgellm.chat.template import ChatTemplate, default_template

__all__ = ["ChatTemplate", "default_template"]
