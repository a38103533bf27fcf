"""What a driver knows of a model: the protocol, the algebra of statistics, the outcome of a fit."""

import enum
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import numpy as np

Params = Any  # a NamedTuple of arrays, never mutated
Stats = Any  # a NamedTuple whose every field is additive over rows


class Status(enum.Enum):
    """Why a fit ended; the value is the message."""

    CONVERGED = "converged: the objective gains less than tol"
    MAX_ITER = "max_iter was reached before the objective settled"
    CALLBACK = "a callback asked to stop"
    EPOCHS = "n_epochs passes were made"
    MAX_TIME = "max_time was reached before the objective settled"
    INTERRUPTED = "interrupted; the best parameters so far were kept"
    STREAMED = "learned from a stream, which does not end"
    NOT_ITERATED = "the parameters were given, not fitted"

    def __reduce_ex__(self, protocol):
        """Pickle by name, so that messages may be reworded."""
        return getattr, (Status, self.name)


class DegenerateError(ValueError):
    """There is no finite maximum where this start leads: a component collapses, or rows are too few."""


class Result(NamedTuple):
    """Outcome of a fit.

    Attributes
    ----------
    params : Params
        Parameters after the last M-step.
    log_likelihood : float
        Total log-likelihood of the parameters that entered the last M-step. EM never lowers it, so `params` reach
        at least this; their own value would cost one more pass.
    history : ndarray of shape (n_accepted,)
        Objective, log-likelihood plus log-prior, that entered each M-step: one for each iteration, less the leaps of
        an acceleration that were refused.
    n_iter : int
        E-steps done from the start that was kept.
    status : Status
    model : Model
        The model as prepared for the data.
    """

    params: Params
    log_likelihood: float
    history: np.ndarray
    n_iter: int
    status: Status
    model: "Model"


class Iteration(NamedTuple):
    """What a callback sees after each E-step."""

    start: int  # number of the start, from 0
    n_iter: int  # from 1
    params: Params  # the parameters that the objective belongs to
    objective: float  # total
    change: float  # gain of the objective since the iteration before, per unit of weight; inf at first


class Model(Protocol):
    """A latent-variable model. `stats.log_likelihood` belongs to the params that went in."""

    def prepare(self, data: Any) -> "Model":
        """Return the model with all that it takes from the whole data, once: scales, defaults of priors."""

    def check_params(self, params: Params) -> Params:
        """Return parameters that a user gave as a start, after checking them."""

    def initialize(self, data: Any, rng: np.random.Generator) -> Params:
        """Return start parameters."""

    def e_step(self, params: Params, block: Any) -> Stats:
        """Return the expected statistics of a block; fields `weight` and `log_likelihood` are always there."""

    def m_step(self, stats: Stats, params: Params) -> Params:
        """Return the parameters that maximise the expected objective; raises DegenerateError if there are none."""

    def log_prior(self, params: Params) -> float:
        """Return the log-density of the prior up to a constant; 0 without one."""


class Constrained(Model, Protocol):
    """A model some of whose parameters may be frozen."""

    def holding(self, params: Params | None) -> "Constrained":
        """Return the model that keeps what is frozen as it is in the parameters, unless it has values for that."""


class Ascent(NamedTuple):
    """Several steps of EM.

    Attributes
    ----------
    weight : float
        Total weight of the rows.
    log_likelihoods, objectives : ndarray of shape (n_steps,)
        Of the parameters that entered each step; the objectives with the log-prior.
    point : callable
        Returns the parameters after so many steps.
    pause : int
        Single steps to take before more are worth asking for, if there were fewer than wanted; at least one if none.
    """

    weight: float
    log_likelihoods: np.ndarray
    objectives: np.ndarray
    point: Callable[[int], Params]
    pause: int


class Brisk(Model, Protocol):
    """A model that makes several steps at once, where calls take long beside their work."""

    def several_steps(self, params: Params, data: Any, n_steps: int) -> Ascent | None:
        """Return up to n_steps steps, with the bits of single ones: fewer, or none, before one that is not plain.

        None where single steps are as good, whatever the parameters.
        """


