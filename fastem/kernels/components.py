"""Normal components with full covariances, from parameters to what a sweep takes and back, in a call each.

For components of few columns: there NumPy, at a microsecond for each of dozens of operations, takes longer than the
sweep over a few hundred rows. Formulas and names are those of `families/gaussian.py`, whose methods choose.

In a loop that the compiler may reorder nothing is stored beside a sum: it asks first whether the arrays are near each
other in memory, as short ones may be or not, and would take the sum in another order there.
"""

import numpy as np

from fastem.kernels._arrays import aligned_empty, matrix_at
from fastem.kernels._jit import exact, from_python, kernel
from fastem.kernels.batches import (
    LANES,
    factor,
    half_log_det,
    invert_factor,
    put_matrices,
    scratch_of,
    subtract_products,
    take_matrices,
)
from fastem.kernels.layout import turn

WIDE = 17  # columns from which eight components at a time are worth what they take to compile, a second
_FEW = 2  # components that one by one are as fast


@from_python
@kernel
def cancellation(roots, scale, reach, deviation, worst, largest):
    """worst (K,) = largest squared coordinate of the outermost row, whitened; largest (2,) its maximum, a usual row's.

    roots (K, D, D) are upper triangular, U U' the precision; the others (D,) describe the rows in the frame.
    """
    n_components, n_features = roots.shape[:2]
    largest[0] = largest[1] = 0.0
    for k in range(n_components):
        worst[k] = 0.0
        for i in range(n_features):
            total = 0.0
            for j in range(i, n_features):
                total += roots[k, i, j] * roots[k, i, j]
            total /= scale[i] * scale[i]
            worst[k] = max(worst[k], total * reach[i] * reach[i])
            largest[1] = max(largest[1], total * deviation[i] * deviation[i])
        largest[0] = max(largest[0], worst[k])


@from_python
@kernel
def natural_full(means, roots, log_weights, center, scale, theta, whitener, peaks):
    """theta (K, P) of the full feature map, whitener (K, D + 1, D) and peaks (K,) of components in the frame."""
    n_components, n_features = means.shape
    y, w = aligned_empty(1, n_features, roots)[0], aligned_empty(n_features, n_features, roots)
    unit = 1.0 / scale  # exact: the scales are powers of two
    for k in range(n_components):
        log_constant = -0.5 * n_features * np.log(2.0 * np.pi)
        for i in range(n_features):
            log_constant += np.log(roots[k, i, i])
            y[i] = (means[k, i] - center[i]) * scale[i]
            whitener[k, n_features, i] = y[i]
            for j in range(n_features):
                w[i, j] = roots[k, j, i] * unit[j] if j <= i else 0.0
                whitener[k, i, j] = w[i, j]
        peaks[k] = log_constant + log_weights[k]
        square = 0.0
        for i in range(n_features - 1, -1, -1):  # W times the mean, in its place, from the last
            total = 0.0
            for j in range(i + 1):
                total += w[i, j] * y[j]
            y[i] = total
            square += total * total
        theta[k, 0] = peaks[k] - 0.5 * square
        p = 1 + n_features
        for i in range(n_features):
            linear = 0.0
            for m in range(i, n_features):
                linear += w[m, i] * y[m]
            theta[k, 1 + i] = linear
            for j in range(i + 1):
                precision = 0.0
                for m in range(i, n_features):
                    precision += w[m, i] * w[m, j]
                theta[k, p] = -precision if j < i else -0.5 * precision
                p += 1


@from_python
@kernel
def moments_full(sums, center, scale, smallest, counts, means, covariances):
    """Weight (K,), mean (K, D) and covariance (K, D, D) of components from their sums (K, P) in the frame."""
    n_components, n_features = means.shape
    mean = aligned_empty(1, n_features, means)[0]
    unit = 1.0 / scale  # exact: the scales are powers of two
    for k in range(n_components):
        counts[k] = sums[k, 0]
        per_row = 1.0 / max(counts[k], smallest)
        p = 1 + n_features
        for i in range(n_features):
            mean[i] = sums[k, 1 + i] * per_row
            means[k, i] = center[i] + mean[i] * unit[i]
            for j in range(i + 1):
                second = sums[k, p] * per_row - mean[i] * mean[j]
                covariances[k, i, j] = covariances[k, j, i] = second * (unit[i] * unit[j])
                p += 1


