"""`fastem stream`: the bits however bytes come, however often it is killed; and one line for everything that fails."""

import contextlib
import io
import itertools
import json
import multiprocessing
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastem
from fastem import tables
from fastem.cli import main
from fastem.tables import CsvRows, TableError

resource = pytest.importorskip("resource")  # not on Windows
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and pipes")
BEGIN = ["-k", "2", "--seed", "0", "--batch-size", "100"]
PATIENCE = 30.0  # seconds after which a child that does not answer has failed


def simulated(n_rows, seed=11):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_rows, 2)) + 5.0 * rng.integers(0, 2, size=(n_rows, 1))


X = simulated(4000)


def csv_of(rows, header="a,b\n"):
    return header + "".join(",".join(map(repr, row)) + "\n" for row in rows.tolist())


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(csv_of(X))
    return path


@pytest.fixture
def run(capsys):
    """Run the command in this process: status, standard output, standard error."""

    def call(*argv):
        status = main(["stream", *map(str, argv)])
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.fixture
def whole(tmp_path, rows, run):
    """Bytes of the model and of the scores of an uninterrupted run."""
    path = tmp_path / "whole.fastem"
    status, out, err = run(path, rows, *BEGIN, "--output", "scores")
    assert (status, err) == (0, "")
    return path.read_bytes(), out


# processes: forks of a server that has imported all, so that fifty cost no more than one


SERVER = multiprocessing.get_context("forkserver") if sys.platform != "win32" else None
if SERVER is not None:
    SERVER.set_forkserver_preload(["fastem.stream_command", "fastem.tables", "fastem.estimators.gaussian_mixture"])