class Charted(Model, Protocol):
    """A model whose parameters have coordinates, as accelerations and standard errors need them."""

    def pack(self, params: Params) -> np.ndarray:
        """Return free coordinates (p,) of comparable scale: any vector of them is a parameter."""

    def unpack(self, vector: np.ndarray) -> Params:
        """Return the parameters at these coordinates; raises DegenerateError if they overflow."""

    def score(self, stats: Stats, params: Params) -> np.ndarray:
        """Return the gradient (p,) of the log-likelihood at the params of the stats; for standard errors."""

    def estimands(self, params: Params) -> dict[str, np.ndarray]:
        """Return the quantities that have standard errors."""


class Streamed(Model, Protocol):
    """A model that learns from a stream: its statistics have a form in which those of different params can be mixed."""

    def condense(self, stats: Stats, params: Params) -> Any:
        """Return the statistics per unit of weight, in a form that does not depend on the params."""

    def blend(self, one: Any, two: Any, share: float) -> Any:
        """Return (1 - share) times the one and share times the other, as sums."""

    def maximize(self, expected: Any, weight: float, params: Params, unit: float) -> Params:
        """Return the M-step for statistics that are worth so much weight of rows.

        What too few rows tell stays as it is in the params; a row weighs `unit`, or nothing stays if that is 0.
        """

    def expected_log_likelihood(self, expected: Any, params: Params) -> float:
        """Return the expected log-likelihood of rows and what is hidden, per unit of weight: what `maximize` raises."""

    def framed(self, expected: Any, block: Any) -> "Streamed":
        """Return the model with all that it took from the whole data, and that moves with them, brought up to date."""

    def recall(self, params: Params, weight: float) -> Any:
        """Return statistics, per unit of weight, that are worth so much and of which the params are the maximum."""

    def resumed(self, params: Params, weight: float, dtype: np.dtype) -> "Streamed":
        """Return the model with all that it takes from the whole data, as far as the params tell it."""

    def start_rows(self, n_features: int) -> int:
        """Return the number of rows that the start of a stream takes."""

    def batch_rows(self, n_features: int) -> int:
        """Return the number of rows that make a step, unless the user gives one."""


class Renewed(Streamed, Protocol):
    """A model some of whose components may die in a stream, and others be born."""

    def log_densities(self, params: Params, X: np.ndarray) -> np.ndarray:
        """Return the log-density (n,) of each row."""

    def short_of_rows(self, expected: Any, weight: float, unit: float) -> np.ndarray:
        """Return the numbers of components that count too few rows, which weigh `unit`, to be estimated."""

    def without(self, expected: Any, params: Params, lost: np.ndarray) -> tuple["Renewed", Any, Params]:
        """Return model, statistics and parameters without some components; the last one stays."""

    def births(self, expected: Any, weight: float, component: int, reservoir: Any) -> Iterable[Any]:
        """Yield statistics with a component moved: to where most rows of a `drift.Reservoir` are, or to share others'.

        The first of them.
        """


class Raced(Model, Protocol):
    """A model whose starts can race on samples."""

    def sample_size(self, data: Any) -> int:
        """Return the number of rows that tell starts apart."""

    def guarded(self, sample: Any) -> "Raced":
        """Return the model under a prior that lets nothing gain by collapsing onto a few rows of a sample."""

    def entrant(self, number: int) -> "Model":
        """Return the model that makes start `number`, from 0; raises ValueError if there is but one start.

        Starts that differ find more than many of one kind.
        """

    def n_parameters(self, n_features: int) -> int:
        """Return the number of free parameters."""

    def is_spurious(self, params: Params, n_rows: int) -> bool:
        """Return whether parameters owe their likelihood to a handful of so many rows."""

    def moves(self, params: Params, sample: Any) -> Iterable[Params]:
        """Yield parameters that EM cannot reach from these, the most promising first; for `split_merge` alone."""


def add_stats(parts: Iterable[Stats]) -> Stats:
    """Sum statistics field by field, in the order given."""
    total: Any = None
    for part in parts:
        total = part if total is None else type(part)(*(a + b for a, b in zip(total, part, strict=True)))
    if total is None:
        raise ValueError("data has no blocks; give at least one row")
    return total
