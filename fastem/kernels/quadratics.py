"""Scores of states whose statistics are all products of two columns, straight from the columns of a block.

c + sum_i x_i (l_i + sum_{j <= i} q_ij x_j) takes as many multiply-adds as the product of `natural parameters` and
features, but the columns of three vectors of rows stay in registers, where features are as many rows as there are
parameters: they leave the innermost cache and come back for each tile.
"""

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from fastem.kernels._calls import address
from fastem.kernels._jit import PLAIN, VECTOR_BYTES, for_each_number, helper, kernel
from fastem.kernels._vectors import broadcast, carried, fused, new_function, scalar_of, vector_at
from fastem.kernels.features import FULL, build_features
from fastem.kernels.inner_products import add_inner_products, begin_waiting
from fastem.kernels.layout import turn
from fastem.kernels.products import ROWS, product

_VECTORS = 3  # of rows at once
MOST_COLUMNS = 8  # three vectors of each, three sums, three scores and a parameter fill the registers


@intrinsic(prefer_literal=True)
def _scores_vectors(typingctx, theta, columns, height, first, last, scores):
    """Scores of columns first to last of as many columns as height, a multiple of three vectors."""
    if any(array.layout != "C" or array.dtype != theta.dtype for array in (theta, columns, scores)):
        raise TypingError(f"scores need C-ordered arrays of one dtype, got {theta}, {columns}, {scores}")
    signature = types.void(theta, columns, height, first, last, scores)

    def codegen(context, builder, signature, args):
        arrays = [make_array(signature.args[i])(context, builder, args[i]) for i in (0, 1, 5)]
        theta, columns, scores = arrays
        function = _scores_function(builder.module, signature.args[0].dtype.bitwidth, height.literal_value)
        n_states, width = builder.extract_value(theta.shape, 0), builder.extract_value(columns.shape, 1)
        builder.call(function, [theta.data, n_states, columns.data, scores.data, width, *args[3:5]])
        return context.get_dummy_value()

    return signature, codegen


def _scores_function(module, bits, n_features):
    """The LLVM function for so many columns, once a module and never inlined."""
    scalar, index = scalar_of(bits), ir.IntType(64)
    pointer = scalar.as_pointer()
    arguments = [pointer, index, pointer, pointer, index, index, index]
    function, is_new = new_function(module, f"fastem_quadratic_{n_features}_f{bits}", arguments)
    if not is_new:
        return function
    theta, n_states, columns, scores, width, first, last = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    vector = ir.VectorType(scalar, 8 * VECTOR_BYTES // bits)
    fma = fused(builder.module, vector)
    n_stats = 1 + n_features + n_features * (n_features + 1) // 2

    def places(array, row, start):
        at = builder.add(builder.mul(row, width), start)
        return [vector_at(builder, array, builder.add(at, index(v * vector.count)), vector) for v in range(_VECTORS)]

    def score(k, start, x):
        natural = builder.gep(theta, [builder.mul(k, index(n_stats))])
        p = iter(range(1 + n_features, n_stats))

        def parameter(i):
            return broadcast(builder, builder.load(builder.gep(natural, [index(i)])), vector.count)

        def add(factor, values, sums):
            return [builder.call(fma, [f, value, total]) for f, value, total in zip(factor, values, sums, strict=True)]

        totals = [parameter(0)] * _VECTORS
        for i in range(n_features):
            factors = [parameter(1 + i)] * _VECTORS
            for j in range(i + 1):
                factors = add([parameter(next(p))] * _VECTORS, x[j], factors)
            totals = add(factors, x[i], totals)
        for total, place in zip(totals, places(scores, k, start), strict=True):
            builder.store(total, place, align=bits // 8)
        return []

    step = index(_VECTORS * vector.count)
    with cgutils.for_range_slice(builder, first, last, step, intp=index) as (start, _):
        x = [[builder.load(at, align=bits // 8) for at in places(columns, index(i), start)] for i in range(n_features)]
        carried(builder, n_states, [], lambda k, _: score(k, start, x))
    builder.ret_void()
    return function


def _scores_plain(theta, columns, height, first, last, scores):
    """The same in loops."""
    for k in range(theta.shape[0]):
        for b in range(first, last):
            total, p = theta[k, 0], 1 + height
            for i in range(height):
                factor = theta[k, 1 + i]
                for j in range(i + 1):
                    factor += theta[k, p] * columns[j, b]
                    p += 1
                total += factor * columns[i, b]
            scores[k, b] = total


_scores = helper(_scores_plain) if PLAIN or VECTOR_BYTES < 64 else _scores_vectors


@for_each_number
def _quadratic_scores(height):
    """Kernel for so many columns."""

    def quadratic_scores(theta, columns, first, last, scores):
        _scores(theta, columns, height, first, last, scores)

    return quadratic_scores


@kernel
def add_quadratics(columns, resp, turned_resp, phi, inner, listed, sums):
    """Add the statistics of all states, with responsibilities resp (K, B), to sums (P, K) or to what waits for them.

    Features are made a few at a time, in phi (ROWS, B), so that they are still in the innermost cache when used.
    """
    n_stats, width, n_states = sums.shape[0], columns.shape[1], resp.shape[0]
    n_columns = turned_resp.shape[1]
    if inner.shape[0] > 0:
        for j in range(n_states):
            begin_waiting(inner, listed[j])
    else:
        turn(resp, n_states, width, turned_resp)
    for first in range(0, n_stats, ROWS):
        last = min(first + ROWS, n_stats)
        build_features(FULL, columns, first, last, phi, False)
        if inner.shape[0] > 0:
            add_inner_products(phi, last - first, resp, n_states, width, inner, first, listed)
        else:
            product(phi, 0, turned_resp, last - first, 0, n_columns, width, sums[first:last], False)


def quadratic_addresses(theta, sums, n_features):
    """Addresses of a kernel (theta, columns, first, last, scores) and of `add_quadratics`; 0 for too many columns.

    So it is for a tile of states: those have `few_address`, and for a single one nobody should wait for the compiler.
    The first puts the scores of rows first to last, whole groups of three vectors, into scores (K, B).
    """
    if not 1 < n_features <= MOST_COLUMNS or len(theta) <= ROWS or VECTOR_BYTES < 64:
        return 0, 0
    like, listed = np.empty((0, 0), theta.dtype), np.empty(0, np.int64)
    return (
        address(_quadratic_scores(n_features), (like, like, 0, 0, like), theta.dtype),
        address(add_quadratics, (like, like, like, like, sums, listed, sums), (theta.dtype, sums.dtype)),
    )
