"""fastem, through its estimator: checks, scaling and all."""

TITLE = "fastem"
INSTALL = "pip install -e ."
STRUCTURES = ("full", "tied", "diag", "spherical", "latent class")
DTYPES = ("float64", "float32")
TOLERANCE = 1e-6


def version():
    import fastem

    fastem.GaussianMixture  # noqa: B018  (compiled kernels are loaded before the clock runs)
    return fastem.__version__


def prepare(X, start, covariance_type, **options):
    import fastem

    if "lengths" in options:
        return _sequences(fastem.GaussianHMM, X, start, covariance_type, options["lengths"])
    from benchmarks.peers.adapters import sklearn

    if covariance_type == "latent class":
        return latent_classes(X, start)
    return sklearn.runner(fastem.GaussianMixture, X, start, covariance_type, **options)


def latent_classes(X, start):
    """Run so many iterations from the start."""
    import warnings

    import numpy as np

    import fastem

    first = np.cumsum(start["covariances"].astype(int))[:-1]
    given = {"weights_init": start["weights"], "components_init": np.split(start["means"], first, axis=1)}

    def run(n_iter):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tol=0 never converges
            fitted = fastem.LatentClass(len(start["weights"]), max_iter=n_iter, tol=0.0, **given).fit(X)
        return fitted.weights_, np.concatenate(fitted.probabilities_, axis=1), start["covariances"]

    return run


def _sequences(estimator, X, start, covariance_type, lengths):
    import warnings

    parameters = {f"{name}_init": value for name, value in start.items()}

    def run(n_iter):
        model = estimator(len(start["means"]), covariance_type=covariance_type, tol=0.0, max_iter=n_iter, **parameters)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tol=0 never converges
            model.fit(X, lengths)
        return model.transmat_, model.means_, model.covariances_

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
