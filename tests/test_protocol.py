"""What must hold of every model, through the protocol alone; one row of MODELS a model."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import simulate
from exponential_kinds import KINDS, draw_rows, punched
from scipy.special import gammaln

import fastem
from fastem.data import as_data
from fastem.families import gaussian
from fastem.families.gated_regression import GatedRegression
from fastem.families.gaussian import Gaussian
from fastem.families.gaussian_records import GaussianParams
from fastem.families.normal_inverse_wishart import NormalInverseWishart
from fastem.families.regression import Regression
from fastem.families.student_t import StudentT
from fastem.families.student_t_records import StudentTParams
from fastem.models.gated_regressions import GatedRegressions
from fastem.models.mixture import Mixture
from fastem.models.mixture_records import MixtureParams
from fastem.models.regressions import Regressions
from fastem.protocol import DegenerateError, add_stats

MAP = NormalInverseWishart(mean_precision=0.5, degrees_of_freedom=7.0)
TYPES = ("full", "tied", "diag", "spherical")


class Row(NamedTuple):
    """A model, and rows for it."""

    model: Mixture
    draw: Any  # (rng, n_samples, separation) -> X


def of_normals(rng, n_samples, separation=0.8):
    return simulate(rng, n_samples, 3, 3, separation=separation)


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


GAUSSIANS = {
    **{name: Mixture(Gaussian(name), 3) for name in TYPES},
    **{f"{name}-map": Mixture(Gaussian(name, prior=MAP), 3, weight_concentration=2.0) for name in TYPES},
    **{f"t-{name}": Mixture(StudentT(name), 3) for name in TYPES},
    **{f"t-{name}-common": Mixture(StudentT(name, degrees_of_freedom="common"), 3) for name in ("full", "tied")},
    **{f"t-{name}-known": Mixture(StudentT(name, degrees_of_freedom=3.0), 3) for name in ("diag", "tied")},
    **{f"t-{name}-map": Mixture(StudentT(name, prior=MAP), 3, weight_concentration=2.0) for name in TYPES},
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
GATED = {
    "gated": GatedRegressions(GatedRegression(2), 3),
    "gated-tied-map": GatedRegressions(GatedRegression(1, "tied", prior=ERRORS, concomitants=[1]), 3),
}
MODELS = {
    **{name: Row(model, of_normals) for name, model in GAUSSIANS.items()},
    **dict(exponential_rows()),
    **{name: Row(model, of_lines) for name, model in REGRESSIONS.items()},
}
EVERY = pytest.mark.parametrize("row", MODELS.values(), ids=MODELS)
# Gates have no M-step in closed form, only a step that leads uphill, and their statistics are no moments.
ALSO_GATED = {**MODELS, **{name: Row(model, of_lines) for name, model in GATED.items()}}
ALSO_GATED = pytest.mark.parametrize("row", ALSO_GATED.values(), ids=ALSO_GATED)
EVERY_GAUSSIAN = pytest.mark.parametrize("model", GAUSSIANS.values(), ids=GAUSSIANS)


class Case(NamedTuple):
    X: np.ndarray
    weight: np.ndarray
    model: Mixture  # prepared
    params: MixtureParams  # a few steps into a fit


def case_of(row, rng, dtype=np.float64) -> Case:
    X = row.draw(rng, 400).astype(dtype)
    weight = rng.integers(0, 4, len(X)).astype(float)
    result = fastem.fit(row.model, X, sample_weight=weight, max_iter=3, tol=0, random_state=1)
    return Case(X, weight, result.model, result.params)


def stats_of(case, rows, weight=None):
    return add_stats(case.model.e_step(case.params, block) for block in as_data(rows, weight, allow_nan=True))


def assert_stats_equal(one, two, rtol=1e-12):
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(1.0, np.max(np.abs(b), initial=0)))


def leaves(params):
    return [params.weights, *params.components]


def assert_params_equal(one, two, rtol=1e-10):
    for a, b in zip(leaves(one), leaves(two), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())


# statistics


@ALSO_GATED
def test_statistics_add_over_blocks(row, rng):
    case = case_of(row, rng)
    whole = stats_of(case, case.X, case.weight)
    parts = [stats_of(case, case.X[i:j], case.weight[i:j]) for i, j in ((0, 7), (7, 250), (250, 400))]
    assert_stats_equal(add_stats(parts), whole)


@ALSO_GATED
def test_integer_weights_repeat_rows_and_zero_removes_them(row, rng):
    case = case_of(row, rng)
    repeated = np.repeat(case.X, case.weight.astype(int), axis=0)
    assert_stats_equal(stats_of(case, case.X, case.weight), stats_of(case, repeated))


@ALSO_GATED
def test_float32_statistics_are_close(row, rng):
    case = case_of(row, rng, np.float32)
    double = as_data(case.X.astype(np.float64), case.weight, allow_nan=True)
    model64 = case.model.prepare(double)
    params = case.params
    single = stats_of(case, case.X, case.weight)
    exact = add_stats(model64.e_step(params, block) for block in double)
    assert single.log_likelihood == pytest.approx(exact.log_likelihood, rel=1e-6)
    stepped32, stepped64 = case.model.m_step(single, params), model64.m_step(exact, params)
    assert_params_equal(stepped32, stepped64, rtol=2e-5)


# the M-step: gradients by central differences in an unconstrained chart


def pack(model, params):
    """Coordinates; of normal components log-weights, means, covariance roots with log-diagonals, and tails."""
    if not isinstance(model.family, Gaussian):
        return model.pack(params)
    pieces = [np.log(params.weights), params.components.means.ravel()]
    covariances = params.components.covariances
    if model.family.covariance_type in ("full", "tied"):
        lower = np.linalg.cholesky(covariances)
        diagonal = np.diagonal(lower, axis1=-2, axis2=-1)
        rows, columns = np.tril_indices(lower.shape[-1], -1)
        pieces += [np.log(diagonal).ravel(), lower[..., rows, columns].ravel()]
    else:
        pieces.append(np.log(covariances).ravel())
    if isinstance(params.components, StudentTParams):
        pieces.append(np.log(params.components.degrees_of_freedom)[: n_tails(model)])
    return np.concatenate(pieces)


def n_tails(model):
    """Number of free degrees of freedom."""
    return {"free": model.n_components, "common": 1}.get(getattr(model.family, "degrees_of_freedom", None), 0)


def unpack(model, vector, like):
    if not isinstance(model.family, Gaussian):
        return model.unpack(vector)
    k, d = like.components.means.shape
    weights = np.exp(vector[:k] - np.logaddexp.reduce(vector[:k]))
    means = vector[k : k + k * d].reshape(k, d)
    rest = vector[k + k * d : len(vector) - n_tails(model)]
    tails = np.exp(vector[len(vector) - n_tails(model) :])
    shape = like.components.covariances.shape
    if model.family.covariance_type in ("full", "tied"):
        n = shape[0] if len(shape) == 3 else 1
        lower = np.zeros((n, d, d))
        lower[:, np.arange(d), np.arange(d)] = np.exp(rest[: n * d]).reshape(n, d)
        rows, columns = np.tril_indices(d, -1)
        lower[:, rows, columns] = rest[n * d :].reshape(n, -1)
        covariances = (lower @ np.swapaxes(lower, 1, 2)).reshape(shape)
    else:
        covariances = np.exp(rest).reshape(shape)
    components = GaussianParams(means, covariances, model.family.precisions_cholesky(covariances))
    if isinstance(like.components, StudentTParams):
        tails = np.broadcast_to(tails, k) if len(tails) else like.components.degrees_of_freedom
        components = StudentTParams(*components, tails)
    return MixtureParams(weights, components)


def expected_log_likelihood(model, moments, params):
    """Q(params | the parameters behind the moments), in closed form."""
    if not isinstance(model.family, Gaussian):  # test_families.py compares the densities with SciPy's
        return model.expected_log_likelihood(moments, params)
    kind = model.family.covariance_type
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
    layout = case.model.family.layout(case.params.components, case.model.frame)
    stats = stats_of(case, case.X, case.weight)
    return case.model.family.moments(stats.sums, stats.scatter, layout, case.model.frame), stats


@EVERY
def test_m_step_is_a_stationary_point(row, rng):
    case = case_of(row, rng)
    moments, stats = moments_of(case)
    after = case.model.m_step(stats, case.params)
    moments = case.model.family.rescaled(moments, case.params.components)  # whose maximum the M-step is

    def objective(vector):
        params = unpack(case.model, vector, after)
        return expected_log_likelihood(case.model, moments, params) + case.model.log_prior(params)

    at_maximum = gradient(objective, pack(case.model, after))
    elsewhere = gradient(objective, pack(case.model, case.params))
    assert np.abs(at_maximum).max() < 1e-4
    assert np.abs(elsewhere).max() > 1e-2  # so that the test can fail


@EVERY
def test_fisher_identity(row, rng):
    """The gradient of the log-likelihood is that of Q at the same parameters."""
    case = case_of(row, rng)
    moments, _ = moments_of(case)
    at = pack(case.model, case.params)

    def observed(vector):
        return stats_of(
            case._replace(params=unpack(case.model, vector, case.params)), case.X, case.weight
        ).log_likelihood

    def expected(vector):
        return expected_log_likelihood(case.model, moments, unpack(case.model, vector, case.params))

    observed_gradient, expected_gradient = gradient(observed, at), gradient(expected, at)
    np.testing.assert_allclose(observed_gradient, expected_gradient, rtol=1e-5, atol=1e-4)
    assert np.abs(expected_gradient).max() > 1e-2


@ALSO_GATED
def test_objective_never_falls(row, rng):
    for seed in range(3):
        X = row.draw(rng, 300, separation=1.5)
        seen = fastem.fit(row.model, X, max_iter=60, tol=0, random_state=seed).history
        assert len(seen) == 60
        assert np.diff(seen).min() >= -1e-10 * abs(seen[-1])
        assert seen[-1] > seen[0]


@ALSO_GATED
def test_the_sweep_and_the_densities_agree(row, rng):
    """The log-likelihood of an E-step is that of `log_densities`, which go another way."""
    case = case_of(row, rng)
    total = float(case.weight @ case.model.log_densities(case.params, case.X))
    assert stats_of(case, case.X, case.weight).log_likelihood == pytest.approx(total, rel=1e-11)
    resp = case.model.posteriors(case.params, case.X)
    np.testing.assert_allclose(resp.sum(axis=1), 1.0, rtol=1e-12)
    assert np.array_equal(case.model.labels(case.params, case.X), resp.argmax(axis=1))


@ALSO_GATED
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
    if not isinstance(model.family, StudentT):  # whose M-step of batch EM goes farther
        assert_params_equal(after, model.m_step(stats, case.params))
    half = [stats_of(case, case.X[i::2], case.weight[i::2]) for i in (0, 1)]
    share = half[1].weight / stats.weight
    mixed = model.blend(*(model.condense(part, case.params) for part in half), share)
    assert_params_equal(model.maximize(mixed, stats.weight, case.params, unit), after, rtol=1e-8)
    recalled = model.recall(after, stats.weight)
    assert_params_equal(model.maximize(recalled, stats.weight, after, unit), after, rtol=1e-7)


# equivariance


@ALSO_GATED
def test_permuted_components_give_permuted_answers(row, rng):
    case = case_of(row, rng)
    order = np.array([2, 0, 1])

    def permute(params):
        return MixtureParams(params.weights[order], case.model.family.keep(params.components, order))

    plain = case.model.m_step(stats_of(case, case.X, case.weight), case.params)
    swapped = case._replace(params=permute(case.params))
    after = swapped.model.m_step(stats_of(swapped, case.X, case.weight), swapped.params)
    assert_params_equal(after, permute(plain))


@EVERY_GAUSSIAN
def test_affine_equivariance(model, rng):
    """A fit of shifted and scaled columns is the shifted and scaled fit; bit for bit the same steps in the frame."""
    X = simulate(rng, 400, 3, 3)
    spherical = model.family.covariance_type == "spherical"
    scale = np.full(3, 4.0) if spherical else np.array([2.0**-20, 1.0, 2.0**30])
    shift = np.array([3.0, -1e3, 0.5]) * scale
    if model.family.prior is not None:  # a prior of its own scale is equivariant too, only when it comes from the data
        assert model.family.prior.scale is None
        if model.family.covariance_type == "spherical":
            shift = shift * 0 + 8.0
    options = {"max_iter": 15, "tol": 0, "random_state": 3}
    plain, moved = fastem.fit(model, X, **options), fastem.fit(model, X * scale + shift, **options)
    np.testing.assert_allclose(
        moved.params.components.means,
        plain.params.components.means * scale + shift,
        rtol=1e-7,
        atol=1e-7 * scale.max() if spherical else 0,
    )
    np.testing.assert_allclose(moved.params.weights, plain.params.weights, rtol=1e-7)
    factor = {"diag": scale**2, "spherical": scale[0] ** 2}.get(model.family.covariance_type, np.outer(scale, scale))
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
    }[name]
    np.testing.assert_allclose(result.params.components.means, mean[None], rtol=1e-13)
    np.testing.assert_allclose(result.params.components.covariances, want, rtol=1e-13)


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


@pytest.mark.parametrize("n_features", [1, 2, 5, 24])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kernels_of_few_columns_agree_with_numpy(n_features, dtype, rng, monkeypatch):
    """Encoding, decoding and roots are kernels for full covariances of few columns, and NumPy beyond."""
    X = (rng.normal(size=(400, n_features)) @ rng.normal(size=(n_features, n_features)) + 3.0).astype(dtype)
    X[:200] += 2.0
    data = as_data(X)
    results = []
    for few in (24, 0):
        monkeypatch.setattr(gaussian, "_FEW_COLUMNS", few)
        model = Mixture(Gaussian(reg_covar=1e-9), 2, start=np.repeat([0, 1], 200)).prepare(data)
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
