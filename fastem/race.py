"""The way to a start on all rows: many starts race on samples, and a model's moves lead out of poor optima.

It knows models only through their protocol.
"""

from collections.abc import Sequence

import numpy as np

from fastem.acceleration import Plain
from fastem.climb import Options, aitken, climb, evaluate
from fastem.data import Data
from fastem.protocol import DegenerateError, Params, Result, Status

CUT_SHORT = (Status.INTERRUPTED, Status.MAX_TIME)
_HEAT = 10  # iterations of the first heat
_GROWTH = 2  # of the samples and the iterations from one heat to the next, while the number of starts falls as much
_NEARLY_ALL = 8  # part of the rows beyond which a sample saves too little
_SAMPLE_BYTES = 2**24  # of the largest sample
_DIGITS = 9  # of objectives per row that are compared: beyond, equal optima differ by rounding
_MOVES_AT = 2  # which of the samples moves are tried on
_MOVE = 50  # iterations of a move before it is judged


Merit = tuple[bool, float]  # nothing spurious, objective


class CutShort(Exception):
    """A climb on a sample ended before its time."""

    def __init__(self, result: Result):
        self.result = result


class Samples:
    """Nested samples of the rows, each twice as large as the one before; all rows if there are too few to sample."""

    def __init__(self, model, data: Data, rng: np.random.Generator):
        smallest, n_counting = model.sample_size(data), data.n_counting
        largest = min(n_counting // _NEARLY_ALL, _SAMPLE_BYTES // (data.n_features * data.dtype.itemsize))
        self.data = data
        self.sizes = [smallest] if 2 * smallest <= n_counting else []
        while self.sizes and self.sizes[-1] * _GROWTH <= largest:
            self.sizes.append(self.sizes[-1] * _GROWTH)
        if self.sizes:
            order = data.draw(max(2 * self.sizes[0], self.sizes[-1]), rng)
            self.drawn = data.take(order)  # so that all rows are gone through only once
            self.order = np.searchsorted(np.sort(order), order)

    def take(self, number: int) -> Data:
        """Rows of sample `number`, or of the largest."""
        return self.drawn.take(self.order[: self._n_rows(number)]) if self.sizes else self.data

    def judge(self, number: int) -> Data:
        """As many rows that are not in that sample, if there are; else the sample itself."""
        if self.sizes and 2 * self._n_rows(number) <= len(self.order):
            return self.drawn.take(self.order[self._n_rows(number) : 2 * self._n_rows(number)])
        return self.take(number)

    def _n_rows(self, number: int) -> int:
        return self.sizes[min(number, len(self.sizes) - 1)]


def race(
    model,
    samples: Samples,
    rng: np.random.Generator,
    number: int,
    n_race: int,
    given: Sequence[Params],
    options: Options,
) -> Params:
    """Parameters that the best of n_race starts and some given ones reaches on the samples.

    In each heat every start that is left climbs for some iterations on the rows of a sample and is judged by one E-step
    on as many rows of its own. The better half goes on to the next heat, over twice the rows: all heats cost the same.
    The winner goes on over the larger samples until these have no more to say. All this is done by the guarded model,
    under which no component gains by collapsing onto a few rows.
    """
    guarded = model.guarded(samples.take(0))
    n_entrants = n_race + len(given)
    entrants = [*given]
    heat = 0
    while heat == 0 or len(entrants) > 1:
        sample, judge = samples.take(heat), samples.judge(heat)
        limits = options._replace(max_iter=min(_HEAT * _GROWTH**heat, options.max_iter))
        if heat == 0:
            limits = limits._replace(accelerate=Plain)
        ranked: list[tuple[Merit, Params]] = []
        failure: DegenerateError | None = None
        for i in range(len(entrants) if heat else n_entrants):
            try:
                drawn = i - len(entrants)
                params = entrants[i] if drawn < 0 else guarded.entrant(drawn).initialize(sample, rng)
                ranked.append(_judged(guarded, sample, judge, params, number, limits))
            except CutShort as cut:
                best = max(ranked, key=lambda pair: pair[0])[1] if ranked else entrants[0] if heat else None
                raise CutShort(cut.result if best is None else cut.result._replace(params=best)) from cut
            except DegenerateError as error:
                failure = error
        if not ranked:
            assert failure is not None
            raise failure
        ranked.sort(key=lambda pair: pair[0], reverse=True)
        heat += 1
        entrants = [params for _, params in ranked[: -(-n_entrants // _GROWTH**heat)]]
    return _onward(model, guarded, samples, heat, entrants[0], number, options)


def improve(model, samples: Samples, params: Params, number: int, options: Options) -> Params:
    """Follow the first of the model's moves that leads higher, until none does.

    Ueda, Nakano, Ghahramani & Hinton (2000), Neural Computation 12, 2109-2128, section 3.3; here every move is judged
    by the guarded model on rows of its own if there are enough.
    """
    sample, judge = samples.take(_MOVES_AT), samples.judge(_MOVES_AT)
    guarded = model.guarded(sample)
    limits = options._replace(max_iter=min(_MOVE, options.max_iter))
    moved = None
    try:
        value, best = _judged(guarded, sample, judge, params, number, limits)
        while True:
            for proposal in guarded.moves(best, sample):
                try:
                    tried = _judged(guarded, sample, judge, proposal, number, limits)
                except DegenerateError:
                    continue
                if tried[0] > (value[0], value[1] + options.tol):
                    value, best = tried
                    moved = best
                    break
            else:
                break
    except CutShort as cut:
        raise CutShort(cut.result._replace(params=params if moved is None else moved)) from cut
    if moved is None:
        return params
    return _onward(model, guarded, samples, _MOVES_AT + 1, moved, number, options)


def _onward(model, guarded, samples: Samples, level: int, params: Params, number: int, options: Options) -> Params:
    """Go on over the larger samples, from `level` on, until each has no more to say."""
    for later in range(level, len(samples.sizes)):
        tol = max(options.tol, _enough(model, samples.data.n_features, samples.sizes[later]))
        limits = options._replace(tol=tol, rule=aitken)
        params = _climb(guarded, samples.take(later), params, number, limits).params
    return params


def _judged(model, sample: Data, judge: Data, params: Params, number: int, options: Options) -> tuple[Merit, Params]:
    """What a climb on the sample is worth by the rows of the judge, and where it led."""
    params = _climb(model, sample, params, number, options).params
    value = round(evaluate(model, judge, params)[1] / judge.total_weight, _DIGITS)
    return merit(model, params, sample.n_counting, value), params


def merit(model, params: Params, n_rows: int, value: float) -> Merit:
    """What the best has most of: no component on a handful of the rows it was fitted to, then the value."""
    is_spurious = getattr(model, "is_spurious", None)
    return is_spurious is None or not is_spurious(params, n_rows), value


def _climb(model, sample: Data, params: Params, number: int, options: Options) -> Result:
    result = climb(model, sample, params, number, options._replace(callbacks=()))
    if result.status in CUT_SHORT:
        raise CutShort(result)
    return result


def _enough(model, n_features: int, n_rows: int) -> float:
    """Nats per row that are not worth a sample's iterations: half of what it costs to estimate the parameters from it.

    The log-likelihood of n rows at their maximum lies about p / 2 above that at the true parameters.
    """
    return 0.25 * model.n_parameters(n_features) / n_rows
