"""Student's t distribution: a normal whose precision varies from row to row, tau ~ gamma(nu / 2, nu / 2).

    log t(x; mu, Sigma, nu) = c(nu) + log|W| - (nu + D) / 2 log(1 + d / nu),    d = |W (x - mu)|^2
    E[tau | x] = (nu + D) / (nu + d),    Sigma = L L', W = L^-1

Peel & McLachlan (2000), Statistics and Computing 10, 339-348, sections 3 to 5. With that precision for the weight of a
row, locations and scale matrices follow as means and covariances of normal components do.
"""

import functools
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from scipy.special import digamma, gammaln

from fastem.data import finite_array, is_real
from fastem.families.family import Frame, Layout, are_arrays
from fastem.families.gaussian import Gaussian
from fastem.families.gaussian_records import GaussianParams, Moments
from fastem.families.held import Held, put_values, where
from fastem.families.student_t_records import (
    MOST_DEGREES,
    StudentTMoments,
    StudentTParams,
    log_peak,
    mean_log_precision,
    solve_degrees,
    weighed,
)
from fastem.kernels.features import n_statistics
from fastem.kernels.sweep import States
from fastem.protocol import DegenerateError

_TINY = np.finfo(np.float64).tiny
_LEAST_PRECISION = 1e-290  # of a row that is drawn: it stays finite
_BEYOND = 1.0  # coordinate of degrees of freedom on a bound, from the logarithm of the bound outwards


