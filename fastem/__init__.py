"""fastem: latent-variable models by Expectation-Maximization, fast on a CPU.

Names load on first use, so that `import fastem` costs neither scikit-learn nor numba's compiler.
"""

import importlib

__version__ = "0.1.0"

_HOMES = {
    "Bernoulli": "fastem.families.bernoulli",
    "BernoulliMixture": "fastem.estimators.family_mixtures",
    "Beta": "fastem.families.beta",
    "BetaMixture": "fastem.estimators.family_mixtures",
    "Blocks": "fastem.sources",
    "Categorical": "fastem.families.categorical",
    "CategoricalHMM": "fastem.estimators.discrete_hidden_markov",
    "Conjugate": "fastem.families.exponential",
    "DegenerateError": "fastem.protocol",
    "DriftWarning": "fastem.drift",
    "Exponential": "fastem.families.exponential",
    "ExponentialMixture": "fastem.estimators.family_mixtures",
    "ExponentialTime": "fastem.families.exponential_time",
    "FactorAnalyzer": "fastem.families.factor_analyzer",
    "FactorAnalyzerMixture": "fastem.estimators.factor_analyzer_mixture",
    "FactorAnalyzers": "fastem.models.factor_analyzers",
    "Family": "fastem.families.family",
    "GMMHMM": "fastem.estimators.gaussian_hidden_markov",
    "Gamma": "fastem.families.gamma",
    "GammaMixture": "fastem.estimators.family_mixtures",
    "GatedRegression": "fastem.families.gated_regression",
    "GatedRegressions": "fastem.models.gated_regressions",
    "Gaussian": "fastem.families.gaussian",
    "GaussianHMM": "fastem.estimators.gaussian_hidden_markov",
    "GaussianMixture": "fastem.estimators.gaussian_mixture",
    "Geometric": "fastem.families.geometric",
    "GeometricMixture": "fastem.estimators.family_mixtures",
    "HMM": "fastem.estimators.family_hidden_markov",
    "HiddenMarkov": "fastem.models.hidden_markov",
    "Iteration": "fastem.protocol",
    "LatentClass": "fastem.estimators.latent_class",
    "LogNormal": "fastem.families.log_normal",
    "LogNormalMixture": "fastem.estimators.family_mixtures",
    "Mixed": "fastem.families.mixed",
    "MixedMixture": "fastem.estimators.mixed_mixture",
    "Mixture": "fastem.models.mixture",
    "ModelFileError": "fastem.persistence",
    "Multinomial": "fastem.families.multinomial",
    "MultinomialMixture": "fastem.estimators.family_mixtures",
    "MultivariateNormal": "fastem.estimators.multivariate_normal",
    "Normal": "fastem.families.normal",
    "NormalBlock": "fastem.families.normal_block",
    "NormalInverseWishart": "fastem.families.normal_inverse_wishart",
    "Online": "fastem.online",
    "Poisson": "fastem.families.poisson",
    "PoissonHMM": "fastem.estimators.discrete_hidden_markov",
    "PoissonMixture": "fastem.estimators.family_mixtures",
    "Regression": "fastem.families.regression",
    "RegressionMixture": "fastem.estimators.regression_mixture",
    "Regressions": "fastem.models.regressions",
    "Result": "fastem.protocol",
    "Selection": "fastem.selection",
    "Sequences": "fastem.sequences",
    "Status": "fastem.protocol",
    "StudentT": "fastem.families.student_t",
    "StudentTMixture": "fastem.estimators.student_t_mixture",
    "Tabulated": "fastem.families.tabulated",
    "VonMises": "fastem.families.von_mises",
    "VonMisesMixture": "fastem.estimators.family_mixtures",
    "WithNoise": "fastem.families.noise",
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
