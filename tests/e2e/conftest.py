"""The browser and the page of the tests of the chat page."""

from __future__ import annotations

import pytest

from tests.browsing import browsing, start_browser
from tests.scripted_server import scripted_server


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def driver(downloads):
    started = start_browser(downloads)
    yield started
    started.quit()


@pytest.fixture
def server():
    with scripted_server() as running:
        yield running


@pytest.fixture
def page(driver, server):
    with browsing(driver, server.address) as opened:
        yield opened
