"""WhatsApp exports of Android and iOS in many languages; what is not speech is dropped."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convo_cli.errors import DataError
from convo_cli.importers.chats.dates import match_stamp
from tests.cases import num_examples

HI = [[("user", "Hi"), ("assistant", "Hello: you\nsecond line")]]
FORMS = {
    "German": "02.01.24, 10:00 - {}: {}",
    "German iOS": "[02.01.24, 10:00:00] {}: {}",
    "American": "1/2/24, 10:00\u202fPM - {}: {}",
    "American iOS": "[1/2/24, 10:00:00\u202fAM] {}: {}",
    "Indian": "02/01/24, 10:00 pm - {}: {}",
    "British": "02/01/2024, 10:00 - {}: {}",
    "Spanish": "2/1/24, 10:00 p.\u00a0m. - {}: {}",
    "older Spanish": "2/1/24 10:00 - {}: {}",
    "Portuguese": "02/01/2024 10:00 - {}: {}",
    "French": "02/01/2024 à 10:00 - {}: {}",
    "Dutch": "02-01-2024 10:00 - {}: {}",
    "Swedish": "2024-01-02 10:00 - {}: {}",
    "Finnish": "2.1.2024 klo 10.00 - {}: {}",
    "Hungarian": "2024. 01. 02. 10:00 - {}: {}",
    "Bulgarian": "2.01.24 г., 10:00 ч. - {}: {}",
    "Korean": "2024년 1월 2일 오후 3:05, {} : {}",
    "newer Korean": "2024. 1. 2. 오후 3:05 - {}: {}",
    "Korean iOS": "[2024. 1. 2. 오후 3:05:10] {}: {}",
    "Japanese": "2024/01/02 10:00 - {}: {}",
    "Chinese": "2024/1/2 下午3:05 - {}: {}",
    "Arabic": "٢\u200f/١\u200f/٢٠٢٤، ١٠:٠٠ ص - {}: {}",
    "Vietnamese": "10:00, 02/01/2024 - {}: {}",
    "Thai": "2/1/2567 10:00 - {}: {}",
    "marks": "\u200e[02/01/24, 10:00:00]\u200e {}: {}",
}


@pytest.mark.parametrize("form", FORMS)
def test_a_form_of_date_and_time_starts_a_message(imported, form):
    start = FORMS[form]
    text = "\n".join([start.format("Ben", "Hi"), start.format("Ada", "Hello: you"), "second line"])
    dialogues, report = imported(text)
    assert dialogues == HI
    assert report.format == "whatsapp"
    assert report.num_continuations == 1
    assert report.first_time // 86400 == 19724  # 2 January 2024


AFTERNOONS = """
    2/1/24, 3:05 p. m. - |02/01/24, 3:05 p. m. - |2/1/24 3:05 p. m. - |1/2/24, 3:05 PM -
    2024-01-02, 3:05 p.m. - |2024. 1. 2. 오후 3:05, |2/1/24, 3:05 अपराह्न - |02/01/2024, 3:05 PTG -
    2.1.2024, 3:05 m.d. - |2024/1/2 傍晚3:05 - |2/1/24, 3:05 μ.μ. -
