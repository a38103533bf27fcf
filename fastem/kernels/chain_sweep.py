"""The fused pass over sequences: features -> scores -> forward-backward -> statistics, in lanes of whole sequences.

A lane takes its sequences in stretches: as many short ones as a block holds, or one long one. It goes up a stretch
block by block, scoring rows and following the chain, and down again with the backward recursion, adding statistics as
it goes; only the likelihoods of the states, and what is known of these from the rows before, are kept meanwhile. Of a
sequence too long even for that, pieces are kept one at a time: the first way up leaves what is known at the end of
each, the way down computes each again. A stretch in which underflow may matter is done again in logarithms.
"""

import numpy as np
from numba.core import types
from numba.extending import overload

from fastem.kernels._arrays import aligned_empty, free
from fastem.kernels._calls import address, address_array, call_at, take_number
from fastem.kernels._jit import kernel
from fastem.kernels.chain_plan import FLOOR, copy_row, mark, new_plan
from fastem.kernels.exp_log import exp, log
from fastem.kernels.forward_backward import (
    backward,
    backward_log,
    forward,
    forward_log,
    is_safe,
    traced,
)
from fastem.kernels.inner_products import add_waiting
from fastem.kernels.layout import clear, turn
from fastem.kernels.posteriors import GIVEN, SOFTMAX, row_maximum
from fastem.kernels.products import product_addresses
from fastem.kernels.pruning import NO_ORDER, place_rows
from fastem.kernels.sweep import (
    INNER_SUMS,
    LOAD,
    N_ADDRESSES,
    TAKE_PRECISIONS,
    TAKE_TAILS,
    States,
    accumulate_block,
    block_rows,
    join_lanes,
    lane_addresses,
    padded,
    run_lanes,
    score_states,
    take_weights,
    weight_unit,
    work_like,
    workspace,
)
from fastem.kernels.tables import look_up_all, scatter_all, table_of

# Places of addresses in what a lane calls, after those of `lane_addresses`, and of numbers in what a pass notes.
_PRODUCT, _BRING, _ADD, _UP, _DOWN = range(N_ADDRESSES, N_ADDRESSES + 5)
_BUILT, _LOST, _LOG_LIKELIHOOD, _NOTES = range(4)


@kernel
def _merge(scores, owner, top, total):
    """scores -> exp(scores - top), where top (K, B) is the largest of the state that owns them, total their sum."""
    n_states, width = top.shape
    for k in range(n_states):
        for b in range(width):
            top[k, b] = -np.inf
            total[k, b] = 0.0
    for j in range(scores.shape[0]):
        k = owner[j]
        for b in range(width):
            top[k, b] = max(top[k, b], np.float64(scores[j, b]))
    for j in range(scores.shape[0]):
        k = owner[j]
        for b in range(width):
            value = exp(np.float64(scores[j, b]) - top[k, b]) if top[k, b] > -np.inf else 0.0
            scores[j, b] = value
            total[k, b] += value


@kernel
def _emissions(scores, owner, mass, logs, top, total, fresh, best):
    """fresh (Kp, B) = likelihoods of the states in units of the largest, exp(best), or their logarithms.

    Rows without mass are missing: any state is as likely. scores (n_components, B) are overwritten where states own
    several.
    """
    n_states, width = top.shape
    if scores.shape[0] == n_states:
        for j in range(n_states):
            for b in range(width):
                fresh[owner[j], b] = scores[j, b]
    else:
        _merge(scores, owner, top, total)
        for k in range(n_states):
            for b in range(width):
                fresh[k, b] = top[k, b] + log(total[k, b]) if total[k, b] > 0.0 else -np.inf
    row_maximum(fresh, n_states, best)
    for k in range(n_states):
        for b in range(width):
            value = fresh[k, b] - best[b]
            if not logs:
                value = max(exp(value), FLOOR) if value > -np.inf else 0.0
            fresh[k, b] = value
    for b in range(width):
        if mass[b] == 0.0:
            best[b] = 0.0
            for k in range(n_states):
                fresh[k, b] = 0.0 if logs else 1.0


@kernel
def _weighted_log(norm, best, weight, logs):
    """Sum of weight * (log norm + best), for logs of norm or norms themselves; rows of weight 0 have no part in it."""
    total = 0.0
    for b in range(norm.shape[0]):
        value = norm[b] if logs else log(norm[b])
        total += weight[b] * (value + best[b])
    return total


