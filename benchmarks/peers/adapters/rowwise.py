"""EM for normal mixtures under missing values, row by row in NumPy: Ghahramani & Jordan (1994), as it is written.

A peer to measure against, and the oracle of the tests: nothing in it is shared with fastem. One component is the
multivariate normal with missing values (Little & Rubin 2002, section 11.2).
"""

import numpy as np

TITLE = "NumPy, row by row"
INSTALL = "it comes with fastem"
FITS = ("normal missing",)  # mixtures too, but slowly
DTYPES = ("float64",)
TOLERANCE = 1e-9
TOO_SLOW = 200.0  # seconds of an iteration


def version():
    """NumPy's."""
    return np.__version__


def prepare(X, start, covariance_type):
    """Run so many iterations from the start."""
    parameters = start["weights"], start["means"], start["covariances"]

    def run(n_iter):
        found = parameters
        for _ in range(n_iter):
            found = maximize(*expectations(X, *found)[1:])
        return found

    return run


def expectations(X, weights, means, covariances, sample_weight=None):
    """Log-likelihood, and for each component weight (K,), sum (K, D) and second moment (K, D, D) of completed rows."""
    n_components, n_features = means.shape
    counts, first = np.zeros(n_components), np.zeros((n_components, n_features))
    second, total = np.zeros((n_components, n_features, n_features)), 0.0
    sample_weight = np.ones(len(X)) if sample_weight is None else sample_weight
    for x, w in zip(X, sample_weight, strict=True):
        seen = ~np.isnan(x)
        if w == 0 or not seen.any():
            continue
        scores, completed, spreads = np.empty(n_components), [], []
        for k in range(n_components):
            mean, covariance = means[k], covariances[k]
            inner = covariance[np.ix_(seen, seen)]
            gap = x[seen] - mean[seen]
            slopes = np.linalg.solve(inner, covariance[np.ix_(seen, ~seen)]).T
            full, spread = x.copy(), np.zeros((n_features, n_features))
            full[~seen] = mean[~seen] + slopes @ gap
            spread[np.ix_(~seen, ~seen)] = covariance[np.ix_(~seen, ~seen)] - slopes @ covariance[np.ix_(seen, ~seen)]
            log_det = np.linalg.slogdet(2 * np.pi * inner)[1]
            with np.errstate(divide="ignore"):
                scores[k] = np.log(weights[k]) - 0.5 * (log_det + gap @ np.linalg.solve(inner, gap))
            completed.append(full)
            spreads.append(spread)
        best = scores.max()
        resp = np.exp(scores - best)
        total += w * (best + np.log(resp.sum()))
        resp *= w / resp.sum()
        for k in range(n_components):
            counts[k] += resp[k]
            first[k] += resp[k] * completed[k]
            second[k] += resp[k] * (np.outer(completed[k], completed[k]) + spreads[k])
    return total, counts, first, second


def maximize(counts, first, second):
    """Weights, means and full covariances of largest likelihood."""
    means = first / counts[:, None]
    covariances = second / counts[:, None, None] - means[:, :, None] * means[:, None, :]
    return counts / counts.sum(), means, covariances
