"""Rounds between members, and who hears of news.

Theory. News goes at once to FANOUT members, chosen anew each time, which tell others in turn
(Demers and others 1987, rumor mongering); what that misses, rounds find: every ROUND_MS a member
sends the digests of its parts to FANOUT others, which answer with their versions of the parts that
differ (anti-entropy). For what differs, a talk is begun (`dwcp.crdt.talks`). A member that has just
been connected is compared with at once.

Links 0 to CLIENTS-1 are members by number, the others clients' connections: a client hears of the
documents that it opened and takes no part in rounds.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Final

from dwcp.crdt import Operation, Store, document_of
from dwcp.crdt.images import Images
from dwcp.crdt.talks import Heard, Link, Talks
from dwcp.wire.documents import SyncMessage
from dwcp.wire.gossip import (
    Digests,
    GossipMessage,
    ImageAsk,
    ImagePart,
    Taken,
    Versions,
    encode_gossip,
    part_of,
)
from dwcp_replica.gossip.parts import Parts

ROUND_MS: Final = 5_000
FANOUT: Final = 3
CLIENTS: Final = 1 << 20
"""Links from here on are clients."""
CONTROL_MAX: Final = 256
"""Digests and Versions that wait for one link."""


class Gossip:
    """One member's documents, and what it says of them. `draw(n)` gives a number below n."""

    def __init__(
        self, store: Store, draw: Callable[[int], int], wake: Callable[[Link], None]
    ) -> None:
        self.store = store
        self.parts = Parts()
        self.talks = Talks(store, wake)
        self.images = Images(store)
        self.on_image: Callable[[Link, ImagePart], None] = lambda _link, _part: None
        self._draw = draw
        self._wake = wake
        self._control: dict[Link, deque[Digests | Versions | ImageAsk | ImagePart]] = {}
        self._open: dict[str, OrderedDict[Link, None]] = {}
        self._next_round_ms = 0
        for document in store:
            self.parts.note(document)

    # links

    def connect(self, link: Link) -> None:
        """A connection stands; a member is compared with at once."""
        self.talks.add(link)
        self._control[link] = deque(maxlen=CONTROL_MAX)
        if link < CLIENTS:
            self.tell(link, Digests(self.parts.digests()))

    def disconnect(self, link: Link) -> None:
        """We can not send to it any more; a client's connection is gone for good."""
        if link < CLIENTS:
            self.talks.remove(link)
        else:
            self.talks.forget(link)
        self._control.pop(link, None)
        for name in [name for name, links in self._open.items() if link in links]:
            self.close(link, name)

    def open(self, link: Link, name: str, now_ms: int) -> None:
        """A client wants a document, and its news."""
        self._open.setdefault(name, OrderedDict())[link] = None
        self.talks.begin(link, name, now_ms)

    def close(self, link: Link, name: str) -> None:
        """A client wants no more news of a document."""
        links = self._open[name]
        del links[link]
        if not links:
            del self._open[name]

    def opened(self, name: str) -> list[Link]:
        """The clients that have a document open."""
        return list(self._open.get(name, ()))

    # what comes in

    def receive(self, link: Link, message: GossipMessage, size_bytes: int, now_ms: int) -> Heard:
        """Take a message; what it applied has to be made durable before anyone is told so."""
        match message:
            case SyncMessage():
                heard = self.talks.receive(link, message, size_bytes, now_ms)
                self._changed(heard, link)
                return heard
            case Digests():
                self._compare(link, message)
            case Versions():
                self._compare_versions(link, message, now_ms)
            case Taken():
                self.talks.taken(link, message)
            case ImageAsk():
                self._give(link, message)
            case ImagePart():
                self.on_image(link, message)
        return Heard("")

    def deliver(self, operation: Operation) -> Heard:
        """Take an operation that came by another way: the log, or a request of its own."""
        name = document_of(operation)
        if name is None:
            return Heard("", (), ("malformed",))
        received = self.store.receive(operation)
        heard = Heard(name, received.applied, (received.reason,) if received.reason else ())
        self._changed(heard, None)
        return heard

    def epoch_known(self, epoch: int) -> list[Heard]:
        """Judge what was held for this epoch; what that applied, by document."""
        found = []
        for document in self.store:
            heard = Heard(document.name, document.epoch_known(epoch))
            self._changed(heard, None)
            if heard.applied:
                found.append(heard)
        return found

    # what goes out

    def tick(self, now_ms: int) -> None:
        """Begin a round when one is due, and again what was lost."""
        self.talks.tick(now_ms)
        if now_ms >= self._next_round_ms:
            self._next_round_ms = now_ms + ROUND_MS
            digests = Digests(self.parts.digests())
            for link in self._chosen(self._members()):
                self.tell(link, digests)

    def say(self, link: Link, now_ms: int) -> bytes | None:
        """The next frame for a link; None when there is nothing."""
        control = self._control.get(link)
        if control:
            return encode_gossip(control.popleft())
        return self.talks.say(link, now_ms)

    def members(self) -> list[Link]:
        """The members that are connected."""
        return self._members()

    def renewed(self, name: str) -> None:
        """A document was collected, or stands on an image now."""
        self.parts.note(self.store.document(name))

    def _changed(self, heard: Heard, source: Link | None) -> None:
        if not heard.applied:
            return
        self.parts.note(self.store.document(heard.document))
        members = [link for link in self._members() if link != source]
        # with nobody else to tell, a round tells the others
        self.talks.news(heard.document, self._chosen(members))
        self.talks.news(heard.document, (x for x in self.opened(heard.document) if x != source))

    def _members(self) -> list[Link]:
        return [link for link in self.talks.links if link < CLIENTS]

    def _chosen(self, links: Iterable[Link]) -> list[Link]:
        """Up to FANOUT of them, at random."""
        pool = sorted(links)
        while len(pool) > FANOUT:
            pool.pop(self._draw(len(pool)))
        return pool

    def tell(self, link: Link, message: Digests | Versions | ImageAsk | ImagePart) -> None:
        """Have this said to a link before anything else."""
        control = self._control.get(link)
        if control is not None:
            control.append(message)
            self._wake(link)

    def _give(self, link: Link, ask: ImageAsk) -> None:
        """Answer with a part of an image; one waits for a link at a time, whoever asks for more."""
        control = self._control.get(link)
        if control is not None and not any(isinstance(one, ImagePart) for one in control):
            self.tell(link, self.images.part(ask))

    def _compare(self, link: Link, message: Digests) -> None:
        for part, (ours, theirs) in enumerate(
            zip(self.parts.digests(), message.parts, strict=True)
        ):
            if ours != theirs:
                for versions in self.parts.shown(part):
                    self.tell(link, versions)

    def _compare_versions(self, link: Link, message: Versions, now_ms: int) -> None:
        theirs = {version.document: version.state for version in message.versions}
        names = dict.fromkeys(self.parts.names(message.part, message.low, message.high))
        names |= dict.fromkeys(name for name in theirs if part_of(name) == message.part)
        for name in names:
            if self.parts.state(name) != theirs.get(name):
                self.talks.begin(link, name, now_ms)