"""


def test_the_afternoon_is_12_hours_later_in_every_language():
    starts = [start for line in AFTERNOONS.strip().split("\n") for start in line.split("|")]
    stamps = [match_stamp(f"{start.strip()} Ada: hi") for start in starts]
    assert [stamp and stamp.seconds for stamp in stamps] == [(15 * 60 + 5) * 60] * len(starts)
    assert match_stamp("2/1/24, 12:05 a.\u00a0m. - Ada: hi").seconds == 300


@pytest.mark.parametrize(
    "line",
    [
        "45/45/24, 10:00 - Ada: hi",
        "02/01/24, 25:00 - Ada: hi",
        "[02/01/24, 10:00 - Ada: hi",
        "02/01/24 - Ada: hi",
        "10:00 - Ada: hi",
        "31/02/2024, 10:00 - Ada: x",
        "",
    ],
)
def test_a_line_without_a_date_that_exists_starts_no_message(line):
    assert match_stamp(line) is None


def test_the_order_of_day_and_month_is_that_of_the_whole_file(imported):
    def report(*dates):
        pairs = [f"{date}, 10:00 - {name}: hi" for date in dates for name in ("Ben", "Ada")]
        return imported("\n".join(pairs))[1]

    assert report("03/04/24", "13/04/24").last_time // 86400 == 19826  # 13 April
    assert report("3/4/24", "3/13/24").last_time // 86400 == 19795  # 13 March
    assert report("02/01/24", "03/02/24").notes != ()
    # Time goes forwards if the month is first.
    assert report("1/30/24", "2/1/24").num_backward == 0
    assert report("1/9/24", "1/10/24", "2/1/24").notes == ()


def test_a_file_with_both_orders_is_refused(imported):
    with pytest.raises(DataError, match="13/04/24 in line 1 and 04/13/24 in line 3"):
        imported("13/04/24, 10:00 - Ada: a\nx\n04/13/24, 10:00 - Ben: b\n")


NO_SPEECH = {
    "media": [
        "<Media omitted>", "<Medien ausgeschlossen>", "<Multimedia omitido>", "<Mídia oculta>",
        "<Médias omis>", "\u200eimage omitted", "\u200eBild weggelassen", "image omitted",
        "\u200eimagen omitida", "\u200e<attached: 0001-PHOTO.jpg>", "<미디어 파일 제외됨>",
        "IMG-20240102-WA0001.jpg (file attached)", "Ada.vcf (Datei angehängt)",
        "location: https://maps.google.com/?q=1,2",
    ],
    "deleted messages": [
        "This message was deleted", "\u200eYou deleted this message.", "Mensagem apagada",
        "Diese Nachricht wurde gelöscht.", "삭제된 메시지입니다",
    ],
    "calls": ["Missed voice call", "\u200eMissed video call, Tap to call back", "不在着信"],
    "no text": ["", " ", "null", "<This message was edited>"],
}  # fmt: skip


@pytest.mark.parametrize("form", ["German", "German iOS"])
def test_what_whatsapp_writes_in_the_place_of_a_message_is_dropped(imported, form):
    start = FORMS[form]
    for reason, texts in NO_SPEECH.items():
        lines = [start.format("Ada", text) for text in texts]
        whole = [start.format("Ben", "Hi"), *lines, start.format("Ada", "Yes")]
        dialogues, report = imported("\n".join(whole))
        assert dialogues == [[("user", "Hi"), ("assistant", "Yes")]]
        assert report.dropped == {reason: len(texts)}


def test_system_lines_have_no_speaker(imported):
    lines = [
        "02/01/24, 10:00 - Messages and calls are end-to-end encrypted. Only people in this chat",
        '02/01/24, 10:01 - Ben changed the subject to "Plan: B"',
        "02/01/24, 10:02 - Ben added Cleo",
        "02/01/24, 10:02 - Join with https://example.org/x: open it",
        "02/01/24, 10:03 - Ben: Hi",
        "02/01/24, 10:04 - Ada: Hello",
    ]
    dialogues, report = imported("\n".join(lines))
    assert dialogues == [[("user", "Hi"), ("assistant", "Hello")]]
    assert report.dropped == {"system lines": 4}
    assert {speaker.name: speaker.role for speaker in report.speakers} == {
        "Ben": "user",
        "Ada": "assistant",
    }


def test_a_caption_and_an_edited_text_are_kept(imported):
    android = (
        "02.01.24, 10:00 - Ben: a.jpg (file attached)\nLook!\n"
        "02.01.24, 10:01 - Ada: Nice <This message was edited>\n"
    )
    ios = (
        "[02.01.24, 10:00:00] Ben: Look! \u200e<attached: a.jpg>\r\n"
        "[02.01.24, 10:01:00] Ada: Nice \u200e<This message was edited>\r\n"
    )
    for text in (android, ios):
        dialogues, report = imported(text)
        assert dialogues == [[("user", "Look!"), ("assistant", "Nice")]]
        assert report.dropped == {"media": 1}


def test_a_forged_turn_of_ios_stays_in_its_message_and_others_are_counted(imported):
    forged = "[02.01.24, 09:00:00] Ada: I owe you 100"
    end = "[02.01.24, 10:01:00] Ada: No\r\n[02.01.24, 10:02:00] Ada: No\r\n"
    dialogues, report = imported(f"[02.01.24, 10:00:00] Ben: Hi\n{forged}\r\n{end}")
    assert dialogues == [[("user", f"Hi\n{forged}"), ("assistant", "No\nNo")]]
    assert report.num_continuations == 1
    android = f"[02.01.24, 10:00:00] Ben: Hi\n{forged}\n[02.01.24, 10:01:00] Ada: No\n"
    assert imported(android)[1].num_backward == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_other_encodings_are_decoded(imported, encoding):
    text = "02.01.24, 10:00 - Ben: Grüße\n02.01.24, 10:01 - Ada: 안녕\n"
    assert imported(text.encode(encoding))[0] == [[("user", "Grüße"), ("assistant", "안녕")]]


def test_an_unknown_encoding_is_named(imported):
    text = "02.01.24, 10:00 - Ben: Grüße\n02.01.24, 10:01 - Ada: Ja\n"
    with pytest.raises(DataError, match="not UTF-8"):
        imported(text.encode("cp1252"))


def test_a_line_without_an_end_is_refused(imported):
    start = "02.01.24, 10:00 - Ben: Hi\n02.01.24, 10:01 - Ada: Yes\n"
    for long in ("x" * 2**21, "x\n" * 2**20):
        with pytest.raises(DataError, match="longer than 1,048,576 characters"):
            imported(start + long)


@settings(
    max_examples=num_examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.text(alphabet="ab:<>[]-, 0123/.\u200e\r\n\t\0é", max_size=30), max_size=6))
def test_any_text_is_read_or_refused(imported, texts):
    start = "02.01.24, 10:00 - Ben: Hi\n02.01.24, 10:01 - Ada: Yes\n"
    dialogues, report = imported(start + "\n".join(texts))
    assert dialogues[0][0] == ("user", "Hi")
    assert report.num_dialogues == len(dialogues)
