"""What the estimators of mixtures of exponential families share."""

from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval

from fastem.data import Data, finite_array
from fastem.estimators.base import MixtureEstimator
from fastem.estimators.imputation import Imputation
from fastem.families.exponential import Conjugate
from fastem.models.mixture import Mixture, check_weights
from fastem.models.mixture_records import MixtureParams

_PARAMETERS = """tol : float, default=1e-3
        For `stopping`, in nats per sample.
    max_iter : int, default=1000
        Largest number of EM iterations of a start on all rows.
    n_init : int, default=1
        Number of starts (or races, see `n_race`); the best is kept.
    init_params : {'kmeans', 'k-means++', 'k-means||', 'ward', 'random_from_data', 'random'}, default='kmeans'
        How a start finds its first responsibilities: by nearest centre, which are then moved towards equal ones, or by
        chance. In a race 'kmeans' takes turns with others. A missing value lies at the mean of its column.
    weights_init : array-like of shape (n_components,), default=None
    components_init : array-like, tuple or dict, default=None
        Parameters to start from: one array, one for each of the attributes in their order, or a dict of them. Their
        weights are equal unless `weights_init` is given.
    random_state : int, RandomState instance or None, default=None
    warm_start : bool, default=False
        Start from the parameters of the last call of fit.
    verbose : int, default=0
        1 prints a line every `verbose_interval` iterations, 2 also the change and the time.
    verbose_interval : int, default=10
    stopping : {'change', 'aitken'}, default=None
        'change': a change of the objective below `tol`; 'aitken' waits until the estimated limit is less than `tol`
        away. None: 'aitken' for a thousandth of `tol`, or 'change' if the start is given.
    n_race : int, default=None
        0: each start is found and followed on all rows. Otherwise so many race for each on samples of rows. None: 12,
        or 0 for one component, where the start is given, or where nothing is iterated.
    split_merge : bool, default=False
        Whether to look for a better optimum by merging two components and splitting a third.
    acceleration : {'auto', 'anderson', 'squarem', None}, default='auto'
        Leaps between the steps of EM that keep what leads uphill. None: EM itself. 'auto': 'anderson', or EM itself if
        the start is given.
    algorithm : {'batch', 'minibatch', 'incremental'}, default='batch'
        How a start is followed on all rows; see `fastem.fit`.
    n_epochs : int, default=10
        Passes over the rows of 'minibatch'.
    max_time : float, default=None
        Seconds after which no further iteration begins.
    resp_init : array-like of shape (n_samples,) or (n_samples, n_components), default=None
        Labels from 0, or responsibilities, to start from instead of `init_params`.
    weight_concentration_prior : float, default=None
        Parameter (at least 1) of a symmetric Dirichlet prior on the weights. None: no prior.
    prior : float or fastem.Conjugate, default=None
        Conjugate prior of the parameters: so many rows, with the mean statistics of all the data unless `Conjugate`
        gives others, come to those of each component, and the fit is the posterior mode. None: maximum likelihood.
    n_threads : int, default=None
        Threads of the kernels; None or -1: all that numba may use. The bits of a fit do not depend on it.
    batch_size : int, default=None
        Rows that make a step of `partial_fit`, 'minibatch' or 'incremental'; see `fastem.GaussianMixture`.
    online : fastem.Online, default=None
        How `partial_fit` and 'minibatch' forget. None: `fastem.Online()`.
    frozen : dict, default=None
        Which of the parameters, by the names of the attributes without the underscore, stay as they are, and of which
        components; see `fastem.GaussianMixture`. Values that are not given are those of `weights_init` and
        `components_init`, or of the last fit with `warm_start=True`."""
_ATTRIBUTES = """converged_ : bool
    status_ : fastem.Status
        Why the fit ended.
    n_iter_ : int
        Iterations of the start that was kept.
    lower_bound_, lower_bounds_ : float, list of float
        Mean objective per sample that entered the last M-step, and that of every iteration.
    log_likelihood_ : float
        Total log-likelihood that entered the last M-step, without the prior.
    family_ : family
        What is known of the columns beside the parameters.
    n_samples_seen_, stream_, drift_score_ : see `fastem.GaussianMixture`
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only if X had string column names."""


CONJUGATE = [None, Interval(Real, 0.0, None, closed="neither"), Conjugate]  # what `prior` may be


