"""What mixtures and hidden Markov models ask of the distribution of their components.

Rows come to a family as blocks and go to the kernels as coded rows, which `rows` makes of them. A frame says where the
kernels see these: (coded - center) * scale. The expected statistics of a sweep under some parameters become moments, a
NamedTuple whose first field is `counts`, the weight of each component; moments do not depend on parameters or frames.
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fastem.data import SMALLEST, Block, Data, Derived, Summary

GUARD_ROWS = 0.01  # that the prior of a race is worth
_TINY = np.finfo(np.float64).tiny
_EPS = {np.dtype(dtype): float(np.finfo(dtype).eps) for dtype in (np.float32, np.float64)}


class Frame(NamedTuple):
    """Where the kernels see the data: (x - center) * scale; the scales are powers of two, so that undoing is exact."""

    center: np.ndarray  # (D,)
    scale: np.ndarray  # (D,)
    reach: np.ndarray  # (D,) largest |coordinate|, in the frame
    deviation: np.ndarray  # (D,) of all rows, in the frame
    granule: np.ndarray  # (D,) rounding of the data, in their own units
    rows: np.ndarray  # (2, D) center and scale, as kernels take them
    dtype: np.dtype  # of the data, and of the products if they can bear it

    @classmethod
    def around(cls, summary: Summary, deviation: np.ndarray, dtype: np.dtype) -> "Frame":
        """Frame about the mean of the rows, in units of about some deviations (D,).

        Centre and scale are numbers of the rows' dtype, and scales powers of two, so that rows are rounded once.
        """
        center = summary.mean.astype(dtype).astype(np.float64)
        exponents = np.round(np.log2(np.where(deviation > _TINY, deviation, 1.0)))
        scale = np.exp2(-np.clip(exponents, -126, 126) if dtype == np.float32 else -exponents)
        granule = _EPS[np.dtype(dtype)] * summary.magnitude
        reach, rows = summary.reach * scale, np.stack([center, scale])
        return cls(center, scale, reach, np.sqrt(summary.variance) * scale, granule, rows, dtype)


class Layout(NamedTuple):
    """Which components a sweep takes by features and which by whitening; the thin components come last.

    The dtype of the whitener is that of the products.
    """

    feature_map: int
    order: np.ndarray  # (K,) component of each row of theta
    whitener: np.ndarray  # (n_thin, D + 1 or 2, D)


class Family:
    """What a family may leave as it is. `components` are its parameters, a NamedTuple of arrays.

    Beside these it has `feature_map`, `start_map`, `layout`, `natural`, `moments`, `maximize`, `check_params`, `keep`,
    `blend`, `recall`, `resumed`, `expected_log_densities`, `pack`, `unpack`, `score`, `estimands`, `log_densities`,
    `n_parameters`, `n_columns` and `sample`, as `exponential.Exponential` and `gaussian.Gaussian` have them.
    """

    prior: Any = None
    held: Any = None  # parameters that stay as they are, a `held.Held`
    frozen_fields: Any = ()  # those that may; `held.Freezable` has what else that takes
    n_noise: ClassVar[int] = 0  # states of a sweep beside those of the components: see `noise.WithNoise`
    # Between the values that a column can have: 1 for counts, 0 for real numbers; None where they have no order.
    spacing: ClassVar[float | None] = 0.0
    takes_missing: ClassVar[bool] = False  # whether NaN in a row is a value that is missing
    completes: ClassVar[bool] = False  # whether such rows are completed by regression: `in_frame`, `in_form`
    has_moving_frame: ClassVar[bool] = False  # whether the frame follows a stream: `fits`, `reframed`
    is_coded: ClassVar[bool] = False  # whether `rows` are other than the rows themselves
    is_tabled: ClassVar[bool] = False  # whether rows can be codes, whose scores are looked up: `tables.Tabled`
    softness: ClassVar[float] = 0.0  # of responsibilities by nearest centres: how far they go to equal ones
    more_starts: ClassVar[tuple[str, ...]] = ()  # kinds that take turns with the others in a race
    has_distances: Any = (
        False  # whether scores are a constant less half a squared distance, so that pairs can be skipped
    )

    @property
    def core(self) -> Any:
        """The family of the components, without what is beside it."""
        return self

    def rules(self, n_components: int, frame: Frame, extra_rows: float) -> Any:
        """Return the `kernels.steps.Rules` of several steps of EM in one kernel; None where there is no such kernel."""
        return None

    def seeing(self, data: Data) -> "Family":
        """Return the family with all that it must know of the data to code rows; refuses values it cannot have."""
        return self

    def rows(self, block: Block) -> Block:
        """Return the rows as kernels take them."""
        return block

    def rows_of(self, data: Data) -> Data:
        """Return all rows as kernels take them."""
        return data if type(self).rows is Family.rows else Derived(data, self.rows)

    def frame(self, summary: Summary, dtype: np.dtype) -> Frame:
        """Return centre and scale that suit the coded rows."""
        return Frame.around(summary, np.sqrt(summary.variance), dtype)

    def frame_of(self, rows: Data) -> Frame:
        """Return centre and scale that suit the coded rows, of which all are given."""
        summary = rows.summary
        tiny = (summary.reach > 0) & (summary.variance < SMALLEST**2)
        if tiny.any():
            column = int(np.flatnonzero(tiny)[0])
            raise ValueError(
                f"column {column} of X varies by {summary.reach[column]:.3g} only: its variance underflows; rescale it"
            )
        return self.frame(summary, rows.dtype)

    def positions(self, X: np.ndarray, frame: Frame) -> np.ndarray:
        """Return where rows lie (n, S), in units in which columns are alike; for distances."""
        return (X - frame.center) * frame.scale

    def recalled(self, weights: np.ndarray, params: Any) -> "Family":
        """Return the family with what parameters tell of rows that it has not seen."""
        return self

    def under_prior_of(self, other: "Family") -> "Family":
        """Return another family of the kind, with what this one knows of the data that parameters do not tell."""
        return other

    def widened(self, block: Block) -> "Family":
        """Return the family with what a block of a stream shows for the first time."""
        return self

    def impossible(self, params: Any, possible: np.ndarray, X: np.ndarray) -> np.ndarray | None:
        """Return which rows (n,) have density 0 under every component that is possible (K,), or None if none has."""
        return None

    def is_finite(self, params: Any) -> bool:
        """Return whether every number is finite."""
        return all(np.isfinite(part).all() for part in params)

    def are_sound(self, params: Any, moments: Any, n_components: int, n_features: int) -> bool:
        """Return whether parameters and moments, read from a file, are what kernels may be given."""
        raise NotImplementedError

    def needs_scatter(self, layout: Layout) -> bool:
        """Whether the second moment of all rows is to be added to the statistics of a sweep."""
        return False

    def about_means(self, moments: Any, frame: Frame, feature_map: int) -> Layout | None:
        """Layout that takes every sum about the means of `moments`, or None if sums about the frame are as good."""
        return None

    def rescaled(self, moments: Any, params: Any) -> Any:
        """Moments, found under the parameters, from which an M-step of batch EM goes farther; see `StudentT`."""
        return moments

    def resolve_prior(self, mean: np.ndarray, covariance: Callable[[], np.ndarray], n_components: int) -> Any:
        """Return the family with what its prior leaves open, from the mean and covariance of the coded rows."""
        return self

    def guarded(self, mean: np.ndarray, covariance: Callable[[], np.ndarray], unit: float) -> Any:
        """Return the family, unless it has a prior, under a weak one at the mean and covariance of the coded rows.

        A row weighs `unit`.
        """
        return self

    def log_prior(self, components: Any) -> float:
        """Return the log-density of the prior, up to a constant."""
        return 0.0

    def holding(self, held: Any) -> Any:
        """Return the family whose M-steps leave some parameters as they are."""
        assert held is None
        return self

    def put(self, components: Any) -> Any:
        """Return the components with what is held in its place."""
        return components

    def told(self, n_components: int) -> np.ndarray:
        """Which components (K,) need no rows to be estimated."""
        return np.zeros(n_components, bool)

    def known_centers(self, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        """Return numbers (F,) of the components whose places are held, and these (F, S) among the positions of rows."""
        return np.empty(0, np.int64), np.empty((0, 0))

    def n_frozen(self, n_features: int) -> int:
        """Return the number of parameters that are held."""
        return 0

    def fewest_rows(self, n_features: int) -> int:
        """Return how many rows a component takes to be estimated."""
        return 1

    def keep_moments(self, moments: Any, kept: np.ndarray) -> Any:
        """Return the moments of some of the components (k,) int; their counts sum to 1."""
        counts = moments.counts[kept]
        return type(moments)(counts / counts.sum(), *(part[kept] for part in moments[1:]))

    def births(self, moments: Any, weight: float, component: int, reservoir: Any) -> list[Any]:
        """Return moments, worth so much weight, with a component moved to where the model fits badly."""
        raise NotImplementedError


def are_arrays(
    *values: Any, of: tuple[int, ...], dtype: Any = np.float64, least: float = -np.inf, allow_nan: bool = False
) -> bool:
    """Return whether all are arrays of this shape and dtype, with finite values of at least so much."""
    return all(
        isinstance(value, np.ndarray)
        and value.dtype == dtype
        and value.shape == of
        and (np.isfinite(value) | (np.isnan(value) if allow_nan else False)).all()
        and (allow_nan or (value >= least).all())
        for value in values
    )
