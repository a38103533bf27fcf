"""Hidden Markov models over any family: a chain of states, each of which emits rows from a component or a few."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fastem.data import Block, Data, finite_array, is_integer, is_real
from fastem.families.family import GUARD_ROWS, Frame
from fastem.initialize import STARTS, TURNS, blocks_by_value, check_resp, grouped_centers, has_distinct
from fastem.kernels._jit import use_threads
from fastem.kernels.chain_plan import new_chain
from fastem.kernels.chain_sweep import chain_statistics
from fastem.kernels.sweep import SCORE
from fastem.kernels.tables import by_table
from fastem.models.hidden_markov_records import (
    HiddenMarkovParams,
    HiddenMarkovStats,
    log_dirichlet,
    mode,
    occupancy,
    pack_probabilities,
    score_probabilities,
    unpack_probabilities,
)
from fastem.models.hidden_markov_states import ChainStates
from fastem.models.hidden_markov_streams import ChainStreams
from fastem.models.mixture import Mixture, check_weights
from fastem.models.mixture_records import MixtureParams, log_of, same_bits
from fastem.protocol import DegenerateError
from fastem.sequences import Run, Sequences

_STICKY = 0.8  # probability of staying, in every other start of a race


@dataclass(frozen=True, eq=False)
class HiddenMarkov(ChainStates, ChainStreams):
    """Hidden Markov model of K states whose rows come from components of one family.

    The likelihood of a sequence x_1..x_T is the sum over all paths s of
    pi(s_1) b_{s_1}(x_1) prod_t A(s_{t-1}, s_t) b_{s_t}(x_t), with b_k(x) = sum_m w_km f(x; theta_km).

    Parameters
    ----------
    family : Family
        Of the emissions, such as `fastem.Gaussian()` or `fastem.Poisson()`.
    n_components : int, default=1
        Number of states K.
    n_mix : int, default=1
        Number of components M of each state.
    start : {'kmeans', 'k-means++', 'k-means||', 'ward', 'random_from_data', 'random'} or array-like, default='kmeans'
        How `initialize` finds the first emissions: rows are put to the nearest centre, whatever came before them; at
        random, each value of a row alike; or by labels (N,) or responsibilities (N, K) of the states that are given.
        With fewer distinct rows than components they are put at random. In a race 'kmeans' takes turns with others.
    startprob_init, transmat_init, weights_init : array-like of shape (K,), (K, K), (K, M), default=None
        Parameters that replace those of the start, which are uniform. What is 0 there stays 0, as in a chain that only
        goes from left to right.
    components_init : dict of str to array-like, default=None
        The same of the family, by the names of its parameters: `{'means': ...}`.
    startprob_concentration, transmat_concentration : float or array-like of shape (K,), (K, K), default=1.0
        Parameters, at least 1, of the Dirichlet priors of startprob and of each row of transmat; 1 is none.
    weight_concentration : float, default=1.0
        The same of the weights of the components of a state.
    n_threads : int, default=None
        None or -1: all that numba may use.

    References
    ----------
    Baum, Petrie, Soules & Weiss (1970), Ann. Math. Statist. 41, 164-171; Rabiner (1989), Proc. IEEE 77, 257-286.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.repeat([[0.0], [9.0], [1.0], [8.0]], 5, axis=0) + np.tile([[0.0], [0.5]], (10, 1))
    >>> data = fastem.Sequences(X, lengths=[10, 10])
    >>> result = fastem.fit(fastem.HiddenMarkov(fastem.Gaussian("tied"), 2), data, random_state=0)
    >>> np.sort(result.params.components.means.ravel()).round(2)
    array([0.7, 8.8])
    """

    family: Any
    n_components: int = 1
    n_mix: int = 1
    start: Any = "kmeans"
    startprob_init: Any = None
    transmat_init: Any = None
    weights_init: Any = None
    components_init: Any = None
    startprob_concentration: Any = 1.0
    transmat_concentration: Any = 1.0
    weight_concentration: float = 1.0
    n_threads: int | None = None
    frame: Frame | None = field(default=None, repr=False)
    mean_length: float = field(default=1.0, repr=False)  # of a sequence
    is_sticky: bool = field(default=False, repr=False)  # whether the chain starts with states that last

    def __post_init__(self):
        emissions = self.emissions  # checks what it has of these
        if self.family.n_noise or self.family.held is not None:
            raise ValueError("noise and frozen parameters are for fastem.Mixture; give a family without them")
        for name in ("n_components", "n_mix"):
            if not is_integer(getattr(self, name), 1):
                raise ValueError(f"{name} must be an integer of at least 1; got {getattr(self, name)!r}")
            object.__setattr__(self, name, int(getattr(self, name)))
        object.__setattr__(self, "weight_concentration", emissions.weight_concentration)
        if not (isinstance(self.start, str) or self.n_mix == 1):
            raise ValueError(
                "start gives the states of rows, which do not tell the n_mix components of each; use a name"
            )

    @property
    def emissions(self) -> "Emissions":
        """The components of all states as a mixture: what the model asks of rows without regard to their order."""
        n_components = self.n_components
        if is_integer(self.n_components, 1) and is_integer(self.n_mix, 1):
            n_components = self.n_components * self.n_mix
        return Emissions(
            self.family,
            n_components,
            start=self.start,
            weight_concentration=self.weight_concentration,
            n_threads=self.n_threads,
            frame=self.frame,
            n_groups=self.n_components,
        )

    @property
    def bound(self) -> Frame:
        """The frame, which `prepare` takes from the data."""
        return self.emissions.bound if self.frame is None else self.frame

    @property
    def takes_missing(self) -> bool:
        """Whether NaN among other values of a row are values that are missing; whole rows always may be."""
        return self.family.takes_missing

    # the protocol

    @same_bits
    def prepare(self, data: Sequences) -> "HiddenMarkov":
        """Take the frame and the defaults of priors from the data; check the start against them."""
        if not isinstance(data, Sequences):
            raise TypeError(
                "a hidden Markov model is fitted to sequences; give fastem.Sequences(X, lengths) for the data"
            )
        if data.n_counting < self.n_components:
            raise DegenerateError(
                f"X has {data.n_counting} observed row(s) for n_components={self.n_components}; use fewer components"
            )
        if not isinstance(self.start, str):
            check_resp(self.start, data.n_samples, self.n_components)
        elif self.start not in STARTS:
            raise ValueError(f"start must be one of {list(STARTS)}, labels or responsibilities; got {self.start!r}")
        if not self.takes_missing:
            data.refuse_gaps()
        model, rows = self._with_checked_start(), data.unordered()
        emissions = replace(model.emissions, family=model.family.seeing(rows)).framed_by(rows)
        return replace(model, family=emissions.family, frame=emissions.frame, mean_length=data.mean_length)

    def check_params(self, params: HiddenMarkovParams) -> HiddenMarkovParams:
        """Return start parameters after checking shapes, finiteness and sign."""
        if not isinstance(params, HiddenMarkovParams):
            raise TypeError(f"start must be HiddenMarkovParams; got {type(params).__name__}")
        startprob, transmat, weights = self._checked_chain("start.", *params[:3])
        components = self.family.check_params(params.components, self.n_components * self.n_mix, self.bound)
        return HiddenMarkovParams(startprob, transmat, weights, components)

    @same_bits
    def initialize(self, data: Sequences, rng: np.random.Generator) -> HiddenMarkovParams:
        """Start parameters: an M-step on the first responsibilities, then whatever was given explicitly."""
        n_states, n_mix = self.n_components, self.n_mix
        uniform = np.full((n_states, n_states), 1.0 / n_states)
        if self.is_sticky and n_states > 1:
            uniform = _STICKY * np.eye(n_states) + (1.0 - _STICKY) / (n_states - 1) * (1.0 - np.eye(n_states))
        startprob = np.full(n_states, 1.0 / n_states) if self.startprob_init is None else self.startprob_init
        transmat = uniform if self.transmat_init is None else self.transmat_init
        weights = np.full((n_states, n_mix), 1.0 / n_mix)
        given, fields = self._given, fields_of(self.family)
        if set(fields) <= set(given):
            components = self.family.Params(*(given.get(name) for name in self.family.Params._fields))
        else:
            moments = self.emissions.first_moments(data.unordered(), rng)
            weights = mode(moments.counts.reshape(n_states, n_mix), self._extras[2], weights)
            components = self.family.maximize(moments, None, self.bound.granule)._replace(**given)
        if given:
            components = self.family.check_params(components, n_states * n_mix, self.bound)
        weights = weights if self.weights_init is None else self.weights_init
        return HiddenMarkovParams(startprob, transmat, weights, components)

    @same_bits
    def e_step(self, params: HiddenMarkovParams, block: Run) -> HiddenMarkovStats:
        """One fused pass over the sequences of a block."""
        if not isinstance(block, Run):
            raise TypeError("a hidden Markov model takes sequences; give fastem.Sequences(X, lengths) for the data")
        family, scatter, half_trace = self.family, np.empty((0, 0)), 0.0
        log_weights = log_of(params.weights.ravel())
        if family.is_tabled:
            rows = family.codes(block, in_order=True)
            states = by_table(family.table(params.components, log_weights, family.missing))
            order = np.arange(len(log_weights))
        else:
            rows = family.rows(block)
            layout = family.layout(params.components, self.bound)
            states, order = family.natural(params.components, log_weights, layout, self.bound), layout.order
            if family.needs_scatter(layout):
                scatter, half_trace = self.emissions.common_term(params.components, rows)
        chain = new_chain(params.startprob, params.transmat, order // self.n_mix)
        sums, transitions, starts, log_likelihood, n_impossible, _ = chain_statistics(
            rows.X,
            rows.weight,
            self.bound.rows,
            states,
            chain,
            block.offsets,
            block.sequence_weight,
            use_threads(self.n_threads),
        )
        if family.is_tabled:
            sums = family.sums_of(sums)
        log_likelihood -= half_trace
        if n_impossible:
            log_likelihood = -math.inf
        return HiddenMarkovStats(block.total_weight, log_likelihood, starts, transitions, sums, scatter)

    @same_bits
    def m_step(self, stats: HiddenMarkovStats, params: HiddenMarkovParams) -> HiddenMarkovParams:
        """Posterior mode given the statistics of `params`; a state that was never visited keeps what it has."""
        moments = self.family.rescaled(self._moments(stats, params), params.components)
        return self._maximized(stats.starts, stats.transitions, moments, params)

    @same_bits
    def log_prior(self, params: HiddenMarkovParams) -> float:
        """Log-density of the prior, up to a constant."""
        total = self.family.log_prior(params.components)
        for extra, probabilities in zip(self._extras, params[:3], strict=True):
            total += log_dirichlet(extra, probabilities)
        return total

    def sample_size(self, data: Data) -> int:
        """Rows that tell starts apart."""
        return self.emissions.sample_size(data)

    @same_bits
    def guarded(self, sample: Sequences) -> "HiddenMarkov":
        """Return the model under a weak prior of what may collapse, or become 0 on a sample and then stay so."""
        unit = sample.total_weight / sample.n_counting  # weights may be on any scale
        family = self.emissions.guarded(sample.unordered()).family
        given = zip(self._extras[:2], (self.startprob_init, self.transmat_init), strict=True)
        startprob, transmat = (  # with its mode at what was given: nothing becomes other than 0 there, or is forgotten
            extra + GUARD_ROWS * unit * (1.0 if init is None else self.n_components * np.asarray(init))
            for extra, init in given
        )
        return replace(
            self,
            family=family,
            startprob_concentration=1.0 + startprob,
            transmat_concentration=1.0 + transmat,
            weight_concentration=self.weight_concentration + GUARD_ROWS * unit,
        )

    def entrant(self, number: int) -> "HiddenMarkov":
        """Return the model that makes start `number` of a race: kinds of start take turns, and chains that last."""
        if not isinstance(self.start, str):
            raise ValueError("start gives one start for all rows, so that none can race; use n_race=0")
        turns = (*TURNS, *self.family.more_starts) if self.start == "kmeans" else (self.start,)
        return replace(self, start=turns[number % len(turns)], is_sticky=number // len(turns) % 2 == 1)

    def n_parameters(self, n_features: int) -> int:
        """Number of free parameters; of a chain, those that are not given as 0."""
        n_states = self.n_components
        chain = (n_states + 1) * (n_states - 1)
        if self.startprob_init is not None:
            chain -= int(np.sum(np.asarray(self.startprob_init) == 0))
        if self.transmat_init is not None:
            chain -= int(np.sum(np.asarray(self.transmat_init) == 0))
        return chain + n_states * (self.n_mix - 1) + self.family.n_parameters(n_states * self.n_mix, n_features)

    def is_spurious(self, params: HiddenMarkovParams, n_rows: int) -> bool:
        """Return whether a component counts fewer rows than it takes to estimate it."""
        shares = occupancy(params.startprob, params.transmat, self.mean_length)[:, None] * params.weights
        return bool((shares * n_rows < self.family.fewest_rows(self.bound.center.size)).any())

    def pack(self, params: HiddenMarkovParams) -> np.ndarray:
        """Coordinates: roots of the probabilities, then those of the family in the frame."""
        chain = [pack_probabilities(part) for part in params[:3]]
        return np.concatenate([*chain, self.family.pack(params.components, self.bound)])

    @same_bits
    def unpack(self, vector: np.ndarray) -> HiddenMarkovParams:
        """Parameters at these coordinates."""
        n_states, n_mix = self.n_components, self.n_mix
        parts, first = [], 0
        for shape in ((n_states,), (n_states, n_states), (n_states, n_mix)):
            last = first + math.prod(shape)
            parts.append(unpack_probabilities(vector[first:last], shape))
            first = last
        if not (np.isfinite(vector).all() and all(np.isfinite(part).all() for part in parts)):
            raise DegenerateError("the coordinates overflow")
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            components = self.family.unpack(vector[first:], n_states * n_mix, self.bound)
        if not self.family.is_finite(components):
            raise DegenerateError("the coordinates overflow")
        startprob, transmat, weights = parts
        return HiddenMarkovParams(startprob, transmat, weights, components)

    @same_bits
    def score(self, stats: HiddenMarkovStats, params: HiddenMarkovParams) -> np.ndarray:
        """Gradient of the log-likelihood of the rows in the coordinates of `pack`, at the parameters of the stats."""
        moments = self._moments(stats, params)
        counts = moments.counts.reshape(params.weights.shape)
        chain = zip((stats.starts, stats.transitions, counts), params[:3], strict=True)
        family = self.family.score(params.components, moments, self.bound)
        return np.concatenate([*(score_probabilities(*pair) for pair in chain), family])

    def estimands(self, params: HiddenMarkovParams) -> dict[str, np.ndarray]:
        """Return what standard errors are given for."""
        named = {"startprob": params.startprob, "transmat": params.transmat}
        if self.n_mix > 1:
            named["weights"] = params.weights
        return {**named, **self.family.estimands(params.components)}

    def in_double(self) -> "HiddenMarkov":
        """Return the same model with products in float64, whatever the rows are."""
        return replace(self, frame=self.bound._replace(dtype=np.dtype(np.float64)))

    # inside

    def _moments(self, stats: HiddenMarkovStats, params: HiddenMarkovParams) -> Any:
        """Moments of the components from the statistics of these parameters."""
        layout = self.family.layout(params.components, self.bound)
        return self.family.moments(stats.sums, stats.scatter, layout, self.bound)

    def _maximized(
        self, starts: np.ndarray, transitions: np.ndarray, moments: Any, params: HiddenMarkovParams, fewest: float = 0.0
    ) -> HiddenMarkovParams:
        counts = moments.counts.reshape(params.weights.shape)
        parts = zip((starts, transitions, counts), self._extras, params[:3], strict=True)
        startprob, transmat, weights = (mode(*part) for part in parts)
        components = self.family.maximize(moments, params.components, self.bound.granule, fewest)
        return HiddenMarkovParams(startprob, transmat, weights, components)

    @property
    def _extras(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Parameters of the Dirichlet priors, less 1, of startprob (K,), transmat (K, K) and weights (K, M)."""
        n_states = self.n_components
        return (
            np.broadcast_to(np.asarray(self.startprob_concentration, dtype=np.float64) - 1.0, (n_states,)),
            np.broadcast_to(np.asarray(self.transmat_concentration, dtype=np.float64) - 1.0, (n_states, n_states)),
            np.broadcast_to(np.float64(self.weight_concentration - 1.0), (n_states, self.n_mix)),
        )

    def _blas_work(self, about: Any) -> int:
        """Multiply-adds of the largest product that these data, parameters or statistics lead to."""
        if isinstance(about, HiddenMarkovParams):
            n_features = self.family.n_columns(about.components)
        else:
            n_features = about.n_features if isinstance(about, Data) else self.bound.center.size
        size = max(n_features, self.n_components * self.n_mix)
        return size * max(n_features, self.n_components) ** 2

    def _with_checked_start(self) -> "HiddenMarkov":
        """Copy whose explicit start parameters and priors are checked arrays."""
        n_states = self.n_components
        for name, shape in (("startprob_concentration", (n_states,)), ("transmat_concentration", (n_states, n_states))):
            value = getattr(self, name)
            if is_real(value, 1.0):
                continue
            value = np.asarray(value, dtype=np.float64)
            if value.shape != shape or not (np.isfinite(value) & (value >= 1.0)).all():
                raise ValueError(
                    f"{name} must be a finite number of at least 1, or an array {shape} of them (below, the mode lies "
                    f"on the boundary); got {getattr(self, name)!r}"
                )
        given = self.startprob_init, self.transmat_init, self.weights_init
        startprob, transmat, weights = self._checked_chain("", *given, suffix="_init")
        for name, init, extra in zip(("startprob", "transmat", "weights"), given, self._extras, strict=True):
            if init is not None and ((np.asarray(init) == 0) & (extra > 0)).any():
                raise ValueError(
                    f"{name}_init is 0 where its prior is above 1, under which nothing stays 0; give an array of "
                    f"concentrations that is 1 there"
                )
        return replace(self, startprob_init=startprob, transmat_init=transmat, weights_init=weights)

    def _checked_chain(self, prefix: str, startprob: Any, transmat: Any, weights: Any, suffix: str = "") -> tuple:
        """Return the probabilities that are given, checked, and None for others."""
        n_states = self.n_components
        if startprob is not None:
            startprob = check_weights(f"{prefix}startprob{suffix}", startprob, n_states)
        if transmat is not None:
            transmat = check_rows_of(f"{prefix}transmat{suffix}", transmat, (n_states, n_states))
        if weights is not None:
            weights = check_rows_of(f"{prefix}weights{suffix}", weights, (n_states, self.n_mix))
        return startprob, transmat, weights

    @property
    def _given(self) -> dict[str, Any]:
        """Parameters of the components that are given, by their names."""
        given = self.components_init
        if given is None:
            return {}
        if not isinstance(given, dict):
            given = {name: part for name, part in given._asdict().items() if part is not None}
        if unknown := set(given) - set(self.family.Params._fields):
            raise ValueError(
                f"components_init has {sorted(unknown)}; the parameters of the family are {fields_of(self.family)}"
            )
        return given


