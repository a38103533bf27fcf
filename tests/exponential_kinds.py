"""What the tests know of each exponential family beside its file: rows to fit, parameters, SciPy's densities."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from guide import new_family
from scipy import stats

import fastem
from fastem.families.bernoulli import BernoulliParams
from fastem.families.beta import BetaParams
from fastem.families.categorical import CategoricalParams
from fastem.families.exponential_time import ExponentialTimeParams
from fastem.families.gamma import GammaParams
from fastem.families.geometric import GeometricParams
from fastem.families.log_normal import LogNormalParams
from fastem.families.multinomial import MultinomialParams
from fastem.families.normal import NormalParams
from fastem.families.normal_block import NormalBlockParams
from fastem.families.poisson import PoissonParams
from fastem.families.von_mises import VonMisesParams

CATEGORIES = (np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0]), np.array([-0.5, 2.0, 2.5, 7.0]))
SIZES = tuple(map(len, CATEGORIES))
TRIALS = 12


class Kind(NamedTuple):
    """A family of three columns.

    Attributes
    ----------
    family : Exponential
    params : callable
        (rng, n_components) -> parameters.
    log_density : callable
        (params, k, X) -> log-densities (n, J) of the pieces of rows without missing values, by SciPy.
    """

    family: Any
    params: Callable[[np.random.Generator, int], Any]
    log_density: Callable[[Any, int, np.ndarray], np.ndarray]


def simplex(rng, n_components, n):
    return rng.dirichlet(np.full(n, 2.0), n_components)


def categorical_log_density(params, k, X):
    parts = zip(CATEGORIES, np.split(params.probabilities[k], np.cumsum(SIZES)[:-1]), X.T, strict=True)
    return np.column_stack([np.log((column[:, None] == values) @ p) for values, p, column in parts])


def multinomial_log_density(params, k, X):
    p = params.probabilities[k]
    return np.array([stats.multinomial.logpmf(x, int(x.sum()), p) for x in X])[:, None]


def covariances(rng, n_components):
    roots = rng.normal(size=(n_components, 3, 3)) + 1.5 * np.eye(3)
    return roots @ np.swapaxes(roots, 1, 2)


def uniform(low, high):
    return lambda rng, n: rng.uniform(low, high, (n, 3))


KINDS = {
    "Poisson": Kind(
        fastem.Poisson(),
        lambda rng, n: PoissonParams(rng.gamma(2.0, 3.0, (n, 3)) + 0.3),
        lambda p, k, X: stats.poisson.logpmf(X, p.rates[k]),
    ),
    "Bernoulli": Kind(
        fastem.Bernoulli(),
        lambda rng, n: BernoulliParams(rng.uniform(0.05, 0.95, (n, 3))),
        lambda p, k, X: stats.bernoulli.logpmf(X, p.probabilities[k]),
    ),
    "Categorical": Kind(
        fastem.Categorical(categories=CATEGORIES),
        lambda rng, n: CategoricalParams(np.concatenate([simplex(rng, n, c) for c in SIZES], axis=1)),
        categorical_log_density,
    ),
    "Multinomial": Kind(
        fastem.Multinomial(n_trials=TRIALS),
        lambda rng, n: MultinomialParams(simplex(rng, n, 3)),
        multinomial_log_density,
    ),
    "Geometric": Kind(
        fastem.Geometric(),
        lambda rng, n: GeometricParams(rng.gamma(2.0, 2.0, (n, 3)) + 0.2),
        lambda p, k, X: stats.geom.logpmf(X + 1, 1 / (1 + p.means[k])),
    ),
    "ExponentialTime": Kind(
        fastem.ExponentialTime(),
        lambda rng, n: ExponentialTimeParams(np.exp(uniform(-2, 3)(rng, n))),
        lambda p, k, X: stats.expon.logpdf(X, scale=p.scales[k]),
    ),
    "Gamma": Kind(
        fastem.Gamma(),
        lambda rng, n: GammaParams(np.exp(uniform(-0.5, 3)(rng, n)), np.exp(uniform(-2, 2)(rng, n))),
        lambda p, k, X: stats.gamma.logpdf(X, p.shapes[k], scale=p.scales[k]),
    ),
    "Beta": Kind(
        fastem.Beta(),
        lambda rng, n: BetaParams(np.exp(uniform(0, 3)(rng, n)), np.exp(uniform(0, 3)(rng, n))),
        lambda p, k, X: stats.beta.logpdf(X, p.a[k], p.b[k]),
    ),
    "VonMises": Kind(
        fastem.VonMises(),
        lambda rng, n: VonMisesParams(uniform(-3.1, 3.1)(rng, n), np.exp(uniform(-1, 3)(rng, n))),
        lambda p, k, X: stats.vonmises.logpdf(X, p.concentrations[k], loc=p.directions[k]),
    ),
    "Normal": Kind(
        fastem.Normal(),
        lambda rng, n: NormalParams(1e3 + rng.normal(size=(n, 3)), np.exp(uniform(-1, 1)(rng, n))),
        lambda p, k, X: stats.norm.logpdf(X, p.means[k], np.sqrt(p.variances[k])),
    ),
    "LogNormal": Kind(
        fastem.LogNormal(),
        lambda rng, n: LogNormalParams(rng.normal(size=(n, 3)), np.exp(uniform(-2, 0)(rng, n))),
        lambda p, k, X: stats.lognorm.logpdf(X, np.sqrt(p.log_variances[k]), scale=np.exp(p.log_means[k])),
    ),
    "NormalBlock": Kind(
        fastem.NormalBlock(),
        lambda rng, n: NormalBlockParams(1e3 + rng.normal(size=(n, 3)), covariances(rng, n)),
        lambda p, k, X: stats.multivariate_normal.logpdf(X, p.means[k], p.covariances[k])[:, None],
    ),
    "NormalBlock-spherical": Kind(
        fastem.NormalBlock(covariance_type="spherical"),
        lambda rng, n: NormalBlockParams(rng.normal(size=(n, 3)), np.exp(rng.uniform(-1, 1, n))),
        lambda p, k, X: stats.multivariate_normal.logpdf(X, p.means[k], p.covariances[k])[:, None],
    ),
}
# The families of docs/new_family.md
KINDS["NegativeBinomial"] = Kind(
    new_family.NegativeBinomial(support=[np.arange(450)] * 3),
    lambda rng, n: new_family.NegativeBinomialParams(uniform(0.5, 12.0)(rng, n), uniform(1.0, 3.0)(rng, n)),
    lambda p, k, X: stats.nbinom.logpmf(X, p.sizes[k], p.sizes[k] / (p.sizes[k] + p.means[k])),
)
KINDS["Rayleigh"] = Kind(
    new_family.Rayleigh(),
    lambda rng, n: new_family.RayleighParams(np.exp(uniform(-1, 2)(rng, n))),
    lambda p, k, X: stats.rayleigh.logpdf(X, scale=p.scales[k]),
)
EVERY_KIND = list(KINDS)


def seen(kind: Kind):
    """The family as it is after a look at rows of three columns, for draws."""
    return kind.family.recalled(np.ones(1), kind.params(np.random.default_rng(0), 1))


def draw_rows(name: str, rng: np.random.Generator, n_samples: int, n_components: int = 3) -> np.ndarray:
    """Rows of a mixture of components that overlap."""
    kind = KINDS[name]
    params, family = kind.params(rng, n_components), seen(kind)
    labels = rng.integers(n_components, size=n_samples)
    drawn = [family.draw(params, k, int((labels == k).sum()), rng) for k in range(n_components)]
    rows = np.empty((n_samples, 3))
    for k, part in enumerate(drawn):
        rows[labels == k] = part
    return rows


def punched(X: np.ndarray, rng: np.random.Generator, part: float = 0.15) -> np.ndarray:
    """A copy with missing cells, one row of which is missing altogether."""
    X = np.where(rng.random(X.shape) < part, np.nan, X)
    X[len(X) // 2] = np.nan
    return X
