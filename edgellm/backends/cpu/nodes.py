"""How each kind of node becomes ops of the plan: one function, registered by the node's class."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from edgellm.backends.base import kv_bytes
from edgellm.backends.cpu.chunks import panels_per_chunk
from edgellm.backends.cpu.lower import Argument, Lowering, Place, float_bits
from edgellm.backends.cpu.weights import Packed, form_of
from edgellm.backends.profile import Work
from edgellm.graph import Node, Weight, ops
from edgellm.graph.passes import Project, RopeAttention
from edgellm.kernels import layout as L

Lower = Callable[[Lowering, Node], None]
LOWERINGS: dict[type[ops.Op], Lower] = {}

_ALL_ROWS = 1 << 40  # rows that a chunk takes: one chunk for a panel, if there are any rows


def _lowers(*kinds: type[ops.Op]) -> Callable[[Lower], Lower]:
    def register(function: Lower) -> Lower:
        for kind in kinds:
            LOWERINGS[kind] = function
        return function

    return register


@_lowers(ops.Embed)
def _embed(lw: Lowering, node: Node) -> None:
    assert isinstance(node.op, ops.Embed)
    table = node.weights[0]
    if node.op.of != "tokens" or table is None:
        lw.refuse("embeddings of something other than tokens")
        return
    form, y = form_of(lw.file, table), lw.make(node.outputs[0])
    args: list[Argument] = [0] * L.EM_WORDS
    args[L.EM_TABLE], args[L.EM_ROW_BYTES] = table, lw.file.tensors[table.name].row_bytes
    args[L.EM_COLUMNS], args[L.EM_Y], args[L.EM_Y_STRIDE] = table.shape[1], y.ref, y.stride
    work = Work("embed", row_bytes=4 * table.shape[1])
    lw.emit(f"embed.{form.name}", args, L.H_TOKENS, L.PW_CHUNK, 1, work)


@_lowers(Project)
def _project(lw: Lowering, node: Node) -> None:
    """One matmul for all the weights; its outputs are columns of one buffer."""
    assert isinstance(node.op, Project)
    x = node.inputs[0]
    pairs = [(w, b) for w, b in zip(node.weights[::2], node.weights[1::2], strict=True) if w is not None]
    packed = lw.store.add(pairs)
    args: list[Argument] = [0] * L.MM_WORDS
    args[L.MM_PLANES] = 1
    if packed.form.quantized:
        args[L.MM_X], args[L.MM_AUX], _, args[L.MM_PLANES] = lw.read_quantized(x, packed.form.zero)
        args[L.MM_X_STRIDE] = packed.columns
    else:
        rows = lw.read(x)
        args[L.MM_X], args[L.MM_X_STRIDE] = rows.ref, rows.stride
    y = lw.make(node.outputs[0], packed.panels * L.LANES)
    if node.op.residual:
        residual = lw.read(node.inputs[1])
        if residual.stride != y.stride:
            lw.refuse("a residual that is a part of rows")
        args[L.MM_RESIDUAL] = residual.ref
    for value, start in zip(node.outputs, packed.row_starts, strict=True):
        lw.places[value] = Place(y.ref + 4 * start, y.stride, y.slot)
    starts = [s for v, s in zip(node.outputs, packed.row_starts, strict=True) if v in lw.precise]
    args[L.MM_PRECISE] = precise = min(starts) // L.LANES if starts else packed.panels
    per_chunk = panels_per_chunk(packed, lw.threads, uneven=0 < precise < packed.panels)
    args[L.MM_Y], args[L.MM_Y_STRIDE], args[L.MM_SLOT] = y.ref, y.stride, y.slot
    args[L.MM_COLUMNS], args[L.MM_PANELS], args[L.MM_PANELS_PER_CHUNK] = (
        packed.columns,
        packed.panels,
        per_chunk,
    )
    args[L.MM_BIAS] = int(packed.bias.ctypes.data) if packed.bias is not None else 0
    chunks = -(-packed.panels // per_chunk)
    again = packed.panels - precise if args[L.MM_PLANES] == 2 else 0
    work = Work(
        _label([w for w, _ in pairs]) + " " + packed.form.name,
        step_bytes=packed.panels * packed.panel_bytes,
        row_operations=2 * (packed.panels + again) * L.LANES * packed.columns,
    )
    if lw.config.low_memory:
        _from_the_map(lw, args, pairs[0][0], packed)
        lw.emit(f"mapped.{packed.form.name}", args, y.slot, _ALL_ROWS, chunks, work)
    else:
        args[L.MM_WEIGHTS] = packed
        if packed.form.name in L.WIDE_FORMS:
            args[L.MM_SCRATCH] = lw.arena.buffer(L.WIDE_SCRATCH * lw.threads, len(lw.program.ops))
        lw.emit(f"matmul.{packed.form.name}", args, y.slot, L.MM_TOKENS, chunks, work)


def _from_the_map(lw: Lowering, args: list[Argument], weight: Weight, packed: Packed) -> None:
    """Let a matmul read its weight where the file has it."""
    args[L.MM_WEIGHTS], args[L.MM_ROWS] = weight, weight.shape[0]
    args[L.MM_ROW_BYTES] = lw.file.tensors[weight.name].row_bytes
    scratch = L.mapped_scratch(packed.form.columns, packed.form.panel_bytes)
    args[L.MM_SCRATCH] = lw.arena.buffer(scratch * lw.threads, len(lw.program.ops))


def _label(weights: list[Weight]) -> str:
    """The tensors' names without the layer's: attn_q+attn_k."""
    names = (re.sub(r"^blk\.\d+\.|\.weight$", "", w.name) for w in weights)
    return "+".join(names)


@_lowers(ops.RMSNorm)
def _rms_norm(lw: Lowering, node: Node) -> None:
    assert isinstance(node.op, ops.RMSNorm)
    (value,), out, (weight,) = node.inputs, node.outputs[0], node.weights
    if weight is None or math.prod(weight.shape) != value.shape[-1]:
        lw.refuse("a norm without weights, or with some for each group")
        return
    if len(value.shape) == 3:
        _head_norm(lw, node, node.op.eps, weight)
        return
    plain, coded = lw.wants(out)
    x = lw.read(value)
    slot, _ = lw.rows_of(out)
    y = lw.make(out) if plain else None
    codes = lw.make_quantized(out) if coded else None
    lw.emit_rows(
        "pointwise.rms_norm", x, value.width, weight=lw.vector(weight), y=y, codes=codes, slot=slot,
        eps=node.op.eps, rows=lw.row_index.get(value, L.H_ONE),
    )  # fmt: skip


def _head_norm(lw: Lowering, node: Node, eps: float, weight: Weight) -> None:
    """Each head on its own: the norm of queries and keys."""
    value, out = node.inputs[0], node.outputs[0]
    heads, columns = value.shape[1:]
    assert isinstance(heads, int)
    assert isinstance(columns, int)
    x = lw.read(value)
    y = lw.make(out)
    lw.emit_rows("pointwise.head_norm", x, columns, weight=lw.vector(weight), y=y, eps=eps, heads=heads)


@_lowers(ops.Glu)
def _glu(lw: Lowering, node: Node) -> None:
    assert isinstance(node.op, ops.Glu)
    if node.op.kind not in ("silu", "gelu_tanh"):
        lw.refuse(f"a {node.op.kind} gate")
    out = node.outputs[0]
    plain, coded = lw.wants(out)
    gate, up = (lw.read(v) for v in node.inputs)
    if gate.stride != up.stride:
        lw.refuse("a gate and its partner of different types")
    y = lw.make(out) if plain else None
    codes = lw.make_quantized(out) if coded else None
    lw.emit_rows(f"pointwise.glu_{node.op.kind}", gate, out.width, x2=up.ref, y=y, codes=codes)


@_lowers(ops.Add)
def _add(lw: Lowering, node: Node) -> None:
    """A sum that no matmul could take along as its residual."""
    if len(node.inputs) != 2 or node.inputs[0].shape != node.inputs[1].shape:
        lw.refuse("a sum with a weight or of two shapes")
    a, b = (lw.read(v) for v in node.inputs)
    if a.stride != b.stride:
        lw.refuse("a sum of parts of rows")
    y = lw.make(node.outputs[0])
    lw.emit_rows("pointwise.add", a, node.outputs[0].width, x2=b.ref, y=y)


@_lowers(ops.Scale)
def _scale(lw: Lowering, node: Node) -> None:
    assert isinstance(node.op, ops.Scale)
    x = lw.read(node.inputs[0])
    y = lw.make(node.outputs[0])
    lw.emit_rows("pointwise.scale", x, node.outputs[0].width, y=y, eps=node.op.factor)


@_lowers(ops.SelectRows)
def _select_rows(lw: Lowering, node: Node) -> None:
    """Where a norm alone reads the rows, it picks them out itself."""
    (value,), out = node.inputs, node.outputs[0]
    readers = [n for n in lw.nodes if out in n.inputs]
    if all(isinstance(n.op, ops.RMSNorm) for n in readers):
        x = lw.places[value]
        lw.places[out] = Place(x.ref, x.stride, L.H_OUTPUTS)
        lw.row_index[out] = L.H_OUTPUT_ROWS
        return
    x = lw.read(value)
    y = lw.make(out)
    lw.emit_rows("pointwise.gather", x, out.width, y=y, slot=y.slot, rows=L.H_OUTPUT_ROWS)


@_lowers(ops.Reshape)
def _reshape(lw: Lowering, node: Node) -> None:
    lw.places[node.outputs[0]] = lw.places[node.inputs[0]]


@_lowers(ops.Slice)
def _slice(lw: Lowering, node: Node) -> None:
    assert isinstance(node.op, ops.Slice)
    x = lw.places[node.inputs[0]]
    if len(node.inputs[0].shape) != 2:
        lw.refuse("a slice of heads")
    lw.places[node.outputs[0]] = Place(x.ref + 4 * node.op.start, x.stride, x.slot)


@_lowers(RopeAttention)
def _attention(lw: Lowering, node: Node) -> None:
    """Two ops: turn and store keys and values, then attend."""
    assert isinstance(node.op, RopeAttention)
    _check_attention(lw, node, node.op.attention)
    _rope_store(lw, node, node.op)
    _attend(lw, node, node.op.attention)


def _sizes(lw: Lowering, node: Node) -> tuple[int, int, int, int, int]:
    """Heads, kv heads, dimensions of a head, and a page's bytes of a kv head: of keys, of values."""
    heads, head_dim = (int(d) for d in node.inputs[0].shape[1:] if isinstance(d, int))
    kv_heads = node.inputs[1].shape[1]
    assert isinstance(kv_heads, int)
    k_type, v_type = lw.config.kv_types
    return heads, kv_heads, head_dim, kv_bytes(k_type, head_dim), kv_bytes(v_type, head_dim)


