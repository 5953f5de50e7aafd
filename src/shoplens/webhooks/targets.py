"""Which addresses events may be sent to: public ones over https, and private ones that a setting names.

A name is resolved once per attempt, and the connection goes to the address that was checked: a name that changes its
address in between (DNS rebinding) leads nowhere else.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

from shoplens.webhooks.errors import EndpointInvalid

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_LONGEST_URL: Final = 2_000
_UNICAST: Final = ip_network("2000::/3")
"""All public IPv6 addresses lie in it; old ones of sites and those that stand for IPv4 ones mostly do not."""
_NOT_PUBLIC: Final = tuple(map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "2002::/16", "3fff::/20")))
"""What Python takes for public: special addresses, some clouds' own ones among them, 6to4 and documentation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where one attempt connects to. `host` is the name that the certificate must have."""

    url: str
    host: str
    host_header: str


class Targets:
    """The rules. `private` are networks beyond the public ones that are allowed, also over plain http."""

    def __init__(self, private: Sequence[str] = ()) -> None:
        self._private: tuple[Network, ...] = tuple(ip_network(each, strict=False) for each in private)

    def require_url(self, url: str) -> None:
        """Raises EndpointInvalid for an address that no event could ever be sent to. Resolves no name."""
        host, _ = self._parts(url)
        try:
            address = ip_address(host)
        except ValueError:
            return
        self._require_allowed([address], url)

    def resolve(self, url: str) -> Target:
        """The address to connect to now. Blocks while the name is resolved. Raises EndpointInvalid."""
        host, port = self._parts(url)
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise EndpointInvalid(f"The name {host} cannot be resolved.") from error
        addresses = [ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
        chosen = self._require_allowed(addresses, url)
        parts = urlsplit(url)
        shown = f"[{chosen}]" if chosen.version == 6 else str(chosen)
        query = f"?{parts.query}" if parts.query else ""
        named = f"[{host}]" if ":" in host else host
        return Target(
            url=f"{parts.scheme}://{shown}:{port}{parts.path or '/'}{query}",
            host=host,
            host_header=named if parts.port is None else f"{named}:{parts.port}",
        )

    def _parts(self, url: str) -> tuple[str, int]:
        """The host in ASCII, as certificates and the Host header have it, and the port."""
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").encode("idna").decode(), parts.port
        except ValueError as error:
            raise EndpointInvalid(f"This is not an address: {error}.") from error
        if parts.scheme not in ("http", "https") or not host or len(url) > _LONGEST_URL or not url.isprintable():
            raise EndpointInvalid("Write the address of the endpoint in full, such as https://shop.example/hooks.")
        if "@" in parts.netloc:
            raise EndpointInvalid("Leave out the user and the password; check the signature instead.")
        if parts.scheme == "http" and not self._private:
            raise EndpointInvalid("Events are sent over https only, except to networks in webhook_networks.")
        return host, port or (443 if parts.scheme == "https" else 80)

    def _require_allowed(self, addresses: Sequence[Address], url: str) -> Address:
        for address in addresses:
            plain = getattr(address, "ipv4_mapped", None) or address
            if any(plain.version == network.version and plain in network for network in self._private):
                return plain
            if url.startswith("https:") and _is_public(plain):
                return plain
        where = ", ".join(str(address) for address in addresses[:3]) or "no address"
        raise EndpointInvalid(
            f"Events are not sent to {where}: it is not a public address over https. To send them there, name its "
            "network in the setting webhook_networks."
        )


def _is_public(address: Address) -> bool:
    if not address.is_global or address.is_multicast or (address.version == 6 and address not in _UNICAST):
        return False
    return not any(address.version == network.version and address in network for network in _NOT_PUBLIC)
