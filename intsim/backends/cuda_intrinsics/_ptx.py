"""Memory, arithmetic and shuffles as inline PTX."""

from __future__ import annotations

import inspect
from typing import Any

from llvmlite import ir
from numba.cuda import types
from numba.cuda.extending import intrinsic

__all__ = [
    "COPIES_LEFT",
    "DOT4",
    "PACK4",
    "add_4",
    "arithmetic_shift",
    "byte",
    "commit_copies",
    "copy_16",
    "count_lanes",
    "high_product",
    "int8",
    "int32",
    "int64",
    "load_4",
    "load_8",
    "load_16",
    "load_u8",
    "permute",
    "read_4",
    "shared_address",
    "shared_load_4",
    "shared_load_16",
    "shared_load_u8",
    "shared_store_1",
    "shared_store_4",
    "shared_store_16",
    "shuffle_xor",
    "store_1",
    "store_4",
    "store_8",
    "store_16",
    "unsigned_div",
    "unsigned_high_product",
    "unsigned_min",
    "unsigned_rem",
    "unsigned_shift",
    "wait_for_kernels_before",
    "warp_max",
    "warp_meet",
    "warp_sum",
]

int8, int32, int64 = types.int8, types.int32, types.int64

I32, I64, VOID = ir.IntType(32), ir.IntType(64), ir.VoidType()
_NUMBA = {"r": types.int32, "l": types.int64}
_LLVM = {"r": I32, "l": I64}


def assembly(
    builder: Any, text: str, takes: str, gives: str, arguments: Any, *, pure: bool, early: bool = False
) -> Any:
    """One inline assembly statement; results come first among the operands.

    takes, gives: a letter an operand, "r" int32 and "l" int64; a digit is the register of that result.

    What is not pure stays where it is and is ordered with memory. early: results are written before all
    operands have been read.
    """
    results = [_LLVM[g] for g in gives]
    result = VOID if not results else results[0] if len(results) == 1 else ir.LiteralStructType(results)
    constraints = [f"={'&' * early}{g}" for g in gives] + list(takes) + ([] if pure else ["~{memory}"])
    kind = ir.FunctionType(result, [_LLVM.get(t, I32) for t in takes])
    return builder.call(ir.InlineAsm(kind, text, ",".join(constraints), side_effect=not pure), arguments)


def words(builder: Any, struct: Any, count: int) -> list[Any]:
    return [builder.extract_value(struct, i) for i in range(count)]


def _tuple(builder: Any, values: list[Any]) -> Any:
    made = ir.Constant(ir.ArrayType(values[0].type, len(values)), ir.Undefined)
    for i, value in enumerate(values):
        made = builder.insert_value(made, value, i)
    return made


def typed_for(count: int, typed: Any) -> Any:
    """An intrinsic from a typing function ``typed(context, *types)`` for exactly ``count`` arguments."""
    names = ["context", *(f"a{i}" for i in range(count))]  # Numba reads the signature
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    typed.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])
    return intrinsic(typed)


