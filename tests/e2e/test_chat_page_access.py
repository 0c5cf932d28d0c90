"""The chat page for everybody: narrow and wide, light and dark, by touch, by a screen reader."""

from __future__ import annotations

import pytest

from tests.browsing import Browsing, browsing
from tests.scripted_server import Answer, scripted_server

pytestmark = pytest.mark.slow
WIDTHS = (320, 360, 700, 1000, 1280, 1920)

CONTRAST = """
const parse = (color) => (color.match(/[\\d.]+/g) ?? []).map(Number);
const luminance = ([r, g, b]) => [r, g, b].map((c) => c / 255)
  .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
  .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
const ground = (node) => {
  for (; node; node = node.parentElement) {
    const [r, g, b, a = 1] = parse(getComputedStyle(node).backgroundColor);
    if (a === 1) return [r, g, b];
  }
  return [255, 255, 255];
};
const ratio = (one, other) => {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
};
const bad = [];
for (const node of document.querySelectorAll("body *")) {
  if (!node.checkVisibility() || node.closest(".unseen, .skip, script, template")) continue;
  const style = getComputedStyle(node);
  const hasText = [...node.childNodes].some((one) => one.nodeType === 3 && one.data.trim());
  const isField = /INPUT|SELECT|TEXTAREA/.test(node.tagName);
  const color = node.placeholder ? getComputedStyle(node, "::placeholder").color : style.color;
  const found = ratio(parse(color), ground(node));
  if ((hasText || isField) && found < 4.5) bad.push([node.tagName, node.id, node.className, found]);
  if (isField && parseFloat(style.borderTopWidth)) {
    const edge = ratio(parse(style.borderTopColor), ground(node.parentElement));
    if (edge < 3) bad.push([node.tagName, node.id, "border", edge]);
  }
}
return bad;
"""

UNNAMED = """
const named = (id) => document.getElementById(id)?.textContent;
const kinds = "button, input, select, textarea, nav, aside, dialog, section, a";
return [...document.querySelectorAll(kinds)]
  .filter((one) => one.checkVisibility())
  .filter((one) => !(
    one.getAttribute("aria-label") || (one.labels ?? [])[0]?.textContent.trim()
    || named(one.getAttribute("aria-labelledby") ?? "") || one.textContent.trim()))
  .map((one) => one.outerHTML.slice(0, 200));
"""

SMALL = """
return [...document.querySelectorAll("button, input, select, textarea")]
  .filter((one) => one.checkVisibility())
  .filter((one) => one.getBoundingClientRect().height < 40)
  .map((one) => [one.id, one.textContent, one.getBoundingClientRect().height]);
"""

DUPLICATES = """
const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
return ids.filter((one, at) => ids.indexOf(one) !== at);
"""

WIDER = """
const width = document.documentElement.clientWidth;
return [...document.querySelectorAll("body *")]
  .filter((one) => one.checkVisibility() && !one.closest(".unseen, .skip"))
  .filter((one) => one.getBoundingClientRect().right > width + 0.5)
  .map((one) => one.outerHTML.slice(0, 120));
"""


@pytest.fixture
def page(driver):
    """A page with every kind of reply: good, bad, edited, failed, two at once."""
    with scripted_server() as server, browsing(driver, server.address) as opened:
        server.answers = [
            Answer(["x" * 300, " and words\n\tindented"], dropped=2),
            Answer(["Zwei"]),
            Answer(status=429, message="y" * 200, retry_after="60"),
        ]
        opened.say("A very_long_word_" + "w" * 200)
        opened.click("#good-0-0")
        opened.say("Two")
        opened.click("#bad-1-0")
        opened.say("Three")
        opened.choose("#model-1", "other")
        opened.say("Four")
        opened.click("#edit-3-0")
        opened.answer("Corrected")
        opened.click("#retry-3-0")
        opened.until(lambda: not opened.is_busy())
        yield opened


