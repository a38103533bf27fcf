"""Choice of the number of components and the structure."""

import math
import signal
import threading

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV

import fastem
from fastem import Gaussian, GaussianMixture, Mixture, select
from fastem.data import as_data
from fastem.demo import old_faithful


def three(rng, n_samples=600):
    centres = np.array([[0.0, 0.0], [7.0, 0.0], [0.0, 7.0]])
    return centres[rng.integers(3, size=n_samples)] + rng.normal(size=(n_samples, 2))


@pytest.mark.parametrize("criterion", ["bic", "icl", "held-out", "aic"])
def test_the_truth_is_found(criterion, rng):
    chosen = select(three(rng), n_components=range(1, 6), criterion=criterion, random_state=0)
    if criterion in ("bic", "icl"):
        assert chosen.best.n_components == 3
        assert chosen.best.covariance_type in ("spherical", "tied")  # three parameters for the covariances either way
    assert chosen.best.n_components >= 3
    assert len(chosen.table) == 20
    values = [getattr(row, criterion.replace("-", "_")) for row in chosen.table]
    assert values == sorted(values)
    assert math.isnan(chosen.table[0].held_out) == (criterion != "held-out")
    assert str(chosen).splitlines()[0].split()[0] == "n_components"
    assert len(str(chosen).splitlines()) == 21


def test_criteria_are_those_of_the_estimator(rng):
    X = three(rng, 200)
    chosen = select(X, n_components=[2], covariance_type="diag", random_state=3)
    row, best = chosen.table[0], chosen.best
    assert row.bic == pytest.approx(best.bic(X), rel=1e-12)
    assert row.aic == pytest.approx(best.aic(X), rel=1e-12)
    entropy = -np.log(best.predict_proba(X).max(axis=1)).sum()
    assert row.icl == pytest.approx(row.bic + 2 * entropy, rel=1e-12)
    assert row.n_parameters == 9


def test_weights_count_as_rows(rng):
    X = three(rng, 150)
    counts = rng.integers(0, 3, len(X)).astype(float)
    options = {"n_components": [1, 3], "covariance_type": ["full"], "random_state": 0, "n_race": 0}
    weighted = select(X, sample_weight=counts, **options)
    repeated = select(np.repeat(X, counts.astype(int), axis=0), **options)
    for one, two in zip(weighted.table, repeated.table, strict=True):
        assert one.bic == pytest.approx(two.bic, rel=1e-4)


def test_old_faithful_has_three_tied_components():
    """mclust's choice for these data (Scrucca et al. 2016, R Journal 8, section 3): EEE with three, BIC -2314.3."""
    chosen = select(old_faithful(), n_components=range(1, 7), random_state=0, reg_covar=0.0)
    assert (chosen.best.n_components, chosen.best.covariance_type) == (3, "tied")
    assert chosen.table[0].bic == pytest.approx(2314.3, abs=0.2)


def test_a_candidate_that_collapses_stays_in_the_table(rng):
    X = np.repeat(rng.normal(size=(4, 2)), 5, axis=0)
    chosen = select(X, n_components=[1, 4], covariance_type="full", reg_covar=0.0, random_state=0)
    assert chosen.best.n_components == 1
    assert "component" in chosen.table[-1].failure
    assert math.isnan(chosen.table[-1].bic)
    with pytest.raises(ValueError, match="no candidate could be fitted"):
        select(X, n_components=[4], covariance_type="full", reg_covar=0.0, random_state=0)


def test_picture_of_a_selection(rng, tmp_path):
    pytest.importorskip("matplotlib")
    from fastem.pictures import save_figure, selection

    chosen = select(three(rng, 150), n_components=range(1, 4), random_state=0)
    figure = selection(chosen, "three clusters")
    lines = figure.axes[0].get_lines()
    assert [len(line.get_xdata()) for line in lines] == [3, 3, 3, 3, 1]
    assert lines[-1].get_ydata()[0] == min(line.get_ydata().min() for line in lines)
    save_figure(figure, tmp_path / "selection.png")
    assert (tmp_path / "selection.png").stat().st_size > 10_000


