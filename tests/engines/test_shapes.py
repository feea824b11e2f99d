"""Compiled shapes: who makes room for whom."""

from mezzotint.engines.shapes import CompiledShapes

A, B, C = ((1, 4),), ((2, 4),), ((4, 4),)


def kept(shapes: CompiledShapes, owner: object) -> list[str]:
    return [name for name, key in (("A", A), ("B", B), ("C", C)) if shapes.has(owner, key)]


def test_what_was_used_longest_ago_makes_room_first_whoever_owns_it() -> None:
    shapes, unet, text = CompiledShapes(100), object(), object()
    shapes.keep(unet, A, "unet A", 40)
    shapes.keep(text, A, "text A", 40)
    assert shapes.get(unet, A) == "unet A"
    shapes.claim(unet, B, 30)
    assert kept(shapes, unet) == ["A"]
    assert kept(shapes, text) == []
    shapes.keep(unet, B, "unet B", 30)
    assert kept(shapes, unet) == ["A", "B"]
    assert shapes.num_bytes == 70


def test_asking_whether_shapes_are_there_is_no_use_of_them() -> None:
    shapes, unet = CompiledShapes(100), object()
    shapes.keep(unet, A, "A", 50)
    shapes.keep(unet, B, "B", 50)
    assert shapes.has(unet, A)
    shapes.claim(unet, C, 50)
    assert kept(shapes, unet) == ["B"]


def test_what_comes_out_larger_than_was_claimed_drops_others_but_never_itself() -> None:
    shapes, unet = CompiledShapes(100), object()
    shapes.keep(unet, A, "A", 50)
    shapes.claim(unet, B, 40)
    assert kept(shapes, unet) == ["A"]
    shapes.keep(unet, B, "B", 140)
    assert kept(shapes, unet) == ["B"]


def test_a_claim_is_not_ready_and_a_failed_one_frees_its_room() -> None:
    shapes, unet = CompiledShapes(100), object()
    shapes.claim(unet, A, 60)
    assert not shapes.has(unet, A)
    assert shapes.get(unet, A) is None
    assert shapes.num_bytes == 60
    shapes.drop(unet, A)
    assert shapes.num_bytes == 0


def test_without_a_limit_an_engine_keeps_its_sixteen_latest_and_no_other_engine_pays() -> None:
    shapes, unet, text = CompiledShapes(), object(), object()
    shapes.keep(text, A, "text A", 1 << 40)
    for rows in range(1, 20):
        shapes.keep(unet, ((rows, 4),), rows, 1 << 40)
    assert [rows for rows in range(1, 20) if shapes.has(unet, ((rows, 4),))] == list(range(4, 20))
    assert kept(shapes, text) == ["A"]


def test_an_owner_that_closes_takes_its_own_with_it() -> None:
    shapes, unet, text = CompiledShapes(), object(), object()
    shapes.keep(unet, A, "A", 1)
    shapes.keep(text, A, "A", 1)
    shapes.drop(unet)
    assert kept(shapes, unet) == []
    assert kept(shapes, text) == ["A"]
