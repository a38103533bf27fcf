"""Rows that were measured with noise of known covariance: what `GaussianMixture` can be told of it."""

from collections.abc import Callable, Sequence
from typing import Any

from sklearn.base import _fit_context

from fastem.estimators.base import weighted_mean, weighted_sum
from fastem.inference import Uncertainty
from fastem.models.mixture import Mixture
from fastem.protocol import Iteration


class Deconvolution:
    """Methods of an estimator, which all take the noise of the rows they are given: `noise_covariance`.

    Its shape is (n_samples, n_features, n_features), or for independent noise (n_samples, n_features) variances; the
    same for every row (n_features, n_features), or (n_features,). The mixture is that of what the rows were without it;
    None, the default, is no noise (Bovy, Hogg & Roweis 2011, Ann. Appl. Stat. 5, 1657-1677).
    """

    _bic: Any
    _evaluate: Any
    _fitted: Any
    _labels_of: Any
    _n_parameters: Any
    _noise_last: Any
    _standard_errors: Any

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X,
        y=None,
        sample_weight=None,
        callbacks: Sequence[Callable[[Iteration], Any]] = (),
        *,
        noise_covariance=None,
        labels=None,
    ):
        """Estimate the parameters by EM.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or what `fastem.Blocks` takes
            NaN is missing. float32 is computed in float32 products over float64 sums; other numbers in float64. Paths,
            memory maps, Arrow data and callables that yield blocks are read in blocks, ahead of their use, again in
            each pass, and never are in memory as a whole.
        y : array-like of shape (n_samples,), default=None
            Taken for `labels` if some are -1, as in scikit-learn's semi-supervised estimators; else ignored, as by its
            mixtures.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative; 2 counts as the row twice, 0 as the row left out.
        callbacks : sequence of callables, default=()
            Each is called with a `fastem.Iteration` after every E-step over all rows, refused leaps aside; a true
            answer stops the start.
        noise_covariance : array-like, default=None
            Covariance of the noise that rows in memory were measured with, in squared units of the data:
            (n_samples, n_features, n_features), or for independent noise (n_samples, n_features) variances; the same
            for every row (n_features, n_features), or (n_features,). What is estimated is the mixture without the
            noise (Bovy, Hogg & Roweis 2011, Ann. Appl. Stat. 5, 1657-1677). Values may not be missing then.
        labels : array-like of shape (n_samples,) or (n_samples, n_components), default=None
            Components that rows are known to come from: their numbers, -1 where unknown; or 1 for each component that
            a row can come from, and 0 for the others (with `noise`, in a column more). The noise has the number
            n_components. Or names of classes, strings, of which the first in alphabetical order is component 0; then
            `classes_` holds them. The log-likelihood is that of rows and labels. A pipeline passes them as
            `gm__labels`, and by metadata routing after ``set_fit_request(labels=True)``. A copy of the rows is kept, in
            the order of the labels.

        Returns
        -------
        self
        """
        return self._fitted(X, sample_weight, callbacks, noise_covariance, self._labels_of(y, labels))

    def fit_predict(self, X, y=None, sample_weight=None, *, noise_covariance=None, labels=None):
        """Fit, then return the most probable component (n_samples,) of each row: `fit(X).predict(X)`.

        Rows with labels too: they are predicted as if nothing were known of them.
        """
        if noise_covariance is None:
            return super().fit_predict(X, y, sample_weight, labels=labels)  # type: ignore[misc]
        fitted = self.fit(X, y, sample_weight, noise_covariance=noise_covariance, labels=labels)
        return fitted.predict(X, noise_covariance=noise_covariance)

    def predict(self, X, *, noise_covariance=None):
        """Most probable component (n_samples,) int64 of each row of X (n_samples, n_features); noise is -1.

        See `fit`.
        """
        return self._noise_last(self._evaluate(Mixture.labels, X, noise_covariance))

    def predict_proba(self, X, *, noise_covariance=None):
        """Posterior probabilities (n_samples, n_components) of the components given each row; see `fit`.

        Noise has a column more.
        """
        return self._evaluate(Mixture.posteriors, X, noise_covariance)

    def score_samples(self, X, *, noise_covariance=None):
        """Log-density (n_samples,) of each row with its noise, in nats; see `fit`.

        Of what is there, where values are missing. Without noise accurate to about 1e-12 for any conditioning.
        """
        return self._evaluate(Mixture.log_densities, X, noise_covariance)

    def score(self, X, y=None, sample_weight=None, *, noise_covariance=None):
        """Mean log-density of the rows, weighted if sample_weight (n_samples,) is given; see `fit` for the noise."""
        return weighted_mean(self.score_samples(X, noise_covariance=noise_covariance), sample_weight)

    def bic(self, X, sample_weight=None, *, noise_covariance=None):
        """Bayesian information criterion on X, -2 log L + p log n: lower is better; see `fit` for the noise.

        n is the number of rows, but for those without any value, or the sum of their weights.
        """
        return self._bic(X, self.score_samples(X, noise_covariance=noise_covariance), sample_weight)

    def aic(self, X, sample_weight=None, *, noise_covariance=None):
        """Akaike information criterion on X, -2 log L + 2 p: lower is better; see `fit` for the noise."""
        log_prob = self.score_samples(X, noise_covariance=noise_covariance)
        return -2 * weighted_sum(log_prob, sample_weight) + 2 * self._n_parameters()

    def standard_errors(
        self,
        X,
        sample_weight=None,
        *,
        method="information",
        n_bootstrap=200,
        random_state=None,
        noise_covariance=None,
        labels=None,
    ) -> Uncertainty:
        """Standard errors of weights, means and covariances, from the rows the mixture was fitted to.

        Those of frozen parameters are 0. The weight of the noise is the last of the weights.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        sample_weight, noise_covariance, labels : array-like, default=None
            What `fit` was given.
        method : {'information', 'bootstrap'}, default='information'
            The inverse of the observed information (Oakes 1999), at twice as many E-steps as there are parameters; or
            fits to rows with random weights (Rubin 1981), each from these parameters.
        n_bootstrap : int, default=200
        random_state : int, RandomState instance or None, default=None
            Seed of the bootstrap.

        Returns
        -------
        fastem.inference.Uncertainty
            `standard_errors['means']` and so on, of the shapes of the attributes, their `covariance`, and
            `interval('means', level=0.95)`.

        Raises
        ------
        ValueError
            If the fit has not converged, or the likelihood has no strict maximum there.

        Examples
        --------
        >>> import numpy as np
        >>> from fastem import GaussianMixture
        >>> X = np.random.default_rng(0).normal(size=(400, 1)) * 3.0
        >>> gm = GaussianMixture(reg_covar=0, tol=1e-8).fit(X)
        >>> float(np.round(gm.standard_errors(X).standard_errors["means"][0, 0] * 400**0.5, 1))
        3.0
        """
        return self._standard_errors(X, sample_weight, method, n_bootstrap, random_state, noise_covariance, labels)