def as_conjugate(prior: Any) -> Conjugate | None:
    """The prior that a number of rows, or a prior, means."""
    return Conjugate(float(prior)) if isinstance(prior, Real) else prior


class FamilyMixture(MixtureEstimator):
    """Base of the estimators whose components are of an exponential family.

    A class of it names the family (`_Family`); the fields of its parameters, with a trailing underscore, are the
    attributes.
    """

    _Family: ClassVar[Any]
    family_: Any
    _start_parts = ("components_init",)
    _parameter_constraints: ClassVar[dict] = {
        **MixtureEstimator._parameter_constraints,
        "components_init": ["array-like", tuple, dict, None],
        "prior": CONJUGATE,
        "frozen": [None, dict],
    }

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        if cls.__doc__ is not None:
            cls.__doc__ = cls.__doc__.replace("<parameters>", _PARAMETERS).replace("<attributes>", _ATTRIBUTES)
        if "_Family" in cls.__dict__:
            if "_LEARNED" not in cls.__dict__:
                cls._LEARNED = ("weights_", *(f"{field}_" for field in cls._Family.Params._fields))
            cls._takes_missing = cls._Family.takes_missing

    def __init__(
        self,
        n_components=1,
        *,
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
        self.n_components = n_components
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.components_init = components_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.stopping = stopping
        self.n_race = n_race
        self.split_merge = split_merge
        self.acceleration = acceleration
        self.algorithm = algorithm
        self.n_epochs = n_epochs
        self.max_time = max_time
        self.resp_init = resp_init
        self.weight_concentration_prior = weight_concentration_prior
        self.prior = prior
        self.n_threads = n_threads
        self.batch_size = batch_size
        self.online = online
        self.frozen = frozen

    @classmethod
    def from_parameters(cls, weights, *components, **params):
        """Build a fitted mixture from known parameters.

        Parameters
        ----------
        weights : array-like of shape (n_components,)
            Positive or zero, summing to 1.
        *components : array-like
            The other parameters, in the order of the attributes; or give them by the names of these, without the
            underscore.
        **params
            Constructor parameters.

        Returns
        -------
        estimator

        Raises
        ------
        ValueError or TypeError
            If a shape does not fit, the weights do not sum to 1, or a value lies outside its domain.

        Examples
        --------
        >>> import fastem
        >>> mixture = fastem.PoissonMixture.from_parameters([0.5, 0.5], rates=[[1.0], [9.0]])
        >>> mixture.predict([[0], [12]])
        array([0, 1])
        """
        fields = cls._Family.Params._fields
        named = {name: params.pop(name) for name in fields[len(components) :] if name in params}
        if len(components) + len(named) != len(fields):
            raise TypeError(f"give weights and {', '.join(fields)}; got {len(components) + len(named)} of these")
        return cls._from(weights, dict(zip(fields, components, strict=False)) | named, params)

    @classmethod
    def _from(cls, weights, components: Any, params: dict[str, Any]):
        weights = finite_array("weights", weights, 1)
        estimator = cls(n_components=len(weights), **params)
        estimator._validate_params()
        weights = check_weights("weights", weights, len(weights))
        family = estimator._new_family()
        given = estimator._as_components(components, "")
        family = replace(family, n_features=family.n_columns(given))
        given = family.check_params(given, len(weights), name="")
        estimator.family_ = family.recalled(weights, given)
        estimator._set_known(MixtureParams(weights, given), family.n_features)
        return estimator

    # between estimator and model

    def _new_family(self) -> Any:
        """The family that the constructor parameters describe, which has seen nothing."""
        return self._Family(prior=self._prior())

    def _prior(self) -> Conjugate | None:
        return as_conjugate(self.prior)

    def _as_components(self, given: Any, name: str = "components_init.") -> Any:
        """Parameters of the family from what a user gives: an array, several, or a dict."""
        Params = self._Family.Params
        if given is None or isinstance(given, Params):
            return given
        if isinstance(given, dict):
            if set(given) != set(Params._fields):
                raise ValueError(f"components_init has the keys {sorted(given)}; {list(Params._fields)} are needed")
            given = [given[field] for field in Params._fields]
        elif len(Params._fields) == 1:
            given = [given]
        if not isinstance(given, Sequence) or len(given) != len(Params._fields):
            raise ValueError(f"components_init must hold {len(Params._fields)} arrays: {', '.join(Params._fields)}")
        return Params(*(finite_array(f"{name}{f}", v, 2) for f, v in zip(Params._fields, given, strict=True)))

    def _model(self) -> Mixture:
        """The model that the constructor parameters describe."""
        return Mixture(
            self._new_family(),
            self.n_components,
            start=self.init_params if self.resp_init is None else self.resp_init,
            weights_init=self.weights_init,
            components_init=self._as_components(self.components_init),
            weight_concentration=self.weight_concentration_prior or 1.0,
            frozen=self.frozen,
            n_threads=self.n_threads,
        )

    def _known_family(self) -> Any:
        """The family with what was learned of the columns; under the prior of the constructor."""
        known = self.__dict__
        stream, fresh = known.get("stream_"), self._new_family()
        learned = known.get("family_") if stream is None or stream.model is None else stream.model.family
        if learned is None:  # attributes that were set by hand
            return fresh.recalled(self._params().weights, self._params().components)
        return learned.under_prior_of(fresh).holding(None)

    def _scoring_model(self) -> Mixture:
        return Mixture(self._known_family(), len(self._params().weights), n_threads=self.n_threads)

    def _resumed_model(self) -> Mixture:
        return replace(self._model(), family=self._known_family(), components_init=None, start="kmeans")

    def _fitted_model(self) -> Mixture:
        model, params = self._resumed_model(), self._params()
        return replace(model, n_components=len(params.weights), weights_init=None).holding(params)

    def _seen(self, model: Any) -> dict[str, Any]:
        return {"family_": model.family.holding(None)}

    def _settled(self, params: MixtureParams, data: Data) -> MixtureParams:
        counts = params.weights * data.total_weight
        return params._replace(components=self._known_family().settled(params.components, counts))

    def _params(self) -> MixtureParams:
        """Attributes as parameters, checked: users set them by hand, and the kernels index by their shapes."""
        known = self._known()
        if not isinstance(known, dict):
            return known
        weights = finite_array("weights_", known["weights_"], 1)
        parts = [finite_array(name, known[name], 2) for name in self._LEARNED[1:]]
        if {part.shape for part in parts} != {(len(weights), parts[0].shape[1])}:
            shapes = ", ".join(f"{name} {np.shape(known[name])}" for name in self._LEARNED)
            raise ValueError(f"{shapes} do not fit together")
        return MixtureParams(weights, self._Family.Params(*parts))

    def _shown(self, params: MixtureParams, model: Mixture | None = None) -> dict[str, Any]:
        return dict(zip(self._LEARNED, (params.weights, *params.components), strict=True))

    def _check_start(self, n_features: int | None = None) -> None:
        """Refuse to go on from parameters that are not those of the model."""
        last = len(self.weights_), self._known_family().n_columns(self._params().components)
        wanted = self.n_components, last[1] if n_features is None else n_features
        if last != wanted:
            raise ValueError(
                f"the last fit has {last[0]} components of {last[1]} columns, but {wanted[0]} of {wanted[1]} are "
                "needed to go on; set n_components back, or begin anew with warm_start=False and fit"
            )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = self._Family.is_positive
        return tags

    def _checked_rows(self, X, sample_weight, dtype):
        """Rows and weights of a stream; what no step could take is refused by the call that brings it."""
        rows, weight = super()._checked_rows(X, sample_weight, dtype)
        family = self._known_family() if self.__sklearn_is_fitted__() else self._new_family()
        family.check_rows(rows)
        return rows, weight

    def _is_family(self, family: Any) -> bool:
        """Whether a stream's family is what this estimator has."""
        return type(family) is self._Family

    def _check_learned(self) -> None:
        """Raise ValueError if attributes do not fit together; those of a file, for one."""
        params, family = self._params(), self._known_family()
        check_weights("weights_", params.weights, len(params.weights))
        family = replace(family, n_features=family.n_columns(params.components))
        family.check_params(params.components, len(params.weights), name="")
        if self.n_features_in_ != family.n_features:
            raise ValueError(f"the parameters are for {family.n_features} columns, n_features_in_ is not")


class ColumnMixture(Imputation, FamilyMixture):
    """Base of those whose columns are independent within a component, so that any of a row may be missing."""
