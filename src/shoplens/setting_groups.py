"""The groups of settings: what a channel, runs and accounts have in `shoplens.toml` as a table of their own."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import NoDecode

from shoplens.messages import marked


def _list_of_texts(value: object) -> object:
    """A text as the list that it stands for: JSON, or values with commas between. Raises ValueError."""
    if not isinstance(value, str):
        return value
    if '"' not in value and value.strip() != "[]":
        return [part.strip() for part in value.split(",") if part.strip()]
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise ValueError('write values with commas between them (a,b), or a JSON list (["a", "b"])') from error


TextList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_list_of_texts)]
"""A list of texts. A variable may have commas between the values, or be JSON."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LabelThresholds(_Frozen):
    """When one label sends a photo to a person, or refuses it."""

    review_at: float | None = Field(default=None, description="Score from which on a person decides.")
    reject_at: float | None = Field(default=None, description="Score from which on the photo is refused.")


class _WebPhotoSettings(_Frozen):
    """From which addresses a list of photos may have them fetched."""

    url_prefixes: TextList = Field(
        default=(),
        description="Addresses below which a list may name photos (`https://images.example.org/reviews/`); none: "
        "no addresses. Redirects are not followed.",
    )
    url_networks: TextList = Field(
        default=(),
        description="Networks (`10.0.0.0/8`) from which such photos are fetched too, also over plain http; without "
        "them only from public addresses over https.",
    )

    @field_validator("url_prefixes")
    @classmethod
    def _prefixes_end_with_a_slash(cls, prefixes: tuple[str, ...]) -> tuple[str, ...]:
        for prefix in prefixes:
            parts = urlsplit(prefix)
            if parts.scheme not in ("http", "https") or not parts.hostname or not parts.path.endswith("/"):
                raise ValueError(f"{prefix!r} must be an address that ends with a slash")
            if parts.query or parts.fragment or "@" in parts.netloc:
                raise ValueError(f"{prefix!r} must have no user, query or fragment")
        return prefixes

    @field_validator("url_networks")
    @classmethod
    def _are_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            try:
                ip_network(network, strict=False)
            except ValueError:
                raise ValueError(f"{network!r} is not a network such as 10.0.0.0/8") from None
        return networks


class PhotoUrlSettings(_WebPhotoSettings):
    """From which addresses a request to classify a photo may have it fetched."""

    url_prefixes: TextList = Field(
        default=(),
        description="Addresses below which `POST /predict` and the page Classify fetch a photo "
        "(`https://images.example.org/products/`); none: no addresses. Redirects are not followed.",
    )


NIGHTLY: Final = "0 2 * * *"
"""The time in the shipped files of cron, systemd, Jenkins, Airflow and Kubernetes."""


class ChannelBatchSettings(_WebPhotoSettings):
    """The batch side of a channel: where its photos arrive, and how they are imported and filed."""

    source: str | None = Field(
        default=None,
        description="Where new photos arrive: a directory or `s3://bucket/prefix`; unset: `data_dir/drop/<channel>`.",
    )
    quiet_s: float = Field(
        default=10.0, ge=0, description="Seconds for which a file must be unchanged before it is imported."
    )
    name_pattern: str = Field(
        default=r"^(?P<order>[^_]+)_(?P<item>[^_]+)",
        description="Regular expression for file names without their ending; groups `order`, `item` and `reason`.",
    )
    file_by_label: bool = Field(
        default=True,
        description="Move each photo to a folder for its label; off: photos stay where the import put them.",
    )
    keep_photos_days: int | None = Field(
        default=None,
        gt=0,
        description="Days after which the photos of a finished run are deleted, counted from an item's end or the last "
        "answer of a person; its numbers, labels and exports stay. What needs review or can be tried again stays. "
        "Unset: never.",
    )
    schedule: str | None = Field(
        default=None,
        description="When its runs are planned, as a cron expression in `batch.time_zone` (`0 2 * * *`); `returns` has "
        "that of the files in `deploy`. Pages and checks expect a run then; cron, systemd, Jenkins or Airflow starts "
        "it. Unset or empty: none is planned.",
    )

    @field_validator("schedule")
    @classmethod
    def _is_a_cron_expression(cls, schedule: str | None) -> str | None:
        if not schedule or not schedule.strip():
            return None
        if schedule == NIGHTLY:
            return schedule
        from croniter import CroniterError, croniter  # importing it takes a twentieth of a second

        try:
            if len(schedule.split()) != 5:
                raise ValueError("it needs five fields: minute, hour, day, month, weekday")
            croniter(schedule, datetime(2026, 1, 1, tzinfo=UTC)).get_next()
        except (CroniterError, ValueError) as error:
            raise ValueError(f"{schedule!r} is no cron expression such as 0 2 * * * ({error})") from error
        return schedule.strip()


