"""mclust's fourteen structures: their M-steps, how they hold, and where they meet each other."""

import itertools

import numpy as np
import pytest
from conftest import STRUCTURES, simulate
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import fastem
from fastem import Gaussian, GaussianMixture, Mixture
from fastem.families.covariance_structures import MODELS, common_axes, constrained, form_of, has_structure, log_of
from fastem.protocol import DegenerateError

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
ROTATABLE = ("EII", "VII", "EEE", "VEE", "EVE", "VVE", "EEV", "VEV", "EVV", "VVV")
EXACT = {"reg_covar": 0.0, "stopping": "change", "tol": 0.0, "max_iter": 15, "acceleration": None, "n_race": 0}
# Where one structure is a case of another and the M-steps of both find their least F.
NESTED = (
    *(("EII", "VII"), ("EII", "EEI"), ("VII", "VEI"), ("EEI", "VEI"), ("EEI", "EVI"), ("VEI", "VVI"), ("EVI", "VVI")),
    *(("EEI", "EEE"), ("EEE", "VEE"), ("VEI", "VEE"), ("EEE", "EEV"), ("VEE", "VEV"), ("EEV", "VEV"), ("EEV", "EVV")),
    *(("EVI", "EVV"), ("VEV", "VVV"), ("EVV", "VVV"), ("EVE", "VVE"), ("EVE", "EVV"), ("VVE", "VVV"), ("VVI", "VVV")),
)


def random_covariances(rng, n_components, n_features, n_rows=40):
    roots = rng.normal(size=(n_components, n_features, n_features))
    return np.stack([np.cov(rng.normal(size=(n_features, n_rows)).T @ root, rowvar=False) for root in roots]).reshape(
        n_components, n_features, n_features
    )


def in_form(letters, full):
    """Moments of the form that a structure's M-step takes."""
    diagonal = np.einsum("kii->ki", full)
    return {"full": full, "tied": full, "diag": diagonal, "spherical": diagonal.mean(axis=1)}[form_of(letters)]


def written_out(covariances, n_features):
    if covariances.ndim == 3:
        return covariances
    return np.stack([np.eye(n_features) * variance for variance in covariances])


def minimum(letters, masses, full, old=None):
    """Covariances (K, D, D) of the M-step."""
    covariances = in_form(letters, full)
    if letters == "EEE":
        covariances = np.broadcast_to(np.average(full, axis=0, weights=masses), full.shape)
    elif letters in STRUCTURES:
        covariances = constrained(letters, masses, covariances, old)
    return written_out(covariances, full.shape[1])


def objective(masses, full, covariances):
    """F, which an M-step minimises."""
    log_det = np.linalg.slogdet(covariances)[1]
    return float(masses @ (log_det + np.einsum("kij,kji->k", np.linalg.inv(covariances), full)))


def structured(letters, rng, n_components, n_features, spread=1.0):
    """Random covariances (K, D, D) of a structure."""
    volume, shape, orientation = letters
    volumes = rng.normal(size=(n_components if volume == "V" else 1, 1))
    shapes = np.zeros((1, n_features))
    if shape != "I":
        shapes = spread * rng.normal(size=(n_components if shape == "V" else 1, n_features))
        shapes = shapes - shapes.mean(axis=1, keepdims=True)
        if orientation == "V":
            shapes = np.sort(shapes, axis=1)
    axes = np.eye(n_features)[None]
    if orientation != "I":
        axes = np.linalg.qr(rng.normal(size=(n_components if orientation == "V" else 1, n_features, n_features)))[0]
    full = (axes * np.exp(volumes + shapes)[:, None, :]) @ np.swapaxes(axes, 1, 2)
    full = 0.5 * (full + np.swapaxes(full, 1, 2))
    return np.broadcast_to(full, (n_components, n_features, n_features)).copy()


sizes = given(seed=st.integers(0, 2**32 - 1), n_components=st.integers(1, 6), n_features=st.integers(1, 6))
few = settings(derandomize=True, deadline=None, max_examples=60)


# the M-steps


