"""Run configs and overrides, damaged in any place."""

import math
import re

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.conftest import TINY
from tests.damaged.damage import cases, damaged_bytes, damaged_value, odd_values, to_yaml
from tidy_stlms.configs.load import read_config

CONFIG = yaml.safe_load(TINY)
CONFIG["training"] |= {"lr_scheduler_type": "linear", "warmup_steps": 0.1, "weight_decay": 0.1, "seed": 3}
CONFIG["injection"] |= {"strategy": "uniform", "placement": "splice", "window": 0.5}
CONFIG["data"]["context_window"] = 32
CONFIG["logging"] = {"level": "error", "tags": ["a"], "group": "oc.env"}
CONFIG["dropout"] = {"schedule": "linear", "start": 0.1, "end": 0.0}
KEYS = [f"{section}.{key}" for section, values in CONFIG.items() for key in values]


# What only corpus, tokenizer, Hub or checkpoint show.
SHOWN_LATER = re.compile(
    r"error: (injection\.exposures: .* do not fit|injection\.fraction|data: the \w+ part has|\S+: has \d+ doc"
    r"|statement .* tokens|model: its vocabulary has|tokenizer|.* cannot be (read|loaded).* the Hub"
    r"|.*couldn't connect)"
)


@pytest.fixture
def train(new_case, cache):
    def run(content, *argv):
        case = new_case()
        (case.folder / "run.yaml").write_bytes(content(case) if callable(content) else content)
        fixed = [f"training.output_dir={case.out}", f"data.cache_dir={cache}"]
        return case, case.run("train", case.folder / "run.yaml", *argv, *fixed)

    return run


@cases(40, 1500)
@given(value=damaged_value(CONFIG))
def test_any_value(train, value):
    train(lambda case: to_yaml(value, case.canary), "--dry-run")


@cases(15, 500)
@given(content=damaged_bytes(TINY.encode()))
def test_any_bytes(train, content):
    train(content, "--dry-run")


@cases(15, 500)
@given(key=st.one_of(st.sampled_from(KEYS), st.text(max_size=20)), value=st.one_of(odd_values, st.text()))
def test_any_override(train, key, value):
    override = f"{key}={value}"
    assume(not override.startswith("-") and "\0" not in override)
    train(TINY.encode(), "--dry-run", override)


@cases(3, 250)
@given(value=damaged_value(CONFIG))
def test_what_a_dry_run_accepts_can_be_trained(train, cache, value):
    """One step. Only what corpus, tokenizer or Hub show may be refused, such as texts that do not fit."""
    short = ["training.max_steps=1", "evaluation.recall_steps=0", "training.push_to_hub=false"]
    case, dry = train(lambda case: to_yaml(value, case.canary), "--dry-run", *short)
    if dry.code != 0:
        return
    fixed = [f"training.output_dir={case.out}", f"data.cache_dir={cache}"]
    outcome = case.run("train", case.folder / "run.yaml", *short, *fixed)
    assert outcome.code != 2 or SHOWN_LATER.search(outcome.message), outcome.message
    if outcome.code == 0:
        saved = read_config(case.out / "config.yaml")
        assert not any(isinstance(v, float) and not math.isfinite(v) for v in saved["training"].values())
