"""The kernels alone: the products against BLAS, features and softmax of a block, the fused pass, scores."""

import functools

import numba
import numpy as np

from fastem.kernels import _jit, exponentials, features, posteriors, products, sweep

from . import datasets
from .common import best_seconds, setup_cache  # noqa: F401

timeout = 300

_FEATURE_MAPS = {
    "full": features.FULL,
    "tied": features.LINEAR,
    "diag": features.DIAGONAL,
    "spherical": features.SPHERICAL,
}
_DTYPES = ["float64", "float32"]
_FEWEST_ROWS, _ROWS = 96, 384  # a block's, whatever the shape
_BLOCKS = 200  # a block takes microseconds: so many a call, in compiled code, or the call itself would be measured


@numba.njit(cache=True)
def _products(a, b, c, m, n, depth, times):
    for _ in range(times):
        products.product(a, 0, b, m, 0, n, depth, c, False)


@numba.njit(cache=True)
def _dots(a, b, c, times):
    for _ in range(times):
        np.dot(a, b, c)


@numba.njit(cache=True)
def _features(feature_map, columns, phi, times):
    for _ in range(times):
        features.build_features(feature_map, columns, 0, phi.shape[0], phi)


@numba.njit(cache=True)
def _softmax(scores, mass, best, total, row_log, times):
    for _ in range(times):
        exponentials.softmax(scores, scores.shape[0], mass, best, total)
        posteriors.log_normalizer(best, total, row_log)


class Product:
    """Both products of a block on one thread, with the shapes that a fit with full covariances gives them."""

    params = (["scores", "statistics"], [(8, 16), (32, 32)], _DTYPES)
    param_names = ("product", "n_features, n_components", "dtype")
    repeat = (3, 10, 2.0)

    def setup(self, product, shape, dtype):
        self.arguments, self.blas, self.flops = _product_arguments(product, shape, dtype)

    def time_product(self, *_):
        _products(*self.arguments, _BLOCKS)

    def peakmem_product(self, *_):
        _products(*self.arguments, 1)

    def track_error(self, *_):
        """Largest difference from BLAS, relative: a product has no log-likelihood."""
        (a, b, c, *shape), (_, _, want) = self.arguments, self.blas
        out = np.zeros_like(c)
        _products(a, b, out, *shape, 1)
        np.dot(a, b, want)
        return float(np.abs(out - want).max() / np.abs(want).max())

    def track_gflops(self, *_):
        return _BLOCKS * self.flops / best_seconds(lambda: _products(*self.arguments, _BLOCKS)) * 1e-9

    def track_blas_gflops(self, *_):
        from threadpoolctl import threadpool_limits

        _dots(*self.blas, 1)  # numba loads BLAS at the first call, and only what is loaded can be limited
        with threadpool_limits(1, user_api="blas"):
            return _BLOCKS * self.flops / best_seconds(lambda: _dots(*self.blas, _BLOCKS)) * 1e-9

    track_gflops.unit = track_blas_gflops.unit = "GFLOP/s"


@functools.cache
def _product_arguments(product, shape, dtype):
    n_features, n_components = shape
    n_stats = int(features.n_statistics(features.FULL, n_features))
    itemsize = np.dtype(dtype).itemsize
    n_rows = int(sweep.block_rows(2**20, n_features, n_components, n_stats, itemsize))
    if product == "scores":  # theta phi
        m, n, depth = n_components, n_rows, n_stats
        c = np.zeros((m, n), dtype)
    else:  # phi resp, added up in float64
        m, n, depth = n_stats, int(sweep.padded(n_components, itemsize)), n_rows
        c = np.zeros((m, n))
    rng = np.random.default_rng(0)
    a = rng.normal(size=(m, depth)).astype(dtype)
    b = rng.normal(size=(depth, n)).astype(dtype)
    arguments = (a, b, c, m, n, depth)
    _products(*arguments, 1)
    return arguments, (a, b, np.zeros((m, n), dtype)), 2 * m * n * depth