@pytest.mark.parametrize("letters", STRUCTURES)
@sizes
@few
def test_what_has_the_structure_stays(letters, seed, n_components, n_features):
    """S_k of the structure are their own minimum, whatever the weights, the units and the start."""
    rng = np.random.default_rng(seed)
    full = structured(letters, rng, n_components, n_features)
    masses = rng.uniform(0.1, 9.0, n_components)
    for unit in (1.0, 2.0**-480, 2.0**480):
        found = minimum(letters, masses, full * unit) / unit
        assert_allclose(found, full, rtol=1e-8, atol=1e-9 * np.abs(full).max())
        assert has_structure(letters, in_form(letters, full * unit))


@pytest.mark.parametrize("letters", STRUCTURES)
@sizes
@few
def test_no_covariances_of_the_structure_are_better(letters, seed, n_components, n_features):
    """None near, and where the minimum is the only one, none far away."""
    rng = np.random.default_rng(seed)
    full = random_covariances(rng, n_components, n_features)
    masses = rng.uniform(0.1, 9.0, n_components)
    found = minimum(letters, masses, full)
    assert has_structure(letters, in_form(letters, found))
    least = objective(masses, full, found)
    tolerance = 1e-9 * masses.sum()
    if letters not in ("EVE", "VVE"):
        for _ in range(20):
            assert objective(masses, full, structured(letters, rng, n_components, n_features)) >= least - tolerance
    logs = log_of(found)
    for _ in range(20):
        noise = 1e-3 * rng.normal(size=logs.shape)
        values, axes = np.linalg.eigh(logs + 0.5 * (noise + np.swapaxes(noise, 1, 2)))
        near = minimum(letters, masses, (axes * np.exp(values)[:, None, :]) @ np.swapaxes(axes, 1, 2), found)
        assert objective(masses, full, near) >= least - tolerance


@sizes
@few
def test_a_richer_structure_is_no_worse(seed, n_components, n_features):
    rng = np.random.default_rng(seed)
    full = random_covariances(rng, n_components, n_features)
    masses = rng.uniform(0.1, 9.0, n_components)
    values = {}
    for letters in MODELS:
        old = None
        if letters == "VVE":  # which has several minima
            old = minimum("EVE", masses, full)
        values[letters] = objective(masses, full, minimum(letters, masses, full, old))
    for poor, rich in NESTED:
        assert values[rich] <= values[poor] + 1e-9 * masses.sum(), (poor, rich)


