"""What must hold of every model, through the protocol alone; one row of MODELS a model.

Hidden Markov models take sequences in the place of rows: test_hidden_markov.py has the same list for them.
"""

import itertools
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import simulate
from exponential_kinds import KINDS, draw_rows, punched
from scipy.linalg import expm
from scipy.special import gammaln
from scipy.stats import multivariate_normal

import fastem
from fastem.data import as_data
from fastem.families import gaussian
from fastem.families.covariance_structures import MODELS as STRUCTURES
from fastem.families.factor_analyzer import FactorAnalyzer
from fastem.families.gated_regression import GatedRegression
from fastem.families.gaussian import Gaussian
from fastem.families.gaussian_records import GaussianParams
from fastem.families.noise import WithNoise
from fastem.families.normal_inverse_wishart import NormalInverseWishart
from fastem.families.regression import Regression
from fastem.families.student_t import StudentT
from fastem.families.student_t_records import StudentTParams
from fastem.kernels.components import kernels_of, natural_of_wide
from fastem.labels import as_labels
from fastem.models.factor_analyzers import FactorAnalyzers
from fastem.models.gated_regressions import GatedRegressions
from fastem.models.mixture import Mixture
from fastem.models.mixture_records import MixtureParams
from fastem.models.regressions import Regressions
from fastem.protocol import DegenerateError, add_stats

MAP = NormalInverseWishart(mean_precision=0.5, degrees_of_freedom=7.0)
TYPES = ("full", "tied", "diag", "spherical")
CONSTRAINED = tuple(name for name in STRUCTURES if Gaussian(name).is_constrained)
ROTATED = ("EVE", "VVE", "EEV", "VEV")  # whose constraint depends on the units of each column


def no_noise(X):
    return None


def no_labels(X):
    return None


def labels_of_rows(X):
    """Labels that depend on the rows alone: numbers, a set, and mostly none."""
    first = X[:, 0].astype(np.float64)
    can = np.ones((len(X), 3), bool)
    can[first > 1.0] = [True, False, False]
    can[first < -1.5] = [False, True, True]
    return can


class Row(NamedTuple):
    """A model, and rows for it."""

    model: Mixture
    draw: Any  # (rng, n_samples, separation) -> X
    noise: Any = no_noise  # X -> noise_covariance
    labels: Any = no_labels  # X -> which components (N, 3) rows can come from

    @property
    def names_components(self):
        """Whether components have a meaning, so that exchanging them changes the model."""
        return self.model.frozen is not None or self.labels is not no_labels


def of_normals(rng, n_samples, separation=0.8):
    return simulate(rng, n_samples, 3, 3, separation=separation)


def of_normals_with_gaps(rng, n_samples, separation=0.8):
    return punched(of_normals(rng, n_samples, separation), rng, 0.3)


def noise_of_rows(X):
    """Covariances that depend on the rows alone, so that they follow these wherever they go."""
    X = X.astype(np.float64)
    return 0.1 * np.eye(3) + 0.2 * np.cos(X)[:, :, None] * np.cos(X)[:, None, :]


NOISES = {
    "rows": noise_of_rows,
    "variances": lambda X: 0.1 + 0.2 * np.cos(X.astype(np.float64)) ** 2,
    "shared": lambda X: 0.2 * np.eye(3) + 0.1,
}


def known_in_part():
    """Normal components of rows with missing values, or measured with noise."""
    for name in TYPES:
        prior = Gaussian(name, prior=MAP)
        yield f"{name}-missing", Row(Mixture(Gaussian(name), 3), of_normals_with_gaps)
        yield f"{name}-map-missing", Row(Mixture(prior, 3, weight_concentration=2.0), of_normals_with_gaps)
        for kind, noise in NOISES.items():
            yield f"{name}-noise-{kind}", Row(Mixture(Gaussian(name), 3), of_normals, noise)
    for name in CONSTRAINED:
        yield f"{name}-missing", Row(Mixture(Gaussian(name), 3), of_normals_with_gaps)
    for name in ("EEI", "VVE"):
        yield f"{name}-noise-rows", Row(Mixture(Gaussian(name), 3), of_normals, noise_of_rows)


def of_kind(name, missing):
    def draw(rng, n_samples, separation=0.8):
        X = draw_rows(name, rng, n_samples)
        return punched(X, rng) if missing else X

    return draw


def exponential_rows():
    """Each family, with a prior, and with missing values."""
    for name, kind in KINDS.items():
        prior = replace(kind.family, prior=fastem.Conjugate(4.0))
        yield name, Row(Mixture(kind.family, 3), of_kind(name, missing=False))
        yield f"{name}-map", Row(Mixture(prior, 3, weight_concentration=2.0), of_kind(name, missing=False))
        if kind.family.takes_missing:
            yield f"{name}-missing", Row(Mixture(kind.family, 3), of_kind(name, missing=True))
            yield f"{name}-map-missing", Row(Mixture(prior, 3), of_kind(name, missing=True))


