"""The reference backend: walks the graph node by node in NumPy. Slow, and evidently right: the oracle.

How to add an op: a function `(step, node, *inputs) -> output` under `@implements(ops.ItsClass)`, in the file
of its kind or in a new one that is imported here.
"""

from edgellm.backends.reference import attention, experts, pointwise, recurrent, tables
from edgellm.backends.reference.backend import ReferenceBackend

__all__ = ["ReferenceBackend", "attention", "experts", "pointwise", "recurrent", "tables"]
