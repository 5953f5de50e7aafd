"""Read a declarative Jenkinsfile as a tree of blocks, and say what in it is not where the declarative syntax has it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

TOKEN: Final = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?\*/)
    |(?P<string>'''(?:\\.|[^\\])*?'''|\"\"\"(?:\\.|[^\\])*?\"\"\"|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*")
    |(?P<open>[({\[])|(?P<close>[)}\]])
    |(?P<end>\n)|(?P<space>[ \t\r]+)
    |(?P<word>[A-Za-z_]\w*)|(?P<other>[^'"/]|/)""",
    re.VERBOSE | re.DOTALL,
)
PAIRS: Final = {"(": ")", "{": "}", "[": "]"}
ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "\n": ""}

# Which blocks and steps may stand in a block. What is not named here may have any Groovy in it.
PLACES: Final[dict[str, set[str]]] = {
    "": {"pipeline"},
    "pipeline": {
        "agent", "environment", "libraries", "options", "parameters", "post", "stages", "tools", "triggers",
    },
    "stages": {"stage"},
    "stage": {"agent", "environment", "input", "options", "parallel", "post", "stages", "steps", "tools", "when"},
    "post": {
        "aborted", "always", "changed", "cleanup", "failure", "fixed", "regression", "success", "unstable",
        "unsuccessful",
    },
    "agent": {"any", "docker", "dockerfile", "kubernetes", "label", "none", "node"},
    "parameters": {"booleanParam", "choice", "password", "string", "text"},
    "triggers": {"cron", "pollSCM", "upstream"},
    "options": {
        "buildDiscarder", "disableConcurrentBuilds", "disableResume", "durabilityHint", "parallelsAlwaysFailFast",
        "preserveStashes", "quietPeriod", "retry", "skipDefaultCheckout", "skipStagesAfterUnstable", "timeout",
        "timestamps",
    },
}  # fmt: skip
STEPS: Final = {
    "archiveArtifacts", "bat", "catchError", "checkout", "deleteDir", "dir", "echo", "error", "git", "junit", "mail",
    "readFile", "retry", "script", "sh", "sleep", "stash", "timeout", "unstable", "unstash", "warnError", "withEnv",
    "writeFile",
}  # fmt: skip
HOLD_STEPS: Final = {"steps", *PLACES["post"], "catchError", "dir", "retry", "timeout", "warnError", "withEnv"}
NEEDED: Final = {"": {"pipeline"}, "pipeline": {"agent", "stages"}, "stages": {"stage"}}
REPEATED: Final = {"stage"} | PLACES["parameters"] | STEPS


class NotGroovy(ValueError):
    """Braces or quotes do not fit, with the line where it is seen."""


