"""Fitted estimators in one file, without pickle: nothing in a file is ever run.

A model file is a zip archive, not compressed: `fastem-model.json` first (format, versions, class, parameters,
attributes), then one `.npy` member per array, so that `numpy.load` and every zip tool can look inside. The comment
that ends the archive is the SHA-256 of all bytes before it: one changed, missing or added byte anywhere is found.
"""

import contextlib
import dataclasses
import hashlib
import importlib
import io
import json
import math
import os
import re
import secrets
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from fastem.protocol import Status
from fastem.sequences import Run

FORMAT = "fastem-model"
FORMAT_VERSION = 1
_MANIFEST = "fastem-model.json"
_DIGEST = 64  # characters of a SHA-256 in hexadecimal
_START = b"PK\x03\x04"  # of a zip archive; the name of its first member follows at offset 30

_NUMBERS = {np.dtype(code) for code in ("?", "b", "h", "i", "l", "q", "B", "H", "I", "L", "Q", "e", "f", "d")}
_ATTRIBUTE = re.compile(r"[a-z][a-z0-9_]*_")  # of a fitted attribute, as scikit-learn names them
_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")


class ModelFileError(ValueError):
    """A file is not a sound model file, or an estimator cannot be put into one."""


class ModelFile(NamedTuple):
    """A model file, read.

    Attributes
    ----------
    estimator : object
        The fitted estimator.
    format_version : int
        Format of the file.
    fastem_version : str
        Version of fastem that wrote it.
    """

    estimator: Any
    format_version: int
    fastem_version: str


class Loadable(NamedTuple):
    """A class of estimators that may be saved and loaded."""

    path: str  # "module:Class", imported when it is needed
    check: Callable[[Any], None]  # raises ModelFileError if the attributes do not fit together


def _check_gaussian_mixture(estimator: Any) -> None:
    """The kernels index by these shapes without looking again, and the command line shows these attributes."""
    from fastem.families.gaussian import Gaussian

    if not _check_state(estimator):
        return
    n_components, n_features = np.shape(estimator.means_)
    shape = Gaussian(estimator.covariance_type).shape(n_components, n_features)
    expected = {
        "means_": (n_components, n_features),
        "weights_": (n_components,),
        "covariances_": shape,
        "precisions_": shape,
        "precisions_cholesky_": shape,
    }
    _check_arrays(estimator, expected)


def _check_normal(estimator: Any) -> None:
    """The same for a single component."""
    from fastem.families.gaussian import Gaussian

    if not _check_state(estimator):
        return
    n_features = np.size(estimator.mean_)
    shape = Gaussian(estimator.covariance_type).shape(1, n_features)[1:]
    names = "covariance_", "precision_", "precision_cholesky_"
    _check_arrays(estimator, {"mean_": (n_features,), **dict.fromkeys(names, shape)})


def _check_arrays(estimator: Any, expected: dict[str, tuple[int, ...]]) -> None:
    """Whether arrays have their shapes, the first of which ends with the number of columns."""
    for name, wanted in expected.items():
        value = getattr(estimator, name)
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or value.shape != wanted:
            raise ModelFileError(f"{name} should be an array of floats of shape {wanted}")
    name, shape = next(iter(expected.items()))
    if estimator.n_features_in_ != shape[-1]:
        raise ModelFileError(f"{name} has {shape[-1]} columns, but n_features_in_ is {estimator.n_features_in_}")
    _check_noise(estimator, shape[-1])


def _check_noise(estimator: Any, n_features: int) -> None:
    """Whether what is known of the noise fits together."""
    volume, box = getattr(estimator, "noise_volume_", None), getattr(estimator, "noise_box_", None)
    share = getattr(estimator, "noise_weight_", 0.0)
    if not (isinstance(share, float) and 0.0 <= share <= 1.0) or (share > 0.0 and volume is None):
        raise ModelFileError("noise_weight_ should be a float from 0 to 1, and noise_volume_ go with it")
    if volume is not None and not (isinstance(volume, float) and volume > 0.0):
        raise ModelFileError("noise_volume_ should be a positive float")
    if box is not None and not (isinstance(box, np.ndarray) and box.shape == (2, n_features) and box.dtype.kind == "f"):
        raise ModelFileError(f"noise_box_ should be an array of floats of shape (2, {n_features})")


def _check_family(estimator: Any) -> None:
    """The same, as the estimator itself checks what users set by hand."""
    if not _check_state(estimator):
        return
    try:
        estimator._check_learned()
        _check_noise(estimator, estimator._n_columns())
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelFileError(str(error)) from error


