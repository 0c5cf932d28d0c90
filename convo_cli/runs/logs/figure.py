"""Figures drawn by matplotlib: one style for every user, and a PNG that is written whole."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from convo_cli.storage.atomic import disk_errors, write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GREY = "#5b6470"
_SIZE = (12.0, 7.0)  # inches, at 100 dots each
_STYLE = {
    "font.family": ["DejaVu Sans"],
    "font.size": 11.0,
    "axes.titlesize": 14.0,
    "axes.titlelocation": "left",
    "axes.titlepad": 12.0,
    "axes.titleweight": "bold",
    "axes.labelcolor": GREY,
    "axes.edgecolor": "#b8bec6",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#e3e6ea",
    "xtick.color": GREY,
    "ytick.color": GREY,
    "legend.frameon": False,
    "agg.path.chunksize": 10_000,
    "text.parse_math": False,
}


@contextmanager
def drawing(path: Path) -> Iterator[Figure]:
    """Yield a figure, and write it to the PNG ``path`` unless the block raises."""
    with _quiet_matplotlib():
        import matplotlib.style
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        # The user's matplotlibrc is ignored, because it could ask for LaTeX.
        with matplotlib.style.context(_STYLE, after_reset=True):
            figure = Figure(figsize=_SIZE, dpi=100, facecolor="white")
            figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
            FigureCanvasAgg(figure)
            yield figure
            png = BytesIO()
            figure.savefig(png, format="png")
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, png.getvalue(), below=path.parent.parent)


@contextmanager
def _quiet_matplotlib() -> Iterator[None]:
    """Hide what matplotlib logs about its caches, and its warnings about missing glyphs."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
