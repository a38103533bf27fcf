"""One pass over rows that were measured with noise of known covariance, each with its own: extreme deconvolution.

A row is x = v + e with v from the mixture and e ~ N(0, S). With T = Sigma + S of a component,

    x ~ N(mu, T),    v | x ~ N(mu + G (x - mu), C),    G = Sigma T^-1,  C = Sigma - Sigma T^-1 Sigma

Bovy, Hogg & Roweis (2011), Ann. Appl. Stat. 5, 1657-1677, equations 16 to 19. Every row has factors of its own, which
are computed for a block of rows at once, a row in each lane of the vectors. The lanes of rows have the arguments of
those in `completion`; noise is (N, D, D), or (N, 1, D) for variances, in the units of the data.
"""

import numpy as np

from fastem.kernels._arrays import aligned_empty
from fastem.kernels._jit import kernel
from fastem.kernels.completion import (
    ROWWISE,
    Components,
    completed_rows,
    finish_rows,
    pass_over,
    responsibilities,
    sums_over,
)
from fastem.kernels.exp_log import log
from fastem.kernels.features import FULL, n_statistics
from fastem.kernels.layout import clear, load_columns, tile_columns, turn
from fastem.kernels.patterns import NO_GROUPS
from fastem.kernels.posteriors import GIVEN
from fastem.kernels.products import ROWS
from fastem.kernels.sweep import add_moments, padded, take_weights

_LOG_2_PI = np.log(2.0 * np.pi)
_NEGLIGIBLE = 1e-25  # responsibility below which a row adds nothing to a component


@kernel
def _load_noise(noise, frame, rows, out):
    """out (D (D + 1) / 2, B) = lower triangles of the noise of some rows in the frame, row by row."""
    n_features, width = frame.shape[1], rows.shape[0]
    is_full = noise.shape[1] > 1 or n_features == 1
    p = 0
    for i in range(n_features):
        for j in range(i + 1):
            scale = frame[1, i] * frame[1, j]
            for b in range(width):
                if is_full:
                    out[p, b] = noise[rows[b], i, j] * scale
                else:
                    out[p, b] = noise[rows[b], 0, i] * scale if i == j else 0.0
            p += 1


@kernel
def _factor(covariance, noise, lower, inverse):
    """lower (P, B) = Cholesky factors of covariance (D, D) plus the noise of each row, inverse (D, B) of diagonals."""
    n_features, width = inverse.shape
    for i in range(n_features):
        row = i * (i + 1) // 2
        for j in range(i + 1):
            other, p = j * (j + 1) // 2, row + j
            value = covariance[i, j]
            for b in range(width):
                lower[p, b] = noise[p, b] + value
            for m in range(j):
                for b in range(width):
                    lower[p, b] -= lower[row + m, b] * lower[other + m, b]
            if j < i:
                for b in range(width):
                    lower[p, b] *= inverse[j, b]
            else:
                for b in range(width):
                    lower[p, b] = np.sqrt(lower[p, b])
                for b in range(width):
                    inverse[i, b] = 1.0 / lower[p, b]


@kernel
def _whiten(columns, means, k, lower, inverse, y):
    """y (D, B) = L^-1 (x - mu)."""
    n_features, width = columns.shape
    for i in range(n_features):
        row, mean = i * (i + 1) // 2, means[k, i]
        for b in range(width):
            y[i, b] = columns[i, b] - mean
        for m in range(i):
            for b in range(width):
                y[i, b] -= lower[row + m, b] * y[m, b]
        for b in range(width):
            y[i, b] *= inverse[i, b]


@kernel
def _score(y, inverse, constant, room, out):
    """out (B,) = constant - log|T| / 2 - |y|^2 / 2; logarithms are of two factors at a time."""
    n_features, width = y.shape
    for b in range(width):
        out[b] = constant
    for i in range(0, n_features, 2):
        for b in range(width):
            room[b] = inverse[i, b]
        for b in range(width if i + 1 < n_features else 0):
            room[b] *= inverse[i + 1, b]
        for b in range(width):
            out[b] += log(room[b])
    for i in range(n_features):
        for b in range(width):
            out[b] -= 0.5 * y[i, b] * y[i, b]


