"""The options of ``mezzotint serve`` for those who watch it: its log, metrics and traces."""

import click

from mezzotint.cli.option_group import option_group

_LEVELS = ("debug", "info", "warning", "error")

watch_options = option_group(
    click.option(
        "--log-level", type=click.Choice(_LEVELS), default="info", show_default=True, help="info is one line a request."
    ),
    click.option(
        "--log-format",
        type=click.Choice(("text", "json")),
        default="text",
        show_default=True,
        help="json is one object a line, with a request's id, times and outcome as fields; for what collects logs.",
    ),
    click.option(
        "--metrics-port",
        type=click.IntRange(0, 65535),
        default=8002,
        show_default=True,
        help="The HTTP port of /metrics for Prometheus and `mezzotint top`, and of /health/live and /health/ready for "
        "containers; 0 is any free one.",
    ),
    click.option(
        "--metrics-host",
        default="127.0.0.1",
        show_default=True,
        help="The address of that port. Set it where Prometheus or the kubelet come from another machine; nobody has "
        "to say who they are there.",
    ),
    click.option("--no-metrics", is_flag=True, help="Count nothing and open no HTTP port, where nobody would look."),
    click.option(
        "--otlp-endpoint",
        default="",
        metavar="URL",
        help="Where to send a trace of each request, as http://localhost:4317 (OTLP over gRPC): it shows what a slow "
        "one waited for. Needs the extra `otel`. [default: OTEL_EXPORTER_OTLP_ENDPOINT, or nowhere]",
    ),
)
"""Adds ``log_level``, ``log_format``, ``metrics_port``, ``metrics_host``, ``no_metrics`` and ``otlp_endpoint``."""
