"""Copy the cases of a reference collection that the tests run, and the tables they read, into this folder.

    python tests/reference/select_cases.py COLLECTION

COLLECTION is the folder that holds cases_dev.json and data/. README.md here says what is taken and what is left out.
"""

import json
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
FAMILIES = {
    "gmm-mclust", "gmm-mclust-1d", "gmm-map-mclust", "gmm-sklearn", "gmm-score", "gmm-multistart", "gmm-select",
}  # fmt: skip
KERNELS = {"multivariate_normal_logpdf", "gaussian_mixture_1d_posterior", "weighted_mean_covariance"}
# Further files: the families whose cases they hold, all of them, and types of kernel cases.
MORE = {
    "missing.json": {"mvn-missing", "gmm-missing"},
    "student_t.json": {"tmix", "multivariate_t_logpdf"},
    "regressions.json": {"regression-mixture"},
    "cases_hmm.json": {
        "hmm-poisson", "hmm-gaussian-diag", "hmm-gaussian-full", "hmm-gaussian-spherical", "hmm-gaussian-tied",
        "hmm-categorical", "hmm-score", "hmm_forward",
    },
    "counts_and_categories.json": {
        "bernoulli-mixture", "categorical-mixture", "poisson-mixture", "poisson_logpmf",
    },
}  # fmt: skip


def selected(case):
    """Whether the case is about a mixture of normals, or a part of its computation."""
    if case["family"] == "kernel":
        return case["model"]["type"] in KERNELS
    return case["family"] in FAMILIES


def main(collection):
    """Write cases.json and further files, one case a line, and data/."""
    every = json.loads((collection / "cases_dev.json").read_text())
    write("cases.json", [case for case in every if selected(case)], collection)
    for name, families in MORE.items():
        write(name, [case for case in every if families & {case["family"], case["model"].get("type")}], collection)


def write(name, cases, collection):
    """Write one file of cases, and copy the tables they read."""
    files = set()
    for case in cases:
        case.pop("verified", None)
        files |= {part["file"] for part in (case["data"], case["init"] or {}) if "file" in part}
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    (HERE / name).write_text(f"[\n{lines}\n]\n")
    for file in sorted(files):
        shutil.copyfile(collection / file, HERE / file)
    print(name, len(cases), "cases,", len(files), "tables")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