def _check_state(estimator: Any) -> bool:
    """Whether there are parameters to check beside the stream and what a fit says of itself, which are sound."""
    stream = getattr(estimator, "stream_", None)
    if stream is not None:
        _check_stream(stream, estimator)
        if not estimator.__sklearn_is_fitted__():  # before its start a stream has no parameters
            return False
    for name in ("status_", "converged_", "n_iter_", "lower_bound_", "lower_bounds_", "log_likelihood_"):
        if not hasattr(estimator, name):
            raise ModelFileError(f"{name} is missing")
    return True


def _check_stream(stream: Any, estimator: Any) -> None:
    """Whether a stream can go on."""
    from fastem.drift import Drift, Reservoir
    from fastem.families.family import Family, are_arrays
    from fastem.families.held import Held
    from fastem.families.noise import WithNoise
    from fastem.models.hidden_markov import HiddenMarkov
    from fastem.models.mixture import Mixture
    from fastem.models.mixture_records import MixtureParams
    from fastem.online import Stream

    def demand(sound: Any) -> None:
        if not sound:
            raise ModelFileError("the parts of stream_ do not fit together")

    d, allow_nan, is_chain = estimator._n_columns(), estimator._takes_missing, estimator._takes_sequences
    demand(isinstance(stream, Stream) and stream.dtype in (np.float32, np.float64) and isinstance(stream.drift, Drift))
    waiting = counting = 0
    for part in stream.waiting:
        if is_chain:
            demand(isinstance(part, Run) and part.is_sound())
            rows, counted = part.X, part.n_counting
        else:
            rows, weight, *labels = part
            demand(weight is None or are_arrays(weight, of=(len(rows),), least=0.0))
            demand(all(codes is None or are_arrays(codes, of=(len(rows),), dtype=np.int64) for codes in labels))
            counted = len(rows) if weight is None else int(np.count_nonzero(weight))
        demand(are_arrays(rows, of=(len(rows), d), dtype=stream.dtype, allow_nan=allow_nan))
        waiting, counting = waiting + len(rows), counting + counted
    counts = (stream.n_waiting, stream.n_counting, stream.n_rows, stream.n_batches)
    demand(all(type(count) is int and count >= 0 for count in counts))
    demand(counts[:2] == (waiting, counting))
    demand(all(type(number) is float and number >= 0 for number in (stream.weight, stream.seen)))
    if stream.model is None:
        demand(stream.params is stream.expected is stream.reservoir is None and stream.means == ())
        return
    model, family = stream.model, stream.model.family
    demand(isinstance(model, HiddenMarkov if is_chain else Mixture) and isinstance(family, Family))
    k = model.n_components
    demand(len(stream.means) <= 2 and all(type(mean.n_batches) is int and mean.n_batches > 0 for mean in stream.means))
    expected = [stream.expected, *(mean.expected for mean in stream.means)]
    if is_chain:
        k *= model.n_mix
        demand(model.are_sound(stream.params, expected) and stream.reservoir is None)
        expected = [part.moments for part in expected]
    else:
        demand(isinstance(stream.params, MixtureParams))
        demand(are_arrays(stream.params.weights, of=(model.n_states,), least=0.0))
        demand(all(isinstance(moments, tuple) and hasattr(moments, "counts") for moments in expected))
        demand(all(are_arrays(moments.counts, of=(model.n_states,), least=0.0) for moments in expected))
        weights, labelled = model.held_weights, model.labelled
        demand(weights is None or are_arrays(np.nan_to_num(weights), of=(model.n_states,), least=0.0))
        demand(labelled is None or are_arrays(labelled, of=(k,), dtype=np.bool_))
    if isinstance(family, WithNoise):
        demand(family.volume is None or type(family.volume) is float)
        demand(all(box is None or are_arrays(box, of=(2, d)) for box in (family.box, family.extent)))
        demand(math.isfinite(family.log_density))
        expected = [moments._replace(counts=moments.counts[:k]) for moments in expected]
        family = family.core
    demand(estimator._is_family(family))
    for moments in expected:
        demand(family.are_sound(stream.params.components, moments, k, d))
    if family.held is not None:
        demand(isinstance(family.held, Held) and set(family.held.masks) <= set(family.frozen_fields))
        demand(are_arrays(*family.held.masks.values(), of=(k,), dtype=np.bool_))
        demand(family.are_sound(family.held.values, expected[0], k, d))
    n_coded = np.size(model.bound.center)
    demand(family.is_coded or n_coded == d)
    demand(are_arrays(*model.bound[:5], of=(n_coded,)) and are_arrays(model.bound.rows, of=(2, n_coded)))
    demand(model.bound.dtype in (np.float32, np.float64))
    if stream.reservoir is not None:
        demand(isinstance(stream.reservoir, Reservoir))
        n = len(stream.reservoir.rows)
        demand(are_arrays(stream.reservoir.rows, of=(n, d), allow_nan=allow_nan))
        demand(are_arrays(*stream.reservoir[1:], of=(n,)))


