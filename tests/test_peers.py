"""The comparison with other packages: that it runs and says what it should. It times; these tests do not."""

import importlib
import json
import pathlib
import pkgutil
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
if not (ROOT / "benchmarks" / "peers").is_dir():
    pytest.skip("the benchmarks are not in a wheel", allow_module_level=True)
sys.path.insert(0, str(ROOT))

from benchmarks.peers import answers, harness, report, workloads  # noqa: E402

CONSTANTS = ("TITLE", "INSTALL", "FITS", "DTYPES", "TOLERANCE")
TYPES = ("full", "tied", "diag", "spherical")
FITS = {
    *TYPES,
    "latent class",
    "normal missing",
    *(f"{name} {what}" for name in TYPES for what in ("missing", "t", "HMM")),
}


@pytest.mark.parametrize("name", harness.PEERS)
def test_adapters_have_what_the_harness_reads(name):
    title, install, fits, dtypes, tolerance = (harness.constant(name, constant) for constant in CONSTANTS)
    assert title
    assert install
    assert fits
    assert set(fits) <= FITS
    assert set(dtypes) <= {"float64", "float32"}
    assert 0 < tolerance < 1
    requirements = ROOT / "benchmarks" / "peers" / "requirements" / f"{name}.txt"
    assert requirements.exists() == ("make peers" in install)


def test_the_command_compares_and_writes(tmp_path):
    command = [sys.executable, "-m", "fastem", "bench", "--quick", "--rounds", "1", "--peers", "sklearn"]
    command += ["--only", "x 2, K=8", "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "peers.json").read_text())
    (workload,) = results["workloads"]
    assert set(workload["peers"]) == {"fastem", "sklearn"}
    ours, theirs = workload["peers"]["fastem"], workload["peers"]["sklearn"]
    assert ours["ratio"] == 1
    assert theirs["agrees"]
    assert theirs["log_likelihood"] == pytest.approx(ours["log_likelihood"], rel=1e-9)
    page = (tmp_path / "out" / "peers.md").read_text()
    assert "scikit-learn" in page
    assert f"{ours['log_likelihood']:.9f}" in page
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert [name for name in left if name != "peers.png"] == ["peers.json", "peers.md"]


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("n_features", [3, 4])  # as many as components, or more
def test_the_common_evaluation_is_scikit_learns(covariance_type, n_features, rng):
    from sklearn.mixture import GaussianMixture

    X = rng.normal(size=(200, n_features))
    fitted = GaussianMixture(3, covariance_type=covariance_type, random_state=0, max_iter=300).fit(X)
    parameters = fitted.weights_, fitted.means_, fitted.covariances_
    found = workloads.mean_log_likelihood(X, covariance_type, *parameters)
    assert found == pytest.approx(fitted.score(X), rel=1e-10)


def test_a_peer_that_is_not_installed_is_said_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "pomegranate", None)
    peer = harness.Peer("pomegranate")
    missing = peer.missing
    peer.close()
    if missing is None:
        pytest.skip("pomegranate is installed")
    lines = []
    small = workloads.Workload("full", 300, 2, 2)
    outcomes = harness.compare(small, ["pomegranate"], 1, say=lines.append)
    assert outcomes == {}
    assert len(lines) == 1
    assert "make peers PEERS=pomegranate" in lines[0]


def test_a_process_that_ends_is_an_error_and_not_a_wait():
    peer = harness.Peer("fastem")
    peer.process.kill()
    with pytest.raises(harness.PeerError, match="ended with status"):
        peer.seconds(1)
    peer.close()


def test_a_peer_that_fails_is_left_out():
    lines = []
    impossible = workloads.Workload("full", 300, 2, 2)
    runs = {"good": ("fastem", {}), "bad": ("fastem", {"n_threads": -7})}
    outcomes = harness.compare(impossible, ["fastem"], 1, runs, (1, 2), lines.append)
    assert set(outcomes) == {"good"}
    assert "n_threads" in lines[0]


