"""Lightning's settings without a counterpart: why each is not needed, or what exists instead."""

from __future__ import annotations

from convo_cli.config.forerunners.notes import (
    ALWAYS_STOPS,
    DEVICE_IS_LOGGED,
    ENCODED_ONCE,
    LIVE_VIEW,
    MODEL_SIZE,
    NO_AVERAGE,
    NOT_SET,
    ONE_DEVICE,
    STOP,
    SUPPORTED_DEVICES,
    WHOLE_SHUFFLE,
    Rule,
)

_NO_NODES = "for several machines, use torchrun; training.batch_size counts the examples of all"
_NO_STRATEGY = "training.sharding: none is DDP, full is FSDP"
_DDP = ("auto", "ddp", "ddp_spawn", "dp", "ddp_find_unused_parameters_false")
_OFF = "it is off"
ALL_DATA = "all data is used"
_NO_PART = "there is no such limit; give a smaller file"
NO_LIMIT = (None, 1.0)
"""Values of Lightning's limits that mean all data."""

TRAINER_RULES = {
    "checkpoint_callback": Rule("checkpoints are always saved", (None, True), "convo always saves"),
    "enable_checkpointing": Rule(
        "checkpoints are always saved", (None, True), "convo always keeps the newest checkpoint"
    ),
    "process_position": Rule(LIVE_VIEW),
    "progress_bar_refresh_rate": Rule(LIVE_VIEW),
    "enable_progress_bar": Rule(LIVE_VIEW),
    "weights_summary": Rule(MODEL_SIZE),
    "enable_model_summary": Rule(MODEL_SIZE),
    "max_depth": Rule(MODEL_SIZE),
    "log_gpu_memory": Rule(DEVICE_IS_LOGGED),
    "flush_logs_every_n_steps": Rule("metrics.jsonl has every step at once"),
    "track_grad_norm": Rule("the norm of the gradient is always logged"),
    "terminate_on_nan": Rule(ALWAYS_STOPS),
    "detect_anomaly": Rule(ALWAYS_STOPS),
    "num_sanity_val_steps": Rule("the data is checked before the first step"),
    "reload_dataloaders_every_n_epochs": Rule(ENCODED_ONCE),
    "reload_dataloaders_every_epoch": Rule(ENCODED_ONCE),
    "prepare_data_per_node": Rule(ENCODED_ONCE),
    "multiple_trainloader_mode": Rule("several training files are one data set"),
    "move_metrics_to_cpu": Rule("scores are not kept on the GPU"),
    "amp_level": Rule("it belongs to apex"),
    "amp_backend": Rule("training.precision: fp16 uses it", (None, "native"), "no apex"),
    "replace_sampler_ddp": Rule(ONE_DEVICE),
    "use_distributed_sampler": Rule(ONE_DEVICE),
    "sync_batchnorm": Rule(ONE_DEVICE),
    "auto_select_gpus": Rule("training.device names the GPU"),
    "num_nodes": Rule("the run uses one machine", (None, 1), _NO_NODES),
    "strategy": Rule(_NO_STRATEGY, (None, *_DDP), _NO_STRATEGY),
    "distributed_backend": Rule(_NO_STRATEGY, (None, *_DDP), _NO_STRATEGY),
    "plugins": Rule(NOT_SET, (None, []), "convo has no plugins"),
    "tpu_cores": Rule(NOT_SET, (None,), SUPPORTED_DEVICES),
    "ipus": Rule(NOT_SET, (None,), SUPPORTED_DEVICES),
    "hpus": Rule(NOT_SET, (None,), SUPPORTED_DEVICES),
    "inference_mode": Rule("evaluations never compute gradients"),
    "gradient_clip_algorithm": Rule(
        "training.max_grad_norm limits the norm", (None, "norm"), "only the norm is limited"
    ),
    "overfit_batches": Rule(ALL_DATA, (None, 0, 0.0), _NO_PART),
    "limit_train_batches": Rule(ALL_DATA, NO_LIMIT, _NO_PART),
    "limit_test_batches": Rule(ALL_DATA, NO_LIMIT, _NO_PART),
    "limit_predict_batches": Rule("there is nothing to predict in training"),
    "check_val_every_n_epoch": Rule(
        "each epoch is evaluated", (None, 1), "set evaluation.every_steps to a number of steps"
    ),
    "fast_dev_run": Rule(
        _OFF, (None, False, 0), "convo train --dry-run checks everything without a step"
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
        NOT_SET,
        (None,),
        STOP,
    ),
    "truncated_bptt_steps": Rule(NOT_SET, (None,), "a GPT-2 reads the whole dialogue"),
    "resume_from_checkpoint": Rule(
        NOT_SET,
        (None,),
        "convo resume continues a run of convo; a Lightning checkpoint is a pickle, which convo "
        "never reads",
    ),
    "weights_save_path": Rule(NOT_SET, (None,), "checkpoints are in RUN_DIR/checkpoints"),
    "profiler": Rule(NOT_SET, (None,), "metrics.jsonl has tokens per second"),
    "benchmark": Rule(_OFF, (None, False), "training.compile makes steps on a GPU faster"),
    "auto_lr_find": Rule(_OFF, (None, False), "set training.learning_rate"),
    "stochastic_weight_avg": Rule(_OFF, (None, False), NO_AVERAGE),
    "model_registry": Rule(NOT_SET, (None,), "a run directory can be copied anywhere"),
    "enable_autolog_hparams": Rule("the config is in the run directory"),
    "barebones": Rule(_OFF, (None, False), "no single key turns off logs and checkpoints"),
}
TOP_RULES = {
    "optimizer": Rule(NOT_SET, (None,), "the optimizer is AdamW; see training.betas"),
    "lr_scheduler": Rule(NOT_SET, (None,), "see training.schedule"),
    "ckpt_path": Rule(
        NOT_SET, (None,), "convo resume continues a run; a Lightning checkpoint is a pickle"
    ),
    "weights_only": Rule("convo reads no pickle"),
    "data": Rule(NOT_SET, (None,), "data.train, data.validation and data.test name the files"),
}
MODEL_RULES = {
    "prefetch_factor": Rule(ENCODED_ONCE),
    "num_workers": Rule(ENCODED_ONCE),
    "shuffle_buffer_size": Rule(WHOLE_SHUFFLE),
}
