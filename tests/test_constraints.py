"""Frozen parameters, rows of known components, uniform noise: against EM in plain NumPy, and through the protocol."""

import itertools
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from conftest import simulate
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import digamma
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastem
from fastem import Conjugate, Gaussian, GaussianMixture, Mixture, Normal, Poisson, StudentT, WithNoise
from fastem.data import Block, Data, as_data
from fastem.families.covariance_structures import MODELS as STRUCTURES
from fastem.families.covariance_structures import constrained
from fastem.families.gaussian_records import GaussianParams
from fastem.families.newton import maximize_each
from fastem.families.normal import NormalParams
from fastem.inference import information
from fastem.labels import allowed, as_labels
from fastem.models.mixture_records import MixtureParams
from fastem.protocol import DegenerateError, add_stats

TYPES = ("full", "tied", "diag", "spherical")
CONSTRAINED = tuple(name for name in STRUCTURES if Gaussian(name).is_constrained)
MAP = fastem.NormalInverseWishart(mean_precision=0.7, degrees_of_freedom=6.0)


# EM in NumPy


def log_normal(X, mean, covariance):
    gap = X - mean
    _, log_det = np.linalg.slogdet(2 * np.pi * covariance)
    return -0.5 * (log_det + np.einsum("ni,ij,nj->n", gap, np.linalg.inv(covariance), gap))


def structured(kind, scatters, counts, old):
    """Covariances (K, D, D) of a structure from scatters (K, D, D) about the means, and the last ones."""
    form = Gaussian(kind).form
    if form == "tied":
        return np.broadcast_to(scatters.sum(axis=0) / counts.sum(), scatters.shape).copy()
    each = scatters / counts[:, None, None]
    if kind not in TYPES:
        found = constrained(kind, counts, in_form(form, each), in_form(form, old))
        return as_matrices(kind, found, *scatters.shape[:2])
    return as_matrices(kind, in_form(form, each), *scatters.shape[:2])


def in_form(form, covariances):
    """Covariances (K, D, D) as they are stored."""
    if form == "tied":
        return covariances[0]
    variances = np.einsum("kii->ki", covariances)
    return {"full": covariances, "diag": variances, "spherical": variances.mean(axis=1)}[form]


def em_in_numpy(X, weight, weights, means, covariances, kind, n_steps, can=None, log_noise=None, frozen=None):
    """Log-likelihoods that enter each step, and the parameters after the last; covariances are (K, D, D)."""
    frozen = frozen or {}
    k = len(means)
    fixed = {name: np.isin(np.arange(len(weights)), numbers) for name, numbers in frozen.items()}
    none = np.zeros(len(weights), bool)
    history = []
    for _ in range(n_steps):
        scores = np.stack([log_normal(X, m, c) for m, c in zip(means, covariances, strict=True)], axis=1)
        if log_noise is not None:
            scores = np.column_stack([scores, np.full(len(X), log_noise)])
        scores = scores + np.log(weights)
        if can is not None:
            scores = np.where(can, scores, -np.inf)
        log_prob = np.logaddexp.reduce(scores, axis=1)
        history.append(weight @ log_prob)
        resp = np.exp(scores - log_prob[:, None]) * weight[:, None]
        counts = resp.sum(axis=0)
        held = fixed.get("weights", none)
        left = 1 - weights[held].sum()
        weights = np.where(held, weights, left * counts / counts[~held].sum() if (~held).any() else 0)
        resp, counts = resp[:, :k], counts[:k]
        free_means = resp.T @ X / counts[:, None]
        means = np.where(fixed.get("means", none)[:k, None], means, free_means)
        gaps = X - means[:, None, :]
        scatters = np.einsum("nk,kni,knj->kij", resp, gaps, gaps)
        new = structured(kind, scatters, counts, covariances)
        covariances = np.where(fixed.get("covariances", none)[:k, None, None], covariances, new)
    return np.array(history), weights, means, covariances


def as_matrices(kind, covariances, k, d):
    match Gaussian(kind).form:
        case "tied":
            return np.broadcast_to(covariances, (k, d, d))
        case "diag":
            return covariances[:, :, None] * np.eye(d)
        case "spherical":
            return covariances[:, None, None] * np.eye(d)
    return covariances


class Start(NamedTuple):
    X: np.ndarray
    weight: np.ndarray
    params: MixtureParams
    matrices: np.ndarray


def start_of(rng, kind, n_noise=0, k=3, d=2, n=500):
    X = simulate(rng, n, d, k, separation=1.5)
    weight = rng.integers(0, 4, n).astype(float)
    means = X[rng.choice(n, k, replace=False)]
    family = Gaussian(kind)
    shape = family.shape(k, d)
    roots = rng.normal(size=(k, d, d)) * 0.3 + np.eye(d) * 1.5
    full = roots @ np.swapaxes(roots, 1, 2)
    covariances = in_form(family.form, full)
    if family.is_constrained:
        covariances = constrained(kind, np.ones(k), covariances, None)
    assert covariances.shape == shape
    weights = rng.dirichlet(np.full(k + n_noise, 5.0))
    components = GaussianParams(means, covariances, family.precisions_cholesky(covariances))
    return Start(X, weight, MixtureParams(weights, components), as_matrices(kind, covariances, k, d))


def check_against_numpy(start, kind, model, frozen=None, labels=None, log_noise=None, n_steps=8):
    result = fastem.fit(
        model, start.X, sample_weight=start.weight, labels=labels, start=start.params, max_iter=n_steps, tol=0
    )
    can = None
    if labels is not None:
        can = allowed(as_labels(labels, model.n_states), model.n_states)
    weights, (means, _, _) = start.params
    history, weights, means, matrices = em_in_numpy(
        start.X, start.weight, weights, means, start.matrices, kind, n_steps, can, log_noise, frozen
    )
    np.testing.assert_allclose(result.history, history, rtol=1e-11)
    np.testing.assert_allclose(result.params.weights, weights, rtol=1e-9)
    np.testing.assert_allclose(result.params.components.means, means, rtol=1e-8, atol=1e-9)
    mine = as_matrices(kind, result.params.components.covariances, *means.shape)
    np.testing.assert_allclose(mine, matrices, rtol=1e-8, atol=1e-9)
    assert np.diff(result.history).min() > -1e-9 * abs(history[-1])
    assert np.ptp(history) > 1  # so that the test can fail
    return result


@pytest.mark.parametrize("kind", TYPES + CONSTRAINED)
@pytest.mark.parametrize(
    "names", [("means",), ("weights",), ("means", "weights"), ("covariances", "means")], ids="-".join
)
def test_steps_with_frozen_parameters_are_those_of_numpy(kind, names, rng):
    start = start_of(rng, kind)
    frozen = {name: [0, 2] if name != "weights" else [1] for name in names}
    is_shared = kind not in ("full", "diag", "spherical")
    if "covariances" in frozen and is_shared:
        frozen["covariances"] = [0, 1, 2]
    given_so = {name: True if len(numbers) == 3 else numbers for name, numbers in frozen.items()}
    result = check_against_numpy(start, kind, Mixture(Gaussian(kind), 3, frozen=given_so), frozen)
    for name, numbers in frozen.items():  # to the last bit, roots of precisions too
        parts = [start.params, result.params] if name == "weights" else [start.params[1], result.params[1]]
        before, after = (getattr(part, name) for part in parts)
        whole = is_shared and name == "covariances"
        assert np.array_equal(*(before, after) if whole else (before[numbers], after[numbers]))


@pytest.mark.parametrize("kind", TYPES + CONSTRAINED)
@pytest.mark.parametrize("form", ["numbers", "sets", "all"])
def test_steps_with_labels_are_those_of_numpy(kind, form, rng):
    start = start_of(rng, kind)
    nearest = np.argmin(((start.X[:, None] - start.params.components.means) ** 2).sum(axis=2), axis=1)
    labels = np.where(rng.random(len(nearest)) < 0.3, nearest, -1) if form == "numbers" else nearest
    if form == "sets":
        labels = rng.random((len(nearest), 3)) < 0.6
        labels[np.arange(len(nearest)), nearest] = True
    check_against_numpy(start, kind, Mixture(Gaussian(kind), 3), labels=labels, n_steps=2 if form == "all" else 8)


@pytest.mark.parametrize("kind", TYPES + CONSTRAINED)
@pytest.mark.parametrize("volume", [None, 2000.0])
def test_steps_with_noise_are_those_of_numpy(kind, volume, rng):
    start = start_of(rng, kind, n_noise=1)
    start.X[:30] = rng.uniform(-15, 15, (30, 2))
    counting = start.X[start.weight > 0]
    box = np.prod(np.ptp(counting, axis=0))
    check_against_numpy(start, kind, Mixture(WithNoise(Gaussian(kind), volume), 3), log_noise=-np.log(volume or box))


