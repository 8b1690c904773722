"""Conversations to prompt text: the model's own chat template, rendered as Transformers renders it.

    messages --messages.py: checked, text parts joined--> plain dicts
             --template.py: Jinja2 in a sandbox--> prompt text

A template comes out of a model file, so it is a stranger's program. `sandbox.py` keeps it from
Python's internals, `guards.py` from making huge values in one step, `budget.py` from going on for long.

How to add one: a function or filter that templates call is a row in `sandbox.py`; if what it makes can
be much larger than what it is given, also a check in `guards.py`.
"""

from edgellm.chat.template import ChatTemplate, default_template

__all__ = ["ChatTemplate", "default_template"]
