"""The page in Chromium: what somebody sees and does with mouse and keyboard, wide and narrow."""

import shutil

import numpy as np
import pytest
from drawn import TINY
from live import serving
from PIL import Image

from svdnet_jax.web.panel import levels

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="Chromium and its driver are not installed (apt-get install chromium-driver)"
)


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1300,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield found
    found.quit()


class Page:
    """What is on display; every look waits for what it looks for."""

    def __init__(self, browser):
        self.browser = browser

    def all(self, selector):
        return self.browser.find_elements("css selector", selector)

    def one(self, selector):
        return self.wait(lambda: self.all(selector))[0]

    def wait(self, look):
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(self.browser, 20, 0.05, ignored_exceptions=[StaleElementReferenceException])
        return waiting.until(lambda _: look())

    def texts(self, selector):
        return [each.text for each in self.all(selector)]

    def choose(self, which, value):
        self.one(f"#{which} option[value='{value}']").click()

    def says(self, text):
        self.wait(lambda: text in self.one("#status").text)

    def press(self, *keys):
        webdriver.ActionChains(self.browser).send_keys(*keys).perform()

    def run(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)


@pytest.fixture(scope="module")
def port(page):
    with serving(page) as port:
        yield port


@pytest.fixture
def shown(browser, port):
    browser.set_window_size(1300, 1000)
    browser.get(f"http://127.0.0.1:{port}/")
    found = Page(browser)
    found.wait(lambda: len(found.all(".card")) == 24)
    yield found
    assert [line for line in browser.get_log("browser") if line["level"] in ("SEVERE", "WARNING")] == []


def first_query(page, key="good"):
    panel = page.sources[key].panel()
    return panel, int(np.argsort(panel.report.ap, kind="stable")[0])


def test_it_begins_with_the_worst_query_and_its_nearest(shown, page):
    panel, row = first_query(page)
    assert shown.one("#asked h2").text == panel.query.names[row]
    assert shown.one("#queries button[aria-pressed=true] .name").text == panel.query.names[row]
    assert shown.one("#listed").text == "Queries (20)"
    verdicts = shown.texts(".card .verdict")
    assert set(verdicts) <= {"✓ same ID", "✗ other ID", ""}
    assert verdicts.count("✓ same ID") == 8
    assert all("strangers this near: " in text for text in shown.texts(".card"))
    loaded = "return [...document.images].every((each) => each.complete && each.naturalWidth > 0)"
    shown.run("for (const each of document.images) each.loading = 'eager'")
    shown.wait(lambda: shown.run(loaded))
    alts = shown.run("return [...document.querySelectorAll('.card img')].map((each) => each.alt)")
    assert alts[0].startswith("rank 1, ")
    assert len(set(alts)) == 24


def test_a_card_shows_what_makes_two_images_alike_then_apart_then_itself_again(shown):
    source = "return document.querySelector('.card img').src"
    loaded = "const each = document.querySelector('.card img'); return each.complete && each.naturalWidth"
    own, width = shown.run(source), shown.wait(lambda: shown.run(loaded))
    assert shown.one(".card .why").text == "What makes them alike?"
    for what, after in (("alike", "What sets them apart?"), ("apart", "The image again")):
        shown.one(".card .why").click()
        shown.wait(lambda what=what: shown.run(source).endswith(f"/{what}"))
        assert shown.wait(lambda: shown.run(loaded)) > 2 * width
        assert shown.one(".card .why").text == after
        assert "Left the image searched for" in shown.one(".card .why-text").text
    shown.one(".card .why").click()
    assert shown.run(source) == own
    assert shown.one(".card .why-text").text == ""
    shown.choose("left", "bad")  # whose weights are not kept
    shown.wait(lambda: not shown.all(".card .why"))


