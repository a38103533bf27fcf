"""hmmlearn's GaussianHMM, scaled, as maximum likelihood; for sequences alone."""

TITLE = "hmmlearn"
INSTALL = "make peers PEERS=hmmlearn"
FITS = ("full HMM", "tied HMM", "diag HMM", "spherical HMM")
DTYPES = ("float64",)
TOLERANCE = 1e-9
TOO_SLOW = 60.0  # seconds of an iteration


def version():
    import hmmlearn

    return hmmlearn.__version__


def prepare(X, start, model, lengths):
    import numpy as np
    from hmmlearn.hmm import GaussianHMM

    covariance_type = model.split()[0]

    def run(n_iter):
        model = GaussianHMM(
            len(start["means"]),
            covariance_type,
            n_iter=n_iter,
            tol=-np.inf,
            init_params="",
            implementation="scaling",
            min_covar=0.0,
            covars_prior=0.0,
            covars_weight=1.0,
        )
        model.startprob_, model.transmat_ = start["startprob"], start["transmat"]
        model.means_, model.covars_ = start["means"], start["covariances"]
        model.fit(X, lengths)
        return [getattr(model, theirs) for theirs in ("startprob_", "transmat_", "means_", "covars_")]

    return run
