"""The chat page against hostile texts, servers that fail, and browsers that keep nothing."""

from __future__ import annotations

import json

import pytest

from tests.browsing import Browsing, browsing
from tests.forks import run_fork
from tests.hostile_texts import HOSTILE_TEXTS, MARKUP, valid_texts
from tests.scripted_server import SAMPLING, Answer, ScriptedServer, scripted_server

pytestmark = pytest.mark.slow
KNOWN_PATHS = {"/", "/v1/models", "/v1/chat/completions"}
ELEMENTS = {"SECTION", "ARTICLE", "H3", "DIV", "P", "BUTTON", "SPAN"}
"""The texts that the page shows of a conversation."""
SKELETON = """return [...document.querySelectorAll("#exchanges *, #chat-list *, option, h1 *")]
  .map((one) => [one.tagName, ...one.getAttributeNames()])"""
REQUESTED = "return performance.getEntriesByType('resource').map((one) => one.name)"
SHORT = {name: text for name, text in valid_texts().items() if len(text) < 1000}


def require_unmoved(page: Browsing, server: ScriptedServer) -> None:
    """No text became an element or an attribute, ran, or sent a request."""
    for tag, *attributes in page.run(SKELETON):
        assert tag in ELEMENTS | {"LI", "OPTION"}
        known = {"class", "dir", "id", "type", "hidden", "aria-label", "aria-pressed", "value"}
        assert set(attributes) <= known | {"aria-current", "title", "data-do", "selected"}
    assert page.run("return document.title").endswith(" – convo")
    assert page.run("return location.href") == server.address
    assert set(server.paths) <= KNOWN_PATHS
    assert {one.split("/", 3)[3] for one in page.run(REQUESTED)} <= {
        *(path[1:] for path in KNOWN_PATHS)
    }
    assert page.complaints() == []


def plain(text: str) -> str:
    """What the page sends of a message, or saves of a reply."""
    from convo_cli.chat.exchanges import plain_text

    return plain_text(text)


def test_hostile_replies_are_shown_as_they_are(page, server):
    for number, (name, text) in enumerate(valid_texts().items()):
        middle = len(text) // 2
        server.answers = [Answer([text[:middle], text[middle:]])]
        if number % 20 == 0 and number:
            page.click("#new")
        assert page.say(f"Text {number}") == text, name
        assert not page.texts(".trouble p")[-1], name
    require_unmoved(page, server)


def test_hostile_messages_and_titles_are_shown_and_sent_as_they_are(page, server):
    for name, text in SHORT.items():
        if not plain(text):
            continue
        page.click("#new")
        field = text.replace("\r\n", "\n").replace("\r", "\n")  # as a text area does
        page.say(text)
        assert page.texts(".user .text") == [plain(field)], name
        assert server.requests[-1]["messages"] == [{"role": "user", "content": plain(field)}], name
    require_unmoved(page, server)
    page.open()
    require_unmoved(page, server)


def test_hostile_names_of_models_are_text(driver):
    names = [f"{text} {number}" for number, text in enumerate(MARKUP.values())]
    with scripted_server(names=names) as server, browsing(driver, server.address) as page:
        assert page.texts("#model-0 option") == names
        page.choose("#model-1", names[1])
        page.say("Hello!")
        assert page.texts(".reply .name") == names[:2]
        assert page.text("#welcome-name") == names[0]
        require_unmoved(page, server)


@pytest.mark.parametrize("name", MARKUP)
def test_hostile_errors_are_text(page, server, name):
    server.answers = [Answer(status=500, message=MARKUP[name])]
    page.say("Hello!")
    assert page.texts(".reply .trouble p") == [MARKUP[name][:500]]
    require_unmoved(page, server)


