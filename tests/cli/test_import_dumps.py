"""`convo import` of dumps and tables: what becomes a dialogue, what is dropped, what is refused."""

from __future__ import annotations

import gzip
import io
import json
import sys
import zipfile
from datetime import datetime

import pytest

from tests.commands import run_here

ICE = [("user", "Why is ice slippery?"), ("assistant", "A thin layer melts.")]


def imported(folder, name, content, *options):
    """Import a file; return the command's result and the (role, text) pairs of each dialogue."""
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    done = run_here(folder, "import", name, "-o", "out.jsonl", "--force", *options)
    out = folder / "out.jsonl"
    assert out.exists() == (done.code == 0), done.err
    assert "Traceback" not in done.err
    lines = out.read_text(encoding="utf-8").split("\n")[:-1] if out.exists() else []
    out.unlink(missing_ok=True)
    done = done._replace(out=" ".join(done.out.split()))
    return done, [
        [(turn["role"], turn["content"]) for turn in json.loads(line)["messages"]] for line in lines
    ]


def lines(*values):
    return "".join(json.dumps(value) + "\n" for value in values)


def test_people_of_a_dump_without_roles_are_users_but_for_the_named_assistant(tmp_path):
    turns = [
        {"speaker": name, "text": text} for name, (_, text) in zip(("Ada", "Ben"), ICE, strict=True)
    ]
    assert imported(tmp_path, "d.json", lines({"turns": turns}))[0].code == 3
    assert imported(tmp_path, "d.json", lines({"turns": turns}), "--assistant", "ben")[1] == [ICE]


def message(ident, parent, text, role, **others):
    return {"message_id": ident, "parent_id": parent, "text": text, "role": role, **others}


SHAREGPT = [
    {"id": f"x{number}_0", "conversations": [
        {"from": "human", "value": "Why is ice slippery?"},
        {"from": "gpt", "value": "A thin layer melts."},
    ]} for number in range(2)
]  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(SHAREGPT),
        json.dumps(SHAREGPT, indent=2),
        "\n".join(json.dumps(each, indent=1) for each in SHAREGPT),
        json.dumps({"version": 1, "data": SHAREGPT}),
        json.dumps({each["id"]: each for each in SHAREGPT}),
    ],
)
def test_a_json_dump_of_any_layout_is_read(tmp_path, content):
    assert imported(tmp_path, "dump.json", content)[1] == [ICE, ICE]
    assert imported(tmp_path, "dump.json.gz", gzip.compress(content.encode()))[1] == [ICE, ICE]


def test_the_references_of_a_dump_are_kept(tmp_path):
    answer = {"role": "assistant", "content": "Hey.", "references": ["Hi!", "Hello."]}
    dump = [{"messages": [{"role": "user", "content": "Hi."}, answer]}] * 2
    (tmp_path / "dump.json").write_text(json.dumps(dump))
    assert run_here(tmp_path, "import", "dump.json", "-o", "out.jsonl").code == 0
    written = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line)["messages"][1] for line in written] == [answer, answer]


def test_repeated_references_do_not_leave_out_a_dialogue(tmp_path):
    answer = {"role": "assistant", "content": "Hey.", "references": ["Hi!", "Hi! ", "", "Hey."]}
    unknown = {**answer, "references": "Hi!"}
    asked = {"role": "user", "content": "Hi."}
    dump = [{"messages": [asked, answer]}, {"messages": [asked, unknown]}]
    (tmp_path / "dump.json").write_text(json.dumps(dump))
    done = run_here(tmp_path, "import", "dump.json", "-o", "out.jsonl", "--json")
    (written,) = (tmp_path / "out.jsonl").read_text().splitlines()
    assert json.loads(written)["messages"][1]["references"] == ["Hi!"]
    report = json.loads(done.out)
    assert report["dropped"] == {"empty and repeated references": 3}
    assert report["left_out"] == {"references": 1}


def test_the_definitions_of_tools_are_kept(tmp_path):
    tools = [{"type": "function", "function": {"name": "time", "parameters": {}}}]
    call = {"id": "c", "type": "function", "function": {"name": "time", "arguments": {}}}
    messages = [
        {"role": "user", "content": "How late is it?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "5", "tool_call_id": "c"},
        {"role": "assistant", "content": "Five."},
    ]
    (tmp_path / "dump.json").write_text(json.dumps([{"messages": messages, "tools": tools}] * 2))
    done = run_here(tmp_path, "import", "dump.json", "-o", "out.jsonl", "--json")
    assert (done.code, json.loads(done.out)["num_turns"]) == (0, 8), done.err
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line)["tools"] for line in lines] == [tools, tools]
    assert run_here(tmp_path, "validate-data", "out.jsonl").code == 0


