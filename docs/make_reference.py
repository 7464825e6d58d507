"""Write docs/reference/ again, from the code: ``python docs/make_reference.py`` (or: make reference).

Configuration, command line, CSV columns and HTTP interface; a test fails where a page and the code
have come apart. Metrics are written by make_metrics.py, the Python pages by Sphinx.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

PAGES: Final = Path(__file__).parent / "reference"
SAYS: Final = "<!-- Written by docs/make_reference.py: change the code, not this page. -->\n"


def main() -> None:
    """Write every page."""
    PAGES.mkdir(exist_ok=True)
    for name, page in MADE.items():
        (PAGES / f"{name}.md").write_text(page(), encoding="utf-8")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a bar in a cell is kept from ending it."""
    lines = [heads, ["---"] * len(heads), *rows]
    cells = ([cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def code(text: object) -> str:
    """As code, or nothing."""
    return f"`{text}`" if str(text) else ""


# --- configuration -------------------------------------------------------------------------------


def config_page() -> str:
    """Every option of server.yaml, by section."""
    from fedserver.options import ServerConfig

    schema = ServerConfig.model_json_schema()
    comments = template_comments()
    parts = [
        f"{SAYS}\n# Configuration\n\n"
        "The options of `server.yaml`; `fedserver init` writes the same with comments, `fedserver "
        "check-config` shows every value and where it comes from. The command line (`--set "
        "rounds=3`) holds over the environment (`FEDSERVER_ROUNDS`, nested with `__`: "
        "`FEDSERVER_TELEMETRY__HTTP__PORT`), that over the file, and the file over the platform's "
        "variables ([on the platform](../platform.md)). Unknown keys, wrong types and impossible "
        "combinations stop the start with exit code 2. Options of a strategy stand below its name "
        "([strategies](../strategies.md)), those of privacy in [privacy](../privacy.md).\n"
    ]
    for section, rows in _sections(schema, comments):
        parts.append(f"\n## {section}\n\n")
        parts.append(table(("option", "values", "default", "meaning"), rows))
    return "".join(parts)


def _sections(
    schema: dict[str, Any], comments: dict[str, str]
) -> Iterator[tuple[str, list[tuple[str, str, str, str]]]]:
    sections: dict[str, list[tuple[str, str, str, str]]] = {}
    for path, part in _options(schema, schema):
        section, _, _ = path.rpartition(".")
        row = (
            code(path),
            values_of(part, schema),
            code(_yaml(part.get("default", "required"))),
            re.sub(r"docs/([a-z-]+)\.md", r"[\1](../\1.md)", comments.get(path, "")),
        )
        sections.setdefault(section or "The run", []).append(row)
    return iter(sections.items())


def _options(
    part: dict[str, Any], schema: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, found in part["properties"].items():
        path = f"{prefix}{name}"
        section = _section(found, schema)
        if section is None or "anyOf" in found or "oneOf" in found:
            yield path, found
        else:
            yield from _options(section, schema, f"{path}.")


def _section(part: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any] | None:
    name = part.get("$ref", "").rpartition("/")[2]
    return schema["$defs"].get(name) if name else None


def values_of(part: dict[str, Any], schema: dict[str, Any]) -> str:
    """What an option may be, in words."""
    if "oneOf" in part or "discriminator" in part:
        return "a mapping, see there"
    if "anyOf" in part:
        return " or ".join(dict.fromkeys(values_of(one, schema) for one in part["anyOf"]))
    if "$ref" in part:
        inner = schema["$defs"][part["$ref"].rpartition("/")[2]]
        names = ", ".join(inner.get("properties", {}))
        return f"a mapping ({names})"
    if "enum" in part:
        return ", ".join(code(value) for value in part["enum"])
    if "const" in part:
        return code(part["const"])
    kinds = {
        "integer": "whole number", "number": "number", "string": "text", "boolean": "`true`, `false`",
        "null": "`null`", "array": "list", "object": "a mapping",
    }  # fmt: skip
    signs = {
        "minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<",
    }  # fmt: skip
    bounds = [f"{sign} {_number(part[name])}" for name, sign in signs.items() if name in part]
    kind = kinds.get(part.get("type", ""), "value")
    return f"{kind} {' and '.join(bounds)}".strip()


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def _yaml(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case dict():
            return "{" + ", ".join(f"{k}: {_yaml(v)}" for k, v in value.items()) + "}"
        case list() | tuple():
            return f"[{', '.join(map(_yaml, value))}]"
        case _:
            return str(value)


def template_comments() -> dict[str, str]:
    """The comment of each option in the template that `fedserver init` writes, by dotted path."""
    from fedserver.templates import server_yaml

    comments: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    path = ""
    for line in server_yaml().splitlines():
        found = re.match(r"( *)([a-z_]+):(?:[^#]*?(?:\"[^\"]*\")?[^#]*?)(?:# (.*))?$", line)
        if found:
            depth = len(found[1])
            above = [(at, name) for at, name in above if at < depth]
            path = ".".join([*(name for _, name in above), found[2]])
            above.append((depth, found[2]))
            if found[3]:
                comments[path] = found[3]
        elif path and (more := re.match(r" {10,}# (.*)$", line)):
            comments[path] = f"{comments.get(path, '')} {more[1]}".strip()
    return comments


# --- command line --------------------------------------------------------------------------------


def cli_page() -> str:
    """Every command with its arguments and options."""
    import typer

    from fedserver.cli import app

    parts = [
        f"{SAYS}\n# Command line\n\n"
        "Exit codes: 0 completed (also: stopped on its budget), 1 the run or the task failed, 2 wrong "
        "configuration or wrong use, 130 and 143 ended by a signal.\n\n"
        "RUN names a run by its id, the beginning of it (4 characters or more), its name (the newest "
        "of that name), or `latest`. The store of `runs` and `telemetry` is `--store URL`, else the "
        "environment's, else that of `-c FILE`, else of `./server.yaml`, else "
        "`sqlite:///telemetry.db`.\n"
    ]
    parts += [_command(path, command) for path, command in _commands(typer.main.get_command(app))]
    return "".join(parts)


def _commands(group: Any, path: str = "fedserver") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if getattr(command, "commands", None):
            yield from _commands(command, f"{path} {name}")
        elif not command.hidden:
            yield f"{path} {name}", command


def _command(path: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    names = "".join(f" {_argument(p)}" for p in arguments)
    text = textwrap.dedent(command.help or "").strip()
    rows = [(code(_argument(p)), _plain(p.help)) for p in arguments if p.help]
    rows += [(_option(p), _plain(p.help)) for p in options]
    listed = f"\n{table(('', ''), rows)}" if rows else ""
    return f"\n## {path}\n\n```\n{path}{names}{' [OPTIONS]' if options else ''}\n```\n\n{_plain(text)}\n{listed}"


def _argument(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name).upper().strip("[]")
    name = f"{name}…" if parameter.nargs == -1 and not name.endswith("…") else name
    return name if parameter.required else f"[{name}]"


def _option(parameter: Any) -> str:
    names = [*parameter.opts, *parameter.secondary_opts]
    kind = "" if parameter.is_flag else f" {_kind(parameter)}"
    return ", ".join(code(f"{name}{kind}") for name in names)


def _kind(parameter: Any) -> str:
    choices = getattr(parameter.type, "choices", None)
    if choices:
        return "|".join(str(getattr(one, "value", one)) for one in choices)
    return str(parameter.metavar or parameter.type.name).upper()


def _plain(text: str | None) -> str:
    """A help text: what stands between angle brackets is no HTML."""
    return re.sub(r"<([A-Za-z-]+)>", r"`<\1>`", text or "")


# --- CSV -----------------------------------------------------------------------------------------


def csv_page() -> str:
    """The columns of the CSV exports."""
    from telemetry.exporters import FORMATS, clients_csv, meanings, rounds_csv

    fixed = [(code(name), meanings.CSV[name]) for name in rounds_csv.COLUMNS]
    metrics = [
        ("`train_<name>`…", "Each training metric of the train replies, alphabetically."),
        ("`evaluate_<name>`…", "Each of the evaluate replies, `loss` among them."),
    ]
    seal = [(code(rounds_csv.SEAL_COLUMN), meanings.SEAL)]
    clients = [(code(name), meanings.CLIENTS_CSV[name]) for name in clients_csv.COLUMNS]
    heads = ("column", "meaning")
    return (
        f"{SAYS}\n# Exports\n\n"
        "`fedserver runs export RUN --format NAME [-o FILE]`, or "
        "`GET /api/v1/runs/{run_id}/export?format=NAME`. Formats: "
        f"{', '.join(code(name) for name in FORMATS)}. UTF-8, RFC 4180; times ISO 8601 in UTC; numbers "
        "in the shortest form that reads back the same. **An empty cell is unknown, never 0.** Text "
        "that begins with `= + - @`, a tab or a carriage return gets a leading apostrophe, so that no "
        "spreadsheet takes it for a formula. Columns may be added at the end, never moved (`run_sha256` "
        "stays the last).\n"
        f"\n## csv\n\nOne row a closed round and attempt.\n\n{table(heads, [*fixed, *metrics, *seal])}"
        "\n## clients-csv\n\nOne row a report of a closed round. A client that sent none has no row "
        f"here; `json` lists every participant.\n\n{table(heads, clients)}"
        "\n## codecarbon-csv\n\ncodecarbon's own columns in its order, for programs that read its "
        "`emissions.csv`. Each row is the round's own amount (such programs add rows up); rounds whose "
        "total is unknown are left out and counted on stderr; times are UTC without an offset.\n"
        "\n## json\n\nThe whole run: facts, method, totals, every round with its participants and "
        "reports. `sha256` is its seal.\n"
        "\n## html\n\nA report for people: `fedserver runs report` writes it with an author and a date "
        "([a report to attach](../report.md)). Each figure is a `<data>` element with its exact value.\n"
    )


# --- HTTP ----------------------------------------------------------------------------------------


def http_page() -> str:
    """The routes of the service, from its own description."""
    from telemetry.service.service import create_service
    from telemetry.store import open_store

    store = open_store("memory://")
    described = create_service(store).openapi()
    store.close()
    details = []
    answers: dict[str, str] = {}
    for path, item in described["paths"].items():
        for method, route in item.items():
            details.append(_route(method, path, route))
            for status, answer in route["responses"].items():
                answers.setdefault(status, answer["description"])
    errors = [(code(status), answers[status]) for status in sorted(answers) if status != "200"]
    return (
        f"{SAYS}\n# HTTP interface\n\n"
        "Of the telemetry service (`fedserver telemetry serve`); the server inside an FL server answers "
        "the `GET` ones. `GET /api/v1/openapi.json` is the same as a document for programs, with "
        "examples. Errors are problem documents (RFC 9457, `application/problem+json`); `field` names "
        "the member or parameter that is wrong. Who may do what: "
        "[the telemetry service](../telemetry-service.md).\n\n"
        f"{table(('answer', 'says'), errors)}{''.join(details)}"
    )


def _route(method: str, path: str, route: dict[str, Any]) -> str:
    parameters = [
        (code(p["name"]), p["in"], p.get("description") or _bounds(p["schema"]))
        for p in route.get("parameters", ())
    ]
    body = route.get("requestBody", {}).get("content", {}).get("application/json", {})
    named = body.get("schema", {}).get("$ref", "").rpartition("/")[2]
    said = route.get("description") or route.get("summary") or ""
    text = f"\n## {method.upper()} {path}\n\n{said}\n"
    if parameters:
        text += f"\n{table(('parameter', 'in', ''), parameters)}"
    if named:
        text += f"\nBody: {code(named)}, JSON.\n"
    return f"{text}\nAnswers: {', '.join(map(code, sorted(route['responses'])))}.\n"


def _bounds(schema: dict[str, Any]) -> str:
    kinds = schema.get("anyOf", [schema])
    return " or ".join(values_of(kind, {"$defs": {}}) for kind in kinds)


MADE: Final[dict[str, Callable[[], str]]] = {
    "configuration": config_page,
    "command-line": cli_page,
    "exports": csv_page,
    "http": http_page,
}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