# A later estimator is one more line here.
LOADABLE = {
    "GaussianMixture": Loadable("fastem.estimators.gaussian_mixture:GaussianMixture", _check_gaussian_mixture),
    "MultivariateNormal": Loadable("fastem.estimators.multivariate_normal:MultivariateNormal", _check_normal),
    "StudentTMixture": Loadable("fastem.estimators.student_t_mixture:StudentTMixture", _check_family),
    "RegressionMixture": Loadable("fastem.estimators.regression_mixture:RegressionMixture", _check_family),
    "FactorAnalyzerMixture": Loadable("fastem.estimators.factor_analyzer_mixture:FactorAnalyzerMixture", _check_family),
    "MixedMixture": Loadable("fastem.estimators.mixed_mixture:MixedMixture", _check_family),
    "HMM": Loadable("fastem.estimators.family_hidden_markov:HMM", _check_family),
    **{
        name: Loadable(f"fastem.estimators.{kind}_hidden_markov:{name}", _check_family)
        for name, kind in (
            ("CategoricalHMM", "discrete"),
            ("GMMHMM", "gaussian"),
            ("GaussianHMM", "gaussian"),
            ("PoissonHMM", "discrete"),
        )
    },
    "LatentClass": Loadable("fastem.estimators.latent_class:LatentClass", _check_family),
    **{
        name: Loadable(f"fastem.estimators.family_mixtures:{name}", _check_family)
        for name in (
            "BernoulliMixture",
            "BetaMixture",
            "ExponentialMixture",
            "GammaMixture",
            "GeometricMixture",
            "LogNormalMixture",
            "MultinomialMixture",
            "PoissonMixture",
            "VonMisesMixture",
        )
    },
}
# Families, whose parameters are records too, and where they are.
_FAMILIES = {
    "Bernoulli": "bernoulli",
    "Beta": "beta",
    "Categorical": "categorical",
    "ExponentialTime": "exponential_time",
    "Gamma": "gamma",
    "Geometric": "geometric",
    "LogNormal": "log_normal",
    "Mixed": "mixed",
    "Multinomial": "multinomial",
    "Normal": "normal",
    "NormalBlock": "normal_block",
    "Poisson": "poisson",
    "VonMises": "von_mises",
}
# Records of fastem's own that attributes and parameters may hold, and where they are.
RECORDS = {
    "Averages": "fastem.families.exponential",
    "ChainMoments": "fastem.models.hidden_markov_records",
    "Conjugate": "fastem.families.exponential",
    "Drift": "fastem.drift",
    "Frame": "fastem.families.family",
    "Gaussian": "fastem.families.gaussian",
    "GaussianParams": "fastem.families.gaussian_records",
    "Held": "fastem.families.held",
    "HiddenMarkov": "fastem.models.hidden_markov",
    "HiddenMarkovParams": "fastem.models.hidden_markov_records",
    "Mean": "fastem.online",
    "IncompleteMixture": "fastem.models.missing",
    "IncompleteNormal": "fastem.models.missing",
    "MixedAverages": "fastem.families.mixed",
    "Mixture": "fastem.models.mixture",
    "MixtureParams": "fastem.models.mixture_records",
    "Moments": "fastem.families.gaussian_records",
    "NormalInverseWishart": "fastem.families.normal_inverse_wishart",
    "Online": "fastem.online",
    "Regression": "fastem.families.regression",
    "RegressionMoments": "fastem.families.regression_records",
    "RegressionParams": "fastem.families.regression_records",
    "Regressions": "fastem.models.regressions",
    "Reservoir": "fastem.drift",
    "ResolvedPrior": "fastem.families.normal_inverse_wishart",
    "Run": "fastem.sequences",
    "Seeds": "fastem.models.mixture_labels",
    "Stream": "fastem.online",
    "StudentT": "fastem.families.student_t",
    "StudentTMoments": "fastem.families.student_t_records",
    "StudentTParams": "fastem.families.student_t_records",
    "WithNoise": "fastem.families.noise",
    **{f"{name}{part}": f"fastem.families.{module}" for name, module in _FAMILIES.items() for part in ("", "Params")},
}


