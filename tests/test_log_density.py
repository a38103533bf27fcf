"""Log densities and posteriors against arithmetic with 50 digits.

The truth is defined by the doubles that an estimator was given: weights, means, covariances and rows. Errors are
relative to max(1, |value|).
"""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf

from fastem import GaussianMixture

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")
TOLERANCE = 1e-12


def random_covariance(rng, n_features, condition, sigma):
    """Covariance of random orientation whose widest standard deviation is sigma."""
    axes = np.linalg.qr(rng.standard_normal((n_features, n_features)))[0]
    covariance = (axes * np.geomspace(1, 1 / condition, n_features) * sigma**2) @ axes.T
    return (covariance + covariance.T) / 2


def random_covariances(rng, covariance_type, n_components, n_features, condition, sigma):
    """Covariances in the estimator's shape; those of diag and spherical differ by the condition number among them."""
    if covariance_type == "tied":
        return random_covariance(rng, n_features, condition, sigma)
    if covariance_type == "full":
        return np.array([random_covariance(rng, n_features, condition, sigma) for _ in range(n_components)])
    size = (n_components, n_features) if covariance_type == "diag" else n_components
    return sigma**2 * condition ** -rng.permuted(np.linspace(0, 1, np.prod(size))).reshape(size)


def written_out(covariances, covariance_type, n_components, n_features):
    """Covariances as (K, D, D)."""
    if covariance_type == "diag":
        return np.array([np.diag(variances) for variances in covariances])
    if covariance_type == "spherical":
        return np.array([variance * np.eye(n_features) for variance in covariances])
    return np.broadcast_to(covariances, (n_components, n_features, n_features))


def rows_about(rng, mean, covariance):
    """The mean itself, typical rows, and rows 1e3 sigma away: of the ellipsoid, and of its widest axis."""
    n_features = len(mean)
    values, axes = np.linalg.eigh(covariance)
    root = axes * np.sqrt(np.maximum(values, values.max() * 1e-13))
    z = rng.standard_normal((4, n_features))
    directions = z / np.linalg.norm(z, axis=1, keepdims=True)
    widest = np.sqrt(values.max())
    return mean + np.concatenate([np.zeros((1, n_features)), z @ root.T, 1e3 * directions @ root.T, 1e3 * widest * z])


def exact_log_prob(weights, means, covariances, X):
    """log(weight_k N(x_i; mean_k, covariance_k)) with 50 digits, as (n_samples, K) objects."""
    result = np.empty((len(X), len(weights)), dtype=object)
    for k, (weight, mean, covariance) in enumerate(zip(weights, means, covariances, strict=True)):
        root = mp.cholesky(mp.matrix(covariance.tolist()))
        n_features = len(mean)
        constant = mp.log(mpf(float(weight))) - n_features * mp.log(2 * mp.pi) / 2
        constant -= mp.fsum(mp.log(root[d, d]) for d in range(n_features))
        for i, row in enumerate(X):
            y = []
            for d in range(n_features):
                gap = mpf(float(row[d])) - mpf(float(mean[d]))
                y.append((gap - mp.fsum(root[d, j] * y[j] for j in range(d))) / root[d, d])
            result[i, k] = constant - mp.fsum(value**2 for value in y) / 2
    return result


