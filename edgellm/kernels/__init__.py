"""The kernels: Python that Numba and LLVM compile for this CPU, over the vector types of `edgellm.simd`.

Every kernel has one signature, `(args, header, chunk, worker)`, all int64: the address of its argument
block, the address of the step's header, which part of the work to do, and who does it (for scratch
memory). `layout.py` names the fields of both.

How to add one: a module-level function under `@kernel` in a file here; its name is then "file.function".
A backend asks for it with `cache.load_kernels(["file.function"])` and gets an address. Loading needs LLVM
only; Numba is imported in a child process, and only where something must be compiled.

How to add a packed form of weights: its bytes and a row of FORMS in `layout.py`, one expression in
`panels.py`, one function in `pack.py`, and the tensor type that takes it in `backends/cpu/weights.py`.
"""