def test_json_lines_of_dialogues_need_no_import(tmp_path):
    done, _ = imported(tmp_path, "data.jsonl", lines(*SHAREGPT))
    assert done.code == 2
    assert "convo validate-data data.jsonl" in done.err


def test_of_several_replies_the_best_one_is_followed(tmp_path):
    flat = [
        message("1", None, "Why is ice slippery?", "prompter"),
        message("2", "1", "Because it is wet.", "assistant", rank=1),
        message("3", "2", "Always?", "prompter"),
        message("4", "3", "Yes.", "assistant"),
        message("5", "1", "A thin layer melts.", "assistant", rank=0),
        message("6", "1", "Spam.", "assistant", rank=0, review_result=False),
        message("7", "1", "Gone.", "assistant", deleted=True),
    ]
    done, dialogues = imported(tmp_path, "oasst.jsonl", lines(*flat))
    assert dialogues == [ICE]
    assert "rejected by the reviewers" in done.out
    assert "deleted" in done.out
    assert "3 replies that are not on the best path" in done.out
    tree = {
        **flat[0],
        "replies": [{**flat[1], "replies": [{**flat[2], "replies": []}]}, *flat[4:]],
    }
    rows = [
        {"message_tree_id": "t", "tree_state": "ready_for_export", "prompt": tree},
        {"message_tree_id": "u", "tree_state": "aborted_low_grade", "prompt": tree},
    ]
    assert imported(tmp_path, "trees.jsonl", lines(*rows))[1] == [ICE]


def test_a_tree_of_any_depth_and_a_circle_of_replies_end(tmp_path):
    chain = [
        message(str(n), str(n - 1) if n else None, f"text {n}", ("prompter", "assistant")[n % 2])
        for n in range(400)
    ]
    circle = [message("a", "b", "A", "prompter"), message("b", "a", "B", "assistant")]
    done, dialogues = imported(tmp_path, "deep.jsonl", lines(*chain, *circle, *circle))
    assert [len(dialogue) for dialogue in dialogues] == [400]
    assert "4 messages that are repeated or reply in a circle" in done.out
    deep = '{"prompt": {"text": "x", "replies": [' + '{"replies": [' * 10**5
    done, _ = imported(tmp_path, "deep.json", deep)
    assert done.code == 3


def test_the_winner_of_a_comparison_is_imported(tmp_path):
    a, b = ([{"role": role, "content": text} for role, text in (ICE[0], ("assistant", answer))]
            for answer in ("No idea.", "A thin layer melts."))  # fmt: skip
    rows = [
        {"conversation_a": a, "conversation_b": b, "winner": "model_b", "language": "English"},
        {"conversation_a": b, "conversation_b": a, "winner": "tie"},
        {"conversation_a": a, "conversation_b": a, "winner": "tie (bothbad)"},
    ]
    done, dialogues = imported(tmp_path, "arena.jsonl", lines(*rows))
    assert dialogues == [ICE, ICE]
    assert "both answers are bad" in done.out
    row = {"prompt": ["Why is ice slippery?"], "response_a": ["No."],
           "response_b": ["A thin layer melts."], "winner_model_b": 1}  # fmt: skip
    assert imported(tmp_path, "arena.jsonl", lines(row))[1] == [ICE]


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": "\n\nHuman: Why is ice slippery?\n\nAssistant: A thin layer melts.",
         "rejected": "\n\nHuman: Why is ice slippery?\n\nAssistant: No."},
        {"prompt": "Why is ice slippery?", "chosen": "A thin layer melts.", "rejected": "No."},
        {"prompt": "Why is ice slippery?", "rejected": [],
         "chosen": [{"role": "assistant", "content": "A thin layer melts."}]},
        {"chosen": [{"role": role, "content": text} for role, text in ICE]},
        {"text": "### Human: Why is ice slippery?### Assistant: A thin layer melts."},
        {"text": "<|user|>Why is ice slippery?<|end|><|assistant|>\nA thin layer melts.<|end|>"},
        {"text": "<|im_start|>user\nWhy is ice slippery?<|im_end|>\n"
                 "<|im_start|>assistant\nA thin layer melts.<|im_end|>\n"},
    ],
)  # fmt: skip
def test_preferred_answers_and_texts_with_tags_become_dialogues(tmp_path, row):
    assert imported(tmp_path, "rows.jsonl", lines(row))[1] == [ICE]