def test_a_text_cannot_leave_its_message(page, server):
    """Bidirectional controls and stacks of marks change nothing outside the text."""
    server.answers = [Answer(["\u202e\u2066 reversed " + "Z" + "\u0301" * 500])]
    page.say("\u202eabc")
    name = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    for css in (".reply .text", ".user .text"):
        assert page.run(name, css, "overflow") == "hidden"
        assert page.run(name, css, "unicode-bidi") == "plaintext"
    assert page.run(name, ".reply .name", "unicode-bidi") == "isolate"
    assert page.run(name, ".open-chat", "unicode-bidi") in ("isolate", "plaintext")


def test_the_download_of_hostile_texts_is_training_data(page, server, downloads, tmp_path):
    for text in SHORT.values():
        server.answers = [Answer([text])]
        page.say("Say it")
    page.click("#edit-0-0")
    page.run(r"document.querySelector('#dialog-area').value = 'half \ud83d and \x1b[31m'")
    page.click("#dialog-ok")
    page.until(lambda: "half" in page.replies()[0])
    page.click("#new")
    page.say("Bad only")
    page.click("#bad-0-0")
    page.click("#new")
    page.say("No judgement")
    page.click("#download-all")
    page.until(lambda: list(downloads.glob("*.jsonl")))
    (file,) = downloads.glob("*.jsonl")
    result = run_fork(tmp_path, "validate-data", file, "--json")
    assert result.code == 0, result.out + result.err
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 3
    assert "error" not in result.err
    from convo_cli.chat.session_lines import parse_line

    for line in lines:
        saved = parse_line(line)  # the terminal can load each of them
        assert saved.exchanges()
        assert saved.record.sampling.model_dump() == SAMPLING


def test_an_unreachable_server_is_an_error_that_can_be_retried(driver):
    with scripted_server() as server, browsing(driver, server.address) as page:
        page.run("window.real = fetch; window.fetch = () => Promise.reject(new TypeError('x'))")
        page.say("Hello!")
        assert "cannot be reached" in page.text(".reply .trouble p")
        page.run("window.fetch = window.real")
        page.click("#again-0-0")
        page.until(lambda: page.replies() == ["Good morning."])
        assert not page.all(".reply .trouble")


def test_the_dialog_for_the_key_can_be_cancelled_and_opened_again(driver):
    with (
        scripted_server(key="secret") as server,
        browsing(driver, server.address, is_locked=True) as page,
    ):
        page.answer(None, ok=False)
        page.until(lambda: page.all("#notice"))
        assert "key" in page.text("#notice p")
        page.click("#notice button")
        page.answer("secret")
        page.until(lambda: page.texts("#model-0 option") == ["tiny", "other"])


def test_a_key_is_asked_for_once_and_kept_for_this_tab_only(driver):
    with (
        scripted_server(key="secret") as server,
        browsing(driver, server.address, is_locked=True) as page,
    ):
        page.answer("wrong")
        page.until(lambda: "refused" in page.text("#dialog-title"))
        assert page.find("#dialog-line").get_attribute("type") == "password"
        page.answer("secret")
        page.until(lambda: page.texts("#model-0 option") == ["tiny", "other"])
        page.choose("#model-1", "other")
        page.say("Hello!")
        page.open()
        page.say("Again")
        assert page.run("return JSON.stringify(localStorage)").count("secret") == 0
        assert page.run("return sessionStorage.getItem('convo.key')") == "secret"
        server.key = "another"
        page.start("With two models, one question")
        page.answer("another")
        page.until(lambda: not page.is_busy())
        assert page.replies()[-2:] == ["Good morning."] * 2


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_says_when_to_try_again(page, server, status):
    server.answers = [Answer(status=status, message="the queue is full", retry_after="7")]
    page.say("Hello!")
    assert "the queue is full (try again at " in page.text(".reply .trouble p")
    page.click("#again-0-0")
    page.until(lambda: page.replies() == ["Good morning."] and not page.is_busy())
    assert page.texts(".reply .name") == ["tiny"]  # the failed reply is replaced
    assert not page.all("#other-0-0")


