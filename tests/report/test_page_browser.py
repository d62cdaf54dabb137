"""The report in a browser: opens from disk without a network, counts as Python does, and everybody can use it.

Needs playwright (extra: browser), Chromium and, for the accessibility test, axe-core: ``make test-browser``.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from report_runs import (
    HOSTILE_CLASSES,
    HOSTILE_FILE,
    class_images,
    class_run,
    mask_images,
    mask_run,
    volume_images,
    volume_run,
)

from certimed.certificates import shown
from certimed.data import open_dataset
from certimed.metrics import count_pixels, overlap_scores
from certimed.metrics.segmentation import DICE_HIGH, DICE_LOW
from certimed.report.html.numbers import down, percent, up
from certimed.report.profiles import foreground
from certimed.runs import CERTIFIED, RunFolder

pytest.importorskip("jinja2", reason="jinja2 is not installed (extra: report)")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: browser)")
from certimed.report.html import write_report  # noqa: E402

expect = playwright.expect
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
AXE = Path(os.environ.get("CERTIMED_AXE", Path(__file__).parents[2] / "node_modules/axe-core/axe.min.js"))
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (make test-browser)"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    class_images(folder / "labels", 60, broken=5, hostile=True)
    class_run(folder / "labels", folder / "a", names=HOSTILE_CLASSES)
    class_run(folder / "labels", folder / "b", names=HOSTILE_CLASSES, sigma=0.5)
    mask_images(folder / "scans", 4)
    mask_run(folder / "scans", folder / "m", ("dark", *HOSTILE_CLASSES))
    write_report([folder / "a", folder / "b", folder / "m"], folder / "report.html", verify=False)
    return folder


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def show(browser):
    """Opens a file without a network; anything the page asks for, complains of or pops up fails the test."""
    faults, contexts = [], []

    def open_page(path, *, width=1280, scheme="light"):
        context = browser.new_context(offline=True, viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda sent: None if sent.url.startswith(("file:", "data:")) else faults.append(sent.url))
        page.goto(path.as_uri(), wait_until="load")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def drawn(page):
    """Waits until the viewer shows the image and method chosen; returns the numbers it wrote down."""
    chosen = f"{page.input_value('#v-image')} {page.input_value('#v-series')}"
    expect(page.locator("#v-canvas")).to_have_attribute("data-shown", chosen)
    return page.evaluate("({...document.getElementById('v-canvas').dataset})")


def test_the_slider_shows_python_s_numbers_at_five_radii(place, show):
    page = show(place / "report.html")
    scans = open_dataset(place / "scans")
    where = {item: index for index, item in enumerate(scans.ids)}
    done = [r for r in RunFolder.open(place / "m").records() if r.status == CERTIFIED]
    assert drawn(page)["share"]
    for number, (method, record) in enumerate([("plain, tau 0.6", done[0]), ("plain, tau 0.75", done[1])]):
        page.select_option("#v-series", index=number)
        page.select_option("#v-image", index=done.index(record))
        certificate, truth = record.certificates[method], scans.load(where[record.item]).mask
        radii = certificate.radius_map()
        steps = np.unique(radii[radii > 0])
        drawn(page)
        assert page.get_attribute("#v-radius", "max") == str(len(steps))
        for step in np.linspace(1, len(steps), 5).astype(int):
            page.locator("#v-radius").fill(str(step))
            seen, radius = drawn(page), steps[step - 1]
            scores = overlap_scores(count_pixels(certificate.mask, radii >= radius, truth, 3))
            low, high = foreground(scores[DICE_LOW]), foreground(scores[DICE_HIGH])
            share = float(np.mean(radii >= radius))
            assert [float(seen[name]) for name in ("radius", "share", "low", "high")] == [radius, share, low, high]
            assert page.inner_text("#v-value") == down(radius)
            assert page.inner_text("#v-share") == percent(share, 1, "lower")
            assert page.inner_text("#v-dice") == f"{down(low)} – {up(high)}"
            cells = page.locator("#v-table tbody td").all_inner_texts()
            assert cells[0::2] == [down(value) for value in scores[DICE_LOW]]
            assert cells[1::2] == [up(value) for value in scores[DICE_HIGH]]


def test_the_script_rounds_as_python_does(place, show):
    page = show(place / "report.html")
    generator = np.random.default_rng(0)
    values = [*generator.random(500).tolist(), *(10.0 ** generator.uniform(-9, 4, 500)).tolist()]
    values += [0.0, 1.0, 0.29, 0.3, 1e-7, 0.07, 0.57, 1.005, 123.0, 5e-324]
    for side in ("lower", "upper"):
        for places, scale in ((0, 100), (1, 100), (3, 1), (4, 1)):
            found = page.evaluate(
                "([all, side, places, scale]) => all.map((value) => shown(value, side, places, scale))",
                [values, side, places, scale],
            )
            assert found == [shown(value, side, places=places, scale=scale) for value in values]


def test_the_slider_works_by_keyboard_and_repaints(place, show):
    page = show(place / "report.html")
    drawn(page)
    picture = "document.getElementById('v-canvas').toDataURL()"
    page.focus("#v-radius")
    page.keyboard.press("Home")
    first, image = drawn(page), page.evaluate(picture)
    page.keyboard.press("End")
    last = drawn(page)
    assert float(first["radius"]) < float(last["radius"]) and float(first["share"]) >= float(last["share"])
    assert page.evaluate(picture) != image
    assert "of the pixels stay" in page.get_attribute("#v-radius", "aria-valuetext")
    page.uncheck("#v-certified")
    page.uncheck("#v-abstained")
    page.uncheck("#v-truth")
    assert page.evaluate(picture) != image


def test_gallery_filters_and_sorting(place, show):
    page = show(place / "report.html")
    done = [r for r in RunFolder.open(place / "a").records() if r.status == CERTIFIED]
    certificates = [record.certificates["plain"] for record in done]
    count = page.locator("#gallery-count")
    assert count.inner_text() == "60 of 60 images"
    assert page.locator("#gallery li").count() == 48
    page.click("#gallery-more")
    assert page.locator("#gallery li").count() == 60
    assert page.locator("#gallery-more").is_hidden()
    right = sum(not c.abstained and c.prediction == r.label for c, r in zip(certificates, done))
    page.select_option("#g-outcome", "right")
    assert count.inner_text() == f"{right} of 60 images"
    page.select_option("#g-outcome", "")
    page.select_option("#g-sort", "largest")
    radii = [
        float(value) for value in page.eval_on_selector_all("#gallery li", "all => all.map(e => e.dataset.radius)")
    ]
    assert radii == sorted((c.radius for c in certificates), reverse=True)[:48]
    page.fill("#g-radius", "0.2")
    expect(count).to_have_text(f"{sum(c.radius >= 0.2 for c in certificates)} of 60 images")
    page.fill("#g-radius", "0")
    page.fill("#g-text", "0000")
    named = sum("0000" in record.item for record in done) + 1  # and the failed 00005.png
    expect(count).to_have_text(f"{named} of 60 images")
    page.fill("#g-text", "")
    page.select_option("#g-outcome", "failed")
    expect(count).to_have_text("1 of 60 images")
    assert "cannot be read" in page.inner_text("#gallery")
    page.select_option("#g-series", index=1)
    page.select_option("#g-outcome", "")
    assert count.inner_text() == "60 of 60 images"


def test_the_sheet_of_masks_finds_and_shows_images(place, show):
    page = show(place / "report.html")
    drawn(page)
    assert page.inner_text("#v-count") == "3 of 3 images; 1 failed and listed below"
    page.select_option("#v-sort", "least")
    shares = [float(v) for v in page.eval_on_selector_all("#v-sheet li", "all => all.map(e => e.dataset.share)")]
    assert shares == sorted(shares) and len(shares) == 3
    page.fill("#v-text", "2.png")
    expect(page.locator("#v-sheet li")).to_have_count(1)
    page.click("#v-sheet button")
    assert page.locator("#v-image option:checked").inner_text().startswith("2.png")
    page.fill("#v-text", "nothing of that name")
    expect(page.locator("#v-none")).to_have_text("No image matches.")


def test_hostile_names_show_as_text(place, show):
    page = show(place / "report.html")
    drawn(page)
    assert page.evaluate("window.pwned") is None
    assert page.locator("#gallery h3", has_text=HOSTILE_FILE).inner_text() == f"dark/{HOSTILE_FILE}"
    assert HOSTILE_CLASSES[0] in page.inner_text("#gallery") and HOSTILE_CLASSES[0] in page.inner_text("#v-table")
    assert HOSTILE_CLASSES[0] in page.inner_text("#accuracy")
    assert page.locator("b[onclick], img[onerror]").count() == 0


def test_switches_of_the_charts(place, show):
    page = show(place / "report.html")
    assert page.locator("#accuracy .band").count() == page.locator("#accuracy .band:visible").count() > 0
    page.uncheck("#bands")
    assert page.locator("#accuracy .band:visible").count() == 0
    line = page.locator('#accuracy .line[data-curve="r1m0"]')
    page.uncheck('#accuracy input[data-switch="r1m0"]')
    assert "off" in line.get_attribute("class")
    page.select_option("#perclass-choice", index=1)
    assert page.locator(".perclass:visible").count() == 1


@pytest.mark.parametrize("width", [400, 768, 1280])
def test_nothing_sticks_out(place, show, width):
    page = show(place / "report.html", width=width)
    drawn(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(place, show, scheme):
    page = show(place / "report.html", scheme=scheme)
    drawn(page)
    assert serious_faults(page) == []


def serious_faults(page):
    """What axe-core calls serious or critical; skips where it is not installed."""
    if not AXE.is_file():
        pytest.skip("axe-core is not installed (make test-browser, or CERTIMED_AXE)")
    page.eval_on_selector_all("details", "all => all.forEach(e => { e.open = true; })")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [
        (one["id"], one["impact"], [node["target"] for node in one["nodes"]][:3], one["nodes"][0]["failureSummary"])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.slow
def test_a_report_of_500_images_opens_fast_and_is_small(tmp_path, show):
    class_images(tmp_path / "labels", 500, edge=224)
    class_run(tmp_path / "labels", tmp_path / "run", n=30)
    report = write_report([tmp_path / "run"], tmp_path / "report.html", verify=False)
    assert report.pictures == 500 and report.size <= 30e6
    times = []
    for _ in range(3):
        page = show(tmp_path / "report.html")
        assert page.inner_text("#gallery-count") == "500 of 500 images"
        taken = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") / 1000
        # On a machine that is busy with other things, the time its processor gave to the page.
        metrics = page.context.new_cdp_session(page)
        metrics.send("Performance.enable")
        spent = {one["name"]: one["value"] for one in metrics.send("Performance.getMetrics")["metrics"]}["ProcessTime"]
        times.append((taken, spent))
        page.close()
    busy = os.getloadavg()[0] > (os.cpu_count() or 1)
    assert 0 < min(spent if busy else taken for taken, spent in times) <= 3, times


def test_it_prints(place, show, tmp_path):
    page = show(place / "report.html")
    drawn(page)
    page.pdf(path=str(tmp_path / "report.pdf"), format="A4")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("volumes")
    volume_run(volume_images(folder / "heads", 2), folder / "run")
    write_report([folder / "run"], folder / "report.html", verify=False)
    return folder


def test_planes_and_radii_of_a_volume_are_python_s(volumes, show):
    page = show(volumes / "report.html")
    drawn(page)
    (record, _) = RunFolder.open(volumes / "run").records()
    certificate = record.certificates["plain"]
    radii = certificate.radius_map()
    steps = np.unique(radii[radii > 0])
    for step in np.linspace(1, len(steps), 5).astype(int):
        page.locator("#v-radius").fill(str(step))
        assert float(drawn(page)["share"]) == float(np.mean(radii >= steps[step - 1]))
    assert "of the voxels keep their class" in page.inner_text("#v-said")
    page.locator("#v-radius").fill("1")
    for name in ("#v-truth", "#v-lines", "#v-abstained"):
        page.uncheck(name)
    # As drawn: right, anterior, superior; on an axial plane the right is on the left, and the front is up.
    mask, ranks = (values[::-1].transpose(0, 2, 1) for values in (certificate.mask, radii >= steps[0]))
    planes = {"Axial": (2, 0, 1), "Coronal": (1, 0, 2), "Sagittal": (0, 1, 2)}
    for number, (name, (fixed, left, top)) in enumerate(planes.items()):
        slider = page.locator(f"#v-slice-{number}")
        assert slider.get_attribute("max") == str(mask.shape[fixed] - 1)
        slider.fill("4")
        assert slider.get_attribute("aria-valuetext") == f"slice 5 of {mask.shape[fixed]}"
        assert f"{name} slice" in page.inner_text("#v-planes")
        size, seen = page.evaluate(
            """number => {
                const canvas = document.querySelectorAll("#v-planes canvas")[number];
                const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
                return [[canvas.width, canvas.height], Array.from(data)];
            }""",
            number,
        )
        spacing = (1.0, 1.5, 3.0)
        wide, high = mask.shape[left] * spacing[left], mask.shape[top] * spacing[top]
        assert size[0] / size[1] == pytest.approx(wide / high, rel=0.01)
        picture = np.array(seen, np.uint8).reshape(size[1], size[0], 4)[..., :3].astype(int)
        coloured = np.ptp(picture, axis=2) > 20
        kept = np.take((mask > 0) & ranks, 4, axis=fixed).T[::-1, ::-1]  # axes that are left are across, down
        centres = [
            ((np.arange(side) + 0.5) * length / side).astype(int) for side, length in zip(kept.shape, size[::-1])
        ]
        inner = coloured[np.ix_(*centres)]
        letters = np.zeros_like(kept)
        letters[[0, -1]] = letters[:, [0, -1]] = True  # where letters may stand
        assert np.array_equal(inner[~letters], kept[~letters]) and kept.any()


def test_slices_work_by_keyboard_and_by_pointing(volumes, show):
    page = show(volumes / "report.html")
    drawn(page)
    page.focus("#v-slice-1")
    page.keyboard.press("Home")
    canvases = page.locator("#v-planes canvas")
    assert canvases.nth(1).get_attribute("data-slice") == "0"
    page.keyboard.press("ArrowRight")
    assert canvases.nth(1).get_attribute("data-slice") == "1"
    box = canvases.nth(0).bounding_box()
    canvases.nth(0).click(position={"x": box["width"] * 0.99, "y": box["height"] * 0.01})
    assert canvases.nth(1).get_attribute("data-slice") == "9" and canvases.nth(2).get_attribute("data-slice") == "0"
    assert page.input_value("#v-slice-1") == "9" and page.input_value("#v-slice-2") == "0"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 768, 1280])
def test_a_volume_fits_and_axe_is_content(volumes, show, width, scheme):
    page = show(volumes / "report.html", width=width, scheme=scheme)
    drawn(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert serious_faults(page) == []


@pytest.mark.slow
def test_a_page_of_a_large_volume_is_small_and_smooth(tmp_path, show):
    volume_run(volume_images(tmp_path / "heads", 1, (128, 128, 128)), tmp_path / "run", n=100)
    report = write_report([tmp_path / "run"], tmp_path / "report.html", verify=False)
    assert report.pictures == 1 and report.size <= 15e6
    page = show(tmp_path / "report.html")
    drawn(page)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")

    def spent():
        return {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}["ProcessTime"]

    for slider in ("v-radius", "v-slice-0"):
        before = spent()
        page.evaluate(
            """id => {
                const slider = document.getElementById(id);
                for (let i = 1; i <= 40; i += 1) {
                    slider.value = Math.round((i * slider.max) / 40);
                    slider.dispatchEvent(new Event("input"));
                }
            }""",
            slider,
        )
        assert (spent() - before) / 40 <= 0.05  # seconds of a processor for a step: above 20 pictures a second