@mpmath.workdps(50)
def assert_exact(weights, means, covariances, covariance_type, X):
    """Compare score_samples, predict_proba and predict with the truth."""
    model = GaussianMixture.from_parameters(weights, means, covariances, covariance_type=covariance_type)
    log_prob = exact_log_prob(weights, means, written_out(covariances, covariance_type, *np.shape(means)), X)
    top = log_prob.max(axis=1)
    total = [
        peak + mp.log(mp.fsum(mp.exp(value - peak) for value in row)) for row, peak in zip(log_prob, top, strict=True)
    ]

    density, resp = model.score_samples(X), model.predict_proba(X)
    size = np.array([max(1.0, abs(float(value))) for value in total])
    error = np.array([abs(float(mpf(float(ours)) - value)) for ours, value in zip(density, total, strict=True)]) / size
    worst = int(error.argmax())
    assert error[worst] <= TOLERANCE, (
        f"row {worst}: {density[worst]!r}, not {mp.nstr(total[worst], 20)}; {error[worst]:.1e}"
    )

    # An error of that size in every log probability moves a posterior by at most half of its absolute value.
    truth = [[mp.exp(value - sum_) for value in row] for row, sum_ in zip(log_prob, total, strict=True)]
    gap = np.array(
        [[abs(float(mpf(float(r)) - t)) for r, t in zip(*pair, strict=True)] for pair in zip(resp, truth, strict=True)]
    )
    assert np.all(gap <= TOLERANCE * size[:, None]), f"posterior off by {gap.max():.1e}"
    assert np.all(np.abs(resp.sum(axis=1) - 1) <= 1e-14 * len(weights))
    second = np.sort(log_prob, axis=1)[:, -2] if len(weights) > 1 else np.full(len(X), -mp.inf)
    clear = np.array([float(peak - other) for peak, other in zip(top, second, strict=True)]) > 2 * TOLERANCE * size
    assert np.array_equal(model.predict(X)[clear], log_prob.argmax(axis=1)[clear])


def random_case(rng, covariance_type, n_components, n_features, condition, sigma, offset):
    """Weights, means a few sigma apart, covariances, and rows about each component."""
    weights = rng.dirichlet(np.full(n_components, 2.0))
    covariances = random_covariances(rng, covariance_type, n_components, n_features, condition, sigma)
    means = offset * rng.choice([-1.0, 1.0], n_features) + 2 * sigma * rng.standard_normal((n_components, n_features))
    matrices = written_out(covariances, covariance_type, n_components, n_features)
    X = np.concatenate([rows_about(rng, mean, matrix) for mean, matrix in zip(means, matrices, strict=True)])
    return weights, means, covariances, covariance_type, X


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("condition", [1.0, 1e4, 1e8, 1e12], ids="condition-{:.0e}".format)
@pytest.mark.parametrize("sigma", [1e-6, 1.0, 1e6], ids="sigma-{:.0e}".format)
@pytest.mark.parametrize("offset", [0.0, 1e8], ids="offset-{:.0e}".format)
@pytest.mark.parametrize("n_features", [1, 2, 5, 9], ids="D{}".format)
def test_one_component(covariance_type, condition, sigma, offset, n_features):
    assert_exact(*random_case(np.random.default_rng(0), covariance_type, 1, n_features, condition, sigma, offset))


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("condition", [1.0, 1e4, 1e8, 1e12], ids="condition-{:.0e}".format)
@pytest.mark.parametrize("offset", [0.0, 1e8], ids="offset-{:.0e}".format)
@pytest.mark.parametrize(("n_components", "n_features"), [(2, 1), (4, 2), (3, 6)], ids=["K2-D1", "K4-D2", "K3-D6"])
def test_mixture(covariance_type, condition, offset, n_components, n_features):
    assert_exact(
        *random_case(np.random.default_rng(1), covariance_type, n_components, n_features, condition, 1.0, offset)
    )


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_weight_of_almost_nothing(covariance_type):
    rng = np.random.default_rng(2)
    _, means, covariances, _, X = random_case(rng, covariance_type, 3, 2, 10.0, 1.0, 0.0)
    assert_exact(np.array([1e-300, 1e-16, 1 - 1e-16]), means, covariances, covariance_type, X)


@settings(derandomize=True, database=None, deadline=None, max_examples=150)
@given(
    covariance_type=st.sampled_from(COVARIANCE_TYPES),
    n_components=st.integers(1, 4),
    n_features=st.integers(1, 6),
    condition=st.floats(0, 12).map(lambda power: 10.0**power),
    sigma=st.floats(-6, 6).map(lambda power: 10.0**power),
    offset=st.just(0.0) | st.floats(-1e8, 1e8),
    seed=st.integers(0, 2**32 - 1),
)
def test_random_mixtures(covariance_type, n_components, n_features, condition, sigma, offset, seed):
    rng = np.random.default_rng(seed)
    assert_exact(*random_case(rng, covariance_type, n_components, n_features, condition, sigma, offset))
