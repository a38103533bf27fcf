"""Rows to columns and back: the transposition of blocks, and rows fetched before they are needed.

Transposing is done in square tiles of vectors, by rounds of interleaving; a loop of scalars takes four times as long.
"""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from fastem.kernels._jit import PLAIN, VECTOR_BYTES, helper, kernel

_LINE = 64  # bytes of a cache line
_AHEAD = 8  # rows fetched ahead: enough to hide memory, few enough for the buffers of a core


@intrinsic
def _turn_tile_vector(typingctx, a, ia, lda, out, io, ldo):
    """out[j, i] = a[i, j] for a square tile as wide as a vector, from flat offsets ia and io."""
    signature = types.void(a, ia, lda, out, io, ldo)
    n = VECTOR_BYTES // (a.dtype.bitwidth // 8)

    def codegen(context, builder, signature, args):
        source = make_array(signature.args[0])(context, builder, args[0])
        target = make_array(signature.args[3])(context, builder, args[3])
        scalar = ir.FloatType() if signature.args[0].dtype.bitwidth == 32 else ir.DoubleType()
        vector, index = ir.VectorType(scalar, n), ir.IntType(64)
        align = signature.args[0].dtype.bitwidth // 8

        def row(array, offset, stride, i):
            place = builder.add(offset, builder.mul(stride, index(i)))
            return builder.bitcast(builder.gep(array.data, [place]), vector.as_pointer())

        def interleave(low, high, first):
            lanes = [lane for i in range(first, first + n // 2) for lane in (i, n + i)]
            return builder.shuffle_vector(low, high, ir.Constant(ir.VectorType(ir.IntType(32), n), lanes))

        vectors = [builder.load(row(source, args[1], args[2], i), align=align) for i in range(n)]
        for _ in range(n.bit_length() - 1):
            pairs = [(vectors[i], vectors[i + n // 2]) for i in range(n // 2)]
            vectors = [interleave(*pair, first) for pair in pairs for first in (0, n // 2)]
        for i in range(n):
            builder.store(vectors[i], row(target, args[4], args[5], i), align=align)
        return context.get_dummy_value()

    return signature, codegen


def _turn_tile_plain(a, ia, lda, out, io, ldo):
    """The same tile as loops."""
    a, out = a.reshape(-1), out.reshape(-1)
    n = VECTOR_BYTES // a.itemsize
    for i in range(n):
        for j in range(n):
            out[io + j * ldo + i] = a[ia + i * lda + j]


_turn_tile = helper(_turn_tile_plain) if PLAIN else _turn_tile_vector


@kernel
def clear(a):
    """a (m, n) = 0."""
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            a[i, j] = 0.0


@kernel
def turn(a, m, n, out):
    """out[:n, :m] = a[:m, :n] transposed; both C-ordered."""
    side = VECTOR_BYTES // a.itemsize
    whole_m, whole_n = m - m % side, n - n % side
    for j in range(0, whole_n, side):
        for i in range(0, whole_m, side):
            _turn_tile(a, i * a.shape[1] + j, a.shape[1], out, j * out.shape[1] + i, out.shape[1])
    for j in range(whole_n):
        for i in range(whole_m, m):
            out[j, i] = a[i, j]
    for j in range(whole_n, n):
        for i in range(m):
            out[j, i] = a[i, j]


@intrinsic
def _prefetch_vector(typingctx, a, offset):
    """Fetch the cache line of a flat offset."""

    def codegen(context, builder, signature, args):
        array = make_array(signature.args[0])(context, builder, args[0])
        byte, i32 = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
        fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        pointer = builder.bitcast(builder.gep(array.data, [args[1]]), byte)
        builder.call(fetch, [pointer, i32(0), i32(3), i32(1)])  # to read, into every cache, data
        return context.get_dummy_value()

    return types.void(a, offset), codegen


def _prefetch_plain(a, offset):
    """Nothing: memory is fetched when it is read."""


_prefetch = helper(_prefetch_plain) if PLAIN else _prefetch_vector


@kernel
def load_rows(X, frame, rows, n_rows, out):
    """out (B, at least D) = (X[rows[:n_rows]] - frame[0]) * frame[1]; all else is zero."""
    n_features = X.shape[1]
    line = _LINE // X.itemsize
    scattered = rows[n_rows - 1] - rows[0] != n_rows - 1
    for b in range(n_rows):
        if scattered:
            offset = rows[min(b + _AHEAD, n_rows - 1)] * n_features
            for d in range(0, n_features, line):
                _prefetch(X, offset + d)
            _prefetch(X, offset + n_features - 1)  # rows need not start on a line
        row = rows[b]
        for d in range(n_features):
            out[b, d] = (X[row, d] - frame[0, d]) * frame[1, d]
        for d in range(n_features, out.shape[1]):
            out[b, d] = 0.0
    for b in range(n_rows, out.shape[0]):
        for d in range(out.shape[1]):
            out[b, d] = 0.0
