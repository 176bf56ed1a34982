"""The page about moving from the cookbook says what the code does."""

import re
from pathlib import Path

import pytest

from builtin.fireworks.recipe.recipe_configs import NAMES
from distillkit.config.load import load_config
from distillkit.recipes import distillation_loop as recipe
from distillkit_builtin.fireworks.recipe.config_mapping import COPIED
from distillkit_builtin.fireworks.recipe.translate import translate

QWEN, SHAPES = "accounts/fireworks/models/qwen", "accounts/fireworks/trainingShapes/"


TOKENIZER = "Qwen/Qwen3.5-35B-A3B"


PAGE = (Path(__file__).parents[4] / "docs" / "moving-from-the-cookbook.md").read_text(encoding="utf-8")


MARKED = re.compile(r"<!-- test: (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)


def test_the_page_about_moving_names_every_field_and_its_key() -> None:
    rows = [row.split("|")[1:3] for row in PAGE.splitlines() if row.startswith("| `")]
    for name in NAMES:
        shown = name.replace("multi_teacher.teachers[].", "TeacherConfig.")
        if shown in ("trainer", "deployment", "concurrency", "wandb"):  # their fields have rows
            continue
        mine = [key for field, key in rows if f"`{shown}`" in field]
        assert mine, f"docs/moving-from-the-cookbook.md has no row for {shown}"
        if name in COPIED:
            assert f"`{COPIED[name]}`" in mine[0]


@pytest.mark.parametrize("name", ["single", "routed", "topk"])
def test_the_pages_configs_are_what_the_recipes_examples_become(name: str, tmp_path: Path) -> None:
    teachers = [
        recipe.TeacherConfig(QWEN + "3p5-35b-a3b", f"{kind}-teacher", tokenizer_model=TOKENIZER)
        for kind in ("math", "arithmetic")
    ]
    examples = {
        "single": recipe.Config(
            "distillation",
            dataset="/path/to/prompts.jsonl",
            teacher_model=QWEN + "3-32b",
            trainer=recipe.TrainerConfig(training_shape_id=SHAPES + "qwen3-8b-128k-h200"),
            deployment=recipe.DeployConfig(tokenizer_model="Qwen/Qwen3-8B"),
        ),
        "routed": recipe.Config(
            "mopd",
            QWEN + "3p5-35b-a3b",
            dataset="/path/to/routed_prompts.jsonl",
            multi_teacher=recipe.MultiTeacherConfig(teachers),
            trainer=recipe.TrainerConfig(training_shape_id=SHAPES + "qwen3p5-35b-a3b-256k-lora"),
            deployment=recipe.DeployConfig(tokenizer_model=TOKENIZER),
            lora_rank=8,
            prompt_groups_per_step=2,
        ),
        "topk": recipe.Config(
            "sdft",
            dataset="/path/to/prompts.jsonl",
            distill_mode=recipe.DistillMode.TOPK_FORWARD_KL,
            multi_teacher=recipe.MultiTeacherConfig(
                [
                    recipe.TeacherConfig(QWEN + "3-32b", "large", blend_weight=3.0),
                    recipe.TeacherConfig(QWEN + "3-8b", "itself"),
                ]
            ),
            trainer=recipe.TrainerConfig(training_shape_id=SHAPES + "qwen3-8b-128k-h200"),
            deployment=recipe.DeployConfig(tokenizer_model="Qwen/Qwen3-8B"),
            lora_rank=8,
        ),
    }
    file = tmp_path / f"{name}.yaml"
    file.write_text(dict(MARKED.findall(PAGE))[file.name], encoding="utf-8")
    written, translated = load_config([file])[0].dump(), translate(examples[name]).config.dump()
    for key in ("log_path", "sinks"):
        del written[key], translated[key]
    assert written == translated
