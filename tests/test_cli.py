"""The command line: every command end to end, on every kind of file, and one line for every mistake."""

import contextlib
import doctest
import io
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning

import fastem
from fastem import arguments, cli, tables
from fastem.acceleration import ACCELERATIONS
from fastem.cli import main
from fastem.climb import STOPPING
from fastem.families.covariance_structures import FORMS
from fastem.families.gaussian import COVARIANCE_TYPES
from fastem.initialize import STARTS
from fastem.tables import TableError, choose_columns, read_table, write_table

NAMES = ["length", "width", "count"]
SUFFIXES = [".csv", ".tsv", ".npy", ".npz", ".parquet"]
# Multiples of 1/8 are the same number in every format.
X = np.round(np.random.default_rng(5).standard_normal((90, 3)) * 8 + np.repeat([[0], [40], [80]], 30, axis=0)) / 8
FIT = ["--components", "3", "--seed", "0"]


@pytest.fixture
def run(capsys):
    """Run a command in this process: status, standard output, standard error."""

    def call(*argv):
        status = main([str(each) for each in argv])
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.fixture
def ok(run):
    """Run a command that must succeed in silence; its standard output."""

    def call(*argv):
        status, out, err = run(*argv)
        assert (status, err) == (0, "")
        return out

    return call


@pytest.fixture
def fails(run):
    """Run a command that must fail with one line on standard error and nothing else; the line."""

    def call(*argv):
        status, out, err = run(*argv)
        assert (status, out) == (1, "")
        assert err.startswith("fastem: error: ")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        return err

    return call


@pytest.fixture
def table(tmp_path):
    """Write X to a file with a suffix."""

    def make(suffix=".csv"):
        path = tmp_path / f"data{suffix}"
        write_table(str(path), dict(zip(NAMES, X.T, strict=True)))
        return path

    return make


@pytest.fixture
def model(tmp_path, table, ok):
    """A model file fitted on data.csv."""
    path = tmp_path / "m.fastem"
    ok("fit", table(), *FIT, "-o", path)
    return path


def parse(text):
    """One object of strict JSON on one line."""

    def refuse(token):
        raise AssertionError(f"{token} is not JSON")

    assert text.count("\n") == 1
    value = json.loads(text, parse_constant=refuse)
    assert isinstance(value, dict)
    return value


def nameless(path):
    """A model that takes arrays without a warning that its columns had names."""
    estimator = fastem.load(path)
    del estimator.feature_names_in_
    return estimator


def environment(buffered=True):
    """Variables of a process that finds this fastem, and whose standard output has a buffer or none."""
    root = str(Path(fastem.__file__).parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "" if buffered else "1"}


def process(*argv, **options):
    command = [sys.executable, "-m", "fastem", *map(str, argv)]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment(), **options)


# the whole way, in processes of their own


