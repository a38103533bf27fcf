"""Rows that are read in blocks: the same answers as in memory, whatever they come from, and clear refusals."""

import itertools
import pickle
import threading

import numpy as np
import pytest
from conftest import simulate
from hypothesis import given, settings
from hypothesis import strategies as st

import fastem
from fastem import Blocks, Gaussian, GaussianMixture, Mixture
from fastem.data import Block, Data, as_data
from fastem.sources import Stored, open_data

NO_WEIGHT = np.empty((0, 1))
BLOCK = 256


def rows(rng, dtype=np.float64):
    return simulate(rng, 1000, 3, 2).astype(dtype)


def pieces(X, sizes=(1, 99, 400, 0, 350)):
    """The rows in pieces of odd sizes."""
    ends = np.cumsum([0, *sizes])
    return [X[a:b] for a, b in zip(ends, [*ends[1:], len(X)], strict=True)]


class Loader:
    """What starts anew with each `iter`."""

    def __init__(self, parts):
        self.parts = parts

    def __iter__(self):
        return iter(self.parts)


def sources(X, folder):
    """Every kind of source of the same rows."""
    np.save(folder / "rows.npy", X)
    np.save(folder / "columns.npy", np.asfortranarray(X))
    mapped = np.memmap(folder / "raw", X.dtype, "w+", shape=X.shape)
    mapped[:] = X
    found = {
        "file": str(folder / "rows.npy"),
        "path": folder / "rows.npy",
        "columns of a file": folder / "columns.npy",
        "memory map": mapped,
        "array": X,
        "callable": lambda: iter(pieces(X)),
        "loader": Loader(pieces(X)),
    }
    pyarrow = pytest.importorskip("pyarrow")
    dataset, parquet, feather = (pytest.importorskip(f"pyarrow.{name}") for name in ("dataset", "parquet", "feather"))
    table = pyarrow.table({"a": X[:, 0], "w": np.ones(len(X)), "b": X[:, 1], "c": X[:, 2]})
    parquet.write_table(table, folder / "rows.parquet", row_group_size=77)
    feather.write_feather(table, folder / "rows.feather", compression="uncompressed")
    (folder / "parts").mkdir()
    parquet.write_table(table[:600], folder / "parts" / "0.parquet")
    parquet.write_table(table[600:], folder / "parts" / "1.parquet")
    arrow = {
        "parquet": str(folder / "rows.parquet"),
        "feather": folder / "rows.feather",
        "folder": folder / "parts",
        "table": table,
        "dataset": dataset.dataset(folder / "parts"),
    }
    found = {name: Blocks(source, BLOCK) for name, source in found.items()}
    return found | {name: Blocks(source, BLOCK, columns=["a", "b", "c"]) for name, source in arrow.items()}


def in_memory(X, weight=None, n_rows=BLOCK):
    """The same blocks as those of a source."""
    cuts = range(0, len(X), n_rows)
    parts = [NO_WEIGHT if weight is None else weight[i : i + n_rows, None] for i in cuts]
    return Data([Block(np.array(X[i : i + n_rows]), w) for i, w in zip(cuts, parts, strict=True)])


def flat(result):
    return np.concatenate([np.ravel(result.params.weights), *map(np.ravel, result.params.components), result.history])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_every_source_gives_the_bits_of_the_same_blocks_in_memory(dtype, rng, tmp_path):
    X = rows(rng, dtype)
    model, options = Mixture(Gaussian(), 2), {"random_state": 0, "max_iter": 20}
    expected = flat(fastem.fit(model, in_memory(X), **options))
    for name, source in sources(X, tmp_path).items():
        assert np.array_equal(flat(fastem.fit(model, source, **options)), expected), name
    assert not [thread for thread in threading.enumerate() if thread.name == "fastem-reader"]


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_blocks_agree_with_the_whole(covariance_type, rng):
    X, weight = rows(rng), rng.integers(0, 3, size=1000).astype(float)
    model, options = Mixture(Gaussian(covariance_type), 2), {"max_iter": 30, "tol": 0.0}
    start = fastem.fit(model, X, random_state=0, max_iter=1).params
    whole = fastem.fit(model, X, sample_weight=weight, start=start, **options)
    stored = fastem.fit(model, Blocks(X, BLOCK), sample_weight=weight, start=start, **options)
    np.testing.assert_allclose(stored.history, whole.history, rtol=1e-12)
    np.testing.assert_allclose(flat(stored), flat(whole), rtol=1e-9)