def _rope_store(lw: Lowering, node: Node, op: RopeAttention) -> None:
    q, k, v = (lw.read(value) for value in node.inputs)
    heads, kv_heads, head_dim, key_bytes, value_bytes = _sizes(lw, node)
    args: list[Argument] = [0] * L.RS_WORDS
    args[L.RS_Q], args[L.RS_K], args[L.RS_V] = q.ref, k.ref, v.ref
    args[L.RS_Q_STRIDE], args[L.RS_K_STRIDE], args[L.RS_V_STRIDE] = q.stride, k.stride, v.stride
    args[L.RS_HEADS], args[L.RS_KV_HEADS], args[L.RS_HEAD_DIM] = heads, kv_heads, head_dim
    args[L.RS_POOL] = lw.pools[op.attention.cache]
    args[L.RS_KEY_BYTES], args[L.RS_VALUE_BYTES] = key_bytes, value_bytes
    if op.rope is not None:
        table = lw.rope_table(op.rope, node.weights[1])
        args[L.RS_DIMS], args[L.RS_NEOX] = op.rope.dims, int(op.rope.style == "neox")
        args[L.RS_TABLE] = int(table.rows.ctypes.data)
    work = Work("rope_store", row_bytes=4 * head_dim * (2 * heads + 3 * kv_heads))
    kernel = "rope.turn_and_store_{}_{}".format(*lw.config.kv_types)
    lw.emit(kernel, args, L.H_TOKENS, L.PW_CHUNK, 1, work, L.H_PARTS)


