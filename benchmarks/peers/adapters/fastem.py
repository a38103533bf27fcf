"""fastem, through its estimator: checks, scaling and all."""

TITLE = "fastem"
INSTALL = "pip install -e ."
STRUCTURES = ("full", "tied", "diag", "spherical")
DTYPES = ("float64", "float32")
TOLERANCE = 1e-6


def version():
    import fastem

    fastem.GaussianMixture  # noqa: B018  (compiled kernels are loaded before the clock runs)
    return fastem.__version__


def prepare(X, start, covariance_type, **options):
    import fastem
    from benchmarks.peers.adapters import sklearn

    return sklearn.runner(fastem.GaussianMixture, X, start, covariance_type, **options)
