"""Latent classes and Poisson mixtures against poLCA, flexmix and 60-digit arithmetic in tests/reference."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import fastem

REFERENCE = Path(__file__).parent / "reference"
CASES = {case["id"]: case for case in json.loads((REFERENCE / "counts_and_categories.json").read_text())}
TO_STATIONARITY = {"tol": 1e-14, "max_iter": 200_000, "stopping": "aitken", "acceleration": None}


def cases(*families):
    chosen = [case for case in CASES.values() if case["family"] in families]
    return pytest.mark.parametrize("case", chosen, ids=[case["id"] for case in chosen])


def read(case):
    """Rows, with NaN for empty cells, and their frequencies."""
    data = case["data"]
    lines = (REFERENCE / data["file"]).read_text().replace('"', "").split("\n")
    header, lines = lines[0].split(","), [line.split(",") for line in lines[1:] if line]
    table = np.array([[float(cell) if cell not in ("", "NA") else np.nan for cell in line] for line in lines])
    weight = None if data["frequency_column"] is None else table[:, header.index(data["frequency_column"])]
    return table[:, [header.index(name) for name in data["columns"]]], weight


def start(case):
    """Constructor arguments for the prescribed start."""
    init = case["init"]
    if case["family"] == "poisson-mixture":
        return {"components_init": init["rates"], "weights_init": init["weights"]}
    by_column = [np.array(column) for column in init["category_probabilities"]]
    if case["family"] == "bernoulli-mixture":
        return {
            "components_init": np.stack([part[:, 1] for part in by_column], axis=1),
            "weights_init": init["weights"],
        }
    return {"components_init": by_column, "weights_init": init["weights"]}


def estimator(case, **params):
    classes = {
        "poisson-mixture": fastem.PoissonMixture,
        "bernoulli-mixture": fastem.BernoulliMixture,
        "categorical-mixture": fastem.LatentClass,
    }
    return classes[case["family"]](case["model"]["n_components"], **params)


def rows_of(case):
    X, weight = read(case)
    if case["family"] == "bernoulli-mixture":
        X = X - case["data"]["code_of_first_category"]
    return X, weight


@cache
def converged_fit(case_id):
    case = CASES[case_id]
    X, weight = rows_of(case)
    return X, weight, estimator(case, **start(case), **TO_STATIONARITY).fit(X, sample_weight=weight)


MIXTURES = ("poisson-mixture", "bernoulli-mixture", "categorical-mixture")


@cases(*MIXTURES)
def test_fit_from_the_given_start(case):
    expected, tolerance = case["expected"], case["tolerance"]
    X, weight, model = converged_fit(case["id"])
    density = model.score_samples(X)
    loglik = density.sum() if weight is None else density @ weight
    assert_allclose([loglik, model.log_likelihood_], expected["loglik"], rtol=0, atol=tolerance["loglik_abs"])
    assert_allclose(model.bic(X, weight), expected["bic"], rtol=0, atol=2 * tolerance["loglik_abs"])
    assert_allclose(model.aic(X, weight), expected["aic"], rtol=0, atol=2 * tolerance["loglik_abs"])
    assert model._n_parameters() == expected["n_parameters"]
    if "parameters_rel" in tolerance or "parameters_abs" in tolerance:
        if case["family"] == "poisson-mixture":
            scale = tolerance["parameters_rel"] * np.max(expected["rates"])
            assert_allclose(model.rates_, expected["rates"], rtol=0, atol=scale)
            assert_allclose(model.weights_, expected["weights"], rtol=0, atol=tolerance["parameters_rel"])
        else:
            found = model.probabilities_
            if case["family"] == "bernoulli-mixture":
                found = np.stack([1 - found.T, found.T], axis=2)
            for ours, theirs in zip(found, expected["category_probabilities"], strict=True):
                assert_allclose(ours, theirs, rtol=0, atol=tolerance["parameters_abs"])
            assert_allclose(model.weights_, expected["weights"], rtol=0, atol=tolerance["parameters_abs"])
        counts = np.bincount(model.predict(X), weight, model.n_components)
        assert_allclose(counts, expected["classification_counts"])


@cases(*MIXTURES)
def test_each_em_step(case):
    trace, tolerance = case["expected"]["loglik_after_k_em_steps"], case["tolerance"]["trace_abs"]
    X, weight, model = converged_fit(case["id"])
    total = len(X) if weight is None else weight.sum()
    history = np.array(model.lower_bounds_) * total
    assert_allclose(history[0], case["expected"]["loglik_at_start"], rtol=0, atol=tolerance)
    assert_allclose(history[trace["k"]], trace["loglik"], rtol=0, atol=tolerance)
    assert np.diff(history).min() >= -1e-12 * abs(history[-1])


@cases("bernoulli-mixture")
def test_latent_classes_of_two_categories_are_the_same(case):
    """The codes as they come in the table, one-hot probabilities."""
    X, _ = read(case)
    given = {**start(case), "components_init": [np.array(part) for part in case["init"]["category_probabilities"]]}
    model = fastem.LatentClass(case["model"]["n_components"], **given, **TO_STATIONARITY, n_threads=1).fit(X)
    assert_allclose(model.log_likelihood_, case["expected"]["loglik"], rtol=0, atol=case["tolerance"]["loglik_abs"])
    assert model.categories_[0].tolist() == [case["data"]["code_of_first_category"] + i for i in (0, 1)]


@cases(*MIXTURES)
def test_defaults_reach_the_best_known_optimum(case):
    """Without a start: no lower than the reference from its start, or than the best of its twenty starts."""
    X, weight = rows_of(case)
    expected = case["expected"].get("best_known_loglik", case["expected"]["loglik"])
    model = estimator(case, random_state=0, n_init=3, tol=1e-5).fit(X, sample_weight=weight)
    assert model.log_likelihood_ > expected - 0.01


def test_published_maxima_of_gss82():
    """Linzer & Lewis (2011), J. Statist. Software 42(10): three classes have local maxima; races find the best."""
    X, _ = read(CASES["lca/gss82/K2"])
    published = np.array([-2754.545, -2755.617, -2755.739, -2762.005, -2762.231])
    options = {"init_params": "random_from_data", "n_race": 0, "tol": 1e-5, "max_iter": 10_000}
    found = [fastem.LatentClass(3, random_state=seed, **options).fit(X).log_likelihood_ for seed in range(40)]
    reached = np.abs(np.subtract.outer(published, found)).min(axis=1) < 2e-3
    assert reached[[0, 1, 2, 4]].all()
    assert max(found) == pytest.approx(published[0], abs=1e-3)
    best = fastem.LatentClass(3, random_state=0, n_init=3).fit(X).log_likelihood_
    assert best == pytest.approx(published[0], abs=5e-3)


def test_published_values_of_lsat_and_deaths():
    X, _ = read(CASES["lca/lsat6/K2"])
    classes = fastem.LatentClass(2, random_state=0).fit(X)
    assert classes.log_likelihood_ > -2467.408
    X, weight = read(CASES["poismix/hasselblad_deaths/K2"])
    deaths = fastem.PoissonMixture(2, random_state=0).fit(X, sample_weight=weight)
    assert deaths.log_likelihood_ == pytest.approx(-1989.946, abs=1e-3)


@cases("kernel")
def test_poisson_log_probabilities(case):
    values = zip(case["data"]["counts"], case["data"]["rates"], case["expected"]["log_probability"], strict=True)
    for (count, rate, want), tolerance in zip(values, case["tolerance"]["per_value_abs"], strict=True):
        model = fastem.PoissonMixture.from_parameters([1.0], [[rate]])
        assert_allclose(model.score_samples([[count]])[0], float(want["double"]), rtol=0, atol=tolerance)