class RefusalReason(_Frozen):
    """One of the reasons for which people refuse a photo."""

    code: str = Field(pattern=r"^[a-z0-9_]{1,40}$", description="Stable name, kept with each decision.")
    sentence: str = Field(min_length=1, max_length=300, description="What the shopper reads.")
    label: str | None = Field(default=None, description="What a model that learns from decisions should have said.")


class ChannelModerationSettings(_Frozen):
    """The moderation side of a channel: shoppers' photos that are hidden until they are decided."""

    general_model: str | None = Field(
        default="efficientnet-lite0-int8",
        description="A second model whose labels become signals (screenshot, document, …); unset: none.",
    )
    groups: dict[str, TextList] = Field(
        default_factory=dict,
        description="Signals of the general model by name: the labels whose scores they add up. Yours are merged in.",
    )
    reasons: tuple[RefusalReason, ...] = Field(
        default=(), description="Reasons for which people refuse a photo, in the order of the keys; none: the defaults."
    )
    second_opinion_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of decisions that another person repeats without seeing the first; needs two people. "
        "Applies until a policy is saved.",
    )
    hide_after_reports: int | None = Field(
        default=3,
        gt=0,
        description="So many reports by shoppers hide a published photo until a person decides; unset: never. "
        "Applies until a policy is saved.",
    )
    pause_after: int | None = Field(
        default=20,
        gt=0,
        description="After so many hard photos within an hour a pause is suggested, unless a moderator set another "
        "number; unset: never.",
    )
    hard_signal: str = Field(default="nsfw", description="The signal that says how hard a photo is to look at.")
    hard_at: float = Field(default=0.8, ge=0, le=1, description="From this score on a photo is hard to look at.")
    appeals_by_same_person: bool = Field(
        default=False, description="An admin may decide on an appeal against their own refusal: for a shop with one."
    )
    accepted_label: str | None = Field(
        default="safe", description="Label of photos that a person accepted, in label sets; unset: they are left out."
    )
    keep_refused_days: int | None = Field(
        default=30,
        gt=0,
        description="Days after which a refused photo is deleted; hash and statement stay; unset: never.",
    )
    keep_held_days: int | None = Field(
        default=None, gt=0, description="Days after which a photo that nobody decided on is deleted; unset: never."
    )
    keep_published_days: int | None = Field(
        default=None, gt=0, description="Days after which a published photo is deleted and shown no more; unset: never."
    )


class ChannelCatalogueSettings(_WebPhotoSettings):
    """The catalogue side of a channel: products that get a category of the shop's own tree."""

    answer_at: float = Field(
        default=0.7,
        gt=0,
        le=1,
        description="Least probability of the category that is answered: a leaf, or the deepest parent that has it.",
    )
    suggestions: int = Field(default=3, ge=1, le=20, description="Categories that are suggested for a product.")
    language: str = Field(default="en", description="Language of the category names that pages show.")
    photos: str | None = Field(
        default=None,
        description="Where the photos lie that products name by path or key: a directory or `s3://bucket/prefix`; "
        "unset: beside the imported file, and for requests nowhere.",
    )


