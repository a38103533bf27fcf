"""Eight small matrices at a time, one in each lane of a vector: factors, inverses, the regressions of missing columns.

With the columns o of a row seen and m missing, a normal of mean mu, covariance Sigma and precision Lambda has

    x_m | x_o ~ N(mu_m + B (x_o - mu_o), C),    C = Lambda_mm^-1,  B = -C Lambda_mo

which costs m^2 (m / 3 + o) operations; from the covariance, B = Sigma_mo Sigma_oo^-1 and C = Sigma_mm - B Sigma_om, it
is o^2 (o / 3 + m). Little & Rubin (2002), Statistical Analysis with Missing Data, section 7.4.

Eight matrices of n columns are a flat array with the numbers of entry (i, j) from 8 (i n + j) on. The loops of a single
one are too short for vectors.
"""

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from fastem.kernels._arrays import matrix_at
from fastem.kernels._jit import PLAIN, from_python, helper, kernel
from fastem.kernels._vectors import carried, filled, fused, new_function, vector_at
from fastem.kernels.exp_log import log
from fastem.kernels.layout import turn

LANES = 8
_ROWS = 4  # entries at once, so that a sum need not wait for the one before
_DOUBLE, _INDEX = ir.DoubleType(), ir.IntType(64)
_VECTOR = ir.VectorType(_DOUBLE, LANES)


def _pointer(context, builder, signature, args, i):
    """Pointer to the number at the offset args[i + 1] of the flat array args[i]."""
    return builder.gep(make_array(signature.args[i])(context, builder, args[i]).data, [args[i + 1]])


@intrinsic
def _subtract_products_vector(typingctx, out, o, ro, a, ia, ra, sa, b, ib, sb, depth, scale, s, n):
    """out[r] = (out[r] - sum over l < depth of a[r, l] b[l]) scale for r < n.

    Entries are at o + r ro, ia + r ra + l sa and ib + l sb; offsets and strides count numbers.
    """
    signature = types.void(out, o, ro, a, ia, ra, sa, b, ib, sb, depth, scale, s, n)

    def codegen(context, builder, signature, args):
        po, pa, pb, ps = (_pointer(context, builder, signature, args, i) for i in (0, 3, 7, 11))
        function = _subtract_products_function(builder.module)
        builder.call(function, [po, args[2], pa, args[5], args[6], pb, args[9], args[10], ps, args[13]])
        return context.get_dummy_value()

    return signature, codegen


def _subtract_products_function(module):
    """The LLVM function: sums of some rows at a time stay in registers."""
    pointer = _DOUBLE.as_pointer()
    arguments = [pointer, _INDEX, pointer, _INDEX, _INDEX, pointer, _INDEX, _INDEX, pointer, _INDEX]
    function, is_new = new_function(module, "fastem_subtract_products", arguments)
    if not is_new:
        return function
    po, ro, pa, ra, sa, pb, sb, depth, ps, n = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    scale = builder.load(vector_at(builder, ps, _INDEX(0), _VECTOR), align=8)
    fma = fused(module, _VECTOR)

    def subtract(first, n_rows):
        begin = builder.gep(pa, [builder.mul(ra, first)])
        rows = [builder.add(first, _INDEX(r)) for r in range(n_rows)]
        places = [vector_at(builder, po, builder.mul(ro, row), _VECTOR) for row in rows]

        def add(step, sums):
            common = builder.fneg(builder.load(vector_at(builder, pb, builder.mul(step, sb), _VECTOR), align=8))
            offset, totals = builder.mul(step, sa), []
            for total in sums:
                own = builder.load(vector_at(builder, begin, offset, _VECTOR), align=8)
                totals.append(builder.call(fma, [own, common, total]))
                offset = builder.add(offset, ra)
            return totals

        totals = carried(builder, depth, [builder.load(place, align=8) for place in places], add)
        for place, total in zip(places, totals, strict=True):
            builder.store(builder.fmul(total, scale), place, align=8)

    n_groups = builder.udiv(n, _INDEX(_ROWS))
    n_done = builder.mul(n_groups, _INDEX(_ROWS))
    for count, start, n_rows in ((n_groups, _INDEX(0), _ROWS), (builder.sub(n, n_done), n_done, 1)):

        def step(turn, _, start=start, n_rows=n_rows):
            subtract(builder.add(start, builder.mul(turn, _INDEX(n_rows))), n_rows)
            return []

        carried(builder, count, [], step)
    builder.ret_void()
    return function


