"""The groups of settings for what Shoplens tells people by itself: alerts, and the mail server that takes mails."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from shoplens.setting_groups import TextList

_ADDRESS: Final = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
_LONGEST_ADDRESS: Final = 254
_MOST_RECIPIENTS: Final = 20
_PORTS: Final = {"none": 25, "starttls": 587, "tls": 465}
_HERE: Final = ("localhost", "127.0.0.1", "::1")


def is_mail_address(text: str) -> bool:
    """Whether `text` is a plain address: ASCII, without a name, and without anything that could end a header."""
    return len(text) <= _LONGEST_ADDRESS and _ADDRESS.fullmatch(text) is not None


def _require_addresses(addresses: tuple[str, ...]) -> tuple[str, ...]:
    for each in addresses:
        if not is_mail_address(each):
            raise ValueError(f"{each[:100]!r} is not an address such as depot@shop.example")
    if len(addresses) > _MOST_RECIPIENTS:
        raise ValueError(f"at most {_MOST_RECIPIENTS} addresses; for more, use a mailing list")
    return addresses


class MailSettings(BaseModel):
    """The mail server that takes alerts and reports, and who gets them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(min_length=1, description="Name of the mail server (`smtp.example.org`).")
    port: int | None = Field(
        default=None, gt=0, le=65535, description="Its port; unset: 587 with starttls, 465 with tls, 25 with none."
    )
    security: Literal["none", "starttls", "tls"] = Field(
        default="starttls",
        description="How the connection is encrypted. Its certificate is checked; without encryption nothing is sent "
        "unless this is `none`.",
    )
    user: str | None = Field(default=None, min_length=1, description="Who signs in there; unset: nobody.")
    password: str | None = Field(
        default=None, repr=False, description="The password of that user; better as the variable than in the file."
    )
    sender: str = Field(description="The address that mails come from (`shoplens@shop.example`).")
    alerts: TextList = Field(default=(), description="Addresses that get alerts; none: nobody.")
    reports: dict[str, TextList] = Field(
        default_factory=dict,
        description='Addresses that get a mail after each run of a channel (`returns = ["depot@shop.example"]`).',
    )
    ca_file: Path | None = Field(
        default=None, description="Certificates (PEM) of an authority of your own that are trusted, too."
    )
    attempt_s: float = Field(default=20.0, gt=0, le=120, description="Seconds that the mail server has for each step.")

    @property
    def effective_port(self) -> int:
        """The port, with the default filled in."""
        return self.port or _PORTS[self.security]

    @field_validator("sender")
    @classmethod
    def _sender_is_an_address(cls, sender: str) -> str:
        return _require_addresses((sender,))[0]

    @field_validator("alerts")
    @classmethod
    def _alerts_are_addresses(cls, alerts: tuple[str, ...]) -> tuple[str, ...]:
        return _require_addresses(alerts)

    @field_validator("reports")
    @classmethod
    def _reports_are_addresses(cls, reports: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        return {channel: _require_addresses(addresses) for channel, addresses in reports.items()}

    @model_validator(mode="after")
    def _password_is_not_sent_in_the_clear(self) -> Self:
        if self.password is not None and self.user is None:
            raise ValueError("mail.password is set without mail.user")
        if self.user is not None and self.security == "none" and self.host not in _HERE:
            raise ValueError("mail.user would send its password in the clear; set mail.security to starttls or tls")
        return self


class AlertSettings(BaseModel):
    """When Shoplens looks whether something is wrong, and how often it says so."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    watch: bool = Field(
        default=True, description="Whether the web servers look; one of them at a time does. Off: Prometheus does."
    )
    every_s: float = Field(default=30.0, ge=1, le=600, description="Seconds between two looks.")
    resolve_after_s: float = Field(
        default=300.0, ge=0, le=86_400, description="Seconds for which all must be well before an alert is resolved."
    )
    repeat_hours: float = Field(
        default=24.0, gt=0, le=720, description="Hours after which an alert that still fires is sent again."
    )
    off: TextList = Field(
        default=(),
        description="Alerts that are not wanted (`ShoplensDrift`), also of one channel (`ShoplensDrift/catalogue`).",
    )
    least_accuracy: float = Field(
        default=0.9,
        ge=0,
        le=1,
        description="An alert says when the accuracy of automatic decisions is below it with 95 % confidence.",
    )
