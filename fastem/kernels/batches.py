"""Eight small matrices at a time, one in each lane of a vector: their factors, and the regressions of missing columns.

With the columns o of a row seen and m missing, a normal of mean mu, covariance Sigma and precision Lambda has

    x_m | x_o ~ N(mu_m + B (x_o - mu_o), C),    C = Lambda_mm^-1,  B = -C Lambda_mo

which costs m^2 (m / 3 + o) operations; from the covariance, B = Sigma_mo Sigma_oo^-1 and C = Sigma_mm - B Sigma_om, it
is o^2 (o / 3 + m). Little & Rubin (2002), Statistical Analysis with Missing Data, section 7.4.

Eight matrices of n columns are a flat array with the numbers of entry (i, j) from 8 (i n + j) on. The loops of a single
one are too short for vectors.
"""

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from fastem.kernels._jit import PLAIN, from_python, helper, kernel
from fastem.kernels._vectors import fused, new_function, vector_at
from fastem.kernels.exp_log import log

LANES = 8
_ROWS = 4  # entries at once, so that a sum need not wait for the one before
_DOUBLE, _INDEX = ir.DoubleType(), ir.IntType(64)
_VECTOR = ir.VectorType(_DOUBLE, LANES)


def _pointer(context, builder, signature, args, i):
    """Pointer to the number at the offset args[i + 1] of the flat array args[i]."""
    return builder.gep(make_array(signature.args[i])(context, builder, args[i]).data, [args[i + 1]])


@intrinsic(prefer_literal=True)
def _subtract_products_vector(typingctx, out, o, ro, a, ia, ra, sa, b, ib, sb, depth, scale, s, rows):
    """out[r] = (out[r] - sum over l < depth of a[r, l] b[l]) scale, with entries at o + r ro, ia + r ra + l sa, .."""
    signature = types.void(out, o, ro, a, ia, ra, sa, b, ib, sb, depth, scale, s, rows)
    n_rows = rows.literal_value

    def codegen(context, builder, signature, args):
        po, pa, pb, ps = (_pointer(context, builder, signature, args, i) for i in (0, 3, 7, 11))
        function = _subtract_products_function(builder.module, n_rows)
        builder.call(function, [po, args[2], pa, args[5], args[6], pb, args[9], args[10], ps])
        return context.get_dummy_value()

    return signature, codegen


def _subtract_products_function(module, n_rows):
    """The LLVM function: sums stay in registers."""
    pointer = _DOUBLE.as_pointer()
    arguments = [pointer, _INDEX, pointer, _INDEX, _INDEX, pointer, _INDEX, _INDEX, pointer]
    function, is_new = new_function(module, f"fastem_subtract_products_{n_rows}", arguments)
    if not is_new:
        return function
    po, ro, pa, ra, sa, pb, sb, depth, ps = function.args
    entry, loop, after = (function.append_basic_block(name) for name in ("entry", "loop", "after"))
    builder = ir.IRBuilder(entry)
    places = [vector_at(builder, po, builder.mul(ro, _INDEX(r)), _VECTOR) for r in range(n_rows)]
    first = [builder.load(place, align=8) for place in places]
    builder.cbranch(builder.icmp_signed(">", depth, _INDEX(0)), loop, after)
    builder.position_at_end(loop)
    step = builder.phi(_INDEX)
    sums = [builder.phi(_VECTOR) for _ in range(n_rows)]
    fma = fused(module, _VECTOR)
    common = builder.fneg(builder.load(vector_at(builder, pb, builder.mul(step, sb), _VECTOR), align=8))
    totals = []
    for r in range(n_rows):
        offset = builder.add(builder.mul(step, sa), builder.mul(ra, _INDEX(r)))
        own = builder.load(vector_at(builder, pa, offset, _VECTOR), align=8)
        totals.append(builder.call(fma, [own, common, sums[r]]))
    following = builder.add(step, _INDEX(1))
    builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)
    step.add_incoming(_INDEX(0), entry)
    step.add_incoming(following, loop)
    builder.position_at_end(after)
    results = [builder.phi(_VECTOR) for _ in range(n_rows)]
    for kept, start, new in zip(sums + results, first * 2, totals * 2, strict=True):
        kept.add_incoming(start, entry)
        kept.add_incoming(new, loop)
    scale = builder.load(vector_at(builder, ps, _INDEX(0), _VECTOR), align=8)
    for place, result in zip(places, results, strict=True):
        builder.store(builder.fmul(result, scale), place, align=8)
    builder.ret_void()
    return function


