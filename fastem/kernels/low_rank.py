"""The fused pass for normal states whose covariance is diagonal but for a few factors: K D q multiply-adds a row.

With Sigma = Lambda Lambda' + Psi, M = I + Lambda' Psi^-1 Lambda = L L' and B = L^-1 Lambda' Psi^-1 (q, D), a squared
distance is z' Psi^-1 z - |B z|^2 (Woodbury), where z = x - mean.

States are taken one after the other, and every sum is about a state's own mean, so that nothing cancels however far
that is from the centre. (Products of all states at once, with squares about the centre, were 1.6 times as fast at 64
columns and 4 factors, and 1.2 times at 784 and 10.)
"""

from typing import NamedTuple

import numpy as np

from fastem.kernels._arrays import aligned_empty
from fastem.kernels._calls import address, call_at
from fastem.kernels._jit import kernel, piece
from fastem.kernels.exponentials import softmax
from fastem.kernels.layout import clear, load_columns, tile_columns, turn
from fastem.kernels.log_likelihood import count_rows
from fastem.kernels.posteriors import SOFTMAX
from fastem.kernels.products import product_addresses
from fastem.kernels.pruning import NOTHING
from fastem.kernels.sweep import (
    States,
    _n_lanes,
    block_rows,
    padded,
    run_lanes,
    take_lanes,
    take_weights,
)

_LOW_RANK = -2  # code that no feature map has


class LowRank(NamedTuple):
    """K states as the pass takes them, float64."""

    means: np.ndarray  # (K, D)
    precisions: np.ndarray  # (K, D) reciprocals of Psi
    projections: np.ndarray  # (K, q, D) the B
    peaks: np.ndarray  # (K,) score at the mean


class LowRankSums(NamedTuple):
    """Sums over rows of r times products of z = x - mean and y = B z."""

    counts: np.ndarray  # (K,)
    first: np.ndarray  # (K, D) z
    squares: np.ndarray  # (K, D) z**2
    cross: np.ndarray  # (K, D, q) z y'
    factors: np.ndarray  # (K, q) y
    inner: np.ndarray  # (K, q, q) y y'


@piece
def _center(columns, theta, k, z, row):
    """z[:D] (D, B) = columns - mean of state k; row (B,) = z' Psi^-1 z."""
    n_features, width = columns.shape
    for b in range(width):
        row[b] = 0.0
    for d in range(n_features):
        mean, precision = theta[k, d], theta[k, n_features + d]
        for b in range(width):
            value = columns[d, b] - mean
            z[d, b] = value
            row[b] += value * value * precision


@kernel
def _low_rank_lane(products, X, weight, frame, states, posterior, skip, first_row, last_row, sums, totals):
    """States hold means and precisions (K, 2 D), projections (K, q, D) and peaks."""
    _, theta, _, projections, peak, _ = states
    n_states, n_factors, n_features = projections.shape
    width = block_rows(X.shape[0], n_features, n_states, theta.shape[1], theta.itemsize)
    n_sums, n_padded = n_features + n_factors + 1, sums.shape[1] - 1
    tiles = aligned_empty(tile_columns(n_features, X.itemsize), width, theta)
    columns = tiles[:n_features]
    z = aligned_empty(n_features + n_factors, width, theta)
    y = aligned_empty(n_states * n_factors, width, theta)
    weighted = aligned_empty(n_factors + 1, width, theta)
    turned = aligned_empty(width, n_padded, theta)
    clear(turned)
    scores = aligned_empty(n_states, width, theta)
    best = np.empty(width)
    total = np.empty(width)
    row_log = np.empty(width)
    mass = np.empty(width)
    rows = np.empty(width, np.int64)
    for first in range(first_row, last_row, width):
        n_rows = min(width, last_row - first)
        for b in range(width):
            rows[b] = first + min(b, n_rows - 1)
        load_columns(X, frame, rows, n_rows, tiles)
        take_weights(posterior, weight, rows, n_rows, mass, columns)
        for k in range(n_states):
            row, mine = scores[k], y[k * n_factors : (k + 1) * n_factors]
            _center(columns, theta, k, z, row)
            call_at(products[0], (projections[k], 0, z, n_factors, 0, width, n_features, mine, True))
            for j in range(n_factors):
                for b in range(width):
                    row[b] -= mine[j, b] * mine[j, b]
            for b in range(width):
                row[b] = peak[k] - 0.5 * row[b]
        softmax(scores, n_states, mass, best, total)
        count_rows(mass, best, total, row_log, totals)
        for k in range(n_states):
            mine, row, start = y[k * n_factors : (k + 1) * n_factors], scores[k], k * n_sums
            count = 0.0
            for b in range(width):
                weighted[n_factors, b] = row[b]
                count += row[b]
            for d in range(n_features):
                mean, square = theta[k, d], 0.0
                for b in range(width):
                    value = columns[d, b] - mean
                    z[d, b] = value
                    square += value * value * row[b]
                sums[start + d, n_padded] += square
            for j in range(n_factors):
                for b in range(width):
                    z[n_features + j, b] = mine[j, b]
                    weighted[j, b] = mine[j, b] * row[b]
            turn(weighted, n_factors + 1, width, turned)
            out = sums[start : start + n_features + n_factors]
            call_at(products[1], (z, 0, turned, n_features + n_factors, 0, n_padded, width, out, False))
            sums[start + n_features + n_factors, 0] += count


def low_rank_statistics(X, weight, frame, states, n_threads):
    """Expected statistics of all rows, one pass; see `sweep.statistics`.

    Parameters
    ----------
    X : (N, D) float32 or float64, C-ordered
    weight : (N, 1), or (0, 1) for weights of one; float64
    frame : (2, D) float64, centre and scale: the kernel sees (X - centre) * scale
    states : LowRank, in the frame
    n_threads : int

    Returns
    -------
    LowRankSums, the log-likelihood, and the number of rows that no state can have produced
    """
    n_states, n_factors, n_features = states.projections.shape
    theta = np.concatenate([states.means, states.precisions], axis=1)
    n_sums, n_padded = n_features + n_factors + 1, int(padded(n_factors + 1, theta.itemsize))
    n_lanes = _n_lanes(len(X), n_padded + 1, n_states * n_sums, n_features, theta)
    sums = np.empty((n_lanes, n_states * n_sums, n_padded + 1))
    totals = np.empty((n_lanes, 1, 3))
    projections = np.ascontiguousarray(states.projections)
    packed = tuple(States(_LOW_RANK, theta, 0, projections, states.peaks))
    arguments = (product_addresses(theta, sums[0]), X, weight, frame, packed, SOFTMAX, tuple(NOTHING))
    assert all(a.flags.c_contiguous for a in (X, weight, frame, theta, projections))
    lane = address(_low_rank_lane, (*arguments, 0, 0, sums[0], totals[0, 0]))
    work = len(X) * projections.size
    run_lanes(take_lanes, (lane, *arguments, sums, totals), work, n_lanes, n_threads)
    table = sums[0].reshape(n_states, n_sums, n_padded + 1)
    of_rows, of_factors = table[:, :n_features], table[:, n_features : n_features + n_factors]
    found = LowRankSums(
        table[:, -1, 0].copy(),
        of_rows[:, :, n_factors].copy(),
        of_rows[:, :, n_padded].copy(),
        of_rows[:, :, :n_factors].copy(),
        of_factors[:, :, n_factors].copy(),
        of_factors[:, :, :n_factors].copy(),
    )
    return found, float(totals[0, 0, 0]), int(totals[0, 0, 1])
