"""Model files: what is saved comes back bit for bit, and a bad file is refused without running anything."""

import hashlib
import io
import json
import os
import pickle
import random
import re
import stat
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import joblib
import numpy as np
import pytest
import sklearn.mixture
from sklearn.base import clone

import fastem
from fastem import persistence
from fastem.persistence import ModelFileError, load, read_model, save

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical", "VVE")
SHARED = np.random.default_rng(7).standard_normal((120, 2)) + np.repeat([[0.0, 0.0], [6.0, 3.0]], 60, axis=0)


@pytest.fixture(scope="module", params=COVARIANCE_TYPES)
def fitted(request):
    return fastem.GaussianMixture(2, covariance_type=request.param, random_state=0).fit(SHARED)


@pytest.fixture
def model():
    """A model of its own for each test, which may change it."""
    return fastem.GaussianMixture(2, random_state=0).fit(SHARED)


@pytest.fixture
def path(model, tmp_path):
    """A sound model file."""
    target = tmp_path / "m.fastem"
    save(model, target)
    return target


def same(a, b):
    """Same type and same bits, all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        return a.tolist() == b.tolist() if a.dtype == object else a.tobytes() == b.tobytes()
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, float):
        return np.float64(a).tobytes() == np.float64(b).tobytes()
    return bool(a == b)


def seal(members):
    """A file with the right digest around any members."""
    return persistence._seal(members)


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path, **changes):
    """Change members (by name) or entries of the manifest, and seal the file again."""
    members = members_of(path)
    manifest = json.loads(members["fastem-model.json"])
    for name, value in changes.items():
        if name.endswith(".npy"):
            members[name] = value
        else:
            manifest[name] = value
    members["fastem-model.json"] = json.dumps(manifest).encode()
    path.write_bytes(seal(members))


def npy(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def refused(path, *words):
    """Loading raises one ModelFileError, of one line, that names the file and holds the words."""
    with pytest.raises(ModelFileError) as caught:
        load(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


# what is saved comes back


def test_round_trip(fitted, tmp_path):
    save(fitted, tmp_path / "m.fastem")
    loaded = load(tmp_path / "m.fastem")
    assert type(loaded) is fastem.GaussianMixture
    assert same(vars(loaded), vars(fitted))
    X = np.random.default_rng(1).standard_normal((50, 2)) * 4
    for method in ("predict", "predict_proba", "score_samples"):
        assert same(getattr(loaded, method)(X), getattr(fitted, method)(X))
    assert same(loaded.sample(5), fitted.sample(5))
    assert loaded.score(X) == fitted.score(X)
    assert loaded.bic(X) == fitted.bic(X)


def test_loaded_arrays_can_be_written_and_a_fit_goes_on(model, path):
    loaded = load(path)
    loaded.means_[0, 0] += 0.0
    again = load(path).set_params(warm_start=True, tol=0.0, max_iter=3, stopping="change")
    model.set_params(warm_start=True, tol=0.0, max_iter=3, stopping="change")
    with pytest.warns(sklearn.exceptions.ConvergenceWarning):
        model.fit(SHARED)
    with pytest.warns(sklearn.exceptions.ConvergenceWarning):
        again.fit(SHARED)
    assert same(again.means_, model.means_)
    assert same(again.covariances_, model.covariances_)


def test_a_model_from_parameters(tmp_path):
    model = fastem.GaussianMixture.from_parameters([0.5, 0.5], [[0.0], [3.0]], [1.0, 2.0], covariance_type="spherical")
    save(model, tmp_path / "m.fastem")
    loaded = load(tmp_path / "m.fastem")
    assert same(vars(loaded), vars(model))
    assert loaded.lower_bound_ == -np.inf
    assert loaded.status_ is fastem.Status.NOT_ITERATED


def test_feature_names(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(SHARED, columns=["Länge", "b"])
    save(fastem.GaussianMixture(2, random_state=0).fit(frame), tmp_path / "m.fastem")
    loaded = load(tmp_path / "m.fastem")
    assert loaded.feature_names_in_.tolist() == ["Länge", "b"]
    assert loaded.feature_names_in_.dtype == object
    assert loaded.predict(frame).shape == (120,)
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(frame.rename(columns={"b": "c"}))


VALUES = [
    None,
    True,
    -5,
    2**80,
    0.1,
    -0.0,
    5e-324,
    float("nan"),
    float("inf"),
    -float("inf"),
    "text \N{SNOWMAN} \0 \ud800",
    np.float32(0.1),
    np.float64("nan"),
    np.int16(-3),
    np.bool_(True),
    np.str_("x"),
    np.arange(6).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(6, dtype=">f4"),
    np.array(2.5),
    np.empty((0, 3)),
    np.array([True, False]),
    np.array([np.nan, -np.inf, -0.0], dtype=np.float16),
    np.array([["a", "bcd"]]),
    np.array(["a", "b"], dtype=object),
    [1, [2.0, None], (np.arange(2), "x")],
    (),
    {"a": (1, np.arange(3)), "": []},
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}-{value!r:.20}")
def test_values_of_parameters(model, tmp_path, value):
    model.set_params(resp_init=value)
    save(model, tmp_path / "m.fastem")
    back = load(tmp_path / "m.fastem").resp_init
    assert same(back, value)
    if isinstance(value, np.ndarray):
        assert back.flags.f_contiguous == value.flags.f_contiguous


def test_a_memory_map_is_saved_as_its_numbers(model, tmp_path):
    np.save(tmp_path / "a.npy", SHARED)
    model.set_params(resp_init=np.load(tmp_path / "a.npy", mmap_mode="r"))
    save(model, tmp_path / "m.fastem")
    assert same(load(tmp_path / "m.fastem").resp_init, SHARED)


GENERATORS = [getattr(np.random, name) for name in persistence._GENERATORS]


@pytest.mark.parametrize("bits", GENERATORS, ids=lambda bits: bits.__name__)
@pytest.mark.parametrize("wrapper", [np.random.Generator, np.random.RandomState])
def test_random_generators_go_on_where_they_were(model, tmp_path, bits, wrapper):
    stream = wrapper(bits(3))
    stream.standard_normal(7)
    stream.normal()  # leaves half of a pair behind in a RandomState
    stream.bytes(5)
    model.random_state = stream
    save(model, tmp_path / "m.fastem")
    loaded = load(tmp_path / "m.fastem").random_state
    assert type(loaded) is wrapper
    assert same(loaded.normal(size=700), stream.normal(size=700))
    assert loaded.bytes(9) == stream.bytes(9)


def test_the_same_model_gives_the_same_bytes(model, path, tmp_path):
    save(load(path), tmp_path / "again.fastem")
    assert (tmp_path / "again.fastem").read_bytes() == path.read_bytes()


def test_other_tools_can_read_the_arrays(model, path):
    with np.load(path, allow_pickle=False) as archive:
        assert same(archive["means_"], model.means_)
    manifest = json.loads(members_of(path)["fastem-model.json"])
    assert manifest["format"] == "fastem-model"
    assert manifest["fastem_version"] == fastem.__version__
    assert manifest["class"] == "GaussianMixture"
    assert manifest["params"]["n_components"] == 2


def test_read_model_tells_the_versions(path):
    model = read_model(path)
    assert (model.format_version, model.fastem_version) == (persistence.FORMAT_VERSION, fastem.__version__)


def test_an_older_file_lacks_newer_parameters(path):
    params = json.loads(members_of(path)["fastem-model.json"])["params"]
    del params["n_threads"]
    rewrite(path, params=params)
    assert load(path).n_threads is None


@pytest.mark.parametrize("kind", [str, Path, os.fsencode])
def test_any_kind_of_path(model, tmp_path, kind):
    target = kind(str(tmp_path / "m.fastem"))
    if kind is os.fsencode:
        with pytest.raises(TypeError):
            save(model, target)
        return
    save(model, target)
    assert same(load(target).means_, model.means_)


@pytest.mark.parametrize("name", sorted(persistence.LOADABLE))
def test_the_registry_names_what_exists(name):
    module, _, cls = persistence.LOADABLE[name].path.partition(":")
    assert cls == name
    assert isinstance(getattr(__import__(module, fromlist=[cls]), cls), type)


def test_pickle_joblib_and_clone(fitted, tmp_path):
    joblib.dump(fitted, tmp_path / "m.joblib")
    for copy in (pickle.loads(pickle.dumps(fitted)), joblib.load(tmp_path / "m.joblib")):
        assert same(vars(copy), vars(fitted))
        assert same(copy.predict_proba(SHARED), fitted.predict_proba(SHARED))
        assert copy.status_ is fitted.status_
    save(fitted, tmp_path / "m.fastem")
    assert clone(load(tmp_path / "m.fastem")).get_params() == fitted.get_params()


def test_it_needs_no_scikit_learn_to_import():
    code = "import sys, fastem.persistence; sys.exit('sklearn' in sys.modules or 'numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, env=environment()).returncode == 0


def environment():
    root = str(Path(fastem.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}


# what cannot be saved


class Subclass(fastem.GaussianMixture):
    pass


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: fastem.GaussianMixture(), "not fitted yet; call fit"),
        (lambda: sklearn.mixture.GaussianMixture(2, random_state=0).fit(SHARED), "sklearn.mixture"),
        (lambda: Subclass(2, random_state=0).fit(SHARED), "Subclass cannot be saved"),
        (lambda: "a string", "builtins.str cannot be saved"),
    ],
)
def test_refuses_to_save(tmp_path, make, words):
    with pytest.raises(ModelFileError, match=words):
        save(make(), tmp_path / "m.fastem")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "value",
    [
        object(),
        len,
        {1, 2},
        b"bytes",
        1j,
        np.array([1, None], dtype=object),
        np.array([1j]),
        np.array([1.0], dtype=np.longdouble),
        np.zeros(2, dtype=[("a", "f8")]),
        np.array(["2020"], dtype="M8[D]"),
        np.ma.masked_array([1.0, 2.0], mask=[True, False]),
        [1, [len]],
        np.random,
    ],
    ids=lambda value: f"{type(value).__name__}-{value!r:.20}",
)
def test_refuses_values(model, path, value):
    before = path.read_bytes()
    model.set_params(means_init=value)
    with pytest.raises(ModelFileError, match=r"means_init.* holds a"):
        save(model, path)
    assert path.read_bytes() == before


def test_refuses_to_save_what_it_would_not_load(model, tmp_path):
    model.means_ = model.means_[:1]
    with pytest.raises(ModelFileError, match="shape"):
        save(model, tmp_path / "m.fastem")
    assert list(tmp_path.iterdir()) == []


def test_directories_and_missing_files(model, tmp_path):
    with pytest.raises(ModelFileError, match="is a directory"):
        save(model, tmp_path)
    with pytest.raises(ModelFileError, match="is a directory"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        load(tmp_path / "none.fastem")
    assert caught.value.filename == str(tmp_path / "none.fastem") or caught.value.filename == tmp_path / "none.fastem"
    with pytest.raises(FileNotFoundError) as caught:
        save(model, tmp_path / "none" / "m.fastem")
    assert caught.value.filename == str(tmp_path / "none" / "m.fastem")  # not the temporary name


# damaged files


def test_truncated_anywhere(path):
    data = path.read_bytes()
    for twentieth in range(20):
        path.write_bytes(data[: len(data) * twentieth // 20])
        refused(path)
    path.write_bytes(data[:-1])
    refused(path, "damaged or cut short")


def test_every_byte_counts(path):
    data = path.read_bytes()
    rng = random.Random(0)
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= rng.randrange(1, 256)
        path.write_bytes(changed)
        with pytest.raises(ModelFileError):
            load(path)


@pytest.mark.parametrize("seed", range(20))
def test_damage_in_several_places(path, seed):
    data = bytearray(path.read_bytes())
    rng = random.Random(seed)
    kind = seed % 4
    start = rng.randrange(len(data) - 40)
    if kind == 0:
        data[start : start + 32] = bytes(32) if any(data[start : start + 32]) else b"x" * 32
    elif kind == 1:
        del data[start : start + rng.randrange(1, 40)]
    elif kind == 2:
        data[start:start] = rng.randbytes(rng.randrange(1, 40))
    else:
        data += rng.randbytes(rng.randrange(1, 40))
    path.write_bytes(data)
    refused(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"a,b\n1,2\n",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"PK\x03\x04",
        b"PK\x05\x06" + bytes(18),
        bytes(10_000),
        npy(SHARED),
        pickle.dumps({"a": 1}),
    ],
    ids=["empty", "csv", "png", "start of a zip", "empty zip", "zeros", "npy", "pickle"],
)
def test_foreign_files(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    refused(tmp_path / "x", "is empty" if not content else "is not a model file")


def test_a_foreign_zip(tmp_path):
    np.savez(tmp_path / "x.npz", a=SHARED)
    refused(tmp_path / "x.npz", "is not a model file")
    with zipfile.ZipFile(tmp_path / "y.zip", "w") as archive:
        archive.writestr("fastem-model.json", "{}")
    refused(tmp_path / "y.zip", "damaged or cut short")


# files made with intent: the digest is right, the rest is not


class Evil:
    """Unpickling this would make a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


