"""The accurate path: y = W (x - mean) for one component, instead of quadratic features that cancel.

A whitener holds one component's mean in its last row and, above, a lower triangle W (D, D), or in one row the diagonal
of W. (Densities may take a W in double-double, see `whiten_exactly`.) Statistics of a thin component are the features
of y: sums about its own current mean.
"""

from fastem.kernels._jit import call_at, kernel
from fastem.kernels.products import ROWS


@kernel
def whiten(product, columns, whitener, centred, y):
    """y (D, B) = W (columns - mean); `centred` (D, B) is scratch, `product` the address of the kernel."""
    n_features, width = columns.shape
    mean = whitener[whitener.shape[0] - 1]
    if whitener.shape[0] == 2:
        for d in range(n_features):
            for b in range(width):
                y[d, b] = (columns[d, b] - mean[d]) * whitener[0, d]
        return
    for d in range(n_features):
        for b in range(width):
            centred[d, b] = columns[d, b] - mean[d]
            y[d, b] = 0.0
    for i in range(0, n_features, ROWS):  # of a triangle, only what is not zero
        n_rows = min(ROWS, n_features - i)
        call_at(product, (whitener[i:], 0, centred, n_rows, width, i + n_rows, y[i:]))