class Block:
    """Features, and softmax with the log-normaliser, of blocks of 8 features and 16 components, on one thread."""

    params = (_DTYPES,)
    param_names = ("dtype",)
    repeat = (3, 10, 2.0)

    def setup(self, dtype):
        self.columns, self.phi, self.scores = _block(dtype)
        width = self.scores.shape[1]
        self.outputs = np.ones(width), np.empty(width, dtype), np.empty(width, dtype), np.empty(width)
        for feature_map in _FEATURE_MAPS.values():
            _features(feature_map, self.columns, self.phi[: features.n_statistics(feature_map, 8)], 1)
        _softmax(self.scores.copy(), *self.outputs, 1)

    def time_features_full(self, dtype):
        _features(features.FULL, self.columns, self.phi, _BLOCKS)

    def time_features_diag(self, dtype):
        _features(features.DIAGONAL, self.columns, self.phi[:17], _BLOCKS)

    def time_softmax(self, dtype):
        _softmax(self.scores, *self.outputs, _BLOCKS)  # in place: its own results are the next scores

    def peakmem_features_full(self, dtype):
        self.time_features_full(dtype)

    def peakmem_features_diag(self, dtype):
        self.time_features_diag(dtype)

    def peakmem_softmax(self, dtype):
        self.time_softmax(dtype)

    def track_log_likelihood(self, dtype):
        _softmax(self.scores.copy(), *self.outputs, 1)
        return float(self.outputs[3][:_FEWEST_ROWS].mean())

    track_log_likelihood.unit = "nats per sample"


@functools.cache
def _block(dtype):
    n_features, n_components = 8, 16
    n_stats = int(features.n_statistics(features.FULL, n_features))
    width = int(sweep.block_rows(2**20, n_features, n_components, n_stats, np.dtype(dtype).itemsize))
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(_ROWS, n_features))[:width].T.astype(dtype, order="C")
    scores = rng.normal(scale=10, size=(_ROWS, n_components))[:width].T.astype(dtype, order="C")
    return columns, np.empty((n_stats, width), dtype), scores


class _Pass:
    """One pass over 200000 x 8 rows, 16 components, on all threads. The components are unit spheres, so that every
    structure can hold them and all must reach one log-likelihood.
    """

    repeat = (3, 10, 3.0)

    def setup(self, *parameters):
        self.prepare(*parameters)
        self.n_threads = _jit.use_threads(None)
        self.run()

    def time_pass(self, *_):
        self.run()

    def peakmem_pass(self, *_):
        self.run()


class Statistics(_Pass):
    """Natural parameters of each feature map, in the dtype of the data."""

    params = (list(_FEATURE_MAPS), _DTYPES)
    param_names = ("covariance_type", "dtype")

    def prepare(self, covariance_type, dtype):
        self.arguments, self.missing = _statistics_arguments(covariance_type, dtype)

    def run(self):
        return sweep.statistics(*self.arguments, posteriors.SOFTMAX, self.n_threads)

    def track_log_likelihood(self, *_):
        return self.run()[1] / len(self.arguments[0]) - self.missing

    track_log_likelihood.unit = "nats per sample"


class Score(_Pass):
    """Densities: every component whitened, in float64."""

    params = (_DTYPES,)
    param_names = ("dtype",)

    def prepare(self, dtype):
        self.arguments = _score_arguments(dtype)

    def run(self):
        return sweep.score(*self.arguments, self.n_threads)

    def track_log_likelihood(self, *_):
        return float(self.run().mean())

    track_log_likelihood.unit = "nats per sample"


@functools.cache
def _components(dtype):
    """Rows, means of the components, log weight less the log-partition of a unit sphere, and the frame of no change."""
    n_features, n_components = 8, 16
    X = datasets.mixture(200_000, n_features, n_components, dtype)
    means = X[np.random.default_rng(1).choice(len(X), n_components, replace=False)].astype(np.float64)
    constants = np.full(n_components, -np.log(n_components) - 0.5 * n_features * np.log(2 * np.pi))
    return X, means, constants, np.vstack([np.zeros(n_features), np.ones(n_features)])


@functools.cache
def _statistics_arguments(covariance_type, dtype):
    """Arguments of `sweep.statistics` up to the states, and the mean of the term that the features leave out."""
    X, means, constants, frame = _components(dtype)
    n_components, n_features = means.shape
    feature_map = _FEATURE_MAPS[covariance_type]
    theta = np.zeros((n_components, int(features.n_statistics(feature_map, n_features))))
    theta[:, 0] = constants - 0.5 * (means**2).sum(axis=1)
    theta[:, 1 : 1 + n_features] = means
    squares = theta[:, 1 + n_features :]
    if covariance_type == "full":
        rows, columns = np.tril_indices(n_features)
        squares[:, rows == columns] = -0.5
    else:
        squares[:] = -0.5
    missing = 0.5 * float((X.astype(np.float64) ** 2).sum(axis=1).mean()) if covariance_type == "tied" else 0.0
    states = sweep.by_features(feature_map, theta.astype(dtype), n_features)
    return (X, np.empty((0, 1)), frame, states), missing


@functools.cache
def _score_arguments(dtype):
    """Arguments of `sweep.score` up to the threads."""
    X, means, constants, frame = _components(dtype)
    n_components, n_features = means.shape
    whitener = np.empty((n_components, n_features + 1, n_features))
    whitener[:, :n_features] = np.eye(n_features)
    whitener[:, n_features] = means
    return X, frame, constants, whitener
