import pytest

from mezzotint.engines.component import Component
from mezzotint.engines.errors import MezzotintError
from mezzotint.server.flagged import OnFlagged
from mezzotint.server.triton.settings import Settings, read_settings


def test_what_is_written_as_parameters_is_read_back() -> None:
    settings = Settings("text=cpu,unet=gpu", 3, 9, 5, "fcfs", "blur")
    assert read_settings(settings.parameters()) == settings
    assert settings.load.device_of(Component.UNET) == "gpu"
    assert settings.load.num_threads == 3
    assert (settings.core.max_queue_size, settings.core.on_flagged) == (9, OnFlagged.BLUR)


def test_parameters_in_capitals_are_tritons_own() -> None:
    assert read_settings({"FORCE_CPU_ONLY_INPUT_TENSORS": "yes"}) == Settings()


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"max_queue": "5"}, "parameter 'max_queue': is none of a model's"),
        ({"num_threads": "-1"}, "parameter num_threads='-1': must be a whole number"),
    ],
)
def test_parameters_that_are_not_ours_or_wrong_are_refused(parameters: dict[str, str], sentence: str) -> None:
    with pytest.raises(MezzotintError, match=sentence):
        read_settings(parameters)


@pytest.mark.parametrize("wrong", [{"max_queue_size": "0"}, {"policy": "best"}, {"on_flagged": "hide"}])
def test_values_are_those_that_serve_takes(wrong: dict[str, str]) -> None:
    with pytest.raises(MezzotintError, match="must be"):
        _ = read_settings(wrong).core
