"""Inner products of the rows of two matrices, C = B A^T: statistics of few states.

Both matrices are read along their rows, so nothing is turned and no column of a tile is left empty, as in `products`;
but the vectors of products are to be added across.
"""

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.errors import TypingError
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from fastem.kernels._calls import address
from fastem.kernels._jit import PLAIN, VECTOR_BYTES, helper, kernel, piece, rule
from fastem.kernels._vectors import accumulated, added_across, new_function, opaque, places_in, scalar_of, vector_at
from fastem.kernels.products import ROWS

_LOW = 6  # height of a tile with room for a row of B more, where so few rows of A are left and registers are 32
_SHORT = 64  # rows of A, up to which blocks are so wide that adding across costs little
_FEW_ROWS = 2 * ROWS  # of A: more of `product` would be lost to tiles that are not high enough


@intrinsic(prefer_literal=True)
def _inner_tile_vector(typingctx, a, ia, lda, b, ib, ldb, c, ic, ldc, places, j, depth, height, n_others):
    """C[places[j + i], :height] += sums over depth of A[:height] B[i] for i < n_others, from flat offsets ia, ib, ic.

    depth is a multiple of a vector of A's dtype, which is B's. Up to a height of ROWS, more of C is spoilt.
    """
    if places.layout != "C":
        raise TypingError(f"places are to be C-ordered, got {places}")
    signature = types.void(a, ia, lda, b, ib, ldb, c, ic, ldc, places, j, depth, height, n_others)
    shape = height.literal_value, n_others.literal_value

    def codegen(context, builder, signature, args):
        pa, pb, pc = places_in(context, builder, signature.args, args)
        first = builder.gep(make_array(signature.args[9])(context, builder, args[9]).data, [args[10]])
        tile = _inner_function(builder.module, shape, b.dtype.bitwidth, c.dtype.bitwidth)
        builder.call(tile, [pa, args[2], pb, args[5], pc, args[8], first, args[11]])
        return context.get_dummy_value()

    return signature, codegen


def _inner_function(module, shape, bits, wide_bits):
    """The LLVM function of such a tile: vectors of products, added across at the end."""
    height, n_others = shape
    scalar, wide_scalar, index = scalar_of(bits), scalar_of(wide_bits), ir.IntType(64)
    source, n_lanes = scalar.as_pointer(), VECTOR_BYTES // (bits // 8)
    arguments = [source, index, source, index, wide_scalar.as_pointer(), index, index.as_pointer(), index]
    function, is_new = new_function(module, f"fastem_inner_{height}x{n_others}_f{bits}_f{wide_bits}", arguments)
    if not is_new:
        return function
    pa, lda, pb, ldb, pc, ldc, places, depth = function.args
    vector = ir.VectorType(scalar, n_lanes)
    builder = ir.IRBuilder(function.append_basic_block("entry"))

    def rows_of(matrix, leading, n):
        return [opaque(builder, builder.gep(matrix, [builder.mul(leading, index(i))])) for i in range(n)]

    rows, others = rows_of(pa, lda, height), rows_of(pb, ldb, n_others)

    def at(step, row):
        place = vector_at(builder, row, builder.mul(step, index(n_lanes)), vector)
        return builder.load(place, align=bits // 8)

    def row_of_a(step, i):
        return at(step, rows[i])

    def rows_of_b(step):
        return [at(step, row) for row in others]

    n_steps = builder.udiv(depth, index(n_lanes))
    totals = accumulated(builder, shape, n_steps, vector, row_of_a, rows_of_b)
    for j in range(n_others):
        place = builder.mul(ldc, builder.load(builder.gep(places, [index(j)])))
        of_rows = [row[j] for row in totals]
        for part in added_across(builder, of_rows + of_rows[: ROWS - height]):
            wide = ir.VectorType(wide_scalar, part.type.count)
            pointer = vector_at(builder, pc, place, wide)
            total = part if wide == part.type else builder.fpext(part, wide)
            total = builder.fadd(builder.load(pointer, align=wide_bits // 8), total)
            builder.store(total, pointer, align=wide_bits // 8)
            place = builder.add(place, index(part.type.count))
    builder.ret_void()
    return function


def _inner_tile_plain(a, ia, lda, b, ib, ldb, c, ic, ldc, places, j, depth, height, n_others):
    """The same tile as loops."""
    a, b, c = a.reshape(-1), b.reshape(-1), c.reshape(-1)
    for i in range(height):
        for other in range(n_others):
            total = b[ib] * 0
            for step in range(depth):
                total += a[ia + i * lda + step] * b[ib + other * ldb + step]
            c[ic + places[j + other] * ldc + i] += total


_inner_tile = helper(_inner_tile_plain) if PLAIN else _inner_tile_vector


@rule
def is_inner(m, n, itemsize):
    """Whether C (n, m) is computed faster here than by `product`, which wants whole vectors of columns; measured."""
    lanes = VECTOR_BYTES // itemsize
    is_short = m <= _SHORT and n <= 8 // itemsize * lanes
    return m <= _FEW_ROWS or n < lanes or is_short or (n > lanes and 2 * n <= 3 * lanes)


@kernel
def add_inner_products(a, m, b, n, depth, c, first, places):
    """c[places[j], first : first + m] += A[:m, :depth] B[j, :depth] for j < n.

    All are C-ordered, depth is a multiple of a vector. A and c have room for m rounded up to a multiple of ROWS.
    """
    lda, ldb, ldc = a.shape[1], b.shape[1], c.shape[1]
    for i in range(0, m, ROWS):
        ia, ic, j = i * lda, first + i, 0
        while VECTOR_BYTES == 64 and m - i <= _LOW and j + 4 <= n:
            _inner_tile(a, ia, lda, b, j * ldb, ldb, c, ic, ldc, places, j, depth, _LOW, 4)
            j += 4
        while j + 3 <= n:
            _inner_tile(a, ia, lda, b, j * ldb, ldb, c, ic, ldc, places, j, depth, ROWS, 3)
            j += 3
        if j + 2 == n:
            _inner_tile(a, ia, lda, b, j * ldb, ldb, c, ic, ldc, places, j, depth, ROWS, 2)
        elif j + 1 == n:
            _inner_tile(a, ia, lda, b, j * ldb, ldb, c, ic, ldc, places, j, depth, ROWS, 1)


@piece
def begin_waiting(inner, k):
    """Make room in inner (K, more than P) for sums of a state of which none waits, whose last entry is 0."""
    if inner[k, -1] == 0.0:
        for p in range(inner.shape[1]):
            inner[k, p] = 0.0
        inner[k, -1] = 1.0


@piece
def add_waiting(inner, n_thin, scratch, sums):
    """sums (P, columns) += what waits from all blocks; thin states have the last columns, and rows after all others'.

    Store by store down a column, each would go to a line of memory of its own, and take ten times as long.
    """
    n_fast, n_waiting = inner.shape[0] - 2 * n_thin, 0
    for k in range(inner.shape[0]):
        if inner[k, -1] > 0.0 and not n_fast <= k < n_fast + n_thin:
            scratch[n_waiting] = k
            n_waiting += 1
    for p in range(sums.shape[0] if n_waiting > 0 else 0):
        for j in range(n_waiting):
            k = scratch[j]
            sums[p, k if k < n_fast else k - inner.shape[0] + sums.shape[1]] += inner[k, p]


def inner_address(like, sums):
    """Address of `add_inner_products` for matrices of the dtype of `like`, into the dtype of `sums`."""
    places = np.empty(0, np.int64)
    return address(add_inner_products, (like, 0, like, 0, 0, sums, 0, places), (like.dtype, sums.dtype))
