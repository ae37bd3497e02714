"""What goes wrong with the Hub, in one line that says what to do."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator

from .settings import MetatextError

ADVICE = {
    400: "the Hub does not take what was sent",
    401: "the Hub knows no such user: log in with `hf auth login`, or give a valid token",
    403: "this user may not do that: give a token that may",
    404: "there is no such repo, or it is private: look at the name, and log in with `hf auth login` or give a token",
    409: "it clashes with something that is there already",
    412: "somebody else changed the repo meanwhile: look at what they did, and push again",
    429: "too many requests: wait some minutes and try again",
}


class HubError(MetatextError):
    """The Hub cannot be reached, or does not give or take what was asked; the message says why and what to do."""


@contextlib.contextmanager
def asking(failed: str, token: str | bool | None) -> Iterator[None]:
    """What the Hub's client raises inside becomes one `HubError`, without secrets."""
    handled = sys.exception()  # by the caller: no cause of what goes wrong here
    try:
        yield
    except MetatextError:
        raise
    except Exception as error:  # of any kind: a proxy may answer with anything, and the client then trips
        raise HubError(_without_secrets(" ".join(f"{failed}: {_reason(error, handled)}".split()), token)) from None


def _reason(error: Exception, handled: BaseException | None) -> str:
    """Why the client failed; causes are followed until ``handled``."""
    from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, RevisionNotFoundError

    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) not in (None, handled, *chain):
        chain.append(cause)
    answered = next((e for e in chain if getattr(e, "response", None) is not None), None)
    if answered is not None:
        status = answered.response.status_code
        said = _first_line(getattr(answered, "server_message", None) or "")
        advice = "the Hub is in trouble: try again later" if status >= 500 else ADVICE.get(status, "")
        if isinstance(answered, RevisionNotFoundError):
            advice = "the repo has no such revision"
        elif status == 401 and "RepoNotFound" in answered.response.headers.get("X-Error-Code", ""):
            advice = ADVICE[404]
        return ", ".join(part for part in (f"status {status}", said and f"{said!r}", advice) if part)
    if any(isinstance(e, OfflineModeIsEnabled) for e in chain) or (
        isinstance(error, LocalEntryNotFoundError) and len(chain) == 1
    ):
        return "it is not in the cache, and no network call may be made (HF_HUB_OFFLINE, or local_files_only)"
    lost = next((e for e in chain if isinstance(e, HTTPError)), None)
    if lost is not None:
        return f"no whole answer from the Hub ({type(lost).__name__}: {lost}); look at the connection and at HF_ENDPOINT, and try again"
    return ", because of ".join(f"{type(e).__name__}: {_first_line(str(e))}" for e in dict.fromkeys((error, chain[-1])))


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:200]


def _without_secrets(text: str, token: str | bool | None) -> str:
    """A server, or a URL, may repeat the token that it was sent."""
    from huggingface_hub import get_token

    secret = get_token() if token in (None, True) else token
    text = text.replace(secret, "***") if isinstance(secret, str) and secret else text
    return re.sub(r"\bhf_\w{6,}|(?<=://)[^/\s@]+(?=@)", "***", text)
