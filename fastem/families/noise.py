"""A family with uniform noise beside its components: rows that belong to none of them.

    p(x) = sum_k w_k p_k(x) + w_0 / V

Banfield & Raftery (1993), Biometrics 49, 803-821, section 5; Fraley & Raftery (1998), Computer J. 41, 578-588, section
3.4. In a sweep the noise is one more state, whose score is a constant; in an M-step it is nothing but a weight. Weights
and counts of moments have it last, parameters of the components are those of the family.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from fastem.data import Block, Data, Summary, chunks, is_real
from fastem.families.family import Family, Frame, Layout
from fastem.kernels.features import DIAGONAL, FULL, SPHERICAL, n_statistics
from fastem.kernels.sweep import States

_MANY_DEGREES = 1e300  # of freedom: the score at distance 0 stays, and rows weigh 1


@dataclass(frozen=True, eq=False)
class WithNoise(Family):
    """A family of components, and one more that is uniform.

    The weight of the noise is estimated, its density is not: 1 / volume wherever a row lies. So rows far from all
    components are noise. A fixed density also bounds how little a component can explain, but not how much: priors and
    collapses are as without noise.

    Parameters
    ----------
    family : Family
        Of the other components; one that takes complete rows.
    volume : float, default=None
        Of the region where the noise lies; for counts, the number of values it may have. None: of the box around all
        rows that `fit` or the start of a stream is given.
    box : array-like of shape (2, n_features), default=None
        Smallest and largest values of that box, from which noise is drawn. None: of the rows.

    Raises
    ------
    ValueError
        If the volume is not positive, or a column is constant, so that the box has none.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.concatenate([np.linspace(-1, 1, 50), np.linspace(8, 10, 50), [-40.0, 55.0]])[:, None]
    >>> model = fastem.Mixture(fastem.WithNoise(fastem.Gaussian()), 2)
    >>> result = fastem.fit(model, X, random_state=0)
    >>> result.params.weights.round(2)[-1]  # two rows of 102
    np.float64(0.02)
    """

    family: Any
    volume: float | None = None
    box: Any = None
    extent: Any = field(default=None, repr=False)  # (2, D), the box of the data seen

    n_noise: ClassVar[int] = 1

    def __post_init__(self):
        if not isinstance(self.family, Family) or self.family.n_noise:
            raise TypeError(f"family must be a family without noise, such as fastem.Gaussian(); got {self.family!r}")
        if self.family.spacing is None:
            raise TypeError(
                f"noise fills a box of values, which {type(self.family).__name__} has not; use one more component"
            )
        if self.volume is not None and not (is_real(self.volume, 0.0) and self.volume > 0):
            raise ValueError(f"noise_volume must be None or a positive finite number; got {self.volume!r}")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "family" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.family, name)

    def _with(self, family: Any) -> "WithNoise":
        return replace(self, family=family)

    # the noise

    @property
    def bounds(self) -> np.ndarray | None:
        """Smallest and largest values (2, D) of the box, if it is known."""
        return self.extent if self.box is None else np.asarray(self.box, np.float64)

    @property
    def log_density(self) -> float:
        """Of a row that is noise."""
        if self.volume is not None:
            return -math.log(self.volume)
        if self.bounds is None:
            raise ValueError("noise_volume is not known before a fit; give it, or fit first")
        sides = self.bounds[1] - self.bounds[0] + self.family.spacing
        return -float(np.log(sides).sum())

    @property
    def known_volume(self) -> float:
        """Of the region where the noise lies."""
        with np.errstate(over="ignore"):
            return float(np.exp(-self.log_density))

    def seeing(self, data: Data) -> "WithNoise":
        """Return the family with the box of the rows."""
        for block in data:
            self._require_plain(block)
        family = self._with(self.family.seeing(data))
        if self.box is not None:
            return family
        low, high = np.full(data.n_features, np.inf), np.full(data.n_features, -np.inf)
        for rows, weight in chunks(data):
            counting = rows[weight > 0]
            low = np.minimum(low, counting.min(axis=0, initial=np.inf))
            high = np.maximum(high, counting.max(axis=0, initial=-np.inf))
        flat = (low == high) & (self.volume is None) & (self.family.spacing == 0)
        if flat.any():
            raise ValueError(
                f"column {int(np.argmax(flat))} of X is constant, so that the box around the rows has no volume; drop "
                "it, or give noise_volume"
            )
        return replace(family, extent=np.stack([low, high]))

    def start_row(self, n_features: int, feature_map: int, square: float) -> np.ndarray:
        """Natural parameters (P,) under which rows farther than this, squared, from all centres are noise.

        The scores of centres lack half the square of the row itself, which is added here if there are squares.
        """
        theta = np.zeros(n_statistics(feature_map, n_features))
        theta[0] = -0.5 * square
        if feature_map == FULL:
            rows, columns = np.tril_indices(n_features)
            theta[1 + n_features :][rows == columns] = 0.5
        elif feature_map in (DIAGONAL, SPHERICAL):
            theta[1 + n_features :] = 0.5
        return theta

    # rows and states

    @property
    def core(self) -> Any:
        """The family of the components."""
        return self.family

    @property
    def has_moving_frame(self) -> bool:  # type: ignore[override]
        """Whether the frame follows a stream."""
        return self.family.has_moving_frame

    @property
    def is_coded(self) -> bool:  # type: ignore[override]
        """Whether `rows` are other than the rows themselves."""
        return self.family.is_coded

    @property
    def is_tabled(self) -> bool:  # type: ignore[override]
        """Whether rows can be codes."""
        return self.family.is_tabled

    @property
    def softness(self) -> float:  # type: ignore[override]
        """Of responsibilities by nearest centres."""
        return self.family.softness

    @property
    def more_starts(self) -> tuple[str, ...]:  # type: ignore[override]
        """Kinds of starts that take turns with the others in a race."""
        return self.family.more_starts

    @property
    def has_distances(self) -> bool:
        """Whether scores are a constant less half a squared distance, which is 0 for the noise."""
        return self.family.has_distances

    def rows(self, block):
        """Return the rows as kernels take them."""
        self._require_plain(block)
        return self.family.rows(block)

    def codes(self, block, in_order=False):
        """Return rows of codes."""
        self._require_plain(block)
        return self.family.codes(block, in_order)

    def _require_plain(self, block: Block) -> None:
        """Refuse what the volume says nothing of."""
        if block.noise is not None:
            raise ValueError("noise_covariance, of measurements, and noise=True, of rows, do not go together; drop one")
        if block.has_missing:
            self._require_complete(block.X)

    def rows_of(self, data):
        """Return all rows as kernels take them."""
        return self.family.rows_of(data)

    def frame(self, summary: Summary, dtype: np.dtype) -> Frame:
        """Return centre and scale that suit the rows."""
        return self.family.frame(summary, dtype)

    def frame_of(self, rows: Data) -> Frame:
        """Return centre and scale that suit the coded rows, of which all are given."""
        return self.family.frame_of(rows)

    def positions(self, X: np.ndarray, frame: Frame) -> np.ndarray:
        """Return where rows lie (n, S), in units in which columns are alike."""
        return self.family.positions(X, frame)

    def widened(self, block: Block) -> "WithNoise":
        """Return the family with what a block of a stream shows for the first time."""
        family = self.family.widened(block)
        return self if family is self.family else self._with(family)

    def impossible(self, components: Any, possible: np.ndarray, X: np.ndarray) -> np.ndarray | None:
        """No row is, as long as the noise has a weight."""
        return None if possible[-1] else self.family.impossible(components, possible[:-1], X)

    def is_finite(self, components: Any) -> bool:
        """Whether every number is finite."""
        return self.family.is_finite(components)

    def table(self, components: Any, log_weights: np.ndarray, gaps: np.ndarray) -> np.ndarray:
        """Score (K + 1, 1 + M) of every code; that of the noise comes of its weight alone."""
        table = self.family.table(components, log_weights[:-1], gaps)
        noise = np.zeros((1, table.shape[1]))
        noise[0, 0] = log_weights[-1] + self.log_density
        return _behind(table, noise)

    def sums_of(self, sums: np.ndarray) -> np.ndarray:
        """Sums (K + 1, 1 + C) of coded rows from those of codes."""
        inner = self.family.sums_of(np.ascontiguousarray(sums[:-1]))
        noise = np.zeros((1, inner.shape[1]))
        noise[0, 0] = sums[-1, 0]
        return _behind(inner, noise)

    def exact_codes(self, components: Any, log_weights: np.ndarray, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of codes and the score (K + 1, 1 + M) of each, for densities of any rows."""
        self._require_complete(X)
        codes, table = self.family.exact_codes(components, log_weights[:-1], X)
        noise = np.zeros((1, table.shape[1]))
        noise[0, 0] = log_weights[-1] + self.log_density
        return codes, _behind(table, noise)

    def layout(self, components: Any, frame: Frame) -> Layout:
        """The noise first, by features; where the components lack a term that they share, the noise needs it."""
        layout = self._inner_layout(components, frame)
        noise, others = [len(layout.order)], layout.order
        return layout._replace(order=np.concatenate([others, noise] if self.is_tabled else [noise, others]))

    def _inner_layout(self, components: Any, frame: Frame) -> Layout:
        layout = self.family.layout(components, frame)
        return layout._replace(feature_map=self.family.start_map) if self.family.needs_scatter(layout) else layout

    def natural(self, components: Any, log_weights: np.ndarray, layout: Layout, frame: Frame) -> States:
        """States of the family behind that of the noise, whose score is the same everywhere."""
        states = self.family.natural(components, log_weights[:-1], _without_noise(layout), frame)
        constant, tails = self._constant(log_weights, states)
        theta = np.zeros((1, states.theta.shape[1]), states.theta.dtype)
        theta[0, 0] = constant
        whitener, peak = states.whitener, states.peak
        if len(whitener) == len(states.theta):
            whitener, peak = _behind(np.zeros_like(whitener[:1]), whitener), _behind(np.array([constant]), peak)
        theta, tails = _behind(theta, states.theta), _behind(tails, states.tails)
        return states._replace(theta=theta, whitener=whitener, peak=peak, tails=tails)

    def _constant(self, log_weights: np.ndarray, states: States) -> tuple[float, np.ndarray]:
        """Score of the noise, and its tails (1 or 0, 4), which hold it if the others have any."""
        constant = log_weights[-1] + self.log_density
        if len(states.tails) == 0:
            return constant, states.tails
        return 0.0, np.array([[_MANY_DEGREES, states.tails[0, 1], constant, 0.0]])

    def exact(self, components: Any, log_weights: np.ndarray, X: np.ndarray) -> tuple[np.ndarray, States, np.ndarray]:
        """Frame, states and coded rows for densities; the noise is the last state."""
        self._require_complete(X)
        frame, states, rows = self.family.exact(components, log_weights[:-1], X)
        constant, tails = self._constant(log_weights, states)
        if len(states.peak):
            whitener = np.ascontiguousarray(_behind(states.whitener, np.zeros_like(states.whitener[:1])))
            peak, tails = np.append(states.peak, constant), _behind(states.tails, tails)
            return frame, states._replace(whitener=whitener, peak=peak, tails=tails), rows
        theta = np.zeros((1, states.theta.shape[1]))
        theta[0, 0] = constant
        return frame, states._replace(theta=_behind(states.theta, theta)), rows

    def log_densities(self, components: Any, X: np.ndarray) -> np.ndarray:
        """Log-densities (N, K + 1) of a few rows, in NumPy."""
        return np.column_stack([self.family.log_densities(components, X), np.full(len(X), self.log_density)])

    def peaks(self, components: Any, log_weights: np.ndarray) -> np.ndarray:
        """Score of each state at its mean, (K + 1,)."""
        return np.append(self.family.peaks(components, log_weights[:-1]), log_weights[-1] + self.log_density)

    def motion(self, old: Any, new: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Shrink, stretch and shift (K + 1,) of distances, see `Gaussian.motion`; the noise does not move."""
        shrink, stretch, shift = self.family.motion(old, new)
        return np.append(shrink, 1.0), np.append(stretch, 1.0), np.append(shift, 0.0)

    def expected_gaps(self, components: Any, log_weights: np.ndarray) -> np.ndarray:
        """Expected score in state k less that in j, for rows of k, (K + 1, K + 1); rows of the noise count as means."""
        gaps = self.family.expected_gaps(components, log_weights[:-1])
        peaks = self.peaks(components, log_weights)
        with np.errstate(invalid="ignore"):  # between components of weight 0
            return np.block([[gaps, (peaks[:-1] - peaks[-1])[:, None]], [peaks[-1] - peaks]])

    # moments

    def moments(self, sums: np.ndarray, scatter: np.ndarray, layout: Layout, frame: Frame) -> Any:
        """Moments of the components, whose counts have that of the noise last."""
        at = int(np.flatnonzero(layout.order == len(layout.order) - 1)[0])
        moments = self.family.moments(np.delete(sums, at, axis=0), scatter, _without_noise(layout), frame)
        return moments._replace(counts=np.append(moments.counts, sums[at, 0]))

    def about_means(self, moments: Any, frame: Frame, feature_map: int) -> Layout | None:
        """Layout about the means of the components, with the noise first, or None."""
        layout = self.family.about_means(_inner(moments), frame, feature_map)
        return None if layout is None else layout._replace(order=np.append(len(layout.order), layout.order))

    def blend(self, one: Any, two: Any, share: float) -> Any:
        """Moments of a mixture of both, of which the second makes up a share."""
        counts = (1.0 - share) * one.counts + share * two.counts
        return self.family.blend(_inner(one), _inner(two), share)._replace(counts=counts)

    def keep_moments(self, moments: Any, kept: np.ndarray) -> Any:
        """Moments of some of the components, and the noise; their counts sum to 1."""
        counts = np.append(moments.counts[kept], moments.counts[-1])
        return self.family.keep_moments(_inner(moments), kept)._replace(counts=counts / counts.sum())

    def recall(self, counts: np.ndarray, components: Any, weight: float) -> Any:
        """Moments, of rows of some weight, whose maximum are the parameters."""
        return self.family.recall(counts[:-1], components, weight)._replace(counts=counts)

    def births(self, moments: Any, weight: float, component: int, reservoir: Any) -> list[Any]:
        """Moments with a component moved; the noise keeps its share."""
        noise = moments.counts[-1]
        born = self.family.births(_inner(moments), weight, component, reservoir)
        return [one._replace(counts=np.append((1.0 - noise) * one.counts / one.counts.sum(), noise)) for one in born]

    def spread(self, moments: Any) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variances of the rows of the components."""
        return self.family.spread(_inner(moments))

    def reframed(self, moments: Any, *others: Any) -> Frame:
        """Frame for rows of the moments."""
        return self.family.reframed(_inner(moments), *others)

    def expected_log_densities(self, moments: Any, components: Any) -> np.ndarray:
        """Mean log-density (K + 1,) under each state of rows of its moments."""
        return np.append(self.family.expected_log_densities(_inner(moments), components), self.log_density)

    def rescaled(self, moments: Any, components: Any) -> Any:
        """Moments from which an M-step of batch EM goes farther."""
        return self.family.rescaled(_inner(moments), components)._replace(counts=moments.counts)

    def maximize(self, moments: Any, old: Any, granule: np.ndarray, fewest: float = 0.0) -> Any:
        """Parameters of the components; the noise has none."""
        return self.family.maximize(_inner(moments), old, granule, fewest)

    def score(self, components: Any, moments: Any, frame: Frame) -> np.ndarray:
        """Gradient of the expected log-likelihood in the coordinates of `pack`."""
        return self.family.score(components, _inner(moments), frame)

    # what the family knows by itself

    def resolve_prior(self, mean, covariance, n_components):
        """Return the family with what its prior leaves open."""
        return self._with(self.family.resolve_prior(mean, covariance, n_components))

    def guarded(self, mean, covariance, unit):
        """Return the family under a weak prior, unless it has one."""
        return self._with(self.family.guarded(mean, covariance, unit))

    def resumed(self, weights: np.ndarray, components: Any, weight: float, dtype: np.dtype) -> tuple[Any, Frame]:
        """Family and frame as the parameters tell them."""
        shares = weights[:-1] / weights[:-1].sum()
        family, frame = self.family.resumed(shares, components, weight, dtype)
        return self._with(family), frame

    def log_prior(self, components: Any) -> float:
        """Log-density of the prior, up to a constant."""
        return self.family.log_prior(components)

    def fewest_rows(self, n_features: int) -> int:
        """Return how many rows a component takes to be estimated."""
        return self.family.fewest_rows(n_features)

    @property
    def prior(self) -> Any:
        """That of the components."""
        return self.family.prior

    @property
    def held(self) -> Any:
        """Parameters of the components that stay."""
        return self.family.held

    @property
    def frozen_fields(self) -> Any:
        """Parameters of the components that may be frozen."""
        return self.family.frozen_fields

    def holding(self, held: Any) -> "WithNoise":
        """Return the family whose M-steps leave some parameters as they are."""
        return self._with(self.family.holding(held))

    def put(self, components: Any) -> Any:
        """Return the components with what is held in its place."""
        return self.family.put(components)

    def told(self, n_components: int) -> np.ndarray:
        """Which components (K,) need no rows to be estimated."""
        return self.family.told(n_components)

    def known_centers(self, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        """Return numbers (F,) of the components whose places are held, and these (F, S)."""
        return self.family.known_centers(frame)

    def n_frozen(self, n_features: int) -> int:
        """Number of parameters that are held."""
        return self.family.n_frozen(n_features)

    def sample_noise(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """Draw rows (n_samples, D) of the noise, uniformly from the box."""
        if self.bounds is None:
            raise ValueError("noise is drawn from the box around the rows of a fit, and there was none; fit first")
        low, high = self.bounds
        if self.family.spacing:
            return rng.integers(low, high, size=(n_samples, len(low)), endpoint=True).astype(np.float64)
        return rng.uniform(low, high, size=(n_samples, len(low)))

    @staticmethod
    def _require_complete(X: np.ndarray) -> None:
        """Refuse missing values, which the volume counts."""
        if np.isnan(X).any():
            row, column = np.argwhere(np.isnan(X))[0]
            raise ValueError(f"X contains NaN at row {row}, column {column}; a mixture with noise needs complete rows")

    def marginal(self, components: Any, columns: np.ndarray) -> Any:
        """Refused: a volume has no part for each column."""
        raise ValueError("a mixture with noise has no marginals or conditionals; set noise=False, and fit again")

    conditional = marginal


def _inner(moments: Any) -> Any:
    return moments._replace(counts=moments.counts[:-1])


def _without_noise(layout: Layout) -> Layout:
    return layout._replace(order=layout.order[layout.order < len(layout.order) - 1])


def _behind(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.concatenate([first, second])