def _subtract_products_plain(out, o, ro, a, ia, ra, sa, b, ib, sb, depth, scale, s, rows):
    """The same as loops."""
    for r in range(rows):
        for c in range(LANES):
            total = out[o + r * ro + c]
            for step in range(depth):
                total -= a[ia + r * ra + step * sa + c] * b[ib + step * sb + c]
            out[o + r * ro + c] = total * scale[s + c]


_subtract_products = helper(_subtract_products_plain) if PLAIN else _subtract_products_vector


@kernel
def subtract_products(out, o, ro, a, ia, ra, sa, b, ib, sb, depth, scale, s, n):
    """out[r] = (out[r] - sum over l < depth of a[r, l] b[l]) scale for r < n; offsets and strides count numbers."""
    r = 0
    while r + _ROWS <= n:
        _subtract_products(out, o + r * ro, ro, a, ia + r * ra, ra, sa, b, ib, sb, depth, scale, s, _ROWS)
        r += _ROWS
    while r < n:
        _subtract_products(out, o + r * ro, ro, a, ia + r * ra, ra, sa, b, ib, sb, depth, scale, s, 1)
        r += 1


@kernel
def _gather(matrices, which, columns, first_row, n_rows, first_column, n_columns, out):
    """out (n_rows, n_columns) = entries of some matrices (K, D, D), `which` (8,), in rows and columns[:, first:]."""
    for c in range(LANES):
        k = which[c]
        for i in range(n_rows):
            row = columns[c, first_row + i]
            for j in range(n_columns):
                out[LANES * (i * n_columns + j) + c] = matrices[k, row, columns[c, first_column + j]]


@kernel
def _factor(a, n, signs, inverse, pivots, logs):
    """Lower triangles of a (n, n) = Cholesky factors, inverse (n,) that of their diagonals, logs (8,) the sums of logs.

    NaN where there is no factor.
    """
    row = LANES * n
    for j in range(n):
        here = j * row + LANES * j
        subtract_products(a, here, row, a, j * row, row, LANES, a, j * row, LANES, j, signs, 0, 1)
        for c in range(LANES):
            pivots[LANES * j + c] = a[here + c]
            a[here + c] = np.sqrt(a[here + c])
            inverse[LANES * j + c] = 1.0 / a[here + c]
        below = here + row
        subtract_products(
            a, below, row, a, (j + 1) * row, row, LANES, a, j * row, LANES, j, inverse, LANES * j, n - 1 - j
        )
    for p in range(row):
        pivots[p] = log(pivots[p])
    for c in range(LANES):
        logs[c] = 0.0
    for p in range(0, row, LANES):
        for c in range(LANES):
            logs[c] += 0.5 * pivots[p + c]


@from_python
@kernel
def regress(precision, covariance, log_roots, which, columns, n_seen, slopes, spread, logs, scratch):
    """slopes (m, o) = B, spread (m, m) = C and logs (8,) = log|C| / 2 of what is missing given what is seen.

    which (8,) are components, columns (8, D) those seen, then those missing. log_roots (K,) are log|precision| / 2,
    scratch is that of `scratch_of`. The cheaper of the two ways is taken.
    """
    table, other, inverse, pivots, signs = scratch
    o, m = n_seen, columns.shape[1] - n_seen
    seen_row, row = LANES * o, LANES * m
    if m <= o:
        _gather(precision, which, columns, o, m, o, m, table)
        _factor(table, m, signs, inverse, pivots, logs)
        for i in range(m):  # other = the inverse of the factor
            for p in range(i * row, (i + 1) * row):
                other[p] = 0.0
            subtract_products(
                other, i * row, LANES, other, 0, LANES, row, table, i * row, LANES, i, inverse, LANES * i, i
            )
            for c in range(LANES):
                other[i * row + LANES * i + c] = inverse[LANES * i + c]
        for p in range(m * row):
            spread[p] = 0.0
        for i in range(m):
            last = i * row + LANES * i
            subtract_products(
                spread, i * row, LANES, other, i * row, LANES, row, other, last, row, m - i, signs, LANES, i + 1
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
    _factor(table, o, signs, inverse, pivots, logs)
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
    """What `regress` needs: room for two matrices and two diagonals, then eight times 1 and eight times -1."""
    size = LANES * n_features
    signs = np.ones(2 * LANES)
    signs[LANES:] = -1.0
    return np.empty(size * n_features), np.empty(size * n_features), np.empty(size), np.empty(size), signs