def save(estimator: Any, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator to one file.

    The file is written beside `path` under a temporary name, flushed to the disk, and renamed: whatever fails, an
    existing file at `path` stays as it was and no other is left behind. The same estimator gives the same bytes.

    Parameters
    ----------
    estimator : estimator
        A fitted `fastem` estimator. Its constructor parameters and fitted attributes are stored: arrays of numbers
        or text, numbers, strings, None, lists, tuples, and random generators of NumPy with the state they are in.
        What belongs to the session (metadata routing, callbacks) is not part of a model.
    path : str or path-like
        File to write; `.fastem` is the usual suffix.

    Raises
    ------
    ModelFileError
        If the estimator is not fitted, is of a class that is not in `LOADABLE` (a subclass of yours, for one), or
        holds something else than the above; or if `path` is a directory. Nothing is written then.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import os, tempfile, fastem
    >>> model = fastem.GaussianMixture.from_parameters([0.5, 0.5], [[0.0], [3.0]], [[[1.0]], [[1.0]]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.fastem")
    ...     fastem.save(model, path)
    ...     fastem.load(path).predict([[-1.0], [4.0]])
    array([0, 1])
    """
    cls = type(estimator)
    loadable = LOADABLE.get(cls.__name__)
    if loadable is None or loadable.path != f"{cls.__module__}:{cls.__qualname__}":
        raise ModelFileError(f"{cls.__module__}.{cls.__qualname__} cannot be saved; {_known()}")
    known, estimator = vars(estimator), object.__new__(cls)
    vars(estimator).update(known)  # one state, should `partial_fit` go on in another thread meanwhile
    fitted = {name: value for name, value in vars(estimator).items() if _ATTRIBUTE.fullmatch(name)}
    if not fitted:
        raise ModelFileError(f"this {cls.__name__} is not fitted yet; call fit before save")
    if os.path.isdir(path):
        raise ModelFileError(f"{os.fspath(path)} is a directory; name a file in it")
    loadable.check(estimator)
    arrays: dict[str, np.ndarray] = {}
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "fastem_version": _version(),
        "class": cls.__name__,
        "params": {
            name: _encode(value, f"params/{name}", arrays) for name, value in estimator.get_params(deep=False).items()
        },
        "attributes": {name: _encode(value, name, arrays) for name, value in fitted.items()},
    }
    members = {_MANIFEST: json.dumps(manifest, indent=1, allow_nan=False).encode()}
    for name, array in arrays.items():
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
        members[f"{name}.npy"] = buffer.getvalue()
    data = _seal(members)
    with atomic_writer(path) as file:
        file.write(data)


def load(path: str | os.PathLike[str]) -> Any:
    """Read an estimator that `save` wrote.

    Nothing in the file is run, whoever wrote it: names of classes are looked up in `LOADABLE`, and arrays are read
    as plain numbers or text. The checksum finds damage; it does not prove who wrote the file, and somebody who can
    change a model file can make it predict anything.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    estimator
        Fitted; it predicts bit for bit what the saved one did.

    Raises
    ------
    ModelFileError
        If the file is empty, foreign, truncated, changed in any byte, inconsistent, of a class that this version
        does not know or of a newer format; or if `path` is a directory.
    FileNotFoundError
        If there is no such file.
    """
    return read_model(path).estimator


def read_model(path: str | os.PathLike[str]) -> ModelFile:
    """Read an estimator and what the file says of itself; see `load`."""
    label = os.fspath(path)
    if os.path.isdir(path):
        raise ModelFileError(f"{label} is a directory, not a model file")
    with open(path, "rb") as file:
        head = file.read(30 + len(_MANIFEST))
        if not head:
            raise ModelFileError(f"{label} is empty")
        if not head.startswith(_START) or head[30:] != _MANIFEST.encode():
            raise ModelFileError(f"{label} is not a model file, which only `save` of fastem writes")
        data = head + file.read()
    if hashlib.sha256(data[:-_DIGEST]).hexdigest().encode() != data[-_DIGEST:]:
        raise ModelFileError(f"{label} is damaged or cut short: its SHA-256 does not match. Restore or save it again")
    try:
        return _read(_members(data))
    except ModelFileError as error:
        raise ModelFileError(f"{label}: {error}") from error.__cause__
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # only a file made with intent gets here, and its ways to be wrong have no end
        raise ModelFileError(f"{label} is not a sound model file: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def atomic_writer(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of `path` when the block ends well, and leaves no trace otherwise.

    A link is followed; a device or a pipe is written to as it is.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        with open(target, "wb") as file:
            yield file
        return
    temporary = target.with_name(f".{target.name[:200]}.{secrets.token_hex(8)}.tmp")
    try:
        file = open(temporary, "xb")  # noqa: SIM115 - the error must name the file that was asked for
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    # The new name itself survives a power cut only when the directory is on the disk too; not every system can.
    with contextlib.suppress(OSError):
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _seal(members: dict[str, bytes]) -> bytes:
    """The archive of the members, ended by its digest."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.comment = b"0" * _DIGEST
        for name, content in members.items():
            info = zipfile.ZipInfo(name)  # dated 1980: the same model gives the same bytes
            info.create_system = 3  # Unix, wherever it is written
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)
    body = buffer.getvalue()[:-_DIGEST]
    return body + hashlib.sha256(body).hexdigest().encode()


def _members(data: bytes) -> dict[str, bytes]:
    """The members of an archive. They are stored as they are, so together they are no larger than the file."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = archive.infolist()
        names = [info.filename for info in infos]
        if len(set(names)) < len(names):
            raise ModelFileError("a member appears twice")
        if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
            raise ModelFileError("a member is compressed, which `save` never does")
        if any(info.compress_size != info.file_size for info in infos) or sum(info.file_size for info in infos) > len(
            data
        ):
            raise ModelFileError("its members claim other sizes than they have")
        return {info.filename: archive.read(info) for info in infos}


def _read(members: dict[str, bytes]) -> ModelFile:
    manifest = json.loads(members.pop(_MANIFEST), object_pairs_hook=_unique, parse_constant=_no_constant)
    if manifest["format"] != FORMAT or type(manifest["format_version"]) is not int:
        raise ModelFileError("the manifest is not that of a model file")
    version, writer = manifest["format_version"], str(manifest["fastem_version"])
    if version > FORMAT_VERSION:
        raise ModelFileError(
            f"fastem {writer} wrote it in format {version}, but this fastem, {_version()}, reads up to format "
            f"{FORMAT_VERSION}; upgrade with: pip install --upgrade fastem"
        )
    name = manifest["class"]
    if name not in LOADABLE:
        raise ModelFileError(f"it holds a {name!r}, written by fastem {writer}; {_known()}")
    arrays = {member.removesuffix(".npy"): _read_array(content) for member, content in members.items()}
    params = {key: _decode(node, arrays) for key, node in manifest["params"].items()}
    attributes = {key: _decode(node, arrays) for key, node in manifest["attributes"].items()}
    if arrays:
        raise ModelFileError(f"nothing refers to its member {min(arrays)!r}")
    module, _, cls_name = LOADABLE[name].path.partition(":")
    cls = getattr(importlib.import_module(module), cls_name)
    estimator = cls(**params)
    for key, value in attributes.items():
        if not _ATTRIBUTE.fullmatch(key):
            raise ModelFileError(f"{key!r} is no fitted attribute of {name}")
        setattr(estimator, key, value)
    LOADABLE[name].check(estimator)
    return ModelFile(estimator, version, writer)


def _read_array(content: bytes) -> np.ndarray:
    """An array of numbers or text from a `.npy` member; its size is checked before memory is taken."""
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ModelFileError("an array is in a newer .npy format than `save` writes")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    if not _is_plain(dtype):
        raise ModelFileError(f"an array is of dtype {dtype}; a model file holds only numbers and text")
    if math.prod(shape) * dtype.itemsize != len(content) - file.tell():
        raise ModelFileError(f"an array of shape {shape} has another number of bytes")
    flat = np.ndarray(math.prod(shape), dtype, buffer=content, offset=file.tell()).copy()
    return flat.reshape(shape, order="F" if fortran_order else "C")


def _encode(value: Any, label: str, arrays: dict[str, np.ndarray]) -> Any:
    """Turn a value into JSON; what JSON does not have becomes an object of one entry, the kind and the content."""
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, np.generic) and _is_plain(value.dtype):
        return {"scalar": [value.dtype.str, _encode(value.item(), label, arrays)]}
    if type(value) in (np.ndarray, np.memmap):
        if _is_plain(value.dtype):
            arrays[label] = value
            return {"array": label}
        if value.dtype == object and value.ndim == 1 and all(type(item) is str for item in value):
            return {"strings": value.tolist()}  # feature_names_in_
    if isinstance(value, Status):
        return {"status": value.name}
    if isinstance(value, np.dtype) and value in _NUMBERS:
        return {"dtype": value.str}
    cls = type(value)
    if RECORDS.get(cls.__name__) == cls.__module__:
        is_dataclass = dataclasses.is_dataclass(cls)
        names = [part.name for part in dataclasses.fields(cls)] if is_dataclass else cls.__match_args__
        return {"record": [cls.__name__, {n: _encode(getattr(value, n), f"{label}/{n}", arrays) for n in names}]}
    if type(value) is list:
        return [_encode(item, f"{label}/{i}", arrays) for i, item in enumerate(value)]
    if type(value) is tuple:
        return {"tuple": _encode(list(value), label, arrays)}
    if type(value) is dict and all(type(key) is str for key in value):
        return {"dict": {key: _encode(item, f"{label}/{key}", arrays) for key, item in value.items()}}
    if type(value) is dict:
        return {"pairs": _encode([list(pair) for pair in value.items()], label, arrays)}
    if type(value) is np.random.RandomState:
        return {"RandomState": _encode(value.get_state(legacy=False), label, arrays)}
    if type(value) is np.random.Generator and type(value.bit_generator).__name__ in _GENERATORS:
        return {"Generator": _encode(value.bit_generator.state, label, arrays)}
    kind = f"array of dtype {value.dtype}" if isinstance(value, np.ndarray) else type(value).__qualname__
    raise ModelFileError(
        f"{label.removeprefix('params/')} holds a {kind}; a model file takes arrays of numbers or text, numbers, "
        "strings, None, lists, tuples, dicts and NumPy's random generators"
    )


def _decode(node: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Undo `_encode`; an array is taken out of `arrays`, so that each is used once."""
    if not isinstance(node, dict):
        return [_decode(item, arrays) for item in node] if isinstance(node, list) else node
    [(kind, content)] = node.items()
    match kind:
        case "float":
            return float(content)
        case "scalar":
            dtype = np.dtype(content[0])
            if not _is_plain(dtype):
                raise ModelFileError(f"a number is of dtype {dtype}")
            return dtype.type(_decode(content[1], arrays))
        case "array":
            return arrays.pop(content)
        case "strings":
            return np.array([str(item) for item in content], dtype=object)
        case "status":
            return Status[content]
        case "dtype":
            return np.dtype(content)
        case "record":
            name, parts = content
            if name not in RECORDS:
                raise ModelFileError(f"it holds a {name!r}, which this fastem does not know")
            cls = getattr(importlib.import_module(RECORDS[name]), name)
            return cls(**{key: _decode(part, arrays) for key, part in parts.items()})
        case "tuple":
            return tuple(_decode(content, arrays))
        case "dict":
            return {key: _decode(item, arrays) for key, item in content.items()}
        case "pairs":
            return dict(_decode(content, arrays))
        case "RandomState" | "Generator":
            return _random(kind, _decode(content, arrays))
    raise ModelFileError(f"a value is of the unknown kind {kind!r}")


def _random(kind: str, state: dict[str, Any]) -> np.random.RandomState | np.random.Generator:
    """A random generator in a given state."""
    if state["bit_generator"] not in _GENERATORS:
        raise ModelFileError(f"{state['bit_generator']!r} is no random generator of NumPy's")
    # NumPy checks all of a state but these two positions, at which it then reads its buffers.
    if not (0 <= state["state"].get("pos", 0) <= 624 and 0 <= state.get("buffer_pos", 0) <= 4):
        raise ModelFileError("the state of its random generator is out of range")
    bits = getattr(np.random, state["bit_generator"])(0)
    if kind == "Generator":
        bits.state = state
        return np.random.Generator(bits)
    generator = np.random.RandomState(bits)
    generator.set_state(state)
    return generator


def _is_plain(dtype: np.dtype) -> bool:
    """Whether a dtype means the same on every machine: text, or numbers that are not long doubles."""
    return dtype.kind == "U" or dtype.newbyteorder("=") in _NUMBERS


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ModelFileError("a name appears twice in the manifest")
    return dict(pairs)


def _no_constant(text: str) -> None:
    raise ModelFileError(f"{text} is not JSON")


def _known() -> str:
    return f"this fastem, {_version()}, knows: {', '.join(sorted(LOADABLE))}"


def _version() -> str:
    from fastem import __version__

    return __version__
