"""Every chat template ends within seconds and bounded memory; an error names its folder."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convo_cli.data.dialogue import Turn, as_messages
from convo_cli.errors import DataError, ModelError
from convo_cli.text.bounded import client
from convo_cli.text.bounded.rendering import MAX_TEMPLATE_CHARACTERS, render_all, render_ids
from convo_cli.text.templates.template import TEMPLATES
from tests.cases import num_examples, quick_first
from tests.families import FAMILIES, family_tokenizer, native_encoder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the limits are Linux's")
TURNS = (Turn("user", "Hello {{ 1 }} 안녕 \x00\u2028"), Turn("assistant", "Hi"))
EACH = "{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.fixture(scope="module")
def tokenizer(sample_dialogues):
    tokenizer = family_tokenizer(FAMILIES["qwen"], sample_dialogues)
    tokenizer.name_or_path = "models/foreign"
    return tokenizer


def render(tokenizer, chat_template, turns=TURNS, **options):
    (answer,) = render_all(tokenizer, chat_template, [turns], **options)
    return answer


ENDLESS = {
    "loops in loops": (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    ),
    "one instruction of Python that no exception can interrupt": (
        "{% set a = 'x' * 10000000 %}{% set b = 'x' ~ a[:-1] %}{{ ([a] * 10000000).count(b) }}"
    ),
    "a macro that calls itself twice": (
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(80) }}"
    ),
    "a power of numbers": "{{ 10 ** (10 ** 10) % 7 }}",
    "marks in a loop": (
        "{% for a in range(99999) %}{% generation %}a{% endgeneration %}{% endfor %}"
    ),
    "a book of nonsense": "{{ lipsum(n=10 ** 7) }}",
}
GREEDY = {
    "a long string": "{{ 'a' * 10 ** 10 }}",
    "a string that doubles": (
        "{% set n = namespace(x='aaaa') %}"
        "{% for a in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}"
    ),
    "a list that doubles": (
        "{% set n = namespace(x=[1]) %}"
        "{% for a in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}"
    ),
    "a filter": "{{ 'a' | center(10 ** 10) }}",
    "a width in an old format": "{{ '%10000000000d' % 1 }}",
    "a width in a new format": "{{ '{:10000000000}'.format(1) }}",
    "an indent": "{{ [1] | tojson(indent=10 ** 10) }}",
}


def require_bounded(tokenizer, chat_template, says):
    client._process()._kill()  # its earlier work would count as that of this template
    render(tokenizer, EACH)
    # Its limit, not its peak: the system keeps only the peak of all earlier children together.
    limit, _ = resource.prlimit(client._process()._popen.pid, resource.RLIMIT_AS)
    assert 0 < limit < 1_500_000_000, "in bytes"
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with pytest.raises(ModelError, match=f"^models/foreign: its chat template {says}") as caught:
        render(tokenizer, chat_template, has_marks="generation" in chat_template)
    assert caught.value.exit_code == 2
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert children.ru_utime + children.ru_stime - started[1].ru_utime - started[1].ru_stime < 10
    assert time.process_time() - started[0] < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 100_000, (
        "in this process, in KiB"
    )
    assert render(tokenizer, EACH).text == "".join(turn.text for turn in TURNS), (
        "the next template is rendered again"
    )


@pytest.mark.parametrize("name", quick_first(ENDLESS))
def test_a_template_that_never_ends_is_stopped(tokenizer, name):
    require_bounded(
        tokenizer,
        ENDLESS[name],
        "takes more than (2 s of CPU time|512 MiB of memory) for one dialogue",
    )


@pytest.mark.parametrize("name", quick_first(GREEDY))
def test_a_template_that_needs_too_much_memory_is_stopped(tokenizer, name):
    require_bounded(tokenizer, GREEDY[name], "takes more than 512 MiB of memory for one dialogue")


@pytest.mark.parametrize(
    ("chat_template", "says"),
    [
        ("{% for i in range(10 ** 9) %}{% endfor %}", "Range too big"),
        (
            "{% for i in range(99999) %}{{ 'abcdefghijklmno' }}{% endfor %}",
            "it adds more than 1,048,576 characters",
        ),
        ("{{ raise_exception('x' * 10 ** 8) }}", "x{300}$"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "maximum recursion depth"),
        ("{{ '\\ud800' }}", "surrogates not allowed"),
        # The sandbox
        (
            "{{ ''.__class__.__mro__[1].__subclasses__() }}",
            "access to attribute '__class__' of 'str' object is unsafe",
        ),
        (
            "{{ cycler.__init__.__globals__.os.system('true') }}",
            "access to attribute '__init__' .* is unsafe",
        ),
        ("{{ messages.append(1) }}", "access to attribute 'append' of 'list' object is unsafe"),
        ("{% include '/etc/passwd' %}", "no loader for this environment"),
        ("{% import 'os' as os %}", "no loader for this environment"),
    ],
)
def test_a_forbidden_action_of_a_template_refuses_the_dialogue(tokenizer, chat_template, says):
    answer = render(tokenizer, chat_template)
    assert isinstance(answer, DataError)
    assert re.search(f"the chat template refuses the dialogue: .*{says}", str(answer))


def test_an_overlong_template_is_refused_before_it_is_compiled(tokenizer):
    assert render(tokenizer, " " * MAX_TEMPLATE_CHARACTERS).text.strip() == ""
    with pytest.raises(
        ModelError, match="models/foreign: its chat template is 262,145 characters long"
    ):
        render(tokenizer, " " * (MAX_TEMPLATE_CHARACTERS + 1))


def test_a_killed_process_starts_again(tokenizer):
    assert render(tokenizer, EACH)
    process = client._processes[0]
    os.kill(process._popen.pid, signal.SIGKILL)
    while process.is_ours:
        time.sleep(0.01)
    assert render(tokenizer, EACH).text == "".join(turn.text for turn in TURNS)


@pytest.mark.parametrize("size", [1, 10**7])
def test_a_process_that_ends_during_a_request_is_an_error(size):
    process = client._Process()
    request = b'render {"dialogues": [], "tools": [], "options": {}, "tokens": {}}\n'
    assert process.ask(request) == b"[]\n"
    os.kill(process._popen.pid, signal.SIGKILL)
    with pytest.raises(client.EndedError, match="exit code -9") as caught:
        process.ask(b" " * size)
    reason = caught.value.reason(client.Limits(1, 1))
    assert reason == "crashes the process that reads it (exit code -9)"


def test_signals_for_the_whole_group_do_not_reach_it(tokenizer):
    assert render(tokenizer, EACH)
    pid = client._processes[0]._popen.pid
    assert os.getsid(pid) != os.getsid(0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        os.kill(pid, number)
    assert render(tokenizer, EACH)
    assert client._processes[0]._popen.pid == pid


def test_the_process_ends_with_its_parent(tmp_path):
    """Also if the parent is killed; and it imports nothing from the working folder."""
    (tmp_path / "msgspec.py").write_text("open('imported', 'w')")
    code = (
        "import sys, os; sys.path.remove(''); from convo_cli.text.bounded.client import _process;"
        "print(_process()._popen.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    pid = int(
        subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
        ).stdout
    )
    deadline = time.monotonic() + 30
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not (tmp_path / "imported").exists()


def test_a_fork_uses_its_own_process():
    code = (
        "import os, sys; from convo_cli.text.bounded.client import _process; pid = "
        "_process()._popen.pid\n"
        "if child := os.fork(): sys.exit(os.waitpid(child, 0)[1] or _process()._popen.pid != pid)\n"
        "sys.exit(_process()._popen.pid == pid)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_a_token_named_like_an_option_of_the_renderer_changes_no_option(
    tokenizer, sample_dialogues
):
    other = family_tokenizer(FAMILIES["qwen"], sample_dialogues)
    other._special_tokens_map["chat_template"] = "{{ 'other' }}"
    answer = render(other, EACH)
    assert isinstance(answer, DataError) or answer.text == "".join(turn.text for turn in TURNS)


def test_half_of_a_surrogate_pair_is_refused(tokenizer):
    with pytest.raises(ModelError, match="surrogate"):
        render(tokenizer, EACH, [Turn("user", "\udcff")])


# Results of harmless templates


@settings(max_examples=num_examples(60), deadline=None)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4))
def test_any_text_is_rendered_unchanged(tokenizer, texts):
    dialogues = [[Turn("user", text)] for text in texts]
    assert [answer.text for answer in render_all(tokenizer, EACH, dialogues)] == texts


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("for_reply", [False, True])
def test_the_ids_are_those_of_transformers_own_apply_chat_template(
    sample_dialogues, name, for_reply
):
    tokenizer = family_tokenizer(FAMILIES[name], sample_dialogues)
    chat_template = native_encoder(tokenizer).template.chat_template
    for dialogue in sample_dialogues[:5]:
        turns = [
            Turn(("user", "assistant")[k % 2], turn.text) for k, turn in enumerate(dialogue.turns)
        ]
        theirs = tokenizer.apply_chat_template(
            as_messages(turns),
            chat_template=chat_template,
            add_generation_prompt=for_reply,
            return_dict=False,
        )
        assert render_ids(tokenizer, chat_template, turns, for_reply=for_reply) == theirs


def test_dialogues_rendered_together_equal_those_rendered_alone(
    sample_dialogues,
):
    template = native_encoder(family_tokenizer(FAMILIES["gemma"], sample_dialogues)).template
    good = [Turn("user", "a"), Turn("assistant", "b")]
    bad = [Turn("assistant", "b")]
    first, second, third = template.render_all([good, bad, good * 2])
    assert (first, third) == (template.render(good), template.render(good * 2))
    assert isinstance(second, DataError)
    with pytest.raises(DataError) as caught:
        template.render(bad)
    assert str(caught.value) == str(second)


def test_overlapping_marks_are_merged():
    from convo_cli.text.bounded.process import _merged

    assert _merged([(0, 3), (9, 9), (2, 5), (1, 2), (5, 6)]) == [(0, 6), (9, 9)]


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_templates_of_convo_render_many_dialogues_as_one_by_one(make_encoder, name):
    template = make_encoder(name).template
    good, system = (
        [Turn("user", "a"), Turn("assistant", "b")],
        [Turn("system", "s"), Turn("user", "a")],
    )
    first, second = template.render_all([good, system])
    assert first == template.render(good)
    if "system" not in template.openings:
        assert "no place for a system turn" in str(second)
    else:
        assert second == template.render(system)
