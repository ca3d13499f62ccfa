"""The report: one file that asks for nothing, says what the files say, can be sorted and read."""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest
import torch
from test_figures import fake_scenario

from pdmd.config.paper import artefacts
from pdmd.config.run import read_run
from pdmd.errors import UserError
from pdmd.files.storage import write_json, write_text
from pdmd.report.figures import draw_figures
from pdmd.report.page.content import picture, table
from pdmd.report.page.media import moving
from pdmd.report.page.write import marked, newest, write_page

CHROMIUM = shutil.which("chromium")
SCORES = """method,n,tv_mean,tv_low,tv_high
teacher,3,0.02,0.01,0.03
dmd2,3,0.4,0.3,0.5
phased2,3,0.1,,
"""
CLAIMS = "claim,effect_mean,effect_low,effect_high,verdict\nIt <is>,-1,-2,0,holds\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A mixture of two seeds with figures, one table and a claim, and its methods."""
    results = tmp_path_factory.mktemp("results")
    configs = fake_scenario(results, "mixture2d", [1, 2], ["teacher", "dmd2", "phased2"])
    draw_figures(configs)
    folder = results / "mixture2d"
    write_text(folder / "tables/modes.csv", SCORES)
    inputs = {f"mixture2d/{m}/seed1/metrics.json": "ab" * 32 for m in ("dmd2", "phased2")}
    record = {"commit": "c0ffee0ddba11", "dirty": False, "packages": {"torch": "9.9"}}
    record |= {
        "inputs_sha256": inputs,
        "config": configs[0],
        "made_from": {"modes": sorted(inputs)},
    }
    write_json(folder / "tables/provenance.json", record)
    write_json(folder / "dmd2/config/distill.0.json", {"distill": {"updates": 77}})
    write_text(results / "claims.csv", CLAIMS)
    write_json(results / "claims.json", record)
    return results, {"mixture2d": [read_run(config) for config in configs]}


@pytest.fixture(scope="module")
def page(finished, repository):
    results, runs = finished
    path = results / "report.html"
    write_page(results, runs, artefacts(repository), path)
    return path


def test_it_asks_for_no_other_file(page):
    text = page.read_text()
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', text)
    assert sources
    assert all(one.startswith(("data:", "#")) for one in sources)
    assert not re.search(r"https?://|@import|url\(", re.sub(r"data:[^\"]+", "", text))


def test_it_shows_tables_figures_claims_settings_and_where_they_come_from(page):
    text = unescape(page.read_text())
    for wanted in (
        "DMD2 (SGTS)",
        "0.400 [0.300, 0.500]",
        "2D mixture" if "2D mixture" in text else "mixture2d",
        "It <is>",
        "-1.000 [-2.000, 0.000]",
        "updates: 77",
        "commit c0ffee0ddb (clean), 2 files",
        "abababababab  mixture2d/phased2/seed1/metrics.json",
        "torch 9.9",
    ):
        assert wanted in text, wanted
    assert "It <is>" not in page.read_text()  # control: what a file says is no markup
    assert text.count("data:image/png;base64,") >= 4


def test_a_caption_shows_names_as_code_and_is_never_markup():
    assert str(marked("of `a<b`, & more")) == "of <code>a&lt;b</code>, &amp; more"
    assert str(marked("one ` alone")) == "one ` alone"


def test_a_verdict_stands_beside_its_claim(page):
    """Not where a narrow screen cuts a table off."""
    text = page.read_text()
    heads = re.findall(r"<button>([^<]*)</button>", text[text.index('id="claims"') :])
    assert heads[:3] == ["claim", "verdict", "effect"]


def test_a_cell_is_sorted_by_its_mean(finished):
    folder = finished[0] / "mixture2d/tables"
    shown = table(folder / "modes.csv", "", "", folder / "provenance.json", "modes")
    assert list(shown.heads) == ["method", "n", "tv"]
    assert [row[2].key for row in shown.rows] == ["0.02", "0.4", "0.1"]
    assert shown.rows[2][2].text == "0.100"  # an interval that is none


