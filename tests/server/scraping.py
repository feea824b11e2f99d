"""What a scrape of a server's metrics says, as Prometheus would read it."""

import asyncio
import urllib.error
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]


class Scrape:
    """The samples of one scrape by name and labels."""

    def __init__(self, text: str) -> None:
        self.values: dict[tuple[str, Labels], float] = {}
        self.types: dict[str, str] = {}
        for family in text_string_to_metric_families(text):
            self.types[family.name] = family.type
            for sample in family.samples:
                self.values[sample.name, frozenset(sample.labels.items())] = sample.value

    def __call__(self, name: str, **labels: str) -> float | None:
        """The one sample of that name whose labels are these, the bundle's name apart."""
        found = [
            value
            for (sample, has), value in self.values.items()
            if sample == name and {key: text for key, text in has if key != "model" or "model" in labels} == labels
        ]
        assert len(found) < 2, f"{name} {labels}: is ambiguous"
        return found[0] if found else None


def get(port: int | None, path: str) -> tuple[int, str]:
    """The status and body of a path of a server on this machine."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def scrape(port: int | None) -> Scrape:
    """What ``/metrics`` of a server in this process says."""
    status, text = await asyncio.to_thread(get, port, "/metrics")
    assert status == 200
    return Scrape(text)
