"""A real server as an operator sees it: its metrics, its logs, the dashboard, and ``mezzotint top``."""

import asyncio
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from mezzotint import Client, MezzotintClientError
from mezzotint.cli import cli, top
from mezzotint.cli.errors import run
from mezzotint.cli.scrape import Between, Sample, Snapshot, metrics_url, read
from mezzotint.engines.errors import MezzotintError
from mezzotint.proto import mezzotint_pb2 as pb
from tests.cli.conftest import log_of, started
from tests.conftest import ROOT
from tests.server.scraping import Scrape, get, scrape

DASHBOARD = json.loads((ROOT / "docs" / "grafana.json").read_text(encoding="utf-8"))
TARGET_LABELS = {"instance", "job"}  # Prometheus adds these to whatever it scrapes
TRACE = "0af7651916cd43dd8448eb211c80319c"


@dataclass
class Observed:
    """A server of the demo model that has had three requests: 5 steps of two rows, 2 × 3 of one, and a refused one."""

    process: subprocess.Popen[str]
    address: str
    port: int
    scraped: Scrape

    def logged(self, about: str) -> dict[str, Any]:
        """The line of its log that says so, once it is there."""
        until = time.monotonic() + 10
        while time.monotonic() < until:
            for line in log_of(self.process).splitlines():
                if about in line:
                    found: dict[str, Any] = json.loads(line)
                    return found
            time.sleep(0.02)
        raise AssertionError(f"no line is about {about}")


@pytest.fixture(scope="module")
def observed(emoji_bundle: Path) -> Iterator[Observed]:
    with started(emoji_bundle, "--log-format", "json") as (process, address):
        server = Observed(process, address, 0, Scrape(""))
        server.port = int(server.logged("metrics on")["message"].rpartition(":")[2].removesuffix("/metrics"))
        with Client(address) as client:
            client.generate("a cat", steps=5, guidance=4.0, request_id="guided")
            client.generate("a dog", steps=3, guidance=1.0, num_images=2, request_id="plain")
            with pytest.raises(MezzotintClientError):
                client.generate("a cat", height=100)
        server.scraped = asyncio.run(scrape(server.port))
        yield server


def test_a_real_servers_metrics_are_what_it_did(observed: Observed) -> None:
    seen = observed.scraped
    assert seen("mezzotint_requests_total", code="OK", model="emoji") == 2
    assert seen("mezzotint_images_total", outcome="finished") == 3
    rows, calls = seen("mezzotint_step_rows_sum", variant="full"), seen("mezzotint_step_seconds_count", variant="full")
    assert rows == 5 * 2 + 3 * 2
    assert calls is not None
    assert 5 + 3 <= calls <= 5 + 6
    assert seen("mezzotint_request_seconds_count") == 3  # the refused one too, which ended before any engine call
    stages = [seen("mezzotint_engine_seconds_total", stage=stage) or 0 for stage in ("encode", "denoise", "decode")]
    assert all(stages)
    assert sum(stages) <= (seen("mezzotint_request_seconds_sum") or 0)
    assert seen("mezzotint_cache_misses_total", cache="plans") == 2
    hits = seen("mezzotint_cache_hits_total", cache="shapes")
    assert hits is not None
    assert hits >= calls + 2 + 3
    assert (seen("process_cpu_seconds_total") or 0) > 0.1
    assert (seen("process_resident_memory_bytes") or 0) > 50 << 20
    assert get(observed.port, "/health/ready") == get(observed.port, "/health/live") == (200, "yes\n")


def test_a_real_servers_log_has_each_request_as_an_object_and_its_clients_trace(observed: Observed) -> None:
    line = observed.logged("guided")
    assert (line["request_id"], line["model"], line["steps"], line["outcome"]) == ("guided", "emoji", 5, "finished")
    assert 0 < line["denoise_ms"] <= line["total_ms"]
    with grpc.insecure_channel(observed.address) as channel:
        call = channel.unary_stream("/mezzotint.v1.Mezzotint/Generate")
        message = pb.GenerateRequest(prompt="a cat", steps=1, request_id="traced").SerializeToString()
        answer = call(message, metadata=(("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"),))
        assert list(answer)
        assert dict(answer.initial_metadata())["request-id"] == "traced"
    assert observed.logged("traced")["trace_id"] == TRACE


