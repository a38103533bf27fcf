"""Model files of hidden Markov estimators: fits and streams come back bit for bit and go on; bad files are refused."""

import json
import os

import numpy as np
import pytest
from sklearn.base import clone
from test_persistence import members_of, npy, refused, rewrite, same, seal

import fastem
from fastem import GMMHMM, HMM, CategoricalHMM, GaussianHMM, PoissonHMM
from fastem.persistence import ModelFileError, load, save

LENGTHS = [150, 1, 149, 100]
STATES = np.repeat(np.tile([0, 1, 2, 0], 10), 10)
RNG = np.random.default_rng(3)
NORMAL = np.array([[0.0, 0.0], [4.0, 1.0], [0.0, 5.0]])[STATES] + RNG.normal(size=(400, 2))
COUNTS = RNG.poisson(np.array([1.0, 6.0, 20.0])[STATES])[:, None].astype(float)
CODES = np.where(RNG.random((400, 2)) < 0.8, STATES[:, None] + 3.0, RNG.integers(3, 6, (400, 2)))
MIXED = fastem.Mixed([(fastem.Poisson(), [1]), (fastem.Normal(), [0])])
CASES = {
    "full": (GaussianHMM(2), NORMAL),
    "float32": (GaussianHMM(2), NORMAL.astype(np.float32)),
    "tied": (GaussianHMM(2, covariance_type="tied"), NORMAL),
    "VVE": (GaussianHMM(2, covariance_type="VVE", covariance_prior="auto"), NORMAL),
    "mixed": (GMMHMM(2, 2, covariance_type="diag"), NORMAL),
    "poisson": (PoissonHMM(3, prior=1.0, transmat_prior=np.full((3, 3), 2.0)), COUNTS),
    "categorical": (CategoricalHMM(2), CODES),
    "named": (CategoricalHMM(2, categories=[[3, 4, 5, 9]] * 2, prior=fastem.Conjugate(1.0)), CODES),
    "gamma": (HMM(fastem.Gamma(), 2, 2), np.abs(NORMAL) + 0.1),
    "t": (HMM(fastem.StudentT(), 2), NORMAL),
    "columns": (HMM(MIXED, 2), np.column_stack([NORMAL[:, 0], COUNTS])),
    "regression": (HMM(fastem.Regression(), 2), NORMAL),
}


def with_gaps(X):
    """Rows of which some are missing."""
    X = X.copy()
    X[10:13] = np.nan
    return X


def learned(name, how):
    model, X = CASES[name]
    model = clone(model).set_params(random_state=0, max_iter=400, n_race=0, batch_size=120)
    X = with_gaps(X)
    if how == "waiting":
        return model.partial_fit(X[:151], [150, 1], sequence_weight=[2.0, 0.5]), X
    if how == "fit":
        return model.fit(X, LENGTHS), X
    for _ in range(4):
        model.partial_fit(X, LENGTHS, sequence_weight=[1.0, 2.0, 0.5, 0.0])
    return model, X


@pytest.mark.parametrize("how", ["fit", "stream", "waiting"])
@pytest.mark.parametrize("name", CASES)
def test_what_is_saved_comes_back_and_goes_on(name, how, tmp_path):
    model, X = learned(name, how)
    path = tmp_path / "m.fastem"
    save(model, path)
    loaded = load(path)
    assert type(loaded) is type(model)
    if how != "waiting":
        for method in ("predict", "predict_proba", "decode", "forecast"):
            assert same(getattr(loaded, method)(X, LENGTHS), getattr(model, method)(X, LENGTHS)), method
        assert loaded.score(X, LENGTHS) == model.score(X, LENGTHS)
        assert loaded.bic(X, LENGTHS) == model.bic(X, LENGTHS)
        if name != "regression":
            assert same(loaded.sample(9, random_state=0), model.sample(9, random_state=0))
    for _ in range(4):
        model.partial_fit(X, LENGTHS)
        loaded.partial_fit(X, LENGTHS)
    assert loaded.n_iter_ == model.n_iter_ > 0
    assert same(loaded.transmat_, model.transmat_)
    assert same(loaded.predict_proba(X, LENGTHS), model.predict_proba(X, LENGTHS))
    save(model, path)
    before = path.read_bytes()
    save(loaded, path)
    assert path.read_bytes() == before  # with all that waits, statistics and averages


