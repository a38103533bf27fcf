"""Mixtures of columns of several families."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from fastem.data import finite_array, is_integer
from fastem.estimators.family_mixture import ColumnMixture, FamilyMixture
from fastem.families.bernoulli import Bernoulli
from fastem.families.beta import Beta
from fastem.families.categorical import Categorical
from fastem.families.exponential import Exponential
from fastem.families.exponential_time import ExponentialTime
from fastem.families.gamma import Gamma
from fastem.families.geometric import Geometric
from fastem.families.log_normal import LogNormal
from fastem.families.mixed import Mixed, MixedParams
from fastem.families.multinomial import Multinomial
from fastem.families.normal import Normal
from fastem.families.normal_block import NormalBlock
from fastem.families.poisson import Poisson
from fastem.families.von_mises import VonMises
from fastem.models.mixture import Mixture
from fastem.models.mixture_records import MixtureParams

FAMILIES: dict[str, Any] = {
    "bernoulli": Bernoulli(),
    "beta": Beta(),
    "categorical": Categorical(),
    "exponential": ExponentialTime(),
    "gamma": Gamma(),
    "gaussian": Normal(),
    "gaussian_full": NormalBlock(),
    "gaussian_spherical": NormalBlock(covariance_type="spherical"),
    "geometric": Geometric(),
    "log_normal": LogNormal(),
    "multinomial": Multinomial(),
    "poisson": Poisson(),
    "von_mises": VonMises(),
}


class MixedMixture(ColumnMixture):
    """Mixture of columns of several families, independent within a component but for those of one multivariate family.

    Parameters
    ----------
    n_components : int, default=1
    families : dict or list of (family, columns)
        A family's name or a family, such as `fastem.Poisson(prior=...)`, and its columns: a number, a name (of the
        columns of a DataFrame), or a list of them. Every column belongs to one family. The names are 'bernoulli',
        'beta', 'categorical', 'exponential', 'gamma', 'gaussian' (each column with variances of its own),
        'gaussian_full' (correlated), 'gaussian_spherical' (one variance for all), 'geometric', 'log_normal',
        'multinomial', 'poisson' and 'von_mises'.
    <parameters>

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    components_ : list of NamedTuples
        Parameters of the components, for each entry of `families`: `components_[0].rates` and so on; those of
        categories are probabilities of all columns beside each other.
    families_ : list of (family, ndarray)
        The families with what they learned of their columns, and the numbers of these.
    <attributes>

    Raises
    ------
    ValueError
        At fit, if an argument cannot be used, a column has no family or two, or X holds values that the family of
        their column cannot have. NaN is missing; rows of the multivariate families ('gaussian_full',
        'gaussian_spherical', 'multinomial') must be whole.

    Notes
    -----
    A `prior` of the mixture is for the families that have none of their own.

    Normal columns are taken as products of standardised values, and lose eps (spread / deviation)^2 of the accuracy of
    their variances: 1e-10 for a component a thousand times narrower than its column. `GaussianMixture` loses nothing.

    References
    ----------
    Moustaki & Papageorgiou (2005), Comput. Statist. Data Anal. 48, 659-675.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.array([[0, 1, 1.5], [1, 1, 1.1], [0, 1, 0.7], [9, 0, 5.2], [11, 0, 4.8], [10, 1, np.nan]])
    >>> families = {"poisson": 0, "bernoulli": 1, "gaussian": [2]}
    >>> mixture = fastem.MixedMixture(2, families=families, prior=0.1, random_state=0).fit(X)
    >>> np.sort(mixture.components_[0].rates[:, 0]).round(1)
    array([0.5, 9.8])
    >>> mixture.impute(X)[5].round(0)
    array([10.,  1.,  5.])
    """

    _Family = Mixed
    _LEARNED = ("weights_", "components_")
    _parameter_constraints: ClassVar[dict] = {**FamilyMixture._parameter_constraints, "families": [dict, list, tuple]}

    def __init__(
        self,
        n_components=1,
        *,
        families=(),
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
        self.families = families

    @classmethod
    def from_parameters(cls, weights, components, families, **params):
        """Build a fitted mixture from known parameters.

        Parameters
        ----------
        weights : array-like of shape (n_components,)
        components : list
            For each entry of `families` its parameters: an array, a tuple of arrays or a dict of them by their names.
        families : dict or list of (family, columns)
            See the constructor; columns are numbers, and 'categorical' needs `fastem.Categorical(categories=...)`.
        **params
            Other constructor parameters.

        Returns
        -------
        MixedMixture

        Examples
        --------
        >>> import fastem
        >>> families = [("poisson", [0]), ("gaussian", [1])]
        >>> components = [[[1.0], [9.0]], {"means": [[0.0], [5.0]], "variances": [[1.0], [1.0]]}]
        >>> mixture = fastem.MixedMixture.from_parameters([0.5, 0.5], components, families)
        >>> mixture.predict([[0, 0.5], [9, 6.0]])
        array([0, 1])
        """
        return cls._from(weights, components, {**params, "families": families})

    @property
    def families_(self):
        """The families with what they learned of their columns, and the numbers of these."""
        return list(self._known_family().parts)

    # between estimator and model

    def _entries(self) -> list[tuple[Any, Any]]:
        entries = list(self.families.items() if isinstance(self.families, Mapping) else self.families)
        if not entries or not all(isinstance(entry, tuple | list) and len(entry) == 2 for entry in entries):
            raise ValueError(
                "families must be a dict from family to columns, or a list of pairs of them, such as "
                f"[('poisson', [0, 1]), ('gaussian', [2])]; got {self.families!r}"
            )
        return [(self._one_family(family), self._column_numbers(columns)) for family, columns in entries]

    def _one_family(self, family: Any) -> Any:
        if isinstance(family, str):
            if family not in FAMILIES:
                raise ValueError(f"{family!r} is no family; use one of {sorted(FAMILIES)}, or a family of yours")
            family = FAMILIES[family]
        if not isinstance(family, Exponential):
            raise TypeError(f"families must be names or exponential families such as fastem.Poisson(); got {family!r}")
        return replace(family, prior=self._prior()) if family.prior is None else family

    def _column_numbers(self, columns: Any) -> np.ndarray:
        names = self.__dict__.get("feature_names_in_")
        numbers = []
        for column in [columns] if isinstance(columns, str) or is_integer(columns, 0) else columns:
            if is_integer(column, 0):
                numbers.append(int(column))
            elif names is None:
                raise ValueError(f"families name the column {column!r}, but X has no column names; give a DataFrame")
            elif column not in names:
                raise ValueError(f"families name the column {column!r}, which X does not have: {list(names)}")
            else:
                numbers.append(int(np.flatnonzero(names == column)[0]))
        return np.array(numbers, np.int64)

    def _new_family(self) -> Any:
        entries = self._entries()
        if "n_features_in_" in self.__dict__:
            counts = np.bincount(np.concatenate([numbers for _, numbers in entries]), minlength=self.n_features_in_)
            if len(counts) > self.n_features_in_:
                raise ValueError(f"families name column {len(counts) - 1}, and X has {self.n_features_in_} columns")
            if (counts != 1).any():
                column = int(np.argmax(counts != 1))
                raise ValueError(f"column {column} of X has {counts[column]} families; each column must have one")
        return Mixed(entries)

    def _as_components(self, given: Any, name: str = "components_init") -> Any:
        if given is None or isinstance(given, MixedParams):
            return given
        families = [family for family, _ in self._entries()]
        if len(given) != len(families):
            raise ValueError(f"{name or 'components'} must have an entry for each of the {len(families)} families")
        parts = []
        for number, (family, part) in enumerate(zip(families, given, strict=True)):
            Params = family.Params
            if isinstance(part, dict):
                part = [part.get(field) for field in Params._fields]
            elif not isinstance(part, Params) and len(Params._fields) == 1:
                part = [part]
            if len(part) != len(Params._fields) or any(value is None for value in part):
                raise ValueError(f"{name or 'components'}[{number}] must hold {', '.join(Params._fields)}")
            label = f"{name or 'components'}[{number}]."
            pairs = zip(Params._fields, part, strict=True)
            parts.append(Params(*(finite_array(f"{label}{field}", value, np.ndim(value)) for field, value in pairs)))
        return MixedParams(tuple(parts))

    def _shown(self, params: Any, model: Mixture | None = None) -> dict[str, Any]:
        return {"weights_": params.weights, "components_": list(params.components.parts)}

    def _params(self) -> MixtureParams:
        known = self._known()
        if not isinstance(known, dict):
            return known
        weights = finite_array("weights_", known["weights_"], 1)
        components = MixedParams(tuple(known["components_"]))
        if any(len(array) != len(weights) for part in components.parts for array in part):
            raise ValueError(f"weights_ {weights.shape} and components_ do not fit together")
        return MixtureParams(weights, components)

    def _is_family(self, family: Any) -> bool:
        fresh = self._new_family()
        if not isinstance(family, Mixed) or len(family.parts) != len(fresh.parts):
            return False
        pairs = zip(family.parts, fresh.parts, strict=True)
        return all(type(one) is type(two) and np.array_equal(some, same) for (one, some), (two, same) in pairs)

    def _settings(self, model: Mixture) -> dict[str, Any]:
        parts = tuple((type(family).__name__, columns) for family, columns in model.family.parts)
        return {"families": parts, **super()._settings(model)}
