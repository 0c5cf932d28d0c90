"""A role template as Go's text/template, which Ollama renders instead of Jinja."""

from __future__ import annotations

from itertools import groupby
from unicodedata import ucd_3_2_0

from convo_cli.export.llama_cpp.role_template import SPACE, RoleTemplate, common_start

_TRIM = (
    '{{ define "trim" }}{{ if . }}'
    "{{ if eq (slice . 0 1) SPACE }}"
    '{{ template "trim" (slice . 1) }}'
    "{{ else if eq (slice . (len (slice . 1))) SPACE }}"
    '{{ template "trim" (slice . 0 (len (slice . 1))) }}'
    "{{ else }}{{ . }}{{ end }}{{ end }}{{ end }}"
)
"""Ollama has no function for this; ``len (slice . 1)`` is the length without one byte."""
_REFUSED = '{{ else }}{{ call "no such role" }}{{ end }}'
"""The call of a text is an error that shows the text."""


def go_source(template: RoleTemplate) -> str:
    """Return a template that renders like `RoleTemplate.render`, and fails where that is None.

    Ollama adds no token at the start, because the GGUF file says so: the template has it.
    """
    starts = (template.start, template.start_without_system)
    common = common_start(*starts)
    source = _TRIM.replace("SPACE", " ".join(map(go_literal, SPACE))) if template.trimmed else ""
    source += go_text(common) + "{{ range $i, $_ := .Messages }}"
    for start, comparison in zip(starts, ("eq", "ne"), strict=True):
        if rest := go_text(start[len(common) :]):
            source += f'{{{{ if and (eq $i 0) ({comparison} .Role "system") }}}}{rest}{{{{ end }}}}'
    keyword = "if"
    for role, before in template.before.items():
        content = '{{ template "trim" .Content }}' if role in template.trimmed else "{{ .Content }}"
        asked, opening = f'eq .Role "{role}"', go_text(before)
        if role == "system" and template.system_is_first:
            asked = f"and ({asked}) (eq $i 0)"
        if role == "user" and template.system_opens_user and opening:
            is_open = 'and (eq $i 1) (eq (index $.Messages 0).Role "system")'
            opening = f"{{{{ if not ({is_open}) }}}}{opening}{{{{ end }}}}"
        source += f"{{{{ {keyword} {asked} }}}}{opening}{content}{go_text(template.after[role])}"
        keyword = "else if"
    return source + _REFUSED + "{{ end }}" + go_text(template.prompt)


def go_text(text: str) -> str:
    """Return Go source that writes a text, and that a Modelfile can hold.

    Ollama drops characters of a Modelfile that are not printable, and ends a value at quotes before
    a line break.
    """
    runs = ((is_plain, "".join(run)) for is_plain, run in groupby(text, _is_plain))
    return "".join(run if is_plain else f"{{{{ {go_literal(run)} }}}}" for is_plain, run in runs)


def go_literal(text: str) -> str:
    """Return a text as a string literal of Go, in ASCII without quotes or line breaks within."""
    return '"' + "".join(map(_escaped, text)) + '"'


def is_printable(letter: str) -> bool:
    """Return whether Go calls a character printable: in Unicode 3.2 and now, so in any version."""
    return letter == " " or (letter.isprintable() and ucd_3_2_0.category(letter)[0] not in "CZ")


def _is_plain(letter: str) -> bool:
    return letter == "\n" or (letter not in '{}"' and is_printable(letter))


def _escaped(letter: str) -> str:
    if letter.isascii() and letter.isprintable() and letter not in '\\"':
        return letter
    return f"\\u{ord(letter):04x}" if ord(letter) < 2**16 else f"\\U{ord(letter):08x}"
