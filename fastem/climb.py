"""One climb of EM: E-step, acceptance, stopping rule, M-step, from one start. It knows models by their protocol."""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastem.acceleration import Accelerator, Plain
from fastem.protocol import DegenerateError, Iteration, Result, Status, add_stats

Callback = Callable[[Iteration], Any]
StoppingRule = Callable[[Sequence[float], float], bool]

# Differences of two sums of N terms are noise below a few ulps of the sum.
_NOISE = 4 * np.finfo(np.float64).eps
_AT_ONCE = 16  # steps that a model that can is asked for
_CONFIRMING = 6  # points in a row, joined by plain steps, before a rule may stop an accelerated climb


def change(history: Sequence[float], tol: float) -> bool:
    """scikit-learn's rule: the last change is smaller than tol."""
    return len(history) > 1 and abs(history[-1] - history[-2]) < tol


def aitken(history: Sequence[float], tol: float) -> bool:
    """The limit of the geometric sequence through the last three values is less than tol away, twice in a row.

    Bohning et al. (1994), Ann. Inst. Statist. Math. 46, 373-388, section 2: with a = (l2 - l1) / (l1 - l0) the limit
    is l1 + (l2 - l1) / (1 - a), which lies (l2 - l1)^2 / ((l1 - l0) - (l2 - l1)) - (l2 - l1) beyond l2.
    """
    if len(history) < 3:
        return False
    if abs(history[-1] - history[-2]) <= _NOISE * abs(history[-1]):
        return True
    recent = history[-_CONFIRMING - 1 :]
    if sum(after < before for before, after in itertools.pairwise(recent)) > 1:
        return True  # only rounding, float32's above all, and reg_covar, the M-step of no objective, make EM fall
    return _is_near(history[:-1], tol) and _is_near(history, tol)  # the first estimates of a climb mean little


def _is_near(history: Sequence[float], tol: float) -> bool:
    if len(history) < 3:
        return False
    before, gain = abs(history[-2] - history[-3]), abs(history[-1] - history[-2])
    if not gain < before:
        return False
    return gain * gain / (before - gain) < tol  # = a / (1 - a) (l2 - l1), the distance from l2 to the limit


def _is_flat(history: Sequence[float]) -> bool:
    """Whether three values differ by rounding only: there is nothing to leap over."""
    return len(history) == 3 and bool(max(history) - min(history) <= _NOISE * abs(history[-1]))


STOPPING: dict[str, StoppingRule] = {"change": change, "aitken": aitken}


class Options(NamedTuple):
    """What one start needs to know of the arguments of `fit`."""

    max_iter: int
    tol: float
    rule: StoppingRule
    callbacks: Sequence[Callback]
    accelerate: Callable[[], Accelerator]
    deadline: float