def instruction(text: str, takes: str = "", gives: str = "", *, pure: bool = False) -> Any:
    """An intrinsic for one statement; several results come as a tuple."""
    result = types.void if not gives else _NUMBA[gives[0]]
    if len(gives) > 1:
        result = types.UniTuple(result, len(gives))

    def typed(context: Any, *_: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            made = assembly(builder, text, takes, gives, arguments, pure=pure)
            if not gives:
                return context.get_dummy_value()
            return made if len(gives) == 1 else _tuple(builder, words(builder, made, len(gives)))

        return result(*(_NUMBA[t] for t in takes)), generate

    return typed_for(len(takes), typed)


def _operation(name: str) -> Any:
    """An intrinsic for one LLVM instruction on two int32."""

    def typed(context: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, name)(*arguments)

        return types.int32(types.int32, types.int32), generate

    return intrinsic(typed)


load_4 = instruction("ld.global.nc.u32 $0, [$1];", "l", "r", pure=True)
load_8 = instruction("ld.global.nc.v2.u32 {$0,$1}, [$2];", "l", "rr", pure=True)
load_16 = instruction("ld.global.nc.v4.u32 {$0,$1,$2,$3}, [$4];", "l", "rrrr", pure=True)
load_u8 = instruction("ld.global.nc.u8 $0, [$1];", "l", "r", pure=True)
read_4 = instruction("ld.global.u32 $0, [$1];", "l", "r")
store_1 = instruction("st.global.u8 [$0], $1;", "lr")
store_4 = instruction("st.global.u32 [$0], $1;", "lr")
store_8 = instruction("st.global.v2.u32 [$0], {$1,$2};", "lrr")
store_16 = instruction("st.global.v4.u32 [$0], {$1,$2,$3,$4};", "lrrrr")
add_4 = instruction("red.global.add.s32 [$0], $1;", "lr")

shared_load_u8 = instruction("ld.shared.u8 $0, [$1];", "r", "r")
shared_load_4 = instruction("ld.shared.u32 $0, [$1];", "r", "r")
shared_load_16 = instruction("ld.shared.v4.u32 {$0,$1,$2,$3}, [$4];", "r", "rrrr")
shared_store_1 = instruction("st.shared.u8 [$0], $1;", "rr")
shared_store_4 = instruction("st.shared.u32 [$0], $1;", "rr")
shared_store_16 = instruction("st.shared.v4.u32 [$0], {$1,$2,$3,$4};", "rrrrr")

copy_16 = instruction("cp.async.cg.shared.global.L2::128B [$0], [$1], 16, $2;", "rlr")
commit_copies = instruction("cp.async.commit_group;")


def COPIES_LEFT(count: int) -> Any:
    return instruction(f"cp.async.wait_group {count};")


unsigned_div = _operation("udiv")
unsigned_rem = _operation("urem")
unsigned_shift = _operation("lshr")
arithmetic_shift = _operation("ashr")
high_product = instruction("mul.hi.s32 $0, $1, $2;", "rr", "r", pure=True)
unsigned_high_product = instruction("mul.hi.u32 $0, $1, $2;", "rr", "r", pure=True)
unsigned_min = instruction("min.u32 $0, $1, $2;", "rr", "r", pure=True)
byte = instruction("bfe.s32 $0, $1, $2, 8;", "rr", "r", pure=True)
permute = instruction("prmt.b32 $0, $1, $2, $3;", "rrr", "r", pure=True)
shuffle_xor = instruction("shfl.sync.bfly.b32 $0, $1, $2, 31, 0xffffffff;", "rr", "r")
# From compute capability 8.0 on: one instruction in place of five shuffles.
warp_max = instruction("redux.sync.max.s32 $0, $1, 0xffffffff;", "r", "r")
warp_sum = instruction("redux.sync.add.s32 $0, $1, 0xffffffff;", "r", "r")
wait_for_kernels_before = instruction("griddepcontrol.wait;")
warp_meet = instruction("bar.warp.sync 0xffffffff;")
count_lanes = instruction(
    "{ .reg .pred p; .reg .b32 t; setp.ne.s32 p, $1, 0; vote.sync.ballot.b32 t, p, -1; popc.b32 $0, t; }", "r", "r"
)


def sign(signed: bool) -> str:
    return "s" if signed else "u"


def DOT4(a_signed: bool, b_signed: bool) -> Any:
    types_text = f"{sign(a_signed)}32.{sign(b_signed)}32"
    return instruction(f"dp4a.{types_text} $0, $1, $2, $3;", "rrr", "r", pure=True)


def pack4_text(signed: bool) -> str:
    pack = f"cvt.pack.sat.{sign(signed)}8.s32.b32"
    return f"{{ .reg .b32 t; {pack} t, $4, $3, 0; {pack} $0, $2, $1, t; }}"


def PACK4(signed: bool) -> Any:
    return instruction(pack4_text(signed), "rrrr", "r", pure=True)


def data_pointer(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    return context.make_array(kind)(context, builder, value).data


@intrinsic  # type: ignore[untyped-decorator]  # Numba has no types
def shared_address(context: Any, array: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.ptrtoint(data_pointer(context, builder, signature.args[0], arguments[0]), I64)
        return builder.trunc(assembly(builder, "cvta.to.shared.u64 $0, $1;", "l", "l", [pointer], pure=True), I32)

    return types.int32(array), generate