@kernel
def _add_spread(covariance, lower, inverse, resp, whole, sums, k):
    """sums[1 + D:, k] += the sum of resp (B,) times C = Sigma - U'U, U = L^-1 Sigma; `whole` (D * D, B) holds U."""
    n_features, width = inverse.shape
    total = 0.0
    for b in range(width):
        total += resp[b]
    for i in range(n_features):
        row = i * (i + 1) // 2
        for j in range(n_features):
            u, value = i * n_features + j, covariance[i, j]
            for b in range(width):
                whole[u, b] = value
            for m in range(i):
                for b in range(width):
                    whole[u, b] -= lower[row + m, b] * whole[m * n_features + j, b]
            for b in range(width):
                whole[u, b] *= inverse[i, b]
    p = 1 + n_features
    for i in range(n_features):
        for j in range(i + 1):
            taken = 0.0
            for m in range(n_features):
                for b in range(width):
                    taken += resp[b] * whole[m * n_features + i, b] * whole[m * n_features + j, b]
            sums[p, k] += total * covariance[i, j] - taken
            p += 1


@kernel
def _noisy_lane(products, data, groups, states, code, first_row, last_row, sums, totals, out):
    X, weight, frame, noise = data
    means, _, _, covariance, peak = states
    n_states, n_features = means.shape
    n_pairs = n_features * (n_features + 1) // 2
    width = completed_rows(X.shape[0], n_states, n_features)
    tiles = aligned_empty(tile_columns(n_features, X.itemsize), width, means)
    columns = tiles[:n_features]
    spread, lower = aligned_empty(n_pairs, width, means), aligned_empty(n_pairs, width, means)
    inverse, y = aligned_empty(n_features, width, means), aligned_empty(n_features, width, means)
    whole = aligned_empty(n_features * n_features, width, means)
    scores = aligned_empty(n_states, width, means)
    turned = aligned_empty(width, padded(n_features, 8), means)
    weighted = aligned_empty(n_features, width, means)
    second = aligned_empty(ROWS, turned.shape[1], means)
    clear(turned)
    best, total, row_log, mass = np.empty(width), np.empty(width), np.empty(width), np.empty(width)
    rows = np.empty(width, np.int64)
    constant = -0.5 * n_features * _LOG_2_PI
    for d in range(n_features):
        constant += np.log(frame[1, d])
    for place in range(first_row, last_row, width):
        n_rows = min(width, last_row - place)
        for b in range(width):
            rows[b] = place + min(b, n_rows - 1)
        load_columns(X, frame, rows, n_rows, tiles)
        _load_noise(noise, frame, rows, spread)
        if code < ROWWISE:
            take_weights(code, weight, rows, n_rows, mass, columns)
        for k in range(n_states if code != GIVEN else 0):
            _factor(covariance[k], spread, lower, inverse)
            _whiten(columns, means, k, lower, inverse, y)
            _score(y, inverse, peak[k] + constant, total, scores[k])
        if code >= ROWWISE:
            finish_rows(code, scores, best, total, rows, n_rows, out)
            continue
        responsibilities(code, scores, weight, rows, n_rows, mass, best, total, row_log, totals)
        for k in range(n_states):
            largest = 0.0
            for b in range(width):
                largest = max(largest, scores[k, b] if code == GIVEN else scores[k, b] / max(mass[b], 1e-300))
            if largest < _NEGLIGIBLE:
                continue
            _factor(covariance[k], spread, lower, inverse)
            _whiten(columns, means, k, lower, inverse, y)
            for i in range(n_features - 1, -1, -1):  # y = T^-1 (x - mu)
                for m in range(i + 1, n_features):
                    p = m * (m + 1) // 2 + i
                    for b in range(width):
                        y[i, b] -= lower[p, b] * y[m, b]
                for b in range(width):
                    y[i, b] *= inverse[i, b]
            for i in range(n_features):  # what is expected of v, about mu
                for b in range(width):
                    columns_k = 0.0
                    for m in range(n_features):
                        columns_k += covariance[k, i, m] * y[m, b]
                    whole[i, b] = columns_k
            expected = whole[:n_features]
            turn(expected, n_features, width, turned)
            add_moments(products[1], expected, turned, scores[k], weighted, second, sums, k)
            _add_spread(covariance[k], lower, inverse, scores[k], whole, sums, k)


