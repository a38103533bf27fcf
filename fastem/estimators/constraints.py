"""What estimators of mixtures share of frozen parameters, uniform noise and labels."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval

from fastem.data import check_number_of_labels, finite_array
from fastem.families.noise import WithNoise
from fastem.inference import Uncertainty
from fastem.labels import as_labels, encoded, of_target
from fastem.models.mixture import Mixture
from fastem.protocol import Iteration


class Constrained:
    """Parameters `frozen`, `noise` and `noise_volume`, and what they make of the model."""

    _constraints: ClassVar[dict] = {  # of the parameters of estimators that `_mixture` makes the model of
        "frozen": [None, dict],
        "noise": ["boolean"],
        "noise_volume": [None, Interval(Real, 0.0, None, closed="neither")],
    }
    frozen: Any
    noise: Any
    noise_volume: Any
    n_components: Any
    init_params: Any
    resp_init: Any
    weights_init: Any
    weight_concentration_prior: Any
    n_threads: Any
    online: Any
    warm_start: Any
    classes_: np.ndarray
    weights_: np.ndarray
    _model: Any
    _fitted: Any
    _standard_errors: Any

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X,
        y=None,
        sample_weight=None,
        callbacks: Sequence[Callable[[Iteration], Any]] = (),
        *,
        labels=None,
    ):
        """Estimate the parameters by EM.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or what `fastem.Blocks` takes
            float32 is computed in float32 products over float64 sums; other numbers in float64. Paths, memory maps,
            Arrow data and callables that yield blocks are read in blocks, ahead of their use, again in each pass, and
            never are in memory as a whole.
        y : array-like of shape (n_samples,), default=None
            Taken for `labels` if some are -1, as in scikit-learn's semi-supervised estimators; else ignored, as by its
            mixtures.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative; 2 counts as the row twice, 0 as the row left out.
        callbacks : sequence of callables, default=()
            Each is called with a `fastem.Iteration` after every E-step over all rows, refused leaps aside; a true
            answer stops the start.
        labels : array-like of shape (n_samples,) or (n_samples, n_components), default=None
            Components that rows are known to come from: their numbers, -1 where unknown; or 1 for each component that
            a row can come from, and 0 for the others (with noise, in a column more). The noise has the number
            n_components. Or names of classes, strings, of which the first in alphabetical order is component 0; then
            `classes_` holds them. The log-likelihood is that of rows and labels. A pipeline passes them as
            `gm__labels`, and by metadata routing after ``set_fit_request(labels=True)``. A copy of the rows is kept, in
            the order of the labels.

        Returns
        -------
        self

        Examples
        --------
        >>> import numpy as np
        >>> from fastem import GaussianMixture
        >>> X = np.concatenate([np.linspace(-3, 3, 30), np.linspace(5, 6, 30)])[:, None]
        >>> labels = np.full(60, -1)
        >>> labels[0], labels[59] = 1, 0
        >>> GaussianMixture(2, random_state=0).fit(X, labels=labels).predict([[0.0], [5.5]])
        array([1, 0])
        """
        return self._fitted(X, sample_weight, callbacks, labels=self._labels_of(y, labels))

    def standard_errors(
        self, X, sample_weight=None, *, method="information", n_bootstrap=200, random_state=None, labels=None
    ) -> Uncertainty:
        """Standard errors of weights and parameters, from the rows the mixture was fitted to.

        Those of frozen parameters are 0. The weight of the noise is the last of the weights.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        sample_weight, labels : array-like, default=None
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
            `standard_errors['weights']` and so on, of the shapes of the attributes, their `covariance`, and
            `interval('weights', level=0.95)`.

        Raises
        ------
        ValueError
            If the fit has not converged, or the likelihood has no strict maximum there.
        """
        return self._standard_errors(X, sample_weight, method, n_bootstrap, random_state, labels=labels)

    def sample(self, n_samples=1):
        """Draw (X, y): rows (n_samples, n_features) and their components (n_samples,), sorted by component.

        Noise comes last, and is -1.
        """
        X, y = super().sample(n_samples)  # type: ignore[misc]
        return X, self._noise_last(y)

    def _mixture(self, family: Any, **start: Any) -> Mixture:
        """The model of a family, with the parameters that all estimators have."""
        if self.noise_volume is not None and not self.noise:
            raise ValueError("noise_volume is the volume of the noise, and there is none; set noise=True")
        return Mixture(
            WithNoise(family, self.noise_volume) if self.noise else family,
            self.n_components,
            start=self.init_params if self.resp_init is None else self.resp_init,
            weights_init=self._with_rest(self.weights_init) if self.noise else self.weights_init,
            weight_concentration=self.weight_concentration_prior or 1.0,
            frozen=self.frozen,
            n_threads=self.n_threads,
            **start,
        )

    def _with_rest(self, weights: Any, name: str = "weights_init") -> np.ndarray | None:
        """Weights of the components, and that of the noise, which is what they leave."""
        if weights is None:
            return None
        weights = finite_array(name, weights, 1)
        if weights.shape != (self.n_components,) or (weights < 0).any() or weights.sum() > 1 + 1e-8:
            raise ValueError(
                f"{name} must hold {self.n_components} weights that are not negative, and the noise has what they lack "
                f"of 1; they have shape {weights.shape} and sum to {weights.sum():.10g}"
            )
        return np.append(weights, max(0.0, 1.0 - weights.sum()))

    def _scoring_model(self) -> Mixture:
        """The model for the parameters that were learned: its noise is where it was."""
        model, volume, box = self._model(), *self._known_noise()
        if volume is None:
            return replace(model, family=model.family.core)
        family = WithNoise(model.family.core, None, box)
        if box is None or family.known_volume != volume:
            family = replace(family, volume=volume)
        return replace(model, family=family)

    def _resumed_model(self) -> Mixture:
        """The model with the noise that was learned, to go on from the parameters."""
        return self._scoring_model()

    def _known_noise(self) -> tuple[Any, Any]:
        """Volume and box of the noise of the last fit, None where there are none."""
        return self.__dict__.get("noise_volume_"), self.__dict__.get("noise_box_")

    def _seen(self, model: Any) -> dict[str, Any]:
        """Attributes for what a model took from its data beside the parameters."""
        has_noise = bool(model.family.n_noise)
        return {
            "noise_volume_": model.family.known_volume if has_noise else None,
            "noise_box_": model.family.bounds if has_noise else None,
        }

    def _noise_last(self, labels: np.ndarray) -> np.ndarray:
        """Labels in which noise is -1."""
        return labels if self._known_noise()[0] is None else np.where(labels == len(self.weights_), -1, labels)

    def _labels_of(self, y: Any, labels: Any) -> Any:
        """Labels, or those that a target gives."""
        target = of_target(y)
        if target is None:
            return labels
        if labels is not None:
            raise ValueError("y holds -1, so that it gives labels, as `labels` does; give one of them")
        return target

    def _as_labels(
        self, labels: Any, model: Any, n_rows: int | None = None, *, begins: bool = False
    ) -> np.ndarray | None:
        """Labels as one integer a row, or None if they say nothing; `begins` is whether names of classes may be new."""
        known = self.__dict__.get("classes_")
        if begins and not (self.warm_start and known is not None):
            self.__dict__.pop("classes_", None)
            known = None
        if labels is None:
            return None
        labels, names = encoded(labels, known, int(self.n_components))
        if names is not None and known is None:
            if not begins:
                raise ValueError(
                    "labels name classes, which a fit numbers; fit first, or give numbers of components, such as those "
                    "of np.unique(names, return_inverse=True)"
                )
            self.classes_ = names
        codes = as_labels(labels, (model or self._model()).n_states)
        if n_rows is not None:
            check_number_of_labels(codes, n_rows)
        return codes

    def _check_removal(self, labels: Any = None) -> None:
        """Refuse a stream that drops components where something names them by their numbers."""
        if self.online is None or self.online.starved != "remove":
            return
        if labels is not None:
            raise ValueError("labels name components by their numbers, which starved='remove' changes; use 'freeze'")
        self._model().require_numbers()
