"""The CPU backend: a graph becomes a plan of compiled kernels over packed weights, and a team of threads
walks it.

threads.py   how many workers this machine should have
team.py      the workers
arena.py     memory that values share as they come and go
weights.py   GGUF tensors -> packed panels
lower.py     nodes -> ops of the plan; how to add one: a function under `@_lowers(Op)`
backend.py   loading, and a step: fill the header, run the plan
"""
