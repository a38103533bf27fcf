"""fastem: latent-variable models by Expectation-Maximization, fast on a CPU.

Names load on first use, so that `import fastem` costs neither scikit-learn nor numba's compiler.
"""

import importlib

__version__ = "0.1.0"

_HOMES = {
    "Blocks": "fastem.sources",
    "Conjugate": "fastem.families.exponential",
    "DegenerateError": "fastem.protocol",
    "DriftWarning": "fastem.drift",
    "Gaussian": "fastem.families.gaussian",
    "GaussianMixture": "fastem.estimators.gaussian_mixture",
    "Iteration": "fastem.protocol",
    "ModelFileError": "fastem.persistence",
    "Mixture": "fastem.models.mixture",
    "NormalInverseWishart": "fastem.families.normal_inverse_wishart",
    "Online": "fastem.online",
    "Poisson": "fastem.families.poisson",
    "Result": "fastem.protocol",
    "Status": "fastem.protocol",
    "Selection": "fastem.selection",
    "bootstrap_test": "fastem.selection",
    "fit": "fastem.em",
    "load": "fastem.persistence",
    "save": "fastem.persistence",
    "select": "fastem.selection",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'fastem' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOMES))