@pytest.mark.parametrize("kind", TYPES + CONSTRAINED)
def test_everything_at_once_is_as_in_numpy(kind, rng):
    start = start_of(rng, kind, n_noise=1)
    labels = np.full(len(start.X), -1)
    labels[:20], labels[20:40], labels[40:50] = 0, 2, 3  # 3 is the noise
    frozen = {"means": [1], "weights": [0, 3]}
    model = Mixture(WithNoise(Gaussian(kind), 500.0), 3, frozen=frozen)
    check_against_numpy(start, kind, model, frozen, labels, -np.log(500.0))


@pytest.mark.parametrize("kind", ["full", "diag", "spherical"])
def test_steps_of_thin_components_beside_noise_and_labels(kind, rng):
    """Thin components are whitened, wide ones and the noise are not; sub-states keep both kinds apart."""
    thin = 1e3 + 1e-5 * rng.normal(size=(300, 2))
    X = np.concatenate([thin, rng.normal(size=(300, 2)), rng.uniform(-900, 900, (30, 2))])
    resp = np.repeat([0, 1, -1], [300, 300, 30])
    labels = np.full(len(X), -1)
    labels[:5], labels[300:310], labels[-3:] = 0, 1, 2
    result = fastem.fit(Mixture(WithNoise(Gaussian(kind)), 2, start=resp), X, labels=labels, max_iter=4, tol=0)
    layout = result.model.family.layout(result.params.components, result.model.bound)
    assert len(layout.whitener) == 1
    assert layout.order.tolist() == [2, 1, 0]
    np.testing.assert_allclose(result.params.weights, np.array([300, 300, 30]) / 630, rtol=1e-3)
    covariance = np.cov(thin.T, bias=True)
    want = {"full": covariance, "diag": np.diag(covariance), "spherical": np.trace(covariance) / 2}[kind]
    np.testing.assert_allclose(result.params.components.covariances[0], want, rtol=1e-6)


# through the protocol alone


MODELS = {
    **{f"{kind}-means": Mixture(Gaussian(kind), 3, frozen={"means": [0, 2]}) for kind in TYPES},
    **{
        f"{kind}-map": Mixture(Gaussian(kind, prior=MAP), 3, frozen={"means": [1]}, weight_concentration=2.0)
        for kind in TYPES
    },
    **{f"{kind}-means": Mixture(Gaussian(kind), 3, frozen={"means": [0, 2]}) for kind in CONSTRAINED},
    **{f"{kind}-map": Mixture(Gaussian(kind, prior=MAP), 3, frozen={"means": [1]}) for kind in CONSTRAINED},
    **{
        f"{kind}-covariances": Mixture(Gaussian(kind, prior=MAP), 3, frozen={"covariances": True})
        for kind in (*TYPES, "EII", "VEV", "VVE")
    },
    "some-covariances": Mixture(Gaussian("full"), 3, frozen={"covariances": [1], "weights": [0]}),
    "weights": Mixture(Gaussian("diag"), 3, weight_concentration=3.0, frozen={"weights": [False, True, False]}),
    "two-weights": Mixture(Gaussian("diag"), 3, frozen={"weights": [0, 2]}),
    **{f"{kind}-noise": Mixture(WithNoise(Gaussian(kind), 300.0), 3) for kind in TYPES},
    "noise-frozen": Mixture(WithNoise(Gaussian("full", prior=MAP), 300.0), 3, frozen={"means": [0], "weights": [3]}),
    **{
        f"t-{kind}-{degrees}": Mixture(StudentT(kind, degrees_of_freedom=degrees), 3, frozen={"means": [0], **more})
        for kind, degrees, more in [
            ("full", "free", {"degrees_of_freedom": [1]}),
            ("full", "common", {"covariances": [1]}),
            ("tied", "free", {}),
            ("tied", 5.0, {"covariances": True}),
            ("diag", "common", {"degrees_of_freedom": True}),
            ("spherical", "free", {"weights": [0, 1]}),
            ("EEI", "common", {}),
            ("VEE", "free", {}),
            ("EVE", 5.0, {"weights": [1]}),
            ("VEV", "free", {"covariances": True}),
        ]
    },
    "t-EVI-map": Mixture(StudentT("EVI", prior=MAP), 3, frozen={"means": [0]}),
    "t-map": Mixture(StudentT("full", prior=MAP), 3, frozen={"means": [1], "degrees_of_freedom": [0, 1]}),
    "t-noise": Mixture(WithNoise(StudentT("diag"), 300.0), 3, frozen={"covariances": [1]}),
    "normal-means": Mixture(Normal(), 3, frozen={"means": [0, 1]}),
    "normal-variances": Mixture(Normal(prior=Conjugate(5.0)), 3, frozen={"variances": True, "means": [2]}),
    "normal-noise": Mixture(WithNoise(Normal(), 300.0), 3, frozen={"variances": [2]}),
    "gamma-shapes": Mixture(fastem.Gamma(), 3, frozen={"shapes": [0, 2]}),
    "gamma-scales": Mixture(WithNoise(fastem.Gamma(prior=Conjugate(2.0))), 3, frozen={"scales": [0]}),
    "beta": Mixture(fastem.Beta(), 3, frozen={"b": [1]}),
    "von-mises": Mixture(WithNoise(fastem.VonMises()), 3, frozen={"directions": [0], "concentrations": [1]}),
    "poisson": Mixture(Poisson(), 3, frozen={"rates": [1]}),
    "poisson-noise": Mixture(WithNoise(Poisson()), 3, frozen={"weights": [0]}),
    "bernoulli": Mixture(WithNoise(fastem.Bernoulli()), 3, frozen={"probabilities": [2]}),
    "categorical": Mixture(fastem.Categorical(), 3, frozen={"probabilities": [2], "weights": [0, 1]}),
}
EVERY = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


class Case(NamedTuple):
    data: Data
    model: Any  # prepared, and holding
    params: Any  # a few steps into a fit


def case_of(model, rng, n=400):
    X = rows_for(model.family.core, simulate(rng, n, 2, 3, separation=1.0), rng)
    weight, labels = rng.integers(0, 4, n).astype(float), np.full(n, -1)
    labels[:30] = rng.integers(0, model.n_states, 30)
    free = fastem.fit(
        Mixture(model.family, 3, weight_concentration=model.weight_concentration), X, max_iter=2, tol=0, random_state=1
    )
    result = fastem.fit(model, X, sample_weight=weight, labels=labels, start=free.params, max_iter=2, tol=0)
    return Case(as_data(X, weight, as_labels(labels, model.n_states)), result.model, result.params)


def rows_for(family, X, rng):
    """Rows that a family can have."""
    match type(family).__name__:
        case "Poisson":
            return rng.poisson(np.exp(np.clip(X, -2, 3))).astype(float)
        case "Gamma":
            return np.exp(0.5 * X)
        case "Beta":
            return 1 / (1 + np.exp(-X))
        case "VonMises":
            return np.arctan2(np.sin(X), np.cos(X))
        case "Bernoulli":
            return ((X > 0) != (rng.random(X.shape) < 0.2)).astype(float)
        case "Categorical":
            return np.clip(np.round(X + rng.normal(size=X.shape)), -2, 2)
    return X


def stats_of(model, params, data):
    return add_stats(model.e_step(params, block) for block in data)


def gradient(function, x, h=1e-5):
    return np.array([(function(x + h * e) - function(x - h * e)) / (2 * h) for e in np.eye(len(x))])


def jacobian(function, x, h):
    return np.array([(function(x + h * e) - function(x - h * e)) / (2 * h) for e in np.eye(len(x))]).T


def leaves(params):
    return [params.weights, *params.components]


@EVERY
def test_coordinates_are_those_of_what_is_free(model, rng):
    _, model, params = case_of(model, rng)
    vector = model.pack(params)
    for one, two in zip(leaves(model.unpack(vector)), leaves(params), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-12)
    moved = model.unpack(vector + rng.normal(size=vector.shape) * 0.1)
    held = model.put(moved)
    for one, two in zip(leaves(held), leaves(moved), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-14)
    n_weights = int(model._free_weights.sum())
    n_redundant = (
        2 * 2 if isinstance(model.family, fastem.Categorical) else 0
    )  # logits of each column, up to a constant
    if not getattr(model.family, "is_constrained", False):  # a structure is a surface among its coordinates
        assert model.n_parameters(2) == len(vector) - min(n_weights, 1) - n_redundant


@EVERY
def test_m_steps_are_stationary_in_what_is_free(model, rng):
    data, model, params = case_of(model, rng)
    stats = stats_of(model, params, data)
    expected = model.condense(stats, params)
    after = model.maximize(expected, stats.weight, params, 0.0)  # batch EM goes farther where components are t

    def objective(vector):
        there = model.unpack(vector)
        return stats.weight * model.expected_log_likelihood(expected, there) + model.log_prior(there)

    assert np.abs(gradient(objective, model.pack(after))).max() < 2e-4
    assert np.abs(gradient(objective, model.pack(params))).max() > 1e-2  # so that the test can fail
    assert objective(model.pack(after)) >= objective(model.pack(params))