@pytest.mark.parametrize("letters", ["VEI", "VEE", "VEV"])
def test_newton_ends_where_the_paper_alternates_to(letters, rng):
    """Celeux & Govaert (1995): volumes given the common part and the common part given the volumes, in turn."""
    full, masses = random_covariances(rng, 4, 3), rng.uniform(1.0, 9.0, 4)
    parts = full if letters == "VEE" else np.stack([np.diag(np.diagonal(matrix)) for matrix in full])
    if letters == "VEV":
        values, axes = np.linalg.eigh(full)
        parts = np.stack([np.diag(value) for value in values])
    common = np.eye(3)
    for _ in range(5000):
        volumes = np.einsum("ij,kji->k", np.linalg.inv(common), parts) / 3
        common = np.einsum("k,kij->ij", masses / volumes, parts)
        common /= np.linalg.det(common) ** (1 / 3)
    expected = volumes[:, None, None] * common
    if letters == "VEV":
        expected = axes @ expected @ np.swapaxes(axes, 1, 2)
    assert_allclose(minimum(letters, masses, full), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("letters", ["EVE", "VVE"])
def test_common_principal_components(letters, rng):
    """The equations of Flury (1984): d_j' (sum_k m_k (l_kj - l_ki) / (l_kj l_ki) S_k) d_i = 0."""
    full, masses = random_covariances(rng, 4, 5), rng.uniform(1.0, 9.0, 4)
    found = minimum(letters, masses, full)
    axes = common_axes(log_of(found))
    along = np.einsum("ji,kjl,lm->kim", axes, full, axes)
    variances = np.einsum("ji,kjl,li->ki", axes, found, axes)
    assert_allclose(np.einsum("ji,kjl,lm->kim", axes, found, axes), variances[:, :, None] * np.eye(5), atol=1e-12)
    if letters == "VVE":
        assert_allclose(variances, np.einsum("kii->ki", along), rtol=1e-10)
    for i, j in itertools.combinations(range(5), 2):
        weights = masses * (variances[:, j] - variances[:, i]) / (variances[:, j] * variances[:, i])
        assert abs(weights @ along[:, i, j]) < 1e-8


@pytest.mark.parametrize("letters", ["EVE", "VVE"])
def test_a_step_from_anywhere_never_rises(letters, rng):
    for _ in range(20):
        full, masses = random_covariances(rng, 3, 4, n_rows=6), rng.uniform(1.0, 9.0, 3)
        old = structured(letters, rng, 3, 4)
        given_axes = common_axes(log_of(old))
        variances = np.einsum("ji,kjl,li->ki", given_axes, full, given_axes)
        before = variances
        if letters == "EVE":
            volumes = np.exp(np.log(variances).mean(axis=1))
            before = variances * (np.average(volumes, weights=masses) / volumes)[:, None]
        start = (given_axes * before[:, None, :]) @ given_axes.T
        found = minimum(letters, masses, full, old)
        assert objective(masses, full, found) <= objective(masses, full, start) + 1e-12


def test_weight_0_has_no_part_in_what_is_shared(rng):
    full, masses = random_covariances(rng, 4, 3), np.array([3.0, 2.0, 0.0, 4.0])
    some = masses > 0
    for letters in STRUCTURES:
        whole, part = minimum(letters, masses, full), minimum(letters, masses[some], full[some])
        assert_allclose(whole[some], part, rtol=1e-9, atol=1e-10, err_msg=letters)
        assert has_structure(letters, in_form(letters, whole))


# the same model by other names


@pytest.mark.parametrize(("name", "other"), [("EEE", "tied"), ("VVV", "full"), ("VVI", "diag"), ("VII", "spherical")])
def test_two_names_of_a_structure_give_the_same_bits(name, other, rng):
    X = simulate(rng, 300, 3, 3)
    for options in ({}, {"covariance_prior": "auto", "reg_covar": 0.0}):
        options |= {"random_state": 0}
        one, two = (GaussianMixture(3, covariance_type=kind, **options).fit(X) for kind in (name, other))
        assert_array_equal(one.covariances_, two.covariances_)
        assert one.lower_bounds_ == two.lower_bounds_
        assert one.bic(X) == two.bic(X)


@pytest.mark.parametrize("name", ["E", "V", *MODELS])
def test_one_column_has_two_structures(name, rng):
    X = simulate(rng, 300, 1, 2)
    start = np.argsort(np.argsort(X[:, 0])) * 3 // 300
    found = GaussianMixture(3, covariance_type=name, resp_init=start, **EXACT).fit(X)
    same = GaussianMixture(3, covariance_type="tied" if name[0] == "E" else "full", resp_init=start, **EXACT).fit(X)
    assert_allclose(found.lower_bounds_, same.lower_bounds_, rtol=1e-12)
    assert_allclose(np.ravel(found.covariances_) * np.ones(3), np.ravel(same.covariances_) * np.ones(3), rtol=1e-10)
    assert found._n_parameters() == same._n_parameters()


@pytest.mark.parametrize("name", ["E", "V"])
def test_names_for_one_column_are_refused_for_more(name, rng):
    X = rng.normal(size=(50, 2))
    gm = GaussianMixture(2, covariance_type=name)
    with pytest.raises(ValueError, match=f"covariance_type='{name}' is for one column; for 2 columns take '{name}II'"):
        gm.fit(X)
    assert not hasattr(gm, "n_features_in_")
    with pytest.raises(ValueError, match="is for one column"):
        GaussianMixture.from_parameters([1.0], [[0.0, 0.0]], [1.0], covariance_type=name)
    with pytest.raises(ValueError, match="is for one column"):
        fastem.select(X, n_components=[1, 2], covariance_type=name)


# fits


@pytest.mark.parametrize("name", ROTATABLE)
def test_a_fit_of_turned_rows_is_the_turned_fit(name, rng):
    X = simulate(rng, 300, 3, 3, separation=1.5)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    start = rng.integers(3, size=300)
    plain, turned = (
        GaussianMixture(3, covariance_type=name, resp_init=start, **EXACT).fit(rows) for rows in (X, X @ turn.T)
    )
    assert_allclose(turned.lower_bounds_, plain.lower_bounds_, rtol=1e-9)
    expected = plain.covariances_ if plain.covariances_.ndim == 1 else turn @ plain.covariances_ @ turn.T
    assert_allclose(turned.covariances_, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("options", [{}, {"reg_covar": 0.3}, {"covariance_prior": "auto"}, {"algorithm": "minibatch"}])
def test_the_structure_holds(name, options, rng):
    X = simulate(rng, 600, 4, 3)
    options = {"reg_covar": 0.0, "random_state": 0, "n_race": 2} | options
    gm = GaussianMixture(3, covariance_type=name, **options).fit(X)
    assert has_structure(name, gm.covariances_)
    assert has_structure(name, gm.precisions_)
    again = GaussianMixture.from_parameters(gm.weights_, gm.means_, gm.covariances_, covariance_type=name)
    assert_allclose(again.score_samples(X), gm.score_samples(X), rtol=1e-10)
    start = {"weights_init": gm.weights_, "means_init": gm.means_, "precisions_init": gm.precisions_}
    warm = GaussianMixture(3, covariance_type=name, **start, **EXACT).fit(X)
    assert warm.lower_bounds_[0] == pytest.approx(gm.score(X), rel=1e-9)


@pytest.mark.parametrize("name", STRUCTURES)
def test_covariances_without_the_structure_are_refused(name, rng):
    full = random_covariances(rng, 2, 3)
    given_covariances = in_form(name, full)
    with pytest.raises(ValueError, match=f"covariances must have the structure '{name}'; take .*{form_of(name)!r}"):
        GaussianMixture.from_parameters([0.5, 0.5], np.zeros((2, 3)), given_covariances, covariance_type=name)
    with pytest.raises(ValueError, match=f"precisions_init must have the structure '{name}'"):
        GaussianMixture(2, covariance_type=name, precisions_init=given_covariances).fit(rng.normal(size=(20, 3)))


def test_a_start_of_another_structure_is_refused(rng):
    X = simulate(rng, 200, 2, 2)
    result = fastem.fit(Mixture(Gaussian("VVI"), 2), X, random_state=0)
    with pytest.raises(ValueError, match=r"start\.components\.covariances must have the structure 'VEI'"):
        fastem.fit(Mixture(Gaussian("VEI"), 2), X, start=result.params)


@pytest.mark.parametrize("name", MODELS)
def test_some_columns(name, rng):
    """Marginal and conditional distributions are those of the covariances written out, under a name that holds."""
    full = structured(name, rng, 2, 4)
    weights, means = [0.3, 0.7], rng.normal(size=(2, 4))
    covariances = full[0] if name == "EEE" else in_form(name, full)
    gm = GaussianMixture.from_parameters(weights, means, covariances, covariance_type=name)
    reference = GaussianMixture.from_parameters(weights, means, full)
    X = rng.normal(size=(9, 4))
    for found, expected, rows in (
        (gm.marginal([2, 0]), reference.marginal([2, 0]), X[:, [2, 0]]),
        (gm.condition([1, 3], X[0, [1, 3]]), reference.condition([1, 3], X[0, [1, 3]]), X[:, [0, 2]]),
    ):
        assert_allclose(found.score_samples(rows), expected.score_samples(rows), rtol=1e-10)
        kept = name in ("EII", "VII", "EEI", "VEI", "VVI", "EEE", "VEE", "VVV")
        assert found.covariance_type == (name if kept else form_of(name))
    assert_allclose(gm.predict_conditional(X[:, :1], [0]), reference.predict_conditional(X[:, :1], [0]), rtol=1e-9)
    drawn, labels = gm.set_params(random_state=0).sample(40_000)
    assert_allclose(np.cov(drawn[labels == 1].T), full[1], atol=0.05 * np.abs(full[1]).max())


@pytest.mark.parametrize("name", STRUCTURES)
def test_streams(name, rng):
    X = simulate(rng, 6000, 3, 3, separation=4.0)
    stream = GaussianMixture(3, covariance_type=name, random_state=0)
    for rows in np.array_split(X, 7):
        stream.partial_fit(rows)
    assert has_structure(name, stream.covariances_)
    batch = GaussianMixture(3, covariance_type=name, random_state=0).fit(X)
    assert stream.score(X) > batch.score(X) - 0.02


@pytest.mark.parametrize("name", STRUCTURES)
def test_missing_values_and_noise(name, rng):
    X = simulate(rng, 400, 3, 2, separation=2.0)
    holes = np.where(rng.random(X.shape) < 0.15, np.nan, X)
    plain = GaussianMixture(2, covariance_type=name, reg_covar=0.0, random_state=0).fit(X)
    start = {"weights_init": plain.weights_, "means_init": plain.means_, "precisions_init": plain.precisions_}
    for rows, noise in ((holes, None), (X, 0.2 * np.eye(3))):
        gm = GaussianMixture(2, covariance_type=name, **start, **EXACT).fit(rows, noise_covariance=noise)
        assert np.diff(gm.lower_bounds_).min() >= -1e-12
        assert gm.lower_bounds_[-1] > gm.lower_bounds_[0]
        assert has_structure(name, gm.covariances_)
    assert np.isfinite(plain.impute(holes)).all()


@pytest.mark.parametrize("name", STRUCTURES)
def test_hidden_markov_models(name, rng):
    X = np.concatenate([rng.normal(size=(300, 2)), rng.normal(size=(300, 2)) * [1.0, 2.0] + 6.0])
    hmm = fastem.GaussianHMM(2, covariance_type=name, random_state=0).fit(X)
    assert has_structure(name, hmm.covariances_)
    assert np.linalg.norm(hmm.covars_ - written_out(hmm.covariances_, 2)) == 0
    mixed = fastem.GMMHMM(2, 2, covariance_type=name, random_state=0).fit(X)
    assert has_structure(name, mixed.covariances_.reshape(4, *mixed.covariances_.shape[2:]))


@pytest.mark.parametrize("name", STRUCTURES)
def test_heavy_tails(name, rng):
    """Given values, scale matrices of t differ in their volumes, so that names change."""
    X = simulate(rng, 500, 3, 2) + 0.3 * rng.standard_t(2.0, size=(500, 3))
    gm = fastem.StudentTMixture(2, covariance_type=name, random_state=0).fit(X)
    assert has_structure(name, gm.covariances_)
    given_one = gm.condition([1], [0.5])
    assert given_one.covariance_type == (name if name in ("VEI", "VEE") else form_of(name))
    assert np.isfinite(given_one.score_samples(X[:, [0, 2]])).all()
    assert gm.marginal([0, 2]).covariance_type == (name if name in ("EII", "EEI", "VEI", "VEE") else form_of(name))


# what has no fit


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ["constant", "duplicated", "points", "point and cloud", "few rows"])
@pytest.mark.parametrize("n_components", [1, 2, 3])
def test_degenerate_rows(name, kind, n_components, rng):
    """A refusal that says why, or a fit of which every number is one."""
    X = rng.normal(size=(30, 3))
    if kind == "constant":
        X[:, 1] = 5.0
    elif kind == "duplicated":
        X[:, 2] = X[:, 0]
    elif kind == "points":
        X = np.repeat(rng.normal(size=(4, 3)), 5, axis=0)
    elif kind == "point and cloud":
        X[:8] = 40.0
    else:
        X = X[:5]
    for options in ({"reg_covar": 0.0}, {"reg_covar": 1e-6}, {"reg_covar": 0.0, "covariance_prior": 1e-3}):
        if "covariance_prior" in options and form_of(name) in ("full", "tied"):
            options["covariance_prior"] = 1e-3 * np.eye(3)
        for start in ({"n_race": 0}, {"n_race": 3}, {"resp_init": np.arange(len(X)) * n_components // len(X)}):
            gm = GaussianMixture(n_components, covariance_type=name, random_state=0, **options, **start)
            try:
                gm.fit(X)
            except DegenerateError as error:
                refusal = str(error)
            else:
                refusal = ""
                for part in ("weights_", "means_", "covariances_", "precisions_", "lower_bounds_"):
                    assert np.isfinite(getattr(gm, part)).all()
                assert np.isfinite(gm.score_samples(X)).all()
            assert refusal == "" or "reg_covar" in refusal or "use fewer components" in refusal


@pytest.mark.parametrize("name", STRUCTURES)
def test_duplicated_columns_are_named(name, rng):
    X = rng.normal(size=(60, 3))
    X[:, 2] = X[:, 0]
    if form_of(name) != "full":
        X[:, 2] = 7.0
    gm = GaussianMixture(2, covariance_type=name, reg_covar=0.0, random_state=0)
    if name == "EII":
        gm.fit(X)  # one variance for all columns: there is one
        return
    with pytest.raises(DegenerateError, match="constant or dependent there"):
        gm.fit(X)


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_component_without_rows(name, rng):
    """It keeps what is its own, and has no part in what is shared."""
    X = simulate(rng, 200, 3, 2)
    model = Mixture(Gaussian(name), 2)
    fitted = fastem.fit(model, X, random_state=0)
    params = fitted.params._replace(weights=np.array([1.0, 0.0]))
    stats = fitted.model.e_step(params, fastem.data.as_data(X).blocks[0])
    after = fitted.model.m_step(stats, params)
    assert after.weights[1] == 0
    for array in after.components:
        assert np.isfinite(array).all()
    assert has_structure(name, after.components.covariances)
    alone = fastem.fit(Mixture(Gaussian(name)), X, max_iter=1)
    assert_allclose(after.components.covariances[0], alone.params.components.covariances[0], rtol=1e-9, atol=1e-10)


def test_under_a_prior_too():
    """VEV, to which mclust's prior gives no rows: a component that has none keeps its covariance."""
    X = simulate(np.random.default_rng(0), 200, 2, 2)
    model = Mixture(Gaussian("VEV", prior=fastem.NormalInverseWishart()), 2)
    fitted = fastem.fit(model, X, random_state=0)
    params = fitted.params._replace(weights=np.array([1.0, 0.0]))
    after = fitted.model.m_step(fitted.model.e_step(params, fastem.data.as_data(X).blocks[0]), params)
    before, now = fitted.params.components.covariances[1], after.components.covariances
    assert 0.1 < np.linalg.det(now[1]) / np.linalg.det(before) < 10.0  # the shape is the other's now
    assert has_structure("VEV", now)


# priors and standard errors


@pytest.mark.parametrize("name", ["EII", "EEI", "E", "EEE", "tied"])
def test_a_common_covariance_has_one_prior(name, rng):
    """The posterior mode in closed form, with labels that are known (Fraley & Raftery 2007, section 3)."""
    d = 1 if name == "E" else 3
    X = np.concatenate([rng.normal(size=(40, d)) - 50, rng.normal(size=(60, d)) + 50])
    labels = np.repeat([0, 1], [40, 60])
    shape = {"full": (d, d), "tied": (d, d), "diag": (d,), "spherical": ()}[form_of(name)]
    scale = 2.0 * np.eye(d) if len(shape) == 2 else np.full(shape, 2.0)
    prior = {"mean_prior": np.zeros(d), "mean_precision_prior": 0.5, "degrees_of_freedom_prior": 7.0}
    gm = GaussianMixture(2, covariance_type=name, resp_init=labels, reg_covar=0.0, covariance_prior=scale, **prior)
    gm.fit(X)
    scatter = np.zeros((d, d))
    for rows in (X[:40], X[40:]):
        n, mean = len(rows), rows.mean(axis=0)
        scatter += (rows - mean).T @ (rows - mean) + n * 0.5 / (n + 0.5) * np.outer(mean, mean)
    expected = {
        "tied": (scatter + scale) / (100 + 2 + 7 + d + 1),
        "diag": (np.diag(scatter) + scale) / (100 + 2 + 7 + 2),
        "spherical": (np.trace(scatter) + scale) / (d * 100 + d * 2 + 7 + 2),
    }[form_of(name)]
    covariances = gm.covariances_ if form_of(name) == "tied" else gm.covariances_[0]
    assert_allclose(covariances, expected, rtol=1e-10)


@pytest.mark.parametrize("name", ["EII", "EEI"])
def test_one_component_has_the_textbook_errors(name, rng):
    X = rng.normal(size=(500, 3)) * ([1.0, 2.0, 3.0] if name == "EEI" else 2.0)
    gm = GaussianMixture(1, covariance_type=name, reg_covar=0.0, tol=1e-10).fit(X)
    errors = gm.standard_errors(X).standard_errors["covariances"]
    n_values = 500 if name == "EEI" else 1500
    assert_allclose(errors, gm.covariances_ * np.sqrt(2 / n_values), rtol=1e-6)


@pytest.mark.parametrize("name", ["VEI", "VEE", "VVE", "EEV", "EVV"])
def test_standard_errors_are_those_of_rows_drawn_from_the_model(name):
    rng = np.random.default_rng(7)
    covariances = structured(name, rng, 2, 2, spread=0.8)
    truth = GaussianMixture.from_parameters(
        [0.4, 0.6], [[0.0, 0.0], [7.0, 7.0]], in_form(name, covariances), covariance_type=name, random_state=1
    )
    X = truth.sample(800)[0]
    exact = {"reg_covar": 0.0, "tol": 1e-12, "max_iter": 5000, "stopping": "aitken"}
    gm = GaussianMixture(2, covariance_type=name, random_state=0, **exact).fit(X)
    found = gm.standard_errors(X).standard_errors
    model, params = gm._model(), gm._params()
    draws = {"means": [], "covariances": []}
    for seed in range(300):
        rows = model.sample(params, len(X), np.random.default_rng(seed))[0]
        fitted = fastem.fit(model, rows, start=params, tol=1e-9, stopping="aitken", max_iter=500).params
        draws["means"].append(fitted.components.means)
        draws["covariances"].append(fitted.components.covariances)
    for quantity, values in draws.items():
        spread = np.std(values, axis=0)
        assert_allclose(found[quantity], spread, rtol=0.15, atol=0.02 * spread.max())


# choice


def test_all_structures_are_chosen_from(rng):
    X = np.concatenate([rng.normal(size=(150, 2)), rng.normal(size=(150, 2)) * 3.0 + 20.0])
    chosen = fastem.select(X, n_components=[1, 2], covariance_type="all", random_state=0)
    assert chosen.best.covariance_type == "VII"
    assert {row.covariance_type for row in chosen.table} == set(MODELS)
    column = fastem.select(X[:, :1], n_components=[2], covariance_type="all", random_state=0)
    assert {row.covariance_type for row in column.table} == {"E", "V"}
    assert column.best.covariance_type == "V"


@pytest.mark.parametrize("model", ["VVE", "EVE"])
def test_standard_errors_where_common_axes_are_hardly_told(model):
    """The search for axes once ended at the rounding of its value: what it missed was taken for a flat likelihood."""
    rng = np.random.default_rng(7)
    X = np.concatenate([rng.standard_t(3, (400, 2)), rng.standard_t(9, (400, 2)) + 9.0])
    options = {"random_state": 0, "tol": 1e-10, "max_iter": 5000, "reg_covar": 0.0}
    found, free = (
        GaussianMixture(2, covariance_type=name, **options).fit(X).standard_errors(X).standard_errors["covariances"]
        for name in (model, "VVV")
    )
    assert (found > 0.3 * free).all()
    assert (found < 1.5 * free).all()
