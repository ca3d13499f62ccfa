import json
import tarfile

import pytest

from pdmd.errors import UserError
from pdmd.files.storage import read_json, sha256
from pdmd.scenarios.art import choose
from pdmd.scenarios.sprites import STYLES

ICONS = {
    "prefix": "tiny",
    "width": 36,
    "height": 36,
    "icons": {"fox": {"body": "<path/>"}, "tent": {"body": "<g/>", "height": 20}},
    "aliases": {
        "renard": {"parent": "vixen"},
        "vixen": {"parent": "fox"},
        "flipped-fox": {"parent": "fox", "hFlip": True},
    },
}


def packed(folder, icons):
    """A package archive as npm makes it, and its digest."""
    (folder / "icons.json").write_text(json.dumps(icons))
    with tarfile.open(folder / "tiny.tgz", "w:gz") as archive:
        archive.add(folder / "icons.json", "package/icons.json")
    return folder / "tiny.tgz", sha256(folder / "tiny.tgz")


def test_an_icon_comes_with_its_own_size_or_that_of_its_set():
    assert choose.pick(ICONS, "fox") == {"width": 36, "height": 36, "body": "<path/>"}
    assert choose.pick(ICONS, "tent") == {"width": 36, "height": 20, "body": "<g/>"}


def test_an_alias_of_an_alias_is_followed():
    assert choose.pick(ICONS, "renard") == choose.pick(ICONS, "fox")
    assert choose.pick(ICONS, "renard") != choose.pick(ICONS, "tent")  # control


@pytest.mark.parametrize("name", ["flipped-fox", "wolf"])
def test_a_turned_alias_and_an_unknown_name_are_refused(name):
    with pytest.raises(UserError, match=f"tiny: no icon '{name}': expected a name of the set"):
        choose.pick(ICONS, name)


def test_only_the_archive_of_record_is_read(tmp_path):
    archive, digest = packed(tmp_path, ICONS)
    assert choose.read_icons(archive, digest) == ICONS
    with pytest.raises(UserError, match=r"tiny\.tgz: sha256 .*: expected 0000"):
        choose.read_icons(archive, "0000")
    with pytest.raises(UserError, match=r"other\.tgz: no such file"):
        choose.read_icons(tmp_path / "other.tgz", digest)


def test_choosing_writes_each_style_from_its_archive(tmp_path, monkeypatch):
    archive, digest = packed(tmp_path, ICONS)
    (tmp_path / "objects.json").write_text('{"animal": {"renard": "fox"}, "thing": {"tent": "t"}}')
    monkeypatch.setattr(choose, "ART", tmp_path)
    monkeypatch.setattr(choose, "ARCHIVES", {"small": (archive.name, digest)})
    choose.choose(tmp_path)
    assert read_json(tmp_path / "small.json") == {
        "renard": choose.pick(ICONS, "fox"),
        "tent": choose.pick(ICONS, "tent"),
    }


@pytest.mark.parametrize("style", STYLES)
def test_every_style_has_its_licence_and_its_archive_on_record(style):
    licence = (choose.ART / f"LICENCE-{style}.txt").read_text()
    words = {"fluent-emoji-flat": "MIT License", "twemoji": "Attribution 4.0 International"}
    assert words.get(style, "Apache License") in licence
    archive, digest = choose.ARCHIVES[style]
    assert f"| `{archive}` | `{digest}` |" in (choose.ART / "README.md").read_text()