def test_targets_are_marked_met_or_missed():
    peer = {"median": 1e-3, "fastest": 1e-3, "log_likelihood": -1.0, "version": "1", "agrees": True, "ratio": 1.0}
    entry = {"name": "w", "targets": {"sklearn": 5}, "peers": {"fastem": peer, "sklearn": {**peer, "ratio": 4.9}}}
    results = {
        "date": "", "machine": {}, "gflops": {}, "rounds": 1, "versions": {}, "workloads": [entry], "answers": [],
        "checks": [],
        "skipped": [],
    }  # fmt: skip
    assert "5 missed" in report.markdown(results)
    entry["peers"]["sklearn"]["ratio"] = 5.1
    assert "5 met" in report.markdown(results)


def test_starts_agree_with_scikit_learn_and_fit(rng):
    adapter = importlib.import_module("benchmarks.peers.adapters.sklearn")
    ours = importlib.import_module("benchmarks.peers.adapters.fastem")
    shared = [w for w in workloads.WORKLOADS if harness.supports("sklearn", w) and w.n_features <= 16]
    for workload in (w.smaller(4000) for w in shared if w.n_components <= 16):
        X, start = workloads.prepared(workload)
        if X.dtype == np.float32:
            continue
        one, two = (a.prepare(X, dict(start), workload.model)(3) for a in (adapter, ours))
        for a, b in zip(one, two, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)


PLAIN = [(name, w) for w in workloads.WORKLOADS for name in harness.IN_NUMPY if harness.supports(name, w)]


@pytest.mark.parametrize(("name", "workload"), PLAIN, ids=[f"{w.name}: {name}" for name, w in PLAIN])
def test_plain_programs_agree(name, workload):
    """From the same start the same parameters and the same log-likelihood, which has grown."""
    ours, theirs = (importlib.import_module(f"benchmarks.peers.adapters.{peer}") for peer in ("fastem", name))
    workload = workload.smaller(600 if name == "rowwise" else 4000)  # of fewer, components of heavy tails collapse
    X, start = workloads.prepared(workload)
    found = [adapter.prepare(X, dict(start), workload.model, **workload.options)(4) for adapter in (ours, theirs)]
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-9)
    before, one, two = (
        workloads.mean_log_likelihood(X, workload.model, *parameters, length=workload.length)
        for parameters in (start.values(), *found)
    )
    assert one == pytest.approx(two, rel=1e-9)
    assert one > before + 1e-3


PACKAGED = {
    "hmmlearn": [w for w in workloads.WORKLOADS if w.length],
    "stepmix": [w for w in workloads.WORKLOADS if w.model == "latent class"],
    "pomegranate": [w for w in workloads.WORKLOADS if w.fits == "diag missing"],
}


@pytest.mark.parametrize("name", PACKAGED)
def test_packages_beside_fastem_agree(name):
    """Where `make peers` has made their environments: the same log-likelihood, from rows, start and options sent."""
    for workload in PACKAGED[name]:
        lines = []
        outcomes = harness.compare(workload.smaller(2000), ["fastem", name], 1, n_iter=(1, 3), say=lines.append)
        if "not installed" in "".join(lines):
            assert harness.constant(name, "INSTALL") in lines[0]
            pytest.skip(lines[0])
        assert set(outcomes) == {"fastem", name}, lines
        ours, theirs = outcomes["fastem"].log_likelihood, outcomes[name].log_likelihood
        assert ours == pytest.approx(theirs, rel=harness.tolerance(name, workload))


def test_every_target_names_a_peer_that_fits_the_workload():
    for workload in workloads.WORKLOADS:
        assert harness.supports("fastem", workload)
        for name in workload.targets:
            assert harness.supports(name, workload), (name, workload.name)
    assert len({workload.name for workload in workloads.WORKLOADS}) == len(workloads.WORKLOADS)
    assert not harness.supports("sklearn", workloads.Workload("full", 400, 3, 3, missing=0.3))
    assert not harness.supports("rowwise", workloads.Workload("full", 400, 3, 3))


