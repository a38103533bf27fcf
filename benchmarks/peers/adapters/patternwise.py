"""EM for normal mixtures under missing values in NumPy, pattern by pattern: rows that lack the same columns at once."""

import numpy as np

TITLE = "NumPy, pattern by pattern"
INSTALL = "it comes with fastem"
FITS = ("normal missing", "full missing")
DTYPES = ("float64",)
TOLERANCE = 1e-9
TOO_SLOW = 30.0  # seconds of an iteration


def version():
    """NumPy's."""
    return np.__version__


def prepare(X, start, covariance_type):
    """Run so many iterations from the start; rows are put together by pattern once."""
    missing, which = np.unique(np.isnan(X), axis=0, return_inverse=True)
    which = which.ravel()
    patterns = [(~gaps, X[which == number][:, ~gaps]) for number, gaps in enumerate(missing) if not gaps.all()]
    n_rows = sum(len(rows) for _, rows in patterns)

    def step(weights, means, covariances):
        n_components, n_features = means.shape
        counts, first = np.zeros(n_components), np.zeros(means.shape)
        second = np.zeros(covariances.shape)
        for seen, rows in patterns:
            scores, completed, spreads = np.empty((n_components, len(rows))), [], []
            for k in range(n_components):
                inner = covariances[k][np.ix_(seen, seen)]
                cross = covariances[k][np.ix_(seen, ~seen)]
                lower = np.linalg.cholesky(inner)
                gaps = rows - means[k, seen]
                y = np.linalg.solve(lower, gaps.T)
                constant = np.log(np.diagonal(lower)).sum() + 0.5 * len(lower) * np.log(2 * np.pi)
                scores[k] = np.log(weights[k]) - constant - 0.5 * (y**2).sum(axis=0)
                slopes = np.linalg.solve(inner, cross)
                full, spread = np.empty((len(rows), n_features)), np.zeros((n_features, n_features))
                full[:, seen], full[:, ~seen] = rows, means[k, ~seen] + gaps @ slopes
                spread[np.ix_(~seen, ~seen)] = covariances[k][np.ix_(~seen, ~seen)] - cross.T @ slopes
                completed.append(full)
                spreads.append(spread)
            resp = np.exp(scores - scores.max(axis=0))
            resp /= resp.sum(axis=0)
            for k, (full, spread) in enumerate(zip(completed, spreads, strict=True)):
                counts[k] += resp[k].sum()
                first[k] += resp[k] @ full
                second[k] += (full.T * resp[k]) @ full + resp[k].sum() * spread
        means = first / counts[:, None]
        covariances = second / counts[:, None, None] - means[:, :, None] * means[:, None, :]
        return counts / n_rows, means, covariances

    def run(n_iter):
        found = start["weights"], start["means"], start["covariances"]
        for _ in range(n_iter):
            found = step(*found)
        return found

    return run
