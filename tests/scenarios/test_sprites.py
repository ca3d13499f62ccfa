import pytest
import torch
from torch.nn import functional

from pdmd.errors import UserError
from pdmd.scenarios import sprites
from pdmd.scenarios.sprites import (
    STYLES,
    area_weights,
    categories,
    names,
    nouns,
    place,
    sprite,
    views,
)

BLACK, WHITE = torch.zeros(3), torch.ones(3)


def numbers(*values):
    return torch.tensor(values, dtype=torch.float32)


def disc(size=48, colour=(1.0, 1.0, 1.0), right=0.0, down=0.0, radius=0.25):
    """(1, 4, size, size): a disc, its centre moved by shares of the side."""
    place_of = (torch.arange(size) + 0.5) / size - 0.5
    inside = (place_of - right)[None, :] ** 2 + (place_of - down)[:, None] ** 2 < radius**2
    rgb = torch.tensor(colour)[:, None, None].expand(3, size, size)
    return torch.cat([rgb, inside.float()[None]])[None]


def centroid(picture):
    """(right, down) of the light in (3, px, px) in [-1, 1] on black, pixels from the middle."""
    light, px = (picture.mean(0) + 1).double(), picture.shape[-1]
    at = torch.arange(px) + 0.5 - px / 2
    return float((light.sum(0) * at).sum() / light.sum()), float(
        (light.sum(1) * at).sum() / light.sum()
    )


def test_every_object_is_drawn_in_every_style():
    assert len(names()) == 135
    for style in STYLES:
        alphas = torch.stack([sprite(name, style, 16)[3] for name in names()])
        assert alphas.flatten(1).mean(1).min() > 0.1  # the thinnest is the wrench
        assert alphas.amax((1, 2)).min() > 0.9


def test_every_object_has_words_and_a_category():
    assert set(nouns()) == set(categories()) == set(names())
    assert nouns()["automobile"] == "car"
    assert categories()["fox"] == "animal"
    assert len(set(nouns().values())) >= len(names()) - 1  # apple is the one word said once
    assert not any(noun.endswith("-face") for noun in nouns().values())


def test_the_styles_of_an_object_differ():
    drawn = torch.stack([sprite("fox", style, 32).flatten() for style in STYLES])
    apart = torch.cdist(drawn, drawn) / drawn.shape[1] ** 0.5
    assert apart[~torch.eye(4, dtype=torch.bool)].min() > 0.1
    assert torch.equal(sprite("fox", "noto", 32), sprite("fox", "noto", 32))  # control


def test_a_drawing_that_is_not_square_lies_in_the_middle_of_a_square():
    boxes = {(icon["width"], icon["height"]) for icon in sprites._icons("twemoji").values()}
    assert any(width != height for width, height in boxes)  # there is one
    for name, icon in sprites._icons("twemoji").items():
        if icon["width"] > icon["height"]:
            alpha = sprite(name, "twemoji", 48)[3]
            margin = int((1 - icon["height"] / icon["width"]) / 2 * 48)
            assert alpha[: margin - 1].sum() == alpha[48 - margin + 1 :].sum() == 0


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match="style: 'crayon': expected one of noto, noto-v1"):
        sprite("fox", "crayon", 16)
    with pytest.raises(UserError, match=r"object: 'gryphon': expected a name of"):
        sprite("gryphon", "noto", 16)


def test_area_weights_are_shares_and_lose_what_lies_outside():
    inside = area_weights(numbers(1.3), numbers(7.9), 12, 5)
    torch.testing.assert_close(inside.sum(2), torch.ones(1, 5))
    half_out = area_weights(numbers(-2.0), numbers(4.0), 12, 2)
    torch.testing.assert_close(half_out.sum(2), numbers(0, 1)[None])


def test_a_view_of_whole_cells_is_a_crop():
    source = torch.rand(2, 3, 10, 10, generator=torch.Generator().manual_seed(0))
    found = views(source, numbers(1, 4)[:, None], numbers(3, 0)[:, None], numbers(6, 6)[:, None], 6)
    torch.testing.assert_close(found[0, 0], source[0, :, 3:9, 1:7])
    torch.testing.assert_close(found[1, 0], source[1, :, 0:6, 4:10])
    assert not torch.allclose(found[0, 0], source[0, :, 1:7, 3:9])  # control: left is not top


def test_a_smaller_view_is_the_mean_of_its_areas():
    source = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    found = views(source, numbers(0)[None], numbers(0)[None], numbers(12)[None], 4)[0]
    torch.testing.assert_close(found, functional.avg_pool2d(source, 3))


