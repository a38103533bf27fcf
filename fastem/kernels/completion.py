"""One pass over rows with missing values, which are completed for each component by what it expects of them.

    log N(x_o; mu, Sigma) = log N(x_hat; mu, Sigma) + m / 2 log 2 pi + log|C| / 2

with x_hat the row with its m missing values where the component expects them, and C their covariance given the others
(`patterns`). So a completed row has the distance of what was seen of it, and adds C to the second moment. What follows
the completion are the two products of `sweep`, over blocks of completed rows, whichever their patterns (Ghahramani &
Jordan 1994, Advances in Neural Information Processing Systems 6, 120-127). All sums are about the current means. Where
columns are independent (diag, spherical) nothing is completed: a missing value drops out.

Every lane has the same arguments:

    products, (X (N, D), weight, frame (2, D), noise), groups, states, code, first, last, sums (P, K), totals (3,), out

`states` are the fields of `Components`.
"""

from typing import NamedTuple

import numpy as np

from fastem.kernels._arrays import aligned_empty
from fastem.kernels._calls import address, call_at, take_number
from fastem.kernels._jit import kernel, rule
from fastem.kernels.batches import LANES, regress, scratch_of, subtract_products
from fastem.kernels.double_double import whiten_exactly, whitener_of
from fastem.kernels.exponentials import softmax
from fastem.kernels.features import FULL, n_statistics, squared_norm
from fastem.kernels.layout import clear, fetch_rows, load_columns, tile_columns, turn
from fastem.kernels.log_likelihood import count_rows
from fastem.kernels.patterns import NO_GROUPS, Groups, factor, invert, split_columns
from fastem.kernels.posteriors import GIVEN, first_maximum, log_normalizer, row_maximum
from fastem.kernels.products import ROWS, product_addresses
from fastem.kernels.sweep import (
    add_moments,
    first_row_of,
    join_lanes,
    padded,
    run_lanes,
    take_weights,
)
from fastem.kernels.whiten import distance

# What a lane makes of the rows: their statistics (codes of `posteriors`), or something for each row.
ROWWISE = 10
DENSITIES, LABELS, POSTERIORS, MEAN, DRAW = range(ROWWISE, ROWWISE + 5)

_WIDEST, _NARROWEST = 96, 48  # rows of a block
_COMPLETED = 2**19  # bytes of a block's rows, completed for every component, beyond which it is narrow
_SPREADS = 2**15  # numbers of the spreads that a block has room for at least
_MOST_LANES, _FEWEST_LANES, _LANE_BYTES, _LANE_BLOCKS = 64, 8, 2**24, 16
_LOG_2_PI = np.log(2.0 * np.pi)
_NO_WEIGHT, _NO_NOISE = np.empty((0, 1)), np.empty((0, 1, 1))


class Components(NamedTuple):
    """K normal components as the lanes take them, in the frame.

    Attributes
    ----------
    means : ndarray of shape (K, D)
    whitener : ndarray of shape (K, D + 1, D), or (K, 2, D) for independent columns
        See `whiten`; a matrix has 0 for the mean in its last row, unless densities are asked for.
    precision, covariance : ndarray of shape (K, D, D), or (K, 0, 0) for independent columns
    peak : ndarray of shape (K,)
        Score of a row without a missing value at the mean; of a row without any value, for densities and independent
        columns.
    """

    means: np.ndarray
    whitener: np.ndarray
    precision: np.ndarray
    covariance: np.ndarray
    peak: np.ndarray


@kernel
def finish_rows(code, scores, best, total, rows, n_rows, out):
    """Write what the scores (K, B) say of each row to out (N, 1 or K); overwrites them."""
    n_states, width = scores.shape
    if code == LABELS:
        row_maximum(scores, n_states, best)
        first_maximum(scores, n_states, best, total)
        for b in range(n_rows):
            out[rows[b], 0] = total[b]
        return
    softmax(scores, n_states, np.ones(width), best, total)
    if code == DENSITIES:
        log_normalizer(best, total, best)
        for b in range(n_rows):
            out[rows[b], 0] = best[b]
        return
    if code == POSTERIORS:
        for b in range(n_rows):
            for k in range(n_states):
                out[rows[b], k] = scores[k, b]