@kernel
def _noisy_diagonal_lane(products, data, groups, states, code, first_row, last_row, sums, totals, out):
    """Independent columns whose noise is so too; sums as in `completion._diagonal_lane`, where all is seen."""
    X, weight, frame, noise = data
    _, whitener, _, _, peak = states
    n_states, n_features = whitener.shape[0], X.shape[1]
    width = completed_rows(X.shape[0], n_states, n_features)
    tiles = aligned_empty(tile_columns(n_features, X.itemsize), width, whitener)
    columns = tiles[:n_features]
    spread, gaps = aligned_empty(n_features, width, whitener), aligned_empty(n_features, width, whitener)
    inverse = aligned_empty(n_features, width, whitener)
    scores = aligned_empty(n_states, width, whitener)
    best, total, row_log, mass = np.empty(width), np.empty(width), np.empty(width), np.empty(width)
    rows = np.empty(width, np.int64)
    constant = -0.5 * n_features * _LOG_2_PI
    for d in range(n_features):
        constant += np.log(frame[1, d])
    for place in range(first_row, last_row, width):
        n_rows = min(width, last_row - place)
        for b in range(width):
            rows[b] = place + min(b, n_rows - 1)
        load_columns(X, frame, rows, n_rows, tiles)
        for d in range(n_features):
            for b in range(width):
                spread[d, b] = noise[rows[b], 0, d] * frame[1, d] * frame[1, d]
        if code < ROWWISE:
            take_weights(code, weight, rows, n_rows, mass, columns)
        for k in range(n_states if code != GIVEN else 0):
            for d in range(n_features):
                root, mean = whitener[k, 0, d], whitener[k, 1, d]
                variance = 1.0 / (root * root)
                for b in range(width):
                    inverse[d, b] = 1.0 / np.sqrt(variance + spread[d, b])
                for b in range(width):
                    gaps[d, b] = (columns[d, b] - mean) * inverse[d, b]
            _score(gaps, inverse, peak[k] + constant, total, scores[k])
        if code >= ROWWISE:
            finish_rows(code, scores, best, total, rows, n_rows, out)
            continue
        responsibilities(code, scores, weight, rows, n_rows, mass, best, total, row_log, totals)
        for k in range(n_states):
            weighed = 0.0
            for b in range(width):
                weighed += scores[k, b]
            sums[0, k] += weighed
            for d in range(n_features):
                root, mean = whitener[k, 0, d], whitener[k, 1, d]
                variance, first, squares = 1.0 / (root * root), 0.0, 0.0
                for b in range(width):
                    gain = variance / (variance + spread[d, b])
                    gap = gain * (columns[d, b] - mean)
                    first += scores[k, b] * gap
                    squares += scores[k, b] * (gap * gap + gain * spread[d, b])
                sums[1 + d, k] += first
                sums[1 + n_features + d, k] += squares
                sums[1 + 2 * n_features + d, k] += weighed


def sums_of_noisy(X, weight, frame, noise, components: Components, posterior, n_threads):
    """Expected statistics of v; as `completion.sums_of_completed`, or `sums_of_independent` without covariances."""
    n_states, n_features = components.means.shape
    lane, work, n_stats = _choice(components, n_features)
    rows = X, weight, frame, noise
    return sums_over(lane, rows, NO_GROUPS, components, posterior, n_stats, len(X) * n_states * work, n_threads)


def for_each_noisy_row(X, frame, noise, components: Components, code, out, n_threads):
    """Write to out what a code asks of each row, as `completion.for_each_row`."""
    n_states, n_features = components.means.shape
    lane, work, _ = _choice(components, n_features)
    rows = X, np.empty((0, 1)), frame, noise
    return pass_over(lane, rows, components, code, out, len(X) * n_states * work, n_threads)


def _choice(components, n_features):
    """Lane, multiply-adds of a row and a component, and number of statistics."""
    if components.covariance.shape[1] == 0:
        return _noisy_diagonal_lane, 10 * n_features, 1 + 3 * n_features
    return _noisy_lane, n_features**3, int(n_statistics(FULL, n_features))
