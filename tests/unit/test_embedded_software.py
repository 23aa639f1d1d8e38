"""The cloud's own environment: pinned, keyed by what it is made of, whole or absent, and fetched where pip would."""

from __future__ import annotations

import re
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from stacklab import indexes
from stacklab.errors import DownloadFailed, NotEnoughSpace, StageFailed
from stacklab.homes.embedded import software, template

Usage = namedtuple("Usage", "total used free")


def quiet(detail: str) -> None:
    pass


def test_every_requirement_is_pinned_and_hashed() -> None:
    text = software.REQUIREMENTS.read_text()
    requirements = re.findall(r"^(\S+?)==(\S+)(.*?)(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    assert len(requirements) > 200
    assert all("--hash=sha256:" in rest for _, _, rest in requirements)


def test_the_requirements_name_no_index_and_no_path() -> None:
    text = software.REQUIREMENTS.read_text()
    assert "index-url" not in text
    assert "find-links" not in text
    assert "file:" not in text


def test_the_key_changes_with_the_requirements(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = software.key(), template.key()
    other = tmp_path / "other.txt"
    other.write_text(software.REQUIREMENTS.read_text() + "\n# one more\n")
    monkeypatch.setattr(software, "REQUIREMENTS", other)
    after = software.key(), template.key()
    assert before[0] != after[0]
    assert before[1] != after[1], "a template belongs to the software that made it"


def test_too_little_space_is_said_before_anything_is_fetched(
    own_directories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**10, 10**10, 10**6))
    with pytest.raises(NotEnoughSpace, match="software needs"):
        software.install(quiet)
    assert not software.installed()
    assert [path.name for path in software.environments().iterdir()] == [f"{software.key()}.lock"]


def test_a_failed_installation_leaves_nothing_that_looks_installed(
    own_directories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(draft: Path, progress: object) -> None:
        (draft / "bin").mkdir(parents=True)
        (draft / "bin" / "python").touch()
        raise DownloadFailed("the network went away")

    monkeypatch.setattr(software, "_build", half)
    monkeypatch.setattr(software, "check_space", lambda directory: None)
    with pytest.raises(DownloadFailed):
        software.install(quiet)
    assert not software.installed()
    assert not [path for path in software.environments().iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("said", "kind"),
    [("error: No space left on device (os error 28)", NotEnoughSpace), ("error: something else", StageFailed)],
)
def test_a_failed_command_is_told_by_what_it_said(said: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        software.run([sys.executable, "-c", f"print({said!r}); raise SystemExit(2)"], {}, quiet)


def test_uv_is_told_what_pip_was_told(tmp_path: Path) -> None:
    told = indexes.for_uv(
        {
            "HOME": str(tmp_path),
            "PIP_INDEX_URL": "https://packages.example/simple",
            "PIP_EXTRA_INDEX_URL": "https://a.example https://b.example",
            "PIP_FIND_LINKS": "/one /two",
            "PIP_TRUSTED_HOST": "packages.example",
        }
    )
    assert told["UV_DEFAULT_INDEX"] == "https://packages.example/simple"
    assert told["UV_INDEX"] == "https://a.example https://b.example"
    assert told["UV_FIND_LINKS"] == "/one,/two"
    assert told["UV_INSECURE_HOST"] == "packages.example"


def test_what_uv_was_told_itself_comes_first(tmp_path: Path) -> None:
    told = indexes.for_uv({"HOME": str(tmp_path), "PIP_INDEX_URL": "https://a", "UV_DEFAULT_INDEX": "https://b"})
    assert told["UV_DEFAULT_INDEX"] == "https://b"


def test_pips_configuration_file_counts_and_its_variables_win(tmp_path: Path) -> None:
    file = tmp_path / "pip.conf"
    file.write_text("[global]\nindex-url = https://from-file.example/simple\nfind-links = /wheels\n")
    told = indexes.for_uv({"HOME": str(tmp_path), "PIP_CONFIG_FILE": str(file)})
    assert told["UV_DEFAULT_INDEX"] == "https://from-file.example/simple"
    assert told["UV_FIND_LINKS"] == "/wheels"
    told = indexes.for_uv({"HOME": str(tmp_path), "PIP_CONFIG_FILE": str(file), "PIP_INDEX_URL": "https://other"})
    assert told["UV_DEFAULT_INDEX"] == "https://other"


def test_a_script_that_uv_broke_runs_again(tmp_path: Path) -> None:
    script = tmp_path / "tool"
    script.write_text(
        "#!/bin/sh\n'''exec' python \"$0\" \"$@\"\n' '''\nfrom __future__ import print_function\nprint(1)\n"
    )
    software.mend_script(script)
    compile(script.read_text(), "tool", "exec")
