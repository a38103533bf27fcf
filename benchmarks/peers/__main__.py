"""`python -m benchmarks.peers`, which is `fastem bench`."""

import argparse
import datetime
import statistics
import sys
import time
from pathlib import Path

from benchmarks.peers import alone, answers, harness, report, streams
from benchmarks.peers.workloads import WORKLOADS, Workload

_QUICK_ROWS, _QUICK_FEATURES = 10_000, 20
_METHODS = ("predict", "predict_proba", "score_samples")


def add_arguments(parser):
    """Options of the command."""
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds in turns (5)")
    peers = f"{', '.join(harness.PEERS[1:])}; default: all that are installed"
    parser.add_argument(
        "--peers", nargs="+", choices=harness.PEERS[1:], default=harness.PEERS[1:], metavar="PEER", help=peers
    )
    parser.add_argument("--only", metavar="TEXT", help="only workloads and checks whose name holds this")
    parser.add_argument("--quick", action="store_true", help="few rows: to see whether it works, not how fast it is")
    parser.add_argument(
        "--output", default="peers", metavar="FOLDER", help="where to write peers.md, .json, .png (peers)"
    )


def run(arguments) -> dict:
    """Measure, print and write; returns the results."""
    skipped: list[str] = []

    def say(line):
        print(line, file=sys.stderr, flush=True)
        if "is skipped" in line and line not in skipped:
            skipped.append(line)

    names = ("fastem", *[name for name in arguments.peers if _installed(name, say)])
    chosen = [w for w in WORKLOADS if arguments.only is None or arguments.only in w.name]
    results = {
        "date": datetime.date.today().isoformat(),
        "machine": alone.machine(),
        "gflops": {dtype: alone.gemm_gflops(dtype) for dtype in ("float64", "float32")},
        "rounds": arguments.rounds,
        "versions": {},
        "workloads": [],
        "checks": [],
        "answers": [],
        "skipped": skipped,
    }
    for workload in chosen:
        if arguments.quick and workload.n_features > _QUICK_FEATURES:
            continue
        if arguments.quick:
            workload = workload.smaller(_QUICK_ROWS)
        _one(workload, [n for n in names if harness.supports(n, workload)], arguments.rounds, results, say)
        report.write(arguments.output, results)  # what there is, should the rest be interrupted
    if not arguments.quick:
        _checks(arguments, results, say)
    for answer in answers.ANSWERS:
        if arguments.only is not None and arguments.only not in f"answer {answer.name}":
            continue
        if arguments.quick:
            answer = answer._replace(rows=lambda rows=answer.rows: rows()[:_QUICK_ROWS], seeds=1)
        results["answers"].append(answers.measure(answer, names, say))
        report.write(arguments.output, results)
    for path in report.write(arguments.output, results):
        print(path)
    return results


def _installed(name, say):
    peer = harness.Peer(name)
    if peer.missing:
        say(f"{harness.title(name)} is skipped, it is not installed: {harness.constant(name, 'INSTALL')}")
    peer.close()
    return not peer.missing


