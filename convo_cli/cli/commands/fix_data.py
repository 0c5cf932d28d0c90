"""`convo validate-data --fix`: the repaired copy of the data, written whole or not at all."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import zstandard
from rich.text import Text

from convo_cli.cli.console import printable
from convo_cli.errors import DataError, UsageError, typeable
from convo_cli.storage.access import derived_mode, masked
from convo_cli.storage.files import special_kind_at

if TYPE_CHECKING:
    from rich.console import Console

    from convo_cli.config.schema import DataConfig, Reasoning, RunConfig, TrainOn
    from convo_cli.data.repair.repairs import RepairGroup, RepairReport
    from convo_cli.events import Emit


def require_new_file(out: Path, inputs: Sequence[str], *, is_forced: bool) -> None:
    """Raise UsageError where ``out`` cannot be written, or writing would replace a file that may be needed."""
    try:
        _require_new_file(out, inputs, is_forced=is_forced)
    except OSError as error:
        raise UsageError(f"--fix {out}: {error.strerror or error}", hint="name another file") from None


def _require_new_file(out: Path, inputs: Sequence[str], *, is_forced: bool) -> None:
    if any(out.exists() and Path(path).exists() and out.samefile(path) for path in inputs):
        raise UsageError(
            f"--fix {out}: that is the file to be fixed", hint="name another file; the input stays as it is"
        )
    if out.is_dir():
        raise UsageError(f"--fix {out}: a directory", hint=f"--fix {typeable(out / 'fixed.jsonl')}")
    if (kind := special_kind_at(out)) is not None:
        raise UsageError(f"--fix {out}: not a regular file, but {kind}", hint="name another file")
    if out.parent.exists() and not out.parent.is_dir():
        raise UsageError(f"--fix {out}: {out.parent} is not a folder", hint="name a file in a folder")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"--fix {out}: there is no folder {out.parent}", hint=f"mkdir -p {typeable(out.parent)}")
    if out.exists() and not is_forced:
        raise UsageError(f"--fix {out}: already exists", hint="name another file, or add --force to replace it")


def fix_files(
    paths: Sequence[str],
    out: Path,
    data_config: DataConfig,
    train_on: TrainOn,
    max_listed: int,
    emit: Emit,
    run_config: RunConfig | None = None,
) -> RepairReport:
    """Repair the files into one, which is no more readable than they are, without what ``run_config`` refuses.

    No file is written where no line is left (DataError) or a file changed meanwhile (ChangedError).
    """
    from convo_cli.data.repair.copies import repair_files
    from convo_cli.data.repair.dialogues import Judge
    from convo_cli.storage.atomic import writing
    from convo_cli.storage.snapshot import Snapshot

    before = [Snapshot.of(Path(path)) for path in paths]

    def repair(write: Callable[[bytes], object], judge: Judge | None) -> RepairReport:
        return repair_files(paths, write, data_config, train_on=train_on, max_listed=max_listed, emit=emit, judge=judge)

    judge: Judge | None = None
    if run_config is not None:
        from convo_cli.prepare.screen import judge_of

        judge = judge_of(run_config, lambda write, judge: repair(write, judge).num_written)
    allowed = derived_mode([*paths, out], out)  # out too, where it is replaced
    with masked(allowed), writing(out) as file, _packed(file, out.suffix.lower()) as write:
        repaired = repair(write, judge)
        if not repaired.num_written:
            raise DataError(
                f"{', '.join(paths)}: not one line can be trained on, so {out} was not written",
                hint="`convo validate-data` without --fix names every problem",
            )
        for read in before:
            read.require_unchanged()
    return repaired


@contextmanager
def _packed(file: BinaryIO, suffix: str) -> Iterator[Callable[[bytes], object]]:
    """Where lines go: packed as the name says."""
    if suffix == ".gz":
        with gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as packed:
            yield packed.write
    elif suffix == ".zst":
        with zstandard.ZstdCompressor().stream_writer(file, closefd=False) as packed:
            yield packed.write
    else:
        yield file.write


def show_repairs(console: Console, repaired: RepairReport, out: str, reasoning: Reasoning | None = None) -> None:
    """Print what was repaired and what was left out, the first of each kind by its line.

    ``reasoning`` is the choice for the reasoning in the written lines, where they have any.
    """
    kept = (
        f"{repaired.num_unchanged:,} of {repaired.num_lines:,} lines as they were, {repaired.num_repaired:,} repaired"
    )
    _show(console, f"{out}: {kept}, {repaired.num_left_out:,} left out", "bold")
    for title, style, groups in (("repaired", "green", repaired.repaired), ("left out", "bold red", repaired.left_out)):
        for group in groups:
            _show_group(console, title, style, group)
    if reasoning is not None:
        _show(console, f"the lines keep their reasoning: set data.reasoning: {reasoning} in the config that reads them")
    console.print()


def _show_group(console: Console, title: str, style: str, group: RepairGroup) -> None:
    head = Text(f"{title} ", style=style).append(group.code, style="bold").append(f"  {group.count:,}", style="default")
    console.print(head, soft_wrap=True)
    for problem in group.problems:
        _show(console, f"  {problem}")
    if more := group.count - len(group.problems):
        _show(console, f"  {more:,} more", "dim")
    _show(console, f"  {group.what}", "dim")


def _show(console: Console, line: str, style: str = "") -> None:
    console.print(Text(printable(line).replace("\n", " "), style=style), soft_wrap=True)
