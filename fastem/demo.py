"""The main job on real data: Old Faithful and a photograph, fitted, summarised, saved and drawn. `make run` runs it."""

import argparse
import importlib.resources
import pathlib
import time
import warnings

import numpy as np
from sklearn.base import clone
from sklearn.datasets import load_sample_image
from sklearn.exceptions import ConvergenceWarning

import fastem
from fastem import pictures, report


def old_faithful() -> np.ndarray:
    """Lengths of eruptions and waiting times in minutes, (272, 2); see resources/README.md for their source."""
    table = importlib.resources.files("fastem.resources").joinpath("old_faithful.csv")
    with table.open() as lines:
        return np.loadtxt(lines, delimiter=",", skiprows=1)


def china() -> np.ndarray:
    """The photograph of the Summer Palace that scikit-learn ships, (427, 640, 3) in 0..1."""
    return load_sample_image("china.jpg") / 255.0


def describe(name: str, mixture, X: np.ndarray, columns: list[str], seconds: float) -> str:
    """Readable summary of a fit."""
    per_second = mixture.n_iter_ * len(X) / seconds
    return "\n".join(
        [
            f"{name}: {X.shape[0]} rows x {X.shape[1]} columns",
            report.text(mixture, columns),
            "",
            f"BIC             {mixture.bic(X):.6g}",
            f"time            {seconds:.3f} s, start included ({per_second:.3g} rows x iterations a second)",
        ]
    )


def _fit(mixture, X: np.ndarray) -> float:
    """Fit and return the seconds it took; one iteration before leaves compiling out of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        clone(mixture).set_params(max_iter=1).fit(X)
    began = time.perf_counter()
    mixture.fit(X)
    return time.perf_counter() - began


def main(argv: list[str] | None = None) -> int:
    """Run both fits; write models, pictures and the summary to a folder."""
    parser = argparse.ArgumentParser(prog="python -m fastem.demo", description=__doc__)
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("run"), help="folder to write to (default: run)"
    )
    out = parser.parse_args(argv).out
    out.mkdir(parents=True, exist_ok=True)
    print(f"fastem {fastem.__version__}; the first run on a machine compiles its kernels, for ten to twenty seconds\n")

    eruptions = old_faithful()
    geyser = fastem.GaussianMixture(2, tol=1e-6, random_state=0)
    summaries = [describe("Old Faithful", geyser, eruptions, ["eruption", "waiting"], _fit(geyser, eruptions))]
    print(summaries[-1], end="\n\n", flush=True)
    fastem.save(geyser, out / "old_faithful.fastem")
    names = ("eruption (minutes)", "waiting for the next (minutes)")
    pictures.save_figure(
        pictures.density(geyser, eruptions, names, "Old Faithful: a mixture of two normals"), out / "old_faithful.png"
    )

    image = china()
    pixels = image.reshape(-1, 3)
    colours = fastem.GaussianMixture(8, max_iter=500, random_state=0)
    summaries.append(describe("china.jpg", colours, pixels, ["red", "green", "blue"], _fit(colours, pixels)))
    print(summaries[-1], end="\n\n", flush=True)
    fastem.save(colours, out / "china.fastem")
    pictures.save_figure(
        pictures.segmentation(colours, image, "china.jpg: a mixture of eight normals over the colours of its pixels"),
        out / "china.png",
    )

    (out / "summary.txt").write_text("\n\n".join(summaries) + "\n")
    print(f"wrote models, pictures and summary.txt to {out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
