"""Hidden Markov models against the answers of hmmlearn, depmixS4, HiddenMarkov and mpmath in tests/reference."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.exceptions import ConvergenceWarning
from test_reference_cases import read_columns, shaped

import fastem
from fastem import PoissonHMM
from fastem.sequences import as_run

CASES = {case["id"]: case for case in json.loads((Path(__file__).parent / "reference" / "cases_hmm.json").read_text())}
FITTED = [case for case in CASES.values() if case["init"]["kind"] == "parameters"]
SCORED = [case for case in CASES.values() if case["init"]["kind"] == "fixed parameters"]
TRANSFORMS = {
    None: lambda X: X,
    "1 if > 3 else 0": lambda X: np.where(X > 3, 1.0, 0.0),
    "0 if <= 15, 1 if <= 21, else 2": lambda X: np.searchsorted([15, 21], X).astype(float),
}
TO_STATIONARITY = {"tol": 1e-15, "max_iter": 40_000, "stopping": "change", "acceleration": None}


def each(chosen):
    return pytest.mark.parametrize("case", chosen, ids=[case["id"] for case in chosen])


def read(case):
    """Rows and lengths of a case."""
    data = case["data"]
    if "rule" in data:
        assert data["rule"] == "count_t = (7 t^2 + 3 t) mod 11, t = 0..2999"
        t = np.arange(3000)
        return ((7 * t**2 + 3 * t) % 11)[:, None].astype(float), None
    X = TRANSFORMS[data.get("transform")](read_columns(data["file"], data["columns"]))
    return X, data["sequence_lengths"]


def emissions(case, part):
    """Names and values of the emission parameters of a case, as the estimator has them."""
    if case["model"]["emission"] == "poisson":
        return {"rates": np.array(part["rates"])}
    if case["model"]["emission"] == "categorical":
        return {"emissionprob": np.array(part["emission"])}
    return {
        "means": np.array(part["means"]),
        "covariances": shaped(part["covariances"], case["model"]["covariance"]),
    }


def estimator(case, **params):
    """The estimator that a case describes, with the start that it prescribes."""
    init = case["init"]
    start = {"startprob": init["initial"], "transmat": init["transition"], **emissions(case, init)}
    params = {f"{name}_init": value for name, value in start.items()} | params
    if case["model"]["emission"] == "gaussian":
        params["covariance_type"] = case["model"]["covariance"]
    kind = getattr(fastem, f"{case['model']['emission'].title()}HMM")
    return kind(len(init["initial"]), **params)


def log_probability(model, X, lengths, path):
    """Log-probability of a path of states together with the rows."""
    scores = model._fitted_model()._log_emissions(model._params(), as_run(X, lengths))
    total = scores[np.arange(len(path)), path].sum()
    for states in np.split(path, np.cumsum(lengths)[:-1]):
        total += np.log(model.startprob_[states[0]]) + np.log(model.transmat_[states[:-1], states[1:]]).sum()
    return total


@cache
def converged_fit(case_id):
    case = CASES[case_id]
    X, lengths = read(case)
    return X, lengths, estimator(case, **TO_STATIONARITY).fit(X, lengths)


@each(FITTED)
def test_fit_from_a_given_start(case):
    """The start fixes the order of the states too, so nothing is matched."""
    expected, tolerance = case["expected"], case["tolerance"]
    X, lengths, model = converged_fit(case["id"])
    assert model.converged_
    assert_allclose(model.score(X, lengths), expected["loglik"], rtol=0, atol=tolerance["loglik_abs"])
    assert_allclose(model.log_likelihood_, expected["loglik"], rtol=0, atol=tolerance["loglik_abs"])
    assert model._n_parameters() == expected["n_parameters"]
    wanted = {"startprob": expected["initial"], "transmat": expected["transition"], **emissions(case, expected)}
    for name, value in wanted.items():
        value = np.array(value)
        error = np.abs(getattr(model, f"{name}_") - value).max()
        assert error <= tolerance["parameters_rel"] * np.abs(value).max(), name


@each(FITTED)
def test_every_step(case):
    expected = case["expected"]
    X, lengths = read(case)
    trace = expected["loglik_after_k_em_steps"]
    with pytest.warns(ConvergenceWarning):
        model = estimator(case, tol=0, stopping="change", max_iter=max(trace["k"]) + 1).fit(X, lengths)
    reached = np.array(model.lower_bounds_) * len(X)
    assert_allclose(reached[0], expected["loglik_at_start"], rtol=0, atol=case["tolerance"]["trace_abs"])
    assert_allclose(reached[trace["k"]], trace["loglik"], rtol=0, atol=case["tolerance"]["trace_abs"])
    assert np.diff(reached).min() >= -1e-9


@each(FITTED)
def test_decoding(case):
    expected = case["expected"]
    X, lengths, model = converged_fit(case["id"])
    log_prob, states = model.decode(X, lengths)
    assert_allclose(log_prob, expected["viterbi_loglik"], rtol=0, atol=1e-3)  # the optimum may be flat
    path = np.array(expected["viterbi_path"])  # equal rows next to each other can change places
    assert (states != path).sum() <= 2
    assert_allclose(log_probability(model, X, lengths, path), log_prob, rtol=1e-12)
    assert_allclose(
        model.predict_proba(X, lengths)[:5],
        expected["posterior_first5"],
        rtol=0,
        atol=max(1e-5, case["tolerance"]["parameters_rel"]),
    )


@each(SCORED)
def test_score_at_given_parameters(case):
    X, lengths = read(case)
    init = case["init"]
    model = PoissonHMM.from_parameters(init["initial"], init["transition"], init["rates"])
    wanted = case["expected"]["loglik"]
    if isinstance(wanted, dict):
        assert_allclose(model.score(X, lengths), wanted["double"], rtol=case["tolerance"]["rel"])
        return
    assert_allclose(model.score(X, lengths), wanted, rtol=0, atol=case["tolerance"]["loglik_abs"])
    assert round(-model.score(X, lengths), 4) == case["expected"]["published_minus_loglik"]
    if case["model"]["initial"].startswith("stationary"):
        assert_allclose(model.get_stationary_distribution(), init["initial"], atol=1e-6)


@pytest.mark.parametrize(("n_states", "published"), [(2, 341.8787), (3, 328.5275), (4, 326.4635)])
def test_earthquakes_from_starts_of_its_own(n_states, published):
    """Minus the log-likelihood with a free start distribution, of which that for 4 states is an upper bound."""
    X = read_columns("data/earthquakes.csv", ["count"])
    model = PoissonHMM(n_states, random_state=0, n_init=3, tol=1e-6, max_iter=3000).fit(X)
    assert -model.score(X) <= published + 1e-4
    if n_states < 4:
        assert -model.score(X) == pytest.approx(published, abs=1e-4)
