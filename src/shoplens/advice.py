"""Parts of sentences that say what to do: about a file, an unknown name, an extra that is missing."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import Final

from shoplens.errors import ChannelNotFound, FileUnusable
from shoplens.messages import marked


@dataclass(frozen=True, slots=True, kw_only=True)
class Caution:
    """A warning: nothing is broken, but needs attention."""

    text: str


def how_to_install(extra: str) -> str:
    """What follows a sentence on an extra that is missing; `extra` may be several with commas between."""
    return f"In a checkout of Shoplens: `pip install '.[{extra}]'`. With its wheel: `pip install 'WHEEL[{extra}]'`."


_FILE_ADVICE: Final = {
    errno.EACCES: "this user may not use it; change its owner or its mode, or choose another place",
    errno.EPERM: "this user may not use it; change its owner or its mode, or choose another place",
    errno.EROFS: "it is on a file system that is mounted read-only; choose another place",
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the disk quota of this user is used up; free some space",
    errno.EFBIG: "a file would be larger than this process may write; raise its limit (ulimit -f)",
    errno.ENOTDIR: "a file is where a folder should be; move it away, or choose another place",
    errno.EEXIST: "a file is where a folder should be; move it away, or choose another place",
    errno.EISDIR: "a folder is where a file should be; move it away, or choose another place",
    errno.ENOENT: "it does not exist",
    errno.ELOOP: "it is a symbolic link, which is not followed; put the file itself there",
    errno.EIO: "the disk reports an error; check it",
    errno.EMFILE: "this process has too many files open; raise its limit (ulimit -n)",
    errno.ENAMETOOLONG: "its name is too long; choose a shorter one",
}


def file_advice(error: OSError) -> str:
    """What is wrong with a file and what to do, to follow its name and a colon; without a full stop."""
    return _FILE_ADVICE.get(error.errno or 0, error.strerror or str(error) or type(error).__name__)


def file_unusable(error: OSError) -> FileUnusable:
    """Our error for one of the operating system about a file."""
    name = f"{error.filename} cannot be used" if error.filename else "A file cannot be read or written"
    return FileUnusable(f"{name}: {file_advice(error)}.")


_LONGEST_NAME: Final = 200
_MOST_NAMES: Final = 1_000


def meant(name: str, known: Iterable[str]) -> str:
    """What follows an unknown name in a sentence, like " (did you mean 'batch'?)"; "" where no name is close."""
    if len(name) > _LONGEST_NAME:  # comparing takes longer than in proportion to the length
        return ""
    close = get_close_matches(name, list(islice(known, _MOST_NAMES)), n=1)
    return marked(f" (did you mean {close[0]!r}?)") if close else ""


def no_channel(name: str, known: Iterable[str]) -> ChannelNotFound:
    """The error for a channel that the settings do not have."""
    names = sorted(known)
    return ChannelNotFound(
        f"There is no channel {name[:_LONGEST_NAME]!r}{meant(name, names)}; the channels are: {', '.join(names)}."
    )
