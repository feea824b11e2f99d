"""What was measured is of calls that were made: one that fails is not counted as slow."""

from pathlib import Path

import pytest

from mezzotint.engines import tune
from mezzotint.engines.component import Component
from mezzotint.engines.errors import EngineFailed
from mezzotint.engines.timing import distinct_rows
from mezzotint.engines.variants import FULL
from tests.fakes import Arrays, FakeEngine, fake_model


class FailsLater(FakeEngine):
    """An engine whose calls fail once it is warm."""

    def run(self, inputs: Arrays) -> Arrays:
        self.failures = len(self.calls)
        return super().run(inputs)


def test_an_engine_that_fails_beside_another_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "_SECONDS", 0.0)
    _, engines = fake_model(tmp_path)
    good = engines[Component.UNET, FULL]
    inputs = distinct_rows(good.spec, 2)
    assert tune._calls_a_second([good], inputs) > 0
    with pytest.raises(EngineFailed, match="told to fail"):
        tune._calls_a_second([good, FailsLater(good.spec, [])], inputs)
