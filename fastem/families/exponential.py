"""Exponential families: all that follows once a family says what its statistics are and how they tell the parameters.

    log p(x; theta) = sum_j [eta_j(theta) . t_j(x_j) - A_j(theta)] + log h(x),    j = 1..J independent pieces of a row

The pieces are mostly the columns. A row is coded as its statistics t, with 0 for a piece that is missing; then a 1 for
each piece that is there, of those that are ever missing; then log h, unless that is 0. So a score is linear in the
coded row, missing pieces drop out of it exactly (Little & Rubin 2002, section 6.2), and everything else that a mixture
needs, the M-step aside, is the same for all families.
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fastem.data import Block, Data, chunks, finite_array, is_real
from fastem.families.family import GUARD_ROWS, Family
from fastem.families.gaussian_records import Frame, Layout
from fastem.kernels.features import LINEAR
from fastem.kernels.sweep import States, by_features
from fastem.protocol import DegenerateError

_TINY = np.finfo(np.float64).tiny
_FAR = 50.0  # logarithms and logits beyond which coordinates are no longer taken seriously
_STEP = 1e-3  # of a central difference of fourth order: errors of 1e-12 in either way


class Averages(NamedTuple):
    """Weight of each component, and its mean of each column of the coded rows."""

    counts: np.ndarray  # (K,)
    means: np.ndarray  # (K, C)


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


@dataclass(frozen=True, eq=False)
class Exponential(Family):
    """A family of this form; for families of one's own see docs/new_family.md.

    A family gives `Params`, a NamedTuple of arrays (K, J); `domains`, what the values of each field may be; and
    `statistics`, `natural_parameters`, `log_partition`, `estimate`, `expectation` and `draw`; perhaps `check` and
    `log_base`.

    Parameters
    ----------
    prior : Conjugate, default=None
        None: maximum likelihood.
    """

    prior: Conjugate | None = None
    n_features: int = field(default=0, repr=False)  # of the data seen
    missing: Any = field(default=None, repr=False)  # (J,) bool: pieces that are ever missing
    resolved: Any = field(default=None, repr=False)  # (T,) mean statistics of the prior

    takes_missing: ClassVar[bool] = True
    has_log_base: ClassVar[bool] = False
    Params: ClassVar[Any]
    domains: ClassVar[dict[str, str]]  # 'real', 'positive' or 'unit', by the name of the field
    feature_map: ClassVar[Any] = LINEAR
    start_map: ClassVar[Any] = LINEAR

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

    def natural_parameters(self, params: Any) -> np.ndarray:
        """Return eta (K, T)."""
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

    def draw(self, params: Any, k: int, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """Draw rows (n_samples, D) from component k."""
        raise NotImplementedError

    # coded rows

    def seeing(self, data: Data) -> Any:
        """Return the family with the number of columns and those that hold missing values."""
        gaps = np.zeros(data.n_features, bool)
        n_first = 0
        for block in data:
            for rows, _ in chunks([block]):
                self._checked(rows, n_first)
                gaps |= np.isnan(rows).any(axis=0)
                n_first += len(rows)
        family = replace(self, n_features=data.n_features)
        return replace(family, missing=family.gaps(gaps))

    def gaps(self, columns: np.ndarray) -> np.ndarray:
        """Which pieces (J,) are ever missing, given which columns (D,) are."""
        return columns

    def _checked(self, rows: np.ndarray, first_row: int = 0) -> None:
        if not self.takes_missing and np.isnan(rows).any():
            row, column = np.argwhere(np.isnan(rows))[0]
            raise ValueError(f"X contains NaN at row {first_row + row}, column {column}; drop or impute such rows")
        self.check(rows)

    def rows(self, block: Block) -> Block:
        """Return the coded rows, kept as long as the rows themselves."""
        key = type(self), self._coding(), self.missing.tobytes()
        return block.derived(key, lambda block: Block(self.code(block.X), block.weight))

    def _coding(self) -> Any:
        """Return what coded rows depend on beside the rows; for a key."""
        return None

    def code(self, X: np.ndarray) -> np.ndarray:
        """Return coded rows (n, C) float64."""
        X = X.astype(np.float64, copy=False)
        self._checked(X)
        parts = [self.statistics(X)]
        if self.missing.any():
            observed = ~np.isnan(parts[0])
            first = np.unique(self.owners, return_index=True)[1]  # of each piece
            parts = [np.where(observed, parts[0], 0.0), observed[:, first[self.missing]].astype(np.float64)]
        if self.has_log_base:
            parts.append(np.nansum(self.log_base(X), axis=1, keepdims=True))
        return np.ascontiguousarray(np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0])

    def layout(self, params: Any, frame: Frame) -> Layout:
        """Every component by features, in float64."""
        return Layout(LINEAR, np.arange(len(params[0])), np.empty((0, 2, frame.center.size)))

    def natural(self, params: Any, log_weights: np.ndarray, layout: Layout, frame: Frame) -> States:
        """Natural parameters in the frame."""
        slopes, constants = self._linear(params)
        theta = np.column_stack([constants + log_weights + slopes @ frame.center, slopes / frame.scale])
        return by_features(LINEAR, theta, frame.center.size)

    def _linear(self, params: Any) -> tuple[np.ndarray, np.ndarray]:
        """Slopes (K, C) on the coded rows and constants (K,) of the log-densities."""
        partition = self.log_partition(params)
        parts = [self.natural_parameters(params), -partition[:, self.missing]]
        if self.has_log_base:
            parts.append(np.ones((len(partition), 1)))
        return np.concatenate(parts, axis=1), -partition[:, ~self.missing].sum(axis=1)

    def exact(self, params: Any, log_weights: np.ndarray, X: np.ndarray) -> tuple[np.ndarray, States, np.ndarray]:
        """Frame (2, C), states and coded rows for densities of any rows."""
        n_features = X.shape[1]
        family = replace(self, n_features=n_features)
        family = replace(family, missing=family.gaps(np.isnan(X).any(axis=0)))
        rows = family.code(X)
        slopes, constants = family._linear(params)
        theta = np.column_stack([constants + log_weights, slopes])
        frame = np.stack([np.zeros(rows.shape[1]), np.ones(rows.shape[1])])
        return frame, by_features(LINEAR, theta, rows.shape[1]), rows

    def log_densities(self, params: Any, X: np.ndarray) -> np.ndarray:
        """Log-densities (N, K) of a few rows, in NumPy."""
        _, states, rows = self.exact(params, np.zeros(len(params[0])), X)
        return states.theta[:, 0] + np.einsum("nc,kc->nk", rows, states.theta[:, 1:])

    # moments

    def moments(self, sums: np.ndarray, scatter: np.ndarray, layout: Layout, frame: Frame) -> Averages:
        """Mean coded rows of the components from the sums (K, 1 + C) of a sweep."""
        counts = sums[:, 0]
        return Averages(counts, frame.center + sums[:, 1:] / np.maximum(counts, _TINY)[:, None] / frame.scale)

    def blend(self, one: Averages, two: Averages, share: float) -> Averages:
        """Averages of a mixture of both, of which the second makes up a share."""
        before, added = (1.0 - share) * one.counts, share * two.counts
        counts = before + added
        part = added / np.maximum(counts, _TINY)
        return Averages(counts, one.means + part[:, None] * (two.means - one.means))

    def expected_log_densities(self, averages: Averages, params: Any) -> np.ndarray:
        """Mean log-density (K,) under each component of rows of its averages."""
        slopes, constants = self._linear(params)
        return constants + (slopes * averages.means).sum(axis=1)

    def recall(self, counts: np.ndarray, params: Any, weight: float) -> Averages:
        """Averages, of complete rows of some weight, whose maximum are the parameters."""
        means = self.expectation(params)
        rows = weight * counts[:, None]
        if self.prior is not None and weight > 0:
            with np.errstate(divide="ignore", invalid="ignore"):
                means = np.where(rows > 0, means + self.prior.rows / rows * (means - self.resolved), means)
        shares = np.ones((len(counts), int(self.missing.sum())))
        log_base = np.zeros((len(counts), int(self.has_log_base)))
        return Averages(counts, np.concatenate([means, shares, log_base], axis=1))

    def resumed(self, weights: np.ndarray, params: Any, weight: float, dtype: np.dtype) -> tuple[Any, Frame]:
        """Family and frame as the parameters tell them."""
        n_features = self.n_columns(params)
        family = replace(self, n_features=n_features)
        family = replace(family, missing=family.gaps(np.ones(n_features, bool)))
        means = np.einsum("k,kt->t", weights, self.expectation(params))
        family = family.resolve_prior(means, lambda: np.empty(0), len(weights))
        center = family.recall(weights, params, 0.0).means
        center = np.einsum("k,kc->c", weights, center)
        unit = np.ones_like(center)
        return family, Frame(center, unit, unit, unit, 0 * unit, np.stack([center, unit]), np.dtype(np.float64))

    def births(self, averages: Averages, weight: float, component: int, reservoir: Any) -> list[Averages]:
        """Averages with a component moved to the rows of a reservoir."""
        rows = self.code(reservoir.rows)
        counts, means = averages.counts.copy(), averages.means.copy()
        counts[component], means[component] = len(rows) / weight, rows.mean(axis=0)
        return [Averages(counts / counts.sum(), means)]

    # maximize

    def maximize(self, averages: Averages, old: Any, granule: np.ndarray, fewest: float = 0.0) -> Any:
        """Posterior mode (maximum likelihood without a prior) given the averages.

        A component that counts fewer rows than `fewest`, or none, keeps its old parameters, unless a prior tells them.
        """
        counts, means, observed = self._by_piece(averages)
        empty = counts <= max(fewest, _TINY)
        if old is None and (averages.counts <= _TINY).any():
            raise DegenerateError(
                f"component {int(np.argmax(averages.counts <= _TINY))} starts without any weight; use fewer components "
                "or another start"
            )
        nowhere = observed[:, self.owners] <= _TINY  # where a component has seen nothing, what all have seen
        overall = np.einsum("kt,kt->t", observed[:, self.owners], means)
        overall /= np.maximum(observed.sum(axis=0)[self.owners], _TINY)
        means = np.where(nowhere, overall, means)
        if self.prior is not None:
            rows = self.prior.rows
            seen = observed[:, self.owners]
            means = means + rows / (seen + rows) * (self.resolved - means)
            return self.estimate(means)
        if old is None or not empty.any():
            return self.estimate(means)
        params = self.estimate(np.where(empty[:, None], overall, means))
        return type(params)(*(np.where(empty[:, None], o, n) for o, n in zip(old, params, strict=True)))

    def _by_piece(self, averages: Averages) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Counts (K,), mean statistics (K, T) of what was observed, and the weight of that (K, J)."""
        counts, means = averages
        n_statistics = len(self.owners)
        share = np.ones((len(counts), len(self.missing)))
        share[:, self.missing] = np.maximum(means[:, n_statistics : n_statistics + int(self.missing.sum())], 0.0)
        statistics = means[:, :n_statistics] / np.maximum(share, _TINY)[:, self.owners]
        return counts, statistics, counts[:, None] * share

    def resolve_prior(self, mean: np.ndarray, covariance: Any, n_components: int) -> Any:
        """Fill in the mean statistics of the prior from the mean (C,) of the coded rows."""
        return self if self.prior is None else replace(self, resolved=self._prior_mean(mean))

    def _prior_mean(self, mean: np.ndarray) -> np.ndarray:
        assert self.prior is not None
        n_statistics = len(self.owners)
        if self.prior.mean is None:
            return self._by_piece(Averages(np.ones(1), mean[None]))[1][0]
        given = finite_array("prior.mean", self.prior.mean, 1)
        if given.shape != (n_statistics,):
            raise ValueError(f"prior.mean has shape {given.shape}; ({n_statistics},), one per statistic, is needed")
        return given

    def guarded(self, mean: np.ndarray, covariance: Any, unit: float) -> Any:
        """Return the family, unless it has a prior, under one worth a hundredth of a row."""
        if self.prior is not None:
            return self
        family = replace(self, prior=Conjugate(GUARD_ROWS * unit))
        return family.resolve_prior(mean, covariance, 1)

    def log_prior(self, params: Any) -> float:
        """Log-density of the prior at the parameters, up to a constant."""
        if self.prior is None:
            return 0.0
        total = (self.natural_parameters(params) * self.resolved).sum() - self.log_partition(params).sum()
        return self.prior.rows * float(total)

    # parameters

    def n_columns(self, params: Any) -> int:
        """Number of columns of the rows that the parameters are for."""
        return params[0].shape[1]

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """Number of free parameters of the components."""
        return n_components * n_features * len(self.domains)

    def keep(self, params: Any, kept: np.ndarray) -> Any:
        """Parameters of some of the components (k,) int."""
        return type(params)(*(part[kept] for part in params))

    def estimands(self, params: Any) -> dict[str, np.ndarray]:
        """Return what standard errors are given for."""
        return params._asdict()

    def check_params(self, params: Any, n_components: int, frame: Frame) -> Any:
        """Return parameters that a user gave, after checking shapes, finiteness and domains."""
        if not isinstance(params, self.Params):
            raise TypeError(f"start.components must be {self.Params.__name__}; got {type(params).__name__}")
        checked = []
        for (name, domain), part in zip(self.domains.items(), params, strict=True):
            part = finite_array(f"start.components.{name}", part, 2)
            if part.shape != (n_components, self.n_features):
                wanted = (n_components, self.n_features)
                raise ValueError(f"start.components.{name} has shape {part.shape}; {wanted} is needed")
            if (domain != "real" and (part < 0).any()) or (domain == "unit" and (part > 1).any()):
                raise ValueError(f"start.components.{name} must be {domain}; it reaches {part.min()} and {part.max()}")
            checked.append(part)
        return self.Params(*checked)

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
        if domain == "real":
            return values
        with np.errstate(divide="ignore"):
            logs = np.log(values) - (np.log1p(-values) if domain == "unit" else 0.0)
        return np.clip(logs, -_FAR, _FAR) if domain == "unit" else np.maximum(logs, -_FAR)

    @staticmethod
    def _values(domain: str, coordinates: np.ndarray) -> np.ndarray:
        if domain == "real":
            return coordinates
        return np.exp(coordinates if domain == "positive" else -np.logaddexp(0.0, -coordinates))

    def score(self, params: Any, averages: Averages, frame: Frame) -> np.ndarray:
        """Gradient of the expected log-likelihood in the coordinates of `pack`, at the parameters of the averages.

        By differences of what is a closed form of few numbers: no pass over the rows.
        """
        n_components = len(averages.counts)
        at = self.pack(params, frame).reshape(n_components, -1)
        slopes = np.empty_like(at)
        for i, unit in enumerate(np.eye(at.shape[1])):

            def value(step, unit=unit):
                moved = self.unpack((at + step * unit).ravel(), n_components, frame)
                return averages.counts * self.expected_log_densities(averages, moved)

            near, far = value(_STEP) - value(-_STEP), value(2 * _STEP) - value(-2 * _STEP)
            slopes[:, i] = (8.0 * near - far) / (12.0 * _STEP)
        return slopes.ravel()

    def sample(self, params: Any, component: int, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """Draw rows (n_samples, D) from one component."""
        return self.draw(params, component, n_samples, rng)


def log_of_rate(values: np.ndarray) -> np.ndarray:
    """Logarithms, finite at 0: times a count of 0 they are 0, times any other they make a row all but impossible."""
    return np.log(np.maximum(values, _TINY))


def require_counts(X: np.ndarray, what: str) -> None:
    """Refuse rows that are not counts; NaN is missing."""
    bad = (X < 0) | (np.floor(X) != X)
    bad &= ~np.isnan(X)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(f"X[{row}, {column}] is {X[row, column]}; {what} are integers from 0 on")
