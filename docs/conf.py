"""The documentation site: ``make docs``. Markdown by MyST, the Python reference by autodoc."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version as installed
from pathlib import Path

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
sys.path.insert(0, str(Path(__file__).parent.parent))

project = "fedserver-telemetry"
author = "the fedserver-telemetry maintainers"
release = version = installed("fedserver-telemetry")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "fedserver-telemetry"
html_static_path: list[str] = []
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "show-inheritance": False}
