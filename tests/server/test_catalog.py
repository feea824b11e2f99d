"""Which state follows which, and who makes room; without an event loop."""

from pathlib import Path

import pytest

from mezzotint.engines.errors import InvalidRequest, ModelNotFound, Unavailable
from mezzotint.server.catalog import Catalog, State, Version
from mezzotint.server.config import CoreConfig
from mezzotint.server.core import Core
from mezzotint.server.room import choose_victims
from tests.fakes import FakeClock, fake_model
from tests.server.bundles import FakeLoader, write_bundle


class Idle:
    """A core with so many open requests."""

    def __init__(self, num_open: int = 0) -> None:
        self.num_open = num_open


def version(tmp_path: Path, catalog: Catalog, name: str, num_open: int = 0, size: int = 1) -> Version:
    loader = FakeLoader(sizes={name: size})
    bundle = loader.read(write_bundle(tmp_path, name))
    made = catalog.begin(name, bundle)
    (made.loading,) = loader.plan([bundle])
    catalog.serve(made, Idle(num_open))  # type: ignore[arg-type]
    return made


def test_a_name_that_is_expected_is_loading_and_then_ready(tmp_path: Path) -> None:
    catalog = Catalog(["fake", "other"])
    with pytest.raises(Unavailable, match="model fake is still loading; try again in a moment"):
        catalog.find("fake")
    model, _ = fake_model(tmp_path)
    core = Core(model, CoreConfig())
    added = catalog.add(core)
    assert (added.state, catalog.find("fake"), catalog.cores) == (State.READY, core, (core,))
    assert [catalog.takes_requests(name) for name in ("fake", "other", "none")] == [True, False, False]
    core.close()


def test_names_must_be_known_and_given_where_there_are_several() -> None:
    with pytest.raises(ModelNotFound, match="no model is served here; load one with `mezzotint models load NAME`"):
        Catalog().find("")
    with pytest.raises(InvalidRequest, match="model: must be named where several are served; one of a, b"):
        Catalog(["a", "b"]).find("")
    with pytest.raises(ModelNotFound, match="model='c': is not served here; use a, b"):
        Catalog(["a", "b"]).find("c")
    with pytest.raises(InvalidRequest, match="name: must be that of the model to unload"):
        Catalog(["a"]).unload("")


def test_a_version_beside_the_served_one_takes_its_place_only_when_it_is_loaded(tmp_path: Path) -> None:
    catalog = Catalog()
    old = version(tmp_path, catalog, "a")
    new = catalog.begin("a", old.bundle)
    assert catalog.find("a") is old.core
    assert [(v.state, catalog.is_current(v)) for v in catalog.versions] == [(State.READY, True), (State.LOADING, False)]
    assert catalog.serve(new, Idle()) is old  # type: ignore[arg-type]
    assert catalog.find("a") is new.core
    assert catalog.leaving == (old,)
    catalog.discard(old)
    assert catalog.versions == (new,)


def test_a_version_that_is_not_loaded_needs_no_retiring(tmp_path: Path) -> None:
    catalog = Catalog()
    old = version(tmp_path, catalog, "a")
    catalog.stop(old, State.EVICTED, "gone")
    assert catalog.takes_requests("a")
    assert catalog.serve(catalog.begin("a", old.bundle), Idle()) is None  # type: ignore[arg-type]
    assert len(catalog.versions) == 1


def test_idle_are_those_without_requests_the_longest_unused_first(tmp_path: Path) -> None:
    clock = FakeClock()
    catalog = Catalog(clock=clock)
    a, b, busy, waited = (
        version(tmp_path, catalog, name, num_open=name == "busy") for name in ["a", "b", "busy", "waited"]
    )
    waited.num_waiting = 1
    assert catalog.idle() == (a, b)
    clock.now = 5.0
    catalog.find("a")
    assert catalog.idle() == (b, a)
    assert busy.core is not None


def test_no_more_is_evicted_than_is_needed_and_nothing_where_it_would_not_do(tmp_path: Path) -> None:
    catalog = Catalog()
    small, large, last = (version(tmp_path, catalog, name, size=size) for name, size in (("s", 1), ("l", 5), ("z", 1)))
    assert [v.held_bytes for v in (small, large, last)] == [100, 500, 100]
    assert choose_victims(0, [small, large]) == []
    assert choose_victims(100, [small, large, last]) == [small]
    assert choose_victims(101, [small, large, last]) == [small, large]
    assert choose_victims(701, [small, large, last]) is None
