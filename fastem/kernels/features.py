"""Blocks of rows as columns, and the sufficient statistics of each row: row 0 is the constant 1, then x, then squares.

A feature map is an integer code, switched outside the inner loops.
"""

from fastem.kernels._jit import kernel, rule, widest_vectors

LINEAR = 0  # 1, x
DIAGONAL = 1  # 1, x, x**2
SPHERICAL = 2  # 1, x, |x|**2
FULL = 3  # 1, x, x_i x_j for j <= i, row by row of the lower triangle


@rule
def n_statistics(feature_map, n_features):
    """Number of rows of the feature map."""
    if feature_map == LINEAR:
        return 1 + n_features
    if feature_map == DIAGONAL:
        return 1 + 2 * n_features
    if feature_map == SPHERICAL:
        return 2 + n_features
    return 1 + n_features + n_features * (n_features + 1) // 2


@kernel
def build_features(feature_map, columns, first, last, phi, in_place):
    """phi (last - first, B) = rows first..last-1 of the feature map of a block held as columns (D, B).

    in_place: phi is whole, and the columns are its rows 1..D.
    """
    widest_vectors()
    n_features, width = columns.shape
    i, j = 0, 0
    if feature_map == FULL and first > 1 + n_features:
        skipped = first - 1 - n_features
        while skipped > i:
            skipped -= i + 1
            i += 1
        j = skipped
    for p in range(first, last):  # no views in this loop: each would count references, in memory
        if p == 0:
            for b in range(width):
                phi[p - first, b] = 1.0
        elif p <= n_features:
            for b in range(0 if in_place else width):
                phi[p - first, b] = columns[p - 1, b]
        elif feature_map == FULL:
            for b in range(width):
                phi[p - first, b] = columns[i, b] * columns[j, b]
            j += 1
            if j > i:
                i, j = i + 1, 0
        elif feature_map == DIAGONAL:
            for b in range(width):
                phi[p - first, b] = columns[p - 1 - n_features, b] * columns[p - 1 - n_features, b]
        else:
            squared_norm(columns, phi[p - first])


@kernel
def squared_norm(columns, out):
    """out (B,) = squared Euclidean norm of each column of (D, B)."""
    widest_vectors()
    n_features, width = columns.shape
    for b in range(width):
        out[b] = 0.0
    for d in range(n_features):
        for b in range(width):
            out[b] += columns[d, b] * columns[d, b]
