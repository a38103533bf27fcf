"""E-steps that EM and its accelerations take to the same optimum from the same start: `python -m benchmarks.passes`.

Where EM is slow: components to spare, components that overlap, tails that no component has. Counts are the same on any
machine, but for rounding.
"""

import warnings

import numpy as np

import fastem
from fastem import Gaussian, Mixture
from fastem.demo import old_faithful

METHODS = (None, "squarem", "anderson")
ENOUGH = 1e-6  # nats per row short of the optimum that all reach
_SAME = 1e-5  # nats per row: further apart are two optima
_MOST = 60_000


def two_clusters():
    """Rows (4000, 2) of two clusters, 3 standard deviations apart along each axis."""
    X = np.random.default_rng(0).normal(size=(4000, 2))
    X[:2000] += 3.0
    return X


def overlapping(n_components, n_features, spread, seed):
    """Rows (4000, n_features) of components of unit covariance, closer than they are wide."""
    rng = np.random.default_rng(seed)
    means = spread * rng.normal(size=(n_components, n_features))
    return means[rng.choice(n_components, 4000)] + rng.normal(size=(4000, n_features))


def heavy_tailed(n_features, seed):
    """Rows (4000, n_features) of Student's t with 5 degrees of freedom."""
    return np.random.default_rng(seed).standard_t(5, size=(4000, n_features))


# name, rows, numbers of components, structure, seeds of the start
PROBLEMS = [
    ("surplus: 2 clusters", two_clusters(), (3, 4), "full", range(4)),
    ("surplus: 2 clusters", two_clusters(), (3, 4), "diag", range(2)),
    ("surplus: 2 clusters", two_clusters(), (3,), "spherical", range(2)),
    ("surplus: 2 clusters", two_clusters(), (4,), "tied", range(4)),
    ("surplus: Old Faithful", old_faithful(), (3,), "full", range(2)),
    ("overlapping", overlapping(3, 2, 1.2, 1), (3,), "full", range(2)),
    ("overlapping", overlapping(4, 3, 1.2, 2), (4,), "full", range(4)),
    ("overlapping", overlapping(4, 3, 1.2, 2), (5,), "full", range(2)),
    ("overlapping", overlapping(5, 2, 1.5, 3), (5,), "tied", range(2)),
    ("heavy-tailed, 2 columns", heavy_tailed(2, 4), (3,), "full", range(4)),
    ("heavy-tailed, 3 columns", heavy_tailed(3, 5), (3, 4), "full", range(4)),
    ("apart", overlapping(3, 2, 20.0, 0), (3,), "full", range(2)),
    ("apart: Old Faithful", old_faithful(), (2,), "full", range(2)),
]


def climb(X, n_components, structure, seed, acceleration):
    """Objective per row after each E-step (n,), refused leaps included, up to where nothing is to gain."""
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fastem.fit(
            Mixture(Gaussian(structure), n_components),
            X,
            random_state=seed,
            max_iter=_MOST,
            tol=1e-10,
            stopping="aitken",
            acceleration=acceleration,
            callbacks=[lambda step: seen.append((step.n_iter, step.objective / len(X))) and None],
        )
    return np.array(seen)


def passes(X, n_components, structure, seed):
    """E-steps of each method until the objective is near the least of their ends; None if one is another optimum."""
    climbs = [climb(X, n_components, structure, seed, method) for method in METHODS]
    ends = [steps[-1, 1] for steps in climbs]
    if max(ends) - min(ends) > _SAME:
        return None
    return [int(steps[np.argmax(steps[:, 1] >= min(ends) - ENOUGH), 0]) for steps in climbs]


def main():
    """Print a table in Markdown."""
    print("| problem | starts | EM | SQUAREM | Anderson | EM / SQUAREM | EM / Anderson |\n" + "|---" * 7 + "|")
    ratios = []
    for name, X, numbers, structure, seeds in PROBLEMS:
        for k in numbers:
            found = [passes(X, k, structure, seed) for seed in seeds]
            table = np.array([counts for counts in found if counts is not None])
            if not name.startswith("apart"):
                ratios.append(table[:, :1] / table[:, 1:])
            columns = [", ".join(map(str, column)) for column in table.T]
            columns += [", ".join(f"{ratio:.1f}" for ratio in table[:, 0] / table[:, i]) for i in (1, 2)]
            elsewhere = f", {len(found) - len(table)} elsewhere" if len(table) < len(found) else ""
            print(f"| {name}, {structure} K = {k} | {len(table)}{elsewhere} |", " | ".join(columns), "|", flush=True)
    means = np.exp(np.log(np.concatenate(ratios)).mean(axis=0))
    print(f"\nGeometric means without those apart: SQUAREM {means[0]:.2f}, Anderson {means[1]:.2f}")


if __name__ == "__main__":
    main()
