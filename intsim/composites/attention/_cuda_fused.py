"""Attention in one kernel: scores, softmax and mix of some rows of a head never leave the multiprocessor.

A block of four warps has ``16 blocks`` rows of one head. It multiplies them with all keys (mma.sync, 128 keys at a
time) into shared memory; a warp takes a row at a time through the programs of the stages that follow, linked here:
the requantization of the logits, the four steps of the softmax; bytes come out, which are multiplied with the values,
transposed on their way into shared memory; the program of the last requantization gives the result.

    sum_k (q - zq) (k - zk) = sum q k - zq sum k - zk (sum q - c zq)        no sum leaves int32

A hidden column is marked where its logit lies, and adds nothing, so no column moves.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from intsim.backends.cuda_aligned import aligned
from intsim.backends.cuda_compile import Kernel
from intsim.backends.cuda_intrinsics import (
    COPIES_LEFT,
    DOT4,
    WARP_PRODUCT,
    ZERO,
    OneElement,
    commit_copies,
    copy_16,
    cuda,
    int8,
    int32,
    int64,
    load_4,
    load_u8,
    on_device,
    permute,
    shared_address,
    shared_load_4,
    shared_store_1,
    shared_store_4,
    store_1,
    unsigned_div,
    unsigned_rem,
    warp_max,
    warp_sum,
    warp_sum_64,
)
from intsim.composites.attention._cuda_variants import Variant
from intsim.ops.requantize import single_rounding
from intsim.ops.requantize._cuda_single_rounding import with_rules
from intsim.ops.softmax import ibert
from intsim.records import fields_class

AXES = 4  # of leading dimensions, after those that lie one behind another are taken as one
PIECE = 128  # keys at a time
THREADS = 128
HIDDEN, UNCOUNTED = -(2**31), -1  # no logit, no term
ONES = 0x01010101


# -- entries: (x, out, record, queue), with any leading dimensions -----------------------------------


def with_ibert(x: Any, out: Any, p: Any, queue: Any) -> None:
    constant = int(p.softmax.out_bits), int(p.softmax.rounding)
    _attend(Variant("ibert", constant, ibert.in_int32(p.softmax, x.k.shape[-2])), x, out, p, queue)


def with_gemmlowp(x: Any, out: Any, p: Any, queue: Any) -> None:
    _attend(Variant("gemmlowp", ()), x, out, p, queue)


def with_polynomial(x: Any, out: Any, p: Any, queue: Any) -> None:
    constant = int(p.softmax.degree), int(p.softmax.out_bits), int(p.softmax.rounding)
    _attend(Variant("polynomial", constant), x, out, p, queue)


with_ibert_stacked, with_gemmlowp_stacked, with_polynomial_stacked = with_ibert, with_gemmlowp, with_polynomial


def _attend(variant: Variant, x: Any, out: Any, p: Any, queue: Any) -> None:
    given = [aligned(a) if a is x.q or a is x.k or a is x.v else a for a in x]
    sizes, strides = walk(given, out.out.shape[:-2])
    (m, c), (t, d) = x.q.shape[-2:], x.v.shape[-2:]
    heads = out.out.size // (m * d)
    zeros = p.score.a_zero_point == 0 and not p.score.b_zero_point.any() and not p.mix.b_zero_point.any()
    blocks = row_blocks(heads * m, t, queue)
    rules = tuple(int(r) for q in (p.logit, p.out) for r in (q.rounding, q.zero_point_added))
    made = kernel(variant, rules, blocks, -(-c // 32), -(-d // 64) * 2, not zeros)
    grid = heads * -(-m // (16 * blocks))
    where = (*(a.pointer for a in given), out.out.pointer, m, t, c, d)
    queue.launch(made, grid, THREADS, *where, sizes, *strides, queue.record, shared=shared_bytes(blocks, t))


def row_blocks(rows: int, t: int, queue: Any) -> int:
    """Of 16 rows each: two, which read keys and values half as often, where there are blocks enough all the same."""
    room = 163 if queue.capability in ((8, 0), (8, 7), (9, 0), (10, 0)) else 99  # KiB of shared memory
    return 2 if rows >= 128 * queue.multiprocessors and shared_bytes(2, t) <= 1024 * room else 1


def shared_bytes(blocks: int, t: int) -> int:
    """The queries, a piece of keys or of values, the probabilities, the scores, sums of keys and of probabilities."""
    rows, columns = 16 * blocks, -(-t // PIECE) * PIECE
    return 128 * rows + 128 * PIECE + columns * rows + 4 * rows * (columns + 8) + 4 * columns + 4 * rows + 1023


def walk(arrays: list[Any], loop: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """AXES lengths, and for each array as many strides in elements: the leading dimensions as a kernel walks them.

    Raises ValueError where more are left after those are joined that lie one behind another.
    """
    axes: list[tuple[int, tuple[int, ...]]] = []
    for i, n in enumerate(loop):
        strides = tuple(a.strides[i] for a in arrays)
        if axes and all(before == n * s for before, s in zip(axes[-1][1], strides, strict=True)):
            axes[-1] = axes[-1][0] * n, strides
        elif n > 1:
            axes.append((n, strides))
    if len(axes) > AXES:
        raise ValueError(f"attention on a GPU walks {AXES} leading dimensions of different strides, got {len(axes)}")
    axes = [(1, (0,) * len(arrays))] * (AXES - len(axes)) + axes
    return tuple(n for n, _ in axes), tuple(zip(*(strides for _, strides in axes), strict=True))


# -- the kernel --------------------------------------------------------------------------------------


@cache
def kernel(variant: Variant, rules: tuple[int, ...], blocks: int, deep: int, across: int, centred: bool) -> Kernel:  # noqa: PLR0915  # one kernel
    """``f(q, k, v, stop, mask, out, m, t, c, d, sizes, strides of the five, p)``.

    rules: of the logits and of the results, the rounding and when the zero point is added. blocks: of 16 rows;
    deep: steps of 32 bytes in a row of q and k; across: blocks of 8 columns of v that a warp has, of four warps;
    centred: some operand has a zero point. c and d are multiples of 16.
    """
    steps, of_softmax = variant.steps(), variant.with_constants()
    term, added, settled, share = steps.term, steps.added, steps.settled, steps.share
    of_logits, of_results = with_rules(*rules[:2]), with_rules(*rules[2:])
    requantized, acc_of = single_rounding.element, fields_class("acc")
    rows, wide = 16 * blocks, 32 * across  # wide: rows of values, transposed, with those of zeros
    of_scores, of_mix = 16 * blocks, 4 * blocks * across
    clear_scores, clear_mix, copied = ZERO(of_scores), ZERO(of_mix), COPIES_LEFT(0)
    score = WARP_PRODUCT(blocks, 4, deep, True, True)
    mix = WARP_PRODUCT(blocks, across, 4, False, True)
    dot4 = DOT4(True, True)
    chunks, turns, hidden, uncounted, axes = 2 * deep, wide // 16, HIDDEN, UNCOUNTED, AXES

    @on_device
    def logit(
        total: int, j: int, keys: int, stop: int, shown: int, key_sums: int, of_query: int, p: Any, logits: Any
    ) -> int:
        """Of a score; the last column's in place of those beyond the keys."""
        at = int32(min(j, int32(keys - 1)))
        value = int64(total)
        if centred:
            of_key = p.a_zero_point * int64(shared_load_4(int32(key_sums + 4 * at)))
            value = value - of_key - p.b_zero_point[at] * of_query
        made = int32(requantized(0, at, acc_of(OneElement(value)), logits))
        return made if (j < stop) & (load_u8(shown + at) != 0) else int32(hidden)

    @on_device
    def weight(of: int, highest: int, softmax: Any) -> Any:
        """(the term, what it adds to the total)."""
        made = int64(term(int64(of), int64(highest), softmax))
        more = int64(added(made, softmax))
        seen = of != hidden
        return int32(made) if seen else int32(uncounted), more if seen else int64(0)

    @on_device
    def centred_share(of: int, of_row: Any, zero_point: int, softmax: Any) -> int:
        made = int32(share(int64(of), of_row, softmax) - zero_point)
        return made if of >= 0 else int32(0)

    def attention(  # noqa: PLR0915  # one kernel: its stages share registers and memory, which a function cannot hand on
        q: int, k: int, v: int, stop: int, mask: int, out: int, m: int, t: int, c: int, d: int,
        sizes: Any, of_q: Any, of_k: Any, of_v: Any, of_stop: Any, of_mask: Any, p: Any,
    ) -> None:  # fmt: skip
        thread = int32(cuda.threadIdx.x)
        lane, warp = int32(thread & 31), int32(thread >> 5)
        tiles = unsigned_div(int32(m + rows - 1), int32(rows))
        head = unsigned_div(int32(cuda.blockIdx.x), tiles)
        top = int64(int32(cuda.blockIdx.x) - head * tiles) * rows
        out += int64(head) * m * d
        for axis in range(axes - 1, -1, -1):
            size = int32(sizes[axis])
            at = int64(unsigned_rem(head, size))
            head = unsigned_div(head, size)
            q += at * of_q[axis]
            k += at * of_k[axis]
            v += at * of_v[axis]
            stop += at * of_stop[axis] * 4
            mask += at * of_mask[axis]

        keys, pieces = int32(t), int32((t + 127) >> 7)
        pitch = int32((pieces * 128 + 8) * 4)  # of scores: so that eight rows lie in different banks
        queries = int32((shared_address(cuda.shared.array(0, int8)) + 1023) & -1024)
        tile = int32(queries + rows * 128)
        probabilities = int32(tile + 128 * 128)
        scores = int32(probabilities + pieces * (rows * 128))
        key_sums = int32(scores + rows * pitch)
        weights = int32(key_sums + pieces * 512)

        chunk, line = int32(thread & 7), int32(thread >> 3)
        inside = chunk * 16 < c
        for i in range(rows // 16):
            row = int32(line + 16 * i)
            if chunk < chunks:
                there = int32(16) if inside and top + row < m else int32(0)
                copy_16(
                    int32(queries + row * 128 + ((chunk ^ (row & 7)) << 4)), q + (top + row) * c + chunk * 16, there
                )

        a_row, b_row = int32(lane & 15), int32((lane & 7) + ((lane >> 4) << 3))
        a_lane = int32(a_row * 128 + (((lane >> 4) ^ (a_row & 7)) << 4))
        b_lane = int32(b_row * 128 + ((((lane >> 3) & 1) ^ (b_row & 7)) << 4))
        piece = int32(0)
        while piece < pieces:
            if piece > 0:
                cuda.syncthreads()
            for i in range(8):
                row = int32(line + 16 * i)
                key = int32(piece * 128 + row)
                if chunk < chunks:
                    there = int32(16) if inside and key < keys else int32(0)
                    copy_16(
                        int32(tile + row * 128 + ((chunk ^ (row & 7)) << 4)), k + int64(key) * c + chunk * 16, there
                    )
            commit_copies()
            copied()
            cuda.syncthreads()
            if centred:
                total = int32(0)
                for word in range(8 * deep):
                    place = int32(tile + thread * 128 + (((word >> 2) ^ (thread & 7)) << 4) + (word & 3) * 4)
                    total = dot4(shared_load_4(place), ONES, total)
                shared_store_4(int32(key_sums + (piece * 128 + thread) * 4), total)
            acc = cuda.local.array(of_scores, int32)
            clear_scores(acc)
            score(acc, queries, a_lane, int32(tile + warp * (32 * 128)), b_lane)
            first = int32(scores + (lane >> 2) * pitch + (piece * 128 + warp * 32 + (lane & 3) * 2) * 4)
            for i in range(blocks):
                for j in range(4):
                    upper = int32(first + i * 16 * pitch + j * 32)
                    lower = int32(upper + 8 * pitch)
                    shared_store_4(upper, acc[4 * (4 * i + j)])
                    shared_store_4(int32(upper + 4), acc[4 * (4 * i + j) + 1])
                    shared_store_4(lower, acc[4 * (4 * i + j) + 2])
                    shared_store_4(int32(lower + 4), acc[4 * (4 * i + j) + 3])
            piece = int32(piece + 1)
        cuda.syncthreads()

        logits, softmax, columns = of_logits(p.logit), of_softmax(p.softmax), int32(pieces * 128)
        row = warp
        while row < rows and top + row < m:
            seen_until = load_4(stop + 4 * (top + row))
            shown = mask + (top + row) * t
            here = int32(scores + row * pitch)
            of_query = int64(0)
            if centred:
                total = int32(0)
                if lane < 8 * deep:
                    place = int32(queries + row * 128 + (((lane >> 2) ^ (row & 7)) << 4) + (lane & 3) * 4)
                    total = dot4(shared_load_4(place), ONES, total)
                of_query = int64(warp_sum(total)) - c * p.score.a_zero_point
            highest, seen, first = int32(hidden), int32(0), lane
            while first < columns:  # four columns at a time: their programs run side by side
                place = int32(here + 4 * first)
                a0, a1 = shared_load_4(place), shared_load_4(int32(place + 128))
                a2, a3 = shared_load_4(int32(place + 256)), shared_load_4(int32(place + 384))
                a0 = logit(a0, first, keys, seen_until, shown, key_sums, of_query, p.score, logits)
                a1 = logit(a1, int32(first + 32), keys, seen_until, shown, key_sums, of_query, p.score, logits)
                a2 = logit(a2, int32(first + 64), keys, seen_until, shown, key_sums, of_query, p.score, logits)
                a3 = logit(a3, int32(first + 96), keys, seen_until, shown, key_sums, of_query, p.score, logits)
                highest = int32(max(highest, a0, a1, a2, a3))
                seen = int32(seen + (a0 != hidden) + (a1 != hidden) + (a2 != hidden) + (a3 != hidden))
                shared_store_4(place, a0)
                shared_store_4(int32(place + 128), a1)
                shared_store_4(int32(place + 256), a2)
                shared_store_4(int32(place + 384), a3)
                first = int32(first + 128)
            highest, seen = warp_max(highest), warp_sum(seen)
            sum_of_terms, first = int64(0), lane
            while first < columns:
                place = int32(here + 4 * first)
                a0, a1 = shared_load_4(place), shared_load_4(int32(place + 128))
                a2, a3 = shared_load_4(int32(place + 256)), shared_load_4(int32(place + 384))
                a0, b0 = weight(a0, highest, softmax)
                a1, b1 = weight(a1, highest, softmax)
                a2, b2 = weight(a2, highest, softmax)
                a3, b3 = weight(a3, highest, softmax)
                sum_of_terms += b0 + b1 + b2 + b3
                shared_store_4(place, a0)
                shared_store_4(int32(place + 128), a1)
                shared_store_4(int32(place + 256), a2)
                shared_store_4(int32(place + 384), a3)
                first = int32(first + 128)
            sum_of_terms = warp_sum_64(sum_of_terms)
            of_row = settled(sum_of_terms if seen > 0 else int64(1), int64(max(seen, int32(1))), softmax)
            sum_of_weights, first = int32(0), lane
            while first < columns:
                place = int32(here + 4 * first)
                a0, a1 = shared_load_4(place), shared_load_4(int32(place + 128))
                a2, a3 = shared_load_4(int32(place + 256)), shared_load_4(int32(place + 384))
                a0 = centred_share(a0, of_row, p.mix.a_zero_point, softmax)
                a1 = centred_share(a1, of_row, p.mix.a_zero_point, softmax)
                a2 = centred_share(a2, of_row, p.mix.a_zero_point, softmax)
                a3 = centred_share(a3, of_row, p.mix.a_zero_point, softmax)
                sum_of_weights = int32(sum_of_weights + a0 + a1 + a2 + a3)
                line = int32(probabilities + ((first >> 7) * rows + row) * 128 + (lane & 15))
                upper, swap = int32(lane >> 4), int32(row & 7)
                shared_store_1(int32(line + ((upper ^ swap) << 4)), a0)
                shared_store_1(int32(line + (((upper + 2) ^ swap) << 4)), a1)
                shared_store_1(int32(line + (((upper + 4) ^ swap) << 4)), a2)
                shared_store_1(int32(line + (((upper + 6) ^ swap) << 4)), a3)
                first = int32(first + 128)
            sum_of_weights = warp_sum(sum_of_weights)
            if lane == 0:
                shared_store_4(int32(weights + 4 * row), sum_of_weights)
            row = int32(row + 4)

        mixed = cuda.local.array(of_mix, int32)
        clear_mix(mixed)
        four_keys, four_values = int32((lane & 7) + 8 * warp), int32((lane >> 3) * 4)
        piece = int32(0)
        while piece < pieces:
            cuda.syncthreads()
            key = int64(piece * 128 + 4 * four_keys)
            for i in range(turns):
                column = int32(four_values + 16 * i)
                w0, w1, w2, w3 = int32(0), int32(0), int32(0), int32(0)
                if column < d:
                    source = v + key * d + column
                    if key < t:
                        w0 = load_4(source)
                    if key + 1 < t:
                        w1 = load_4(source + d)
                    if key + 2 < t:
                        w2 = load_4(source + 2 * d)
                    if key + 3 < t:
                        w3 = load_4(source + 3 * d)
                low01, low23 = permute(w0, w1, int32(0x5140)), permute(w2, w3, int32(0x5140))
                high01, high23 = permute(w0, w1, int32(0x7362)), permute(w2, w3, int32(0x7362))
                to, word = int32(tile + column * 128 + (four_keys & 3) * 4), int32(four_keys >> 2)
                swap = int32(column & 7)
                shared_store_4(int32(to + ((word ^ swap) << 4)), permute(low01, low23, int32(0x5410)))
                shared_store_4(int32(to + 128 + ((word ^ (swap + 1)) << 4)), permute(low01, low23, int32(0x7632)))
                shared_store_4(int32(to + 256 + ((word ^ (swap + 2)) << 4)), permute(high01, high23, int32(0x5410)))
                shared_store_4(int32(to + 384 + ((word ^ (swap + 3)) << 4)), permute(high01, high23, int32(0x7632)))
            cuda.syncthreads()
            mix(
                mixed,
                int32(probabilities + piece * (rows * 128)),
                a_lane,
                int32(tile + warp * (across * 8 * 128)),
                b_lane,
            )
            piece = int32(piece + 1)
        pitch = int32((wide + 8) * 4)
        first = int32(scores + (lane >> 2) * pitch + (warp * (across * 8) + (lane & 3) * 2) * 4)
        for i in range(blocks):
            for j in range(across):
                upper = int32(first + i * 16 * pitch + j * 32)
                lower = int32(upper + 8 * pitch)
                shared_store_4(upper, mixed[4 * (across * i + j)])
                shared_store_4(int32(upper + 4), mixed[4 * (across * i + j) + 1])
                shared_store_4(lower, mixed[4 * (across * i + j) + 2])
                shared_store_4(int32(lower + 4), mixed[4 * (across * i + j) + 3])
        cuda.syncthreads()

        results, width = of_results(p.out), int32(d)
        unit = thread
        while unit < rows * width:
            row, column = unsigned_div(unit, width), unsigned_rem(unit, width)
            if top + row < m:
                value = int64(shared_load_4(int32(scores + row * pitch + column * 4)))
                if centred:
                    value -= p.mix.b_zero_point[column] * int64(shared_load_4(int32(weights + 4 * row)))
                store_1(
                    out + (top + row) * d + column, int32(requantized(0, column, acc_of(OneElement(value)), results))
                )
            unit = int32(unit + 128)

    attention.__name__ = attention.__qualname__ = (
        f"attention_{variant}_{rules}_{rows}_{32 * deep}_{wide}{'_centred' if centred else ''}"
    )
    return Kernel(attention, launch_bounds=THREADS)