def _attend(lw: Lowering, node: Node, attention: ops.Attention) -> None:
    """The spans of rows that were cut for many threads are merged by a third op."""
    heads, kv_heads, head_dim, key_bytes, value_bytes = _sizes(lw, node)
    q = lw.read(node.inputs[0])
    out = lw.make(node.outputs[0])
    pairs = max(L.MAX_PAIRS, heads // kv_heads)
    window = min(attention.window, lw.graph.context_length)  # kernels count positions in 32 bits
    lw.program.group = max(lw.program.group, heads // kv_heads)
    lw.program.kv_heads = min(lw.program.kv_heads or kv_heads, kv_heads)
    scratch = -(-L.attention_scratch(pairs, head_dim) // 64) * 64
    args: list[Argument] = [0] * L.AT_WORDS
    args[L.AT_Q], args[L.AT_Q_STRIDE] = q.ref, q.stride
    args[L.AT_OUT], args[L.AT_OUT_STRIDE] = out.ref, out.stride
    args[L.AT_HEADS], args[L.AT_KV_HEADS], args[L.AT_HEAD_DIM] = heads, kv_heads, head_dim
    args[L.AT_POOL] = lw.pools[attention.cache]
    args[L.AT_SCALE], args[L.AT_WINDOW] = float_bits(attention.scale), window
    args[L.AT_SCRATCH] = lw.arena.buffer(scratch * lw.threads, len(lw.program.ops))
    args[L.AT_SCRATCH_STRIDE] = scratch
    if lw.slots:
        parts = lw.arena.buffer(lw.slots * L.attention_part(heads, head_dim), len(lw.program.ops))
        args[L.AT_PARTS] = parts
        lw.arena.touch(parts, len(lw.program.ops) + 1)
        lw.arena.touch(out.ref, len(lw.program.ops) + 1)
    args[L.AT_KEY_BYTES], args[L.AT_VALUE_BYTES] = key_bytes, value_bytes
    each = (key_bytes + value_bytes) // L.PAGE * kv_heads
    work = Work("attend", key_bytes=each, key_operations=4 * head_dim * heads)
    kernel = "attention.attend_{}_{}".format(*lw.config.kv_types)
    lw.emit(kernel, args, L.H_ITEMS, 1, kv_heads, work)
    if lw.slots:
        lw.emit("attention.merge", args, L.H_MERGES, 1, heads, Work("merge"))


def _check_attention(lw: Lowering, node: Node, op: ops.Attention) -> None:
    head_dim = node.inputs[0].shape[2]
    assert isinstance(head_dim, int)
    if len(node.inputs) != 3 or op.value_dim != head_dim:
        lw.refuse("latent attention")
    if not op.causal or op.softcap or node.weights[0] is not None:
        lw.refuse("attention that is not causal, or has a softcap or sinks")
    if head_dim % L.LANES:
        lw.refuse(f"heads of {head_dim} dimensions (a multiple of {L.LANES} is needed)")
