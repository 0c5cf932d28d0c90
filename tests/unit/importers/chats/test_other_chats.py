"""Exports of Telegram, Discord, Slack and IRC, and JSON Lines of messages."""

from __future__ import annotations

import json
from typing import Any

import pytest

from convo_cli.errors import DataError, UsageError
from convo_cli.importers.chats.times import seconds_of

HI = [[("user", "Hi"), ("assistant", "Yes")]]


def telegram(*messages: dict[str, Any], name: str = "Ben") -> dict[str, Any]:
    full = [{"id": 1, "type": "message", "date": "2024-01-02T10:00:00", **m} for m in messages]
    return {"name": name, "type": "personal_chat", "id": 7, "messages": full}


BEN = {"from": "Ben", "text": "Hi"}
ADA = {"from": "Ada", "text": ["Ye", {"type": "bold", "text": "s"}]}


@pytest.mark.parametrize("indent", [None, 1])
def test_a_telegram_chat(imported, indent):
    chat = telegram(
        {"type": "service", "action": "phone_call", "actor": "Ben"},
        BEN,
        {"from": "Ben", "text": "", "photo": "a.jpg"},
        {"from": "Ben", "text": "", "media_type": "sticker"},
        {"type": "service", "action": "pin_message"},
        {**ADA, "forwarded_from": "Cleo"},
    )
    dialogues, report = imported(json.dumps(chat, indent=indent), name="result.json")
    assert dialogues == HI
    assert report.format == "telegram"
    assert report.dropped == {"media": 2, "calls": 1, "system lines": 1}


def test_a_telegram_account_has_a_dialogue_for_each_chat(imported):
    chats = [
        telegram(BEN, ADA),
        telegram(),
        telegram({"from": None, "from_id": "user5"}, ADA),
    ]
    chats.append(telegram({**BEN, "from": None, "from_id": "user5"}, ADA))
    account = {
        "about": "Export", "personal_information": {"user_id": 1}, "contacts": {"list": [{}]},
        "chats": {"about": "…", "list": chats}, "left_chats": {"list": [telegram(BEN, ADA)]},
    }  # fmt: skip
    dialogues, report = imported(json.dumps(account, indent=1), name="result.json")
    assert dialogues == HI * 3
    assert {speaker.name for speaker in report.speakers} == {"Ada", "Ben", "user5"}


def test_telegram_chats_on_lines(imported):
    line = json.dumps({"name": "Ben", "messages": [{"type": "message", **BEN}, ADA]})
    assert imported(f"{line}\n{line}\n", name="chats.jsonl")[0] == HI * 2


def test_a_discord_channel(imported):
    def message(name, content, kind="Default", **more):
        author = {"id": "1", "name": name, "nickname": "x", "isBot": False}
        return {"id": "1", "type": kind, "timestamp": "2024-01-02T10:00:00.1234567+00:00",
                "content": content, "author": author, **more}  # fmt: skip

    channel = {
        "guild": {"id": "0", "name": "Direct Messages"},
        "channel": {"id": "1", "name": "ben"},
        "messages": [
            message("ben", "", attachments=[{"url": "x"}]),
            message("ben", "Hi"),
            message("ben", "joined", "GuildMemberJoin"),
            message("ben", "Started a call", "Call"),
            message("Ada", "Yes", "Reply"),
        ],
    }
    dialogues, report = imported(json.dumps(channel, indent=2), name="ben.json")
    assert dialogues == HI
    assert report.dropped == {"media": 1, "system lines": 1, "calls": 1}
    files = {"a.json": json.dumps(channel), "b.json": json.dumps(channel)}
    assert imported(files, name="folder")[0] == HI * 2


def test_discords_own_package_has_only_one_side(imported):
    package = {"messages/index.json": "{}", "messages/c1/messages.json": "[]"}
    with pytest.raises(DataError, match="only your own messages"):
        imported(package, name="package")
    lines = json.dumps([{"ID": 1, "Timestamp": "2024-01-02", "Contents": "Hi"}])
    with pytest.raises(DataError, match="only your own messages"):
        imported(lines, name="messages.json")


def slack(user, text, ts="1500000001.0", **more):
    return {"type": "message", "user": user, "text": text, "ts": ts, **more}


THREAD = {"thread_ts": "1500000000.0"}
SLACK = {
    "users.json": json.dumps(
        [
            {"id": "U1", "name": "ada", "profile": {"display_name": "Ada"}},
            {"id": "U2", "name": "ben", "real_name": "Ben", "profile": {"display_name": ""}},
        ]
    ),
    "channels.json": "[]",
    "general/2024-01-02.json": json.dumps(
        [
            slack("U2", "Q", "1500000000.0", **THREAD),
            slack("U2", "joined", subtype="channel_join"),
            slack("U2", "&lt;<@U1> <https://a.b|site> <!here>"),
            slack("U2", "", files=[{}]),
            slack("U1", "Yes", "1500000002.0"),
        ]
    ),
    "general/2024-01-03.json": json.dumps([slack("U1", "A", "1500000003.0", **THREAD)]),
}


