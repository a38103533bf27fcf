"""One register-blocked matrix product, C += A B, for both products of the E-step.

The tile is an intrinsic that emits explicit vectors: `rows` x `vectors` accumulators live in registers over one
loop of the shared index. LLVM's own vectoriser stops at about 40 % of dgemm's rate on the same loops, the tile
reaches dgemm's (docs/performance.md).
"""

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from fastem.kernels._jit import PLAIN, VECTOR_BYTES, helper, kernel

# Tiles of 8 rows x 3 vectors: 24 accumulators + 3 vectors + 1 broadcast fit the 32 registers of AVX-512 and NEON;
# AVX2 has 16 registers and takes 4 x 3.
ROWS = 4 if VECTOR_BYTES == 32 else 8


@intrinsic(prefer_literal=True)
def _tile_vector(typingctx, a, ia, lda, b, ib, ldb, c, ic, ldc, depth, rows, vectors, parts):
    """C[:rows, :columns] += A[:rows, :depth] B[:depth, :columns] from flat offsets ia, ib, ic.

    columns = vectors * VECTOR_BYTES / (parts * itemsize); C may be wider than A and B (float64 over float32).
    """
    if not a.layout == b.layout == c.layout == "C":
        raise TypingError(f"tiles need C-ordered arrays, got {a}, {b}, {c}")
    signature = types.void(a, ia, lda, b, ib, ldb, c, ic, ldc, depth, rows, vectors, parts)
    n_rows, n_vectors = rows.literal_value, vectors.literal_value
    n_lanes = VECTOR_BYTES // parts.literal_value // (b.dtype.bitwidth // 8)

    def codegen(context, builder, signature, args):
        pa, pb, pc = (make_array(signature.args[i])(context, builder, args[i]).data for i in (0, 3, 6))
        ia, lda, ib, ldb, ic, ldc, depth = (args[i] for i in (1, 2, 4, 5, 7, 8, 9))
        index = ia.type
        vector = ir.VectorType(pb.type.pointee, n_lanes)
        wide = ir.VectorType(pc.type.pointee, n_lanes)
        fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fmuladd.v{n_lanes}f{b.dtype.bitwidth}"
        )

        def vector_at(pointer, offset, j, kind):
            offset = builder.add(offset, index(j * n_lanes))
            return builder.bitcast(builder.gep(pointer, [offset]), kind.as_pointer())

        def broadcast(scalar):
            undefined = ir.Constant(vector, ir.Undefined)
            first = builder.insert_element(undefined, scalar, ir.IntType(32)(0))
            return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), n_lanes), None))

        before = builder.block
        loop = builder.append_basic_block("tile.loop")
        after = builder.append_basic_block("tile.store")
        builder.branch(loop)
        builder.position_at_end(loop)
        step = builder.phi(index)
        sums = [[builder.phi(vector) for _ in range(n_vectors)] for _ in range(n_rows)]
        row_b = builder.add(ib, builder.mul(step, ldb))
        columns = [builder.load(vector_at(pb, row_b, j, vector), align=b.dtype.bitwidth // 8) for j in range(n_vectors)]
        totals = []
        for i in range(n_rows):
            offset = builder.add(builder.add(ia, step), builder.mul(lda, index(i)))
            element = broadcast(builder.load(builder.gep(pa, [offset])))
            totals.append([builder.call(fma, [element, columns[j], sums[i][j]]) for j in range(n_vectors)])
        following = builder.add(step, index(1))
        builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)
        step.add_incoming(index(0), before)
        step.add_incoming(following, loop)
        for i in range(n_rows):
            for j in range(n_vectors):
                sums[i][j].add_incoming(ir.Constant(vector, None), before)
                sums[i][j].add_incoming(totals[i][j], loop)
        builder.position_at_end(after)
        for i in range(n_rows):
            row_c = builder.add(ic, builder.mul(ldc, index(i)))
            for j in range(n_vectors):
                total = totals[i][j] if wide == vector else builder.fpext(totals[i][j], wide)
                pointer = vector_at(pc, row_c, j, wide)
                old = builder.load(pointer, align=c.dtype.bitwidth // 8)
                builder.store(builder.fadd(old, total), pointer, align=c.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return signature, codegen


def _tile_plain(a, ia, lda, b, ib, ldb, c, ic, ldc, depth, rows, vectors, parts):
    """The same tile as loops: the oracle of the tests, and what bounds checks and the interpreter run."""
    a, b, c = a.reshape(-1), b.reshape(-1), c.reshape(-1)
    for i in range(rows):
        for j in range(vectors * VECTOR_BYTES // parts // b.itemsize):
            total = b[ib] * 0
            for step in range(depth):
                total += a[ia + i * lda + step] * b[ib + step * ldb + j]
            c[ic + i * ldc + j] += total


_tile = helper(_tile_plain) if PLAIN else _tile_vector


def _panel(vectors, parts):
    """Kernel for all `m` rows of one panel of columns, in tiles of falling height."""

    @helper
    def panel(a, skip, b, c, column, m, depth):
        lda, ldb, ldc = a.shape[1], b.shape[1], c.shape[1]
        row = 0
        while row + ROWS <= m:
            _tile(a, row * lda + skip, lda, b, column, ldb, c, row * ldc + column, ldc, depth, ROWS, vectors, parts)
            row += ROWS
        if row + 4 <= m:
            _tile(a, row * lda + skip, lda, b, column, ldb, c, row * ldc + column, ldc, depth, 4, vectors, parts)
            row += 4
        if row + 2 <= m:
            _tile(a, row * lda + skip, lda, b, column, ldb, c, row * ldc + column, ldc, depth, 2, vectors, parts)
            row += 2
        if row < m:
            _tile(a, row * lda + skip, lda, b, column, ldb, c, row * ldc + column, ldc, depth, 1, vectors, parts)

    return panel


_three_vectors, _two_vectors, _one_vector, _half_vector = _panel(3, 1), _panel(2, 1), _panel(1, 1), _panel(1, 2)


@kernel
def product(a, skip, b, m, n, depth, c):
    """C[:m, :n] += A[:m, skip : skip + depth] B[:depth, :n]; C-ordered, n a multiple of half a vector of B's dtype."""
    lanes = VECTOR_BYTES // b.itemsize
    column = 0
    while n - column >= 3 * lanes and n - column != 4 * lanes:
        _three_vectors(a, skip, b, c, column, m, depth)
        column += 3 * lanes
    while n - column >= 2 * lanes:
        _two_vectors(a, skip, b, c, column, m, depth)
        column += 2 * lanes
    if n - column >= lanes:
        _one_vector(a, skip, b, c, column, m, depth)
        column += lanes
    if column < n:
        _half_vector(a, skip, b, c, column, m, depth)