@from_python
@exact
def mode_full(counts, prior, reg_covar, smallest, means, covariances):
    """Posterior mode, in the place of weighted means (K, D) and covariances (K, D, D); see `Gaussian._with_prior`.

    Covariances become symmetric to the last bit. prior: its mean (D,), the rows that it is worth to a mean and to a
    covariance, and its scatter (D, D).
    """
    center, mean_rows, rows, scatter = prior
    n_components, n_features = means.shape
    gap = aligned_empty(1, n_features, means)[0]
    for k in range(n_components):
        pull = mean_rows / max(counts[k] + mean_rows, smallest)
        per_row = 1.0 / max(counts[k] + rows, smallest)
        own = counts[k] * per_row  # at most 1: a count times a covariance may overflow
        for i in range(n_features):
            gap[i] = means[k, i] - center[i]
            means[k, i] -= pull * gap[i]
            for j in range(i + 1):
                covariance = 0.5 * (covariances[k, i, j] + covariances[k, j, i])
                if rows > 0.0 or mean_rows > 0.0:
                    covariance = own * (covariance + pull * gap[i] * gap[j]) + per_row * scatter[i, j]
                covariances[k, i, j] = covariances[k, j, i] = covariance
            covariances[k, i, i] += reg_covar


@from_python
@exact
def log_prior_full(means, roots, prior, value):
    """value (1,) = log-density of the prior of `mode_full`, up to a constant; see `ResolvedPrior.log_density`."""
    center, mean_rows, rows, scatter = prior
    n_components, n_features = means.shape
    total = 0.0
    for k in range(n_components):
        square, trace = 0.0, 0.0
        for i in range(n_features):
            total += rows * np.log(roots[k, i, i])
            y = 0.0
            for j in range(i + 1):
                y += roots[k, j, i] * (means[k, j] - center[j])
                turned = 0.0
                for m in range(i + 1):
                    turned += roots[k, m, i] * scatter[m, j]
                trace += turned * roots[k, j, i]
            square += y * y
        total -= 0.5 * (mean_rows * square + trace)
    value[0] = total


@from_python
@exact
def add_log_prior_of_weights(logs, extra, value):
    """value (1,) += extra times the sum of the logarithms (K,) of the weights."""
    total = 0.0
    for k in range(logs.shape[0]):
        total += logs[k]
    value[0] += extra * total


@from_python
@exact
def share_out(counts, extra, weights):
    """weights (K,) = counts and so many rows more each, over their sum."""
    total = 0.0
    for k in range(counts.shape[0]):
        total += counts[k] + extra
    for k in range(counts.shape[0]):
        weights[k] = (counts[k] + extra) / total


@from_python
@exact
def take_logs(values, logs):
    """logs (K,) = logarithms of values that are not negative."""
    for k in range(values.shape[0]):
        logs[k] = np.log(values[k])


@from_python
@kernel
def blend_full(one, two, share, smallest, blended):
    """(1 - share) of the moments of one and share of those of two; each is counts (K,), means (K, D), covariances."""
    counts, means, covariances = blended
    n_components, n_features = means.shape
    gap = aligned_empty(1, n_features, means)[0]
    for k in range(n_components):
        added = share * two[0][k]
        counts[k] = (1.0 - share) * one[0][k] + added
        part = added / max(counts[k], smallest)
        for i in range(n_features):
            gap[i] = two[1][k, i] - one[1][k, i]
            means[k, i] = one[1][k, i] + part * gap[i]
        for i in range(n_features):
            for j in range(n_features):
                change = two[2][k, i, j] - one[2][k, i, j] + (1.0 - part) * (gap[i] * gap[j])
                covariances[k, i, j] = one[2][k, i, j] + part * change


@from_python
@kernel
def invert_roots(covariances, smallest, dependent, roots, good):
    """roots (K, D, D) = upper triangular U with U U' the inverse of each covariance; good (1,) = K.

    With a bad one good is less than K. Bad is a component whose deviation in a column, given those before, is not above
    smallest (D,), or of which a column's variance inflation factor is above `dependent`.
    """
    n_components, n_features = covariances.shape[:2]
    lower = aligned_empty(n_features, n_features, covariances)
    inverse = aligned_empty(1, n_features, covariances)[0]  # of the diagonal: divisions took two thirds of the time
    for k in range(n_components):
        for i in range(n_features):
            for j in range(i + 1):
                total = covariances[k, i, j]
                for m in range(j):
                    total -= lower[i, m] * lower[j, m]
                if j < i:
                    lower[i, j] = total * inverse[j]
                    continue
                if not total > 0.0 or not np.sqrt(total) > smallest[i]:
                    good[0] = k
                    return
                lower[i, i] = np.sqrt(total)
                inverse[i] = 1.0 / lower[i, i]
        for j in range(n_features):
            for i in range(n_features):  # U' = L^-1, a column at a time
                if i < j:
                    roots[k, j, i] = 0.0
                    continue
                total = 1.0 if i == j else 0.0
                for m in range(j, i):
                    total -= lower[i, m] * roots[k, j, m]
                roots[k, j, i] = total * inverse[i]
        for i in range(n_features):
            precision = 0.0
            for j in range(i, n_features):
                precision += roots[k, i, j] * roots[k, i, j]
            if precision * covariances[k, i, i] > dependent:
                good[0] = k
                return
    good[0] = n_components


