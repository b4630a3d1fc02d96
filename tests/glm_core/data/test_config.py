import pytest

from glm_core.data.config import DataConfig, Split


def test_defaults_are_valid_when_nothing_is_given():
    config = DataConfig()
    assert config.source == "installed-text"
    assert config.split is Split.train


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mask": 0, "sentence": 0, "gmask": 0}, "all mode weights .*data.mask.* are 0.*raise at"),
        ({"mask": -1}, r"data\.mask=-1 must not be negative"),
        ({"mask_ratio": 1.5}, r"data\.mask_ratio=1\.5 must be between 0 and 1"),
        ({"mask_ratio": 0}, r"data\.mask_ratio=0 must be above 0"),
        ({"gmask_min_ratio": -0.1}, r"data\.gmask_min_ratio=-0\.1 must be between 0 and 1"),
        ({"short_seq_prob": 2}, r"data\.short_seq_prob=2 must be between"),
        ({"heldout_fraction": 2}, r"data\.heldout_fraction=2 must be between"),
        ({"poisson_lambda": 0}, r"data\.poisson_lambda=0 must be above 0"),
        ({"seq_length": 8}, r"data\.seq_length=8 gives 8 tokens .*at least 16"),
        ({"seq_length": 64, "pack": 8}, r"data\.seq_length=64 gives 8 tokens .*data\.pack=8"),
        ({"pack": 0}, r"data\.pack=0 must be at least 1"),
        ({"workers": -1}, r"data\.workers=-1 must not be negative"),
        ({"seed": -1}, r"data\.seed=-1 must not be negative"),
        ({"seed": 2**63}, r"data\.seed=\d+ must not be negative or above 2\^63 - 1"),
        ({"mask": float("inf")}, r"data\.mask=inf must not be negative or infinite"),
        ({"instruction_ratio": 0.1}, r"instruction_ratio=0\.1 needs data\.instruction_source"),
    ],
)
def test_error_names_setting_and_value_when_a_rule_is_broken(settings, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(**settings)


def test_config_is_composable_when_hydra_reads_it():
    from omegaconf import OmegaConf

    schema = OmegaConf.structured(DataConfig)
    merged = OmegaConf.merge(schema, {"split": "heldout", "mask": 1})
    config = OmegaConf.to_object(merged)
    assert isinstance(config, DataConfig)
    assert config.split is Split.heldout
