"""The batch driver: E-step, stopping rule, M-step, restarts. It knows models only through their protocol."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastem.data import as_data, is_integer, is_real
from fastem.protocol import DegenerateError, Iteration, Model, Params, Result, Status, add_stats

Callback = Callable[[Iteration], Any]
StoppingRule = Callable[[Sequence[float], float], bool]

# Differences of two sums of N terms are noise below a few ulps of the sum.
_NOISE = 4 * np.finfo(np.float64).eps


def change(history: Sequence[float], tol: float) -> bool:
    """scikit-learn's rule: the last change is smaller than tol."""
    return len(history) > 1 and abs(history[-1] - history[-2]) < tol


def aitken(history: Sequence[float], tol: float) -> bool:
    """The limit of the geometric sequence through the last three values is less than tol away.

    Bohning et al. (1994), Ann. Inst. Statist. Math. 46, 373-388, section 2: with a = (l2 - l1) / (l1 - l0) the limit
    is l1 + (l2 - l1) / (1 - a), which lies (l2 - l1)^2 / ((l1 - l0) - (l2 - l1)) - (l2 - l1) beyond l2.
    """
    if len(history) < 3:
        return False
    before, gain = history[-2] - history[-3], history[-1] - history[-2]
    if abs(gain) <= _NOISE * abs(history[-1]):
        return True
    if before <= 0 or not 0 < gain < before:
        return False
    return gain * gain / (before - gain) < tol  # = a / (1 - a) (l2 - l1), the distance from l2 to the limit


STOPPING: dict[str, StoppingRule] = {"change": change, "aitken": aitken}


def fit(
    model: Model,
    data: Any,
    *,
    sample_weight: Any = None,
    start: Params | None = None,
    max_iter: int = 100,
    tol: float = 1e-3,
    stopping: str | StoppingRule = "change",
    n_init: int = 1,
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
        Largest number of E-steps (and M-steps) of a start; 0 returns the first start as it is.
    tol : float, default=1e-3
        For the stopping rule, in the objective per unit of weight (nats per sample).
    stopping : {'change', 'aitken'} or callable, default='change'
        'change' stops when the objective changes by less than tol, as scikit-learn does; 'aitken' when the
        estimated limit is less than tol away. A callable takes the history (per unit of weight) and tol.
    n_init : int, default=1
        Number of starts; the one whose last objective is largest is kept.
    random_state : int, numpy Generator or None, default=None
        Seed of the starts.
    callbacks : sequence of callables, default=()
        Each is called with an `Iteration` after every E-step; a true answer stops that start.

    Returns
    -------
    Result

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
    _check_arguments(model, max_iter, n_init, tol, callbacks)
    rule = _stopping_rule(stopping)
    rng = _generator(random_state)
    max_iter, n_init = int(max_iter), int(n_init)
    data = as_data(data, sample_weight)
    model = model.prepare(data)
    if start is not None:
        start = model.check_params(start)
    best: Result | None = None
    failure: DegenerateError | None = None
    for number in range(1 if start is not None or max_iter == 0 else n_init):
        try:
            params = model.initialize(data, rng) if start is None else start
            result = _climb(model, data, params, number, max_iter, tol, rule, callbacks)
        except DegenerateError as error:
            failure = error
            continue
        if best is None or result.history[-1] > best.history[-1]:
            best = result
    if best is None:
        assert failure is not None
        raise failure
    return best


def _climb(model, data, params, number, max_iter, tol, rule, callbacks) -> Result:
    """Run EM from one start."""
    history: list[float] = []
    per_weight: list[float] = []
    status = Status.MAX_ITER
    n_iter, log_likelihood = 0, -math.inf
    data = data.with_notes()
    for n_iter in range(1, max_iter + 1):
        stats = add_stats(model.e_step(params, block) for block in data)
        objective = stats.log_likelihood + model.log_prior(params)
        if not math.isfinite(objective):
            raise DegenerateError(
                f"the log-likelihood became {objective} at iteration {n_iter}: some rows have no density under any "
                "component. Check the start parameters, or rescale columns that differ by many orders of magnitude"
            )
        log_likelihood = stats.log_likelihood
        history.append(objective)
        per_weight.append(objective / stats.weight)
        gain = per_weight[-1] - per_weight[-2] if n_iter > 1 else math.inf
        step = Iteration(number, n_iter, params, objective, gain)
        stop = [callback(step) for callback in callbacks]
        params = model.m_step(stats, params)
        if rule(per_weight, tol):
            status = Status.CONVERGED
            break
        if any(stop):
            status = Status.CALLBACK
            break
    return Result(params, log_likelihood, np.array(history), n_iter, status, model)


def _stopping_rule(stopping: str | StoppingRule) -> StoppingRule:
    if callable(stopping):
        return stopping
    if stopping not in STOPPING:
        raise ValueError(f"stopping must be a callable or one of {sorted(STOPPING)}; got {stopping!r}")
    return STOPPING[stopping]


def _check_arguments(model: Any, max_iter: Any, n_init: Any, tol: Any, callbacks: Any) -> None:
    if isinstance(model, type) or not hasattr(model, "e_step"):
        raise TypeError(
            f"model must be an instance that follows fastem.protocol.Model; got {type(model).__name__} {model!r}"
        )
    if not is_integer(max_iter, 0):
        raise ValueError(f"max_iter must be an integer of at least 0; got {max_iter!r}")
    if not is_integer(n_init, 1):
        raise ValueError(f"n_init must be an integer of at least 1; got {n_init!r}")
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
