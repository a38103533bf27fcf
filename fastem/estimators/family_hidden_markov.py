"""Hidden Markov models whose states emit from any family."""

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval

from fastem.data import finite_array
from fastem.estimators.hidden_markov import HiddenMarkovEstimator
from fastem.families.exponential import Coded, plain_frame
from fastem.families.factor_analyzer import FactorAnalyzer
from fastem.families.family import Family
from fastem.families.gated_regression import GatedRegression
from fastem.families.gaussian import Gaussian
from fastem.families.mixed import MixedParams
from fastem.models.hidden_markov import HiddenMarkov, fields_of


class HMM(HiddenMarkovEstimator):
    """Hidden Markov model whose states emit from any family, or from mixtures of its components.

    Parameters
    ----------
    family : fastem family
        Such as `fastem.Gamma()`, `fastem.VonMises()`, or one of your own. `fastem.Gaussian` has classes of its own:
        GaussianHMM and GMMHMM. `fastem.Regression()` makes a Markov-switching regression: the last column of X is the
        response.
    n_components : int, default=1
        Number of states K.
    n_mix : int, default=1
        Number of components M of each state.
    components_init : dict of str to array-like, default=None
        Parameters of the family that replace those of the start, by their names, with axis 0 for the K M components:
        those of the first state come first.
    weights_init : array-like of shape (n_components, n_mix), default=None
    weight_concentration_prior : float, default=None
        Parameter, at least 1, of Dirichlet priors of the rows of `weights_`. None: no prior.
    tol, max_iter, n_init, init_params, startprob_init, transmat_init, random_state, warm_start, verbose, \
verbose_interval, stopping, n_race, acceleration, algorithm, n_epochs, max_time, startprob_prior, transmat_prior, \
n_threads, batch_size, online
        As in `fastem.GaussianHMM`.

    Attributes
    ----------
    startprob_, transmat_ : ndarray of shape (n_components,), (n_components, n_components)
    weights_ : ndarray of shape (n_components, n_mix)
    components_ : NamedTuple of ndarray
        Parameters of the family, with axis 0 for the K M components.
    family_ : fastem family
        With what it took from the data.

    See Also
    --------
    GaussianHMM : What is the same, and the other attributes.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.random.default_rng(0).exponential(np.repeat([1.0, 20.0, 1.0], 200))[:, None]
    >>> model = fastem.HMM(fastem.ExponentialTime(), n_components=2, random_state=0).fit(X)
    >>> bool(np.bincount(model.predict(X)).min() > 150)
    True
    """

    _LEARNED = ("startprob_", "transmat_", "weights_", "components_")
    _start_parts = ("startprob_init", "transmat_init", "components_init")
    _parameter_constraints: ClassVar[dict] = {
        **{name: kinds for name, kinds in HiddenMarkovEstimator._parameter_constraints.items() if name != "resp_init"},
        "family": [Family],
        "n_mix": [Interval(Integral, 1, None, closed="left")],
        "components_init": [dict, None],
        "weights_init": ["array-like", None],
        "weight_concentration_prior": [None, Interval(Real, 1.0, None, closed="left")],
    }
    resp_init = None  # states of rows would not tell the components
    weights_: np.ndarray
    components_: Any

    def __init__(
        self,
        family,
        n_components=1,
        n_mix=1,
        *,
        tol=1e-3,
        max_iter=100,
        n_init=1,
        init_params="kmeans",
        startprob_init=None,
        transmat_init=None,
        weights_init=None,
        components_init=None,
        random_state=None,
        warm_start=False,
        verbose=0,
        verbose_interval=10,
        stopping=None,
        n_race=None,
        acceleration="auto",
        algorithm="batch",
        n_epochs=10,
        max_time=None,
        startprob_prior=None,
        transmat_prior=None,
        weight_concentration_prior=None,
        n_threads=None,
        batch_size=None,
        online=None,
    ):
        self.family = family
        self.n_components = n_components
        self.n_mix = n_mix
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.startprob_init = startprob_init
        self.transmat_init = transmat_init
        self.weights_init = weights_init
        self.components_init = components_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.stopping = stopping
        self.n_race = n_race
        self.acceleration = acceleration
        self.algorithm = algorithm
        self.n_epochs = n_epochs
        self.max_time = max_time
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.weight_concentration_prior = weight_concentration_prior
        self.n_threads = n_threads
        self.batch_size = batch_size
        self.online = online

    @classmethod
    def from_parameters(cls, family, startprob, transmat, components, weights=None, **params):
        """Build a fitted model from known parameters.

        Parameters
        ----------
        family : fastem family
        startprob, transmat : array-like of shape (n_components,), (n_components, n_components)
        components : dict of str to array-like, or NamedTuple of the family
            Its parameters, with axis 0 for the components of all states: those of the first state come first.
        weights : array-like of shape (n_components, n_mix), default=None
            None: one component for each state.
        **params
            Constructor parameters.

        Returns
        -------
        HMM

        Raises
        ------
        ValueError or TypeError
            If a shape does not fit, probabilities do not sum to 1, or a value lies outside its domain.

        Examples
        --------
        >>> import fastem
        >>> model = fastem.HMM.from_parameters(
        ...     fastem.Geometric(), [1.0, 0.0], [[0.9, 0.1], [0.1, 0.9]], {"means": [[0.2], [9.0]]})
        >>> model.predict([[1], [0], [12], [7]])
        array([0, 0, 1, 1])
        """
        startprob = finite_array("startprob", startprob, 1)
        weights = np.ones((len(startprob), 1)) if weights is None else finite_array("weights", weights, 2)
        estimator = cls(family, n_components=len(startprob), n_mix=weights.shape[1], **params)
        estimator._validate_params()
        known = estimator._family()
        if isinstance(components, dict):
            fields = fields_of(known)
            if set(components) - {"precisions_cholesky"} != set(fields):
                raise ValueError(f"components has the keys {sorted(components)}; {fields} are needed")
            given = {name: np.asarray(part, dtype=np.float64) for name, part in components.items()}
            components = known.Params(*(given.get(name) for name in known.Params._fields))
        components = estimator._checked_components(estimator._recalled(components), components, weights.size)
        return estimator._known_as(startprob, transmat, weights_=weights, components_=components)

    def _family(self) -> Any:
        if type(self.family) is Gaussian:
            raise TypeError("family is fastem.Gaussian, which has estimators of its own: use GaussianHMM or GMMHMM")
        if isinstance(self.family, FactorAnalyzer | GatedRegression):
            raise TypeError(
                f"family is {type(self.family).__name__}, which needs a model of its own and cannot be what states "
                "emit from; use another family"
            )
        return self.family

    def _known_family(self) -> Any:
        known, family = self.__dict__, self._family()
        if "family_" in known:
            return known["family_"]
        return self._recalled(known["components_"]) if "components_" in known else family

    def _recalled(self, components: Any) -> Any:
        """The family with what components tell that were given, not fitted."""
        family = self._family()
        if not isinstance(components, family.Params):
            raise TypeError(f"the components must be {family.Params.__name__}; got {type(components).__name__}")
        first = components.parts[0][0] if isinstance(components, MixedParams) else components[0]
        if np.ndim(first) != 2:
            raise ValueError(f"{fields_of(family)[0]} has shape {np.shape(first)}; (n_components, ...) is needed")
        n_components = len(first)
        return family.recalled(np.full(n_components, 1.0 / n_components), components)

    @staticmethod
    def _checked_components(family: Any, components: Any, n_components: int) -> Any:
        """Components with the roots that follow from them, after checking shapes, finiteness and domains."""
        if not isinstance(components, family.Params):
            raise TypeError(f"components_ must be {family.Params.__name__}; got {type(components).__name__}")
        options: dict[str, Any] = {"name": "components_."} if isinstance(family, Coded) else {}
        return family.check_params(components, n_components, plain_frame(family.n_columns(components)), **options)

    def _check_start(self, n_features: int | None = None) -> None:
        if not self._is_family(self._known_family()):
            raise ValueError(
                f"the last fit was of {type(self._known_family()).__name__}, and family is {self.family!r} now; set it "
                "back, or begin anew with warm_start=False and fit"
            )
        super()._check_start(n_features)

    def _settings(self, model: HiddenMarkov) -> dict[str, Any]:
        return {"family": type(model.family).__name__, **super()._settings(model)}

    def _seen(self, model: HiddenMarkov) -> dict[str, Any]:
        return {"family_": model.family}

    def _gives_start(self) -> bool:
        is_whole = set(fields_of(self._family())) <= set(self.components_init or ())
        return is_whole and (self.n_mix == 1 or self.weights_init is not None) and super()._gives_start()

    def _components_init(self) -> dict[str, Any]:
        return dict(self.components_init or {})

    def _components(self, known: dict[str, Any], n_components: int) -> Any:
        components = known["components_"]
        self._checked_components(self._known_family(), components, n_components)
        return components

    def _emissions(self, weights: np.ndarray, components: Any) -> dict[str, Any]:
        return {"weights_": weights, "components_": components}
