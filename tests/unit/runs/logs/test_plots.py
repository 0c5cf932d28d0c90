"""The plots: pictures of one size, whole on disk, with nothing that is not in the log."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from convo_cli.errors import DiskError
from convo_cli.runs.logs import plots
from convo_cli.runs.logs.curves import Points, smoothed
from convo_cli.runs.logs.plots import plot_losses, plot_schedule
from tests.full_disk import file_size_limit

BLUE, ORANGE = (0x1F, 0x5F, 0xA8), (0xD9, 0x5F, 0x02)


def step(
    number: int, loss: float | None = 2.0, learning_rate: float | None = 1e-3
) -> dict[str, Any]:
    return {"event": "step", "step": number, "loss": loss, "learning_rate": learning_rate}


def evaluation(number: int, loss: float | None = 3.0, **metrics: float | None) -> dict[str, Any]:
    return {"event": "evaluation", "step": number, "loss": loss, "metrics": metrics}


def picture_of(folder: Path, records: Sequence[dict[str, Any]]) -> Path:
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps(record) + "\n" for record in records), "utf-8"
    )
    plot_losses(folder / "losses.png", folder / "metrics.jsonl")
    return folder / "losses.png"


def size(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert content.endswith(b"IEND\xaeB`\x82")
    width, height = struct.unpack(">II", content[16:24])
    return width, height


def where(path: Path, color: tuple[int, int, int]) -> NDArray[np.intp]:
    """Rows and columns of the pixels of a colour, without the title and the legend at the top."""
    from matplotlib.image import imread

    pixels = (imread(path)[75:, :, :3] * 255).round().astype(int)
    return np.argwhere((np.abs(pixels - np.array(color)) < 12).all(axis=2))


@pytest.mark.parametrize("num_steps", [0, 1, 2, 9, 10, 300])
def test_losses_of_any_number_of_steps_are_a_picture(tmp_path: Path, num_steps: int) -> None:
    records = [step(number, loss=10 / number) for number in range(1, num_steps + 1)]
    path = picture_of(tmp_path, records)
    assert size(path) == (1200, 700)
    assert (len(where(path, BLUE)) > 0) == (num_steps > 0)
    assert len(where(path, ORANGE)) == 0


@pytest.mark.parametrize("num_steps", [0, 1, 2, 300, 100_000])
def test_a_schedule_of_any_number_of_steps_is_a_picture(tmp_path: Path, num_steps: int) -> None:
    plot_schedule(tmp_path / "plots" / "schedule.png", lambda step: 5e-4 * step, num_steps)
    assert size(tmp_path / "plots" / "schedule.png") == (1200, 700)
    assert (len(where(tmp_path / "plots" / "schedule.png", BLUE)) > 0) == (num_steps > 0)


def test_a_falling_learning_rate_falls_from_left_to_right(tmp_path: Path) -> None:
    plot_schedule(tmp_path / "schedule.png", lambda step: 1e-3 * (1 - step / 100), 100)
    pixels = where(tmp_path / "schedule.png", BLUE)
    leftmost, rightmost = pixels[pixels[:, 1].argmin()], pixels[pixels[:, 1].argmax()]
    assert rightmost[1] - leftmost[1] > 900
    assert rightmost[0] - leftmost[0] > 450


def test_validation_is_drawn_in_its_own_colour(tmp_path: Path) -> None:
    path = picture_of(
        tmp_path, [*map(step, range(1, 51)), evaluation(25), evaluation(50, loss=2.5)]
    )
    assert len(where(path, ORANGE)) > 200


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All texts of the figures that are drawn."""
    from matplotlib.text import Text

    found: list[str] = []
    draw = Text.draw

    def record(text: Text, *args: Any, **kwargs: Any) -> None:
        found.append(text.get_text())
        draw(text, *args, **kwargs)

    monkeypatch.setattr(Text, "draw", record)
    return found


def test_the_title_names_the_run_and_what_is_drawn(tmp_path: Path, texts: list[str]) -> None:
    log = picture_of(tmp_path, [step(1), step(2)]).with_name("metrics.jsonl")
    assert "Training loss" in texts
    plot_losses(tmp_path / "losses.png", log, run_name="my run")
    assert "my run: training loss" in texts
    log.write_text(json.dumps(step(1)) + "\n" + json.dumps(evaluation(1)) + "\n", "utf-8")
    plot_losses(tmp_path / "losses.png", log, run_name="my run")
    assert "my run: training and validation loss" in texts
    plot_schedule(tmp_path / "schedule.png", lambda step: 1e-3, 5, run_name="my run")
    assert "my run: learning rate of every step" in texts


