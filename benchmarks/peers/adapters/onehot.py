"""EM for latent classes by matrix products of one-hot rows, made once: what NumPy can do."""

import numpy as np

TITLE = "NumPy, one-hot"
INSTALL = "it comes with fastem"
FITS = ("latent class",)
DTYPES = ("float64",)
TOLERANCE = 1e-9


def version():
    """NumPy's."""
    return np.__version__


def prepare(X, start, model):
    """Run so many iterations from the start."""
    _, n_features, n_categories = start["probabilities"].shape
    onehot = np.eye(n_categories)[X.astype(int)].reshape(len(X), -1)

    def run(n_iter):
        weights, probabilities = start["weights"], start["probabilities"].reshape(-1, onehot.shape[1])
        for _ in range(n_iter):
            scores = onehot @ np.log(probabilities).T + np.log(weights)
            scores -= scores.max(axis=1, keepdims=True)
            resp = np.exp(scores, out=scores)
            resp /= resp.sum(axis=1, keepdims=True)
            counts = resp.sum(axis=0)
            weights, probabilities = counts / len(X), np.maximum(resp.T @ onehot / counts[:, None], 1e-300)
        return weights, probabilities.reshape(-1, n_features, n_categories)

    return run