@dataclass(slots=True, kw_only=True)
class Statement:
    """`name arguments { blocks }`; `strings` are the values of the string literals among the arguments."""

    name: str
    line: int
    arguments: str = ""
    strings: list[str] = field(default_factory=list)
    block: list[Statement] | None = None

    def inside(self, name: str) -> list[Statement]:
        """The statements of that name in the block."""
        return [each for each in self.block or [] if each.name == name]

    def all(self) -> Iterator[Statement]:
        """This one and every one below it."""
        yield self
        for each in self.block or []:
            yield from each.all()


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A piece of the text and the line that it begins in."""

    kind: str
    text: str
    line: int


def parse(text: str) -> Statement:
    """The whole file as a statement without a name. Raises NotGroovy."""
    tokens = list(_tokens(text))
    statements, rest = _statements(tokens, 0)
    if rest < len(tokens):
        raise NotGroovy(f"line {tokens[rest].line}: {tokens[rest].text!r} closes nothing")
    return Statement(name="", line=1, block=statements)


def faults(file: Statement) -> list[str]:
    """What the declarative syntax does not have, or not there."""
    return [fault for each in file.all() for fault in _faults_of(each)]


def shell_steps(file: Statement) -> list[str]:
    """The scripts of the `sh` steps, in order."""
    return [each.strings[-1] for each in file.all() if each.name == "sh"]


def _tokens(text: str) -> Iterator[Token]:
    line, at = 1, 0
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None:
            raise NotGroovy(f"line {line}: a quote that does not end")
        kind = str(match.lastgroup)
        if kind not in {"comment", "space"}:
            yield Token(kind=kind, text=match.group(), line=line)
        line += match.group().count("\n")
        at = match.end()


def _statements(tokens: list[Token], at: int) -> tuple[list[Statement], int]:
    """The statements from `at` up to the brace that closes their block, or to the end."""
    found: list[Statement] = []
    while at < len(tokens) and tokens[at].kind != "close":
        if tokens[at].kind == "end":
            at += 1
            continue
        statement, at = _statement(tokens, at)
        found.append(statement)
    return found, at


def _statement(tokens: list[Token], at: int) -> tuple[Statement, int]:
    first = tokens[at]
    statement = Statement(name=first.text if first.kind == "word" else "", line=first.line)
    at += first.kind == "word"
    while at < len(tokens):
        token = tokens[at]
        if token.kind == "close" or (token.kind == "end" and not _goes_on(tokens, at)):
            break
        if token.text == "{":
            statement.block, at = _block(tokens, at)
            break
        at = _take(statement, tokens, at)
    return statement, at


def _goes_on(tokens: list[Token], at: int) -> bool:
    """A line that ends with a comma is continued."""
    return tokens[at - 1].text == ","


def _take(statement: Statement, tokens: list[Token], at: int) -> int:
    """One argument token, or a whole pair of parentheses or brackets."""
    token = tokens[at]
    statement.arguments += f"{token.text} " if token.kind != "end" else ""
    if token.kind == "string":
        statement.strings.append(_value(token.text))
    if token.kind != "open":
        return at + 1
    inner = at + 1
    while inner < len(tokens) and tokens[inner].kind != "close":
        inner = _block(tokens, inner)[1] if tokens[inner].text == "{" else _take(statement, tokens, inner)
    _require_close(token, tokens, inner)
    statement.arguments += tokens[inner].text
    return inner + 1


def _block(tokens: list[Token], at: int) -> tuple[list[Statement], int]:
    statements, end = _statements(tokens, at + 1)
    _require_close(tokens[at], tokens, end)
    return statements, end + 1


def _require_close(opened: Token, tokens: list[Token], at: int) -> None:
    if at >= len(tokens):
        raise NotGroovy(f"line {opened.line}: {opened.text!r} is not closed")
    if tokens[at].text != PAIRS[opened.text]:
        raise NotGroovy(f"line {tokens[at].line}: {tokens[at].text!r} closes the {opened.text!r} of line {opened.line}")


def _value(literal: str) -> str:
    quotes = 3 if literal.startswith(("'''", '"""')) else 1
    inner = literal[quotes:-quotes]
    return re.sub(r"\\(.)", lambda match: ESCAPES.get(match[1], match[1]), inner, flags=re.DOTALL)


def _faults_of(parent: Statement) -> Iterator[str]:
    known = PLACES.get(parent.name, STEPS if parent.name in HOLD_STEPS else None)
    if known is None or parent.block is None:
        return
    names = [each.name for each in parent.block]
    where = parent.name or "the file"
    for each in parent.block:
        if each.name not in known:
            yield f"line {each.line}: {each.name or each.arguments.strip()!r} has no place in {where}"
        if names.count(each.name) > 1 and each.name not in REPEATED:
            yield f"line {each.line}: {each.name!r} stands twice in {where}"
        if each.name == "stage" and not each.strings:
            yield f"line {each.line}: a stage without a name"
        if each.name == "sh" and len(each.strings) != 1:
            yield f"line {each.line}: sh without one script"
    for name in sorted(NEEDED.get(parent.name, set()) - set(names)):
        yield f"line {parent.line}: {where} has no {name!r}"
    if parent.name == "stage" and len({"steps", "stages", "parallel"} & set(names)) != 1:
        yield f"line {parent.line}: a stage needs steps, and only once"
    if not parent.block:
        yield f"line {parent.line}: {where} is empty"
