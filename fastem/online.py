"""EM over a stream: expected statistics that forget, and an M-step after each batch of rows.

Cappe & Moulines (2009), J. R. Statist. Soc. B 71, 593-613, equation 13. The driver knows models by
`protocol.Streamed`. A stream is an immutable state; `feed` returns the next one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastem.data import Block, Data, Part, check_total_weight, cut, is_real
from fastem.drift import Drift, Reservoir, empty
from fastem.protocol import DegenerateError
from fastem.sequences import Run, Sequences, cut_runs

_SMALL = 256  # rows of a part that is joined to others
_TRIAL = 10  # steps that a birth is judged by
STARVED = ("freeze", "reseed", "remove")


@dataclass(frozen=True)
class Online:
    """How a stream is learned.

    After each batch the expected statistics become (1 - g) times what they were plus g times those of the batch, per
    unit of weight. What is kept of the old, 1 - g, depends on the weight of the batch alone, in such a way that two
    batches keep what one of their common weight does.

    Parameters
    ----------
    exponent : float, default=0.6
        In (0.5, 1]: g falls as the number of batches seen to the power of minus this; 1 is the plain mean of all rows.
    half_life : float, default=None
        Weight of rows after which the old counts half, for data that drift; replaces `exponent`.
    step_size : float, default=None
        Constant g of a batch of unit weights, in (0, 1); replaces `exponent`.
    average : bool, default=None
        Whether parameters are those of the statistics' mean over the last half of the batches, at least (Polyak and
        Ruppert), which are less noisy. None: with `exponent` below 1, and neither of the two that replace it.
    starved : {'freeze', 'reseed', 'remove'}, default='freeze'
        What becomes of a component that counts fewer rows than tell its covariance. 'freeze': it keeps the covariance.
        'reseed': it moves to where most of the rows of lowest density are, or takes half of another component,
        whichever makes the next rows likelier, if either does; densities of all rows, which take the time of another
        E-step, are kept track of for it. 'remove': it is dropped, and there is one less.

    Raises
    ------
    ValueError
        If an argument cannot be used.

    References
    ----------
    Cappe & Moulines (2009), J. R. Statist. Soc. B 71, 593-613, equation 13 and section 2.

    Examples
    --------
    >>> import fastem
    >>> round(fastem.Online(half_life=2000.0).share(seen=10_000.0, weight=1000.0, batch_size=1000), 3)
    0.293
    """

    exponent: float = 0.6
    half_life: float | None = None
    step_size: float | None = None
    average: bool | None = None
    starved: str = "freeze"

    def __post_init__(self):
        if not is_real(self.exponent, 0.5) or not 0.5 < self.exponent <= 1:
            raise ValueError(f"exponent must lie in (0.5, 1]; got {self.exponent!r}")
        if self.half_life is not None and (not is_real(self.half_life, 0.0) or self.half_life == 0):
            raise ValueError(f"half_life must be None or a positive number; got {self.half_life!r}")
        if self.step_size is not None and (not is_real(self.step_size, 0.0) or not 0 < self.step_size < 1):
            raise ValueError(f"step_size must be None or lie in (0, 1); got {self.step_size!r}")
        if self.half_life is not None and self.step_size is not None:
            raise ValueError("half_life and step_size are two ways to forget; give one of them")
        if self.average is not None and not isinstance(self.average, bool | np.bool_):
            raise ValueError(f"average must be None, True or False; got {self.average!r}")
        if self.starved not in STARVED:
            raise ValueError(f"starved must be one of {list(STARVED)}; got {self.starved!r}")

    def share(self, seen: float, weight: float, batch_size: float) -> float:
        """Share of the rows of some weight in all statistics, when they come after rows of the weight seen."""
        if self.half_life is not None:
            return -math.expm1(-math.log(2.0) * weight / self.half_life)
        if self.step_size is not None:
            return -math.expm1(math.log1p(-self.step_size) * weight / batch_size)
        if self.exponent == 1.0 or seen == 0.0:
            return weight / (seen + weight)
        power = 1.0 - self.exponent
        elapsed = (seen / batch_size) ** power * math.expm1(power * math.log1p(weight / seen))
        return -math.expm1(-elapsed / power)

    def most_rows(self, wanted: int) -> int:
        """Rows of a batch where so many are wanted: what a quarter of the half-life brings, at most."""
        return wanted if self.half_life is None else max(1, min(wanted, int(self.half_life / 4)))

    @property
    def averages(self) -> bool:
        """Whether statistics are averaged."""
        if self.average is None:
            return self.exponent < 1 and self.half_life is None and self.step_size is None
        return self.average


class Mean(NamedTuple):
    """Statistics averaged over some batches."""

    expected: Any
    n_batches: int


class Stream(NamedTuple):
    """What is known after some rows of a stream; never changed.

    Attributes
    ----------
    waiting : tuple of (rows (n, D), weights (n,) or None), with labels (n,) or None if there are any, or of Run
        Rows that no step has taken yet.
    n_waiting : int
    n_counting : int
        Number of those of positive weight.
    model : Model or None
        As prepared for the rows of the start; None before it.
    params : Params or None
        Under which the next batch is taken.
    expected : statistics or None
        Per unit of weight, in the form of `Streamed.condense`.
    weight : float
        Weight of rows that the statistics are worth.
    seen : float
        Weight of all rows that were taken: the clock of what is forgotten.
    unit : float
        Mean weight of a row of the last batch, of those that have any.
    n_rows : int
        Number of rows that came, with those that wait.
    n_batches : int
        Steps since the start.
    means : tuple of at most two Mean
        Over the batches from one power of two to the next, and over those from there on; empty if nothing is averaged.
    log_density : float
        Mean over the rows of the last batch, under the parameters that had not seen it; NaN before the first.
    drift : Drift
        That of the last batches against those before.
    reservoir : Reservoir or None
        Rows of lowest density, if a component may be reseeded.
    tried : float
        Weight seen when it was last tried to reseed one.
    dtype : dtype or None
        Of the first rows, and so of all.
    """

    waiting: tuple[Any, ...] = ()
    n_waiting: int = 0
    n_counting: int = 0
    model: Any = None
    params: Any = None
    expected: Any = None
    weight: float = 0.0
    seen: float = 0.0
    unit: float = 1.0
    n_rows: int = 0
    n_batches: int = 0
    means: tuple[Mean, ...] = ()
    log_density: float = math.nan
    drift: Drift = Drift()
    reservoir: Reservoir | None = None
    tried: float = 0.0
    dtype: np.dtype | None = None


# The first rows -> the model prepared for them, and parameters.
Start = Callable[[Data], tuple[Any, Any]]


def feed(
    stream: Stream, part: Part | Run, online: Online, batch_size: int | None, start_rows: int, start: Start
) -> Stream:
    """Return the stream after more rows (n, D), weights (n,) or None and perhaps labels (n,), or sequences, checked.

    The start takes the first `start_rows` that count, then each `batch_size` rows make a step (None: as many as the
    model says): it makes no difference how rows are split into calls. Of sequences, each step takes whole ones that
    have as many rows at least.
    """
    waiting = [*stream.waiting, part]
    X = _rows(part)
    if not isinstance(part, Run) and len(waiting) > 1 and len(waiting[-2][0]) <= len(X) < _SMALL:
        waiting = _gathered(waiting)
    n_waiting, n_rows = stream.n_waiting + len(X), stream.n_rows + len(X)
    n_counting = stream.n_counting + _n_counting(part)
    taken = 0
    if stream.model is None and n_counting >= start_rows:
        first, waiting = _cut(waiting, _rows_that_count(waiting, start_rows))
        taken = len(first.X)
        stream = begin(first, start)
    if stream.model is not None:
        while n_waiting - taken >= (n_batch := _batch_rows(stream.model, online, batch_size, X.shape[1])):
            batch, waiting = _cut(waiting, n_batch)
            stream = _follow(stream, batch, online, n_batch)
            taken += len(batch.X)
    if taken:
        n_counting = sum(map(_n_counting, waiting))
    if waiting:  # the caller may write over the rows
        waiting[-1] = _copied(waiting[-1])
    return stream._replace(
        waiting=tuple(waiting), n_waiting=n_waiting - taken, n_counting=n_counting, n_rows=n_rows, dtype=X.dtype
    )


def begin(block: Block, start: Start) -> Stream:
    """Return a stream that has seen the rows of its start."""
    weight = block.total_weight
    check_total_weight(weight)
    model, params = start(Sequences.of([block]) if isinstance(block, Run) else Data([block]))
    stats = model.e_step(params, block)
    return Stream(
        model=model,
        params=params,
        expected=model.condense(stats, params),
        weight=weight,
        seen=weight,
        unit=weight / block.n_counting,
        drift=Drift().after(stats.log_likelihood / weight, *block.X.shape),
    )


def resume(model: Any, params: Any, weight: float, dtype: np.dtype) -> Stream:
    """Return a stream that goes on from parameters that were learned from rows of some weight."""
    model = model.resumed(params, weight, dtype)
    expected = model.recall(params, weight)
    return Stream(model=model, params=params, expected=expected, weight=weight, seen=weight, dtype=dtype)


def _follow(stream: Stream, block: Block, online: Online, batch_size: int) -> Stream:
    """One batch, for which the model is brought up to date: the rows may have moved."""
    if block.total_weight == 0:
        return stream
    model = stream.model.framed(stream.expected, block)
    return advance(stream._replace(model=model), block, online, batch_size)


def advance(stream: Stream, block: Block, online: Online, batch_size: float) -> Stream:
    """Return the stream after one batch, some row of which counts: E-step, mixing, M-step."""
    model, params = stream.model, stream.params
    stats = model.e_step(params, block)
    if not math.isfinite(stats.log_likelihood):
        raise DegenerateError(
            f"the log-likelihood of a batch is {stats.log_likelihood}: some rows have no density under any component. "
            "Drop rows that are far from all others, or rescale columns"
        )
    share = online.share(stream.seen, stats.weight, batch_size)
    if share == 0:  # too little to tell
        return stream
    expected = model.blend(stream.expected, model.condense(stats, params), share)
    weight, seen, unit = stats.weight / share, stream.seen + stats.weight, stats.weight / block.n_counting
    means, reservoir, tried = stream.means, stream.reservoir, stream.tried
    if online.starved != "freeze":
        short = model.short_of_rows(expected, weight, unit)
        if online.starved == "reseed":
            reservoir = _lowest(reservoir, model, params, block, seen, weight)
        if len(short) and online.starved == "remove":
            model, expected, params = model.without(expected, params, short)
            means = ()
        elif len(short) and reservoir is not None and reservoir.suffices(weight / unit) and seen - tried > weight / 4:
            born, tried = _born(model, params, expected, weight, unit, int(short[0]), reservoir, block), seen
            if born is not expected:
                expected, means, reservoir = born, (), empty(block.X.shape[1])
    log_density = stats.log_likelihood / stats.weight
    return stream._replace(
        model=model,
        params=model.maximize(expected, weight, params, unit),
        expected=expected,
        weight=weight,
        seen=seen,
        unit=unit,
        n_batches=stream.n_batches + 1,
        means=_averaged(model, means, expected) if online.averages else (),
        log_density=log_density,
        drift=stream.drift.after(log_density, *block.X.shape),
        reservoir=reservoir,
        tried=tried,
    )


def _born(
    model: Any,
    params: Any,
    expected: Any,
    weight: float,
    unit: float,
    component: int,
    reservoir: Reservoir,
    block: Block,
) -> Any:
    """Of the statistics and those with the component born again the ones that the batch soon is likeliest under."""
    best, highest = expected, _promise(model, params, expected, weight, unit, block)
    try:
        births = model.births(expected, weight, component, reservoir)
    except np.linalg.LinAlgError:  # dependent columns leave no distances
        return expected
    for born in births:
        value = _promise(model, params, born, weight, unit, block)
        if value > highest:
            best, highest = born, value
    return best


def _promise(model: Any, params: Any, expected: Any, weight: float, unit: float, block: Block) -> float:
    """Log-likelihood of a batch after some steps in which it counts half."""
    try:
        for _ in range(_TRIAL):
            params = model.maximize(expected, weight, params, unit)
            stats = model.e_step(params, block)
            expected = model.blend(expected, model.condense(stats, params), 0.5)
    except DegenerateError:
        return -math.inf
    return stats.log_likelihood


def _lowest(
    reservoir: Reservoir | None, model: Any, params: Any, block: Block, seen: float, memory: float
) -> Reservoir:
    """The reservoir after a batch."""
    reservoir = empty(block.X.shape[1]) if reservoir is None else reservoir
    counting = block.counts > 0
    rows, log_densities = block.X[counting].astype(np.float64), model.log_densities(params, block.X)[counting]
    return reservoir.after(rows, log_densities, seen, memory)


def estimate(stream: Stream) -> Any:
    """Return the parameters that a stream has come to: the last, or those of averaged statistics."""
    if not stream.means:
        return stream.params
    expected, n_batches = stream.means[0]
    for mean in stream.means[1:]:
        n_batches += mean.n_batches
        expected = stream.model.blend(expected, mean.expected, mean.n_batches / n_batches)
    weight = max(stream.weight, stream.seen * n_batches / stream.n_batches)
    try:
        return stream.model.maximize(expected, weight, stream.params, stream.unit)
    except DegenerateError:  # of a component that has hardly any rows, and kept its covariance in the last step
        return stream.params


def _averaged(model: Any, means: tuple[Mean, ...], expected: Any) -> tuple[Mean, ...]:
    """Two windows: when the later is twice as long as the earlier, which it follows, it takes its place."""
    if len(means) < 2:
        return *means, Mean(expected, 1)
    n_batches = means[1].n_batches + 1
    newer = Mean(model.blend(means[1].expected, expected, 1 / n_batches), n_batches)
    return (newer,) if n_batches == 2 * means[0].n_batches else (means[0], newer)


def _rows(part: Any) -> np.ndarray:
    return part.X if isinstance(part, Run) else part[0]


def _cut(parts: list[Any], n_rows: int) -> tuple[Block, list[Any]]:
    """The first n_rows of the parts as a block, or whole sequences of as many, and the parts that are left."""
    if isinstance(parts[0], Run):
        return cut_runs(parts, n_rows)
    (X, weight, *labels), rest = cut(parts, n_rows)
    weight = np.empty((0, 1)) if weight is None else np.ascontiguousarray(weight)[:, None]
    return Block(np.ascontiguousarray(X), weight, labels=labels[0] if labels else None), rest


def _copied(part: Any) -> Any:
    if isinstance(part, Run):
        return part.copied()
    return tuple(None if values is None else values.copy() for values in part)


def _batch_rows(model: Any, online: Online, batch_size: int | None, n_features: int) -> int:
    """Rows of the next step; a model that has lost components may say less."""
    return int(batch_size or online.most_rows(model.batch_rows(n_features)))


def _gathered(parts: list[Part]) -> list[Part]:
    """The same rows in fewer parts, none small and no larger than the next: so a row a call copies no long lists."""
    while len(parts) > 1 and len(parts[-2][0]) <= len(parts[-1][0]) < _SMALL:
        last = len(parts[-2][0]) + len(parts[-1][0])
        parts = [*parts[:-2], cut(parts[-2:], last)[0]]
    return parts


def _n_counting(part: Any) -> int:
    if isinstance(part, Run):
        return part.n_counting
    X, weight = part[:2]
    return len(X) if weight is None else int(np.count_nonzero(weight))


def _rows_that_count(parts: list[Any], n_counting: int) -> int:
    """Number of the first rows of which so many have a weight."""
    counts = [part.counts > 0 if isinstance(part, Run) else _has_weight(*part[:2]) for part in parts]
    return int(np.searchsorted(np.cumsum(np.concatenate(counts)), n_counting)) + 1


def _has_weight(X: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    return np.ones(len(X), bool) if weight is None else weight > 0
