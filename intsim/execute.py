"""Running an op: the choice of implementation and the walk over leading dimensions. No arithmetic lives here."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from intsim.backends.lines import empty
from intsim.binding import Array, Binder, Bound, bind, fold, foldable, folded_size, in_type, kernel_view, writable_view
from intsim.direct import Direct, core_of, shapes_and_types
from intsim.flags import Flags, flags_of
from intsim.kept import Kept, frozen
from intsim.numerics import IntType
from intsim.op import Composition, Contraction, Elementwise, Op, Tuned
from intsim.params import kinds, record, widen
from intsim.records import fields_class
from intsim.registry import get

BACKENDS = ("reference", "exact", "cpu", "cuda")


class NotServed(ValueError):
    """The tuned kernel that was asked for does not serve these parameters and sizes."""


def _op(op: Op | str) -> Op:
    return get(op) if isinstance(op, str) else op


def _has(op: Op, tuned: bool | str) -> bool:
    return isinstance(tuned, bool) or any(t.where == tuned for t in op.tuned)


def _candidates(op: Op, backend: str, tuned: bool | str) -> tuple[Tuned, ...]:
    """The tuned kernels to choose from. Raises ValueError where ``tuned`` names none of them."""
    there = tuple(t for t in op.tuned if t.backend == backend)
    if isinstance(tuned, bool):
        return there if tuned else ()
    chosen = tuple(t for t in there if t.where == tuned)
    if not chosen and not isinstance(op.program, Composition):
        listed = ", ".join(t.where for t in there) or "none"
        raise ValueError(f"{op.id}: has no tuned kernel {tuned!r} for {backend!r}; it has {listed}")
    return chosen


def _one(out: tuple[Array, ...]) -> Any:
    return out[0] if len(out) == 1 else out


def run(
    op: Op | str,
    *arrays: Any,
    p: Any,
    backend: str = "cpu",
    tuned: bool | str = True,
    flags: bool = False,
    refuse_overflow: bool = False,
) -> Any:
    """The outputs of ``op``: an array, or a tuple of arrays where the op has several outputs.

    arrays: the inputs in the order of the op's ports; None for an optional one. Each may have
        leading dimensions, which broadcast. With "cuda" they may lie in a GPU's memory (PyTorch,
        CuPy, Numba, anything with DLPack or __cuda_array_interface__): they are read there, on the
        caller's stream, and the outputs are arrays of the same library.
    backend: "reference" (the spec on int64), "exact" (the spec on unbounded integers), "cpu" or
        "cuda"; all of them agree to the bit. tuned=False leaves out tuned kernels, the name of one
        ("module:function") takes that one alone (NotServed, a ValueError, where it does not serve the call).
    flags: return (outputs, Flags): which elements saturated, wrapped or hit a rounding tie.
    refuse_overflow: raise OverflowError where any element saturated or wrapped.
    Raises TypeError or ValueError for inputs or parameters outside the op's limits, MemoryError
    where a GPU has no room for an output.
    """
    out = prepare(op, p=p, backend=backend, tuned=tuned)(*arrays)
    if not (flags or refuse_overflow):
        return out
    if backend == "cuda":
        from intsim.on_gpu import host_copies

        arrays = host_copies(arrays)
    found = _flags(_op(op), arrays, p, backend, tuned)
    if refuse_overflow and found.overflowed:
        listed = ", ".join(f"{name}: {n} elements" for name, n in found.overflowed.items())
        raise OverflowError(f"{_op(op).id}: values did not fit ({listed}); run(..., flags=True) shows where")
    return (out, found) if flags else out


def _flags(op: Op, arrays: Sequence[Any], p: Any, backend: str, tuned: bool | str) -> Flags:
    if not isinstance(op.program, Composition):
        return flags_of(lambda q: Prepared(op, q, backend, tuned).outputs(*arrays)[0], p)
    masks: dict[str, Array] = {}

    def stage(name: str, *inputs: Any, p: Any) -> Any:
        field = next((n for n in kinds(outer) if getattr(outer, n) is p), None)
        if field is None:  # a stage that moves elements: it has no rule that could have a flag
            return run(name, *inputs, p=p, backend=backend, tuned=tuned)
        out, found = run(name, *inputs, p=p, backend=backend, tuned=tuned, flags=True)
        masks.update({f"{field}.{flag}": mask for flag, mask in found.masks.items()})
        return out

    outer = p
    op.program.wire(stage, *bind(op, arrays, p).arrays, p)
    return Flags(masks)


def tabulate(op: Op | str, *, p: Any, backend: str = "reference") -> Array:
    """The result of a one-input elementwise op for every value of its 8-bit input, lowest first: a table
    for ``activation.table``.

    Raises ValueError where the op has another shape or its input is not an 8-bit integer.
    """
    op = _op(op)
    t = op.inputs[0].type(p)
    if len(op.inputs) != 1 or not isinstance(op.program, Elementwise) or not isinstance(t, IntType) or t.bits != 8:
        raise ValueError(
            f"{op.id}: a table needs an elementwise op with one 8-bit input; got {t} and {len(op.inputs)} inputs"
        )
    return np.asarray(run(op, np.arange(t.qmin, t.qmax + 1).astype(t.storage)[None], p=p, backend=backend)[0])


def reference(op: Op | str, *arrays: Any, p: Any, exact: bool = True) -> tuple[Array, ...]:
    """The outputs of the spec, always a tuple: on unbounded integers (``exact``) or on int64."""
    return Prepared(_op(op), p, "exact" if exact else "reference", tuned=False).outputs(*arrays)


def prepare(
    op: Op | str,
    *,
    p: Any,
    backend: str = "cpu",
    tuned: bool | str = True,
    constant: Mapping[str, Any] | None = None,
    stream: Any = None,
) -> Prepared:
    """``op`` with its parameters checked and its kernel record built once, to be called many times.

    tuned: as in ``run``. constant: inputs by name that no call changes (weights, a bias, a table): calls leave
    them out, and tuned kernels reorder them once. They are copied (to the GPU, where they stay; on the host not
    where an array owns its memory and is marked read-only): what is written to the caller's array afterwards has
    no effect. stream: the GPU's stream to work on (an int, or an object of PyTorch, CuPy, Numba or
    ``__cuda_stream__``), in place of the caller's own.
    Raises TypeError or ValueError for parameters outside the op's limits and for names that it does not have.
    """
    return Prepared(_op(op), p, backend, tuned, constant, stream)


class Prepared:
    """An op, its parameters and a backend: a callable."""

    def __init__(
        self,
        op: Op,
        p: Any,
        backend: str,
        tuned: bool | str,
        constant: Mapping[str, Any] | None = None,
        stream: Any = None,
    ) -> None:
        if backend not in BACKENDS:
            raise ValueError(f"backend is one of {', '.join(BACKENDS)}; got {backend!r}")
        op.check(p)
        self.op, self.p, self.backend, self.tuned = op, p, backend, tuned
        self._tuned = _candidates(op, backend, tuned)
        self._bind = Binder(op, p)
        self._inputs, self._outputs = (fields_class(*(port.name for port in side)) for side in (op.inputs, op.outputs))
        self._made: dict[
            tuple[tuple[str, int], ...], list[tuple[tuple[int, ...], str]]
        ] = {}  # shape and type of outputs
        self._records: dict[tuple[tuple[str, int], ...], Any] = {}
        self._chosen: dict[tuple[Any, ...], Tuned | None] = {}  # by sizes and GPU
        self._kernel: Callable[..., None] | None = None
        self._direct: dict[Any, Direct] = {}  # by shapes and types of what the caller passes
        self._stages: dict[tuple[Any, ...], Prepared] = {}  # of a composition
        self._kept: dict[str, Any] = {}  # what tuned kernels made of constants
        self._wide = widen(p, object if backend == "exact" else np.int64)
        self._gpu = None
        self._constant = dict(constant or {})
        unknown = set(self._constant) - {port.name for port in op.inputs}
        if unknown:
            raise ValueError(f"{op.id}: constant names {sorted(unknown)[0]!r}, which is no input of it")
        if backend == "cuda":
            from intsim.on_gpu import OnGpu

            self._gpu = OnGpu(op, p, self._record, self._fast, stream)
            self._constant = self._gpu.constants(self._constant) if self._constant else {}
        else:
            self._constant = {name: frozen(a) for name, a in self._constant.items()}
        if stream is not None and backend != "cuda":
            raise ValueError(f"only the cuda backend works on a stream; backend is {backend!r}")

    def __call__(self, *arrays: Any) -> Any:
        return _one(self.outputs(*arrays))

    def kernel_record(self, **size: int) -> Any:
        """What a kernel takes as ``p`` for dimensions of these lengths."""
        return self._record(size)

    def outputs(self, *arrays: Any) -> tuple[Array, ...]:
        key = shapes_and_types(arrays) if self.backend == "cpu" else None
        known = self._direct.get(key)
        if known is not None:
            return known(arrays)
        passed = arrays
        if self._constant:
            given = iter(arrays)
            filled = [
                self._constant[port.name] if port.name in self._constant else next(given, None)
                for port in self.op.inputs
            ]
            arrays = (*filled, *given)
        if self._gpu is not None:
            place = self._gpu.place(arrays)
            return self._gpu.handed_back(self.placed(arrays, place), arrays, place)
        for port, a in zip(self.op.inputs, arrays, strict=False):
            if not isinstance(a, np.ndarray) and hasattr(a, "__cuda_array_interface__"):
                raise TypeError(
                    f"{self.op.id}: {port.name} lies in a GPU's memory: backend='cuda' works on it there, "
                    f"{self.backend!r} needs a copy on the host"
                )
        bound = self._bind(*arrays)
        self._insist(bound)
        known = None if key is None else self._directly(passed, bound)
        if known is not None:
            self._direct[key] = known
            return known(passed)
        if isinstance(self.op.program, Composition) and not self._served(bound, None):
            return self._composed(bound)
        if not bound.loop:
            return self._core(bound.arrays, bound.size)
        if foldable(self.op, bound):
            flat = self._core(*fold(self.op, bound))
            shapes = (bound.loop + port.shape(self.p, bound.size) for port in self.op.outputs)
            return tuple(a.reshape(shape) for a, shape in zip(flat, shapes, strict=True))
        return self._at_once(bound) if self._fast(bound.size, leading=True) else self._looped(bound)

    def _directly(self, passed: Sequence[Any], bound: Bound) -> Direct | None:
        """This call without its values, where a tuned kernel serves it as it lies in memory."""
        core = core_of(self.op, bound)
        fast = None if core is None or not all(a.size for a in core[0]) else self._fast(core[1])
        if core is None or fast is None:
            return None
        own = [i for i, port in enumerate(self.op.inputs) if port.name not in self._constant]
        places = {i: place for place, i in enumerate(own) if place < len(passed) and passed[place] is not None}

        def kept(arrays: Sequence[Array]) -> Kept:
            return Kept.of(self.op, arrays, self._constant, self._kept)

        return Direct(self.op, self.p, bound, core, places, (fast, self._record(core[1]), kept))

    def placed(self, arrays: Sequence[Any], place: Any) -> tuple[Any, ...]:
        """The outputs on the GPU and the stream of ``place``, as they lie there: for a stage of a composition."""
        assert self._gpu is not None
        bound = bind(self.op, self._gpu.received(arrays, place), self.p)
        self._insist(bound, place.gpu)
        if isinstance(self.op.program, Composition) and not self._served(bound, place.gpu):
            return self._composed(bound, place)
        return self._gpu.run(bound, place)

    def _empty(self, port: Any, bound: Bound) -> Array:
        return empty(bound.loop + port.shape(self.p, bound.size), port.storage(self.p))

    def _broadcast(self, bound: Bound) -> list[Array]:
        return [
            np.broadcast_to(a, bound.loop + a.shape[a.ndim - len(port.core) :])
            for port, a in zip(self.op.inputs, bound.arrays, strict=True)
        ]

    def _at_once(self, bound: Bound) -> tuple[Array, ...]:
        out = tuple(self._empty(port, bound) for port in self.op.outputs)
        fast = self._fast(bound.size, leading=True)
        assert fast is not None
        self._call(fast, self._broadcast(bound), out, bound.size, bound.arrays)
        return out

    def _call(
        self, fast: Tuned, x: Sequence[Array], out: Sequence[Array], size: dict[str, int], given: Sequence[Array]
    ) -> None:
        """Runs a tuned kernel on ``x``, which it sees as views of ``given``."""
        kept = (Kept.of(self.op, given, self._constant, self._kept),) if fast.keeps else ()
        fast.load()(self._inputs(*x), self._outputs(*out), self._record(size), *kept)

    def _looped(self, bound: Bound) -> tuple[Array, ...]:
        out = tuple(self._empty(port, bound) for port in self.op.outputs)
        # a broadcast is marked read-only: unmarked once here, not once a slice
        cores = [writable_view(a) for a in self._broadcast(bound)]
        for at in np.ndindex(bound.loop):
            for whole, part in zip(out, self._core(tuple(a[at] for a in cores), bound.size), strict=True):
                whole[at] = part
        return out

    def _composed(self, bound: Bound, place: Any = None) -> tuple[Array, ...]:
        assert isinstance(self.op.program, Composition)

        def stage(name: str, *arrays: Any, p: Any) -> Any:
            constants = () if place is not None else [c for c in self._constant.values() if c is not None]
            fixed = [any(a is c for c in constants) for a in arrays]
            key = name, id(p), *fixed  # a stage keeps its parameters alive: no other object gets the id
            if key not in self._stages:
                op = get(name)
                forced = self.tuned if _has(op, self.tuned) else True
                constant = {port.name: a for port, a, f in zip(op.inputs, arrays, fixed, strict=False) if f}
                self._stages[key] = prepare(op, p=p, backend=self.backend, tuned=forced, constant=constant)
            one = self._stages[key]
            if place is not None:
                return _one(one.placed(arrays, place))
            return one(*(a for a, f in zip(arrays, fixed, strict=True) if not f))

        out = self.op.program.wire(stage, *bound.arrays, self.p)
        return out if isinstance(out, tuple) else (out,)

    def _fast(self, size: dict[str, int], gpu: Any = None, *, leading: bool = False) -> Tuned | None:
        """The tuned kernel for these sizes; on ``gpu`` where one is given. The simulator runs those that are named."""
        if not self._tuned:
            return None
        key = (leading, gpu and (gpu.capability, gpu.simulated), *size.items())
        if key not in self._chosen:
            self._chosen[key] = self._choose(size, gpu, leading)
        return self._chosen[key]

    def _choose(self, size: dict[str, int], gpu: Any, leading: bool) -> Tuned | None:
        for t in self._tuned:
            unfit = gpu is not None and gpu.simulated and (t.not_simulated or not isinstance(self.tuned, str))
            able = gpu is None or (t.capability <= gpu.capability and not unfit)
            if able and t.leading == leading and t.serves(self.p, size):
                return t
        return None

    def serves(self, *arrays: Any) -> bool:
        """Whether a tuned kernel would run for these inputs, which lie on the host."""
        bound = self._bind(*arrays)
        return self._served(bound, None if self._gpu is None else self._gpu.place(arrays).gpu)

    def _served(self, bound: Bound, gpu: Any) -> bool:
        if not bound.loop or not foldable(self.op, bound):
            at_once = bool(bound.loop) and self._fast(bound.size, gpu, leading=True) is not None
            return at_once or self._fast(bound.size, gpu) is not None
        return self._fast(folded_size(self.op, bound), gpu) is not None

    def _insist(self, bound: Bound, gpu: Any = None) -> None:
        if isinstance(self.tuned, str) and self._tuned and not self._served(bound, gpu):
            raise NotServed(f"{self.op.id}: {self.tuned} does not serve these parameters and sizes: {bound.size}")

    def _record(self, size: dict[str, int]) -> Any:
        key = tuple(size.items())
        if key not in self._records:
            try:
                self._records[key] = record(self.p, size)
            except ValueError as wrong:
                raise ValueError(f"{self.op.id}: {wrong}") from None
        return self._records[key]

    def _core(self, arrays: tuple[Array, ...], size: dict[str, int]) -> tuple[Array, ...]:
        """The outputs for core arrays, without leading dimensions."""
        op, p = self.op, self.p
        rec = self._record(size)  # also checks that per-dimension fields have the right length
        if self.backend in ("reference", "exact"):
            wide = np.object_ if self.backend == "exact" else np.int64
            given = (a if a.dtype == np.float32 else a.astype(wide) for a in arrays)
            out = op.spec(*given, self._wide)
            return tuple(
                in_type(op, port, p, a)
                for port, a in zip(op.outputs, out if isinstance(out, tuple) else (out,), strict=True)
            )
        key = tuple(size.items())
        if key not in self._made:
            self._made[key] = [(port.shape(p, size), port.storage(p)) for port in op.outputs]
        made = tuple([empty(shape, dtype) for shape, dtype in self._made[key]])
        if made[0].size == 0:
            return made
        x, y = tuple(map(kernel_view, arrays)), tuple(map(kernel_view, made))
        fast = self._fast(size)
        if fast is not None:
            self._call(fast, x, y, size, arrays)
        else:
            if self._kernel is None:
                self._kernel = importlib.import_module(f"intsim.backends.{self.backend}").compile(op.name, op.program)
            assert self._kernel is not None
            x, y = self._inputs(*x), self._outputs(*y)
            self._kernel(x, y, rec, size[op.program.over] if isinstance(op.program, Contraction) else 0)
        return made
