"""What can be wrong with sending mail."""

from __future__ import annotations

from shoplens.errors import Misconfigured, Unavailable


class MailNotSet(Misconfigured):
    """No mail server is set, or nobody to send to."""

    code = "mail_not_set"


class MailRefused(Unavailable):
    """The mail server cannot be reached, is not trusted, or did not take a mail."""

    code = "mail_refused"
