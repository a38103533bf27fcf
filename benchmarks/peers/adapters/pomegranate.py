"""pomegranate's GeneralMixtureModel of normals, in torch."""

TITLE = "pomegranate"
INSTALL = "make peers PEERS=pomegranate (brings torch)"
FITS = ("full", "diag", "diag missing")  # it fits no full covariances to missing values: torch has no masked products
DTYPES = ("float64", "float32")
TOO_SLOW = 20.0  # seconds of an iteration
TOLERANCE = 1e-3  # it computes in float32, and its M-step of missing values takes what there is of each column


def version():
    from importlib.metadata import version

    import pomegranate  # noqa: F401

    return version("pomegranate")


def prepare(X, start, covariance_type):
    import numpy as np
    import torch
    from pomegranate.distributions import Normal
    from pomegranate.gmm import GeneralMixtureModel

    rows = torch.tensor(X.astype(np.float32))
    if np.isnan(X).any():
        rows = torch.masked.MaskedTensor(rows, mask=~torch.isnan(rows))

    def run(n_iter):
        components = [
            Normal(mean.astype(np.float32), covariance.astype(np.float32), covariance_type=covariance_type)
            for mean, covariance in zip(start["means"], start["covariances"], strict=True)
        ]
        model = GeneralMixtureModel(components, priors=start["weights"].astype(np.float32), max_iter=n_iter, tol=-1.0)
        model.fit(rows)
        means = np.array([c.means.numpy() for c in model.distributions])
        return model.priors.numpy(), means, np.array([c.covs.numpy() for c in model.distributions])

    return run
