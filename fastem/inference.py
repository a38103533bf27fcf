"""How well parameters are known: the information matrix through the protocol, and the weighted bootstrap."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, logit, ndtri

from fastem.data import SMALLEST, Data
from fastem.em import fit
from fastem.protocol import DegenerateError, Params, Status, add_stats

_STEP = 1e-4  # of a coordinate, for differences of the score; coordinates are of order 1 or less
_REFINEMENTS = 6  # of a step
_JACOBIAN_STEP = 1e-6
_PROBABILITIES = ("weights", "startprob", "transmat", "emissionprob", "probabilities")
_WITHOUT_EFFECT = 1e-6  # of the largest effect on what is reported: below, a direction has none
_FLAT = 1e-9  # curvature, in units of the coordinates' own, below which there is no maximum
# A Newton step would gain so many nats in all: parameters within a seventh of a standard error of the maximum.
_CONVERGED = 0.01


class Uncertainty(NamedTuple):
    """Covariance of named quantities.

    Attributes
    ----------
    estimates : dict of str to ndarray
    standard_errors : dict of str to ndarray
        Of the shapes of the estimates.
    covariance : ndarray of shape (m, m)
        Of all estimates, flattened in their order.
    """

    estimates: dict[str, np.ndarray]
    standard_errors: dict[str, np.ndarray]
    covariance: np.ndarray

    def interval(self, name: str, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends of normal confidence intervals; those of probabilities are normal on the logit scale."""
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1; got {level!r}")
        if name not in self.estimates:
            raise ValueError(f"name must be one of {list(self.estimates)}; got {name!r}")
        estimate, error = self.estimates[name], self.standard_errors[name]
        reach = float(ndtri(0.5 + 0.5 * level)) * error
        if name not in _PROBABILITIES:
            return estimate - reach, estimate + reach
        reach = np.where(reach > 0, reach / np.maximum(estimate * (1.0 - estimate), SMALLEST), 0.0)
        with np.errstate(divide="ignore"):  # a single weight of 1
            return expit(logit(estimate) - reach), expit(logit(estimate) + reach)


def information(model: Any, params: Params, data: Data) -> Uncertainty:
    """Standard errors from the curvature of the objective at its maximum.

    Oakes (1999), J. R. Statist. Soc. B 61, 479-482: the score of the observed data is that of the expected complete
    data (Fisher's identity), and its derivative, here by central differences in the model's coordinates (two E-steps a
    coordinate), is the observed information. The delta method, with a Jacobian by differences, takes its inverse to
    the quantities that the model reports.

    Raises
    ------
    ValueError
        If the parameters are not at a maximum, or the objective is flat there in some direction.
    """
    center = model.pack(params)
    estimates = model.estimands(params)
    jacobian = _jacobian(lambda x: _flatten(model.estimands(model.unpack(x))), center)
    if not jacobian.any():  # nothing is free
        n_estimates = len(_flatten(estimates))
        return _named(estimates, np.zeros((n_estimates, n_estimates)))
    score = _score_of(model, data)
    curvature = np.array([-_slope(score, center, unit, data.total_weight) for unit in np.eye(len(center))])
    curvature = 0.5 * (curvature + curvature.T)
    # In coordinates of unit curvature, and without the directions in which nothing that is reported changes.
    diagonal = np.diagonal(curvature)
    unit = 1.0 / np.sqrt(np.where(diagonal > _FLAT * diagonal.max(), diagonal, 1.0))
    jacobian = jacobian * unit
    reach = np.abs(jacobian).max(axis=1, keepdims=True)
    _, sizes, directions = np.linalg.svd(jacobian / np.where(reach > 0, reach, 1.0), full_matrices=False)
    directions = directions[sizes > _WITHOUT_EFFECT * sizes.max()]
    values, vectors = np.linalg.eigh(directions @ (curvature * unit * unit[:, None]) @ directions.T)
    if values.min() <= _FLAT:
        raise ValueError(
            "the log-likelihood has no strict maximum here, so there are no standard errors: more components than the "
            "data tell apart, one on the boundary (a weight of 0), or a fit that has not converged"
        )
    directions = vectors.T @ directions
    gain = 0.5 * float(((directions @ (unit * score(center))) ** 2 / values).sum())
    if gain > _CONVERGED:
        raise ValueError(
            f"the fit has not converged: a Newton step would gain about {gain:.2g} nats. Fit with a smaller tol, "
            "stopping='aitken' and reg_covar=0 before asking for standard errors"
        )
    turned = jacobian @ directions.T
    return _named(estimates, (turned / values) @ turned.T)


def _slope(score, center: np.ndarray, unit: np.ndarray, total: float) -> np.ndarray:
    """Derivative of the score along a coordinate, by a step that is small beside what one row tells of it."""
    step = _STEP
    for _ in range(_REFINEMENTS):
        slope = (score(center + step * unit) - score(center - step * unit)) / (2 * step)
        information = abs(float(slope @ unit)) / total
        wanted = _STEP / math.sqrt(max(information, 1.0))
        if wanted > step / 3:
            break
        step = wanted
    return slope


def bootstrap(
    model: Any, params: Params, data: Data, n_bootstrap: int, rng: np.random.Generator, tol: float, max_iter: int
) -> Uncertainty:
    """Standard errors from fits to reweighted rows, each from the given parameters, so that labels stay.

    Rubin (1981), Ann. Statist. 9, 130-134: weights are exponential, scaled to the same total. Fits that collapse are
    left out.
    """
    draws = []
    for _ in range(n_bootstrap):
        drawn = data.resampled(rng)
        try:
            result = fit(
                model, drawn, start=params, tol=tol, max_iter=max_iter, stopping="aitken", acceleration="anderson"
            )
        except DegenerateError:
            continue
        if result.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        draws.append(_flatten(model.estimands(result.params)))
    if len(draws) < max(2, n_bootstrap // 2):
        raise ValueError(f"{n_bootstrap - len(draws)} of {n_bootstrap} bootstrap fits collapsed; use fewer components")
    return _named(model.estimands(params), np.cov(np.array(draws), rowvar=False).reshape(2 * (len(draws[0]),)))


def _score_of(model, data: Data) -> Callable[[np.ndarray], np.ndarray]:
    """Gradient of the objective in the model's coordinates, as a function of them."""

    def score(x: np.ndarray) -> np.ndarray:
        params = model.unpack(x)
        stats = add_stats(model.e_step(params, block) for block in data)
        gradient = model.score(stats, params)
        if model.log_prior(params) == 0.0:
            return gradient
        return gradient + _jacobian(lambda y: np.array([model.log_prior(model.unpack(y))]), x, _STEP)[0]

    return score


def _jacobian(function, x: np.ndarray, step: float = _JACOBIAN_STEP) -> np.ndarray:
    columns = [(function(x + step * e) - function(x - step * e)) / (2 * step) for e in np.eye(len(x))]
    return np.array(columns).T


def _flatten(named: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ravel(value) for value in named.values()])


def _named(estimates: dict[str, np.ndarray], covariance: np.ndarray) -> Uncertainty:
    """Cut the standard errors to the shapes of the estimates."""
    errors = np.sqrt(np.maximum(np.diagonal(covariance), 0.0))
    named, first = {}, 0
    for name, value in estimates.items():
        size = math.prod(value.shape)
        named[name] = errors[first : first + size].reshape(value.shape)
        first += size
    return Uncertainty(estimates, named, covariance)
