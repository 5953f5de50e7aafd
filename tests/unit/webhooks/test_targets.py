"""Events go to public addresses over https, and to private networks that were named."""

from __future__ import annotations

import pytest

from shoplens.webhooks.errors import EndpointInvalid
from shoplens.webhooks.targets import Targets


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/hook",
        "https://localhost/hook",
        "https://10.1.2.3/",
        "https://169.254.169.254/latest/meta-data",
        "https://192.168.0.1:8443/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[2002:7f00:1::]/",
        "https://[fd00::1]/",
        "https://[fec0::1]/",
        "https://[64:ff9b:1::7f00:1]/",
        "https://[::7f00:1]/",
        "https://192.0.0.192/",
        "https://0.0.0.0/",
        "https://224.0.0.1/",
        "https://2130706433/",
        "https://0x7f.1/",
    ],
)
def test_private_addresses_are_refused_in_every_spelling(url: str) -> None:
    """Also those that only the resolver reads as an address."""
    with pytest.raises(EndpointInvalid, match=r"not a public address|cannot be resolved"):
        Targets().resolve(url)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://shop.example/", "in full"),
        ("shop.example/hooks", "in full"),
        ("https://", "in full"),
        ("http://shop.example/hooks", "https only"),
        ("https://user:secret@shop.example/", "Leave out the user"),
        ("https://shop.example:99999/", "not an address"),
        ("https://shop.example/" + "a" * 2000, "in full"),
        ("https://shop.example/\nx", "in full"),
    ],
)
def test_what_is_no_address_of_an_endpoint_is_refused(url: str, why: str) -> None:
    """Before it is stored."""
    with pytest.raises(EndpointInvalid, match=why):
        Targets().require_url(url)


def test_a_public_address_is_taken_and_its_name_kept_for_the_certificate() -> None:
    """The connection goes to the address that was checked."""
    target = Targets().resolve("https://93.184.216.34:8443/hooks?shop=1")
    assert ("https://93.184.216.34:8443/hooks?shop=1", "93.184.216.34", "93.184.216.34:8443") == (
        target.url,
        target.host,
        target.host_header,
    )


def test_a_network_that_was_named_is_allowed_over_http_and_no_other() -> None:
    """As for a shop whose systems share a network."""
    targets = Targets(["10.0.0.0/8", "::1/128"])
    assert "http://10.9.8.7:80/hook" == targets.resolve("http://10.9.8.7/hook").url
    assert "http://[::1]:9000/" == targets.resolve("http://[::1]:9000").url
    with pytest.raises(EndpointInvalid):
        targets.resolve("http://192.168.1.1/hook")
    with pytest.raises(EndpointInvalid):
        targets.resolve("http://93.184.216.34/hook")


def test_a_name_beyond_ascii_is_sent_as_certificates_and_servers_write_it() -> None:
    """Found by an address with umlauts: its Host header could not be sent, and the thread that tried ended."""
    target = Targets(["127.0.0.0/8"]).resolve("http://\uff11\uff12\uff17.0.0.1:8080/caf\u00e9")
    assert ("127.0.0.1", "127.0.0.1:8080") == (target.host, target.host_header)
    Targets().require_url("https://b\u00fccher.example/hooks")
    with pytest.raises(EndpointInvalid, match="not an address"):
        Targets().require_url("https://" + "\u00fc" * 80 + ".example/")