def of_several_kinds(rng, n_samples, separation=0.8):
    """Counts, categories, and numbers that are correlated or have gaps, of the same components."""
    labels = rng.integers(3, size=n_samples)
    shift = separation * labels
    columns = [
        rng.poisson(1.0 + shift),
        rng.normal(shift, 1.0),
        np.where(rng.random(n_samples) < 0.3, labels, rng.integers(0, 3, n_samples)),
        rng.normal(shift, 1.0),
        rng.random(n_samples) < 0.2 + 0.3 * labels / (1 + labels),
        rng.gamma(2.0 + labels, 1.0),
    ]
    X = np.column_stack(columns).astype(float)
    X[:, 5] += X[:, 3] ** 2
    X[::7, 1] = np.nan
    X[::11, 2] = np.nan
    return X


def mixed_family(prior=None):
    return fastem.Mixed(
        [
            (fastem.Poisson(prior), [0]),
            (fastem.NormalBlock(prior), [5, 3]),
            (fastem.Categorical(prior), [2]),
            (fastem.Normal(prior), [1]),
            (fastem.Bernoulli(prior), [4]),
        ]
    )


def mixed_rows():
    """Columns of several families."""
    yield "mixed", Row(Mixture(mixed_family(), 3), of_several_kinds)
    yield "mixed-map", Row(Mixture(mixed_family(fastem.Conjugate(4.0)), 3, weight_concentration=2.0), of_several_kinds)


GAUSSIANS = {
    **{name: Mixture(Gaussian(name), 3) for name in TYPES + CONSTRAINED},
    **{f"{name}-map": Mixture(Gaussian(name, prior=MAP), 3, weight_concentration=2.0) for name in TYPES + CONSTRAINED},
    **{f"t-{name}": Mixture(StudentT(name), 3) for name in TYPES + CONSTRAINED},
    **{f"t-{name}-common": Mixture(StudentT(name, degrees_of_freedom="common"), 3) for name in ("full", "tied")},
    **{f"t-{name}-known": Mixture(StudentT(name, degrees_of_freedom=3.0), 3) for name in ("diag", "tied")},
    **{
        f"t-{name}-map": Mixture(StudentT(name, prior=MAP), 3, weight_concentration=2.0) for name in TYPES + CONSTRAINED
    },
}
ERRORS = NormalInverseWishart(mean_precision=0.0, degrees_of_freedom=7.0)


def of_lines(rng, n_samples, separation=0.8):
    """Rows of two columns and one or two responses about three lines."""
    x, k = rng.normal(size=(n_samples, 2)), rng.integers(3, size=n_samples)
    slopes, offsets = rng.normal(size=(3, 2, 2)), 2.0 * separation * rng.normal(size=(3, 2))
    return np.column_stack([x, offsets[k] + np.einsum("nmp,np->nm", slopes[k], x) + rng.normal(size=(n_samples, 2))])


