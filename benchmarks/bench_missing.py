"""Rows with missing values, or with noise: fits of a fixed number of iterations from a fixed start."""

import functools
import warnings

import numpy as np

from . import datasets, memory
from .common import N_ITER, setup_cache  # noqa: F401

timeout = 300


@functools.cache
def _prepared(n_samples, n_features, n_components, part, covariance_type="full"):
    """Rows with gaps, and the constructor parameters of a start, once a process."""
    X = datasets.mixture(n_samples, n_features, n_components)
    rows = np.random.default_rng(1).choice(n_samples, n_components, replace=False)
    means, precision = X[rows], np.broadcast_to(1 / X.var(axis=0), (n_components, n_features))
    start = {
        "weights_init": np.full(n_components, 1 / n_components),
        "means_init": means,
        "precisions_init": precision.copy()
        if covariance_type == "diag"
        else precision[:, :, None] * np.eye(n_features),
        "covariance_type": covariance_type,
    }
    return datasets.punched(X, part) if part else X, start


def _quietly(estimator, X, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tol=0 never converges
        return estimator.fit(X, **options)


class Normal:
    """A single normal, 20 % missing: an iteration does not depend on the number of rows."""

    params = ([100_000, 1_000_000], [10, 20])
    param_names = ("n_samples", "n_features")
    repeat = (3, 5, 10.0)

    def setup(self, n_samples, n_features):
        from fastem import MultivariateNormal

        self.X = _prepared(n_samples, n_features, 1, 0.2)[0]
        self.estimator = MultivariateNormal(tol=0.0, max_iter=N_ITER, acceleration=None)
        _quietly(self.estimator, self.X)

    def time_fit(self, *_):
        _quietly(self.estimator, self.X)

    def time_e_step(self, n_samples, n_features):
        self._model().e_step(self.params_, self.block)

    def _model(self):
        from fastem.data import as_data

        if not hasattr(self, "block"):
            data = as_data(self.X, allow_nan=True)
            self.model = self.estimator._model().prepare(data)
            self.params_, self.block = self.estimator._params(), data.blocks[0]
            self.model.e_step(self.params_, self.block)  # sums up the rows, once
        return self.model

    def track_log_likelihood(self, *_):
        return float(_quietly(self.estimator, self.X).lower_bound_)

    track_log_likelihood.unit = "nats per sample"


class Mixture:
    """Of 1 % missing most rows are complete, of 20 % and 30 columns each has a pattern of its own."""

    params = (
        ["full 100000x10x5, 20 %", "diag 100000x10x5, 20 %", "full 200000x16x16, 1 %", "full 200000x16x16, 20 %",
         "full 50000x30x5, 20 %"],
    )  # fmt: skip
    param_names = ("covariances, rows x columns x components, missing",)
    repeat = (3, 5, 10.0)

    def setup(self, name):
        from fastem import GaussianMixture

        covariance_type, shape, part = name.replace(",", "").split()[:3]
        *sizes, n_components = map(int, shape.split("x"))
        self.X, start = _prepared(*sizes, n_components, int(part) / 100, covariance_type)
        self.estimator = GaussianMixture(n_components, tol=0.0, max_iter=N_ITER, reg_covar=0.0, **start)
        _quietly(self.estimator, self.X)

    def time_fit(self, *_):
        _quietly(self.estimator, self.X)

    def time_impute(self, *_):
        self.estimator.impute(self.X)

    def time_score_samples(self, *_):
        self.estimator.score_samples(self.X)

    def peakmem_fit(self, *_):
        _quietly(self.estimator, self.X)

    def track_memory_above_the_data(self, *_):
        """MiB of a fit, beside the rows."""
        return memory.mebibytes_above(lambda: _quietly(self.estimator, self.X))

    track_memory_above_the_data.unit = "MiB"

    def track_log_likelihood(self, *_):
        return float(_quietly(self.estimator, self.X).lower_bound_)

    track_log_likelihood.unit = "nats per sample"


class Noise:
    """Noise of each row's own, its variances alone, and noise that all share: 50 000 rows, 5 columns, 10 components."""

    params = (["rows", "variances", "shared"],)
    param_names = ("noise",)
    repeat = (3, 5, 10.0)

    def setup(self, kind):
        from fastem import GaussianMixture

        self.X, start = _prepared(50_000, 5, 10, 0.0)
        roots = np.random.default_rng(3).normal(size=(50_000, 5, 5)) / 3.0
        noise = roots @ np.swapaxes(roots, 1, 2)
        self.noise = {"rows": noise, "variances": np.einsum("nii->ni", noise).copy(), "shared": noise[0]}[kind]
        self.estimator = GaussianMixture(10, tol=0.0, max_iter=N_ITER, reg_covar=1e-6, **start)
        _quietly(self.estimator, self.X, noise_covariance=self.noise)

    def time_fit(self, _):
        _quietly(self.estimator, self.X, noise_covariance=self.noise)

    def track_log_likelihood(self, _):
        return float(_quietly(self.estimator, self.X, noise_covariance=self.noise).lower_bound_)

    track_log_likelihood.unit = "nats per sample"
