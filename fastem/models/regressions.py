"""Mixtures of regressions: `Mixture` with starts that look for lines, not for clusters."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from fastem.data import Data
from fastem.families.regression import Regression
from fastem.families.regression_records import RegressionMoments, RegressionParams
from fastem.initialize import STARTS
from fastem.models.mixture import Mixture
from fastem.models.mixture_records import MixtureParams, same_bits

_TURNS = ("lines", "lines", "kmeans")  # of a race
_ROWS = 500  # by which the errors of first lines are measured
_ERRORS = 1e-6  # of the variance of a response that first errors have at least


@dataclass(frozen=True, eq=False)
class Regressions(Mixture):
    """Mixture of K linear regressions; rows hold the columns regressed on, then the responses.

    Parameters
    ----------
    family : Regression
    n_components : int, default=1
    start : str or array-like, default='lines'
        'lines': regressions of a few rows for each component, drawn by chance. Or one of those of `Mixture`, which take
        a row for a point.
    **others
        See `Mixture`.

    Examples
    --------
    See `Regression`.
    """

    start: Any = "lines"

    starts: ClassVar[tuple[str, ...]] = (*STARTS, "lines")

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.family, Regression):
            raise TypeError(f"family must be a fastem.Regression; got {self.family!r}")

    @same_bits
    def initialize(self, data: Data, rng: np.random.Generator) -> Any:
        """Start parameters."""
        if not (isinstance(self.start, str) and self.start == "lines") or self.components_init is not None:
            return super().initialize(data, rng)
        self.require_held()
        weights = np.full(self.n_components, 1.0 / self.n_components)
        weights = weights if self.weights_init is None else self.weights_init
        return self.put(MixtureParams(weights, self._lines(data, rng)))

    def entrant(self, number: int) -> Mixture:
        """Return the model that makes start `number` of a race: 'lines' takes turns with 'kmeans'."""
        if isinstance(self.start, str) and self.start == "lines":
            return replace(self, start=_TURNS[number % len(_TURNS)])
        return super().entrant(number)

    def _lines(self, data: Data, rng: np.random.Generator) -> RegressionParams:
        """Regressions of as few rows as tell one, with errors as if each row belonged to the line nearest to it.

        Rows that are labelled with a component come first.
        """
        family, few = self.family, self._fewest_rows
        if self.n_components * few > data.n_counting:
            few = max(1, data.n_counting // self.n_components)
        n_rows = min(max(_ROWS, self.n_components * few), data.n_counting)
        block = data.take(data.draw(n_rows, rng)).blocks[0]
        block = block.some(rng.permutation(len(block.X)))
        rows = block.X.astype(np.float64)
        mean = rows.mean(axis=0)
        p = rows.shape[1] - family.n_responses
        parts = []
        for k in range(self.n_components):
            mine = rows[k * few : (k + 1) * few]
            if block.labels is not None:
                mine = np.concatenate([rows[block.labels == k], mine])[:few]
            center = mine.mean(axis=0)
            second = np.einsum("ni,nj->ij", mine - center, mine - center) / len(mine)
            slopes = family._slopes(second[None, :p, :p], second[None, p:, :p])[0]
            parts.append((center[p:] - slopes @ center[:p], slopes))
        intercepts, slopes = (np.stack(part) for part in zip(*parts, strict=True))
        gaps = rows[:, None, p:] - intercepts - np.einsum("np,kmp->nkm", rows[:, :p], slopes)
        spread = np.maximum(np.einsum("nm,nm->m", rows[:, p:] - mean[p:], rows[:, p:] - mean[p:]) / len(rows), 1e-300)
        nearest = np.argmin((gaps**2 / spread).sum(axis=2), axis=1)
        left = gaps[np.arange(len(rows)), nearest]
        errors = np.einsum("ni,nj->ij", left, left) / len(rows) + _ERRORS * np.diag(spread)
        errors = np.broadcast_to(errors, (self.n_components, *errors.shape))
        counts = np.full(self.n_components, 1.0 / self.n_components)
        means = np.zeros((self.n_components, p))
        moments = RegressionMoments(counts, means, np.zeros((self.n_components, p, p)), intercepts, slopes, errors)
        return family.maximize(moments, None, self.bound.granule)