def test_the_slider_tells_near_from_far_and_the_arrows_move_it(shown, page):
    from selenium.webdriver.common.keys import Keys

    panel, _ = first_query(page)
    shown.one("#level").send_keys(Keys.HOME)
    few = len(shown.all(".card:not(.beyond)"))
    shown.one("#level").send_keys(Keys.END)  # one further than the last level: none
    assert "no threshold" in shown.one(".level").text
    assert len(shown.all(".card:not(.beyond)")) == 24
    shown.one("#level").send_keys(Keys.ARROW_LEFT, *[Keys.ARROW_LEFT] * 20)
    index = int(shown.one("#level").get_attribute("value"))
    distances = [float(each.get_attribute("data-distance")) for each in shown.all(".card")]
    within = sum(distance <= levels(panel.distributions)[index]["distance"] for distance in distances)
    assert few < within < 24
    assert len(shown.all(".card:not(.beyond)")) == within
    assert f"{within} of 24 shown are within" in shown.one(".level").text


def test_keys_go_through_the_queries(shown):
    names = shown.texts("#queries .name")
    shown.press("j", "j", "k", "j")
    shown.wait(lambda: shown.one("#asked h2").text == names[2])
    assert [each.get_attribute("aria-pressed") for each in shown.all("#queries button")].index("true") == 2
    shown.one("#find").send_keys("kjj")  # text is text
    shown.wait(lambda: shown.one("#listed").text == "Queries (0)")
    assert shown.one("#asked h2").text == names[2]


def test_everything_can_be_reached_by_tab_in_the_order_of_the_page(shown):
    from selenium.webdriver.common.keys import Keys

    reached = []
    for _ in range(45):
        shown.press(Keys.TAB)
        element = shown.browser.switch_to.active_element
        reached.append(element.get_attribute("id") or element.get_attribute("class") or element.tag_name)
        assert shown.run("return getComputedStyle(arguments[0]).outlineStyle", element) != "none"
    assert reached[0] == "skip"
    ids = [
        each for each in reached if each in ("left", "right", "file", "order", "find", "level", "count", "everything")
    ]
    assert ids == ["left", "right", "file", "order", "find", "level", "count", "everything"]


def test_cameras_and_lists_and_the_second_embedding(shown, page):
    shown.one("#cameras input[value='1']").click()
    shown.wait(lambda: not any("camera 1" in text for text in shown.texts(".card")))
    shown.choose("right", "bad")
    shown.wait(lambda: len(shown.all(".panel")) == 2)
    shown.choose("order", "loss")
    ap = {key: source.panel().report.ap for key, source in page.sources.items()}
    best = page.sources["good"].panel().query.names[int(np.argmax(ap["good"] - ap["bad"]))]
    shown.wait(lambda: shown.one("#queries .name").text == best)
    shown.one("#queries button").click()
    shown.wait(lambda: shown.one("#asked h2").text == best)
    good, bad = shown.all(".panel")
    assert good.find_element("css selector", ".verdict").text == "✓ same ID"
    assert "the bad one" in bad.text
    shown.choose("right", "")
    shown.wait(lambda: len(shown.all(".panel")) == 1)
    assert shown.one("#order").get_attribute("value") == "worst"


def test_a_hostile_name_is_shown_and_not_run(shown):
    shown.one("#everything").click()
    shown.one("#count option:last-child").click()
    shown.wait(lambda: len(shown.all(".card")) == 132)
    assert "<img src=x onerror=alert(1)>.jpg" in shown.texts(".card .name")
    assert not shown.all("img[src=x]")


def test_a_picture_from_a_file_is_searched_for(shown, page, tmp_path):
    picture = page.pictures["gallery"](60)
    picture.save(tmp_path / "mine.png")
    shown.one("#file").send_keys(str(tmp_path / "mine.png"))
    shown.wait(lambda: shown.one("#asked h2").text == "mine.png")
    name = page.sources["good"].panel().gallery.names[60]
    shown.wait(lambda: shown.one(".card .name").text == name)
    assert shown.one("#asked img").get_attribute("src").startswith("blob:")
    assert shown.run("return document.querySelector('#asked img').naturalWidth") == TINY.data.width
    shown.choose("right", "bad")
    shown.wait(lambda: "not kept" in shown.one(".panel .error").text)
    Image.new("RGBA", (8, 16)).save(tmp_path / "clear.png")
    shown.one("#file").send_keys(str(tmp_path / "clear.png"))
    shown.says("lets through what is behind it")
    assert [line for line in shown.browser.get_log("browser") if "422" not in line["message"]] == []