def test_a_whole_session(tmp_path, table):
    table(".csv")
    done = process("fit", "data.csv", *FIT, "-o", "m.fastem", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "converged" in done.stdout
    assert "\r" not in done.stdout
    assert re.search(r"fitted to 90 rows in \d+\.\d\d s, saved to m\.fastem", done.stdout)
    text = (tmp_path / "data.csv").read_text()
    done = process("predict", "m.fastem", "-", input=text, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    labels = [int(line) for line in done.stdout.splitlines()[1:]]
    assert labels == nameless(tmp_path / "m.fastem").predict(X).tolist()
    done = process("score", "m.fastem", "none.csv", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "fastem: error: none.csv: No such file or directory\n"
    assert process("fit", cwd=tmp_path).returncode == 2


def test_help_and_version_load_nothing():
    code = (
        "import sys, fastem.cli\n"
        "try: fastem.cli.main([sys.argv[1]])\n"
        "except SystemExit as done: assert not done.code\n"
        "heavy = {'numpy', 'numba', 'sklearn', 'scipy', 'pyarrow', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    for flag in ("--help", "--version"):
        command = [sys.executable, "-c", code, flag]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment())
        assert done.stdout.strip()
    assert done.stdout == f"fastem {fastem.__version__}\n"


@pytest.mark.parametrize("buffered", [True, False])
def test_a_reader_that_stops_reading(model, buffered):
    """More than a pipe holds, to a reader that takes a line."""
    command = [sys.executable, "-m", "fastem", "sample", str(model), "-n", "50000", "--seed", "1"]
    env = environment(buffered)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as child:
        assert child.stdout.readline() == b"length,width,count\n"
        child.stdout.close()
        assert child.stderr.read() == b""
        assert child.wait() == 0


@pytest.mark.parametrize("buffered", [True, False])
def test_a_reader_that_never_reads(model, buffered):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "fastem", "info", str(model)]
    done = subprocess.run(
        command, check=False, stdout=writing, stderr=subprocess.PIPE, text=True, env=environment(buffered)
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize(("n_rows", "buffered"), [(1, True), (50000, True), (1, False)])
def test_a_full_disk_behind_standard_output(model, n_rows, buffered):
    command = [sys.executable, "-m", "fastem", "sample", str(model), "-n", str(n_rows)]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command, check=False, stdout=full, stderr=subprocess.PIPE, text=True, env=environment(buffered)
        )
    assert (done.returncode, done.stderr) == (1, "fastem: error: No space left on device\n")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_control_c(tmp_path, table):
    """The signal itself, in the middle of a fit (a job in the background inherits it ignored)."""
    code = (
        "import os, signal, sys, time, fastem\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from fastem.cli import main\n"
        "def fit(*args, **options): os.kill(os.getpid(), signal.SIGINT); time.sleep(60)\n"
        "fastem.GaussianMixture.fit = fit\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "fit", str(table()), "-o", str(tmp_path / "m.fastem")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment())
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "fastem: interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["data.csv"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX file descriptors")
def test_closed_standard_output(model):
    done = process("info", model, preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (1, "fastem: error: standard output is closed; send it to a file\n")


def test_the_page_of_the_docs(tmp_path, run, monkeypatch):
    """Every console block of docs/cli.md prints what it says; `...` stands for anything."""
    page = (Path(__file__).parents[1] / "docs" / "cli.md").read_text()
    monkeypatch.chdir(tmp_path)
    iris = load_iris().data
    header = re.search(r"^sepal_length.*$", page, flags=re.M)[0]
    np.savetxt("iris.csv", iris, "%.1f", ",", header=header, comments="")
    assert "\n".join(Path("iris.csv").read_text().splitlines()[:3]) in page
    Path("bad.csv").write_text("x,y\n1,2\n3,?\n")
    checker = doctest.OutputChecker()
    commands = re.findall(r"^\$ fastem (.*)\n((?:(?!\$|```).*\n)*)", page, flags=re.M)
    assert len(commands) == 8
    for command, printed in commands:
        if "cut.fastem" in command:
            Path("cut.fastem").write_bytes(Path("iris.fastem").read_bytes()[:-99])
        status, out, err = run(*shlex.split(command))
        assert status == ("error" in printed)
        assert checker.check_output(printed, out + err, doctest.ELLIPSIS), f"{command}\n{out}{err}"


def test_the_docs_name_every_option():
    page = (Path(__file__).parents[1] / "docs" / "cli.md").read_text()
    for command in ("fit", "predict", "score", "sample", "info", "stream", "warmup"):
        assert f"`fastem {command}" in page
        for flag in set(re.findall(r"--[a-z][a-z-]+", _help(command))) - {"--help"}:
            assert re.search(rf"`{flag}[ `]", page), flag


# fit


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_fit_is_the_estimators_fit(tmp_path, table, ok, suffix):
    ok("fit", table(suffix), *FIT, "-o", tmp_path / "m.fastem")
    loaded = fastem.load(tmp_path / "m.fastem")
    direct = fastem.GaussianMixture(3, random_state=0).fit(X)
    assert loaded.get_params() == direct.get_params()
    for name in ("weights_", "means_", "covariances_", "lower_bounds_", "status_", "log_likelihood_"):
        assert np.array_equal(getattr(loaded, name), getattr(direct, name))
    if suffix == ".npy":
        assert not hasattr(loaded, "feature_names_in_")
    else:
        assert loaded.feature_names_in_.tolist() == NAMES


def test_fit_options_reach_the_estimator(table, ok):
    options = {
        "--components": ("n_components", 2),
        "--covariance-type": ("covariance_type", "diag"),
        "--tol": ("tol", 1e-5),
        "--reg-covar": ("reg_covar", 1e-4),
        "--max-iter": ("max_iter", 77),
        "--n-init": ("n_init", 2),
        "--init": ("init_params", "k-means++"),
        "--seed": ("random_state", 5),
        "--n-race": ("n_race", 3),
        "--stopping": ("stopping", "aitken"),
        "--split-merge": ("split_merge", True),
        "--acceleration": ("acceleration", "squarem"),
        "--max-time": ("max_time", 60.0),
        "--weight-concentration-prior": ("weight_concentration_prior", 2.0),
        "--mean-prior": ("mean_prior", [-1.0, 2.0, 3.5]),
        "--mean-precision-prior": ("mean_precision_prior", 0.5),
        "--degrees-of-freedom-prior": ("degrees_of_freedom_prior", 6.0),
        "--covariance-prior": ("covariance_prior", [1.0, 2.0, 3.0]),
        "--threads": ("n_threads", 1),
    }
    argv = [
        flag if value is True else f"{flag}={','.join(map(str, value)) if isinstance(value, list) else value}"
        for flag, (_, value) in options.items()
    ]
    result = parse(ok("fit", table(), *argv, "--json"))
    defaults = fastem.GaussianMixture().get_params()
    assert result["parameters"] == {**defaults, **dict(options.values())}
    parser_flags = set(re.findall(r"--[a-z-]+", _help("fit")))
    general = {"--help", "--columns", "--weight", "--header", "--no-header", "--array", "--output", "--json"}
    assert parser_flags - general == {*options, "--strict-convergence"}


def _help(command):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit):
        main([command, "--help"])
    return out.getvalue()


def test_fit_defaults_are_the_estimators(table, ok):
    assert parse(ok("fit", table(), "--json"))["parameters"] == fastem.GaussianMixture().get_params()


def test_choices_are_the_librarys():
    assert arguments.COVARIANCE_TYPES == COVARIANCE_TYPES
    assert set(cli._INITS) == set(STARTS)
    names = {"auto", *(name or "none" for name in ACCELERATIONS)}
    assert set(re.findall(r"--acceleration \{(.*?)\}", _help("fit"))[0].split(",")) == names
    assert set(re.findall(r"--stopping \{(.*?)\}", _help("fit"))[0].split(",")) == set(STOPPING)


@pytest.mark.parametrize(
    ("covariance_type", "prior", "shape"),
    [("full", "4,0,0,0,4,0,0,0,4", (3, 3)), ("tied", "4,0,0,0,4,0,0,0,4", (3, 3)), ("diag", "4,4,4", (3,))],
)
def test_covariance_priors(table, ok, fails, covariance_type, prior, shape):
    argv = ["fit", table(), "--covariance-type", covariance_type, *FIT]
    result = parse(ok(*argv, "--covariance-prior", prior, "--json"))
    direct = fastem.GaussianMixture(
        3,
        covariance_type=covariance_type,
        random_state=0,
        covariance_prior=4.0 * np.eye(3) if len(shape) == 2 else 4.0 * np.ones(3),
    ).fit(X)
    assert result["covariances"] == direct.covariances_.tolist()
    assert f"{np.prod(shape)} numbers for 3 columns" in fails(*argv, "--covariance-prior", "4,4")


def test_other_covariance_priors(table, ok):
    argv = ["fit", table(), *FIT, "--covariance-type", "spherical", "--json", "--covariance-prior"]
    assert parse(ok(*argv, "4"))["parameters"]["covariance_prior"] == 4.0
    assert parse(ok(*argv, "auto"))["parameters"]["covariance_prior"] == "auto"


def test_weights(tmp_path, table, ok, fails):
    weight = np.arange(90) % 4
    columns = {"length": X[:, 0], "w": weight, "width": X[:, 1]}
    for suffix in (".csv", ".parquet"):
        path = tmp_path / f"weighted{suffix}"
        write_table(str(path), columns)
        by_name = parse(ok("fit", path, *FIT, "--weight", "w", "--json"))
        by_number = parse(ok("fit", path, *FIT, "-w", "2", "-c", "length,width", "--json"))
        direct = fastem.GaussianMixture(3, random_state=0).fit(X[:, :2], sample_weight=weight)
        assert by_name["means"] == by_number["means"] == direct.means_.tolist()
        assert by_name["features"] == ["length", "width"]
    assert "--weight takes one column" in fails("fit", path, "-w", "1-2")
    assert "has no column 'v'; the columns are length, w, width" in fails("fit", path, "-w", "v")
    assert "weights must be finite and not negative" in fails("fit", path, "-w", "length")


def test_float32_stays_float32(tmp_path, ok):
    np.save(tmp_path / "a.npy", X.astype(np.float32))
    result = parse(ok("fit", tmp_path / "a.npy", *FIT, "--json"))
    direct = fastem.GaussianMixture(3, random_state=0).fit(X.astype(np.float32))
    assert result["log_likelihood"] == direct.log_likelihood_


def test_threads_do_not_change_the_bits(table, ok):
    results = [parse(ok("fit", table(), *FIT, "--json", "--threads", n)) for n in (1, 2)]
    assert results[0]["means"] == results[1]["means"]


def test_no_convergence_is_said(tmp_path, table, run):
    argv = ["fit", table(), *FIT, "--max-iter", "2", "--tol", "0", "-o", tmp_path / "m.fastem"]
    warning = (
        "fastem: warning: not converged after 2 iterations; raise --max-iter or --tol, "
        "or take more starts with --n-init\n"
    )
    status, out, err = run(*argv)
    assert (status, err) == (0, warning)
    assert "max_iter was reached" in out
    (tmp_path / "m.fastem").unlink()
    status, out, err = run(*argv, "--strict-convergence", "--json")
    assert (status, err) == (3, warning)
    assert parse(out)["converged"] is False
    assert fastem.load(tmp_path / "m.fastem").n_iter_ == 2  # the model is kept all the same


def test_strict_convergence_of_a_fit_that_converged(table, ok):
    ok("fit", table(), *FIT, "--strict-convergence")


def test_fit_without_a_file_says_so(table, ok):
    assert "not saved, see -o" in ok("fit", table(), *FIT)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_identifiers_with_underscores_are_no_numbers(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("1,2\n12_34,5\n3,4\n")
    assert main(["fit", str(tmp_path / "t.csv"), *FIT]) == 1
    assert "'12_34' is not a finite number" in capsys.readouterr().err


def test_progress_by_tqdm(table, monkeypatch):
    pytest.importorskip("tqdm")
    terminal = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        assert main(["fit", str(table()), *FIT, "--n-init", "2"]) == 0
    assert "iteration" in terminal.getvalue()
    assert terminal.getvalue().rstrip(" ").endswith("\r")  # the line is wiped


def test_progress_on_a_terminal_only(table, run, ok, monkeypatch):
    terminal = Terminal()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tqdm", None)  # as if it were not installed
        patch.setattr(sys, "stderr", terminal)
        assert main(["fit", str(table()), *FIT, "--n-init", "2"]) == 0
    text = terminal.getvalue()
    assert text.startswith("\rstart 1/2, iteration 1, objective -")
    assert "\n" not in text
    last = text.split("\r")
    assert last[-1] == ""
    assert set(last[-2]) == {" "}  # the line is wiped
    assert len(last[-2]) >= len(last[-3].rstrip())
    assert ok("fit", table(), *FIT)  # nothing on a pipe


def test_duplicate_names_are_not_kept(tmp_path, ok):
    lines = ["a,a,b", *(",".join(map(str, row)) for row in X.tolist())]
    (tmp_path / "d.csv").write_text("\n".join(lines))
    ok("fit", tmp_path / "d.csv", *FIT, "-o", tmp_path / "m.fastem")
    assert parse(ok("info", tmp_path / "m.fastem", "--json"))["features"] == ["x1", "x2", "x3"]


# predict, score, sample, info, warmup


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_predict_writes_tables(tmp_path, table, model, ok, suffix):
    estimator = nameless(model)
    out = tmp_path / f"out{suffix}"
    assert ok("predict", model, table(suffix), "-o", out) == ""
    assert read_table(str(out)).X[:, 0].tolist() == estimator.predict(X).tolist()
    result = parse(ok("predict", model, table(suffix), "--proba", "-o", out, "--json"))
    columns = ["component_0", "component_1", "component_2"]
    assert result == {"output": str(out), "n_rows": 90, "columns": columns}
    written = read_table(str(out))
    assert np.array_equal(written.X, estimator.predict_proba(X))
    assert written.names == (None if suffix == ".npy" else columns)


def test_predict_prints(table, model, ok):
    estimator = nameless(model)
    labels = estimator.predict(X).tolist()
    assert ok("predict", model, table()).split("\n") == ["component", *map(str, labels), ""]
    assert parse(ok("predict", model, table(), "--json")) == {"labels": labels}
    resp = estimator.predict_proba(X)
    assert np.array_equal(parse(ok("predict", model, table(), "--json", "--proba"))["responsibilities"], resp)
    lines = ok("predict", model, table(), "--proba", "-o", "-").splitlines()
    assert np.array_equal([[float(cell) for cell in line.split(",")] for line in lines[1:]], resp)


def test_columns_come_by_the_names_of_the_model(tmp_path, table, ok, fails):
    ok("fit", table(), *FIT, "-c", "count,length", "-o", tmp_path / "m.fastem")
    expected = fastem.GaussianMixture(3, random_state=0).fit(X[:, [2, 0]]).predict(X[:, [2, 0]]).tolist()
    shuffled = {"label": np.zeros(90), "length": X[:, 0], "other": X[:, 1], "count": X[:, 2]}
    for suffix in (".csv", ".tsv", ".npz", ".parquet"):
        write_table(str(tmp_path / f"shuffled{suffix}"), shuffled)
        assert (
            parse(ok("predict", tmp_path / "m.fastem", tmp_path / f"shuffled{suffix}", "--json"))["labels"] == expected
        )
    np.save(tmp_path / "a.npy", X)
    assert parse(ok("predict", tmp_path / "m.fastem", tmp_path / "a.npy", "-c", "3,1", "--json"))["labels"] == expected
    message = fails("predict", tmp_path / "m.fastem", tmp_path / "a.npy")
    assert "gives 3 columns, but" in message
    assert "takes 2 (count, length); choose --columns" in message
    write_table(str(tmp_path / "wrong.csv"), {"length": X[:, 0], "width": X[:, 1]})
    message = fails("predict", tmp_path / "m.fastem", tmp_path / "wrong.csv")
    assert "has no column 'count', which the model takes" in message


def test_score(table, model, ok, fails):
    estimator = nameless(model)
    result = parse(ok("score", model, table(), "--json"))
    assert result == {
        "n_samples": 90,
        "log_likelihood": pytest.approx(estimator.score_samples(X).sum(), rel=1e-12),
        "mean_log_likelihood": estimator.score(X),
        "bic": estimator.bic(X),
        "aic": estimator.aic(X),
    }
    text = dict(line.split() for line in ok("score", model, table()).splitlines())
    assert list(text) == list(result)
    assert float(text["bic"]) == pytest.approx(result["bic"], rel=1e-9)
    rows = ok("score", model, table(), "--samples").splitlines()
    assert rows[0] == "log_density"
    assert [float(row) for row in rows[1:]] == estimator.score_samples(X).tolist()
    assert parse(ok("score", model, table(), "--samples", "--json"))["log_densities"] == [float(r) for r in rows[1:]]
    assert "add --samples" in fails("score", model, table(), "-o", "s.csv")


def test_score_with_one_thread(table, model, ok):
    assert ok("score", model, table(), "--threads", "1") == ok("score", model, table(), "--threads", "2")


def test_sample(tmp_path, model, ok):
    rows, labels = fastem.load(model).set_params(random_state=4).sample(20)
    text = ok("sample", model, "-n", "20", "--seed", "4")
    assert text == ok("sample", model, "-n", "20", "--seed", "4")
    assert text != ok("sample", model, "-n", "20", "--seed", "5")
    assert ok("sample", model, "-n", "20") != ok("sample", model, "-n", "20")
    assert text.splitlines()[0] == "length,width,count"
    assert [[float(cell) for cell in line.split(",")] for line in text.splitlines()[1:]] == rows.tolist()
    result = parse(ok("sample", model, "-n", "20", "--seed", "4", "--labels", "--json"))
    assert result == {"features": NAMES, "X": rows.tolist(), "labels": labels.tolist()}
    ok("sample", model, "-n", "20", "--seed", "4", "--labels", "-o", tmp_path / "s.parquet")
    written = read_table(str(tmp_path / "s.parquet"))
    assert written.names == [*NAMES, "component"]
    assert written.X[:, 3].tolist() == labels.tolist()
    assert len(ok("sample", model).splitlines()) == 2


def test_a_column_of_labels_gets_a_name_of_its_own(tmp_path, ok):
    write_table(str(tmp_path / "d.npz"), {"component": X[:, 0], "file": X[:, 1]})
    ok("fit", tmp_path / "d.npz", *FIT, "-o", tmp_path / "m.fastem")
    assert ok("sample", tmp_path / "m.fastem", "--labels").splitlines()[0] == "component,file,component_"


def test_info(model, ok):
    estimator = fastem.load(model)
    result = parse(ok("info", model, "--json"))
    assert result["weights"] == estimator.weights_.tolist()
    assert result["means"] == estimator.means_.tolist()
    assert result["covariances"] == estimator.covariances_.tolist()
    assert result["parameters"] == estimator.get_params()
    assert result["status"] == "CONVERGED"
    assert result["converged"] is True
    assert (result["format_version"], result["fastem_version"]) == (1, fastem.__version__)
    text = ok("info", model)
    assert text.startswith("GaussianMixture(n_components=3, random_state=0)\n")
    assert f"{estimator.log_likelihood_:.10g}" in text
    assert f"{estimator.weights_[0]:.4f}" in text
    assert f"{estimator.means_[2, 1]:.6g}" in text
    assert f"written by fastem {fastem.__version__}" in text


def test_info_of_other_models(tmp_path, ok):
    path = tmp_path / "m.fastem"
    given = fastem.GaussianMixture.from_parameters([1.0], np.zeros((1, 30)), np.ones(1), covariance_type="spherical")
    fastem.save(given, path)
    result = parse(ok("info", path, "--json"))
    assert (result["status"], result["log_likelihood"]) == ("NOT_ITERATED", None)
    text = ok("info", path)
    assert "log-likelihood  unknown" in text
    assert "the first 6 of 30 features" in text
    assert max(map(len, text.splitlines())) <= 120
    fitted = fastem.GaussianMixture(2, random_state=np.random.RandomState(0), means_init=X[[0, 89]]).fit(X)
    fastem.save(fitted, path)
    parameters = parse(ok("info", path, "--json"))["parameters"]
    assert parameters["means_init"] == X[[0, 89]].tolist()
    assert parameters["random_state"].startswith("RandomState")
    assert ok("info", path).splitlines()[0].startswith("GaussianMixture(means_init=array(")


def test_warmup_compiles_all(ok):
    result = parse(ok("warmup", "--json"))
    assert set(result) == {"seconds", "compiled", "loaded", "cache"}
    specialisations = sum(cli._kernel_counts()[:2])
    text = ok("warmup")
    assert re.search(r"kernels ready after \d+\.\d s: 0 compiled, 0 read from the cache\ncache: \S", text)
    rng = np.random.default_rng(0)
    for dtype, n_rows in itertools.product((np.float32, np.float64), (300, 250_000)):
        rows = rng.standard_normal((n_rows, 3)).astype(dtype)
        rows[: n_rows // 3] = 7 + 1e-4 * rows[: n_rows // 3]
        frozen = rows.copy()
        frozen.flags.writeable = False
        inits = STARTS if n_rows == 300 else ("random_from_data",)
        for covariance_type, init in itertools.product((*FORMS, "EEI", "VVE"), inits):
            estimator = fastem.GaussianMixture(
                9, covariance_type=covariance_type, init_params=init, random_state=0, tol=1.0
            )
            estimator.fit(rows).score_samples(frozen)
            estimator.fit(frozen, sample_weight=np.arange(n_rows) % 3).predict_proba(np.asfortranarray(rows))
            estimator.sample(3)
    for dtype, n_features, n_components in itertools.product((np.float32, np.float64), range(2, 10), (2, 5, 8, 12)):
        rows = rng.standard_normal((300, n_features)).astype(dtype)
        with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
            fastem.GaussianMixture(n_components, random_state=0, max_iter=2, n_race=0).fit(rows)
    assert sum(cli._kernel_counts()[:2]) == specialisations  # nothing new, compiled or read


def test_warmup_without_a_compiler():
    done = subprocess.run(
        [sys.executable, "-m", "fastem", "warmup"],
        check=False,
        capture_output=True,
        text=True,
        env={**environment(), "NUMBA_DISABLE_JIT": "1"},
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("nothing to compile; unset NUMBA_DISABLE_JIT\n")
    assert done.stderr.count("\n") == 1


# mistakes


def test_usage(capsys):
    for argv in (
        [],
        ["fly"],
        ["fit"],
        ["fit", "a.csv", "--components", "0"],
        ["fit", "a.csv", "--components", "two"],
        ["fit", "a.csv", "--init", "magic"],
        ["fit", "a.csv", "--seed", "-1"],
        ["fit", "a.csv", "--tol", "small"],
        ["fit", "a.csv", "--mean-prior", "1,x"],
        ["fit", "a.csv", "--covariance-prior", "x"],
        ["predict", "m.fastem"],
        ["sample", "m.fastem", "-n", "0"],
        ["warmup", "now"],
    ):
        with pytest.raises(SystemExit) as caught:
            main(argv)
        assert caught.value.code == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert "usage: fastem" in err
        assert "Traceback" not in err


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "x,y\n1,2\n3,four\n", "a.csv, line 3, column 2 (y): 'four' is not a finite number"),
        ("a.csv", "1,2\n3,four\n", "a.csv, line 2, column 2: 'four' is not a finite number"),
        ("a.csv", "x,y\n1,2\n\n3,\n", "a.csv, line 4, column 2 (y): the cell is empty"),
        ("a.csv", "x,y\n1,nan\n", "line 2, column 2 (y): 'nan' is not a finite number"),
        ("a.csv", "x,y\n1,1e999\n", "line 2, column 2 (y): '1e999' is not a finite number"),
        ("a.csv", 'x,y\n"1\n",2\n3,b\n', "line 4, column 2 (y): 'b'"),
        ("a.csv", "x,y\n1,2,3\n", "line 2: 3 cells, but the first line has 2"),
        ("a.csv", "x,y\n1\n", "line 2: 1 cells, but the first line has 2"),
        ("a.csv", "x,1\n1,2\n", "line 1, column 1: 'x' is not a finite number"),
        ("a.csv", "", "a.csv is empty"),
        ("a.csv", "\n\n", "a.csv is empty"),
        ("a.csv", "x,y\n", "a.csv has no rows"),
        ("a.csv", "x;y\n1;2\n", "line 2, column 1 (x;y): '1;2' is not a finite number"),
        ("a.tsv", "x,y\n1,2\n", "'1,2' is not a finite number"),
        ("a.csv", "x,y\n1,\0\n", "line 2, column 2 (y)"),
        ("a.csv", b"x,y\n1,\xff\n", "is not text in UTF-8"),
        ("a.csv", "x\n" + "1" * 200_000 + "\n", "is not a table: field larger than field limit"),
        ("a.npy", b"", "a.npy is no readable file of NumPy arrays"),
        ("a.npy", b"hello", "a.npy is no readable file of NumPy arrays"),
        ("a.npz", b"PK\x03\x04 hello", "a.npz is no readable file of NumPy arrays"),
        ("a.parquet", b"PAR1 hello", "a.parquet is no readable Parquet file"),
        ("a.txt", "1,2\n", "has no suffix of a table; use one of .csv, .tsv, .npy, .npz, .parquet"),
        ("a.csv", "x\n1\n1\n1\n", ""),
    ],
)
def test_bad_tables(tmp_path, fails, name, content, words):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    message = fails("fit", path, "-k", "2", "-o", tmp_path / "m.fastem")
    assert words in message
    assert not (tmp_path / "m.fastem").exists()


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array(["a", "b"]), "must be real numbers"),
        (np.ones((3, 2), complex), "must be real numbers"),
        (np.zeros((2, 2, 2)), "has 3 dimensions"),
        (np.array(1.0), "has 0 dimensions"),
        (np.zeros((0, 2)), ""),
        (np.array([[1.0, 2.0], [3.0, np.nan]]), "row 2, column 2: nan is no finite number"),
        (np.array([[1.0, -np.inf], [3.0, 1.0]], dtype=np.float32), "row 1, column 2: -inf is no finite number"),
    ],
)
def test_bad_arrays(tmp_path, fails, array, words):
    np.save(tmp_path / "a.npy", array)
    assert words in fails("fit", tmp_path / "a.npy")


