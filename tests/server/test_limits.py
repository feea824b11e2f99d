import pytest

from mezzotint.engines.errors import InvalidRequest, MezzotintError
from mezzotint.engines.hires import Hires
from mezzotint.engines.request import Request
from mezzotint.server.limits import RequestLimits
from tests.fake_manifest import fake_manifest

LIMITS = RequestLimits(max_steps=50, max_pixels=64 * 40, max_images=4)


@pytest.mark.parametrize(
    "request_",
    [Request(steps=50), Request(width=64, height=40), Request(num_images=4), Request(width=64), Request(steps=-1)],
)
def test_what_is_at_a_limit_passes(request_: Request) -> None:
    LIMITS.check(request_, fake_manifest("fake"))
    RequestLimits().check(Request(steps=1000, num_images=64, width=64, height=64), fake_manifest("fake"))


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (Request(steps=51), "steps=51: this server allows at most 50 steps; ask for fewer"),
        (Request(num_images=5), "num_images=5: this server allows at most 4 pictures a request; ask for fewer"),
        (
            Request(width=64, height=48),
            "width × height = 64 × 48: this server allows at most 2560 pixels a picture; ask for fewer",
        ),
    ],
)
def test_what_is_over_a_limit_is_refused_in_one_sentence(request_: Request, sentence: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        LIMITS.check(request_, fake_manifest("fake"))
    assert str(refused.value) == sentence


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -2.0])
def test_a_scale_that_is_none_is_refused_before_a_size_is_made_of_it(scale: float) -> None:
    with pytest.raises(InvalidRequest, match=r"hires_scale=.*: must be between 1 and 16"):
        RequestLimits().check(Request(hires=Hires(scale)), fake_manifest("fake"))


def test_a_size_that_is_not_said_is_the_bundles() -> None:
    with pytest.raises(InvalidRequest, match="width × height = 32 × 32: this server allows at most 1000 pixels"):
        RequestLimits(max_pixels=1000).check(Request(), fake_manifest("fake"))


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(MezzotintError, match="max_images=0: must be at least 1"):
        RequestLimits(max_images=0)
