"""Mixtures of rows that were measured with noise of known covariance, against another implementation of the paper."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from fastem import GaussianMixture
from fastem.data import as_data
from fastem.families.gaussian import Gaussian
from fastem.families.gaussian_records import GaussianParams
from fastem.kernels import sweep
from fastem.models.mixture import Mixture
from fastem.models.mixture_records import MixtureParams

TYPES = ("full", "tied", "diag", "spherical")
EVERY_TYPE = pytest.mark.parametrize("name", TYPES)
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def step(X, noise, weights, means, covariances, sample_weight=None):
    """Log-likelihood, and the next parameters: Bovy, Hogg & Roweis (2011), equations 16 to 22, as they are written."""
    sample_weight = np.ones(len(X)) if sample_weight is None else sample_weight
    log_densities, expected, spreads = [], [], []
    for weight, mean, covariance in zip(weights, means, covariances, strict=True):
        inverse = np.linalg.inv(covariance + noise)
        gap = X - mean
        log_det = np.linalg.slogdet(2 * np.pi * (covariance + noise))[1]
        log_densities.append(np.log(weight) - 0.5 * (log_det + np.einsum("ni,nij,nj->n", gap, inverse, gap)))
        expected.append(mean + np.einsum("ij,njk,nk->ni", covariance, inverse, gap))
        spreads.append(covariance - covariance @ inverse @ covariance)
    joint = np.array(log_densities)
    log_likelihood = np.logaddexp.reduce(joint)
    resp = np.exp(joint - log_likelihood) * sample_weight
    counts = resp.sum(axis=1)
    means = np.einsum("kn,kni->ki", resp, expected) / counts[:, None]
    gaps = np.array(expected) - means[:, None]
    second = np.einsum("kn,kni,knj->kij", resp, gaps, gaps) + np.einsum("kn,knij->kij", resp, spreads)
    return sample_weight @ log_likelihood, (counts / counts.sum(), means, second / counts[:, None, None])


def noisy_rows(rng, n_rows, n_features, n_components, size=1.0):
    """Rows, the full covariances of their noise, and a start."""
    means = 4.0 * rng.normal(size=(n_components, n_features))
    v = means[rng.integers(n_components, size=n_rows)] + rng.normal(size=(n_rows, n_features))
    roots = size * rng.normal(size=(n_rows, n_features, n_features)) / np.sqrt(n_features)
    noise = roots @ np.swapaxes(roots, 1, 2)
    X = v + np.einsum("nij,nj->ni", roots, rng.normal(size=(n_rows, n_features)))
    start = np.full(n_components, 1 / n_components), means, np.array([np.eye(n_features)] * n_components)
    return X, noise, start


def from_start(start, name="full", **params):
    weights, means, covariances = start
    precisions = np.linalg.inv(covariances)
    k, d = means.shape
    shaped = {"tied": precisions[0], "diag": np.ones((k, d)), "spherical": np.ones(k)}.get(name, precisions)
    params = {"reg_covar": 0.0, "tol": 0.0, "max_iter": 4, **params}
    return GaussianMixture(
        k, covariance_type=name, weights_init=weights, means_init=means, precisions_init=shaped, **params
    )


FORMS = {  # what is given, of full covariances of every row, and what it means
    "rows": lambda noise: (noise, noise),
    "variances": lambda noise: (
        np.einsum("nii->ni", noise),
        np.einsum("nii->ni", noise)[:, :, None] * np.eye(noise.shape[1]),
    ),
    "shared": lambda noise: (noise[0], np.broadcast_to(noise[0], noise.shape)),
    "shared-variances": lambda noise: (
        np.diagonal(noise[0]),
        np.broadcast_to(np.diag(np.diagonal(noise[0])), noise.shape),
    ),
}


@given(
    n_rows=st.integers(12, 70),
    n_features=st.integers(1, 6),
    n_components=st.integers(1, 4),
    form=st.sampled_from(list(FORMS)),
    weighted=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(derandomize=True, deadline=None, max_examples=50)
def test_steps_are_those_of_the_paper(n_rows, n_features, n_components, form, weighted, seed):
    rng = np.random.default_rng(seed)
    X, noise, start = noisy_rows(rng, n_rows, n_features, n_components)
    given_noise, noise = FORMS[form](noise)
    weight = rng.integers(1, 4, n_rows).astype(float) if weighted else None
    gm = from_start(start).fit(X, sample_weight=weight, noise_covariance=given_noise)
    history, parameters = [], start
    for _ in range(4):
        total, parameters = step(X, noise, *parameters, sample_weight=weight)
        history.append(total)
    assert_allclose(np.array(gm.lower_bounds_) * (n_rows if weight is None else weight.sum()), history, rtol=1e-10)
    for found, wanted in zip((gm.weights_, gm.means_, gm.covariances_), parameters, strict=True):
        assert_allclose(found, wanted, rtol=1e-7, atol=1e-9 * np.abs(wanted).max())
    total, _ = step(X, noise, *parameters)
    assert gm.score(X, noise_covariance=given_noise) * n_rows == pytest.approx(total, rel=1e-10)


@EVERY_TYPE
@pytest.mark.parametrize("form", FORMS)
def test_objective_never_falls(name, form, rng):
    for seed in range(2):
        X, noise, _ = noisy_rows(rng, 300, 3, 3)
        gm = GaussianMixture(3, covariance_type=name, reg_covar=0.0, tol=0.0, max_iter=40, random_state=seed)
        gm.set_params(acceleration=None, n_race=0).fit(X, noise_covariance=FORMS[form](noise)[0])
        assert np.diff(gm.lower_bounds_).min() > -1e-12
        assert gm.lower_bounds_[-1] > gm.lower_bounds_[0]


@EVERY_TYPE
def test_no_noise_is_the_mixture_itself(name, rng):
    X, _, start = noisy_rows(rng, 300, 3, 3)
    plain = from_start(start, name).fit(X)
    for zeros in (np.zeros(3), np.zeros((3, 3)), np.zeros((300, 3)), np.zeros((300, 3, 3))):
        noisy = from_start(start, name).fit(X, noise_covariance=zeros)
        assert_allclose(noisy.lower_bounds_, plain.lower_bounds_, rtol=1e-12)
        assert_allclose(noisy.covariances_, plain.covariances_, rtol=1e-10, atol=1e-12)
        assert_allclose(noisy.score_samples(X, noise_covariance=zeros), noisy.score_samples(X), rtol=1e-11)
    assert plain.fit(X, noise_covariance=None).lower_bounds_ == from_start(start, name).fit(X).lower_bounds_


@EVERY_TYPE
def test_the_same_noise_in_every_form(name, rng):
    """Given once or for each row; by one sweep, or row by row."""
    X, _, start = noisy_rows(rng, 400, 3, 3)
    variances = np.array([0.5, 1.0, 0.2])
    forms = [variances, np.tile(variances, (400, 1)), np.diag(variances), np.tile(np.diag(variances), (400, 1, 1))]
    fits = [from_start(start, name).fit(X, noise_covariance=form) for form in forms]
    for form, fit in zip(forms, fits, strict=True):
        assert_allclose(fit.lower_bounds_, fits[0].lower_bounds_, rtol=1e-12)
        assert_allclose(fit.covariances_, fits[0].covariances_, rtol=1e-9, atol=1e-11)
        assert_allclose(
            fit.predict_proba(X, noise_covariance=form), fits[0].predict_proba(X, noise_covariance=variances), atol=1e-9
        )
        assert np.array_equal(fit.predict(X, noise_covariance=form), fits[0].predict(X, noise_covariance=variances))


def test_what_is_found_is_without_the_noise(rng):
    """Rows whose noise is wider than their distribution, which a mixture of the rows as they are does not show."""
    n = 20_000
    v = rng.normal(size=(n, 2)) @ [[1.0, 0.8], [0.0, 0.6]] + np.where(rng.random((n, 1)) < 0.5, -4.0, 4.0)
    variances = rng.gamma(2.0, 1.0, size=(n, 2))
    X = v + np.sqrt(variances) * rng.normal(size=(n, 2))
    found = GaussianMixture(2, random_state=0).fit(X, noise_covariance=variances)
    blurred = GaussianMixture(2, random_state=0).fit(X)
    truth = np.array([[1.0, 0.8], [0.8, 1.0]])
    assert_allclose(found.covariances_, [truth, truth], atol=0.12)
    assert np.linalg.det(blurred.covariances_).min() > 4.0 * np.linalg.det(found.covariances_).max()
    assert_allclose(np.sort(found.means_[:, 0]), [-4.0, 4.0], atol=0.1)


def test_densities_of_rows_with_noise(rng):
    X, noise, _ = noisy_rows(rng, 30, 2, 2)
    gm = GaussianMixture.from_parameters([0.3, 0.7], [[0.0, 0.0], [3.0, 1.0]], [np.eye(2), np.diag([2.0, 0.5])])
    densities = [
        sum(
            w * scipy.stats.multivariate_normal(m, c + s).pdf(x)
            for w, m, c in zip(gm.weights_, gm.means_, gm.covariances_, strict=True)
        )
        for x, s in zip(X, noise, strict=True)
    ]
    assert_allclose(gm.score_samples(X, noise_covariance=noise), np.log(densities), rtol=1e-10)
    total = 2 * np.log(densities).sum()
    assert gm.bic(X, noise_covariance=noise) == pytest.approx(11 * np.log(30) - total)
    assert gm.aic(X, noise_covariance=noise) == pytest.approx(22 - total)
    assert gm.score(X, sample_weight=np.arange(30), noise_covariance=noise) == pytest.approx(
        np.average(np.log(densities), weights=np.arange(30))
    )
    labels = gm.predict(X, noise_covariance=noise)
    assert np.array_equal(labels, gm.predict_proba(X, noise_covariance=noise).argmax(axis=1))


def test_one_row(rng):
    """Noise of one row has the shape of noise that all share."""
    gm = GaussianMixture.from_parameters([1.0], [[0.0, 0.0]], [np.eye(2)])
    noise = np.array([[1.0, 0.5], [0.5, 2.0]])
    want = scipy.stats.multivariate_normal(cov=np.eye(2) + noise).logpdf([1.0, 2.0])
    for form in (noise, noise[None]):
        assert gm.score_samples([[1.0, 2.0]], noise_covariance=form)[0] == pytest.approx(want, rel=1e-13)


@EVERY_TYPE
def test_threads_change_no_bits(name, rng, monkeypatch):
    X, noise, start = noisy_rows(rng, 30_000, 3, 3)
    together, runs = sweep.run_together, []
    monkeypatch.setattr(sweep, "run_together", lambda *arguments: runs.append(1) or together(*arguments))
    for form in (noise, np.einsum("nii->ni", noise), noise[0]):
        fits = [from_start(start, name, n_threads=n).fit(X, noise_covariance=form) for n in (1, 2)]
        assert np.array_equal(fits[0].covariances_, fits[1].covariances_)
        assert fits[0].lower_bounds_ == fits[1].lower_bounds_
        scores = [fit.score_samples(X, noise_covariance=form) for fit in fits]
        assert np.array_equal(*scores)
    assert runs


def test_every_driver(rng):
    """Races, moves, accelerations, mini-batches and incremental EM end in one optimum; the noise goes with its rows."""
    X, noise, _ = noisy_rows(rng, 4000, 2, 3)
    ways = [
        {},
        {"n_race": 0},
        {"n_race": 4, "init_params": "random_from_data"},
        {"split_merge": True},
        {"acceleration": "squarem"},
        {"algorithm": "incremental"},
        {"algorithm": "minibatch", "batch_size": 400},
    ]
    fits = [GaussianMixture(3, random_state=0, **way).fit(X, noise_covariance=noise) for way in ways]
    scores = [fit.score(X, noise_covariance=noise) for fit in fits]
    assert_allclose(scores[:-1], scores[0], atol=1e-5)
    assert scores[-1] == pytest.approx(scores[0], abs=5e-3)
    assert np.array_equal(
        GaussianMixture(3, random_state=0).fit_predict(X, noise_covariance=noise),
        fits[0].predict(X, noise_covariance=noise),
    )


def test_standard_errors(rng):
    """They grow with the noise; of the mean of one normal they are what theory says."""
    n = 2000
    v = rng.normal(size=(n, 1)) * 2.0
    X = v + 3.0 * rng.normal(size=(n, 1))
    gm = GaussianMixture(reg_covar=0.0, tol=1e-10, max_iter=2000).fit(X, noise_covariance=[9.0])
    errors = gm.standard_errors(X, noise_covariance=[9.0]).standard_errors
    variance = gm.covariances_[0, 0, 0] + 9.0
    assert errors["means"][0, 0] == pytest.approx(np.sqrt(variance / n), rel=1e-5)
    assert errors["covariances"][0, 0, 0] == pytest.approx(variance * np.sqrt(2.0 / n), rel=1e-4)
    drawn = gm.standard_errors(X, noise_covariance=[9.0], method="bootstrap", n_bootstrap=60, random_state=0)
    assert drawn.standard_errors["means"][0, 0] == pytest.approx(errors["means"][0, 0], rel=0.3)


def test_priors_and_regularisation(rng):
    X, noise, _ = noisy_rows(rng, 200, 2, 2, size=3.0)
    gm = GaussianMixture(2, covariance_prior="auto", reg_covar=0.0, random_state=0).fit(X, noise_covariance=noise)
    assert np.diff(gm.lower_bounds_).min() > -1e-10
    tight = GaussianMixture(2, random_state=0, max_iter=1000).fit(X, noise_covariance=20.0 * noise)
    assert np.linalg.eigvalsh(tight.covariances_).min() >= 1e-6 * 0.99  # reg_covar, where there is nothing but noise


def test_columns_in_any_unit(rng):
    X, noise, start = noisy_rows(rng, 200, 2, 2)
    scale, shift = np.array([2.0**-60, 2.0**90]), np.array([2.0**-58, -(2.0**91)])
    data = as_data(X, noise_covariance=noise)
    moved = as_data(X * scale + shift, noise_covariance=noise * scale * scale[:, None])
    components = GaussianParams(start[1], start[2], start[2])
    factor = scale * scale[:, None]
    further = GaussianParams(start[1] * scale + shift, start[2] * factor, start[2] / scale[:, None])
    one, two = (
        Mixture(Gaussian(), 2).prepare(rows).m_step(model.e_step(params, rows.blocks[0]), params).components
        for rows, parameters in ((data, components), (moved, further))
        for model, params in [(Mixture(Gaussian(), 2).prepare(rows), MixtureParams(start[0], parameters))]
    )
    assert_allclose(two.means, one.means * scale + shift, rtol=1e-9)
    assert_allclose(two.covariances / factor, one.covariances, rtol=1e-9, atol=1e-12)


REFUSED = {
    "shape": (np.ones((9, 2)), r"noise_covariance has shape \(9, 2\); one of"),
    "three columns": (np.ones(3), r"noise_covariance has shape \(3,\)"),
    "negative": (-np.ones(2), "noise_covariance must be finite and symmetric positive semidefinite"),
    "infinite": (np.full((10, 2), np.inf), r"noise_covariance\[0\] must be finite"),
    "NaN": (np.full((2, 2), np.nan), "must be finite"),
    "indefinite": (np.array([[1.0, 2.0], [2.0, 1.0]]), "positive semidefinite"),
    "asymmetric": (np.array([[1.0, 0.5], [0.0, 1.0]]), "symmetric"),
    "one row": (np.where(np.arange(10)[:, None] == 7, -1.0, np.ones((10, 2))), r"noise_covariance\[7\]"),
    "words": ([["a", "b"]] * 10, "noise_covariance has dtype|not numbers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name, rng):
    noise, message = REFUSED[name]
    X = rng.normal(size=(10, 2))
    gm = GaussianMixture(2, random_state=0).fit(rng.normal(size=(50, 2)))
    before = {key: np.copy(value) for key, value in vars(gm).items()}
    for call in (gm.fit, gm.predict, gm.predict_proba, gm.score_samples, gm.score, gm.bic, gm.standard_errors):
        with pytest.raises((ValueError, TypeError), match=message):
            call(X, noise_covariance=noise)
    assert all(np.array_equal(before[key], value) for key, value in vars(gm).items())


def test_other_refusals(rng):
    X = rng.normal(size=(10, 2))
    gm = GaussianMixture(2, random_state=0)
    with pytest.raises(ValueError, match="may be variances of each row or the covariance of all"):
        gm.fit(X[:2], noise_covariance=np.eye(2))
    hollow = X.copy()
    hollow[3, 1] = np.nan
    with pytest.raises(ValueError, match="X has missing values, for which there can be no noise_covariance"):
        gm.fit(hollow, noise_covariance=np.ones(2))
    with pytest.raises(ValueError, match="rows in memory"):
        gm.fit(lambda: iter([X]), noise_covariance=np.ones(2))
    semidefinite = np.array([[1.0, 1.0], [1.0, 1.0]])  # noise along a line
    assert np.isfinite(gm.fit(np.concatenate([X, X + 9.0]), noise_covariance=semidefinite).means_).all()


def test_uniform_noise_of_rows_has_no_density_with_noise_of_measurements(rng):
    X, noise, _ = noisy_rows(rng, 200, 2, 2)
    gm = GaussianMixture(2, noise=True, random_state=0).fit(X)
    for covariance in (noise, np.ones(2)):
        with pytest.raises(ValueError, match="do not go together"):
            gm.score_samples(X, noise_covariance=covariance)
    assert np.isfinite(gm.score_samples(X)).all()
