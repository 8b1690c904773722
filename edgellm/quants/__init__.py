"""What the bytes of a tensor mean: one class for each type, in NumPy, to be read and to check others against.

    quants.get(TensorType.Q4_0).dequantize(raw)   # uint8 [rows, row_bytes] -> float32 [rows, cols]

How to add one: a class in `plain.py` (no blocks), `legacy.py` (32 columns) or `k.py` (256 columns), or in a
new file that is imported here:

    class Q4_0(QuantType, type=TensorType.Q4_0):
        block = np.dtype([("d", "<f2"), ("qs", "u1", 16)])

        @classmethod
        def decode(cls, blocks): ...      # structured [n] -> float32 [n, block_size]

        @classmethod
        def encode(cls, values): ...      # float32 [n, block_size] -> structured [n]; may be left out

Defining the class registers it and proves its size; the tests find it in the registry.
Source of all layouts and roundings: ggml/src/ggml-common.h and ggml/src/ggml-quants.c (`*_ref`) of llama.cpp.
"""

from edgellm.quants import k, legacy, plain
from edgellm.quants.base import QuantType, get, supported

__all__ = ["QuantType", "get", "k", "legacy", "plain", "supported"]