def test_grid_search_works(rng):
    X = three(rng, 300)
    found = GridSearchCV(GaussianMixture(random_state=0, n_race=3), {"n_components": [1, 2, 3]}, cv=3).fit(X)
    assert found.best_params_["n_components"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"criterion": "bics"}, "criterion must be one of"),
        ({"n_components": [0]}, "n_components must hold"),
        ({"n_components": []}, "n_components must hold"),
        ({"n_components": [99]}, r"no candidate could be fitted.*9 sample\(s\)"),
        ({"n_components": [99], "method": "annihilation"}, r"no candidate could be fitted.*9 sample\(s\)"),
        ({"covariance_type": ["round"]}, "covariance_type must be 'all' or hold"),
        ({"covariance_type": ["all", "full"]}, "covariance_type must be 'all' or hold"),
        ({"criterion": "held-out", "held_out": 1.5}, "held_out must lie"),
        ({"criterion": "held-out", "held_out": 0.99}, "leaves 0 row"),
    ],
)
def test_refusals(arguments, message, rng):
    with pytest.raises(ValueError, match=message):
        select(rng.normal(size=(9, 1)), **arguments)


@pytest.mark.parametrize("method", ["each", "annihilation"])
@pytest.mark.parametrize("criterion", ["bic", "held-out"])
def test_more_components_than_rows_are_told_in_the_table(criterion, method, rng):
    X = np.repeat(rng.normal(size=(30, 1)), 2, axis=0)
    options = {"criterion": criterion, "method": method, "random_state": 0, "covariance_type": "diag"}
    found = select(X, n_components=[1, 2, 31, 99], **options)
    assert found.best.n_components <= 2
    assert sorted(row.n_components for row in found.table) == [1, 2, 31, 99]
    assert sorted(row.n_components for row in found.table if "use fewer" in row.failure) == [31, 99]


def test_numbers_that_annihilation_passes_over_are_told(rng):
    found = select(three(rng), n_components=[1, 40], covariance_type="full", method="annihilation", random_state=0)
    assert {row.n_components: row.failure for row in found.table}[40] == "components died together, and left fewer"
    assert found.best.n_components == 1
    with pytest.raises(ValueError, match=r"no candidate could be fitted.*died together"):
        select(three(rng), n_components=[40], covariance_type="full", method="annihilation", random_state=0)


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("method", ["each", "annihilation"])
@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals to a thread")
def test_control_c_ends_all(n_jobs, method, rng):
    X = rng.normal(size=(20_000, 4))
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.5, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT))
    options = {"tol": 0.0, "max_iter": 10**9, "n_init": 10**6, "n_threads": 2, "n_jobs": n_jobs, "method": method}
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            select(X, n_components=range(2, 99), covariance_type=["full", "tied"], random_state=0, **options)
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, old)


def test_one_more_component_is_tested(rng):
    X = np.concatenate([rng.normal(size=(80, 1)), rng.normal(size=(80, 1)) + 5.0])
    one = fastem.bootstrap_test(X, 1, n_bootstrap=39, random_state=0)
    two = fastem.bootstrap_test(X, 2, n_bootstrap=39, random_state=0)
    assert one.p_value == pytest.approx(1 / 40)
    assert one.statistic > one.replicates.max()
    assert two.p_value > 0.05
    assert two.replicates.shape == (39,)
    for arguments, message in [({"n_components": 0}, "n_components"), ({"n_bootstrap": 0}, "n_bootstrap")]:
        with pytest.raises(ValueError, match=message):
            fastem.bootstrap_test(X, **{"n_components": 1, **arguments})


