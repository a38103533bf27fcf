"""What is asked of the scores (K, B) of a block beside their softmax: the best, log-likelihoods, heavy tails."""

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.errors import TypingError
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from fastem.kernels._calls import address
from fastem.kernels._jit import PLAIN, VECTOR_BYTES, helper, kernel, widest_vectors
from fastem.kernels._vectors import broadcast, carried, filled, folded, new_function, scalar_of, vector_at
from fastem.kernels.exp_log import log, log1p
from fastem.kernels.exponentials import LOWEST_32, LOWEST_64

SOFTMAX = 0  # posterior of a mixture
HARD = 1  # all weight to the best state: k-means
GIVEN = 2  # responsibilities come with the data

# Tails of states whose score is no squared distance: none, so that scores are what they are. See `take_tails`.
NO_TAILS = np.empty((0, 4))

_AT_ONCE = 3  # minima of vectors that do not wait for each other


@kernel
def row_maximum(scores, n_states, best):
    """best (B,) = largest of scores[:n_states], the smallest number where all are -inf."""
    widest_vectors()
    width = scores.shape[1]
    lowest = best.dtype.type(LOWEST_64 if best.itemsize == 8 else LOWEST_32)
    for b in range(width):
        best[b] = max(scores[0, b], lowest)
    for k in range(1, n_states):
        for b in range(width):
            best[b] = max(best[b], scores[k, b])


@intrinsic
def _least_vectors(typingctx, values, others):
    """Smallest of values less others (B,), of a multiple of 48 numbers; NaN if one is."""
    if values.layout != "C" or others.layout != "C" or values.dtype != others.dtype:
        raise TypingError(f"differences need C-ordered arrays of one dtype, got {values}, {others}")
    signature = types.float64(values, others)

    def codegen(context, builder, signature, args):
        values, others = (make_array(signature.args[i])(context, builder, args[i]) for i in (0, 1))
        function = _least_function(builder.module, signature.args[0].dtype.bitwidth)
        return builder.call(function, [values.data, others.data, builder.extract_value(values.shape, 0)])

    return signature, codegen