@kernel
def _responsibilities(gamma, n_rows, mass, owner, turned_gamma, total, scores):
    """scores (n_components, B) -> responsibilities: gamma (n, Kp) of the state, shared as in scores / total."""
    width = scores.shape[1]
    n_states = total.shape[0]
    turn(gamma, n_rows, gamma.shape[1], turned_gamma)
    if scores.shape[0] == n_states:
        for j in range(n_states):
            for b in range(width):
                scores[j, b] = turned_gamma[owner[j], b]
        return
    for j in range(scores.shape[0]):
        k = owner[j]
        for b in range(width):
            scores[j, b] *= turned_gamma[k, b] / total[k, b] if total[k, b] > 0.0 else 0.0


@kernel
def _add_pairs(product, alpha, y, begins, weight, turned_alpha, pairs):
    """pairs (K, Kp) += sum over the rows of weight * alpha of the row before times y, where no sequence begins."""
    n_rows = y.shape[0]
    turn(alpha, n_rows, alpha.shape[1], turned_alpha)
    for k in range(pairs.shape[0]):
        for b in range(n_rows):
            turned_alpha[k, b] *= 0.0 if begins[b] else weight[b]
    call_at(product, (turned_alpha, 0, y, pairs.shape[0], 0, y.shape[1], n_rows, pairs, False))


@kernel
def _add_starts(gamma, begins, weight, starts):
    """starts (K,) += weight * gamma of the rows that begin a sequence."""
    for b in range(weight.shape[0]):
        if begins[b]:
            for k in range(starts.shape[0]):
                starts[k] += weight[b] * gamma[b, k]


@kernel
def _bring_rows(rows_of, desk, first, last, is_scored):
    """Bring the rows first..last-1 to the desk, with their scores if wanted; notes whether their features are there."""
    products, X, weight, frame, states = rows_of
    tiles, columns, work, scores, _, _, _, _, _, mass, _, rows, listed, precisions, note = desk
    place_rows(NO_ORDER, first, last, rows)
    call_at(products[LOAD], (X, frame, rows, last - first, tiles))
    take_weights(SOFTMAX, weight, rows, last - first, mass, columns)
    note[_BUILT] = 0.0
    if is_scored:
        built = score_states(states, listed, 0, listed.shape[0], False, products, columns, work, scores)
        if precisions.shape[0] > 0:
            call_at(products[TAKE_TAILS], (scores, states[5], precisions))
        note[_BUILT] = 1.0 if built else 0.0


@kernel
def _bring_codes(rows_of, desk, first, last, is_scored):
    """The same for rows of codes, which have no features."""
    _, codes, weight, _, _ = rows_of
    _, columns, work, scores, _, _, _, _, _, mass, _, rows, _, _, _ = desk
    table, by_row, _, _ = work
    place_rows(NO_ORDER, first, last, rows)
    take_weights(SOFTMAX, weight, rows, last - first, mass, columns)
    if is_scored:
        look_up_all(codes, first, last - first, table, by_row)
        turn(by_row, scores.shape[1], scores.shape[0], scores)


@kernel
def _add_rows(rows_of, desk, first, last, sums):
    """Add the statistics of the rows on the desk, whose responsibilities are its scores."""
    products, _, _, _, states = rows_of
    _, columns, work, scores, _, _, _, _, _, mass, _, _, listed, precisions, note = desk
    for j in range(scores.shape[0]):
        for b in range(mass.shape[0]):
            scores[j, b] *= mass[b]
    if precisions.shape[0] > 0:
        call_at(products[TAKE_PRECISIONS], (scores, states[5], precisions, states[2], sums))
    expected = sums[: states[1].shape[1]]
    built = note[_BUILT] > 0.0
    accumulate_block(states, listed, scores.shape[0], scores, built, products, columns, work, expected)


@kernel
def _add_codes(rows_of, desk, first, last, sums):
    """The same for rows of codes."""
    _, _, work, scores, _, _, _, _, _, mass, _, _, _, _, _ = desk
    _, by_row, _, _ = work
    for k in range(scores.shape[0]):
        count = 0.0
        for b in range(scores.shape[1]):
            scores[k, b] *= mass[b]
            count += scores[k, b]
        sums[0, k] += count
    turn(scores, scores.shape[0], scores.shape[1], by_row)
    scatter_all(rows_of[1], first, last - first, by_row, sums)


@kernel
def _rows_desk(products, X, states, width, sums):
    """What the desk has for rows: tiles, columns, and what `score_states` and `accumulate_block` work with."""
    return workspace(products, X, states, width, sums)


