from __future__ import annotations

import pytest

from convo_cli.data.shapes.known_keys import TRAIN_KEYS, may_say_training, misspelt, says_training


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        *[
            ("mesages", "messages"),
            ("Promt", "prompt"),
            ("id", None),
            ("x" * 30, None),
            ("prompt", None),
            ("turn", None),
        ],
        *[
            ("Weight", "weight"),
            ("wieght", "weight"),
            ("height", None),
            ("trait", None),
            ("story", None),
        ],
    ],
)
def test_a_misspelt_key_is_recognised_by_its_similarity(key: str, meant: str | None) -> None:
    assert misspelt(key) == meant


NAMES = """
    mask masked masks loss_mask lossMask lossmask loss-mask LOSS_MASK target_mask assistant_masks
    mask_history mask_prompt completion_mask training
    train_detail training_detail train_on train_on_turn trainOnTurn trained
    is_train is_trained istrained do_train no_train not_trained trainable is_trainable untrained
    supervise supervised learn learnable loss_weight sample_weight turn_weight weights train_weight
    loss_scale output_with_loss has_loss compute_loss no_loss calculate_loss ignore_loss
    answer_only_loss_mask Train TRAIN Weight Loss trian tran wieght losss weigth mask1 unmask
    should_train use_loss enable_loss mask_out loss_multiplier ｗｅｉｇｈｔ
"""


@pytest.mark.parametrize("key", [*NAMES.split(), "loss mask", "train\u200b"])
def test_a_name_that_says_what_is_trained_on_is_known(key: str) -> None:
    assert says_training(key)


@pytest.mark.parametrize(
    "key",
    [
        *TRAIN_KEYS,
        *(
            "id",
            "label",
            "labels",
            "target",
            "source",
            "split",
            "lang",
            "turn",
            "role",
            "name",
            "tools",
            "history",
        ),
        *(
            "train_split",
            "training_set",
            "training_data_source",
            "attention_mask",
            "weight_kg",
            "body_weight",
            "height",
        ),
        *(
            "trait",
            "terrain",
            "brain",
            "masked_text",
            "glossary",
            "class",
            "score",
            "learner",
            "weather",
            "trainer",
        ),
        *(
            "lesson_id",
            "flossing",
            "",
            "体重",
            "体重weight",
            "m" * 5_000,
            "in_turn",
            "used_in_training",
            "last_message",
            "has_label",
        ),
    ],
)
def test_metadata_says_nothing_about_training(key: str) -> None:
    assert not says_training(key)


@pytest.mark.parametrize(
    ("key", "is_flag"),
    [
        *dict.fromkeys(
            ["used_in_training", "usedForTraining", "ignore", "is_target", "no_grad", "SKIP"], True
        ).items(),
        *dict.fromkeys(
            ["redacted", "toxic", "is_user", "brain", "x" * 5_000, "체중"], False
        ).items(),
    ],
)
def test_some_names_say_what_is_trained_on_if_they_are_true_or_false(
    key: str, is_flag: bool
) -> None:
    assert may_say_training(key) == is_flag