@from_python
@kernel
def natural_of_wide(means, roots, log_weights, center, scale, theta, whitener, peaks):
    """The same as `natural_full`, eight components at a time; below the diagonal roots must be 0."""
    n_components, n_features = means.shape
    n_stats, row = theta.shape[1], LANES * n_features
    table, turned, z, signs = scratch_of(n_features)
    stats, y, logs, rows = np.empty(LANES * n_stats), np.empty(row), np.empty(LANES), np.empty((LANES, n_stats))
    unit = 1.0 / scale  # exact: the scales are powers of two
    for first in range(0, n_components, LANES):
        take_matrices(roots, first, table)
        half_log_det(table, n_features, logs)
        for i in range(n_features):
            for p in range(i * row, (i + 1) * row):
                table[p] *= unit[i]
            for c in range(LANES):
                z[LANES * i + c] = (means[min(first + c, n_components - 1), i] - center[i]) * scale[i]
        for p in range(row):
            y[p] = 0.0
        for p in range(LANES * n_stats):
            stats[p] = 0.0
        # W times the mean, then W' times this, then W' W, of which the rows of U have all in order
        subtract_products(y, 0, LANES, table, 0, LANES, row, z, 0, LANES, n_features, signs, LANES, n_features)
        subtract_products(stats, LANES, LANES, table, 0, row, LANES, y, 0, LANES, n_features, signs, LANES, n_features)
        p = LANES + row
        for i in range(n_features):
            last = i * row + LANES * i
            subtract_products(
                stats, p, LANES, table, LANES * i, row, LANES, table, last, LANES, n_features - i, signs, 0, i + 1
            )
            p += LANES * i
            for c in range(LANES):
                stats[p + c] *= 0.5
            p += LANES
        for c in range(min(LANES, n_components - first)):
            peaks[first + c] = logs[c] - 0.5 * n_features * np.log(2.0 * np.pi) + log_weights[first + c]
            stats[c] = peaks[first + c]
        for i in range(n_features):
            for c in range(LANES):
                stats[c] -= 0.5 * y[LANES * i + c] * y[LANES * i + c]
        turn(matrix_at(stats, 0, n_stats, LANES), n_stats, rows.shape[0], rows)
        for c in range(min(LANES, n_components - first)):
            k = first + c
            for p in range(n_stats):
                theta[k, p] = rows[c, p]
            turn(roots[k], n_features, n_features, matrix_at(turned, 0, n_features, n_features))
            for i in range(n_features):
                for j in range(n_features):
                    whitener[k, i, j] = turned[i * n_features + j] * unit[j]
            for i in range(n_features):
                whitener[k, n_features, i] = z[LANES * i + c]


@from_python
@kernel
def invert_roots_of_wide(covariances, smallest, dependent, roots, good):
    """The same as `invert_roots`, eight at a time; with a bad component roots are undefined."""
    n_components, n_features = covariances.shape[:2]
    row = LANES * n_features
    table, inverted, inverse, signs = scratch_of(n_features)
    for first in range(0, n_components, LANES):
        take_matrices(covariances, first, table)
        factor(table, n_features, signs, inverse)
        for c in range(min(LANES, n_components - first)):
            for i in range(n_features):
                if not table[i * row + LANES * i + c] > smallest[i]:
                    good[0] = first + c
                    return
        invert_factor(table, n_features, inverse, inverted)
        put_matrices(inverted, n_features * n_features, first, roots)
        for i in range(n_features):  # diagonals of the precisions
            for c in range(LANES):
                inverse[LANES * i + c] = 0.0
            last = i * row + LANES * i
            subtract_products(
                inverse, LANES * i, LANES, inverted, last, 0, LANES, inverted, last, LANES, n_features - i,
                signs, LANES, 1,
            )  # fmt: skip
        for c in range(min(LANES, n_components - first)):
            for i in range(n_features):
                if inverse[LANES * i + c] * covariances[first + c, i, i] > dependent:
                    good[0] = first + c
                    return
    good[0] = n_components


def kernels_of(n_components, n_features):
    """What gives natural parameters and what gives roots of so many components of so many columns."""
    if n_features >= WIDE and n_components > _FEW:
        return natural_of_wide, invert_roots_of_wide
    return natural_full, invert_roots