REGRESSIONS = {
    **{f"regression-{name}": Regressions(Regression(2, name), 3) for name in TYPES},
    **{f"regression-{name}-map": Regressions(Regression(2, name, prior=ERRORS), 3) for name in TYPES},
    "regression-one": Regressions(Regression(regressors=[0, 2]), 3, weight_concentration=2.0),
}
CONSTRAINTS = {
    "labels": Row(Mixture(Gaussian(), 3), of_normals, labels=labels_of_rows),
    "labels-VVE-map": Row(Mixture(Gaussian("VVE", prior=MAP), 3), of_normals, labels=labels_of_rows),
    "labels-t": Row(Mixture(StudentT("tied"), 3), of_normals, labels=labels_of_rows),
    "labels-missing": Row(Mixture(Gaussian("diag"), 3), of_normals_with_gaps, labels=labels_of_rows),
    "labels-poisson": Row(Mixture(fastem.Poisson(), 3), of_kind("Poisson", missing=True), labels=labels_of_rows),
    "labels-mixed": Row(Mixture(mixed_family(), 3), of_several_kinds, labels=labels_of_rows),
    "labels-regression": Row(Regressions(Regression(2), 3), of_lines, labels=labels_of_rows),
    "frozen-means-VEV": Row(Mixture(Gaussian("VEV"), 3, frozen={"means": {0: [0.5, 0.0, 0.0]}}), of_normals),
    "frozen-means-missing": Row(Mixture(Gaussian(), 3, frozen={"means": {1: [0.0] * 3}}), of_normals_with_gaps),
    "frozen-weights-map": Row(Mixture(Gaussian("EEV", prior=MAP), 3, frozen={"weights": {2: 0.3}}), of_normals),
    "frozen-t": Row(
        Mixture(StudentT(), 3, frozen={"means": {0: [0.0] * 3}, "degrees_of_freedom": {1: 4.0}}), of_normals
    ),
    "noise-full": Row(Mixture(WithNoise(Gaussian(), 500.0), 3), of_normals),
    "noise-EVE": Row(Mixture(WithNoise(Gaussian("EVE"), 500.0), 3), of_normals),
    "noise-tied-map": Row(Mixture(WithNoise(Gaussian("tied", prior=MAP), 500.0), 3), of_normals),
    "noise-t": Row(Mixture(WithNoise(StudentT("VEI"), 500.0), 3), of_normals),
    "noise-poisson": Row(Mixture(WithNoise(fastem.Poisson(), 1000.0), 3), of_kind("Poisson", missing=False)),
}
GATED = {
    "gated": GatedRegressions(GatedRegression(2), 3),
    "gated-tied-map": GatedRegressions(GatedRegression(1, "tied", prior=ERRORS, concomitants=[1]), 3),
}
MODELS = {
    **{name: Row(model, of_normals) for name, model in GAUSSIANS.items()},
    **dict(exponential_rows()),
    **dict(mixed_rows()),
    **dict(known_in_part()),
    **{name: Row(model, of_lines) for name, model in REGRESSIONS.items()},
    **CONSTRAINTS,
}
EVERY = pytest.mark.parametrize("row", MODELS.values(), ids=MODELS)
# Gates and factors have no M-step in closed form, only a step that leads uphill, and their statistics are no moments:
# what is said of M-steps, moments and streams is not asked of them.
FACTORS = {
    "factors": FactorAnalyzers(FactorAnalyzer(1), 3),
    "factors-spherical": FactorAnalyzers(FactorAnalyzer(2, noise="spherical"), 3, weight_concentration=2.0),
    "factors-shared-map": FactorAnalyzers(FactorAnalyzer(1, shared_noise=True, noise_prior=4.0), 3),
}
UPHILL = {
    **MODELS,
    **{name: Row(model, of_lines) for name, model in GATED.items()},
    **{name: Row(model, of_normals) for name, model in FACTORS.items()},
    "gated-labels": Row(GATED["gated"], of_lines, labels=labels_of_rows),
    "factors-labels": Row(FACTORS["factors"], of_normals, labels=labels_of_rows),
}
ALSO_UPHILL = pytest.mark.parametrize("row", UPHILL.values(), ids=UPHILL)
EXCHANGEABLE = {name: row for name, row in UPHILL.items() if not row.names_components}
EXCHANGEABLE = pytest.mark.parametrize("row", EXCHANGEABLE.values(), ids=EXCHANGEABLE)
EVERY_GAUSSIAN = pytest.mark.parametrize("model", GAUSSIANS.values(), ids=GAUSSIANS)


class Case(NamedTuple):
    X: np.ndarray
    weight: np.ndarray
    model: Mixture  # prepared
    params: MixtureParams  # a few steps into a fit
    noise: Any
    labels: Any


def data_of(row, X, weight=None):
    labels = as_labels(row.labels(X), 3)
    return as_data(X, weight, labels, allow_nan=True, noise_covariance=row.noise(X))


def case_of(row, rng, dtype=np.float64) -> Case:
    X = row.draw(rng, 400).astype(dtype)
    weight = rng.integers(0, 4, len(X)).astype(float)
    result = fastem.fit(row.model, data_of(row, X, weight), max_iter=3, tol=0, random_state=1)
    return Case(X, weight, result.model, result.params, row.noise, row.labels)


def stats_of(case, rows, weight=None):
    return add_stats(case.model.e_step(case.params, block) for block in data_of(case, rows, weight))


def assert_stats_equal(one, two, rtol=1e-12):
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(1.0, np.max(np.abs(b), initial=0)))


def leaves(params):
    components = params.components
    return [params.weights, *itertools.chain(*components.parts if hasattr(components, "parts") else [components])]


def assert_params_equal(one, two, rtol=1e-10):
    for a, b in zip(leaves(one), leaves(two), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())


# statistics


@ALSO_UPHILL
def test_statistics_add_over_blocks(row, rng):
    case = case_of(row, rng)
    whole = stats_of(case, case.X, case.weight)
    parts = [stats_of(case, case.X[i:j], case.weight[i:j]) for i, j in ((0, 7), (7, 250), (250, 400))]
    assert_stats_equal(add_stats(parts), whole)


@ALSO_UPHILL
def test_integer_weights_repeat_rows_and_zero_removes_them(row, rng):
    case = case_of(row, rng)
    repeated = np.repeat(case.X, case.weight.astype(int), axis=0)
    assert_stats_equal(stats_of(case, case.X, case.weight), stats_of(case, repeated))


