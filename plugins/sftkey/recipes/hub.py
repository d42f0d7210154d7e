"""Checks, before a model is downloaded, that the Hub has the data sets of a recipe and lets this account read them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sftkey.datasets.entry_files import local_files
from sftkey.recipes.load import Recipe, data_entries
from sftkey.util.errors import UserError
from sftkey.util.sources import UnreadableFile, read_json

_SECONDS = 10.0


def check_hub_data(cfg: Recipe, api: Any = None) -> None:
    """Ask the Hub for each data set of a recipe that isn't a local path or an address.

    Nothing is said where the Hub can't be reached: the data may be in the cache, and if not, loading it fails.

    Args:
        cfg: The recipe, checked.
        api: A `huggingface_hub.HfApi`; by default that of the user's settings.

    Raises:
        UserError: There is no such data set or revision, or this account may not read it.
    """
    seen: dict[tuple[str, str | None], str] = {}
    for place, entry in data_entries(cfg):
        path = str(entry.get("path"))
        if not Path(path).exists() and "://" not in path and not local_files(entry):
            seen.setdefault((path, entry.get("revision")), place)
    if seen and api is None:
        from huggingface_hub import HfApi

        api = HfApi()
    for (path, revision), place in seen.items():
        _check(place, path, revision, {"token": cfg.get("hf_use_auth_token")}, api)


def _check(place: str, path: str, revision: str | None, access: Mapping[str, Any], api: Any) -> None:
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        info = api.repo_info(path, repo_type="dataset", revision=revision, timeout=_SECONDS, **access)
        if getattr(info, "gated", None):
            api.auth_check(path, repo_type="dataset", **access)
    except HFValidationError as error:
        raise UserError(
            f"{place}: there is no {path}, relative to the working directory, and it can't be the name of a data set on "
            "the Hub either (owner/name)"
        ) from error
    except GatedRepoError as error:
        raise UserError(
            f"{place}: {path} is open only to those whom its owner lets in: ask for access on its page on the Hub, then "
            "`hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"{place}: there is no {path}, neither relative to the working directory nor as a data set on the Hub that "
            "this account may read. Check the name; if it is private, `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(f"{place}: the data set {path} on the Hub has no revision {revision!r}") from error
    except Exception:  # No connection, a proxy's answer, a server error: nothing is known then.
        return


def config_of(model: str) -> tuple[str, dict[str, Any]]:
    """The folder with a model's ``config.json``, and what it says; of a name on the Hub, where that can be reached.

    Args:
        model: A folder, or a name on the Hub.

    Returns:
        The model itself and nothing where there is no such file.
    """
    folder = Path(model)
    if not folder.is_dir():
        from huggingface_hub import hf_hub_download

        try:
            folder = Path(hf_hub_download(model, "config.json", etag_timeout=_SECONDS)).parent
        except Exception:  # no connection, no such model, no access: loading it will say so
            return model, {}
    try:
        return str(folder), read_json(folder / "config.json")
    except UnreadableFile:
        return str(folder), {}