def test_a_pickle_is_never_run(path, tmp_path):
    mark = tmp_path / "mark"
    evil = pickle.dumps(Evil(mark))
    pickle.loads(evil).close()
    assert mark.exists()  # the trap works
    mark.unlink()
    sound = members_of(path)
    array = npy(np.array([Evil(mark)], dtype=object), allow_pickle=True)
    attacks = [
        {**sound, "means_.npy": array},
        {**sound, "means_.npy": evil},
        {**sound, "extra.npy": array},
        {**sound, "extra.pkl": evil},
        {**sound, "fastem-model.json": evil},
    ]
    for members in attacks:
        path.write_bytes(seal(members))
        refused(path)
    path.write_bytes(evil)
    refused(path)
    assert not mark.exists()


def test_a_newer_format(path):
    rewrite(path, format_version=2, fastem_version="9.9")
    refused(path, "fastem 9.9", "format 2", "pip install --upgrade fastem")


def test_an_unknown_class(path):
    rewrite(path, **{"class": "os.system"})
    refused(path, "'os.system'", "knows: BernoulliMixture")


MANIFESTS = {
    "foreign": {"format": "other"},
    "version is text": {"format_version": "1"},
    "version is true": {"format_version": True},
    "class is a list": {"class": ["GaussianMixture"]},
    "params is a list": {"params": [1]},
    "unknown parameter": {"params": {"n_compnents": 2}},
    "attributes is null": {"attributes": None},
    "no attributes": {"attributes": {}},
}


