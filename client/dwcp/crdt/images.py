"""An agreed image in parts: who lacks a document's past takes it from anyone, and checks it.

The digest is agreed through the log, so that nobody is trusted here: parts that make another image
are thrown away, and another source is asked.
"""

from __future__ import annotations

from typing import Final

from dwcp.crdt.store import Store
from dwcp.wire.frontiers import image_digest
from dwcp.wire.gossip import IMAGE_PART_BYTES, ImageAsk, ImagePart

KNOWN_MAX: Final = 1024


class WrongImage(Exception):  # noqa: N818 - named as what it is
    """The source has no such image, or another one."""


class Fetching:
    """One image from one source. Its first `ask` is said when it is made."""

    def __init__(self, document: str, image: bytes) -> None:
        self._document, self._image = document, image
        self._got = bytearray()

    def ask(self) -> ImageAsk:
        """What to ask the source for next."""
        return ImageAsk(self._document, self._image, len(self._got))

    def take(self, part: ImagePart) -> bytes | None:
        """The image once it is whole; None while parts are lacking. Raises WrongImage."""
        if (part.document, part.image, part.offset) != (
            self._document,
            self._image,
            len(self._got),
        ):
            return None  # an answer to an earlier question
        self._got += part.data
        if not part.data or len(self._got) > part.total:
            raise WrongImage
        if len(self._got) < part.total:
            return None
        if image_digest(bytes(self._got)) != self._image:
            raise WrongImage
        return bytes(self._got)


class Images:
    """Serves the images on which documents stand."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, tuple[bytes, bytes]] = {}

    def part(self, ask: ImageAsk) -> ImagePart:
        """The part that was asked for; empty when the document stands on another image."""
        image = self._store.find(ask.document).image
        if image is None or self._digest(ask.document, image) != ask.image:
            return ImagePart(ask.document, ask.image, ask.offset, 0, b"")
        data = image[ask.offset : ask.offset + IMAGE_PART_BYTES]
        return ImagePart(ask.document, ask.image, ask.offset, len(image), data)

    def _digest(self, document: str, image: bytes) -> bytes:
        known = self._known.get(document)
        if known is None or known[0] is not image:
            self._known.pop(document, None)
            known = self._known[document] = image, image_digest(image)
            if len(self._known) > KNOWN_MAX:
                del self._known[next(iter(self._known))]
        return known[1]
