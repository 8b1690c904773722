"""The kernels: Python that Numba and LLVM compile for this CPU, over the vector types of `edgellm.simd`.

Every kernel has one signature, `(args, header, chunk, worker)`, all int64: the address of its argument
block, the address of the step's header, which part of the work to do, and who does it (for scratch
memory). `layout.py` names the fields of both.

How to add one: a module-level function under `@kernel` in a file here; its name is then "file.function".
A backend asks for it with `cache.load_kernels(["file.function"])` and gets an address. Loading needs LLVM
only; Numba is imported in a child process, and only where something must be compiled.

How to add a packed form of weights: its bytes and a row of FORMS in `layout.py`, one expression in
`panels.py`, one function in `pack.py`, one in `embed.py` that reads a row of the file, and the tensor type
that takes it in `backends/cpu/weights.py`. Codes that are more than bytes are unpacked for prompts, too
(`unpack.py`, WIDE_FORMS).

Where to begin:

    products    matmul (chunks, tiles) -> panels (one output's expression) -> packed, codes (the bits);
                in_turn (AVX-VNNI, ARM), weighed (AVX2); outputs (sums to y); mapped (weights in the file)
    prompts     parts -> wide, unpack; two_panels (Zen 5)
    attention   attention -> spans, queries; rope (keys and values into their pages)
    row by row  pointwise, quantize, embed; shares (what a chunk takes)
    a token     sample -> race, filters, best, buckets, nearest
    threads     team -> waiting, benching, standing_in, helping
    compiling   cache -> compilers -> compile -> jit, lean; sizes (tiles that share their loops)

A panel is what llama.cpp calls a repacked block (`block_q4_0x8`), of 16 rows. Quantized activations are its
`q8_0` or `q8_K` rows, with a scale for 16 columns; a second row of what rounding left has no match there.
"""