def seven(rng, n_samples=3000):
    centres = np.array([[0, 0], [8, 0], [0, 8], [8, 8], [16, 0], [16, 8], [4, 16]])
    return centres[rng.integers(7, size=n_samples)] + rng.normal(size=(n_samples, 2))


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_annihilation_finds_the_number_in_one_run(covariance_type, rng):
    X = seven(rng)
    options = {"n_components": range(2, 16), "method": "annihilation", "random_state": 0}
    chosen = select(X, covariance_type=covariance_type, **options)
    assert chosen.best.n_components == 7
    numbers = [row.n_components for row in chosen.table]
    assert len(set(numbers)) == len(numbers)
    assert {2, 7} <= set(numbers) <= set(range(2, 16))
    each = select(X, n_components=[7], covariance_type=covariance_type, random_state=0)
    assert chosen.table[0].bic == pytest.approx(each.table[0].bic, abs=0.01)


def test_message_length(rng):
    """Figueiredo & Jain (2002), equation 15, by hand."""
    X = three(rng, 300)
    row = select(X, n_components=[3], covariance_type="diag", criterion="mml", random_state=0).table[0]
    gm = GaussianMixture(3, covariance_type="diag", random_state=0, stopping="aitken", tol=1e-6, max_iter=1000).fit(X)
    length = 4 / 2 * np.log(300 * gm.weights_ / 12).sum() + 3 / 2 * np.log(300 / 12) + 3 * 5 / 2 - gm.score(X) * 300
    assert row.mml == pytest.approx(2 * length, rel=1e-9)


def test_only_the_weakest_component_dies():
    model = Mixture(Gaussian("spherical"), 4, weight_cost=2.0)
    np.testing.assert_allclose(model._weights(np.array([6.0, 1.0, 1.5, 3.0])), np.array([4, 0, 1.5, 1]) / 6.5)
    np.testing.assert_allclose(model._weights(np.array([6.0, 0.0, 1.5, 3.0])), np.array([4, 0, 0, 1]) / 5)
    assert model._weights(np.array([0.0, 0.0, 0.0, 1.0])).tolist() == [0, 0, 0, 1]
    for wrong, message in [({"weight_cost": -1.0}, "weight_cost"), ({"weight_concentration": 2.0}, "two priors")]:
        with pytest.raises(ValueError, match=message):
            Mixture(Gaussian(), 2, **{"weight_cost": 1.0, **wrong})


@pytest.mark.parametrize("method", ["each", "annihilation"])
def test_the_number_of_jobs_does_not_change_the_table(method, rng):
    X = three(rng)
    options = {"n_components": range(1, 6), "method": method, "random_state": 0}
    one, four = (select(X, n_jobs=n, **options) for n in (1, 4))
    assert one.table == four.table or str(one) == str(four)  # NaN differs from itself
    assert np.array_equal(one.best.means_, four.best.means_)
    assert one.best.n_threads is None


def test_one_more_component_starts_from_the_fit_before(rng):
    X = seven(rng)
    small = GaussianMixture(6, random_state=0).fit(X)
    model = Mixture(Gaussian(), 7).prepare(as_data(X))
    grown = list(model.grown(small._params(), as_data(X)))
    assert 1 <= len(grown) <= 3
    for params in grown:
        model.check_params(params)
    best = max(fastem.fit(model, X, start=params).log_likelihood for params in grown)
    assert best > small.log_likelihood_ + 100


def test_methods_are_checked(rng):
    with pytest.raises(ValueError, match="method must be one of"):
        select(three(rng), method="guess")
    with pytest.raises(ValueError, match="n_jobs must be"):
        select(three(rng), n_jobs=0)


def test_one_component_has_one_message_whatever_its_structure_is_called(rng):
    X = rng.normal(size=(500, 6))
    full, tied = select(X, n_components=[1], covariance_type=["full", "tied"], criterion="mml").table
    assert full.mml == pytest.approx(tied.mml, rel=1e-12)


def test_annihilation_without_regularisation_goes_down_to_one():
    chosen = select(load_iris().data, n_components=range(1, 16), method="annihilation", reg_covar=0.0, random_state=0)
    assert {row.n_components for row in chosen.table} >= {1, 2}


def test_what_belongs_to_one_number_is_refused(rng):
    with pytest.raises(ValueError, match="means_init has the shape of one number"):
        select(three(rng), means_init=np.zeros((3, 2)))
