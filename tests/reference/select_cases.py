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
}  # fmt: skip
STRUCTURES = {"VVV", "EEE", "VVI", "VII", "V", "E", "full", "tied", "diag", "spherical"}
TABLES = ("bic_table_columns", "bic_table", "bic_table_converged", "icl_table")


def selected(case):
    """Whether one of the four covariance structures of scikit-learn covers the case."""
    if case["family"] == "kernel":
        return case["model"]["type"] in KERNELS
    if case["family"] == "gmm-select":
        return True  # its tables are cut to the four structures
    return case["family"] in FAMILIES and case["model"]["covariance"] in STRUCTURES


def cut_tables(case):
    """Keep the columns of the four structures in the tables of a gmm-select case."""
    expected = case["expected"]
    keep = [j for j, name in enumerate(expected["bic_table_columns"]) if name in STRUCTURES]
    for table in TABLES:
        rows = expected[table]
        expected[table] = [rows[j] for j in keep] if table == TABLES[0] else [[row[j] for j in keep] for row in rows]
    case["model"]["covariance"] = expected["bic_table_columns"]


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
        if case["family"] == "gmm-select":
            cut_tables(case)
        files |= {part["file"] for part in (case["data"], case["init"] or {}) if "file" in part}
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    (HERE / name).write_text(f"[\n{lines}\n]\n")
    for file in sorted(files):
        shutil.copyfile(collection / file, HERE / file)
    print(name, len(cases), "cases,", len(files), "tables")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