def test_one_block_gives_the_bits_of_the_array(rng, tmp_path):
    X = simulate(rng, 30_000, 3, 4)
    np.save(tmp_path / "X.npy", X)
    for options in ({}, {"n_race": 0, "init_params": "k-means||"}, {"sample_weight": rng.exponential(size=len(X))}):
        weight = options.pop("sample_weight", None)
        array, file = (
            GaussianMixture(4, random_state=0, tol=0.1, **options).fit(source, sample_weight=weight)
            for source in (X, tmp_path / "X.npy")
        )
        assert np.array_equal(array.means_, file.means_)
        assert array.lower_bounds_ == file.lower_bounds_


def test_starts_and_races_read_blocks(rng, tmp_path):
    X = simulate(rng, 20_000, 2, 3, separation=6.0)
    np.save(tmp_path / "X.npy", X)
    expected = GaussianMixture(3, random_state=0).fit(X).lower_bound_
    for init in ("kmeans", "k-means++", "k-means||", "ward", "random_from_data", "random"):
        gm = GaussianMixture(3, init_params=init, n_race=4, random_state=0, max_iter=1000)
        raced = gm.fit(Blocks(tmp_path / "X.npy", 3000))
        assert raced.converged_
        assert init == "random" or raced.lower_bound_ == pytest.approx(expected, abs=1e-5), init
        alone = gm.set_params(n_race=0).fit(Blocks(tmp_path / "X.npy", 3000))
        assert alone.converged_
        assert alone.lower_bound_ < expected + 1e-5


def test_weights_come_with_the_blocks_or_apart(rng):
    pyarrow = pytest.importorskip("pyarrow")
    X, weight = rows(rng), rng.integers(0, 4, size=1000).astype(float)
    weight[:BLOCK] = 0.0  # a whole block that does not count
    options = {"random_state": 0, "max_iter": 5, "tol": 0.0}
    expected = flat(fastem.fit(Mixture(Gaussian(), 2), in_memory(X, weight), **options))
    table = pyarrow.table({"a": X[:, 0], "b": X[:, 1], "w": weight, "c": X[:, 2]})
    pairs = list(zip(pieces(X), pieces(weight), strict=True))
    for source, apart in [
        (Blocks(X, BLOCK), weight),
        (Blocks(lambda: iter(pairs), BLOCK), None),
        (Blocks(table, BLOCK, weight="w"), None),
    ]:
        assert np.array_equal(
            flat(fastem.fit(Mixture(Gaussian(), 2), source, sample_weight=apart, **options)), expected
        )
    repeated = fastem.fit(Mixture(Gaussian(), 1), np.repeat(X, weight.astype(int), axis=0), **options)
    once = fastem.fit(Mixture(Gaussian(), 1), Blocks(X, BLOCK), sample_weight=weight, **options)
    np.testing.assert_allclose(once.params.components.covariances, repeated.params.components.covariances, rtol=1e-12)


def test_blocks_may_share_one_buffer(rng):
    X = rows(rng)
    buffer = np.empty((BLOCK, 3))

    def start():
        for first in range(0, len(X), BLOCK):
            part = X[first : first + BLOCK]
            buffer[: len(part)] = part
            yield buffer[: len(part)]

    assert np.array_equal(open_data(Blocks(start, BLOCK)).whole().blocks[0].X, X)


