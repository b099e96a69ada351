"""Integer functions that become part of the kernels that call them, and nothing by themselves.

Numba makes every compiled function callable from Python: a wrapper and machine code of its own, a
third of all that a kernel and its callees cost to compile. A function that only kernels call needs
neither. What the wrapper is for still works: called from Python, the function is compiled whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.registry import CPUDispatcher
from numba.core.typed_passes import NativeLowering

OPTIONS = {"nogil": True, "no_cfunc_wrapper": True}


class _Library(JITCodeLibrary):  # type: ignore[misc]  # Numba has no types
    """Optimized LLVM code to be linked into a kernel's, of which no machine code is made."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(NativeLowering):  # type: ignore[misc]  # Numba has no types
    _name = "linked_lowering"

    def run_pass(self, state: Any) -> bool:
        state.library = _Library(state.targetctx.codegen(), state.func_id.func_qualname)
        state.flags.no_compile = True
        changed: bool = super().run_pass(state)
        key = object()  # by which callers find the function; elsewhere it is the function made of machine code
        state.targetctx.insert_user_function(key, state["cr"].fndesc, [state.library])
        state["cr"] = state["cr"]._replace(cfunc=key)
        return changed


class _Compiler(CompilerBase):  # type: ignore[misc]  # Numba has no types
    def define_pipelines(self) -> list[Any]:
        pipeline = DefaultPassBuilder.define_nopython_pipeline(self.state)
        pipeline.passes = [(_Lowering if made is NativeLowering else made, why) for made, why in pipeline.passes]
        pipeline.finalize()
        return [pipeline]


class Linked(CPUDispatcher):  # type: ignore[misc]  # Numba has no types
    """``function`` as kernels see it; called from Python, a twin that is compiled whole."""

    def __init__(self, function: Callable[..., Any]) -> None:
        options = {**OPTIONS, "nopython": True, "no_cpython_wrapper": True}
        super().__init__(function, targetoptions=options, pipeline_class=_Compiler)
        self._whole = numba.njit(function, **OPTIONS)

    def add_overload(self, cres: Any) -> None:
        self.overloads[tuple(cres.signature.args)] = cres  # without what makes it callable from Python

    def __call__(self, *args: Any) -> Any:
        return self._whole(*args)
