"""Sign in at an OpenID Connect provider: authorization code with PKCE, `state` and `nonce`.

The URL, PKCE and random values are Authlib's, tokens are checked by joserfc, which Authlib uses too, and the three HTTP
calls are plain httpx. Sources: OpenID Connect Core 1.0 section 3.1, RFC 7636.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from shoplens.accounts.entities import Role
from shoplens.accounts.errors import OpenIdRefused, ProviderUnavailable
from shoplens.telemetry.logs import get_logger

if TYPE_CHECKING:
    import httpx

ALGORITHMS: Final = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
)
"""Only signatures with a public key: the provider's secrets are not ours."""
_DISCOVERY: Final = "/.well-known/openid-configuration"
_ANSWER_S: Final = 5.0
_KNOWN_S: Final = 3600.0
_KEYS_AGAIN_S: Final = 30.0
_CLOCKS_DIFFER_S: Final = 60
_MOST_BYTES: Final = 1_000_000
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenIdConfig:
    """The provider, and who may sign in with it.

    `roles` maps values of the claim `role_claim` to roles; who has none of them gets `default_role`, or is refused if
    that is None. `domains` are those of verified e-mail addresses; empty: any. Without `create`, only people whose
    e-mail address an admin has entered can sign in. `public_url` is where the provider sends browsers back to; None:
    the host that the browser asked.
    """

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    name: str = "OpenID"
    scopes: str = "openid email profile"
    role_claim: str | None = None
    roles: Mapping[str, Role] = field(default_factory=dict)
    default_role: Role | None = Role.VIEWER
    domains: tuple[str, ...] = ()
    create: bool = True
    public_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A sign-in that was begun. The browser keeps it in a cookie; `verifier` proves that it is the same browser."""

    state: str
    nonce: str
    verifier: str


class OpenIdProvider:
    """A client of one provider. Methods block for at most some seconds, and may be called from many threads."""

    def __init__(self, config: OpenIdConfig) -> None:
        self.config = config
        self._lock = threading.Lock()
        self._metadata: tuple[float, Mapping[str, Any]] | None = None
        self._keys: tuple[float, Mapping[str, Any]] | None = None

    def begin(self, redirect_uri: str) -> tuple[str, Attempt]:
        """Where the browser goes, and what it has to keep until it comes back. Raises ProviderUnavailable."""
        from authlib.common.security import generate_token
        from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
        from authlib.oauth2.rfc7636 import create_s256_code_challenge

        attempt = Attempt(state=generate_token(40), nonce=generate_token(40), verifier=generate_token(64))
        url = prepare_grant_uri(
            self._discovered()["authorization_endpoint"],
            client_id=self.config.client_id,
            response_type="code",
            redirect_uri=redirect_uri,
            scope=self.config.scopes,
            state=attempt.state,
            nonce=attempt.nonce,
            code_challenge=create_s256_code_challenge(attempt.verifier),
            code_challenge_method="S256",
        )
        return str(url), attempt

    def finish(self, attempt: Attempt, *, code: str, redirect_uri: str) -> dict[str, Any]:
        """The claims of the person that signed in. Raises OpenIdRefused and ProviderUnavailable."""
        metadata = self._discovered()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": attempt.verifier,
        }
        basic = (self.config.client_id, self.config.client_secret)
        tokens = self._call("POST", metadata["token_endpoint"], data=form, auth=basic)
        claims = self._checked(str(tokens.get("id_token", "")), attempt.nonce)
        wanted = {"email", *([self.config.role_claim] if self.config.role_claim else [])}
        if wanted - claims.keys() and "userinfo_endpoint" in metadata:
            bearer = {"Authorization": f"Bearer {tokens.get('access_token', '')}"}
            more = self._call("GET", metadata["userinfo_endpoint"], headers=bearer)
            if more.get("sub") != claims["sub"]:
                raise OpenIdRefused("The provider answered with the data of somebody else. Try to sign in again.")
            claims = {**more, **claims}
        return claims

    def _checked(self, id_token: str, nonce: str) -> dict[str, Any]:
        """The claims of an ID token for this client and this attempt. Raises OpenIdRefused."""
        from joserfc import jwt
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        rules = jwt.JWTClaimsRegistry(
            leeway=_CLOCKS_DIFFER_S,
            iss={"essential": True, "value": self.config.issuer},
            aud={"essential": True, "value": self.config.client_id},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        for again in (False, True):
            try:
                keys = KeySet.import_key_set({"keys": list(self._key_set(again=again)["keys"])})
                claims = jwt.decode(id_token, keys, algorithms=list(ALGORITHMS)).claims
                rules.validate(claims)
            except (JoseError, ValueError, KeyError, TypeError) as error:
                if not again:  # the provider may have a new key
                    continue
                _log.warning("openid.token_refused", reason=str(error) or type(error).__name__)
                raise OpenIdRefused("The provider's answer is not valid. Try to sign in again.") from error
            if claims.get("azp", self.config.client_id) != self.config.client_id:
                raise OpenIdRefused("The provider's answer is for another client. Check client_id.")
            return dict(claims)
        raise AssertionError("unreachable")

    def _discovered(self) -> Mapping[str, Any]:
        """The provider's own description. Raises ProviderUnavailable."""
        with self._lock:
            known = self._metadata
        if known is not None and time.monotonic() - known[0] < _KNOWN_S:
            return known[1]
        found = self._call("GET", self.config.issuer.rstrip("/") + _DISCOVERY)
        if found.get("issuer") != self.config.issuer:
            raise ProviderUnavailable(f"The provider calls itself {found.get('issuer')!r}; set oidc.issuer to that.")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            if not str(found.get(name, "")).startswith(("https://", "http://")):
                raise ProviderUnavailable(f"The provider's description has no {name}.")
        with self._lock:
            self._metadata = time.monotonic(), found
        return found

    def _key_set(self, *, again: bool) -> Mapping[str, Any]:
        with self._lock:
            known = self._keys
        lasts_s = _KEYS_AGAIN_S if again else _KNOWN_S
        if known is not None and time.monotonic() - known[0] < lasts_s:
            return known[1]
        found = self._call("GET", self._discovered()["jwks_uri"])
        with self._lock:
            self._keys = time.monotonic(), found
        return found

    def _call(self, method: str, url: str, **more: Any) -> dict[str, Any]:
        """The JSON object that the provider answers. Raises ProviderUnavailable, and OpenIdRefused for a 4xx."""
        import httpx

        try:
            with httpx.Client(timeout=_ANSWER_S) as client, client.stream(method, url, **more) as response:
                body = _bounded(response)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise ProviderUnavailable(f"The sign-in provider {self.config.name} cannot be reached: {reason}") from error
        if response.is_client_error and method == "POST":
            _log.warning("openid.code_refused", status=response.status_code, answer=body[:300].decode(errors="replace"))
            raise OpenIdRefused("The provider did not accept the sign-in. Try again; it may have taken too long.")
        if not response.is_success:
            raise ProviderUnavailable(f"The sign-in provider {self.config.name} answered {response.status_code}.")
        try:
            found = httpx.Response(200, content=body).json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ProviderUnavailable(
                f"The sign-in provider {self.config.name} answered with something else than JSON."
            )
        return found


def _bounded(response: httpx.Response) -> bytes:
    """The body, or what fits. A provider that sends more is broken."""
    body = b""
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > _MOST_BYTES:
            break
    return body
