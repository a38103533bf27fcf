"""Forward-backward recursions of a Markov chain over rows whose emissions are given, scaled and in logarithms.

With the likelihoods b of a row in units of its largest, alpha what is known of a state from the rows so far, and c the
likelihood of a row given those before (Rabiner 1989, Proc. IEEE 77, 257-286, section V.A):

    x_t = b_t (alpha_{t-1} A),  c_t = sum x_t,  alpha_t = x_t / c_t
    beta_t = A y_{t+1},  y_t = b_t beta_t / c_t,  gamma_t = alpha_t beta_t,  xi_t = alpha_{t-1} A y_t

So a step in either direction is one product of a vector with a matrix and one with b: no exponentials. Arrays have
`padded_states` columns, of which the last are 0, and alpha one row more than there are rows: alpha[t + 1] belongs to
row t. `begins` (n + 1,) uint8 marks the rows that begin a sequence, also the one beyond the last.
"""

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from fastem.kernels._jit import PLAIN, VECTOR_BYTES, helper, kernel, piece
from fastem.kernels._vectors import broadcast, fused, vector_at

_LANES = VECTOR_BYTES // 8
_CHAINS = 4  # sums of products that are in flight at once: one after the other, each waits for the last
_SMALLEST = 1e-300  # of c, so that its reciprocal is finite
_SAFE = 1e-100  # transitions that are all as probable let no state matter that is lost to underflow
_LOST, _LONE = 1e-200, 1e-80  # else, of alpha and of c: below, states are dropped, or logarithms taken
_NEGLIGIBLE = 1e-20  # part of the likelihood that may be lost


