"""The vector and tile types, as Numba and LLVM see them."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.core.datamodel import PrimitiveModel
from numba.extending import register_model

LANES = 16  # 32-bit lanes of a vector, and rows of a weight panel

_ELEMENTS = {"f32": ir.FloatType(), "i32": ir.IntType(32), "i16": ir.IntType(16), "i8": ir.IntType(8)}


class Vector(types.Type):
    """`lanes` numbers of one kind, in one value."""

    def __init__(self, kind: str, lanes: int) -> None:
        self.kind, self.lanes = kind, lanes
        super().__init__(f"{kind}x{lanes}")

    @property
    def ir(self):
        return ir.VectorType(_ELEMENTS[self.kind], self.lanes)


class Tile(types.Type):
    """`rows` rows of `across` vectors each, `count` together, in one value; operations apply to each. Where
    two rows are `interleaved`, their lanes alternate in two vectors (`interleaved.py`). A tile may be a part
    of one of `pitch` rows, whose numbers stand side by side in memory.
    """

    def __init__(
        self, vector: Vector, rows: int, across: int = 1, interleaved: int = 1, pitch: int = 0
    ) -> None:
        self.vector, self.rows, self.across, self.interleaved = vector, rows, across, interleaved
        self.count, self.pitch = rows * across, pitch or rows
        super().__init__(f"{vector.name}x{rows}x{across}x{interleaved}of{self.pitch}")

    def of(self, vector: Vector) -> Tile:
        """The same shape of other vectors."""
        return Tile(vector, self.rows, self.across, self.interleaved, self.pitch)

    @property
    def ir(self):
        return ir.ArrayType(self.vector.ir, self.count)


@register_model(Vector)
class _VectorModel(PrimitiveModel):
    def __init__(self, manager, fe_type) -> None:
        super().__init__(manager, fe_type, fe_type.ir)


@register_model(Tile)
class _TileModel(PrimitiveModel):
    def __init__(self, manager, fe_type) -> None:
        super().__init__(manager, fe_type, fe_type.ir)


F32 = Vector("f32", LANES)
I32 = Vector("i32", LANES)
WORDS = Vector("i16", 2 * LANES)
BYTES = Vector("i8", 4 * LANES)

F32_IR, I32_IR, WORDS_IR, BYTES_IR = F32.ir, I32.ir, WORDS.ir, BYTES.ir
I64_IR = ir.IntType(64)
