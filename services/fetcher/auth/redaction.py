"""Keeps secrets out of what is told: a server may say back what we showed it, in any of the ways in which text travels. Pure.

Every secret is known here from the moment it is used, and is replaced in all that comes from a server before it goes into a
failure, a log, a fact or a message of progress.
"""

import base64
import html
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, quote_plus

from pullonce.errors import Permanent, PullonceError, Retryable
from pullonce.printable import printable
from services.fetcher.auth.secret import Secret

_SHOWN = "[secret]"
_MOST = 1000
"""Secrets that are remembered of ours, and as many of strangers, the latest: tokens live for minutes."""
_SHORT = 4
"""Letters below which a secret is replaced as a word only: else hardly a text would stay readable."""


class Secrets:
    """The secrets that are in use, and what hides them.

    What strangers bring is kept apart: with however many made-up logins they come, what is ours stays hidden.
    """

    def __init__(self) -> None:
        self._ours: dict[str, set[str]] = {}
        self._strangers: dict[str, set[str]] = {}
        self._by_length: dict[int, Counter[str]] = {}
        self._words: dict[str, re.Pattern[str]] = {}

    def keep(self, *values: str, strangers: bool = False) -> None:
        """From now on these are hidden.

        Args:
            strangers: they were brought by a client, or given for what it brought.
        """
        table = self._strangers if strangers else self._ours
        for value in filter(None, values):
            forms = table.pop(value, None)
            if forms is None:
                forms = _forms(value)
                self._hide(forms)
            table[value] = forms  # behind all others: it was used last
        while len(table) > _MOST:
            self._show(table.pop(next(iter(table))))

    def keep_secret(self, secret: Secret | None, *, strangers: bool = False) -> None:
        """The same, of all that a secret holds."""
        if secret is not None:
            basic = secret.basic if secret.password else ""
            self.keep(secret.password, basic, secret.identity_token, secret.registry_token, strangers=strangers)

    def clean(self, text: str) -> str:
        """Text without the secrets that are in use."""
        # One secret may be a part of another, and one form of another form: what is longer goes first.
        for length in sorted(self._by_length, reverse=True):
            for form in self._by_length[length] if length <= len(text) else ():
                if form in text:
                    word = self._words.get(form)
                    text = word.sub(_SHOWN, text) if word else text.replace(form, _SHOWN)
        return text

    def _hide(self, forms: set[str]) -> None:
        for form in forms:
            self._by_length.setdefault(len(form), Counter())[form] += 1
            if len(form) < _SHORT:
                self._words[form] = re.compile(rf"(?<!\w){re.escape(form)}(?!\w)")

    def _show(self, forms: set[str]) -> None:
        for form in forms:
            same = self._by_length[len(form)]
            same[form] -= 1
            if not same[form]:
                del same[form]
                self._words.pop(form, None)
            if not same:
                del self._by_length[len(form)]

    def told(self, text: str, limit: int = 0) -> str:
        """One line for people out of what a server said, without secrets and without anything that commands a terminal."""
        return printable(self.clean(text), limit)

    @contextmanager
    def cleaning(self) -> Iterator[None]:
        """What fails within is told without secrets.

        Raises:
            Permanent, Retryable: the very failure, cleaned; in place of any other error that would tell a secret, one that
            does not.
        """
        try:
            yield
        except (Permanent, Retryable) as exc:
            exc.args = (self.told(str(exc)),)
            raise
        except PullonceError:
            raise
        except Exception as exc:
            words = str(exc)
            if (clean := self.clean(words)) == words:
                raise
            what = f"{type(exc).__name__}: {printable(clean, 1000)}"
            raise Retryable(what, code="internal", concerns="source") from None


_PERCENT = re.compile("%[0-9A-F]{2}")


def _forms(value: str) -> set[str]:
    """A secret as it stands in texts, URLs, JSON, HTML, and in base64, alone or with something around it."""
    octets = value.encode(errors="surrogatepass")
    text = {value, " ".join(value.split())}
    for each in (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]):
        text |= {each, each.replace("/", "\\/"), each.replace("\\", "\\\\")}
    text |= {"".join(f"\\u{ord(letter):04x}" if ord(letter) < 0x10000 else letter for letter in value)}
    text |= {html.escape(value), html.escape(value, quote=False), repr(value)[1:-1], octets.hex(), octets.hex().upper()}
    url = {quote(octets, safe=""), quote(octets), quote_plus(octets), "".join(f"%{octet:02X}" for octet in octets)}
    url |= {_PERCENT.sub(lambda found: found[0].lower(), each) for each in url}
    text |= url | {quote(each, safe="") for each in url}
    if len(octets) >= _SHORT:
        text |= set(_within_base64(octets))
    return {form for form in text if form.strip()}


def _within_base64(octets: bytes) -> Iterator[str]:
    """Base64 of anything that contains these octets contains one of three texts, by where they begin in a group of three."""
    for before in range(3):
        coded = base64.b64encode(bytes(before) + octets).decode().rstrip("=")
        begin = (0, 2, 3)[before]
        end = len(coded) if (before + len(octets)) % 3 == 0 else len(coded) - 1
        if (inner := coded[begin:end]) and len(inner) >= _SHORT:
            yield inner
            yield inner.replace("+", "-").replace("/", "_")
    for whole in (base64.b64encode(octets), base64.urlsafe_b64encode(octets)):
        yield whole.decode()
        yield whole.decode().rstrip("=")