@pytest.mark.parametrize("workload", [w for w in workloads.WORKLOADS if w.length], ids=lambda workload: workload.name)
def test_the_common_evaluation_of_chains_is_the_estimators(workload):
    """The scaled recursion in NumPy, and sequences that a smaller workload cuts."""
    import fastem

    workload = workload.smaller(630)
    assert workload.n_samples == len(workload.options["lengths"]) * workload.length
    X, start = workloads.prepared(workload)
    covariance_type = workload.model.split()[0]
    model = fastem.GaussianHMM.from_parameters(*start.values(), covariance_type=covariance_type)
    found = workloads.mean_log_likelihood(X, workload.model, *start.values(), length=workload.length)
    assert found == pytest.approx(model.score(X, **workload.options) / len(X), rel=1e-10)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_the_common_evaluation_of_tails_is_the_estimators(covariance_type):
    import fastem

    workload = workloads.Workload(f"{covariance_type} t", 300, 3, 2)
    X, start = workloads.prepared(workload)
    model = fastem.StudentTMixture.from_parameters(*start.values(), covariance_type=covariance_type)
    found = workloads.mean_log_likelihood(X, workload.model, *start.values())
    assert found == pytest.approx(model.score(X), rel=1e-10)


def test_asv_can_import_all_that_it_finds():
    """asv imports every module of the package; adapters, whose peers may be missing, lie in a folder that is none."""
    import benchmarks

    found = [name for _, name, _ in pkgutil.walk_packages(benchmarks.__path__, "benchmarks.")]
    assert "benchmarks.bench_fit" in found
    assert not [name for name in found if "adapters" in name]
    for name in found:
        if not name.endswith("__main__"):
            importlib.import_module(name)


def test_expected_seconds_count_the_calls_that_fail():
    reached = answers.Curve([1.0, 2.0, 3.0], [-9.0, -5.0, -4.0], 3.0, -4.0)
    short = answers.Curve([1.0, 4.0], [-9.0, -8.0], 4.0, -8.0)
    assert answers.expected_seconds([reached], -5.0) == (2.0, 1)
    assert answers.expected_seconds([reached, short, reached], -5.0) == (4.0, 2)
    assert answers.expected_seconds([short, short], -5.0) == (8.0, 0)


def test_time_to_an_answer_of_two_peers(tmp_path, rng):
    centres = rng.normal(size=(3, 2)) * 6.0
    X = centres[rng.integers(3, size=3000)] + rng.normal(size=(3000, 2))
    answer = answers.Answer("three clusters", lambda: X, 3, 2, {"sklearn": 0.5})
    said = []
    result = answers.measure(answer, ["fastem", "sklearn"], said.append)
    assert list(result["peers"]) == ["fastem", "sklearn"], said
    for peer in result["peers"].values():
        assert peer["calls"] == 2
        for seconds, values in peer["curves"]:
            assert np.all(np.diff(seconds) >= 0)
            assert np.all(np.diff(values) >= -1e-9)
    assert result["peers"]["fastem"]["reached"] == 2
    assert result["common"] == pytest.approx(-3.3, abs=1.0)
    lines = answers.text([result], harness.title)
    assert sum("| three clusters |" in line for line in lines) == 2


def test_the_common_evaluation_of_missing_values_is_that_row_by_row():
    X, start = workloads.prepared(workloads.Workload("full", 400, 3, 3, missing=0.3))
    total = importlib.import_module("benchmarks.peers.adapters.rowwise").expectations(X, *start.values())[0]
    assert workloads.mean_log_likelihood(X, "full", *start.values()) == pytest.approx(total / len(X), rel=1e-10)
