"""What Numba does for programs that kernels are not, left out: a quarter of the time that compiling takes."""

from __future__ import annotations

import functools

from numba.core import compiler, event, utils
from numba.core.codegen import JITCodeLibrary
from numba.core.typed_passes import DumpParforDiagnostics, InlineOverloads, NopythonRewrites
from numba.core.typing.templates import ConcreteTemplate
from numba.core.untyped_passes import (
    FindLiterallyCalls,
    InlineClosureLikes,
    InlineInlinables,
    LiteralPropagationSubPipelinePass,
    LiteralUnroll,
    MakeFunctionToJitFunction,
    RewriteDynamicRaises,
    WithLifting,
)
from numba.core.utils import order_by_target_specificity

_UNUSED_PASSES = (  # for closures, array expressions, literals in loops, `with` and `raise`
    DumpParforDiagnostics,
    FindLiterallyCalls,
    InlineClosureLikes,
    InlineInlinables,
    InlineOverloads,
    LiteralPropagationSubPipelinePass,
    LiteralUnroll,
    MakeFunctionToJitFunction,
    NopythonRewrites,
    RewriteDynamicRaises,
    WithLifting,
)


class Passes(compiler.CompilerBase):
    """Numba's passes but those that no kernel needs."""

    def define_pipelines(self):
        manager = compiler.DefaultPassBuilder.define_nopython_pipeline(self.state)
        manager.passes = [each for each in manager.passes if each[0] not in _UNUSED_PASSES]
        manager.finalize()
        return [manager]


class _Library(JITCodeLibrary):
    """The code of one function as it was made, without that of those it calls: only a whole kernel is put
    together and worth LLVM's time, once.
    """

    def finalize(self):
        """Nothing more comes."""
        self._finalized = True

    def _optimize_functions(self, module):
        pass

    def gather(self):
        """One module of this function and of all that it calls, each once."""
        self.finalize()
        found, waiting = {self}, [self]
        while waiting:
            for library in waiting.pop()._linking_libraries:
                if library not in found:
                    found.add(library)
                    waiting.append(library)
                    self._final_module.link_in(library._final_module, preserve=True)
        self._final_module.verify()
        return self._final_module

    def optimize(self):
        """Run LLVM's full pipeline over everything that was gathered."""
        passes, builder = self._codegen._module_pass_manager()
        passes.run(self._final_module, builder)


def _not_executable(library, descriptor, environment):
    """Nothing compiled here is run here; but Numba tells its functions apart by this, so it is a new one
    each time.
    """
    return [].append


@functools.cache
def _order(target, templates, fnkey):
    """Numba's order of the templates that may type a call, but those of plain numbers first: it would ask
    those of times, lists, texts and arrays for the sum of two integers before.
    """
    order = order_by_target_specificity(target, templates, fnkey)
    return sorted(order, key=lambda template: not issubclass(template, ConcreteTemplate))


def make_lean(context):
    """From now on, do less. `context` is Numba's, for code."""
    context.refresh()  # Numba's own runtime is compiled as ever
    known = list(context._registries)  # it would look for more, each time it is asked for a function
    context.load_additional_registries = lambda: [context.install_registry(each) for each in known]
    context.typing_context.load_additional_registries = lambda: None
    context.codegen()._library_class = _Library
    context.get_executable = _not_executable
    utils.order_by_target_specificity = _order
    event.start_event = event.end_event = lambda *_, **__: None  # nobody listens
