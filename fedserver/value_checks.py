"""What is wrong with single values: the schema's findings in words a person can act on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from fedserver import keys, options, privacy, strategies
from fedserver.errors import Problem
from fedserver.sources import Layer

_PASSWORD: Final = re.compile(r"(://[^:/@\s]*:)[^@\s]*@")
_SHOWN_CHARACTERS: Final = 80
_EXAMPLES: Final[Mapping[str, str]] = {
    "strategy": "{name: FedAvg}",
    "privacy": "{mechanism: central-dp, …}, or null",
}
_PHRASES: Final[Mapping[str, str]] = {
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be text (in quotes, if it looks like a number)",
    "path_type": "must be the name of a file",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "tuple_type": "must be a list",
    "literal_error": "is not one of the choices: {expected}",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
}


def shown(path: str, value: object) -> str:
    """A value as a message may show it: on one line, cut short (but not a path), and never a secret."""
    if path in options.SECRETS and value is not None:
        return "(hidden)"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, Path):  # its end is what tells it apart
        return json.dumps(str(value), ensure_ascii=False)
    text = json.dumps(value, ensure_ascii=False, default=str)
    text = _PASSWORD.sub(r"\1***@", text)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


# --- one value ----------------------------------------------------------------------------------


def wrong_values(error: ValidationError, given: Layer) -> list[Problem]:
    """Everything that the schema refuses."""
    return [_wrong_value(details, given) for details in error.errors(include_url=False)]


def _wrong_value(details: ErrorDetails, given: Layer) -> Problem:
    kind, context = details["type"], details.get("ctx", {})
    path = _path(details["loc"])
    if path in ("strategy", "strategy.name"):
        return _wrong_strategy(given)
    if path in ("privacy", "privacy.mechanism"):
        return _wrong_mechanism(given)
    if path.startswith("strategy.") and kind in ("extra_forbidden", "missing"):
        return _wrong_option(path, kind, given)
    if kind == "extra_forbidden":
        return Problem(path, f"unknown key{_near_key(path)}", given.source(path))
    if kind == "missing":
        return Problem(path, "is missing", given.source(path))
    phrase = _PHRASES.get(kind)
    says = phrase.format(**context) if phrase else details["msg"]
    return Problem(path, f"{shown(path, details['input'])} {says}", given.source(path))


def _path(location: Sequence[int | str]) -> str:
    """Dotted path of an option, without the steps that pydantic takes inside one."""
    known = {*keys.SECTIONS, *keys.OPTIONS, *keys.INSIDE}
    steps = [str(step) for step in location]
    if steps[:2] == ["server", "tls"] and steps[2:3] and steps[2] in options.TLS_STEPS:
        del steps[2]
    if steps[0] == "strategy" and len(steps) > 2:  # the name of the strategy, as a step of its own
        steps = [steps[0], steps[-1]]
    if len(steps) > 2 and steps[1] in privacy.names():
        del steps[1]  # which mechanism, as a step of its own
    whole = ".".join(steps)
    for count in range(len(steps), 0, -1):
        path = ".".join(steps[:count])
        if path in known:
            # What follows a section is a key of the user's; what follows an option is inside it.
            return whole if path in keys.SECTIONS or path in keys.OPEN else path
    return whole


def _near_key(path: str) -> str:
    """The nearest key beside it, else the same key elsewhere, else every key beside it."""
    section, _, key = path.rpartition(".")
    known = (*keys.SECTIONS, *keys.OPTIONS, *keys.INSIDE)
    beside = [other for other in known if other.rpartition(".")[0] == section]
    near = get_close_matches(path, beside, n=1, cutoff=0.75)
    elsewhere = {other.rpartition(".")[2]: other for other in known if other not in beside}
    near = near or [elsewhere[name] for name in get_close_matches(key, elsewhere, n=1, cutoff=0.8)]
    if near and section not in keys.OPEN:
        return f"; did you mean {near[0]}?"
    return f"; choices: {', '.join(sorted(other.rpartition('.')[2] for other in beside))}"


def _wrong_strategy(given: Layer) -> Problem:
    names = strategies.names()
    choices = f"choices: {', '.join(names)}"
    name = _value(given.values, "strategy.name")
    if name is None:
        return Problem("strategy.name", f"is missing; {choices}", given.source("strategy"))
    near = get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    return Problem(
        "strategy.name",
        f"{shown('strategy.name', name)} is no strategy; {hint}{choices}",
        given.source("strategy.name"),
    )


def _wrong_option(path: str, kind: str, given: Layer) -> Problem:
    """A strategy's option that is not its own, or that it cannot do without."""
    name = str(_value(given.values, "strategy.name"))
    config = strategies.named(name)
    key = path.rpartition(".")[2]
    fields = {} if config is None else config.model_fields
    if kind == "missing":
        means = fields[key].description if key in fields else None
        text = f"is missing; {name} has no default for it ({means})"
        return Problem(path, text, given.source("strategy.name"))
    own = [field for field in fields if field != "name"]
    near = get_close_matches(key, own, n=1, cutoff=0.5)
    others = [
        strategy
        for strategy, other in zip(strategies.names(), strategies.STRATEGIES, strict=True)
        if key in other.model_fields
    ]
    hint = f"did you mean strategy.{near[0]}? " if near else ""
    choices = f"{name} has {', '.join(own)}" if own else f"{name} has no options of its own"
    elsewhere = f"; {key} is an option of {', '.join(others)}" if others else ""
    return Problem(path, f"unknown key; {hint}{choices}{elsewhere}", given.source(path))


def _wrong_mechanism(given: Layer) -> Problem:
    names = privacy.names()
    choices = f"choices: {', '.join(names)}"
    value = _value(given.values, "privacy")
    if not isinstance(value, Mapping):  # `not_sections` says so, too, and first
        return Problem("privacy", "must be a section with keys, or null", given.source("privacy"))
    if value.get("mechanism") is None:
        text = f"is missing; {choices}, or privacy: null"
        return Problem("privacy.mechanism", text, given.source("privacy"))
    path, name = "privacy.mechanism", value["mechanism"]
    near = get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    return Problem(
        path, f"{shown(path, name)} is no privacy mechanism; {hint}{choices}", given.source(path)
    )


def not_sections(layer: Layer) -> Iterator[Problem]:
    """Values that stand where keys should; they would vanish under a later layer's keys."""
    for path in sorted(keys.SECTIONS):
        value = _value(layer.values, path)
        if value is not None and not isinstance(value, Mapping):
            example = _EXAMPLES.get(path, "{key: value}")
            text = f"must be a section with keys, as in {example}"
            yield Problem(path, text, layer.source(path))


def _value(values: Mapping[str, Any], path: str) -> Any:
    at: Any = values
    for key in path.split("."):
        if not isinstance(at, Mapping):
            return None
        at = at.get(key)
    return at
