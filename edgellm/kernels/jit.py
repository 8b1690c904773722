"""The only user of Numba's compiler: kernels in, object code out.

Objects hold one C symbol each, and call nothing but libc; so loading them takes LLVM's linker and no Numba.
No fastmath flags, ever: see `edgellm.simd`.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil

import llvmlite.binding as llvm
from llvmlite import ir
from numba import float32, int32, int64, njit
from numba.core import compiler, types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

import edgellm.kernels
from edgellm.config import load_config
from edgellm.kernels.lean import Passes, make_lean
from edgellm.simd import ops, targets

CONFIG = load_config()
TARGET = targets.named(CONFIG.cross.target) if CONFIG.cross else targets.choose(CONFIG.target)
TOKEN_TILES = TARGET.token_tiles
LARGEST_TILE = TOKEN_TILES[0]
ATTENTION_TILES = TARGET.attention_tiles
WEIGHT_FLIP = TARGET.weight_flip
MATRIX_PRODUCTS = TARGET.matrix_products
NIBBLES_IN_PLACE = TARGET.nibbles_in_place
SUMS_IN_TURN = TARGET.sums_in_turn
SUMS_OF_PAIRS = TARGET.sums_of_pairs
CODES_IN_TURN = TARGET.codes_in_turn
_CPU = CONFIG.cross.cpu if CONFIG.cross else targets.host_cpu()
REQUESTS = targets.requests(TARGET, _CPU)
INTEGER_SUMS = targets.integer_sums(TARGET, _CPU)
PANELS_TOGETHER = targets.panels_together(TARGET, _CPU)
ops.use(TARGET.name)

__all__ = [
    "ATTENTION_TILES",
    "CODES_IN_TURN",
    "INTEGER_SUMS",
    "LARGEST_TILE",
    "MATRIX_PRODUCTS",
    "NIBBLES_IN_PLACE",
    "PANELS_TOGETHER",
    "REQUESTS",
    "SUMS_IN_TURN",
    "SUMS_OF_PAIRS",
    "TOKEN_TILES",
    "WEIGHT_FLIP",
    "add_kernel",
    "assembly",
    "compile_kernel",
    "compile_module",
    "device",
    "float32",
    "int32",
    "int64",
    "kernel",
    "kernel_names",
    "symbol",
]

_SIGNATURE = (types.int64,) * 4
_OPTIONS = {
    "error_model": "numpy",
    "boundscheck": False,
    "nogil": True,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "pipeline_class": Passes,
}
_KERNELS: dict[str, object] = {}


def device(function):
    """A function that kernels call: compiled for each combination of argument types it meets, but not for
    each constant, as Numba would.
    """
    dispatcher = njit(**_OPTIONS)(function)
    template = dispatcher.get_call_template
    dispatcher.get_call_template = lambda args, keywords: template(
        tuple(map(types.unliteral, args)), keywords
    )
    return dispatcher


def kernel(function):
    """A kernel: enters itself as "file.function"."""
    _KERNELS[f"{function.__module__.rpartition('.')[2]}.{function.__name__}"] = function
    return function


def kernel_names() -> list[str]:
    """Every kernel of every file here."""
    for module in pkgutil.iter_modules(edgellm.kernels.__path__):
        importlib.import_module(f"edgellm.kernels.{module.name}")
    return sorted(_KERNELS)


def add_kernel(name, function):
    """Enter a kernel that a function made, as "file.function"."""
    _KERNELS[name] = function


def symbol(name: str) -> str:
    """The C symbol of a kernel."""
    return "edgellm_" + name.replace(".", "_")


@global_compiler_lock
def compile_module(name: str):
    """The optimized LLVM module of one kernel."""
    importlib.import_module(f"edgellm.kernels.{name.partition('.')[0]}")
    flags = compiler.Flags()
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = True
    flags.error_model = "numpy"
    flags.boundscheck = False
    flags.nrt = False
    typing, context = cpu_target.typing_context, cpu_target.target_context
    make_lean(context)
    result = compiler.compile_extra(
        typing, context, _KERNELS[name], _SIGNATURE, types.none, flags, {}, pipeline_class=Passes
    )
    library = context.codegen().create_library(symbol(name))
    library.add_ir_module(_entry(context, library, result, name))
    library.add_linking_library(result.library)
    module = library.gather()
    for function in module.functions:
        if not function.is_declaration and function.name != symbol(name):
            function.linkage = "internal"
            function.add_function_attribute("alwaysinline")  # only the entry aligns its stack
    _aim(context.codegen(), module)
    library.optimize()
    return module


@functools.cache
def _other_machine():
    """The machine that EDGELLM_CROSS names, set up as Numba does for its own."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    cross = CONFIG.cross
    reloc = "static" if cross.triple.startswith("x86") else "default"
    return llvm.Target.from_triple(cross.triple).create_target_machine(
        cross.cpu, cross.features, opt=3, reloc=reloc, codemodel="jitdefault", jit=True
    )


def _aim(codegen, module) -> None:
    """Let what comes now, optimizing and emitting, be for the other machine, if there is one."""
    if CONFIG.cross is not None:
        codegen._tm = _other_machine()
        module.triple, module.data_layout = codegen._tm.triple, str(codegen._tm.target_data)


def compile_kernel(name: str) -> bytes:
    """Object code of one kernel, for the CPU that Numba was told to compile for, or EDGELLM_CROSS's."""
    module = compile_module(name)  # first: it may aim at another machine
    return cpu_target.target_context.codegen()._tm.emit_object(module)


def assembly(module) -> str:
    """The same as assembly, for people and tests."""
    return cpu_target.target_context.codegen()._tm.emit_assembly(module)


def _align_stack(b):
    """Have something on the stack that is aligned to a cache line, and so all of it: LLVM aligns the places
    to which it spills vectors only where the stack is aligned anyway. Those that cross lines cost twice: on
    AVX2, a product took up to 1.7 times as long, or not, by the accident of where a thread's stack began.
    """
    place = b.alloca(ir.IntType(8), 64)
    place.align = 64
    kind = ir.FunctionType(ir.VoidType(), [place.type])
    b.call(ir.InlineAsm(kind, "", "r,~{memory}", side_effect=True), [place])  # nobody removes it


def _entry(context, library, result, name):
    """A C function around the compiled one; its status is always fine, as kernels raise nothing."""
    module = library.create_ir_module(symbol(name))
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * 4), symbol(name))
    b = ir.IRBuilder(function.append_basic_block())
    if TARGET.machine == "x86_64":
        _align_stack(b)
    inner = context.declare_function(module, result.fndesc)
    context.call_conv.call_function(b, inner, types.none, _SIGNATURE, function.args)
    b.ret_void()
    return module
