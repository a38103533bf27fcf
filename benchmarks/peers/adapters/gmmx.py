"""gmmx: mixtures in JAX, float32."""

TITLE = "gmmx"
INSTALL = "make peers PEERS=gmmx"
FITS = ("full", "diag")
DTYPES = ("float64", "float32")  # rows of float64 are rounded: it computes in float32
TOLERANCE = 1e-3


def version():
    from importlib.metadata import version

    import gmmx  # noqa: F401

    return version("gmmx")


def prepare(X, start, covariance_type):
    import gmmx
    import jax
    import jax.numpy as jnp
    import numpy as np

    rows = jnp.asarray(X.astype(np.float32))
    model = gmmx.GaussianMixtureModelJax.from_squeezed(
        *(jnp.asarray(start[name].astype(np.float32)) for name in ("means", "covariances", "weights")),
        covariance_type=covariance_type,
    )
    fit = jax.jit(lambda fitter, x, start: fitter.fit(x, start))

    def run(n_iter):
        found = fit(gmmx.EMFitter(max_iter=n_iter, tol=0.0, reg_covar=0.0), rows, model)
        found = jax.block_until_ready(found).gmm
        return found.weights_numpy, found.means_numpy, np.asarray(found.covariances.values_numpy)

    return run
