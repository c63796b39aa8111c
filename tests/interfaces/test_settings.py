"""Settings: flags win over the environment, which wins over `.env` here, which wins over `.env` in the data folder."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from interfaces.settings import load


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder and a data folder of the test's own, and none of the machine's settings."""
    (tmp_path / "here").mkdir()
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("JOBLEDGER_DATA", str(tmp_path / "data"))
    for name in ("OPENAI_API_KEY", "JOBLEDGER_PORT", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)


def test_each_place_wins_over_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load().port == 8000
    (tmp_path / "data" / ".env").write_text("JOBLEDGER_PORT=1\n")
    assert load().port == 1
    (tmp_path / "here" / ".env").write_text("JOBLEDGER_PORT=2\n")
    assert load().port == 2
    monkeypatch.setenv("JOBLEDGER_PORT", "3")
    assert load().port == 3
    assert load({"JOBLEDGER_PORT": "4"}).port == 4


def test_a_key_in_a_file_is_read_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "here" / ".env").write_text("OPENAI_API_KEY=sk-very-secret\n")
    settings = load()
    assert settings.openai_api_key is not None
    assert settings.openai_api_key.get_secret_value() == "sk-very-secret"
    assert "sk-very-secret" not in repr(settings)


def test_what_a_file_says_of_a_cloud_joins_the_environment_and_does_not_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID"):
        monkeypatch.setenv(name, "kept for after the test")
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_REGION", "here-1")
    (tmp_path / "data" / ".env").write_text("AWS_REGION=file-1\nAWS_ENDPOINT_URL=http://a\nAWS_ACCESS_KEY_ID=a\n")
    (tmp_path / "here" / ".env").write_text("AWS_ENDPOINT_URL=http://b\nPATH=/nowhere\n")
    path = os.environ["PATH"]
    load()
    told = [os.environ[name] for name in ("AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "PATH")]
    assert told == ["here-1", "http://b", "a", path]


def test_queues_are_named_once_each() -> None:
    assert load().queue_names == ["default"]
    assert load({"JOBLEDGER_QUEUES": "gpu, 日本, gpu,"}).queue_names == ["gpu", "日本"]


@pytest.mark.parametrize("queues", ["", ",", "..", "gpu,.", "q" * 201, ",".join(f"q{n}" for n in range(100))])
def test_queues_that_cannot_be_are_refused(queues: str) -> None:
    with pytest.raises(ValidationError, match="JOBLEDGER_QUEUES"):
        load({"JOBLEDGER_QUEUES": queues})


def test_an_empty_setting_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "")
    monkeypatch.setenv("DATABASE_URL", "")
    settings = load()
    assert settings.openai_api_key is None
    assert settings.database_url is None


def test_a_setting_that_is_no_port_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="JOBLEDGER_PORT"):
        load({"JOBLEDGER_PORT": "99999"})
