"""The fused pass for rows of codes: scores by look-up in a table, statistics by adding to its rows.

A code stands for what one column, or some together, hold: a row of codes is what one-hot features would be, at one
addition for each code in the place of one multiply-add for each feature. At 100 000 rows of 20 columns with 4 values,
5 states, a pass took 2.5 ms (the columns in groups of 3); 7.5 ms with a code for each column, 9.0 ms with one-hot
features built in cache, 14.6 ms with them in memory.
"""

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from fastem.kernels._arrays import aligned_empty
from fastem.kernels._calls import address
from fastem.kernels._jit import PLAIN, VECTOR_BYTES, helper, kernel, piece
from fastem.kernels._vectors import new_function, vector_at
from fastem.kernels.exponentials import softmax
from fastem.kernels.layout import clear, turn
from fastem.kernels.log_likelihood import count_rows
from fastem.kernels.posteriors import SOFTMAX, first_maximum, log_normalizer, row_maximum
from fastem.kernels.pruning import NOTHING
from fastem.kernels.sweep import (
    LABEL,
    LOG_DENSITY,
    POSTERIOR,
    SCORE,
    States,
    _n_lanes,
    block_rows,
    padded,
    run_lanes,
    take_lanes,
    take_rows,
    take_weights,
)

_TABLE = -1  # in the place of a feature map
_AT_ONCE = 4  # rows whose sums are under way: one alone would wait for each addition
_LANES = VECTOR_BYTES // 8


def _on_rows(name):
    """Intrinsic for all rows of a block and the states of one vector, over parts of its width."""

    @intrinsic(prefer_literal=True)
    def rows(typingctx, codes, first, n_rows, a, b, column, parts):
        signature = types.void(codes, first, n_rows, a, b, column, parts)
        n = VECTOR_BYTES // parts.literal_value // 8

        def codegen(context, builder, signature, args):
            codes, a, b = (make_array(signature.args[i])(context, builder, args[i]) for i in (0, 3, 4))
            n_codes = builder.extract_value(codes.shape, 1)
            arguments = [builder.gep(codes.data, [builder.mul(args[1], n_codes)]), n_codes, args[2]]
            for array in (a, b):
                arguments += [builder.gep(array.data, [args[5]]), builder.extract_value(array.shape, 1)]
            builder.call(_FUNCTIONS[name](builder.module, n), arguments)
            return context.get_dummy_value()

        return signature, codegen

    return rows


