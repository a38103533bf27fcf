"""`partial_fit` for estimators whose models learn from streams: the stream behind it, and what it shows."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from fastem.data import Data, as_part_of_weight, as_rows
from fastem.em import fit
from fastem.online import BATCH, Online, Stream, estimate, feed
from fastem.protocol import Status

_START_STEPS = 20  # of EM on the rows of the start


class Streaming:
    """What `partial_fit` needs beside the estimator's model.

    All that a call learns is put into the attributes in one step, so that a prediction in another thread sees one state
    or the next, never a mixture of both.
    """

    online: Online | None
    batch_size: int | None
    n_init: int
    split_merge: bool
    random_state: Any
    n_features_in_: int
    _model: Any
    _resolved: Any
    _params: Any
    _attributes: Any
    _validate_params: Any

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "means_")

    def partial_fit(self, X, y=None, sample_weight=None):
        """Learn from more rows of a stream, each once.

        The first rows make the start: at least 1000, and ten for each mean and component. Until there are so many,
        nothing can be predicted. Then each `batch_size` rows make a step of stepwise EM; rows wait until there
        are so many. It makes no difference how rows are split into calls. `fit` begins anew; `partial_fit` never does.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            May be empty. The first rows decide whether float32 or float64 is computed in.
        y : Ignored
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative; 2 counts as two rows.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X or the weights cannot be used, or the start or a step collapses; the estimator is as before the call.

        References
        ----------
        Cappe & Moulines (2009), J. R. Statist. Soc. B 71, 593-613, section 2.

        Examples
        --------
        >>> import numpy as np, fastem
        >>> rng = np.random.default_rng(0)
        >>> gm = fastem.GaussianMixture(2, random_state=0)
        >>> for _ in range(40):
        ...     gm = gm.partial_fit(rng.normal(size=(500, 1)) + rng.choice([1.0, 9.0], size=(500, 1)))
        >>> np.sort(gm.means_[:, 0]).round(1)
        array([1., 9.])
        """
        if "n_features_in_" in self.__dict__:  # nothing is put into the attributes before the end
            self._learn(X, sample_weight)
        else:
            with unchanged_on_error(self):
                self._learn(X, sample_weight)
        return self

    def _check_fitted(self) -> None:
        stream = self.__dict__.get("stream_")
        if stream is not None and not hasattr(self, "means_"):
            needed = self._start_weight(self.n_features_in_)
            raise NotFittedError(
                f"the start of a stream takes rows of a weight of {needed:g}, and {stream.weight_waiting:g} came so "
                "far; call partial_fit with more, or fit"
            )
        check_is_fitted(self)

    def _learn(self, X, sample_weight) -> None:
        known = self.__dict__
        stream = known.get("stream_")
        if stream is None:
            self._validate_params()
            stream = Stream()
        online = self.online or Online()
        is_empty = isinstance(X, np.ndarray) and X.ndim == 2 and len(X) == 0 and X.shape[1] > 0
        rows = X if is_empty else as_rows(X)
        first = "n_features_in_" not in known
        named = hasattr(X, "columns")
        if first or named or "feature_names_in_" in known or rows.shape[1] != known["n_features_in_"]:
            validate_data(self, X if named else rows, reset=first, skip_check_array=True)
        weight = None if sample_weight is None else as_part_of_weight(sample_weight, len(rows))[:, 0]
        if is_empty:
            return
        seen = known.get("n_samples_seen_", 0.0) + (len(rows) if weight is None else float(weight.sum()))
        start_weight = math.inf if stream.model is not None else self._start_weight(rows.shape[1])
        after = feed(stream, (rows, weight), online, self.batch_size or BATCH, start_weight, self._start)
        learned = {"stream_": after, "n_samples_seen_": seen}
        if after.seen != stream.seen:
            learned |= self._attributes(estimate(after))
            learned |= {
                "converged_": False,
                "status_": Status.STREAMED,
                "n_iter_": after.n_batches,
                "lower_bound_": after.log_density,
                "lower_bounds_": [],
                "log_likelihood_": math.nan,
                "drift_score_": after.drift.score,
            }
        self.__dict__.update(learned)  # at once, for those who predict meanwhile

    def _start_weight(self, n_features: int) -> float:
        if hasattr(self, "means_"):  # from a fit
            return float(self.batch_size or BATCH)
        return self._model().start_weight(n_features)

    def _start(self, data: Data) -> tuple[Any, Any, float]:
        """Model and parameters from the first rows, or from the last fit; and the weight that these are worth."""
        if hasattr(self, "means_"):
            fitted = self.__dict__.get("n_samples_seen_", 0.0) - self.__dict__.get("stream_", Stream()).weight_waiting
            return self._model().prepare(data), self._params(), fitted
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        options = {"n_init": self.n_init, "split_merge": self.split_merge, **self._resolved(warm=False)}
        result = fit(self._model(), data, random_state=seed, max_iter=_START_STEPS, **options)
        if result.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        return result.model, result.params, 0.0


@contextlib.contextmanager
def unchanged_on_error(estimator: BaseEstimator) -> Iterator[None]:
    """Put every attribute back if the block raises: a refused fit leaves the last one whole."""
    before = dict(estimator.__dict__)
    try:
        yield
    except BaseException:
        estimator.__dict__.clear()
        estimator.__dict__.update(before)
        raise