def test_pickled_arrays_are_not_read(tmp_path, fails):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "mark"), "w"))

    np.save(tmp_path / "a.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", a=np.array([Evil()], dtype=object))
    for path in (tmp_path / "a.npy", tmp_path / "a.npz"):
        assert "is no readable file of NumPy arrays of numbers" in fails("fit", path)
    assert not (tmp_path / "mark").exists()


def test_archives(tmp_path, ok, fails):
    np.savez(tmp_path / "a.npz", X=X, y=np.arange(90))
    assert "several arrays; choose with --array one of: X, y" in fails("fit", tmp_path / "a.npz")
    assert "no array 'z'; choose with --array one of: X, y" in fails("fit", tmp_path / "a.npz", "--array", "z")
    result = parse(ok("fit", tmp_path / "a.npz", "--array", "X", *FIT, "--json"))
    assert result["means"] == fastem.GaussianMixture(3, random_state=0).fit(X).means_.tolist()
    np.savez(tmp_path / "e.npz")
    assert "it is empty" in fails("fit", tmp_path / "e.npz")


def test_bad_parquet(tmp_path, ok, fails, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    table = pyarrow.table({"x": [1.0, 2.0, None], "s": ["a", "b", "c"], "i": [1, 2, 4], "b": [True, False, True]})
    parquet.write_table(table, path)
    assert "column 2 (s) holds string, not numbers" in fails("fit", path, "-c", "2")
    assert "row 3, column 1 (x): nan is no finite number" in fails("fit", path, "-c", "x,i")
    assert parse(ok("fit", path, "-c", "i,b", "--json"))["features"] == ["i", "b"]
    parquet.write_table(pyarrow.table([[1.0], [2.0]], names=["x", "x"]), path)
    assert "two columns of the same name" in fails("fit", path)
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    assert 'needs pyarrow; get it with: pip install "fastem[arrow]"' in fails("fit", path)
    assert 'pip install "fastem[arrow]"' in fails("sample", "none.fastem", "-o", path)  # before anything is read


def test_options_that_do_not_apply_are_refused(tmp_path, table, fails):
    assert "are for .csv and .tsv files" in fails("fit", table(".npy"), "--header")
    assert "are for .csv and .tsv files" in fails("fit", table(".parquet"), "--no-header")
    assert "--array is for .npz files" in fails("fit", table(), "--array", "x")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["-k", "91"], "91"),
        (["--mean-prior", "1,2,3"], "mean_prior needs mean_precision_prior"),
        (["--mean-prior", "1,2", "--mean-precision-prior", "1"], "mean_prior"),
        (["--tol", "nan"], "tol"),
        (["--reg-covar", "-1"], "reg_covar"),
        (["--columns", "4"], "data.csv has no column 4; columns are numbered from 1 to 3"),
        (["--columns", "hight"], "data.csv has no column 'hight'; the columns are length, width, count"),
        (["--columns", "1,length"], "chooses a column twice"),
        (["--columns", ""], "chooses no column"),
    ],
)
def test_bad_options(table, fails, argv, words):
    assert words in fails("fit", table(), *argv)


