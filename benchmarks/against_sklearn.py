"""One EM iteration of fastem and of scikit-learn, side by side: `python -m benchmarks.against_sklearn`.

Same data, same start, fixed iterations, the two in turns. An iteration is (time of LONG iterations - time of SHORT) /
(LONG - SHORT), so that neither start nor final pass counts; the ratio is that of medians over the rounds. The
log-likelihoods that both reach are printed beside it, since a time without one says nothing.
"""

import argparse
import statistics
import time

from benchmarks import common, datasets

SHORT, LONG = 2, 6
WORKLOADS = [
    # n_samples, n_features, n_components, covariance_type, dtype
    (200_000, 8, 16, "full", "float64"),
    (200_000, 2, 8, "full", "float64"),
    (200_000, 16, 16, "full", "float64"),
    (100_000, 32, 32, "full", "float64"),
    (200_000, 8, 16, "tied", "float64"),
    (200_000, 8, 16, "diag", "float64"),
    (200_000, 8, 16, "spherical", "float64"),
    (200_000, 8, 16, "full", "float32"),
]


def seconds_an_iteration(estimator, X, start):
    """Seconds of one iteration, and the mean log-likelihood reached after LONG."""
    times = []
    for n_iter in (SHORT, LONG):
        begin = time.perf_counter()
        fitted = common.fit(X, start, n_iter, estimator)
        times.append(time.perf_counter() - begin)
    return (times[1] - times[0]) / (LONG - SHORT), fitted.lower_bound_


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds in turns (default: 5)")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the workloads to run, from 0")
    arguments = parser.parse_args(argv)

    from sklearn.mixture import GaussianMixture as Theirs

    from fastem import GaussianMixture as Ours

    print("| rows, columns, K | structure | dtype | scikit-learn ms | fastem ms | ratio | mean log-likelihoods |")
    print("|---|---|---|---|---|---|---|")
    for number in arguments.only or range(len(WORKLOADS)):
        n_samples, n_features, n_components, covariance_type, dtype = WORKLOADS[number]
        X = datasets.mixture(n_samples, n_features, n_components, dtype)
        start = common.start(X, n_components, covariance_type)
        seconds_an_iteration(Ours, X, start)  # compiles
        rounds = [
            (seconds_an_iteration(Theirs, X, start), seconds_an_iteration(Ours, X, start))
            for _ in range(arguments.rounds)
        ]
        theirs, ours = (statistics.median(pair[i][0] for pair in rounds) for i in (0, 1))
        reached = " ".join(f"{rounds[0][i][1]:.10f}" for i in (0, 1))
        print(
            f"| {n_samples}, {n_features}, {n_components} | {covariance_type} | {dtype} | {theirs * 1e3:.1f} "
            f"| {ours * 1e3:.2f} | {theirs / ours:.1f} | {reached} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
