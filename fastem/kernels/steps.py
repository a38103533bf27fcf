"""Several steps of EM in one call: between passes, Python would take 0.1 ms, or 0.3 where these empty the caches.

Mixtures of normal components with full covariances. The parts are those that single steps take, compiled once and
called by address, so that the bits are the same.
"""

from typing import NamedTuple

import numpy as np

from fastem.kernels._calls import address, call_at
from fastem.kernels._jit import from_python, kernel
from fastem.kernels.components import (
    add_log_prior_of_weights,
    cancellation,
    kernels_of,
    log_prior_full,
    mode_full,
    moments_full,
    share_out,
    take_logs,
)
from fastem.kernels.features import FULL, n_statistics
from fastem.kernels.posteriors import SOFTMAX
from fastem.kernels.sweep import States, call_for, region, runner_for, sweep_arguments, take_lanes, turns_for


class Rules(NamedTuple):
    """What steps keep to.

    Attributes
    ----------
    outermost, typical : float
        Largest squared coordinates, see `components.cancellation`, of components that need no whitening and, of rows in
        float32, no float64 either.
    smallest : ndarray of shape (D,)
        Deviations of a component are larger.
    dependent : float
        Variance inflation factors are not larger.
    least : float
        Counts that are not larger are none.
    prior : tuple
        As `components.mode_full` takes it.
    reg_covar : float
    extra_rows : float
        That the prior of the weights adds to each count.
    """

    outermost: float
    typical: float
    smallest: np.ndarray
    dependent: float
    least: float
    prior: tuple
    reg_covar: float
    extra_rows: float


class Steps(NamedTuple):
    """What steps led to; of n steps, n objectives and n + 1 parameters."""

    log_likelihoods: np.ndarray
    objectives: np.ndarray
    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    roots: np.ndarray


@from_python
@kernel
def _steps_full(calls, call, sweep, frame, rules, scratch, steps, n_done):
    """Fill `steps` from its first parameters on, until one of them needs a closer look; n_done (1,) = steps taken."""
    logs_of, cancel, encode, run, decode, mode, invert, prior_of, prior_of_weights, share = calls
    center, scale, reach, deviation = frame
    outermost, typical, smallest, dependent, least, prior, reg_covar, extra_rows = rules
    turns, theta, whitener, peaks, sums, totals = sweep
    logs, worst, largest, value, own, counts, good = scratch
    log_likelihoods, objectives, weights, means, covariances, roots = steps
    for step in range(objectives.shape[0]):
        n_done[0] = step
        call_at(cancel, (roots[step], scale, reach, deviation, worst, largest))
        if not (largest[0] <= outermost and largest[1] <= typical):
            return
        call_at(logs_of, (weights[step], logs))
        call_at(encode, (means[step], roots[step], logs, center, scale, theta, whitener, peaks))
        for i in range(turns.shape[1]):
            turns[0, i] = 0
        call_at(run, (turns, call))
        call_at(prior_of, (means[step], roots[step], prior, value))
        if extra_rows > 0.0:
            call_at(prior_of_weights, (logs, extra_rows, value))
        log_likelihoods[step] = totals[0, 0, 0]
        objectives[step] = totals[0, 0, 0] + value[0]
        if totals[0, 0, 1] > 0.0 or not np.isfinite(objectives[step]):
            return
        for k in range(own.shape[0]):
            for p in range(own.shape[1]):
                own[k, p] = sums[0, p, k]
        call_at(decode, (own, center, scale, least, counts, means[step + 1], covariances[step + 1]))
        for k in range(counts.shape[0]):
            if not counts[k] > least:
                return
        call_at(mode, (counts, prior, reg_covar, least, means[step + 1], covariances[step + 1]))
        call_at(invert, (covariances[step + 1], smallest, dependent, roots[step + 1], good))
        if good[0] < counts.shape[0]:
            return
        call_at(share, (counts, extra_rows, weights[step + 1]))
    n_done[0] = objectives.shape[0]


def steps_full(X, weight, dtype, frame, rules, weights, params, n_steps, n_threads):
    """Up to n_steps steps of EM from weights (K,) and params (means, covariances, roots).

    dtype is that of the products, for which `statistics` need not scale the weights; frame: rows (2, D), then centre,
    scale, reach and deviation (D,), float64.
    """
    n_components, n_features = params[0].shape
    n_stats = int(n_statistics(FULL, n_features))
    theta = np.empty((n_components, n_stats), dtype)
    whitener, peaks = np.empty((n_components, n_features + 1, n_features), dtype), np.empty(n_components)
    rows, *places = frame
    sweep = sweep_arguments(X, weight, rows, States(FULL, theta, 0, whitener, peaks), SOFTMAX)
    points = [np.empty((n_steps + 1, *first.shape)) for first in (weights, *params)]
    for point, first in zip(points, (weights, *params), strict=True):
        point[0] = first
    steps = Steps(np.empty(n_steps), np.empty(n_steps), *points)
    scratch = (
        np.empty(n_components),
        np.empty(n_components),
        np.empty(2),
        np.empty(1),
        np.empty((n_components, n_stats)),
        np.empty(n_components),
        np.empty(1, np.int64),
    )
    n_done = np.empty(1, np.int64)
    *_, sums, totals = sweep
    turns = turns_for(len(X) * theta.size, len(sums), n_threads)
    call = call_for(take_lanes, turns, sweep)
    calls = _calls(turns, call, theta, whitener)
    *limits, smallest, dependent, least, (center, mean_rows, own_rows, scatter), reg_covar, extra_rows = rules
    numbers = *limits, dependent, least, mean_rows, own_rows, reg_covar, extra_rows
    assert all(type(number) is float for number in numbers)  # calls by address see no types
    assert all(a.dtype == np.float64 and a.flags.c_contiguous for a in (*places, smallest, center, scatter))
    with region(turns):
        written = turns, theta, whitener, peaks, sums, totals
        _steps_full(calls, call, written, tuple(places), tuple(rules), scratch, tuple(steps), n_done)
    n = int(n_done[0])
    return Steps(steps.log_likelihoods[:n], steps.objectives[:n], *(point[: n + 1] for point in points))


def _calls(turns, call, theta, whitener):
    """Addresses of the parts of a step, with what makes the call of its sweep."""
    run = runner_for(turns)
    line, flat, cube, mark = np.empty(0), np.empty((0, 0)), np.empty((0, 0, 0)), np.empty(0, np.int64)
    prior = line, 0.0, 0.0, flat
    natural, invert = kernels_of(len(theta), whitener.shape[2])
    return (
        address(take_logs, (line, line), None),
        address(cancellation, (cube, line, line, line, line, line), None),
        address(natural, (flat, cube, line, line, line, theta, whitener, line), theta.dtype),
        address(run, (turns, call), None),
        address(moments_full, (flat, line, line, 0.0, line, flat, cube), None),
        address(mode_full, (line, prior, 0.0, 0.0, flat, cube), None),
        address(invert, (cube, line, 0.0, cube, mark), None),
        address(log_prior_full, (flat, cube, prior, line), None),
        address(add_log_prior_of_weights, (line, 0.0, line), None),
        address(share_out, (line, 0.0, line), None),
    )