def views(page: Browsing):
    """Show the page, its panels and its dialog, one after the other."""
    yield "page"
    page.click("#show-settings")
    yield "settings"
    page.click("#show-settings")
    if page.find("#show-chats").is_displayed():
        page.click("#show-chats")
        yield "chats"
        page.click("#show-chats")
    page.click("#edit-0")
    yield "dialog"
    page.answer(None, ok=False)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_every_text_has_enough_contrast_and_every_control_a_name_and_a_size(page, width, scheme):
    page.size(width, 740)
    page.media(prefers_color_scheme=scheme)
    for view in views(page):
        assert page.run(CONTRAST) == [], view
        assert page.run(UNNAMED) == [], view
        assert page.run(SMALL) == [], view
        assert page.run(DUPLICATES) == [], view


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_window(page, width):
    page.size(width, 740)
    for view in views(page):
        assert page.run("return document.documentElement.scrollWidth") <= width, view
        log = "const log = document.getElementById('log');"
        assert page.run(f"{log} return log.scrollWidth - log.clientWidth") <= 0, view
        assert page.run(WIDER) == [], view


@pytest.mark.parametrize(("width", "height"), [(740, 360), (320, 256)])
def test_a_low_window_leaves_room_for_messages(page, width, height):
    """As on a phone on its side, or with a magnification of 400 %."""
    page.size(width, height)
    assert page.run("return document.getElementById('log').clientHeight") > 100
    page.click("#send")
    assert page.find("#message").is_displayed()
    assert page.run("return document.documentElement.scrollWidth") <= width


def test_a_narrow_window_shows_one_panel_at_a_time_and_escape_closes_it(page):
    page.size(360, 740)
    assert not page.all("#chats")
    page.click("#show-chats")
    assert page.all("#chats")
    assert page.run("return document.querySelector('main').inert")
    page.click("#show-settings")
    assert page.all("#settings")
    assert not page.all("#chats")
    page.press("\ue00c")
    assert not page.all("#settings")
    assert page.focused == "show-settings"
    assert page.find("#show-settings").get_attribute("aria-expanded") == "false"
    assert not page.run("return document.querySelector('main').inert")
    page.size(1280, 800)
    assert page.all("#chats")


def test_a_window_that_grows_with_an_open_panel_is_usable(page):
    page.size(360, 740)
    page.click("#show-settings")
    page.size(1280, 800)
    page.until(lambda: not page.run("return document.querySelector('main').inert"))
    page.say("Hello!")


def test_reduced_motion_stops_the_cursor(page):
    script = """const one = document.querySelector(".reply");
    one.classList.add("streaming");
    return getComputedStyle(one.querySelector(".text"), "::after").animationName"""
    assert page.run(script) == "blink"
    page.media(prefers_reduced_motion="reduce")
    assert page.run(script) == "none"


def test_forced_colours_keep_the_borders(page):
    page.media(forced_colors="active")
    script = "return getComputedStyle(document.querySelector('.user')).borderTopWidth"
    assert page.run(script) == "1px"


def test_headings_and_landmarks_give_the_outline(page):
    outline = "return [...document.querySelectorAll('h1, h2, h3')].map((one) => one.tagName)"
    assert page.run(outline).count("H1") == 1
    assert page.texts("h3")[:2] == ["You", "tiny"]
    assert page.run("return document.getElementById('log').ariaLive") == "off"
    assert page.run("return document.getElementById('status').role") == "status"


def test_the_log_stays_where_it_is_read(page):
    """A reply scrolls the log only while its end is shown."""
    page.size(1280, 500)
    log = "const log = document.getElementById('log');"
    page.run(f"{log} log.scrollTop = -log.scrollHeight; log.focus()")
    top = "return document.querySelector('.user').getBoundingClientRect().top"
    page.until(lambda: page.run(f"{log} return log.scrollTop < 0"))
    before = page.run(top)
    page.run("document.querySelectorAll('.reply .text')[4].append('x\\n'.repeat(50))")
    assert abs(page.run(top) - before) < 2