def test_a_slack_folder_has_a_dialogue_for_each_channel_and_thread(imported):
    dialogues, report = imported(SLACK, name="export")
    assert dialogues == [
        [("user", "<@Ada site @here"), ("assistant", "Yes")],
        [("user", "Q"), ("assistant", "A")],
    ]
    assert report.format == "slack"
    assert report.dropped == {"system lines": 1, "media": 1}


@pytest.mark.parametrize(
    "log",
    [
        "[12:00] <Ben> Hi\n[12:01] <Ada> Yes\n",
        "12:00:05 <@Ben> Hi\n12:01:05 < Ada> Yes\n",
        "<Ben> Hi\n<Ada> Yes\n",
        "2024-01-02 12:00:00 <Ben> Hi\r\n2024-01-02 12:00:01 <Ada> Yes\r\n",
        "[2024-01-02 12:00] <Ben> Hi\n[2024-01-02 12:01] <Ada> Yes\n*** Ben quit\n",
        "[23:59] <Ben> Hi\n[00:01] <Ada> Yes\n",
    ],
)
def test_an_irc_log(imported, log):
    dialogues, report = imported(log, name="irc.log")
    assert dialogues == HI
    assert report.num_backward == 0


@pytest.mark.parametrize(
    "keys",
    [
        ("timestamp", "sender", "message"),
        ("date", "from", "text"),
        ("ts", "user", "text"),
        ("timestamp", "author", "content"),
    ],
)
def test_lines_of_messages(imported, keys):
    rows = [("2024-01-02T10:00:00Z", "Ben", "Hi"), ("2024-01-02T10:01:00Z", "Ada", "Yes")]
    lines = [json.dumps(dict(zip(keys, row, strict=True))) for row in rows]
    assert imported("\n".join(lines), name="lines.jsonl")[0] == HI
    assert imported(f"[{','.join(lines)}]", name="array.json")[0] == HI


DAYS = {
    "irssi": [
        "--- Log opened Tue Jan 02 10:00:00 2024",
        "10:00 < ben> Hi",
        "10:01 <@ada> Hello",
        "--- Day changed Wed Jan 03 2024",
        "10:05 < ben> Hi",
        "10:06 <@ada> Hello",
    ],
    "HexChat": [
        "**** BEGIN LOGGING AT Tue Jan  2 10:00:00 2024",
        "",
        "Jan 02 10:00:00 <ben>\tHi",
        "Jan 02 10:00:05 <ada>\tHello",
        "Jan 03 10:00:10 <ben>\tHi",
        "Jan 03 10:00:15 <ada>\tHello",
    ],
}


@pytest.mark.parametrize("program", DAYS)
def test_the_days_of_an_irc_log_are_dialogues_of_their_own(imported, program):
    dialogues, report = imported("\n".join(DAYS[program]), assistant="ada")
    assert dialogues == [[("user", "Hi"), ("assistant", "Hello")]] * 2
    assert report.last_time // 86400 == 19725  # 3 January 2024


def test_the_html_form_of_an_export_is_named(imported):
    with pytest.raises(UsageError, match="HTML page") as raised:
        imported("<!DOCTYPE html>\n<html><script>x</script></html>", name="messages.html")
    assert "JSON" in raised.value.hint


@pytest.mark.parametrize(
    "text",
    [
        '{"messages": [',
        '{"name": "x", "type": "personal_chat", "messages": [{"from": 1}',
        "[",
        '{"type": "personal_chat", "messages": ' + "[" * 100_000,
        '{"guild": 1, "channel": 2, "messages": 3}',
    ],
    ids=["messages", "truncated", "an array", "deep", "a number"],
)
def test_broken_json_is_refused(imported, text):
    with pytest.raises((DataError, UsageError)):
        imported(text, name="result.json", format="telegram")


def test_times():
    assert seconds_of("2024-01-02T10:00:00.1234567+02:00") == pytest.approx(1704182400.123456)
    assert seconds_of(1704182400123) == pytest.approx(1704182400.123)
    assert seconds_of("1704182400.5") == 1704182400.5
    values = [
        None,
        True,
        "x",
        "12:00 yesterday",
        [],
        float("nan"),
        float("inf"),
        -1,
        10**30,
        10**400,
    ]
    assert [seconds_of(value) for value in values] == [None] * len(values)