def test_a_fine_pattern_leaves_no_moire():
    cells = torch.arange(64)
    checks = ((cells[:, None] + cells) % 2).float().expand(1, 1, 64, 64)
    found = views(checks, numbers(0.37)[None], numbers(0.2)[None], numbers(61.3)[None], 9)
    assert (found - 0.5).abs().max() < 0.05
    sampled = functional.interpolate(checks[..., :61, :61], size=9)  # control: nearest cell
    assert (sampled - 0.5).abs().max() == 0.5


@pytest.mark.parametrize("px", [16, 24, 32])
def test_a_shift_moves_a_sprite_by_just_so_many_pixels(px):
    dx, dy = numbers(0, 1, -0.5, 0.3), numbers(0, 0, 1, -0.8)
    found = place(disc().expand(4, -1, -1, -1), px, torch.full((4,), 0.9), dx, dy, BLACK)
    at = torch.tensor([centroid(picture) for picture in found])
    torch.testing.assert_close(at, torch.stack([dx, dy], 1), rtol=0, atol=2e-3)
    assert (at + torch.stack([dx, dy], 1)).abs().max() > 1  # control: the other way


def test_the_area_of_a_sprite_goes_with_the_square_of_its_scale():
    zero = torch.zeros(2)
    found = place(disc().expand(2, -1, -1, -1), 32, numbers(0.4, 0.8), zero, zero, BLACK)
    small, large = (found + 1).sum((1, 2, 3))
    assert float(large / small) == pytest.approx(4, rel=1e-4)


@pytest.mark.parametrize(("angle", "right", "down"), [(90, 1, 0), (-90, -1, 0), (180, 0, 1)])
def test_a_mark_at_the_top_turns_clockwise(angle, right, down):
    top = disc(radius=0.1, down=-0.25)
    found = place(top, 24, numbers(1), numbers(0), numbers(0), BLACK, float(angle))
    at = centroid(found[0])
    assert at == (pytest.approx(6 * right, abs=0.05), pytest.approx(6 * down, abs=0.05))


def test_a_full_turn_changes_nothing_much():
    fox = sprite("fox", "noto", 96)[None]
    still, turned, other = (
        place(fox, 32, numbers(0.9), numbers(0), numbers(0), WHITE, angle)
        for angle in (0.0, 360.0, 20.0)
    )
    assert (still - turned).abs().max() < 1e-3
    assert (still - other).abs().max() > 0.5  # control


def test_corners_that_turn_are_not_cut_off():
    square = torch.ones(1, 4, 48, 48)
    still, turned = (
        (place(square, 32, numbers(0.8), numbers(0), numbers(0), BLACK, angle) + 1).sum()
        for angle in (0.0, 6.0)
    )
    assert float(turned / still) == pytest.approx(1, abs=0.005)


def test_the_colour_of_transparent_parts_does_not_show():
    drawn = disc(colour=(1.0, 0.0, 0.0))
    drawn[:, 1] = 1 - drawn[:, 3]  # green wherever nothing is to be seen
    found = place(drawn, 16, numbers(0.9), numbers(0.3), numbers(0), BLACK, 5.0)
    assert float(found[:, 1].max()) == -1
    plain = views(drawn, numbers(0)[None], numbers(0)[None], numbers(48)[None], 16)[0, 0]
    assert (plain[1] * plain[3]).max() > 0.1  # control: averaged without its alpha it does


def test_the_background_of_each_picture_is_its_own():
    grounds = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]])
    zero = torch.zeros(2)
    found = place(disc().expand(2, -1, -1, -1), 16, numbers(0.5, 0.5), zero, zero, grounds)
    torch.testing.assert_close(found[:, :, 0, 0], 2 * grounds - 1)
    torch.testing.assert_close(found[:, :, 8, 8], torch.ones(2, 3))


def test_pictures_do_not_depend_on_their_neighbours(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    many = torch.stack([sprite(name, "noto", 48) for name in names()[:7]])
    scale, dx, dy, angle = torch.rand(4, 7, generator=generator)
    whole = place(many, 16, scale + 0.5, dx, dy, WHITE, angle)
    monkeypatch.setattr(sprites, "CHUNK", 3)
    torch.testing.assert_close(place(many, 16, scale + 0.5, dx, dy, WHITE, angle), whole)
    assert not torch.allclose(place(many, 16, scale + 0.4, dx, dy, WHITE, angle), whole)  # control
