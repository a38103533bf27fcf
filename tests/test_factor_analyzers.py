"""Mixtures of factor analysers and of probabilistic principal components."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import logsumexp, softmax
from scipy.stats import multivariate_normal
from sklearn.decomposition import FactorAnalysis
from sklearn.utils.estimator_checks import parametrize_with_checks

import fastem
from fastem import FactorAnalyzer, FactorAnalyzerMixture, FactorAnalyzers, GaussianMixture
from fastem.data import as_data
from fastem.kernels.low_rank import LowRank, low_rank_statistics
from fastem.models.mixture_records import MixtureParams
from fastem.protocol import add_stats

STRUCTURES = [("diag", False), ("diag", True), ("spherical", False), ("spherical", True)]
EVERY = pytest.mark.parametrize(("noise", "shared"), STRUCTURES)
TO_STATIONARITY = {"tol": 1e-13, "max_iter": 20_000, "stopping": "aitken", "acceleration": "anderson"}


def rows_of_factors(rng, n_samples=600, n_features=8, n_factors=2, n_components=3, dtype=np.float64):
    """Rows whose components are in turn."""
    labels = np.arange(n_samples) % n_components
    loadings = rng.normal(size=(n_components, n_features, n_factors))
    noise = rng.uniform(0.2, 1.0, size=(n_components, n_features))
    means = 1.5 * rng.normal(size=(n_components, n_features))
    rows = means[labels] + np.einsum("ndq,nq->nd", loadings[labels], rng.normal(size=(n_samples, n_factors)))
    return (rows + noise[labels] * rng.normal(size=(n_samples, n_features))).astype(dtype), labels


def log_densities(params, X):
    """Log-density of each row and component, by scipy with full covariances."""
    means, loadings, noise = params.components
    parts = [
        multivariate_normal(mean, loading @ loading.T + np.diag(variances)).logpdf(X) + np.log(weight)
        for weight, mean, loading, variances in zip(params.weights, means, loadings, noise, strict=True)
    ]
    return np.stack(parts, axis=1)


def fitted(rng, noise="diag", shared=False, weight=None, **options):
    X, labels = rows_of_factors(rng)
    model = FactorAnalyzers(FactorAnalyzer(2, noise, shared), 3, start=labels)
    return X, fastem.fit(model, X, sample_weight=weight, max_iter=4, tol=0, random_state=0, **options)


# the pass


@pytest.mark.parametrize("n_features", [2, 7, 70])
@pytest.mark.parametrize("n_factors", [1, 3, 9])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_of_the_pass_against_numpy(n_features, n_factors, dtype, rng):
    n_components = 3
    X = (rng.normal(size=(500, n_features)) + 2.0).astype(dtype)
    weight = rng.integers(0, 3, size=(500, 1)).astype(float)
    X[weight[:, 0] == 0] = 1e30  # does not count
    frame = np.stack([rng.normal(size=n_features), 2.0 ** rng.integers(-2, 3, n_features)])
    states = LowRank(
        rng.normal(size=(n_components, n_features)),
        rng.uniform(0.5, 2.0, size=(n_components, n_features)),
        0.1 * rng.normal(size=(n_components, n_factors, n_features)),
        rng.normal(size=n_components),
    )
    x = (X.astype(np.float64) - frame[0]) * frame[1]
    z = x[:, None] - states.means
    y = np.einsum("nkd,kqd->nkq", z, states.projections)
    scores = states.peaks - 0.5 * ((z**2 * states.precisions).sum(axis=2) - (y**2).sum(axis=2))
    total = logsumexp(scores, axis=1)
    r = np.exp(scores - total[:, None]) * weight
    r[weight[:, 0] == 0] = 0.0
    z[weight[:, 0] == 0] = y[weight[:, 0] == 0] = 0.0
    for n_threads in (1, 2):
        sums, log_likelihood, n_lost = low_rank_statistics(X, weight, frame, states, n_threads)
        counted = weight[:, 0] > 0
        assert_allclose(log_likelihood, weight[counted, 0] @ total[counted], rtol=1e-11)
        assert n_lost == 0
        wanted = [
            r.sum(axis=0),
            np.einsum("nk,nkd->kd", r, z),
            np.einsum("nk,nkd->kd", r, z**2),
            np.einsum("nk,nkd,nkq->kdq", r, z, y),
            np.einsum("nk,nkq->kq", r, y),
            np.einsum("nk,nkp,nkq->kpq", r, y, y),
        ]
        for found, want in zip(sums, wanted, strict=True):
            assert_allclose(found, want, rtol=1e-9, atol=1e-9 * np.abs(want).max())


@EVERY
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_densities_against_scipy(noise, shared, dtype, rng):
    X, labels = rows_of_factors(rng, dtype=dtype)
    model = FactorAnalyzers(FactorAnalyzer(2, noise, shared), 3, start=labels)
    result = fastem.fit(model, X, max_iter=3, tol=0, random_state=0)
    joint = log_densities(result.params, X.astype(np.float64))
    assert_allclose(result.model.log_densities(result.params, X), logsumexp(joint, axis=1), rtol=1e-10)
    assert_allclose(result.model.posteriors(result.params, X), softmax(joint, axis=1), atol=1e-10)
    assert np.array_equal(result.model.labels(result.params, X), joint.argmax(axis=1))
    stats = result.model.e_step(result.params, as_data(X).blocks[0])
    assert_allclose(stats.log_likelihood, logsumexp(joint, axis=1).sum(), rtol=1e-11)


def test_rows_far_from_the_centre_keep_their_digits(rng):
    """Two clusters a millionth as wide as they lie apart: the sums are about their own means."""
    X, _ = rows_of_factors(rng, 400, n_components=1)
    far = np.concatenate([X * 2.0**-20, X[::-1] * 2.0**-20 + 1.0])
    labels = np.repeat([0, 1], 400)
    options = {**TO_STATIONARITY, "random_state": 0}
    alone = fastem.fit(FactorAnalyzers(FactorAnalyzer(2, noise_floor=1e-14)), far[:400] * 2.0**20, **options)
    both = fastem.fit(FactorAnalyzers(FactorAnalyzer(2, noise_floor=1e-14), 2, start=labels), far, **options)
    for k in range(2):
        found, wanted = both.params.components, alone.params.components
        covariance = found.loadings[k] @ found.loadings[k].T + np.diag(found.noise[k])
        other = wanted.loadings[0] @ wanted.loadings[0].T + np.diag(wanted.noise[0])
        assert_allclose(covariance * 2.0**40, other, rtol=1e-4, atol=1e-4)
        assert_allclose((found.means[k] - k) * 2.0**20, wanted.means[0], rtol=1e-9, atol=1e-8)


# steps


@EVERY
def test_the_score_is_the_gradient(noise, shared, rng):
    """Fisher's identity in the model's coordinates, away from the maximum."""
    X, labels = rows_of_factors(rng)
    if noise == "diag":
        X = X * np.array([1e-2, 1.0, 50.0, 1.0, 1.0, 0.5, 2.0, 1.0])
    weight = rng.random(len(X))
    model = FactorAnalyzers(FactorAnalyzer(2, noise, shared), 3, start=labels)
    result = fastem.fit(model, X, sample_weight=weight, max_iter=3, tol=0, random_state=0)
    model = result.model
    center = model.pack(result.params) + 0.02 * rng.normal(size=model.pack(result.params).size)
    params = model.unpack(center)
    assert_allclose(model.pack(params)[3:], center[3:], atol=1e-9)
    found = model.score(model.e_step(params, as_data(X, weight).blocks[0]), params)

    def objective(x):
        return weight @ logsumexp(log_densities(model.unpack(x), X), axis=1)

    h = 1e-5
    wanted = [(objective(center + h * e) - objective(center - h * e)) / (2 * h) for e in np.eye(len(center))]
    assert_allclose(found, wanted, rtol=1e-5, atol=1e-6 * np.abs(wanted).max())


@EVERY
@pytest.mark.parametrize("noise_prior", [0.0, 5.0])
def test_every_step_leads_uphill_and_ends_where_the_gradient_is_zero(noise, shared, noise_prior, rng):
    X, _ = rows_of_factors(rng)
    model = FactorAnalyzers(FactorAnalyzer(2, noise, shared, noise_floor=0.02, noise_prior=noise_prior), 3)
    for seed in range(3):
        seen = fastem.fit(model, X, max_iter=60, tol=0, random_state=seed).history
        assert np.diff(seen).min() >= -1e-11 * np.abs(seen).max()
        assert seen[-1] > seen[0] + 1
    if noise_prior == 0:
        options = {**TO_STATIONARITY, "random_state": 0, "n_race": 6}
        result = fastem.fit(model, X, **options)
        stats = result.model.e_step(result.params, as_data(X).blocks[0])
        assert np.abs(result.model.score(stats, result.params)).max() < 1e-2


@EVERY
def test_statistics_add_and_weights_repeat_rows(noise, shared, rng):
    weight = rng.integers(0, 3, 600).astype(float)
    X, result = fitted(rng, noise, shared, weight=weight)
    model, params = result.model, result.params

    def stats_of(rows, weights=None):
        return add_stats(model.e_step(params, block) for block in as_data(rows, weights))

    whole = stats_of(X, weight)
    parts = add_stats(stats_of(X[i:j], weight[i:j]) for i, j in ((0, 7), (7, 250), (250, 600)))
    repeated = stats_of(np.repeat(X, weight.astype(int), axis=0))
    for other in (parts, repeated):
        for one, two in zip(other, whole, strict=True):
            assert_allclose(one, two, rtol=1e-10, atol=1e-10 * np.max(np.abs(two)))


def test_permuted_components_and_the_units_of_columns(rng):
    X, result = fitted(rng)
    model, params = result.model, result.params
    order = np.array([2, 0, 1])
    swapped = MixtureParams(params.weights[order], model.family.keep(params.components, order))
    block = as_data(X).blocks[0]
    one, two = (model.m_step(model.e_step(p, block), p) for p in (params, swapped))
    for a, b in zip(two.components, one.components, strict=True):
        assert_allclose(a, b[order], rtol=1e-9, atol=1e-12)
    labels = np.arange(len(X)) % 3
    scale, shift = 2.0 ** np.arange(-12, 12, 3), np.linspace(-1e3, 1e3, 8)
    options = {"max_iter": 15, "tol": 0, "random_state": 0}
    model = FactorAnalyzers(FactorAnalyzer(2), 3, start=labels)
    plain, moved = fastem.fit(model, X, **options), fastem.fit(model, X * scale + shift, **options)
    assert_allclose(moved.params.components.noise, plain.params.components.noise * scale**2, rtol=1e-6)
    assert_allclose(moved.params.components.means, plain.params.components.means * scale + shift, rtol=1e-6)
    assert_allclose(np.diff(moved.history), np.diff(plain.history), rtol=1e-4, atol=1e-6)


def test_the_same_bits_on_any_number_of_threads(rng):
    X, labels = rows_of_factors(rng, 6000, 40)
    model = FactorAnalyzers(FactorAnalyzer(4), 3, start=labels)
    results = [fastem.fit(replace(model, n_threads=n), X, max_iter=3, tol=0, random_state=0) for n in (1, 2)]
    assert np.array_equal(results[0].history, results[1].history)
    for one, two in zip(results[0].params.components, results[1].params.components, strict=True):
        assert np.array_equal(one, two)


# closed forms and other packages


@pytest.mark.parametrize("n_factors", [1, 3])
def test_one_component_with_spherical_noise_is_principal_component_analysis(n_factors, rng):
    """Tipping & Bishop (1999), equations 3.8 to 3.12: W = U (Lambda - sigma^2)^(1/2), sigma^2 the mean of the rest."""
    X, _ = rows_of_factors(rng, 300, 8, 3, 1)
    fm = FactorAnalyzerMixture(n_factors=n_factors, noise="spherical", **TO_STATIONARITY).fit(X)
    covariance = np.cov(X.T, bias=True)
    values, axes = np.linalg.eigh(covariance)
    values, axes = values[::-1], axes[:, ::-1]
    variance = values[n_factors:].mean()
    log_det = np.log(values[:n_factors]).sum() + (8 - n_factors) * np.log(variance)
    assert_allclose(fm.lower_bound_, -0.5 * (8 * np.log(2 * np.pi) + log_det + 8), rtol=1e-12)
    assert_allclose(fm.noise_variance_, [variance], rtol=1e-6)
    wanted = axes[:, :n_factors] * np.sqrt(values[:n_factors] - variance)
    assert_allclose(fm.get_covariance()[0], wanted @ wanted.T + variance * np.eye(8), rtol=1e-4, atol=1e-5)
    signs = np.sign((wanted * fm.loadings_[0]).sum(axis=0))
    assert_allclose(fm.loadings_[0] * signs, wanted, atol=1e-3)


@pytest.mark.parametrize("n_factors", [1, 2])
def test_one_component_is_scikit_learns_factor_analysis(n_factors, rng):
    X, _ = rows_of_factors(rng, 500, 8, n_factors, 1)
    fm = FactorAnalyzerMixture(n_factors=n_factors, **TO_STATIONARITY).fit(X)
    theirs = FactorAnalysis(n_factors, tol=1e-12, max_iter=100_000, svd_method="lapack").fit(X)
    assert_allclose(fm.score(X), theirs.score(X), rtol=1e-10)
    assert_allclose(fm.noise_variance_[0], theirs.noise_variance_, rtol=1e-4)
    assert_allclose(fm.get_covariance()[0], theirs.get_covariance(), rtol=1e-4, atol=1e-5)
    ours, factors = fm.transform(X), theirs.transform(X)  # up to a rotation
    assert_allclose(ours @ ours.T, factors @ factors.T, atol=1e-3)
    assert fm.components_.shape == (1, n_factors, 8)


def test_as_many_factors_as_there_can_be_are_a_full_covariance(rng):
    X, labels = rows_of_factors(rng, 600, 4)
    fm = FactorAnalyzerMixture(3, n_factors=3, resp_init=labels, **TO_STATIONARITY).fit(X)
    gm = GaussianMixture(3, reg_covar=0, resp_init=labels, **TO_STATIONARITY).fit(X)
    assert_allclose(fm.lower_bound_, gm.lower_bound_, atol=1e-6)
    assert_allclose(fm.means_, gm.means_, atol=1e-2)


# degenerate rows


def test_errors_without_variance_stay_on_the_floor(rng):
    """A Heywood case: one column is the factor itself."""
    X = rng.normal(size=(300, 1)) * [1.0, 2.0, 0.5, 1.0] + rng.normal(size=(300, 4)) * [0.0, 0.3, 0.5, 0.4]
    fm = FactorAnalyzerMixture(n_factors=1, noise_floor=1e-4, tol=1e-8, max_iter=5000).fit(X)
    assert_allclose(fm.noise_variance_[0, 0], 1e-4 * X[:, 0].var(), rtol=1e-9)
    assert np.diff(fm.lower_bounds_).min() > -1e-11
    more = FactorAnalyzerMixture(n_factors=1, noise_prior=10.0, tol=1e-8, max_iter=5000).fit(X)
    assert more.noise_variance_[0, 0] > 0.01 * X[:, 0].var()
    assert np.diff(more.lower_bounds_).min() > -1e-11


def test_a_component_that_empties_keeps_its_parameters(rng):
    X, result = fitted(rng)
    params = result.params._replace(weights=np.array([0.5, 0.5, 0.0]))
    after = result.model.m_step(result.model.e_step(params, as_data(X).blocks[0]), params)
    assert after.weights[2] == 0
    for old, new in zip(params.components, after.components, strict=True):
        assert np.array_equal(old[2], new[2])
        assert np.isfinite(new).all()


def test_constant_columns_are_refused_or_explained(rng):
    X, _ = rows_of_factors(rng)
    X[:, 3] = 7.0
    with pytest.raises(ValueError, match="column 3 of X is constant"):
        FactorAnalyzerMixture(2).fit(X)
    fm = FactorAnalyzerMixture(2, noise="spherical", random_state=0).fit(X)
    assert_allclose(fm.means_[:, 3], 7.0)
    assert np.abs(fm.loadings_[:, 3]).max() < 1e-6
    with pytest.raises(ValueError, match="every column of X is constant"):
        FactorAnalyzerMixture(noise="spherical").fit(np.ones((20, 4)))


def test_fewer_rows_than_columns(rng):
    X, _ = rows_of_factors(rng, 40, 100, 2, 1)
    fm = FactorAnalyzerMixture(n_factors=2, tol=1e-6, max_iter=2000).fit(X)
    assert np.isfinite(fm.score_samples(X)).all()
    assert np.diff(fm.lower_bounds_).min() > -1e-9


# the estimator


@EVERY
def test_parameters_make_the_same_mixture(noise, shared, rng):
    X, _ = rows_of_factors(rng)
    fm = FactorAnalyzerMixture(3, noise=noise, shared_noise=shared, random_state=0, max_iter=500).fit(X)
    options = {"noise": noise, "shared_noise": shared}
    same = FactorAnalyzerMixture.from_parameters(fm.weights_, fm.means_, fm.loadings_, fm.noise_variance_, **options)
    assert_allclose(same.score_samples(X), fm.score_samples(X), rtol=1e-10)
    assert np.array_equal(pickle.loads(pickle.dumps(fm)).predict(X), fm.predict(X))
    n_noise = (8 if noise == "diag" else 1) * (1 if shared else 3)
    assert fm._n_parameters() == 2 + 3 * (8 + 15) + n_noise
    turned = np.swapaxes(fm.loadings_, 1, 2) @ (
        fm.loadings_
        / np.broadcast_to(fm.noise_variance_[..., None] if noise == "spherical" else fm.noise_variance_, (3, 8))[
            :, :, None
        ]
    )
    assert_allclose(turned[:, 0, 1], 0.0, atol=1e-6 * turned.max())
    assert (turned[:, 0, 0] >= turned[:, 1, 1]).all()
    start = {"means_init": fm.means_, "loadings_init": fm.loadings_, "noise_init": fm.noise_variance_}
    again = FactorAnalyzerMixture(3, weights_init=fm.weights_, max_iter=1000, tol=1e-6, **options, **start).fit(X)
    assert again.lower_bounds_[0] >= fm.lower_bound_ - 1e-9
    warm = fm.set_params(warm_start=True, tol=1e-6, max_iter=1000).fit(X)
    assert warm.lower_bound_ >= same.score(X) - 1e-9


def test_rows_drawn_have_the_moments_of_the_model(rng):
    X, _ = rows_of_factors(rng, n_components=1)
    fm = FactorAnalyzerMixture(random_state=0).fit(X)
    drawn, _ = fm.sample(40_000)
    assert_allclose(np.cov(drawn.T), fm.get_covariance()[0], atol=0.15)
    assert_allclose(drawn.mean(axis=0), fm.means_[0], atol=0.06)


def test_rows_from_disk_give_the_same_fit(rng, tmp_path):
    X, _ = rows_of_factors(rng, 3000)
    np.save(tmp_path / "rows.npy", X)
    start = FactorAnalyzerMixture(3, random_state=0).fit(X[:500])
    options = {"means_init": start.means_, "loadings_init": start.loadings_, "noise_init": start.noise_variance_}
    fits = [
        FactorAnalyzerMixture(3, **options).fit(data)
        for data in (X, fastem.Blocks(tmp_path / "rows.npy", block_rows=700))
    ]
    assert_allclose(fits[1].lower_bound_, fits[0].lower_bound_, rtol=1e-11)


def test_standard_errors_against_the_bootstrap(rng):
    X, _ = rows_of_factors(rng, 800, 5, 1, 1)
    fm = FactorAnalyzerMixture(n_factors=1, **TO_STATIONARITY).fit(X)
    found = fm.standard_errors(X)
    assert_allclose(found.standard_errors["means"], np.sqrt(X.var(axis=0) / len(X))[None], rtol=0.01)
    resampled = fm.standard_errors(X, method="bootstrap", n_bootstrap=200, random_state=0)
    for name in ("noise", "communalities"):
        assert_allclose(resampled.standard_errors[name], found.standard_errors[name], rtol=0.3)
    two = FactorAnalyzerMixture(n_factors=2, noise="spherical", **TO_STATIONARITY).fit(X)  # which may be turned
    assert np.isfinite(two.standard_errors(X).standard_errors["communalities"]).all()


# As far as rounding lets it go, about which it may go round for ever: weights and repeated rows must lead to the same
# scores within 1e-7.
@pytest.mark.filterwarnings("ignore:EM did not converge")
@parametrize_with_checks(
    [FactorAnalyzerMixture(n_factors=1, noise="spherical", stopping="change", tol=1e-300, max_iter=5000)]
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def test_defaults_find_the_components(rng):
    X, labels = rows_of_factors(rng, 1500, 30, 3)
    true = FactorAnalyzerMixture(3, n_factors=3, resp_init=labels, max_iter=1000, tol=1e-5).fit(X)
    fm = FactorAnalyzerMixture(3, n_factors=3, random_state=0, max_iter=1000).fit(X)
    assert fm.lower_bound_ > true.lower_bound_ - 1e-3
    split = FactorAnalyzerMixture(3, n_factors=3, random_state=0, n_race=0, init_params="random_from_data")
    split.set_params(split_merge=True, max_iter=1000).fit(X)
    assert split.lower_bound_ > true.lower_bound_ - 0.5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_factors": 0}, "n_factors"),
        ({"n_factors": 8}, "must be less than n_features=8"),
        ({"noise": "none"}, "noise"),
        ({"noise_floor": 0.0}, "noise_floor"),
        ({"noise_prior": -1.0}, "noise_prior"),
        ({"means_init": np.zeros((2, 8))}, "give all of means_init, loadings_init, noise_init"),
        (
            {"means_init": np.zeros((2, 8)), "loadings_init": np.ones((2, 8, 2)), "noise_init": np.ones(8)},
            "do not fit together",
        ),
        (
            {"means_init": np.zeros((2, 8)), "loadings_init": np.ones((2, 8, 2)), "noise_init": np.zeros((2, 8))},
            "noise_init must be positive",
        ),
        (
            {"means_init": np.zeros((2, 8)), "loadings_init": np.ones((2, 8, 2)), "noise_init": np.full((2, 8), 1e-9)},
            "must be at least noise_floor",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_before_computing(options, words, rng):
    with pytest.raises(ValueError, match=words):
        FactorAnalyzerMixture(2, **options).fit(rows_of_factors(rng)[0])


def test_starts_and_streams_are_refused(rng):
    X, result = fitted(rng)
    fm = FactorAnalyzerMixture(2, random_state=0).fit(X)
    assert not hasattr(fm, "partial_fit")
    with pytest.raises(ValueError, match="needs a model with statistics that mix"):
        fastem.fit(FactorAnalyzers(FactorAnalyzer(2), 3), X, algorithm="minibatch")
    with pytest.raises(ValueError, match="to go on"):
        fm.set_params(warm_start=True, n_factors=3).fit(X)
    with pytest.raises(TypeError, match=r"must be a fastem\.FactorAnalyzer"):
        FactorAnalyzers(fastem.Gaussian())
    with pytest.raises(TypeError, match="FactorParams"):
        fastem.fit(result.model, X, start=result.params._replace(components=(1, 2, 3)))
    components = result.params.components
    shared = FactorAnalyzers(FactorAnalyzer(2, shared_noise=True), 3)
    with pytest.raises(ValueError, match="does not have the structure"):
        fastem.fit(shared, X, start=result.params)
    bad = components._replace(loadings=components.loadings[:, :, :1])
    with pytest.raises(ValueError, match=r"loadings has shape \(3, 8, 1\)"):
        fastem.fit(result.model, X, start=result.params._replace(components=bad))
    fm = FactorAnalyzerMixture.from_parameters([1.0], [[0.0, 0.0]], [[[1.0], [1.0]]], [[1.0, 1.0]])
    fm.weights_ = np.array([0.5, 0.5])
    with pytest.raises(ValueError, match="do not fit together"):
        fm.predict(np.zeros((3, 2)))


def test_a_model_file_holds_fits(rng, tmp_path):
    X, _ = rows_of_factors(rng)
    fm = FactorAnalyzerMixture(2, random_state=0).fit(X)
    fastem.save(fm, tmp_path / "model.fastem")
    assert np.array_equal(fastem.load(tmp_path / "model.fastem").score_samples(X), fm.score_samples(X))
    fm.n_features_in_ = 3
    with pytest.raises(fastem.ModelFileError, match="n_features_in_ is 3"):
        fastem.save(fm, tmp_path / "model.fastem")
