"""Gets an agreed image from whoever has it, part by part (dwcp.crdt.images)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from dwcp.crdt.images import Fetching, WrongImage
from dwcp.wire.gossip import ImageAsk, ImagePart

PART_S: Final = 5.0
"""One part takes no longer, or another source is asked."""


class ImageFetcher:
    """One image at a time; `tell` says something to a source."""

    def __init__(self, tell: Callable[[int, ImageAsk], None]) -> None:
        self._tell = tell
        self._now: tuple[int, Fetching, asyncio.Future[bytes]] | None = None

    async def fetch(self, sources: Iterable[int], document: str, image: bytes) -> bytes | None:
        """The image from the first source that has it; None when none does."""
        for source in sources:
            fetching = Fetching(document, image)
            whole: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            self._now = source, fetching, whole
            self._tell(source, fetching.ask())
            try:
                return await _whole(fetching, whole)
            except (WrongImage, TimeoutError):
                continue
            finally:
                self._now = None
        return None

    def take(self, source: int, part: ImagePart) -> None:
        """A part has come; what nobody waits for is dropped."""
        if self._now is None or self._now[0] != source or self._now[2].done():
            return
        _, fetching, whole = self._now
        before = fetching.ask()
        try:
            image = fetching.take(part)
        except WrongImage as error:
            whole.set_exception(error)
            return
        if image is not None:
            whole.set_result(image)
        elif fetching.ask() != before:
            self._tell(source, fetching.ask())


async def _whole(fetching: Fetching, whole: asyncio.Future[bytes]) -> bytes:
    """Wait for as long as parts come. Raises TimeoutError, WrongImage."""
    while not whole.done():
        before = fetching.ask().offset
        await asyncio.wait((whole,), timeout=PART_S)
        if not whole.done() and fetching.ask().offset == before:
            raise TimeoutError
    return whole.result()
