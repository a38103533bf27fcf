"""What is said of the states of sequences whose rows are scored: posteriors, the best path; and paths drawn."""

import numpy as np

from fastem.kernels._arrays import aligned_empty
from fastem.kernels._calls import address, call_at, take_number
from fastem.kernels._jit import from_python, kernel
from fastem.kernels.chain_plan import FLOOR, new_plan
from fastem.kernels.exp_log import exp, log
from fastem.kernels.forward_backward import backward, backward_log, forward, forward_log, is_safe, traced
from fastem.kernels.layout import clear
from fastem.kernels.sweep import run_lanes


@kernel
def _emissions(scores, n_states, logs, likely, best):
    """likely (n, Kp) = exp(scores - best) or, if logs, scores - best; best (n,) is the largest score of a row."""
    for t in range(scores.shape[0]):
        best[t] = -np.inf
        for k in range(n_states):
            best[t] = max(best[t], scores[t, k])
        if best[t] == -np.inf:
            best[t] = 0.0
        for k in range(n_states):
            value = scores[t, k] - best[t]
            likely[t, k] = value if logs else 0.0 if value == -np.inf else max(exp(value), FLOOR)


@kernel
def _longest(plan, first, last):
    """Rows of the longest stretch from first to last - 1."""
    offsets, _, stretches, _, _ = plan
    most = 0
    for i in range(first, last):
        most = max(most, offsets[stretches[i, 1]] - offsets[stretches[i, 0]])
    return most


@kernel
def _smooth_lane(chain, plan, scores, first, last, log_prob, states, posteriors):
    """log_prob of the sequences first..last-1 and, if there is room for them, posteriors of their states."""
    start, matrix, turned, log_start, log_matrix, _ = chain
    offsets, n_states, width = plan[0], chain[3].shape[0], chain[0].shape[0]
    capacity = _longest(plan, first, last)
    is_kept = posteriors.shape[0] > 0
    likely = aligned_empty(capacity + 1, width, scores)
    alpha = aligned_empty(capacity + 1, width, scores)
    gamma = aligned_empty(capacity if is_kept else 0, width, scores)
    begins, norm, best = np.zeros(capacity + 1, np.uint8), np.empty(capacity), np.empty(capacity)
    reach, lost = np.zeros((2, n_states), np.uint8), np.zeros((2, n_states))
    safe = is_safe(matrix, n_states)
    beta, weight, pairs = np.zeros(n_states), np.zeros(capacity), np.zeros((n_states, n_states))
    clear(likely)
    clear(alpha)
    begins[0] = 1
    for s in range(first, last):
        low, high = offsets[s], offsets[s + 1]
        n = high - low
        begins[n] = 1
        logs = impossible = n < 0  # a constant would be a type of its own
        _emissions(scores[low:high], n_states, logs, likely, best)
        forward(start, matrix, likely, begins, 0, n, alpha, norm)
        if traced(safe, start, matrix, likely, begins, 0, n, alpha, norm, reach, lost):
            logs = True
            _emissions(scores[low:high], n_states, logs, likely, best)
            impossible = forward_log(log_start, log_matrix, likely, begins, 0, n, alpha, norm)
        total = 0.0
        for t in range(n):
            total += best[t] + (norm[t] if logs else log(norm[t]))
        log_prob[s] = -np.inf if impossible else total
        if is_kept and not impossible:
            if logs:
                backward_log(log_matrix, likely, begins, 0, n, alpha, norm, weight, beta, gamma, pairs)
            else:
                backward(turned, likely, begins, 0, n, alpha, norm, gamma)
            for t in range(n):
                for k in range(n_states):
                    posteriors[low + t, k] = gamma[t, k]
        begins[n] = 0