def _least_function(module, bits):
    """The LLVM function: compilers make no vectors of a minimum over one array, as NaN would depend on the order."""
    scalar, index = scalar_of(bits), ir.IntType(64)
    pointer = scalar.as_pointer()
    function, is_new = new_function(module, f"fastem_least_f{bits}", [pointer, pointer, index], ir.DoubleType())
    if not is_new:
        return function
    values, others, width = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    vector = ir.VectorType(scalar, 8 * VECTOR_BYTES // bits)

    def smaller(a, b):
        is_first = builder.or_(builder.fcmp_ordered("<", a, b), builder.fcmp_unordered("uno", a, a))
        return builder.select(is_first, a, b)

    def take(turn, minima):
        start, new = builder.mul(turn, group), []
        for v, least in enumerate(minima):
            place = builder.add(start, index(v * vector.count))
            pair = [builder.load(vector_at(builder, row, place, vector), align=bits // 8) for row in (values, others)]
            new.append(smaller(builder.fsub(*pair), least))
        return new

    group = index(_AT_ONCE * vector.count)
    start = [filled(vector, np.inf)] * _AT_ONCE
    least = folded(builder, smaller, carried(builder, builder.udiv(width, group), start, take))
    builder.ret(least if bits == 64 else builder.fpext(least, ir.DoubleType()))
    return function


def _least_plain(values, others):
    """The same in a loop."""
    least = np.inf
    for b in range(values.shape[0]):
        value = np.float64(values[b] - others[b])
        least = value if value < least or np.isnan(value) else least
    return least


least_difference = helper(_least_plain) if PLAIN else _least_vectors


@kernel
def log_normalizer(best, total, out):
    """out (B,) float64 = best + log(total), -inf where no state can have produced the row."""
    widest_vectors()
    for b in range(out.shape[0]):
        value = best[b] + log(np.float64(total[b]))
        out[b] = value if total[b] > 0.0 else -np.inf


@intrinsic
def _first_vectors(typingctx, scores, n_states, best, label):
    """label (B,) = the first of scores[:n_states] that reaches best, their `row_maximum`; 0 where all are -inf.

    All are of the dtype of the scores; B is a multiple of 16.
    """
    if any(a.layout != "C" or a.dtype != scores.dtype for a in (scores, best, label)):
        raise TypingError(f"labels need C-ordered arrays of one dtype, got {scores}, {best}, {label}")
    signature = types.void(scores, types.intp, best, label)

    def codegen(context, builder, signature, args):
        scores, best, label = (make_array(signature.args[i])(context, builder, args[i]) for i in (0, 2, 3))
        function = _first_function(builder.module, signature.args[0].dtype.bitwidth)
        width = builder.extract_value(scores.shape, 1)
        builder.call(function, [scores.data, best.data, label.data, args[1], width])
        return context.get_dummy_value()

    return signature, codegen


def _first_function(module, bits):
    """The LLVM function: labels stay in a register, where a loop over rows reads and writes them for every state."""
    scalar, index = scalar_of(bits), ir.IntType(64)
    pointer = scalar.as_pointer()
    function, is_new = new_function(module, f"fastem_first_f{bits}", [pointer, pointer, pointer, index, index])
    if not is_new:
        return function
    scores, best, label, n_states, width = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    vector = ir.VectorType(scalar, 8 * VECTOR_BYTES // bits)

    def label_vector(turn, nothing):
        start = builder.mul(turn, index(vector.count))
        largest = builder.load(vector_at(builder, best, start, vector), align=bits // 8)

        def compare(step, labels):
            k = builder.sub(builder.sub(n_states, index(1)), step)
            place = builder.add(builder.mul(k, width), start)
            reached = builder.fcmp_ordered(
                "==", builder.load(vector_at(builder, scores, place, vector), align=bits // 8), largest
            )
            return [builder.select(reached, broadcast(builder, builder.sitofp(k, scalar), vector.count), labels[0])]

        (labels,) = carried(builder, n_states, [filled(vector, 0.0)], compare)
        builder.store(labels, vector_at(builder, label, start, vector), align=bits // 8)
        return nothing

    carried(builder, builder.udiv(width, index(vector.count)), [], label_vector)
    builder.ret_void()
    return function


def _first_plain(scores, n_states, best, label):
    """The same in loops."""
    for b in range(scores.shape[1]):
        label[b] = 0.0
        for k in range(n_states - 1, -1, -1):
            if scores[k, b] == best[b]:
                label[b] = k


first_maximum = helper(_first_plain) if PLAIN else _first_vectors


@kernel
def take_tails(scores, tails, precisions):
    """scores (K, B), minus half a squared distance d -> log-density of Student's t, with the tails of the states.

    tails (K, 4): degrees of freedom nu, columns D, score at distance 0, expected log-precision there. Rows k and K + k
    of precisions become the precision u = (nu + D) / (nu + d) and log(1 + d / nu), which its expected logarithm loses.
    """
    n_states = tails.shape[0]
    for k in range(n_states):
        degrees, n_features, peak = tails[k, 0], tails[k, 1], tails[k, 2]
        half, ratio, inverse = 0.5 * (degrees + n_features), (degrees + n_features) / degrees, 2.0 / degrees
        for b in range(scores.shape[1]):
            z = min(max(-np.float64(scores[k, b]) * inverse, 0.0), 1e300)  # features cancel to less than 0, or overflow
            logarithm = log1p(z)
            scores[k, b] = peak - half * logarithm
            precisions[k, b] = ratio / (1.0 + z)
            precisions[n_states + k, b] = logarithm


@kernel
def take_precisions(resp, tails, precisions, n_thin, sums):
    """resp (K, B) -> resp times the precisions of `take_tails`; adds to the last two rows of sums, as columns are.

    These are resp, and resp times the expected log-precision.
    """
    n_states, width = tails.shape[0], resp.shape[1]
    first, last = n_states - n_thin, sums.shape[0] - 1
    for k in range(n_states):
        total, logs, peak = 0.0, 0.0, tails[k, 3]
        for b in range(width):
            share = np.float64(resp[k, b])
            total += share
            logs += share * (peak - precisions[n_states + k, b])
        for b in range(width):
            resp[k, b] *= precisions[k, b]
        column = k if k < first else sums.shape[1] - n_states + k
        sums[last - 1, column] += total
        sums[last, column] += logs


def tail_addresses(tails, like, sums):
    """Addresses of both for scores of the dtype of `like`; nothing is compiled where there are no tails."""
    if len(tails) == 0:
        return 0, 0
    scores, types = np.empty((0, 0), like.dtype), (like.dtype, sums.dtype)
    return (
        address(take_tails, (scores, tails, sums), types),
        address(take_precisions, (scores, tails, sums, 0, sums), types),
    )
