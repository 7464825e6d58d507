"""Models as ``.npz`` files: layer names and their order kept, no pickle, written atomically."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.lib import format as npy
from numpy.typing import NDArray


class ModelError(ValueError):
    """A model file cannot be used; says which and why."""


def load_model(path: Path) -> ArrayRecord:
    """The layers of an ``.npz`` file, in the file's order (``arr_10`` stays behind ``arr_2``)."""
    layers = read_arrays(path)
    if not layers:
        raise ModelError(f"{path} holds no arrays")
    for name, array in layers.items():
        layer = array.numpy()
        if layer.dtype.kind not in "fiub":
            raise ModelError(f"{path}: layer {name!r} is of type {layer.dtype}, not numbers")
        if layer.dtype.kind == "f" and not np.isfinite(layer).all():
            raise ModelError(f"{path}: layer {name!r} holds a number that is not finite")
    return ArrayRecord(layers)


def read_arrays(path: Path) -> dict[str, Array]:
    """Everything in an ``.npz`` file, in the file's order. Raises `ModelError`."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: Array(file[name]) for name in file.files}
    except FileNotFoundError as error:
        raise ModelError(f"{path} does not exist") from error
    except (OSError, ValueError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise ModelError(f"{path} is not an .npz file of plain arrays: {error}") from error


def save_model(path: Path, arrays: ArrayRecord) -> None:
    """Write the layers, in order; the file is whole or not there at all. Raises OSError."""
    write_arrays(path, {name: array.numpy() for name, array in arrays.items()})


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an ``.npz`` file, whole or not at all, with nothing left in a cache. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for layer, array in arrays.items():
                    with archive.open(f"{layer}.npy", "w", force_zip64=True) as entry:
                        npy.write_array(entry, np.asarray(array), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
