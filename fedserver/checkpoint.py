"""What a training needs to go on where it was: written after each round, read by ``--resume``.

A checkpoint is two files in the run's folder. ``round-000003.npz`` holds the model (names, order and
types of its layers) and the arrays of the strategies' state; ``checkpoint.json`` all the rest, and
the name and SHA-256 of the first. Each is written beside its place, flushed to disk and renamed, the
JSON last: it is what makes the other count, so that a crash at any moment leaves a whole checkpoint,
the new one or the one before. No pickle.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from flwr.app import ArrayRecord

from fedserver.model_io import ModelError, read_arrays, write_arrays
from fedserver.strategies.state import Stateful

logger = logging.getLogger(__name__)

FOLDER: Final = "checkpoint"
INDEX: Final = "checkpoint.json"
SCHEMA: Final = 1
_MODEL: Final = "model/"
_STATE: Final = "state/"

State = Mapping[str, Any]
"""Names → NumPy arrays, or what JSON can carry: numbers, text, None, lists and mappings of them."""


class CheckpointError(ModelError):
    """A checkpoint cannot be read; says which file and why."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A training after a round: all that the next one depends on."""

    round_number: int
    """The last round that was played to its end."""
    arrays: ArrayRecord
    settings: Mapping[str, Any]
    """The options that must be the same when it goes on, as JSON has them."""
    states: Mapping[str, State] = field(default_factory=dict)
    """State of each layer of the strategy, by its place from the outside and its class; each layer
    that is `Stateful` answers for itself only."""
    randomness: Mapping[str, Any] = field(default_factory=dict)
    """States of `random` and `numpy.random`, from `randomness_now`."""


def states_of(strategy: object) -> dict[str, State]:
    """The state of each layer that has one."""
    return {name: layer.state() for name, layer in _stateful(strategy)}


def restore_states(strategy: object, states: Mapping[str, State]) -> None:
    """Give each layer its state back. Raises `CheckpointError` if the layers are not the same."""
    layers = dict(_stateful(strategy))
    if layers.keys() != states.keys():
        raise CheckpointError(
            f"it holds the state of {', '.join(states) or 'nothing'}, "
            f"and the strategy has {', '.join(layers) or 'nothing'} to restore"
        )
    for name, layer in layers.items():
        try:
            layer.load_state(states[name])
        except (ValueError, TypeError, KeyError) as error:
            raise CheckpointError(f"the state of {name} cannot be restored: {error}") from error


def _stateful(strategy: object) -> Iterator[tuple[str, Stateful]]:
    """The layers with a state, outermost first; each wrapper holds the next as ``strategy``."""
    layer: object | None = strategy
    place = 0
    while layer is not None:
        if isinstance(layer, Stateful):
            yield f"{place} {type(layer).__name__}", layer
        layer, place = getattr(layer, "strategy", None), place + 1


def randomness_now() -> dict[str, Any]:
    """States of `random` and of NumPy's global generator, which Flower's strategies draw from."""
    version, internal, gauss_next = random.getstate()
    kind, key, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "random": [version, list(internal), gauss_next],
        "numpy": [kind, [int(word) for word in key], position, has_gauss, cached],
    }


def restore_randomness(states: Mapping[str, Any]) -> None:
    """Draw on as after `randomness_now`. Raises `CheckpointError`."""
    try:
        version, internal, gauss_next = states["random"]
        kind, key, position, has_gauss, cached = states["numpy"]
        random.setstate((version, tuple(internal), gauss_next))
        np.random.set_state((kind, np.array(key, np.uint32), position, has_gauss, cached))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the states of the random numbers are not whole: {error}") from error


# --- files ---------------------------------------------------------------------------------------


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, and then remove the one before. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {_MODEL + name: array.numpy() for name, array in checkpoint.arrays.items()}
    states = {
        layer: {name: _out(value, f"{_STATE}{layer}/{name}", arrays) for name, value in s.items()}
        for layer, s in checkpoint.states.items()
    }
    path = folder / f"round-{checkpoint.round_number:06}.npz"
    write_arrays(path, arrays)
    index = {
        "schema": SCHEMA,
        "round": checkpoint.round_number,
        "arrays": path.name,
        "sha256": _sha256(path),
        "settings": checkpoint.settings,
        "states": states,
        "randomness": checkpoint.randomness,
    }
    _write_text(folder / INDEX, json.dumps(index))
    for old in folder.glob("round-*.npz"):
        if old != path:
            old.unlink(missing_ok=True)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read the last checkpoint. Raises `CheckpointError`."""
    index = folder / INDEX
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise CheckpointError(f"{index} is of schema {content['schema']}, not {SCHEMA}")
        path = folder / Path(str(content["arrays"])).name
        if _sha256(path) != content["sha256"]:
            raise CheckpointError(f"{path} is not the file that {index.name} speaks of")
        arrays = read_arrays(path)
        return Checkpoint(
            round_number=int(content["round"]),
            arrays=ArrayRecord(
                {n.removeprefix(_MODEL): a for n, a in arrays.items() if n.startswith(_MODEL)}
            ),
            settings=content["settings"],
            states={
                layer: {name: _in(value, arrays) for name, value in values.items()}
                for layer, values in content["states"].items()
            },
            randomness=content["randomness"],
        )
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint: {error.filename} does not exist") from error
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} cannot be read: {error}") from error


def remove_checkpoint(folder: Path) -> None:
    """Remove a checkpoint that nobody needs any more; what cannot be removed stays."""
    if not folder.exists():  # stopped before its first round
        return
    try:
        for path in (folder / INDEX, *folder.glob("round-*.npz")):
            path.unlink(missing_ok=True)
        folder.rmdir()
    except OSError as error:
        logger.info("%s stays: %s", folder, error)


def _out(value: Any, name: str, arrays: dict[str, Any]) -> Any:
    """A value as JSON; arrays and bytes, wherever in it they are, leave a mark there."""
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {"$array": name}
    if isinstance(value, np.generic):
        arrays[name] = np.asarray(value)
        return {"$number": name}
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode("ascii")}
    if isinstance(value, Mapping):
        return {str(k): _out(v, f"{name}/{k}", arrays) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_out(v, f"{name}/{i}", arrays) for i, v in enumerate(value)]
    return value


def _in(value: Any, arrays: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"$array"}:
            return arrays[value["$array"]].numpy()
        if value.keys() == {"$number"}:
            return arrays[value["$number"]].numpy()[()]
        if value.keys() == {"$bytes"}:
            return base64.b64decode(value["$bytes"])
        return {k: _in(v, arrays) for k, v in value.items()}
    if isinstance(value, list):
        return [_in(v, arrays) for v in value]
    return value


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_text(path: Path, text: str) -> None:
    """Write, flush to disk, rename; and the rename to disk too."""
    beside = path.with_name(f".{path.name}")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
