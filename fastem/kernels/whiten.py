"""The accurate path: y = W (x - mean) for one component, instead of quadratic features that cancel.

A whitener holds one component's mean in its last row and, above, a lower triangle W (D, D), or in one row the diagonal
of W. (Densities may take a W in double-double, see `whiten_exactly`.) Statistics of a thin component are the features
of y: sums about its own current mean.
"""

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from fastem.kernels._calls import call_at
from fastem.kernels._jit import PLAIN, VECTOR_BYTES, helper, kernel
from fastem.kernels._vectors import accumulated, broadcast, broadcasts, fused, new_function, scalar_of, vector_at
from fastem.kernels.products import ROWS

_HEIGHT = 4  # rows of W in a tile of `distance`: less of the zeros above the diagonal than with more
_VECTORS = 3  # columns of a tile of `distance`, which divide a block


@kernel
def whiten(product, columns, whitener, centred, y):
    """y (D, B) = W (columns - mean); `centred` (D, B) is scratch, `product` the address of the kernel."""
    n_features, width = columns.shape
    mean = whitener[whitener.shape[0] - 1]
    if whitener.shape[0] == 2:
        for d in range(n_features):
            for b in range(width):
                y[d, b] = (columns[d, b] - mean[d]) * whitener[0, d]
        return
    for d in range(n_features):
        for b in range(width):
            centred[d, b] = columns[d, b] - mean[d]
    for i in range(0, n_features, ROWS):  # of a triangle, only what is not zero
        n_rows = min(ROWS, n_features - i)
        call_at(product, (whitener[i:], 0, centred, n_rows, 0, width, i + n_rows, y[i:], True))


@intrinsic(prefer_literal=True)
def _distance_tile_vector(typingctx, columns, b, whitener, i, out, rows):
    """out[b : b + tile] += |W[i : i + rows] (x - mean)|^2 of a tile of columns; W is lower triangular."""
    signature = types.void(columns, b, whitener, i, out, rows)
    n_rows, bits = rows.literal_value, columns.dtype.bitwidth

    def codegen(context, builder, signature, args):
        x, w, total = (make_array(signature.args[k])(context, builder, args[k]) for k in (0, 2, 4))
        n_features, width = (builder.extract_value(x.shape, k) for k in (0, 1))
        first = builder.mul(args[3], n_features)
        n_means = builder.sub(builder.extract_value(w.shape, 0), ir.IntType(64)(1))
        mean = builder.gep(w.data, [builder.mul(n_means, n_features)])
        depth = builder.add(args[3], ir.IntType(64)(n_rows))
        tile = _distance_function(builder.module, n_rows, bits)
        start = builder.gep(x.data, [args[1]])
        end = builder.gep(total.data, [args[1]])
        builder.call(tile, [start, width, builder.gep(w.data, [first]), n_features, mean, depth, end])
        return context.get_dummy_value()

    return signature, codegen


def _distance_function(module, n_rows, bits):
    """The LLVM function of a tile: y stays in registers, so nothing of it is stored."""
    n_lanes = VECTOR_BYTES // (bits // 8)
    scalar, index, align = scalar_of(bits), ir.IntType(64), bits // 8
    pointer, vector = scalar.as_pointer(), ir.VectorType(scalar, n_lanes)
    name = f"fastem_distance_{n_rows}_f{bits}"
    function, is_new = new_function(module, name, [pointer, index, pointer, index, pointer, index, pointer])
    if not is_new:
        return function
    px, ldx, pw, ldw, pm, depth, pout = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))

    def centred(step):
        row = builder.mul(step, ldx)
        mean = broadcast(builder, builder.load(builder.gep(pm, [step])), n_lanes)
        places = [vector_at(builder, px, builder.add(row, index(v * n_lanes)), vector) for v in range(_VECTORS)]
        return [builder.fsub(builder.load(place, align=align), mean) for place in places]

    whitener = broadcasts(builder, pw, ldw, n_rows, n_lanes)
    totals = accumulated(builder, (n_rows, _VECTORS), depth, vector, whitener, centred)
    fma = fused(module, vector)
    for v in range(_VECTORS):
        place = vector_at(builder, pout, index(v * n_lanes), vector)
        total = builder.load(place, align=align)
        for r in range(n_rows):
            total = builder.call(fma, [totals[r][v], totals[r][v], total])
        builder.store(total, place, align=align)
    builder.ret_void()
    return function


def _distance_tile_plain(columns, b, whitener, i, out, rows):
    """The same tile as loops."""
    mean = whitener[whitener.shape[0] - 1]
    for column in range(b, b + _VECTORS * VECTOR_BYTES // columns.itemsize):
        for r in range(i, i + rows):
            y = columns[0, column] * 0
            for j in range(i + rows):
                y += whitener[r, j] * (columns[j, column] - mean[j])
            out[column] += y * y


_distance_tile = helper(_distance_tile_plain) if PLAIN else _distance_tile_vector


@kernel
def distance(columns, whitener, out):
    """out (B,) = |W (x - mean)|^2 of each column of (D, B); B is a multiple of 48."""
    n_features, width = columns.shape
    for b in range(width):
        out[b] = 0.0
    if whitener.shape[0] == 2:
        for d in range(n_features):
            for b in range(width):
                y = (columns[d, b] - whitener[1, d]) * whitener[0, d]
                out[b] += y * y
        return
    tile = _VECTORS * VECTOR_BYTES // columns.itemsize
    whole = n_features - n_features % _HEIGHT
    for b in range(0, width, tile):
        for i in range(0, whole, _HEIGHT):
            _distance_tile(columns, b, whitener, i, out, _HEIGHT)
        i = whole
        if i + 2 <= n_features:
            _distance_tile(columns, b, whitener, i, out, 2)
            i += 2
        if i < n_features:
            _distance_tile(columns, b, whitener, i, out, 1)
