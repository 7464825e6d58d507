"""What docs/privacy.md shows is what the server takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fedserver.config import ServerConfig, load_config

PAGE = (Path(__file__).parent.parent / "docs" / "privacy.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def accepted(text: str, folder: Path) -> ServerConfig:
    """The configuration that this file is."""
    path = folder / "server.yaml"
    path.write_text(text)
    return load_config(path, {}, {}).config


@pytest.mark.parametrize("place", range(len(BLOCKS)))
def test_each_configuration_is_accepted(place: int, tmp_path: Path) -> None:
    """As it stands on the page, and with either mechanism where none is accounted for."""
    config = accepted(BLOCKS[place], tmp_path)
    assert config.privacy is not None
    assert config.privacy.mechanism == "central-dp"
    if config.privacy.accounting is None:
        other = BLOCKS[place].replace("mechanism: central-dp", "mechanism: metric-privacy")
        assert accepted(other, tmp_path).privacy is not None


def test_both_examples_are_there_and_the_second_states_an_epsilon(tmp_path: Path) -> None:
    """One without an accountant and one with."""
    stated = []
    for block in BLOCKS:
        privacy = accepted(block, tmp_path).privacy
        assert privacy is not None
        stated.append(privacy.accounting is not None)
    assert stated == [False, True]
