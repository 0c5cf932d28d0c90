"""Names of convo's keys in other trainers, for the error about an unknown key."""

from __future__ import annotations

_OTHER_NAMES = {
    "name": "run_name experiment experiment_name",
    "output_dir": "output_path project save_dir run_dir out_dir",
    "seed": "random_seed",
    "data.train": "train_file train_files train_data train_path train_data_path dataset "
    "dataset_path",
    "data.validation": "valid valid_file val val_file eval_file validation_file valid_data "
    "validation_data_path dev",
    "data.test": "test_file test_files test_data test_path test_data_path",
    "tokenizer.kind": "tokenizer_type",
    "model.pretrained": "pretrained_model pretrained_model_or_path model_name_or_path model_name "
    "base_model model_path",
    "model.scratch.layers": "n_layer n_layers num_layers num_hidden_layers",
    "model.scratch.width": "n_embd hidden_size d_model dim embed_dim",
    "model.scratch.heads": "n_head n_heads num_heads num_attention_heads",
    "model.scratch.context": "n_positions n_ctx context_length max_position_embeddings",
    "model.lora.rank": "lora_r lora_rank",
    "model.lora.alpha": "lora_alpha",
    "model.lora.dropout": "lora_dropout",
    "model.lora.target_modules": "lora_target lora_target_modules",
    "dialogue.template": "chat_template prompt_template",
    "dialogue.user_turns_until": "train_user_turn_mask_step",
    "dialogue.max_length": "max_len max_seq_length max_seq_len seq_len seq_length block_size "
    "cutoff_len",
    "training.max_steps": "steps num_steps total_steps train_steps max_iters",
    "training.epochs": "num_epochs num_train_epochs max_epochs",
    "training.batch_size": "train_batch_size global_batch_size",
    "training.micro_batch_size": (
        "per_device_train_batch_size gradient_accumulation_steps accumulation_steps grad_accum "
        "auto_find_batch_size auto_scale_batch_size device_train_microbatch_size "
        "train_micro_batch_size_per_gpu microbatch_size device_batch_size mbs"
    ),
    "training.learning_rate": "lr lr0 max_lr",
    "training.schedule": "scheduler scheduler_type lr_scheduler lr_scheduler_type",
    "training.schedule_steps": "num_training_steps lr_decay_iters lr_decay_steps decay_steps",
    "training.warmup_steps": "warmup warmup_ratio num_warmup_steps warmup_iters",
    "training.min_lr_ratio": "lrf min_lr",
    "training.weight_decay": "wd",
    "training.betas": "beta1 beta2 adam_beta1 adam_beta2",
    "training.epsilon": "eps adam_epsilon",
    "training.max_grad_norm": "grad_clip clip_grad clip_grad_norm gradient_clip_val",
    "training.precision": "fp16 bf16 amp use_amp dtype torch_dtype mixed_precision",
    "training.device": "gpu gpus use_cuda",
    "training.compile": "torch_compile",
    "evaluation.every_steps": "eval_steps eval_every eval_interval eval_freq",
    "evaluation.show_samples": "prediction_print_n",
    "evaluation.metric": "metrics metric_for_best_model",
    "evaluation.early_stopping.patience": "early_stopping_patience",
    "checkpoints.every_steps": "save_steps save_every save_interval",
    "checkpoints.keep": "save_total_limit keep_last",
    "checkpoints.keep_best": "save_top_k keep_top_k",
    "generation.max_new_tokens": "max_tokens",
    "logging.every_steps": "log_steps logging_steps log_every log_interval",
}

SYNONYMS = {other: key for key, others in _OTHER_NAMES.items() for other in others.split()}
"""The dotted key of convo for each name that other trainers use."""