@dataclass(frozen=True, eq=False)
class Emissions(Mixture):
    """The components of all states as a mixture, which begins with those of a state together."""

    n_groups: int = 1

    def first_moments(self, data: Data, rng: np.random.Generator) -> Any:
        """Moments under the first responsibilities; by chance if fewer rows are distinct than there are components."""
        if isinstance(self.start, str) and not has_distinct(self.family.rows_of(data), self.n_components):
            return Mixture.first_moments(replace(self, start="random"), data, rng)
        return super().first_moments(data, rng)

    def scores(self, params: MixtureParams, X: np.ndarray) -> np.ndarray:
        """Log-density (N, K) of each row in each component, with the logarithm of its weight."""
        scores = self._score(params, X, SCORE)
        for k in range(self.n_components):
            impossible = self.family.impossible(params.components, np.arange(self.n_components) == k, X)
            if impossible is not None:
                scores[impossible, k] = -np.inf
        return scores

    def _centers(self, data: Data, frame: np.ndarray, rng: np.random.Generator, n_threads: int) -> np.ndarray:
        shape = self.n_groups, self.n_components // self.n_groups
        return grouped_centers(self.start, data, frame, shape, rng, n_threads)

    def _given_blocks(self, data: Data, seed: int) -> Iterator[Block]:
        if isinstance(self.start, str) and self.n_components > 1:
            return blocks_by_value(data, self.n_components, seed)
        return super()._given_blocks(data, seed)


def fields_of(family: Any) -> list[str]:
    """Names of the parameters that are given; the roots of covariances follow from these."""
    return [name for name in family.Params._fields if name != "precisions_cholesky"]


def check_rows_of(name: str, matrix: Any, shape: tuple[int, int]) -> np.ndarray:
    """Return a float64 copy of a matrix whose rows are probabilities."""
    matrix = finite_array(name, matrix, 2)
    if matrix.shape != shape:
        raise ValueError(f"{name} has shape {matrix.shape}; {shape} is needed")
    sums = matrix.sum(axis=1)
    if (matrix < 0).any() or not np.allclose(sums, 1.0, rtol=0, atol=1e-8):
        row = int(np.argmax((matrix < 0).any(axis=1) | (np.abs(sums - 1.0) > 1e-8)))
        raise ValueError(f"{name}[{row}] must be non-negative and sum to 1; its entries sum to {sums[row]:.10g}")
    return matrix
