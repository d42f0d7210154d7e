"""What this package can be installed from again, by its own metadata."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from sftkey.util import origin
from sftkey.util.version import __version__

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40
URL = "https://example.org/lab/sftkey.git"
VCS = {"url": URL, "vcs_info": {"vcs": "git", "commit_id": COMMIT}}
URLS = ("Project-URL: Changelog, https://example.org/log", "Project-URL: Source Code, https://example.org/home.git")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put metadata of an installation before that of this environment's."""

    def install(direct_url: object, *lines: str) -> None:
        folder = tmp_path / f"sftkey-{__version__}.dist-info"
        folder.mkdir()
        head = ("Metadata-Version: 2.4", "Name: sftkey", f"Version: {__version__}")
        (folder / "METADATA").write_text("\n".join((*head, *lines, "")))
        if direct_url is not None:
            text = direct_url if isinstance(direct_url, str) else json.dumps(direct_url)
            (folder / "direct_url.json").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)

    return install


def test_a_clone_names_its_repository_and_commit(installed) -> None:
    installed(VCS, *URLS)
    assert origin.requirement() == f"sftkey @ git+{URL}@{COMMIT}"
    assert origin.install_command("eval") == f'pip install "sftkey[eval] @ git+{URL}@{COMMIT}"'
    assert origin.this_version() == f"sftkey {__version__} (git+{URL}@{COMMIT})"
    assert origin.requirement(at=OTHER) == f"sftkey @ git+{URL}@{OTHER}"
    assert origin.requirement(version="9.9") == f"sftkey @ git+{URL}@v9.9"
    assert origin.requirement(version="9.9", at="; rm -rf /") == f"sftkey @ git+{URL}@v9.9"
    assert (
        origin.upgrade_command(">=9")
        == f'run pip install --upgrade "sftkey @ git+{URL}", or name a tag there after an @'
    )
    for text in (origin.requirement(), origin.install_command("all").split('"')[1]):
        assert Requirement(str(text)).name == "sftkey"


def test_a_checkout_is_named_here_and_nowhere_else(installed, tmp_path: Path) -> None:
    place = tmp_path / "my checkout"
    installed({"url": place.as_uri(), "dir_info": {"editable": True}})
    assert origin.install_command("axolotl") == f'pip install -e "{place}[axolotl]"'
    assert origin.requirement() is None
    assert origin.commit() is None
    assert origin.this_version() == f"sftkey {__version__}"


def test_a_folder_with_urls_of_the_project_is_its_tag(installed, tmp_path: Path) -> None:
    installed({"url": tmp_path.as_uri(), "dir_info": {}}, *URLS)
    assert origin.requirement() == f"sftkey @ git+https://example.org/home.git@v{__version__}"
    assert origin.install_command("eval") == f'pip install "{tmp_path}[eval]"'


@pytest.mark.parametrize(
    "direct_url",
    [
        None,
        "",
        "{",
        "[]",
        "null",
        {"url": 3, "vcs_info": "git"},
        {"url": "https://user:secret@example.org/x", "vcs_info": {"vcs": "git", "commit_id": COMMIT}},
        {"url": "https://example.org/x y", "vcs_info": {"vcs": "git", "commit_id": COMMIT}},
        {"url": "file:///tmp/clone", "vcs_info": {"vcs": "git", "commit_id": COMMIT}},
        {"url": URL, "vcs_info": {"vcs": "evil --x", "commit_id": COMMIT}},
    ],
)
def test_without_either_it_is_said(installed, direct_url: object) -> None:
    installed(direct_url)
    assert origin.requirement() is None
    assert origin.UNKNOWN in origin.install_command("eval")
    assert origin.install_command("eval").startswith('pip install ".[eval]"')
    assert origin.UNKNOWN in origin.upgrade_command(">=9")


@given(at=st.text(max_size=50), version=st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){0,3}", fullmatch=True))
def test_whatever_a_marker_says_is_one_requirement_of_this_repository(at: str, version: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(origin, "repository", lambda: f"git+{URL}")
        text = origin.requirement(version=version, at=at)
    assert text is not None
    assert text.startswith(f"sftkey @ git+{URL}@")
    assert "\n" not in text
    assert Requirement(text).url == text.removeprefix("sftkey @ ")
