"""The kernels of hidden Markov models against all paths written out, and against logarithms where numbers underflow."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastem.kernels import chain_plan, forward_backward
from fastem.kernels.chain_plan import new_chain, new_plan
from fastem.kernels.chain_sweep import chain_statistics
from fastem.kernels.chains import best_paths, smooth, walk
from fastem.kernels.features import FULL, LINEAR
from fastem.kernels.forward_backward import backward, forward, padded_states
from fastem.kernels.sweep import States, by_features

NO_WEIGHT = np.empty((0, 1))


def random_chain(rng, n_states, concentration=1.0):
    return rng.dirichlet(np.full(n_states, concentration)), rng.dirichlet(np.full(n_states, concentration), n_states)


def offsets_of(lengths):
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def unit_frame(n_features):
    return np.stack([np.zeros(n_features), np.ones(n_features)])


def all_paths(scores, startprob, transmat):
    """Log-likelihood, posteriors (T, K), transitions (K, K), best path and its log-probability: by enumeration."""
    n_rows, n_states = scores.shape
    likelihood, gamma, xi = 0.0, np.zeros((n_rows, n_states)), np.zeros((n_states, n_states))
    best, best_path = -1.0, None
    for path in itertools.product(range(n_states), repeat=n_rows):
        p = startprob[path[0]] * np.exp(scores[np.arange(n_rows), path].sum())
        p *= np.prod([transmat[i, j] for i, j in itertools.pairwise(path)])
        likelihood += p
        gamma[np.arange(n_rows), path] += p
        for i, j in itertools.pairwise(path):
            xi[i, j] += p
        if p > best:
            best, best_path = p, path
    return np.log(likelihood), gamma / likelihood, xi / likelihood, best_path, np.log(best)


def in_logs(scores, startprob, transmat):
    """Log-likelihood, posteriors and transitions of a sequence by logarithms in extended precision."""
    scores, (n_rows, n_states) = scores.astype(np.longdouble), scores.shape
    with np.errstate(divide="ignore", invalid="ignore"):
        start, matrix = np.log(startprob.astype(np.longdouble)), np.log(transmat.astype(np.longdouble))
        alpha, beta = np.empty((n_rows, n_states), np.longdouble), np.zeros((n_rows, n_states), np.longdouble)
        alpha[0] = start + scores[0]
        for t in range(1, n_rows):
            alpha[t] = np.logaddexp.reduce(alpha[t - 1][:, None] + matrix, axis=0) + scores[t]
        for t in range(n_rows - 2, -1, -1):
            beta[t] = np.logaddexp.reduce(matrix + scores[t + 1] + beta[t + 1], axis=1)
        total = np.logaddexp.reduce(alpha[-1])
        xi = np.zeros((n_states, n_states), np.longdouble)
        for t in range(1, n_rows):
            xi += np.exp(alpha[t - 1][:, None] + matrix + scores[t] + beta[t] - total)
        return float(total), np.exp(alpha + beta - total).astype(float), xi.astype(float)


# recursions


@pytest.mark.parametrize("n_states", [1, 2, 4, 5, 8, 9, 16, 20, 24, 31, 33, 70])
def test_recursions_of_every_width(n_states, rng):
    """Registers of every number of vectors, and loops beyond, in blocks that need not begin with a sequence."""
    startprob, transmat = random_chain(rng, n_states)
    chain = new_chain(startprob, transmat, np.arange(n_states))
    n_rows, width = 41, padded_states(n_states)
    likely = np.zeros((n_rows + 1, width))
    likely[:, :n_states] = rng.random((n_rows + 1, n_states))
    b = likely[:, :n_states].copy()
    begins = np.zeros(n_rows + 1, np.uint8)
    begins[[0, 1, 5, 6, 20, n_rows]] = 1
    alpha, norm, gamma = np.zeros((n_rows + 1, width)), np.empty(n_rows), np.zeros((n_rows, width))
    blocks = [(0, 10), (10, 23), (23, n_rows)]
    for first, last in blocks:
        forward(chain.start, chain.matrix, likely, begins, first, last, alpha, norm)
    for first, last in reversed(blocks):
        backward(chain.turned, likely, begins, first, last, alpha, norm, gamma[first:])

    want_alpha, want_norm, want_y = np.zeros((n_rows, n_states)), np.empty(n_rows), np.zeros((n_rows + 1, n_states))
    for t in range(n_rows):
        x = b[t] * (startprob if begins[t] else want_alpha[t - 1] @ transmat)
        want_norm[t], want_alpha[t] = x.sum(), x / x.sum()
    want_gamma = np.empty((n_rows, n_states))
    for t in range(n_rows - 1, -1, -1):
        beta = np.ones(n_states) if begins[t + 1] else transmat @ want_y[t + 1]
        want_gamma[t], want_y[t] = want_alpha[t] * beta, b[t] * beta / want_norm[t]
    np.testing.assert_allclose(alpha[1:, :n_states], want_alpha, rtol=1e-13)
    np.testing.assert_allclose(norm, want_norm, rtol=1e-13)
    np.testing.assert_allclose(gamma[:, :n_states], want_gamma, rtol=1e-12)
    np.testing.assert_allclose(likely[:n_rows, :n_states], want_y[:n_rows], rtol=1e-12)
    assert not alpha[:, n_states:].any()


@pytest.mark.parametrize("n_states", [3, 8, 20])
def test_vectors_agree_with_loops(n_states, rng):
    chain = new_chain(*random_chain(rng, n_states), np.arange(n_states))
    width = len(chain.start)
    likely = np.zeros((31, width))
    likely[:, :n_states] = rng.random((31, n_states))
    begins = np.zeros(31, np.uint8)
    begins[[0, 30]] = 1
    results = []
    for plain in (False, True):
        y, alpha, norm, gamma = likely.copy(), np.zeros((31, width)), np.empty(30), np.zeros((30, width))
        forward(chain.start, chain.matrix, y, begins, 0, 1 if plain else 30, alpha, norm)
        if plain:
            forward_backward._forward_plain(alpha, chain.matrix, y, norm, 1, 29, 0, 0)
            backward(chain.turned, y, begins, 29, 30, alpha, norm, gamma[29:])
            forward_backward._backward_plain(chain.turned, y, alpha, gamma, norm, 28, 28, 29, 0, 0)
        else:
            backward(chain.turned, y, begins, 0, 30, alpha, norm, gamma)
        results.append((y, alpha, norm, gamma))
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-12)


# the fused pass


def passed(theta, X, chain, lengths, *, weight=NO_WEIGHT, sequence_weight=None, n_threads=1, piece_rows=None):
    sequence_weight = np.ones(len(lengths)) if sequence_weight is None else np.asarray(sequence_weight, float)
    states = theta if isinstance(theta, States) else by_features(LINEAR, theta, X.shape[1])
    frame, offsets = unit_frame(X.shape[1]), offsets_of(lengths)
    return chain_statistics(X, weight, frame, states, chain, offsets, sequence_weight, n_threads, piece_rows)


def assert_pass_is(result, want, rtol=1e-11):
    for got, value in zip(result, want, strict=True):
        np.testing.assert_allclose(got, value, rtol=rtol, atol=rtol * max(1.0, np.max(np.abs(value))))


@settings(max_examples=40, deadline=None)
@given(
    n_states=st.integers(1, 3),
    n_mix=st.integers(1, 2),
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    seed=st.integers(0, 2**31),
)
def test_statistics_are_those_of_all_paths(n_states, n_mix, lengths, seed):
    rng = np.random.default_rng(seed)
    startprob, transmat = random_chain(rng, n_states)
    n_components, n_rows = n_states * n_mix, sum(lengths)
    owner = rng.permutation(np.arange(n_components) // n_mix)
    theta = np.ascontiguousarray(2.0 * rng.normal(size=(n_components, 3)))
    X = rng.normal(size=(n_rows, 2))
    sequence_weight = rng.integers(0, 3, len(lengths)).astype(float)
    sequence_weight[0] = 1.0
    missing = rng.random(n_rows) < 0.2
    weight = np.repeat(sequence_weight, lengths)[:, None] * ~missing[:, None]
    result = passed(
        theta, X, new_chain(startprob, transmat, owner), lengths, weight=weight, sequence_weight=sequence_weight
    )

    phi = np.column_stack([np.ones(n_rows), X])
    scores = phi @ theta.T
    states = np.stack([np.logaddexp.reduce(scores[:, owner == k], axis=1) for k in range(n_states)], axis=1)
    shares = np.where(missing[:, None], 0.0, np.exp(scores - states[:, owner]))
    states[missing] = 0.0
    sums, pairs, starts, log_likelihood = np.zeros((n_components, 3)), 0.0, 0.0, 0.0
    for a, b, w in zip(offsets_of(lengths)[:-1], offsets_of(lengths)[1:], sequence_weight, strict=True):
        value, gamma, xi, _, _ = all_paths(states[a:b], startprob, transmat)
        log_likelihood += w * value
        pairs, starts = pairs + w * xi, starts + w * gamma[0]
        sums += w * (gamma[:, owner] * shares[a:b]).T @ phi[a:b]
    assert result[4:] == (0, 0)
    assert_pass_is(result[:4], (sums, pairs, starts, log_likelihood))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n_thin", [0, 2])
def test_any_cut_and_any_threads_give_the_same(dtype, n_thin, rng):
    """Long sequences in pieces, short ones together; thin components, by owners in another order."""
    n_features, lengths = 3, [1, 2, 700, 5, 1300, 1, 1, 90]
    X = rng.normal(size=(sum(lengths), n_features)).astype(dtype)
    theta = (0.3 * rng.normal(size=(4, 10))).astype(dtype)
    theta[4 - n_thin :] = 0.0
    whitener = np.concatenate([np.tile(np.eye(3), (4, 1, 1)), rng.normal(size=(4, 1, 3))], axis=1).astype(dtype)
    states = States(FULL, theta, n_thin, whitener[4 - n_thin :], np.zeros(n_thin))
    if n_thin == 0:
        states = by_features(FULL, theta, n_features)
    startprob, transmat = random_chain(rng, 4)
    chain = new_chain(startprob, transmat, np.array([2, 0, 3, 1]))
    whole = passed(states, X, chain, lengths)
    assert whole[4:] == (0, 0)
    for options in ({"n_threads": 2}, {"piece_rows": 384}):
        for one, two in zip(whole, passed(states, X, chain, lengths, **options), strict=True):
            assert np.array_equal(one, two), options
    parts = [passed(states, X[a:b], chain, [b - a]) for a, b in itertools.pairwise(offsets_of(lengths))]
    total = [sum(part[i] for part in parts) for i in range(4)]
    assert_pass_is(whole[:4], total, 1e-11 if dtype == np.float64 else 1e-5)


def test_owners_permute_the_chain(rng):
    """Components in another order, with owners that say so, are the same model."""
    X, order = rng.normal(size=(60, 2)), np.array([3, 1, 0, 2])
    theta = np.ascontiguousarray(rng.normal(size=(4, 3)))
    startprob, transmat = random_chain(rng, 4)
    plain = passed(theta, X, new_chain(startprob, transmat, np.arange(4)), [50, 10])
    moved = passed(np.ascontiguousarray(theta[order]), X, new_chain(startprob, transmat, order), [50, 10])
    np.testing.assert_allclose(moved[0], plain[0][order], rtol=1e-12)
    assert_pass_is(moved[1:4], plain[1:4], 1e-12)


# underflow


def as_scores(scores):
    """theta and X of which the scores are these: the features are the scores themselves."""
    return np.ascontiguousarray(np.column_stack([np.zeros(scores.shape[1]), np.eye(scores.shape[1])])), scores


def left_to_right(n_states):
    transmat = 0.5 * (np.eye(n_states) + np.eye(n_states, k=1))
    transmat[-1, -1] = 1.0
    return np.eye(n_states)[0], transmat


def assert_scaled_or_not(scores, startprob, transmat, wants_logs):
    chain = new_chain(startprob, transmat, np.arange(len(startprob)))
    value, gamma, xi = in_logs(scores, startprob, transmat)
    sums, pairs, starts, log_likelihood, n_impossible, n_logs = passed(*as_scores(scores), chain, [len(scores)])
    assert (n_impossible, n_logs) == (0, int(wants_logs))
    np.testing.assert_allclose(log_likelihood, value, rtol=1e-13)
    np.testing.assert_allclose(sums[:, 0], gamma.sum(axis=0), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(pairs, xi, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(starts, gamma[0], rtol=1e-10, atol=1e-12)
    log_prob, posteriors = smooth(chain, scores, np.array([0, len(scores)]), 1)
    np.testing.assert_allclose(log_prob, value, rtol=1e-13)
    np.testing.assert_allclose(posteriors, gamma, rtol=1e-10, atol=1e-12)


def test_a_state_that_underflows_and_wins(rng):
    """No step fails, but the only good path is lost: 300 rows of 5 nats against the state that all others follow."""
    scores = np.zeros((700, 2))
    scores[:300, 1] = -5.0
    scores[300:, 0] = -10.0
    assert_scaled_or_not(scores, np.array([0.5, 0.5]), np.eye(2), wants_logs=True)


def test_the_only_path_is_beyond_all_numbers():
    startprob, transmat = left_to_right(3)
    scores = np.zeros((3, 3))
    scores[0, 0], scores[1, 1] = -2000.0, -2000.0
    assert_scaled_or_not(scores, startprob, transmat, wants_logs=True)


def test_left_to_right_chains_do_not_need_logarithms(rng):
    """A state that is left for good falls without end; what is lost of it is little beside what it has led to."""
    startprob, transmat = left_to_right(4)
    for repeats in (50, 750):
        path = np.repeat(np.arange(4), repeats)
        scores = rng.normal(size=(len(path), 4)) - 4.0 * (path[:, None] != np.arange(4))
        assert_scaled_or_not(scores, startprob, transmat, wants_logs=False)


def test_states_that_are_lost_and_wanted_again_need_logarithms(rng):
    """The chain cannot return, but the rows look as if it had: only paths that stayed behind can have produced them."""
    startprob, transmat = left_to_right(2)
    scores = rng.normal(size=(1200, 2))
    scores[:600, 0] -= 4.0
    scores[600:, 1] -= 8.0
    assert_scaled_or_not(scores, startprob, transmat, wants_logs=True)


def test_rows_far_from_every_state_do_not_need_logarithms(rng):
    """1e5 nats between states, and a chain that can always move."""
    scores = 1e5 * rng.normal(size=(500, 3))
    assert_scaled_or_not(scores, *random_chain(rng, 3), wants_logs=False)


def test_a_transition_that_em_has_all_but_given_up_costs_nothing(rng):
    startprob, transmat = random_chain(rng, 3)
    transmat[0, 2] = 1e-150
    transmat /= transmat.sum(axis=1, keepdims=True)
    assert_scaled_or_not(rng.normal(size=(4000, 3)), startprob, transmat, wants_logs=False)


@settings(max_examples=60, deadline=None)
@given(
    n_states=st.integers(2, 4),
    n_rows=st.integers(1, 400),
    size=st.sampled_from([1.0, 30.0, 1000.0]),
    density=st.floats(0.2, 1.0),
    seed=st.integers(0, 2**31),
)
def test_sparse_chains_and_any_scores(n_states, n_rows, size, density, seed):
    """Whichever way is taken, the answer is that of logarithms; in pieces too."""
    rng = np.random.default_rng(seed)
    startprob, transmat = random_chain(rng, n_states)
    startprob *= rng.random(n_states) < density
    transmat *= (rng.random((n_states, n_states)) < density) | np.eye(n_states, dtype=bool)
    startprob[0] += 0.1
    startprob, transmat = startprob / startprob.sum(), transmat / transmat.sum(axis=1, keepdims=True)
    scores = size * rng.normal(size=(n_rows, n_states)).cumsum(axis=0) / np.sqrt(n_rows)
    chain = new_chain(startprob, transmat, np.arange(n_states))
    value, gamma, xi = in_logs(scores, startprob, transmat)
    for piece_rows in (None, 48):
        sums, pairs, starts, log_likelihood, n_impossible, _ = passed(
            *as_scores(scores), chain, [n_rows], piece_rows=piece_rows and min(384, -(-n_rows // 48) * 48)
        )
        assert n_impossible == 0
        np.testing.assert_allclose(log_likelihood, value, rtol=1e-11, atol=1e-9)
        np.testing.assert_allclose(sums[:, 0], gamma.sum(axis=0), rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(pairs, xi, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(starts, gamma[0], rtol=1e-8, atol=1e-9)


def test_logarithms_in_pieces(monkeypatch, rng):
    """A sequence that is done in logarithms, in one piece and in several, beside one that is not."""
    scores = rng.normal(size=(3100, 4))
    scores[:900, 1] -= 5.0
    scores[900:3000, [0, 2, 3]] -= 10.0
    chain = new_chain(np.full(4, 0.25), 0.9 * np.eye(4)[[0, 1, 3, 2]] + 0.1 * np.eye(4), np.arange(4))
    whole = passed(*as_scores(scores), chain, [3000, 100])
    assert whole[4:] == (0, 1)
    for one, two in zip(whole, passed(*as_scores(scores), chain, [3000, 100], piece_rows=768), strict=True):
        assert np.array_equal(one, two)
    monkeypatch.setattr(chain_plan, "_PIECE_BYTES", 1)
    for one, two in zip(whole, passed(*as_scores(scores), chain, [3000, 100]), strict=True):
        assert np.array_equal(one, two)


def test_impossible_sequences_are_counted(rng):
    startprob, transmat = left_to_right(2)
    scores = rng.normal(size=(30, 2))
    chain = new_chain(startprob, transmat, np.arange(2))
    theta, X = as_scores(scores)
    theta[0, 1] = 0.0
    bad = X.copy()
    bad[5:8] = -np.inf
    log_prob, posteriors = smooth(chain, bad, np.array([0, 10, 30]), 1)
    assert log_prob[0] == -np.inf
    assert np.isfinite(log_prob[1])
    np.testing.assert_allclose(posteriors[10:].sum(axis=1), 1.0, rtol=1e-12)
    plan = new_plan(np.array([0, 10, 30]), np.array([1.0, 0.0]), 48, 8, 1)
    assert plan.stretches.tolist() == [[0, 1]]


# what is said of states


@settings(max_examples=30, deadline=None)
@given(
    n_states=st.integers(1, 3), lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3), seed=st.integers(0, 2**31)
)
def test_posteriors_and_best_paths_are_those_of_all_paths(n_states, lengths, seed):
    rng = np.random.default_rng(seed)
    startprob, transmat = random_chain(rng, n_states)
    scores = 3.0 * rng.normal(size=(sum(lengths), n_states))
    offsets = offsets_of(lengths)
    chain = new_chain(startprob, transmat, np.arange(n_states))
    log_prob, posteriors = smooth(chain, scores, offsets, 1)
    assert np.array_equal(smooth(chain, scores, offsets, 1, False)[0], log_prob)
    path_prob, states = best_paths(chain, scores, offsets, 1)
    for s, (a, b) in enumerate(itertools.pairwise(offsets)):
        value, gamma, _, best_path, best = all_paths(scores[a:b], startprob, transmat)
        assert log_prob[s] == pytest.approx(value, rel=1e-12, abs=1e-12)
        np.testing.assert_allclose(posteriors[a:b], gamma, rtol=1e-11, atol=1e-13)
        assert tuple(states[a:b]) == best_path
        assert path_prob[s] == pytest.approx(best, rel=1e-12, abs=1e-12)


def test_threads_change_no_bit_of_what_is_said_of_states(rng):
    lengths = rng.integers(1, 3000, 40)
    scores = rng.normal(size=(lengths.sum(), 5))
    chain = new_chain(*random_chain(rng, 5), np.arange(5))
    for what in (smooth, best_paths):
        one, two = (what(chain, scores, offsets_of(lengths), n_threads) for n_threads in (1, 2))
        assert all(map(np.array_equal, one, two))


def test_walks_have_the_frequencies_of_the_chain(rng):
    startprob, transmat = random_chain(rng, 3)
    transmat[1] = [0.0, 0.5, 0.5]
    states = np.empty(200_000, np.int64)
    walk(np.cumsum(startprob), np.cumsum(transmat, axis=1), rng.random(len(states)), -1, states)
    counts = np.zeros((3, 3))
    np.add.at(counts, (states[:-1], states[1:]), 1)
    assert counts[1, 0] == 0
    np.testing.assert_allclose(counts / counts.sum(axis=1, keepdims=True), transmat, atol=0.01)
    firsts = np.empty(20_000, np.int64)
    for i, draw in enumerate(rng.random(len(firsts))):
        walk(np.cumsum(startprob), np.cumsum(transmat, axis=1), np.array([draw]), -1, firsts[i : i + 1])
    np.testing.assert_allclose(np.bincount(firsts, minlength=3) / len(firsts), startprob, atol=0.02)
    walk(np.cumsum(startprob), np.cumsum(transmat, axis=1), np.array([0.1]), 1, firsts[:1])
    assert firsts[0] == 1  # after state 1, the first that it can go to
