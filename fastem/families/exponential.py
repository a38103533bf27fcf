"""Exponential families: all that follows once a family says what its statistics are and how they tell the parameters.

    log p(x; theta) = sum_j [eta_j(theta) . t_j(x_j) - A_j(theta)] + log h(x),    j = 1..J independent pieces of a row

The pieces are mostly the columns. A row is coded as its statistics t, with 0 for a piece that is missing; then a 1 for
each piece that is there, of those that are ever missing; then log h, unless that is 0. So a score is linear in the
coded row, missing pieces drop out of it exactly (Little & Rubin 2002, section 6.2), and everything else that a mixture
needs, the M-step aside, is the same for all families.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from scipy.special import gammaln

from fastem.data import Block, Data, Summary, chunks, finite_array, is_real
from fastem.families.family import GUARD_ROWS, Family, Frame, Layout, are_arrays
from fastem.families.held import Freezable, Held
from fastem.families.newton import maximize_each
from fastem.kernels.features import LINEAR
from fastem.kernels.sweep import States, by_features
from fastem.protocol import DegenerateError

_TINY = np.finfo(np.float64).tiny
IMPOSSIBLE = 1e6  # nats that a value of probability 0 costs in a sweep, so that rows of such values have posteriors too
_FAR = 50.0  # logarithms and logits from which on coordinates stand for 0 or 1
_NO_ROW = 1e-3  # of a row, expected of a rate or probability: below, it is 0
_MOST_COUNTS = 2**16  # entries of a table of factorials
_STEP = 1e-3  # of a central difference of fourth order: errors of 1e-12 in either way


# What values of a domain may be.
_LIMITS = {
    "real": (-np.inf, np.inf),
    "angle": (-np.inf, np.inf),
    "positive": (_TINY, np.inf),
    "not negative": (0.0, np.inf),
    "unit": (0.0, 1.0),
}


class Averages(NamedTuple):
    """What the rows of each component come to; means are over all its rows, where missing statistics count 0."""

    counts: np.ndarray  # (K,) weight
    means: np.ndarray  # (K, T) of the statistics
    shares: np.ndarray  # (K, J) part of the weight where a piece is there
    bases: np.ndarray  # (K,) mean of log h


class Conjugate(NamedTuple):
    """Conjugate prior: so many rows, whose statistics have a given mean, come to those of each component.

    Diaconis & Ylvisaker (1979), Ann. Statist. 7, 269-281, equation 2.2: its log-density is
    rows (eta . mean - A) up to a constant, in each component; so the posterior mode is the maximum of the likelihood
    with these rows added.

    Attributes
    ----------
    rows : float, default=1.0
        Weight of the prior in rows; it may be a fraction.
    mean : array-like of shape (n_statistics,), default=None
        Mean statistics of those rows. None: those of all the data.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.array([[0.0], [0.0], [0.0], [4.0]])
    >>> model = fastem.Mixture(fastem.Poisson(prior=fastem.Conjugate(rows=4.0, mean=[3.0])))
    >>> fastem.fit(model, X).params.components.rates
    array([[2.]])
    """

    rows: float = 1.0
    mean: Any = None


class ValueRefused(ValueError):
    """A cell holds what a family cannot have."""

    place: tuple[int, int]
    value: float
    words: str

    @classmethod
    def at(cls, place: tuple[int, int], value: float, words: str) -> "ValueRefused":
        """The refusal of a value at a row and column."""
        error = cls(f"X[{place[0]}, {place[1]}] is {value:g}; {words}")
        error.place, error.value, error.words = place, value, words
        return error

    def moved(self, n_rows: int, columns: Any = None) -> "ValueRefused":
        """The same of rows that come after others, and of columns that have other numbers."""
        row, column = self.place
        return self.at((row + n_rows, column if columns is None else int(columns[column])), self.value, self.words)


def require(X: np.ndarray, good: np.ndarray, words: str) -> None:
    """Refuse rows that are not good everywhere; NaN is missing."""
    bad = ~(good | np.isnan(X))
    if bad.any():
        row, column = map(int, np.argwhere(bad)[0])
        raise ValueRefused.at((row, column), float(X[row, column]), words)


def require_counts(X: np.ndarray, what: str) -> None:
    """Refuse rows that are not counts; NaN is missing."""
    require(X, (X >= 0) & (np.floor(X) == X), f"{what} are integers from 0 on")


class Coded(Family):
    """What families do alike whose scores are linear in coded rows, which kernels see as they are."""

    is_coded: ClassVar[bool] = True
    feature_map: ClassVar[Any] = LINEAR
    start_map: ClassVar[Any] = LINEAR

    def _linear(self, params: Any) -> tuple[np.ndarray, np.ndarray]:
        """Slopes (K, C) on the coded rows and constants (K,) of the log-densities."""
        raise NotImplementedError

    def exact(self, params: Any, log_weights: np.ndarray, X: np.ndarray) -> tuple[np.ndarray, States, np.ndarray]:
        """Frame (2, C), states and coded rows for densities of any rows."""
        raise NotImplementedError

    def n_components(self, params: Any) -> int:
        """Number of components that the parameters are for."""
        raise NotImplementedError

    def frame_of(self, rows: Data) -> Frame:
        """The coded rows as they are: nothing is gained by moving what is only added up."""
        return plain_frame(rows.n_features)

    def frame(self, summary: Summary, dtype: np.dtype) -> Frame:
        """The same, of the summary of coded rows."""
        return plain_frame(len(summary.mean))

    def layout(self, params: Any, frame: Frame) -> Layout:
        """Every component by features, in float64."""
        return Layout(LINEAR, np.arange(self.n_components(params)), np.empty((0, 2, frame.center.size)))

    def natural(self, params: Any, log_weights: np.ndarray, layout: Layout, frame: Frame) -> States:
        """Natural parameters in the frame."""
        slopes, constants = self._linear(params)
        theta = np.column_stack([constants + log_weights + slopes @ frame.center, slopes / frame.scale])
        return by_features(LINEAR, theta, frame.center.size)

    def log_densities(self, params: Any, X: np.ndarray) -> np.ndarray:
        """Log-densities (N, K) of a few rows, in NumPy."""
        _, states, rows = self.exact(params, np.zeros(self.n_components(params)), X)
        return states.theta[:, 0] + np.einsum("nc,kc->nk", rows, states.theta[:, 1:])


@dataclass(frozen=True, eq=False)
class Exponential(Freezable, Coded):
    """A family of this form; for families of one's own see docs/new_family.md.

    A family gives `Params`, a NamedTuple of arrays (K, J); `domains`, what the values of each field may be; and
    `statistics`, `natural_parameters`, `log_partition`, `estimate`, `expectation`, `column_means` and `draw`; perhaps
    `check` and `log_base`.

    Parameters
    ----------
    prior : Conjugate, default=None
        None: maximum likelihood.
    """

    prior: Conjugate | None = None
    n_features: int = field(default=0, repr=False, kw_only=True)  # of the data seen
    missing: Any = field(default=None, repr=False, kw_only=True)  # (J,) bool: pieces that are ever missing
    overall: Any = field(default=None, repr=False, kw_only=True)  # (T,) mean statistics of the data seen
    deviation: Any = field(default=None, repr=False, kw_only=True)  # (T,) their standard deviation
    resolved: Any = field(default=None, repr=False, kw_only=True)  # (T,) mean statistics of the prior
    held: Held | None = field(default=None, repr=False, kw_only=True)
    numbers_in_X: Any = field(default=None, repr=False, kw_only=True)  # (D,) of columns that are some of many

    takes_missing: ClassVar[bool] = True
    has_log_base: ClassVar[bool] = False
    is_positive: ClassVar[bool] = True  # whether no value is negative
    # A component that has seen no 1 gives it probability 0, and will never see one: so starts are not to be hard. Of
    # 120 starts of Poisson mixtures by nearest random rows 7 failed; at 0.1 none did.
    softness: ClassVar[float] = 0.1
    Params: ClassVar[Any]
    domains: ClassVar[dict[str, str]]  # by the name of the field: 'real', 'angle', 'positive', ...

    def __post_init__(self):
        if self.prior is not None and not isinstance(self.prior, Conjugate):
            raise TypeError(f"prior must be a fastem.Conjugate or None; got {self.prior!r}")
        if self.prior is not None and not (is_real(self.prior.rows, 0.0) and self.prior.rows > 0):
            raise ValueError(f"prior.rows must be a positive finite number; got {self.prior.rows!r}")

    # what a family says

    def check(self, X: np.ndarray) -> None:
        """Refuse rows (n, D) float64 with values that the family cannot have; NaN is missing."""

    def statistics(self, X: np.ndarray) -> np.ndarray:
        """Return the statistics (n, T) of rows, NaN where they are missing."""
        return X

    def log_base(self, X: np.ndarray) -> np.ndarray:
        """Return log h (n, J), NaN where a piece is missing; for families that have one."""
        raise NotImplementedError

    @property
    def owners(self) -> np.ndarray:
        """The piece (T,) int that each statistic belongs to."""
        n_statistics = len(self.domains)  # as many as parameters
        return np.tile(np.arange(self.n_features), n_statistics)

    @property
    def seeds(self) -> Any:
        """Which of the statistics tell where a row lies, for starts: a slice."""
        return slice(None)

    def natural_parameters(self, params: Any) -> np.ndarray:
        """Return eta (K, T), infinite where a value is impossible."""
        raise NotImplementedError

    def log_partition(self, params: Any) -> np.ndarray:
        """Return A (K, J)."""
        raise NotImplementedError

    def estimate(self, means: np.ndarray) -> Any:
        """Return the parameters of largest likelihood given the mean statistics (K, T)."""
        raise NotImplementedError

    def expectation(self, params: Any) -> np.ndarray:
        """Return the mean statistics (K, T) under the parameters: what `estimate` inverts."""
        raise NotImplementedError

    def column_means(self, params: Any) -> np.ndarray:
        """Return the expected row (K, D) of each component."""
        raise NotImplementedError

    def draw(self, params: Any, k: int, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """Draw rows (n_samples, D) from component k."""
        raise NotImplementedError

    # coded rows

    def seeing(self, data: Data) -> Any:
        """Return the family with the number of columns, those that hold missing values, and mean statistics."""
        family = replace(self, n_features=data.n_features)
        gaps, mean, deviation = family.looked_over(data, family.statistics)
        return replace(family, missing=family.gaps(gaps), overall=mean, deviation=deviation)

    def gaps(self, columns: np.ndarray) -> np.ndarray:
        """Which pieces (J,) are ever missing, given which columns (D,) are."""
        return columns

    def looked_over(
        self, data: Data, statistics: Callable[[np.ndarray], np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which columns hold missing values, and mean and deviation of the statistics; refuses rows and columns."""
        gaps, there = np.zeros(data.n_features, bool), np.zeros(data.n_features, bool)
        count = mean = square = np.zeros(1)
        n_rows = 0
        for rows, weight in chunks(data):
            self._checked(rows, n_rows)
            n_rows += len(rows)
            holes = np.isnan(rows)
            gaps |= holes.any(axis=0)
            there |= ~holes[weight > 0].all(axis=0)
            values = statistics(rows)
            observed = weight[:, None] * ~np.isnan(values)
            values = np.where(observed > 0, values, 0.0)
            more = observed.sum(axis=0)
            here = (observed * values).sum(axis=0) / np.maximum(more, _TINY)
            with np.errstate(over="ignore"):  # of values beyond 1e150, which then tell nothing of where rows lie
                around = (observed * (values - here) ** 2).sum(axis=0)
                square = square + around + more / np.maximum(count + more, _TINY) * count * (here - mean) ** 2
            count = count + more
            mean = mean + more / np.maximum(count, _TINY) * (here - mean)
        if not there.all():
            column = self._number(np.argmin(there))
            raise ValueError(f"column {column} of X holds no value, only missing ones; drop it")
        return gaps, mean, np.sqrt(square / count)

    def _checked(self, rows: np.ndarray, first_row: int = 0) -> None:
        if not self.takes_missing and np.isnan(rows).any():
            row, column = np.argwhere(np.isnan(rows))[0]
            where = f"row {first_row + row}, column {self._number(column)}"
            raise ValueError(f"X contains NaN at {where}; drop or impute such rows")
        try:
            self.check(rows)
        except ValueRefused as error:
            raise error.moved(first_row, self.numbers_in_X) from None

    def check_rows(self, X: np.ndarray) -> None:
        """Refuse rows with values that the family cannot have, as far as it knows these before it has seen rows."""
        self._checked(X.astype(np.float64, copy=False))

    def _number(self, column: Any) -> int:
        """Number in X of a column."""
        return int(column if self.numbers_in_X is None else self.numbers_in_X[column])

    def require_spread(self, good: np.ndarray, what: str) -> None:
        """Refuse components that have collapsed, by columns (K, D) that are good."""
        if not good.all():
            component, column = np.argwhere(~good)[0]
            raise DegenerateError(
                f"component {component} has {what} in column {self._number(column)}; use fewer components, another "
                "start, or a prior"
            )

    def widened(self, block: Block) -> Any:
        """Return the family with the pieces that are missing in a block among those that ever are."""
        if not self.takes_missing or self.missing.all():
            return self
        missing = self.missing | self.gaps(np.isnan(block.X).any(axis=0))
        return self if (missing == self.missing).all() else replace(self, missing=missing)

    def rows(self, block: Block) -> Block:
        """Return the coded rows, kept as long as the rows themselves."""
        key = type(self), self._coding(), self.missing.tobytes()
        return block.derived(key, lambda block: block.holding(self.code(block.X)))

    def _coding(self) -> Any:
        """Return what coded rows depend on beside the rows; for a key."""
        return None

    @property
    def _marked(self) -> np.ndarray:
        """Pieces (J,) bool whose presence is coded."""
        return self.missing

    def code(self, X: np.ndarray) -> np.ndarray:
        """Return coded rows (n, C) float64."""
        X = X.astype(np.float64, copy=False)
        self._checked(X)
        parts = [self.statistics(X)]
        if self.missing.any():
            observed = ~np.isnan(parts[0])
            first = np.unique(self.owners, return_index=True)[1]  # of each piece
            parts = [np.where(observed, parts[0], 0.0), observed[:, first[self._marked]].astype(np.float64)]
        if self.has_log_base:
            parts.append(np.nansum(self.log_base(X), axis=1, keepdims=True))
        return np.ascontiguousarray(np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0])

    @property
    def n_coded(self) -> int:
        """Number of columns of coded rows."""
        return len(self.owners) + int(self._marked.sum()) + self.has_log_base

    def known(self, X: np.ndarray) -> np.ndarray:
        """Return rows in which what has density 0 in all components is missing; for posteriors."""
        return X

    def positions(self, X: np.ndarray, frame: Frame) -> np.ndarray:
        """Where rows (n, S) lie, for distances: statistics in units of their deviation, at their mean if missing."""
        return np.nan_to_num(self._placed(self.statistics(X.astype(np.float64, copy=False))), nan=0.0)

    def _placed(self, statistics: np.ndarray) -> np.ndarray:
        """Statistics (n, T) as positions (n, S)."""
        unit = self.deviation[self.seeds]
        return (statistics - self.overall)[:, self.seeds] / np.where(unit > _TINY, unit, 1.0)

    def known_centers(self, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        """Return numbers (F,) of the components that are held, and the positions (F, S) of their mean statistics."""
        if self.held is None:
            return np.empty(0, np.int64), np.empty((0, 0))
        numbers = np.flatnonzero(self.told(self.n_components(self.held.values)))
        return numbers, self._placed(self.expectation(self.held.values))[numbers]

    def _finite(self, params: Any) -> tuple[np.ndarray, np.ndarray]:
        """Natural parameters and log-partition, with large numbers for infinite ones."""
        eta, partition = self.natural_parameters(params), self.log_partition(params)
        if np.isfinite(eta).all() and np.isfinite(partition).all():
            return eta, partition
        # Where both are infinite their difference is that of two large numbers, whose rounding must do no harm.
        far = -np.log(_TINY) if np.isinf(partition).any() else IMPOSSIBLE
        return tuple(np.nan_to_num(part, nan=np.nan, posinf=far, neginf=-far) for part in (eta, partition))

    def _linear(self, params: Any) -> tuple[np.ndarray, np.ndarray]:
        """Slopes (K, C) on the coded rows and constants (K,) of the log-densities."""
        eta, partition = self._finite(params)
        parts = [eta, -partition[:, self._marked]]
        if self.has_log_base:
            parts.append(np.ones((len(partition), 1)))
        return np.concatenate(parts, axis=1), -partition[:, ~self._marked].sum(axis=1)

    def exact(self, params: Any, log_weights: np.ndarray, X: np.ndarray) -> tuple[np.ndarray, States, np.ndarray]:
        """Frame (2, C), states and coded rows for densities of any rows."""
        family = self._for_rows(X)
        rows = family.code(X)
        slopes, constants = family._linear(params)
        theta = np.column_stack([constants + log_weights, slopes])
        return plain_frame(rows.shape[1]).rows, by_features(LINEAR, theta, rows.shape[1]), rows

    def _for_rows(self, X: np.ndarray) -> Any:
        """The family as if it had seen these rows alone."""
        family = replace(self, n_features=X.shape[1])
        return replace(family, missing=family.gaps(np.isnan(X).any(axis=0)))

    def impossible(self, params: Any, possible: np.ndarray, X: np.ndarray) -> np.ndarray | None:
        """Rows (n,) bool that have density 0 under each component that is possible (K,), or None if there are none."""
        eta, partition = self.natural_parameters(params), self.log_partition(params)
        if np.isfinite(eta).all() and np.isfinite(partition).all():
            return None
        values = self.statistics(X.astype(np.float64, copy=False))
        eta, partition = (np.where(np.isinf(part), np.sign(part), 0.0)[possible] for part in (eta, partition))
        first = np.unique(self._for_rows(X).owners, return_index=True)[1]
        there = ~np.isnan(values[:, first])
        levels = np.einsum("nt,kt->nk", np.nan_to_num(values), eta) - np.einsum("nj,kj->nk", there, partition)
        return (levels < 0).all(axis=1)

    # averages

    def moments(self, sums: np.ndarray, scatter: np.ndarray, layout: Layout, frame: Frame) -> Averages:
        """Averages of the components from the sums (K, 1 + C) of a sweep."""
        counts = sums[:, 0]
        means = frame.center + sums[:, 1:] / np.maximum(counts, _TINY)[:, None] / frame.scale
        n_statistics, n_marks = len(self.owners), int(self._marked.sum())
        shares = np.ones((len(counts), len(self.missing)))
        shares[:, self._marked] = means[:, n_statistics : n_statistics + n_marks]
        bases = means[:, -1] if self.has_log_base else np.zeros(len(counts))
        return Averages(counts, means[:, :n_statistics], shares, bases)

    def blend(self, one: Averages, two: Averages, share: float) -> Averages:
        """Averages of a mixture of both, of which the second makes up a share."""
        before, added = (1.0 - share) * one.counts, share * two.counts
        counts = before + added
        part = added / np.maximum(counts, _TINY)
        return Averages(counts, *(a + (part * (b - a).T).T for a, b in zip(one[1:], two[1:], strict=True)))

    def expected_log_densities(self, averages: Averages, params: Any) -> np.ndarray:
        """Mean log-density (K,) under each component of rows of its averages."""
        return self._expected(averages, params).sum(axis=1) + averages.bases

    def _expected(self, averages: Averages, params: Any) -> np.ndarray:
        """Mean log-density (K, J) of each piece, log h aside."""
        eta, partition = self._finite(params)
        order = np.argsort(self.owners, kind="stable")
        starts = np.searchsorted(self.owners[order], np.arange(partition.shape[1]))
        of_pieces = np.add.reduceat((eta * averages.means)[:, order], starts, axis=1)
        return of_pieces - averages.shares * partition

    def recall(self, counts: np.ndarray, params: Any, weight: float) -> Averages:
        """Averages, of complete rows of some weight, whose maximum are the parameters."""
        means = self.expectation(params)
        rows = weight * counts[:, None]
        if self.prior is not None and weight > 0:
            with np.errstate(divide="ignore", invalid="ignore"):
                means = np.where(rows > 0, means + self.prior.rows / rows * (means - self.resolved), means)
        return Averages(counts, means, np.ones((len(counts), len(self.missing))), np.zeros(len(counts)))

    def resumed(self, weights: np.ndarray, params: Any, weight: float, dtype: np.dtype) -> tuple[Any, Frame]:
        """Family and frame as the parameters tell them."""
        family = self.recalled(weights, params)
        means = np.einsum("k,kt->t", weights, family.expectation(params))
        family = replace(family, overall=means, deviation=np.ones_like(means))
        family = family.resolve_prior(means, lambda: np.empty(0), len(weights))
        return family, plain_frame(family.n_coded)

    def recalled(self, weights: np.ndarray, params: Any) -> Any:
        """The family with what parameters tell of the rows; any piece may be missing."""
        family = replace(self, n_features=self.n_columns(params))
        return replace(family, missing=family.gaps(np.full(family.n_features, self.takes_missing)))

    def under_prior_of(self, other: Any) -> Any:
        """The family with the prior of another."""
        return replace(self, prior=other.prior, resolved=None)

    def births(self, averages: Averages, weight: float, component: int, reservoir: Any) -> list[Averages]:
        """Averages with a component moved to the rows of a reservoir."""
        family = self._for_rows(reservoir.rows)
        rows = np.concatenate([np.ones((len(reservoir.rows), 1)), family.code(reservoir.rows)], axis=1)
        sums = rows.sum(axis=0, keepdims=True) / weight
        layout = Layout(LINEAR, np.zeros(1, np.int64), np.empty((0, 2, rows.shape[1] - 1)))
        born = family.moments(sums, np.empty((0, 0)), layout, plain_frame(rows.shape[1] - 1))
        moved = [part.copy() for part in averages]
        for part, new in zip(moved, born, strict=True):
            part[component] = new[0]
        return [Averages(moved[0] / moved[0].sum(), *moved[1:])]

    # maximize

    def maximize(self, averages: Averages, old: Any, granule: np.ndarray, fewest: float = 0.0) -> Any:
        """Posterior mode (maximum likelihood without a prior) given the averages.

        A component that counts fewer rows than `fewest`, or none, keeps its old parameters, unless a prior tells them.
        Of what a component has not seen it gets what is so on average.
        """
        counts, means, shares, _ = averages
        lost = (counts <= _TINY) & ~self.told(len(counts))
        if old is None and lost.any():
            raise DegenerateError(
                f"component {int(np.argmax(lost))} starts without any weight; use fewer components or another start"
            )
        shares = shares[:, self.owners]
        seen = counts[:, None] * shares
        means = np.where(seen > _TINY, means / np.maximum(shares, _TINY), self.overall)
        if self.prior is not None:
            rows = self.prior.rows
            means = means + rows / (seen + rows) * (self.resolved - means)
        kept = (counts <= max(fewest, _TINY)) & (self.prior is None) & (old is not None)
        if kept.any():
            means = np.where(kept[:, None], self.overall, means)
        params = self.estimate(means) if self.held is None else self._constrained(means, old)
        return self.replaced(params, old, kept) if kept.any() else params

    def _constrained(self, means: np.ndarray, old: Any) -> Any:
        """Parameters of largest likelihood given the mean statistics (K, T), some of them held.

        A component of which only some are held is a maximum over the others, of each piece by itself: Newton's method
        from what is best of the free maximum, with what is held put in, and the old parameters.
        """
        n_components = len(means)
        masks = self._masks(n_components)
        n_held = masks.sum(axis=1)
        try:
            params = self.put(self.estimate(means))
        except DegenerateError:  # perhaps of a component that has another maximum, or takes none
            params = self.put(self.estimate(np.where(n_held[:, None] > 0, self.overall, means)))
        partly = (n_held > 0) & (n_held < masks.shape[1])
        if not partly.any():
            return params
        averages = Averages(np.ones(n_components), means, np.ones((n_components, len(self.missing))), np.zeros(1))
        shape, frame = (n_components, len(self.domains), -1), plain_frame(0)

        def coordinates(params):
            return np.swapaxes(self.pack(params, frame).reshape(shape), 1, 2)

        def value(at):
            return self._expected(averages, self.unpack(np.swapaxes(at, 1, 2).ravel(), n_components, frame))

        start = coordinates(params)
        if old is not None:
            before = coordinates(self.put(old))
            start = np.where((value(before) > value(start))[..., None], before, start)
        far = np.array([np.inf if domain in ("real", "angle") else _FAR for domain in self.domains.values()])
        free = (partly[:, None] & ~masks)[:, None, :]
        found = self.unpack(np.swapaxes(maximize_each(value, start, free, far), 1, 2).ravel(), n_components, frame)
        return self.put(self.replaced(params, found, partly))

    def replaced(self, params: Any, others: Any, chosen: np.ndarray) -> Any:
        """Parameters of which the chosen components (K,) bool are those of others."""
        pairs = zip(others, params, strict=True)
        return type(params)(*(np.where(chosen.reshape(-1, *(1,) * (p.ndim - 1)), o, p) for o, p in pairs))

    def resolve_prior(self, mean: np.ndarray, covariance: Any, n_components: int) -> Any:
        """Fill in the mean statistics of the prior."""
        if self.prior is None:
            return self
        given = self.prior.mean
        resolved = self._prior_mean(given)
        if given is not None:
            self._require_possible(resolved, given)
        return replace(self, resolved=resolved)

    def _require_possible(self, means: np.ndarray, given: Any) -> None:
        """Refuse mean statistics (T,) of a prior that no rows have: then nothing keeps the mode within its domain."""
        try:
            if self.is_tabled and ((means < 0.0) | (means > 1.0)).any():
                raise ValueError("shares lie between 0 and 1")
            with np.errstate(invalid="ignore", divide="ignore"):
                self.check_params(self.estimate(means[None]), 1, name="")
        except ValueError as error:
            words = f"prior.mean holds means of statistics that no {type(self).__name__} distribution has"
            raise ValueError(f"{words}: {given!r} ({error})") from None

    def _prior_mean(self, given: Any) -> np.ndarray:
        if given is None:
            return self.overall
        given = finite_array("prior.mean", given, 1)
        if given.shape != self.overall.shape:
            raise ValueError(f"prior.mean has shape {given.shape}; {self.overall.shape}, one per statistic, is needed")
        return given

    def guarded(self, mean: np.ndarray, covariance: Any, unit: float) -> Any:
        """Return the family, unless it has a prior, under one worth a hundredth of a row at the mean of all data."""
        if self.prior is not None:
            return self
        return replace(self, prior=Conjugate(GUARD_ROWS * unit), resolved=self.overall)

    def log_prior(self, params: Any) -> float:
        """Log-density of the prior at the parameters, up to a constant."""
        if self.prior is None:
            return 0.0
        eta, partition = self._finite(params)
        return self.prior.rows * float((eta * self.resolved).sum() - partition.sum())

    def fewest_rows(self, n_features: int) -> int:
        """Return how many rows a component takes to be estimated."""
        return len(self.domains)

    # parameters

    def neutral(self, n_components: int, frame: Frame) -> Any:
        """Return the parameters of all rows, for each component."""
        return self.estimate(np.tile(self.overall, (n_components, 1)))

    def n_components(self, params: Any) -> int:
        """Number of components that the parameters are for."""
        return len(params[0])

    def n_columns(self, params: Any) -> int:
        """Number of columns of the rows that the parameters are for."""
        return params[0].shape[1]

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """Number of free parameters of the components."""
        return n_components * n_features * len(self.domains)

    @property
    def n_coordinates(self) -> int:
        """Number of coordinates of a component."""
        return len(self.owners)

    def keep(self, params: Any, kept: np.ndarray) -> Any:
        """Parameters of some of the components (k,) int."""
        return type(params)(*(part[kept] for part in params))

    def estimands(self, params: Any) -> dict[str, np.ndarray]:
        """Return what standard errors are given for."""
        return params._asdict()

    def settled(self, params: Any, counts: np.ndarray) -> Any:
        """Parameters of which those are on a boundary that it takes more than so many rows (K,) to tell from it."""
        return params

    def is_finite(self, params: Any) -> bool:
        """Whether every number is finite."""
        return all(np.isfinite(part).all() for part in params)

    def check_params(
        self, params: Any, n_components: int, frame: Frame | None = None, name: str = "start.components."
    ) -> Any:
        """Return parameters that a user gave, after checking shapes, finiteness and domains."""
        if not isinstance(params, self.Params):
            words = name.strip(".") or "the parameters"
            raise TypeError(f"{words} must be {self.Params.__name__}; got {type(params).__name__}")
        checked = []
        wanted = n_components, self.n_features
        for (field_name, domain), part in zip(self.domains.items(), params, strict=True):
            label = f"{name}{field_name}"
            part = finite_array(label, part, 2)
            if part.shape != wanted:
                raise ValueError(f"{label} has shape {part.shape}; {wanted} is needed")
            low, high = part.min(), part.max()
            lowest, highest = _LIMITS[domain]
            if low < lowest or high > highest:
                words = "within 0 and 1" if domain == "unit" else domain
                raise ValueError(f"{label} must be {words}; it reaches from {low:g} to {high:g}")
            checked.append(part)
        return self.Params(*checked)

    def are_sound(self, params: Any, moments: Any, n_components: int, n_features: int) -> bool:
        """Whether parameters and averages, read from a file, are what kernels may be given."""
        k, n_statistics, n_pieces = n_components, len(self.owners), int(self.owners.max()) + 1
        try:
            self.check_params(params, k)
        except (TypeError, ValueError):
            return False
        return (
            self.n_features == n_features
            and are_arrays(self.missing, of=(n_pieces,), dtype=np.bool_)
            and are_arrays(self.overall, self.deviation, of=(n_statistics,))
            and isinstance(moments, Averages)
            and are_arrays(moments.counts, of=(k,), least=0.0)
            and are_arrays(moments.means, of=(k, n_statistics))
            and are_arrays(moments.shares, of=(k, n_pieces))
            and are_arrays(moments.bases, of=(k,))
        )

    def pack(self, params: Any, frame: Frame) -> np.ndarray:
        """Coordinates, of each component in turn: real numbers as they are, logarithms, or logits."""
        parts = [self._coordinates(domain, part) for domain, part in zip(self.domains.values(), params, strict=True)]
        return np.concatenate(parts, axis=1).ravel()

    def unpack(self, vector: np.ndarray, n_components: int, frame: Frame) -> Any:
        """Parameters at the coordinates of `pack`."""
        parts = np.split(vector.reshape(n_components, -1), len(self.domains), axis=1)
        return self.Params(*(self._values(domain, v) for domain, v in zip(self.domains.values(), parts, strict=True)))

    @staticmethod
    def _coordinates(domain: str, values: np.ndarray) -> np.ndarray:
        if domain in ("real", "angle"):
            return values
        with np.errstate(divide="ignore"):
            logs = np.log(values) - (np.log1p(-values) if domain == "unit" else 0.0)
        return logs if domain == "positive" else np.clip(logs, -_FAR, _FAR if domain == "unit" else None)

    @staticmethod
    def _values(domain: str, coordinates: np.ndarray) -> np.ndarray:
        """What is within 1 of the end of the coordinates is the end, so that a boundary is left by far steps only."""
        if domain == "angle":
            return np.remainder(coordinates + np.pi, 2.0 * np.pi) - np.pi
        if domain in ("real", "positive"):
            return coordinates if domain == "real" else np.exp(coordinates)
        if domain == "not negative":
            return np.where(coordinates > 1.0 - _FAR, np.exp(coordinates), 0.0)
        inside = np.exp(-np.logaddexp(0.0, -coordinates))
        return np.where(coordinates > 1.0 - _FAR, np.where(coordinates < _FAR - 1.0, inside, 1.0), 0.0)

    def score(self, params: Any, averages: Averages, frame: Frame) -> np.ndarray:
        """Gradient of the expected log-likelihood in the coordinates of `pack`, at the parameters of the averages.

        By differences of what is a closed form of few numbers, for all pieces at once: no pass over the rows.
        """
        n_components = len(averages.counts)
        at = self.pack(params, frame).reshape(n_components, -1)
        slopes = np.empty_like(at)
        for together in self._steps(at.shape[1]):

            def value(step, together=together):
                moved = at.copy()
                moved[:, together] += step
                return self._expected(averages, self.unpack(moved.ravel(), n_components, frame))

            near, far = value(_STEP) - value(-_STEP), value(2 * _STEP) - value(-2 * _STEP)
            slopes[:, together] = averages.counts[:, None] * (8.0 * near - far) / (12.0 * _STEP)
        return slopes.ravel()

    def _steps(self, n_coordinates: int) -> np.ndarray:
        """Coordinates of a component (n, J), one of each piece in a row: those take their steps at once."""
        return np.arange(n_coordinates).reshape(len(self.domains), -1)

    def expected_rows(self, params: Any, resp: np.ndarray) -> np.ndarray:
        """Expected rows (n, D) given the probabilities (n, K) of their components."""
        return np.einsum("nk,kd->nd", resp, self.column_means(params))

    def sample(self, params: Any, component: int, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """Draw rows (n_samples, D) from one component."""
        return self.draw(params, component, n_samples, rng)


def near_zero(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Which rates or probabilities (K, ...) are 0 for so many rows (K,): on their way there, which EM goes slowly."""
    return values * counts[:, None] < _NO_ROW


def log_factorial(counts: np.ndarray) -> np.ndarray:
    """log x! of counts, NaN where they are missing; from a table where that is quicker."""
    largest = np.fmax.reduce(counts, axis=None)
    if not largest <= min(_MOST_COUNTS, counts.size):
        return gammaln(counts + 1.0)
    holes = np.isnan(counts)
    known = gammaln(np.arange(largest + 1.0) + 1.0)[np.where(holes, 0.0, counts).astype(np.int64)]
    return np.where(holes, np.nan, known)


def log_of(values: np.ndarray) -> np.ndarray:
    """Logarithms, of which those of 0 are -inf."""
    with np.errstate(divide="ignore"):
        return np.log(values)


def plain_frame(n_columns: int) -> Frame:
    """The frame that leaves rows where they are."""
    none, one = np.zeros(n_columns), np.ones(n_columns)
    return Frame(none, one, one, one, none, np.stack([none, one]), np.dtype(np.float64))
