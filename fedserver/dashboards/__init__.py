"""Our dashboards in a Grafana that exists already: data sources, folder, dashboards, marks of runs.

Through Grafana's HTTP API, with the package ``grafana-api`` (extra ``grafana``), whose methods are
older than today's Grafana and whose raw verbs are not: everything here is found by ``uid``.
"""
