from __future__ import annotations

import shlex

from hypothesis import given, settings
from hypothesis import strategies as st

from convo_cli.config.load import build_config
from convo_cli.config.reading.yaml_source import parse_yaml
from convo_cli.config.schema import DataConfig, SpeakersConfig
from convo_cli.data.roles.proposal import Proposal, propose
from convo_cli.data.roles.survey import Survey
from convo_cli.data.shapes.speakers import roles_by_name
from tests.cases import num_examples

NAMES = st.text(min_size=1, max_size=9).filter(str.isprintable)
NEEDED = {"model": {"scratch": {}}, "training": {"max_steps": 1}}


def proposal(
    *names: str, speakers: SpeakersConfig | None = None, keeps_current: bool = False
) -> Proposal | None:
    survey = Survey()
    known = speakers or SpeakersConfig()
    survey.add_dialogue(names, roles_by_name(known))
    return propose((), survey, known, keeps_current=keeps_current)


def read_back(given: Proposal) -> tuple[DataConfig, DataConfig]:
    """The data config of the options and that of the lines."""
    options = shlex.split(given.options) if given.options.isprintable() else []
    settings = [word for word in options if word != "--set"]
    assert settings == list(given.settings)
    values = {"data": {"train": "a.jsonl"}, **NEEDED}
    by_option = build_config(values, "test", given.settings).data
    lines = dict(parse_yaml(given.yaml, "test").value)["data"]
    by_lines = build_config({"data": {"train": "a.jsonl", **lines}, **NEEDED}, "test").data
    return by_option, by_lines


@settings(max_examples=num_examples(60))
@given(st.lists(NAMES, min_size=2, max_size=5, unique_by=str.casefold), st.booleans())
def test_options_and_lines_are_read_back_as_the_same_valid_config(
    names: list[str], keeps_current: bool
) -> None:
    given_ = proposal(*names, names[0], keeps_current=keeps_current)
    if given_ is None:
        return
    by_option, by_lines = read_back(given_)
    assert by_option == by_lines
    roles = roles_by_name(by_option.speakers)
    assert by_option.speakers.keep_names or all(name.casefold() in roles for name in names)
    assert "assistant" in {roles.get(name.casefold()) for name in names}


def test_only_what_changes_is_proposed_and_current_names_stay_if_they_are_needed() -> None:
    alone = proposal("user", "zed")
    assert alone is not None
    assert alone.settings == ("data.speakers.assistant=[zed]",)
    beside = proposal("user", "zed", keeps_current=True)
    assert beside is not None
    names = ", ".join((*SpeakersConfig().assistant, "zed"))
    assert beside.settings == (f"data.speakers.assistant=[{names}]",)
    assert proposal("user", "assistant") is None


def test_a_name_that_changes_its_role_leaves_the_other_list() -> None:
    given_ = proposal("USER", "SYSTEM", "USER", "SYSTEM")
    assert given_ is not None
    assert given_.settings == (
        "data.speakers.system=[developer]",
        "data.speakers.assistant=[SYSTEM]",
    )
    roles_by_name(read_back(given_)[0].speakers)


def test_several_people_keep_their_names_in_the_text() -> None:
    given_ = proposal("Ada", "Ben", "Cleo")
    assert given_ is not None
    assert given_.settings == ("data.speakers.assistant=[Cleo]", "data.speakers.keep_names=true")


def test_texts_that_yaml_would_read_as_something_else_are_quoted() -> None:
    given_ = proposal("no", "1", "no")
    assert given_ is not None
    assert given_.settings == ('data.speakers.user=["no"]', 'data.speakers.assistant=["1"]')


def test_names_that_no_config_can_hold_stay_in_the_text() -> None:
    given_ = proposal("a\u200b", "agent", "b" * 1000)
    assert given_ is not None
    assert given_.settings == ("data.speakers.assistant=[agent]", "data.speakers.keep_names=true")
