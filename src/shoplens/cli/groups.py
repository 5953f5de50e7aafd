"""How commands are declared, grouped and explained: help with sections and examples, and one form of error.

Typer's rich help would cost half a second of imports. A group of commands that a feature declares is imported when one
of its commands is wanted; the help of `shoplens` knows its name and its sentence without it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from gettext import ngettext
from importlib import import_module
from typing import Any, Final, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from shoplens.advice import meant
from shoplens.cli.command import COMPLETION_VARIABLE, EXIT_FAILED, plain_fault, say_error

_OTHERS: Final = "More"


class ExplainedCommand(TyperCommand):
    """A command whose help ends with examples, one in each line of its epilog."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """See TyperCommand."""
        if self.epilog:
            with formatter.section(ngettext("Example", "Examples", self.epilog.count("\n") + 1)):
                for line in self.epilog.splitlines():
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See TyperCommand. Refuses `--json` before a command that prints none."""
        rest = super().parse_args(ctx, args)
        if ctx.find_root().params.get("as_json") and "as_json" not in ctx.params and not ctx.resilient_parsing:
            ctx.fail(f"`{ctx.command_path}` prints no JSON; leave out --json.")
        return rest


class Group(TyperGroup):
    """Commands under headings, each with its whole sentence."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """See TyperGroup."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, section, sentence in self.listed(ctx):
            sections.setdefault(section, []).append((name, sentence))
        for section, rows in sections.items():
            with formatter.section(section):
                formatter.write_dl(rows)

    def listed(self, ctx: Any) -> Iterator[tuple[str, str, str]]:
        """Name, section and sentence of every command that is shown, by section."""
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                section = getattr(command, "rich_help_panel", None)
                yield name, section if isinstance(section, str) else "Commands", first_sentence(command.help or "")

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """See TyperGroup. An unknown command is answered with the one that was probably meant."""
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"There is no command {args[0]!r}{meant(args[0], known)}.")
        return super().resolve_command(ctx, args)


class Commands(typer.Typer):
    """A group of commands. `examples` of a command are whole command lines."""

    def __init__(self, *, help: str, no_args_is_help: bool = True, **settings: Any) -> None:
        super().__init__(
            cls=settings.pop("cls", Group), help=help, no_args_is_help=no_args_is_help, rich_markup_mode=None,
            add_completion=False, pretty_exceptions_enable=False, **settings,
        )  # fmt: skip

    def command(
        self, name: str | None = None, *, examples: Sequence[str] = (), section: str | None = None, **settings: Any
    ) -> Callable[[Any], Any]:
        """See Typer. `section` is its heading in the help of the group."""
        return super().command(
            name, cls=ExplainedCommand, epilog="\n".join(examples) or None, rich_help_panel=section, **settings
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """A command or a group of commands that is imported when it is wanted: `app` of `module`."""

    name: str
    section: str
    sentence: str
    module: str
    app: str
    group: bool = True


class Root(Group):
    """`shoplens` itself. Its sections stand in the order of `sections`."""

    later: Sequence[Later] = ()
    sections: Sequence[str] = ()

    def list_commands(self, ctx: Any) -> list[str]:
        """See TyperGroup."""
        return [*self.commands, *(each.name for each in self.later if each.name not in self.commands)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """See TyperGroup."""
        found = next((each for each in self.later if each.name == cmd_name), None)
        if found is not None and cmd_name not in self.commands:
            declared = getattr(import_module(found.module), found.app)
            command: Any = get_group(declared) if found.group else get_command(declared)
            command.name = cmd_name
            self.commands[cmd_name] = command
        return super().get_command(ctx, cmd_name)

    def listed(self, ctx: Any) -> Iterator[tuple[str, str, str]]:
        """See Group. Imports nothing."""
        del ctx
        later = {each.name: (each.name, each.section, each.sentence) for each in self.later}
        rows = []
        for name, command in self.commands.items():
            if name not in later and not command.hidden:
                section = getattr(command, "rich_help_panel", None)
                shown = section if isinstance(section, str) else _OTHERS
                rows.append((name, shown, first_sentence(command.help or "")))
        rows += later.values()
        order = {section: place for place, section in enumerate(self.sections)}
        yield from sorted(rows, key=lambda row: order.get(row[1], len(order)))

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """See TyperGroup. Imports no command."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        from shoplens.cli.completion import item

        return [item(name, words) for name, _, words in self.listed(ctx) if name.startswith(incomplete)]

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """See TyperGroup. Says every error in one form."""
        everything = (args, prog_name, complete_var, False, windows_expand_args)
        if not standalone_mode:
            return super().main(*everything, **extra)
        try:
            status = super().main(*everything, **extra)
        except typer.TyperException as error:
            _refuse_usage(error)
        except typer.Abort:
            say_error("Not confirmed, so nothing was done.")
            sys.exit(EXIT_FAILED)
        sys.exit(status if isinstance(status, int) else 0)

    def _main_shell_completion(self, ctx_args: Any, prog_name: str, complete_var: str | None = None) -> None:
        if os.environ.get(COMPLETION_VARIABLE):
            from shoplens.cli.completion import answer

            sys.exit(answer(self, prog_name, sys.argv[1:]))


def first_sentence(text: str) -> str:
    """The first sentence of the first paragraph, in one line."""
    paragraph = " ".join(text.strip().partition("\n\n")[0].split())
    sentence, stop, _ = paragraph.partition(". ")
    return f"{sentence}." if stop else paragraph


def _refuse_usage(error: Any) -> NoReturn:
    """Say what is wrong with the command line, and where its help is."""
    context = getattr(error, "ctx", None)
    name = getattr(error, "option_name", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    elif name is not None and hasattr(error, "possibilities"):
        command = context.command_path if context else "shoplens"
        close = f" (did you mean {error.possibilities[0]!r}?)" if error.possibilities else ""
        roots = [option for each in context.find_root().command.params for option in each.opts] if context else []
        hint = f"`{command} -h` lists its options."
        if name in roots:
            close, hint = "", f"It stands before the command: `shoplens {name} …`."
        say_error(f"`{command}` has no option {name!r}{close}.", hint=hint)
    else:
        error.message = plain_fault(error.message)
        explained = f"`{context.command_path} -h` explains it." if context else None
        say_error(error.format_message(), hint=explained)
    sys.exit(error.exit_code)
