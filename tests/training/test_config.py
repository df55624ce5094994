import subprocess
import sys

import pytest

from regard.errors import ConfigError
from regard.training.config import TrainConfig


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lr": 0.0}, "lr=0.0 is out of range; allowed are more than 0"),
        ({"lr": float("nan")}, "must be a number"),
        ({"steps": 0}, "steps=0 is out of range; allowed are 1 to"),
        ({"steps": 1.5}, "must be a whole number"),
        ({"steps": True}, "must be a whole number"),
        ({"compile": 1}, "must be true or false"),
        ({"schedule": "cosin"}, "did you mean 'cosine'?"),
        ({"micro_tokens": 9000}, "micro_tokens=9000 is more than batch_tokens=4096"),
        ({"min_lr_ratio": 0.1}, "no effect with schedule='inverse-sqrt'"),
        ({"label_smoothing": 1.0}, "out of range"),
        ({"keep": 0}, "out of range"),
    ],
)
def test_a_value_that_cannot_be_is_named(changes, words):
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**changes)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_setting_names_its_neighbour():
    with pytest.raises(ConfigError, match="did you mean 'warmup'"):
        TrainConfig().replace(warmups=3)


def test_horizon_is_the_earlier_end():
    assert TrainConfig(steps=100, epochs=2).horizon(30) == 60
    assert TrainConfig(steps=50, epochs=2).horizon(30) == 50
    assert TrainConfig(minutes=1).horizon(30) is None
    with pytest.raises(ConfigError, match="nothing ends this run"):
        TrainConfig().horizon(30)
    assert TrainConfig(minutes=1, schedule="cosine").horizon(30) is None
    assert TrainConfig(minutes=1, epochs=2, schedule="cosine").horizon(30) == 60
    with pytest.raises(ConfigError, match="needs to know"):
        TrainConfig(patience=1, schedule="cosine").horizon(30)


def test_plain_values_and_back():
    config = TrainConfig(steps=7, schedule="wsd", min_lr_ratio=0.1)
    assert TrainConfig.from_dict(config.to_dict()) == config


def test_every_field_has_help():
    assert set(TrainConfig.field_help()) == set(TrainConfig().to_dict())
    assert all(text.endswith(".") for text in TrainConfig.field_help().values())


def test_settings_need_no_torch():
    code = "import sys, regard.training.config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
