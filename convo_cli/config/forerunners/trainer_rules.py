"""Lightning's settings without a counterpart: why each is not needed, or what exists instead."""

from __future__ import annotations

from convo_cli.config.forerunners.documented import ENCODED_ONCE, WHOLE_SHUFFLE
from convo_cli.config.forerunners.old_config import Rule

_ONE_DEVICE = "it matters only with several devices"
_NO_SEVERAL = "training on several devices at once is not supported yet"
_LIVE_VIEW = "the live view is on a terminal, plain lines elsewhere; --quiet turns both off"
_MODEL_SIZE = "`convo train --dry-run` shows the size of the model"
WHOLE = "all of the data is used"
_NO_PART = "there is no such limit; give a smaller file"
FULL = (None, 1.0)

TRAINER_RULES = {
    "checkpoint_callback": Rule("checkpoints are always saved", (None, True), "convo always saves"),
    "enable_checkpointing": Rule(
        "checkpoints are always saved", (None, True), "convo always keeps the newest checkpoint"
    ),
    "process_position": Rule(_LIVE_VIEW),
    "progress_bar_refresh_rate": Rule(_LIVE_VIEW),
    "enable_progress_bar": Rule(_LIVE_VIEW),
    "weights_summary": Rule(_MODEL_SIZE),
    "enable_model_summary": Rule(_MODEL_SIZE),
    "max_depth": Rule(_MODEL_SIZE),
    "log_gpu_memory": Rule("the statistics of the device are always logged"),
    "flush_logs_every_n_steps": Rule("metrics.jsonl has every step at once"),
    "track_grad_norm": Rule("the norm of the gradient is always logged"),
    "terminate_on_nan": Rule("a loss or gradient that is not finite always stops the run"),
    "detect_anomaly": Rule("a loss or gradient that is not finite always stops the run"),
    "num_sanity_val_steps": Rule("the data is checked before the first step"),
    "reload_dataloaders_every_n_epochs": Rule(ENCODED_ONCE),
    "reload_dataloaders_every_epoch": Rule(ENCODED_ONCE),
    "prepare_data_per_node": Rule(ENCODED_ONCE),
    "multiple_trainloader_mode": Rule("several training files are one data set"),
    "move_metrics_to_cpu": Rule("scores are not kept on the GPU"),
    "amp_level": Rule("it belongs to apex"),
    "amp_backend": Rule("it is what training.precision: fp16 uses", (None, "native"), "no apex"),
    "replace_sampler_ddp": Rule(_ONE_DEVICE),
    "use_distributed_sampler": Rule(_ONE_DEVICE),
    "sync_batchnorm": Rule(_ONE_DEVICE),
    "auto_select_gpus": Rule("training.device names the GPU"),
    "num_nodes": Rule(_ONE_DEVICE, (None, 1), _NO_SEVERAL),
    "num_processes": Rule(_ONE_DEVICE, (None, 1), _NO_SEVERAL),
    "strategy": Rule(_ONE_DEVICE, (None, "auto", "ddp", "ddp_spawn", "dp"), _NO_SEVERAL),
    "distributed_backend": Rule(_ONE_DEVICE, (None, "ddp", "ddp_spawn", "dp"), _NO_SEVERAL),
    "plugins": Rule("it is not set", (None, []), "convo has no plugins"),
    "tpu_cores": Rule("it is not set", (None,), "convo trains on a CPU, a CUDA GPU or Apple's MPS"),
    "ipus": Rule("it is not set", (None,), "convo trains on a CPU, a CUDA GPU or Apple's MPS"),
    "hpus": Rule("it is not set", (None,), "convo trains on a CPU, a CUDA GPU or Apple's MPS"),
    "inference_mode": Rule("evaluations never compute gradients"),
    "gradient_clip_algorithm": Rule(
        "the norm is what training.max_grad_norm limits", (None, "norm"), "only the norm is limited"
    ),
    "overfit_batches": Rule(WHOLE, (None, 0, 0.0), _NO_PART),
    "limit_train_batches": Rule(WHOLE, FULL, _NO_PART),
    "limit_test_batches": Rule(WHOLE, FULL, _NO_PART),
    "limit_predict_batches": Rule("there is nothing to predict in training"),
    "check_val_every_n_epoch": Rule(
        "each epoch is evaluated", (None, 1), "set evaluation.every_steps to a number of steps"
    ),
    "fast_dev_run": Rule(
        "it is off", (None, False, 0), "convo train --dry-run checks everything without a step"
    ),
    "min_epochs": Rule(
        "only early stopping ends a run before its last step",
        (None, 0, 1),
        "set evaluation.early_stopping.patience",
    ),
    "min_steps": Rule(
        "only early stopping ends a run before its last step",
        (None, 0),
        "set evaluation.early_stopping.patience",
    ),
    "max_time": Rule(
        "it is not set",
        (None,),
        "`touch RUN_DIR/stop` or SIGTERM stops a run, and `convo resume` continues",
    ),
    "truncated_bptt_steps": Rule("it is not set", (None,), "a GPT-2 reads the whole dialogue"),
    "resume_from_checkpoint": Rule(
        "it is not set",
        (None,),
        "convo resume continues a run of convo; a Lightning checkpoint is a pickle, which convo "
        "never reads",
    ),
    "weights_save_path": Rule("it is not set", (None,), "checkpoints are in RUN_DIR/checkpoints"),
    "profiler": Rule("it is not set", (None,), "metrics.jsonl has tokens per second"),
    "benchmark": Rule("it is off", (None, False), "training.compile makes a GPU faster"),
    "auto_lr_find": Rule("it is off", (None, False), "set training.learning_rate"),
    "auto_scale_batch_size": Rule(
        "it is off", (None, False), "training.micro_batch_size makes a step fit into memory"
    ),
    "stochastic_weight_avg": Rule("it is off", (None, False), "no averaging of weights"),
    "barebones": Rule("it is off", (None, False), "nothing of a run can be switched off at once"),
}
TOP_RULES = {
    "optimizer": Rule("it is not set", (None,), "the optimizer is AdamW; see training.betas"),
    "lr_scheduler": Rule("it is not set", (None,), "see training.schedule"),
    "ckpt_path": Rule(
        "it is not set", (None,), "convo resume continues a run; a Lightning checkpoint is a pickle"
    ),
    "data": Rule(
        "it is not set", (None,), "data.train, data.validation and data.test name the files"
    ),
}
MODEL_RULES = {
    "prefetch_factor": Rule(ENCODED_ONCE),
    "num_workers": Rule(ENCODED_ONCE),
    "shuffle_buffer_size": Rule(WHOLE_SHUFFLE),
}