@kernel
def responsibilities(code, scores, weight, rows, n_rows, mass, best, total, row_log, totals):
    """scores (K, B) -> responsibilities, times the weights of the rows."""
    n_states, width = scores.shape
    if code == GIVEN:
        for b in range(width):
            for k in range(n_states):
                scores[k, b] = weight[rows[b], k] if b < n_rows else 0.0
        return
    softmax(scores, n_states, mass, best, total)
    count_rows(mass, best, total, row_log, totals)


@kernel
def _complete_batch(completed, which, owner, firsts, ends, parts, n_seen, slopes, n_lanes, scratch):
    """Missing values of runs of rows as components expect them: of each lane a run and a component, about its mean.

    completed[k D + d, b] holds what is seen; parts (8, D) are the columns seen and those missing. The lanes take a row
    of each at a time, unless a run is longer than there are lanes.
    """
    values, gaps, _, signs = scratch
    n_features = parts.shape[1]
    n_missing, longest = n_features - n_seen, 0
    for c in range(n_lanes):
        longest = max(longest, ends[owner[c]] - firsts[owner[c]])
    if longest <= LANES:
        for t in range(longest):
            for c in range(n_lanes):
                b, base = min(firsts[owner[c]] + t, ends[owner[c]] - 1), which[c] * n_features
                for j in range(n_seen):
                    gaps[LANES * j + c] = -completed[base + parts[c, j], b]
            for p in range(LANES * n_missing):
                values[p] = 0.0
            row = LANES * n_seen
            subtract_products(values, 0, LANES, slopes, 0, row, LANES, gaps, 0, LANES, n_seen, signs, 0, n_missing)
            for c in range(n_lanes):
                b, base = min(firsts[owner[c]] + t, ends[owner[c]] - 1), which[c] * n_features
                for i in range(n_missing):
                    completed[base + parts[c, n_seen + i], b] = values[LANES * i + c]
        return
    for c in range(n_lanes):
        first, last, base = firsts[owner[c]], ends[owner[c]], which[c] * n_features
        for i in range(n_missing):
            d = base + parts[c, n_seen + i]
            for b in range(first, last):
                completed[d, b] = 0.0
            for j in range(n_seen):
                slope, e = slopes[LANES * (i * n_seen + j) + c], base + parts[c, j]
                for b in range(first, last):
                    completed[d, b] += slope * completed[e, b]


@kernel
def _fill_run(code, frame, means, scores, completed, columns, n_seen, spreads, begins, draws, rows, span, lower, out):
    """out (N, D) = the missing values of a run of rows: their mean over the components, or drawn.

    The spread of component k begins at begins[k].
    """
    n_states, n_features = means.shape
    n_missing = n_features - n_seen
    for b in range(*span):
        n = rows[b]
        if code == MEAN:
            for i in range(n_missing):
                d = columns[n_seen + i]
                value = 0.0
                for k in range(n_states):
                    value += scores[k, b] * (means[k, d] + completed[k * n_features + d, b])
                out[n, d] = frame[0, d] + value / frame[1, d]
            continue
        k = _drawn(scores, b, draws[n, 0])
        for i in range(n_missing):  # a factor of C, with 0 where a column depends on those before
            for j in range(i + 1):
                total = spreads[begins[k] + LANES * (i * n_missing + j)]
                for m in range(j):
                    total -= lower[i, m] * lower[j, m]
                if j < i:
                    lower[i, j] = total / lower[j, j] if lower[j, j] > 0.0 else 0.0
                else:
                    lower[i, i] = np.sqrt(max(total, 0.0))
        for i in range(n_missing):
            d = columns[n_seen + i]
            value = means[k, d] + completed[k * n_features + d, b]
            for j in range(i + 1):
                value += lower[i, j] * draws[n, 1 + j]
            out[n, d] = frame[0, d] + value / frame[1, d]


