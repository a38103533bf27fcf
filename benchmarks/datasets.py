"""Data of the benchmarks: simulated mixtures, the same for the same arguments, and a photograph."""

import numpy as np

_CHUNK = 1024  # rows made at once, so that the peak of memory is the data's own
_SPREAD = 2.0  # standard deviation of the means, in units of the components': they overlap, as in most real data


def mixture(n_samples, n_features, n_components, dtype="float64", seed=0, spread=_SPREAD, return_labels=False):
    """Sample a mixture of Gaussians with random full covariances: rows (n_samples, n_features), and their labels."""
    rng = np.random.default_rng(seed)
    means = rng.normal(scale=spread, size=(n_components, n_features))
    factors = np.eye(n_features) + rng.normal(size=(n_components, n_features, n_features)) / (2 * np.sqrt(n_features))
    weights = rng.dirichlet(np.full(n_components, 5.0))
    X = np.empty((n_samples, n_features), dtype)
    drawn = np.empty(n_samples if return_labels else 0, np.int64)
    for first in range(0, n_samples, _CHUNK):
        rows = X[first : first + _CHUNK]
        labels = rng.choice(n_components, len(rows), p=weights)
        noise = rng.normal(size=(len(rows), n_features, 1))
        rows[:] = means[labels] + (factors[labels] @ noise)[..., 0]
        if return_labels:
            drawn[first : first + _CHUNK] = labels
    return (X, drawn) if return_labels else X


def punched(X, part, seed=2):
    """A copy of rows in which a part of the values, chosen by chance, is NaN."""
    X, rng = X.copy(), np.random.default_rng(seed)
    for first in range(0, len(X), _CHUNK):
        rows = X[first : first + _CHUNK]
        rows[rng.random(rows.shape) < part] = np.nan
    return X


def china(dtype="float64"):
    """Pixels of the photograph china.jpg, scaled to [0, 1]; shape (273280, 3)."""
    from sklearn.datasets import load_sample_image

    return (load_sample_image("china.jpg").reshape(-1, 3) / 255).astype(dtype)