def work(argv, streams, limit, peak):
    """Run the command with the given standard streams, pipes or paths, in a new process."""
    for number, stream in streams:
        if isinstance(stream, str):
            opened = os.open(stream, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        else:
            opened = stream.fileno()
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits it ignored
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    status = main(["stream", *map(str, argv)])
    if peak:
        Path(peak).write_text(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
    sys.stdout.flush()
    os._exit(status)


class Child:
    """The command in a process of its own, whose standard streams are pipes where no path is given."""

    def __init__(self, *argv, stdin=None, stdout=None, limit=None, peak=None):
        self.pipes, self.text, streams, theirs = {}, {1: b"", 2: b""}, [], []
        for number, path in enumerate((stdin, stdout, None)):
            if path is None:
                reading, writing = SERVER.Pipe(duplex=False)
                self.pipes[number] = writing if number == 0 else reading
                theirs.append(reading if number == 0 else writing)
            streams.append((number, theirs[-1] if path is None else str(path)))
        self.process = SERVER.Process(target=work, args=(argv, streams, limit, peak), daemon=True)
        self.process.start()
        for each in theirs:
            each.close()

    def write(self, text):
        left = memoryview(text if isinstance(text, bytes) else text.encode())
        while left:
            left = left[os.write(self.pipes[0].fileno(), left) :]

    def read(self, number, n_lines):
        """All that came on standard output or error, as soon as these are so many lines."""
        end = time.monotonic() + PATIENCE
        while self.text[number].count(b"\n") < n_lines:
            assert self._take(number, end - time.monotonic()), (self.text, self.process.exitcode)
        return self.text[number].decode()

    def wait(self):
        """Close the input: the exit status, and all of standard output and error."""
        if 0 in self.pipes:
            self.pipes.pop(0).close()
        end = time.monotonic() + PATIENCE
        while open_pipes := [number for number in (1, 2) if number in self.pipes and not self.pipes[number].closed]:
            for number in open_pipes:
                self._take(number, 0.01)
            assert time.monotonic() < end, self.text
        self.process.join(PATIENCE)
        return self.process.exitcode, self.text[1].decode(), self.text[2].decode()

    def _take(self, number, seconds):
        """Take what a pipe has within some seconds; whether it had something."""
        pipe = self.pipes[number]
        if not select.select([pipe], [], [], max(0.0, seconds))[0]:
            return False
        data = os.read(pipe.fileno(), 1 << 16)
        self.text[number] += data
        if not data:
            pipe.close()
        return bool(data)

    def __del__(self):
        if self.process.is_alive():
            self.process.kill()


def saved_rows(path):
    """Number of rows that a model file has taken; 0 where there is none."""
    return fastem.load(path).stream_.n_rows if os.path.exists(path) else 0


def wait_for(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


# what is learned and printed


def test_the_whole_way(tmp_path, rows, whole):
    """The command itself, in a pipe."""
    root = str(Path(fastem.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    command = [sys.executable, "-m", "fastem", "stream", str(tmp_path / "m.fastem"), *BEGIN, "--output", "scores"]
    done = subprocess.run(command, check=False, input=rows.read_bytes(), capture_output=True, env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    assert ((tmp_path / "m.fastem").read_bytes(), done.stdout.decode()) == whole


def test_the_stream_is_that_of_partial_fit(whole, tmp_path):
    direct = fastem.GaussianMixture(2, random_state=0, batch_size=100)
    expected = []
    for row in X:
        before = hasattr(direct, "means_")
        expected.append(repr(float(direct.score_samples(row[None])[0])) if before else "")
        direct.partial_fit(row[None])
    assert whole[1].split("\n")[:-1] == expected
    assert expected.index(next(filter(None, expected))) == 1000
    loaded = fastem.load(tmp_path / "whole.fastem")
    assert np.array_equal(loaded.means_, direct.means_)
    assert loaded.stream_.n_rows == len(X)
    assert loaded.feature_names_in_.tolist() == ["a", "b"]
    assert loaded.get_params() == direct.get_params()


def test_labels_and_nothing(tmp_path, rows, whole, run):
    status, out, err = run(tmp_path / "labels.fastem", *BEGIN, rows, "--output", "labels")
    assert (status, err) == (0, "")
    lines = out.split("\n")[:-1]
    assert lines[:1000] == [""] * 1000
    assert len(lines) == len(X)
    near = np.array([int(line) for line in lines[1000:]])
    assert max(np.mean(near == (X[1000:, 0] > 2.5)), np.mean(near != (X[1000:, 0] > 2.5))) > 0.98
    assert run(tmp_path / "none.fastem", *BEGIN, rows) == (0, "", "")
    for name in ("labels", "none"):
        assert (tmp_path / f"{name}.fastem").read_bytes() == whole[0]


def test_a_fitted_model_goes_on(tmp_path, rows, run, capsys):
    path = tmp_path / "m.fastem"
    assert main(["fit", str(rows), "-k", "2", "--seed", "0", "-o", str(path)]) == 0
    capsys.readouterr()
    fitted = fastem.load(path)
    del fitted.feature_names_in_
    status, out, err = run(path, rows, "--output", "scores", "--resume")  # it has taken none of a stream
    assert (status, err) == (0, "")
    scores = [float(line) for line in out.split()]
    assert scores[:1024] == fitted.score_samples(X[:1024]).tolist()
    assert scores[1024:2048] == fitted.partial_fit(X[:1024]).score_samples(X[1024:2048]).tolist()
    assert fastem.load(path).stream_.n_rows == len(X)
    assert fastem.load(path).feature_names_in_.tolist() == ["a", "b"]


def test_columns(tmp_path, rows, whole, run):
    path, other = tmp_path / "m.fastem", tmp_path / "other.tsv"
    lines = ["b\tname\ta", *(f'{b!r}\t"x\ty"\t{a!r}' for a, b in X[2000:].tolist())]
    other.write_text("\n".join(lines))
    first = tmp_path / "first.csv"
    first.write_text(csv_of(X[:2000]))
    assert run(path, first, *BEGIN) == (0, "", "")
    assert run(path, other) == (0, "", "")  # by name
    assert path.read_bytes() == whole[0]
    path.unlink()
    first.write_text(csv_of(X[:2000], header=""))
    assert run(path, "-c", "2,1", first, *BEGIN, "--threads", "1") == (0, "", "")
    assert run(path, "-c", "1,3", other) == (0, "", "")
    swapped = fastem.load(path)
    assert not hasattr(swapped, "feature_names_in_")
    assert swapped.n_threads == 1
    np.testing.assert_allclose(swapped.means_[:, ::-1], fastem.load(tmp_path / "whole.fastem").means_, rtol=1e-6)
    status, _, err = run(path, other, "-c", "1")
    assert (status, err) == (
        1,
        f"fastem: error: {other} gives 1 columns, but {path} takes 2; choose --columns\n",
    )
    status, _, err = run(tmp_path / "whole.fastem", other, "-c", "c")
    assert "has no column 'c'; the columns are b, name, a" in err


def test_options_reach_the_model(tmp_path, rows, run):
    for flags, expected in [
        (["--half-life", "500"], fastem.Online(half_life=500.0)),
        (["--exponent", "0.9"], fastem.Online(exponent=0.9)),
        (["--step-size", "0.1"], fastem.Online(step_size=0.1)),
    ]:
        path = tmp_path / f"{flags[0]}.fastem"
        assert run(path, rows, *flags, "--components", "3", "--covariance-type", "diag") == (0, "", "")
        estimator = fastem.load(path)
        assert (estimator.online, estimator.n_components, estimator.covariance_type) == (expected, 3, "diag")
        assert (estimator.batch_size, estimator.random_state) == (None, None)


# the same bits


@pytest.mark.parametrize("cuts", [[1], [600, 650], [1037, 3999], range(100, 4000, 370)])
def test_resuming_ends_with_the_bits_of_an_uninterrupted_run(tmp_path, rows, whole, run, cuts):
    path, part, text = tmp_path / "m.fastem", tmp_path / "part.csv", ""
    for cut in [*cuts, len(X)]:
        part.write_text(csv_of(X[:cut]))
        status, out, err = run(path, part, "--resume", *BEGIN, "--output", "scores")
        assert (status, err) == (0, "")
        assert saved_rows(path) == cut
        text += out
    assert (path.read_bytes(), text) == whole
    assert run(path, rows, "--resume") == (0, "", "")
    assert path.read_bytes() == whole[0]


def test_without_resume_rows_are_new_ones(tmp_path, rows, whole, run):
    path, part = tmp_path / "m.fastem", tmp_path / "part.csv"
    for first, last in itertools.pairwise([0, 500, 1730, 4000]):
        part.write_text(csv_of(X[first:last]))
        assert run(path, part, *BEGIN) == (0, "", "")
    assert path.read_bytes() == whole[0]
    assert run(path, rows) == (0, "", "")
    assert saved_rows(path) == 2 * len(X)


def test_resuming_other_rows_is_refused(tmp_path, rows, run):
    path, part = tmp_path / "m.fastem", tmp_path / "part.csv"
    part.write_text(csv_of(X[:300]))
    assert run(path, rows, *BEGIN) == (0, "", "")
    before = path.read_bytes()
    status, out, err = run(path, part, "--resume")
    assert (status, out) == (1, "")
    assert f"part.csv has 300 rows, but {path} has taken 4000: these are not the same rows" in err
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "flags",
    [
        ["--checkpoint-seconds", "1e300"],
        ["--checkpoint-rows", "17"],
        ["--checkpoint-rows", "333"],
        ["--checkpoint-seconds", "0"],
    ],
)
def test_checkpoints_change_no_bit(tmp_path, rows, whole, run, flags, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # hundreds take long
    path = tmp_path / "m.fastem"
    assert run(path, rows, *BEGIN, "--output", "scores", *flags) == (0, whole[1], "")
    assert path.read_bytes() == whole[0]


def test_pieces_of_bytes_change_no_bit(tmp_path, rows, whole):
    path, data = tmp_path / "m.fastem", rows.read_bytes()
    child = Child(path, *BEGIN, "--output", "scores", stdout=tmp_path / "out.txt")
    sizes = np.random.default_rng(1).choice([1, 7, 40, 900, 5000], size=120)
    for first, last in itertools.pairwise([0, *np.cumsum(sizes)]):
        child.write(data[first:last])
        time.sleep(1e-4)
    child.write(data[last:])
    assert child.wait() == (0, "", "")
    assert (path.read_bytes(), (tmp_path / "out.txt").read_text()) == whole


TRICKY = (
    '\ufeffa_,"b\n1","ü"\r\n1,2,x_\r\n\r\n"3","4.5"'
    ',"two\r\nlines, "" quoted"\n5,6,7" long\n1_0\r-7,8e3,\n9,1,"z"\n2,3,q'
)


def read_pieces(data, cuts, header=None, columns="1-2"):
    """Rows that come of pieces of some bytes, and the error that ends them."""
    rows = CsvRows("t", ",", header, lambda names, width: tables.choose_columns(columns, names, width, "t"))
    found, message = [], None
    try:
        for first, last in itertools.pairwise([0, *cuts, len(data)]):
            for block in rows.feed(data[first:last]):
                found += block.tolist()
        for block in rows.feed(b"", last=True):
            found += block.tolist()
    except TableError as error:
        message = str(error)
    return found, message


@given(st.data())
@settings(derandomize=True, deadline=None)
def test_rows_do_not_depend_on_where_bytes_are_cut(data):
    text = data.draw(
        st.sampled_from([TRICKY, TRICKY.replace("1_0\r", "")]) | st.text('12.-,,,\n\n\r"_ae', max_size=40)
    ).encode()
    text += data.draw(st.sampled_from([b"", b"\n", b"\r", b"\xff,1\n", b"\xc3"]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    assert read_pieces(text, cuts) == read_pieces(text, [])


def test_every_way_to_cut_a_tricky_table():
    good = TRICKY.replace("1_0\r", "").encode()
    expected = [[1, 2], [3, 4.5], [5, 6], [-7, 8000], [9, 1], [2, 3]], None
    for cut in range(len(good) + 1):
        assert read_pieces(good, [cut]) == expected
    assert read_pieces(good, range(len(good))) == expected
    found, message = read_pieces(TRICKY.encode(), range(len(TRICKY.encode())))
    assert found == expected[0][:3]
    assert message == "t, line 8: 1 cells, but the first line has 3"


@given(
    st.lists(
        st.lists(
            st.sampled_from(["1", "-2.5e3", " 7", "8\r", "", "x", "nan", "1_0", '"4"', "1e999", "٣", "0x1"]),
            min_size=1,
            max_size=3,
        ),
        max_size=5,
    )
)
@settings(derandomize=True, deadline=None, max_examples=300)
def test_the_short_way_finds_what_the_long_way_finds(lines):
    data = "1,2,3\n" + "".join(",".join(line) + "\n" for line in lines)
    cut = [len("1,2,3\n")]
    short = read_pieces(data.encode(), cut)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CsvRows, "_plain", lambda *_: None)
        assert short == read_pieces(data.encode(), cut)


def test_a_line_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(tables, "_LONGEST_LINE", 1000)
    found, message = read_pieces(b"1,2\n" + b"3," * 2000, range(100, 4000, 100))
    assert (found, message) == ([[1.0, 2.0]], "t, line 2 is longer than 1000 characters")


# kill -9


def killed_and_resumed(folder, n_kills, seed):
    """Kill the command again and again, each time going on from the file it left; the file and all that it printed."""
    step, data = 250, simulated(4000 + 1200 * n_kills)
    rows, path, output = folder / "rows.csv", folder / "m.fastem", folder / "out.txt"
    rows.write_text(csv_of(data))
    argv = [path, *BEGIN, "--resume", "--output", "scores", "--checkpoint-rows", step]
    rng = np.random.default_rng(seed)
    kept, n_early = "", 0
    for _ in range(n_kills):
        before = saved_rows(path)
        output.write_text("")
        child = Child(*argv, stdin=rows, stdout=output)
        n_lines = rng.integers(0, 2400)  # kill after some lines, and a moment
        wait_for(
            lambda child=child, n=n_lines: child.process.exitcode is not None or output.read_bytes().count(b"\n") >= n
        )
        time.sleep(rng.exponential(0.004))
        child.process.kill()
        status, _, err = child.wait()
        assert err == ""
        assert status in (-signal.SIGKILL, 0)
        n_early += status != 0
        lines = output.read_text().splitlines(keepends=True)
        n_whole = sum(line.endswith("\n") for line in lines)
        after = saved_rows(path)  # it loads
        assert before + n_whole - step <= after <= before + n_whole
        assert after % step == 0 or status == 0
        kept += "".join(lines[: after - before])
    assert n_early >= n_kills - max(1, n_kills // 5)  # on a busy machine some end before they are killed
    assert saved_rows(path) < len(data) or n_early < n_kills
    output.write_text("")
    assert Child(*argv, stdin=rows, stdout=output).wait() == (0, "", "")
    whole = folder / "whole.fastem"
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(["stream", str(whole), str(rows), *BEGIN, "--output", "scores"]) == 0
    assert path.read_bytes() == whole.read_bytes()
    assert kept + output.read_text() == out.getvalue()
    left = [each.name for each in folder.iterdir() if each.suffix == ".tmp"]
    assert len(left) <= n_kills  # a kill in a checkpoint leaves its unfinished file beside the whole one


def test_kill_9_at_random_moments(tmp_path):
    killed_and_resumed(tmp_path, 3, seed=5)


@pytest.mark.slow
def test_kill_9_fifty_times(tmp_path):
    killed_and_resumed(tmp_path, 50, seed=6)


# waiting, signals


def test_rows_are_answered_as_they_come(tmp_path, rows):
    path = tmp_path / "m.fastem"
    assert main(["stream", str(path), str(rows), *BEGIN]) == 0
    estimator = fastem.load(path)
    del estimator.feature_names_in_
    child = Child(path, "--output", "scores", "--checkpoint-seconds", "0.05")
    child.write("b,a\n")
    for i in range(5):
        child.write(csv_of(X[i : i + 1, ::-1], header=""))
        line = child.read(1, i + 1).splitlines()[-1]
        assert float(line) == estimator.score_samples(X[i : i + 1])[0]
    wait_for(lambda: saved_rows(path) == len(X) + 5)  # while nothing comes
    assert child.wait()[::2] == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_following_a_file_until_a_signal(tmp_path, whole, number):
    path, growing = tmp_path / "m.fastem", tmp_path / "growing.csv"
    text = csv_of(X)
    growing.write_text(text[:30])
    child = Child(path, *BEGIN, growing, "--follow", "--output", "scores")
    first = text.index("\n", 20_000) + 4  # within a row
    with growing.open("a") as file:
        file.write(text[30:first])
        file.flush()
        n_whole = text[:first].count("\n") - 1
        child.read(1, n_whole)
        time.sleep(0.25)
        assert child.read(1, n_whole).count("\n") == n_whole
        file.write(text[first:])
        file.flush()
        child.read(1, len(X))
        file.write("1,2")  # not yet a row
        file.flush()
        time.sleep(0.15)
    os.kill(child.process.pid, number)
    assert child.wait() == (0, whole[1], "")
    assert path.read_bytes() == whole[0]


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [(signal.SIGTERM, 143, "fastem: terminated\n"), (signal.SIGINT, 130, "fastem: interrupted\n")],
)
def test_a_signal_ends_a_pipe_after_a_checkpoint(tmp_path, rows, whole, run, number, status, said):
    path, data = tmp_path / "m.fastem", rows.read_bytes()
    child = Child(path, *BEGIN, "--output", "scores")
    child.write(data[: len(data) // 2])
    n_lines = data[: len(data) // 2].count(b"\n") - 1
    assert child.read(1, n_lines).count("\n") == n_lines
    time.sleep(0.1)  # it waits in a read
    os.kill(child.process.pid, number)
    end = child.wait()
    assert end[::2] == (status, said)
    assert saved_rows(path) == n_lines
    again = run(path, rows, "--resume", "--output", "scores")
    assert again == (0, whole[1].removeprefix(end[1]), "")
    assert path.read_bytes() == whole[0]


def test_a_file_that_becomes_shorter(tmp_path, rows):
    child = Child(tmp_path / "m.fastem", *BEGIN, rows, "--follow", "--output", "labels")
    child.read(1, len(X))
    rows.write_text("a,b\n")
    status, _, err = child.wait()
    assert (status, err) == (1, f"fastem: error: {rows} became shorter while it was followed\n")
    assert saved_rows(tmp_path / "m.fastem") == len(X)


def test_a_broken_pipe_on_standard_output(tmp_path, rows):
    path, data = tmp_path / "m.fastem", rows.read_bytes()
    child = Child(path, *BEGIN, "--output", "scores")
    child.write(data[:60_000])
    child.read(1, 1)
    child.pipes.pop(1).close()
    with contextlib.suppress(BrokenPipeError):
        child.write(data[60_000:])
    status, _, err = child.wait()
    assert (status, err) == (0, "")
    assert 0 < saved_rows(path) < len(X)


# what fails


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("1,2,3", ": 3 cells, but the first line has 2"),
        ("1", ": 1 cells, but the first line has 2"),
        ("1,two", ", column 2 (b): 'two' is not a finite number; drop the row"),
        ("nan,1", ", column 1 (a): 'nan' is not a finite number"),
        ("1,", ", column 2 (b): the cell is empty"),
    ],
)
@pytest.mark.parametrize("n_before", [0, 500, 3210])
def test_a_bad_row_ends_the_stream_after_those_before_it(tmp_path, rows, whole, run, line, words, n_before):
    path, bad = tmp_path / "m.fastem", tmp_path / "bad.csv"
    bad.write_text(csv_of(X[:n_before]) + line + "\n" + csv_of(X[n_before:], header=""))
    status, _, err = run(path, bad, *BEGIN)
    assert status == 1
    assert err.startswith(f"fastem: error: {bad}, line {n_before + 2}{words}")
    assert err.count("\n") == 1
    assert saved_rows(path) == n_before
    assert run(path, rows, "--resume", *BEGIN) == (0, "", "")
    assert path.read_bytes() == whole[0]


def test_other_bad_input(tmp_path, rows, run):
    path, bad = tmp_path / "m.fastem", tmp_path / "bad.csv"

    def fails(*argv):
        status, out, err = run(*argv)
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert not path.exists()
        return err

    assert "begin a new model with --n-components" in fails(path, rows)
    for text in ("", "a,b\n"):
        bad.write_text(text)
        assert "bad.csv has no rows" in fails(path, bad, *BEGIN)
    assert "none.csv: No such file" in fails(path, tmp_path / "none.csv", *BEGIN)
    assert "is no .csv or .tsv file" in fails(path, tmp_path / "a.npy", *BEGIN)
    assert "--follow is for a file" in fails(path, "--follow", *BEGIN)
    assert "is also an input" in run(rows, rows, *BEGIN)[2]
    assert "there is no directory" in fails(tmp_path / "no" / "m.fastem", rows, *BEGIN)
    assert "give one of them" in fails(path, rows, *BEGIN, "--half-life", "5", "--step-size", "0.5")
    assert "exponent must lie in" in fails(path, rows, *BEGIN, "--exponent", "0.2")
    bad.write_bytes(csv_of(X[:700]).encode() + b"\xff,1\n")
    status, _, err = run(path, bad, *BEGIN)
    assert status == 1
    assert "is not text in UTF-8" in err
    assert saved_rows(path) == 700
    bad.write_text("1,1\n" * 1500)
    status, _, err = run(path, bad, "--no-header")  # they continue; the start does not collapse
    assert (status, err) == (0, "")


def test_a_start_that_collapses_keeps_the_rows_before(tmp_path, run):
    path, rows = tmp_path / "m.fastem", tmp_path / "same.csv"
    rows.write_text("1,1\n" * 900)
    assert run(path, rows, *BEGIN) == (0, "", "")
    status, _, err = run(path, rows)
    assert status == 1
    assert "distinct rows" in err
    assert saved_rows(path) == 900


@pytest.mark.parametrize(
    "flags",
    [
        ["--n-components", "3"],
        ["--covariance-type", "diag"],
        ["--seed", "1"],
        ["--half-life", "100"],
        ["--exponent", "0.7"],
        ["--step-size", "0.1"],
        ["--batch-size", "101"],
    ],
)
def test_options_of_a_new_model_are_refused_for_another(tmp_path, rows, run, flags):
    path = tmp_path / "m.fastem"
    assert run(path, rows, *BEGIN) == (0, "", "")
    before = path.read_bytes()
    status, out, err = run(path, rows, *flags)
    assert (status, out) == (1, "")
    said = rf"fastem: error: {flags[0]} {flags[1]}(\.0)? is for a new model, and {path} has .*; leave it out\n"
    assert re.fullmatch(said, err)
    assert path.read_bytes() == before
    assert run(path, rows, "--resume", *BEGIN, "--covariance-type", "full", "--exponent", "0.6") == (0, "", "")


def test_usage(capsys):
    for argv in (
        [],
        ["m", "a.csv", "b.csv"],
        ["m", "--checkpoint-rows", "0"],
        ["m", "--output", "all"],
        ["m", "-k", "0"],
    ):
        with pytest.raises(SystemExit) as caught:
            main(["stream", *argv])
        assert caught.value.code == 2
        assert "usage: fastem" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs prlimit")
def test_checkpoints_that_fail_are_tried_again(tmp_path, whole):
    """A full disk (files may not grow beyond some bytes), then a folder that is gone for a while."""
    folder = tmp_path / "models"
    folder.mkdir()
    path, lines = folder / "m.fastem", csv_of(X).splitlines(keepends=True)
    child = Child(path, *BEGIN, "--checkpoint-rows", "500", "--output", "scores")
    child.write("".join(lines[:501]))
    wait_for(path.exists)
    good = path.read_bytes()
    assert saved_rows(path) == 500
    resource.prlimit(child.process.pid, resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    child.write("".join(lines[501:1501]))
    first = f"fastem: warning: {path}: checkpoint failed: File too large; the file is as it was, "
    assert child.read(2, 2) == 2 * (first + "the next one tries again\n")
    assert path.read_bytes() == good
    assert [each.name for each in folder.iterdir()] == ["m.fastem"]
    resource.prlimit(child.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    folder.rename(tmp_path / "away")
    child.write("".join(lines[1501:2001]))
    assert child.read(2, 3).splitlines()[-1].startswith(f"fastem: warning: {path}: checkpoint failed: No such file")
    (tmp_path / "away").rename(folder)
    assert path.read_bytes() == good
    child.write("".join(lines[2001:2501]))
    wait_for(lambda: saved_rows(path) == 2500)
    child.write("".join(lines[2501:]))
    status, out, err = child.wait()
    assert (status, out, err.count("\n")) == (0, whole[1], 3)
    assert path.read_bytes() == whole[0]


def test_a_last_save_that_fails(tmp_path, rows):
    path, part = tmp_path / "m.fastem", tmp_path / "part.csv"
    part.write_text(csv_of(X[:1500]))
    assert main(["stream", str(path), str(part), *BEGIN]) == 0
    before = path.read_bytes()
    child = Child(path, rows, "--resume", limit=1000)
    message = f"fastem: error: {path}: saving failed: File too large; the last 2500 rows are not in the file\n"
    assert child.wait() == (1, "", message)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("*.tmp")) + list(tmp_path.glob(".*.tmp"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_behind_standard_output(tmp_path, rows):
    path = tmp_path / "m.fastem"
    status, _, err = Child(path, rows, *BEGIN, "--output", "labels", stdout="/dev/full").wait()
    assert (status, err) == (1, "fastem: error: No space left on device\n")
    assert not path.exists()  # no row was learned whose line could not be written


def test_models_before_their_start(tmp_path, run, capsys):
    path, part = tmp_path / "m.fastem", tmp_path / "part.csv"
    part.write_text(csv_of(X[:300]))
    assert run(path, part, *BEGIN) == (0, "", "")
    for argv in (["predict", path, part], ["sample", path]):
        assert main(list(map(str, argv))) == 1
        assert "the start of a stream takes 1000 rows, and 300 came so far" in capsys.readouterr().err
    assert main(["info", str(path)]) == 0
    assert "a stream before its start; 300 rows came so far" in capsys.readouterr().out
    assert main(["info", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_waiting"] == 300


@pytest.mark.slow
def test_memory_does_not_grow_with_the_stream(tmp_path):
    peaks = []
    block = csv_of(simulated(50_000), header="").encode()
    for n_blocks in (2, 40):
        peak = tmp_path / "peak"
        child = Child(tmp_path / f"{n_blocks}.fastem", *BEGIN, peak=peak)
        for _ in range(n_blocks):
            child.write(block)
        assert child.wait() == (0, "", "")
        peaks.append(int(peak.read_text()))
    assert peaks[1] < peaks[0] + 8192  # KiB; the rows are 80 MB


def test_a_row_that_no_step_can_take_can_be_dropped(tmp_path, run):
    path, part = tmp_path / "m.fastem", tmp_path / "part.csv"
    rows = X[:1080].copy()
    rows[1050, 0] = 1e140
    part.write_text(csv_of(rows))
    options = ["--components", "2", "--seed", "0", "--batch-size", "100"]
    assert run(path, part, *options) == (0, "", "")  # 80 rows wait
    part.write_text(csv_of(X[1080:2000]))
    status, _, err = run(path, part)
    assert status == 1
    assert "--discard-waiting" in err
    assert run(path, part, "--discard-waiting") == (0, "", "")
    assert fastem.load(path).stream_.n_waiting == 20