@kernel
def _codes_desk(products, X, states, width, sums):
    """What the desk has for codes: no columns, the table with room for the scores of each row, and nothing waiting."""
    none = np.empty((0, width))
    by_row = aligned_empty(width, sums.shape[1], sums)
    clear(by_row)
    return none, none, (table_of(states[1], sums.shape[1]), by_row, none, none)


def _desk_of(products, X, states, width, sums):
    return (_codes_desk if X.dtype == np.uint32 else _rows_desk)(products, X, states, width, sums)


@overload(_desk_of)
def _desk_overload(products, X, states, width, sums):
    function = _codes_desk if X.dtype == types.uint32 else _rows_desk
    return lambda products, X, states, width, sums: function(products, X, states, width, sums)


@kernel
def _ascend(rows_of, desk, trail, chain, logs, low, n_rows):
    """Follow the chain through the rows from `low` on, of which alpha[0] tells what was known before.

    Adds their weighted log-likelihood to what is noted. Notes whether something may be lost, so that logarithms are
    needed; or, of these, whether no state can have produced a row.
    """
    products = rows_of[0]
    start, matrix, _, log_start, log_matrix, owner = chain
    _, _, _, scores, fresh, _, top, total, _, mass, best, _, _, _, note = desk
    likely, alpha, norm, begins, row_weight, reach, lost, _ = trail
    safe, width = is_safe(matrix, top.shape[0]), fresh.shape[1]
    for first in range(0, n_rows, width):
        last = min(first + width, n_rows)
        call_at(products[_BRING], (rows_of, desk, low + first, low + last, True))
        _emissions(scores, owner, mass, logs, top, total, fresh, best)
        turn(fresh, fresh.shape[0], last - first, likely[first:])
        if logs:
            note[_LOST] = forward_log(log_start, log_matrix, likely, begins, first, last, alpha, norm)
        else:
            forward(start, matrix, likely, begins, first, last, alpha, norm)
            note[_LOST] = traced(safe, start, matrix, likely, begins, first, last, alpha, norm, reach, lost)
        if note[_LOST] > 0.0:
            return
        note[_LOG_LIKELIHOOD] += _weighted_log(norm[first:last], best, row_weight[first:last], logs)