@EVERY
def test_scores_are_gradients_of_the_log_likelihood(model, rng):
    data, model, params = case_of(model, rng)

    def observed(vector):
        return stats_of(model, model.unpack(vector), data).log_likelihood

    score = model.score(stats_of(model, params, data), params)
    np.testing.assert_allclose(score, gradient(observed, model.pack(params)), rtol=1e-5, atol=2e-4)
    assert np.abs(score).max() > 1e-2


@EVERY
def test_statistics_of_labelled_rows_add_up(model, rng):
    data, model, params = case_of(model, rng)
    block = data.blocks[0]
    whole = stats_of(model, params, data)
    parts = [stats_of(model, params, [block.part(i, j)]) for i, j in ((0, 7), (7, 25), (25, 400))]
    repeated = np.repeat(np.arange(len(block.X)), block.counts.astype(int))
    again = stats_of(model, params, [Block(block.X[repeated], np.empty((0, 1)), labels=block.labels[repeated])])
    for total in (add_stats(parts), again):
        for one, two in zip(total, whole, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-11, atol=1e-9)


@EVERY
@pytest.mark.parametrize(
    "options",
    [
        {"acceleration": "anderson"},
        pytest.param({"acceleration": "squarem"}, marks=pytest.mark.slow),
        {"algorithm": "incremental", "batch_size": 60},
        pytest.param({"algorithm": "minibatch", "batch_size": 100, "n_epochs": 3}, marks=pytest.mark.slow),
    ],
    ids=lambda options: next(iter(options.values())),
)
def test_every_way_to_fit_keeps_what_is_frozen(model, options, rng):
    data, model, params = case_of(model, rng)
    block = data.blocks[0]
    rows = {"data": block.X, "sample_weight": block.counts, "labels": block.codes}
    result = fastem.fit(model, **rows, start=params, max_iter=30, tol=0, **options, random_state=0)
    kept = model.put(result.params)
    for one, two in zip(leaves(kept), leaves(result.params), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-14)
    if options.get("algorithm") != "minibatch":
        assert np.diff(result.history).min() >= -1e-9 * abs(result.history[-1])
        assert result.history[-1] > result.history[0] + 0.1
    assert (model.pack(params) != model.pack(result.params)).all()


# what follows from the parts


def test_fully_labelled_rows_give_each_class_its_own_maximum(rng):
    X, labels = simulate(rng, 300, 2, 2), rng.integers(0, 3, 300)
    gm = GaussianMixture(3, reg_covar=0, random_state=0).fit(X, labels=labels)
    for k in range(3):
        rows = X[labels == k]
        np.testing.assert_allclose(gm.means_[k], rows.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(gm.covariances_[k], np.cov(rows.T, bias=True), rtol=1e-10)
    np.testing.assert_allclose(gm.weights_, np.bincount(labels) / 300, rtol=1e-12)
    assert gm.converged_


def test_labels_number_the_components(rng):
    """A race of twelve starts ends with the components under the numbers of their labels, also from few labels."""
    centers = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0], [8.0, 8.0]])
    truth = rng.integers(0, 4, 20_000)
    X = centers[truth] + rng.normal(size=(20_000, 2))
    for seed, order in enumerate(itertools.islice(itertools.permutations(range(4)), 0, 24, 5)):
        labels = np.full(len(X), -1)
        for k in (0, 2):  # one row of each of two components
            labels[np.flatnonzero(truth == k)[seed]] = order[k]
        gm = GaussianMixture(4, random_state=seed).fit(X, labels=labels)
        for k in (0, 2):
            np.testing.assert_allclose(gm.means_[order[k]], centers[k], atol=0.2)
        np.testing.assert_allclose(gm.weights_, 0.25, atol=0.02)


@pytest.mark.parametrize("init_params", ["kmeans", "k-means++", "k-means||", "ward", "random_from_data"])
def test_starts_look_for_free_components_among_the_rest(init_params, rng):
    centers = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 9.0]])
    truth = rng.integers(0, 4, 3000)
    X = centers[truth] + rng.normal(size=(3000, 2))
    frozen = {"means": {2: centers[0], 0: centers[3]}}
    gm = GaussianMixture(4, init_params=init_params, n_init=3, n_race=0, frozen=frozen, random_state=0).fit(X)
    assert np.array_equal(gm.means_[[2, 0]], centers[[0, 3]])
    found = gm.means_[[1, 3]]
    np.testing.assert_allclose(found[np.argsort(found[:, 0])], centers[[2, 1]], atol=0.2)


def test_races_and_moves_keep_known_components(rng):
    centers = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 9.0], [20.0, 20.0]])
    X = centers[rng.integers(0, 5, 15_000)] + rng.normal(size=(15_000, 2))
    frozen = {"means": {1: centers[4]}, "covariances": {1: np.eye(2)}, "weights": {1: 0.25}}
    gm = GaussianMixture(5, frozen=frozen, split_merge=True, random_state=0).fit(X)
    assert np.array_equal(gm.means_[1], centers[4])
    assert np.array_equal(gm.covariances_[1], np.eye(2))
    assert gm.weights_[1] == 0.25
    np.testing.assert_allclose(np.delete(gm.weights_, 1), 0.75 / 4, atol=0.01)
    found = np.delete(gm.means_, 1, axis=0)
    np.testing.assert_allclose(found[np.lexsort(found.T.round())], centers[[0, 1, 2, 3]], atol=0.2)


def test_only_weights_of_known_components(rng):
    """Two rows suffice where the components are known."""
    known = {"means": {0: [0.0], 1: [5.0], 2: [1e3]}, "covariances": {k: [[1.0]] for k in range(3)}}
    gm = GaussianMixture(3, frozen=known, tol=1e-10, max_iter=1000).fit(np.array([[0.1], [5.2]]))
    np.testing.assert_allclose(gm.weights_, [0.5, 0.5, 0.0], atol=1e-5)
    assert gm.n_iter_ < 200


def test_noise_is_found_and_named(rng):
    X = np.concatenate([rng.normal(size=(2000, 2)), rng.normal(size=(1000, 2)) * 0.5 + [8.0, 0.0]])
    X = np.concatenate([X, rng.uniform(-30.0, 30.0, (600, 2))])
    gm = GaussianMixture(2, noise=True, random_state=0).fit(X)
    box = np.stack([X.min(axis=0), X.max(axis=0)])
    assert np.array_equal(gm.noise_box_, box)
    assert gm.noise_volume_ == pytest.approx(np.prod(np.ptp(box, axis=0)), rel=1e-12)
    assert gm.noise_weight_ == pytest.approx(600 / 3600, abs=0.01)
    assert gm.weights_.sum() + gm.noise_weight_ == pytest.approx(1.0, rel=1e-12)
    labels, proba = gm.predict(X), gm.predict_proba(X)
    assert proba.shape == (3600, 3)
    np.testing.assert_allclose(proba.sum(axis=1), 1.0, rtol=1e-12)
    assert np.array_equal(np.where(labels < 0, 2, labels), proba.argmax(axis=1))
    far = np.abs(X[3000:] - [4.0, 0.0]).max(axis=1) > 10
    assert (labels[3000:][far] == -1).all()
    assert (labels[:3000] == -1).mean() < 0.02
    assert gm.predict([[1e6, 1e6]])[0] == -1
    density = sum(
        w * np.exp(log_normal(X, m, c)) for w, m, c in zip(gm.weights_, gm.means_, gm.covariances_, strict=True)
    )
    np.testing.assert_allclose(gm.score_samples(X), np.log(density + gm.noise_weight_ / gm.noise_volume_), rtol=1e-10)
    rows, components = gm.sample(5000)
    assert rows.shape == (5000, 2)
    assert (components[:-1] != -1).sum() == (components != -1).sum()  # last
    drawn = rows[components == -1]
    assert abs(len(drawn) / 5000 - gm.noise_weight_) < 0.03
    assert ((drawn >= box[0]) & (drawn <= box[1])).all()
    n_parameters = 2 * (2 + 3) + 2
    assert gm.bic(X) == pytest.approx(-2 * gm.score_samples(X).sum() + n_parameters * np.log(3600))


def test_noise_keeps_components_narrow(rng):
    """Without noise a component stretches over the outliers."""
    X = np.concatenate([rng.normal(size=(950, 2)), rng.uniform(-30.0, 30.0, (50, 2))])
    plain, noisy = (GaussianMixture(1, noise=noise, random_state=0).fit(X) for noise in (False, True))
    assert plain.covariances_[0, 0, 0] > 5
    assert noisy.covariances_[0, 0, 0] == pytest.approx(1.0, abs=0.15)
    assert noisy.noise_weight_ == pytest.approx(0.05, abs=0.01)


