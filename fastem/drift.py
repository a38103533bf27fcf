"""Whether a stream is still what it was: a score to watch, and the rows that fit worst, where something new may be."""

import math
from typing import NamedTuple

import numpy as np

_RECENT, _PAST = 1 / 4, 1 / 64  # weights of a batch in the two running means
_FAR = 3.0  # standard deviations that a batch moves the past by, at most
_LARGEST = 1e150  # a fall whose square does not overflow
_ALARM, _MANY = 20.0, 100
_FEWEST = 8  # batches before there is a score
_SIZE, _SIZE_PER_COLUMN = 256, 8  # rows of a reservoir


class DriftWarning(UserWarning):
    """Rows of a stream are not what they were, though nothing is to be forgotten."""


class Drift(NamedTuple):
    """Running means of the log-density of batches, each under parameters that had not seen it.

    Attributes
    ----------
    recent, past : float
        Means over about 4 and 64 batches.
    variance : float
        Of a batch about the past.
    n_batches : int
    score : float
        By how many standard deviations the recent lies below the past: within 3 or so while nothing changes, far
        above when rows come that the parameters did not expect; NaN for the first 8 batches.
    n_alarms : int
        Batches so far that were no chance: of a score above 20, or of 100 rows and less likely than the past by
        `2 + n_features` nats a row (single rows of a normal deviate by `sqrt(n_features / 2)`).
    """

    recent: float = 0.0
    past: float = 0.0
    variance: float = 0.0
    n_batches: int = 0
    score: float = math.nan
    n_alarms: int = 0

    def after(self, log_density: float, n_rows: int, n_features: int) -> "Drift":
        """After one more batch."""
        n_batches, score = self.n_batches + 1, math.nan
        recent = self.recent + max(1 / n_batches, _RECENT) * max(-_LARGEST, log_density - self.recent)
        share, gap = max(1 / n_batches, _PAST), max(-_LARGEST, log_density - self.past)
        alarm = n_batches > 1 and n_rows >= _MANY and -gap > 2 + n_features
        if n_batches > _FEWEST and self.variance > 0:
            deviation = math.sqrt(self.variance)
            score = (self.past - recent) / (deviation * math.sqrt(_RECENT / (2 - _RECENT)))
            alarm |= score > _ALARM
            gap = max(-_FAR * deviation, min(_FAR * deviation, gap))  # else the past would soon expect what is new
        variance = (1 - share) * (self.variance + share * gap**2)
        return Drift(recent, self.past + share * gap, variance, n_batches, score, self.n_alarms + alarm)


class Reservoir(NamedTuple):
    """The rows of lowest density among those that are not yet forgotten.

    Attributes
    ----------
    rows : ndarray of shape (n, D)
    log_densities : ndarray of shape (n,)
        Of each under the parameters that it met.
    seen : ndarray of shape (n,)
        Weight of the stream when it came.
    """

    rows: np.ndarray
    log_densities: np.ndarray
    seen: np.ndarray

    def suffices(self, memory: float) -> bool:
        """Whether a component can be born of it, where so many rows are remembered."""
        n_features = self.rows.shape[1]
        return len(self.rows) >= max(4 * (n_features + 1), min(_size(n_features), memory / 2))

    def after(self, rows: np.ndarray, log_densities: np.ndarray, seen: float, memory: float) -> "Reservoir":
        """With the lowest of more rows, and without those that came before a weight of `memory`."""
        here = self.seen > seen - memory
        parts = np.concatenate([self.rows[here], rows]), np.concatenate([self.log_densities[here], log_densities])
        came = np.concatenate([self.seen[here], np.full(len(rows), seen)])
        lowest = np.sort(np.argsort(parts[1], kind="stable")[: _size(rows.shape[1])])
        return Reservoir(parts[0][lowest], parts[1][lowest], came[lowest])

    def densest(self, inverse_root: np.ndarray) -> np.ndarray:
        """Numbers of the quarter of the rows that lie nearest to one of them, by the metric of a root (D, D)."""
        from scipy.spatial.distance import cdist  # a tenth of a second that few need

        places = self.rows @ inverse_root
        squares = cdist(places, places, "sqeuclidean")
        n_near = max(1, len(places) // 4)
        radius = np.partition(squares, n_near - 1, axis=1)[:, n_near - 1]
        return np.argsort(squares[np.argmin(radius)], kind="stable")[:n_near]


def empty(n_features: int) -> Reservoir:
    """A reservoir without rows."""
    return Reservoir(np.empty((0, n_features)), np.empty(0), np.empty(0))


def _size(n_features: int) -> int:
    return max(_SIZE, _SIZE_PER_COLUMN * (n_features + 1))
