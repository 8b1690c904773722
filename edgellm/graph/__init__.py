"""A model as data: values, the ops between them, and what they keep from step to step.

How to add an op: a frozen dataclass in `ops.py` (its fields are the constants, its docstring the arithmetic),
a method in `builder.py` that states the output's shape, a function in `backends/reference/`
(the oracle), and then one in each backend that should run it.
"""

from edgellm.graph.builder import Builder
from edgellm.graph.graph import CacheSpec, Dim, Graph, Node, O, S, Size, StateSpec, T, Value, Weight

__all__ = [
    "Builder",
    "CacheSpec",
    "Dim",
    "Graph",
    "Node",
    "O",
    "S",
    "Size",
    "StateSpec",
    "T",
    "Value",
    "Weight",
]
