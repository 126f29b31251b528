"""What only the fetcher can answer, asked over the bus: it has the registries' logins, certificates, mirrors and limits."""

from collections.abc import Callable
from typing import TypeVar

from pullonce.bus.ports import Signals
from pullonce.errors import PullonceError
from schemas import registry
from schemas.malformed import Malformed
from schemas.subjects import registry_subject
from services.gateway.mirror.refusals import Refusal, refusal_of

_WITHIN = 10.0
"""Seconds that a registry has. Clients wait 30 for the head of an answer, and ask it themselves where we give none."""
A = TypeVar("A", bound=registry.RegistryAnswer)


class Questions:
    """Asks the fetchers of one store.

    Args:
        signals: the bus; raises PullonceError where it is away.
    """

    def __init__(self, signals: Callable[[], Signals], store: str) -> None:
        self._signals = signals
        self._subject = registry_subject(store)

    async def ask(self, question: registry.Question, kind: type[A]) -> A:
        """Ask, and wait for an answer of one kind.

        Raises:
            Refusal: the registry refuses, or nobody answers in time.
        """
        try:
            answer = registry.decode_answer(
                await self._signals().request(self._subject, registry.encode(question), timeout=_WITHIN)
            )
        except TimeoutError:
            raise Refusal(f"no fetcher has an answer within {_WITHIN:g} s", "pullonce.late") from None
        except Malformed as exc:
            raise Refusal(f"a fetcher of another version answers: {exc}", "pullonce.unavailable") from None
        except PullonceError as exc:
            raise refusal_of(exc) from None
        if isinstance(answer, kind):
            return answer
        if isinstance(answer, registry.Refused):
            raise Refusal(answer.message, answer.code)
        raise Refusal(f"a fetcher answers with {type(answer).__name__}", "pullonce.unavailable")
