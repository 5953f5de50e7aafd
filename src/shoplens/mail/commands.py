"""`shoplens mail …`: try the mail server, list mails, and send those that wait without a server."""

from __future__ import annotations

from typing import Annotated

import typer

from shoplens.cli.command import AsJson, DataDir, handle_errors, settings_for
from shoplens.cli.groups import Commands

mail_app = Commands(help="Send alerts and reports by e-mail.")


@mail_app.callback()
def mail() -> None:
    """Send alerts and reports by e-mail."""


@mail_app.command("test", examples=["shoplens mail test", "shoplens mail test --to depot@shop.example"])
@handle_errors
def send_test(
    to: Annotated[list[str] | None, typer.Option(help="An address (may be repeated); all recipients if unset.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Send a test mail now, and say what is wrong if the mail server does not take it."""
    from shoplens.platform.mail import open_mail, require_address

    with open_mail(settings_for(data_dir)) as mails:
        for recipient in mails.service.test([require_address(each) for each in to or ()]):
            typer.echo(f"Sent to {recipient}.")


@mail_app.command("list", examples=["shoplens mail list"])
@handle_errors
def list_mails(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """List the newest mails: when, to whom, about what, and whether they were sent."""
    import orjson

    from shoplens.cli.output import show_table
    from shoplens.platform.mail import open_mail

    with open_mail(settings_for(data_dir)) as mails:
        newest = mails.service.overview().newest
    if as_json:
        rows = [
            {
                "created_at": each.created_at,
                "kind": each.kind,
                "recipient": each.recipient,
                "subject": each.subject,
                "state": each.state,
                "attempts": each.attempts,
                "last_error": each.last_error,
            }
            for each in newest
        ]
        typer.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
        return
    show_table(
        ("WHEN", "KIND", "TO", "ABOUT", "STATE", "ATTEMPTS", "LAST FAULT"),
        [
            (
                each.created_at,
                each.kind.value,
                each.recipient,
                each.subject,
                each.state.value,
                each.attempts,
                each.last_error,
            )
            for each in newest
        ],
        nothing="No mail was written yet.",
    )


@mail_app.command(examples=["shoplens mail send"])
@handle_errors
def send(data_dir: DataDir = None) -> None:
    """Send the mails that wait, where no web server runs that would send them."""
    from shoplens.platform.mail import open_mail

    failed = 0
    with open_mail(settings_for(data_dir)) as mails:
        while sent := mails.sender.send_due():
            for each in sent:
                typer.echo(f"{each.state.value}\t{each.recipient}\t{each.subject}\t{each.last_error or ''}")
            failed += sum(each.last_error is not None for each in sent)
    if failed:
        raise typer.Exit(1)
