"""`partial_fit` for estimators whose models learn from streams: the stream behind it, and what it shows."""

import contextlib
import math
import operator
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from fastem.data import Data, Part, as_part_of_weight, as_rows
from fastem.drift import DriftWarning
from fastem.em import fit
from fastem.online import Online, Stream, estimate, feed, resume
from fastem.protocol import Status
from fastem.sequences import Run

_ONLINE = Online()
_START_STEPS = 20  # of EM on the rows of the start


class Estimate:
    """Parameters that a stream has come to, and attributes that show them, computed when they are asked for.

    Two threads that ask at once both compute the same.
    """

    def __init__(self, stream: Stream):
        self.stream = stream
        self._params: Any = None
        self._attributes: dict[str, Any] | None = None

    @property
    def params(self) -> Any:
        if self._params is None:
            self._params = estimate(self.stream)
        return self._params

    def attributes(self, show: Callable[[Any, Any], dict[str, Any]]) -> dict[str, Any]:
        if self._attributes is None:
            self._attributes = show(self.params, self.stream.model)
        return self._attributes


class Streaming:
    """What `partial_fit` needs beside the estimator's model.

    All that a call learns takes effect in one assignment of the instance's dictionary, so that a prediction in another
    thread sees one state or the next, never a mixture of both. Attributes that are parameters are not in it, but are
    computed when they are read.
    """

    _LEARNED: ClassVar[tuple[str, ...]]  # attributes that are parameters
    _takes_missing: ClassVar[bool] = False  # whether NaN is a value that is missing
    _takes_sequences: ClassVar[bool] = False  # whether rows come in sequences
    # A race among so few rows ends in a poor optimum every other time, which a stream cannot leave.
    _start_options: ClassVar[dict[str, Any]] = {"split_merge": True}
    _parameter_constraints: ClassVar[dict]
    online: Online | None
    batch_size: int | None
    n_threads: Any
    n_init: int
    resp_init: Any
    _check_model: Any
    _check_start: Any
    random_state: Any
    n_features_in_: int
    _model: Any
    _resumed_model: Any
    _resolved: Any
    _params: Any
    _shown: Any
    _validate_params: Any

    def __getattr__(self, name: str) -> Any:
        known = self.__dict__
        if name in self._LEARNED and (found := self._estimated(known)) is not None:
            return found.attributes(self._shown)[name]
        if name in known:  # by now: another thread has fitted
            return known[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __sklearn_is_fitted__(self) -> bool:
        known = self.__dict__
        return self._LEARNED[0] in known or self._estimated(known) is not None

    @staticmethod
    def _estimated(known: dict[str, Any]) -> Estimate | None:
        """What the stream of an instance's dictionary has come to, or None before its start."""
        stream, found = known.get("stream_"), known.get("_estimate")
        if stream is None or stream.model is None:
            return None
        if found is None or found.stream is not stream:
            found = known["_estimate"] = Estimate(stream)
        return found

    def partial_fit(self, X, y=None, sample_weight=None, labels=None):
        """Learn from more rows of a stream, each once.

        The first rows make the start: 1000, or ten for each component and each of its `n_features + 1` means and
        weight if these are more, through a race and moves that split and merge. Until there are so many, nothing can be
        predicted. After a fit there is no start.
        Then each `batch_size` rows make a step of stepwise EM; rows wait until there are so many. It makes no
        difference how rows are split into calls. `fit` begins anew; `partial_fit` never does. `max_iter`, `max_time`,
        `resp_init`, `split_merge`, `verbose`, `warm_start` and `algorithm` are for `fit` alone.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            An array may be empty. The first rows decide whether float32 or float64 is computed in.
        y : array-like of shape (n_samples,), default=None
            As for `fit`.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative; 2 counts as two rows.
        labels : array-like of shape (n_samples,) or (n_samples, n_components), default=None
            Components that rows are known to come from, as for `fit`; for mixtures. If no row of the start has a label,
            nobody knows which of its components later labels mean. Names of classes are those of a fit before.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X or the weights cannot be used, the start or a step collapses, or a parameter of the model was changed
            since the stream began; the estimator is as before the call. Should rows of earlier calls, which wait, be
            the cause, `discard_waiting` drops them.

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
        return self._learned_from(X, sample_weight, self._labels_of(y, labels))

    def _seen(self, model: Any) -> dict[str, Any]:
        """Attributes for what a model took from its data beside the parameters."""
        return {}

    def discard_waiting(self):
        """Drop the rows of `partial_fit` that no step has taken yet.

        Returns
        -------
        self

        Examples
        --------
        >>> import numpy as np, fastem
        >>> gm = fastem.GaussianMixture(2).partial_fit(np.full((10, 1), 1e9)).discard_waiting()
        >>> gm.stream_.n_waiting, gm.n_samples_seen_
        (0, 0.0)
        """
        known = self.__dict__
        stream = known.get("stream_")
        if stream is not None:
            emptied = stream._replace(waiting=(), n_waiting=0, n_counting=0)
            self.__dict__ = {**known, "stream_": emptied, "n_samples_seen_": stream.seen}
        return self

    def _rows_to_step(self, n_features: int) -> int:
        """Rows, all of them of some weight, until what is learned changes."""
        stream = self.__dict__.get("stream_") or Stream()
        if not self.__sklearn_is_fitted__():
            return self._model().start_rows(n_features) - stream.n_counting
        return self._batch_rows(n_features) - stream.n_waiting

    def _batch_rows(self, n_features: int) -> int:
        model = (self.__dict__.get("stream_") or Stream()).model or self._model()
        return self.batch_size or (self.online or _ONLINE).most_rows(model.batch_rows(n_features))

    def _check_fitted(self) -> None:
        stream = self.__dict__.get("stream_")
        if stream is not None and not self.__sklearn_is_fitted__():
            needed = self._model().start_rows(self.n_features_in_)
            raise NotFittedError(
                f"the start of a stream takes {needed} rows, and {stream.n_counting} came so far; call partial_fit "
                "with more, or fit"
            )
        check_is_fitted(self)

    def _learned_from(self, X, *weights: Any):
        """The estimator itself, after more rows; as it was before if they are refused."""
        if "n_features_in_" in self.__dict__:  # nothing is put into the attributes before the end
            self._learn(X, *weights)
        else:
            with unchanged_on_error(self):
                self._learn(X, *weights)
        return self

    def _learn(self, X, *weights: Any) -> None:
        known = self.__dict__
        stream = known.get("stream_") or Stream()
        arguments = self._checked_arguments(stream)
        part = self._checked_part(X, *weights, stream.dtype)
        if part is None:
            return
        rows, weight = (part.X, part.total_weight) if isinstance(part, Run) else (part[0], _sum(*part[:2]))
        seen = known.get("n_samples_seen_", 0.0) + weight
        if seen == math.inf:
            raise ValueError("the weights sum to infinity with those of earlier calls; divide all by a constant")
        stream, start_rows = self._begun(stream, rows)
        after = self._fed(stream, part, start_rows)
        learned = {**known, "stream_": after, "n_samples_seen_": seen, "_checked": arguments}
        if after.model is not None:
            learned |= self._seen(after.model)
        if after.seen != stream.seen or (after.model is not None and stream.model is None):
            for name in self._LEARNED:
                learned.pop(name, None)
            learned |= {
                "converged_": False,
                "status_": Status.STREAMED,
                "n_iter_": after.n_batches,
                "lower_bound_": after.log_density,
                "lower_bounds_": [],
                "log_likelihood_": math.nan,
                "drift_score_": after.drift.score,
            }
        self.__dict__ = learned  # at once, for those who predict meanwhile

    def _checked_arguments(self, stream: Stream) -> tuple[Any, ...]:
        """The constructor parameters, looked at again if one is not what it was in the last call."""
        known = self.__dict__
        arguments = operator.itemgetter(*self._parameter_constraints)(known)
        checked = known.get("_checked")
        if checked is None or not all(map(operator.is_, arguments, checked)):
            self._validate_params()
            self._check_removal()
            if stream.model is not None:
                self._check_model(stream.model)
        return arguments

    def _check_removal(self, labels: Any = None) -> None:
        """Refuse a stream that drops components where something names them by their numbers."""

    def _labels_of(self, y: Any, labels: Any) -> Any:
        """Labels, or those that a target gives."""
        return labels

    def _as_labels(
        self, labels: Any, model: Any, n_rows: int | None = None, *, begins: bool = False
    ) -> np.ndarray | None:
        """Labels as one integer a row, or None if they say nothing."""
        if labels is not None:
            raise ValueError(f"labels are for mixtures, which {type(self).__name__} is not; leave them out")
        return None

    def _checked_part(self, X, *given: Any) -> Any:
        """Rows, weights and labels as `feed` takes them, or None if there are no rows."""
        sample_weight, labels, dtype = given
        rows, weight = self._checked_rows(X, sample_weight, dtype)
        self._check_removal(labels)
        codes = self._as_labels(labels, (self.__dict__.get("stream_") or Stream()).model, len(rows))
        if len(rows) == 0:
            return None
        return (rows, weight) if codes is None else (rows, weight, codes)

    def _checked_rows(self, X, sample_weight, dtype: np.dtype | None) -> tuple[np.ndarray, np.ndarray | None]:
        """Rows (n, D), of the dtype of the stream if it has one, and weights (n,) or None."""
        known = self.__dict__
        is_empty = isinstance(X, np.ndarray) and X.ndim == 2 and len(X) == 0 and X.shape[1] > 0
        rows = X if is_empty else as_rows(X, allow_nan=self._takes_missing)
        if dtype is not None and rows.dtype != dtype and not is_empty:
            with np.errstate(over="ignore"):  # becomes infinity, which is refused
                rows = as_rows(rows.astype(dtype), allow_nan=self._takes_missing)
        first, named = "n_features_in_" not in known, hasattr(X, "columns")
        if first or named or "feature_names_in_" in known or rows.shape[1] != known["n_features_in_"]:
            validate_data(self, X if named else rows, reset=first, skip_check_array=True)
        return rows, None if sample_weight is None else as_part_of_weight(sample_weight, len(rows))[:, 0]

    def _begun(self, stream: Stream, rows: np.ndarray) -> tuple[Stream, int]:
        """The stream, which goes on from a fit if there was one, and the rows that its start takes."""
        if stream.model is not None:
            if stream.model.n_threads != self.n_threads:
                stream = stream._replace(model=replace(stream.model, n_threads=self.n_threads))
            return stream, 0
        if self.__sklearn_is_fitted__():
            self._check_start()
            fitted = self.__dict__.get("n_samples_seen_", 0.0)
            return resume(self._resumed_model(), self._params(), fitted, rows.dtype), 0
        if self.resp_init is not None:
            raise ValueError("resp_init is for fit: it cannot belong to the first rows of a stream; use None")
        return stream, self._model().start_rows(rows.shape[1])

    def _fed(self, stream: Stream, part: Part | Run, start_rows: int) -> Stream:
        """The stream after more rows; a generator is where it was if they are refused."""
        online = self.online or _ONLINE
        begins = stream.model is None and isinstance(self.random_state, np.random.RandomState)
        state = self.random_state.get_state() if begins else None
        try:
            after = feed(stream, part, online, self.batch_size, start_rows, self._start)
        except BaseException as error:
            if begins:
                self.random_state.set_state(state)
            if not isinstance(error, ValueError) or stream.n_waiting == 0:
                raise
            raise type(error)(
                f"{error}. {stream.n_waiting} rows of earlier calls are among those that were tried; discard_waiting() "
                "drops them"
            ) from error
        if after.drift.n_alarms and not stream.drift.n_alarms and online.half_life is None and online.step_size is None:
            warnings.warn(
                "rows came that are far less likely than those before. If all rows are alike but come sorted, shuffle "
                "them, or fit with algorithm='minibatch', which does so; if they drift, forget the old with "
                "online=fastem.Online(half_life=...), and see drift_score_; or drop outliers.",
                DriftWarning,
                stacklevel=5,  # the caller of partial_fit
            )
        return after

    def _start(self, data: Data) -> tuple[Any, Any]:
        """Model and parameters from the first rows."""
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        options = {"n_init": self.n_init, **self._resolved(warm=False), **self._start_options}
        result = fit(self._model(), data, random_state=seed, max_iter=_START_STEPS, **options)
        if result.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        return result.model, result.params


def _sum(rows: np.ndarray, weight: np.ndarray | None) -> float:
    if weight is None:
        return len(rows)
    with np.errstate(over="ignore"):
        return float(weight.sum())


@contextlib.contextmanager
def unchanged_on_error(estimator: BaseEstimator) -> Iterator[None]:
    """Put every attribute back if the block raises: a refused fit leaves the last one whole."""
    before = dict(estimator.__dict__)
    try:
        yield
    except BaseException:
        estimator.__dict__ = before  # at once, for those who predict meanwhile
        raise
