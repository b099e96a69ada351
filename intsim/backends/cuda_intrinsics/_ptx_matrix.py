"""Matrix instructions, tensor copies, barriers and what becomes of accumulators, as inline PTX.

Accumulators are a local array of int32 that only these functions touch, every one by constant indices:
so it stays in registers. Lane ``4 g + t`` of a warp holds, of each block of 16 rows by 8 columns, four:
rows g and g + 8, columns 2 t and 2 t + 1, in the order (g, 2 t) (g, 2 t + 1) (g + 8, 2 t) (g + 8, 2 t + 1).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.cuda import types

from intsim.backends.cuda_intrinsics._ptx import I32, I64, assembly, data_pointer, instruction, sign, typed_for, words

__all__ = [
    "GROUPS_LEFT",
    "GROUP_PRODUCT",
    "MOVE",
    "SATURATED",
    "SETTLED",
    "WARP_PRODUCT",
    "ZERO",
    "acquire_map",
    "barrier_arrive",
    "barrier_expect",
    "barrier_init",
    "barrier_passed",
    "barriers_visible",
    "copy_bytes",
    "copy_tile",
    "copy_tile_by_16",
    "group_commit",
    "group_fence",
    "store_word",
    "tensor_map",
]

INT32, INT64 = types.int32, types.int64


def constant(value: int, kind: Any = I32) -> Any:
    return ir.Constant(kind, value)


def on_registers(count: int, takes: tuple[Any, ...], body: Any, *, writes: bool = True) -> Any:
    """An intrinsic ``f(acc, *takes)``; body(builder, registers, arguments) returns the new registers."""

    def typed(context: Any, acc: Any, *_: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            start = data_pointer(context, builder, signature.args[0], arguments[0])
            places = [builder.gep(start, [constant(i)]) for i in range(count)]
            made = body(builder, [builder.load(place) for place in places], arguments[1:])
            if writes:
                for value, place in zip(made, places, strict=True):
                    builder.store(value, place)
            return context.get_dummy_value()

        return types.void(acc, *takes), generate

    return typed_for(1 + len(takes), typed)


def ZERO(count: int) -> Any:
    return on_registers(count, (), lambda builder, registers, _: [constant(0)] * count)


def MOVE(count: int) -> Any:
    """``f(to, source)``: all of one local array to another. One of them may then be indexed by what is not constant."""

    def typed(context: Any, to: Any, source: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            ends = [data_pointer(context, builder, *pair) for pair in zip(signature.args, arguments, strict=True)]
            for i in range(count):
                place, value = (builder.gep(end, [constant(i)]) for end in ends)
                builder.store(builder.load(value), place)
            return context.get_dummy_value()

        return types.void(to, source), generate

    return typed_for(2, typed)


def SATURATED(fours: int) -> Any:
    """``f(acc, a, b, low, high)``: each of 4 ``fours`` squared sums plus a product, kept within low and high.

    a, b: shared addresses of four words; more of them every 256 bytes.
    """
    load = "ld.shared.v4.u32 {$0,$1,$2,$3}, [$4];"
    step = "{ .reg .s32 t; mad.lo.s32 t, $1, $2, $3; min.s32 t, t, $5; max.s32 $0, t, $4; }"

    def four(builder: Any, address: Any) -> list[Any]:
        return words(builder, assembly(builder, load, "r", "rrrr", [address], pure=False), 4)

    def body(builder: Any, acc: list[Any], arguments: Any) -> list[Any]:
        low, high = arguments[2:]
        a, b = ([w for i in range(fours) for w in four(builder, builder.add(at, constant(256 * i)))]
                for at in arguments[:2])  # fmt: skip
        return [
            assembly(builder, step, "rrrrr", "r", [x, y, acc[i * len(b) + j], low, high], pure=True)
            for i, x in enumerate(a)
            for j, y in enumerate(b)
        ]

    return on_registers(16 * fours * fours, (INT32,) * 4, body)


# -- mma.sync ----------------------------------------------------------------------------------------


def _load_matrices(builder: Any, address: Any, count: int) -> list[Any]:
    outs = ",".join(f"${i}" for i in range(count))
    text = f"ldmatrix.sync.aligned.m8n8.x{count}.shared.b16 {{{outs}}}, [${count}];"
    return words(builder, assembly(builder, text, "r", "r" * count, [address], pure=False), count)


def WARP_PRODUCT(rows: int, columns: int, steps: int, a_signed: bool, b_signed: bool) -> Any:
    """``f(acc, a, a_lane, b, b_lane)``: acc += A B^T over 32 ``steps`` bytes of depth.

    rows, columns: blocks of 16 rows and of 8 columns. a, b: shared addresses of tiles of 128 bytes a row, whose
    16-byte chunks are swizzled by the row's last three bits; a_lane, b_lane: the offset of this lane's first row.
    """
    kinds = f"s32.{sign(a_signed)}8.{sign(b_signed)}8.s32"
    text = (
        f"mma.sync.aligned.m16n8k32.row.col.{kinds} {{$0,$1,$2,$3}}, {{$4,$5,$6,$7}}, {{$8,$9}}, {{$10,$11,$12,$13}};"
    )

    def product(builder: Any, c: list[Any], a: list[Any], b: list[Any]) -> list[Any]:
        return words(builder, assembly(builder, text, "rrrrrr0123", "rrrr", [*a, *b, *c], pure=True), 4)

    def body(builder: Any, acc: list[Any], arguments: Any) -> list[Any]:
        a_tile, a_lane, b_tile, b_lane = arguments
        for step in range(steps):
            a_at = builder.add(a_tile, builder.xor(a_lane, constant(32 * step)))
            b_at = builder.add(b_tile, builder.xor(b_lane, constant(32 * step)))
            a = [_load_matrices(builder, builder.add(a_at, constant(16 * 128 * i)), 4) for i in range(rows)]
            b: list[list[Any]] = []
            for j in range(0, columns, 2):
                four = _load_matrices(builder, builder.add(b_at, constant(8 * 128 * j)), 4)
                b += [four[:2], four[2:]]
            for i in range(rows):
                for j in range(columns):
                    at = 4 * (i * columns + j)
                    acc[at : at + 4] = product(builder, acc[at : at + 4], a[i], b[j])
        return acc

    return on_registers(4 * rows * columns, (INT32,) * 4, body)


# -- wgmma -------------------------------------------------------------------------------------------

group_fence = instruction("wgmma.fence.sync.aligned;")
group_commit = instruction("wgmma.commit_group.sync.aligned;")


def GROUPS_LEFT(count: int) -> Any:
    return instruction(f"wgmma.wait_group.sync.aligned {count};")


def GROUP_PRODUCT(columns: int, a_signed: bool, b_signed: bool) -> Any:
    """``f(acc, a, b)``: acc += A B^T, 64 rows by ``columns``, 128 bytes of depth, not finished when it returns.

    a, b: shared addresses of tiles of 128 bytes a row, swizzled, aligned to 1024.
    """
    count = columns // 2
    outs = ",".join(f"${i}" for i in range(count))
    kinds = f"s32.{sign(a_signed)}8.{sign(b_signed)}8"
    text = (
        "{ .reg .pred p; setp.ne.b32 p, 1, 0; "
        f"wgmma.mma_async.sync.aligned.m64n{columns}k32.{kinds} {{{outs}}}, ${2 * count}, ${2 * count + 1}, p; }}"
    )
    constraints = ",".join(["=r"] * count + [str(i) for i in range(count)] + ["l", "l", "~{memory}"])
    kind = ir.FunctionType(ir.LiteralStructType([I32] * count), [I32] * count + [I64, I64])
    # 128-byte swizzle, 1024 bytes from one group of 8 rows to the next
    layout = constant((1 << 62) | (64 << 32) | (1 << 16), I64)

    def descriptor(builder: Any, address: Any) -> Any:
        return builder.or_(builder.zext(builder.lshr(address, constant(4)), I64), layout)

    def body(builder: Any, acc: list[Any], arguments: Any) -> list[Any]:
        a, b = (descriptor(builder, address) for address in arguments)
        for step in range(4):
            ahead = constant(2 * step, I64)  # 32 bytes, in units of 16
            where = [builder.add(a, ahead), builder.add(b, ahead)]
            made = builder.call(ir.InlineAsm(kind, text, constraints, side_effect=True), [*acc, *where])
            acc = words(builder, made, count)
        return acc

    return on_registers(count, (INT32, INT32), body)


def SETTLED(count: int) -> Any:
    """``f(acc)`` after the wait: keeps the compiler from moving the registers before it."""
    constraints = ",".join(["=r"] * count + [str(i) for i in range(count)] + ["~{memory}"])
    kind = ir.FunctionType(ir.LiteralStructType([I32] * count), [I32] * count)

    def body(builder: Any, acc: list[Any], _: Any) -> list[Any]:
        return words(builder, builder.call(ir.InlineAsm(kind, "", constraints, side_effect=True), acc), count)

    return on_registers(count, (), body)


# -- barriers and tensor copies ----------------------------------------------------------------------

barrier_init = instruction("mbarrier.init.shared::cta.b64 [$0], $1;", "rr")
barrier_expect = instruction("mbarrier.arrive.expect_tx.shared::cta.b64 _, [$0], $1;", "rr")
barrier_arrive = instruction("mbarrier.arrive.shared::cta.b64 _, [$0];", "r")
barrier_passed = instruction(
    "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [$1], $2; selp.u32 $0, 1, 0, p; }", "rr", "r"
)
barriers_visible = instruction("fence.mbarrier_init.release.cluster;")

_COPY = "cp.async.bulk.tensor.{}d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [$0], [$1, {{{}}}], [$2];"
copy_tile = instruction(_COPY.format(2, "$3, $4"), "rlrrr")
copy_tile_by_16 = instruction("{ .reg .b32 z; mov.b32 z, 0; " + _COPY.format(5, "$3, z, z, z, $4") + " }", "rlrrr")
copy_bytes = instruction(
    "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [$0], [$1], $3, [$2];", "rlrr"
)
acquire_map = instruction("fence.proxy.tensormap::generic.acquire.gpu [$0], 128;", "l")
store_word = instruction("st.global.u64 [$0], $1;", "ll")


def tensor_map(address: int, sizes: tuple[int, ...], strides: tuple[int, ...], box: tuple[int, ...]) -> tuple[int, ...]:
    """The 16 words that describe a tensor of bytes to the copy engine; 128-byte swizzle, zeros beyond the ends.

    sizes, box: innermost first; strides: in bytes, of all dimensions but the innermost, multiples of 16.
    Raises RuntimeError where the driver refuses it.
    """
    from cuda.bindings import driver

    rank = len(sizes)
    wide, narrow = driver.cuuint64_t, driver.cuuint32_t
    status, made = driver.cuTensorMapEncodeTiled(
        driver.CUtensorMapDataType.CU_TENSOR_MAP_DATA_TYPE_UINT8,
        rank,
        address,
        [wide(n) for n in sizes],
        [wide(n) for n in strides],
        [narrow(n) for n in box],
        [narrow(1)] * rank,
        driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
        driver.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B,
        driver.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
        driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
    )
    if int(status):
        raise RuntimeError(f"no tensor map of {sizes} bytes at {address:#x}, strides {strides}, box {box}: {status}")
    return tuple(int(word) - ((int(word) >> 63) << 64) for word in made.opaque)  # as int64
