"""StepMix, latent classes with covariates and more; here its measurement model of categories."""

TITLE = "StepMix"
INSTALL = "make peers PEERS=stepmix"
STRUCTURES = ("latent class",)
DTYPES = ("float64",)
TOLERANCE = 1e-6


def version():
    from importlib.metadata import version

    import stepmix  # noqa: F401  (a missing peer says so)

    return version("stepmix")


def prepare(X, start, covariance_type):
    """Run so many iterations from the start, which its own gives way to."""
    from stepmix.stepmix import StepMix

    sizes = start["covariances"].astype(int)
    codes = X.astype(int)

    class Started(StepMix):
        def _initialize_parameters(self, X, random_state):
            super()._initialize_parameters(X, random_state)
            measurement = {
                **self._mm.get_parameters(),
                "pis": start["means"],
                "max_n_outcomes": int(sizes.max()),
                "total_outcomes": int(sizes.sum()),
            }
            self.set_parameters({"weights": start["weights"], "measurement": measurement})

    def run(n_iter):
        fitted = Started(
            len(start["weights"]), measurement="categorical", max_iter=n_iter, abs_tol=0.0, rel_tol=0.0, progress_bar=0
        ).fit(codes)
        found = fitted.get_parameters()
        return found["weights"], found["measurement"]["pis"], start["covariances"]

    return run
