"""The repaired copy of `validate-data --fix`: every line that can be trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from convo_cli.config.schema import DataConfig, RunConfig, TrainOn
from convo_cli.data.decompress import packed
from convo_cli.data.repair.copies import repair_files
from convo_cli.data.repair.dialogues import Judge
from convo_cli.data.repair.repairs import RepairReport
from convo_cli.errors import DataError
from convo_cli.events import Emit
from convo_cli.storage.access import derived_mode, masked
from convo_cli.storage.atomic import writing
from convo_cli.storage.snapshot import Snapshot


def fix_files(
    paths: Sequence[str],
    out: Path,
    data_config: DataConfig,
    *,
    train_on: TrainOn,
    max_problems: int,
    emit: Emit,
    run_config: RunConfig | None = None,
) -> RepairReport:
    """Write the repaired lines of all files that ``run_config`` accepts into one file.

    It is written whole, and no more readable than the inputs; or not at all, if no line is left
    (DataError) or a file changed meanwhile (ChangedError).
    """
    before = [Snapshot.of(Path(path)) for path in paths]

    def repair(write: Callable[[bytes], object], judge: Judge | None) -> RepairReport:
        return repair_files(
            paths,
            write,
            data_config,
            train_on=train_on,
            max_problems=max_problems,
            emit=emit,
            judge=judge,
        )

    judge: Judge | None = None
    if run_config is not None:
        # This imports torch, which a fix without a config does not need.
        from convo_cli.prepare.screen import judge_of

        judge = judge_of(run_config, lambda write, judge: repair(write, judge).num_written)
    allowed = derived_mode([*paths, out], out)  # including out, in case it is replaced
    with masked(allowed), writing(out) as file, packed(file, out.suffix.lower()) as write:
        repaired = repair(write, judge)
        if not repaired.num_written:
            raise DataError(
                f"{', '.join(paths)}: no line can be trained on, so {out} was not written",
                hint="`convo validate-data` without --fix lists every problem",
            )
        for read in before:
            read.require_unchanged()
    return repaired