class ChannelRetrainingSettings(_Frozen):
    """How the channel's model is trained again from what people said, and when a new one replaces it."""

    recipe: Literal["head", "transfer", "scratch", "fusion"] | None = Field(
        default=None, description="How it is trained; unset: `fusion` where there is a catalogue side, else `head`."
    )
    base: str | None = Field(
        default=None,
        description="More labelled photos: a folder per class, or a CSV (`path,label`); unset: people's labels alone.",
    )
    test: str | None = Field(
        default=None,
        description="Labelled photos that only test: a folder per class, or a CSV; unset: a share of people's labels.",
    )
    promote: Literal["at_once", "after_shadow", "after_approval"] = Field(
        default="after_approval", description="When a model that passed the gate becomes champion."
    )
    shadow_hours: float = Field(
        default=72.0, gt=0, description="With `after_shadow`: hours for which it is the challenger first."
    )
    shadow_answers: int = Field(
        default=100, ge=1, description="With `after_shadow`: requests that the challenger must have been shown."
    )
    shadow_failures: float = Field(
        default=0.01, ge=0, le=1, description="With `after_shadow`: highest share of them that it could not answer."
    )
    shadow_agreement: float = Field(
        default=0.6, ge=0, le=1, description="With `after_shadow`: least share on which it agrees with the champion."
    )
    test_share: float = Field(
        default=0.15, gt=0, le=0.5, description="Share of new labels that test models for ever and train none."
    )
    least_test_samples: int = Field(default=30, ge=1, description="Test samples without which no model passes.")
    new_class_samples: int = Field(
        default=10, ge=2, description="Samples from which on a label that the model does not have becomes a class."
    )
    margin: float = Field(default=0.0, ge=0, le=1, description="Least gain in accuracy.")
    confidence: float = Field(
        default=0.95, ge=0.5, lt=1, description="Confidence with which a new model must be better."
    )
    worst_class_loss: float = Field(default=0.05, ge=0, le=1, description="Most that the F1 of one class may fall.")
    class_samples: int = Field(default=20, ge=1, description="Test samples from which on a class is judged by itself.")
    most_calibration_error: float = Field(default=0.1, gt=0, le=1, description="Highest calibration error.")
    calibration_loss: float = Field(default=0.03, ge=0, le=1, description="By how much the calibration error may rise.")
    slower: float = Field(default=1.5, ge=1, description="How many times the present model's time it may take.")
    larger: float = Field(default=2.0, ge=1, description="How many times the present model's size it may have.")
    sign_with: str | None = Field(
        default=None,
        description="File of the private key that signs new models; unset: none.",
    )


class ChannelSettings(_Frozen):
    """One channel: which model answers, which thresholds decide, what is kept of the photo."""

    model: str = Field(description="Name of the bundle that answers, optionally `name@version`.")
    title: str | None = Field(default=None, description="Name of the channel in pages; unset: its name here.")
    question: str | None = Field(
        default=None, description="The question that pages ask above a result; unset: the channel's name."
    )
    label_names: dict[str, str] = Field(
        default_factory=dict,
        description='What pages call a label (`longsleeve = "Long-sleeve top"`); answers, exports and thresholds '
        "keep the label itself.",
    )
    keep: Literal["original", "thumbnail", "nothing"] = Field(
        default="thumbnail",
        description="What is stored of each photo: `original`, `thumbnail` (256 px, no metadata) or `nothing`.",
    )
    keep_photos_days: int | None = Field(
        default=None,
        gt=0,
        description="Days after which the photo of a single classification is deleted and its record stays, counted "
        "from the classification or the last feedback. One that waits for a person stays. Unset: never, or with the "
        "record.",
    )
    keep_records_days: int | None = Field(
        default=None,
        gt=0,
        description="Days after which the record of a single classification is deleted with its photo and feedback, "
        "counted in the same way. Records of runs stay. Unset: never.",
    )
    accept_at: float | None = Field(
        default=None, description="Least score of the best label that needs no person; unset accepts every photo."
    )
    audit_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of what the thresholds accept that a person checks nevertheless, chosen at random: from it "
        "the accuracy in production is computed. Try 0.01. 0: nobody checks, and that accuracy stays unknown. With a "
        "moderation side: of what the policy publishes or refuses, which stands meanwhile. With a catalogue side: of "
        "the suggestions that need no person.",
    )
    labels: dict[str, LabelThresholds] = Field(
        default_factory=dict, description="Thresholds by label; `labels = {}` removes those of a default channel."
    )
    shadow_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of the requests that the model's challenger sees, too, after they were answered; 0: none.",
    )
    batch: ChannelBatchSettings | None = Field(
        default=None, description="The channel's batch side (`batch = {}` for the defaults); unset: it has none."
    )
    moderation: ChannelModerationSettings | None = Field(
        default=None, description="The channel's moderation side (`moderation = {}` for the defaults); unset: none."
    )
    catalogue: ChannelCatalogueSettings | None = Field(
        default=None, description="The channel's catalogue side (`catalogue = {}` for the defaults); unset: none."
    )
    retraining: ChannelRetrainingSettings = Field(
        default_factory=ChannelRetrainingSettings, description="How its model learns from what people said."
    )

    @model_validator(mode="after")
    def _photos_go_first(self) -> Self:
        photos, records = self.keep_photos_days, self.keep_records_days
        if photos is not None and records is not None and photos > records:
            raise ValueError(
                f"keep_photos_days is {photos}, but the record goes after {records} days and takes its photo along. "
                "Set keep_photos_days to at most keep_records_days, or leave it out"
            )
        if self.keep == "nothing" and photos is not None:
            raise ValueError("keep_photos_days has no photos to delete: this channel keeps nothing. Leave it out")
        if self.moderation is not None and self.batch is not None and self.batch.keep_photos_days is not None:
            raise ValueError(
                "batch.keep_photos_days is for channels without a moderation side. Set moderation.keep_refused_days, "
                "moderation.keep_held_days and moderation.keep_published_days"
            )
        return self