TABLES = {
    "pairs.csv": "prompt,completion\nWhy is ice slippery?,A thin layer melts.\n",
    "semicolons.csv": "\ufeffPrompt;Completion\r\nWhy is ice slippery?;A thin layer melts.\r\n",
    "tabs.tsv": "prompt\tcompletion\nWhy is ice slippery?\tA thin layer melts.\n",
    "no_header.tsv": "Why is ice slippery?\tA thin layer melts.\n",
    "messages.csv": 'id,messages\n1,"[{""role"": ""user"", ""content"": ""Why is ice slippery?""},'
    ' {""role"": ""assistant"", ""content"": ""A thin layer melts.""}]"\n',
    "python.csv": "turns\n\"['Why is ice slippery?', 'A thin layer melts.']\"\n",
    "roles.csv": "Dialogue ID,Role,Text\n1,user,Why is ice slippery?\n"
    "1,assistant,A thin layer melts.\n",
    "numbers.csv": "dialog_id,turn,speaker,text\n1,2,b,A thin layer melts.\n"
    "1,1,a,Why is ice slippery?\n",
    "nobody.csv": "conversation_id,utterance\n1,Why is ice slippery?\n1,A thin layer melts.\n",
    "empathetic.csv": "conv_id,utterance_idx,context,prompt,speaker_idx,utterance,selfeval,tags\n"
    'c,1,x,"I,7,Why is ice slippery?,5|5\nc,2,x,"I,3,A thin layer melts.,5|5,,\n',
    "folders.csv": "folder,dialogueID,date,from,to,text\n"
    "3,1.tsv,2004,a,,Why is ice slippery?\n3,1.tsv,2004,b,a,A thin layer melts.\n",
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_read_by_the_names_of_its_columns(tmp_path, name):
    done, dialogues = imported(tmp_path, name, TABLES[name])
    assert dialogues == [ICE]
    assert "dialogues 1 " in done.out


def test_a_table_in_utf_16_is_read(tmp_path):
    content = TABLES["tabs.tsv"].encode("utf-16")
    assert imported(tmp_path, "tabs.tsv", content)[1] == [ICE]
    assert imported(tmp_path, "t.tsv.gz", gzip.compress(content))[1] == [ICE]


def test_a_first_row_that_becomes_a_dialogue_is_named(tmp_path):
    done, dialogues = imported(tmp_path, "a.tsv", "Frage\tAntwort\nHallo\tHi\n")
    assert len(dialogues) == 2
    assert 'so the first row is read as a dialogue too: "Frage"' in done.out
    assert "dialogues 2 turns 4" in done.out  # no column is too narrow


def test_a_column_of_a_table_states_what_is_trained_on(tmp_path):
    table = "question,answer,train\na,b,False\nc,d,True\ne,f,\ng,h,0.5\n"
    done, dialogues = imported(tmp_path, "a.csv", table)
    assert [first for (_, first), *_ in dialogues] == ["c", "e"]
    assert "dialogues that are not trained on" in done.out


def test_columns_of_any_name_are_named_by_an_option(tmp_path):
    table = "Frage,Antwort\nWhy is ice slippery?,A thin layer melts.\n"
    done, _ = imported(tmp_path, "de.csv", table)
    assert done.code == 3
    assert '"Frage", "Antwort"' in done.err
    given = "--columns=prompt=Frage,completion=Antwort"
    assert imported(tmp_path, "de.csv", table, given)[1] == [ICE]
    assert imported(tmp_path, "de.csv", table, "--columns=prompt")[0].code == 2


def test_turns_of_one_speaker_are_joined_and_crowds_are_left_out(tmp_path):
    table = (
        "dialogue_id,speaker,text\n1,a,Why is ice\n1,a,slippery?\n2,a,x\n2,b,y\n2,c,z\n1,b,Melts.\n"
    )
    done, dialogues = imported(tmp_path, "t.csv", table)
    assert dialogues == [[("user", "Why is ice\nslippery?"), ("assistant", "Melts.")]]
    assert "more than two speakers" in done.out
    done, dialogues = imported(tmp_path, "t.csv", table, "--assistant", "b")
    assert dialogues[1] == [("user", "x"), ("assistant", "y"), ("user", "z")]


BAD_TABLES = {
    "never closed": ("a.csv", 'prompt,completion\nHi,"Hello\nBye,See you.\n', "line 2"),
    "text behind a quote": ("a.csv", 'prompt,completion\n"Hi" you,Hello\n', "line 2"),
    "too few columns": ("a.csv", "prompt,completion\na,b\nHi\n", "line 3"),
    "too many columns": ("a.csv", "prompt,completion\nHi,Hello,you\n", "line 2"),
    "NUL": ("a.csv", "prompt,completion\nHi,Hel\0lo\n", "line 2"),
    "Windows-1252": ("a.csv", "prompt,completion\nHi,Olé\n".encode("cp1252"), "iconv"),
    "repeated column": ("a.csv", "prompt,prompt\nHi,Hello\n", "two columns"),
    "numpy list": ("a.csv", "turns\n\"['a' 'b']\"\n", "numpy"),
    "only a header": ("a.csv", "prompt,completion\n", "no"),
    "empty": ("a.csv", "", "empty"),
    "many columns": ("a.csv", ",".join(f"c{n}" for n in range(2000)) + "\n1\n", "2,000 columns"),
    "nothing known": ("a.jsonl", lines({"city": "Oslo", "x": 4}), '"city", "x"'),
    "cut off": ("a.json", '[{"conversations": [{"from": "human"', "a.json"),
    "other values": ("a.json", "[1, 2]", "neither"),
    "a long number": ("a.json", '[{"messages": [' + "1" * 5000 + "]}]", "a.json"),
    "not Parquet": ("a.parquet", b"PAR1 and then something else PAR1", "cannot be read"),
    "not a zip": ("a.parquet", b"nothing", "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_damaged_table_is_refused_and_nothing_is_written(tmp_path, name):
    file, content, said = BAD_TABLES[name]
    done, _ = imported(tmp_path, file, content)
    assert done.code == 3
    assert said in " ".join(done.err.split())


def test_the_texts_of_parlai_are_read(tmp_path):
    labelled = (
        "text:Why is ice slippery?\tlabels:A thin layer melts.|No.\tepisode_done:True\n"
        "text:Hi\tlabels:Hello!\ntext:Bye\\nnow\tlabels:See you.\tepisode_done:True\n"
    )
    second = [("user", "Hi"), ("assistant", "Hello!"),
              ("user", "Bye\nnow"), ("assistant", "See you.")]  # fmt: skip
    assert imported(tmp_path, "p.txt", labelled)[1] == [ICE, second]
    numbered = (
        "1 your persona: i like ice .\n2 Why is ice slippery?\tA thin layer melts.\t\tNo.|Yes.\n"
        "1 Why is ice slippery?\tA thin layer melts.\n"
    )
    persona = ("system", "your persona: i like ice .")
    assert imported(tmp_path, "f.txt", numbered)[1] == [[persona, *ICE], ICE]


@pytest.fixture
def arrow():
    return pytest.importorskip("pyarrow")


def parquet(arrow, rows, **options):
    from pyarrow import parquet

    content = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist(rows), content, **options)
    return content.getvalue()


TURNS = [{"role": role, "content": text, "time": 3} for role, text in ICE]


def test_parquet_tables_are_read(tmp_path, arrow):
    nested = [{"id": 1, "messages": TURNS, "stamp": datetime(2026, 1, 1), "raw": b"x"}] * 3
    pairs = [{"prompt": ICE[0][1], "completion": ICE[1][1], "embedding": [0.5] * 9}]
    flat = [{"dialogue_id": 7, "role": role, "text": text, "created_at": datetime(2026, 1, 1)}
            for role, text in ICE]  # fmt: skip
    for rows, number in ((nested, 3), (pairs, 1), (flat, 1)):
        content = parquet(arrow, rows, row_group_size=2)
        for name in ("a.parquet", "without_suffix"):
            assert imported(tmp_path, name, content)[1] == [ICE] * number
        assert imported(tmp_path, "a.zip", zipped(**{"a.parquet": content}))[1] == [ICE] * number
    table = arrow.Table.from_pylist(nested)
    for opened in (arrow.ipc.new_file, arrow.ipc.new_stream):
        content = io.BytesIO()
        with opened(content, table.schema) as writer:
            writer.write_table(table)
        assert imported(tmp_path, "a.arrow", content.getvalue())[1] == [ICE] * 3


def test_a_parquet_table_without_dialogues_or_cut_off_is_refused(tmp_path, arrow):
    done, _ = imported(tmp_path, "a.parquet", parquet(arrow, [{"city": "Oslo"}]))
    assert done.code == 3
    assert '"city"' in done.err
    content = bytearray(parquet(arrow, [{"turns": [text for _, text in ICE]}] * 500))
    for place in range(4, len(content), 401):
        damaged = content[:place] + b"\xff" * 4 + content[place + 4 :]
        assert imported(tmp_path, "a.parquet", bytes(damaged))[0].code in (0, 3)
        assert imported(tmp_path, "a.parquet", bytes(content[:place]))[0].code == 3


def test_a_few_bytes_of_parquet_cannot_fill_the_memory(tmp_path, arrow):
    text = arrow.DictionaryArray.from_arrays(arrow.array([0] * 50_000, "int32"), ["x" * 2**23])
    table = arrow.table({"prompt": text, "completion": text})
    content = io.BytesIO()
    limit = {"dictionary_pagesize_limit": 2**25}
    arrow.parquet.write_table(table, content, store_schema=False, compression="zstd", **limit)
    assert len(content.getvalue()) < 2**15
    done, _ = imported(tmp_path, "bomb.parquet", content.getvalue())
    assert done.code == 3
    assert "refused: a few of its rows" in done.err


def test_parquet_without_pyarrow_names_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    done, _ = imported(tmp_path, "a.parquet", b"PAR1")
    assert done.code == 2
    assert 'pip install "convo-cli[import]"' in done.err


def zipped(**members):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return content.getvalue()


EOU = "Why is ice slippery? __eou__ A thin layer melts. __eou__\n"


def test_the_archive_of_dailydialog_is_read_whole_or_by_split(tmp_path):
    splits = {
        f"ijcnlp/{name}.zip": zipped(**{
            f"{name}/dialogues_{name}.txt": EOU * number,
            f"{name}/dialogues_act_{name}.txt": "1 2\n",
        })
        for number, name in enumerate(("train", "validation", "test"), 1)
    }  # fmt: skip
    without = zipped(**splits)
    whole = zipped(**splits, **{"ijcnlp/dialogues_text.txt": EOU * 6, "ijcnlp/readme.txt": "x"})
    for content in (without, whole):
        assert imported(tmp_path, "daily.zip", content)[1] == [ICE] * 6
        assert imported(tmp_path, "daily.zip", content, "--only", "validation")[1] == [ICE] * 2
    assert imported(tmp_path, "dialogues_train.txt", EOU)[1] == [ICE]
    bad = zipped(**{"train.zip": b"PK\x05\x06 no archive"})
    assert imported(tmp_path, "daily.zip", bad)[0].code == 3
    bad = zipped(**{"train.zip": zipped(**{"dialogues_train.txt": b"\xff __eou__\n"})})
    assert imported(tmp_path, "daily.zip", bad)[0].code == 3


def test_the_archive_of_movie_dialogues_is_read(tmp_path):
    said = "L2 +++$+++ u3 +++$+++ m0 +++$+++ B +++$+++ A thin layer melts.\n"
    said += "L1 +++$+++ u1 +++$+++ m0 +++$+++ A +++$+++ Why is ice slippery?\n"
    order = "u1 +++$+++ u3 +++$+++ m0 +++$+++ ['L1', 'L2']\n"
    content = zipped(**{"c/movie_lines.txt": said, "c/movie_conversations.txt": order})
    assert imported(tmp_path, "cornell.zip", content)[1] == [ICE]


def test_one_of_several_tables_in_an_archive_has_to_be_chosen(tmp_path):
    content = zipped(**{"a.csv": TABLES["pairs.csv"], "b.csv": "x"})
    done, _ = imported(tmp_path, "two.zip", content)
    assert done.code == 2
    assert "--only a.csv" in done.err
    assert imported(tmp_path, "two.zip", content, "--only", "a.csv")[1] == [ICE]


def test_the_parts_of_one_table_are_read_in_order(tmp_path):
    (tmp_path / "data").mkdir()
    for number in (1, 0):
        part = tmp_path / "data" / f"train-0000{number}-of-00002.jsonl"
        part.write_text(lines({"text": f"### Human: {number}### Assistant: ok"}))
    done = run_here(tmp_path, "import", "data", "-o", "out.jsonl")
    assert done.code == 0
    written = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line)["messages"][0]["content"] for line in written] == ["0", "1"]


def test_a_column_that_the_table_lacks_is_named_with_those_it_has(tmp_path):
    table = "Frage,Antwort\nHallo,Guten Tag\n"
    done, dialogues = imported(
        tmp_path, "a.csv", table, "--columns", "question=Frge,answer=Antwort"
    )
    assert (done.code, dialogues) == (2, [])
    assert 'a.csv has no column "Frge"' in done.err
    assert '"Frage", "Antwort"' in done.err
