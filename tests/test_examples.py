"""The examples' overlays for Fireworks, laid over their configs; nothing is asked of any service."""

import re
import runpy
from pathlib import Path

import pytest
import yaml
from helpers.rows import rows_of

from distillkit import Registry, RunConfig
from distillkit.config.load import load_config
from distillkit.config.sections import PricesConfig
from distillkit.data.row_pipeline import RowPipeline
from distillkit.preflight.compatibility import plugins_of

TOP = Path(__file__).parent.parent
EXAMPLES = TOP / "examples"
BASE_MODELS = {"routed_mopd": "qwen3p5-35b-a3b", "gsm8k_privileged": "qwen3p5-9b"}


@pytest.mark.parametrize("name", BASE_MODELS)
def test_an_overlay_moves_the_whole_run_to_fireworks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(TOP)
    base, _ = load_config([EXAMPLES / name / "config.yaml"])
    config, registry = load_config([EXAMPLES / name / "config.yaml", EXAMPLES / name / "fireworks.yaml"])
    assert not config.unreproducible(registry)
    model = f"accounts/fireworks/models/{BASE_MODELS[name]}"
    student = config.student.model_dump()
    assert config.student.name == "fireworks"
    assert (student["model"], student["lora_rank"]) == (model, 8)
    assert student["trainer"]["training_shape_id"] == f"accounts/fireworks/trainingShapes/{BASE_MODELS[name]}-256k-lora"
    assert len(config.teachers) == len(base.teachers)
    for mine, theirs in zip(config.teachers, base.teachers, strict=True):
        assert (mine.model, mine.scorer.name) == (model, "fireworks")
        assert mine.tokenizer_model == student["tokenizer_model"]
        assert (mine.route_value, mine.teacher_messages_key) == (theirs.route_value, theirs.teacher_messages_key)
    assert (config.data, config.router, config.evaluators) == (base.data, base.router, base.evaluators)
    assert config.name != base.name
    assert set(plugins_of(config, Registry.discover()).scorers) == {
        str(teacher.route_value) for teacher in base.teachers
    }
    pipeline = RowPipeline.of(config)
    rows_of(Path(config.data.path)).validate(pipeline.count)
    assert sum(pipeline.rows_of.values()) == len(rows_of(Path(config.data.path)))


def test_the_smoke_script_writes_its_rows_and_takes_its_models_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = runpy.run_path(str(EXAMPLES / "routed_mopd" / "train_two_teacher_lora.py"))
    monkeypatch.setenv("BASE_MODEL", "accounts/me/models/mine")
    options = script["parse"](["--log-path", str(tmp_path / "logs"), "--math-teacher", "accounts/me/models/big"])
    config = script["config_of"](options)
    assert config.base_model == "accounts/me/models/mine"
    assert [(teacher.route_value, teacher.model) for teacher in config.multi_teacher.teachers] == [
        ("math-teacher", "accounts/me/models/big"),
        ("arithmetic-teacher", "accounts/me/models/mine"),
    ]
    rows = list(rows_of(Path(config.dataset)).rows())
    assert Path(config.dataset) == tmp_path / "logs" / "dataset.jsonl"
    assert [row.fields["teacher"] for row in rows] == ["math-teacher", "arithmetic-teacher"] * 2
    assert ["teacher_messages" in row.fields for row in rows] == [True, False] * 2


def test_the_configs_of_the_fireworks_page_are_valid() -> None:
    text = (TOP / "docs" / "fireworks.md").read_text(encoding="utf-8")
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    single, routed = (RunConfig(**block) for block in blocks if "student" in block)
    assert (single.router.name, routed.router.name) == ("single", "field")
    assert {teacher.scorer.name for config in (single, routed) for teacher in config.teachers} == {"fireworks"}
    (prices,) = (block["prices"] for block in blocks if "prices" in block)
    assert set(prices) == set(PricesConfig.model_fields)
