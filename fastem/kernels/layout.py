"""Rows to columns and back: blocks are loaded as columns, from rows fetched before they are needed.

Transposing is done in square tiles of vectors, by rounds of interleaving; a loop of scalars takes four times as long.
"""

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from fastem.kernels._jit import PLAIN, VECTOR_BYTES, helper, kernel, rule
from fastem.kernels._vectors import broadcast, first_lanes, fused, masked_load, scalar_of, shuffled, vector_at

_LINE = 64  # bytes of a cache line


def _transposed(builder, vectors):
    """Squares of vectors, side by side if these are longer than many, by log2(n) rounds that interleave the halves."""
    n, length = len(vectors), vectors[0].type.count

    def interleave(low, high, first):
        places = [start + i for start in range(0, length, n) for i in range(first, first + n // 2)]
        return shuffled(builder, low, high, [lane for i in places for lane in (i, length + i)])

    for _ in range(n.bit_length() - 1):
        pairs = [(vectors[i], vectors[i + n // 2]) for i in range(n // 2)]
        vectors = [interleave(*pair, first) for pair in pairs for first in (0, n // 2)]
    return vectors


def _joined(builder, vectors):
    """One vector of all of a power of two, one after another."""
    while len(vectors) > 1:
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [shuffled(builder, *pair, range(2 * pair[0].type.count)) for pair in pairs]
    return vectors[0]


@intrinsic
def _turn_tile_vector(typingctx, a, ia, lda, out, io, ldo):
    """out[j, i] = a[i, j] for a square tile as wide as a vector, from flat offsets ia and io."""
    signature = types.void(a, ia, lda, out, io, ldo)
    n = VECTOR_BYTES // (a.dtype.bitwidth // 8)

    def codegen(context, builder, signature, args):
        source = make_array(signature.args[0])(context, builder, args[0])
        target = make_array(signature.args[3])(context, builder, args[3])
        bits, index = signature.args[0].dtype.bitwidth, ir.IntType(64)
        vector, align = ir.VectorType(scalar_of(bits), n), bits // 8

        def row(array, offset, stride, i):
            return vector_at(builder, array.data, builder.add(offset, builder.mul(stride, index(i))), vector)

        vectors = [builder.load(row(source, args[1], args[2], i), align=align) for i in range(n)]
        for i, turned in enumerate(_transposed(builder, vectors)):
            builder.store(turned, row(target, args[4], args[5], i), align=align)
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
        builder.call(fetch, [pointer, i32(0), i32(2), i32(1)])  # to read, into L2 (L1 is in use: a tenth slower), data
        return context.get_dummy_value()

    return types.void(a, offset), codegen


def _prefetch_plain(a, offset):
    """Nothing: memory is fetched when it is read."""


_prefetch = helper(_prefetch_plain) if PLAIN else _prefetch_vector


@intrinsic(prefer_literal=True)
def _load_tile_vector(typingctx, X, rows, b, d, frame, out, parts):
    """out[d + j, b + i] = (X[rows[b + i], d + j] - frame[0, d + j]) * frame[1, d + j] for a tile.

    It is rounded once: float32 from float32 wants centres that are float32 too, and powers of two for scales.
    It has as many rows as a vector has numbers, and that number over `parts` columns. Those beyond the columns of X are
    garbage, and no memory beyond X is read.
    """
    for array in (X, frame, out):
        if array.layout != "C" or array.dtype not in (types.float32, types.float64):
            raise TypingError(f"rows are loaded from and into C-ordered arrays of floats, not {array}")
    signature = types.void(X, rows, b, d, frame, out, parts)
    n = VECTOR_BYTES // (X.dtype.bitwidth // 8)
    n_wide = max(1, n // parts.literal_value)

    def codegen(context, builder, signature, args):
        X, rows, frame, out = (make_array(signature.args[i])(context, builder, args[i]) for i in (0, 1, 4, 5))
        b, d = args[2:4]
        index = ir.IntType(64)
        source, target = (scalar_of(signature.args[i].dtype.bitwidth) for i in (0, 5))
        vector, wide = ir.VectorType(source, n_wide), ir.VectorType(ir.DoubleType(), n)
        n_columns, width = builder.extract_value(X.shape, 1), builder.extract_value(out.shape, 1)
        mask = first_lanes(builder, builder.sub(n_columns, d), n_wide)
        vectors = []
        for i in range(n):
            row = builder.load(builder.gep(rows.data, [builder.add(b, index(i))]))
            pointer = vector_at(builder, X.data, builder.add(builder.mul(row, n_columns), d), vector)
            vectors.append(masked_load(builder, pointer, mask))
        last = builder.sub(n_columns, index(1))
        squares = [_joined(builder, vectors[i::n_wide]) for i in range(n_wide)]
        for j, column in enumerate(_transposed(builder, squares)):
            place = builder.add(d, index(j))
            known = builder.select(builder.icmp_signed("<", place, last), place, last)
            center = builder.load(builder.gep(frame.data, [known]))
            scale = builder.load(builder.gep(frame.data, [builder.add(known, n_columns)]))
            if source == target == ir.FloatType():
                shift = builder.fneg(builder.fmul(center, scale))
                shift, scale = (broadcast(builder, builder.fptrunc(value, source), n) for value in (shift, scale))
                values = builder.call(fused(builder.module, column.type), [column, scale, shift])
            else:
                values = column if source == wide.element else builder.fpext(column, wide)
                values = builder.fmul(builder.fsub(values, broadcast(builder, center, n)), broadcast(builder, scale, n))
                if target != wide.element:
                    values = builder.fptrunc(values, ir.VectorType(target, n))
            pointer = vector_at(builder, out.data, builder.add(builder.mul(place, width), b), values.type)
            builder.store(values, pointer, align=signature.args[5].dtype.bitwidth // 8)
        return context.get_dummy_value()

    return signature, codegen


def _load_tile_plain(X, rows, b, d, frame, out, parts):
    """The same tile as loops."""
    n = VECTOR_BYTES // X.itemsize
    for i in range(n):
        for j in range(max(1, n // parts)):
            known = min(d + j, X.shape[1] - 1)
            out[d + j, b + i] = (X[rows[b + i], known] - frame[0, known]) * frame[1, known]


_load_tile = helper(_load_tile_plain) if PLAIN else _load_tile_vector


@rule
def tile_columns(n_features, itemsize):
    """Rows that the array of `load_columns` must have for rows of X of this dtype: whole tiles."""
    side = VECTOR_BYTES // itemsize
    return -(-n_features // side) * side


@kernel
def load_columns(X, frame, rows, n_rows, out):
    """out[:D, :n_rows] = ((X[rows] - frame[0]) * frame[1]).T, and 0 beyond n_rows.

    out has `tile_columns` rows and a multiple of 16 columns, one for each of `rows`, all of which are rows of X.
    """
    n_features, width = X.shape[1], rows.shape[0]
    side = VECTOR_BYTES // X.itemsize
    left = n_features % side
    whole = n_features - left
    if left > side // 2:
        left, whole = 0, n_features
    for b in range(0, width, side):
        for d in range(0, whole, side):
            _load_tile(X, rows, b, d, frame, out, 1)
    for b in range(0, width if left > side // 4 else 0, side):
        _load_tile(X, rows, b, whole, frame, out, 2)
    for b in range(0, width if 0 < left <= side // 4 else 0, side):
        _load_tile(X, rows, b, whole, frame, out, 4)
    for d in range(n_features if n_rows < width else 0):
        for b in range(n_rows, width):
            out[d, b] = 0.0


@kernel
def fetch_rows(X, rows, first, last):
    """Bring X[rows[first:last]] near, while something else is computed."""
    if first == last:
        return
    n_features, line = X.shape[1], _LINE // X.itemsize
    if rows[last - 1] - rows[first] == last - 1 - first:
        if 2 * n_features < line:  # so few that the processor foresees them
            return
        for offset in range(rows[first] * n_features, (rows[last - 1] + 1) * n_features, line):
            _prefetch(X, offset)
        return
    for b in range(first, last):
        offset = rows[b] * n_features
        for d in range(0, n_features, line):
            _prefetch(X, offset + d)
        _prefetch(X, offset + n_features - 1)  # rows need not start on a line
