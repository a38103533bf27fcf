"""From scores to posterior, a few rows of a block at a time: largest score, exp(score - best), their sum, shares of it.

With AVX-512 in explicit vectors, whose maxima and totals stay in registers, with a table for exp: x = (n + f) ln 2 / 16
with n an integer and |f| <= 1/2, so that exp(x) is 2^(n >> 4) times entry n & 15 of the table times a short polynomial
in f (Tang 1989, ACM TOMS 15, 144-157). Elsewhere in loops over `exp_log.exp`, whose polynomial is twice as long.
"""

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from fastem.kernels._calls import address
from fastem.kernels._jit import PLAIN, VECTOR_BYTES, for_each_number, helper, kernel
from fastem.kernels._vectors import (
    broadcast,
    carried,
    filled,
    first_lanes,
    fused,
    masked_load,
    masked_store,
    new_function,
    scalar_of,
    vector_at,
)
from fastem.kernels.exp_log import exp

_SIXTEENTHS = 23.083120654223414  # 16 / ln 2
_UNROLLED = 2  # vectors at once: the polynomial is a chain, and of more groups fewer overlap
LOWEST_32, LOWEST_64 = (float(np.finfo(dtype).min) for dtype in (np.float32, np.float64))
FEW = 8  # states, at most, whose scores stay in registers


class _Kind:
    """What one width of numbers takes."""

    def __init__(self, dtype, integer, fraction_bits, magic, smallest, coefficients):
        self.shift = (
            fraction_bits - 4
        )  # n << shift has n >> 4 at the exponent, and n & 15 below, which entries subtract
        entries = np.exp2(np.arange(16) / 16).astype(dtype).view(integer)
        self.table = [int(entry) - (j << self.shift) for j, entry in enumerate(entries)]
        self.magic, self.smallest = magic, smallest  # as in `exp_log`
        self.coefficients = [float(dtype(c)) for c in coefficients]  # minimax of 2^(f / 16), the highest first


# Relative errors of the polynomials are 7e-18 and 1.2e-9; what 16 / ln 2 and f are rounded by adds |x| eps / 2, which
# is nothing in a sum that holds exp(0).
_DOUBLE = _Kind(
    np.float64,
    np.int64,
    52,
    6755399441055744.0,
    -700.0,
    (
        9.181354192172116e-12,
        1.2716120543851127e-09,
        1.4676100321236697e-07,
        1.3550807776390032e-05,
        0.0009383847928089877,
        0.04332169878499668,
        1.0,
    ),
)
_SINGLE = _Kind(
    np.float32,
    np.int32,
    23,
    12582912.0,
    -70.0,
    (1.3551125679403628e-05, 0.000938421483561896, 0.043321698775062194, 1.0),
)


@intrinsic
def _softmax_vectors(typingctx, scores, n_states, mass, first, last, best, total):
    """`softmax_panel` by vectors, of which the last is masked."""
    signature = types.void(scores, n_states, mass, first, last, best, total)

    def codegen(context, builder, signature, args):
        (scores, mass, best, total), leading = _arrays(context, builder, signature, args, (0, 2, 5, 6))
        function = _softmax_function(builder.module, signature.args[0].dtype.bitwidth)
        builder.call(function, [scores, leading[0], args[1], mass, best, total, *args[3:5]])
        return context.get_dummy_value()

    return signature, codegen


def _arrays(context, builder, signature, args, places):
    """Data of arrays among the arguments, and the lengths of the rows of those that have two dimensions."""
    if any(signature.args[i].layout != "C" for i in places):
        raise TypingError(f"a softmax needs C-ordered arrays, got {[signature.args[i] for i in places]}")
    arrays = [make_array(signature.args[i])(context, builder, args[i]) for i in places]
    matrices = [array for i, array in zip(places, arrays, strict=True) if signature.args[i].ndim == 2]
    return [array.data for array in arrays], [builder.extract_value(array.shape, 1) for array in matrices]


