"""From scores (K, B) of a block to responsibilities (B, K), times the weights of the rows, and the log-likelihood."""

import numpy as np

from fastem.kernels._jit import kernel
from fastem.kernels.exp_log import exp, log

SOFTMAX = 0  # posterior of a mixture
HARD = 1  # all weight to the best state: k-means
GIVEN = 2  # responsibilities come with the data


@kernel
def softmax(scores, n_states, best, total):
    """scores[:n_states] -> exp(scores - best), best (B,) = row maximum, total (B,) = sum. All -inf: total 0."""
    width = scores.shape[1]
    for b in range(width):
        best[b] = scores[0, b]
        total[b] = 0.0
    for k in range(1, n_states):
        for b in range(width):
            best[b] = max(best[b], scores[k, b])
    for b in range(width):
        best[b] = max(best[b], best.dtype.type(np.finfo(best.dtype).min))
    for k in range(n_states):
        for b in range(width):
            e = exp(scores[k, b] - best[b])
            scores[k, b] = e
            total[b] += e


@kernel
def log_normalizer(best, total, out):
    """out (B,) float64 = best + log(total), -inf where no state can have produced the row."""
    for b in range(out.shape[0]):
        value = best[b] + log(np.float64(total[b]))
        out[b] = value if total[b] > 0.0 else -np.inf


@kernel
def hard(scores, n_states, best, label):
    """best (B,) = row maximum, label (B,) = the first state that reaches it."""
    width = scores.shape[1]
    for b in range(width):
        best[b] = scores[0, b]
        label[b] = 0
    for k in range(1, n_states):
        for b in range(width):
            if scores[k, b] > best[b]:
                best[b] = scores[k, b]
                label[b] = k