class _Loops:
    """An LLVM function of codes (rows, n_codes) and two matrices, with the loops over both."""

    def __init__(self, module, name, n):
        self.index, double = ir.IntType(64), ir.DoubleType()
        self.vector = ir.VectorType(double, n)
        code, matrix = ir.IntType(32).as_pointer(), [double.as_pointer(), self.index]
        arguments = [code, self.index, self.index, *matrix, *matrix]
        self.function, self.is_new = new_function(module, f"fastem_{name}_{n}", arguments)
        if self.is_new:
            self.codes, self.n_codes, self.n_rows = self.function.args[:3]
            self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))

    def at(self, matrix, row):
        """Pointer to the vector in a row of matrix 0 or 1."""
        pointer, leading = self.function.args[3 + 2 * matrix : 5 + 2 * matrix]
        return vector_at(self.builder, pointer, self.builder.mul(row, leading), self.vector)

    def load(self, pointer):
        return self.builder.load(pointer, align=8)

    def code(self, row, number):
        place = self.builder.add(self.builder.mul(row, self.n_codes), number)
        return self.builder.zext(self.builder.load(self.builder.gep(self.codes, [place])), self.index)

    def loop(self, start, stop, step, body, values=()):
        """for i in range(start, stop, step): values = body(i, values), without the last steps that do not fit."""
        builder, before = self.builder, self.builder.block
        head, inside, after = (self.function.append_basic_block(name) for name in ("head", "inside", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        i = builder.phi(self.index)
        carried = [builder.phi(value.type) for value in values]
        following = builder.add(i, self.index(step))
        builder.cbranch(builder.icmp_signed("<=", following, stop), inside, after)
        builder.position_at_end(inside)
        results = body(i, carried)
        for phi, first, later in zip([i, *carried], [start, *values], [following, *results], strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(later, builder.block)
        builder.branch(head)
        builder.position_at_end(after)
        return i, carried


def _look_up_function(module, n):
    """b[row] = a[0] + the sum of a[code] over the codes of the row."""
    loops = _Loops(module, "look_up", n)
    if not loops.is_new:
        return loops.function
    builder, zero = loops.builder, loops.index(0)
    constant = loops.load(loops.at(0, zero))

    def some(height):
        def body(row, _):
            rows = [builder.add(row, loops.index(i)) for i in range(height)]

            def add(g, sums):
                return [builder.fadd(s, loops.load(loops.at(0, loops.code(r, g)))) for r, s in zip(rows, sums)]

            _, sums = loops.loop(zero, loops.n_codes, 1, add, height * [constant])
            for r, total in zip(rows, sums):
                builder.store(total, loops.at(1, r), align=8)
            return []

        return body

    row, _ = loops.loop(zero, loops.n_rows, _AT_ONCE, some(_AT_ONCE))
    loops.loop(row, loops.n_rows, 1, some(1))
    builder.ret_void()
    return loops.function


def _scatter_function(module, n):
    """a[code] += b[row] for each code of each row."""
    loops = _Loops(module, "scatter", n)
    if not loops.is_new:
        return loops.function
    builder, zero = loops.builder, loops.index(0)

    def body(row, _):
        resp = loops.load(loops.at(1, row))

        def add(g, _):
            place = loops.at(0, loops.code(row, g))
            builder.store(builder.fadd(loops.load(place), resp), place, align=8)
            return []

        loops.loop(zero, loops.n_codes, 1, add)
        return []

    loops.loop(zero, loops.n_rows, 1, body)
    builder.ret_void()
    return loops.function


_FUNCTIONS = {"look_up": _look_up_function, "scatter": _scatter_function}


def _look_up_plain(codes, first, n_rows, table, out, column, parts):
    """The same as loops: the oracle of the tests, and what bounds checks and the interpreter run."""
    for b in range(n_rows):
        for k in range(column, column + VECTOR_BYTES // parts // 8):
            total = table[0, k]
            for g in range(codes.shape[1]):
                total += table[codes[first + b, g], k]
            out[b, k] = total


def _scatter_plain(codes, first, n_rows, sums, resp, column, parts):
    """The same as loops."""
    for b in range(n_rows):
        for g in range(codes.shape[1]):
            for k in range(column, column + VECTOR_BYTES // parts // 8):
                sums[codes[first + b, g], k] += resp[b, k]


_look_up = helper(_look_up_plain) if PLAIN else _on_rows("look_up")
_scatter = helper(_scatter_plain) if PLAIN else _on_rows("scatter")


@piece
def table_of(theta, n_padded):
    """theta (K, M) as a table (M, n_padded), 0 beyond the states."""
    table = aligned_empty(theta.shape[1], n_padded, theta)
    clear(table)
    turn(theta, theta.shape[0], theta.shape[1], table)
    return table


@piece
def look_up_all(codes, first, n_rows, table, by_row):
    """by_row[:n_rows] (B, padded K) = scores of the rows of a block."""
    column = 0
    while table.shape[1] - column >= _LANES:
        _look_up(codes, first, n_rows, table, by_row, column, 1)
        column += _LANES
    if column < table.shape[1]:
        _look_up(codes, first, n_rows, table, by_row, column, 2)


@piece
def scatter_all(codes, first, n_rows, by_row, sums):
    """sums[code] += by_row[:n_rows] (B, padded K) for each code of each row."""
    column = 0
    while sums.shape[1] - column >= _LANES:
        _scatter(codes, first, n_rows, sums, by_row, column, 1)
        column += _LANES
    if column < sums.shape[1]:
        _scatter(codes, first, n_rows, sums, by_row, column, 2)


@kernel
def _table_lane(products, codes, weight, frame, states, posterior, skip, first_row, last_row, sums, totals):
    theta = states[1]
    n_states, n_stats = theta.shape
    width = block_rows(codes.shape[0], codes.shape[1], n_states, n_stats, theta.itemsize)
    n_padded = sums.shape[1]
    table = table_of(theta, n_padded)
    by_row = aligned_empty(width, n_padded, theta)
    clear(by_row)
    scores = aligned_empty(n_states, width, theta)
    best = np.empty(width)
    total = np.empty(width)
    row_log = np.empty(width)
    mass = np.empty(width)
    rows = np.empty(width, np.int64)
    no_columns = np.empty((0, width))
    for first in range(first_row, last_row, width):
        n_rows = min(width, last_row - first)
        for b in range(width):
            rows[b] = first + b
        take_weights(posterior, weight, rows, n_rows, mass, no_columns)
        look_up_all(codes, first, n_rows, table, by_row)
        turn(by_row, width, n_states, scores)
        softmax(scores, n_states, mass, best, total)
        count_rows(mass, best, total, row_log, totals)
        for k in range(n_states):
            count = 0.0
            for b in range(width):
                count += scores[k, b]
            sums[0, k] += count
        turn(scores, n_states, width, by_row)
        scatter_all(codes, first, n_rows, by_row, sums)


def table_statistics(codes, weight, theta, n_threads):
    """Expected statistics of rows of codes, one pass; see `sweep.statistics`.

    Parameters
    ----------
    codes : (N, G) uint32, C-ordered, from 1 to M: columns of theta; each row must hold different ones
    weight : (N, 1), or (0, 1) for weights of one; float64
    theta : (K, 1 + M) float64: the score of a row is theta[:, 0] plus theta[:, code] for each of its codes
    n_threads : int

    Returns
    -------
    sums : (K, 1 + M) float64: weight of each state, in all and with each code
    log_likelihood : float
    """
    n_states, n_stats = theta.shape
    n_columns = int(padded(n_states, theta.itemsize))
    n_lanes = _n_lanes(len(codes), n_columns, n_stats, codes.shape[1], theta)
    sums = np.empty((n_lanes, n_stats, n_columns))
    totals = np.empty((n_lanes, 1, 3))
    arguments = ((0, 0), codes, weight, _NO_FRAME, tuple(by_table(theta)), SOFTMAX, tuple(NOTHING))
    assert all(a.flags.c_contiguous for a in (codes, weight, theta))
    lane = address(_table_lane, (*arguments, 0, 0, sums[0], totals[0, 0]))
    work = len(codes) * n_columns * (2 * codes.shape[1] + 8)
    run_lanes(take_lanes, (lane, *arguments, sums, totals), work, n_lanes, n_threads)
    return np.ascontiguousarray(sums[0][:, :n_states].T), float(totals[0, 0, 0])


@kernel
def _table_score_lane(products, codes, frame, states, wanted, first_row, last_row, log_prob, labels, resp):
    theta = states[1]
    n_states, n_stats = theta.shape
    width = block_rows(codes.shape[0], codes.shape[1], n_states, n_stats, theta.itemsize)
    table = table_of(theta, padded(n_states, theta.itemsize))
    by_row = aligned_empty(width, table.shape[1], theta)
    clear(by_row)
    scores = aligned_empty(n_states, width, theta)
    best = np.empty(width)
    total = np.empty(width)
    mass = np.ones(width)
    for first in range(first_row, last_row, width):
        n_rows = min(width, last_row - first)
        look_up_all(codes, first, n_rows, table, by_row)
        if wanted == SCORE:
            for b in range(n_rows):
                for k in range(n_states):
                    resp[first + b, k] = by_row[b, k]
            continue
        turn(by_row, width, n_states, scores)
        if wanted == LABEL:
            row_maximum(scores, n_states, best)
            first_maximum(scores, n_states, best, total)
            for b in range(n_rows):
                labels[first + b] = np.int64(total[b])
            continue
        softmax(scores, n_states, mass, best, total)
        if wanted == LOG_DENSITY:
            log_normalizer(best, total, best)
            for b in range(n_rows):
                log_prob[first + b] = best[b]
            continue
        turn(scores, n_states, n_rows, resp[first : first + n_rows])


def table_score(codes, theta, n_threads, wanted=LOG_DENSITY):
    """Log-normaliser (N,), best state (N,) int64, responsibilities or scores (N, K) of rows of codes; see `score`."""
    n_rows, n_states = len(codes), len(theta)
    log_prob = np.empty(n_rows if wanted == LOG_DENSITY else 0)
    labels = np.empty(n_rows if wanted == LABEL else 0, np.int64)
    resp = np.empty((n_rows if wanted in (POSTERIOR, SCORE) else 0, n_states))
    arguments = (0, codes, _NO_FRAME, tuple(by_table(theta)), wanted)
    assert all(a.flags.c_contiguous for a in (codes, theta))
    lane = address(_table_score_lane, (*arguments, 0, 0, log_prob, labels, resp))
    arguments = (lane, *arguments, log_prob, labels, resp)
    work = n_rows * n_states * (codes.shape[1] + 8)
    run_lanes(take_rows, arguments, work, n_rows, n_threads)
    return {LOG_DENSITY: log_prob, LABEL: labels}.get(wanted, resp)


_NO_FRAME = np.zeros((2, 0))


def by_table(theta):
    """States whose scores are looked up in theta (K, 1 + M)."""
    return States(_TABLE, theta, 0, np.empty((0, 2, 0)), np.empty(0))
