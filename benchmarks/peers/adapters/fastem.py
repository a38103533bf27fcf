"""fastem, through its estimator: checks, scaling and all."""

TITLE = "fastem"
INSTALL = "pip install -e ."
STRUCTURES = ("full", "tied", "diag", "spherical")
DTYPES = ("float64", "float32")
TOLERANCE = 1e-6
GAPS = ("full", "tied", "diag", "spherical")


def version():
    import fastem

    fastem.GaussianMixture  # noqa: B018  (compiled kernels are loaded before the clock runs)
    return fastem.__version__


def prepare(X, start, covariance_type, **options):
    import numpy as np

    import fastem
    from benchmarks.peers.adapters import sklearn

    if np.isnan(X).any() and len(start["weights"]) == 1:
        return _normal(X, start)
    return sklearn.runner(fastem.GaussianMixture, X, start, covariance_type, **options)


def _normal(X, start):
    """Run for a single component: `MultivariateNormal`."""
    import warnings

    from fastem import MultivariateNormal

    first = {"mean_init": start["means"][0], "covariance_init": start["covariances"][0]}

    def run(n_iter):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tol=0 never converges
            fitted = MultivariateNormal(max_iter=n_iter, tol=0.0, **first).fit(X)
        return start["weights"], fitted.mean_[None], fitted.covariance_[None]

    return run


def curve(X, n_components, seed, budget):
    """(seconds, mean log-likelihood) of the iterations over all rows, the end of the call, and its parameters."""
    import time
    import warnings

    from fastem import GaussianMixture

    points = []
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = GaussianMixture(n_components, random_state=seed).fit(
            X, callbacks=[lambda step: points.append((time.perf_counter() - begin, step.objective / len(X))) and None]
        )
    end = time.perf_counter() - begin
    return [*points, (end, fitted.lower_bound_)], end, (fitted.weights_, fitted.means_, fitted.covariances_)
