"""StepMix: latent classes with covariates and more; here its measurement model of categories."""

TITLE = "StepMix"
INSTALL = "make peers PEERS=stepmix"
FITS = ("latent class",)
DTYPES = ("float64",)
TOLERANCE = 1e-6


def version():
    from importlib.metadata import version

    import stepmix  # noqa: F401  (a missing peer says so)

    return version("stepmix")


def prepare(X, start, model):
    """Run so many iterations from the start, to which its own gives way."""
    from stepmix.stepmix import StepMix

    n_components, n_features, n_categories = start["probabilities"].shape
    codes = X.astype(int)

    class Started(StepMix):
        def _initialize_parameters(self, X, random_state):
            super()._initialize_parameters(X, random_state)
            measurement = {"max_n_outcomes": n_categories, "total_outcomes": n_features * n_categories}
            measurement["pis"] = start["probabilities"].reshape(n_components, -1)
            self.weights_ = start["weights"]
            self._mm.set_parameters({**self._mm.get_parameters(), **measurement})

    def run(n_iter):
        fitted = Started(
            n_components, measurement="categorical", max_iter=n_iter, abs_tol=0.0, rel_tol=0.0, progress_bar=0
        ).fit(codes)
        found = fitted.get_parameters()
        return found["weights"], found["measurement"]["pis"].reshape(start["probabilities"].shape)

    return run
