"""Mixtures of factor analysers and of probabilistic principal component analysers, for many columns."""

from numbers import Integral, Real
from typing import ClassVar

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions

from fastem.data import as_numbers, finite_array
from fastem.estimators.base import MixtureEstimator
from fastem.families.factor_analyzer import FactorAnalyzer, FactorParams
from fastem.models.factor_analyzers import FactorAnalyzers
from fastem.models.mixture import check_weights
from fastem.models.mixture_records import MixtureParams


class FactorAnalyzerMixture(ClassNamePrefixFeaturesOutMixin, TransformerMixin, MixtureEstimator):
    """Gaussian mixture whose covariances are a few factors and independent errors: Lambda_k Lambda_k' + Psi_k.

    With one component it is factor analysis, or with noise='spherical' probabilistic principal component analysis. An
    iteration costs n_samples x n_components x n_features x n_factors; full covariances cost n_features / n_factors / 4
    times as much, and have as many times more parameters.

    Parameters
    ----------
    n_components : int, default=1
        Number of components K.
    n_factors : int, default=2
        Number of factors q of each component, fewer than columns.
    noise : {'diag', 'spherical'}, default='diag'
        Whether the errors of the columns have variances of their own (factor analysers), or the same (probabilistic
        principal components).
    shared_noise : bool, default=False
        Whether these variances are the same in all components.
    noise_floor : float, default=1e-6
        Part of the variance of a column that the variance of its errors has at least; with 'spherical', part of the
        mean variance. Without a floor the likelihood of a column that factors explain wholly is unbounded (a Heywood
        case).
    noise_prior : float, default=0.0
        Rows, of the variance that all rows have, that are added to those of each component where it estimates the
        variances of its errors: an inverse-gamma prior.
    tol, max_iter, n_init, init_params, weights_init, random_state, warm_start, verbose, verbose_interval, stopping,
    n_race, split_merge, acceleration, max_time, resp_init, weight_concentration_prior, n_threads
        See `GaussianMixture`. Factors are found slowly: `acceleration` is worth more than elsewhere, and max_iter is
        1000. There are no streams, and no algorithms but 'batch'.
    means_init, loadings_init, noise_init : array-like, default=None
        A start, of the shapes of `means_`, `loadings_` and `noise_variance_`: all of them or none.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    means_ : ndarray of shape (n_components, n_features)
    loadings_ : ndarray of shape (n_components, n_features, n_factors)
        Factors are turned so that Lambda' Psi^-1 Lambda is diagonal, the largest entry first, and the largest loading
        of each is positive; the likelihood does not tell.
    components_ : ndarray of shape (n_components, n_factors, n_features)
        The same, in the order of `sklearn.decomposition.FactorAnalysis`.
    noise_variance_ : ndarray
        (K, D), (D,) if shared, and with 'spherical' (K,) or ().
    converged_, n_iter_, lower_bound_, lower_bounds_, log_likelihood_, status_, n_samples_seen_, n_features_in_,
    feature_names_in_
        See `GaussianMixture`.

    Raises
    ------
    ValueError
        At fit, if an argument or the data cannot be used; a column must not be constant, unless noise='spherical'.

    References
    ----------
    McLachlan & Peel (2000), Finite Mixture Models, chapter 8. Tipping & Bishop (1999), Neural Computation 11, 443-482.

    Examples
    --------
    >>> import numpy as np
    >>> from fastem import FactorAnalyzerMixture
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(600, 1)) * np.linspace(0, 3, 30) + rng.normal(size=(600, 30))
    >>> X[300:] += 5.0
    >>> fm = FactorAnalyzerMixture(n_components=2, n_factors=1, random_state=0).fit(X)
    >>> np.bincount(fm.predict(X)).tolist()
    [300, 300]
    >>> fm.loadings_[0, [0, -1], 0].round() + 0.0
    array([0., 3.])
    """

    _LEARNED: ClassVar[tuple[str, ...]] = ("weights_", "means_", "loadings_", "noise_variance_")
    _start_parts = ("means_init", "loadings_init", "noise_init")
    algorithm, batch_size, n_epochs, online = "batch", None, 1, None
    _parameter_constraints: ClassVar[dict] = {
        **{
            name: values
            for name, values in MixtureEstimator._parameter_constraints.items()
            if name not in ("algorithm", "batch_size", "n_epochs", "online")
        },
        "n_factors": [Interval(Integral, 1, None, closed="left")],
        "noise": [StrOptions({"diag", "spherical"})],
        "shared_noise": ["boolean"],
        "noise_floor": [Interval(Real, 0.0, 1.0, closed="neither")],
        "noise_prior": [Interval(Real, 0.0, None, closed="left")],
        "means_init": ["array-like", None],
        "loadings_init": ["array-like", None],
        "noise_init": ["array-like", None],
    }

    def __init__(
        self,
        n_components=1,
        *,
        n_factors=2,
        noise="diag",
        shared_noise=False,
        noise_floor=1e-6,
        noise_prior=0.0,
        tol=1e-3,
        max_iter=1000,
        n_init=1,
        init_params="kmeans",
        weights_init=None,
        means_init=None,
        loadings_init=None,
        noise_init=None,
        random_state=None,
        warm_start=False,
        verbose=0,
        verbose_interval=10,
        stopping=None,
        n_race=None,
        split_merge=False,
        acceleration="auto",
        max_time=None,
        resp_init=None,
        weight_concentration_prior=None,
        n_threads=None,
    ):
        self.n_components = n_components
        self.n_factors = n_factors
        self.noise = noise
        self.shared_noise = shared_noise
        self.noise_floor = noise_floor
        self.noise_prior = noise_prior
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.loadings_init = loadings_init
        self.noise_init = noise_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.stopping = stopping
        self.n_race = n_race
        self.split_merge = split_merge
        self.acceleration = acceleration
        self.max_time = max_time
        self.resp_init = resp_init
        self.weight_concentration_prior = weight_concentration_prior
        self.n_threads = n_threads

    @property
    def partial_fit(self):
        """Not there: statistics of factors belong to their parameters."""
        raise AttributeError("a FactorAnalyzerMixture does not learn from streams; use fit, with rows from disk too")

    @property
    def components_(self) -> np.ndarray:
        """Loadings (n_components, n_factors, n_features)."""
        return np.swapaxes(self.loadings_, 1, 2)

    def transform(self, X):
        """Expected factors (n_samples, n_factors) of each row, in its most probable component."""
        return self._evaluate(FactorAnalyzers.transform, X)

    @property
    def _n_features_out(self) -> int:
        return self.loadings_.shape[2]

    def get_covariance(self):
        """Covariances (n_components, n_features, n_features) of the components."""
        means, loadings, noise = self._params().components
        return loadings @ np.swapaxes(loadings, 1, 2) + noise[:, :, None] * np.eye(means.shape[1])

    @classmethod
    def from_parameters(cls, weights, means, loadings, noise_variance, **params):
        """Build a fitted mixture from known parameters.

        Parameters
        ----------
        weights, means, loadings, noise_variance : array-like
            Of the shapes of the attributes.
        **params
            Constructor parameters, such as noise.

        Returns
        -------
        FactorAnalyzerMixture

        Examples
        --------
        >>> from fastem import FactorAnalyzerMixture
        >>> fm = FactorAnalyzerMixture.from_parameters([1.0], [[0.0, 0.0]], [[[1.0], [1.0]]], [[1.0, 1.0]])
        >>> fm.get_covariance()
        array([[[2., 1.],
                [1., 2.]]])
        """
        loadings = finite_array("loadings", loadings, 3)
        estimator = cls(n_components=len(loadings), n_factors=loadings.shape[2], **params)
        estimator._validate_params()
        components = estimator._given(means, loadings, noise_variance, "means", "loadings", "noise_variance")
        weights = check_weights("weights", weights, len(loadings))
        estimator._set_known(MixtureParams(weights, components), loadings.shape[1])
        return estimator

    # between estimator and model

    def _model(self) -> FactorAnalyzers:
        """The model that the constructor parameters describe."""
        given = [getattr(self, name) for name in self._start_parts]
        start = None
        if any(part is not None for part in given):
            if any(part is None for part in given):
                raise ValueError(f"give all of {', '.join(self._start_parts)}, or none")
            start = self._given(*given, *self._start_parts)
        return FactorAnalyzers(
            FactorAnalyzer(self.n_factors, self.noise, self.shared_noise, self.noise_floor, self.noise_prior),
            self.n_components,
            start=self.init_params if self.resp_init is None else self.resp_init,
            weights_init=self.weights_init,
            components_init=start,
            weight_concentration=self.weight_concentration_prior or 1.0,
            n_threads=self.n_threads,
        )

    def _noise_shape(self, n_components: int, n_features: int) -> tuple[int, ...]:
        shape: tuple[int, ...] = () if self.shared_noise else (n_components,)
        return (*shape, n_features) if self.noise == "diag" else shape

    def _given(self, means, loadings, noise, *names: str) -> FactorParams:
        """Parameters from arrays of the shapes of the attributes."""
        means, loadings = finite_array(names[0], means, 2), finite_array(names[1], loadings, 3)
        shape = self._noise_shape(*means.shape)
        noise = np.array(as_numbers(names[2], noise), dtype=np.float64)
        if loadings.shape != (*means.shape, self.n_factors) or noise.shape != shape:
            raise ValueError(
                f"{names[0]} {means.shape}, {names[1]} {loadings.shape} and {names[2]} {noise.shape} do not fit "
                f"together for n_factors={self.n_factors}, noise={self.noise!r} and shared_noise={self.shared_noise}"
            )
        if not (np.isfinite(noise).all() and (noise > 0).all()):
            raise ValueError(f"{names[2]} must be positive")
        if self.noise == "spherical":
            noise = noise[..., None]
        return FactorParams(means, loadings, np.broadcast_to(noise, means.shape).copy())

    def _params(self) -> MixtureParams:
        """Attributes as parameters, checked."""
        known = self._known()
        weights = finite_array("weights_", known["weights_"], 1)
        parts = [known[name] for name in self._LEARNED[1:]]
        components = self._given(*parts, *self._LEARNED[1:])
        if len(weights) != len(components.means):
            raise ValueError(f"weights_ {weights.shape} and means_ {components.means.shape} do not fit together")
        return MixtureParams(weights, components)

    def _check_learned(self) -> None:
        """Raise ValueError if attributes do not fit together; those of a file, for one."""
        n_features = self._params().components.means.shape[1]
        if self.n_features_in_ != n_features:
            raise ValueError(f"means_ has {n_features} columns, but n_features_in_ is {self.n_features_in_}")

    def _attributes(self, params: MixtureParams) -> dict[str, np.ndarray]:
        means, loadings, noise = params.components
        _, _, turns = np.linalg.svd(loadings / np.sqrt(noise)[:, :, None], full_matrices=False)
        loadings = loadings @ np.swapaxes(turns, 1, 2)
        largest = np.take_along_axis(loadings, np.abs(loadings).argmax(axis=1)[:, None, :], 1)
        noise = noise[0] if self.shared_noise else noise
        return {
            "weights_": params.weights,
            "means_": means,
            "loadings_": loadings * np.where(largest < 0, -1.0, 1.0),
            "noise_variance_": np.array(noise[..., 0]) if self.noise == "spherical" else noise,
        }

    def _check_start(self, n_features: int | None = None) -> None:
        """Refuse to go on from parameters that are not those of the model."""
        shape = np.shape(self.loadings_)
        wanted = self.n_components, shape[1] if n_features is None else n_features, self.n_factors
        if shape != wanted:
            raise ValueError(
                f"loadings of the last fit have shape {shape}, but {wanted} is needed to go on; begin anew with "
                "warm_start=False and fit"
            )
