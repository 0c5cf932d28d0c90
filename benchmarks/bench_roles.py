"""Precision and recall of the roles that `validate-data` proposes, on speakers of public corpora.

    python benchmarks/bench_roles.py

The names and the order of turns of one dialogue are all that it sees. Rows of the second half were
not looked at when the words and rules were chosen.
"""

from __future__ import annotations

from convo_cli.config.schema import SpeakersConfig
from convo_cli.data.roles.survey import Survey, names_by_role
from convo_cli.data.shapes.speakers import roles_by_name
from tests.speaker_sets import HELD_OUT, TUNED, SpeakerSet


def main() -> None:
    roles = roles_by_name(SpeakersConfig())
    print(f"{'rows':10} {'corpora':>8} {'precision':>10} {'recall':>8}   wrong")
    for title, rows in (("tuned", TUNED), ("held out", HELD_OUT)):
        num_found = num_right = 0
        wrong: list[str] = []
        for row in rows:
            survey = Survey()
            survey.add_dialogue(row.speakers, roles)
            found = set(names_by_role(survey)[0]["assistant"])
            num_found += len(found)
            num_right += len(found & row.assistants)
            wrong += [row.corpus] * (found != row.assistants)
        precision, recall = num_right / num_found, num_right / _num_assistants(rows)
        print(f"{title:10} {len(rows):8} {precision:10.3f} {recall:8.3f}   {', '.join(wrong)}")


def _num_assistants(rows: list[SpeakerSet]) -> int:
    return sum(len(row.assistants) for row in rows)


if __name__ == "__main__":
    main()