def test_noise_where_there_is_none_costs_nothing(rng):
    X = simulate(rng, 500, 2, 2, separation=5.0)
    plain, noisy = (GaussianMixture(2, noise=noise, tol=1e-6, random_state=0).fit(X) for noise in (False, True))
    assert noisy.noise_weight_ < 0.02
    assert noisy.log_likelihood_ >= plain.log_likelihood_ - 1e-3


def test_noise_of_counts_is_uniform_on_whole_numbers(rng):
    X = np.concatenate([rng.poisson(3.0, (500, 2)), rng.integers(0, 60, (50, 2))]).astype(float)
    result = fastem.fit(Mixture(WithNoise(Poisson()), 1), X, random_state=0, tol=1e-8)
    assert result.params.weights[1] == pytest.approx(1 / 11, abs=0.01)
    sides = np.ptp(X, axis=0) + 1
    rows, components = result.model.sample(result.params, 2000, rng)
    assert (rows == np.round(rows)).all()
    noise = rows[components == 1]
    assert ((noise >= X.min(axis=0)) & (noise <= X.max(axis=0))).all()
    assert noise.max() > 50
    far = result.model.log_densities(result.params, np.array([[500.0, 500.0]]))
    assert far[0] == pytest.approx(np.log(result.params.weights[1] / np.prod(sides)), rel=1e-12)


@pytest.mark.parametrize("kind", ["full", "diag"])
def test_skipping_with_noise_and_labels_changes_nothing(kind, rng, monkeypatch):
    """Separated components, enough rows that pairs are skipped: the same steps as the dense pass."""
    from fastem.models import skipping as schedule

    centers = rng.normal(size=(12, 8)) * 12
    X = np.concatenate(
        [centers[rng.integers(12, size=40_000)] + rng.normal(size=(40_000, 8)), rng.uniform(-40, 40, (400, 8))]
    )
    labels = np.full(len(X), -1)
    labels[:300] = -1
    nearest = np.argmin(((X[:500, None] - centers) ** 2).sum(axis=2), axis=1)
    labels[:500] = nearest
    covariances = np.broadcast_to(np.eye(8) * 2, (12, 8, 8)).copy() if kind == "full" else np.full((12, 8), 2.0)
    family = Gaussian(kind)
    start = MixtureParams(
        np.full(13, 1 / 13), GaussianParams(centers + 0.3, covariances, family.precisions_cholesky(covariances))
    )
    model = Mixture(WithNoise(family), 12)
    skipping = fastem.fit(model, X, labels=labels, start=start, max_iter=12, tol=0)
    seen = []
    with monkeypatch.context() as patched:
        patched.setattr(schedule, "may_skip", lambda *_: seen.append(1) or False)
        dense = fastem.fit(model, X, labels=labels, start=start, max_iter=12, tol=0)
    assert len(seen) == 12
    np.testing.assert_allclose(skipping.history, dense.history, rtol=1e-12)
    for one, two in zip(leaves(skipping.params), leaves(dense.params), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-8, atol=1e-9)


