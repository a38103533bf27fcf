"""Forward-backward recursions of a Markov chain over rows whose emissions are given, scaled and in logarithms.

With the likelihoods b of a row in units of its largest, alpha what is known of a state from the rows so far, and c the
likelihood of a row given those before (Rabiner 1989, Proc. IEEE 77, 257-286, section V.A):

    x_t = b_t (alpha_{t-1} A),  c_t = sum x_t,  alpha_t = x_t / c_t
    beta_t = A y_{t+1},  y_t = b_t beta_t / c_t,  gamma_t = alpha_t beta_t,  xi_t = alpha_{t-1} A y_t

So a step in either direction is one product of a vector with a matrix and one with b: no exponentials. It takes as long
as its operations take one after the other, so up to 4 vectors of states stay in registers from step to step (13 ns a
step at 8 states, on a processor where a loop through memory takes 20).

Arrays have `padded_states` columns, of which the last are 0, and alpha one row more than there are rows: alpha[t + 1]
belongs to row t. `begins` (n + 1,) uint8 marks the rows that begin a sequence, also the one beyond the last.
"""

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from fastem.kernels._jit import PLAIN, VECTOR_BYTES, kernel, piece, rule
from fastem.kernels._vectors import broadcast, folded, fused, new_function, vector_at
from fastem.kernels.exp_log import exp, log

_LANES = VECTOR_BYTES // 8
_CHAINS = 4  # sums of products that are in flight at once: one after the other, each waits for the last
_SMALLEST = 1e-300  # of c, so that its reciprocal is finite
_SAFE = 1e-100  # transitions that are all as probable let no state matter that is lost to underflow
_LOST, _LONE = 1e-200, 1e-80  # else, of alpha and of c: below, states are dropped, or logarithms taken
_SCALE, _UNDERFLOW = 1e200, 1e-300  # of what is lost: its unit, and what stands for less than any number
_NEGLIGIBLE = 1e-20  # part of the likelihood that may be lost
_LOWEST = float(np.finfo(np.float64).min)