def test_what_is_damaged_is_named(finished, repository, tmp_path):
    results, runs = finished
    for name in ("tables/modes.csv", "tables/provenance.json", "figures/provenance.json"):
        path = results / "mixture2d" / name
        content = path.read_bytes()
        path.write_bytes(b"\xff{")
        with pytest.raises(UserError, match=path.name):
            write_page(results, runs, artefacts(repository), tmp_path / "report.html")
        path.write_bytes(content)
    assert not (tmp_path / "report.html").exists()
    with pytest.raises(UserError, match="no tables"):
        write_page(tmp_path, runs, [], tmp_path / "report.html")
    with pytest.raises(UserError, match="nowhere"):
        picture(tmp_path / "nowhere.png")


def test_newer_results_are_seen(finished):
    results, _ = finished
    assert newest(results) > 0
    assert newest(results / "nowhere") == 0


@pytest.mark.parametrize(("frames", "moves"), [(1, False), (4, True)])
def test_a_clip_moves_and_a_picture_does_not(frames, moves):
    from base64 import b64decode
    from io import BytesIO

    from PIL import Image

    x = torch.linspace(-1, 1, 3 * frames * 20 * 20).view(3, frames, 20, 20)
    found = Image.open(BytesIO(b64decode(moving(x).partition(",")[2])))
    assert getattr(found, "n_frames", 1) == frames
    assert found.size == (140, 140)
    assert bool(getattr(found, "is_animated", False)) == moves


# ---- in a browser


LISTEN = """<script>
const faults = [];
addEventListener("error", event => faults.push(event.message || event.target.src), true);
</script>"""
ANSWER = """<script>
const value = (() => { SCRIPT })();
addEventListener("load", () => {
  const asked = performance.getEntriesByType("resource").map(one => one.name);
  faults.push(...asked.filter(name => !name.startsWith("data:")));
  document.title = JSON.stringify([value, faults]);
});
</script>"""


def seen(page, tmp_path, width, script):
    """What a script returns in a page of some width; errors, and other files it asked for."""
    copy = tmp_path / "page.html"
    text = page.read_text().replace("<head>", f"<head>{LISTEN}")
    copy.write_text(text.replace("</body>", f"{ANSWER.replace('SCRIPT', script)}</body>"))
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--window-size={width},900"]
    command += [f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [*command, copy.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    (title,) = re.findall(r"<title>(.*?)</title>", done.stdout)
    value, faults = json.loads(unescape(title))
    return value, faults


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_click_sorts_a_table_and_another_turns_it_round(page, tmp_path):
    script = """
      const tables = [...document.querySelectorAll("table")];
      const table = tables.find(one => one.tHead.innerText.includes("tv"));
      const rows = () => [...table.tBodies[0].rows].map(row => row.cells[0].innerText);
      const head = table.tHead.rows[0].cells[2].firstChild;
      const found = [rows()];
      for (const _ of [1, 2]) { head.click(); found.push(rows()); }
      return found;
    """
    (before, up, down), said = seen(page, tmp_path, 1200, script)
    assert before == ["teacher", "DMD2 (SGTS)", "Phased, 2 × 2"]
    assert up == ["teacher", "Phased, 2 × 2", "DMD2 (SGTS)"]
    assert down == up[::-1]
    assert said == []


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_it_can_be_read_on_a_narrow_screen(page, tmp_path):
    """A browser's window is 500 px wide at least: a frame of 400 in it."""
    script = """
      const frame = document.createElement("div");
      frame.style.width = "400px";
      frame.append(...document.body.children);
      document.body.append(frame);
      return [frame.scrollWidth, [...document.images].every(image => image.width <= 400)];
    """
    (wide, fits), said = seen(page, tmp_path, 500, script)
    assert wide <= 400
    assert fits
    assert said == []


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_complaints_of_the_browser_are_heard(page, tmp_path):
    """The control: a page that asks for another file, and one whose script fails."""
    for broken in ('<img src="http://nowhere.invalid/x.png">', "<script>nothing.here</script>"):
        spoilt = tmp_path / "spoilt.html"
        spoilt.write_text(page.read_text().replace("<main", f"{broken}<main"))
        _, said = seen(spoilt, tmp_path, 1200, "return 1")
        assert said
