"""One file a peer, each with

TITLE, INSTALL : what it is called, and how to get it.
STRUCTURES, DTYPES : covariance types and dtypes that it fits; others are skipped.
TOLERANCE : relative difference of the log-likelihood that its arithmetic or its regularisation allows.
version() : version of the package in use.
prepare(X, start, covariance_type) : a function run(n_iter) that fits from the start and returns weights, means and
    covariances after so many iterations. A peer that may stop before sets run.n_iter to what it did.
"""
