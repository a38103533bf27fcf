"""Starts: every one uses the weights, also where rows are sampled."""

import numpy as np
import pytest

import fastem
from fastem import initialize
from fastem.data import as_data

STARTS = ("kmeans", "k-means++", "random_from_data")
UNIT = np.array([[0.0, 0.0], [1.0, 1.0]])


@pytest.mark.parametrize("method", STARTS)
def test_heavy_rows_are_found_among_many_light_ones(method, rng):
    X = rng.normal(size=(30_000, 2))
    heavy = np.array([5, 15_000, 29_999])
    X[heavy] = [[30.0, 0.0], [0.0, 30.0], [-30.0, -30.0]]
    weight = np.full(len(X), 1e-9)
    weight[heavy] = 1.0
    points = initialize.centers(method, as_data(X, weight), UNIT, 3, rng, 1)
    np.testing.assert_allclose(points[np.lexsort(points.T)], X[heavy][np.lexsort(X[heavy].T)], atol=0.01)


@pytest.mark.parametrize("method", STARTS)
def test_rare_distinct_rows_are_found(method, rng):
    X = np.zeros((20_000, 2))
    X[7_000], X[13_000] = 1.0, 2.0
    points = initialize.centers(method, as_data(X), UNIT, 3, rng, 1)
    np.testing.assert_allclose(np.sort(points[:, 0]), [0.0, 1.0, 2.0])


@pytest.mark.parametrize("method", STARTS)
def test_rows_of_weight_zero_are_no_centres(method, rng):
    X = rng.normal(size=(200, 2))
    X[::2] += 100.0
    weight = np.tile([0.0, 1.0], 100)
    points = initialize.centers(method, as_data(X, weight), UNIT, 5, rng, 1)
    assert (np.abs(points) < 10).all()


def test_k_means_reaches_a_local_minimum(rng):
    """No row is nearer to another centre, and each centre is the weighted mean of its rows."""
    X = np.concatenate([rng.normal(size=(300, 2)), rng.normal(size=(300, 2)) + 8])
    weight = rng.random(600)
    data = as_data(X, weight)
    points = initialize.centers("kmeans", data, UNIT, 2, rng, 1)
    labels = ((X[:, None] - points) ** 2).sum(axis=2).argmin(axis=1)
    means = [np.average(X[labels == k], axis=0, weights=weight[labels == k]) for k in range(2)]
    np.testing.assert_allclose(points, means, atol=1e-6)


def test_an_emptied_centre_moves_to_the_farthest_row(rng):
    X = np.concatenate([rng.normal(size=(50, 1)), [[40.0]]])
    data = as_data(X)
    sample = initialize.Sample(X, np.ones(51))
    frame = np.array([[0.0], [1.0]])
    points = initialize.lloyd(data, frame, np.array([[0.0], [-1000.0]]), sample, 1)
    np.testing.assert_allclose(np.sort(points[:, 0]), [X[:50].mean(), 40.0])


def test_labels_and_responsibilities_agree(rng):
    X = rng.normal(size=(300, 2))
    labels = rng.integers(3, size=300)
    options = {"max_iter": 3, "tol": 0}
    by_labels = fastem.fit(fastem.Mixture(fastem.Gaussian(), 3, start=labels), X, **options)
    by_resp = fastem.fit(fastem.Mixture(fastem.Gaussian(), 3, start=np.eye(3)[labels]), X, **options)
    assert np.array_equal(by_labels.history, by_resp.history)


def test_random_responsibilities_do_not_depend_on_chunks(rng, monkeypatch):
    X = rng.normal(size=(5000, 2))
    model = fastem.Mixture(fastem.Gaussian(), 2, start="random")
    whole = fastem.fit(model, X, random_state=0, max_iter=2, tol=0)
    monkeypatch.setattr(initialize, "_CHUNK", 1)  # so many rows as the floor allows
    parts = fastem.fit(model, X, random_state=0, max_iter=2, tol=0)
    np.testing.assert_allclose(parts.history, whole.history, rtol=1e-12)


@pytest.mark.parametrize("method", ["k-means||", "ward"])
def test_other_centres_find_clusters_apart(method, rng):
    centres = rng.normal(size=(9, 3)) * 30.0
    X = centres[rng.integers(9, size=5000)] + rng.normal(size=(5000, 3))
    found = fastem.GaussianMixture(9, init_params=method, n_race=0, random_state=1).fit(X)
    gap = np.linalg.norm(found.means_[:, None] - centres, axis=2)
    assert gap.min(axis=0).max() < 1.0
    weight = (X[:, 0] > np.median(X[:, 0])).astype(float)
    halved = fastem.GaussianMixture(2, init_params=method, n_race=0, random_state=1).fit(X, sample_weight=weight)
    assert halved.means_[:, 0].min() > np.median(X[:, 0]) - 5.0


@pytest.mark.parametrize("method", ["k-means||", "ward"])
def test_other_centres_of_few_distinct_rows(method):
    X = np.repeat(np.array([[0.0], [1.0], [5.0]]), 50, axis=0)
    frame = np.array([[0.0], [1.0]])
    found = initialize.centers(method, as_data(X), frame, 3, np.random.default_rng(0), 1)
    assert sorted(found[:, 0]) == [0.0, 1.0, 5.0]
