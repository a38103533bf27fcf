"""Fixtures, and a cache of compiled kernels that follows every source of the package."""

import hashlib
import os
import pathlib
import sys
import tempfile

TYPES = ("full", "tied", "diag", "spherical")  # scikit-learn's structures, and the others of mclust
STRUCTURES = ("EII", "EEI", "VEI", "EVI", "VEE", "EVE", "VVE", "EEV", "VEV", "EVV")
PACKAGE = pathlib.Path(__file__).resolve().parent.parent / "fastem"


def source_hash() -> str:
    """Hash of all kernel sources: numba's cache does not see a change in another file than the kernel's own."""
    digest = hashlib.sha256()
    for path in sorted((PACKAGE / "kernels").glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


if "numba" in sys.modules:
    raise RuntimeError("numba was imported before the tests could choose its cache folder")
os.environ["NUMBA_CACHE_DIR"] = os.path.join(tempfile.gettempdir(), f"fastem-kernels-{os.getuid()}-{source_hash()}")
os.environ.setdefault("OMP_NUM_THREADS", "2")

import numpy as np  # noqa: E402
import pytest  # noqa: E402


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240607)


def simulate(rng, n_samples=600, n_features=3, n_components=3, separation=3.0, dtype=np.float64):
    """Rows of a mixture with random means and covariances."""
    means = separation * rng.normal(size=(n_components, n_features))
    labels = rng.integers(n_components, size=n_samples)
    roots = rng.normal(size=(n_components, n_features, n_features)) / np.sqrt(n_features) + np.eye(n_features)
    rows = means[labels] + np.einsum("nij,nj->ni", roots[labels], rng.normal(size=(n_samples, n_features)))
    return rows.astype(dtype)
