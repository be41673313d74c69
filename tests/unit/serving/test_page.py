"""The page in a real browser: what people see and do."""

import re
import shutil

import pytest

from classifiers import save_light_model, save_small_pretrained
from servers import started

sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright")
expect = sync_api.expect
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
CAMERAS = ["--use-fake-device-for-media-stream=device-count=2", "--use-fake-ui-for-media-stream"]
PATIENCE = 120_000  # milliseconds, on a busy machine


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *CAMERAS])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    with started(save_light_model(tmp_path_factory.mktemp("page") / "light")) as (_, address):
        yield address


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    with started(save_small_pretrained(tmp_path_factory.mktemp("page") / "pretrained")) as (_, address):
        yield address


@pytest.fixture
def visit(browser):
    """Open an address in a window of its own; what the browser complains of fails the test."""
    contexts, complaints = [], []

    def visit(address, *, width=1200, complains=False, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        if not complains:
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.goto(address)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert complaints == []


def upload(page, content, name="long.mp4"):
    page.set_input_files("#file", {"name": name, "mimeType": "video/mp4", "buffer": content})


def test_a_video_gives_its_events_and_a_click_on_one_goes_there(visit, classifier, video):
    page = visit(classifier)
    upload(page, video)
    expect(page.locator("#status")).to_contain_text("3 events in 0:10.0")
    events = page.locator("#events button")
    expect(events).to_have_count(3)
    expect(events.nth(1)).to_contain_text("bright")
    assert page.locator(".lane").count() == 2
    events.nth(1).click()
    page.wait_for_function("document.getElementById('player').currentTime > 3")
    expect(page.locator("#labels li").first).to_contain_text("bright")
    expect(page.locator("#now")).to_have_text(re.compile("0:0[34]"))
    page.locator(".lane button").first.click()
    page.wait_for_function("document.getElementById('player').currentTime < 1")
    expect(page.locator("#labels li").first).to_contain_text("dark")
    page.locator("h1").click()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.getElementById('player').currentTime > 3")


def test_where_the_model_looks_lies_over_the_picture(visit, classifier, video):
    page = visit(classifier)
    upload(page, video)
    expect(page.locator("#events button")).to_have_count(3)
    page.locator("#explain").click()
    expect(page.locator("#overlay")).to_be_visible()
    expect(page.locator("#status")).to_contain_text("bright is where the model finds it")
    shown, player = page.locator("#overlay").bounding_box(), page.locator("#player").bounding_box()
    assert player["x"] < shown["x"]  # the model sees the middle of a wide picture
    assert shown["width"] == pytest.approx(shown["height"], rel=0.02)
    page.locator("h1").click()
    page.keyboard.press("e")
    expect(page.locator("#overlay")).to_be_hidden()
    page.locator("#labels button", has_text="dark").click()
    expect(page.locator("#status")).to_contain_text("dark, ")
    expect(page.locator("#overlay")).to_be_visible()


def test_what_cannot_be_read_is_said_in_words_and_the_next_video_is_looked_at(visit, classifier, video):
    page = visit(classifier, complains=True)  # of the status 422
    upload(page, b"not a video")
    expect(page.get_by_role("alert")).to_contain_text("the upload")
    upload(page, video)
    expect(page.locator("#events button")).to_have_count(3)
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_server_that_is_gone_is_said_in_words(visit, tmp_path, video):
    with started(save_light_model(tmp_path / "light")) as (_, address):
        page = visit(address, complains=True)
        expect(page.locator("#about")).to_contain_text("2 classes")
    upload(page, video)
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer")


def test_a_token_is_asked_for(visit, tmp_path, video):
    (tmp_path / "token").write_text("secret")
    options = ("--token-file", str(tmp_path / "token"))
    with started(save_light_model(tmp_path / "light"), *options) as (_, address):
        page = visit(address, complains=True)
        page.locator("#token").fill("secret")
        page.get_by_text("Use it").click()
        expect(page.locator("#about")).to_contain_text("2 classes")
        upload(page, video)
        expect(page.locator("#events button")).to_have_count(3)


def test_a_pretrained_model_reconstructs_and_the_slider_says_how_much_is_hidden(visit, pretrained, video):
    page = visit(pretrained)
    upload(page, video)
    expect(page.locator("#views figure")).to_have_count(4)
    expect(page.locator("#status")).to_contain_text("75.0 % hidden")  # of four places
    page.locator("#ratio").fill("0.5")
    expect(page.locator("#ratio-shown")).to_have_text("50 %")
    expect(page.locator("#status")).to_contain_text("50.0 % hidden")
    drawn = "document.querySelector('#views canvas').getContext('2d').getImageData(5, 5, 1, 1).data[3]"
    assert page.evaluate(drawn) == 255


def test_a_camera_is_picked_and_looked_at_until_it_is_stopped(visit, classifier):
    page = visit(classifier, complains=True)  # of recordings without a picture, on a busy machine
    page.locator("#camera").click()
    expect(page.locator("#labels li").first).to_be_visible()
    expect(page.locator("#cameras option")).to_have_count(2)
    page.locator("#cameras").select_option(index=1)
    expect(page.locator("#labels li").first).to_be_visible()
    expect(page.locator(".lane")).to_have_count(2)
    page.locator("#camera").click()
    expect(page.locator("#status")).to_have_text("The camera is off.")
    assert page.evaluate("document.getElementById('player').srcObject") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_in_light_and_dark(visit, classifier, scheme):
    page = visit(classifier, color_scheme=scheme)
    colours = "(e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor])(document.body)"

    def luminance(colour):
        return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3 / 255

    ink, ground = map(luminance, page.evaluate(colours))
    assert abs(ink - ground) > 0.7
    assert (ground < 0.5) == (scheme == "dark")
    page.locator("#theme").click()
    assert (luminance(page.evaluate(colours)[1]) < 0.5) == (scheme == "light")


def test_it_fits_a_narrow_screen(visit, classifier, video):
    page = visit(classifier, width=340)
    upload(page, video)
    expect(page.locator("#events button")).to_have_count(3)
    assert page.evaluate("document.documentElement.scrollWidth") <= 340


def test_all_that_is_answered_is_on_the_page_of_the_api(visit, classifier):
    page = visit(f"{classifier}/docs")
    expect(page.locator("h2", has_text="POST /timeline")).to_be_visible()
    page.get_by_text("Page", exact=True).click()
    expect(page.locator("#drop")).to_be_visible()
