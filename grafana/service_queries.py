"""PromQL about processes, which the panels of *Service health* share."""

from __future__ import annotations

from typing import Final

_HERE: Final = 'job=~"$job",instance=~"$instance"'


def of_process(metric: str, **labels: str) -> str:
    """A series of the chosen processes."""
    chosen = "".join(f",{name}{value}" for name, value in labels.items())
    return f"{metric}{{{_HERE}{chosen}}}"


def rate(metric: str, by: str, **labels: str) -> str:
    """A second, added up."""
    return f"sum by ({by}) (rate({of_process(metric, **labels)}[$__rate_interval]))"


def quantile(share: float, metric: str, by: str) -> str:
    """Of a histogram, within its buckets."""
    return f"histogram_quantile({share}, {rate(f'{metric}_bucket', ', '.join(('le', by)).rstrip(', '))})"
