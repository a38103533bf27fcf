"""Examples in the documentation and in docstrings are run; the demo runs and its pictures are pictures."""

import doctest
import importlib
import pathlib
import pkgutil
import struct

import numpy as np
import pytest
from guide import module_of

import fastem

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MODULES = [name for _, name, _ in pkgutil.walk_packages(fastem.__path__, "fastem.") if not name.endswith("__main__")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages(page):
    before = np.get_printoptions()
    try:
        failed, tried = doctest.testfile(str(page), module_relative=False, globs=dict(vars(module_of(page))))
    finally:
        np.set_printoptions(**before)
    assert failed == 0
    assert tried > 0 or ">>>" not in page.read_text()


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_public_names_load_and_are_documented_with_examples():
    for name in fastem.__all__:
        assert getattr(fastem, name) is not None
    for name in ("GaussianMixture", "Mixture", "fit"):
        assert ">>>" in getattr(fastem, name).__doc__
    with pytest.raises(AttributeError, match="nothing"):
        fastem.nothing  # noqa: B018
    assert set(fastem.__all__) <= set(dir(fastem))


def test_links_of_pages_lead_somewhere():
    for page in PAGES:
        for part in page.read_text().split("](")[1:]:
            target = part.split(")")[0]
            if not target.startswith(("http", "#")):
                assert (page.parent / target.split("#")[0]).exists(), f"{page.name}: {target}"


def test_the_demo(tmp_path, capsys, monkeypatch):
    from fastem import demo

    photograph = demo.china
    monkeypatch.setattr(demo, "china", lambda: photograph()[::4, ::4])  # a sixteenth of the pixels
    assert demo.main(["--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    for words in ("Old Faithful: 272 rows", "BIC", "converged", "log-likelihood", "eruption", "red"):
        assert words in shown
    assert "-1130.26" in shown
    assert (tmp_path / "summary.txt").read_text() in shown
    for name in ("old_faithful.png", "china.png"):
        data = (tmp_path / name).read_bytes()
        assert data.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", data[16:24])
        assert width > 600
        assert height > 400
    geyser = fastem.load(tmp_path / "old_faithful.fastem")
    np.testing.assert_allclose(np.sort(geyser.means_[:, 1]), [54.478, 79.968], atol=2e-3)
    assert fastem.load(tmp_path / "china.fastem").n_components == 8


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_ellipses_have_the_right_distance(kind, rng):
    from fastem.pictures import component_covariances, ellipse

    X = rng.normal(size=(200, 2)) @ np.array([[2.0, 0.5], [0.0, 1.0]])
    mixture = fastem.GaussianMixture(2, covariance_type=kind, max_iter=1000, random_state=0).fit(X)
    covariances = component_covariances(mixture)
    assert covariances.shape == (2, 2, 2)
    gap = ellipse(mixture.means_[0], covariances[0], 1.5) - mixture.means_[0]
    distance = np.sqrt(np.einsum("ni,ij,nj->n", gap, np.linalg.inv(covariances[0]), gap))
    np.testing.assert_allclose(distance, 1.5)


def test_rows_have_the_colours_of_their_ellipses(rng):
    from matplotlib.colors import to_rgba

    from fastem.pictures import density

    centres = np.stack([np.arange(12.0), np.zeros(12)], axis=1)
    X = np.concatenate(
        [np.repeat(centres, 20, axis=0) + rng.normal(0, 0.05, (240, 2)), rng.uniform([0, 1], [11, 9], (20, 2))]
    )
    mixture = fastem.GaussianMixture(12, covariance_type="spherical", noise=True, means_init=centres, random_state=0)
    axes = density(mixture.fit(X), X, ("x", "y"), "twelve and one that is noise").axes[0]
    labels = mixture.predict(X)
    assert labels.max() == 11
    assert labels.min() == -1
    points = axes.collections[-1].get_facecolors()
    ellipses = [
        to_rgba(line.get_color()) for line in axes.lines if line.get_linestyle() == "-" and len(line.get_xdata()) > 1
    ]
    assert len(ellipses) == 12
    np.testing.assert_array_equal(points, np.array([*ellipses, to_rgba("grey")])[labels])


def test_pictures_without_matplotlib_name_the_cure(monkeypatch):
    import sys

    from fastem import pictures

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="fastem\\[plot\\]"):
        pictures.new_figure(1.0, 1.0)
