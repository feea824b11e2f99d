import numpy as np

from mezzotint.server.status import CODES as STATUS
from mezzotint.server.triton.wording import CODES, code_of, joined, names_to_ask, with_code


def test_every_status_but_internal_has_a_code_of_tritons() -> None:
    assert {code for code in STATUS.values() if code not in CODES} == {
        code for code in STATUS.values() if code.name in ("INTERNAL", "UNAUTHENTICATED", "UNIMPLEMENTED")
    }


def test_an_errors_code_survives_as_text() -> None:
    assert code_of(with_code("INVALID_ARG", "steps=0: must be 1")) == ("INVALID_ARG", "steps=0: must be 1")


def test_an_error_of_tritons_own_is_that_the_model_is_away() -> None:
    assert code_of("model 'x': is not ready") == ("UNAVAILABLE", "model 'x': is not ready")


def test_pictures_of_a_stream_are_joined_in_the_requests_order() -> None:
    parts = [
        {"IMAGE_INDEX": np.array([1], np.int32), "SEEDS": np.array([8]), "IMAGES": np.ones((1, 2, 2, 3), np.uint8)},
        {"IMAGE_INDEX": np.array([0], np.int32), "SEEDS": np.array([7]), "IMAGES": np.zeros((1, 2, 2, 3), np.uint8)},
    ]
    whole = joined(parts, {"IMAGES", "SEEDS"})
    assert list(whole) == ["IMAGES", "SEEDS"]
    assert whole["SEEDS"].tolist() == [7, 8]
    assert whole["IMAGES"][:, 0, 0, 0].tolist() == [0, 1]


def test_an_output_that_a_picture_lacks_is_left_out() -> None:
    parts = [{"IMAGE_INDEX": np.array([0], np.int32), "SEEDS": np.array([7])}]
    assert list(joined(parts, {"LATENTS", "SEEDS"})) == ["SEEDS"]


def test_the_stream_is_always_asked_which_picture_it_is() -> None:
    assert sorted(names_to_ask({"IMAGES"})) == ["IMAGES", "IMAGE_INDEX"]
    assert names_to_ask({"IMAGE_INDEX"}) == ["IMAGE_INDEX"]
