"""The HTTP port for those who watch: ``/metrics`` for Prometheus, ``/health/live`` and ``/health/ready`` for probes.

The standard library's WSGI server and prometheus_client's own application. There is no authentication.
"""

import logging
import socket
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import make_wsgi_app

from mezzotint.engines.errors import Unavailable
from mezzotint.server.config import MetricsConfig, host_port
from mezzotint.server.metrics import Metrics

logger = logging.getLogger(__name__)

LIVE, READY = "/health/live", "/health/ready"
"""What probes ask for."""

_POLL_SECONDS = 0.1  # how long closing takes at most
_TIMEOUT_SECONDS = 10.0  # of a client that connects and says nothing


class Probes:
    """An HTTP server in threads of its own, from when it is made until it is closed.

    Args:
        config: where to listen.
        metrics: what to show.
        is_live: whether the process can still do its work; else a container's supervisor should restart it.
        is_ready: whether it takes requests.

    Raises:
        Unavailable: the port is taken, or the host is none of this machine's.
    """

    def __init__(
        self,
        config: MetricsConfig,
        metrics: Metrics,
        *,
        is_live: Callable[[], bool],
        is_ready: Callable[[], bool],
    ) -> None:
        checks = {LIVE: is_live, READY: is_ready}
        try:
            self._server = _Listening(config)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise Unavailable(
                f"{host_port(config.host, config.port)}: cannot be listened on for metrics ({reason}); is another "
                "server there? use `--metrics-port`, or `--no-metrics`"
            ) from None
        self._server.set_app(_application(make_wsgi_app(metrics.registry), checks))
        self.port = int(self._server.server_port)
        logger.info("metrics on http://%s/metrics", host_port(config.host, self.port))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="mezzotint-metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Listening(ThreadingMixIn, WSGIServer):
    """A thread for each scrape, so that a slow one is in nobody's way."""

    daemon_threads = True

    def __init__(self, config: MetricsConfig) -> None:
        family, *_, address = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0]
        self.address_family = family
        super().__init__((str(address[0]), config.port), _Quiet)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # WSGIServer's own would ask DNS for a name that nobody wants
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("a scrape by %s went wrong", client_address, exc_info=True)


class _Quiet(WSGIRequestHandler):
    timeout = _TIMEOUT_SECONDS

    def log_message(self, *_: object, **__: object) -> None:
        """Log nothing: a scrape is no event."""


def _application(metrics: WSGIApplication, checks: dict[str, Callable[[], bool]]) -> WSGIApplication:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            return metrics(environ, start_response)
        if path not in checks:
            return _say(start_response, HTTPStatus.NOT_FOUND, "there are /metrics, /health/live and /health/ready")
        good = checks[path]()
        status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
        return _say(start_response, status, "yes" if good else "no")

    return application


def _say(start_response: StartResponse, status: HTTPStatus, text: str) -> Iterable[bytes]:
    start_response(f"{status.value} {status.phrase}", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{text}\n".encode()]