def test_two_servers_on_one_metrics_port_are_one_sentence(observed: Observed, emoji_bundle: Path) -> None:
    done = subprocess.run(
        [*MEZZOTINT, "serve", str(emoji_bundle), "--port", "0", "--metrics-port", str(observed.port)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 5
    assert f"mezzotint: 127.0.0.1:{observed.port}: cannot be listened on for metrics" in done.stderr
    assert "Traceback" not in done.stderr


MEZZOTINT = (sys.executable, "-m", "mezzotint")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "src"), "TERM": "xterm", "COLUMNS": "120", "LINES": "30"}


def cells(text: str, model: str = "emoji") -> list[str]:
    return next(line.split()[1:] for line in text.splitlines() if line.startswith(model))


def test_top_prints_one_frame_of_what_was_done(observed: Observed, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["top", f"127.0.0.1:{observed.port}", "--once"]) == 0
    text = capsys.readouterr().out
    now = read(f"http://127.0.0.1:{observed.port}/metrics", time.time())
    since = Between(None, now)
    running, waiting, images, rows, step_ms, *_ = cells(text)
    assert (running, waiting) == ("0", "0")
    made = now.total("mezzotint_images_total", outcome="finished")
    assert float(images) == pytest.approx(60 * made / since.seconds, rel=0.1)
    assert rows == f"{since.mean('mezzotint_step_rows'):.2f}"
    assert step_ms == f"{1e3 * (since.mean('mezzotint_step_seconds') or 0):.1f}"
    assert re.search(r"requests: 1 FAILED_PRECONDITION|requests: 1 INVALID_ARGUMENT", text)
    assert f", {made - 1:.0f} OK" in text
    assert re.search(r"memory \d+ MiB, \d+ open files", text)


def test_top_in_a_terminal_follows_the_server_until_q(observed: Observed) -> None:
    master, slave = pty.openpty()
    command = [*MEZZOTINT, "top", f"127.0.0.1:{observed.port}", "--interval", "0.2"]
    with subprocess.Popen(command, env=ENVIRONMENT, stdin=slave, stdout=slave, stderr=slave) as top:
        os.close(slave)
        shown = b""
        until = time.monotonic() + 20
        while b"in the last" not in shown:
            assert time.monotonic() < until, shown
            if select.select([master], [], [], 0.2)[0]:
                shown += os.read(master, 65536)
        assert b"emoji" in shown
        os.write(master, b"q")
        assert top.wait(10) == 0
    os.close(master)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("127.0.0.1:1", "http://127.0.0.1:1/metrics: nobody answers (connection refused); is a server there"),
        ("ftp://127.0.0.1", "ftp://127.0.0.1: must be HOST:PORT or a URL"),
        ("gpu..box:8002", "http://gpu..box:8002/metrics: nobody answers ("),
    ],
)
def test_top_without_a_server_is_one_sentence(url: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["top", url, "--once"]) != 0
    assert sentence in capsys.readouterr().err


def test_top_at_a_port_of_something_else_says_so(observed: Observed, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["top", observed.address, "--once"]) == 5
    assert "does not speak HTTP; is that the `--metrics-port`, or the gRPC port?" in capsys.readouterr().err
    assert run(cli, ["top", f"http://127.0.0.1:{observed.port}/health/live", "--once"]) == 5
    assert "answers, but not with the metrics of a Mezzotint server" in capsys.readouterr().err


def test_what_top_takes_for_a_url() -> None:
    assert metrics_url("box:8002") == "http://box:8002/metrics"
    assert metrics_url("https://box/") == "https://box/metrics"
    assert metrics_url("http://box/other") == "http://box/other"
    with pytest.raises(MezzotintError, match="file:///etc/passwd"):
        metrics_url("file:///etc/passwd")