def _subtract_products_plain(out, o, ro, a, ia, ra, sa, b, ib, sb, depth, scale, s, n):
    """The same as loops."""
    for r in range(n):
        for c in range(LANES):
            total = out[o + r * ro + c]
            for step in range(depth):
                total -= a[ia + r * ra + step * sa + c] * b[ib + step * sb + c]
            out[o + r * ro + c] = total * scale[s + c]


subtract_products = helper(_subtract_products_plain) if PLAIN else _subtract_products_vector


@kernel
def _gather(matrices, which, columns, first_row, n_rows, first_column, n_columns, out):
    """out (n_rows, n_columns) = entries of some matrices (K, D, D), `which` (8,), in rows and columns[:, first:]."""
    for c in range(LANES):
        k = which[c]
        for i in range(n_rows):
            row = columns[c, first_row + i]
            for j in range(n_columns):
                out[LANES * (i * n_columns + j) + c] = matrices[k, row, columns[c, first_column + j]]


@intrinsic
def _take_root_vector(typingctx, a, o, inverse, i):
    """Square roots in the place of the eight numbers at offset o of a flat array, and their reciprocals."""

    def codegen(context, builder, signature, args):
        place, reciprocal = (
            vector_at(builder, _pointer(context, builder, signature, args, i), _INDEX(0), _VECTOR) for i in (0, 2)
        )
        root_of = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_VECTOR, [_VECTOR]), f"llvm.sqrt.v{LANES}f64"
        )
        root = builder.call(root_of, [builder.load(place, align=8)])
        builder.store(root, place, align=8)
        builder.store(builder.fdiv(filled(_VECTOR, 1.0), root), reciprocal, align=8)
        return context.get_dummy_value()

    return types.void(a, o, inverse, i), codegen


def _take_root_plain(a, o, inverse, i):
    """The same as a loop."""
    for c in range(LANES):
        a[o + c] = np.sqrt(a[o + c])
        inverse[i + c] = 1.0 / a[o + c]


_take_root = helper(_take_root_plain) if PLAIN else _take_root_vector


@kernel
def take_matrices(matrices, first, a):
    """a = eight matrices of a stack (K, n, n) from the first on, which stands for those beyond the last too."""
    n, size = min(LANES, matrices.shape[0] - first), matrices.shape[1] * matrices.shape[2]
    turn(matrix_at(matrices, first * size, n, size), n, size, matrix_at(a, 0, size, LANES))
    for p in range(0, LANES * size if n < LANES else 0, LANES):
        for c in range(n, LANES):
            a[p + c] = a[p]


@kernel
def put_matrices(a, size, first, matrices):
    """The way back, of matrices with so many entries into a stack that is longer than `first`."""
    n = min(LANES, matrices.shape[0] - first)
    turn(matrix_at(a, 0, size, LANES), size, n, matrix_at(matrices, first * size, n, size))


@kernel
def factor(a, n, signs, inverse):
    """Lower triangles of a (n, n) = Cholesky factors, inverse (n,) that of their diagonals; NaN where there is none."""
    row = LANES * n
    for j in range(n):
        here = j * row + LANES * j
        subtract_products(a, here, row, a, j * row, row, LANES, a, j * row, LANES, j, signs, 0, 1)
        _take_root(a, here, inverse, LANES * j)
        below = here + row
        subtract_products(
            a, below, row, a, (j + 1) * row, row, LANES, a, j * row, LANES, j, inverse, LANES * j, n - 1 - j
        )


