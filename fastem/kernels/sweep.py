"""The fused pass over the rows: features -> scores -> posterior -> statistics, block by block, in lanes.

Rows are split into a number of lanes that depends on the shape only. A lane writes nothing but its own
accumulators, and lanes are added pairwise in index order, so the bits do not depend on the number of threads.
"""

import numba
import numpy as np

from fastem.kernels import _jit
from fastem.kernels._jit import VECTOR_BYTES, kernel, parallel
from fastem.kernels.features import build_features, load_columns, scratch, squared_norm
from fastem.kernels.posteriors import GIVEN, SOFTMAX, hard, log_normalizer, softmax
from fastem.kernels.products import product
from fastem.kernels.whiten import whiten

_MAX_LANES = 64
_MIN_LANES = 8
_LANE_BYTES = 2**24  # all lanes together, if that leaves at least _MIN_LANES
_BLOCK_BYTES = 2**18  # a block's features, scores and responsibilities: well inside L2
_FEATURE_BYTES = 2**19  # features held at once; more are built in chunks, twice
_SERIAL_WORK = 2_000_000  # multiply-adds below which waking the threads costs more than they give (~100 us)


@kernel
def padded(n_states, itemsize):
    """n_states rounded up to half a vector, the narrowest column tile of `product`."""
    lanes = VECTOR_BYTES // (2 * itemsize)
    return -(-n_states // lanes) * lanes


@kernel
def block_rows(n_features, n_states, n_stats, itemsize):
    """Rows of a block: a multiple of 48, so that it splits into panels of three vectors in both dtypes."""
    row_bytes = (n_stats + 2 * n_states + 3 * n_features) * itemsize
    rows = 384
    while rows > 96 and rows * row_bytes > _BLOCK_BYTES:
        rows //= 2
    return rows


@kernel
def _score_block(columns, theta, whitener, feature_map, chunk, phi, y, centred, scores):
    """scores (K, B) = theta phi; the last len(whitener) states through their own whitened distance instead."""
    n_states, n_stats = theta.shape
    n_fast = n_states - whitener.shape[0]
    width = columns.shape[1]
    if n_fast > 0:
        for k in range(n_fast):
            for b in range(width):
                scores[k, b] = 0.0
        for first in range(0, n_stats, chunk):
            last = min(first + chunk, n_stats)
            build_features(feature_map, columns, first, last, phi)
            product(theta, first, phi, n_fast, width, last - first, scores)
    for t in range(whitener.shape[0]):
        whiten(columns, whitener[t], centred, y)
        row = scores[n_fast + t]
        squared_norm(y, row)
        constant = theta[n_fast + t, 0]
        half = row.dtype.type(0.5)
        for b in range(width):
            row[b] = constant - half * row[b]


@kernel
def _accumulate_block(columns, resp, n_fast, whitener, feature_map, chunk, phi, y, centred, statistics):
    """statistics (P, columns of resp) += phi resp; thin states, the last columns, take the features of their own y."""
    n_stats = statistics.shape[0]
    width = columns.shape[1]
    thin_column = resp.shape[1] - whitener.shape[0]
    if n_fast > 0:
        for first in range(0, n_stats, chunk):
            last = min(first + chunk, n_stats)
            if chunk < n_stats:  # otherwise phi still holds the block's features from its scores
                build_features(feature_map, columns, first, last, phi)
            product(phi, 0, resp, last - first, thin_column, width, statistics[first:last])
    for t in range(whitener.shape[0]):
        k = thin_column + t
        largest = resp[0, k]
        for b in range(1, width):
            largest = max(largest, resp[b, k])
        if largest == 0.0:
            continue
        whiten(columns, whitener[t], centred, y)
        for first in range(0, n_stats, chunk):
            last = min(first + chunk, n_stats)
            build_features(feature_map, y, first, last, phi)
            for p in range(last - first):
                total = 0.0
                for b in range(width):
                    total += phi[p, b] * resp[b, k]
                statistics[first + p, k] += total


@kernel
def _posterior_block(scores, n_fast, posterior, weight, first, n_rows, best, total, label, row_log, resp, totals):
    """resp (B, columns) of a block from its scores (K, B); adds log-likelihood and lost rows to totals (2,)."""
    n_states, width = scores.shape
    n_thin = n_states - n_fast
    thin_column = resp.shape[1] - n_thin
    weighted = weight.shape[0] > 0
    for b in range(width):
        for k in range(n_fast, thin_column):
            resp[b, k] = 0.0
    if posterior == GIVEN:
        for b in range(width):
            for k in range(n_states):
                value = weight[first + b, k] if b < n_rows else 0.0
                resp[b, k if k < n_fast else thin_column + k - n_fast] = value
        return
    if posterior == SOFTMAX:
        softmax(scores, n_states, best, total)
        log_normalizer(best, total, row_log)
        for b in range(width):
            w = 1.0 if b < n_rows else 0.0
            if weighted and b < n_rows:
                w = weight[first + b, 0]
            if w > 0.0:
                totals[0] += w * row_log[b]
                totals[1] += 0.0 if total[b] > 0.0 else 1.0
            best[b] = w / total[b] if total[b] > 0.0 else 0.0
        for b in range(width):
            for k in range(n_fast):
                resp[b, k] = scores[k, b] * best[b]
            for t in range(n_thin):
                resp[b, thin_column + t] = scores[n_fast + t, b] * best[b]
        return
    hard(scores, n_states, best, label)
    for b in range(width):
        for k in range(resp.shape[1]):
            resp[b, k] = 0.0
    for b in range(n_rows):
        w = weight[first + b, 0] if weighted else 1.0
        k = label[b]
        resp[b, k if k < n_fast else thin_column + k - n_fast] = w
        totals[0] += w * best[b]


@kernel
def _centre_idle_rows(weight, first, n_rows, columns):
    """Move rows of weight 0 to the centre: they may lie so far out that 0 times their square is NaN."""
    for b in range(n_rows if weight.shape[0] > 0 else 0):
        largest = weight[first + b, 0]
        for k in range(1, weight.shape[1]):
            largest = max(largest, weight[first + b, k])
        if largest == 0.0:
            for d in range(columns.shape[0]):
                columns[d, b] = 0.0


@kernel
def _sweep_lane(X, weight, frame, theta, whitener, codes, first_row, last_row, statistics, totals):
    feature_map, posterior = codes
    n_features = X.shape[1]
    n_states, n_stats = theta.shape
    n_fast = n_states - whitener.shape[0]
    width = block_rows(n_features, n_states, n_stats, theta.itemsize)
    chunk = min(n_stats, max(1, _FEATURE_BYTES // (width * theta.itemsize)))
    columns = scratch(n_features, width, theta)
    centred = scratch(n_features, width, theta)
    y = scratch(n_features, width, theta)
    phi = scratch(chunk, width, theta)
    scores = scratch(n_states, width, theta)
    resp = scratch(width, statistics.shape[1], theta)
    best = np.empty(width, theta.dtype)
    total = np.empty(width, theta.dtype)
    row_log = np.empty(width)
    label = np.empty(width, np.int64)
    for first in range(first_row, last_row, width):
        n_rows = min(width, last_row - first)
        load_columns(X, frame, first, n_rows, columns)
        _centre_idle_rows(weight, first, n_rows, columns)
        if posterior != GIVEN:
            _score_block(columns, theta, whitener, feature_map, chunk, phi, y, centred, scores)
        elif n_fast > 0 and chunk >= n_stats:
            build_features(feature_map, columns, 0, n_stats, phi)
        _posterior_block(scores, n_fast, posterior, weight, first, n_rows, best, total, label, row_log, resp, totals)
        _accumulate_block(columns, resp, n_fast, whitener, feature_map, chunk, phi, y, centred, statistics)


@kernel
def _first_row(lane, n_lanes, n_rows, width):
    """First row of a lane: whole blocks, dealt evenly."""
    n_blocks = -(-n_rows // width)
    return min(n_rows, lane * n_blocks // n_lanes * width)


@kernel
def _sweep_serial(X, weight, frame, theta, whitener, codes, statistics, totals):
    n_lanes, n_rows = statistics.shape[0], X.shape[0]
    width = block_rows(X.shape[1], theta.shape[0], theta.shape[1], theta.itemsize)
    for lane in range(n_lanes):
        first, last = _first_row(lane, n_lanes, n_rows, width), _first_row(lane + 1, n_lanes, n_rows, width)
        _sweep_lane(X, weight, frame, theta, whitener, codes, first, last, statistics[lane], totals[lane])


@parallel
def _sweep_parallel(X, weight, frame, theta, whitener, codes, statistics, totals):
    n_lanes, n_rows = statistics.shape[0], X.shape[0]
    width = block_rows(X.shape[1], theta.shape[0], theta.shape[1], theta.itemsize)
    for lane in numba.prange(n_lanes):
        first, last = _first_row(lane, n_lanes, n_rows, width), _first_row(lane + 1, n_lanes, n_rows, width)
        _sweep_lane(X, weight, frame, theta, whitener, codes, first, last, statistics[lane], totals[lane])


def statistics(X, weight, frame, theta, whitener, feature_map, posterior, n_threads):
    """Expected sufficient statistics of all rows, one pass.

    Parameters
    ----------
    X : (N, D) float32 or float64, C-ordered
    weight : (N, 1), (0, 1) for weights of one, or (N, K) responsibilities times weights if posterior is GIVEN; float64
    frame : (2, D) float64, centre and scale: the kernel sees (X - centre) * scale
    theta : (K, P) of the dtype to compute in; thin states last, with only theta[:, 0] in use
    whitener : (n_thin, D + 1 or 2, D), see `whiten`
    feature_map, posterior : int codes of `features` and `posteriors`
    n_threads : int

    Returns
    -------
    sums : (K, P) float64
    log_likelihood : float, sum of weight * log-normaliser
    n_lost : int, rows that no state can have produced
    """
    unit = _weight_unit(weight, theta)
    if unit != 1.0:
        weight = weight / unit
    n_states, n_stats = theta.shape
    n_fast = n_states - len(whitener)
    n_columns = padded(n_fast, theta.itemsize) + len(whitener)
    n_lanes = _n_lanes(len(X), n_columns, n_stats, X.shape[1], theta)
    sums = np.zeros((n_lanes, n_stats, n_columns))
    totals = np.zeros((n_lanes, 2))
    arguments = (X, weight, frame, theta, whitener, (feature_map, posterior), sums, totals)
    _run(_sweep_serial, _sweep_parallel, arguments, len(X) * n_states * n_stats, n_lanes, n_threads)
    sums, totals = _add_lanes(sums), _add_lanes(totals)
    kept = np.r_[0:n_fast, n_columns - len(whitener) : n_columns]
    return np.ascontiguousarray(sums[:, kept].T) * unit, float(totals[0]) * unit, int(totals[1])


def _weight_unit(weight, theta):
    """Power of two to divide weights by: responsibilities times weights must lie inside the range of float32."""
    largest = weight.max(initial=0.0)
    if theta.dtype != np.float32 or largest == 0.0 or 2.0**-20 < largest < 2.0**20:
        return 1.0
    return 2.0 ** np.floor(np.log2(largest))


def _n_lanes(n_rows, n_columns, n_stats, n_features, theta):
    """Lanes for a shape, whatever the number of threads."""
    n_blocks = -(-n_rows // block_rows(n_features, len(theta), n_stats, theta.itemsize))
    by_memory = _LANE_BYTES // (8 * n_stats * n_columns)
    return min(n_blocks, max(_MIN_LANES, min(_MAX_LANES, by_memory)))


def _add_lanes(lanes):
    """Sum over axis 0, pairwise in a fixed order."""
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = np.concatenate([lanes[:half] + lanes[half : 2 * half], lanes[2 * half :]])
    return lanes[0]


def _run(serial, in_parallel, arguments, work, n_lanes, n_threads):
    """Choose between the two entries of a kernel; both give the same bits."""
    if n_threads == 1 or n_lanes == 1 or work < _SERIAL_WORK:
        serial(*arguments)
    else:
        with _jit.parallel_region(n_threads):
            in_parallel(*arguments)


@kernel
def _score_lane(X, frame, theta, whitener, feature_map, first_row, last_row, log_prob, labels, resp):
    n_features = X.shape[1]
    n_states, n_stats = theta.shape
    width = block_rows(n_features, n_states, n_stats, theta.itemsize)
    chunk = min(n_stats, max(1, _FEATURE_BYTES // (width * theta.itemsize)))
    columns = scratch(n_features, width, theta)
    centred = scratch(n_features, width, theta)
    y = scratch(n_features, width, theta)
    phi = scratch(chunk if len(whitener) < n_states else 1, width, theta)
    scores = scratch(n_states, width, theta)
    best = np.empty(width, theta.dtype)
    total = np.empty(width, theta.dtype)
    row_log = np.empty(width)
    label = np.empty(width, np.int64)
    for first in range(first_row, last_row, width):
        n_rows = min(width, last_row - first)
        load_columns(X, frame, first, n_rows, columns)
        _score_block(columns, theta, whitener, feature_map, chunk, phi, y, centred, scores)
        hard(scores, n_states, best, label)
        softmax(scores, n_states, best, total)
        log_normalizer(best, total, row_log)
        for b in range(n_rows):
            log_prob[first + b] = row_log[b]
            labels[first + b] = label[b]
        if resp.shape[0] > 0:
            for b in range(n_rows):
                inverse = 1.0 / total[b] if total[b] > 0.0 else 0.0
                for k in range(n_states):
                    resp[first + b, k] = scores[k, b] * inverse


@kernel
def _score_serial(X, frame, theta, whitener, feature_map, log_prob, labels, resp):
    _score_lane(X, frame, theta, whitener, feature_map, 0, X.shape[0], log_prob, labels, resp)


@parallel
def _score_parallel(X, frame, theta, whitener, feature_map, log_prob, labels, resp):
    n_rows = X.shape[0]
    width = block_rows(X.shape[1], theta.shape[0], theta.shape[1], theta.itemsize)
    n_lanes = min(_MAX_LANES, -(-n_rows // width))
    for lane in numba.prange(n_lanes):
        first, last = _first_row(lane, n_lanes, n_rows, width), _first_row(lane + 1, n_lanes, n_rows, width)
        _score_lane(X, frame, theta, whitener, feature_map, first, last, log_prob, labels, resp)


def score(X, frame, theta, whitener, feature_map, n_threads, want_resp=False):
    """Log-normaliser (N,), best state (N,) and, if wanted, responsibilities (N, K) of each row; see `statistics`."""
    n_rows, n_states = len(X), len(theta)
    log_prob = np.empty(n_rows)
    labels = np.empty(n_rows, np.int64)
    resp = np.empty((n_rows if want_resp else 0, n_states))
    arguments = (X, frame, theta, whitener, feature_map, log_prob, labels, resp)
    work = n_rows * (theta.size + whitener.size)
    _run(_score_serial, _score_parallel, arguments, work, n_rows, n_threads)
    return log_prob, labels, resp
