"""A recipe whose data can't be had is refused before anything is downloaded: asked of a server that keeps a record."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, constants
from sftkey.recipes.hub import check_hub_data
from sftkey.util.errors import UserError
from support.axolotl_recipes import write_recipe
from support.commands import environment

COLUMNS = "sftkey.datasets.columns"

ANSWERS: dict[str, tuple[int, dict[str, str], dict[str, Any]]] = {
    "/api/datasets/me/rows": (200, {}, {"id": "me/rows", "sha": "0" * 40}),
    "/api/datasets/me/gated": (200, {}, {"id": "me/gated", "sha": "0" * 40, "gated": "manual"}),
    "/api/datasets/me/gated/auth-check": (403, {"X-Error-Code": "GatedRepo"}, {}),
    "/api/datasets/me/open/auth-check": (200, {}, {}),
    "/api/datasets/me/open": (200, {}, {"id": "me/open", "sha": "0" * 40, "gated": "auto"}),
    "/api/datasets/me/private": (401, {"X-Error-Code": "RepoNotFound"}, {}),
    "/api/datasets/me/rows/revision/v2": (404, {"X-Error-Code": "RevisionNotFound"}, {}),
    "/api/datasets/me/broken": (500, {}, {}),
}


class Hub:
    """A stand-in for the Hub on this machine.

    Attributes:
        address: Where it is.
        asked: The paths that were asked for.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.asked.append(self.path)
                status, headers, content = ANSWERS.get(self.path, (404, {"X-Error-Code": "RepoNotFound"}, {}))
                body = json.dumps(content).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Type": "application/json"}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_HEAD = do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A running stand-in."""
    hub = Hub()
    threading.Thread(target=hub.server.serve_forever, daemon=True).start()
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


def check(hub: Hub, *entries: dict[str, Any], **more: Any) -> None:
    check_hub_data({"datasets": list(entries), **more}, HfApi(endpoint=hub.address, token=False))


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests of this project are off the network; this one asks the stand-in."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.mark.usefixtures("online")
@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"path": "me/nothing"}, r"datasets\[0\]: there is no me/nothing, neither .* nor as a data set on the Hub"),
        ({"path": "me/private"}, r"there is no me/private, .*if it is private, `hf auth login`"),
        ({"path": "me/gated"}, "me/gated is open only to those whom its owner lets in"),
        ({"path": "me/rows", "revision": "v2"}, "me/rows on the Hub has no revision 'v2'"),
        ({"path": "data/of/mine"}, "there is no data/of/mine, .*can't be the name of a data set on the Hub"),
    ],
)
def test_what_cannot_be_had(hub: Hub, entry: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(hub, entry)


@pytest.mark.usefixtures("online")
def test_what_can_be_had_or_is_not_known(hub: Hub, tmp_path: Path) -> None:
    check(hub, {"path": "me/rows"}, {"path": "me/rows"}, {"path": "me/open"}, {"path": "me/broken"})
    assert hub.asked.count("/api/datasets/me/rows") == 1
    hub.asked.clear()
    check(hub, {"path": str(tmp_path)}, {"path": "https://host/rows.jsonl"}, {"path": "s3://bucket/rows"})
    assert hub.asked == []
    with pytest.raises(UserError, match=r"test_datasets\[0\]: there is no me/nothing"):
        check(hub, {"path": "me/rows"}, test_datasets=[{"path": "me/nothing"}])


def test_without_a_connection_nothing_is_said(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    check(hub, {"path": "me/nothing"})
    assert hub.asked == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    check_hub_data({"datasets": [{"path": "me/nothing"}]}, HfApi(endpoint="http://127.0.0.1:9", token=False))


READ = """
import sys
from axolotl.cli.config import load_cfg
from axolotl.integrations.base import PluginManager
for path in sys.argv[1:]:
    PluginManager.get_instance().plugins.clear()
    try:
        load_cfg(path)
    except Exception as error:
        print(f"{path}: {type(error).__name__}: {error}")
    else:
        print(f"{path}: accepted")
"""


def test_axolotl_downloads_nothing_for_somebody_elses_recipe(hub: Hub, tmp_path: Path) -> None:
    """What `axolotl train` reads first, with the Hub as the only place where anything could come from."""
    good = {
        "base_model": "me/model",
        "output_dir": "out",
        "plugins": ["sftkey.SFTKeyPlugin"],
        "sftkey_method": "sft-tag",
        "datasets": [{"path": "me/rows", "type": COLUMNS}],
    }
    recipes = {
        "newer.yml": {**good, "sftkey_requires": ">=99", "sftkey_new_key": 1},
        "method.yml": {**good, "sftkey_method": "sft-tag-2"},
        "module.yml": {**good, "datasets": [{"path": "me/rows", "type": "sftkey.datasets.new_one"}]},
        "file.yml": {**good, "datasets": [{"path": "rows.jsonl", "type": COLUMNS}]},
        "hub.yml": {**good, "datasets": [{"path": "me/nothing", "type": COLUMNS}]},
    }
    for name, recipe in recipes.items():
        write_recipe(tmp_path / name, recipe)
    result = subprocess.run(
        [sys.executable, "-c", READ, *recipes],
        cwd=tmp_path,
        env=environment(HF_ENDPOINT=hub.address, HF_HUB_OFFLINE="0", HF_HOME=str(tmp_path / "hf")),
        capture_output=True,
        text=True,
        check=True,
    )
    said = [line for line in result.stdout.splitlines() if line.partition(": ")[0] in recipes]
    for line, (name, message) in zip(
        said,
        {
            "newer.yml": "this recipe needs sftkey >=99, and ",
            "method.yml": "sftkey_method: 'sft-tag-2' is not one of",
            "module.yml": "there is no such module",
            "file.yml": "there is no rows.jsonl",
            "hub.yml": "there is no me/nothing, neither",
        }.items(),
        strict=True,
    ):
        assert line.startswith(f"{name}: UserError: ")
        assert message in line
    # Libraries ask for things of their own as they start; of the recipes, only whether the last one's data is there.
    assert [path for path in hub.asked if "/me/" in path] == ["/api/datasets/me/nothing"]
    assert not list((tmp_path / "hf").rglob("*me--*"))
