"""Writes the dashboards: ``python -m grafana.build``; with ``--check`` only says which files differ."""

from __future__ import annotations

import json
import sys
from typing import Final

from grafana import clients, fleet, run_overview, service_health
from grafana.fields import Json
from grafana.queries import DASHBOARDS

BUILDERS: Final = (run_overview, fleet, clients, service_health)


def built() -> dict[str, str]:
    """The text of each dashboard's file, by its name."""
    return {f"{made['uid']}.json": text(made) for made in (module.build() for module in BUILDERS)}


def text(dashboard: Json) -> str:
    """As it is committed."""
    return json.dumps(dashboard, indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Write, or compare; 1 where a committed file differs."""
    files = built()
    there = {path.name: path.read_text(encoding="utf-8") for path in DASHBOARDS.glob("*.json")}
    if arguments == ["--check"]:
        different = sorted(name for name in files | there if files.get(name) != there.get(name))
        sys.stderr.writelines(f"{name} differs: make dashboards\n" for name in different)
        return 1 if different else 0
    DASHBOARDS.mkdir(exist_ok=True)
    for name in there.keys() - files.keys():
        (DASHBOARDS / name).unlink()
    for name, content in files.items():
        (DASHBOARDS / name).write_text(content, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
