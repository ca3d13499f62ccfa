"""First frames that the project draws."""

import numpy as np
import pytest

from pdmd.data.scenes import GROUNDS, draw_scene
from pdmd.errors import UserError


def pixels(height, width, *objects, ground="meadow"):
    picture = draw_scene({"background": ground, "objects": list(objects)}, height, width)
    return np.asarray(picture).astype(int)


def centre(height, width, *entry):
    """Where an object's pixels lie, as shares of height and width."""
    change = np.abs(pixels(height, width, entry) - pixels(height, width)).sum(2)
    down, right = np.nonzero(change > 30)
    return (right.mean() + 0.5) / width, (down.mean() + 0.5) / height


def test_an_object_is_where_it_was_asked_for_at_any_size():
    for height, width in ((64, 64), (48, 80), (96, 48)):
        x, y = centre(height, width, "soccer-ball", 0.5, 0.6, 0.4)
        assert (abs(x - 0.5) < 0.03, abs(y - 0.6) < 0.03) == (True, True)
    x, _ = centre(64, 64, "soccer-ball", 0.3, 0.6, 0.4)
    assert abs(x - 0.5) > 0.1  # control


def test_what_comes_later_stands_in_front():
    ball, bear = ("soccer-ball", 0.5, 0.5, 0.5), ("bear", 0.5, 0.5, 0.5)
    one, other = pixels(64, 64, ball, bear), pixels(64, 64, bear, ball)
    assert (one[32, 32] != other[32, 32]).any()


def test_every_ground_differs_from_the_others():
    assert len({pixels(32, 48, ground=name).tobytes() for name in GROUNDS}) == len(GROUNDS)


@pytest.mark.parametrize(
    ("scene", "said"),
    [
        ({"background": "moon"}, "scene: background: moon: expected one of meadow"),
        ({"background": "sea", "objects": [["fox", 0.5]]}, "a name and three numbers"),
        ({"background": "sea", "objects": [["fox", 0.5, 0.5, 0]]}, "a size above 0"),
        ({"background": "sea", "objects": [["foxx", 0.5, 0.5, 1]]}, "object: 'foxx'"),
    ],
)
def test_a_scene_that_cannot_be_drawn_is_told(scene, said):
    with pytest.raises(UserError, match=said):
        draw_scene(scene, 16, 16)
