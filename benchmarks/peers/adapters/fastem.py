"""fastem, through its estimators: checks, scaling and all."""

TITLE = "fastem"
INSTALL = "pip install -e ."
FITS = (
    "full", "tied", "diag", "spherical",
    "normal missing", "full missing", "tied missing", "diag missing", "spherical missing",
    "full t", "tied t", "diag t", "spherical t",
    "full HMM", "tied HMM", "diag HMM", "spherical HMM",
    "latent class",
)  # fmt: skip
DTYPES = ("float64", "float32")
TOLERANCE = 1e-6


def version():
    import fastem

    fastem.GaussianMixture  # noqa: B018  (compiled kernels are loaded before the clock runs)
    return fastem.__version__


def prepare(X, start, model, lengths=None, **options):
    """Run the estimator of the model; that of one component with missing values is `MultivariateNormal`."""
    from operator import attrgetter

    import numpy as np

    import fastem
    from benchmarks.peers.adapters import sklearn

    covariance_type, _, family = model.partition(" ")
    found = attrgetter(*(f"{name}_" for name in start))
    first = {f"{name}_init": value for name, value in start.items()}
    if family == "HMM":
        first |= {"n_components": len(start["means"]), "covariance_type": covariance_type}
        return _runner(fastem.GaussianHMM, (X, lengths), found, **first)
    if family == "t":
        precisions = sklearn.inverses(first.pop("covariances_init"), covariance_type)
        first |= {"precisions_init": precisions, "degrees_of_freedom_init": start["degrees_of_freedom"][0]}
        first |= {"n_components": len(precisions), "covariance_type": covariance_type, "reg_covar": 0.0}
        return _runner(fastem.StudentTMixture, (X,), found, **first)
    if model == "latent class":
        first = {"weights_init": start["weights"], "components_init": list(np.swapaxes(start["probabilities"], 0, 1))}
        first["n_components"] = len(start["weights"])
        return _runner(
            fastem.LatentClass, (X,), lambda fitted: (fitted.weights_, np.stack(fitted.probabilities_, axis=1)), **first
        )
    if len(start["weights"]) == 1 and np.isnan(X).any():
        first = {"mean_init": start["means"][0], "covariance_init": start["covariances"][0]}
        first["covariance_type"] = covariance_type
        return _runner(
            fastem.MultivariateNormal,
            (X,),
            lambda fitted: (start["weights"], fitted.mean_[None], fitted.covariance_[None]),
            **first,
        )
    return sklearn.runner(fastem.GaussianMixture, X, start, covariance_type, **options)


def _runner(estimator, rows, found, **parameters):
    """Run so many iterations and return what is found in the fitted estimator."""
    import warnings

    def run(n_iter):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tol=0 never converges
            fitted = estimator(max_iter=n_iter, tol=0.0, **parameters).fit(*rows)
        run.n_iter = fitted.n_iter_  # fewer where nothing is gained any more
        return found(fitted)

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