def test_outputs_are_checked_before_the_work(tmp_path, fails, monkeypatch):
    """The data is not even there."""
    assert "is a directory" in fails("fit", "none.csv", "-o", tmp_path)
    assert "there is no directory" in fails("fit", "none.csv", "-o", tmp_path / "no" / "m.fastem")
    assert "has no suffix of a table" in fails("predict", "none.fastem", "none.csv", "-o", tmp_path / "x.txt")
    assert "there is no directory" in fails("sample", "none.fastem", "-o", tmp_path / "no" / "x.csv")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "no permission" in fails("fit", "none.csv", "-o", tmp_path / "m.fastem")


def test_an_input_is_never_overwritten(tmp_path, table, model, fails):
    data = table()
    before = data.read_bytes()
    link = tmp_path / "link.csv"
    link.symlink_to(data)
    for path in (data, link):
        assert "is also an input, and would be lost" in fails("fit", data, "-o", path)
        assert "is also an input, and would be lost" in fails("predict", model, data, "-o", path)
    assert data.read_bytes() == before


def test_a_failed_write_leaves_the_old_table(tmp_path, table, model, fails, monkeypatch):
    out = tmp_path / "out.csv"
    out.write_text("old")
    data = table()
    files = sorted(tmp_path.iterdir())

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert "No space left on device" in fails("sample", model, "-o", out)
        assert "No space left on device" in fails("fit", data, *FIT, "-o", model)
    assert out.read_text() == "old"
    assert sorted(tmp_path.iterdir()) == files
    assert fastem.load(model).converged_