def test_the_title_hides_no_legend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    figures: list[Figure] = []
    save = Figure.savefig

    def record(figure: Figure, *args: Any, **kwargs: Any) -> None:
        figures.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", record)
    log = picture_of(tmp_path, [*map(step, range(1, 41)), evaluation(20)]).with_name(
        "metrics.jsonl"
    )
    plot_losses(tmp_path / "losses.png", log, run_name="x" * 500)
    for figure in figures:
        (title,) = [text for text in figure.texts if "loss" in text.get_text()]
        legend = figure.axes[0].get_legend()
        assert legend is not None
        assert not title.get_window_extent().overlaps(legend.get_window_extent())
        assert title.get_window_extent().x1 < 1200


@pytest.mark.parametrize("name", ["$x$", "대화 😀", "a\nb", "\x00", "x" * 500])
def test_any_name_of_a_run_is_one_line_of_the_picture(
    tmp_path: Path, texts: list[str], name: str
) -> None:
    plot_losses(tmp_path / "losses.png", tmp_path / "none.jsonl", run_name=name)
    (title,) = {text for text in texts if text.endswith(": training loss")}
    assert title.isprintable()
    assert len(title) < 100


def test_the_best_step_is_marked(tmp_path: Path, texts: list[str]) -> None:
    losses = {10: 3.0, 20: 2.25, 30: 2.25, 40: 4.0}
    records = [*map(step, range(1, 41)), *(evaluation(at, loss) for at, loss in losses.items())]
    picture_of(tmp_path, records)
    assert "best: 2.250 at step 20" in texts


def test_without_validation_no_step_is_the_best(tmp_path: Path, texts: list[str]) -> None:
    picture_of(tmp_path, [*map(step, range(1, 41)), evaluation(20, loss=None)])
    assert not [text for text in texts if "best" in text or "validation" in text]


def test_scores_of_one_scale_share_a_panel_and_others_get_their_own(tmp_path: Path) -> None:
    scores = {"bleu-2": 9.0, "bleu-4": 4.0, "nist-2": 1.1, "nist-4": 1.0}
    without = [*map(step, range(1, 11)), evaluation(5), evaluation(10)]
    wide = where(picture_of(tmp_path, without), BLUE)
    narrow = where(
        picture_of(tmp_path, [*without[:10], evaluation(5, **scores), evaluation(10, **scores)]),
        BLUE,
    )
    bottom_of_wide, bottom_of_narrow = wide[wide[:, 0] > 400], narrow[narrow[:, 0] > 400]
    gaps = [np.diff(np.unique(pixels[:, 1])).max() for pixels in (bottom_of_wide, bottom_of_narrow)]
    assert gaps[0] < 10, "the learning rate alone has the whole width"
    assert gaps[1] > 50, "the panels of the scores stand apart"


def test_null_and_foreign_values_are_left_out(tmp_path: Path) -> None:
    clean = [step(1), step(3), evaluation(3, **{"bleu-2": 1.0})]
    dirty = [
        {"event": "warning", "step": 1, "message": "beware"},
        step(1),
        step(2, loss=None, learning_rate=None),
        {"event": "step", "step": "x", "loss": 5.0, "learning_rate": 1.0},
        {"event": "step"},
        step(3),
        evaluation(2, loss=None, **{"bleu-2": None}),
        evaluation(3, **{"bleu-2": 1.0, "nist-2": None}),
    ]
    assert picture_of(tmp_path, dirty).read_bytes() == picture_of(tmp_path, clean).read_bytes()


def test_the_last_record_of_a_step_counts(tmp_path: Path) -> None:
    again = [step(1, loss=9.0), step(2), evaluation(2, loss=7.0), evaluation(2), step(1)]
    once = [step(1), step(2), evaluation(2)]
    assert picture_of(tmp_path, again).read_bytes() == picture_of(tmp_path, once).read_bytes()


def test_a_log_that_does_not_exist_yet_is_an_empty_picture(tmp_path: Path) -> None:
    plot_losses(tmp_path / "losses.png", tmp_path / "metrics.jsonl")
    assert (tmp_path / "losses.png").read_bytes() == picture_of(tmp_path, []).read_bytes()


def test_the_matplotlibrc_of_the_user_changes_nothing_and_is_left_as_it_was(tmp_path: Path) -> None:
    import matplotlib

    expected = picture_of(tmp_path, [step(1), step(2)]).read_bytes()
    with matplotlib.rc_context({"axes.facecolor": "red", "figure.dpi": 33, "savefig.dpi": 50}):
        before = dict(matplotlib.rcParams)
        assert picture_of(tmp_path, [step(1), step(2)]).read_bytes() == expected
        assert dict(matplotlib.rcParams) == before