@ALSO_UPHILL
def test_float32_statistics_are_close(row, rng):
    case = case_of(row, rng, np.float32)
    double = data_of(case, case.X.astype(np.float64), case.weight)
    model64 = case.model.prepare(double)
    params = case.params
    single = stats_of(case, case.X, case.weight)
    exact = add_stats(model64.e_step(params, block) for block in double)
    assert single.log_likelihood == pytest.approx(exact.log_likelihood, rel=1e-6)
    stepped32, stepped64 = case.model.m_step(single, params), model64.m_step(exact, params)
    assert_params_equal(stepped32, stepped64, rtol=2e-5)


# the M-step: gradients by central differences in an unconstrained chart


def written_out(model, params):
    """Covariances (K, D, D)."""
    means, covariances = params.components[:2]
    k, d = means.shape
    if model.family.form in ("full", "tied"):
        return np.broadcast_to(covariances, (k, d, d))
    return np.stack([np.eye(d) * variance for variance in covariances])


def chart(model, params):
    """A vector for the parameters, and the way from vectors about it to parameters, all of the structure.

    Of normal components log-weights, means, logarithms of volumes and of shapes, angles from the orientations there
    are, and logarithms of tails; else, or if some are frozen, the coordinates of the model.
    """
    if not isinstance(model.family, Gaussian) or model.frozen is not None:
        return model.pack(params), model.unpack
    volume, shape, orientation = model.family.letters
    k, d = params.components.means.shape
    covariances = written_out(model, params)
    if orientation == "V":
        axes = np.linalg.eigh(covariances)[1]
    elif orientation == "E":
        axes = np.linalg.eigh(np.einsum("k,kij->ij", 1.0 + np.sqrt(np.arange(k)), covariances))[1][None]
    else:
        axes = np.eye(d)[None]
    logs = np.log(np.einsum("kji,kjl,kli->ki", np.broadcast_to(axes, (k, d, d)), covariances, axes + 0 * covariances))
    volumes = logs.mean(axis=1, keepdims=True)
    shapes = logs - volumes
    some = {"E": slice(1), "V": slice(k), "I": slice(0)}
    parts = [np.log(params.weights), params.components.means, volumes[some[volume]], shapes[some[shape]]]
    parts.append(np.zeros((len(axes[some[orientation]]), d * (d - 1) // 2)))
    degrees = getattr(params.components, "degrees_of_freedom", None)
    n_tails = {"free": k, "common": 1}.get(getattr(model.family, "degrees_of_freedom", None), 0)
    parts.append(np.log(degrees[:n_tails]) if n_tails else np.empty(0))

    def build(vector):
        pieces, first = [], 0
        for part in parts:
            pieces.append(vector[first : first + part.size].reshape(part.shape))
            first += part.size
        log_weights, means, volumes, shapes, angles, tails = pieces
        turned = axes
        if len(angles):
            skew = np.zeros((len(angles), d, d))
            skew[:, *np.triu_indices(d, 1)] = angles
            turned = axes @ expm(skew - np.swapaxes(skew, 1, 2))
        variances = np.exp(volumes + (shapes - shapes.mean(axis=1, keepdims=True) if len(shapes) else np.zeros((1, d))))
        full = (turned * variances[:, None, :]) @ np.swapaxes(turned, 1, 2)
        full = np.broadcast_to(full, (k, d, d))
        covariances = {
            "full": full,
            "tied": full[0],
            "diag": np.einsum("kii->ki", full),
            "spherical": full[:, 0, 0],
        }[model.family.form]
        components = GaussianParams(means, covariances, model.family.precisions_cholesky(covariances))
        if degrees is not None:
            components = StudentTParams(*components, np.broadcast_to(np.exp(tails), k) if n_tails else degrees)
        return MixtureParams(np.exp(log_weights - np.logaddexp.reduce(log_weights)), components)

    return np.concatenate([part.ravel() for part in parts]), build


@EVERY_GAUSSIAN
def test_the_chart_of_these_tests_is_about_the_parameters(model, rng):
    case = case_of(Row(model, of_normals), rng)
    center, build = chart(case.model, case.params)
    assert_params_equal(build(center), case.params)
    n_redundant = 1 + {"E": 1, "V": 3, "I": 0}[model.family.letters[1]]  # constants in log-weights and shapes
    assert len(center) - n_redundant == case.model.n_parameters(3)


def expected_log_likelihood(model, moments, params):
    """Q(params | the parameters behind the moments), in closed form."""
    if not isinstance(model.family, Gaussian):  # test_families.py compares the densities with SciPy's
        return model.expected_log_likelihood(moments, params)
    kind = model.family.form
    k, d = params.components.means.shape
    covariances, around = params.components.covariances, moments.covariances
    gaps = moments.means - params.components.means
    total = float(moments.counts @ np.log(params.weights))
    precisions = getattr(moments, "precisions", np.ones(k))  # of rows, by which they count for all but determinants
    counts = moments.counts * precisions
    for i in range(k):
        covariance = covariances if kind == "tied" else covariances[i]
        if kind in ("diag", "spherical"):
            covariance = np.eye(d) * covariance
        precision = np.linalg.inv(covariance)
        total -= 0.5 * moments.counts[i] * (d * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1])
        total -= 0.5 * counts[i] * gaps[i] @ precision @ gaps[i]
        if kind == "full":
            total -= 0.5 * counts[i] * np.trace(precision @ around[i])
        elif kind == "diag":
            total -= 0.5 * counts[i] * np.diagonal(precision) @ around[i]
        elif kind == "spherical":
            total -= 0.5 * precision[0, 0] * counts[i] * d * around[i]
        if isinstance(params.components, StudentTParams):  # log-density of the precisions: gamma(nu / 2, nu / 2)
            half = 0.5 * params.components.degrees_of_freedom[i]
            log_density = half * (np.log(half) + moments.log_precisions[i] - precisions[i]) - gammaln(half)
            total += moments.counts[i] * log_density
    return total - (0.5 * counts.sum() * np.trace(precision @ around) if kind == "tied" else 0.0)


def gradient(function, x, h=1e-5):
    return np.array([(function(x + h * e) - function(x - h * e)) / (2 * h) for e in np.eye(len(x))])


def moments_of(case):
    stats = stats_of(case, case.X, case.weight)
    return case.model._moments(stats, case.params), stats


@EVERY
def test_m_step_is_a_stationary_point(row, rng):
    case = case_of(row, rng)
    moments, stats = moments_of(case)
    after = case.model.m_step(stats, case.params)
    moments = case.model.family.rescaled(moments, case.params.components)  # whose maximum the M-step is

    def slope(params):
        center, build = chart(case.model, params)

        def objective(vector):
            params = build(vector)
            return expected_log_likelihood(case.model, moments, params) + case.model.log_prior(params)

        return gradient(objective, center)

    at_maximum, elsewhere = slope(after), slope(case.params)
    assert np.abs(at_maximum).max() < 1e-4
    assert np.abs(elsewhere).max() > 1e-2  # so that the test can fail


@EVERY
def test_fisher_identity(row, rng):
    """The gradient of the log-likelihood is that of Q at the same parameters."""
    case = case_of(row, rng)
    moments, _ = moments_of(case)
    at, build = chart(case.model, case.params)

    def observed(vector):
        return stats_of(case._replace(params=build(vector)), case.X, case.weight).log_likelihood

    def expected(vector):
        return expected_log_likelihood(case.model, moments, build(vector))

    observed_gradient, expected_gradient = gradient(observed, at), gradient(expected, at)
    np.testing.assert_allclose(observed_gradient, expected_gradient, rtol=1e-5, atol=1e-4)
    assert np.abs(expected_gradient).max() > 1e-2


@ALSO_UPHILL
def test_objective_never_falls(row, rng):
    for seed in range(3):
        X = row.draw(rng, 300, separation=1.5)
        seen = fastem.fit(row.model, data_of(row, X), max_iter=60, tol=0, random_state=seed).history
        assert len(seen) == 60
        assert np.diff(seen).min() >= -1e-10 * abs(seen[-1])
        assert seen[-1] > seen[0]


@ALSO_UPHILL
def test_the_sweep_and_the_densities_agree(row, rng):
    """The log-likelihood of an E-step is that of `log_densities`, which go another way."""
    case = case_of(row, rng)
    rows = case.X if case.noise is no_noise else data_of(case, case.X).blocks[0]
    resp = case.model.posteriors(case.params, rows)
    log_densities = case.model.log_densities(case.params, rows)
    if (can := case.labels(case.X)) is not None:
        log_densities = log_densities + np.log((resp * can).sum(axis=1))
    total = float(case.weight @ log_densities)
    assert stats_of(case, case.X, case.weight).log_likelihood == pytest.approx(total, rel=1e-11)
    np.testing.assert_allclose(resp.sum(axis=1), 1.0, rtol=1e-12)
    assert np.array_equal(case.model.labels(case.params, rows), resp.argmax(axis=1))


@ALSO_UPHILL
def test_score_is_the_gradient(row, rng):
    """`score` at the parameters of the statistics is the gradient of the log-likelihood in the model's coordinates."""
    case = case_of(row, rng)
    stats = stats_of(case, case.X, case.weight)

    def observed(vector):
        moved = case._replace(params=case.model.unpack(vector))
        return stats_of(moved, case.X, case.weight).log_likelihood

    want = gradient(observed, case.model.pack(case.params))
    np.testing.assert_allclose(case.model.score(stats, case.params), want, rtol=1e-5, atol=1e-4 * np.abs(want).max())


@EVERY
def test_coordinates_and_back(row, rng):
    case = case_of(row, rng)
    assert_params_equal(case.model.unpack(case.model.pack(case.params)), case.params, rtol=1e-9)


@EVERY
def test_statistics_of_streams(row, rng):
    """What is condensed keeps all that the M-step takes, mixes like rows, and can be recalled from parameters."""
    case = case_of(row, rng)
    model, stats = case.model, stats_of(case, case.X, case.weight)
    unit = stats.weight / np.count_nonzero(case.weight)
    expected = model.condense(stats, case.params)
    after = model.maximize(expected, stats.weight, case.params, unit)
    if not isinstance(model.family.core, StudentT):  # whose M-step of batch EM goes farther
        assert_params_equal(after, model.m_step(stats, case.params))
    half = [stats_of(case, case.X[i::2], case.weight[i::2]) for i in (0, 1)]
    share = half[1].weight / stats.weight
    mixed = model.blend(*(model.condense(part, case.params) for part in half), share)
    assert_params_equal(model.maximize(mixed, stats.weight, case.params, unit), after, rtol=1e-8)
    recalled = model.recall(after, stats.weight)
    assert_params_equal(model.maximize(recalled, stats.weight, after, unit), after, rtol=1e-7)


# equivariance


@EXCHANGEABLE
def test_permuted_components_give_permuted_answers(row, rng):
    case = case_of(row, rng)
    order = np.array([2, 0, 1])

    def permute(params):
        weights = np.append(params.weights[order], params.weights[3:])  # that of noise last
        return MixtureParams(weights, case.model.family.keep(params.components, order))

    plain = case.model.m_step(stats_of(case, case.X, case.weight), case.params)
    swapped = case._replace(params=permute(case.params))
    after = swapped.model.m_step(stats_of(swapped, case.X, case.weight), swapped.params)
    assert_params_equal(after, permute(plain))


@EVERY_GAUSSIAN
def test_affine_equivariance(model, rng):
    """A fit of shifted and scaled columns is the shifted and scaled fit; bit for bit the same steps in the frame."""
    X = simulate(rng, 400, 3, 3)
    spherical = model.family.form == "spherical"
    same_unit = spherical or model.family.letters in ROTATED
    scale = np.full(3, 4.0) if same_unit else np.array([2.0**-20, 1.0, 2.0**30])
    shift = np.array([3.0, -1e3, 0.5]) * scale
    if model.family.prior is not None:  # a prior of its own scale is equivariant too, only when it comes from the data
        assert model.family.prior.scale is None
        if spherical:
            shift = shift * 0 + 8.0
    options = {"max_iter": 15, "tol": 0, "random_state": 3}
    plain, moved = fastem.fit(model, X, **options), fastem.fit(model, X * scale + shift, **options)
    np.testing.assert_allclose(
        moved.params.components.means,
        plain.params.components.means * scale + shift,
        rtol=1e-7,
        atol=1e-7 * scale.max() if same_unit else 0,
    )
    np.testing.assert_allclose(moved.params.weights, plain.params.weights, rtol=1e-7)
    factor = {"diag": scale**2, "spherical": scale[0] ** 2}.get(model.family.form, np.outer(scale, scale))
    covariances = plain.params.components.covariances * factor
    np.testing.assert_allclose(moved.params.components.covariances / factor, covariances / factor, rtol=1e-6, atol=1e-7)


# degenerate equalities


@pytest.mark.parametrize("name", TYPES)
def test_one_component_is_the_maximum_likelihood_estimate(name, rng):
    X = simulate(rng, 200, 3, 1)
    weight = rng.random(200)
    result = fastem.fit(Mixture(Gaussian(name)), X, sample_weight=weight, random_state=0)
    mean = np.average(X, axis=0, weights=weight)
    covariance = (X - mean).T @ ((X - mean) * weight[:, None]) / weight.sum()
    want = {
        "full": covariance[None],
        "tied": covariance,
        "diag": np.diag(covariance)[None],
        "spherical": np.array([np.trace(covariance) / 3]),
    }[Gaussian(name).form]
    np.testing.assert_allclose(result.params.components.means, mean[None], rtol=1e-13)
    np.testing.assert_allclose(result.params.components.covariances, want, rtol=1e-12, atol=1e-13)


def test_structures_agree_in_one_dimension(rng):
    X = simulate(rng, 300, 1, 2)
    start = np.argsort(np.argsort(X[:, 0])) * 2 // 300
    results = [
        fastem.fit(Mixture(Gaussian(name), 2, start=start), X, max_iter=20, tol=0)
        for name in ("full", "diag", "spherical")
    ]
    for result in results[1:]:
        np.testing.assert_allclose(result.history, results[0].history, rtol=1e-13)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["f64", "f32"])
def test_the_whitened_path_agrees_with_the_features(name, dtype, rng, monkeypatch):
    """The same fit with every component thin; and the thin path is really taken."""

    X = simulate(rng, 500, 3, 3, dtype=dtype)
    options = {"max_iter": 10, "tol": 0, "random_state": 2}
    model = Mixture(Gaussian(name), 3)
    plain = fastem.fit(model, X, **options)
    monkeypatch.setattr(gaussian, "_THIN", 1e-40)
    for limit in ("_SINGLE_OUTERMOST", "_SINGLE_TYPICAL"):
        monkeypatch.setattr(gaussian, limit, 1e40)  # float32 products on both paths
    thin = fastem.fit(model, X, **options)
    layout = thin.model.family.layout(thin.params.components, thin.model.frame)
    assert len(layout.whitener) == 3
    np.testing.assert_allclose(thin.history, plain.history, rtol=1e-12 if dtype == np.float64 else 1e-6)
    assert_params_equal(thin.params, plain.params, 1e-10 if dtype == np.float64 else 1e-4)


@pytest.mark.parametrize("name", ["full", "diag", "spherical"])
def test_thin_and_wide_components_in_one_fit(name, rng):
    """One cluster 1e-6 wide beside one of width 1, and 1e3 away: its covariance keeps its digits."""
    thin = 1e3 + 1e-6 * rng.normal(size=(300, 2))
    X = np.concatenate([thin, rng.normal(size=(300, 2))])
    labels = np.repeat([0, 1], 300)
    result = fastem.fit(Mixture(Gaussian(name), 2, start=labels), X, max_iter=5, tol=0)
    layout = result.model.family.layout(result.params.components, result.model.frame)
    assert layout.order[-1] == 0
    assert len(layout.whitener) == 1
    covariance = np.cov(thin.T, bias=True)
    want = {"full": covariance, "diag": np.diag(covariance), "spherical": np.trace(covariance) / 2}[name]
    np.testing.assert_allclose(result.params.components.covariances[0], want, rtol=1e-8)
    np.testing.assert_allclose(result.params.components.means[0], thin.mean(axis=0), rtol=1e-15)


def test_replaced_fields_are_checked():
    with pytest.raises(ValueError, match="n_components"):
        replace(GAUSSIANS["full"], n_components=0)
    with pytest.raises(ValueError, match="weight_concentration"):
        replace(GAUSSIANS["full"], weight_concentration=0.5)


def test_two_models_can_share_data(rng):
    """What a model keeps with a block belongs to its frame."""
    data = as_data(simulate(rng, 300, 2, 2) * [1.0, 100.0])
    options = {"max_iter": 4, "tol": 0, "random_state": 0}
    fastem.fit(Mixture(Gaussian("spherical", prior=MAP), 2), data, **options)
    shared = fastem.fit(Mixture(Gaussian("tied"), 2), data, **options)
    alone = fastem.fit(Mixture(Gaussian("tied"), 2), data.blocks[0].X, **options)
    assert np.array_equal(shared.history, alone.history)


def test_an_unprepared_model_says_so(rng):
    model, data = GAUSSIANS["full"], as_data(simulate(rng))
    params = model.prepare(data).initialize(data, rng)
    with pytest.raises(ValueError, match="prepare"):
        model.e_step(params, data.blocks[0])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"weights_init": [0.5, 0.4]}, "weights_init must be non-negative and sum to 1"),
        ({"weights_init": [1.0]}, "weights_init has shape"),
        ({"means_init": [[1.0], [np.nan]]}, "means_init holds NaN"),
        ({"means_init": [[1.0, 2.0, 3.0]]}, "means_init has shape"),
        ({"precisions_init": [1.0, -1.0]}, "precisions_init has shape"),
        ({"precisions_init": [[[1.0, 2.0], [2.0, 1.0]]] * 2}, "positive definite"),
    ],
)
def test_explicit_starts_are_checked_before_computing(given, words, rng):
    with pytest.raises(ValueError, match=words):
        fastem.fit(Mixture(Gaussian(), 2, **given), rng.normal(size=(20, 2)))