@kernel
def _drawn(posterior, b, place):
    """The component of row b at a place from 0 to 1 of its cumulated probabilities (K, B)."""
    k, left = 0, place - posterior[0, b]
    while left >= 0.0 and k < posterior.shape[0] - 1:
        k += 1
        left -= posterior[k, b]
    while posterior[k, b] == 0.0 and k > 0:  # only rounding leads beyond the last that is possible
        k -= 1
    return k


@rule
def spreads_held(n_states, n_features):
    """Room for the spreads of the runs of a block: those of one run at least."""
    return max(-(-n_states // LANES) * LANES * n_features * n_features, _SPREADS)


@kernel
def _plan_runs(groups, g, place, last_place, kept, capacity, runs):
    """Fill a block with runs of rows of one pattern, from pattern g on; returns their number, the next pattern, and
    whether the last run goes on in the next block.

    Pairs of a run and a component share a batch of eight if they lack as many columns; the spreads of a pair begin at
    `begins` and have every eighth number. `kept`: the first run has begun before, and has batches of its own.
    """
    _, starts, missing = groups
    firsts, ends, n_seen, seen, begins, _ = runs
    width, n_states = begins.shape
    n_features = seen.shape[1]
    n_runs, n_rows, used, free, last_missing, goes_on = 0, 0, 0, 0, -1, False
    while n_rows < width and place + n_rows < last_place:
        run = n_runs
        n_seen[run] = split_columns(missing[g], n_features, seen[run])
        n_missing = n_features - n_seen[run]
        size = LANES * n_missing * n_missing
        if n_missing != last_missing:
            free, last_missing = 0, n_missing
        if size > 0 and used - (-max(0, n_states - free) // LANES) * size > capacity:
            break
        for k in range(n_states if size > 0 else 0):
            if free == 0:
                used += size
                free = LANES
            begins[run, k] = used - size + LANES - free
            free -= 1
        if kept and run == 0:
            free = 0
        firsts[run] = n_rows
        stop = min(starts[g + 1], last_place, place + width)
        ends[run] = n_rows = stop - place
        n_runs += 1
        goes_on = stop < starts[g + 1]
        g += 0 if goes_on else 1
    return n_runs, g, goes_on


@kernel
def _keep_last(runs, last, spreads):
    """Move what is known of the last run to where the first run of the next block has it."""
    _, _, n_seen, seen, begins, logs = runs
    n_missing = seen.shape[1] - n_seen[last]
    for k in range(begins.shape[1] if last > 0 and n_missing > 0 else 0):
        logs[0, k] = logs[last, k]
        begin = k // LANES * LANES * n_missing * n_missing + k % LANES
        for p in range(0, LANES * n_missing * n_missing, LANES):  # never over what is still to be moved
            spreads[begin + p] = spreads[begins[last, k] + p]


@kernel
def _regress_batch(
    precision, covariance, log_roots, frame, which, owner, parts, n_seen, slopes, spreads, logs, n_lanes, scratch
):  # fmt: skip
    """Regressions of the lanes of a batch, and what they add to the scores: logs (runs, K)."""
    batch_logs = np.empty(LANES)
    regress(precision, covariance, log_roots, which, parts, n_seen, slopes, spreads, batch_logs, scratch)
    for c in range(n_lanes):
        value = batch_logs[c]
        for i in range(n_seen, parts.shape[1]):
            value += 0.5 * _LOG_2_PI - np.log(frame[1, parts[c, i]])
        logs[owner[c], which[c]] = value


@kernel
def _completing_lane(products, data, groups, states, code, first_place, last_place, sums, totals, out):
    X, weight, frame, _ = data
    order, starts = groups[:2]
    means, whitener, precision, covariance, peak = states
    n_states, n_features = means.shape
    width = completed_rows(order.shape[0], n_states, n_features)
    tiles = aligned_empty(tile_columns(n_features, X.itemsize), width, means)
    columns = tiles[:n_features]
    completed = aligned_empty(n_states * n_features, width, means)
    scores = aligned_empty(n_states, width, means)
    turned = aligned_empty(width, padded(n_features, 8), means)
    weighted = aligned_empty(n_features, width, means)
    second = aligned_empty(ROWS, turned.shape[1], means)
    clear(turned)
    best, total, row_log, mass = np.empty(width), np.empty(width), np.empty(width), np.empty(width)
    rows, following = np.empty(width, np.int64), np.empty(width, np.int64)
    capacity = spreads_held(n_states, n_features)
    spreads, kept_slopes = np.empty(capacity), np.empty(-(-n_states // LANES) * LANES * n_features * n_features)
    firsts, ends, n_seen = np.empty(width, np.int64), np.empty(width, np.int64), np.empty(width, np.int64)
    seen = np.empty((width, n_features), np.int64)
    begins, logs = np.empty((width, n_states), np.int64), np.empty((width, n_states))
    runs = firsts, ends, n_seen, seen, begins, logs
    which, owner, parts = np.zeros(LANES, np.int64), np.zeros(LANES, np.int64), np.zeros((LANES, n_features), np.int64)
    slopes, lower, scratch = np.empty(LANES * n_features**2), np.empty((n_features, n_features)), scratch_of(n_features)
    log_roots = np.zeros(n_states)
    for k in range(n_states):
        for d in range(n_features):
            log_roots[k] += np.log(whitener[k, d, d])
    g = np.searchsorted(starts, first_place, side="right") - 1
    goes_on, n_runs = False, 0
    place = first_place
    while place < last_place:
        kept = goes_on
        if kept:
            _keep_last(runs, n_runs - 1, spreads)
        n_runs, g, goes_on = _plan_runs(groups, g, place, last_place, kept, capacity, runs)
        n_rows = ends[n_runs - 1]
        for b in range(width):
            rows[b] = order[place + min(b, n_rows - 1)]
            following[b] = order[min(place + n_rows + b, last_place - 1)]
        load_columns(X, frame, rows, n_rows, tiles)
        fetch_rows(X, following, 0, width)
        if code < ROWWISE:
            take_weights(code, weight, rows, n_rows, mass, columns)
        for k in range(n_states):
            for d in range(n_features):
                mean, at = means[k, d], k * n_features + d
                for b in range(width):
                    completed[at, b] = columns[d, b] - mean
                for b in range(n_rows, width):
                    completed[at, b] = 0.0
        for run in range(n_runs):
            n_missing = n_features - n_seen[run]
            for k in range(n_states if n_missing > 0 else 0):
                lane = begins[run, k] % LANES
                batch = begins[run, k] - lane
                which[lane], owner[lane] = k, run
                for d in range(n_features):
                    parts[lane, d] = seen[run, d]
                is_last = k == n_states - 1 and (run == n_runs - 1 or begins[run + 1, 0] // LANES != batch // LANES)
                if lane < LANES - 1 and not is_last:
                    continue
                if kept and run == 0:
                    here = kept_slopes[k // LANES * LANES * n_missing * n_seen[run] :]
                    _complete_batch(completed, which, owner, firsts, ends, parts, n_seen[run], here, lane + 1, scratch)
                    continue
                for c in range(lane + 1, LANES):  # lanes that nobody needs
                    which[c] = which[0]
                    for d in range(n_features):
                        parts[c, d] = parts[0, d]
                _regress_batch(
                    precision, covariance, log_roots, frame, which, owner, parts, n_seen[run], slopes, spreads[batch:],
                    logs, lane + 1, scratch,
                )  # fmt: skip
                _complete_batch(completed, which, owner, firsts, ends, parts, n_seen[run], slopes, lane + 1, scratch)
                if goes_on:
                    for c in range(lane + 1 if owner[lane] == n_runs - 1 else 0):
                        at = which[c] // LANES * LANES * n_missing * n_seen[run] + which[c] % LANES
                        for p in range(0, LANES * n_missing * n_seen[run] if owner[c] == n_runs - 1 else 0, LANES):
                            kept_slopes[at + p] = slopes[c + p]
        for k in range(n_states if code != GIVEN else 0):
            distance(completed[k * n_features : (k + 1) * n_features], whitener[k], scores[k])
            for b in range(width):
                scores[k, b] = peak[k] - 0.5 * scores[k, b]
            for run in range(n_runs):
                for b in range(firsts[run], ends[run] if n_seen[run] < n_features else 0):
                    scores[k, b] += logs[run, k]
        if code >= ROWWISE:
            finish_rows(code, scores, best, total, rows, n_rows, out)
            for run in range(n_runs):
                if n_seen[run] < n_features:
                    _fill_run(
                        code, frame, means, scores, completed, seen[run], n_seen[run], spreads, begins[run], weight,
                        rows, (firsts[run], ends[run]), lower, out,
                    )  # fmt: skip
            place += n_rows
            continue
        responsibilities(code, scores, weight, rows, n_rows, mass, best, total, row_log, totals)
        for k in range(n_states):
            row = completed[k * n_features : (k + 1) * n_features]
            turn(row, n_features, width, turned)
            add_moments(products[1], row, turned, scores[k], weighted, second, sums, k)
        for run in range(n_runs):
            n_missing = n_features - n_seen[run]
            for k in range(n_states if n_missing > 0 else 0):
                share = 0.0
                for b in range(firsts[run], ends[run]):
                    share += scores[k, b]
                for i in range(n_missing):
                    d = seen[run, n_seen[run] + i]
                    p, q = 1 + n_features + d * (d + 1) // 2, begins[run, k] + LANES * i * n_missing
                    for j in range(i + 1):
                        sums[p + seen[run, n_seen[run] + j], k] += share * spreads[q + LANES * j]
        place += n_rows


@kernel
def _density_lane(products, data, groups, states, code, first_place, last_place, sums, totals, out):
    """Densities from the covariance of what was seen, factored for each pattern and component: exact for any pattern.

    In double-double if the whiteners are; they hold the means, in the units of the frame.
    """
    X, _, frame, _ = data
    order, starts, missing = groups
    _, whitener, _, covariance, peak = states
    n_states, n_features = whitener.shape[0], X.shape[1]
    doubled = whitener.shape[1] == 2 * n_features + 1
    width = completed_rows(order.shape[0], n_states, n_features)
    tiles = aligned_empty(tile_columns(n_features, X.itemsize), width, whitener)
    packed, y = aligned_empty(n_features, width, whitener), aligned_empty(n_features, width, whitener)
    scores = aligned_empty(n_states, width, whitener)
    best, total = np.empty(width), np.empty(width)
    rows, seen = np.empty(width, np.int64), np.empty(n_features, np.int64)
    roots, constants = np.empty((n_states, whitener.shape[1] * n_features)), np.empty(n_states)
    pairs, part = np.empty((2, n_features, n_features)), np.empty((n_features, n_features))
    lower, other = np.empty((n_features, n_features)), np.empty((n_features, n_features))
    g = np.searchsorted(starts, first_place, side="right") - 1
    place = first_place
    while place < last_place:
        n_seen = split_columns(missing[g], n_features, seen)
        height = 2 * n_seen if doubled else n_seen
        for k in range(n_states):
            constants[k] = peak[k] - 0.5 * n_seen * _LOG_2_PI
            if n_seen == 0:
                continue
            root = roots[k, : (height + 1) * n_seen].reshape((height + 1, n_seen))
            if n_seen == n_features:
                for i in range(height):
                    for j in range(n_seen):
                        root[i, j] = whitener[k, i, j]
            elif doubled:
                small = part.reshape(-1)[: n_seen * n_seen].reshape((n_seen, n_seen))
                for i in range(n_seen):
                    for j in range(n_seen):
                        small[i, j] = covariance[k, seen[i], seen[j]]
                whitener_of(small, pairs, root)
            else:
                factor(covariance[k], seen, 0, n_seen, lower)
                invert(lower, n_seen, other)
                for i in range(n_seen):
                    for j in range(n_seen):
                        root[i, j] = other[i, j]
            for j in range(n_seen):
                constants[k] += np.log(root[j, j])
                root[height, j] = whitener[k, whitener.shape[1] - 1, seen[j]]
        stop = min(starts[g + 1], last_place)
        for begin in range(place, stop, width):
            n_rows = min(width, stop - begin)
            for b in range(width):
                rows[b] = order[begin + min(b, n_rows - 1)]
            load_columns(X, frame, rows, n_rows, tiles)
            for i in range(n_seen):
                for b in range(width):
                    packed[i, b] = tiles[seen[i], b]
            for k in range(n_states):
                if n_seen == 0:
                    for b in range(width):
                        scores[k, b] = constants[k]
                    continue
                root = roots[k, : (height + 1) * n_seen].reshape((height + 1, n_seen))
                if doubled:
                    whiten_exactly(packed[:n_seen], root, y[:n_seen])
                    squared_norm(y[:n_seen], scores[k])
                else:
                    distance(packed[:n_seen], root, scores[k])
                for b in range(width):
                    scores[k, b] = constants[k] - 0.5 * scores[k, b]
            finish_rows(code, scores, best, total, rows, n_rows, out)
        place = stop
        g += 1


@kernel
def _diagonal_lane(products, data, groups, states, code, first_row, last_row, sums, totals, out):
    """Independent columns, row by row. Of each state and column sums has, after the weight of the rows, the sum of the
    values about the mean, that of their squares, and the weight of what was seen.
    """
    X, weight, frame, _ = data
    order = groups[0]
    _, whitener, _, _, peak = states
    n_states, n_features = whitener.shape[0], X.shape[1]
    width = completed_rows(order.shape[0] if order.shape[0] > 0 else X.shape[0], n_states, n_features)
    tiles = aligned_empty(tile_columns(n_features, X.itemsize), width, whitener)
    columns = tiles[:n_features]
    seen = aligned_empty(n_features, width, whitener)
    scores = aligned_empty(n_states, width, whitener)
    best, total, row_log, mass = np.empty(width), np.empty(width), np.empty(width), np.empty(width)
    constants = np.empty((n_states, n_features))
    for k in range(n_states):
        for d in range(n_features):
            constants[k, d] = np.log(whitener[k, 0, d]) + np.log(frame[1, d]) - 0.5 * _LOG_2_PI
    rows = np.empty(width, np.int64)
    for place in range(first_row, last_row, width):
        n_rows = min(width, last_row - place)
        for b in range(width):
            at = place + min(b, n_rows - 1)
            rows[b] = order[at] if order.shape[0] > 0 else at
        load_columns(X, frame, rows, n_rows, tiles)
        for b in range(width):
            total[b] = 0.0
        for d in range(n_features):
            for b in range(width):
                known = not np.isnan(columns[d, b])
                seen[d, b] = 1.0 if known else 0.0
                columns[d, b] = columns[d, b] if known else 0.0
                total[b] += seen[d, b]
        if code < ROWWISE:
            take_weights(code, weight, rows, n_rows, mass, columns)
            for b in range(width):
                mass[b] = mass[b] if total[b] > 0.0 else 0.0  # a row without a value informs nothing
        if code != GIVEN:
            for k in range(n_states):
                for b in range(width):
                    scores[k, b] = peak[k]
                for d in range(n_features):
                    root, mean, constant = whitener[k, 0, d], whitener[k, 1, d], constants[k, d]
                    for b in range(width):
                        gap = (columns[d, b] - mean) * root
                        scores[k, b] += seen[d, b] * (constant - 0.5 * gap * gap)
        if code >= ROWWISE:
            finish_rows(code, scores, best, total, rows, n_rows, out)
            if code >= MEAN:
                _fill_independent(code, scores, seen, whitener, frame, weight, rows, n_rows, out)
            continue
        responsibilities(code, scores, weight, rows, n_rows, mass, best, total, row_log, totals)
        for k in range(n_states):
            weighed = 0.0
            for b in range(width):
                weighed += scores[k, b]
            sums[0, k] += weighed
            for d in range(n_features):
                mean = whitener[k, 1, d]
                first, second, known = 0.0, 0.0, 0.0
                for b in range(width):
                    share = scores[k, b] * seen[d, b]
                    gap = columns[d, b] - mean
                    known += share
                    first += share * gap
                    second += share * gap * gap
                sums[1 + d, k] += first
                sums[1 + n_features + d, k] += second
                sums[1 + 2 * n_features + d, k] += known


@kernel
def _fill_independent(code, scores, seen, whitener, frame, draws, rows, n_rows, out):
    """out (N, D) = missing values of independent columns: their mean over the components, or drawn."""
    n_states, n_features = whitener.shape[0], seen.shape[0]
    for b in range(n_rows):
        n, j = rows[b], 0
        k = _drawn(scores, b, draws[n, 0]) if code == DRAW else 0
        for d in range(n_features):
            if seen[d, b] > 0.0:
                continue
            value = 0.0
            if code == MEAN:
                for i in range(n_states):
                    value += scores[i, b] * whitener[i, 1, d]
            else:
                value = whitener[k, 1, d] + draws[n, 1 + j] / whitener[k, 0, d]
                j += 1
            out[n, d] = frame[0, d] + value / frame[1, d]


@rule
def completed_rows(n_rows, n_states, n_features):
    """Rows of a block."""
    rows = _WIDEST if n_states * n_features * _WIDEST * 8 <= _COMPLETED else _NARROWEST
    return min(rows, max(_NARROWEST, -(-n_rows // _NARROWEST) * _NARROWEST))


@kernel
def _take_lanes(turns, lane_kernel, products, data, groups, states, code, shape, sums, totals, out):
    n_places, width = shape
    lane = take_number(turns, 0)
    while lane < sums.shape[0]:
        first = first_row_of(lane, sums.shape[0], n_places, width)
        last = first_row_of(lane + 1, sums.shape[0], n_places, width)
        call_at(lane_kernel, (products, data, groups, states, code, first, last, sums[lane], totals[lane, 0], out))
        join_lanes(turns, lane, (sums, totals))
        lane = take_number(turns, 0)


def sums_of_completed(X, weight, frame, groups: Groups, components: Components, posterior, n_threads):
    """Expected statistics of rows with missing values under normal components of any covariance.

    Parameters
    ----------
    X : (N, D) float32 or float64, C-ordered
    weight : (N, 1), (0, 1) for weights of one, or (N, K) responsibilities times weights if posterior is GIVEN; float64
    frame : (2, D) float64, centre and scale: the kernel sees (X - centre) * scale
    groups : Groups, of the rows that are to be taken
    components : Components
    posterior : SOFTMAX or GIVEN, of `posteriors`
    n_threads : int

    Returns
    -------
    sums : (K, P) float64, of the full feature map, about the means of the components
    log_likelihood : float
    n_lost : int, rows that no component can have produced
    """
    n_states, n_features = components.means.shape
    n_stats = int(n_statistics(FULL, n_features))
    work = len(groups.order) * n_states * n_stats + len(groups.missing) * n_states * n_features**2
    rows = X, weight, frame, _NO_NOISE
    return sums_over(_completing_lane, rows, groups, components, posterior, n_stats, work, n_threads)


def sums_of_independent(X, weight, frame, groups: Groups, components: Components, posterior, n_threads):
    """The same for independent columns, of all rows without groups; sums (K, 1 + 3 D) as in `_diagonal_lane`."""
    n_states, _, n_features = components.whitener.shape
    n_stats = 1 + 3 * n_features
    work = (len(groups.order) or len(X)) * n_states * n_stats
    rows = X, weight, frame, _NO_NOISE
    return sums_over(_diagonal_lane, rows, groups, components, posterior, n_stats, work, n_threads)


def for_each_row(X, frame, groups: Groups, components: Components, code, out, n_threads, draws=_NO_WEIGHT):
    """Write to out what a code asks of each row: densities, labels (N, 1), posteriors (N, K), missing values (N, D).

    Groups are those of all rows; those of columns that are independent, NO_GROUPS. draws (N, 1 + D) are a uniform
    number and normal ones for each row that is to be drawn.
    """
    if components.covariance.shape[1] == 0:
        lane = _diagonal_lane
    else:
        lane = _density_lane if code in (DENSITIES, LABELS, POSTERIORS) else _completing_lane
    n_states, n_features = components.means.shape
    work = (len(groups.order) or len(X)) * n_states * n_features**2 + len(groups.missing) * n_states * n_features**3
    return pass_over(lane, (X, draws, frame, _NO_NOISE), components, code, out, work, n_threads, groups)


def pass_over(lane, rows, components, code, out, work, n_threads, groups=NO_GROUPS):
    """Run a lane kernel that writes something for each row to out."""
    n_places = len(groups.order) or len(rows[0])
    sums = np.empty((_n_lanes(n_places, len(components.peak), 1, rows[0].shape[1]), 1, 1))
    _pass(lane, rows, groups, components, code, sums, out, work, n_threads)
    return out


def sums_over(lane, rows, groups, components, posterior, n_stats, work, n_threads):
    """Run a lane kernel that adds up; sums (K, P), log-likelihood and lost rows."""
    n_states, n_features = len(components.peak), rows[0].shape[1]
    n_lanes = _n_lanes(len(groups.order) or len(rows[0]), n_states, n_stats, n_features)
    sums = np.zeros((n_lanes, n_stats, n_states))
    totals = _pass(lane, rows, groups, components, posterior, sums, np.empty((0, 1)), work, n_threads)
    return np.ascontiguousarray(sums[0].T), float(totals[0]), int(totals[1])


def _pass(lane, rows, groups, components, code, sums, out, work, n_threads):
    """Run the lanes, one for each of sums (n, P, K), the first of which becomes their sum; returns its totals."""
    X = rows[0]
    totals = np.zeros((len(sums), 1, 3))
    components = tuple(map(np.ascontiguousarray, components))
    like, n_states = components[1][0], len(components[0])
    assert all(a.flags.c_contiguous for a in (*rows, *groups, sums, out))  # the lane sees no types
    arguments = (product_addresses(like, sums[0]), rows, tuple(groups), components, code)
    compiled = address(lane, (*arguments, 0, 0, sums[0], totals[0, 0], out))
    n_places = len(groups.order) or len(X)
    shape = n_places, int(completed_rows(n_places, n_states, X.shape[1]))
    arguments = (compiled, *arguments, shape, sums, totals, out)
    run_lanes(_take_lanes, arguments, work, len(sums), n_threads)
    return totals[0, 0]


def _n_lanes(n_places, n_states, n_stats, n_features):
    """Lanes for a shape, whatever the number of threads."""
    n_blocks = -(-n_places // int(completed_rows(n_places, n_states, n_features)))
    wanted = min(_MOST_LANES, n_blocks // _LANE_BLOCKS, _LANE_BYTES // (8 * n_stats * n_states))
    return max(1, min(n_blocks, max(_FEWEST_LANES, wanted)))
