"""scikit-learn's GaussianMixture over fastem's model and driver, with what normal components allow beside."""

from fastem.estimators.deconvolution import Deconvolution
from fastem.estimators.imputation import Imputation
from fastem.estimators.normal_mixture import NormalMixture


class GaussianMixture(Deconvolution, Imputation, NormalMixture):
    """Gaussian mixture, a drop-in for `sklearn.mixture.GaussianMixture` with weights, priors and threads.

    Parameters
    ----------
    n_components : int, default=1
        Number of components K.
    covariance_type : str, default='full'
        'full', 'tied', 'diag' or 'spherical': a covariance matrix each, one for all, variances each, or one variance
        each. Or a structure by its name in mclust: three letters, which say whether the volumes, the shapes and the
        orientations of the covariances are equal (E), vary (V), or are the identity (I): 'EII', 'VII' (spherical),
        'EEI', 'VEI', 'EVI', 'VVI' (diag), 'EEE' (tied), 'VEE', 'EVE', 'VVE', 'EEV', 'VEV', 'EVV', 'VVV' (full); for one
        column also 'E' and 'V'. After Celeux & Govaert (1995), Pattern Recognition 28, 781-793. Those with equal
        orientations or shapes in rotated axes (EVE, VVE, EEV, VEV), and spherical ones, depend on the units of columns.
    tol : float, default=1e-3
        For `stopping`, in nats per sample.
    reg_covar : float, default=1e-6
        Added to the variances after each M-step, in squared units of the data.
    max_iter : int, default=100
        Largest number of EM iterations of a start on all rows.
    n_init : int, default=1
        Number of starts (or races, see `n_race`); the best is kept.
    init_params : {'kmeans', 'k-means++', 'k-means||', 'ward', 'random_from_data', 'random'}, default='kmeans'
        How a start finds its first responsibilities: by nearest centre, or by chance. In a race (`n_race`) 'kmeans'
        takes turns with 'random_from_data' and 'k-means++'. 'k-means||' takes its centres from all rows that it is
        given (in a race, those of the sample), the others from some thousands, 'ward' by hierarchical clustering of
        2000. Distances are taken on columns
        scaled by powers of two to comparable spread, so that a fit does not depend on the units.
    weights_init : array-like of shape (n_components,), default=None
    means_init : array-like of shape (n_components, n_features), default=None
    precisions_init : array-like, default=None
        Inverse covariances of the shape of `covariances_`. What is given replaces that part of the start.
    random_state : int, RandomState instance or None, default=None
    warm_start : bool, default=False
        Start from the parameters of the last call of fit.
    verbose : int, default=0
        1 prints a line every `verbose_interval` iterations, 2 also the change and the time.
    verbose_interval : int, default=10
    stopping : {'change', 'aitken'}, default=None
        'change' is scikit-learn's rule, a change of the objective below `tol`; 'aitken' waits until the estimated
        limit is less than `tol` away, so that slow convergence is not taken for the end. None: 'aitken' for a
        thousandth of `tol`, or 'change' if the start is given.
    n_race : int, default=None
        0: each start is found and followed on all rows. Otherwise so many race for each on samples of rows: in each
        heat the better half goes on, over twice the rows, and all rows are read only for the end, which makes it
        less likely in a bad optimum; with few rows all of them are read throughout. None: 12, or 0 for one component,
        where the start is given, or where nothing is iterated. A warm start does not race.
    split_merge : bool, default=False
        Whether to look, on a sample before all rows are read, for a better optimum by merging two components and
        splitting a third, at several times the cost of a race.
    acceleration : {'auto', 'anderson', 'squarem', None}, default='auto'
        'anderson' extrapolates along the last steps and keeps what leads uphill: four times fewer iterations or less
        where EM is slow, as with overlapping or surplus components. 'squarem' does so along every two: three times
        fewer. None: EM itself. 'auto': 'anderson', or EM itself if the start is given, with weights, means and
        precisions or with `resp_init`: the steps are then scikit-learn's. For the other algorithms it serves the race
        alone.
    algorithm : {'batch', 'minibatch', 'incremental'}, default='batch'
        How a start is followed on all rows. 'minibatch': a step of stepwise EM after each `batch_size` rows, in random
        order, `n_epochs` times over, then one iteration of EM; for data so large that few passes can be made.
        'incremental': an M-step after each block of rows, whose statistics replace those it had in the pass before;
        `lower_bounds_` then bound the log-likelihood from below. See `fastem.fit`.
    n_epochs : int, default=10
        Passes over the rows of 'minibatch', whatever `tol`, `stopping` and `max_iter`; these serve its race alone. The
        other algorithms make at most `max_iter`.
    max_time : float, default=None
        Seconds after which no further iteration begins.
    resp_init : array-like of shape (n_samples,) or (n_samples, n_components), default=None
        Labels from 0, or responsibilities, to start from instead of `init_params`.
    weight_concentration_prior : float, default=None
        Parameter (at least 1) of a symmetric Dirichlet prior on the weights. None: no prior.
    mean_prior : array-like of shape (n_features,), default=None
        Centre of the prior of the means. None: the mean of the data.
    mean_precision_prior : float, default=None
        Rows that the prior of the means counts for; 0 is none. None: 0.01 with a `covariance_prior`, else 0.
    degrees_of_freedom_prior : float, default=None
        Of the inverse-Wishart prior of the covariances. None: n_features + 2.
    covariance_prior : 'auto', array-like or None, default=None
        Scale of that prior: (n_features, n_features) for full and tied, (n_features,) or a float for diag, a float
        for spherical, and for other structures as for the form that they are stored as; 'auto': the covariance of the
        data / n_components^(2 / n_features), after Fraley & Raftery (2007), J. Classification 24, 155-181. None: no
        prior. With priors the fit is the posterior mode (MAP), which no component can leave by collapsing; set
        reg_covar=0 then for an objective that never falls. A covariance that all components have has one prior; VEI,
        EVI, EEV and VEV have the powers of |covariance| that mclust gives them.
    n_threads : int, default=None
        Threads of the kernels; None or -1: all that numba may use. The bits of a fit do not depend on it.
    batch_size : int, default=None
        Rows that make a step: of `partial_fit` and of 'minibatch' (None: 64 n_components n_features, but 1024 at least,
        16384 at most, and no more than a quarter of a half-life), or of 'incremental' (None: a hundredth of all, or
        256).
    online : fastem.Online, default=None
        How `partial_fit` and 'minibatch' forget. None: `fastem.Online()`.
    frozen : dict, default=None
        Which of 'weights', 'means' and 'covariances' stay as they are, and of which components: True (all), their
        numbers, or a dict from numbers to values, such as ``{'means': {0: [1.0, 2.0]}, 'weights': [1]}``. Values that
        are not given here are those of `weights_init`, `means_init` and `precisions_init`, or of the last fit or
        `from_parameters` with `warm_start=True`. Starts look for the free components among what the others leave.
        Covariances that are stored once (tied) can only be frozen as a whole. `reg_covar` is not added to them.
    noise : bool, default=False
        Whether rows may be noise: one component more, of the constant density 1 / `noise_volume`, which takes rows
        that are far from all others. A start gives it the twentieth of the rows that are farthest from their centres.
        `predict` says -1 of its rows, `predict_proba` has a last column for it. With tied covariances a pass then
        costs what it does with full ones. It needs rows without missing values or `noise_covariance`, which is that
        of measurements, not of rows.
    noise_volume : float, default=None
        In units of the columns multiplied. None: that of the box around all rows that `fit` is given, or around those
        of the start of a stream.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
        With `noise_weight_` they sum to 1.
    means_ : ndarray of shape (n_components, n_features)
    covariances_, precisions_, precisions_cholesky_ : ndarray
        (K, D, D) full, (D, D) tied, (K, D) diag, (K,) spherical; a precision is U U' with U upper triangular. Those of
        the structures between are stored as the form that holds them: EII, E and V as spherical, EEI, VEI and EVI as
        diag, and VEE, EVE, VVE, EEV, VEV and EVV as full.
    noise_weight_ : float
        0 without noise.
    noise_volume_ : float
        None without noise.
    noise_box_ : ndarray of shape (2, n_features)
        Smallest and largest values of the rows, between which `sample` draws noise; None without any.
    converged_ : bool
    n_iter_ : int
        Iterations of the start that was kept, with the leaps of an acceleration that were refused.
    lower_bound_ : float
        Mean log-likelihood (plus log-prior) per sample that entered the last M-step.
    lower_bounds_ : list of float
        The same for every iteration, but not for refused leaps.
    log_likelihood_ : float
        Total log-likelihood that entered the last M-step, without the prior.
    status_ : fastem.Status
        Why the fit ended.
    n_samples_seen_ : float
        Weight of the rows of `fit` and of all `partial_fit` since.
    stream_ : fastem.online.Stream
        What `partial_fit` knows beside the parameters; only after it.
    drift_score_ : float
        Of `partial_fit`: by how many standard deviations the mean log-density of the last batches, each under the
        parameters that had not seen it, lies below that of those before. Within 3 or so while nothing changes; NaN for
        the first 8 batches.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only if X had string column names.

    Raises
    ------
    ValueError
        At fit, if an argument or the data cannot be used (nothing is computed then and a fitted estimator stays as it
        was), or if every start ends in a collapsed component.

    See Also
    --------
    sklearn.mixture.GaussianMixture : What this replaces.
    MultivariateNormal : A single component, with its mean and covariance.

    Notes
    -----
    NaN is a value that is missing, at random: the likelihood is that of what is there, and each component completes a
    row by regression (Ghahramani & Jordan 1994, Advances in Neural Information Processing Systems 6, 120-127). A row
    without any value is kept and informs nothing; a column without any is refused. Without a NaN nothing of this is
    computed.

    References
    ----------
    Dempster, Laird & Rubin (1977), J. R. Statist. Soc. B 39, 1-38, section 4.3.

    Examples
    --------
    >>> import numpy as np
    >>> from fastem import GaussianMixture
    >>> X = np.array([[1.0, 2], [1, 4], [1, 0], [10, 2], [10, 4], [10, 0]])
    >>> gm = GaussianMixture(n_components=2, random_state=0).fit(X)
    >>> np.sort(gm.means_[:, 0])
    array([ 1., 10.])
    >>> len(set(gm.predict([[0, 0], [12, 3]])))
    2
    """

    _takes_missing = True
