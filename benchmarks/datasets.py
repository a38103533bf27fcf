"""Data of the benchmarks: simulated mixtures, the same for the same arguments, and a photograph."""

import numpy as np

_CHUNK = 1024  # rows made at once, so that the peak of memory is the data's own
_SPREAD = 2.0  # standard deviation of the means, in units of the components': they overlap, as in most real data


def mixture(
    n_samples,
    n_features,
    n_components,
    dtype="float64",
    seed=0,
    spread=_SPREAD,
    return_labels=False,
    degrees_of_freedom=None,
):
    """Sample a mixture of Gaussians with random full covariances: rows (n_samples, n_features), and their labels.

    With degrees of freedom it is one of Student's t distributions.
    """
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
        if degrees_of_freedom is not None:
            noise /= np.sqrt(rng.chisquare(degrees_of_freedom, (len(rows), 1, 1)) / degrees_of_freedom)
        rows[:] = means[labels] + (factors[labels] @ noise)[..., 0]
        if return_labels:
            drawn[first : first + _CHUNK] = labels
    return (X, drawn) if return_labels else X


def latent_classes(n_samples, n_features, n_components, n_categories=4, seed=0):
    """Sample a latent class model: codes (n_samples, n_features) from 0, as float64."""
    rng = np.random.default_rng(seed)
    cumulative = np.cumsum(rng.dirichlet(np.ones(n_categories), (n_components, n_features)), axis=2)
    X = np.empty((n_samples, n_features))
    for first in range(0, n_samples, _CHUNK):
        rows = X[first : first + _CHUNK]
        labels = rng.integers(n_components, size=len(rows))
        above = rng.random((*rows.shape, 1)) > cumulative[labels, :, :-1]
        rows[:] = above.sum(axis=2)
    return X


def chains(n_sequences, length, n_features, n_components, seed=0, spread=_SPREAD):
    """Sample normals that follow a Markov chain: rows (n_sequences * length, n_features), and the means (K, D)."""
    rng = np.random.default_rng(seed)
    means = rng.normal(scale=spread, size=(n_components, n_features))
    transmat = 0.8 * np.eye(n_components) + 0.2 * rng.dirichlet(np.ones(n_components), n_components)
    cumulated = transmat.cumsum(axis=1)
    states = np.empty((length, n_sequences), np.int64)
    states[0] = rng.integers(n_components, size=n_sequences)
    for t in range(1, length):
        states[t] = (rng.random((n_sequences, 1)) > cumulated[states[t - 1]]).sum(axis=1)
    states = np.minimum(states, n_components - 1).T.ravel()
    return means[states] + rng.normal(size=(len(states), n_features)), means


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
