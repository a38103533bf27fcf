"""Mixtures of exponential families, one class each; latent classes are in `latent_class.py`."""

from dataclasses import replace
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval

from fastem.data import is_integer
from fastem.estimators.family_mixture import ColumnMixture, FamilyMixture
from fastem.families.bernoulli import Bernoulli
from fastem.families.beta import Beta
from fastem.families.exponential_time import ExponentialTime
from fastem.families.gamma import Gamma
from fastem.families.geometric import Geometric
from fastem.families.log_normal import LogNormal
from fastem.families.multinomial import Multinomial
from fastem.families.poisson import Poisson
from fastem.families.von_mises import VonMises
from fastem.models.mixture import Mixture


class PoissonMixture(ColumnMixture):
    """Mixture of Poisson counts that are independent within a component; NaN is missing.

    Parameters
    ----------
    n_components : int, default=1
    <parameters>

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    rates_ : ndarray of shape (n_components, n_features)
        Mean counts; 0 for a column of which a component has seen only zeros.
    <attributes>

    Raises
    ------
    ValueError
        At fit, if an argument cannot be used, or X holds anything but integers from 0 on.

    References
    ----------
    Karlis & Xekalaki (2005), Int. Statist. Rev. 73, 35-58, section 3.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> deaths = np.arange(10)[:, None]  # of women over 80 in The Times, days with so many (Hasselblad 1969)
    >>> days = [162, 267, 271, 185, 111, 61, 27, 8, 3, 1]
    >>> mixture = fastem.PoissonMixture(2, random_state=0).fit(deaths, sample_weight=days)
    >>> round(mixture.log_likelihood_, 3)
    -1989.946
    >>> np.sort(mixture.rates_[:, 0]).round(2)
    array([1.26, 2.66])
    """

    _Family = Poisson


class GeometricMixture(ColumnMixture):
    """Mixture of geometric counts from 0 that are independent within a component; NaN is missing.

    Parameters
    ----------
    n_components : int, default=1
    <parameters>

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    means_ : ndarray of shape (n_components, n_features)
        Mean counts; the probabilities of success are 1 / (1 + means_).
    <attributes>

    Raises
    ------
    ValueError
        At fit, if an argument cannot be used, or X holds anything but integers from 0 on.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.random.default_rng(0).geometric(np.repeat([[0.5], [0.02]], 500, axis=0)) - 1
    >>> mixture = fastem.GeometricMixture(2, random_state=0).fit(X)
    >>> np.sort(mixture.means_[:, 0]).round(0)
    array([ 1., 45.])
    """

    _Family = Geometric


class BernoulliMixture(ColumnMixture):
    """Mixture of binary columns that are independent within a component: latent classes of 0 and 1; NaN is missing.

    Parameters
    ----------
    n_components : int, default=1
    <parameters>

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    probabilities_ : ndarray of shape (n_components, n_features)
        Of a 1.
    <attributes>

    Raises
    ------
    ValueError
        At fit, if an argument cannot be used, or X holds anything but 0 and 1.

    See Also
    --------
    LatentClass : For columns of any categories.

    References
    ----------
    Lazarsfeld & Henry (1968), Latent Structure Analysis.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.array([[1, 1, 1], [1, 1, 0], [0, 0, 0], [0, 0, 0]])
    >>> mixture = fastem.BernoulliMixture(2, random_state=0).fit(X)
    >>> mixture.predict(X)[0] == mixture.predict([[1, np.nan, 1]])[0]
    np.True_
    """

    _Family = Bernoulli