@kernel
def _descend(rows_of, desk, trail, chain, logs, low, n_rows, sums, pairs):
    """Go back through the rows that `_ascend` has followed, and add their statistics."""
    products = rows_of[0]
    _, _, turned_matrix, _, log_matrix, owner = chain
    _, _, _, scores, _, turned, top, total, gamma, mass, _, _, _, precisions, _ = desk
    likely, alpha, norm, begins, row_weight, _, _, carry = trail
    n_states, width = top.shape
    is_mixed = scores.shape[0] > n_states
    if not logs:
        copy_row(carry, 0, likely, n_rows)
    for first in range((n_rows - 1) // width * width, -1, -width):
        last = min(first + width, n_rows)
        if last < n_rows:  # the last block is there already
            is_scored = is_mixed or precisions.shape[0] > 0
            call_at(products[_BRING], (rows_of, desk, low + first, low + last, is_scored))
            if is_mixed:
                _merge(scores, owner, top, total)
        weight = row_weight[first:last]
        if logs:
            backward_log(
                log_matrix, likely, begins, first, last, alpha, norm, weight, carry[0], gamma, pairs[n_states:]
            )
        else:
            backward(turned_matrix, likely, begins, first, last, alpha, norm, gamma)
            _add_pairs(
                products[_PRODUCT], alpha[first:], likely[first:last], begins[first:], weight, turned, pairs[:n_states]
            )
        _add_starts(gamma, begins[first:], weight, pairs[2 * n_states])
        _responsibilities(gamma, last - first, mass, owner, turned, total, scores)
        call_at(products[_ADD], (rows_of, desk, low + first, low + last, sums))
    if not logs:
        copy_row(likely, 0, carry, 0)


@kernel
def _chain_lane(products, X, weight, frame, states, chain, plan, first, last, sums, pairs, totals):
    """Statistics of the stretches first..last-1.

    sums (P, columns); pairs (2 K + 1, Kp): sums of alpha times y in K rows, then of xi, then of first states; totals:
    log-likelihood, sequences that are impossible, stretches done in logarithms.
    """
    offsets, _, stretches, _, capacity = plan
    n_states, n_columns = chain[3].shape[0], chain[0].shape[0]
    theta = states[1]
    n_components = theta.shape[0]
    width = block_rows(X.shape[0], X.shape[1], n_components, theta.shape[1], theta.itemsize)
    tiles, columns, work = _desk_of(products, X, states, width, sums)
    scores = aligned_empty(n_components, width, theta)
    fresh = aligned_empty(n_columns, width, sums)
    turned = aligned_empty(n_columns, width, sums)
    top = aligned_empty(n_states, width, sums)
    total = aligned_empty(n_states, width, sums)
    gamma = aligned_empty(width, n_columns, sums)
    mass, best = np.empty(width), np.empty(width)
    rows = np.empty(width, np.int64)
    listed = np.arange(n_components)
    precisions = aligned_empty(2 * states[5].shape[0], width, sums)
    note = np.zeros(_NOTES)
    desk = (tiles, columns, work, scores, fresh, turned, top, total, gamma, mass, best, rows, listed, precisions, note)
    likely = aligned_empty(capacity + 1, n_columns, sums)
    alpha = aligned_empty(capacity + 1, n_columns, sums)
    begins, row_weight, norm = np.empty(capacity + 1, np.uint8), np.empty(capacity), np.empty(capacity)
    reach = np.zeros((2, n_states), np.uint8)
    carry = np.zeros((1, n_columns))  # y of the row beyond a piece, or the logarithm of its beta
    lost = np.zeros((2, n_states))  # see `traced`
    trail = (likely, alpha, norm, begins, row_weight, reach, lost, carry)
    rows_of = (products, X, weight, frame, states)
    clear(fresh)
    clear(turned)
    clear(gamma)
    clear(alpha)
    for stretch in range(first, last):
        begin, end = stretches[stretch, 0], stretches[stretch, 1]
        low, high = offsets[begin], offsets[end]
        n_pieces = -(-(high - low) // capacity)
        known = np.zeros((n_pieces, n_columns))  # alpha before each piece
        known_lost, known_reach = np.zeros((n_pieces, n_states)), np.zeros((n_pieces, n_states), np.uint8)
        logs = n_pieces < 0
        note[_LOST] = 1.0
        for attempt in range(2):
            if note[_LOST] == 0.0:
                break
            logs = attempt == 1
            note[_LOG_LIKELIHOOD] = 0.0
            for piece in range(n_pieces):
                at = low + piece * capacity
                n_rows = min(capacity, high - at)
                mark(plan, begin, end, at, at + n_rows, begins, row_weight)
                copy_row(alpha, capacity, known, piece)
                copy_row(lost, 0, known_lost, piece)
                copy_row(reach, 0, known_reach, piece)
                copy_row(known, piece, alpha, 0)
                call_at(products[_UP], (rows_of, desk, trail, chain, logs, at, n_rows))
                if note[_LOST] > 0.0:
                    break
        totals[2] += 1.0 if logs else 0.0
        if note[_LOST] > 0.0:
            totals[1] += 1.0
            continue
        totals[0] += note[_LOG_LIKELIHOOD]
        for piece in range(n_pieces - 1, -1, -1):
            at = low + piece * capacity
            n_rows = min(capacity, high - at)
            if piece < n_pieces - 1:
                mark(plan, begin, end, at, at + n_rows, begins, row_weight)
                copy_row(known, piece, alpha, 0)
                copy_row(known_lost, piece, lost, 0)
                copy_row(known_reach, piece, reach, 0)
                call_at(products[_UP], (rows_of, desk, trail, chain, logs, at, n_rows))
            call_at(products[_DOWN], (rows_of, desk, trail, chain, logs, at, n_rows, sums, pairs))
    add_waiting(work[INNER_SUMS], states[2], listed, sums[: theta.shape[1]])
    free(work)


@kernel
def _take_lanes(turns, lane_kernel, products, X, weight, frame, states, chain, plan, sums, pairs, totals):
    rows = products, X, weight, frame, states, chain, plan
    lane = take_number(turns, 0)
    while lane < sums.shape[0]:
        first, last = plan[3][lane], plan[3][lane + 1]
        call_at(lane_kernel, (*rows, first, last, sums[lane], pairs[lane], totals[lane, 0]))
        join_lanes(turns, lane, (sums, pairs, totals))
        lane = take_number(turns, 0)


def _addresses(X, weight, frame, states, chain, sums, pairs):
    """Addresses of all that a lane calls, each compiled once: inlined, they took three times as long."""
    theta = states[1]
    known = *lane_addresses(X, frame, States(*states), sums, GIVEN), product_addresses(pairs, pairs)[0]
    like, wide, line = np.empty((0, 0), theta.dtype), np.empty((0, 0)), np.empty(0)
    numbers, marks, reach = np.empty(0, np.int64), np.empty(0, np.uint8), np.empty((0, 0), np.uint8)
    are_codes = X.dtype == np.uint32
    products = address_array(known)
    work = (wide,) * 4 if are_codes else work_like(like, wide)
    tiles = wide if are_codes else like
    desk = (tiles, tiles, work, like, *(wide,) * 5, line, line, numbers, numbers, wide, line)
    trail = wide, wide, line, marks, line, reach, wide, wide
    rows_of = products, X, weight, frame, states
    key = X.dtype, theta.dtype
    bring, add = (_bring_codes, _add_codes) if are_codes else (_bring_rows, _add_rows)
    return address_array(
        (
            *known,
            address(bring, (rows_of, desk, 0, 0, True), key),
            address(add, (rows_of, desk, 0, 0, sums), key),
            address(_ascend, (rows_of, desk, trail, chain, True, 0, 0), key),
            address(_descend, (rows_of, desk, trail, chain, True, 0, 0, sums, pairs), key),
        )
    )


def chain_statistics(X, weight, frame, states, chain, offsets, sequence_weight, n_threads, piece_rows=None):
    """Expected sufficient statistics of sequences, one pass.

    Parameters
    ----------
    X, weight, frame, states
        As in `statistics`; a row of weight 0 is missing.
    chain : Chain
    offsets : ndarray of shape (S + 1,), int64
        First row of each sequence, and the number of rows.
    sequence_weight : ndarray of shape (S,), float64
    n_threads : int
    piece_rows : int, default=None
        Rows of a sequence that a lane keeps at once, a multiple of the block; None: 32 MiB.

    Returns
    -------
    sums : (n_components, P) float64
    pairs : (K, K) float64, expected transitions
    starts : (K,) float64, expected first states
    log_likelihood : float
    n_impossible : int, stretches with rows that no state can have produced
    n_logs : int, stretches that were done in logarithms
    """
    theta, n_thin = states.theta, states.n_thin
    if not sequence_weight.any():
        return np.zeros(theta.shape), np.zeros(chain.log_matrix.shape), np.zeros(len(chain.log_start)), 0.0, 0, 0
    unit = weight_unit(weight, theta)
    if unit != 1.0:
        weight, sequence_weight = weight / unit, sequence_weight / unit
    n_states, n_padded = len(chain.log_start), len(chain.start)
    n_fast, n_stats = len(theta) - n_thin, theta.shape[1]
    n_columns = int(padded(n_fast, theta.itemsize)) + n_thin
    width = int(block_rows(len(X), X.shape[1], len(theta), n_stats, theta.itemsize))
    lane_bytes = 8 * (n_stats * n_columns + (2 * n_states + 1) * n_padded)
    plan = new_plan(offsets, sequence_weight, width, n_padded, lane_bytes, piece_rows)
    n_lanes = len(plan.lanes) - 1
    sums = np.zeros((n_lanes, n_stats + (2 if len(states.tails) else 0), n_columns))
    pairs = np.zeros((n_lanes, 2 * n_states + 1, n_padded))
    totals = np.zeros((n_lanes, 1, 3))
    assert all(
        a.flags.c_contiguous for a in (X, weight, frame, theta, states.whitener, states.tails, *chain, *plan[:-1])
    )
    products = _addresses(X, weight, frame, tuple(states), tuple(chain), sums[0], pairs[0])
    arguments = (products, X, weight, frame, tuple(states), tuple(chain), tuple(plan))
    lane = address(_chain_lane, (*arguments, 0, 0, sums[0], pairs[0], totals[0, 0]))
    work = len(X) * (theta.size + 2 * chain.matrix.size)
    arguments = (lane, *arguments, sums, pairs, totals)
    run_lanes(_take_lanes, arguments, work, n_lanes, n_threads)
    sums, pairs, totals = sums[0], pairs[0], totals[0, 0]
    if n_thin and n_columns > len(theta):  # columns of padding lie before those of the thin states
        sums = np.delete(sums, np.s_[n_fast : n_columns - n_thin], axis=1)
    sums = np.ascontiguousarray(sums[:, : len(theta)].T) * unit
    pairs = pairs[:, :n_states] * unit
    xi = pairs[:n_states] * chain.matrix[:n_states, :n_states] + pairs[n_states:-1]
    return sums, xi, pairs[-1], float(totals[0]) * unit, int(totals[1]), int(totals[2])