def test_bad_models(tmp_path, table, model, fails):
    assert "none.fastem: No such file or directory" in fails("info", tmp_path / "none.fastem")
    assert "is not a model file" in fails("predict", table(), model)  # the wrong way round
    assert "is a directory" in fails("info", tmp_path)
    model.write_bytes(model.read_bytes()[:-5])
    for argv in (["info", model], ["predict", model, table()], ["score", model, table()], ["sample", model]):
        assert "is damaged or cut short" in fails(*argv)


def test_running_out_of_memory_and_patience(table, run, fails, monkeypatch):
    def fit(self, *args, **options):
        raise error

    monkeypatch.setattr(fastem.GaussianMixture, "fit", fit)
    error = MemoryError()
    assert "not enough memory" in fails("fit", table())
    error = KeyboardInterrupt()
    assert run("fit", table()) == (130, "", "fastem: interrupted\n")
    error = ZeroDivisionError("a bug, which keeps its traceback")
    with pytest.raises(ZeroDivisionError):
        run("fit", table())


def test_warnings_are_lines(table, run, monkeypatch):
    import warnings

    whole = fastem.GaussianMixture.fit

    def fit(self, *args, **options):
        warnings.warn("two\nlines", UserWarning, stacklevel=1)
        warnings.warn("for developers", DeprecationWarning, stacklevel=1)
        return whole(self, *args, **options)

    monkeypatch.setattr(fastem.GaussianMixture, "fit", fit)
    status, _, err = run("fit", table(), *FIT)
    assert (status, err) == (0, "fastem: warning: two lines\n")


