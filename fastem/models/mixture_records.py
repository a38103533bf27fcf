"""Parameters and statistics of mixtures, and a guard of their bits."""

import functools
from typing import Any, NamedTuple

import numpy as np

from fastem.kernels._jit import one_blas_thread
from fastem.kernels.components import take_logs


class MixtureParams(NamedTuple):
    """Weights (K,) of the components and the parameters of the family."""

    weights: np.ndarray
    components: Any


class MixtureStats(NamedTuple):
    """Additive statistics of rows under some parameters.

    Attributes
    ----------
    weight : float
        Total weight of the rows.
    log_likelihood : float
        Of the parameters that went in.
    sums : ndarray of shape (K, P)
        Expected statistics, in the order of the encoding of those parameters.
    scatter : ndarray of shape (D, D) or (0, 0)
        Second moment of all rows in the frame, where the family's features lack it (tied covariances).
    """

    weight: float
    log_likelihood: float
    sums: np.ndarray
    scatter: np.ndarray


def same_bits(method):
    """Run a method that calls BLAS so that its bits do not depend on the threads of BLAS."""

    @functools.wraps(method)
    def limited(self, *arguments, **options):
        with one_blas_thread(self._blas_work(arguments[0])):
            return method(self, *arguments, **options)

    return limited


def log_of(weights: np.ndarray) -> np.ndarray:
    """Logarithms (K,), of which those of 0 are -inf."""
    logs = np.empty(len(weights))
    take_logs(weights, logs)
    return logs