@kernel
def padded_states(n_states):
    """Columns for so many states: half a vector, or whole ones."""
    if _LANES >= 4 and n_states <= _LANES // 2:
        return _LANES // 2
    return -(-n_states // _LANES) * _LANES


def _product(builder, source, matrix, leading, depth, n_lanes, n_vectors):
    """Vectors [j] = sum over d < depth of source[d] matrix[d, j]; depth is a multiple of the chains."""
    scalar, index = ir.DoubleType(), ir.IntType(64)
    vector = ir.VectorType(scalar, n_lanes)
    n_chains = max(1, min(_CHAINS // n_vectors, n_lanes))
    before = builder.block
    loop, after = builder.append_basic_block("loop"), builder.append_basic_block("after")
    builder.branch(loop)
    builder.position_at_end(loop)
    step = builder.phi(index)
    sums = [[builder.phi(vector) for _ in range(n_vectors)] for _ in range(n_chains)]
    fma = fused(builder.module, vector)
    totals = []
    for c in range(n_chains):
        place = builder.add(step, index(c))
        element = broadcast(builder, builder.load(builder.gep(source, [place])), n_lanes)
        row = builder.mul(place, leading)
        vectors = [vector_at(builder, matrix, builder.add(row, index(j * n_lanes)), vector) for j in range(n_vectors)]
        loaded = [builder.load(pointer, align=8) for pointer in vectors]
        totals.append([builder.call(fma, [element, loaded[j], sums[c][j]]) for j in range(n_vectors)])
    following = builder.add(step, index(n_chains))
    builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)
    step.add_incoming(index(0), before)
    step.add_incoming(following, loop)
    for old_chain, new_chain in zip(sums, totals):
        for old, new in zip(old_chain, new_chain):
            old.add_incoming(ir.Constant(vector, None), before)
            old.add_incoming(new, loop)
    builder.position_at_end(after)
    while len(totals) > 1:
        half = len(totals) // 2
        totals = [[builder.fadd(a, b) for a, b in zip(totals[i], totals[i + half])] for i in range(half)]
    return totals[0]


def _total(builder, vectors):
    """Sum of all entries, by halves."""
    total = vectors[0]
    for vector in vectors[1:]:
        total = builder.fadd(total, vector)
    n = total.type.count
    while n > 1:
        n //= 2
        halves = [[first + i for i in range(n)] for first in (0, n)]
        low, high = (
            builder.shuffle_vector(total, total, ir.Constant(ir.VectorType(ir.IntType(32), n), half)) for half in halves
        )
        total = builder.fadd(low, high)
    return builder.extract_element(total, ir.IntType(32)(0))


@intrinsic(prefer_literal=True)
def _forward_vector(typingctx, source, i, matrix, column, like, j, scale, out, o, vectors, parts):
    """out[o:] = scale * like[j:] * (source[i:] matrix) for some columns, from flat offsets; returns its sum."""
    signature = types.float64(source, i, matrix, column, like, j, scale, out, o, vectors, parts)
    n_vectors, n_lanes = vectors.literal_value, _LANES // parts.literal_value

    def codegen(context, builder, signature, args):
        source, matrix, like, out = (make_array(signature.args[k])(context, builder, args[k]) for k in (0, 2, 4, 7))
        i, column, j, scale, o = (args[k] for k in (1, 3, 5, 6, 8))
        depth, leading = (builder.extract_value(matrix.shape, k) for k in (0, 1))
        vector = ir.VectorType(ir.DoubleType(), n_lanes)
        factor = broadcast(builder, scale, n_lanes)
        factors = []
        for v in range(n_vectors):
            offset = builder.add(builder.add(j, column), ir.IntType(64)(v * n_lanes))
            likely = builder.load(vector_at(builder, like.data, offset, vector), align=8)
            factors.append(builder.fmul(likely, factor))
        start = builder.gep(matrix.data, [column])
        sums = _product(builder, builder.gep(source.data, [i]), start, leading, depth, n_lanes, n_vectors)
        products = [builder.fmul(a, b) for a, b in zip(sums, factors)]
        for v, product in enumerate(products):
            offset = builder.add(builder.add(o, column), ir.IntType(64)(v * n_lanes))
            builder.store(product, vector_at(builder, out.data, offset, vector), align=8)
        return _total(builder, products)

    return signature, codegen


def _forward_plain(source, i, matrix, column, like, j, scale, out, o, vectors, parts):
    """The same step as loops."""
    source, like, out = source.reshape(-1), like.reshape(-1), out.reshape(-1)
    sums = 0.0
    for k in range(column, column + vectors * _LANES // parts):
        total = 0.0
        for d in range(matrix.shape[0]):
            total += source[i + d] * matrix[d, k]
        out[o + k] = total * like[j + k] * scale
        sums += out[o + k]
    return sums


@intrinsic(prefer_literal=True)
def _backward_vector(typingctx, like, i, matrix, column, j, scale, alpha, a, gamma, g, vectors, parts):
    """gamma[g:] = alpha[a:] beta, like[j:] *= scale * beta, with beta = like[i:] matrix; some columns, flat offsets."""
    signature = types.void(like, i, matrix, column, j, scale, alpha, a, gamma, g, vectors, parts)
    n_vectors, n_lanes = vectors.literal_value, _LANES // parts.literal_value

    def codegen(context, builder, signature, args):
        like, matrix, alpha, gamma = (make_array(signature.args[k])(context, builder, args[k]) for k in (0, 2, 6, 8))
        i, column, j, scale, a, g = (args[k] for k in (1, 3, 4, 5, 7, 9))
        depth, leading = (builder.extract_value(matrix.shape, k) for k in (0, 1))
        vector = ir.VectorType(ir.DoubleType(), n_lanes)
        factor = broadcast(builder, scale, n_lanes)
        start = builder.gep(matrix.data, [column])
        betas = _product(builder, builder.gep(like.data, [i]), start, leading, depth, n_lanes, n_vectors)
        for v, beta in enumerate(betas):
            place = builder.add(column, ir.IntType(64)(v * n_lanes))
            pointer = vector_at(builder, like.data, builder.add(j, place), vector)
            scaled = builder.fmul(builder.load(pointer, align=8), factor)
            builder.store(builder.fmul(beta, scaled), pointer, align=8)
            known = builder.load(vector_at(builder, alpha.data, builder.add(a, place), vector), align=8)
            builder.store(
                builder.fmul(beta, known), vector_at(builder, gamma.data, builder.add(g, place), vector), align=8
            )
        return context.get_dummy_value()

    return signature, codegen


def _backward_plain(like, i, matrix, column, j, scale, alpha, a, gamma, g, vectors, parts):
    """The same step as loops."""
    like, alpha, gamma = like.reshape(-1), alpha.reshape(-1), gamma.reshape(-1)
    for k in range(column, column + vectors * _LANES // parts):
        beta = 0.0
        for d in range(matrix.shape[0]):
            beta += like[i + d] * matrix[d, k]
        gamma[g + k] = beta * alpha[a + k]
        like[j + k] *= beta * scale


_forward_step = helper(_forward_plain) if PLAIN else _forward_vector
_backward_step = helper(_backward_plain) if PLAIN else _backward_vector


@piece
def _go_forward(alpha, t, matrix, likely, scale):
    """alpha[t + 1] = scale * likely[t] * (alpha[t] matrix); returns its sum."""
    width = matrix.shape[1]
    i, j, o = t * width, t * width, (t + 1) * width
    if width < _LANES:
        return _forward_step(alpha, i, matrix, 0, likely, j, scale, alpha, o, 1, 2)
    if width == _LANES:
        return _forward_step(alpha, i, matrix, 0, likely, j, scale, alpha, o, 1, 1)
    total, column = 0.0, 0
    while width - column >= 4 * _LANES:
        total += _forward_step(alpha, i, matrix, column, likely, j, scale, alpha, o, 4, 1)
        column += 4 * _LANES
    if width - column >= 2 * _LANES:
        total += _forward_step(alpha, i, matrix, column, likely, j, scale, alpha, o, 2, 1)
        column += 2 * _LANES
    if width > column:
        total += _forward_step(alpha, i, matrix, column, likely, j, scale, alpha, o, 1, 1)
    return total


@piece
def _go_backward(likely, t, turned, scale, alpha, gamma, g):
    """gamma[g] = alpha[t + 1] beta, likely[t] *= scale * beta, with beta = likely[t + 1] turned."""
    width = turned.shape[1]
    i, j, a, g = (t + 1) * width, t * width, (t + 1) * width, g * width
    if width < _LANES:
        _backward_step(likely, i, turned, 0, j, scale, alpha, a, gamma, g, 1, 2)
        return
    if width == _LANES:
        _backward_step(likely, i, turned, 0, j, scale, alpha, a, gamma, g, 1, 1)
        return
    column = 0
    while width - column >= 4 * _LANES:
        _backward_step(likely, i, turned, column, j, scale, alpha, a, gamma, g, 4, 1)
        column += 4 * _LANES
    if width - column >= 2 * _LANES:
        _backward_step(likely, i, turned, column, j, scale, alpha, a, gamma, g, 2, 1)
        column += 2 * _LANES
    if width > column:
        _backward_step(likely, i, turned, column, j, scale, alpha, a, gamma, g, 1, 1)


@kernel
def forward(start, matrix, likely, begins, first, last, alpha, norm):
    """alpha (n + 1, K) and norm (n,) = c of rows first..last-1, from alpha[first] if these do not begin a sequence.

    start (K,), matrix (K, K) are the probabilities of the chain; likely (n, K) the likelihoods b.
    """
    width = start.shape[0]
    inverse = 1.0
    for t in range(first, last):
        if begins[t]:
            total = 0.0
            for k in range(width):
                alpha[t + 1, k] = start[k] * likely[t, k]
                total += alpha[t + 1, k]
        else:
            total = _go_forward(alpha, t, matrix, likely, inverse)
        norm[t] = max(total, _SMALLEST)
        inverse = 1.0 / norm[t]
    for t in range(first, last):
        inverse = 1.0 / norm[t]
        for k in range(width):
            alpha[t + 1, k] *= inverse


@kernel
def backward(turned, likely, begins, first, last, alpha, norm, gamma):
    """gamma[: last - first] of rows first..last-1, and likely -> y; turned (K, K) is the matrix, transposed.

    likely[last] is y of the row beyond, unless that begins a sequence.
    """
    width = turned.shape[0]
    for t in range(last - 1, first - 1, -1):
        inverse = 1.0 / norm[t]
        if begins[t + 1]:
            for k in range(width):
                likely[t, k] *= inverse
                gamma[t - first, k] = alpha[t + 1, k]
        else:
            _go_backward(likely, t, turned, inverse, alpha, gamma, t - first)


@kernel
def is_safe(matrix, n_states):
    """Whether no underflow can matter: every state is reached from every other with some probability.

    The rows that follow are then at most 1 / _SAFE times as likely from a state that is lost as from any other, so that
    what is lost is less than 1e-304 / _SAFE of the whole; and c is never below _SAFE, but at the start.
    """
    for i in range(n_states):
        for j in range(n_states):
            if matrix[i, j] < _SAFE:
                return False
    return True


@kernel
def traced(safe, start, matrix, likely, begins, first, last, alpha, norm, reach, lost):
    """Bound of what underflow can have cost of the rest of a sequence, as a part of it, after rows first..last-1.

    lost is that bound after the rows before, reach[0] (K,) uint8 which states these can have led to; written. Beyond
    _NEGLIGIBLE the recursion must be done in logarithms. What is lost has paths of at most the largest likelihood in
    the rows to come, while the likelihood of all others falls by c in each row; the bound is 0 again when every state
    is so probable that the lost part of it is negligible. States that are all but lost are dropped, in alpha and in
    likely, so that no beta overflows.
    """
    n_states = reach.shape[1]
    for t in range(first, last):
        if begins[t]:
            lost = 0.0
        if norm[t] < _LONE:
            return np.inf
        if safe:
            continue
        _extend_reach(start, matrix, likely[t], begins[t], reach)
        smallest, largest, drops = 1.0, 0.0, False
        for k in range(n_states):
            largest = max(largest, likely[t, k])
            if alpha[t + 1, k] < _LOST:
                drops = drops or reach[0, k] > 0
                alpha[t + 1, k] = likely[t, k] = 0.0
            else:
                smallest = min(smallest, alpha[t + 1, k])
        lost *= largest / norm[t]
        if drops:
            lost = max(lost, n_states * _LOST)
        elif smallest * _NEGLIGIBLE > lost:
            lost = 0.0
        if lost > _NEGLIGIBLE:
            return np.inf
    return lost


@kernel
def _extend_reach(start, matrix, likely, begins, reach):
    """reach[0] -> the states that one more row can lead to."""
    n_states = reach.shape[1]
    whole = True
    for k in range(n_states):
        if begins:
            reach[0, k] = start[k] > 0.0 and likely[k] > 0.0
        whole = whole and reach[0, k] > 0 and likely[k] > 0.0
    if begins or whole:
        return
    reach[1] = reach[0]
    for k in range(n_states):
        reach[0, k] = False
        for j in range(n_states):
            if reach[1, j] and matrix[j, k] > 0.0 and likely[k] > 0.0:
                reach[0, k] = True


@kernel
def forward_log(start, matrix, likely, begins, first, last, alpha, norm):
    """The same as `forward`, with logarithms of everything; returns whether it met a row that is impossible."""
    n_states = start.shape[0]
    scores = np.empty(n_states)
    for t in range(first, last):
        for k in range(n_states):
            score = start[k]
            if not begins[t]:
                for j in range(n_states):
                    scores[j] = alpha[t, j] + matrix[j, k]
                score = log_sum(scores)
            alpha[t + 1, k] = score + likely[t, k]
        norm[t] = log_sum(alpha[t + 1, :n_states])
        if norm[t] == -np.inf:
            return True
        for k in range(n_states):
            alpha[t + 1, k] -= norm[t]
    return False


@kernel
def backward_log(matrix, likely, begins, first, last, alpha, norm, weight, beta, gamma, pairs):
    """The same as `backward`, with logarithms of all but gamma; adds weight (n,) times xi to pairs (K, K) at once.

    beta (K,) is that of the last row, if no sequence ends with it; written.
    """
    n_states = matrix.shape[0]
    scores, y = np.empty(n_states), np.empty(n_states)
    for t in range(last - 1, first - 1, -1):
        for k in range(n_states):
            if begins[t + 1]:
                beta[k] = 0.0
            gamma[t - first, k] = np.exp(alpha[t + 1, k] + beta[k])
            y[k] = likely[t, k] + beta[k] - norm[t]
        if begins[t]:
            continue
        for j in range(n_states):
            for k in range(n_states):
                scores[k] = matrix[j, k] + y[k]
                if weight[t - first] > 0.0:
                    pairs[j, k] += weight[t - first] * np.exp(alpha[t, j] + scores[k])
            beta[j] = log_sum(scores)


@kernel
def log_sum(scores):
    """log(sum(exp(scores)))."""
    best = -np.inf
    for score in scores:
        best = max(best, score)
    if best == -np.inf:
        return best
    total = 0.0
    for score in scores:
        total += np.exp(score - best)
    return best + np.log(total)