def test_names_of_columns_are_kept(rng):
    pyarrow = pytest.importorskip("pyarrow")
    X = rows(rng)
    table = pyarrow.table({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2]})
    gm = GaussianMixture(2, random_state=0).fit(Blocks(table, columns=["c", "a"]))
    assert gm.feature_names_in_.tolist() == ["c", "a"]
    assert np.array_equal(gm.means_, GaussianMixture(2, random_state=0).fit(X[:, [2, 0]]).means_)
    assert GaussianMixture(2, random_state=0).fit(table).feature_names_in_.tolist() == ["a", "b", "c"]
    assert not hasattr(gm.fit(Blocks(X)), "feature_names_in_")


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 90), min_size=1, max_size=8), st.integers(1, 200), st.booleans())
def test_blocks_are_cut_the_same_way_from_any_pieces(sizes, block_rows, weighted):
    n_rows = sum(sizes)
    X, weight = np.arange(3.0 * n_rows).reshape(n_rows, 3), np.arange(1.0, n_rows + 1)
    ends = np.cumsum([0, *sizes])
    parts = [(X[a:b], weight[a:b] if weighted else None) for a, b in itertools.pairwise(ends)]
    if n_rows == 0:
        with pytest.raises(ValueError, match="0 sample"):
            open_data(Blocks(lambda: iter(parts), block_rows))
        return
    data = open_data(Blocks(lambda: iter(parts), block_rows))
    blocks = list(data)
    assert [len(block.X) for block in blocks[:-1]] == [block_rows] * (len(blocks) - 1)
    assert np.array_equal(np.concatenate([block.X for block in blocks]), X)
    assert np.array_equal(np.concatenate([block.counts for block in blocks]), weight if weighted else np.ones(n_rows))
    assert data.n_samples == data.n_counting == n_rows
    one = as_data(X, weight if weighted else None)
    for mine, theirs in zip(data.summary, one.summary, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12)


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=60), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_rows_are_drawn_alike_from_blocks_and_from_the_whole(counts, block_rows, seed):
    weight = np.array(counts, dtype=float)
    if not weight.any():
        weight[-1] = 1.0
    X = np.arange(len(weight))[:, None].astype(float)
    whole, blocks = as_data(X, weight), open_data(Blocks(X, block_rows), weight)
    drawn = [data.draw(50, np.random.default_rng(seed)) for data in (whole, blocks)]
    assert np.array_equal(*drawn)
    assert (weight[drawn[0]] > 0).all()
    assert np.array_equal(whole.take(drawn[0]).blocks[0].X, blocks.take(drawn[0]).blocks[0].X)


def test_notes_stay_with_their_block_between_passes(rng):
    """What one E-step notes of a block, the next finds again: passes over separated components skip."""
    X = simulate(rng, 40_000, 8, 24, separation=12.0)
    model, options = Mixture(Gaussian(), 24), {"random_state": 0, "max_iter": 12, "tol": 0.0}
    noted = open_data(Blocks(X, 20_000)).with_notes()
    model = model.prepare(noted)
    params = model.initialize(noted, np.random.default_rng(0))
    for block in noted:
        model.e_step(params, block)
    assert all(block.notes for block in noted)
    stored = fastem.fit(Mixture(Gaussian(), 24), Blocks(X, 20_000), **options)
    assert np.array_equal(
        flat(stored), flat(fastem.fit(Mixture(Gaussian(), 24), in_memory(X, None, 20_000), **options))
    )


def refuse(source, message, weight=None, kind=ValueError):
    gm = GaussianMixture(2, random_state=0).fit(np.arange(20.0).reshape(10, 2))
    before = {name: np.copy(value) for name, value in vars(gm).items()}
    with pytest.raises(kind, match=message):
        gm.fit(source() if callable(source) and source.__name__ == "build" else source, sample_weight=weight)
    assert vars(gm).keys() == before.keys()
    assert all(np.array_equal(before[name], value) for name, value in vars(gm).items())
    assert not [thread for thread in threading.enumerate() if thread.name == "fastem-reader"]


def with_infinity(X, row):
    X = X.copy()
    X[row, 1] = np.inf
    return X


