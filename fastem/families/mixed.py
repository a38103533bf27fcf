"""Columns of several families, independent within a component: counts beside categories beside measurements.

    log p(x; theta) = sum over the parts p of log p_p(x_p; theta_p)

Moustaki & Papageorgiou (2005), Comput. Statist. Data Anal. 48, 659-675, equation 1. Coded rows of the parts stand
beside each other, so a sweep is one product over all of them; an M-step is one of each part.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fastem.data import Block, Data, Derived
from fastem.families.exponential import Coded, Exponential, plain_frame
from fastem.families.family import Frame, Layout, are_arrays
from fastem.kernels.features import LINEAR
from fastem.kernels.sweep import States, by_features


class MixedParams(NamedTuple):
    """Parameters of each part."""

    parts: tuple[Any, ...]


class MixedAverages(NamedTuple):
    """Weight (K,) of each component, and averages of each part."""

    counts: np.ndarray
    parts: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Mixed(Coded):
    """Components whose columns are of several families, and independent of each other but within a part.

    Parameters
    ----------
    parts : sequence of (family, columns)
        An exponential family, such as `fastem.Poisson()`, and the numbers of its columns; each column belongs to one.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.array([[0.0, 1.1], [1.0, 0.9], [9.0, 5.2], [11.0, 4.8]])
    >>> family = fastem.Mixed([(fastem.Poisson(), [0]), (fastem.Normal(), [1])])
    >>> result = fastem.fit(fastem.Mixture(family, 2), X, random_state=0)
    >>> np.sort(result.params.components.parts[0].rates.ravel())
    array([ 0.5, 10. ])
    """

    parts: Any
    n_features: int = field(default=0, repr=False, kw_only=True)

    takes_missing: ClassVar[bool] = True  # each part decides for itself
    is_positive: ClassVar[bool] = False
    spacing: ClassVar[float | None] = None
    Params: ClassVar[Any] = MixedParams

    def __post_init__(self):
        parts = []
        for entry in self.parts:
            family, columns = entry
            if not isinstance(family, Exponential):
                raise TypeError(f"parts must be of exponential families such as fastem.Poisson(); got {family!r}")
            columns = np.array(columns, dtype=np.int64).ravel()
            parts.append((replace(family, numbers_in_X=columns, n_features=len(columns)), columns))
        every = np.sort(np.concatenate([columns for _, columns in parts])) if parts else np.empty(0)
        if len(every) == 0 or not np.array_equal(every, np.arange(len(every))):
            raise ValueError(
                f"the columns of all parts must be 0 to n - 1, each of them once; they are {every.tolist()}"
            )
        object.__setattr__(self, "parts", tuple(parts))
        object.__setattr__(self, "n_features", len(every))

    @property
    def families(self) -> tuple[Any, ...]:
        """The family of each part."""
        return tuple(family for family, _ in self.parts)

    @property
    def prior(self) -> Any:
        """The prior of each part."""
        return tuple(family.prior for family in self.families)

    @property
    def softness(self) -> float:  # type: ignore[override]
        """That of the part that needs most."""
        return max(family.softness for family in self.families)

    @property
    def overall(self) -> np.ndarray:
        """Mean statistics of the data seen."""
        return np.concatenate([family.overall for family in self.families])

    def _of(self, families: Any) -> Any:
        """The same parts with other families."""
        pairs = zip(families, self.parts, strict=True)
        return replace(self, parts=tuple((family, columns) for family, (_, columns) in pairs))

    def _each(self, params: Any) -> Any:
        """Families and parameters of the parts."""
        return zip(self.families, params.parts, strict=True)

    # coded rows

    def seeing(self, data: Data) -> Any:
        """Return the family with all that each part must know of its columns."""
        if data.n_features != self.n_features:
            raise ValueError(f"families are given for {self.n_features} columns, and X has {data.n_features}")
        return self._of([family.seeing(Derived(data, self._part(columns))) for family, columns in self.parts])

    def _part(self, columns: np.ndarray) -> Callable[[Block], Block]:
        """What makes blocks of some columns."""
        return lambda block: Block(self._rows(block.X, columns), block.weight)

    @staticmethod
    def _rows(X: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(X[:, columns])

    def rows(self, block: Block) -> Block:
        """Return the coded rows, kept as long as the rows themselves."""
        key = tuple((type(f), f._coding(), f.missing.tobytes(), columns.tobytes()) for f, columns in self.parts)
        return block.derived(key, lambda block: block.holding(self.code(block.X)))

    def code(self, X: np.ndarray) -> np.ndarray:
        """Return coded rows (n, C) float64."""
        parts = [family.code(self._rows(X, columns)) for family, columns in self.parts]
        return np.ascontiguousarray(np.concatenate(parts, axis=1))

    def check_rows(self, X: np.ndarray) -> None:
        """Refuse rows with values that the family of their column cannot have."""
        for family, columns in self.parts:
            family.check_rows(self._rows(X, columns))

    def positions(self, X: np.ndarray, frame: Frame) -> np.ndarray:
        """Where rows (n, S) lie in each part, for distances."""
        parts = [family.positions(self._rows(X, columns), frame) for family, columns in self.parts]
        return np.concatenate(parts, axis=1)

    def widened(self, block: Block) -> Any:
        """Return the family with what a block of a stream shows for the first time."""
        wider = [family.widened(self._part(columns)(block)) for family, columns in self.parts]
        same = all(one is other for one, other in zip(wider, self.families, strict=True))
        return self if same else self._of(wider)

    def _linear(self, params: Any) -> tuple[np.ndarray, np.ndarray]:
        slopes, constants = zip(*(family._linear(part) for family, part in self._each(params)), strict=True)
        return np.concatenate(slopes, axis=1), np.sum(constants, axis=0)

    def exact(self, params: Any, log_weights: np.ndarray, X: np.ndarray) -> tuple[np.ndarray, States, np.ndarray]:
        """Frame (2, C), states and coded rows for densities of any rows."""
        rows, slopes, constants = [], [], log_weights
        for (family, columns), part in zip(self.parts, params.parts, strict=True):
            known = family.known(self._rows(X, columns))
            _, states, coded = family.exact(part, np.zeros_like(log_weights), known)
            rows.append(coded)
            constants = constants + states.theta[:, 0]
            slopes.append(states.theta[:, 1:])
        theta = np.column_stack([constants, *slopes])
        n_coded = theta.shape[1] - 1
        coded = np.ascontiguousarray(np.concatenate(rows, axis=1))
        return plain_frame(n_coded).rows, by_features(LINEAR, theta, n_coded), coded

    def impossible(self, params: Any, possible: np.ndarray, X: np.ndarray) -> np.ndarray | None:
        """Rows (n,) bool that have density 0 under each component that is possible (K,), or None if there are none."""
        every = np.ones(len(X), bool)
        for k in np.flatnonzero(possible):
            one = np.arange(len(possible)) == k
            here = np.zeros(len(X), bool)
            for (family, columns), part in zip(self.parts, params.parts, strict=True):
                found = family.impossible(part, one, self._rows(X, columns))
                here |= False if found is None else found
            every &= here
        return every if every.any() else None

    # averages

    def moments(self, sums: np.ndarray, scatter: np.ndarray, layout: Layout, frame: Frame) -> MixedAverages:
        """Averages of the parts from the sums (K, 1 + C) of a sweep."""
        averages, first = [], 1
        for family in self.families:
            n_coded = family.n_coded
            some = np.column_stack([sums[:, 0], sums[:, first : first + n_coded]])
            averages.append(family.moments(some, scatter, layout, plain_frame(n_coded)))
            first += n_coded
        return MixedAverages(sums[:, 0], tuple(averages))

    def _averages(self, averages: MixedAverages) -> list[Any]:
        """Averages of the parts, with the weights of the components, which a stream scales."""
        return [part._replace(counts=averages.counts) for part in averages.parts]

    def blend(self, one: MixedAverages, two: MixedAverages, share: float) -> MixedAverages:
        """Averages of a mixture of both, of which the second makes up a share."""
        pairs = zip(self.families, self._averages(one), self._averages(two), strict=True)
        parts = tuple(family.blend(a, b, share) for family, a, b in pairs)
        return MixedAverages(parts[0].counts, parts)

    def keep_moments(self, moments: MixedAverages, kept: np.ndarray) -> MixedAverages:
        """Averages of some of the components (k,) int; their counts sum to 1."""
        pairs = zip(self.families, self._averages(moments), strict=True)
        parts = tuple(family.keep_moments(part, kept) for family, part in pairs)
        return MixedAverages(parts[0].counts, parts)

    def expected_log_densities(self, averages: MixedAverages, params: Any) -> np.ndarray:
        """Mean log-density (K,) under each component of rows of its averages."""
        pairs = zip(self.families, self._averages(averages), params.parts, strict=True)
        return np.sum([family.expected_log_densities(part, p) for family, part, p in pairs], axis=0)

    def recall(self, counts: np.ndarray, params: Any, weight: float) -> MixedAverages:
        """Averages, of complete rows of some weight, whose maximum are the parameters."""
        return MixedAverages(counts, tuple(family.recall(counts, part, weight) for family, part in self._each(params)))

    def resumed(self, weights: np.ndarray, params: Any, weight: float, dtype: np.dtype) -> tuple[Any, Frame]:
        """Family and frame as the parameters tell them."""
        families = [family.resumed(weights, part, weight, dtype)[0] for family, part in self._each(params)]
        family = self._of(families)
        return family, plain_frame(sum(part.n_coded for part in families))

    def recalled(self, weights: np.ndarray, params: Any) -> Any:
        """The family with what parameters tell of the rows."""
        return self._of([family.recalled(weights, part) for family, part in self._each(params)])

    def under_prior_of(self, other: Any) -> Any:
        """The family with the priors of the parts of another."""
        pairs = zip(self.families, other.families, strict=True)
        return self._of([family.under_prior_of(part) for family, part in pairs])

    def births(self, averages: MixedAverages, weight: float, component: int, reservoir: Any) -> list[MixedAverages]:
        """Averages with a component moved to the rows of a reservoir."""
        parts = []
        for (family, columns), part in zip(self.parts, self._averages(averages), strict=True):
            some = reservoir._replace(rows=self._rows(reservoir.rows, columns))
            parts.append(family.births(part, weight, component, some)[0])
        return [MixedAverages(parts[0].counts, tuple(parts))]

    # maximize

    def maximize(self, averages: MixedAverages, old: Any, granule: np.ndarray, fewest: float = 0.0) -> MixedParams:
        """Posterior mode (maximum likelihood without priors) of each part."""
        before = [None] * len(self.parts) if old is None else old.parts
        pairs = zip(self.families, self._averages(averages), before, strict=True)
        return MixedParams(tuple(family.maximize(part, b, granule, fewest) for family, part, b in pairs))

    def resolve_prior(self, mean: np.ndarray, covariance: Any, n_components: int) -> Any:
        """Fill in the mean statistics of the priors."""
        return self._of([family.resolve_prior(mean, covariance, n_components) for family in self.families])

    def guarded(self, mean: np.ndarray, covariance: Any, unit: float) -> Any:
        """Return the family with a weak prior for each part that has none."""
        return self._of([family.guarded(mean, covariance, unit) for family in self.families])

    def log_prior(self, params: Any) -> float:
        """Log-density of the priors at the parameters, up to a constant."""
        return sum(family.log_prior(part) for family, part in self._each(params))

    def fewest_rows(self, n_features: int) -> int:
        """Return how many rows a component takes to be estimated."""
        return max(family.fewest_rows(len(columns)) for family, columns in self.parts)

    # parameters

    def n_components(self, params: Any) -> int:
        """Number of components that the parameters are for."""
        return self.families[0].n_components(params.parts[0])

    def n_columns(self, params: Any) -> int:
        """Number of columns of the rows that the parameters are for."""
        return self.n_features

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """Number of free parameters of the components."""
        return sum(family.n_parameters(n_components, len(columns)) for family, columns in self.parts)

    def keep(self, params: Any, kept: np.ndarray) -> MixedParams:
        """Parameters of some of the components (k,) int."""
        return MixedParams(tuple(family.keep(part, kept) for family, part in self._each(params)))

    def estimands(self, params: Any) -> dict[str, np.ndarray]:
        """Return what standard errors are given for, by field and number of the part."""
        named: dict[str, np.ndarray] = {}
        for number, (family, part) in enumerate(self._each(params)):
            named |= {f"{name}_{number}": value for name, value in family.estimands(part).items()}
        return named

    def settled(self, params: Any, counts: np.ndarray) -> MixedParams:
        """Parameters of which those are on a boundary that it takes more than so many rows (K,) to tell from it."""
        return MixedParams(tuple(family.settled(part, counts) for family, part in self._each(params)))

    def is_finite(self, params: Any) -> bool:
        """Whether every number is finite."""
        return all(family.is_finite(part) for family, part in self._each(params))

    def check_params(
        self, params: Any, n_components: int, frame: Frame | None = None, name: str = "start.components."
    ) -> MixedParams:
        """Return parameters that a user gave, after checking those of each part."""
        if not isinstance(params, MixedParams) or len(params.parts) != len(self.parts):
            raise TypeError(f"{name.strip('.') or 'the parameters'} must be MixedParams of {len(self.parts)} parts")
        checked = []
        for number, (family, part) in enumerate(self._each(params)):
            checked.append(family.check_params(part, n_components, name=f"{name}parts[{number}]."))
        return MixedParams(tuple(checked))

    def are_sound(self, params: Any, moments: Any, n_components: int, n_features: int) -> bool:
        """Whether parameters and averages, read from a file, are what kernels may be given."""
        if not (isinstance(params, MixedParams) and isinstance(moments, MixedAverages)):
            return False
        if not len(params.parts) == len(moments.parts) == len(self.parts):
            return False
        parts = zip(self.parts, params.parts, moments.parts, strict=True)
        return (
            self.n_features == n_features
            and are_arrays(moments.counts, of=(n_components,), least=0.0)
            and all(family.are_sound(p, m, n_components, len(columns)) for (family, columns), p, m in parts)
        )

    def pack(self, params: Any, frame: Frame) -> np.ndarray:
        """Coordinates of the parts, one part after the other."""
        return np.concatenate([family.pack(part, frame) for family, part in self._each(params)])

    def unpack(self, vector: np.ndarray, n_components: int, frame: Frame) -> MixedParams:
        """Parameters at the coordinates of `pack`."""
        parts, first = [], 0
        for family in self.families:
            size = family.n_coordinates * n_components
            parts.append(family.unpack(vector[first : first + size], n_components, frame))
            first += size
        return MixedParams(tuple(parts))

    def score(self, params: Any, averages: MixedAverages, frame: Frame) -> np.ndarray:
        """Gradient of the expected log-likelihood in the coordinates of `pack`, at the parameters of the averages."""
        pairs = zip(self.families, params.parts, self._averages(averages), strict=True)
        return np.concatenate([family.score(part, some, frame) for family, part, some in pairs])

    def expected_rows(self, params: Any, resp: np.ndarray) -> np.ndarray:
        """Expected rows (n, D) given the probabilities (n, K) of their components."""
        return self._joined(family.expected_rows(part, resp) for family, part in self._each(params))

    def sample(self, params: Any, component: int, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """Draw rows (n_samples, D) from one component."""
        return self._joined(family.draw(part, component, n_samples, rng) for family, part in self._each(params))

    def _joined(self, parts: Any) -> np.ndarray:
        """Columns of the parts, each in its place."""
        parts = list(parts)
        rows = np.empty((len(parts[0]), self.n_features))
        for part, (_, columns) in zip(parts, self.parts, strict=True):
            rows[:, columns] = part
        return rows