def test_known_parameters_and_warm_starts(tmp_path):
    path = tmp_path / "m.fastem"
    words = CategoricalHMM.from_parameters([1.0, 0.0], [[0.9, 0.1], [0.3, 0.7]], [[0.7, 0.3], [0.1, 0.9]], [[3, 5]])
    save(words, path)
    assert load(path).predict([[3], [5]]).tolist() == words.predict([[3], [5]]).tolist()
    assert load(path).status_ is fastem.Status.NOT_ITERATED
    model, X = learned("full", "fit")
    save(model, path)
    again = load(path).set_params(warm_start=True).fit(X, LENGTHS)
    assert same(again.means_, model.set_params(warm_start=True).fit(X, LENGTHS).means_)


def test_a_family_of_ones_own_is_not_saved(tmp_path):
    class Mine(fastem.Poisson):
        pass

    model = HMM(Mine(), 2, random_state=0, max_iter=300).fit(COUNTS)
    with pytest.raises(ModelFileError, match=r"family holds a .*Mine"):
        save(model, tmp_path / "m.fastem")
    with pytest.raises(ModelFileError, match="not fitted yet"):
        save(PoissonHMM(2), tmp_path / "m.fastem")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_changes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "m.fastem"
    model, _ = learned("poisson", "stream")
    save(model, path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save(model.set_params(random_state=5), path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


# damaged files


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Sound files: a fit, a stream, and rows that wait."""
    folder = tmp_path_factory.mktemp("sound")
    for how in ("fit", "stream", "waiting"):
        for name in ("full", "mixed", "categorical", "columns"):
            save(learned(name, how)[0], folder / f"{name}-{how}")
    return folder


@pytest.mark.parametrize("how", ["fit", "stream", "waiting"])
def test_damage_is_found(sound, tmp_path, how):
    data = (sound / f"full-{how}").read_bytes()
    path = tmp_path / "m.fastem"
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(data), 60):
        changed = bytearray(data)
        changed[position] ^= int(rng.integers(1, 256))
        path.write_bytes(changed)
        refused(path)
    for part in range(1, 10):
        path.write_bytes(data[: len(data) * part // 10])
        refused(path)


ATTRIBUTES = {
    ("full", "startprob_"): [np.ones(2), np.array([1.0]), np.array([np.nan, 1.0]), np.array([1.5, -0.5])],
    ("full", "transmat_"): [np.eye(3), np.full((2, 2), 0.4), np.array([["a", "b"]] * 2)],
    ("full", "means_"): [np.zeros((3, 2)), np.zeros((2, 3)), np.full((2, 2), np.inf), np.zeros(2)],
    ("full", "covariances_"): [-np.ones((2, 2, 2)), np.zeros((2, 2, 2)), np.eye(2)],
    ("mixed", "weights_"): [np.ones((2, 2)), np.full((2, 3), 1 / 3), np.ones((4, 1))],
    ("categorical", "emissionprob_"): [np.full((2, 6), 0.5), np.full((2, 5), 0.2), -np.ones((2, 6))],
    ("categorical", "categories_/0"): [np.array([3.0, 4.0]), np.array([3.0, 3.0, 4.0])],
}


@pytest.mark.parametrize(("name", "attribute"), ATTRIBUTES)
def test_attributes_that_do_not_fit_together(sound, tmp_path, name, attribute):
    path = tmp_path / "m.fastem"
    path.write_bytes((sound / f"{name}-fit").read_bytes())
    assert f"{attribute}.npy" in members_of(path)
    for array in ATTRIBUTES[name, attribute]:
        rewrite(path, **{f"{attribute}.npy": npy(array)})
        refused(path)


@pytest.mark.parametrize("changes", [{"n_features_in_": 3}, {"status_": None, "n_features_in_": 1}])
def test_numbers_that_do_not_fit(sound, tmp_path, changes):
    path = tmp_path / "m.fastem"
    path.write_bytes((sound / "full-fit").read_bytes())
    attributes = json.loads(members_of(path)["fastem-model.json"])["attributes"]
    rewrite(path, attributes={**attributes, **changes})
    refused(path)


STREAMS = {
    "offsets beyond the rows": ("waiting", "waiting/0/offsets", np.array([0, 150, 999])),
    "negative offsets": ("waiting", "waiting/0/offsets", np.array([0, -1, 151])),
    "offsets that fall": ("waiting", "waiting/0/offsets", np.array([0, 151, 151])),
    "offsets as floats": ("waiting", "waiting/0/offsets", np.array([0.0, 150.0, 151.0])),
    "another number of sequences": ("waiting", "waiting/0/sequence_weight", np.ones(3)),
    "weights of sequences": ("waiting", "waiting/0/sequence_weight", np.array([2.0, np.nan])),
    "weights of rows": ("waiting", "waiting/0/weight", np.ones((151, 1))),
    "no weights of rows": ("waiting", "waiting/0/weight", np.empty((0, 1))),
    "rows of another width": ("waiting", "waiting/0/X", np.zeros((151, 3))),
    "rows of another dtype": ("waiting", "waiting/0/X", np.zeros((151, 2), np.float32)),
    "fewer rows": ("waiting", "waiting/0/X", np.zeros((150, 2))),
    "infinite rows": ("waiting", "waiting/0/X", np.full((151, 2), np.inf)),
    "starts": ("stream", "expected/starts", np.ones(3)),
    "negative starts": ("stream", "expected/starts", -np.ones(2)),
    "transitions": ("stream", "expected/transitions", np.full((2, 2), np.nan)),
    "moments": ("stream", "expected/moments/means", np.ones((2, 3))),
    "averaged transitions": ("stream", "means/0/expected/transitions", np.ones((3, 3))),
    "parameters": ("stream", "params/transmat", np.ones((3, 2))),
    "weights of components": ("stream", "params/weights", np.ones((2, 2))),
    "means": ("stream", "params/components/means", np.ones((3, 2))),
    "the frame": ("stream", "model/frame/center", np.ones(3)),
}


@pytest.mark.parametrize(("how", "member", "array"), STREAMS.values(), ids=STREAMS)
def test_parts_of_a_stream_that_do_not_fit_together(sound, tmp_path, how, member, array):
    path = tmp_path / "m.fastem"
    path.write_bytes((sound / f"full-{how}").read_bytes())
    assert f"stream_/{member}.npy" in members_of(path)
    rewrite(path, **{f"stream_/{member}.npy": npy(array)})
    refused(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"mean_length": ', '"mean_length": -'),
        ('["HiddenMarkov"', '["Mixture"'),
        ('["HiddenMarkovParams"', '["MixtureParams"'),
        ('["ChainMoments"', '["Mean"'),
        ('["Gaussian"', '["Poisson"'),
        ('"class": "GaussianHMM"', '"class": "GaussianMixture"'),
        ('"class": "GaussianHMM"', '"class": "PoissonHMM"'),
    ],
)
def test_records_of_another_kind(sound, tmp_path, old, new):
    path = tmp_path / "m.fastem"
    members = members_of(sound / "full-stream")
    text = json.dumps(json.loads(members["fastem-model.json"]))
    assert old in text
    path.write_bytes(seal({**members, "fastem-model.json": text.replace(old, new).encode()}))
    refused(path)


def test_a_mixture_takes_no_sequences(sound, tmp_path):
    """Nor do sequences take rows alone: a stream of one kind is no stream of the other."""
    path = tmp_path / "m.fastem"
    members = members_of(sound / "full-waiting")
    manifest = json.loads(members["fastem-model.json"])
    params = fastem.GaussianMixture().get_params()
    manifest |= {"class": "GaussianMixture", "params": {"n_components": params["n_components"]}}
    path.write_bytes(seal({**members, "fastem-model.json": json.dumps(manifest).encode()}))
    refused(path)
    save(fastem.GaussianMixture(2).partial_fit(NORMAL[:20]), path)
    manifest = json.loads(members_of(path)["fastem-model.json"])
    manifest |= {"class": "GaussianHMM", "params": {"n_components": 2}}
    path.write_bytes(seal({**members_of(path), "fastem-model.json": json.dumps(manifest).encode()}))
    refused(path, "stream_ do not fit together")