def histogram(at: float, *counts: float) -> Snapshot:
    bounds = ("1", "2", "4", "+Inf")
    return Snapshot(
        at, {"x_bucket": tuple(Sample({"le": le}, count) for le, count in zip(bounds, counts, strict=True))}
    )


def test_quantiles_are_prometheus_own_of_what_happened_between() -> None:
    between = Between(histogram(0, 10, 10, 10, 10), histogram(10, 10, 14, 20, 20))
    assert between.quantile(0.4, "x") == pytest.approx(2.0)
    assert between.quantile(0.7, "x") == pytest.approx(3.0)
    assert between.quantile(0.2, "x") == pytest.approx(1.5)
    assert Between(histogram(0, 0, 0, 0, 0), histogram(1, 0, 0, 0, 5)).quantile(0.5, "x") == 4.0
    assert Between(histogram(0, 1, 1, 1, 1), histogram(1, 1, 1, 1, 1)).quantile(0.5, "x") is None
    assert Between(histogram(0, 9, 9, 9, 9), histogram(1, 2, 2, 2, 2)).more("x_bucket", le="1") == 2  # it was restarted


QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
WORDS = {"by", "on", "and", "sum", "rate", "histogram_quantile"}
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"


def metrics_of(query: str) -> list[tuple[str, list[str]]]:
    """The metrics that a query selects, each with the names of its matchers' labels."""
    bare = re.sub(r"\b(?:by|on)\s*\([^)]*\)|\[[^\]]*\]", " ", query)
    found = re.findall(rf"({NAME})\s*(\{{[^}}]*\}})?", re.sub(r'"[^"]*"', '""', bare))
    return [
        (name, re.findall(rf"({NAME})\s*(?:=~|!~|!=|=)", matchers)) for name, matchers in found if name not in WORDS
    ]


def test_parsing_finds_what_a_query_selects() -> None:
    query = 'sum by (le, a) (rate(x_bucket{b="c{d",e!~"f"}[5m])) / on (g) y_total'
    assert metrics_of(query) == [("x_bucket", ["b", "e"]), ("y_total", [])]


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_of_the_dashboard_asks_for_what_the_server_has(query: str, observed: Observed) -> None:
    has: dict[str, set[str]] = {}
    for name, labels in observed.scraped.values:
        has.setdefault(name, set(TARGET_LABELS)).update(key for key, _ in labels)
    selected = metrics_of(query)
    assert selected
    for name, matched in selected:
        assert name in has, name
        assert set(matched) <= has[name], name
    for labels in re.findall(r"\bby\s*\(([^)]*)\)", query):
        assert {label.strip() for label in labels.split(",")} <= set.intersection(*(has[name] for name, _ in selected))
    for counter in re.findall(rf"\brate\(\s*({NAME})", query):
        assert counter.endswith(("_total", "_bucket", "_sum", "_count")), "a rate of what does not only grow"
        kind = observed.scraped.types.get(re.sub(r"_(total|bucket|sum|count)$", "", counter))
        assert kind == ("counter" if counter.endswith("_total") else "histogram")
    if "histogram_quantile" in query:
        assert re.search(rf"by \(le\b.*rate\({NAME}_bucket\{{", query)


def test_the_dashboards_constants_variables_and_legends_are_real(observed: Observed) -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            given = re.findall(r"\bby\s*\(([^)]*)\)", target["expr"])
            labels = {label.strip() for each in given for label in each.split(",")} if given else TARGET_LABELS
            assert named <= labels, target
    assert observed.scraped("mezzotint_images_total", outcome="finished")
    for variable in DASHBOARD["templating"]["list"][1:]:
        metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]).groups()  # type: ignore[union-attr]
        found = {key for name, labels in observed.scraped.values if name == metric for key, _ in labels}
        assert label in found | TARGET_LABELS


def test_without_terminals_of_that_kind_top_only_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "termios", None)
    with top._keys() as pressed_q:
        assert not pressed_q(0.0)
