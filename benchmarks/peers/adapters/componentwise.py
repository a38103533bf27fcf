"""EM for mixtures of Student's t distributions in NumPy and SciPy, component by component: all rows at once.

Peel & McLachlan (2000), Statistics and Computing 10, 339-348, with the parameter expansion of Liu, Rubin & Wu (1998),
Biometrika 85, 755-770: scatter is divided by the weight of rows times their precision.
"""

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import brentq
from scipy.special import digamma, gammaln, logsumexp

TITLE = "NumPy, by component"
INSTALL = "it comes with fastem"
FITS = ("full t",)
DTYPES = ("float64",)
TOLERANCE = 1e-9
_LEAST, _MOST = 0.01, 1000.0  # degrees of freedom


def version():
    """NumPy's."""
    return np.__version__


def prepare(X, start, model):
    """Run so many iterations from the start."""

    def run(n_iter):
        found = tuple(start.values())
        for _ in range(n_iter):
            found = _step(X, *found)
        return found

    return run


def _step(X, weights, means, covariances, degrees_of_freedom):
    n_samples, n_features = X.shape
    scores, distances = np.empty((len(weights), n_samples)), np.empty((len(weights), n_samples))
    for k, nu in enumerate(degrees_of_freedom):
        root = cholesky(covariances[k], lower=True)
        whitened = solve_triangular(root, (X - means[k]).T, lower=True, check_finite=False)
        distances[k] = np.einsum("dn,dn->n", whitened, whitened)
        peak = gammaln(0.5 * (nu + n_features)) - gammaln(0.5 * nu) - 0.5 * n_features * np.log(nu * np.pi)
        peak += np.log(weights[k]) - np.log(np.diagonal(root)).sum()
        scores[k] = peak - 0.5 * (nu + n_features) * np.log1p(distances[k] / nu)
    resp = np.exp(scores - logsumexp(scores, axis=0))
    counts = resp.sum(axis=1)
    means, covariances, degrees = np.empty_like(means), np.empty_like(covariances), np.empty_like(weights)
    for k, nu in enumerate(degrees_of_freedom):
        precision = (nu + n_features) / (nu + distances[k])
        shares = resp[k] * precision
        total = shares.sum()
        means[k] = shares @ X / total
        centred = X - means[k]
        covariances[k] = (shares[:, None] * centred).T @ centred / total
        logs = resp[k] @ np.log(precision) / counts[k] + digamma(0.5 * (nu + n_features))
        logs -= np.log(0.5 * (nu + n_features)) + np.log(total / counts[k])
        degrees[k] = _solved(-logs)
    return counts / n_samples, means, covariances, degrees


def _solved(wanted):
    """Degrees of freedom at which log(nu / 2) - digamma(nu / 2) is what is wanted, or the nearest bound."""

    def excess(nu):
        return np.log(0.5 * nu) - digamma(0.5 * nu) - wanted

    if excess(_LEAST) <= 0:
        return _LEAST
    return _MOST if excess(_MOST) >= 0 else brentq(excess, _LEAST, _MOST, xtol=1e-12, rtol=1e-14)
