"""Missing values filled in, given what is there."""

from typing import Any

import numpy as np
from sklearn.utils import check_random_state


class Imputation:
    """What estimators whose models complete rows do for those that have gaps."""

    _check_fitted: Any
    _check_rows: Any
    _scoring_model: Any
    _params: Any

    def impute(self, X, *, method="mean", random_state=None):
        """Fill in what is missing, given what is there.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            NaN is missing.
        method : {'mean', 'draw'}, default='mean'
            The conditional expectation of each missing value (the most probable category, the mean direction of an
            angle), or a draw of all that are missing in a row from their
            conditional distribution: as it should be for multiple imputation, whose variances the means understate.
        random_state : int, RandomState instance or None, default=None
            Of the draws.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            A copy of X, float32 or float64, in which what was there is unchanged.

        References
        ----------
        Little & Rubin (2002), Statistical Analysis with Missing Data, sections 4.3 and 10.2.

        Examples
        --------
        >>> import numpy as np
        >>> from fastem import GaussianMixture
        >>> gm = GaussianMixture.from_parameters([1.0], [[0.0, 5.0]], [[[1.0, 0.5], [0.5, 2.0]]])
        >>> gm.impute([[2.0, np.nan], [np.nan, np.nan]])
        array([[2., 6.],
               [0., 5.]])
        """
        self._check_fitted()
        if method not in ("mean", "draw"):
            raise ValueError(f"method must be 'mean' or 'draw'; got {method!r}")
        X = self._check_rows(X, reset=False)
        rng = None
        if method == "draw":
            rng = np.random.default_rng(check_random_state(random_state).randint(np.iinfo(np.int32).max))
        return self._scoring_model().impute(self._params(), X, rng).astype(X.dtype, copy=False)
