"""How large values of the configuration may be, at most."""

from __future__ import annotations

PATH = 300  # letters of a name or path


SIZE = "[0-9]{1,5}x[0-9]{1,5}x[0-9]{1,5}"  # frames, height and width in px


UPDATES, ROWS, SEED = 1_000_000_000, 1_000_000_000, 4_294_967_295  # at most
