"""Copy cases of a reference collection, and the tables they read, into this folder.

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


def is_markov(case):
    """Whether the case is about a hidden Markov model."""
    return case["family"].startswith("hmm-") or case["model"].get("type") == "hmm_forward"


def main(collection):
    """Write the cases, one a line, and data/."""
    for name, wanted in (("cases.json", selected), ("cases_hmm.json", is_markov)):
        cases = [case for case in json.loads((collection / "cases_dev.json").read_text()) if wanted(case)]
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