def _softmax_function(module, bits):
    """The LLVM function of columns first to last of scores that lie in memory."""
    pointer, index = scalar_of(bits).as_pointer(), ir.IntType(64)
    arguments = [pointer, index, index, ir.DoubleType().as_pointer(), pointer, pointer, index, index]
    function, is_new = new_function(module, f"fastem_softmax_f{bits}", arguments)
    if not is_new:
        return function
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    scores, leading, n_states, mass, best, total, first, last = function.args
    _by_vectors(
        builder,
        bits,
        first,
        last,
        lambda rows: _softmax_at(builder, (scores, leading, n_states), rows, mass, best, total),
    )
    builder.ret_void()
    return function


def _by_vectors(builder, bits, first, last, emit):
    """Loop over rows first to last, some vectors at a time, then one by one, of which the last is masked."""
    index, n_lanes = ir.IntType(64), 512 // bits
    step, vector = index(_UNROLLED * n_lanes), index(n_lanes)
    end = builder.add(first, builder.mul(builder.sdiv(builder.sub(last, first), step), step))
    with cgutils.for_range_slice(builder, first, end, step, intp=index) as (start, _):
        emit(_Rows(builder, bits, start, _UNROLLED))
    with cgutils.for_range_slice(builder, end, last, vector, intp=index) as (start, _):
        emit(_Rows(builder, bits, start, 1, builder.sub(last, start)))


