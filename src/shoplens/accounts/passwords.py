"""Passwords: which are accepted, and how they are hashed (Argon2id) without taking the processor from everything else.

The cost is one of those that the OWASP Password Storage Cheat Sheet names: 46 MiB, one pass, one lane.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Final

from shoplens.accounts.errors import PasswordUnfit
from shoplens.errors import TooManyTries

if TYPE_CHECKING:
    from pwdlib.hashers.argon2 import Argon2Hasher

LEAST_CHARS: Final = 10
MOST_CHARS: Final = 200
_MEMORY_KIB: Final = 47_104
_HASHED_AT_ONCE: Final = 2
_MOST_WAITING: Final = 8
_LEAST_DISTINCT: Final = 4
_COMMONEST_LIST: Final = """
0987654321 0123456789 1111111111 1122334455 123123123123 123456789a 1234567890 12345678900 123456789abc 1234567891
12345678910 123456789q 1234567899 1234qwerasdf 1234qwer1234 147258369a 1q2w3e4r5t 1q2w3e4r5t6y 1qaz2wsx3edc
1qaz2wsx3e 9876543210 a123456789 aa12345678 abc1234567 abcd123456 abcd1234567 abcdefghij abcdefghijk access1234
adminadmin admin12345 admin123456 administrator administrator1 asdfasdf12 asdfghjkl1 asdfghjkl; baseball12
basketball changeme123 changeme12 changeme1234 chocolate1 computer123 dragon1234 football12 football123 freedom123
helloworld iloveyou12 iloveyou123 iloveyou1234 internet12 justinbieb leavemealone letmein123 letmein1234 liverpool1
manchester manutd1234 master1234 michael123 monkey1234 mypassword mypassword1 p@ssw0rd123 p@ssword12 p@ssword123
pa55word123 passw0rd12 passw0rd123 password01 password10 password11 password12 password123 password1234
password12345 password123! password1! password!1 password2024 password2025 password2026 passwordpassword princess12
princess123 q1w2e3r4t5 q1w2e3r4t5y6 qazwsxedc1 qazwsxedcrfv qwer123456 qwer12345678 qwerty1234 qwerty12345
qwerty123456 qwertyuiop qwertyuiop1 qwertzuiop qwertzuiop1 secret1234 shoplens12 shoplens123 shoplens1234 starwars12
sunshine12 sunshine123 superman12 superman123 test123456 test1234567 testtest12 trustno1234 welcome1234 welcome123
welcome12345 whatever12 zaq12wsxcde3 zxcvbnm123 zxcvbnm1234
"""
_COMMONEST: Final = frozenset(_COMMONEST_LIST.split())


def require_fit(password: str, *, name: str) -> None:
    """Raises PasswordUnfit with what is wrong and what to do. `name` is that of the person."""
    if len(password) < LEAST_CHARS:
        raise PasswordUnfit(f"The password has {len(password)} characters. Choose one with at least {LEAST_CHARS}.")
    if len(password) > MOST_CHARS:
        raise PasswordUnfit(f"The password has more than {MOST_CHARS} characters. Choose a shorter one.")
    folded = password.casefold()
    if name.casefold() in folded and len(password) - len(name) < LEAST_CHARS:
        raise PasswordUnfit("The password contains the name that you sign in with. Choose another one.")
    if folded in _COMMONEST or len(set(folded)) < _LEAST_DISTINCT:
        raise PasswordUnfit("This password is among the first that are guessed. Choose several words, for example.")


class PasswordHasher:
    """Hashes at most two passwords at once, in the caller's threads; few more may wait. It blocks; thread-safe."""

    def __init__(self) -> None:
        self._hashing = threading.BoundedSemaphore(_HASHED_AT_ONCE)
        self._places = threading.BoundedSemaphore(_HASHED_AT_ONCE + _MOST_WAITING)

    def hash(self, password: str) -> str:
        """The text to store. Raises TooManyTries while too many wait."""
        with self._place():
            return self._hasher.hash(password)

    def verify(self, password: str, stored: str | None) -> bool:
        """Whether it is the password of `stored`. Where there is none, it takes as long. Raises TooManyTries."""
        with self._place():
            nobody = self._of_nobody
            return self._hasher.verify(password[: MOST_CHARS + 1], stored or nobody) and stored is not None

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise TooManyTries("Too many people sign in at once. Try again in a second.", retry_after_s=1.0)
        try:
            with self._hashing:
                yield
        finally:
            self._places.release()

    @cached_property
    def _hasher(self) -> Argon2Hasher:
        from pwdlib.hashers.argon2 import Argon2Hasher

        return Argon2Hasher(time_cost=1, memory_cost=_MEMORY_KIB, parallelism=1)

    @cached_property
    def _of_nobody(self) -> str:
        return self._hasher.hash("the password of nobody")