def test_a_picture_that_cannot_be_written_leaves_the_old_one_whole(tmp_path: Path) -> None:
    plot_schedule(tmp_path / "schedule.png", lambda step: 1e-3, 1)
    old = (tmp_path / "schedule.png").read_bytes()
    with file_size_limit(1000), pytest.raises(DiskError, match=r"schedule\.png"):
        plot_schedule(tmp_path / "schedule.png", lambda step: 1e-3, 2)
    assert (tmp_path / "schedule.png").read_bytes() == old
    assert [path.name for path in tmp_path.iterdir()] == ["schedule.png"]


@pytest.mark.parametrize("metrics", [None, [1], "bleu-4", {"bleu-4": "high"}])
def test_a_damaged_score_hides_no_other(tmp_path: Path, metrics: object) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text(
        json.dumps({"event": "evaluation", "step": 1, "loss": 2.0, "metrics": metrics}) + "\n"
    )
    plot_losses(tmp_path / "losses.png", log)
    assert (tmp_path / "losses.png").is_file()


@pytest.mark.parametrize(
    "name",
    ["$\\frac{a$", "$$", "x" * 100_000, "a\nb", "\x00", "\x1b[2J", "_a", "한국어", "\u202e", ""],
)
def test_a_score_with_an_unusual_name_is_not_drawn(tmp_path: Path, name: str) -> None:
    plain = picture_of(tmp_path, [step(1), evaluation(1)]).read_bytes()
    assert picture_of(tmp_path, [step(1), evaluation(1, **{name: 0.5})]).read_bytes() == plain


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Points]:
    """The curves that are drawn."""
    curves: list[Points] = []
    draw = plots._draw_learning_rate
    monkeypatch.setattr(
        plots,
        "_draw_learning_rate",
        lambda axes, points: (curves.append(points), draw(axes, points)),
    )
    return curves


@pytest.mark.parametrize("num_steps", [1, 2, 7, 4000])
def test_a_short_schedule_is_drawn_at_every_step(
    tmp_path: Path, drawn: list[Points], num_steps: int
) -> None:
    plot_schedule(
        tmp_path / "schedule.png",
        lambda step: 1 / (step + 1),
        num_steps,
        corners=(-1, 3, num_steps),
    )
    steps = list(range(1, num_steps + 1))
    assert drawn == [(steps, [1 / step for step in steps])]


@pytest.mark.parametrize("num_steps", [4001, 123_457, 10**9])
def test_a_long_schedule_is_sampled_at_a_few_thousand_steps_and_at_its_corners(
    tmp_path: Path, drawn: list[Points], num_steps: int
) -> None:
    asked: list[int] = []

    def rate(step: int) -> float:
        asked.append(step)
        return min(step / 777, 1.0)

    plot_schedule(
        tmp_path / "schedule.png", rate, num_steps, corners=(776, 777, num_steps, num_steps - 3)
    )
    assert len(asked) <= 4004
    assert max(np.diff(asked)) <= num_steps / 2000
    ((steps, rates),) = drawn
    assert {1, 777, 778, num_steps - 2, num_steps} <= set(steps)
    assert rates == [min((step - 1) / 777, 1.0) for step in steps]


@pytest.mark.parametrize("length", [1, 5, 10, 1000])
def test_smoothing_has_no_lag(length: int) -> None:
    line = [3.0 * number + 7 for number in range(length)]
    smooth = smoothed(line)
    edge = max(2, length // 100)
    assert smooth[edge:-edge] == pytest.approx(line[edge:-edge])
    assert len(smooth) == length


def test_a_step_of_the_curve_is_the_mean_of_its_neighbours() -> None:
    assert smoothed([0.0, 0.0, 10.0, 0.0, 0.0, 5.0]) == pytest.approx(
        [10 / 3, 2.5, 2.0, 3.0, 3.75, 5 / 3]
    )


def test_a_home_that_cannot_be_written_to_leaves_no_line_of_matplotlib(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code = (
        "import pathlib; from convo_cli.runs.logs.plots import plot_schedule;"
        f"plot_schedule(pathlib.Path({str(tmp_path / 'a.png')!r}), lambda step: 1.0, 1)"
    )
    no_home = str(tmp_path / "file" / "home")
    hidden = {"MPLCONFIGDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"}
    kept = {key: value for key, value in os.environ.items() if key not in hidden}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, "HOME": no_home, "USERPROFILE": no_home},
        check=True,
        capture_output=True,
    )
    assert (ran.stdout, ran.stderr) == (b"", b"")
    assert size(tmp_path / "a.png") == (1200, 700)


def test_importing_the_module_imports_no_matplotlib_and_drawing_imports_no_pyplot(
    tmp_path: Path,
) -> None:
    code = (
        "import sys, pathlib; from convo_cli.runs.logs.plots import plot_schedule;"
        "assert 'matplotlib' not in sys.modules;"
        f"plot_schedule(pathlib.Path({str(tmp_path / 'a.png')!r}), lambda step: 1.0, 1);"
        "assert not {'matplotlib.pyplot', 'torch', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