@pytest.mark.parametrize(("n_features", "n_components"), [(1, 2), (2, 2), (5, 2), (24, 2), (24, 3), (17, 9), (41, 8)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kernels_of_few_columns_agree_with_numpy(n_features, n_components, dtype, rng, monkeypatch):
    """Encoding, decoding and roots are kernels for full covariances of few columns, and NumPy beyond."""
    is_wide = kernels_of(n_components, n_features)[0] is natural_of_wide
    assert is_wide == (n_features > 16 and n_components > 2)  # or they are not tested here
    members = np.repeat(np.arange(n_components), 200)
    X = (rng.normal(size=(len(members), n_features)) @ rng.normal(size=(n_features, n_features)) + 3.0).astype(dtype)
    X += 2.0 * members[:, None]
    data = as_data(X)
    results = []
    for few in (n_features, 0):
        monkeypatch.setattr(gaussian, "_FEW_COLUMNS", few)
        model = Mixture(Gaussian(reg_covar=1e-9), n_components, start=members).prepare(data)
        params = model.initialize(data, np.random.default_rng(0))
        layout = model.family.layout(params.components, model.bound)
        states = model.family.natural(params.components, np.log(params.weights), layout, model.bound)
        stats = model.e_step(params, data.blocks[0])
        results.append((params, layout, states, model.m_step(stats, params)))
    (params, layout, states, after), (params_, layout_, states_, after_) = results
    assert_params_equal(params, params_, rtol=1e-11)
    assert_params_equal(after, after_, rtol=1e-5 if states.theta.dtype == np.float32 else 1e-9)
    assert layout.whitener.shape == layout_.whitener.shape
    assert layout.whitener.dtype == layout_.whitener.dtype
    assert np.array_equal(layout.order, layout_.order)
    for kernel, numpy in zip(states, states_, strict=True):
        rtol = 1e-5 if getattr(kernel, "dtype", None) == np.float32 else 1e-9
        np.testing.assert_allclose(kernel, numpy, rtol=rtol, atol=rtol * np.abs(numpy).max(initial=0.0))


@pytest.mark.parametrize("n_rows", [1, 3, 99, 100, 250])
@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_log_densities_of_some_rows(covariance_type, n_rows, rng):
    """Of few rows, of as many as there are components, and of many, which are one product."""
    X = rng.normal(size=(300, 4)) @ rng.normal(size=(4, 4)) + 50.0
    found = fastem.fit(Mixture(Gaussian(covariance_type), 3), X, random_state=0, max_iter=3, tol=0).params.components
    if covariance_type in ("diag", "spherical"):
        full = np.eye(4) * found.covariances.reshape(3, 1, -1)
    else:
        full = np.broadcast_to(found.covariances, (3, 4, 4))
    want = [multivariate_normal(*part).logpdf(X[:n_rows]) for part in zip(found.means, full, strict=True)]
    got = Gaussian(covariance_type).log_densities(found, X[:n_rows])
    np.testing.assert_allclose(got, np.reshape(want, (3, n_rows)).T, rtol=1e-9)


@pytest.mark.parametrize("few", [0, 24])
def test_a_collapse_is_named_alike_with_and_without_kernels(few, rng, monkeypatch):
    monkeypatch.setattr(gaussian, "_FEW_COLUMNS", few)
    family, granule = Gaussian(), np.full(3, 1e-16)
    good = np.cov(rng.normal(size=(3, 9)))
    flat, dependent = np.diag([1.0, 0.0, 1.0]), np.ones((3, 3)) + np.diag([0.0, 0.0, 1e-15])
    roots = family.precisions_cholesky(np.stack([good, 2 * good]), granule)
    np.testing.assert_allclose(roots[1] @ roots[1].T @ (2 * good), np.eye(3), atol=1e-12)
    for bad, column in [(flat, 1), (dependent, 1), (np.full((3, 3), np.nan), 0)]:
        with pytest.raises(DegenerateError, match=f"component 1 has a singular covariance at column {column}"):
            family.precisions_cholesky(np.stack([good, bad]), granule)


@pytest.mark.parametrize(
    "form",
    [np.asfortranarray, lambda X: X.astype(np.int64), lambda X: X.astype(np.uint8), lambda X: X[:, ::-1][:, ::-1]],
)
def test_a_models_densities_take_any_numbers(form, rng):
    """Kernels load whole vectors of floats in C order; everything else is brought into that form."""
    X = rng.integers(0, 9, (50, 3)).astype(float)
    result = fastem.fit(Mixture(Gaussian()), X, random_state=0)
    want = result.model.log_densities(result.params, X)
    assert np.array_equal(result.model.log_densities(result.params, form(X)), want)
    with pytest.raises(ValueError, match="X has 2 columns; the parameters are for 3"):
        result.model.labels(result.params, np.zeros((4, 2)))


def test_no_coordinates_on_the_boundary(rng):
    case = case_of(Row(Mixture(Gaussian(), 2), of_normals), rng)
    with pytest.raises(DegenerateError, match="weight 0"):
        case.model.pack(case.params._replace(weights=np.array([1.0, 0.0])))
    start = np.zeros(len(case.X), int)
    with pytest.raises(ValueError, match="none can race"):
        fastem.fit(Mixture(Gaussian(), 2, start=start), case.X, n_race=2)