@dataclass(frozen=True, eq=False)
class StudentT(Gaussian):
    """Components of Student's t distribution, for rows with heavy tails and outliers.

    Parameters
    ----------
    covariance_type : str, default='full'
        Of the scale matrices; see `Gaussian`.
    reg_covar : float, default=0.0
        See `Gaussian`.
    prior : NormalInverseWishart, default=None
        Of locations and scale matrices, as if they were means and covariances. None: maximum likelihood.
    degrees_of_freedom : 'free', 'common' or float, default='free'
        Estimated for each component, estimated for all together, or known.
    first : float, default=10.0
        What they are estimated from.
    bounds : (float, float), default=(0.01, 1000.0)
        Between which degrees of freedom are estimated. Where the likelihood has no maximum in between, as for normal
        rows, they end on a bound.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.random.default_rng(0).standard_t(3.0, size=(5000, 1))
    >>> result = fastem.fit(fastem.Mixture(fastem.StudentT()), X, tol=1e-9, max_iter=200)
    >>> result.params.components.degrees_of_freedom.round(1)
    array([3.])
    """

    completes: ClassVar[bool] = False  # moments of completed rows are those of a normal
    degrees_of_freedom: Any = field(default="free", kw_only=True)
    first: float = field(default=10.0, kw_only=True)
    bounds: Any = field(default=(0.01, 1000.0), kw_only=True)
    Params: ClassVar[Any] = StudentTParams

    def __post_init__(self):
        super().__post_init__()
        degrees = self.degrees_of_freedom
        if isinstance(degrees, str):
            if degrees not in ("free", "common"):
                raise ValueError(f"degrees_of_freedom must be 'free', 'common' or a positive number; got {degrees!r}")
        elif not (is_real(degrees, 0.0) and degrees > 0):
            raise ValueError(f"degrees_of_freedom must be 'free', 'common' or a positive number; got {degrees!r}")
        if not (is_real(self.first, 0.0) and self.first > 0):
            raise ValueError(f"the first degrees of freedom must be a positive number; got {self.first!r}")
        bounds = self.bounds
        if not (isinstance(bounds, tuple | list) and len(bounds) == 2 and all(is_real(bound, 0.0) for bound in bounds)):
            raise ValueError(f"bounds of the degrees of freedom must be two numbers; got {bounds!r}")
        if not 0.0 < bounds[0] <= bounds[1] <= MOST_DEGREES:
            raise ValueError(
                f"bounds of the degrees of freedom must be 0 < low <= high <= {MOST_DEGREES:g}; got {bounds!r}"
            )

    # features: those of normal components, of which each has its own precisions, so that nothing is common to all

    has_distances = False

    @property
    def feature_map(self) -> int:
        """Feature map of components that are not thin."""
        return self._swept.feature_map

    @property
    def _swept(self) -> Gaussian:
        return _normal("full" if self.form == "tied" else self.form)

    def _each(self, params: Any) -> GaussianParams:
        """Parameters as a sweep takes them: tied ones once for each component."""
        if self.form != "tied":
            return GaussianParams(*params[:3])
        n_components = len(params.means)
        return GaussianParams(params.means, *(np.stack([part] * n_components) for part in params[1:3]))

    def layout(self, params: Any, frame: Frame) -> Layout:
        """Choose the path of each component in the frame, and the precision of the products."""
        return self._swept.layout(self._each(params), frame)

    def natural(self, params: Any, log_weights: np.ndarray, layout: Layout, frame: Frame) -> States:
        """States that score minus half a squared distance, and their tails."""
        states = self._swept.natural(self._each(params), -self._log_constants(params), layout, frame)
        tails = self._tails(params, self._log_constants(params), log_weights)
        return states._replace(tails=tails[layout.order])

    def _tails(self, params: Any, normal_constants: np.ndarray, log_weights: np.ndarray) -> np.ndarray:
        """See `posteriors.take_tails`, from the log-density (K,) of a normal at its mean."""
        degrees = params.degrees_of_freedom
        n_features = params.means.shape[1]
        peaks = normal_constants + log_peak(degrees, n_features) + log_weights
        expected = digamma(0.5 * (degrees + n_features)) - np.log(0.5 * degrees)
        return np.column_stack([degrees, np.full_like(degrees, n_features), peaks, expected])

    def needs_scatter(self, layout: Layout) -> bool:
        """Never: features are quadratic."""
        return False

    def exact(self, params: Any, log_weights: np.ndarray, X: np.ndarray):
        """Frame (2, D), states and rows for densities."""
        frame, states, rows = super().exact(params, np.zeros(len(log_weights)), X)
        tails = self._tails(params, states.peak, log_weights)
        return frame, states._replace(peak=np.zeros_like(states.peak), tails=tails), rows

    def log_densities(self, params: Any, X: np.ndarray) -> np.ndarray:
        """Log-densities (N, K) of a few rows, in NumPy."""
        constants, degrees = self._log_constants(params), params.degrees_of_freedom
        n_features = params.means.shape[1]
        distances = 2.0 * (constants - super().log_densities(params, X))
        peaks = constants + log_peak(degrees, n_features)
        return peaks - 0.5 * (degrees + n_features) * np.log1p(np.maximum(distances, 0.0) / degrees)

    # moments

    def moments(self, sums: np.ndarray, scatter: np.ndarray, layout: Layout, frame: Frame) -> Any:
        """Moments from the sums (K, P + 2) of a sweep with tails, or (K, P) without: then all precisions are 1."""
        n_sums = n_statistics(layout.feature_map, frame.center.size)
        counts, means, covariances = self._swept.moments(np.ascontiguousarray(sums[:, :n_sums]), scatter, layout, frame)
        if self.form == "tied":
            covariances = np.einsum("k,kij->ij", counts / max(counts.sum(), _TINY), covariances)
        if sums.shape[1] == n_sums:
            return self._as_normal(Moments(counts, means, covariances))
        back = np.argsort(layout.order)
        rows, logs = sums[back, -2], sums[back, -1]
        safe = np.maximum(rows, _TINY)
        return StudentTMoments(rows, means, covariances, counts / safe, logs / safe)

    def _as_normal(self, moments: Moments) -> Any:
        """Moments of rows of which no precisions are known: from them degrees of freedom start."""
        degrees = np.full(len(moments.counts), self._start)
        return StudentTMoments(*moments, np.ones_like(degrees), mean_log_precision(degrees))

    @property
    def _start(self) -> float:
        if not isinstance(self.degrees_of_freedom, str):
            return float(self.degrees_of_freedom)
        return min(max(self.first, self.bounds[0]), self.bounds[1])

    def rescaled(self, moments: Any, params: Any) -> Any:
        """Moments in the units of precision that make the next step longest.

        Parameter expansion, Liu, Rubin & Wu (1998), Biometrika 85, 755-770, section 3.2: with tau / a in the place of
        tau, the a that maximises the expected log-likelihood is the mean precision, of a component that has a scale of
        its own, or the mean over all, weighted by degrees of freedom, where the scale is common.
        """
        if self.prior is not None:  # it would have to know of a
            return moments
        unit = moments.precisions
        if self.held is not None and "covariances" in self.held.masks:  # which do not give way
            unit = np.where(self.held.masks["covariances"], 1.0, unit)
        if self.letters[0] == "E":
            share = moments.counts * params.degrees_of_freedom
            unit = np.full_like(unit, (share * unit).sum() / max(share.sum(), _TINY))
        unit = np.where(unit > 0, unit, 1.0)
        logs = moments.log_precisions - np.log(unit)
        return moments._replace(precisions=moments.precisions / unit, log_precisions=logs)

    def blend(self, one: Any, two: Any, share: float) -> Any:
        """Moments of a mixture of both, of which the second makes up a share."""
        _, means, covariances = super().blend(weighed(one), weighed(two), share)
        before, added = (1.0 - share) * one.counts, share * two.counts
        part = added / np.maximum(before + added, _TINY)
        precisions = one.precisions + part * (two.precisions - one.precisions)
        logs = one.log_precisions + part * (two.log_precisions - one.log_precisions)
        return StudentTMoments(before + added, means, covariances, precisions, logs)

    def expected_log_densities(self, moments: Any, params: Any) -> np.ndarray:
        """Mean log-density (K,) of rows and their precisions, but for what no parameter moves."""
        constants, half = self._log_constants(params), 0.5 * params.degrees_of_freedom
        normal = constants + moments.precisions * (super().expected_log_densities(weighed(moments), params) - constants)
        gamma = half * (np.log(half) + moments.log_precisions - moments.precisions) - gammaln(half)
        return normal + gamma

    def recall(self, counts: np.ndarray, params: Any, weight: float) -> Any:
        """Moments, of rows of some weight, whose maximum are the parameters."""
        moments = super().recall(counts, GaussianParams(*params[:3]), weight)
        return StudentTMoments(*moments, np.ones(len(counts)), mean_log_precision(params.degrees_of_freedom))

    def keep_moments(self, moments: Any, kept: np.ndarray) -> Any:
        """Moments of some of the components (k,) int; their counts sum to 1."""
        normal = super().keep_moments(Moments(*moments[:3]), kept)
        return StudentTMoments(*normal, moments.precisions[kept], moments.log_precisions[kept])

    def births(self, moments: Any, weight: float, component: int, reservoir: Any) -> list[Any]:
        """Moments with a component moved, as `Gaussian` does; of those that are new no precisions are known."""
        born = []
        for normal in super().births(Moments(*moments[:3]), weight, component, reservoir):
            fresh = self._as_normal(normal)
            moved = (normal.means != moments.means).any(axis=1)
            precisions = np.where(moved, fresh.precisions, moments.precisions)
            logs = np.where(moved, fresh.log_precisions, moments.log_precisions)
            born.append(StudentTMoments(*normal, precisions, logs))
        return born

    # maximize

    def maximize(self, moments: Any, old: Any, granule: np.ndarray, fewest: float = 0.0) -> Any:
        """Posterior mode (maximum likelihood without a prior) given the moments.

        Peel & McLachlan (2000), equations 22, 23 and 26. Components that count fewer rows than `fewest`, or none, keep
        what other components and a prior do not tell.
        """
        counts, means, covariances = moments[:3]
        before = None if old is None else GaussianParams(*old[:3])
        family = _normal(self.covariance_type, self.reg_covar)
        if self.held is not None:
            means, covariances = self._about_held_means(*weighed(moments))
            # what needs no rows takes any
            counts = np.where(self.told(len(counts)), np.maximum(counts, _TINY * 2.0), counts)
            moments = moments._replace(counts=counts, means=means, covariances=covariances)
        if self.prior is None:
            normal = Moments(counts, means, self._per_row(moments))
        else:
            empty = counts <= _TINY
            if empty.any() and old is None:
                raise DegenerateError(
                    f"component {int(np.argmax(empty))} starts without any weight; use fewer components"
                )
            if before is not None:
                means = np.where(empty[:, None], before.means, means)
            normal = self._modes(moments, means, empty)
            fewest = 0.0 if self.resolved.has_scale else fewest
        if self.held is not None:  # before a singular one, in whose place it is, is refused
            normal = normal._replace(covariances=self._with_held(*normal[1:]))
        means, covariances, roots = family.maximize(normal, before, granule, fewest)
        return self.put(StudentTParams(means, covariances, roots, self._degrees(moments, old, fewest)))

    def _per_row(self, moments: Any) -> np.ndarray:
        """Scatter about the means divided by the weight of the rows, not by that times their precision."""
        counts, _, covariances, precisions, _ = moments
        if self.form == "tied":
            return covariances * ((counts * precisions).sum() / max(counts.sum(), _TINY))
        return covariances * precisions.reshape(-1, *(1,) * (covariances.ndim - 1))

    def _modes(self, moments: Any, means: np.ndarray, empty: np.ndarray) -> Moments:
        """Posterior modes of locations and scale matrices: rows weigh their precision but for the determinant."""
        weighed = moments.counts * moments.precisions
        mass, _, scatter = self._prior_terms(weighed, means)
        rows = self._prior_terms(moments.counts, means)[1]
        covariances = moments.covariances * (mass / rows) + scatter / rows
        counts = rows.ravel() if self.is_constrained else np.where(empty, 1.0, moments.counts)
        return Moments(counts, means - self._pull(weighed)[:, None] * (means - self.resolved.mean), covariances)

    def _degrees(self, moments: Any, old: Any, fewest: float) -> np.ndarray:
        """Degrees of freedom (K,) that maximise the expected log-density of the precisions."""
        counts, _, _, precisions, logs = moments
        if not isinstance(self.degrees_of_freedom, str):
            return np.full(len(counts), float(self.degrees_of_freedom))
        wanted = precisions - 1.0 - logs
        if self.degrees_of_freedom == "common":
            wanted = np.full_like(wanted, (counts * wanted).sum() / max(counts.sum(), _TINY))
            return solve_degrees(wanted, self.bounds)
        degrees = solve_degrees(wanted, self.bounds)
        return degrees if old is None else np.where(counts <= max(fewest, _TINY), old.degrees_of_freedom, degrees)

    # parameters

    def from_roots(self, means: np.ndarray, roots: np.ndarray) -> Any:
        """Parameters from roots of the precisions; degrees of freedom are those of a start."""
        return self._started(super().from_roots(means, roots))

    def from_precisions(self, means: np.ndarray, precisions: np.ndarray) -> Any:
        """Parameters from precisions of the shape of the scale matrices; degrees of freedom are those of a start."""
        return self._started(super().from_precisions(means, precisions))

    def _started(self, params: Any) -> Any:
        means, covariances, roots = params[:3]
        return StudentTParams(means, covariances, roots, np.full(len(means), self._start))

    def check_params(self, components: Any, n_components: int, frame: Frame) -> Any:
        """Return parameters that a user gave, after checking shapes, finiteness, sign and bounds."""
        if not isinstance(components, StudentTParams):
            raise TypeError(f"start.components must be StudentTParams; got {type(components).__name__}")
        normal = super().check_params(GaussianParams(*components[:3]), n_components, frame)
        degrees = self.check_degrees("start.components.degrees_of_freedom", components.degrees_of_freedom, n_components)
        return StudentTParams(*normal, degrees)

    def check_degrees(self, name: str, degrees: Any, n_components: int) -> np.ndarray:
        """Return degrees of freedom (K,) that a fit can start from."""
        degrees = finite_array(name, degrees, 1)
        if degrees.shape != (n_components,) or not (degrees > 0).all():
            raise ValueError(f"{name} must be {n_components} positive number(s); got {degrees}")
        how, (low, high) = self.degrees_of_freedom, self.bounds
        if not isinstance(how, str):
            if (degrees != how).any():
                raise ValueError(f"{name} is {degrees}, but degrees_of_freedom={how} is given; start from that")
        elif (degrees < low).any() or (degrees > high).any():
            raise ValueError(f"{name} must lie within the bounds {low} and {high}; got {degrees}")
        elif how == "common" and (degrees != degrees[0]).any():
            raise ValueError(f"{name} must be the same for all components, whose degrees_of_freedom are 'common'")
        return degrees

    def keep(self, params: Any, kept: np.ndarray) -> Any:
        """Parameters of some of the components (k,) int."""
        return StudentTParams(*super().keep(GaussianParams(*params[:3]), kept), params.degrees_of_freedom[kept])

    def marginal(self, params: Any, columns: np.ndarray) -> Any:
        """Parameters of the components for some of the columns (m,) int: degrees of freedom stay."""
        return StudentTParams(*super().marginal(GaussianParams(*params[:3]), columns), params.degrees_of_freedom)

    def conditioned(self, params: Any, given: np.ndarray, wanted: np.ndarray, values: np.ndarray) -> Any:
        """Parameters of the components for the wanted columns (m,) int, given values (g,) of others (g,) int.

        Ding (2016), Amer. Statist. 70, 293-295: degrees of freedom nu + g, and the scale matrix of the normal times
        (nu + d) / (nu + g). Tied scale matrices then differ: they are returned as full ones.
        """
        family, normal = _normal(self.covariance_type), GaussianParams(*params[:3])
        means, covariances, _ = family.conditioned(normal, given, wanted, values)
        known = family.marginal(normal, given)
        log_densities = family.log_densities(known, values[None])[0]
        distances = 2.0 * (family.peaks(known, np.zeros(len(means))) - log_densities)
        degrees = params.degrees_of_freedom
        factor = (degrees + distances) / (degrees + len(given))
        if self.form == "tied":
            covariances = np.stack([covariances] * len(means))
        covariances = covariances * factor.reshape(-1, *(1,) * (covariances.ndim - 1))
        return StudentTParams(means, covariances, self._swept.precisions_cholesky(covariances), degrees + len(given))

    def are_sound(self, params: Any, moments: Any, n_components: int, n_features: int) -> bool:
        """Whether parameters and moments, read from a file, are what kernels may be given."""
        if not (isinstance(params, StudentTParams) and isinstance(moments, StudentTMoments)):
            return False
        normal = GaussianParams(*params[:3]), Moments(*moments[:3])
        return (
            super().are_sound(*normal, n_components, n_features)
            and are_arrays(params.degrees_of_freedom, of=(n_components,), least=_TINY)
            and are_arrays(moments.precisions, of=(n_components,), least=0.0)
            and are_arrays(moments.log_precisions, of=(n_components,))
        )

    def estimands(self, params: Any) -> dict[str, np.ndarray]:
        """Return what standard errors are given for."""
        return {**super().estimands(params), "degrees_of_freedom": params.degrees_of_freedom}

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """Number of free parameters."""
        return super().n_parameters(n_components, n_features) + self._n_degrees(n_components)

    def _n_degrees(self, n_components: int) -> int:
        return {"free": n_components, "common": 1}.get(self.degrees_of_freedom, 0)

    def sample(self, params: Any, component: int, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """Draw rows (n_samples, D) from one component."""
        normal = super().sample(params, component, n_samples, rng)
        half = 0.5 * params.degrees_of_freedom[component]
        precision = np.maximum(rng.standard_gamma(half, (n_samples, 1)) / half, _LEAST_PRECISION)
        mean = params.means[component]
        return mean + (normal - mean) / np.sqrt(precision)

    # what is held

    @property
    def frozen_fields(self) -> tuple[str, ...]:
        """Fields of the parameters that can be frozen."""
        fields = super().frozen_fields
        return (*fields, "degrees_of_freedom") if isinstance(self.degrees_of_freedom, str) else fields

    def check_frozen(self, masks: dict[str, np.ndarray]) -> None:
        """Refuse to freeze some of what components share."""
        super().check_frozen(masks)
        mask = masks.get("degrees_of_freedom")
        if mask is not None and self.degrees_of_freedom == "common" and not mask.all():
            raise ValueError("frozen['degrees_of_freedom'] must be True where they are 'common' to all components")

    def neutral(self, n_components: int, frame: Frame) -> Any:
        """Return parameters at the centre of a frame, one of its units wide."""
        return self._started(super().neutral(n_components, frame))

    def placed(self, components: Any, name: str, values: dict[int, Any]) -> Any:
        """Return the components with given values of a field in some of them."""
        if name != "degrees_of_freedom":
            normal = super().placed(GaussianParams(*components[:3]), name, values)
            return StudentTParams(*normal, components.degrees_of_freedom)
        label = f"frozen[{name!r}]"
        degrees = put_values(label, components.degrees_of_freedom, values)
        return components._replace(degrees_of_freedom=self.check_degrees(label, degrees, len(degrees)))

    def put(self, components: Any) -> Any:
        """Return the components with what is held in its place."""
        components = super().put(components)
        if self.held is None or "degrees_of_freedom" not in self.held.masks:
            return components
        degrees = where(
            self.held.masks["degrees_of_freedom"], self.held.values.degrees_of_freedom, components.degrees_of_freedom
        )
        return components._replace(degrees_of_freedom=degrees)

    def frozen_coordinates(self, n_coordinates: int) -> np.ndarray:
        """Which coordinates of `pack`, so many in all, belong to parameters that are held."""
        assert self.held is not None
        n_components = len(self.held.values.means)
        n_degrees = self._n_degrees(n_components)
        mask = self.held.masks.get("degrees_of_freedom", np.zeros(n_components, bool))
        return np.concatenate([super().frozen_coordinates(n_coordinates - n_degrees), mask[:n_degrees]])

    def n_frozen(self, n_features: int) -> int:
        """Number of parameters that are held."""
        if self.held is None:
            return 0
        masks = dict(self.held.masks)
        degrees = masks.pop("degrees_of_freedom", np.zeros(1, bool))
        normal = _normal(self.covariance_type).holding(Held(masks, GaussianParams(*self.held.values[:3])))
        return normal.n_frozen(n_features) + min(int(degrees.sum()), self._n_degrees(len(degrees)))

    # coordinates: those of normal components, then logarithms of the degrees of freedom

    def pack(self, params: Any, frame: Frame) -> np.ndarray:
        """Coordinates; those of degrees of freedom on a bound lie beyond it, where nothing moves them."""
        degrees = params.degrees_of_freedom[: self._n_degrees(len(params.means))]
        low, high = self.bounds
        logs = np.log(degrees) + _BEYOND * ((degrees >= high) * 1.0 - (degrees <= low) * 1.0)
        return np.concatenate([super().pack(params, frame), logs])

    def unpack(self, vector: np.ndarray, n_components: int, frame: Frame) -> Any:
        """Parameters at the coordinates of `pack`."""
        n_degrees = self._n_degrees(n_components)
        rest, logs = vector[: len(vector) - n_degrees], vector[len(vector) - n_degrees :]
        params: Any = super().unpack(rest, n_components, frame)
        if n_degrees == 0:
            return params
        degrees = np.exp(np.clip(logs, *np.log(self.bounds)))
        degrees = np.where(logs >= math.log(self.bounds[1]), self.bounds[1], degrees)
        degrees = np.where(logs <= math.log(self.bounds[0]), self.bounds[0], degrees)
        return params._replace(degrees_of_freedom=np.broadcast_to(degrees, n_components).copy())

    def score(self, params: Any, moments: Any, frame: Frame) -> np.ndarray:
        """Gradient of the expected log-likelihood in the coordinates of `pack`, at the parameters of the moments."""
        counts, _, _, precisions, logs = moments
        slopes = self._score(params, weighed(moments), frame, counts)
        n_components = len(params.means)
        degrees = params.degrees_of_freedom
        half = 0.5 * degrees
        inside = (degrees > self.bounds[0]) & (degrees < self.bounds[1])
        slope = counts * half * (np.log(half) - digamma(half) + 1.0 + logs - precisions) * inside
        n_degrees = self._n_degrees(n_components)
        return np.concatenate([slopes, slope if n_degrees == n_components else slope.sum(keepdims=True)[:n_degrees]])


@functools.lru_cache(maxsize=16)
def _normal(covariance_type: str, reg_covar: float = 0.0) -> Gaussian:
    return Gaussian(covariance_type, reg_covar)