class BatchSettings(_Frozen):
    """How runs work, in all channels."""

    engine: Literal["local", "workers", "ray"] = Field(
        default="local",
        description="Where the models of runs are, also of those that pages and the API start: in the process of the "
        "run, in workers behind Redis, or on a Ray cluster. Channels with a moderation side do not use Ray.",
    )
    ray_address: str | None = Field(
        default=None,
        description="The Ray cluster of runs: host:6379, ray://host:10001 or auto; unset: one on this machine.",
    )
    commit_items: int = Field(default=64, gt=0, le=1000, description="Items that share a commit.")
    time_zone: str | None = Field(
        default=None,
        description="Time zone of the schedules of channels (`Europe/Berlin`); unset: that of the machine.",
    )
    max_attempts: int = Field(
        default=3, gt=0, description="How often an item is tried before a passing fault sends it to quarantine."
    )
    retry_s: float = Field(
        default=600.0, ge=0, description="How long a run waits for a database or store that is away, in seconds."
    )
    takeover_s: float = Field(
        default=15.0, gt=0, description="Seconds without a heartbeat after which another process may take a run over."
    )
    stall_after_s: float = Field(
        default=120.0,
        gt=0,
        description="Seconds without a finished item after which a run counts as stalled; also the limit per photo.",
    )

    @field_validator("time_zone")
    @classmethod
    def _is_a_time_zone(cls, name: str | None) -> str | None:
        try:
            return None if name is None else ZoneInfo(name).key
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"there is no time zone {name!r}; write one such as Europe/Berlin") from error


class MonitoringSettings(_Frozen):
    """What is written down about the server every minute, and for how long."""

    record: bool = Field(default=True, description="Whether a web server writes its figures down every minute.")
    drift: bool = Field(
        default=True,
        description="Whether a web server compares each day with the month before, at most 512 photos per channel; "
        "off: only `shoplens monitoring drift` does.",
    )
    minutes_hours: int = Field(
        default=48,
        ge=1,
        le=168,
        description="Hours for which each minute is kept; the hours and days are sums of them.",
    )
    hours_days: int = Field(default=30, ge=7, le=366, description="Days for which each hour is kept.")
    days: int = Field(default=730, ge=90, le=3_660, description="Days that are kept.")
    prometheus_url: str | None = Field(
        default=None, description="Address of Prometheus for people, to which the page Monitoring links; unset: none."
    )
    grafana_url: str | None = Field(
        default=None, description="Address of Grafana for people, to which the page Monitoring links; unset: none."
    )

    @field_validator("prometheus_url", "grafana_url")
    @classmethod
    def _is_an_address(cls, url: str | None) -> str | None:
        if url is not None:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
                raise ValueError("write the address with http:// or https:// and without a password")
        return url


