"""The batch driver: starts, restarts, the best of them. It knows models only through their protocol."""

import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastem.acceleration import ACCELERATIONS, Accelerator
from fastem.climb import STOPPING, Callback, Options, StoppingRule, climb
from fastem.data import Data, is_integer, is_real
from fastem.epochs import incremental, minibatch
from fastem.labels import as_labels
from fastem.online import Online
from fastem.protocol import DegenerateError, Model, Params, Result, Status
from fastem.race import CUT_SHORT, CutShort, Samples, improve, merit, race
from fastem.sources import open_data


def fit(
    model: Model,
    data: Any,
    *,
    sample_weight: Any = None,
    labels: Any = None,
    start: Params | None = None,
    max_iter: int = 100,
    tol: float = 1e-3,
    stopping: str | StoppingRule = "change",
    acceleration: str | None = None,
    algorithm: str = "batch",
    batch_size: int | None = None,
    n_epochs: int = 10,
    online: Online | None = None,
    max_time: float | None = None,
    n_init: int = 1,
    n_race: int = 0,
    entrants: Sequence[Params] = (),
    split_merge: bool = False,
    random_state: int | np.random.Generator | None = None,
    callbacks: Sequence[Callback] = (),
) -> Result:
    """Fit a model by Expectation-Maximization to the best of `n_init` starts.

    Parameters
    ----------
    model : Model
        Anything that follows `fastem.protocol.Model`, such as `fastem.Mixture`.
    data : array-like of shape (n_samples, n_features), Data, or what `fastem.Blocks` takes
        Rows; float32 stays float32, everything else numeric becomes float64.
    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights; a weight of 2 is the row twice, 0 is the row left out.
    labels : array-like of shape (n_samples,) or (n_samples, n_states), default=None
        Components that rows are known to come from, where the model has such: their numbers, -1 where unknown; or 1 for
        each component that a row can come from, and 0 for the others. The log-likelihood is that of rows and labels.
    start : Params, default=None
        Parameters to start from, instead of `model.initialize`; then `n_init` is 1.
    max_iter : int, default=100
        Largest number of E-steps of a start; 0 returns the first start as it is.
    algorithm : {'batch', 'minibatch', 'incremental'}, default='batch'
        How a start is followed on all rows. 'minibatch': a step of stepwise EM after each batch of rows, in random
        order, then one iteration over all; for data so large that few passes can be made. 'incremental': an M-step
        after each block of rows, whose statistics replace the last ones of that block; its objective is a lower bound
        of that of EM, which never falls either and meets it in the end (Neal & Hinton 1998).
    batch_size : int, default=None
        Rows of a batch or block. None: what the model says for 'minibatch' (a mixture: 64 for each value of a mean, but
        1024 to 16384); a hundredth of the rows, or 256, for 'incremental'.
    n_epochs : int, default=10
        Passes of 'minibatch', whatever `tol`, `stopping` and `max_iter`, which serve its race alone.
    online : Online, default=None
        Step sizes of 'minibatch'. None: `Online()`.
    tol : float, default=1e-3
        For the stopping rule, in the objective per unit of weight (nats per sample).
    stopping : {'change', 'aitken'} or callable, default='change'
        'change' stops when the objective changes by less than tol, as scikit-learn does; 'aitken' when the
        estimated limit is less than tol away. A callable takes the history (per unit of weight) and tol. With an
        acceleration, rules see the points since the last leap only, which plain steps join.
    acceleration : {None, 'anderson', 'squarem'}, default=None
        None: EM itself. 'squarem': extrapolate along every two steps. 'anderson': along the last five after every step,
        and by 'squarem' for a while where that leads downhill. A leap downhill is taken back and the plain step made,
        so that the objective still never falls; it counts as an iteration. With another `algorithm` than 'batch' it
        serves the race alone.
    max_time : float, default=None
        Seconds after which no further iteration begins.
    n_init : int, default=1
        Number of starts; the one whose last objective is largest is kept, and none that the model calls spurious if
        there is another.
    n_race : int, default=0
        0: a start is found and followed on all rows. Otherwise so many race for each: the better half of them goes
        on from heat to heat, over samples of `model.sample_size` rows, twice as many and so on, and all rows are only
        read for the end.
    entrants : sequence of Params, default=()
        Further starts of the race, or the only ones if n_race is 0.
    split_merge : bool, default=False
        Whether to try the model's `moves`, for a mixture to merge two components and split a third, on a sample
        before all rows are read, until none leads higher; for poor optima, at several times the cost of a race.
    random_state : int, numpy Generator or None, default=None
        Seed of the starts.
    callbacks : sequence of callables, default=()
        Each is called with an `Iteration` after every E-step over all rows, refused leaps aside; a true answer stops
        that start. What races on samples is not shown.

    Returns
    -------
    Result
        Control-C during the iterations returns the best parameters so far, with `Status.INTERRUPTED`.

    Raises
    ------
    DegenerateError
        If every start leads to a collapsed component, or the rows are too few for the model.
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
    _check_arguments(model, max_iter, n_init, n_race, entrants, split_merge, tol, callbacks)
    if start is not None and (n_race or len(entrants)):
        raise ValueError("start is the one to begin from, so that none can race; use n_race=0 and no entrants")
    options = Options(
        max_iter=int(max_iter),
        tol=tol,
        rule=_stopping_rule(stopping),
        callbacks=callbacks,
        accelerate=_accelerator(acceleration, model),
        deadline=_deadline(max_time),
    )
    rng = _generator(random_state)
    ascend = _algorithm(algorithm, model, batch_size, n_epochs, online, rng) if max_iter else climb
    labels = _labels(labels, model)
    data = open_data(data, sample_weight, labels, allow_nan=getattr(model, "takes_missing", False))
    model = model.prepare(data)
    if start is not None:
        start = model.check_params(start)
        model = model.holding(start) if hasattr(model, "holding") else model
    entrants = [model.check_params(params) for params in entrants]
    best: Result | None = None
    best_worth = (False, -math.inf)
    failure: DegenerateError | None = None
    for number in range(1 if start is not None or max_iter == 0 else int(n_init)):
        try:
            result = _from_one_start(
                model, data, start, number, rng, int(n_race), entrants, split_merge, options, ascend
            )
        except DegenerateError as error:
            failure = error
            continue
        except CutShort as cut:  # before a look at all rows, under which its parameters are impossible
            if best is not None:
                return best._replace(status=cut.result.status)
            if cut.result.status is Status.INTERRUPTED:
                raise KeyboardInterrupt from None
            raise cut.__cause__ or cut from None
        except KeyboardInterrupt:
            if best is None:
                raise
            return best._replace(status=Status.INTERRUPTED)
        reached = result.history[-1] if len(result.history) else -math.inf  # max_iter=0 leaves none
        worth = merit(model, result.params, data.n_counting, reached)
        if best is None or worth > best_worth:
            best, best_worth = result, worth
        if result.status in CUT_SHORT:
            return best._replace(status=result.status)
    if best is None:
        assert failure is not None
        raise failure
    return best


def _from_one_start(
    model,
    data: Data,
    params: Params | None,
    number: int,
    rng: np.random.Generator,
    n_race: int,
    entrants: Sequence[Params],
    split_merge: bool,
    options: Options,
    ascend: Callable[..., Result],
) -> Result:
    """Find a start unless it is given, and climb from there."""
    try:
        racing = params is None and n_race + len(entrants) > 0
        sampling = options.max_iter > 0 and (racing or split_merge)
        samples = Samples(model, data, rng) if sampling else None
        if samples is not None and racing:
            params = race(model, samples, rng, number, n_race, entrants, options)
        elif params is None:
            params = model.initialize(data, rng)
        if samples is not None and split_merge:
            params = improve(model, samples, params, number, options)
    except CutShort as cut:  # one pass over all rows, for the objective there
        try:
            result = climb(model, data, cut.result.params, number, options._replace(max_iter=1))
        except DegenerateError as error:
            raise cut from error
        return result._replace(status=cut.result.status)
    return ascend(model, data, params, number, options)


def _labels(labels: Any, model: Any) -> np.ndarray | None:
    if labels is not None and not hasattr(model, "n_states"):
        raise ValueError(f"labels are for models whose components they can name, which {type(model).__name__} is not")
    return as_labels(labels, model.n_states) if labels is not None else None


def _algorithm(
    algorithm: Any, model: Any, batch_size: Any, n_epochs: Any, online: Any, rng: np.random.Generator
) -> Callable[..., Result]:
    """What follows a start on all rows; it takes what `climb` does."""
    if batch_size is not None and not is_integer(batch_size, 1):
        raise ValueError(f"batch_size must be None or a positive integer; got {batch_size!r}")
    if not is_integer(n_epochs, 1):
        raise ValueError(f"n_epochs must be a positive integer; got {n_epochs!r}")
    if online is not None and not isinstance(online, Online):
        raise TypeError(f"online must be None or a fastem.Online; got {online!r}")
    if algorithm == "batch":
        return climb
    if algorithm not in ("minibatch", "incremental"):
        raise ValueError(f"algorithm must be 'batch', 'minibatch' or 'incremental'; got {algorithm!r}")
    if not hasattr(model, "condense"):
        raise ValueError(
            f"algorithm={algorithm!r} needs a model with statistics that mix (fastem.protocol.Streamed), which "
            f"{type(model).__name__} is not; use algorithm='batch'"
        )
    if online is not None and online.starved != "freeze" and not hasattr(model, "births"):
        raise ValueError(
            f"online has starved={online.starved!r}, which needs a model with components that die and are born "
            f"(fastem.protocol.Renewed), which {type(model).__name__} is not; use starved='freeze'"
        )
    if algorithm == "incremental":
        return functools.partial(incremental, batch_size=batch_size)
    return functools.partial(
        minibatch, online=online or Online(), batch_size=batch_size, n_epochs=int(n_epochs), rng=rng
    )


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


def _check_arguments(
    model: Any, max_iter: Any, n_init: Any, n_race: Any, entrants: Any, split_merge: Any, tol: Any, callbacks: Any
) -> None:
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
    if (n_race or len(entrants)) and not hasattr(model, "sample_size"):
        raise ValueError(
            f"a race needs a model with `sample_size`, which {type(model).__name__} lacks; use n_race=0, no entrants"
        )
    if not isinstance(split_merge, (bool, np.bool_)):
        raise TypeError(f"split_merge must be True or False; got {split_merge!r}")
    if split_merge and not all(hasattr(model, name) for name in ("moves", "guarded", "sample_size")):
        raise ValueError(
            f"split_merge needs a model with `moves`, `guarded` and `sample_size`, which {type(model).__name__} lacks; "
            "use split_merge=False"
        )
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
