"""The accurate path: y = W (x - mean) for one component, instead of quadratic features that cancel.

A whitener holds one component's mean in its last row and, above, a lower triangle W (D, D), or in one row the diagonal
of W, or in 2 D rows a W in double-double. Statistics of such a component are the features of y: sums about its own
current mean.
"""

from fastem.kernels._jit import kernel
from fastem.kernels.double_double import whiten_exactly
from fastem.kernels.products import product


@kernel
def whiten(columns, whitener, centred, y):
    """y (D, B) = W (columns - mean); `centred` (D, B) is scratch."""
    n_features, width = columns.shape
    mean = whitener[whitener.shape[0] - 1]
    if whitener.shape[0] == 2:
        for d in range(n_features):
            for b in range(width):
                y[d, b] = (columns[d, b] - mean[d]) * whitener[0, d]
        return
    if whitener.shape[0] == 2 * n_features + 1:
        whiten_exactly(columns, whitener, y)
        return
    for d in range(n_features):
        for b in range(width):
            centred[d, b] = columns[d, b] - mean[d]
            y[d, b] = 0.0
    product(whitener, 0, centred, n_features, width, n_features, y)
