"""Copies the objects of objects.json out of unpacked emoji packages; run by hand, once.

    for package in noto@1.2.9 noto-v1@1.2.5 fluent-emoji-flat@1.2.6 twemoji@1.2.5; do
      npm pack @iconify-json/$package
    done
    python -m pdmd.scenarios.art.choose FOLDER_OF_THE_ARCHIVES

The archives are read where they lie; nothing is unpacked and no script of theirs runs.
"""

from __future__ import annotations

import json
import sys
import tarfile
from pathlib import Path
from typing import Any

from pdmd.errors import UserError
from pdmd.files.storage import read_json, sha256, write_json

ART = Path(__file__).parent
ARCHIVES = {  # style -> archive, sha256
    "noto": (
        "iconify-json-noto-1.2.9.tgz",
        "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
    ),
    "noto-v1": (
        "iconify-json-noto-v1-1.2.5.tgz",
        "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
    ),
    "fluent-emoji-flat": (
        "iconify-json-fluent-emoji-flat-1.2.6.tgz",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
    ),
    "twemoji": (
        "iconify-json-twemoji-1.2.5.tgz",
        "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
    ),
}


def read_icons(archive: Path, digest: str) -> dict[str, Any]:
    """The icon set in a package archive. Raises UserError if it is not the archive of record."""
    if not archive.is_file():
        raise UserError(f"{archive}: no such file: expected the archive of `npm pack`")
    if sha256(archive) != digest:
        raise UserError(f"{archive}: sha256 {sha256(archive)}: expected {digest}")
    with tarfile.open(archive) as package:
        member = package.extractfile("package/icons.json")
        if member is None:
            raise UserError(f"{archive}: no package/icons.json: expected an iconify icon set")
        icons: dict[str, Any] = json.load(member)
    return icons


def pick(icons: dict[str, Any], name: str) -> dict[str, Any]:
    """An icon by its name or alias, with its size. Raises UserError for one that is not there.

    Aliases that turn or flip their parent are refused: none is needed.
    """
    icon_name, width, height = name, icons.get("width", 16), icons.get("height", 16)
    while icon_name not in icons["icons"]:
        alias = icons.get("aliases", {}).get(icon_name)
        if alias is None or set(alias) != {"parent"}:
            raise UserError(f"{icons['prefix']}: no icon {name!r}: expected a name of the set")
        icon_name = alias["parent"]
    icon = icons["icons"][icon_name]
    return {
        "width": icon.get("width", width),
        "height": icon.get("height", height),
        "body": icon["body"],
    }


def choose(folder: Path) -> None:
    """Write <style>.json for every style beside this file."""
    names = sorted(name for group in read_json(ART / "objects.json").values() for name in group)
    for style, (archive, digest) in ARCHIVES.items():
        icons = read_icons(folder / archive, digest)
        write_json(ART / f"{style}.json", {name: pick(icons, name) for name in names})


if __name__ == "__main__":
    try:
        choose(Path(sys.argv[1]))
    except (UserError, IndexError) as error:
        sys.exit(f"choose: {error}: expected the folder of the four archives as argument")
