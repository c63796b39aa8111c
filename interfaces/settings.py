"""Settings, from the environment and `.env`; command-line flags win over both."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from msgspec import Meta, MsgspecError, convert
from platformdirs import user_data_path
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from application.jobs import QueueName

DATA = "JOBLEDGER_DATA"
MOST_QUEUES = 99
"""A claim names 100 at the most, and a worker with the database serves that of bulk jobs as well."""
FOREIGN = ("AWS_", "AZURE_", "GOOGLE_", "OTEL_")
"""What the settings of clouds and of OpenTelemetry begin with; their own libraries read them from the environment."""


class Settings(BaseSettings):
    """All settings of all commands; the names of the variables are fixed by the contract."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", populate_by_name=True, frozen=True)

    database_url: SecretStr | None = Field(None, alias="DATABASE_URL")
    migration_database_url: SecretStr | None = Field(None, alias="MIGRATION_DATABASE_URL")
    read_url: SecretStr | None = Field(None, alias="JOBLEDGER_READ_URL")
    listen_url: SecretStr | None = Field(None, alias="JOBLEDGER_LISTEN_URL")
    prepare: Literal["on", "off"] = Field("on", alias="JOBLEDGER_PREPARE")
    data: Path = Field(default_factory=lambda: user_data_path("jobledger"), alias="JOBLEDGER_DATA")
    host: str = Field("127.0.0.1", alias="JOBLEDGER_HOST")
    port: int = Field(8000, ge=0, le=65535, alias="JOBLEDGER_PORT")
    artifacts: str | None = Field(None, alias="JOBLEDGER_ARTIFACTS")
    archives: str | None = Field(None, alias="JOBLEDGER_ARCHIVES")
    seal_key: SecretStr | None = Field(None, alias="JOBLEDGER_SEAL_KEY")
    anchor: str | None = Field(None, alias="JOBLEDGER_ANCHOR")
    handlers: str = Field("", alias="JOBLEDGER_HANDLERS")
    queues: str = Field("default", alias="JOBLEDGER_QUEUES")
    workers: int = Field(1, ge=1, le=64, alias="JOBLEDGER_WORKERS")
    log: Literal["console", "json"] = Field("console", alias="JOBLEDGER_LOG")
    url: str = Field("http://127.0.0.1:8000", alias="JOBLEDGER_URL")
    key: SecretStr | None = Field(None, alias="JOBLEDGER_KEY")
    proxies: str = Field("", alias="JOBLEDGER_PROXIES")
    origins: str = Field("", alias="JOBLEDGER_ORIGINS")
    older_pollers: Literal["on", "off"] = Field("on", alias="JOBLEDGER_OLDER_POLLERS")
    openai_api_key: SecretStr | None = Field(None, alias="OPENAI_API_KEY")
    openai_base_url: str | None = Field(None, alias="OPENAI_BASE_URL")
    openai_model: str = Field("gpt-5-mini", alias="OPENAI_MODEL")
    elai_api_key: SecretStr | None = Field(None, alias="ELAI_API_KEY")
    elai_base_url: str | None = Field(None, alias="ELAI_BASE_URL")

    @field_validator("queues")
    @classmethod
    def _are_queues(cls, given: str) -> str:
        try:
            convert(_listed(given), Annotated[list[QueueName], Meta(min_length=1, max_length=MOST_QUEUES)])
        except MsgspecError as error:
            wanted = f"1 to {MOST_QUEUES} names of up to 200 characters, separated by commas; none is . or .."
            raise ValueError(f"{given[:100]!r} names no queues: {wanted}") from error
        return given

    @field_validator("url")
    @classmethod
    def _is_url(cls, given: str) -> str:
        """Without the slash at its end: paths follow it."""
        try:
            parts = urlsplit(given)
            good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # no port, say
            good = False
        if not good or not given.isprintable() or " " in given:
            raise ValueError(f"{given[:100]!r} is no address of a service, such as http://127.0.0.1:8000")
        return given.rstrip("/")

    @field_validator("key")
    @classmethod
    def _is_key(cls, given: SecretStr | None) -> SecretStr | None:
        secret = given.get_secret_value() if given is not None else ""
        if not (secret.isascii() and secret.isprintable()) or " " in secret:
            raise ValueError("it is no key: one is a word without spaces, as `jobledger keys create` printed it")
        return given

    @property
    def queue_names(self) -> list[str]:
        """The queues that a worker takes jobs from, each once."""
        return list(dict.fromkeys(_listed(self.queues)))

    @property
    def artifacts_place(self) -> str:
        """The folder or bucket for artifacts; `artifacts` in the data folder if none is set."""
        return self.artifacts or str(self.data / "artifacts")

    @property
    def archives_place(self) -> str:
        """The folder or bucket for months that left the log; `archives` in the data folder if none is set."""
        return self.archives or str(self.data / "archives")

    @property
    def handler_modules(self) -> list[str]:
        return _listed(self.handlers)

    @property
    def allowed_origins(self) -> list[str]:
        """Pages elsewhere that may call the service, such as https://shop.example.org."""
        return _listed(self.origins)


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def load(flags: dict[str, Any] | None = None) -> Settings:
    """The settings in force: flags, then the environment, then `.env` here, then `.env` in the data folder.

    `flags` are by variable name; those that are None were not given. What `.env` says to other libraries joins the
    environment, where they look for it. Raises pydantic.ValidationError.
    """
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    data = given.get(DATA) or os.environ.get(DATA) or user_data_path("jobledger")
    read = files(Path(data))
    settings = Settings(_env_file=read, **given)  # type: ignore[call-arg]
    for name, value in ((name, value) for file in reversed(read) for name, value in dotenv_values(file).items()):
        if name.startswith(FOREIGN) and value:
            os.environ.setdefault(name, value)
    return settings.model_copy(update={"data": settings.data.expanduser().absolute()})


def files(data: Path) -> tuple[Path, Path]:
    """Where `.env` is looked for; the later one wins."""
    return data / ".env", Path(".env")


def origin(variable: str, data: Path) -> str:
    """Where a variable that is set, and by no flag, is set."""
    if os.environ.get(variable):
        return "in the environment"
    return next((f"in {file}" for file in reversed(files(data)) if dotenv_values(file).get(variable)), "by a flag")