@rule
def padded_states(n_states):
    """Columns for so many states: half a vector, or whole ones."""
    if _LANES >= 4 and n_states <= _LANES // 2:
        return _LANES // 2
    return -(-n_states // _LANES) * _LANES


def _constants(n_vectors, n_lanes):
    """Types of index, scalar and vector, and the number of states."""
    return ir.IntType(64), ir.DoubleType(), ir.VectorType(ir.DoubleType(), n_lanes), n_vectors * n_lanes


def _register_product(builder, x, matrix, width):
    """Vectors of x (width,) times the matrix (width, width), with x in registers."""
    vector, n_vectors = x[0].type, len(x)
    n_lanes, fma = vector.count, fused(builder.module, vector)
    n_chains = max(1, _CHAINS // n_vectors)
    chains = [[None] * n_vectors for _ in range(n_chains)]
    for d in range(width):
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), n_lanes), [d % n_lanes] * n_lanes)
        element = builder.shuffle_vector(x[d // n_lanes], x[d // n_lanes], lanes)
        for v in range(n_vectors):
            row = builder.load(vector_at(builder, matrix, ir.IntType(64)(d * width + v * n_lanes), vector), align=8)
            before = chains[d % n_chains][v]
            after = builder.fmul(element, row) if before is None else builder.call(fma, [element, row, before])
            chains[d % n_chains][v] = after
    while len(chains) > 1:
        half = len(chains) // 2
        chains = [[builder.fadd(a, b) for a, b in zip(chains[i], chains[i + half])] for i in range(half)]
    return chains[0]


def _recursion(module, name, n_pointers, shape, n_scales, body):
    """An LLVM function of some pointers and a number of steps that takes a vector in registers from step to step.

    body(builder, pointers, step, x, scales) returns the next vectors and the next scales, which are 1 at first.
    """
    n_vectors, n_lanes = shape
    index, scalar, vector, _ = _constants(*shape)
    arguments = [scalar.as_pointer()] * n_pointers + [index]
    function, is_new = new_function(module, f"fastem_{name}_{n_vectors}x{n_lanes}", arguments)
    if not is_new:
        return function
    for argument in function.args[:-1]:
        argument.add_attribute("noalias")
    *pointers, n_steps = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    first = [
        builder.load(vector_at(builder, pointers[0], index(v * n_lanes), vector), align=8) for v in range(n_vectors)
    ]
    first += [scalar(1.0)] * n_scales
    entry, loop, done = builder.block, function.append_basic_block("loop"), function.append_basic_block("done")
    builder.branch(loop)
    builder.position_at_end(loop)
    step = builder.phi(index)
    state = [builder.phi(value.type) for value in first]
    after = body(builder, pointers, step, state[:n_vectors], state[n_vectors:])
    following = builder.add(step, index(1))
    builder.cbranch(builder.icmp_signed("<", following, n_steps), loop, done)
    step.add_incoming(index(0), entry)
    step.add_incoming(following, loop)
    for old, start, new in zip(state, first, after):
        old.add_incoming(start, entry)
        old.add_incoming(new, loop)
    builder.position_at_end(done)
    builder.ret_void()
    return function


def _forward_body(n_vectors, n_lanes):
    """x_t in units of the sum S of two steps before, every other step: so no step waits for a sum and a division."""
    index, scalar, vector, width = _constants(n_vectors, n_lanes)
    one = scalar(1.0)

    def at_least(builder, value):
        return builder.select(builder.fcmp_ordered(">", value, scalar(_SMALLEST)), value, scalar(_SMALLEST))

    def body(builder, pointers, step, x, scales):
        _, matrix, likely, alpha, norm = pointers
        inverse, before, inverse_before, latest = scales  # 1 / S of the last step, S and 1 / S of the one before, S
        is_even = builder.icmp_signed("==", builder.and_(step, index(1)), index(0))
        factor = broadcast(builder, builder.select(is_even, inverse_before, one), n_lanes)
        offset = builder.mul(step, index(width))
        places = [builder.add(offset, index(v * n_lanes)) for v in range(n_vectors)]
        products = []
        for place, total in zip(places, _register_product(builder, x, matrix, width)):
            b = builder.load(vector_at(builder, likely, place, vector), align=8)
            products.append(builder.fmul(total, builder.fmul(b, factor)))
        total = at_least(builder, folded(builder, builder.fadd, products))
        new_inverse = builder.fdiv(one, total)
        shrink = broadcast(builder, new_inverse, n_lanes)
        for place, product in zip(places, products):
            builder.store(builder.fmul(product, shrink), vector_at(builder, alpha, place, vector), align=8)
        unscaled = builder.fmul(builder.fmul(total, inverse), builder.select(is_even, before, one))
        builder.store(at_least(builder, unscaled), builder.gep(norm, [step]), align=8)
        return [*products, new_inverse, latest, inverse, total]

    return body


def _backward_body(n_vectors, n_lanes):
    index, scalar, vector, width = _constants(n_vectors, n_lanes)

    def body(builder, pointers, step, x, scales):
        _, matrix, likely, alpha, gamma, norm = pointers
        row = builder.sub(index(0), step)
        offset = builder.mul(row, index(width))
        inverse = builder.fdiv(scalar(1.0), builder.load(builder.gep(norm, [row]), align=8))
        factor = broadcast(builder, inverse, n_lanes)
        after = []
        for v, beta in enumerate(_register_product(builder, x, matrix, width)):
            place = builder.add(offset, index(v * n_lanes))
            pointer = vector_at(builder, likely, place, vector)
            after.append(builder.fmul(beta, builder.fmul(builder.load(pointer, align=8), factor)))
            builder.store(after[-1], pointer, align=8)
            known = builder.load(vector_at(builder, alpha, place, vector), align=8)
            builder.store(builder.fmul(beta, known), vector_at(builder, gamma, place, vector), align=8)
        return after

    return body


@intrinsic(prefer_literal=True)
def _forward_vector(typingctx, alpha, matrix, likely, norm, t, n_steps, vectors, parts):
    """`_forward_plain` of so many vectors of states."""
    signature = types.void(alpha, matrix, likely, norm, t, n_steps, vectors, parts)
    shape = vectors.literal_value, _LANES // parts.literal_value

    def codegen(context, builder, signature, args):
        alpha, matrix, likely, norm = (make_array(signature.args[k])(context, builder, args[k]).data for k in range(4))
        t, n_steps = args[4:6]
        width = ir.IntType(64)(shape[0] * shape[1])
        function = _recursion(builder.module, "forward", 5, shape, 4, _forward_body(*shape))
        row = builder.mul(t, width)
        pointers = [
            builder.gep(alpha, [row]),
            matrix,
            builder.gep(likely, [row]),
            builder.gep(alpha, [builder.add(row, width)]),
            builder.gep(norm, [t]),
        ]
        builder.call(function, [*pointers, n_steps])
        return context.get_dummy_value()

    return signature, codegen


@intrinsic(prefer_literal=True)
def _backward_vector(typingctx, turned, likely, alpha, gamma, norm, t, g, n_steps, vectors, parts):
    """`_backward_plain` of so many vectors of states."""
    signature = types.void(turned, likely, alpha, gamma, norm, t, g, n_steps, vectors, parts)
    shape = vectors.literal_value, _LANES // parts.literal_value

    def codegen(context, builder, signature, args):
        turned, likely, alpha, gamma, norm = (
            make_array(signature.args[k])(context, builder, args[k]).data for k in range(5)
        )
        t, g, n_steps = args[5:8]
        width = ir.IntType(64)(shape[0] * shape[1])
        function = _recursion(builder.module, "backward", 6, shape, 0, _backward_body(*shape))
        row = builder.mul(t, width)
        above = builder.add(row, width)
        pointers = [
            builder.gep(likely, [above]),
            turned,
            builder.gep(likely, [row]),
            builder.gep(alpha, [above]),
            builder.gep(gamma, [builder.mul(g, width)]),
            builder.gep(norm, [t]),
        ]
        builder.call(function, [*pointers, n_steps])
        return context.get_dummy_value()

    return signature, codegen


@kernel
def _forward_plain(alpha, matrix, likely, norm, t, n_steps, vectors, parts):
    """alpha[t + 1] and norm[t] from alpha[t], and so on for n_steps; as loops."""
    n_states = matrix.shape[0]
    for row in range(t, t + n_steps):
        now = alpha[row + 1]
        for k in range(n_states):
            now[k] = 0.0
        for j in range(n_states):
            for k in range(n_states):
                now[k] += alpha[row, j] * matrix[j, k]
        total = 0.0
        for k in range(n_states):
            now[k] *= likely[row, k]
            total += now[k]
        norm[row] = max(total, _SMALLEST)
        inverse = 1.0 / norm[row]
        for k in range(n_states):
            now[k] *= inverse


@kernel
def _backward_plain(turned, likely, alpha, gamma, norm, t, g, n_steps, vectors, parts):
    """likely[t] -> y and gamma[g] of that row from y in likely[t + 1], and so on down for n_steps; as loops."""
    n_states = turned.shape[0]
    for step in range(n_steps):
        row, beta = t - step, gamma[g - step]
        for k in range(n_states):
            beta[k] = 0.0
        for j in range(n_states):
            for k in range(n_states):
                beta[k] += likely[row + 1, j] * turned[j, k]
        inverse = 1.0 / norm[row]
        for k in range(n_states):
            likely[row, k] *= beta[k] * inverse
            beta[k] *= alpha[row + 1, k]


_forward_run, _backward_run = (_forward_plain, _backward_plain) if PLAIN else (_forward_vector, _backward_vector)


@piece
def _follow(alpha, matrix, likely, norm, t, n_steps):
    """`_forward_plain`, with the states in registers if these can hold them."""
    width = matrix.shape[0]
    if width < _LANES:
        _forward_run(alpha, matrix, likely, norm, t, n_steps, 1, 2)
    elif width == _LANES:
        _forward_run(alpha, matrix, likely, norm, t, n_steps, 1, 1)
    elif width == 2 * _LANES:
        _forward_run(alpha, matrix, likely, norm, t, n_steps, 2, 1)
    elif width == 3 * _LANES:
        _forward_run(alpha, matrix, likely, norm, t, n_steps, 3, 1)
    elif width == 4 * _LANES:
        _forward_run(alpha, matrix, likely, norm, t, n_steps, 4, 1)
    else:
        _forward_plain(alpha, matrix, likely, norm, t, n_steps, 0, 0)


@piece
def _return(turned, likely, alpha, gamma, norm, t, g, n_steps):
    """`_backward_plain`, with the states in registers if these can hold them."""
    width = turned.shape[0]
    if width < _LANES:
        _backward_run(turned, likely, alpha, gamma, norm, t, g, n_steps, 1, 2)
    elif width == _LANES:
        _backward_run(turned, likely, alpha, gamma, norm, t, g, n_steps, 1, 1)
    elif width == 2 * _LANES:
        _backward_run(turned, likely, alpha, gamma, norm, t, g, n_steps, 2, 1)
    elif width == 3 * _LANES:
        _backward_run(turned, likely, alpha, gamma, norm, t, g, n_steps, 3, 1)
    elif width == 4 * _LANES:
        _backward_run(turned, likely, alpha, gamma, norm, t, g, n_steps, 4, 1)
    else:
        _backward_plain(turned, likely, alpha, gamma, norm, t, g, n_steps, 0, 0)


@kernel
def forward(start, matrix, likely, begins, first, last, alpha, norm):
    """alpha (n + 1, K) and norm (n,) = c of rows first..last-1, from alpha[first] if these do not begin a sequence.

    start (K,), matrix (K, K) are the probabilities of the chain; likely (n, K) the likelihoods b.
    """
    t = first
    while t < last:
        end = t + 1
        while end < last and not begins[end]:
            end += 1
        if begins[t]:
            total = 0.0
            for k in range(start.shape[0]):
                total += start[k] * likely[t, k]
            norm[t] = max(total, _SMALLEST)
            inverse = 1.0 / norm[t]
            for k in range(start.shape[0]):
                alpha[t + 1, k] = start[k] * likely[t, k] * inverse
            t += 1
        if t < end:
            _follow(alpha, matrix, likely, norm, t, end - t)
        t = end


@kernel
def backward(turned, likely, begins, first, last, alpha, norm, gamma):
    """gamma[: last - first] of rows first..last-1, and likely -> y; turned (K, K) is the matrix, transposed.

    likely[last] is y of the row beyond, unless that begins a sequence.
    """
    t = last - 1
    while t >= first:
        if begins[t + 1]:
            inverse = 1.0 / norm[t]
            for k in range(turned.shape[0]):
                likely[t, k] *= inverse
                gamma[t - first, k] = alpha[t + 1, k]
            t -= 1
        end = t
        while end >= first and not begins[end + 1]:
            end -= 1
        if end < t:
            _return(turned, likely, alpha, gamma, norm, t, t - first, t - end)
        t = end


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
    """Whether underflow may have cost something in rows first..last-1, so that the recursion needs logarithms.

    States below _LOST are dropped, in alpha and in likely, so that no beta overflows. lost[0] (K,) bounds the
    probability of all paths that have been dropped and now are in each state, in units of 1 / _SCALE and of that of
    those kept; it follows the chain as alpha does. Where it is negligible beside what is kept of the same state it is
    0 again, since both have the same future. reach[0] (K,) uint8 says which states the rows can have led to at all.
    Both are those after the rows before; written, with their second rows for scratch.
    """
    n_states = reach.shape[1]
    is_clean = False  # nothing is lost, and all states are within reach
    for t in range(first, last):
        if norm[t] < _LONE:
            return True
        if safe:
            continue
        n_low = 0
        for k in range(n_states):
            n_low += alpha[t + 1, k] < _LOST
        if is_clean and n_low == 0:
            continue
        if begins[t]:
            for k in range(n_states):
                lost[0, k] = 0.0
        else:
            _carry_lost(matrix, likely[t], norm[t], lost)
        if n_low == 0:  # so they all are within reach
            for k in range(n_states):
                reach[0, k] = 1
        else:
            _extend_reach(start, matrix, likely[t], begins[t], reach)
        total = 0.0
        for k in range(n_states):
            if alpha[t + 1, k] < _LOST:
                if reach[0, k]:
                    lost[0, k] += max(alpha[t + 1, k], _UNDERFLOW) * _SCALE
                alpha[t + 1, k] = likely[t, k] = 0.0
            elif lost[0, k] <= alpha[t + 1, k] * (_NEGLIGIBLE * _SCALE):
                lost[0, k] = 0.0
            total += lost[0, k]
        if total > _NEGLIGIBLE * _SCALE:
            return True
        is_clean = n_low == 0 and total == 0.0
    return False


@kernel
def _carry_lost(matrix, likely, norm, lost):
    """lost[0] -> what it leads to in the next row; never to 0 by underflow."""
    n_states = lost.shape[1]
    total = 0.0
    for k in range(n_states):
        total += lost[0, k]
        lost[1, k] = lost[0, k]
    if total == 0.0:
        return
    inverse = 1.0 / norm
    for k in range(n_states):
        lost[0, k] = 0.0
    for j in range(n_states):
        if lost[1, j] > 0.0:
            for k in range(n_states):
                lost[0, k] += max(lost[1, j] * matrix[j, k], _UNDERFLOW if matrix[j, k] > 0.0 else 0.0)
    for k in range(n_states):
        if lost[0, k] > 0.0 and likely[k] > 0.0:
            lost[0, k] = max(lost[0, k] * likely[k] * inverse, _UNDERFLOW)
        else:
            lost[0, k] = 0.0


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
    for k in range(n_states):
        reach[1, k] = reach[0, k]
    for k in range(n_states):
        reach[0, k] = False
        for j in range(n_states):
            if reach[1, j] and matrix[j, k] > 0.0 and likely[k] > 0.0:
                reach[0, k] = True


@kernel
def forward_log(start, matrix, likely, begins, first, last, alpha, norm):
    """The same as `forward`, with logarithms of everything; returns whether it met a row that is impossible."""
    n_states = start.shape[0]
    best, total = np.empty(n_states), np.empty(n_states)
    for t in range(first, last):
        if begins[t]:
            for k in range(n_states):
                alpha[t + 1, k] = start[k] + likely[t, k]
        else:
            _log_product(alpha[t], matrix, best, total, alpha[t + 1])
            for k in range(n_states):
                alpha[t + 1, k] += likely[t, k]
        highest, sum_of_all = -np.inf, 0.0
        for k in range(n_states):
            highest = max(highest, alpha[t + 1, k])
        if highest == -np.inf:
            return True
        for k in range(n_states):
            sum_of_all += exp(alpha[t + 1, k] - highest)
        norm[t] = highest + log(sum_of_all)
        for k in range(n_states):
            alpha[t + 1, k] -= norm[t]
    return False


@kernel
def backward_log(matrix, likely, begins, first, last, alpha, norm, weight, beta, gamma, pairs):
    """The same as `backward`, with logarithms of all but gamma; adds weight (n,) times xi to pairs (K, K) at once.

    beta (K,) is that of the last row, if no sequence ends with it; written.
    """
    n_states = matrix.shape[0]
    turned = np.empty((n_states, n_states))
    for j in range(n_states):
        for k in range(n_states):
            turned[k, j] = matrix[j, k]
    y, best, total = np.empty(n_states), np.empty(n_states), np.empty(n_states)
    for t in range(last - 1, first - 1, -1):
        for k in range(n_states):
            if begins[t + 1]:
                beta[k] = 0.0
            gamma[t - first, k] = exp(min(alpha[t + 1, k] + beta[k], 0.0))
            y[k] = likely[t, k] + beta[k] - norm[t]
        if begins[t]:
            continue
        if weight[t - first] > 0.0:
            for j in range(n_states):
                for k in range(n_states):
                    pairs[j, k] += weight[t - first] * exp(min(alpha[t, j] + matrix[j, k] + y[k], 0.0))
        _log_product(y, turned, best, total, beta)


@kernel
def _log_product(x, matrix, best, total, out):
    """out[k] = log(sum over j of exp(x[j] + matrix[j, k])), column by column at once; best and total are scratch."""
    n_states = matrix.shape[0]
    for k in range(n_states):
        best[k] = _LOWEST
        total[k] = 0.0
    for j in range(n_states):
        for k in range(n_states):
            best[k] = max(best[k], x[j] + matrix[j, k])
    for j in range(n_states):
        for k in range(n_states):
            total[k] += exp(x[j] + matrix[j, k] - best[k])
    for k in range(n_states):
        out[k] = best[k] + log(total[k]) if total[k] > 0.0 else -np.inf