def test_pairs_are_skipped_beside_noise(rng, monkeypatch):
    """The noise matters everywhere, but other pairs do not."""
    from fastem.kernels.sweep import block_rows
    from fastem.models.mixture import Mixture as Model

    centers = rng.normal(size=(16, 8)) * 20
    X = centers[rng.integers(16, size=30_000)] + rng.normal(size=(30_000, 8))
    pairs = []
    plain = Model._sweep

    def watched(self, *arguments):
        result = plain(self, *arguments)
        pairs.append(result[2])
        return result

    monkeypatch.setattr(Model, "_sweep", watched)
    start = np.argmin(((X[:, None] - centers) ** 2).sum(axis=2), axis=1)
    fastem.fit(Mixture(WithNoise(Gaussian()), 16, start=start), X, max_iter=12, tol=0)
    n_blocks = -(-len(X) // block_rows(*X.shape, 17, 45, 8))
    seen = [part / (17 * n_blocks) for part in pairs if part]
    assert min(seen) < 0.25


def test_bits_do_not_depend_on_threads(rng):
    X = np.concatenate([simulate(rng, 30_000, 3, 4), rng.uniform(-20, 20, (500, 3))])
    labels = np.where(rng.random(len(X)) < 0.1, rng.integers(0, 5, len(X)), -1)
    options = {"noise": True, "frozen": {"means": {1: [0.0, 1.0, 2.0]}}, "random_state": 0, "n_race": 2, "tol": 0.1}
    one, two = (GaussianMixture(4, n_threads=n, **options).fit(X, labels=labels) for n in (1, 2))
    assert one.lower_bounds_ == two.lower_bounds_
    assert np.array_equal(one.covariances_, two.covariances_)


# with missing values, and rows measured with noise


@pytest.mark.parametrize("kind", TYPES)
def test_labels_and_frozen_parameters_of_rows_with_gaps(kind, rng):
    """The same steps where no value is missing; where some are, the objective rises, and what is frozen stays."""
    start = start_of(rng, kind)
    labels = np.where(rng.random(len(start.X)) < 0.3, rng.integers(0, 3, len(start.X)), -1)
    covariances = True if kind == "tied" else [2]
    model = Mixture(Gaussian(kind), 3, frozen={"means": [1], "weights": [0], "covariances": covariances})
    options = {"sample_weight": start.weight, "labels": labels, "start": start.params, "max_iter": 6, "tol": 0}
    plain, completing = (fastem.fit(m, start.X, **options) for m in (model, model.completing()))
    assert type(completing.model).__name__ == "IncompleteMixture"
    np.testing.assert_allclose(completing.history, plain.history, rtol=1e-11)
    for one, two in zip(leaves(completing.params), leaves(plain.params), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-8, atol=1e-10)
    X = np.where(rng.random(start.X.shape) < 0.2, np.nan, start.X)
    gapped = fastem.fit(model, X, **options)
    assert np.diff(gapped.history).min() > 0
    assert np.array_equal(gapped.params.components.means[1], start.params.components.means[1])
    assert gapped.params.weights[0] == start.params.weights[0]
    # rows of one label alone, with one component: a normal with gaps
    only = fastem.fit(Mixture(Gaussian(kind), 1), X[labels == 2], max_iter=200, tol=1e-10)
    every = np.where(labels == 2, 2, rng.integers(0, 2, len(X)))
    apart = fastem.fit(Mixture(Gaussian(kind), 3), X, labels=every, random_state=0, max_iter=300, tol=1e-10)
    if kind != "tied":
        np.testing.assert_allclose(apart.params.components.means[2], only.params.components.means[0], rtol=1e-4)


def test_labels_of_rows_with_noise_of_known_covariance(rng):
    X = np.concatenate([rng.normal(size=(300, 2)), rng.normal(size=(300, 2)) * 0.5 + 3.0])
    noise = rng.uniform(0.1, 2.0, X.shape)
    measured = X + rng.normal(size=X.shape) * np.sqrt(noise)
    labels = np.full(600, -1)
    labels[:5], labels[300:305] = 1, 0
    gm = GaussianMixture(2, random_state=0, tol=1e-6, frozen={"weights": {0: 0.5}})
    gm.fit(measured, noise_covariance=noise, labels=labels)
    np.testing.assert_allclose(gm.means_[1], 0.0, atol=0.25)
    np.testing.assert_allclose(gm.means_[0], 3.0, atol=0.25)
    assert gm.weights_.tolist() == [0.5, 0.5]


def test_uniform_noise_needs_complete_rows_that_are_what_they_are(rng):
    X = rng.normal(size=(100, 2))
    gaps = X.copy()
    gaps[3, 1] = np.nan
    gm = GaussianMixture(1, noise=True).fit(X)
    for call in (
        gm.fit,
        gm.predict,
        lambda rows: GaussianMixture(1, noise=True).fit(X).partial_fit(np.tile(rows, (20, 1))),
    ):
        with pytest.raises(ValueError, match="a mixture with noise needs complete rows"):
            call(gaps)
    with pytest.raises(ValueError, match="do not go together"):
        gm.fit(X, noise_covariance=np.ones((100, 2)))


# estimators


def test_frozen_values_come_from_the_start_a_fit_or_given_parameters(rng):
    X = simulate(rng, 400, 2, 2, separation=4.0)
    means = X[:2]
    gm = GaussianMixture(2, means_init=means, frozen={"means": True}, random_state=0).fit(X)
    assert np.array_equal(gm.means_, means)
    again = clone(gm).set_params(frozen={"covariances": [1], "weights": True}, means_init=None, warm_start=True)
    again.__dict__.update(weights_=gm.weights_, means_=gm.means_, covariances_=gm.covariances_)
    again.__dict__.update(precisions_cholesky_=gm.precisions_cholesky_, noise_weight_=0.0, n_features_in_=2)
    again.fit(X)
    assert np.array_equal(again.covariances_[1], gm.covariances_[1])
    assert np.array_equal(again.weights_, gm.weights_)
    assert not np.array_equal(again.covariances_[0], gm.covariances_[0])
    assert not np.array_equal(again.means_, gm.means_)
    given = GaussianMixture.from_parameters(
        gm.weights_, gm.means_, gm.covariances_, frozen={"means": [0]}, warm_start=True
    ).fit(X)
    assert np.array_equal(given.means_[0], gm.means_[0])
    assert not np.array_equal(given.means_[1], gm.means_[1])


def test_given_values_win_over_those_of_a_start(rng):
    X = simulate(rng, 400, 2, 2, separation=4.0)
    first = GaussianMixture(2, random_state=0, warm_start=True).fit(X)
    first.frozen = {"means": {0: [1.0, 2.0]}, "weights": {1: 0.3}}
    first.fit(X)
    assert first.means_[0].tolist() == [1.0, 2.0]
    assert first.weights_[1] == 0.3
    assert first.weights_.sum() == pytest.approx(1.0, rel=1e-15)


@pytest.mark.parametrize("kind", TYPES)
def test_standard_errors_leave_frozen_parameters_out(kind, rng):
    """Those of the others are from the Hessian of the log-likelihood in what is free."""
    X = simulate(rng, 800, 2, 2, separation=2.0)
    frozen = {"means": {0: X[:400].mean(axis=0)}}
    options = {"covariance_type": kind, "reg_covar": 0.0, "tol": 1e-9, "max_iter": 5000, "random_state": 0}
    gm = GaussianMixture(2, frozen=frozen, **options).fit(X)
    found = gm.standard_errors(X)
    assert (found.standard_errors["means"][0] == 0).all()
    assert (found.standard_errors["means"][1] > 0).all()
    model = gm._fitted_model().prepare(as_data(X)).holding(gm._params())
    center = model.pack(gm._params())

    def log_likelihood(vector):
        return stats_of(model, model.unpack(vector), as_data(X)).log_likelihood

    n = int(model._free_weights.sum())  # the second mean comes behind the weights
    hessian = jacobian(lambda vector: gradient(log_likelihood, vector, 1e-4), center, 1e-4)
    keep = np.r_[0, n : len(center)]  # one of two weights, as their logarithms are up to a constant
    unit = np.zeros((len(keep), len(center)))
    unit[0, 0], unit[0, 1] = 0.5, -0.5
    unit[np.arange(1, len(keep)), keep[1:]] = 1
    covariance = np.linalg.inv(-unit @ hessian @ unit.T)
    want = np.sqrt(np.diagonal(covariance))[1:3] / model.bound.scale
    np.testing.assert_allclose(found.standard_errors["means"][1], want, rtol=1e-3)


def test_standard_errors_of_one_normal_with_a_known_mean(rng):
    x = rng.normal(size=(500, 1)) * 2.0
    gm = GaussianMixture(1, reg_covar=0, frozen={"means": {0: [0.0]}}).fit(x)
    variance = float(np.mean(x**2))
    assert gm.covariances_[0, 0, 0] == pytest.approx(variance, rel=1e-12)
    errors = gm.standard_errors(x).standard_errors
    assert errors["covariances"][0, 0, 0] == pytest.approx(variance * np.sqrt(2 / 500), rel=1e-4)
    assert errors["means"][0, 0] == 0


def test_standard_errors_of_labelled_and_noisy_rows(rng):
    X = np.concatenate([rng.normal(size=(600, 1)), rng.normal(size=(400, 1)) + 3.0, rng.uniform(-30, 30, (100, 1))])
    labels = np.full(1100, -1)
    labels[:50], labels[600:650] = 0, 1
    gm = GaussianMixture(2, noise=True, reg_covar=0, tol=1e-9, max_iter=5000, random_state=0).fit(X, labels=labels)
    exact = gm.standard_errors(X, labels=labels)
    drawn = gm.standard_errors(X, labels=labels, method="bootstrap", n_bootstrap=200, random_state=0)
    assert exact.standard_errors["weights"].shape == (3,)
    for name in ("weights", "means", "covariances"):
        np.testing.assert_allclose(exact.standard_errors[name], drawn.standard_errors[name], rtol=0.25)


def test_nothing_free_has_no_standard_errors_to_find(rng):
    X = rng.normal(size=(50, 1))
    known = {"means": {0: [0.0]}, "covariances": {0: [[1.0]]}, "weights": True}
    gm = GaussianMixture(1, weights_init=[1.0], frozen=known).fit(X)
    assert not any(error.any() for error in gm.standard_errors(X).standard_errors.values())
    assert gm.bic(X) == pytest.approx(-2 * gm.score_samples(X).sum())


@pytest.mark.parametrize("kind", TYPES)
def test_a_stream_keeps_what_is_known(kind, rng):
    centers = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    truth = rng.integers(0, 3, 9000)
    X = np.concatenate([centers[truth] + rng.normal(size=(9000, 2)), rng.uniform(-20, 20, (1000, 2))])
    labels = np.full(len(X), -1)
    marked = rng.random(9000) < 0.05
    labels[:9000][marked] = (truth[marked] + 1) % 3  # component k + 1 is at centre k
    order = rng.permutation(len(X))
    X, labels = X[order], labels[order]
    frozen = {"means": {1: centers[0]}}

    def learned(splits):
        gm = GaussianMixture(3, covariance_type=kind, noise=True, frozen=frozen, random_state=0)
        for i, j in itertools.pairwise([0, *splits, len(X)]):
            gm.partial_fit(X[i:j], labels=labels[i:j])
        return gm

    gm = learned([1500, 4000])
    assert np.array_equal(gm.means_[1], centers[0])
    np.testing.assert_allclose(gm.means_[[2, 0]], centers[1:], atol=0.2)
    assert gm.noise_weight_ == pytest.approx(0.1, abs=0.02)
    other = learned(range(100, 10_000, 700))
    assert np.array_equal(gm.means_, other.means_)
    assert np.array_equal(gm.covariances_, other.covariances_)
    assert gm.noise_weight_ == other.noise_weight_
    assert gm.predict([[300.0, -300.0]])[0] == -1


def test_a_stream_after_a_fit_keeps_its_noise_and_frozen_parameters(rng, tmp_path):
    X = np.concatenate([rng.normal(size=(2000, 2)), rng.uniform(-20, 20, (200, 2))])[rng.permutation(2200)]
    gm = GaussianMixture(1, noise=True, frozen={"means": {0: [0.0, 0.5]}, "weights": [False, False]}).fit(X)
    volume, box = gm.noise_volume_, gm.noise_box_
    for _ in range(2):
        gm.partial_fit(X, labels=np.full(2200, -1))
    assert (gm.noise_volume_, gm.means_.tolist()) == (volume, [[0.0, 0.5]])
    assert np.array_equal(gm.noise_box_, box)
    fastem.save(gm, tmp_path / "m.fastem")
    loaded = fastem.load(tmp_path / "m.fastem")
    assert loaded.frozen == gm.frozen
    for model in (gm, loaded):
        model.partial_fit(X[:1500], labels=np.where(np.abs(X[:1500]).max(axis=1) < 6, 0, -1))
    assert np.array_equal(gm.covariances_, loaded.covariances_)
    assert gm.noise_weight_ == loaded.noise_weight_
    assert np.array_equal(gm.predict_proba(X), loaded.predict_proba(X))
    assert gm.noise_weight_ == pytest.approx(0.09, abs=0.02)


def test_rows_on_disk_with_labels(rng, tmp_path):
    X = np.concatenate([simulate(rng, 5000, 2, 2, separation=5.0), rng.uniform(-20, 20, (200, 2))])
    labels = np.where(rng.random(5200) < 0.1, 0, -1)
    labels[:50] = 2
    np.save(tmp_path / "rows.npy", X)
    options = {"noise": True, "random_state": 0, "n_race": 3, "tol": 1e-6}
    for algorithm in ("batch", "minibatch", "incremental"):
        stored = GaussianMixture(2, algorithm=algorithm, n_epochs=2, **options)
        stored.fit(fastem.Blocks(tmp_path / "rows.npy", block_rows=700), labels=labels)
        parts = [Block(X[i : i + 700], np.empty((0, 1)), labels=labels[i : i + 700]) for i in range(0, 5200, 700)]
        gm = GaussianMixture(2, algorithm=algorithm, n_epochs=2, **options)
        gm._fit_data(Data(parts))
        if algorithm == "batch":
            assert stored.lower_bounds_ == gm.lower_bounds_
            assert np.array_equal(stored.means_, gm.means_)
        else:  # rows are cut or mixed otherwise
            np.testing.assert_allclose(stored.means_, gm.means_, atol=0.1 if algorithm == "minibatch" else 1e-4)


def test_y_stays_ignored_and_labels_pass_through_a_pipeline(rng):
    X = simulate(rng, 300, 2, 2, separation=5.0)
    y = rng.integers(0, 2, 300)
    labels = np.full(300, -1)
    plain = GaussianMixture(2, random_state=0).fit(X)
    assert np.array_equal(GaussianMixture(2, random_state=0).fit(X, y).means_, plain.means_)
    first = plain.predict(X[:1])[0]
    labels[0] = 1 - first
    pipe = make_pipeline(StandardScaler(), GaussianMixture(2, random_state=0))
    pipe.fit(X, gaussianmixture__labels=labels)
    assert pipe.predict(X[:1])[0] == 1 - first
    assert GaussianMixture(2, random_state=0).fit_predict(X, labels=labels)[0] == 1 - first


def test_labels_are_routed(rng):
    import sklearn
    from sklearn.pipeline import Pipeline

    X = simulate(rng, 200, 2, 2, separation=5.0)
    labels = np.full(200, -1)
    labels[0] = 1
    with sklearn.config_context(enable_metadata_routing=True):
        gm = GaussianMixture(2, random_state=0).set_fit_request(labels=True)
        pipe = Pipeline([("gm", gm)]).fit(X, labels=labels)
    assert pipe.predict(X[:1])[0] == 1


def test_from_parameters_with_noise():
    gm = GaussianMixture.from_parameters(
        [0.5, 0.3], [[0.0], [9.0]], [1.0, 1.0], covariance_type="spherical", noise=True, noise_volume=100.0
    )
    assert gm.noise_weight_ == pytest.approx(0.2)
    assert gm.predict([[0.0], [9.0], [50.0]]).tolist() == [0, 1, -1]
    with pytest.raises(ValueError, match="there was none; fit first"):
        gm.sample(100)
    with pytest.raises(ValueError, match="has no marginals"):
        gm.marginal([0])
    with pytest.raises(ValueError, match="noise_volume follows from rows"):
        GaussianMixture.from_parameters([0.5], [[0.0]], [1.0], covariance_type="spherical", noise=True)


def test_selection_counts_the_noise(rng):
    X = np.concatenate([simulate(rng, 500, 2, 2, separation=5.0), rng.uniform(-30, 30, (50, 2))])
    chosen = fastem.select(X, n_components=range(1, 4), covariance_type="full", noise=True, random_state=0)
    assert chosen.best.n_components == 2
    assert chosen.table[0].n_parameters == 2 * 5 + 2
    with pytest.raises(ValueError, match="frozen has the shape of one number"):
        fastem.select(X, frozen={"means": {0: [0.0, 0.0]}})
    with pytest.raises(ValueError, match="weight_cost drops components"):
        fastem.select(X, method="annihilation", noise=True, random_state=0)


# families of two fields, and the search behind them


@given(seed=st.integers(0, 10_000))
@settings(derandomize=True, deadline=None, max_examples=25)
def test_what_is_free_of_a_component_is_at_its_exact_maximum(seed):
    """Variances about means that stay, and means under variances that stay, have closed forms."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(200, 2)) * rng.uniform(0.1, 10, 2) + rng.normal(size=2) * 10
    labels = rng.integers(0, 2, 200)
    masks = rng.random((2, 2)) < 0.5
    frozen = {"means": masks[0], "variances": masks[1]}
    values = NormalParams(rng.normal(size=(2, 2)) * 10, rng.uniform(0.1, 10, (2, 2)))
    start = MixtureParams(np.array([0.5, 0.5]), values)
    result = fastem.fit(Mixture(Normal(), 2, frozen=frozen), X, labels=labels, start=start, max_iter=1)
    for k in range(2):
        rows = X[labels == k]
        mean = values.means[k] if masks[0, k] else rows.mean(axis=0)
        variance = values.variances[k] if masks[1, k] else ((rows - mean) ** 2).mean(axis=0)
        np.testing.assert_allclose(result.params.components.means[k], mean, rtol=1e-7, atol=1e-7)
        np.testing.assert_allclose(result.params.components.variances[k], variance, rtol=1e-7)


def test_what_is_frozen_of_a_gamma_distribution_leaves_the_rest_its_maximum(rng):
    """A scale under a shape has a closed form; a shape under a scale solves digamma(shape) = mean log(x / scale)."""
    X = rng.gamma(3.0, 2.0, size=(400, 1))
    for name, value in (("shapes", 2.0), ("scales", 0.7)):
        result = fastem.fit(Mixture(fastem.Gamma(), 1, frozen={name: {0: [value]}}), X, random_state=0)
        shapes, scales = (part[0, 0] for part in result.params.components)
        if name == "shapes":
            assert shapes == 2.0
            assert scales == pytest.approx(X.mean() / 2.0, rel=1e-8)
        else:
            assert scales == 0.7
            assert digamma(shapes) == pytest.approx(np.log(X / 0.7).mean(), rel=1e-8)


def test_held_parameters_of_a_component_that_collapses(rng):
    """Rows of one value have no variance to estimate, and need none where it is held."""
    X = np.concatenate([np.zeros(20), rng.normal(size=50) + 9.0])[:, None]
    labels = np.repeat([0, 1], [20, 50])
    with pytest.raises(DegenerateError, match="values that do not differ"):
        fastem.fit(Mixture(Normal(), 2), X, labels=labels, random_state=0)
    held = Mixture(Normal(), 2, frozen={"variances": {0: [0.25]}})
    result = fastem.fit(held, X, labels=labels, random_state=0)
    assert result.params.components.means[0, 0] == pytest.approx(0.0, abs=1e-9)
    assert result.params.components.variances[0, 0] == 0.25
    for frozen in ({"covariances": {0: [[0.25]]}}, {"covariances": {0: [[0.25]]}, "means": {0: [1.0]}}):
        gm = GaussianMixture(2, reg_covar=0, frozen=frozen, random_state=0).fit(X, labels=labels)
        assert gm.covariances_[0, 0, 0] == 0.25


def test_newtons_method_finds_many_maxima_at_once(rng):
    """Of functions that are far from quadratic, of any scale; coordinates that are not free stay."""
    unit = np.array([1.0, 1e6])
    far = np.array([50.0, np.inf])
    centers, widths = rng.normal(size=(50, 2)) * 5 * unit, unit * 10.0 ** rng.uniform([-2, -4], 1, (50, 2))

    def value(at):
        z = (at - centers) / widths
        return -(np.log1p(z**2) + 0.1 * z**4 + 0.2 * z[..., ::-1] * z).sum(axis=-1)

    start = centers + widths * rng.uniform(-5, 5, (50, 2))
    found = maximize_each(value, start, np.array([True, True]), far)
    np.testing.assert_allclose((found - centers) / widths, 0.0, atol=1e-4)
    found = maximize_each(value, start, np.array([True, False]), far)
    assert np.array_equal(found[:, 1], start[:, 1])
    assert (value(found) >= value(start)).all()
    first, second = ((found - centers) / widths).T
    np.testing.assert_allclose(2 * first / (1 + first**2) + 0.4 * first**3 + 0.4 * second, 0.0, atol=1e-4)


# refusals


@pytest.mark.parametrize(
    ("frozen", "words"),
    [
        ({"mean": True}, "frozen names 'mean'; what can be frozen here is weights, means, covariances"),
        ({"means": [2]}, r"names components \[2\]; they are numbered 0 to 1"),
        ({"means": [-1]}, "numbered 0 to 1"),
        ({"means": {0: [1.0]}}, r"frozen\['means'\]\[0\] has shape \(1,\); \(2,\) is needed"),
        ({"means": {0: [1.0, np.nan]}}, r"frozen\['means'\] holds NaN"),
        ({"covariances": {1: [[1.0, 2.0], [2.0, 1.0]]}}, "positive definite"),
        ({"weights": {0: 1.0}}, "sum to 1, which leaves nothing for the other 1"),
        ({"weights": {0: 0.3, 1: 0.3}}, "all weights are frozen, and sum to 0.6"),
        ({"weights": {0: -0.1}}, "must be a number that is not negative"),
        ({"means": [0]}, r"frozen\['means'\] names components without values"),
        ({"means": "all"}, "must be True, numbers of components"),
        ({"means": [0.5]}, "must be True, numbers of components"),
        ({"means": {0: ["a", "b"]}}, "objects that are not numbers"),
    ],
)
def test_what_cannot_be_frozen_is_refused(frozen, words, rng):
    X = rng.normal(size=(60, 2))
    gm = GaussianMixture(2, random_state=0).fit(X)
    before = gm.means_
    with pytest.raises((ValueError, TypeError), match=words):
        gm.set_params(frozen=frozen).fit(X)
    assert gm.means_ is before


def test_tied_covariances_are_frozen_as_a_whole(rng):
    X = rng.normal(size=(100, 2))
    with pytest.raises(ValueError, match="must be True for covariance_type='tied'"):
        GaussianMixture(2, covariance_type="tied", frozen={"covariances": [0]}).fit(X)
    with pytest.raises(ValueError, match="give the values as precisions_init"):
        GaussianMixture(2, covariance_type="tied", frozen={"covariances": {0: np.eye(2), 1: np.eye(2)}}).fit(X)
    known = np.array([[2.0, 0.5], [0.5, 1.0]])
    gm = GaussianMixture(2, covariance_type="tied", frozen={"covariances": True}, precisions_init=np.linalg.inv(known))
    np.testing.assert_allclose(gm.set_params(random_state=0).fit(X).covariances_, known, rtol=1e-12)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.zeros(59), "labels are for 59 rows; one per row of X is needed: 60"),
        (np.full(60, 2), r"labels\[0\] is 2; numbers of components from 0 to 1"),
        (np.full(60, -2), r"labels\[0\] is -2"),
        (np.full(60, 0.5), r"labels\[0\] is 0.5"),
        (np.full(60, np.nan), r"labels\[0\] is nan"),
        (np.array(["a", "b", "c"] * 20), "labels name 3 classes|labels name classes, which a fit numbers"),
        (["a", 1.5] * 30, r"labels\[1\] is 1.5 beside names of classes"),
        (np.zeros((60, 2)), r"labels\[0\] leaves no component"),
        (np.ones((60, 3)), "labels has 3 columns; one for each of the 2 components"),
        (np.full((60, 2), 2), "must hold 0 and 1"),
        (np.zeros((60, 2, 1)), "labels has shape"),
    ],
)
def test_labels_that_say_nothing_sound_are_refused(labels, words, rng):
    X = rng.normal(size=(60, 2))
    with pytest.raises(ValueError, match=words):
        GaussianMixture(2, random_state=0).fit(X, labels=labels)
    stream = GaussianMixture(2, random_state=0)
    with pytest.raises(ValueError, match=words):
        stream.partial_fit(X, labels=labels)
    assert "stream_" not in vars(stream)


@pytest.mark.parametrize("unknown", [-1, "-1", None, np.nan, pd.NA], ids=repr)
def test_names_of_classes_may_be_missing_in_any_way(unknown, rng):
    X = np.concatenate([rng.normal(size=(30, 2)), rng.normal(size=(30, 2)) + 9.0])
    names = np.array([unknown] * 60, object)
    names[5], names[35] = "right", "left"
    gm = GaussianMixture(2, random_state=0).fit(X, labels=names)
    assert gm.classes_[gm.predict(X)[[0, 59]]].tolist() == ["right", "left"]


def test_a_target_of_names_gives_labels_only_where_some_are_minus_one(rng):
    X = rng.normal(size=(60, 2))
    plain = GaussianMixture(2, random_state=0).fit(X)
    for unknown in (None, np.nan, pd.NA):
        y = np.array(["a", "b", unknown] * 20, object)
        ignored = GaussianMixture(2, random_state=0).fit(X, y)
        assert not hasattr(ignored, "classes_")
        assert ignored.log_likelihood_ == plain.log_likelihood_
    assert GaussianMixture(2, random_state=0).fit(X, np.array(["a", "b", "-1"] * 20)).classes_.tolist() == ["a", "b"]


def test_frozen_takes_no_bare_number(rng):
    with pytest.raises(TypeError, match=r"frozen\['means'\] must be True, numbers of components.*got 1"):
        GaussianMixture(2, frozen={"means": 1}).fit(rng.normal(size=(60, 2)))


def test_sets_and_numbers_of_labels_agree():
    can = np.array([[1, 0, 0], [0, 1, 1], [1, 1, 1], [1, 0, 1]])
    codes = as_labels(can, 3)
    assert codes[0] == 0
    assert codes[2] == -1
    assert np.array_equal(allowed(codes, 3), can.astype(bool))
    assert as_labels(np.full(5, -1), 3) is None
    many = np.ones((2, 70), int)
    many[0, 3] = 0
    with pytest.raises(ValueError, match="at most 62"):
        as_labels(many, 70)
    assert as_labels([69, -1], 70).tolist() == [69, -1]
    assert allowed([69, -1], 70).sum(axis=1).tolist() == [1, 70]


def test_noise_that_has_no_volume_is_refused(rng):
    X = np.column_stack([rng.normal(size=50), np.ones(50)])
    with pytest.raises(ValueError, match="column 1 of X is constant, so that the box"):
        GaussianMixture(1, noise=True).fit(X)
    with pytest.raises(ValueError, match="there is none; set noise=True"):
        GaussianMixture(1, noise_volume=3.0).fit(X)
    with pytest.raises(ValueError, match="must be None or a positive"):
        WithNoise(Gaussian(), 0.0)
    with pytest.raises(TypeError, match="a family without noise"):
        WithNoise(WithNoise(Gaussian()))
    with pytest.raises(ValueError, match="NaN at row 0, column 0"):
        fastem.fit(Mixture(WithNoise(Poisson()), 1), np.array([[np.nan], [1.0], [2.0]]))


def test_components_that_are_named_cannot_be_removed(rng):
    X = simulate(rng, 3000, 2, 2, separation=4.0)
    remove = fastem.Online(starved="remove")
    with pytest.raises(ValueError, match="no component can be removed"):
        GaussianMixture(3, online=remove, frozen={"means": {0: [0.0, 0.0]}}).partial_fit(X)
    with pytest.raises(ValueError, match="which starved='remove' changes"):
        GaussianMixture(3, online=remove).partial_fit(X, labels=np.zeros(3000, int))
    GaussianMixture(3, online=remove, frozen={"weights": True}, weights_init=[0.3, 0.3, 0.4]).partial_fit(X)


def test_labels_need_a_model_that_names_components():
    class Other:
        def e_step(self, params, block):
            raise AssertionError

    with pytest.raises(ValueError, match="labels are for models whose components"):
        fastem.fit(Other(), np.zeros((3, 1)), labels=[0, 0, 0])
    with pytest.raises(ValueError, match="give them there"):
        fastem.fit(Mixture(Gaussian()), as_data(np.zeros((3, 1))), labels=[0, 0, 0])


def test_a_label_of_a_component_that_cannot_be(rng):
    """Rows labelled with a component of weight 0 are impossible, and nothing non-finite is returned."""
    X = rng.normal(size=(60, 1))
    with pytest.raises(DegenerateError, match="no density under any component"):
        GaussianMixture(2, frozen={"weights": {1: 0.0}}, random_state=0).fit(X, labels=np.repeat([0, 1], 30))


def test_settings_of_a_stream_stay(rng):
    X = rng.normal(size=(1500, 1))
    gm = GaussianMixture(2, frozen={"means": {0: [0.0]}}, random_state=0).partial_fit(X)
    with pytest.raises(ValueError, match="frozen was"):
        gm.set_params(frozen={"means": {0: [1.0]}}).partial_fit(X)
    with pytest.raises(ValueError, match="noise was"):
        gm.set_params(frozen={"means": {0: [0.0]}}, noise=True).partial_fit(X)
    gm.set_params(noise=False).partial_fit(X)


def test_information_without_coordinates(rng):
    model = Mixture(Gaussian("spherical"), 1, frozen={"means": True, "covariances": True})
    X = rng.normal(size=(20, 1))
    first = fastem.fit(Mixture(Gaussian("spherical")), X)
    result = fastem.fit(model, X, start=first.params)
    found = information(result.model, result.params, as_data(X))
    assert not found.covariance.any()


# other estimators


def two_kinds(rng, n=400):
    """Rows of counts about 2, then about 9."""
    return rng.poisson(np.repeat([[2.0], [9.0]], n // 2, axis=0), (n, 2)).astype(float)


def test_families_freeze_by_the_names_of_their_attributes(rng, tmp_path):
    X = two_kinds(rng)
    pm = fastem.PoissonMixture(2, frozen={"rates": {1: [2.0, 2.5]}, "weights": {1: 0.4}}, random_state=0).fit(X)
    assert pm.rates_[1].tolist() == [2.0, 2.5]
    np.testing.assert_allclose(pm.weights_, [0.6, 0.4], rtol=1e-14)
    errors = pm.standard_errors(X).standard_errors
    assert (errors["rates"][1] == 0).all()
    assert (errors["rates"][0] > 0).all()
    assert pm.bic(X) == pytest.approx(-2 * pm.score_samples(X).sum() + 2 * np.log(len(X)))
    start = [[1.0, 1.0], [8.0, 8.0]]
    given = fastem.PoissonMixture(2, components_init=start, frozen={"rates": [0]}, random_state=0).fit(X)
    assert given.rates_[0].tolist() == [1.0, 1.0]
    assert given.rates_[1, 0] > 8.0
    known = given.rates_
    given.set_params(warm_start=True, frozen={"rates": True}).fit(X)
    assert np.array_equal(given.rates_, known)
    stream = fastem.PoissonMixture(2, frozen={"rates": {1: [2.0, 2.5]}}, random_state=0)
    for _ in range(6):
        stream.partial_fit(rng.permutation(X))
    assert stream.rates_[1].tolist() == [2.0, 2.5]
    fastem.save(stream, tmp_path / "m.fastem")
    loaded = fastem.load(tmp_path / "m.fastem")
    assert loaded.frozen == stream.frozen
    assert np.array_equal(loaded.partial_fit(X).rates_, stream.partial_fit(X).rates_)


def test_probabilities_of_a_class_are_frozen_column_by_column(rng):
    X = np.column_stack([rng.integers(0, 2, 300), rng.integers(0, 3, 300)]).astype(float)
    value = [[0.5, 0.5], [0.2, 0.3, 0.5]]
    lc = fastem.LatentClass(2, frozen={"probabilities": {0: value}}, random_state=0).fit(X)
    for part, want in zip(lc.probabilities_, value, strict=True):
        assert part[0].tolist() == want
    assert lc._n_parameters() == 1 + 1 + 2
    with pytest.raises(ValueError, match=r"frozen\['probabilities'\].*sum to 1"):
        fastem.LatentClass(2, frozen={"probabilities": {0: [[0.5, 0.5], [0.2, 0.3, 0.6]]}}).fit(X)


@pytest.mark.parametrize("kind", CONSTRAINED)
def test_shared_parts_of_covariances_are_frozen_as_a_whole(kind, rng):
    X = simulate(rng, 200, 2, 2, separation=2.0)
    for estimator in (GaussianMixture, fastem.StudentTMixture):
        gm = estimator(2, covariance_type=kind, random_state=0)
        with pytest.raises(ValueError, match=f"must be True for covariance_type='{kind}'"):
            gm.set_params(frozen={"covariances": [0]}).fit(X)
        assert not hasattr(gm, "means_")


@pytest.mark.parametrize("kind", ["EII", "VEI", "VVE", "VEV", "EEE", "VVV"])
def test_frozen_means_with_missing_values_and_priors_climb(kind, rng):
    X = np.where(rng.random((300, 2)) < 0.15, np.nan, simulate(rng, 300, 2, 2, separation=2.0))
    for options in ({}, {"covariance_prior": "auto"}):
        gm = GaussianMixture(
            2, covariance_type=kind, frozen={"means": {0: [0.5, -0.5]}}, reg_covar=0, tol=1e-6, **options
        )
        gm.set_params(max_iter=2000, n_race=0, acceleration=None, random_state=0).fit(X)
        assert gm.means_[0].tolist() == [0.5, -0.5]
        assert np.diff(gm.lower_bounds_).min() >= -1e-12
        assert len(gm.lower_bounds_) > 5


@pytest.mark.parametrize("concomitants", [None, "all"])
def test_labels_of_regressions(concomitants, rng):
    x = rng.uniform(0, 10, (300, 1))
    y = np.where(np.arange(300) < 150, x[:, 0], 10 - x[:, 0]) + 0.3 * rng.normal(size=300)
    labels = np.full(300, -1)
    labels[:12], labels[-12:] = 1, 0
    options = {"concomitants": concomitants, "random_state": 0, "tol": 1e-8, "max_iter": 500}
    rm = fastem.RegressionMixture(2, **options).fit(x, y, labels=labels)
    np.testing.assert_allclose(rm.coef_.ravel(), [-1.0, 1.0], atol=0.05)
    assert np.diff(rm.lower_bounds_).min() >= -1e-12
    errors = rm.standard_errors(x, y, labels=labels).standard_errors["coefficients"]
    assert (errors > 0).all()
    every = np.repeat([1, 0], 150)
    rm = fastem.RegressionMixture(2, **options).fit(x, y, labels=every)
    for k in range(2):  # each class by itself
        slope, intercept = np.polyfit(x[every == k, 0], y[every == k], 1)
        np.testing.assert_allclose([rm.coef_[k, 0], rm.intercept_[k]], [slope, intercept], rtol=1e-6)


def test_labels_of_factor_analysers(rng):
    X = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 6)) + 0.3 * rng.normal(size=(300, 6))
    X[150:] += 4.0
    labels = np.repeat([1, 0], 150)
    fm = fastem.FactorAnalyzerMixture(2, n_factors=2, random_state=0).fit(X, labels=labels)
    np.testing.assert_allclose(fm.means_, [X[150:].mean(axis=0), X[:150].mean(axis=0)], rtol=1e-9)
    some = np.where(rng.random(300) < 0.1, labels, -1)
    fm.fit(X, labels=some)
    np.testing.assert_allclose(fm.means_, [X[150:].mean(axis=0), X[:150].mean(axis=0)], atol=0.3)
    assert np.diff(fm.lower_bounds_).min() >= -1e-9


def test_a_target_with_unknown_entries_gives_labels(rng):
    X = np.concatenate([rng.normal(size=(100, 2)), rng.normal(size=(100, 2)) + 6.0])
    y = np.full(200, -1)
    y[:3], y[-3:] = 1, 0
    for Estimator in (GaussianMixture, fastem.StudentTMixture):
        by_target, by_labels = Estimator(2, random_state=0).fit(X, y), Estimator(2, random_state=0).fit(X, labels=y)
        assert by_target.lower_bounds_ == by_labels.lower_bounds_
        assert by_target.means_[1, 0] < 1 < 5 < by_target.means_[0, 0]
        assert np.array_equal(Estimator(2, random_state=0).fit_predict(X, y), by_target.predict(X))
    plain = GaussianMixture(2, random_state=0).fit(X)
    assert GaussianMixture(2, random_state=0).fit(X, np.full(200, -1)).lower_bounds_ == plain.lower_bounds_
    with pytest.raises(ValueError, match="y holds -1 and 1 alone"):
        GaussianMixture(2).fit(X, np.where(np.arange(200) < 5, 1, -1))
    with pytest.raises(ValueError, match="give one of them"):
        GaussianMixture(2).fit(X, y, labels=y)
    with pytest.raises(ValueError, match="labels are for 199 rows"):
        GaussianMixture(2).fit(X, y[1:])


def test_names_of_classes(rng, tmp_path):
    X = np.concatenate([rng.normal(size=(100, 2)), rng.normal(size=(100, 2)) + 6.0])
    names = ["small"] * 5 + [-1] * 190 + ["large"] * 5
    gm = GaussianMixture(2, random_state=0).fit(X, names)
    assert gm.classes_.tolist() == ["large", "small"]
    assert gm.means_[1, 0] < 1 < 5 < gm.means_[0, 0]
    codes = np.repeat([1, -1, 0], [5, 190, 5])
    assert gm.lower_bounds_ == GaussianMixture(2, random_state=0).fit(X, labels=codes).lower_bounds_
    for other in (np.array(names, dtype=object), np.array(names), [None if name == -1 else name for name in names]):
        assert GaussianMixture(2, random_state=0).fit(X, labels=other).lower_bounds_ == gm.lower_bounds_
    assert gm.standard_errors(X, labels=names).standard_errors["means"].shape == (2, 2)
    fastem.save(gm, tmp_path / "m.fastem")
    loaded = fastem.load(tmp_path / "m.fastem").partial_fit(X, names)
    assert loaded.classes_.tolist() == ["large", "small"]
    with pytest.raises(ValueError, match="the class 'huge', which the fit has not seen"):
        loaded.partial_fit(X, labels=["huge"] * 200)
    assert not hasattr(gm.fit(X, labels=codes), "classes_")


def test_models_that_know_no_components_refuse_labels(rng):
    X = rng.normal(size=(100, 2))
    labels = np.zeros(100, int)
    with pytest.raises(ValueError, match="labels are for models whose components they can name"):
        fastem.fit(fastem.HiddenMarkov(Gaussian(), 2), X, labels=labels)
    with pytest.raises(ValueError, match="labels are for mixtures, which MultivariateNormal is not"):
        fastem.MultivariateNormal().partial_fit(X, labels=labels)
    with pytest.raises(ValueError, match=r"noise and frozen parameters are for fastem\.Mixture"):
        fastem.HiddenMarkov(WithNoise(Gaussian()), 2)
    with pytest.raises(ValueError, match="frozen is for weights that are the same in all rows"):
        fastem.GatedRegressions(fastem.GatedRegression(), 2, frozen={"weights": {0: 0.5}})
    for family in (
        fastem.Categorical(),
        fastem.Regression(),
        fastem.FactorAnalyzer(),
        fastem.Mixed([(Poisson(), [0])]),
    ):
        with pytest.raises(TypeError, match="noise fills a box of values"):
            WithNoise(family)
    for family in (fastem.Mixed([(Poisson(), [0, 1])]), fastem.NormalBlock()):
        with pytest.raises(ValueError, match="what can be frozen here is weights"):
            Mixture(family, 2, frozen={"means": [0]})
