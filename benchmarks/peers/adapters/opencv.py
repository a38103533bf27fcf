"""OpenCV's EM (cv2.ml.EM)."""

TITLE = "OpenCV"
INSTALL = "make peers PEERS=opencv"
FITS = ("full", "diag", "spherical")
DTYPES = ("float64", "float32")
TOLERANCE = 1e-3  # it floors the eigenvalues of covariances


def version():
    import cv2

    return cv2.__version__


def prepare(X, start, covariance_type):
    import cv2
    import numpy as np

    n_components, n_features = start["means"].shape
    kind = {
        "full": cv2.ml.EM_COV_MAT_GENERIC,
        "diag": cv2.ml.EM_COV_MAT_DIAGONAL,
        "spherical": cv2.ml.EM_COV_MAT_SPHERICAL,
    }[covariance_type]
    eye = np.eye(n_features)
    # a Mat, or OpenCV takes the last axis for the channels of an image
    covariances = cv2.Mat(np.array([c if c.ndim == 2 else c * eye for c in start["covariances"]]), wrap_channels=False)

    def run(n_iter):
        model = cv2.ml.EM_create()
        model.setClustersNumber(n_components)
        model.setCovarianceMatrixType(kind)
        model.setTermCriteria((cv2.TERM_CRITERIA_COUNT, n_iter, 0.0))
        model.trainE(X, start["means"], covariances, start["weights"][None])
        found = np.array(model.getCovs())
        if covariance_type != "full":
            found = np.diagonal(found, axis1=1, axis2=2)
        return model.getWeights()[0], model.getMeans(), found if covariance_type != "spherical" else found[:, 0]

    return run