def test_a_broken_stream_keeps_its_beginning_and_shows_an_error(page, server):
    server.answers = [Answer(["Some ", "words"], is_broken=True)]
    assert page.say("Hello!") == "Some words"
    assert "was lost" in page.text(".reply .trouble p")
    page.open()
    assert page.replies() == ["Some words"]
    assert "was lost" in page.text(".reply .trouble p")
    page.click("#again-0-0")
    page.until(lambda: page.replies() == ["Good morning."])


def test_an_error_within_a_stream_is_shown_after_the_text(page, server):
    server.answers = [Answer(["Some ", "words"], message="the model has failed")]
    assert page.say("Hello!") == "Some words"
    assert page.text(".reply .trouble p") == "the model has failed"


def test_a_conversation_of_any_length_fits_into_a_request(page, server):
    page.say("Hello!")
    longer = """const key = Object.keys(localStorage)[0], chat = JSON.parse(localStorage[key]);
    const text = (number) => "\u20ac" + number + "x".repeat(arguments[1]);
    const side = (number) => ({...chat.exchanges[0].sides[0],
      versions: [{...chat.exchanges[0].sides[0].versions[0], text: text(number)}]});
    chat.exchanges = Array.from({length: arguments[0]},
      (_, number) => ({user: text(number), sides: [side(number)]}));
    localStorage[key] = JSON.stringify(chat);"""
    for count, size in ((3000, 10), (40, 20_000)):
        page.run(longer, count, size)
        page.open()
        page.say("And now?")
        sent = server.requests[-1]["messages"]
        assert len(sent) < 4096
        assert len(json.dumps(sent)) < 2_000_000
        assert sent[-2]["content"].startswith(f"\u20ac{count - 1}")
        assert sent[0]["role"] == "user"


def test_an_answer_that_is_no_stream_is_an_error(page, server):
    server.answers = [Answer(["x"], line_end=" ")]
    page.say("Hello!")
    assert "was lost" in page.text(".reply .trouble p")


def test_a_model_that_is_no_longer_served_is_an_error(page, server):
    page.say("Hello!")
    server.names = ["other"]
    page.say("Still there?")
    assert page.texts(".reply .trouble p")[-1] == "there is no such model"
    assert page.texts("#model-0 option") == ["other", "tiny (not available)"]
    page.choose("#model-0", "other")
    page.click("#again-1-0")
    page.until(lambda: page.replies()[-1] == "Good morning.")


def test_dropped_messages_are_counted(page, server):
    server.answers = [Answer(dropped=4)]
    page.say("Hello!")
    assert "no longer sees the first 4 messages" in page.text(".facts")


def test_full_storage_is_a_notice_and_the_conversation_continues(page, server):
    page.run("localStorage.setItem('other', 'x'.repeat(5_200_000))")
    server.answers = [Answer(["y" * 100_000])]
    page.say("Hello!")
    assert "storage is full" in page.text("#notice p")
    assert page.say("Next") == "Good morning."
    page.run("localStorage.removeItem('other')")
    page.click("#notice button")
    page.say("Third")
    page.open()
    assert len(page.replies()) == 3


@pytest.mark.parametrize(
    "saved", ["{", "null", "[]", '{"id":"1"}', '{"id":1,"exchanges":[]}', '"text"', "\x00"]
)
def test_damaged_storage_is_a_notice_and_is_not_changed(page, server, saved):
    page.run("localStorage.setItem('convo.chat.damaged', arguments[0])", saved)
    page.say("Hello!")
    page.open()
    assert "damaged" in page.text("#notice p")
    assert page.replies() == ["Good morning."]
    assert page.run("return localStorage.getItem('convo.chat.damaged')") == saved


def test_changes_in_another_tab_are_shown(page, server):
    page.say("Hello!")
    first = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    page.open()
    page.say("From the other tab")
    page.driver.close()
    page.driver.switch_to.window(first)
    page.until(lambda: page.texts(".user .text") == ["Hello!", "From the other tab"])


def test_all_hostile_texts_are_tried():
    assert len(valid_texts()) > len(HOSTILE_TEXTS) - 3
