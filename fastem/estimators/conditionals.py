"""Mixtures of some columns, alone or given others, and regression by them."""

from typing import Any

import numpy as np

from fastem.data import as_rows, finite_array, is_integer


class Conditionals:
    """What `GaussianMixture` says of some columns, named or numbered, when others are known or left out."""

    covariance_type: str
    n_features_in_: int
    _check_fitted: Any
    _scoring_model: Any
    _params: Any
    from_parameters: Any

    def marginal(self, columns) -> Any:
        """Mixture of some of the columns, by number or name.

        Parameters
        ----------
        columns : array-like of int or str

        Returns
        -------
        GaussianMixture
            Fitted, with the columns in the order given. Its covariance_type is that of the mixture, or 'full' or 'diag'
            where some of the columns do not have the structure of all: EVI, EVE, VVE, EEV, VEV and EVV.

        Examples
        --------
        >>> from fastem import GaussianMixture
        >>> gm = GaussianMixture.from_parameters([1.0], [[0.0, 5.0]], [[[1.0, 0.5], [0.5, 2.0]]])
        >>> gm.marginal([1]).covariances_
        array([[[2.]]])
        """
        columns = self._columns("columns", columns)
        return self._of(self._scoring_model().marginal(self._params(), columns), columns)

    def condition(self, columns, values) -> Any:
        """Mixture of the other columns, given the values of some.

        Parameters
        ----------
        columns : array-like of int or str
            The known ones, by number or name.
        values : array-like of shape (len(columns),)

        Returns
        -------
        GaussianMixture
            Fitted, over the columns that are left, in their order; its covariance_type as that of `marginal`.

        Examples
        --------
        >>> from fastem import GaussianMixture
        >>> gm = GaussianMixture.from_parameters([1.0], [[0.0, 5.0]], [[[1.0, 0.5], [0.5, 2.0]]])
        >>> given = gm.condition([0], [2.0])
        >>> given.means_, given.covariances_
        (array([[6.]]), array([[[1.75]]]))
        """
        columns, left = self._split(columns)
        values = finite_array("values", values, 1)
        if values.shape != columns.shape:
            raise ValueError(f"values has shape {values.shape}; one for each of {len(columns)} columns is needed")
        return self._of(self._scoring_model().condition(self._params(), columns, left, values), left)

    def predict_conditional(self, X, columns):
        """Expectation of the other columns given some: regression by mixture.

        Parameters
        ----------
        X : array-like of shape (n_samples, len(columns))
            The known columns.
        columns : array-like of int or str
            Which these are.

        Returns
        -------
        ndarray of shape (n_samples, n_features - len(columns))

        Examples
        --------
        >>> from fastem import GaussianMixture
        >>> gm = GaussianMixture.from_parameters([1.0], [[0.0, 5.0]], [[[1.0, 0.5], [0.5, 2.0]]])
        >>> gm.predict_conditional([[2.0], [-2.0]], [0])
        array([[6.],
               [4.]])
        """
        columns, left = self._split(columns)
        X = as_rows(X).astype(np.float64, copy=False)
        if X.shape[1] != len(columns):
            raise ValueError(f"X has {X.shape[1]} columns; one for each of {len(columns)} known columns is needed")
        return self._scoring_model().regress(self._params(), columns, left, X)

    def _columns(self, name, columns) -> np.ndarray:
        """Numbers of distinct columns, given by number or name."""
        self._check_fitted()
        known = list(getattr(self, "feature_names_in_", ()))
        columns = list(np.atleast_1d(np.asarray(columns, dtype=object)))
        n_features = self.n_features_in_
        numbers = []
        for column in columns:
            if isinstance(column, str):
                if column not in known:
                    raise ValueError(f"{name} holds {column!r}, which is no column of the fit; these are {known}")
                column = known.index(column)
            is_flag = isinstance(column, bool | np.bool_)  # of a mask, which would be taken for 0 and 1
            if is_flag or not is_integer(column, 0) or column >= n_features:
                raise ValueError(f"{name} holds {column!r}; numbers from 0 to {n_features - 1} or names are needed")
            numbers.append(int(column))
        if not numbers or len(set(numbers)) < len(numbers):
            raise ValueError(f"{name} must hold at least one column, and none twice; got {columns}")
        return np.array(numbers)

    def _split(self, columns) -> tuple[np.ndarray, np.ndarray]:
        """Columns that are given, and the others, of which there must be one."""
        columns = self._columns("columns", columns)
        left = np.setdiff1d(np.arange(self.n_features_in_), columns)
        if len(left) == 0:
            raise ValueError("columns holds every column, so that none is left")
        return columns, left

    def _of(self, params, columns) -> Any:
        """A fitted mixture of the same kind with other parameters, over some of the columns."""
        other = type(self).from_parameters(
            params.weights,
            params.components.means,
            params.components.covariances,
            covariance_type=self._scoring_model().family.of_columns,
        )
        if hasattr(self, "feature_names_in_"):
            other.feature_names_in_ = self.feature_names_in_[columns]
        return other