def test_a_picture_is_dropped_on_the_page(shown, page):
    script = """
      const [address, done] = arguments;
      fetch(address).then((answer) => answer.blob()).then((blob) => {
        const data = new DataTransfer();
        data.items.add(new File([blob], "dropped.jpg", { type: "image/jpeg" }));
        document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        done();
      });"""
    shown.browser.execute_async_script(script, shown.one(".card img").get_attribute("src"))
    shown.wait(lambda: shown.one("#asked h2").text == "dropped.jpg")


def test_the_map_is_drawn_and_searched_from(shown):
    from selenium.webdriver.common.keys import Keys

    shown.one("#maps summary").click()
    canvas = shown.one("canvas")
    colors = """
      const pixels = arguments[0].getContext("2d").getImageData(0, 0, arguments[0].width, arguments[0].height).data;
      const found = new Set();
      for (let at = 0; at < pixels.length; at += 4)
        if (pixels[at + 3] === 255) found.add(pixels.slice(at, at + 3).join());
      return [...found];"""
    shown.wait(lambda: len(shown.run(colors, canvas)) > 5)
    shown.choose("color", "camera")
    assert shown.texts("#legend span") == ["1", "2", "3"]
    assert "0,114,178" in shown.run(colors, canvas)
    before = shown.one("#asked h2").text
    canvas.send_keys(Keys.ARROW_UP, Keys.ARROW_UP, Keys.ARROW_LEFT)
    shown.wait(lambda: "camera" in shown.one(".under").text)
    canvas.send_keys(Keys.ENTER)
    shown.wait(lambda: shown.one("#asked h2").text != before)
    # Of reading the pixels, which only this test does.
    assert [line for line in shown.browser.get_log("browser") if "getImageData" not in line["message"]] == []


@pytest.mark.parametrize("width", [360, 500, 820])
def test_narrow_windows_need_no_scrolling_sideways(shown, width):
    # No window of Chromium is narrower than 500 pixels; a device may be.
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    shown.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        shown.choose("right", "bad")
        shown.wait(lambda: len(shown.all(".panel")) == 2)
        shown.one("#maps summary").click()
        shown.wait(lambda: len(shown.all("canvas")) == 2)
        assert shown.run("return document.documentElement.scrollWidth") <= width
        wide = "(each) => each.scrollWidth > each.clientWidth"
        assert shown.run(f"return [...document.querySelectorAll('.card')].filter({wide}).length") == 0
    finally:
        shown.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_text_is_dark_on_light_whatever_the_system_prefers(shown):
    contrast = """
      const linear = (each) => each <= 0.03928 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4;
      const light = (color) => {
        const [r, g, b] = color.match(/[\\d.]+/g).map((each) => linear(Number(each) / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const behind = (each) => {
        for (; each; each = each.parentElement) {
          const color = getComputedStyle(each).backgroundColor;
          if (!/, 0\\)$/.test(color)) return color;
        }
        return "rgb(255, 255, 255)";
      };
      const texts = document.querySelectorAll("p, span, label, h1, h2, button, summary, output, select, kbd");
      return Math.min(...[...texts].filter((each) => each.innerText).map((each) => {
        const [dark, bright] = [light(getComputedStyle(each).color), light(behind(each))].sort((a, b) => a - b);
        return (bright + 0.05) / (dark + 0.05);
      }));"""
    scheme = [{"name": "prefers-color-scheme", "value": "dark"}]
    shown.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    assert shown.run(contrast) >= 4.5  # WCAG 2, level AA


def test_nothing_is_asked_of_another_place(shown, port):
    names = shown.run("return performance.getEntriesByType('resource').map((each) => each.name)")
    assert len(names) > 10
    assert {name.split("/")[2] for name in names} == {f"127.0.0.1:{port}"}
    refused = "const done = arguments[0]; fetch('http://127.0.0.1:1/').then(() => done('sent'), (e) => done(String(e)))"
    assert "Failed to fetch" in shown.browser.execute_async_script(refused)
    log = shown.browser.get_log("browser")
    assert any("Content Security Policy" in line["message"] for line in log)