def test_refusals(rng, tmp_path):
    X = rows(rng)
    refuse(Blocks(with_infinity(X, 700), BLOCK), "infinity at row 700, column 1")
    refuse(lambda: iter([X, X[:, :2]]), "begins at row 1000 has 2 columns, and those before have 3")
    refuse(Blocks(lambda: iter([X, X[:, :2]]), 1000), "begins at row 1000 has 2 columns, and those before have 3")
    refuse(Blocks(lambda: iter([X, (X, np.ones(1000))]), 1000), "differs from those before in having weights")
    refuse(lambda: iter([X.astype(np.float32), X]), "begins at row 1000 has dtype float64 after float32")
    refuse(lambda: iter([X, X[0]]), "begins at row 1000 has 1 dimension")
    refuse(lambda: iter([X, [["a", "b", "c"]]]), "begins at row 1000 has dtype|not numbers")
    refuse(lambda: iter([(X, np.ones(1000)), (X, None)]), "differs from those before in having weights")
    refuse(lambda: iter([(X, -np.ones(1000))]), r"sample_weight\[0\] is -1")
    refuse(lambda: iter([(X, np.zeros(1000))]), "zero for every row")
    refuse(lambda: iter([]), "0 sample")
    refuse(lambda: iter([X[:1]]), "1 sample")
    refuse(lambda: 3, "callable that returned int", kind=TypeError)
    refuse(iter([X]), "an iterator, which can be read once", kind=TypeError)
    refuse(Blocks(X, BLOCK), "one weight per row", weight=np.ones(999))
    refuse(Blocks(X, BLOCK), "one weight per row", weight=np.ones(1001))
    refuse(lambda: iter([(X, np.ones(1000))]), "weights already", weight=np.ones(1000))
    refuse(str(tmp_path / "X.csv"), r"must end in one of \.npy")
    refuse(tmp_path / "X.npy", "No such file", kind=FileNotFoundError)
    for arguments, message in [
        (({},), "X must be rows, or a source"),
        ((X, 0), "block_rows must be"),
        ((X[0],), "has 1 dimension"),
    ]:
        with pytest.raises((ValueError, TypeError), match=message):
            Blocks(*arguments)
    with pytest.raises(ValueError, match="columns is for Arrow data"):
        Blocks(X, columns=["a"])
    with pytest.raises(ValueError, match="weight is for Arrow data"):
        Blocks(X, weight="w")


def test_a_source_that_raises_in_the_middle(rng):
    X = rows(rng)

    def failing(at):
        passes = []

        def start():
            passes.append(1)
            yield X[:500]
            if len(passes) >= at:
                raise OSError("the disk is gone")
            yield X[500:]

        return start

    for at in (1, 3):
        refuse(failing(at), "the disk is gone", kind=OSError)


def test_a_source_that_changes(rng, tmp_path):
    X = rows(rng)
    passes = []

    def start():
        passes.append(1)
        return iter([X[: 1000 - 10 * (len(passes) > 2)]])

    refuse(start, "gave 990 rows after 1000 in a later pass")

    def growing():
        passes.append(1)
        return iter([X, X] if len(passes) > 6 else [X])

    refuse(Blocks(growing, 1000), "in a later pass")
    path = tmp_path / "X.npy"
    np.save(path, X)
    source = Blocks(path, BLOCK)
    with open(path, "r+b") as file:
        file.truncate(9000)
    refuse(source, "ends before row 1000, which its header promises")
    path.write_bytes(b"no array")
    refuse(path, "no .npy file of numbers")


