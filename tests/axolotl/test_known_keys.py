"""Options of a command line that Axolotl would ignore are refused."""

from __future__ import annotations

import pytest
from axolotl.cli.main import cli, train
from click.testing import CliRunner
from sftkey.axolotl.known_keys import unknown_keys
from sftkey.util.errors import UserError

RECIPE = {"plugins": ["sftkey.SFTKeyPlugin"], "sftkey_method": "key-tag"}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["--num-epoch", "1"], "--num-epochs"),
        (["--num_epochs=1"], "--num-epochs"),
        (["--learning-rat=1e-5"], "--learning-rate"),
    ],
)
def test_an_option_that_is_none_is_named(tmp_path, typed, meant):
    recipe = tmp_path / "r.yml"
    recipe.write_text("")
    message = f"{typed[0].partition('=')[0]}: axolotl train has no .*mean {meant}\\?"
    started = train.make_context("train", [str(recipe), "--launcher", "python", *typed])
    with started, pytest.raises(UserError, match=message):
        unknown_keys(RECIPE)
    for fine in (["--launcher", "python", "--num-epochs", "1"], ["--launcher", "torchrun", "--nproc-per-node=2"]):
        with train.make_context("train", [str(recipe), *fine]):
            assert unknown_keys(RECIPE) == []


def test_axolotls_schema_has_no_place_for_a_plugins_keys():
    """As recipes/README.md says; once it has, they belong there."""
    result = CliRunner().invoke(cli, ["config-schema", "--field", "sftkey_method"])
    assert "Unknown field: 'sftkey_method'" in result.output
