"""Arithmetic on unevaluated sums of two float64 (about 32 digits), for covariances too badly conditioned for one.

Dekker (1971), Numer. Math. 18, 224-242; products without fma, so that interpreter and machine code agree.
"""

import numpy as np

from fastem.kernels._jit import compensated, from_python

_SPLIT = 134217729.0  # 2**27 + 1


@compensated
def two_sum(a, b):
    """a + b as rounded sum and exact error."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


@compensated
def two_product(a, b):
    """a b as rounded product and exact error, for |a|, |b| below 1e292."""
    p = a * b
    c = _SPLIT * a
    a_high = c - (c - a)
    a_low = a - a_high
    c = _SPLIT * b
    b_high = c - (c - b)
    b_low = b - b_high
    return p, ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low


@compensated
def _subtract_product(s, a, b):
    """s - a b of pairs."""
    p, e = two_product(a[0], b[0])
    e += a[0] * b[1] + a[1] * b[0]
    high, low = two_sum(s[0], -p)
    return two_sum(high, low + (s[1] - e))


@compensated
def _divide(a, b):
    """a / b of pairs."""
    q = a[0] / b[0]
    r = _subtract_product(a, (q, 0.0), b)
    return two_sum(q, (r[0] + r[1]) / b[0])


@compensated
def _square_root(a):
    """Square root of a positive pair."""
    q = np.sqrt(a[0])
    r = _subtract_product(a, (q, 0.0), (q, 0.0))
    return two_sum(q, (r[0] + r[1]) / (2.0 * q))


@from_python
@compensated
def whitener_of(covariance, lower, whitener):
    """Rows 0..D-1 and D..2D-1 of `whitener` = high and low parts of W = L^-1, covariance = L L'; False if not definite.

    `lower` (2, D, D) is scratch.
    """
    n = covariance.shape[0]
    for j in range(n):
        for i in range(j, n):
            s = (covariance[i, j], 0.0)
            for k in range(j):
                s = _subtract_product(s, (lower[0, i, k], lower[1, i, k]), (lower[0, j, k], lower[1, j, k]))
            if i == j:
                if not s[0] > 0.0:
                    return False
                s = _square_root(s)
            else:
                s = _divide(s, (lower[0, j, j], lower[1, j, j]))
            lower[0, i, j], lower[1, i, j] = s
    for j in range(n):
        for i in range(n):
            s = (1.0 if i == j else 0.0, 0.0)
            if i >= j:
                for k in range(j, i):
                    s = _subtract_product(s, (lower[0, i, k], lower[1, i, k]), (whitener[k, j], whitener[n + k, j]))
                s = _divide(s, (lower[0, i, i], lower[1, i, i]))
            whitener[i, j], whitener[n + i, j] = s
    return True


@compensated
def whiten_exactly(columns, whitener, y):
    """y (D, B) = W (columns - mean) to about one unit of rounding: W in two parts, the mean in the last row."""
    n_features, width = columns.shape
    for i in range(n_features):
        for b in range(width):
            high, low = 0.0, 0.0
            for j in range(i + 1):
                d, d_error = two_sum(columns[j, b], -whitener[2 * n_features, j])
                p, error = two_product(whitener[i, j], d)
                error += whitener[i, j] * d_error + whitener[n_features + i, j] * d
                high, e = two_sum(high, p)
                low += e + error
            y[i, b] = high + low
