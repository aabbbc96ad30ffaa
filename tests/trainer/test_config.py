import pytest

from trainer.common.settings import ConfigError
from trainer.config import load_config


def test_a_file_and_overrides_go_over_the_defaults(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('epochs = 5\ncache = "somewhere"\n[augment]\nflip = 0.25\n')
    config = load_config(path, ["epochs=7", "branch.dropout=0.1", "data=a b.npz", "branch.stages=[[32, 2]]"])
    assert (config.epochs, config.cache, config.data) == (7, "somewhere", "a b.npz")
    assert (config.augment.flip, config.augment.rotation) == (0.25, 12.0)
    assert (config.branch.dropout, config.branch.stages) == (0.1, ((32, 2),))


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("epoch=3", "epoch"),
        ("augment.flips=1", "flips"),
        ("epochs=many", "epochs"),
        ("epochs=0", "epochs must be at least 1"),
        ("label_smoothing=1.5", "label_smoothing"),
        ("branch.stages=[[4, 1]]", "stages"),
        ("epochs", "expected key=value"),
    ],
)
def test_a_mistyped_setting_is_refused_by_name(override, named):
    with pytest.raises(ConfigError, match=named):
        load_config(None, [override])


def test_a_config_file_that_is_no_toml_is_named(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text("epochs = = 3")
    with pytest.raises(ConfigError, match=r"bad\.toml"):
        load_config(path, [])
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        load_config(tmp_path / "absent.toml", [])
