"""Blocks of rows as columns, and the sufficient statistics of each row: row 0 is the constant 1, then x, then squares.

A feature map is an integer code, switched outside the inner loops.
"""

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from fastem.kernels._jit import PLAIN, VECTOR_BYTES, helper, kernel, rule, widest_vectors
from fastem.kernels._vectors import carried, filled, folded, new_function, scalar_of, vector_at

LINEAR = 0  # 1, x
DIAGONAL = 1  # 1, x, x**2
SPHERICAL = 2  # 1, x, |x|**2
FULL = 3  # 1, x, x_i x_j for j <= i, row by row of the lower triangle

_AT_ONCE = 3  # vectors in a turn: blocks have a multiple of 48 rows


@intrinsic
def _multiply_vectors(typingctx, out, p, columns, i, j):
    """out[p] = columns[i] * columns[j], of a multiple of 48 numbers."""
    if any(array.layout != "C" or array.dtype != out.dtype for array in (out, columns)):
        raise TypingError(f"features need C-ordered arrays of one dtype, got {out}, {columns}")
    signature = types.void(out, p, columns, i, j)

    def codegen(context, builder, signature, args):
        out, columns = (make_array(signature.args[i])(context, builder, args[i]) for i in (0, 2))
        width = builder.extract_value(columns.shape, 1)
        places = [(out, args[1]), (columns, args[3]), (columns, args[4])]
        rows = [builder.gep(array.data, [builder.mul(row, width)]) for array, row in places]
        builder.call(_multiply_function(builder.module, signature.args[0].dtype.bitwidth), [*rows, width])
        return context.get_dummy_value()

    return signature, codegen


def _multiply_function(module, bits):
    """The LLVM function of one row, once a module and never inlined: it asks no questions of overlap."""
    pointer, index = scalar_of(bits).as_pointer(), ir.IntType(64)
    function, is_new = new_function(module, f"fastem_multiply_f{bits}", [pointer, pointer, pointer, index])
    if not is_new:
        return function
    out, a, b, width = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    vector = ir.VectorType(scalar_of(bits), 8 * VECTOR_BYTES // bits)
    group = index(_AT_ONCE * vector.count)
    with cgutils.for_range_slice(builder, index(0), width, group, intp=index) as (start, _):
        for v in range(_AT_ONCE):
            place = builder.add(start, index(v * vector.count))
            factors = [builder.load(vector_at(builder, row, place, vector), align=bits // 8) for row in (a, b)]
            builder.store(builder.fmul(*factors), vector_at(builder, out, place, vector), align=bits // 8)
    builder.ret_void()
    return function


def _multiply_plain(out, p, columns, i, j):
    """The same in a loop."""
    for b in range(columns.shape[1]):
        out[p, b] = columns[i, b] * columns[j, b]


_multiply = helper(_multiply_plain) if PLAIN else _multiply_vectors


@intrinsic
def _weigh_vectors(typingctx, source, d, mass, weighted):
    """weighted[d] = source[d] * mass, of a multiple of 48 numbers, whose sum in their dtype is returned."""
    if any(array.layout != "C" or array.dtype != source.dtype for array in (source, mass, weighted)):
        raise TypingError(f"weights need C-ordered arrays of one dtype, got {source}, {mass}, {weighted}")
    signature = types.float64(source, d, mass, weighted)

    def codegen(context, builder, signature, args):
        source, mass, weighted = (make_array(signature.args[i])(context, builder, args[i]) for i in (0, 2, 3))
        width = builder.extract_value(source.shape, 1)
        offset = builder.mul(args[1], width)
        rows = [builder.gep(array.data, [offset]) for array in (weighted, source)]
        function = _weigh_function(builder.module, signature.args[0].dtype.bitwidth)
        return builder.call(function, [*rows, mass.data, width])

    return signature, codegen


def _weigh_function(module, bits):
    """The LLVM function, whose sums stay in registers."""
    scalar, index = scalar_of(bits), ir.IntType(64)
    arguments = [*[scalar.as_pointer()] * 3, index]
    function, is_new = new_function(module, f"fastem_weigh_f{bits}", arguments, ir.DoubleType())
    if not is_new:
        return function
    out, source, mass, width = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    vector = ir.VectorType(scalar, 8 * VECTOR_BYTES // bits)

    def take(turn, sums):
        start, new = builder.mul(turn, group), []
        for v, total in enumerate(sums):
            place = builder.add(start, index(v * vector.count))
            pair = [builder.load(vector_at(builder, row, place, vector), align=bits // 8) for row in (source, mass)]
            value = builder.fmul(*pair)
            builder.store(value, vector_at(builder, out, place, vector), align=bits // 8)
            new.append(builder.fadd(total, value))
        return new

    group = index(_AT_ONCE * vector.count)
    sums = carried(builder, builder.udiv(width, group), [filled(vector, 0.0)] * _AT_ONCE, take)
    total = folded(builder, builder.fadd, sums)
    builder.ret(total if bits == 64 else builder.fpext(total, ir.DoubleType()))
    return function


def _weigh_plain(source, d, mass, weighted):
    """The same in a loop."""
    total = mass[0] * 0
    for b in range(source.shape[1]):
        weighted[d, b] = source[d, b] * mass[b]
        total += weighted[d, b]
    return np.float64(total)


weigh = helper(_weigh_plain) if PLAIN else _weigh_vectors


@rule
def n_statistics(feature_map, n_features):
    """Number of rows of the feature map."""
    if feature_map == LINEAR:
        return 1 + n_features
    if feature_map == DIAGONAL:
        return 1 + 2 * n_features
    if feature_map == SPHERICAL:
        return 2 + n_features
    return 1 + n_features + n_features * (n_features + 1) // 2


@kernel
def build_features(feature_map, columns, first, last, phi, in_place):
    """phi (last - first, B) = rows first..last-1 of the feature map of a block held as columns (D, B).

    in_place: phi is whole, and the columns are its rows 1..D.
    """
    widest_vectors()
    n_features, width = columns.shape
    i, j = 0, 0
    if feature_map == FULL and first > 1 + n_features:
        skipped = first - 1 - n_features
        while skipped > i:
            skipped -= i + 1
            i += 1
        j = skipped
    for p in range(first, last):  # no views in this loop: each would count references, in memory
        if p == 0:
            for b in range(width):
                phi[p - first, b] = 1.0
        elif p <= n_features:
            for b in range(0 if in_place else width):
                phi[p - first, b] = columns[p - 1, b]
        elif feature_map == FULL:
            _multiply(phi, p - first, columns, i, j)
            j += 1
            if j > i:
                i, j = i + 1, 0
        elif feature_map == DIAGONAL:
            _multiply(phi, p - first, columns, p - 1 - n_features, p - 1 - n_features)
        else:
            squared_norm(columns, phi[p - first])


@kernel
def squared_norm(columns, out):
    """out (B,) = squared Euclidean norm of each column of (D, B)."""
    widest_vectors()
    n_features, width = columns.shape
    for b in range(width):
        out[b] = 0.0
    for d in range(n_features):
        for b in range(width):
            out[b] += columns[d, b] * columns[d, b]
