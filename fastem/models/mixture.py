"""Finite mixtures of a family: the model that the fused sweep was made for."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import numpy as np

from fastem.data import (
    Block,
    Data,
    as_rows,
    as_writable,
    finite_array,
    is_integer,
    is_real,
)
from fastem.families.exponential import ValueRefused
from fastem.families.family import Family, Frame, Layout
from fastem.families.gaussian import Gaussian, unpack_second
from fastem.initialize import (
    STARTS,
    TURNS,
    centers,
    check_distinct,
    check_resp,
    given_blocks,
    random_blocks,
    square_radius,
)
from fastem.kernels._jit import one_blas_thread, use_threads
from fastem.kernels.components import add_log_prior_of_weights, share_out
from fastem.kernels.features import FULL, n_statistics
from fastem.kernels.posteriors import GIVEN, HARD, SOFTMAX
from fastem.kernels.pruning import NOTHING, Skip
from fastem.kernels.sweep import LABEL, LOG_DENSITY, POSTERIOR, States, block_rows, by_features, score, statistics
from fastem.kernels.tables import table_score, table_statistics
from fastem.labels import allowed
from fastem.models.mixture_constraints import Constraints, choices
from fastem.models.mixture_labels import Labels, Seeds, some
from fastem.models.mixture_moves import Moves
from fastem.models.mixture_records import MixtureParams, MixtureStats, log_of, same_bits
from fastem.models.mixture_steps import Steps
from fastem.models.mixture_streams import Streams
from fastem.models.skipping import has_lost, skipping_of
from fastem.protocol import DegenerateError

_CODED_ROWS = 2**14  # that are coded at once, where they are not kept
_FIRST_NOISE = 0.05  # of the rows, those farthest from the first centres
_RACE_ROWS, _RACE_ROWS_PER_NUMBER = 5000, 10  # of the first heat: at least, and for each value of a mean


@dataclass(frozen=True, eq=False)
class Mixture(Constraints, Labels, Streams, Moves, Steps):
    """Mixture of K components of one family.

    Parameters
    ----------
    family : Family
        `fastem.Gaussian`, or another one.
    n_components : int, default=1
    start : {'kmeans', 'k-means++', 'k-means||', 'ward', 'random_from_data', 'random'} or array-like, default='kmeans'
        How `initialize` finds its first responsibilities: nearest centre, chance, or labels (N,) or
        responsibilities (N, K) that are given. In a race (`n_race` of `fastem.fit`) 'kmeans' takes turns with
        'random_from_data' and 'k-means++'.
    weights_init, means_init, precisions_init : array-like, default=None
        Parameters that replace those of the start.
    components_init : parameters of the family, default=None
        What replaces the components of the start; their weights are then equal, unless given.
    weight_concentration : float, default=1.0
        Parameter alpha of a symmetric Dirichlet prior on the weights; 1 is none.
    weight_cost : float, default=0.0
        Rows that the weight of a component is short of what it counts: one that counts fewer gets weight 0, but only
        one at a time, so that the others can take its rows over. Half the parameters of a component: see
        `fastem.select`, method 'annihilation'.
    frozen : dict, default=None
        Parameters that stay as they are, by their names: 'weights', and the fields of the family's parameters, such as
        'means' and 'covariances'. A value says of which components: True (all), their numbers, or a dict from numbers
        to values, such as ``{'means': {0: [1.0, 2.0]}, 'covariances': True, 'weights': [1]}``. Values that are not
        given here are those of `weights_init`, `means_init` or `precisions_init`, or of the parameters that a fit
        starts from. M-steps are the maximum over what is free: covariances are taken about means that stay, and free
        weights share what the others leave.
    n_threads : int, default=None
        None or -1: all that numba may use.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.array([[0.0], [1.0], [9.0], [10.0]])
    >>> fastem.fit(fastem.Mixture(fastem.Gaussian("tied"), 2), X, random_state=0).n_iter
    2
    """

    family: Any
    n_components: int = 1
    start: Any = "kmeans"
    weights_init: Any = None
    means_init: Any = None
    precisions_init: Any = None
    components_init: Any = None
    weight_concentration: float = 1.0
    weight_cost: float = 0.0
    frozen: Any = None
    n_threads: int | None = None
    frame: Frame | None = field(default=None, repr=False)
    held_weights: Any = field(default=None, repr=False)  # (n_states,), NaN for those that are free
    seeds: Seeds | None = field(default=None, repr=False)
    labelled: Any = field(default=None, repr=False)  # (K,) bool: components that rows of the data are labelled with

    starts: ClassVar[tuple[str, ...]] = STARTS

    def __post_init__(self):
        if not isinstance(self.family, Family):
            raise TypeError(f"family must be a family such as fastem.Gaussian(); got {self.family!r}")
        if not (self.means_init is None and self.precisions_init is None) and not isinstance(
            self.family.core, Gaussian
        ):
            raise TypeError("means_init and precisions_init are for fastem.Gaussian; use fastem.fit(..., start=...)")
        if not is_integer(self.n_components, 1):
            raise ValueError(f"n_components must be an integer of at least 1; got {self.n_components!r}")
        if self.n_threads not in (None, -1) and not is_integer(self.n_threads, 1):
            raise ValueError(f"n_threads must be None, -1 or a positive integer; got {self.n_threads!r}")
        object.__setattr__(self, "n_components", int(self.n_components))
        if not is_real(self.weight_concentration, 1.0):
            raise ValueError(
                "weight_concentration must be a finite number of at least 1 (below, the mode lies on the boundary); "
                f"got {self.weight_concentration!r}"
            )
        if not is_real(self.weight_cost, 0.0):
            raise ValueError(f"weight_cost must be a finite number that is not negative; got {self.weight_cost!r}")
        if self.weight_cost > 0.0 and self.weight_concentration > 1.0:
            raise ValueError("weight_cost and weight_concentration are two priors of the weights; give one of them")
        if self.weight_cost > 0.0 and (self.frozen is not None or self.family.n_noise):
            raise ValueError("weight_cost drops components, which frozen parameters and noise do not allow; use 0")
        if self.frozen is not None:
            choices(self.frozen, self.n_components, self.family)  # its checks

    @property
    def bound(self) -> Frame:
        """The frame, which `prepare` takes from the data."""
        if self.frame is None:
            raise ValueError("the model does not know the scale of its data yet; call model.prepare(data) first")
        return self.frame

    @property
    def n_states(self) -> int:
        """Number of weights: of the components, then of the noise if the family has it."""
        return self.n_components + self.family.n_noise

    @property
    def takes_missing(self) -> bool:
        """Whether NaN in the rows are values that are missing."""
        return self.family.takes_missing or self.family.completes

    def completing(self) -> "Mixture":
        """The mixture that completes rows of which values are missing."""
        from fastem.models.missing import IncompleteMixture  # which is a Mixture

        return IncompleteMixture(**{part.name: getattr(self, part.name) for part in fields(self)})

    def deconvolving(self) -> "Mixture":
        """The mixture of what rows would be without the noise that they were measured with."""
        from fastem.models.noisy import NoisyMixture  # which is a Mixture

        if self.family.n_noise:
            raise ValueError("noise_covariance, of measurements, and noise=True, of rows, do not go together; drop one")
        return NoisyMixture(**{part.name: getattr(self, part.name) for part in fields(self)})

    def _suiting(self, data: Data) -> "Mixture":
        """The mixture for rows such as these."""
        if not self.family.completes:
            return self
        if data.noise is not None:
            return self.deconvolving()
        return self.completing() if data.has_missing else self

    # the protocol

    @same_bits
    def prepare(self, data: Data) -> "Mixture":
        """Take the frame and the defaults of the prior from the data; check the start against them."""
        suiting = self._suiting(data)
        if suiting is not self:
            return suiting.prepare(data)
        if data.n_samples < self.n_unknown:
            raise DegenerateError(
                f"X has {data.n_samples} sample(s) for n_components={self.n_components}; use fewer components"
            )
        if data.is_labelled:
            self._check_labels(data)
        if not isinstance(self.start, str):
            check_resp(self.start, data.n_samples, self.n_components, self.family.n_noise)
        elif self.start not in self.starts:
            raise ValueError(
                f"start must be one of {list(self.starts)}, labels or responsibilities; got {self.start!r}"
            )
        model = self._with_checked_start(data.n_features)
        family = self.family.seeing(data)
        model = model if family is model.family else replace(model, family=family)
        if self.n_unknown:
            check_distinct(model._filled(model.family.rows_of(data)), self.n_unknown)
        model = model.framed_by(data)
        if self.components_init is not None:
            components = model.family.check_params(self.components_init, self.n_components, model.bound)
            model = replace(model, components_init=components)
        if not (data.is_labelled or self.frozen or self.labelled is not None or self.seeds is not None):
            return model
        model = replace(model, labelled=self._labelled(data)).holding(None)
        return replace(model, seeds=model._seeds(data))

    @same_bits
    def framed_by(self, data: Data) -> "Mixture":
        """Take the frame, and what the prior leaves open, from data that the family has seen."""
        rows = self.family.rows_of(data)
        model = replace(self, frame=self.family.frame_of(rows))
        family = model._resolved_prior(rows)
        return model if family is model.family else replace(model, family=family)

    def check_params(self, params: MixtureParams) -> MixtureParams:
        """Return start parameters after checking shapes, finiteness and sign."""
        if not isinstance(params, MixtureParams):
            raise TypeError(f"start must be MixtureParams; got {type(params).__name__}")
        weights = check_weights("start.weights", params.weights, self.n_states)
        params = MixtureParams(weights, self.family.check_params(params.components, self.n_components, self.bound))
        return self.holding(params).put(params)

    @same_bits
    def initialize(self, data: Data, rng: np.random.Generator) -> MixtureParams:
        """Start parameters: an M-step on the first responsibilities, then whatever was given explicitly."""
        self.require_held()
        weights, means, precisions = self.weights_init, self.means_init, self.precisions_init
        if self.components_init is not None:
            equal = np.full(self.n_states, 1.0 / self.n_states)
            return self.put(MixtureParams(equal if weights is None else weights, self.components_init))
        if weights is not None and means is not None and precisions is not None:
            return self.put(MixtureParams(weights, self.family.from_precisions(means, precisions)))
        moments = self.first_moments(data, rng)
        if weights is None:
            weights = self._weights(moments.counts)
        if precisions is not None:
            components = self.family.from_precisions(moments.means if means is None else means, precisions)
        else:
            components = self.family.maximize(moments, None, self.bound.granule)
            if means is not None:
                components = components._replace(means=means)
        return self.put(MixtureParams(weights, components))

    @same_bits
    def e_step(self, params: MixtureParams, block: Block) -> MixtureStats:
        """One fused sweep over a block."""
        if self.family.is_tabled:
            return self._table_e_step(params, block)
        layout = self.family.layout(params.components, self.bound)
        log_weights = log_of(params.weights)
        states = self.family.natural(params.components, log_weights, layout, self.bound)
        soft_sweep = self._soft_sweep if block.labels is None else self._soft_sweep_by_label
        sums, log_likelihood = soft_sweep(block, params, log_weights, states, layout)
        scatter = np.empty((0, 0))
        if self.family.needs_scatter(layout):
            scatter, half_trace = self.common_term(params.components, self.family.rows(block))
            log_likelihood -= half_trace
        return MixtureStats(block.total_weight, log_likelihood, sums, scatter)

    @same_bits
    def m_step(self, stats: MixtureStats, params: MixtureParams) -> MixtureParams:
        """Posterior mode given the statistics of `params`."""
        moments = self.family.rescaled(self._moments(stats, params), params.components)
        return self._maximized(moments, params)

    @same_bits
    def log_prior(self, params: MixtureParams) -> float:
        """Log-density of the prior, up to a constant."""
        total = self.family.log_prior(params.components)
        if self.weight_concentration > 1.0:
            value = np.array([total], np.float64)
            add_log_prior_of_weights(log_of(params.weights), float(self.weight_concentration - 1.0), value)
            total = float(value[0])
        if self.weight_cost > 0.0:
            total -= self.weight_cost * float(np.log(params.weights[params.weights > 0]).sum())
        return total

    def entrant(self, number: int) -> "Mixture":
        """Return the model that makes start `number` of a race: 'kmeans' takes turns with others."""
        if not isinstance(self.start, str):
            raise ValueError("start gives one start for all rows, so that none can race; use n_race=0")
        turns = (*TURNS, *self.family.more_starts)
        return replace(self, start=turns[number % len(turns)]) if self.start == "kmeans" else self

    def sample_size(self, data: Data) -> int:
        """Rows that tell starts apart."""
        return max(_RACE_ROWS, _RACE_ROWS_PER_NUMBER * self.n_components * data.n_features)

    @same_bits
    def guarded(self, sample: Data) -> "Mixture":
        """Return the model under a weak prior of what may collapse, unless it has one."""
        unit = sample.total_weight / sample.n_counting  # weights may be on any scale
        rows = self.family.rows_of(sample)
        return replace(self, family=self.family.guarded(self.bound.center, lambda: self._covariance(rows), unit))

    def is_spurious(self, params: MixtureParams, n_rows: int) -> bool:
        """Return whether a component counts fewer rows than it takes to estimate it."""
        weights = params.weights[: self.n_components][~self.family.told(self.n_components)]
        return bool((weights * n_rows < self._fewest_rows).any())

    def keep(self, params: MixtureParams, kept: np.ndarray) -> tuple["Mixture", MixtureParams]:
        """Model and parameters with some of the components (k,) int."""
        self.require_numbers()
        weights = np.append(params.weights[kept], params.weights[self.n_components :])
        components = self.family.keep(params.components, kept)
        model = replace(self, n_components=len(kept), labelled=None, seeds=None)
        return model, MixtureParams(weights / weights.sum(), components)

    def pack(self, params: MixtureParams) -> np.ndarray:
        """Coordinates: log-weights up to a constant, then those of the family in the frame; of what is free alone."""
        weights = self._pack_weights(params.weights)
        components = self.family.pack(params.components, self.bound)
        if self.family.held is not None:
            components = components[self._free_coordinates(components)]
        return np.concatenate([weights, components])

    @same_bits
    def unpack(self, vector: np.ndarray) -> MixtureParams:
        """Parameters at these coordinates."""
        if not np.isfinite(vector).all():
            raise DegenerateError("the coordinates overflow")
        n_weights = self.n_states if self.held_weights is None else int(self._free_weights.sum())
        weights, vector = self._unpack_weights(vector[:n_weights]), vector[n_weights:]
        if self.family.held is not None:
            template = self.family.pack(self.family.held.values, self.bound)
            template[self._free_coordinates(template)] = vector
            vector = template
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            components = self.family.put(self.family.unpack(vector, self.n_components, self.bound))
        free = weights if self.held_weights is None else weights[self._free_weights]
        if not (free.all() and self.family.is_finite(components)):
            raise DegenerateError("the coordinates overflow")
        return MixtureParams(weights, components)

    @same_bits
    def score(self, stats: MixtureStats, params: MixtureParams) -> np.ndarray:
        """Gradient of the log-likelihood of the rows in the coordinates of `pack`, at the parameters of the stats."""
        moments = self._moments(stats, params)
        components = self.family.score(params.components, moments, self.bound)
        if self.family.held is not None:
            components = components[self._free_coordinates(components)]
        return np.concatenate([self._score_weights(moments.counts, params.weights), components])

    def estimands(self, params: MixtureParams) -> dict[str, np.ndarray]:
        """Return what standard errors are given for."""
        return {"weights": params.weights, **self.family.estimands(params.components)}

    def in_double(self) -> "Mixture":
        """Return the same model with products in float64, whatever the rows are."""
        return replace(self, frame=self.bound._replace(dtype=np.dtype(np.float64)))

    # beyond fitting

    def log_densities(self, params: MixtureParams, X: np.ndarray | Block) -> np.ndarray:
        """Log-density (N,) of each row; -inf where it is impossible."""
        return self._score(params, X, LOG_DENSITY)

    def labels(self, params: MixtureParams, X: np.ndarray | Block) -> np.ndarray:
        """Most probable component (N,) of each row."""
        return self._score(params, X, LABEL)

    def posteriors(self, params: MixtureParams, X: np.ndarray | Block) -> np.ndarray:
        """Probability (N, K) of each component given each row."""
        return self._score(params, X, POSTERIOR)

    def impute(self, params: MixtureParams, X: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Rows (N, D) float64 with what is missing filled in: by its expectation, or by draws if there is a generator.

        Both are given what the rows hold.
        """
        if self.family.completes:
            return self.completing().impute(params, X, rng)
        X = np.array(as_kernel_rows(X, self.takes_missing), np.float64)
        holes = np.isnan(X)
        rows = np.flatnonzero(holes.any(axis=1))
        if len(rows) == 0:
            return X
        resp = self.posteriors(params, X[rows])
        if rng is None:
            filled = self.family.expected_rows(params.components, resp)
        else:
            labels = (rng.random((len(rows), 1)) > np.cumsum(resp, axis=1)).sum(axis=1)
            labels = np.minimum(labels, self.n_components - 1)
            filled = np.empty((len(rows), X.shape[1]))
            for k in np.unique(labels):
                drawn = self.family.sample(params.components, int(k), int((labels == k).sum()), rng)
                filled[labels == k] = drawn
        X[rows] = np.where(holes[rows], filled, X[rows])
        return X

    @same_bits
    def marginal(self, params: MixtureParams, columns: np.ndarray) -> MixtureParams:
        """Parameters of the mixture of some of the columns (m,) int."""
        return MixtureParams(params.weights, self.family.marginal(params.components, columns))

    @same_bits
    def condition(
        self, params: MixtureParams, given: np.ndarray, wanted: np.ndarray, values: np.ndarray
    ) -> MixtureParams:
        """Parameters of the mixture of the wanted columns (m,) int, given values (g,) of some others (g,) int."""
        weights = self.posteriors(self.marginal(params, given), values[None])[0]
        return MixtureParams(weights, self.family.conditioned(params.components, given, wanted, values))

    def regress(self, params: MixtureParams, given: np.ndarray, wanted: np.ndarray, X: np.ndarray) -> np.ndarray:
        """Expectation (N, m) of the wanted columns (m,) int, given rows (N, g) of some others (g,) int."""
        X = as_kernel_rows(X)
        resp = self.posteriors(self.marginal(params, given), X)
        with one_blas_thread(max(X.size, resp.size) * len(wanted) + self._blas_work(params)):
            slopes, _ = self.family.conditional(params.components, given, wanted)
            means = params.components.means
            offsets = means[:, wanted] - (slopes @ means[:, given][:, :, None])[:, :, 0]
            out = resp @ offsets
            for k, slope in enumerate(slopes):  # no array of rows x components x columns
                out += resp[:, k : k + 1] * (X @ slope.T)
        return out

    def n_parameters(self, n_features: int) -> int:
        """Number of free parameters."""
        of_components = self.family.n_parameters(self.n_components, n_features) - self.family.n_frozen(n_features)
        return of_components + max(int(self._free_weights.sum()) - 1, 0)

    def sample(self, params: MixtureParams, n_samples: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw rows (n_samples, D) and their components (n_samples,), sorted; K is the noise."""
        counts = rng.multinomial(n_samples, params.weights / params.weights.sum())
        rows = [self.family.sample(params.components, k, n, rng) for k, n in enumerate(counts[: self.n_components])]
        rows += [self.family.sample_noise(n, rng) for n in counts[self.n_components :]]
        return np.concatenate(rows), np.repeat(np.arange(len(counts)), counts)

    # inside

    @same_bits
    def _score(self, params: MixtureParams, X: np.ndarray | Block, wanted: int) -> np.ndarray:
        X = X.X if isinstance(X, Block) else as_kernel_rows(X, self.takes_missing)
        n_columns = self.family.n_columns(params.components)
        if X.shape[1] != n_columns:
            raise ValueError(f"X has {X.shape[1]} columns; the parameters are for {n_columns}")
        if self.family.is_coded:
            starts = range(0, len(X), _CODED_ROWS)
            return np.concatenate([self._coded_score(params, X, slice(i, i + _CODED_ROWS), wanted) for i in starts])
        frame, states, rows = self.family.exact(params.components, log_of(params.weights), as_writable(X))
        return score(rows, frame, states, use_threads(self.n_threads), wanted)

    def _coded_score(self, params: MixtureParams, X: np.ndarray, some: slice, wanted: int) -> np.ndarray:
        X = X[some]
        log_weights, n_threads = log_of(params.weights), use_threads(self.n_threads)
        try:
            if self.family.is_tabled:
                codes, table = self.family.exact_codes(params.components, log_weights, X)
                values = table_score(codes, table, n_threads, wanted)
            else:
                frame, states, rows = self.family.exact(params.components, log_weights, X)
                values = score(rows, frame, states, n_threads, wanted)
        except ValueRefused as error:
            raise error.moved(some.start) from None
        if wanted == LOG_DENSITY:
            impossible = self.family.impossible(params.components, params.weights > 0, X)
            if impossible is not None:
                values[impossible] = -math.inf
        return values

    def _table_e_step(self, params: MixtureParams, block: Block) -> MixtureStats:
        """The same as a sweep over coded rows, by look-up."""
        table = self.family.table(params.components, log_of(params.weights), self.family.missing)
        sums, log_likelihood = self._by_label(block, lambda rows, states: self._look_up(rows, table, states))
        return MixtureStats(block.total_weight, log_likelihood, self.family.sums_of(sums), np.empty((0, 0)))

    def _look_up(self, block: Block, table: np.ndarray, chosen: np.ndarray | None) -> tuple[np.ndarray, float]:
        """The same as a sweep over coded rows, with some of the states."""
        codes = self.family.codes(block)
        table = table if chosen is None else np.ascontiguousarray(table[chosen])
        return table_statistics(codes.X, codes.weight, table, use_threads(self.n_threads))

    def _maximized(self, moments: Any, params: MixtureParams, fewest: float = 0.0) -> MixtureParams:
        if self.frozen is not None:
            self.require_held()
        components = self.family.maximize(moments, params.components, self.bound.granule, fewest)
        return MixtureParams(self._weights(moments.counts), components)

    def _moments(self, stats: MixtureStats, params: MixtureParams) -> Any:
        """Moments of the components from the statistics of these parameters."""
        layout = self.family.layout(params.components, self.bound)
        return self.family.moments(stats.sums, stats.scatter, layout, self.bound)

    def _blas_work(self, about: Any) -> int:
        """Multiply-adds of the largest product that these data, parameters or statistics lead to."""
        if isinstance(about, MixtureParams):
            n_features = self.family.n_columns(about.components)
        else:
            n_features = about.n_features if isinstance(about, Data) else self.bound.center.size
        return max(n_features, self.n_components) * n_features**2

    def _weights(self, counts: np.ndarray) -> np.ndarray:
        extra = self.weight_concentration - 1.0
        if self.held_weights is not None:
            return self._sharing(counts + extra)
        if self.weight_cost > 0.0:  # Figueiredo & Jain (2002), IEEE PAMI 24, 381-396, equation 17
            left = counts - self.weight_cost
            alive = np.flatnonzero(counts > 0)
            weakest = alive[np.argmin(left[alive])]
            counts = np.where(left > 0, left, counts)
            counts[weakest] = max(left[weakest], 0.0) if len(alive) > 1 else 1.0
            return counts / counts.sum()
        weights = np.empty(len(counts))
        share_out(np.ascontiguousarray(counts), float(extra), weights)
        return weights

    def _sweep(
        self, block: Block, states: States, posterior: int, skip: Skip = NOTHING
    ) -> tuple[np.ndarray, float, float]:
        """Sums, log-likelihood and the mean number of pairs scored and added up."""
        sums, log_likelihood, n_lost, n_pairs = statistics(
            block.X,
            block.weight,
            self.bound.rows,
            states,
            posterior,
            use_threads(self.n_threads),
            skip,
        )
        return sums, -math.inf if n_lost else log_likelihood, n_pairs

    def _soft_sweep(
        self, block: Block, params: MixtureParams, log_weights: np.ndarray, states: States, layout: Layout
    ) -> tuple[np.ndarray, float]:
        """One sweep, which skips what it can if the block may keep notes."""
        block = self.family.rows(block)
        n_rows = len(block.X)
        skipping = skipping_of(block, self.family, *states.theta.shape)
        if skipping is None:
            return self._sweep(block, states, SOFTMAX)[:2]
        n_blocks = -(-n_rows // block_rows(*block.X.shape, *states.theta.shape, states.theta.itemsize))
        skip = skipping.before(self.family, params.components, log_weights, layout, block.X, n_blocks)
        sums, log_likelihood, n_pairs = self._sweep(block, states, SOFTMAX, skip)
        skipping.after(skip, n_pairs)
        if len(skip.gaps) and has_lost(sums[:, 0], params.weights[layout.order], block.total_weight):
            sums, log_likelihood, _ = self._sweep(block, states, SOFTMAX)
        return sums, log_likelihood

    def _soft_sweep_by_label(
        self, block: Block, params: MixtureParams, log_weights: np.ndarray, states: States, layout: Layout
    ) -> tuple[np.ndarray, float]:
        """The same of rows with labels, each with the states that it can come from."""

        def sweep(rows: Block, chosen: np.ndarray | None) -> tuple[np.ndarray, float]:
            if chosen is None:
                return self._soft_sweep(rows, params, log_weights, states, layout)
            return self._sweep(self.family.rows(rows), some(states, chosen), SOFTMAX)[:2]

        return self._by_label(block, sweep, layout.order)

    def _with_checked_start(self, n_features: int) -> "Mixture":
        """Copy whose explicit start parameters are checked arrays."""
        weights, means, precisions = self.weights_init, self.means_init, self.precisions_init
        if weights is None and means is None and precisions is None:
            return self
        if weights is not None:
            weights = check_weights("weights_init", weights, self.n_states)
        if means is not None:
            means = finite_array("means_init", means, 2)
            if means.shape != (self.n_components, n_features):
                wanted = (self.n_components, n_features)
                raise ValueError(f"means_init has shape {means.shape}; (n_components, n_features) = {wanted} is needed")
        if precisions is not None:
            precisions = self.family.check_shape("precisions_init", precisions, self.n_components, n_features)
        return replace(self, weights_init=weights, means_init=means, precisions_init=precisions)

    def _resolved_prior(self, rows: Data) -> Any:
        """The family with what its prior leaves open."""
        return self.family.resolve_prior(self.bound.center, lambda: self._covariance(rows), self.n_components)

    def _covariance(self, data: Data) -> np.ndarray:
        """Covariance (D, D) of coded rows about the centre of the frame, in the units of the data."""
        unit = 1.0 / self.bound.scale
        return sum(self._scatter_of(block) for block in data) / data.total_weight * (unit[:, None] * unit)

    def common_term(self, components: Any, rows: Block) -> tuple[np.ndarray, float]:
        """Second moment (D, D) of the rows in the frame, and the quadratic term that all tied components share."""
        scatter = self._scatter_of(rows)
        root = components.precisions_cholesky / self.bound.scale[:, None]
        return scatter, 0.5 * float((root * (scatter @ root)).sum())

    def _scatter_of(self, block: Block) -> np.ndarray:
        """Second moment (D, D) of a block in the frame, computed once a block and frame."""
        return block.constant(("scatter", self.bound.rows.tobytes()), self._scatter)

    def _scatter(self, block: Block) -> np.ndarray:
        """Second moment (D, D) of the rows of a block in the frame: one sweep with a single state."""
        n_features = block.X.shape[1]
        theta = np.zeros((1, n_statistics(FULL, n_features)))
        sums = self._sweep(block, by_features(FULL, theta, n_features), SOFTMAX)[0]
        return unpack_second(sums[:, 1 + n_features :], n_features)[0]

    def first_moments(self, data: Data, rng: np.random.Generator) -> Any:
        """Moments under the first responsibilities."""
        rows = self.family.rows_of(data)
        n_features, k = rows.n_features, self.n_components
        feature_map, theta = self._first_states(n_features)
        blocks: Callable[[], Iterable[Block]]
        if self.n_states > 1 and isinstance(self.start, str) and self.start != "random":
            n_threads = use_threads(self.n_threads)
            if self.family.is_coded:
                points, square = self._points(data, rng, n_threads)
                posterior, blocks = GIVEN, lambda: self._nearest_blocks(data, points, square)
            else:
                points = self._centers(self._filled(rows), self.bound.rows, rng, n_threads)
                theta[:k, 0] = -0.5 * (points**2).sum(axis=1)
                theta[:k, 1 : 1 + n_features] = points
                if self.family.n_noise:
                    square = square_radius(rows, self.bound.rows, points, _FIRST_NOISE, rng)
                    theta[k] = self.family.start_row(n_features, feature_map, square)
                posterior, blocks = HARD, lambda: iter(rows)
        else:
            seed = int(rng.integers(2**63))
            posterior, blocks = GIVEN, lambda: self._given_blocks(rows, seed)
        moments = self._moments_under(blocks, theta, feature_map, posterior)
        if self.family.n_noise and moments.counts[k] == 0.0:  # a weight of 0 would stay
            counts = (1.0 - _FIRST_NOISE) * moments.counts
            counts[k] = _FIRST_NOISE * moments.counts.sum()
            moments = moments._replace(counts=counts)
        return moments

    def _centers(self, data: Data, frame: np.ndarray, rng: np.random.Generator, n_threads: int) -> np.ndarray:
        """Centres (K, S) in a frame; those that are known are where the others begin."""
        return centers(self.start, data, frame, self.n_components, rng, n_threads, self.seeds)

    def _points(self, data: Data, rng: np.random.Generator, n_threads: int) -> tuple[np.ndarray, float]:
        """Centres (K, S) among the positions of coded rows, from some of them if there are many.

        And the squared distance from which on rows are noise.
        """
        n_rows = 2 * self.sample_size(data)
        sample = data.take(data.draw(n_rows, rng)) if n_rows < data.n_counting else data.whole()
        places = self._lying(sample.blocks[0])
        frame = np.stack([np.zeros(places.X.shape[1]), np.ones(places.X.shape[1])])
        points = self._centers(Data([places]), frame, rng, n_threads)
        square = square_radius(Data([places]), frame, points, _FIRST_NOISE, rng) if self.family.n_noise else math.inf
        return points, square

    def _nearest_blocks(self, data: Data, points: np.ndarray, square: float) -> Iterator[Block]:
        """Blocks of coded rows whose weights are those of the rows, in the column of the nearest centre (K, S).

        Or in that of the noise, if that is farther, squared, than the last.
        """
        half = 0.5 * (points**2).sum(axis=1)
        for block in data:
            parts = [block]
            if len(block.X) > _CODED_ROWS:  # nothing of these is kept
                parts = [block.part(i, i + _CODED_ROWS) for i in range(0, len(block.X), _CODED_ROWS)]
            for part in parts:
                resp = self._by_nearest(self._lying(part).X, points, half, square, part)
                yield Block(self.family.rows(part).X, resp * part.counts[:, None])

    def _by_nearest(
        self, places: np.ndarray, points: np.ndarray, half: np.ndarray, square: float, block: Block
    ) -> np.ndarray:
        """Responsibilities (n, n_states) by nearest centre, among those that the labels of the rows allow."""
        away = half - np.einsum("ns,ks->nk", places, points)
        if self.family.n_noise:
            away = np.column_stack([away, 0.5 * (square - (places**2).sum(axis=1))])
        softness, k = self.family.softness, self.n_components
        if block.labels is not None:
            can = allowed(block.labels, self.n_states)
            away[~can] = math.inf
            equal = can[:, :k] / np.maximum(can[:, :k].sum(axis=1, keepdims=True), 1)
        else:
            equal = 1.0 / k
        labels = np.argmin(away, axis=1)
        resp = (labels[:, None] == np.arange(self.n_states)).astype(np.float64)
        softened = resp[:, :k] + softness * (equal - resp[:, :k])
        resp[:, :k] = np.where((labels < k)[:, None], softened, resp[:, :k])
        return resp

    def _lying(self, block: Block) -> Block:
        """Where coded rows lie, kept as long as the rows themselves: for a sample, on which many starts are made."""

        def derive(block: Block) -> Block:
            return block.holding(np.ascontiguousarray(self.family.positions(block.X, self.bound)))

        return block.derived(("places", type(self.family), self.family.overall.tobytes()), derive)

    def _filled(self, data: Data) -> Data:
        """The coded rows with something for every value that is missing, between which there are distances."""
        return data

    def _first_states(self, n_features: int) -> tuple[int, np.ndarray]:
        """Features that the first moments need, and parameters of 0."""
        feature_map = self.family.start_map
        return feature_map, np.zeros((self.n_states, n_statistics(feature_map, n_features)))

    def _moments_under(
        self, blocks: Callable[[], Iterable[Block]], theta: np.ndarray, feature_map: int, posterior: int
    ) -> Any:
        """Moments under given or nearest responsibilities, taken about their own means where sums would cancel."""
        layout = Layout(feature_map, np.arange(self.n_states), np.empty((0, 2, self.bound.center.size)))
        moments = self._collect(blocks(), theta, layout, posterior)
        about_means = self.family.about_means(moments, self.bound, feature_map)
        if about_means is None:
            return moments
        flat = np.zeros_like(theta)
        if self.family.n_noise:  # the first state, which is not whitened
            flat[0, 0] = theta[-1, 0]
        return self._collect(blocks(), flat, about_means, posterior)

    def _given_blocks(self, data: Data, seed: int) -> Iterator[Block]:
        if isinstance(self.start, str):
            return random_blocks(data, self.n_states, seed)
        resp = check_resp(self.start, data.n_samples, self.n_components, self.family.n_noise)
        return given_blocks(data, resp, self.n_states)

    def _collect(self, blocks: Iterable[Block], theta: np.ndarray, layout: Layout, posterior: int) -> Any:
        states = States(
            layout.feature_map, theta, len(layout.whitener), layout.whitener, np.zeros(len(layout.whitener))
        )
        sums = np.zeros(theta.shape)
        for block in blocks:
            if posterior == GIVEN:
                if self.family.n_noise:  # responsibilities are by component, states in the order of the layout
                    block = block.weighing(np.ascontiguousarray(block.weight[:, layout.order]))
                sums = sums + self._sweep(block, states, posterior)[0]
                continue
            part, _ = self._by_label(
                block,
                lambda rows, chosen: self._sweep(rows, some(states, chosen), posterior)[:2],
                layout.order,
            )
            sums = sums + part
        return self.family.moments(sums, np.empty((0, 0)), layout, self.bound)


def as_kernel_rows(X: np.ndarray, allow_nan: bool = False) -> np.ndarray:
    """Rows in the form that kernels take, checked only if they are not in it."""
    if isinstance(X, np.ndarray) and X.ndim == 2 and X.flags.c_contiguous and X.dtype in (np.float32, np.float64):
        return X
    return as_rows(X, allow_nan=allow_nan)


def check_weights(name: str, weights: Any, n_components: int) -> np.ndarray:
    """Return a float64 copy of component weights that sum to 1."""
    weights = finite_array(name, weights, 1)
    if weights.shape != (n_components,):
        raise ValueError(f"{name} has shape {weights.shape}; ({n_components},) is needed")
    if (weights < 0).any() or not np.isclose(weights.sum(), 1.0, rtol=0, atol=1e-8):
        raise ValueError(f"{name} must be non-negative and sum to 1; they sum to {weights.sum():.10g}")
    return weights