@kernel
def _path_lane(chain, plan, scores, first, last, log_prob, states, posteriors):
    """Most probable path of each of the sequences first..last-1, and its log_prob together with the rows.

    Viterbi (1967), IEEE Trans. Inf. Theory 13, 260-269; of equal paths the one whose states come first.
    """
    log_start, log_matrix = chain[3], chain[4]
    offsets, n_states = plan[0], log_start.shape[0]
    come_from = np.empty((_longest(plan, first, last), n_states), np.uint16)
    before, now, origin = np.empty(n_states), np.empty(n_states), np.empty(n_states)
    for s in range(first, last):
        low, high = offsets[s], offsets[s + 1]
        for k in range(n_states):
            now[k] = log_start[k] + scores[low, k]
        for t in range(low + 1, high):
            before, now = now, before
            for k in range(n_states):
                now[k], origin[k] = before[0] + log_matrix[0, k], 0.0
            for j in range(1, n_states):
                for k in range(n_states):
                    value = before[j] + log_matrix[j, k]
                    origin[k] = np.float64(j) if value > now[k] else origin[k]
                    now[k] = max(now[k], value)
            for k in range(n_states):
                now[k] += scores[t, k]
                come_from[t - low, k] = np.uint16(origin[k])
        state = 0
        for k in range(1, n_states):
            if now[k] > now[state]:
                state = k
        log_prob[s] = now[state]
        for t in range(high - 1, low, -1):
            states[t] = state
            state = np.int64(come_from[t - low, state])
        states[low] = state


@kernel
def _take_chains(turns, lane_kernel, chain, plan, scores, log_prob, states, posteriors):
    lane = take_number(turns, 0)
    while lane < plan[3].shape[0] - 1:
        first, last = plan[3][lane], plan[3][lane + 1]
        call_at(lane_kernel, (chain, plan, scores, first, last, log_prob, states, posteriors))
        lane = take_number(turns, 0)


def _run(lane_kernel, chain, scores, offsets, n_threads, states, posteriors):
    """Log-probability (S,) of each sequence by a lane kernel, which fills the other arrays if they have rows."""
    n_sequences = len(offsets) - 1
    plan = new_plan(offsets, np.ones(n_sequences), 1, 1, 1)  # each sequence by itself
    log_prob = np.empty(n_sequences)
    arguments = (tuple(chain), tuple(plan), scores)
    assert all(a.flags.c_contiguous for a in (scores, offsets, *chain))
    lane = address(lane_kernel, (*arguments, 0, 0, log_prob, states, posteriors))
    work = len(scores) * chain.matrix.size
    arguments = (lane, *arguments, log_prob, states, posteriors)
    run_lanes(_take_chains, arguments, work, n_sequences, n_threads)
    return log_prob


def smooth(chain, scores, offsets, n_threads, wanted=True):
    """Log-likelihood (S,) of sequences of scored rows (N, K), and if wanted the posteriors (N, K), else (0, K).

    offsets (S + 1,) int64 are the first rows of the sequences, and N. Rows of -inf are impossible, and so are the
    posteriors of their sequence.
    """
    posteriors = np.zeros((len(scores) if wanted else 0, scores.shape[1]))
    return _run(_smooth_lane, chain, scores, offsets, n_threads, np.empty(0, np.int64), posteriors), posteriors


def best_paths(chain, scores, offsets, n_threads):
    """Log-probability (S,) of the most probable path of each sequence of scored rows (N, K), and its states (N,)."""
    states = np.empty(len(scores), np.int64)
    return _run(_path_lane, chain, scores, offsets, n_threads, states, np.empty((0, 0))), states


@from_python
@kernel
def walk(start, matrix, draws, state, states):
    """states (n,) = a path of the chain, from uniform draws (n,) and cumulated probabilities.

    It begins after a given state, or at the start if that is -1.
    """
    last = start.shape[0] - 1
    for t in range(draws.shape[0]):
        cumulated = start if state < 0 else matrix[state]
        state = 0
        while state < last and draws[t] * cumulated[last] >= cumulated[state]:
            state += 1
        states[t] = state