def test_refusals_of_arrow_data(rng, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"a": [1.0, 2.0, None, 4.0], "b": ["x", "y", "z", "w"], "c": [1, 2, 3, 5]})
    refuse(Blocks(table, columns=["c"], weight="a"), "no weight at row 2, column 'a'")
    refuse(Blocks(table, columns=["b", "c"]), "column 'b' holds string, not numbers")
    for columns, weight, message in [
        (["d"], None, "'d' is not among"),
        (["c"], "w", "'w' is not among"),
        ([], None, "columns must hold different names"),
    ]:
        with pytest.raises(ValueError, match=message):
            Blocks(table, columns=columns, weight=weight)
    path = tmp_path / "X.parquet"
    parquet.write_table(table, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refuse(path, "X.parquet")
    assert GaussianMixture(1).fit(Blocks(table, columns=["c"])).means_[0, 0] == pytest.approx(2.75)


def test_a_pass_that_is_left_ends_its_thread(rng):
    X = rows(rng)
    data = open_data(Blocks(X, 10))
    walk = iter(data)
    next(walk)
    assert [thread for thread in threading.enumerate() if thread.name == "fastem-reader"]
    walk.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "fastem-reader"]
    assert isinstance(data, Stored)


def test_rows_of_whole_numbers_become_floats(rng, tmp_path):
    X = rng.integers(0, 9, size=(500, 2), dtype=np.int16)
    np.save(tmp_path / "X.npy", X)
    options = {"random_state": 0, "reg_covar": 1e-3}
    file, array = (GaussianMixture(2, **options).fit(source) for source in (tmp_path / "X.npy", X))
    assert np.array_equal(file.means_, array.means_)


def test_masked_blocks_are_refused(rng):
    masked = np.ma.masked_greater(rng.normal(size=(100, 2)), 1.0)
    for source in (Blocks(lambda: iter([masked])), Blocks(lambda: iter([(np.ones((100, 2)), masked[:, 0])]))):
        with pytest.raises(ValueError, match="masked"):
            GaussianMixture().fit(source)
    with pytest.raises(ValueError, match="masked"):
        Blocks(masked)


def test_blocks_that_share_memory_as_tables(rng):
    pandas = pytest.importorskip("pandas")
    X = rng.normal(size=(1000, 2))

    def blocks():
        buffer = np.empty((100, 2))
        for first in range(0, 1000, 100):
            buffer[:] = X[first : first + 100]
            yield pandas.DataFrame(buffer, copy=False)

    np.testing.assert_array_equal(np.concatenate([rows for rows, _ in Blocks(blocks, 1000)]), X)


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_file_that_is_cut_short_or_replaced_ends_with_an_error(order, rng, tmp_path):
    path = tmp_path / "X.npy"
    np.save(path, np.asarray(rng.normal(size=(5000, 2)), order=order))
    blocks = Blocks(path, 1000)
    assert len(pickle.dumps(blocks)) < 2000
    data = open_data(blocks)
    np.save(path, np.asarray(rng.normal(size=(12_000, 2)), np.float32, order=order))
    with pytest.raises(ValueError, match="another header"):
        list(data)
    with open(path, "r+b") as file:
        file.truncate(5000)
    cut = Blocks(path, 1000)
    with pytest.raises(ValueError, match=r"ends before row 12000"):
        GaussianMixture().fit(cut)
    if order == "C":
        with pytest.raises(ValueError, match=r"ends before row 12000"):
            cut.take(np.array([3, 11_999]))
    else:
        assert cut.take(np.array([3])) is None


def test_rows_of_files_are_taken_by_number(rng, tmp_path):
    X = rng.normal(size=(1000, 3))
    np.save(tmp_path / "X.npy", X)
    blocks, rows = Blocks(tmp_path / "X.npy"), np.array([1, 5, 999])
    np.testing.assert_array_equal(blocks.take(rows), X[rows])
    assert blocks.take(np.arange(500)) is None  # a pass is faster
    np.testing.assert_array_equal(open_data(blocks).take(np.arange(500)).blocks[0].X, X[:500])


def test_fit_predict_of_a_file_is_refused_before_the_fit(rng, tmp_path):
    np.save(tmp_path / "X.npy", rng.normal(size=(100, 2)))
    gm = GaussianMixture()
    with pytest.raises(TypeError, match="rows in memory"):
        gm.fit_predict(tmp_path / "X.npy")
    assert not hasattr(gm, "means_")
    assert gm.fit_predict(np.load(tmp_path / "X.npy", mmap_mode="r")).shape == (100,)
