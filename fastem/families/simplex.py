"""Exponential families whose parameters are probabilities: of the categories of each column, or of the columns.

The statistics of a piece are counts, and their natural parameters are the logarithms of probabilities that sum to 1
(Lehmann & Casella 1998, Theory of Point Estimation, example 1.5.3), with A = 0.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fastem.data import finite_array
from fastem.families.exponential import _FAR, IMPOSSIBLE, Exponential, log_of, near_zero


@dataclass(frozen=True, eq=False)
class Simplex(Exponential):
    """What these families share; `Params` have one field, the probabilities (K, T)."""

    domains: ClassVar[dict[str, str]] = {"probabilities": "unit"}
    # Of 180 starts by k-means, on six sets of latent classes, 21 found the best known optimum; at 0.1 99 did, at 0.7
    # 120, and random ones 112, but not where these did.
    softness: ClassVar[float] = 0.7
    more_starts: ClassVar[tuple[str, ...]] = ("random",)

    @property
    def _marked(self):
        return np.zeros(len(self.missing), bool)  # what is missing counts 0 in every statistic

    @property
    def _starts(self) -> np.ndarray:
        """First statistic (J,) of each piece; those of a piece follow each other."""
        return np.zeros(1, np.int64)

    def _sums(self, values: np.ndarray) -> np.ndarray:
        """Sum (K, T) over the piece of each statistic."""
        return np.add.reduceat(values, self._starts, axis=1)[:, self.owners]

    def natural_parameters(self, params):
        """The logarithms."""
        return log_of(params.probabilities)

    def log_partition(self, params):
        """0: probabilities are normalised as they are."""
        return np.zeros((len(params.probabilities), len(self._starts)))

    def _finite(self, params):
        return np.maximum(self.natural_parameters(params), -IMPOSSIBLE), self.log_partition(params)

    def estimate(self, means):
        """Shares of the counts."""
        return self.Params(means / self._sums(means))

    def expectation(self, params):
        """The probabilities: counts of one trial."""
        return params.probabilities

    def n_parameters(self, n_components, n_features):
        """Number of free parameters of the components."""
        return n_components * (len(self.owners) - len(self._starts))

    def check_params(self, params, n_components, frame=None, name="start.components."):
        """Return parameters that a user gave, after checking shapes, finiteness and sums."""
        if not isinstance(params, self.Params):
            words = name.strip(".") or "the parameters"
            raise TypeError(f"{words} must be {self.Params.__name__}; got {type(params).__name__}")
        given = finite_array(f"{name}probabilities", params.probabilities, 2)
        wanted = n_components, len(self.owners)
        if given.shape != wanted:
            raise ValueError(f"{name}probabilities has shape {given.shape}; {wanted} is needed")
        sums = self._sums(given)
        if (given < 0).any() or np.abs(sums - 1.0).max() > 1e-8:
            worst = sums.ravel()[np.abs(sums - 1.0).argmax()]
            raise ValueError(f"{name}probabilities must not be negative and sum to 1; some sum to {worst}")
        return self.Params(given / sums)

    def settled(self, params, counts):
        """Probabilities of which those are 0 that more than so many rows (K,) would tell from it."""
        p = np.where(near_zero(params.probabilities, counts), 0.0, params.probabilities)
        return self.Params(p / self._sums(p))

    def pack(self, params, frame):
        """Coordinates, of each component in turn: logarithms, centred in each piece."""
        logs = log_of(params.probabilities)
        highest = np.maximum.reduceat(logs, self._starts, axis=1)[:, self.owners]
        logs = np.maximum(logs - highest, -_FAR)
        sizes = np.diff(self._starts, append=len(self.owners))[self.owners]
        return (logs - self._sums(logs) / sizes).ravel()

    def unpack(self, vector, n_components, frame):
        """Parameters at the coordinates of `pack`."""
        logs = vector.reshape(n_components, -1)
        logs = logs - np.maximum.reduceat(logs, self._starts, axis=1)[:, self.owners]
        raised = np.where(logs > 1.0 - _FAR, np.exp(logs), 0.0)
        return self.Params(raised / self._sums(raised))

    def score(self, params, averages, frame):
        """Gradient of the expected log-likelihood in the coordinates of `pack`."""
        away = averages.means - self._sums(averages.means) * params.probabilities
        return (averages.counts[:, None] * away).ravel()

    def _only(self, params: Any, k: int) -> list[np.ndarray]:
        """The probabilities of one component, by piece."""
        return np.split(params.probabilities[k], self._starts[1:])
