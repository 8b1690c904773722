"""Which products take a second row of their input: what rounding to int8 left (kernels/layout.py)."""

from __future__ import annotations

from edgellm.graph import Node, O, Value, ops
from edgellm.graph.passes import Project, RopeAttention

_PASS_ON = (ops.Reshape, ops.Slice, ops.RMSNorm, ops.Scale)  # between a projection and who attends to it


def precise_outputs(nodes: list[Node], vocab_size: int) -> set[Value]:
    """Outputs of projections that take a second row: what becomes keys and values, in the first
    half of the layers; and in the last layer what only output rows go through, but for the logits.

    All later tokens read the former, so that their noise does not average out; that of queries does, or of
    what goes on to the next layer. After the last one nothing averages, and few rows are left.
    """
    precise = {v for node in nodes for v in node.outputs if v.shape[0] is O and v.width != vocab_size}
    attentions = [node for node in nodes if isinstance(node.op, RopeAttention)]
    early = attentions[: len(attentions) // 2]
    for node in reversed(nodes):
        if node in early:
            precise.update(node.inputs[1:3])
        elif isinstance(node.op, _PASS_ON) and node.outputs[0] in precise:
            precise.update(node.inputs)
    return {v for node in nodes if isinstance(node.op, Project) for v in node.outputs if v in precise}
