"""What can go wrong with people, sign-ins and keys."""

from __future__ import annotations

from shoplens.errors import Conflict, NotAuthenticated, NotFound, RequestInvalid, TooManyTries, Unavailable


class SignInRefused(NotAuthenticated):
    """The name, the password or the code is wrong, or the person is disabled; which of them is not said."""

    code = "sign_in_refused"


class SecondFactorRequired(NotAuthenticated):
    """The password is right, and a code of the second factor is missing."""

    code = "second_factor_required"


class TooManySignIns(TooManyTries):
    """Too many failed sign-ins of this name or from this address."""

    code = "too_many_sign_ins"


class OpenIdRefused(NotAuthenticated):
    """The OpenID provider did not sign the person in, or they have no account here."""

    code = "openid_refused"


class ProviderUnavailable(Unavailable):
    """The OpenID provider cannot be reached, or answers in an unknown way."""

    code = "provider_unavailable"


class PasswordUnfit(RequestInvalid):
    """The new password is too short, too long or too easy to guess."""

    code = "password_unfit"


class PasswordWrong(RequestInvalid):
    """What was typed is not the password of the person who is signed in."""

    code = "password_wrong"


class CodeWrong(RequestInvalid):
    """What was typed is not the code that the new second factor shows now."""

    code = "code_wrong"


class PersonNotFound(NotFound):
    """Nobody has this id or name."""

    code = "person_not_found"


class PersonExists(Conflict):
    """Somebody has this name already."""

    code = "person_exists"


class LastAdmin(Conflict):
    """The last admin can neither be disabled nor get another role."""

    code = "last_admin"


class LinkInvalid(NotFound):
    """The one-time link does not exist, was used or has expired."""

    code = "link_invalid"
