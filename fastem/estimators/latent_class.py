"""Latent class analysis."""

from typing import Any, ClassVar

import numpy as np

from fastem.data import finite_array
from fastem.estimators.family_mixture import ColumnMixture, FamilyMixture
from fastem.families.categorical import Categorical, CategoricalParams
from fastem.models.mixture import Mixture
from fastem.models.mixture_records import MixtureParams


class LatentClass(ColumnMixture):
    """Latent class analysis: a mixture of categorical columns that are independent within a class; NaN is missing.

    Parameters
    ----------
    n_components : int, default=1
        Number of classes K.
    categories : list of array-like, default=None
        The values that each column may have, numbers. None: those that X has at fit (for `partial_fit`, the rows of
        the start).
    <parameters>

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
        Shares of the classes.
    probabilities_ : list of n_features ndarrays of shape (n_components, n_categories)
        Of the categories of each column in each class; each row sums to 1. What no row of a class has gets
        probability 0 (without a `prior`).
    categories_ : list of n_features ndarrays
        Values of each column, sorted: the columns of probabilities_.
    <attributes>

    Raises
    ------
    ValueError
        At fit, if an argument cannot be used, a column holds no value, X has more than 4096 categories in all, or a
        value is none of the given categories.

    Notes
    -----
    `sample_weight` are frequencies. Rows that repeat cost no time. A value at predict that is none of `categories_`
    has probability 0 in every class: `score_samples` is -inf there, and `predict_proba` and `predict` go by the other
    columns, as in the limit of probabilities that fall to 0 together.

    `components_init` and `from_parameters` take probabilities as `probabilities_` has them.

    References
    ----------
    Goodman (1974), Biometrika 61, 215-231; Linzer & Lewis (2011), J. Statist. Software 42(10), section 2.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.array([[1, 5], [1, 5], [1, 7], [2, 9], [3, 9], [3, 9], [3, np.nan]])
    >>> classes = fastem.LatentClass(2, random_state=0).fit(X)
    >>> classes.categories_[1]
    array([5., 7., 9.])
    >>> classes.predict(X) == classes.predict(X)[0]
    array([ True,  True,  True, False, False, False, False])
    >>> classes.impute([[3, np.nan]])
    array([[3., 9.]])
    """

    _Family = Categorical
    _parameter_constraints: ClassVar[dict] = {**FamilyMixture._parameter_constraints, "categories": [list, tuple, None]}

    def __init__(
        self,
        n_components=1,
        *,
        categories=None,
        tol=1e-3,
        max_iter=1000,
        n_init=1,
        init_params="kmeans",
        weights_init=None,
        components_init=None,
        random_state=None,
        warm_start=False,
        verbose=0,
        verbose_interval=10,
        stopping=None,
        n_race=None,
        split_merge=False,
        acceleration="auto",
        algorithm="batch",
        n_epochs=10,
        max_time=None,
        resp_init=None,
        weight_concentration_prior=None,
        prior=None,
        n_threads=None,
        batch_size=None,
        online=None,
        frozen=None,
    ):
        super().__init__(
            n_components,
            tol=tol,
            max_iter=max_iter,
            n_init=n_init,
            init_params=init_params,
            weights_init=weights_init,
            components_init=components_init,
            random_state=random_state,
            warm_start=warm_start,
            verbose=verbose,
            verbose_interval=verbose_interval,
            stopping=stopping,
            n_race=n_race,
            split_merge=split_merge,
            acceleration=acceleration,
            algorithm=algorithm,
            n_epochs=n_epochs,
            max_time=max_time,
            resp_init=resp_init,
            weight_concentration_prior=weight_concentration_prior,
            prior=prior,
            n_threads=n_threads,
            batch_size=batch_size,
            online=online,
            frozen=frozen,
        )
        self.categories = categories

    @classmethod
    def from_parameters(cls, weights, probabilities, categories=None, **params):
        """Build a fitted model from known parameters.

        Parameters
        ----------
        weights : array-like of shape (n_components,)
        probabilities : list of n_features array-likes of shape (n_components, n_categories)
        categories : list of n_features array-likes, default=None
            The values of each column, sorted. None: 0, 1, and so on.
        **params
            Constructor parameters.

        Returns
        -------
        LatentClass

        Raises
        ------
        ValueError
            If a shape does not fit, or weights or probabilities do not sum to 1.

        Examples
        --------
        >>> import fastem
        >>> items = [[[0.9, 0.1], [0.2, 0.8]], [[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]]
        >>> fastem.LatentClass.from_parameters([0.6, 0.4], items).predict([[0, 0], [1, 2]])
        array([0, 1])
        """
        parts = [finite_array(f"probabilities[{i}]", part, 2) for i, part in enumerate(probabilities)]
        if categories is None:
            categories = [np.arange(part.shape[1], dtype=np.float64) for part in parts]
        categories = [finite_array(f"categories[{i}]", part, 1) for i, part in enumerate(categories)]
        if [len(part) for part in categories] != [part.shape[1] for part in parts]:
            raise ValueError("categories must have as many values for each column as probabilities has columns")
        if any((np.diff(part) <= 0).any() for part in categories):
            raise ValueError("categories must be sorted and different in each column, as probabilities are in them")
        return cls._from(weights, parts, {**params, "categories": categories})

    @property
    def categories_(self):
        """Values of each column, sorted."""
        return list(self._known_family().values)

    # between estimator and model

    def _new_family(self) -> Any:
        return Categorical(prior=self._prior(), categories=self.categories)

    def _as_components(self, given: Any, name: str = "components_init.") -> Any:
        if given is None or isinstance(given, CategoricalParams):
            return given
        parts = [finite_array(f"{name}probabilities[{i}]", part, 2) for i, part in enumerate(given)]
        if len({len(part) for part in parts}) > 1:
            raise ValueError(f"{name}probabilities must have a row for each component in every column")
        return CategoricalParams(np.concatenate(parts, axis=1))

    def _shown(self, params: Any, model: Mixture | None = None) -> dict[str, Any]:
        sizes = (self.family_ if model is None else model.family).n_values
        parts = np.split(params.components.probabilities, np.cumsum(sizes)[:-1], axis=1)
        return {"weights_": params.weights, "probabilities_": [np.ascontiguousarray(part) for part in parts]}

    def _params(self) -> MixtureParams:
        known = self._known()
        if not isinstance(known, dict):
            return known
        weights = finite_array("weights_", known["weights_"], 1)
        components = self._as_components(known["probabilities_"], "")
        if len(weights) != len(components.probabilities):
            raise ValueError(
                f"weights_ {weights.shape} and probabilities_ of {len(components.probabilities)} classes do not fit "
                "together"
            )
        return MixtureParams(weights, components)

    def _settings(self, model: Mixture) -> dict[str, Any]:
        given = model.family.categories
        given = None if given is None else tuple(np.asarray(part) for part in given)
        return {"categories": given, **super()._settings(model)}