def _one(
    workload: Workload, names, rounds, results, say, options=None, title=None, n_iter=(harness.SHORT, harness.LONG)
):
    begin = time.perf_counter()
    outcomes = harness.compare(workload, names, rounds, options, n_iter, say)
    own = outcomes["fastem"]
    peers = {}
    for name, outcome in outcomes.items():
        results["versions"][name] = outcome.version
        gap = 0.0
        if outcome.log_likelihood is not None:
            gap = abs(outcome.log_likelihood / own.log_likelihood - 1)
        peers[name] = {
            **outcome._asdict(),
            "ratio": outcome.median / own.median,
            "agrees": gap <= harness.tolerance(name, workload),
        }
    entry = {"name": title or workload.name, "targets": dict(workload.targets), "peers": peers}
    results["workloads"].append(entry)
    said = ", ".join(f"{name} {p['median'] * 1e3:.3g} ms ({p['ratio']:.1f}x)" for name, p in peers.items())
    say(f"{entry['name']}: {said} [{time.perf_counter() - begin:.0f} s]")
    if workload.fits == "full" and workload.n_samples >= 10_000 and title is None:
        n, d, k = workload[1:4]
        rate = 4 * n * k * (1 + d + d * (d + 1) // 2) / own.median / 1e9
        share = rate / results["gflops"][workload.dtype]
        goal = workload.dgemm
        results["checks"].append(
            {
                "what": f"{workload.name}: useful GFLOP/s (4 N K P), share of np.dot's rate",
                "value": f"{rate:.0f}, {share:.0%}",
                "target": "" if goal is None else f"{goal:.0%}",
                "met": None if goal is None else share >= goal,
            }
        )


def _checks(arguments, results, say):
    """Calls of a fitted estimator, the small problem, and what is measured of fastem alone."""

    def wanted(name):
        return arguments.only is None or arguments.only in name

    def check(what, value, target, met):
        results["checks"].append({"what": what, "value": value, "target": target, "met": met})
        goal = "" if met is None else f" ({target}: {'met' if met else 'missed'})"
        say(f"{what}: {value}{goal}")

    shape = Workload("full", 200_000, 8, 16, targets={"sklearn": 15})
    names = [n for n in ("fastem", "sklearn") if n == "fastem" or n in arguments.peers]
    for method in _METHODS:
        if wanted(method):
            runs = {name: (name, {"method": method}) for name in names}
            _one(shape, names, arguments.rounds, results, say, runs, f"{method}, 200000 x 8, K=16", (1, 4))
    small = Workload("full", 150, 4, 3, targets={"sklearn": 20})
    if wanted("small fit"):
        _one(small, names, arguments.rounds, results, say, None, "20 iterations of a small fit, 150 x 4, K=3", (1, 21))
        for peer in results["workloads"][-1]["peers"].values():
            peer["median"], peer["fastest"] = 20 * peer["median"], 20 * peer["fastest"]
        title = "a small fit of 20 iterations, checks and all"
        _one(small, names, arguments.rounds, results, say, None, title, (0, 20))
        iteration = harness.compare(small, ["fastem"], arguments.rounds, None, (20, 220), say)["fastem"].median
        check("iteration of 150 x 4, K=3", f"{iteration * 1e6:.0f} us", "60 us", iteration <= 60e-6)
    if wanted("float32"):
        for n, d, k in ((200_000, 16, 16), (100_000, 32, 32)):
            times = {"float64": [], "float32": []}
            for _ in range(arguments.rounds):  # in turns, as all that is compared
                for dtype, found in times.items():
                    workload = Workload("full", n, d, k, dtype=dtype)
                    found.append(harness.compare(workload, ["fastem"], 1, None, say=say)["fastem"].median)
            double, single = map(statistics.median, times.values())
            ratio = double / single
            check(f"float32 over float64, full {n} x {d}, K={k}, iterations", f"{ratio:.2f}", "1.7", ratio >= 1.7)
            ratio = alone.dense_float32_rate(n, d, k)
            check("the same, E-steps that skip nothing", f"{ratio:.2f}", "1.7", ratio >= 1.7)
    for n, d, k in ((200_000, 8, 16), (200_000, 16, 16), (100_000, 32, 32)):
        if wanted("threads"):
            runs = {"fastem": ("fastem", {"n_threads": 2}), "one": ("fastem", {"n_threads": 1})}
            times = harness.compare(Workload("full", n, d, k), names, arguments.rounds, runs, say=say)
            ratio = times["one"].median / times["fastem"].median
            check(f"2 threads over 1, full {n} x {d}, K={k}", f"{ratio:.2f}", "1.85", ratio >= 1.85)
    if wanted("rows"):
        rows = {n: harness.compare(Workload("full", n, 8, 8), ["fastem"], arguments.rounds, None, say=say)
                for n in (100_000, 1_000_000, 10_000_000)}  # fmt: skip
        each = {n: found["fastem"].median / n / 8 * 1e9 for n, found in rows.items()}
        spread = max(each.values()) / min(each.values()) - 1
        said = ", ".join(f"{ns:.2f} ns at {n}" for n, ns in each.items())
        check("time a row and component, D=8 K=8", f"{said}: {spread:.0%}", "10%", spread <= 0.10)
    if wanted("memory") and Path("/proc/self/clear_refs").exists():
        memory = alone.memory_above_data(5_000_000, 16, 32)
        check("memory above the data, 5000000 x 16, K=32", f"{memory:.1f} MiB", "32 MiB", memory <= 32)
    if wanted("streams"):
        for found in streams.checks():
            check(*found.values())
    if wanted("import"):
        seconds = alone.import_seconds()
        check("import fastem above numpy", f"{seconds:.3f} s", "0.1 s", seconds <= 0.1)
        for n_samples in (1_000, 50_000):
            warm, cold = (alone.first_fit_seconds(n_samples, cold) for cold in (False, True))
            check(f"first fit of {n_samples} x 4, warm cache", f"{warm:.2f} s", "0.5 s", warm <= 0.5)
            check(f"first fit of {n_samples} x 4, cold cache", f"{cold:.1f} s", "10 s", cold <= 10)


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    add_arguments(_parser)
    run(_parser.parse_args())
