"""Chromium for tests of the chat page: a driver, and a page with the actions of a user."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_WAIT = 20.0
"""Seconds; a busy machine may take any time to paint."""


def start_browser(downloads: Path) -> Any:
    """Return a driver of Debian's chromium; skip the test, with the reason, where one is absent."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1]))


class Browsing:
    """The page in a browser, with the actions of a user."""

    def __init__(self, driver: Any, address: str, *, is_locked: bool = False) -> None:
        """Open the page; a locked one asks for a key before it shows the models."""
        self.driver = driver
        self.address = address
        self.size(1280, 800)
        self.media()
        # An earlier server may have had this port, and its page saved conversations under it.
        clear = {"source": "localStorage.clear(); sessionStorage.clear()"}
        added = driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", clear)
        if is_locked:
            self.driver.get(address)
        else:
            self.open()
        driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)

    def open(self) -> None:
        """Load the page, or load it again, and wait until it knows the models."""
        self.driver.get(self.address)
        self.until(lambda: self.run("return !!document.querySelector('#model-0 option')"))

    def until(self, is_so: Callable[[], object]) -> None:
        end = time.monotonic() + _WAIT
        while not is_so():
            assert time.monotonic() < end, self.text("#exchanges")[-500:]
            time.sleep(0.02)

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def size(self, width: int, height: int) -> None:
        sizes = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", sizes)

    def media(self, **features: str) -> None:
        """Emulate media features: ``media(prefers_color_scheme="dark")``."""
        named = {"prefers_color_scheme": "light", **features}
        listed = [{"name": name.replace("_", "-"), "value": one} for name, one in named.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": listed})

    def find(self, css: str) -> Any:
        return self.driver.find_element("css selector", css)

    def all(self, css: str) -> list[Any]:
        return [one for one in self.driver.find_elements("css selector", css) if one.is_displayed()]

    def text(self, css: str) -> str:
        return self.run("return document.querySelector(arguments[0]).textContent", css)

    def texts(self, css: str) -> list[str]:
        """Return the exact texts of elements; a driver's own ``text`` trims them."""
        found = "return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)"
        return self.run(found, css)

    def replies(self) -> list[str]:
        return self.texts(".reply .text")

    def click(self, css: str) -> None:
        # The driver's own scrolling is lost in a log that begins at its end.
        self.run("document.querySelector(arguments[0]).scrollIntoView({block: 'nearest'})", css)
        self.find(css).click()

    def press(self, *keys: str) -> None:
        """Press keys where the focus is."""
        self.driver.switch_to.active_element.send_keys(*keys)

    @property
    def focused(self) -> str:
        return self.run("return document.activeElement.id || document.activeElement.tagName")

    def write(self, css: str, text: str) -> None:
        """Put a text into a field, also one that no keyboard can type."""
        put = """const [css, text] = arguments, field = document.querySelector(css);
        field.value = text;
        for (const kind of ["input", "change"])
          field.dispatchEvent(new Event(kind, {bubbles: true}));
        """
        self.run(put, css, text)

    def choose(self, css: str, value: str) -> None:
        self.write(css, value)

    def is_busy(self) -> bool:
        return self.find("#stop").is_displayed()

    def say(self, text: str) -> str:
        """Send a message, wait for the end of its replies, and return the last one."""
        self.start(text)
        self.until(lambda: not self.is_busy())
        return self.replies()[-1]

    def start(self, text: str) -> None:
        """Send a message."""
        before = len(self.texts(".user"))
        self.write("#message", text)
        self.find("#message").send_keys("\ue007")
        self.until(lambda: len(self.texts(".user")) > before)

    def answer(self, text: str | None, ok: bool = True) -> None:
        """Answer the question of the dialog."""
        self.until(lambda: self.find("#dialog").is_displayed())
        if text is not None:
            field = "#dialog-area" if self.find("#dialog-area").is_displayed() else "#dialog-line"
            self.write(field, text)
        question = self.text("#dialog-title")
        self.click("#dialog-ok" if ok else "#dialog button[value='']")
        self.until(
            lambda: (
                not self.find("#dialog").is_displayed() or self.text("#dialog-title") != question
            )
        )

    def complaints(self) -> list[str]:
        """Return the messages in the console of the browser, without those of failed requests."""
        lines = [entry["message"] for entry in self.driver.get_log("browser")]
        return [line for line in lines if "Failed to load resource" not in line]


@contextlib.contextmanager
def browsing(driver: Any, address: str, *, is_locked: bool = False) -> Iterator[Browsing]:
    """Open the page; afterwards, no script failed and the policy had nothing to block."""
    page = Browsing(driver, address, is_locked=is_locked)
    try:
        yield page
        assert page.complaints() == []
    finally:
        driver.get("about:blank")
