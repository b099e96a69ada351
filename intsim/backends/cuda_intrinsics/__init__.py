"""Machine instructions that Numba does not offer, each under one name with two bodies.

``_ptx*`` emit inline PTX; ``_simulated*`` do the same on the simulator's threads, so that the kernel that
runs on a GPU is the kernel that runs without one. A simulated warp or warp group meets where the hardware's
does, and an address of shared memory is one, so index maps, swizzles, fragment layouts and barrier phases
are checked; races of memory ordering are not.

Kernels here know addresses, int64 for global memory and int32 for shared memory, and 32-bit registers.
Numba widens int32 arithmetic to int64 and the simulator does not: where a width matters ``int32(...)`` or
``int64(...)`` states it. A name in capitals below makes an instruction from constants.

    load_4 load_8 load_16 load_u8     global memory that nothing writes meanwhile, as int32 words
    LOAD_FOUR                         four signed integers of so many bits
    read_4                            global memory that the kernel itself writes
    store_1 store_4 store_8 store_16  global memory
    add_4                             global memory += a word, atomic
    shared_address                    of ``cuda.shared.array``
    shared_load_u8 shared_load_4 shared_load_16 shared_store_1 shared_store_4 shared_store_16
    copy_16 commit_copies COPIES_LEFT global to shared memory, asynchronous; of 0 to 16 bytes, the rest zeros
    unsigned_div unsigned_rem unsigned_min unsigned_shift arithmetic_shift high_product unsigned_high_product
    byte DOT4 permute PACK4           of four bytes in a word; PACK4 saturates four words to bytes
    shuffle_xor count_lanes           a word of the lane whose number differs in these bits; lanes where it is not 0
    warp_sum warp_sum_64 warp_max warp_max_64 warp_min_64     over the lanes of a warp
    warp_meet                         the lanes of a warp wait for one another, and see what all of them wrote
    wait_for_kernels_before           of the stream, and see what they wrote: compute capability 9.0
    OneElement                        a value as an array, for an op's program
    on_device                         makes a function that kernels call
    ZERO TO_SHARED FROM_SHARED        accumulators; FROM_SHARED adds
    SATURATED MOVE                    accumulators that saturate after every term; from one local array to another
    WARP_PRODUCT                      of mma.sync m16n8k32
    GROUP_PRODUCT SETTLED group_fence group_commit GROUPS_LEFT     of wgmma, by four warps
    STORE_SUMS STORE_FOURS ADD_SUMS STORE_QUANTIZED                accumulators to global memory
    barrier_init barrier_expect barrier_arrive barrier_passed barriers_visible
    tensor_map store_word acquire_map copy_tile copy_tile_by_16    boxes of a tensor to shared memory
    copy_bytes                        a multiple of 16 to shared memory, aligned to 16
"""

from __future__ import annotations

from numba import config, cuda

SIMULATED = bool(config.ENABLE_CUDASIM)

if SIMULATED:
    from intsim.backends.cuda_intrinsics._simulated import *
    from intsim.backends.cuda_intrinsics._simulated_matrix import *
    from intsim.backends.cuda_intrinsics._simulated_results import *
else:
    from intsim.backends.cuda_intrinsics._ptx import *
    from intsim.backends.cuda_intrinsics._ptx_matrix import *
    from intsim.backends.cuda_intrinsics._ptx_results import *

from intsim.backends.cuda_intrinsics._element import *
from intsim.backends.cuda_intrinsics._four import *
from intsim.backends.cuda_intrinsics._warps import *

__all__ = ["SIMULATED", "cuda"]  # and what the bodies list in theirs: the names above
