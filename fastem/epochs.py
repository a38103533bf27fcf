"""Climbs with many M-steps in a pass over the rows: mini-batch EM and incremental EM, from one start.

They know models by `protocol.Streamed`, and take the place of `climb.climb`.
"""

import functools
import math
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from fastem.acceleration import Plain
from fastem.climb import Options, climb, require_finite
from fastem.data import Block, Data
from fastem.online import Online, Stream, advance, estimate
from fastem.protocol import Iteration, Params, Result, Status

_MOST_BLOCKS = 100  # of incremental EM: more gain little and cost their statistics' memory
_FEWEST_ROWS = 256  # of a block: below, the M-step is most of the time


def minibatch(
    model: Any,
    data: Data,
    params: Params,
    number: int,
    options: Options,
    *,
    online: Online,
    batch_size: int | None,
    n_epochs: int,
    rng: np.random.Generator,
) -> Result:
    """Make steps of stepwise EM over the rows in random order, `n_epochs` times, then one of EM over all.

    The objective of an epoch is that of its batches, each under the parameters that it met.
    """
    history: list[float] = []
    batch_size = batch_size or online.most_rows(model.batch_rows(data.n_features))
    batch_weight = batch_size * data.total_weight / data.n_counting  # weights may be on any scale
    worth = data.total_weight * min(1.0, model.start_rows(data.n_features) / data.n_counting)
    expected = model.recall(params, worth)
    stream = Stream(model=model, params=params, expected=expected, weight=worth, seen=worth)
    status = Status.EPOCHS
    try:
        while len(history) < n_epochs and status is Status.EPOCHS:
            total = 0.0
            for block in _counting(data.shuffled(batch_size, rng)):
                stream = advance(stream, block, online, batch_weight)
                total += stream.log_density * block.total_weight
                if time.monotonic() > options.deadline:
                    status = Status.MAX_TIME
                    break
            else:
                objective = total + model.log_prior(stream.params)
                if _report(options, history, objective, number, estimate(stream), data.total_weight):
                    status = Status.CALLBACK
    except KeyboardInterrupt:
        if stream.n_batches == 0:
            raise
        status = Status.INTERRUPTED
    return _finished(stream.model, data, estimate(stream), number, options, history, status)


class _Term(NamedTuple):
    """Statistics of some rows, per unit of weight, and the entropy of their posteriors."""

    expected: Any
    weight: float
    entropy: float


def incremental(
    model: Any, data: Data, params: Params, number: int, options: Options, *, batch_size: int | None
) -> Result:
    """Make an M-step after each block of rows, whose statistics replace those that it had in the pass before.

    Neal & Hinton (1998), in Jordan (ed.), Learning in Graphical Models, 355-368, section 4. What never falls is their
    free energy (equation 7), the expected log-likelihood plus the entropy of the posteriors: a lower bound of the
    log-likelihood, which it meets at the end. Statistics are never subtracted: those of the blocks to come are summed
    backwards before each pass.
    """
    if batch_size is None:
        batch_size = max(_FEWEST_ROWS, -(-data.n_samples // _MOST_BLOCKS))
    if options.max_iter == 1:
        return climb(model, data, params, number, options)
    blocks = data.recut(batch_size).with_notes()
    merge = functools.partial(_merged, model)
    terms = [_term(model, block, params) for block in _counting(blocks)]
    total = functools.reduce(merge, terms)
    params = model.maximize(total.expected, total.weight, params, 0.0)
    history: list[float] = []
    status = Status.MAX_ITER
    try:
        while True:
            energy = total.entropy + total.weight * model.expected_log_likelihood(total.expected, params)
            stop = _report(options, history, energy + model.log_prior(params), number, params, total.weight)
            if options.rule([value / total.weight for value in history], options.tol):
                status = Status.CONVERGED
            elif stop:
                status = Status.CALLBACK
            if len(history) == options.max_iter - 1 or status is not Status.MAX_ITER:  # and the last, below
                break
            later: list[Any] = [*terms[1:], None]
            for i in range(len(terms) - 3, -1, -1):
                later[i] = merge(later[i], later[i + 1])
            before: _Term | None = None
            for i, block in enumerate(_counting(blocks)):
                if time.monotonic() > options.deadline:
                    status = Status.MAX_TIME
                    break
                terms[i] = _term(model, block, params)
                before = terms[i] if before is None else merge(before, terms[i])
                total = before if later[i] is None else merge(before, later[i])
                params = model.maximize(total.expected, total.weight, params, 0.0)
            if status is Status.MAX_TIME:
                break
    except KeyboardInterrupt:
        status = Status.INTERRUPTED
    return _finished(model, data, params, number, options, history, status)


def _term(model: Any, block: Block, params: Params) -> _Term:
    stats = model.e_step(params, block)
    require_finite(stats.log_likelihood, f"the log-likelihood of a block became {stats.log_likelihood}")
    expected = model.condense(stats, params)
    entropy = stats.log_likelihood - stats.weight * model.expected_log_likelihood(expected, params)
    return _Term(expected, stats.weight, entropy)


def _merged(model: Any, one: _Term, two: _Term) -> _Term:
    weight = one.weight + two.weight
    share = two.weight / weight if weight > 0 else 0.0  # rows may inform nothing
    return _Term(model.blend(one.expected, two.expected, share), weight, one.entropy + two.entropy)


def _counting(blocks: Iterable[Block]) -> Iterator[Block]:
    return (block for block in blocks if block.total_weight > 0)


def _report(options: Options, history: list[float], objective: float, number: int, params: Params, weight: float):
    """Add a pass to the history; return whether a callback asks to stop."""
    change = (objective - history[-1]) / weight if history else math.inf
    history.append(objective)
    return any([callback(Iteration(number, len(history), params, objective, change)) for callback in options.callbacks])


def _finished(
    model: Any, data: Data, params: Params, number: int, options: Options, history: list[float], status: Status
) -> Result:
    """One iteration of EM over all rows, which says what was reached."""
    last = climb(model, data, params, number, options._replace(max_iter=1, callbacks=(), accelerate=Plain))
    return last._replace(history=np.append(history, last.history), n_iter=len(history) + 1, status=status)
