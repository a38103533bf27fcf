"""Inner products of the rows of two matrices, C = B A^T: statistics of few states.

Both matrices are read along their rows, so nothing is turned and no column of a tile is left empty, as in `products`;
but the vectors of products are to be added across.
"""

import functools

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastem.kernels._jit import PLAIN, VECTOR_BYTES, address, helper, kernel
from fastem.kernels._vectors import accumulated, new_function, places_in, scalar_of, shuffled, vector_at
from fastem.kernels.products import ROWS

_LOW = 6  # height of a tile with room for a row of B more, where so few rows of A are left and registers are 32
_FEW_ROWS = 2 * ROWS  # of A: more of `product` would be lost to tiles that are not high enough


@intrinsic(prefer_literal=True)
def _inner_tile_vector(typingctx, a, ia, lda, b, ib, ldb, c, ic, ldc, depth, height, n_others):
    """C[j, :height] = sums over depth of A[:height] B[j] for j < n_others, from flat offsets ia, ib, ic.

    depth is a multiple of a vector of A's dtype, which is B's. As much of C is written as if height were ROWS.
    """
    signature = types.void(a, ia, lda, b, ib, ldb, c, ic, ldc, depth, height, n_others)
    shape = height.literal_value, n_others.literal_value

    def codegen(context, builder, signature, args):
        pa, pb, pc = places_in(context, builder, signature.args, args)
        tile = _inner_function(builder.module, shape, b.dtype.bitwidth, c.dtype.bitwidth)
        builder.call(tile, [pa, args[2], pb, args[5], pc, args[8], args[9]])
        return context.get_dummy_value()

    return signature, codegen


def _inner_function(module, shape, bits, wide_bits):
    """The LLVM function of such a tile: vectors of products, added across at the end."""
    height, n_others = shape
    scalar, wide_scalar, index = scalar_of(bits), scalar_of(wide_bits), ir.IntType(64)
    source, n_lanes = scalar.as_pointer(), VECTOR_BYTES // (bits // 8)
    arguments = [source, index, source, index, wide_scalar.as_pointer(), index, index]
    function, is_new = new_function(module, f"fastem_inner_{height}x{n_others}_f{bits}_f{wide_bits}", arguments)
    if not is_new:
        return function
    pa, lda, pb, ldb, pc, ldc, depth = function.args
    vector = ir.VectorType(scalar, n_lanes)
    builder = ir.IRBuilder(function.append_basic_block("entry"))

    def at(matrix, leading, step, i):
        place = builder.add(builder.mul(step, index(n_lanes)), builder.mul(leading, index(i)))
        return builder.load(vector_at(builder, matrix, place, vector), align=bits // 8)

    def rows_of_b(step):
        return [at(pb, ldb, step, j) for j in range(n_others)]

    n_steps = builder.udiv(depth, index(n_lanes))
    totals = accumulated(builder, shape, n_steps, vector, functools.partial(at, pa, lda), rows_of_b)
    for j in range(n_others):
        place = builder.mul(ldc, index(j))
        of_rows = [row[j] for row in totals]
        for part in _added_across(builder, of_rows + of_rows[: ROWS - height]):
            wide = ir.VectorType(wide_scalar, part.type.count)
            total = part if wide == part.type else builder.fpext(part, wide)
            builder.store(total, vector_at(builder, pc, place, wide), align=wide_bits // 8)
            place = builder.add(place, index(part.type.count))
    builder.ret_void()
    return function


def _added_across(builder, vectors):
    """The sums over the lanes of a power of two of vectors, in order, in vectors that are as long at most."""
    n = len(vectors)
    n_lanes = vectors[0].type.count
    while n_lanes > 1:  # pairs of lanes are added, and what is left of two vectors goes into one, while there are two
        if len(vectors) == 1:
            vectors = [vectors[0], vectors[0]]
        pairs = list(zip(vectors[::2], vectors[1::2], strict=True))
        length = min(vectors[0].type.count, n * n_lanes // 2)
        even, odd = range(0, 2 * length, 2), range(1, 2 * length, 2)
        vectors = [builder.fadd(shuffled(builder, *pair, even), shuffled(builder, *pair, odd)) for pair in pairs]
        n_lanes //= 2
    return vectors


def _inner_tile_plain(a, ia, lda, b, ib, ldb, c, ic, ldc, depth, height, n_others):
    """The same tile as loops."""
    a, b, c = a.reshape(-1), b.reshape(-1), c.reshape(-1)
    for i in range(height):
        for j in range(n_others):
            total = b[ib] * 0
            for step in range(depth):
                total += a[ia + i * lda + step] * b[ib + j * ldb + step]
            c[ic + j * ldc + i] = total


_inner_tile = helper(_inner_tile_plain) if PLAIN else _inner_tile_vector


@kernel
def is_inner(m, n, itemsize):
    """Whether C (n, m) is computed faster here than by `product`, which wants whole vectors of columns; measured."""
    lanes = VECTOR_BYTES // itemsize
    return m <= _FEW_ROWS or n < lanes or (n > lanes and 2 * n <= 3 * lanes)


@kernel
def add_inner_products(a, m, b, n, depth, c, places, n_places, sums):
    """sums[:m, places[j]] += A[:m, :depth] B[j, :depth] for j < n where places[j] is below n_places.

    All are C-ordered, depth is a multiple of a vector. A has room for m rounded up to a multiple of ROWS, and c is
    scratch (n, so many).
    """
    lda, ldb, ldc = a.shape[1], b.shape[1], c.shape[1]
    for i in range(0, m, ROWS):
        j = 0
        while VECTOR_BYTES == 64 and m - i <= _LOW and j + 4 <= n:
            _inner_tile(a, i * lda, lda, b, j * ldb, ldb, c, j * ldc + i, ldc, depth, _LOW, 4)
            j += 4
        while j + 3 <= n:
            _inner_tile(a, i * lda, lda, b, j * ldb, ldb, c, j * ldc + i, ldc, depth, ROWS, 3)
            j += 3
        if j + 2 == n:
            _inner_tile(a, i * lda, lda, b, j * ldb, ldb, c, j * ldc + i, ldc, depth, ROWS, 2)
        elif j + 1 == n:
            _inner_tile(a, i * lda, lda, b, j * ldb, ldb, c, j * ldc + i, ldc, depth, ROWS, 1)
    for j in range(n):
        place = places[j]
        if place < n_places:
            for p in range(m):
                sums[p, place] += c[j, p]


def inner_address(like, sums):
    """Address of `add_inner_products` for matrices of the dtype of `like`, into the dtype of `sums`."""
    places = np.empty(0, np.int64)
    return address(add_inner_products, (like, 0, like, 0, 0, sums, places, 0, sums), (like.dtype, sums.dtype))