def climb(model, data, params, number, options: Options) -> Result:
    """Run EM from one start.

    After a leap, the first plain steps gain what it disturbed, which says nothing of what EM would gain slowly. So once
    a gain is small, also in view of how many steps the last leaps were worth, the rule is asked after some plain steps
    in a row; if it says no, leaps go on, half as many as there were, before it is asked again.

    Plain steps that nobody watches are taken several at a time where the model can do that (`protocol.Brisk`).

    A leap is kept if the objective there is no less than at the point before it, so accepted objectives never fall by
    more than the M-step's own rounding; else the plain step is taken after all.
    """
    history: list[float] = []
    plain: list[float] = []  # objectives per unit of weight since the last leap, all joined by plain steps
    trail = [params]  # the same points, then the one to come
    fallback = None  # the plain step, while a leap is tried
    n_leaps, next_check, next_batch, pace = 0, 0, 0, math.inf
    accelerator = options.accelerate()
    status = Status.MAX_ITER
    n_iter, log_likelihood = 0, -math.inf
    data = data.with_notes()
    several = getattr(model, "several_steps", None) if type(accelerator) is Plain and not options.callbacks else None
    try:
        while n_iter < options.max_iter:
            if several is not None and n_iter >= next_batch:
                begin = time.monotonic()
                wanted = min(_AT_ONCE, options.max_iter - n_iter)
                if options.deadline < math.inf:  # no more than there is time for, as the steps before tell
                    wanted = min(wanted, max(1, int((options.deadline - begin) / pace)))
                ascent = several(params, data, wanted)
                if ascent is None:
                    several = None
                    continue
                if len(ascent.objectives) > 0:
                    pace = max((time.monotonic() - begin) / len(ascent.objectives), 1e-9)
                n_steps, is_settled = _follow(ascent, plain, options)
                if n_steps > 0:
                    params, log_likelihood = ascent.point(n_steps), float(ascent.log_likelihoods[n_steps - 1])
                    n_iter, trail = n_iter + n_steps, [params]
                    history.extend(ascent.objectives[:n_steps].tolist())
                if is_settled or (n_steps > 0 and time.monotonic() > options.deadline):
                    status = Status.CONVERGED if is_settled else Status.MAX_TIME
                    break
                if n_steps < wanted:
                    next_batch = n_iter + max(ascent.pause, n_steps == 0)
                continue
            n_iter += 1
            try:
                stats, objective = evaluate(model, data, params, n_iter)
                if fallback is not None and objective < history[-1]:
                    raise DegenerateError("a leap downhill")
                updated = model.m_step(stats, params)
            except DegenerateError:
                if fallback is None:
                    raise
                accelerator.rejected()
                params, fallback = fallback, None
                continue
            if fallback is not None:
                n_leaps += 1
                accelerator.accepted()
                plain, trail, fallback = [], [params], None
            log_likelihood = stats.log_likelihood
            history.append(objective)
            plain.append(objective / stats.weight)
            trail = [*trail[-2:], updated]
            gain = (objective - history[-2]) / stats.weight if len(history) > 1 else math.inf
            if len(plain) > 1 and gain < -_NOISE * abs(plain[-1]):  # where plain steps fall no leap can be judged
                accelerator = Plain()
            step = Iteration(number, n_iter, params, objective, gain)
            stop = [callback(step) for callback in options.callbacks]
            params = updated
            settled = isinstance(accelerator, Plain) or len(plain) >= _CONFIRMING or _is_flat(plain[-3:])
            if settled and options.rule(plain, options.tol):
                status = Status.CONVERGED
                break
            if any(stop):
                status = Status.CALLBACK
                break
            if time.monotonic() > options.deadline:
                status = Status.MAX_TIME
                break
            few = max(options.tol / accelerator.horizon, _NOISE * abs(plain[-1]))
            if n_leaps >= next_check and len(plain) < _CONFIRMING and gain <= few:
                continue
            if n_leaps and len(plain) >= _CONFIRMING:
                next_check = n_leaps + max(8, n_leaps // 2)
            leap = accelerator.leap(model, trail)
            if leap is not None:
                fallback, params = params, leap
    except KeyboardInterrupt:
        if not history:
            raise
        status = Status.INTERRUPTED
    if fallback is not None:  # the last leap was not tried, or not to its end
        params = fallback
    return Result(params, log_likelihood, np.array(history), n_iter, status, model)


def _follow(ascent, plain: list[float], options: Options) -> tuple[int, bool]:
    """Add steps to the plain ones until the rule says that they have settled: how many, and whether it does."""
    for number, objective in enumerate(ascent.objectives.tolist(), 1):
        plain.append(objective / ascent.weight)
        if options.rule(plain, options.tol):
            return number, True
    return len(ascent.objectives), False


def evaluate(model, data, params, n_iter=0):
    """Statistics and objective of parameters; refuses those under which the data are impossible."""
    stats = add_stats(model.e_step(params, block) for block in data)
    objective = stats.log_likelihood + model.log_prior(params)
    require_finite(objective, f"the log-likelihood became {objective} at iteration {n_iter}")
    return stats, objective


def require_finite(value, what):
    """Refuse parameters under which rows are impossible."""
    if not math.isfinite(value):
        raise DegenerateError(
            f"{what}: some rows have no density under any component. Check the start parameters, or rescale columns "
            "that differ by many orders of magnitude"
        )
