"""The batch driver: starts, restarts, the best of them. It knows models only through their protocol."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastem.acceleration import ACCELERATIONS, Accelerator, Plain
from fastem.climb import STOPPING, Callback, Options, StoppingRule, aitken, climb, evaluate
from fastem.data import Data, as_data, is_integer, is_real
from fastem.protocol import DegenerateError, Model, Params, Result, Status

_CUT_SHORT = (Status.INTERRUPTED, Status.MAX_TIME)
_HEAT = 10  # iterations of a start that races
_GROWTH = 4  # of nested samples
_NEARLY_ALL = 8  # part of the rows beyond which a sample saves too little
_SAMPLE_BYTES = 2**24  # of the largest sample


def fit(
    model: Model,
    data: Any,
    *,
    sample_weight: Any = None,
    start: Params | None = None,
    max_iter: int = 100,
    tol: float = 1e-3,
    stopping: str | StoppingRule = "change",
    acceleration: str | None = None,
    max_time: float | None = None,
    n_init: int = 1,
    n_race: int = 0,
    random_state: int | np.random.Generator | None = None,
    callbacks: Sequence[Callback] = (),
) -> Result:
    """Fit a model by Expectation-Maximization to the best of `n_init` starts.

    Parameters
    ----------
    model : Model
        Anything that follows `fastem.protocol.Model`, such as `fastem.Mixture`.
    data : array-like of shape (n_samples, n_features), or Data
        Rows; float32 stays float32, everything else numeric becomes float64.
    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights; a weight of 2 is the row twice, 0 is the row left out.
    start : Params, default=None
        Parameters to start from, instead of `model.initialize`; then `n_init` is 1.
    max_iter : int, default=100
        Largest number of E-steps of a start; 0 returns the first start as it is.
    tol : float, default=1e-3
        For the stopping rule, in the objective per unit of weight (nats per sample).
    stopping : {'change', 'aitken'} or callable, default='change'
        'change' stops when the objective changes by less than tol, as scikit-learn does; 'aitken' when the
        estimated limit is less than tol away. A callable takes the history (per unit of weight) and tol. With an
        acceleration, rules see the points since the last leap only, which plain steps join.
    acceleration : {None, 'squarem'}, default=None
        None: EM itself. 'squarem': extrapolate along every two steps, and take the plain step where that leads
        downhill; the objective still never falls. Tries that fail count as iterations.
    max_time : float, default=None
        Seconds after which no further iteration begins.
    n_init : int, default=1
        Number of starts; the one whose last objective is largest is kept.
    n_race : int, default=0
        0: a start is found and followed on all rows. Otherwise so many are tried for each on a sample
        (`model.sample_size` rows), the best goes on over larger samples, and all rows are only read for the end.
    random_state : int, numpy Generator or None, default=None
        Seed of the starts.
    callbacks : sequence of callables, default=()
        Each is called with an `Iteration` after every E-step; a true answer stops that start.

    Returns
    -------
    Result
        Control-C during the iterations returns the best parameters so far, with `Status.INTERRUPTED`.

    Raises
    ------
    DegenerateError
        If every start leads to a collapsed component.
    ValueError
        If an argument cannot be used; before anything is computed.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.array([[-0.1], [0.0], [0.1], [4.9], [5.0], [5.1]])
    >>> result = fastem.fit(fastem.Mixture(fastem.Gaussian(), n_components=2), X, random_state=0)
    >>> result.params.weights
    array([0.5, 0.5])
    >>> result.status.name
    'CONVERGED'
    """
    _check_arguments(model, max_iter, n_init, n_race, tol, callbacks)
    options = Options(
        max_iter=int(max_iter),
        tol=tol,
        rule=_stopping_rule(stopping),
        callbacks=callbacks,
        accelerate=_accelerator(acceleration, model),
        deadline=_deadline(max_time),
    )
    rng = _generator(random_state)
    data = as_data(data, sample_weight)
    model = model.prepare(data)
    if start is not None:
        start = model.check_params(start)
    best: Result | None = None
    failure: DegenerateError | None = None
    for number in range(1 if start is not None or max_iter == 0 else int(n_init)):
        try:
            params, cut = (start, None) if start is not None else _start(model, data, rng, number, int(n_race), options)
            result = climb(model, data, params, number, options if cut is None else options._replace(max_iter=1))
            if cut is not None:
                result = result._replace(status=cut)
        except DegenerateError as error:
            failure = error
            continue
        except KeyboardInterrupt:
            if best is None:
                raise
            return best._replace(status=Status.INTERRUPTED)
        if best is None or result.history[-1] > best.history[-1]:
            best = result
        if result.status in _CUT_SHORT:
            return best._replace(status=result.status)
    if best is None:
        assert failure is not None
        raise failure
    return best


def _start(
    model, data: Data, rng: np.random.Generator, number: int, n_race: int, options: Options
) -> tuple[Params, Status | None]:
    """Parameters to start from on all rows, and why no more than one pass is to follow, if so.

    With n_race > 0, so many starts race on a sample: a few iterations each, then all are judged by one E-step on rows
    of their own if there are enough, where a component that has collapsed onto a few rows of the sample is of no use.
    The winner goes on over nested samples, four times as large each.
    """
    if n_race == 0 or options.max_iter == 0:
        return model.initialize(data, rng), None
    sizes = _sample_sizes(model.sample_size(data), data)
    sample = judge = data
    if sizes:
        order = data.draw(max(2 * sizes[0], sizes[-1]), rng)
        sample, judge = data.take(order[: sizes[0]]), data.take(order[sizes[0] : 2 * sizes[0]])
    heat = options._replace(max_iter=min(_HEAT, options.max_iter), callbacks=(), accelerate=Plain)
    best, best_value = None, -math.inf
    failure: DegenerateError | None = None
    for _ in range(n_race):
        try:
            result = climb(model, sample, model.initialize(sample, rng), number, heat)
            if result.status in _CUT_SHORT:
                return result.params, result.status
            value = evaluate(model, judge, result.params)[1]
        except DegenerateError as error:
            failure = error
            continue
        if best is None or value > best_value:
            best, best_value = result.params, value
    if best is None:
        assert failure is not None
        raise failure
    for n_rows in sizes[1:]:
        larger = options._replace(tol=max(options.tol, _enough(model, best, n_rows)), rule=aitken, callbacks=())
        result = climb(model, data.take(order[:n_rows]), best, number, larger)
        if result.status in _CUT_SHORT:
            return result.params, result.status
        best = result.params
    return best, None


def _sample_sizes(smallest: int, data: Data) -> list[int]:
    """Sizes of the nested samples; none if the smallest is half of all that count."""
    row_bytes = data.n_features * data.dtype.itemsize
    largest = min(data.n_counting // _NEARLY_ALL, _SAMPLE_BYTES // row_bytes)
    sizes = [smallest] if 2 * smallest <= data.n_counting else []
    while sizes and sizes[-1] * _GROWTH <= largest:
        sizes.append(sizes[-1] * _GROWTH)
    return sizes


def _enough(model, params: Params, n_rows: int) -> float:
    """Nats per row that are not worth a sample's iterations: half of what it costs to estimate the parameters from it.

    The log-likelihood of n rows at their maximum lies about p / 2 above that at the true parameters.
    """
    return 0.25 * model.pack(params).size / n_rows


def _stopping_rule(stopping: str | StoppingRule) -> StoppingRule:
    if callable(stopping):
        return stopping
    if stopping not in STOPPING:
        raise ValueError(f"stopping must be a callable or one of {sorted(STOPPING)}; got {stopping!r}")
    return STOPPING[stopping]


def _accelerator(acceleration: Any, model: Any) -> Callable[[], Accelerator]:
    if not (acceleration is None or isinstance(acceleration, str)) or acceleration not in ACCELERATIONS:
        raise ValueError(f"acceleration must be one of {list(ACCELERATIONS)}; got {acceleration!r}")
    if acceleration is not None and not hasattr(model, "pack"):
        raise ValueError(
            f"acceleration={acceleration!r} needs a model with pack and unpack, which {type(model).__name__} lacks; "
            "use acceleration=None"
        )
    return ACCELERATIONS[acceleration]


def _deadline(max_time: Any) -> float:
    if max_time is None:
        return math.inf
    if not is_real(max_time, 0.0):
        raise ValueError(f"max_time must be None or a number of seconds that is not negative; got {max_time!r}")
    return time.monotonic() + float(max_time)


def _check_arguments(model: Any, max_iter: Any, n_init: Any, n_race: Any, tol: Any, callbacks: Any) -> None:
    if isinstance(model, type) or not hasattr(model, "e_step"):
        raise TypeError(
            f"model must be an instance that follows fastem.protocol.Model; got {type(model).__name__} {model!r}"
        )
    if not is_integer(max_iter, 0):
        raise ValueError(f"max_iter must be an integer of at least 0; got {max_iter!r}")
    if not is_integer(n_init, 1):
        raise ValueError(f"n_init must be an integer of at least 1; got {n_init!r}")
    if not is_integer(n_race, 0):
        raise ValueError(f"n_race must be an integer of at least 0; got {n_race!r}")
    if n_race and not hasattr(model, "sample_size"):
        raise ValueError(f"n_race needs a model with `sample_size`, which {type(model).__name__} lacks; use n_race=0")
    if not is_real(tol, 0.0):
        raise ValueError(f"tol must be a number that is not negative; got {tol!r}")
    if not isinstance(callbacks, Sequence) or not all(callable(callback) for callback in callbacks):
        raise TypeError(f"callbacks must be a sequence of callables; got {callbacks!r}")


def _generator(random_state: Any) -> np.random.Generator:
    try:
        return np.random.default_rng(random_state)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"random_state must be None, a non-negative integer or a numpy Generator; got {random_state!r}"
        ) from error