@kernel
def invert_factor(a, n, inverse, roots):
    """roots (n, n) = upper triangular U, U' the inverse of the factor in the lower triangle of a: U U' that of A."""
    row = LANES * n
    for p in range(n * row):
        roots[p] = 0.0
    for i in range(n):
        for j in range(0, i, _ROWS):  # of whose rows the first has its first number at j
            here, depth = j * row + LANES * j, i - j
            subtract_products(
                roots, j * row + LANES * i, row, roots, here, row, LANES, a, i * row + LANES * j, LANES, depth,
                inverse, LANES * i, min(_ROWS, depth),
            )  # fmt: skip
        for c in range(LANES):
            roots[i * row + LANES * i + c] = inverse[LANES * i + c]


@kernel
def half_log_det(a, n, logs):
    """logs (8,) = sums of the logarithms of the diagonal of the factors in a (n, n)."""
    for c in range(LANES):
        logs[c] = 0.0
    for p in range(0, n * LANES * n, LANES * n + LANES):
        for c in range(LANES):
            logs[c] += log(a[p + c])


@from_python
@kernel
def regress(precision, covariance, log_roots, which, columns, n_seen, slopes, spread, logs, scratch):
    """slopes (m, o) = B, spread (m, m) = C and logs (8,) = log|C| / 2 of what is missing given what is seen.

    which (8,) are components, columns (8, D) those seen, then those missing. log_roots (K,) are log|precision| / 2,
    scratch is that of `scratch_of`. The cheaper of the two ways is taken.
    """
    table, other, inverse, signs = scratch
    o, m = n_seen, columns.shape[1] - n_seen
    seen_row, row = LANES * o, LANES * m
    if m <= o:
        _gather(precision, which, columns, o, m, o, m, table)
        factor(table, m, signs, inverse)
        half_log_det(table, m, logs)
        invert_factor(table, m, inverse, other)
        for p in range(m * row):
            spread[p] = 0.0
        for i in range(m):
            last = i * row + LANES * i
            subtract_products(
                spread, i * row, LANES, other, LANES * i, row, LANES, other, last, LANES, m - i, signs, LANES, i + 1
            )
            for j in range(i):
                for c in range(LANES):
                    spread[j * row + LANES * i + c] = spread[i * row + LANES * j + c]
        _gather(precision, which, columns, 0, o, o, m, table)
        for p in range(m * seen_row):
            slopes[p] = 0.0
        for i in range(m):
            subtract_products(slopes, i * seen_row, LANES, table, 0, row, LANES, spread, i * row, LANES, m, signs, 0, o)
        for c in range(LANES):
            logs[c] = -logs[c]
        return
    _gather(covariance, which, columns, 0, o, 0, o, table)
    factor(table, o, signs, inverse)
    half_log_det(table, o, logs)
    _gather(covariance, which, columns, 0, o, o, m, other)
    for i in range(o):  # other (o, m) = L^-1 Sigma_om
        subtract_products(
            other, i * row, LANES, other, 0, LANES, row, table, i * seen_row, LANES, i, inverse, LANES * i, m
        )
    _gather(covariance, which, columns, o, m, o, m, spread)
    for i in range(m):
        subtract_products(spread, i * row, LANES, other, 0, LANES, row, other, LANES * i, row, o, signs, 0, m)
    for i in range(o - 1, -1, -1):  # B' = L'^-1 other
        after = (i + 1) * seen_row + LANES * i
        subtract_products(
            other, i * row, LANES, other, (i + 1) * row, LANES, row, table, after, seen_row, o - 1 - i,
            inverse, LANES * i, m,
        )  # fmt: skip
        for j in range(m):
            for c in range(LANES):
                slopes[j * seen_row + LANES * i + c] = other[i * row + LANES * j + c]
    for c in range(LANES):
        logs[c] = -log_roots[which[c]] - logs[c]


@kernel
def scratch_of(n_features):
    """What `regress` needs: room for two matrices and a diagonal, then eight times 1 and eight times -1."""
    size = LANES * n_features
    signs = np.empty(2 * LANES)
    for c in range(LANES):
        signs[c], signs[LANES + c] = 1.0, -1.0
    return np.empty(size * n_features), np.empty(size * n_features), np.empty(size), signs
