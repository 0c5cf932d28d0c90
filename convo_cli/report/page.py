"""The page of one run: report.html, a single file without scripts and without requests."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convo_cli import __version__
from convo_cli.config.load import dump_config
from convo_cli.report import page_tables, scores, story
from convo_cli.report.drawing import pictures
from convo_cli.report.drawing.charts import HEIGHT, PLOT_WIDTH
from convo_cli.report.reading.gathering import Gathered
from convo_cli.report.reading.reply_history import replies_over_time
from convo_cli.report.shown import moment, shown
from convo_cli.storage.atomic import write_file

if TYPE_CHECKING:
    from markupsafe import Markup

_TEMPLATES = Path(__file__).with_name("templates")
_LONGEST = 500
"""Characters of a text for which the template states no other limit."""
_LONGEST_CONFIG = 12_000
_MAX_TURNS = 4
_LONGEST_TURN = 240
_LONGEST_REPLY = 400


def write_run_page(run: Gathered, out: Path | None = None) -> Path:
    """Write the page of a run into its directory, or to ``out``, and return its path.

    DiskError if it cannot be written.
    """
    path = out or run.run.report
    write_page(path, "run.html", run_context(run), below=run.run.path if out is None else None)
    return path


def _breakable(text: str) -> Markup:
    """Return an escaped text that may be broken after a dot, as in a config key."""
    from markupsafe import Markup, escape

    return escape(text).replace(".", Markup(".<wbr>"))


class _Shown(str):
    """A text that the filter `shown` has already bounded."""


def run_context(run: Gathered) -> dict[str, Any]:
    """Return everything that the template shows."""
    evaluations = run.log.evaluations
    scored_step = run.best_step if run.best_step in evaluations else None
    if scored_step is None and evaluations:
        scored_step = list(evaluations)[-1]
    scored = None if scored_step is None else evaluations[scored_step]
    bests = [one.step for one in run.saved if one.kinds]
    config = None if run.config is None else run.config
    return {
        "run": run,
        "title": run.name,
        "headline": story.headline(run),
        "outcome": story.outcome(run),
        "facts": story.facts(run),
        "best": story.best_checkpoint(run),
        "next_steps": story.next_steps(run),
        "is_named_only": run.run.path.is_absolute(),
        "loss": pictures.loss_chart(run.log),
        "training": list(pictures.training_charts(run.log)),
        "score_charts": list(pictures.score_charts(run.log, run.metric)),
        "ends": pictures.end_chart(run.log),
        "scores": scores.score_table(scored, f"step {scored_step:,}") if scored else None,
        "evaluations": scores.evaluation_table(run),
        "test": scores.test_table(run),
        "findings": scores.findings(run),
        "has_health": any(one.has_health for one in evaluations.values()),
        "replies": replies_over_time(run.run.samples, bests),
        "data": page_tables.data_table(run),
        "files": page_tables.file_table(run),
        "config": None if config is None else page_tables.config_table(config),
        "whole_config": "" if config is None else dump_config(config),
        "longest_config": _LONGEST_CONFIG,
        "checkpoints": page_tables.checkpoint_table(run),
        "history": page_tables.history_table(run),
        "versions": page_tables.version_table(run),
        "last_time": moment(run.log.last_time),
    }


def write_page(
    path: Path, template: str, context: Mapping[str, Any], *, below: Path | None = None
) -> None:
    """Render a template of this package and write it whole, or not at all."""
    write_file(path, render(template, context), below=below)


def render(template: str, context: Mapping[str, Any]) -> str:
    """Render a template; every text in it is bounded, stripped of unseen characters and escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def finalized(value: Any) -> Any:
        # Escaped text, such as the result of a macro, has passed through here before.
        is_raw = isinstance(value, str) and not isinstance(value, (Markup, _Shown))
        return shown(value, _LONGEST) if is_raw else value

    pages = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=finalized,
    )
    pages.filters["breakable"] = _breakable
    pages.filters["shown"] = lambda text, limit: _Shown(shown(text, limit))
    common = {
        "convo_version": __version__,
        "written": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        "plot_height": HEIGHT,
        "plot_width": PLOT_WIDTH,
        "longest_turn": _LONGEST_TURN,
        "longest_reply": _LONGEST_REPLY,
        "max_turns": _MAX_TURNS,
    }
    return pages.get_template(template).render(**common, **context)
