"""What became of a document's conflicts, as one member tells it: no more than its word."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any, Final
from urllib.parse import quote

import aiohttp

from dwcp import errors
from dwcp.dochooks import Hooks
from dwcp.wire.gossip import sign_read_token

TOKEN_MS: Final = 60_000
ANSWER_S: Final = 5.0


async def told(hooks: Hooks, document: str, via: Collection[str] | None) -> dict[str, Any]:
    """What waits for people, the history, and how strategies do, of one document.

    The first member that answers is taken. Raises TimedOut when none does.
    """
    http = hooks.http()
    assert http is not None, "the client runs"
    expires_ms = time.time_ns() // 1_000_000 + TOKEN_MS
    token = sign_read_token(hooks.genesis.hash(), document, expires_ms, hooks.signer)
    reasons = []
    for peer in hooks.checker.peers:
        if via is not None and peer.name not in via:
            continue
        url = f"{peer.client}/dwcp/v1/docs/conflicts/{quote(document)}"
        try:
            async with http.get(
                url, ssl=hooks.trust(peer), headers={"Authorization": token.header()},
                timeout=aiohttp.ClientTimeout(total=ANSWER_S),
            ) as answer:  # fmt: skip
                if answer.status == 200:
                    return dict(await answer.json())
                reasons.append(f"{peer.name} answers {answer.status}")
        except (aiohttp.ClientError, TimeoutError) as error:
            reasons.append(f"{peer.name}: {type(error).__name__}")
    raise errors.TimedOut(f"no member tells of its conflicts: {'; '.join(reasons)}")
