"""The results as a table, as JSON and as a picture."""

import json
import os
from pathlib import Path

from benchmarks.peers import answers, harness


def write(folder, results: dict) -> list[Path]:
    """Write peers.md, peers.json and, if matplotlib is there, peers.png; each appears whole or not at all."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = [_replace(folder / "peers.json", json.dumps(results, indent=1) + "\n")]
    try:
        import matplotlib
    except ImportError:
        matplotlib = None
    if matplotlib is not None and results["workloads"]:
        written.append(_plot(folder / "peers.png", _bars, results["workloads"]))
    if matplotlib is not None and results["answers"]:
        written.append(_plot(folder / "peers_answers.png", _curves, results["answers"]))
    written.append(_replace(folder / "peers.md", markdown(results, picture=matplotlib is not None)))
    return written


def _replace(path, text):
    unfinished = path.with_name(path.name + f".{os.getpid()}")
    unfinished.write_text(text)
    unfinished.replace(path)
    return path


def markdown(results: dict, picture: bool = True) -> str:
    """Page of all results."""
    machine = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    versions = ", ".join(f"{harness.title(name)} {version}" for name, version in results["versions"].items())
    rates = ", ".join(f"{dtype} {rate:.0f}" for dtype, rate in results["gflops"].items())
    lines = [
        "# fastem beside its peers",
        "",
        f"Written by `fastem bench --output docs` on {results['date']}, after `make peers`.",
        "",
        f"Machine: {machine}. Versions: {versions}. np.dot on 2000 x 2000 matrices, GFLOP/s: {rates}.",
        "",
        f"Each peer is a process of its own and takes its turn in each of {results['rounds']} rounds, on the same data "
        "from the same start. An iteration is the time of a longer fit less that of a shorter, over their difference "
        f"in iterations (fastem: {harness.SHORT} and {harness.LONG}; slow peers fewer, their iterations all cost the "
        "same). The ratio is that of medians; the log-likelihood, a row's mean after 10 iterations (3 where a peer "
        "takes seconds for each), is evaluated by one program for all. `!` marks one that differs by more than the "
        "peer's arithmetic allows.",
        "",
    ]
    lines += [
        "`make peers` makes an environment for each package that needs its own; pomegranate, which brings torch, only "
        "by `make peers PEERS=pomegranate`. `--only TEXT` takes the workloads whose name holds a text: `HMM`, beside "
        "hmmlearn; `latent class`, beside StepMix; `missing`, rows of which a fifth of the values is, beside "
        "pomegranate and programs in NumPy; `full t`, Student's t distributions, beside one. More: "
        "benchmarks/peers/adapters/README.md.",
        "",
    ]
    if picture:
        lines += ["![ratios](peers.png)", ""]
    lines += [
        "| workload | peer | ms, median | ms, least | peer / fastem | target | log-likelihood |",
        "|---|---|---|---|---|---|---|",
    ]
    for workload in results["workloads"]:
        for name, peer in workload["peers"].items():
            target = workload["targets"].get(name)
            goal = "" if target is None else f"{target:g} {'met' if peer['ratio'] >= target else 'missed'}"
            reached = "" if peer["log_likelihood"] is None else f"{peer['log_likelihood']:.9f}"
            ratio = "" if name == "fastem" else f"{peer['ratio']:.1f}"
            times = f"{peer['median'] * 1e3:.3g} | {peer['fastest'] * 1e3:.3g}"
            reached += "" if peer["agrees"] else " !"
            lines.append(f"| {workload['name']} | {harness.title(name)} | {times} | {ratio} | {goal} | {reached} |")
    lines += ["", "## Against the machine, and fastem alone", "", "| what | measured | target |", "|---|---|---|"]
    for check in results["checks"]:
        goal = "" if check["met"] is None else f"{check['target']} {'met' if check['met'] else 'missed'}"
        lines.append(f"| {check['what']} | {check['value']} | {goal} |")
    if results["answers"]:
        lines += ["", *answers.text(results["answers"], harness.title)]
    if results["skipped"]:
        lines += ["", "Skipped: " + "; ".join(results["skipped"]) + "."]
    return "\n".join(lines) + "\n"


_PALETTE = ("orange", "blue", "green", "red", "purple", "brown", "pink", "cyan")
_COLORS = dict(zip(harness.PACKAGES, (f"tab:{color}" for color in _PALETTE), strict=True))
_COLORS |= {"fastem": "black", **dict.fromkeys(harness.IN_NUMPY, "tab:gray")}


def _plot(path, draw, results):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure = pyplot.figure()
    draw(figure, results)
    figure.tight_layout()
    unfinished = path.with_name(path.stem + f".{os.getpid()}.png")
    figure.savefig(unfinished, dpi=110)
    pyplot.close(figure)
    unfinished.replace(path)
    return path


def _curves(figure, results):
    figure.set_size_inches(4.5 * len(results), 4)
    answers.plot(figure, results, harness.title, _COLORS)


def _bars(figure, workloads):
    bars = [
        (f"{workload['name']}  {harness.title(name)}", name, peer["ratio"], workload["targets"].get(name))
        for workload in reversed(workloads)
        for name, peer in reversed(workload["peers"].items())
        if name != "fastem"
    ]
    figure.set_size_inches(9, 1 + 0.24 * len(bars))
    axes = figure.subplots()
    for place, (_, name, ratio, target) in enumerate(bars):
        axes.barh(place, ratio, color=_COLORS[name], height=0.75)
        axes.text(ratio * 1.05, place, f"{ratio:.3g}", va="center", fontsize=7)
        if target:
            axes.plot([target, target], [place - 0.45, place + 0.45], color="black", linewidth=2)
    axes.set_yticks(range(len(bars)), [bar[0] for bar in bars], fontsize=7)
    axes.set_xscale("log")
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.margins(x=0.12, y=0.01)
    axes.set_xlabel("time of a peer over fastem's, one iteration or call; black: target")
