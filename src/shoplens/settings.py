"""Every setting, read once from the environment (`SHOPLENS_*`) and `shoplens.toml`, then frozen.

The environment wins over the file. Nested values use two underscores: `SHOPLENS_CHANNELS__LOOK__KEEP=nothing`.
"""

from __future__ import annotations

import os
from contextvars import ContextVar
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit

import orjson
import platformdirs
from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from shoplens.advice import file_advice, meant
from shoplens.errors import FileUnusable, Misconfigured
from shoplens.notice_settings import AlertSettings, MailSettings
from shoplens.setting_groups import (
    DEFAULT_CHANNELS,
    AccountSettings,
    BatchSettings,
    ChannelBatchSettings,
    ChannelCatalogueSettings,
    ChannelModerationSettings,
    ChannelRetrainingSettings,
    ChannelSettings,
    LabelThresholds,
    MonitoringSettings,
    OpenIdSettings,
    PhotoUrlSettings,
    TextList,
)
from shoplens.setting_sources import (
    CONFIG_FILE_VARIABLE,
    ENVIRONMENT_PREFIX,
    ORIGINS_VARIABLE,
    OTHER_VARIABLES,
    Origins,
    origins_of,
    settings_file,
    variables,
)
from shoplens.telemetry.logs import LogFolder

LOCAL_DATA_DIR: Final = Path("shoplens-data")


def default_data_dir() -> Path:
    """`shoplens-data` in the current folder where it exists, else the folder of this user's data on this system."""
    return LOCAL_DATA_DIR if LOCAL_DATA_DIR.is_dir() else platformdirs.user_data_path("shoplens", appauthor=False)


_origins: ContextVar[Origins] = ContextVar("origins", default=Origins())  # noqa: B039  frozen
"""Where the values come from that are being read."""


class _DefaultChannels(InitSettingsSource):
    """The default channels. Where a channel has an empty table `labels`, its default thresholds do not apply.

    It is the last source, so it also notes what the others gave.
    """

    def __call__(self) -> dict[str, Any]:
        _origins.set(origins_of(self.settings_sources_data))
        given = self.current_state.get("channels")
        channels = {name: dict(default) for name, default in DEFAULT_CHANNELS.items()}
        for name, own in given.items() if isinstance(given, dict) else ():
            if name in channels and isinstance(own, dict) and own.get("labels") == {}:
                channels[name].pop("labels", None)
        return {"channels": channels}