class MultinomialMixture(FamilyMixture):
    """Mixture of multinomial rows of counts: columns share a total, as the words of a document do.

    Parameters
    ----------
    n_components : int, default=1
    n_trials : float, default=None
        Total of the rows of `sample`. None: the mean total of the rows of fit.
    <parameters>

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    probabilities_ : ndarray of shape (n_components, n_features)
        Of the columns; each row sums to 1.
    n_trials_ : float
        Total of the rows of `sample`.
    <attributes>

    Raises
    ------
    ValueError
        At fit, if an argument cannot be used, or X holds anything but integers from 0 on; NaN is refused, since the
        total of its row is then not known.

    Notes
    -----
    The total of a row is taken as given and tells nothing of its component; `score_samples` is the log-probability of
    a row among all of its total. A row of zeros informs nothing.

    References
    ----------
    Nigam et al. (2000), Machine Learning 39, 103-134, equation 3.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.array([[9, 1, 0], [8, 0, 0], [0, 3, 3], [1, 5, 6]])
    >>> mixture = fastem.MultinomialMixture(2, random_state=0).fit(X)
    >>> np.sort(mixture.probabilities_[:, 0]).round(2)
    array([0.06, 0.94])
    """

    _Family = Multinomial
    _parameter_constraints: ClassVar[dict] = {
        **FamilyMixture._parameter_constraints,
        "n_trials": [None, Interval(Real, 0.0, None, closed="neither")],
    }

    def __init__(
        self,
        n_components=1,
        *,
        n_trials=None,
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
        self.n_trials = n_trials

    @property
    def n_trials_(self):
        """Total of the rows of `sample`."""
        return self._known_family().trials

    def sample(self, n_samples=1, n_trials=None):
        """Draw (X, y): rows (n_samples, n_features) and their components (n_samples,), sorted by component.

        Each row has the total `n_trials`, an integer; None: `n_trials_`, rounded.
        """
        self._check_fitted()
        if n_trials is not None and not is_integer(n_trials, 1):
            raise ValueError(f"n_trials must be None or a positive integer; got {n_trials!r}")
        if not is_integer(n_samples, 1):
            raise ValueError(f"n_samples must be an integer of at least 1; got {n_samples!r}")
        model = self._scoring_model()
        if n_trials is not None:
            model = replace(model, family=replace(model.family, trials=float(n_trials)))
        rng = np.random.default_rng(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        return model.sample(self._params(), int(n_samples), rng)

    def _new_family(self) -> Any:
        return Multinomial(prior=self._prior(), n_trials=self.n_trials)

    def _settings(self, model: Mixture) -> dict[str, Any]:
        return {"n_trials": model.family.n_trials, **super()._settings(model)}


class ExponentialMixture(ColumnMixture):
    """Mixture of exponentially distributed columns that are independent within a component; NaN is missing.

    Parameters
    ----------
    n_components : int, default=1
    <parameters>

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    scales_ : ndarray of shape (n_components, n_features)
        The means, in the units of X; the rates are 1 / scales_.
    <attributes>

    Raises
    ------
    ValueError
        At fit, if an argument cannot be used, X holds negative values, or a component comes to have only zeros.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.random.default_rng(0).exponential(np.repeat([[1.0], [50.0]], 500, axis=0))
    >>> mixture = fastem.ExponentialMixture(2, random_state=0).fit(X)
    >>> np.sort(mixture.scales_[:, 0]).round(0)
    array([ 1., 47.])
    """

    _Family = ExponentialTime


class GammaMixture(ColumnMixture):
    """Mixture of gamma-distributed columns that are independent within a component; NaN is missing.

    Parameters
    ----------
    n_components : int, default=1
    <parameters>

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    shapes_ : ndarray of shape (n_components, n_features)
    scales_ : ndarray of shape (n_components, n_features)
        In the units of X; the means are shapes_ * scales_.
    <attributes>

    Raises
    ------
    ValueError
        At fit, if an argument cannot be used, X holds values that are not positive, or a component comes to have
        values that do not differ.

    References
    ----------
    Minka (2002), Estimating a Gamma distribution.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.random.default_rng(0).gamma(np.repeat([[2.0], [40.0]], 500, axis=0))
    >>> mixture = fastem.GammaMixture(2, random_state=0).fit(X)
    >>> np.sort(mixture.shapes_[:, 0]).round(0)
    array([ 2., 36.])
    """

    _Family = Gamma


class LogNormalMixture(ColumnMixture):
    """Mixture of log-normally distributed columns that are independent within a component; NaN is missing.

    Parameters
    ----------
    n_components : int, default=1
    <parameters>

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    log_means_, log_variances_ : ndarray of shape (n_components, n_features)
        Of the logarithms of X.
    <attributes>

    Raises
    ------
    ValueError
        At fit, if an argument cannot be used, X holds values that are not positive, or a component comes to have
        values that do not differ.

    See Also
    --------
    GaussianMixture : Of the logarithms, for other covariances.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.exp(np.random.default_rng(0).normal(np.repeat([[0.0], [5.0]], 500, axis=0)))
    >>> mixture = fastem.LogNormalMixture(2, random_state=0).fit(X)
    >>> (1 + np.sort(mixture.log_means_[:, 0])).round(1)
    array([1. , 5.9])
    """

    _Family = LogNormal


class BetaMixture(ColumnMixture):
    """Mixture of beta-distributed columns, proportions, that are independent within a component; NaN is missing.

    Parameters
    ----------
    n_components : int, default=1
    <parameters>

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    a_, b_ : ndarray of shape (n_components, n_features)
        Shapes; the means are a_ / (a_ + b_).
    <attributes>

    Raises
    ------
    ValueError
        At fit, if an argument cannot be used, X holds values that do not lie between 0 and 1, without the ends, or a
        component comes to have values that do not differ.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.random.default_rng(0).beta(np.repeat([[2.0], [30.0]], 500, axis=0), 10.0)
    >>> mixture = fastem.BetaMixture(2, random_state=0).fit(X)
    >>> np.sort((mixture.a_ / (mixture.a_ + mixture.b_))[:, 0]).round(2)
    array([0.16, 0.75])
    """

    _Family = Beta


class VonMisesMixture(ColumnMixture):
    """Mixture of angles that are von Mises distributed and independent within a component; NaN is missing.

    Parameters
    ----------
    n_components : int, default=1
    <parameters>

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    directions_ : ndarray of shape (n_components, n_features)
        Mean directions in radians, from -pi to pi.
    concentrations_ : ndarray of shape (n_components, n_features)
        From 0, the uniform distribution; 1 / concentrations_ is about the variance of concentrated angles.
    <attributes>

    Raises
    ------
    ValueError
        At fit, if an argument cannot be used, or a component comes to have angles that do not differ.

    Notes
    -----
    X is in radians; angles that differ by 2 pi are the same.

    References
    ----------
    Mardia & Jupp (2000), Directional Statistics, section 5.5.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.random.default_rng(0).vonmises(np.repeat([[3.1], [0.0]], 500, axis=0), 9.0)
    >>> mixture = fastem.VonMisesMixture(2, random_state=0).fit(X)
    >>> np.cos(mixture.directions_[:, 0]).round(2)
    array([-1.,  1.])
    """

    _Family = VonMises
