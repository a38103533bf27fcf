"""One register-blocked matrix product, C += A B or C = A B, for both products of the E-step.

The tile is an intrinsic that emits explicit vectors: `rows` x `vectors` accumulators live in registers over one
loop of the shared index. LLVM's own vectoriser stops at about 40 % of dgemm's rate on the same loops, the tile
reaches dgemm's (docs/performance.md).
"""

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastem.kernels._calls import address
from fastem.kernels._jit import PLAIN, VECTOR_BYTES, helper, kernel, piece
from fastem.kernels._vectors import accumulated, broadcasts, new_function, places_in, scalar_of, vector_at

# Tiles of 8 rows x 3 vectors: 24 accumulators + 3 vectors + 1 broadcast fit the 32 registers of AVX-512 and NEON;
# AVX2 has 16 registers and takes 4 x 3.
ROWS = 4 if VECTOR_BYTES == 32 else 8


@intrinsic(prefer_literal=True)
def _tile_vector(typingctx, a, ia, lda, b, ib, ldb, c, ic, ldc, depth, fresh, rows, vectors, parts):
    """C[:rows, :columns] += A[:rows, :depth] B[:depth, :columns], or = if fresh, from flat offsets ia, ib, ic.

    columns = vectors * VECTOR_BYTES / (parts * itemsize); C may be wider than A and B (float64 over float32).
    """
    signature = types.void(a, ia, lda, b, ib, ldb, c, ic, ldc, depth, fresh, rows, vectors, parts)
    n_lanes = VECTOR_BYTES // parts.literal_value // (b.dtype.bitwidth // 8)
    shape = rows.literal_value, vectors.literal_value, n_lanes

    def codegen(context, builder, signature, args):
        pa, pb, pc = places_in(context, builder, signature.args, args)
        tile = _tile_function(builder.module, shape, b.dtype.bitwidth, c.dtype.bitwidth)
        builder.call(tile, [pa, args[2], pb, args[5], pc, args[8], args[9], args[10]])
        return context.get_dummy_value()

    return signature, codegen


def _tile_function(module, shape, bits, wide_bits):
    """The LLVM function of a tile, once a module and never inlined: a kernel has dozens of calls of each tile."""
    n_rows, n_vectors, n_lanes = shape
    scalar, wide_scalar, index = scalar_of(bits), scalar_of(wide_bits), ir.IntType(64)
    source, target = scalar.as_pointer(), wide_scalar.as_pointer()
    arguments = [source, index, source, index, target, index, index, ir.IntType(1)]
    name = f"fastem_tile_{n_rows}x{n_vectors}x{n_lanes}_f{bits}_f{wide_bits}"
    function, is_new = new_function(module, name, arguments)
    if not is_new:
        return function
    pa, lda, pb, ldb, pc, ldc, depth, fresh = function.args
    vector, wide = ir.VectorType(scalar, n_lanes), ir.VectorType(wide_scalar, n_lanes)
    builder = ir.IRBuilder(function.append_basic_block("entry"))

    def place(row, j):
        return builder.add(row, index(j * n_lanes))

    def columns(step):
        row = builder.mul(step, ldb)
        return [builder.load(vector_at(builder, pb, place(row, j), vector), align=bits // 8) for j in range(n_vectors)]

    rows = broadcasts(builder, pa, lda, n_rows, n_lanes)
    totals = accumulated(builder, (n_rows, n_vectors), depth, vector, rows, columns)
    store, add = function.append_basic_block("store"), function.append_basic_block("add")
    builder.cbranch(fresh, store, add)
    for block in (store, add):
        builder.position_at_end(block)
        for i in range(n_rows):
            row_c = builder.mul(ldc, index(i))
            for j in range(n_vectors):
                total = totals[i][j] if wide == vector else builder.fpext(totals[i][j], wide)
                pointer = vector_at(builder, pc, place(row_c, j), wide)
                if block is add:
                    total = builder.fadd(builder.load(pointer, align=wide_bits // 8), total)
                builder.store(total, pointer, align=wide_bits // 8)
        builder.ret_void()
    return function


def _tile_plain(a, ia, lda, b, ib, ldb, c, ic, ldc, depth, fresh, rows, vectors, parts):
    """The same tile as loops: the oracle of the tests, and what bounds checks and the interpreter run."""
    a, b, c = a.reshape(-1), b.reshape(-1), c.reshape(-1)
    for i in range(rows):
        for j in range(vectors * VECTOR_BYTES // parts // b.itemsize):
            total = b[ib] * 0
            for step in range(depth):
                total += a[ia + i * lda + step] * b[ib + step * ldb + j]
            c[ic + i * ldc + j] = total if fresh else c[ic + i * ldc + j] + total


_tile = helper(_tile_plain) if PLAIN else _tile_vector


def _panel(vectors, parts):
    """Kernel for all `m` rows of one panel of columns, in tiles of falling height."""

    @piece
    def panel(a, skip, b, c, column, m, depth, fresh):
        lda, ldb, ldc = a.shape[1], b.shape[1], c.shape[1]
        row = 0
        while row + ROWS <= m:
            _tile(
                a, row * lda + skip, lda, b, column, ldb, c, row * ldc + column, ldc, depth, fresh, ROWS, vectors, parts
            )
            row += ROWS
        if row + 4 <= m:
            _tile(a, row * lda + skip, lda, b, column, ldb, c, row * ldc + column, ldc, depth, fresh, 4, vectors, parts)
            row += 4
        if row + 2 <= m:
            _tile(a, row * lda + skip, lda, b, column, ldb, c, row * ldc + column, ldc, depth, fresh, 2, vectors, parts)
            row += 2
        if row < m:
            _tile(a, row * lda + skip, lda, b, column, ldb, c, row * ldc + column, ldc, depth, fresh, 1, vectors, parts)

    return panel


_three_vectors, _two_vectors, _one_vector, _half_vector = _panel(3, 1), _panel(2, 1), _panel(1, 1), _panel(1, 2)


@kernel
def product(a, skip, b, m, first, n, depth, c, fresh):
    """C[:m, first:n] += A[:m, skip : skip + depth] B[:depth, first:n], or = if fresh.

    All are C-ordered, n - first is a multiple of half a vector of B's dtype.
    """
    lanes = VECTOR_BYTES // b.itemsize
    column = first
    while n - column >= 3 * lanes and n - column != 4 * lanes:
        _three_vectors(a, skip, b, c, column, m, depth, fresh)
        column += 3 * lanes
    while n - column >= 2 * lanes:
        _two_vectors(a, skip, b, c, column, m, depth, fresh)
        column += 2 * lanes
    if n - column >= lanes:
        _one_vector(a, skip, b, c, column, m, depth, fresh)
        column += lanes
    if column < n:
        _half_vector(a, skip, b, c, column, m, depth, fresh)


def product_addresses(like, sums):
    """Addresses of `product` for matrices of the dtype of `like`, and for those added up in the dtype of `sums`."""
    return tuple(address(product, (like, 0, like, 0, 0, 0, 0, c, True), (like.dtype, c.dtype)) for c in (like, sums))
