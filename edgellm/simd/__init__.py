"""Vector types for kernels: a few numbers side by side, and what a CPU can do with them.

A vector has 16 lanes of 32 bits (or 64 bytes) on every CPU. Where the registers are narrower, LLVM cuts each
operation in two or four, and the kernels stay as they are. A tile is a fixed count of vectors: the register
tile of a matrix product, one vector for each token.

Few things differ from CPU to CPU, and each instruction set has a file that says how it does them: the dot
product of bytes, how bytes are put together, shifts, the multiply-add, the conversion between f16 and f32,
and what keeps LLVM from loading more than registers hold.
Some multiply rows by two tokens at once, besides (`interleaved.py`).

How to add an instruction set: a file here with a class that inherits `lowering.Lowering`, a row in
`targets.py` that says which CPUs have it, and one in `lowering._CLASSES`.

Nothing here carries a fastmath flag: LLVM then neither contracts nor reorders, and each expression means the
same bits wherever it is compiled.
"""