class Settings(BaseSettings):
    """All settings of one process."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,  # addresses may hold passwords
    )

    data_dir: Path = Field(
        default_factory=default_data_dir,
        description="Where the database, the photos and the models live by default. Unset: `shoplens-data` in the "
        "current folder where it exists, else the folder of the user's data (on Linux `~/.local/share/shoplens`).",
    )
    database_url: str | None = Field(
        default=None, repr=False, description="SQLAlchemy URL of the database; unset means SQLite in `data_dir`."
    )
    database_pool: int = Field(
        default=8, ge=1, le=500, description="Connections to PostgreSQL that one process keeps open at most."
    )
    database_durability: Literal["process", "power"] = Field(
        default="process",
        description="What SQLite rows survive: `process` (the process is killed) or `power` (the machine too; slower).",
    )
    storage_url: str | None = Field(
        default=None,
        description="Where photos are kept (directory, `file://`, `memory://`, `s3://`); unset: `data_dir`.",
    )
    models_dir: Path | None = Field(default=None, description="Where bundles are installed; unset: `data_dir/models`.")
    models_url: str | None = Field(
        default=None,
        description="A store (`s3://bucket/prefix`, a directory) of bundles for all machines; fetched where missing.",
    )
    mlflow_url: str | None = Field(
        default=None,
        description="An MLflow 3 server (`https://mlflow.example.org`) that is the registry of models in place of "
        "`models_url`; needs the extra `mlflow`.",
    )
    models_poll_s: float = Field(
        default=5.0, ge=0.1, le=3600, description="Seconds between two looks at the registry for a new champion."
    )
    kept_versions: int = Field(
        default=5, ge=2, le=1000, description="Installed versions of a model that stay when a new one goes live."
    )
    pinned_versions: int = Field(
        default=2,
        ge=0,
        le=100,
        description="Versions that requests with `model=name@version` may load beside the live ones.",
    )
    trusted_keys: TextList = Field(
        default=(),
        description="Public keys whose signatures of models are trusted, as `shoplens models keygen` prints.",
    )
    require_signed_models: bool = Field(
        default=False,
        description="Load and install only models that are signed by a trusted key; built-in ones only as built here.",
    )
    channels: dict[str, ChannelSettings] = Field(
        description="The channels by name. `look`, `returns`, `reviews` and `catalogue` are there by default; "
        "yours are merged in."
    )
    default_channel: str = Field(default="look", description="The channel of a request that names none.")
    console_channel: str = Field(
        default="returns",
        description="The channel that the page Classify begins with; where there is none of this name, "
        "`default_channel`. Each browser then remembers the one that was used last.",
    )
    accounts: AccountSettings = Field(
        default_factory=AccountSettings, description="How long sessions, tokens and one-time links of people last."
    )
    oidc: OpenIdSettings | None = Field(
        default=None, description="An OpenID Connect provider with which people sign in; unset: passwords only."
    )
    monitoring: MonitoringSettings = Field(
        default_factory=MonitoringSettings, description="What is written down about the server, and for how long."
    )
    alerts: AlertSettings = Field(
        default_factory=AlertSettings, description="When people are told that something is wrong."
    )
    mail: MailSettings | None = Field(
        default=None, description="The mail server that takes alerts and reports; unset: no mail is sent."
    )
    batch: BatchSettings = Field(default_factory=BatchSettings, description="How runs work, in all channels.")

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    public_url: str | None = Field(
        default=None,
        description="Where people reach this server (`https://photos.example.org`), for the links in reports.",
    )
    language: Literal["en", "de"] = Field(
        default="en",
        description="Language of the pages for a browser that asks for none of ours, and of reports.",
    )
    allow_public: bool = Field(
        default=False,
        description="Listen on an address other than loopback without any account: everyone may do everything.",
    )
    allowed_hosts: TextList = Field(
        default=("127.0.0.1", "localhost", "[::1]"),
        description="Names in the Host header that are answered; `*` answers all. Guards against DNS rebinding.",
    )

    photo_urls: PhotoUrlSettings = Field(
        default_factory=PhotoUrlSettings, description="Photos that a request names by their address; off by default."
    )
    max_image_bytes: int = Field(default=20_000_000, gt=0, description="Largest photo in bytes.")
    max_image_pixels: int = Field(default=50_000_000, gt=0, description="Largest photo in pixels, width x height.")
    max_whole_image_pixels: int = Field(
        default=25_000_000,
        gt=0,
        description="Largest photo in pixels that must be decoded whole: all formats but JPEGs of a single scan.",
    )
    sandbox_cpu_s: float = Field(
        default=0.9,
        gt=0,
        description="Most CPU time that the sandboxed decoder may take for a photo; more in proportion for a HEIC or "
        "AVIF above 8 megapixels.",
    )
    sandbox_memory_mb: int = Field(
        default=140, gt=0, description="Most memory that it may take for a photo; more for one above 12 megapixels."
    )

    provider: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where models run; `auto` takes a GPU where ONNX Runtime offers one."
    )
    threads: int | None = Field(
        default=None, gt=0, description="Threads that decode and classify; unset: the cores this process may use."
    )
    max_batch: int = Field(default=32, gt=0, description="Most photos in one batch on a GPU; on a CPU it is always 1.")
    max_wait_ms: float = Field(default=2.0, ge=0, description="How long a GPU batch waits to fill, in milliseconds.")
    queue_limit: int = Field(
        default=128,
        gt=0,
        description="Photos that may wait; beyond that, the client address with most of them gets 429.",
    )
    redis_url: str | None = Field(
        default=None,
        description="Redis or Valkey (`redis://`, `rediss://`) that leads to model workers; unset: models run here.",
    )
    redis_prefix: str = Field(
        default="shoplens", min_length=1, description="What the names of all keys in Redis begin with."
    )
    worker_host: str = Field(default="127.0.0.1", description="Address of a worker's health and metrics.")
    worker_port: int | None = Field(
        default=None, ge=0, le=65535, description="Port of a worker's health and metrics; unset: none."
    )
    max_queued_bytes: int = Field(
        default=256_000_000, gt=0, description="Bytes of request bodies held at once; one more is refused with 429."
    )
    media_max_age_s: int = Field(
        default=60,
        ge=0,
        le=86_400,
        description="Seconds for which browsers and CDNs may keep a published photo; a refusal reaches them after it.",
    )
    preview_minutes: int = Field(
        default=60,
        ge=0,
        le=10_080,
        description="Minutes after the upload in which the shopper sees a held photo by a signed address; 0: never.",
    )
    deadline_s: float = Field(default=10.0, gt=0, description="Longest time for one answer in seconds, then 504.")
    upload_idle_s: float = Field(
        default=10.0, gt=0, description="Seconds without a byte after which the upload of a body is ended."
    )
    upload_least_rate: float = Field(
        default=16_000, gt=0, description="Least rate of an upload in bytes per second, once `upload_idle_s` are over."
    )
    uploads_per_minute: int | None = Field(
        default=None, gt=0, description="Uploads that one client address may begin per minute; unset: any number."
    )
    max_connections: int = Field(
        default=512, gt=1, description="Connections held at once; one address gets at most half of them."
    )
    trusted_proxies: TextList = Field(
        default=(),
        description="Addresses or networks (`10.0.0.0/8`) of proxies whose `X-Forwarded-For` and `-Proto` count.",
    )
    metrics_open_to: TextList = Field(
        default=(),
        description="Addresses or networks that may read `/metrics` without an account; others need `metrics:read`.",
    )
    webhook_networks: TextList = Field(
        default=(),
        description="Private networks (`10.0.0.0/8`) that webhooks may be sent to, also over http; unset: public only.",
    )
    shutdown_s: float = Field(default=10.0, gt=0, description="How long a stopping server finishes what it accepted.")

    log_format: Literal["auto", "console", "json"] = Field(
        default="auto", description="Log lines for people or for programs; `auto`: console on a terminal."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level logged.")
    log_dir: Path | None = Field(
        default=None, description="Where `app.log` and `trigger.log` are written; unset: `data_dir/logs`."
    )
    log_file_megabytes: int = Field(default=10, gt=0, description="Size in megabytes at which a log file is rotated.")
    log_files: int = Field(default=10, gt=0, le=100, description="Rotated files kept of each log.")
    tracing: bool = Field(
        default=False,
        description="Make traces with OpenTelemetry (extra `otel`); the variables `OTEL_…` say where they are sent.",
    )

    @field_validator("mlflow_url")
    @classmethod
    def _empty_is_no_server(cls, url: str | None) -> str | None:
        """Compose passes an empty value where its own variable is not set."""
        return url or None

    @field_validator("public_url")
    @classmethod
    def _public_url_is_one(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(
                "write the address with http:// or https:// and a host, such as https://photos.example.org"
            )
        if "@" in parts.netloc:
            raise ValueError("leave out the user and the password: the address stands in reports")
        return url.rstrip("/")

    @field_validator("trusted_proxies", "metrics_open_to", "webhook_networks")
    @classmethod
    def _proxies_are_addresses(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in proxies:
            try:
                ip_network(proxy, strict=False)
            except ValueError:
                raise ValueError(f"{proxy!r} is not an address or network such as 127.0.0.1 or 10.0.0.0/8") from None
        return proxies

    @model_validator(mode="after")
    def _largest_photo_fits(self) -> Self:
        if self.max_queued_bytes < self.max_image_bytes:
            raise ValueError("max_queued_bytes is less than max_image_bytes, so the largest photo could never be sent")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments over environment over file; no .env and no secrets directory."""
        del dotenv_settings, file_secret_settings
        toml_settings = TomlConfigSettingsSource(settings_cls, toml_file=settings_file())
        return init_settings, env_settings, toml_settings, _DefaultChannels(settings_cls, init_kwargs={})

    _origins: Origins = PrivateAttr(default_factory=_origins.get)  # type: ignore[arg-type]

    @property
    def origins(self) -> Origins:
        """What gave the values."""
        return self._origins

    def make_data_dir(self) -> None:
        """Create the data directory, which only this user may enter. Raises FileUnusable."""
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise FileUnusable(
                f"data_dir: {self.data_dir.absolute()} cannot be created: {file_advice(error)}."
            ) from error

    def make_models_dir(self) -> Path:
        """`effective_models_dir`, for bundles to be installed in. Raises Misconfigured."""
        if self.models_dir is None:
            self.make_data_dir()
        return self.effective_models_dir

    @property
    def effective_database_url(self) -> str:
        """The database URL, with the embedded default filled in."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'shoplens.db').absolute()}"

    @property
    def effective_storage_url(self) -> str:
        """The storage URL, with the embedded default filled in."""
        return self.storage_url or (self.data_dir / "blobs").absolute().as_uri()

    @property
    def effective_models_dir(self) -> Path:
        """The models directory, with the default filled in."""
        return (self.models_dir or self.data_dir / "models").absolute()

    @property
    def batch_channels(self) -> dict[str, ChannelBatchSettings]:
        """The channels that have a batch side, by name."""
        return {name: each.batch for name, each in self.channels.items() if each.batch is not None}

    def batch_channel(self, name: str | None) -> str:
        """`name`, or the only channel with a batch side. Raises Misconfigured."""
        known = sorted(self.batch_channels)
        if name is None and len(known) == 1:
            return known[0]
        if name in known:
            return name
        there = f"Channels with a batch side: {', '.join(known) or 'none'}."
        if name is None:
            raise Misconfigured(f"Name a channel. {there}")
        raise Misconfigured(f"The channel {name!r} has no batch side; set channels.{name}.batch. {there}")

    def batch_source(self, channel: str) -> str:
        """Where the photos of a channel with a batch side arrive, with the default filled in."""
        return self.batch_channels[channel].source or str((self.data_dir / "drop" / channel).absolute())

    @property
    def effective_log_dir(self) -> Path:
        """The folder of the log files, with the default filled in."""
        return (self.log_dir or self.data_dir / "logs").absolute()

    @property
    def log_folder(self) -> LogFolder:
        """The folder of `app.log` and `trigger.log`, with its rotation."""
        path = self.effective_log_dir
        return LogFolder(path=path, file_bytes=self.log_file_megabytes * 1_000_000, kept=self.log_files)

    @property
    def binds_loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def environment(self) -> dict[str, str]:
        """Variables with which another process in this directory reads these same settings, and no file.

        They may contain passwords, as the settings do. Remove every other `SHOPLENS_` variable of that process.
        """
        values = self.model_dump(mode="json")
        texts = {
            f"{ENVIRONMENT_PREFIX}{name.upper()}": value if isinstance(value, str) else orjson.dumps(value).decode()
            for name, value in values.items()
            if value is not None  # None is the default of every such field, and a variable cannot express it
        }
        return {**texts, CONFIG_FILE_VARIABLE: os.devnull, ORIGINS_VARIABLE: self._origins.as_json()}


def read_settings(**overrides: object) -> Settings:
    """Read the settings of this process; `overrides` win over all. Raises Misconfigured with one line per fault."""
    file = os.environ.get(CONFIG_FILE_VARIABLE)
    if file is not None and (not Path(file).exists() or Path(file).is_dir()):
        raise Misconfigured(f"{CONFIG_FILE_VARIABLE} is {file}, and there is no such file.")
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        faults = "; ".join(_fault(each["type"], each["loc"], each["msg"]) for each in error.errors())
        raise Misconfigured(f"The settings are not usable: {faults}.") from error
    except SettingsError as error:  # a variable that stands for a table
        raise Misconfigured(
            f"The settings are not usable: {error}. A variable for a whole table is JSON; "
            f"two underscores lead to one value of it, as in {ENVIRONMENT_PREFIX}CHANNELS__LOOK__KEEP."
        ) from error
    except ValueError as error:  # a broken TOML file
        raise Misconfigured(f"The settings file cannot be read: {error}.") from error


def _fault(kind: str, place: tuple[int | str, ...], message: str) -> str:
    name = ".".join(map(str, place)) or "together"
    if kind != "extra_forbidden":
        return f"{name}: {message.removeprefix('Value error, ')}"
    models = (
        *(Settings, ChannelSettings, ChannelBatchSettings, ChannelModerationSettings, ChannelCatalogueSettings),
        *(
            AccountSettings,
            OpenIdSettings,
            BatchSettings,
            MonitoringSettings,
            AlertSettings,
            MailSettings,
            LabelThresholds,
            ChannelRetrainingSettings,
        ),
    )
    known = {field for each in models for field in each.model_fields}
    return f"{name}: there is no such setting{meant(str(place[-1]), known)}"


def unknown_variables() -> list[str]:
    """A sentence for each variable `SHOPLENS_…` of this process that is not a setting.

    They are not refused: Kubernetes sets such names by itself for a service that is called shoplens.
    """
    known = {f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in Settings.model_fields} | {CONFIG_FILE_VARIABLE}
    others = tuple(ENVIRONMENT_PREFIX + name for name in OTHER_VARIABLES)
    return [
        f"{name} is not a setting{meant(name, known)}"
        for name in variables()
        if name.upper().partition("__")[0] not in known and not name.startswith(others)
    ]