@pytest.mark.parametrize("changes", MANIFESTS.values(), ids=MANIFESTS)
def test_bad_manifests(path, changes):
    rewrite(path, **changes)
    refused(path)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"{" * 3000,
        b"[" * 100_000,
        b'{"format": "fastem-model", "format": "fastem-model"}',
        b'{"format": NaN}',
        b'{"format_version": ' + b"9" * 10_000 + b"}",
        b"\xff\xfe",
    ],
)
def test_manifests_that_are_not(path, text):
    path.write_bytes(seal({**members_of(path), "fastem-model.json": text}))
    refused(path)


@pytest.mark.parametrize(
    "name", ["__class__", "__dict__", "__init__", "predict", "fit", "n_components", "_private_", "a b_", ""]
)
def test_only_fitted_attributes_are_set(path, name):
    attributes = json.loads(members_of(path)["fastem-model.json"])["attributes"]
    rewrite(path, attributes={**attributes, name: 1})
    refused(path, "no fitted attribute")


@pytest.mark.parametrize(
    "node",
    [
        {"unknown": 1},
        {},
        {"float": "nan", "array": "means_"},
        {"float": "1_x"},
        {"array": "no_such"},
        {"array": "means_"},  # used twice
        {"array": ["means_"]},
        {"scalar": ["O", 1]},
        {"scalar": ["<f8", "x"]},
        {"scalar": ["|V8", 1]},
        {"scalar": []},
        {"status": "NO_SUCH"},
        {"status": "__class__"},
        {"tuple": 5},
        {"dict": 5},
        {"strings": 5},
        {"Generator": {"dict": {"bit_generator": "system", "state": {"dict": {}}}}},
        {"Generator": {"dict": {"bit_generator": "PCG64", "state": {"dict": {}}}}},
        {"RandomState": 5},
    ],
    ids=repr,
)
def test_bad_values(path, node):
    attributes = json.loads(members_of(path)["fastem-model.json"])["attributes"]
    rewrite(path, attributes={**attributes, "zz_": node})
    refused(path)