class AccountSettings(_Frozen):
    """How long sessions, tokens and one-time links of people last."""

    session_idle_hours: float = Field(
        default=12.0, gt=0, le=8_760, description="Hours without use after which a session ends."
    )
    session_days: float = Field(
        default=7.0, gt=0, le=365, description="Days after which a session ends in any case, and people sign in again."
    )
    token_hours: float = Field(
        default=8.0, gt=0, le=8_760, description="Hours for which a bearer token of `POST /auth/token` is valid."
    )
    link_hours: float = Field(
        default=24.0, gt=0, le=720, description="Hours for which a one-time link to set a password is valid."
    )


class OpenIdSettings(_Frozen):
    """Sign in with an OpenID Connect provider, beside passwords."""

    issuer: str = Field(description="The provider's issuer, as its description says (`https://login.example.org`).")
    client_id: str = Field(description="What the provider calls this server.")
    client_secret: str = Field(repr=False, description="The client's secret; better as the variable than in the file.")
    name: str = Field(default="OpenID", max_length=40, description="Name of the provider on the sign-in page.")
    scopes: str = Field(default="openid email profile", description="What is asked of the provider.")
    role_claim: str | None = Field(
        default=None, description="A claim (such as `groups`) that decides the role at every sign-in; unset: none."
    )
    roles: dict[str, Literal["admin", "moderator", "clerk", "merchandiser", "viewer"]] = Field(
        default_factory=dict, description="Values of that claim and their roles; the most powerful one counts."
    )
    default_role: Literal["admin", "moderator", "clerk", "merchandiser", "viewer", "none"] = Field(
        default="viewer", description="Role of those to whom the claim gives none; `none` refuses them."
    )
    domains: TextList = Field(
        default=(), description="Domains of the verified e-mail addresses that may sign in; empty: any."
    )
    create: bool = Field(
        default=True, description="Add unknown people at their first sign-in; off: only those added with their e-mail."
    )

    @field_validator("issuer")
    @classmethod
    def _issuer_is_safe(cls, issuer: str) -> str:
        parts = urlsplit(issuer)
        is_local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if not parts.hostname or (parts.scheme != "https" and not (parts.scheme == "http" and is_local)):
            raise ValueError("write the provider's address with https://; http:// only for localhost")
        return issuer


_GARMENTS = {
    "dress": "Dress",
    "hat": "Hat",
    "longsleeve": "Long-sleeve top",
    "outwear": "Outerwear",
    "pants": "Pants",
    "shirt": "Shirt",
    "shoes": "Shoes",
    "shorts": "Shorts",
    "skirt": "Skirt",
    "t-shirt": "T-shirt",
}
DEFAULT_CHANNELS: dict[str, dict[str, object]] = {
    "look": {
        "model": "efficientnet-lite0-int8",
        "title": marked("General"),
        "question": marked("What's in this photo?"),
    },
    "returns": {
        "model": "clothing",
        "title": marked("Returns"),
        "question": marked("Which garment is this?"),
        "label_names": _GARMENTS,
        "accept_at": 0.8,
        "keep": "original",
        "batch": {"schedule": NIGHTLY},
    },
    "reviews": {
        "model": "opennsfw",
        "title": marked("Reviews"),
        "question": marked("Is this photo safe to publish?"),
        "label_names": {"nsfw": "NSFW", "safe": "Safe"},
        "labels": {"nsfw": {"review_at": 0.4, "reject_at": 0.85}},
        "moderation": {},
    },
    "catalogue": {
        "model": "starter-catalogue",
        "title": marked("Catalogue"),
        "question": marked("Which category is this product?"),
        "accept_at": 0.8,
        "keep": "original",
        "catalogue": {},
    },
}