# tables


@pytest.mark.parametrize(
    ("text", "header", "names", "rows"),
    [
        ("1,2\n3,4\n", None, None, [[1, 2], [3, 4]]),
        ("a,b\n1,2\n", None, ["a", "b"], [[1, 2]]),
        (" a , b \n1, 2 \n", None, ["a", "b"], [[1, 2]]),
        ("1,2\n3,4\n", True, ["1", "2"], [[3, 4]]),
        ("1,2\n3,4\n", False, None, [[1, 2], [3, 4]]),
        (',b\n"1",2\n', None, ["", "b"], [[1, 2]]),
        ("\ufeffa,b\r\n1,2\r\n\r\n3,4", None, ["a", "b"], [[1, 2], [3, 4]]),
        ('"a,1","b""2"\n1e3,-.5\n', None, ["a,1", 'b"2'], [[1000, -0.5]]),
    ],
)
def test_headers(tmp_path, monkeypatch, text, header, names, rows):
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    for source in (str(path), "-"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        table = read_table(source, header=header)
        assert table.names == names
        assert table.X.tolist() == rows
        assert table.X.dtype == np.float64
        assert table.weight is None


def test_header_flags(tmp_path, ok):
    path = tmp_path / "t.csv"
    path.write_text("0,1\n" + "\n".join(f"{a},{b}" for a, b in X[:, :2].tolist()))
    for flags, n_rows, features in (
        ([], 91, ["x1", "x2"]),
        (["--header"], 90, ["0", "1"]),
        (["--no-header"], 91, ["x1", "x2"]),
    ):
        result = parse(ok("fit", path, *FIT, *flags, "--json"))
        assert (result["n_samples"], result["features"]) == (n_rows, features)


def test_unused_columns_may_hold_anything(tmp_path):
    (tmp_path / "t.csv").write_text("1,setosa,2\n3,,4\n")
    assert read_table(str(tmp_path / "t.csv"), columns="3,1").X.tolist() == [[2, 1], [4, 3]]


@pytest.mark.parametrize(
    ("spec", "names", "places"),
    [
        ("1", None, [0]),
        ("2-4", None, [1, 2, 3]),
        ("5,1-2", None, [4, 0, 1]),
        ("c,a", list("abcde"), [2, 0]),
        ("a,4-5", list("abcde"), [0, 3, 4]),
        ("1-2", ["x", "1-2", "y", "z", "u"], [1]),
        ("1", ["5", "1", "y", "z", "u"], [1]),
        ('"a,b",c', ["c", "a,b", "y", "z", "u"], [1, 0]),
    ],
)
def test_choosing_columns(spec, names, places):
    assert choose_columns(spec, names, 5, "t") == places


@pytest.mark.parametrize("spec", ["0", "6", "2-1", "-1", "1-", "1-9", "a", "1,1", "1-3,2", "", ",", "1.5", "²"])
def test_columns_that_cannot_be_chosen(spec):
    with pytest.raises(TableError):
        choose_columns(spec, None, 5, "t")


def test_an_ambiguous_name():
    with pytest.raises(TableError, match="several columns are called 'a'; choose one by its number"):
        choose_columns("a", ["a", "b", "a"], 3, "t")


@hypothesis.given(st.text(alphabet="ab,-\"' 0123456789\n²", max_size=12), st.integers(1, 5))
@hypothesis.settings(deadline=None, derandomize=True)
def test_any_choice_is_right_or_refused(spec, width):
    try:
        places = choose_columns(spec, ["a", "b", "1", "a-b", ""][:width], width, "t")
    except TableError:
        return
    assert len(set(places)) == len(places) > 0
    assert all(0 <= place < width for place in places)


@hypothesis.given(st.binary(max_size=60) | st.text(alphabet='1.e-,\n"a ', max_size=60).map(str.encode))
@hypothesis.settings(
    deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@pytest.mark.parametrize("suffix", [".csv", ".npy", ".npz"])
def test_any_bytes_are_read_or_refused(tmp_path, suffix, content):
    path = tmp_path / f"t{suffix}"
    path.write_bytes(content)
    table = None
    with contextlib.suppress(TableError):
        table = read_table(str(path))
    if table is None:
        return
    assert table.X.ndim == 2
    assert np.isfinite(table.X).all()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_tables_round_trip(tmp_path, suffix):
    rng = np.random.default_rng(0)
    columns = {"file": rng.standard_normal(5000) * 10.0 ** rng.integers(-300, 300, 5000), "b": rng.random(5000)}
    path = str(tmp_path / f"t{suffix}")
    write_table(path, columns)
    table = read_table(path)
    assert np.array_equal(table.X, np.column_stack(list(columns.values())))  # every bit
    assert table.names == (None if suffix == ".npy" else ["file", "b"])
    assert [file.name for file in tmp_path.iterdir()] == [f"t{suffix}"]


def test_a_large_array_stays_on_the_disk(tmp_path):
    np.save(tmp_path / "a.npy", X)
    assert isinstance(read_table(str(tmp_path / "a.npy")).X, np.memmap)
    np.save(tmp_path / "v.npy", X[:, 0])
    assert read_table(str(tmp_path / "v.npy")).X.shape == (90, 1)


def test_values_late_in_a_table_are_checked(tmp_path):
    long = np.zeros((3 * tables._ROWS, 2))
    long[2 * tables._ROWS + 5, 1] = np.nan
    np.save(tmp_path / "a.npy", long)
    with pytest.raises(TableError, match=f"row {2 * tables._ROWS + 6}, column 2"):
        read_table(str(tmp_path / "a.npy"))