def test_a_manifest_is_strict_json(path):
    members = members_of(path)
    text, n_changes = re.subn(rb'"lower_bound_": [^,]*', b'"lower_bound_": NaN', members["fastem-model.json"])
    assert n_changes == 1
    path.write_bytes(seal({**members, "fastem-model.json": text}))
    refused(path, "NaN is not JSON")
    twice = members["fastem-model.json"].replace(b'"converged_":', b'"converged_": true, "converged_":')
    path.write_bytes(seal({**members, "fastem-model.json": twice}))
    refused(path, "twice")


@pytest.mark.parametrize("position", [-1, 625, 10**6])
def test_positions_of_generators_stay_in_their_tables(model, path, position):
    model.random_state = np.random.RandomState(0)
    save(model, path)
    params = json.loads(members_of(path)["fastem-model.json"])["params"]
    params["random_state"]["RandomState"]["dict"]["state"]["dict"]["pos"] = position
    rewrite(path, params=params)
    refused(path, "out of range")


ARRAYS = {
    "shorter": npy(SHARED)[:-1],
    "longer": npy(SHARED) + b"\0",
    "empty": b"",
    "not npy": b"hello",
    "header only": npy(SHARED)[:40],
    "huge": npy(np.zeros((2, 2))).replace(b"(2, 2), }          ", b"(999999999, 999), }"),
    "negative": npy(np.zeros((2, 2))).replace(b"(2, 2), }  ", b"(-2, -2), }"),
    "code in the header": npy(np.zeros((2, 2))).replace(b"(2, 2), }       ", b"(exit(), 2), }  "),
    "complex": npy(np.zeros((2, 2), complex)),
    "records": npy(np.zeros(2, dtype=[("a", "f8"), ("b", "f8")])),
    "other shape": npy(np.zeros((2, 3))),
    "one dimension": npy(np.zeros(2)),
    "more components": npy(np.zeros((3, 2))),
    "integers": npy(np.zeros((2, 2), int)),
    "text": npy(np.full((2, 2), "a")),
}