class _Rows:
    """Some vectors of rows of a block; of one, if only so many rows are left."""

    def __init__(self, builder, bits, start, n_vectors, n_left=None):
        self.builder, self.bits = builder, bits
        self.vector = ir.VectorType(scalar_of(bits), 512 // bits)
        self.mask = None if n_left is None else first_lanes(builder, n_left, self.vector.count)
        self.places = [builder.add(start, ir.IntType(64)(i * self.vector.count)) for i in range(n_vectors)]

    def load(self, pointer):
        """Vectors of an array that has a number for each row."""
        of = ir.VectorType(pointer.type.pointee, self.vector.count)
        places = [vector_at(self.builder, pointer, place, of) for place in self.places]
        if self.mask is not None:
            return [masked_load(self.builder, place, self.mask) for place in places]
        return [self.builder.load(place, align=8 if of != self.vector else self.bits // 8) for place in places]

    def store(self, values, pointer):
        for value, place in zip(values, self.places, strict=True):
            at = vector_at(self.builder, pointer, place, self.vector)
            if self.mask is None:
                self.builder.store(value, at, align=self.bits // 8)
            else:
                masked_store(self.builder, value, at, self.mask)

    def every(self, value):
        return [filled(self.vector, value) for _ in self.places]

    def lowest(self):
        return self.every(LOWEST_32 if self.bits == 32 else LOWEST_64)

    def larger(self, values, others):
        """The larger of each two numbers, the second if the first is NaN."""
        pairs = zip(values, others, strict=True)
        return [self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b) for a, b in pairs]

    def exponentials(self, scores, tops):
        differences = [self.builder.fsub(*pair) for pair in zip(scores, tops, strict=True)]
        return [_exponential(self.builder, self.bits, x) for x in differences]

    def factors(self, sums, mass):
        """mass over sums; 0 where these are 0, as no state can have produced the row."""
        builder, factors = self.builder, []
        for value, share in zip(sums, mass, strict=True):
            share = share if share.type == self.vector else builder.fptrunc(share, self.vector)
            is_possible = builder.fcmp_ordered(">", value, filled(self.vector, 0.0))  # then the best state alone adds 1
            divisor = builder.select(is_possible, value, filled(self.vector, 1.0))
            factors.append(builder.select(is_possible, builder.fdiv(share, divisor), filled(self.vector, 0.0)))
        return factors


def _added(builder, values, others):
    return [builder.fadd(*pair) for pair in zip(values, others, strict=True)]


def _multiplied(builder, values, others):
    return [builder.fmul(*pair) for pair in zip(values, others, strict=True)]


def _softmax_at(builder, of_scores, rows, mass, best, total):
    """Emit the softmax of some rows, state after state."""
    scores, leading, n_states = of_scores

    def row_of(k):
        return builder.gep(scores, [builder.mul(k, leading)])

    def add_exponentials(k, values):
        exponentials = rows.exponentials(rows.load(row_of(k)), tops)
        rows.store(exponentials, row_of(k))
        return _added(builder, values, exponentials)

    def share(k, factors):
        rows.store(_multiplied(builder, rows.load(row_of(k)), factors), row_of(k))
        return factors

    tops = carried(builder, n_states, rows.lowest(), lambda k, values: rows.larger(rows.load(row_of(k)), values))
    sums = carried(builder, n_states, rows.every(0.0), add_exponentials)
    rows.store(tops, best)
    rows.store(sums, total)
    carried(builder, n_states, rows.factors(sums, rows.load(mass)), share)


@intrinsic(prefer_literal=True)
def _few_vectors(typingctx, theta, phi, height, mass, first, last, scores, best, total):
    """Scores theta phi of as many states as height, and their softmax, in registers."""
    signature = types.void(theta, phi, height, mass, first, last, scores, best, total)
    n_states = height.literal_value

    def codegen(context, builder, signature, args):
        arrays, leading = _arrays(context, builder, signature, args, (0, 1, 3, 6, 7, 8))
        theta, phi, mass, *outputs = arrays
        function = _few_function(builder.module, signature.args[0].dtype.bitwidth, n_states)
        builder.call(function, [theta, leading[0], phi, leading[1], mass, *outputs, *args[4:6]])
        return context.get_dummy_value()

    return signature, codegen


def _few_function(module, bits, n_states):
    """The LLVM function of columns first to last of states by their features."""
    pointer, index = scalar_of(bits).as_pointer(), ir.IntType(64)
    wide = ir.DoubleType().as_pointer()
    arguments = [pointer, index, pointer, index, wide, pointer, pointer, pointer, index, index]
    function, is_new = new_function(module, f"fastem_few_{n_states}_f{bits}", arguments)
    if not is_new:
        return function
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    theta, n_stats, phi, width, mass, scores, best, total, first, last = function.args
    of_states, of_features = (theta, n_stats, n_states), (phi, width)
    _by_vectors(
        builder,
        bits,
        first,
        last,
        lambda rows: _few_at(builder, of_states, of_features, rows, mass, scores, best, total),
    )
    builder.ret_void()
    return function


def _few_at(builder, of_states, of_features, rows, mass, scores, best, total):
    """Emit scores and softmax of some rows; the first feature is 1."""
    theta, n_stats, n_states = of_states
    phi, width = of_features
    index, fma = ir.IntType(64), fused(builder.module, rows.vector)
    n_vectors = len(rows.places)

    def natural(k, p):
        place = builder.gep(theta, [builder.add(builder.mul(index(k), n_stats), p)])
        return broadcast(builder, builder.load(place), rows.vector.count)

    def add_feature(step, values):
        p = builder.add(step, index(1))
        features, sums = rows.load(builder.gep(phi, [builder.mul(p, width)])), []
        for k in range(n_states):
            factor = natural(k, p)
            mine = values[n_vectors * k : n_vectors * (k + 1)]
            sums += [builder.call(fma, [factor, *pair]) for pair in zip(features, mine, strict=True)]
        return sums

    constants = [natural(k, index(0)) for k in range(n_states) for _ in range(n_vectors)]
    values = carried(builder, builder.sub(n_stats, index(1)), constants, add_feature)
    of_states = [values[n_vectors * k : n_vectors * (k + 1)] for k in range(n_states)]
    tops = rows.lowest()
    for scores_of_state in of_states:
        tops = rows.larger(scores_of_state, tops)
    exponentials = [rows.exponentials(scores_of_state, tops) for scores_of_state in of_states]
    sums = exponentials[0]
    for other in exponentials[1:]:
        sums = _added(builder, sums, other)
    rows.store(tops, best)
    rows.store(sums, total)
    factors = rows.factors(sums, rows.load(mass))
    for k, values in enumerate(exponentials):
        rows.store(_multiplied(builder, values, factors), builder.gep(scores, [builder.mul(index(k), width)]))


def _exponential(builder, bits, x):
    """Emit exp of a vector of numbers that are not above 0; below the smallest it is 0."""
    kind = _DOUBLE if bits == 64 else _SINGLE
    vector, whole = x.type, ir.VectorType(ir.IntType(bits), x.type.count)
    fma, magic = fused(builder.module, vector), filled(vector, kind.magic)
    factor = filled(vector, float(np.float32(_SIXTEENTHS)) if bits == 32 else _SIXTEENTHS)
    is_inside = builder.fcmp_ordered(">=", x, filled(vector, kind.smallest))
    shifted = builder.call(fma, [x, factor, magic])
    f = builder.call(fma, [x, factor, builder.fsub(magic, shifted)])
    p = filled(vector, kind.coefficients[0])
    for coefficient in kind.coefficients[1:]:
        p = builder.call(fma, [p, f, filled(vector, coefficient)])
    n = builder.bitcast(shifted, whole)
    power = builder.add(_entries(builder, kind, n, vector), builder.shl(n, filled(whole, kind.shift)))
    value = builder.fmul(builder.bitcast(power, vector), p)
    return builder.select(is_inside, value, filled(vector, 0.0))


def _entries(builder, kind, n, vector):
    """Entries n & 15 of the table, as integers: one instruction, from one register or from two."""
    whole = n.type
    registers = [
        builder.bitcast(ir.Constant(whole, [ir.Constant(whole.element, entry) for entry in part]), vector)
        for part in (kind.table[: whole.count], kind.table[whole.count :])
        if part
    ]
    if len(registers) == 1:
        name, arguments = "llvm.x86.avx512.permvar.sf.512", [vector, whole]
    else:
        name, arguments = "llvm.x86.avx512.vpermi2var.pd.512", [vector, whole, vector]
    instruction = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, arguments), name)
    return builder.bitcast(builder.call(instruction, [registers[0], n, *registers[1:]]), whole)


def _softmax_plain(scores, n_states, mass, first, last, best, total):
    """The same in loops."""
    zero, lowest = total.dtype.type(0.0), best.dtype.type(LOWEST_64 if best.itemsize == 8 else LOWEST_32)
    for b in range(first, last):
        best[b] = lowest
        total[b] = zero
    for k in range(n_states):
        for b in range(first, last):
            best[b] = max(best[b], scores[k, b])
    for k in range(n_states):
        for b in range(first, last):
            e = exp(scores[k, b] - best[b])
            scores[k, b] = e
            total[b] += e
    factor = np.zeros_like(total)
    for b in range(first, last):
        factor[b] = mass[b] / total[b] if total[b] > zero else zero
    for k in range(n_states):
        for b in range(first, last):
            scores[k, b] *= factor[b]


_softmax = helper(_softmax_plain) if PLAIN or VECTOR_BYTES < 64 else _softmax_vectors


@kernel
def softmax(scores, n_states, mass, best, total):
    """scores[:n_states] (K, B) -> posterior of the states, times mass (B,).

    best becomes the largest score, the smallest number where all are -inf, and total the sum of exp(score - best): 0
    where no state can have produced the row, which has no posterior.
    """
    _softmax(scores, n_states, mass, 0, scores.shape[1], best, total)


@kernel
def softmax_panel(scores, n_states, mass, first, last, best, total):
    """The same for columns first to last."""
    _softmax(scores, n_states, mass, first, last, best, total)


def _few_plain(theta, phi, height, mass, first, last, scores, best, total):
    """The same in loops."""
    for k in range(height):
        for b in range(first, last):
            scores[k, b] = theta[k, 0]
        for p in range(1, theta.shape[1]):
            for b in range(first, last):
                scores[k, b] += theta[k, p] * phi[p, b]
    _softmax(scores, height, mass, first, last, best, total)


_few = helper(_few_plain) if PLAIN or VECTOR_BYTES < 64 else _few_vectors


@for_each_number
def _few_states(height):
    """Kernel for so many states."""

    def few_states(theta, phi, mass, first, last, scores, best, total):
        _few(theta, phi, height, mass, first, last, scores, best, total)

    return few_states


def few_address(theta):
    """Address of a kernel (theta, phi, mass, first, last, scores, best, total), 0 if the states are too many for it.

    It puts the `softmax` of the scores theta phi into scores, which never see memory before. The first feature is 1.
    """
    n_states = len(theta)
    if not 1 < n_states <= FEW or VECTOR_BYTES < 64:
        return 0
    rows, mass = np.empty(0, theta.dtype), np.empty(0)
    return address(_few_states(n_states), (theta, theta, mass, 0, 0, theta, rows, rows), theta.dtype)
