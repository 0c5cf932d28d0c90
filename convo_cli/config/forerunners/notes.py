"""Notes that answer keys of more than one form of config."""

from __future__ import annotations

ALWAYS_STOPS = "a loss or gradient that is not finite always stops the run"
DEVICE_IS_LOGGED = "the statistics of the device are always logged"
ENCODED_ONCE = "dialogues are encoded once, before the first step"
LIVE_VIEW = "a terminal has the live view, a log plain lines; --quiet turns both off"
MODEL_SIZE = "`convo train --dry-run` shows the size of the model"
NO_AVERAGE = "convo does not average weights; see checkpoints.keep_best"
NOT_SET = "it is not set"
ONE_DEVICE = "it matters only with several devices"
STOP = "`touch RUN_DIR/stop` or SIGTERM stops a run, and `convo resume` continues it"
SUPPORTED_DEVICES = "convo trains on a CPU, a CUDA GPU or Apple's MPS"
WHOLE_SHUFFLE = "the whole data set is shuffled in every epoch"