@pytest.mark.parametrize("content", ARRAYS.values(), ids=ARRAYS)
def test_bad_arrays(path, content):
    rewrite(path, **{"means_.npy": content})
    refused(path)


@pytest.mark.parametrize("name", ["weights_", "covariances_", "precisions_", "precisions_cholesky_"])
def test_shapes_that_do_not_fit_together(path, name):
    rewrite(path, **{f"{name}.npy": npy(np.ones(7))})
    refused(path, name, "shape")


def test_features_that_do_not_fit(path):
    attributes = json.loads(members_of(path)["fastem-model.json"])["attributes"]
    rewrite(path, attributes={**attributes, "n_features_in_": 3})
    refused(path, "n_features_in_")


def test_a_member_that_nothing_refers_to(path):
    path.write_bytes(seal({**members_of(path), "other_.npy": npy(SHARED)}))
    refused(path, "nothing refers to", "other_")


def test_a_member_that_is_missing(path):
    members = members_of(path)
    del members["means_.npy"]
    path.write_bytes(seal(members))
    refused(path)


def archive_of(members, compression=zipfile.ZIP_STORED):
    """A sealed archive of a list of members, each as it is."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.comment = b"0" * 64
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=compression)
    return reseal(buffer.getvalue())


def reseal(data):
    return data[:-64] + hashlib.sha256(data[:-64]).hexdigest().encode()


def test_a_member_that_is_there_twice(path):
    members = list(members_of(path).items())
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = archive_of([*members, members[-1]])
    path.write_bytes(data)
    refused(path, "twice")


def test_a_bomb_is_not_unpacked(path):
    bomb = [
        (name, bytes(50_000_000) if name == "means_.npy" else content) for name, content in members_of(path).items()
    ]
    path.write_bytes(archive_of(bomb, zipfile.ZIP_DEFLATED))
    assert path.stat().st_size < 200_000
    refused(path, "compressed")


def test_sizes_that_lie(path):
    data = path.read_bytes()
    size = len(members_of(path)["means_.npy"]).to_bytes(4, "little")
    entry = data.rindex(b"means_.npy") - 46  # in the directory at the end
    assert data[entry : entry + 4] == b"PK\x01\x02"
    assert data[entry + 24 : entry + 28] == size
    for both in (slice(24, 28), slice(20, 24)):
        changed = bytearray(data)
        changed[entry + both.start : entry + both.stop] = (2**31).to_bytes(4, "little")
        path.write_bytes(reseal(bytes(changed)))
        refused(path)


# nothing is lost


def failing(*_):
    raise OSError(28, "No space left on device")


def interrupted(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("failure", [failing, interrupted])
@pytest.mark.parametrize("existing", [True, False])
def test_a_failed_save_changes_nothing(model, tmp_path, monkeypatch, call, failure, existing):
    target = tmp_path / "m.fastem"
    if existing:
        save(model, target)
        before = target.read_bytes()
    monkeypatch.setattr(os, call, failure)
    model.set_params(random_state=1)
    with pytest.raises((OSError, KeyboardInterrupt)):
        save(model, target)
    assert list(tmp_path.iterdir()) == ([target] if existing else [])
    if existing:
        assert target.read_bytes() == before


@pytest.mark.parametrize("existing", [True, False])
def test_a_failed_write_changes_nothing(model, tmp_path, monkeypatch, existing):
    target = tmp_path / "m.fastem"
    if existing:
        target.write_bytes(b"old")
    real_open = open

    class Full(io.FileIO):
        def write(self, data):
            super().write(data[:100])
            failing()

    def open_full(file, mode="r", *args, **options):
        return Full(file, mode) if mode == "xb" else real_open(file, mode, *args, **options)

    monkeypatch.setattr("builtins.open", open_full)
    with pytest.raises(OSError, match="No space left"):
        save(model, target)
    monkeypatch.undo()
    assert [file.name for file in tmp_path.iterdir()] == (["m.fastem"] if existing else [])
    if existing:
        assert target.read_bytes() == b"old"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX resource limits")
def test_a_disk_that_is_really_full(path):
    """The kernel itself refuses the write, in a process of its own."""
    before = path.read_bytes()
    code = (
        "import resource, sys, fastem; model = fastem.load(sys.argv[1]).set_params(resp_init=[0.5] * 9999)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "try: fastem.save(model, sys.argv[1])\n"
        "except OSError as error: sys.exit(0 if error.errno == 27 else 2)\n"
        "sys.exit(1)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False, env=environment()).returncode == 0
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_process_killed_before_the_rename(path):
    before = path.read_bytes()
    code = (
        "import os, sys, fastem; os.replace = lambda *_: os._exit(9)\n"
        "fastem.save(fastem.load(sys.argv[1]).set_params(random_state=5), sys.argv[1])"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False, env=environment()).returncode == 9
    assert path.read_bytes() == before
    assert load(path).random_state == 0


def test_readers_and_writers_at_once(model, path):
    """A reader sees a whole file, of one writer or the other."""
    errors = []
    done = threading.Event()

    def read():
        try:
            while not done.is_set():
                assert load(path).means_.shape == (2, 2)
        except Exception as error:
            errors.append(error)

    def write():
        try:
            for _ in range(20):
                save(model, path)
        except Exception as error:
            errors.append(error)

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write) for _ in range(3)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert errors == []
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_permissions_are_those_of_any_new_file(model, tmp_path, mask):
    old = os.umask(mask)
    try:
        save(model, tmp_path / "m.fastem")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "m.fastem").stat().st_mode) == 0o666 & ~mask


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links and devices")
def test_links_and_devices_stay_what_they_are(model, path, tmp_path):
    link = tmp_path / "link.fastem"
    link.symlink_to(path.name)
    save(model.set_params(random_state=9), link)
    assert link.is_symlink()
    assert load(path).random_state == 9
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    data = []
    reader = threading.Thread(target=lambda: data.append(pipe.read_bytes()))
    reader.start()
    save(model, pipe)
    reader.join()
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert data[0] == path.read_bytes()


def test_a_long_name(model, tmp_path):
    target = tmp_path / ("m" * 255)
    save(model, target)
    assert same(load(target).means_, model.means_)


def test_errors_are_value_errors_with_one_name():
    assert issubclass(ModelFileError, ValueError)
    assert re.search("SHA-256|checksum", load.__doc__ + persistence.__doc__)
