"""Anti-entropy of many documents over many links, pulled by whoever sends.

`sync` is one document and one peer. Here are all of them: a link is a connection to a member, a
client or a replica; over each link documents are talked about in turn. Nothing is queued as bytes:
the shell asks for the next frame (`say`) when the connection takes one, so that what is sent is the
newest, and a slow link costs nothing but its own time.

At most WINDOW_BYTES of messages are on their way over a link: the other side says what it has
worked off (`Taken`). What got lost is noticed by its silence: a talk whose sides are not level is
begun again after RETRY_MS, later and later, and given up until there is news.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from dwcp.crdt import sync
from dwcp.crdt.document import Document
from dwcp.crdt.store import Store
from dwcp.crdt.sync import SyncState
from dwcp.wire.documents import SyncMessage
from dwcp.wire.gossip import Taken, encode_gossip

Link = int
"""Names a connection; the shell gives the numbers."""

WINDOW_BYTES: Final = 4 * 1024 * 1024
TELL_BYTES: Final = WINDOW_BYTES // 4
TALKS_MAX: Final = 4096
"""Of one link; the one that was quiet longest is forgotten, which costs a longer summary."""
RETRY_MS: Final = 1_000
RETRY_MS_MAX: Final = 5_000
TRIES_MAX: Final = 8
LEVELED_MAX: Final = 4096


@dataclass(slots=True)
class Talk:
    """One document over one link.

    `due_ms`: when silence means that something was lost. `since_ms`: not level since then.
    """

    state: SyncState = field(default_factory=SyncState)
    heard_ms: int = 0
    tries: int = 0
    due_ms: int | None = None
    since_ms: int | None = None


@dataclass(slots=True)
class _Wire:
    talks: OrderedDict[str, Talk] = field(default_factory=OrderedDict)
    eager: OrderedDict[str, None] = field(default_factory=OrderedDict)
    retrying: dict[str, None] = field(default_factory=dict)
    sent_bytes: int = 0
    taken_bytes: int = 0


@dataclass(slots=True)
class _Inflow:
    """What came in since the other side's connection to us began: it may be older, or newer."""

    worked_bytes: int = 0
    told_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Heard:
    """What a message brought: operations applied, and refusals by reason."""

    document: str
    applied: tuple[bytes, ...] = ()
    refused: tuple[str, ...] = ()


class Talks:
    """Who is told what of which document. `wake` hears of links that have something to say."""

    def __init__(self, store: Store, wake: Callable[[Link], None]) -> None:
        self.store = store
        self.counts: Counter[str] = Counter()
        self.leveled_ms: deque[int] = deque(maxlen=LEVELED_MAX)
        """How long it took until both sides were level, newest last; the shell takes them out."""
        self._wake = wake
        self._links: dict[Link, _Wire] = {}
        self._inflow: dict[Link, _Inflow] = {}

    def add(self, link: Link) -> None:
        """We can send, newly or anew: nothing said over an older connection counts."""
        self._links[link] = _Wire()

    def met(self, link: Link) -> None:
        """The other side can send, newly or anew; over the same connection or one of its own."""
        self._inflow[link] = _Inflow()

    def remove(self, link: Link) -> None:
        """We can not send any more."""
        self._links.pop(link, None)

    def forget(self, link: Link) -> None:
        """The link will never be used again."""
        self.remove(link)
        self._inflow.pop(link, None)

    def __contains__(self, link: Link) -> bool:
        return link in self._links

    @property
    def links(self) -> list[Link]:
        """The connections that stand."""
        return list(self._links)

    def about(self, link: Link, name: str) -> Talk | None:
        """What is said of a document over a link; None before the first word."""
        wire = self._links.get(link)
        return None if wire is None else wire.talks.get(name)

    def begin(self, link: Link, name: str, now_ms: int) -> None:
        """The other side has another version, or may have: speak, unless it is being spoken."""
        wire = self._links.get(link)
        if wire is None:
            return
        talk = self._talk(wire, name)
        if now_ms - talk.heard_ms < RETRY_MS and talk.heard_ms:
            return
        talk.state.again()
        talk.tries = 0
        self._speak(link, wire, name)

    def news(self, name: str, links: Iterable[Link]) -> None:
        """A document has changed: tell these."""
        for link in links:
            wire = self._links.get(link)
            if wire is not None:
                self._talk(wire, name)
                self._speak(link, wire, name)

    def receive(self, link: Link, message: SyncMessage, size_bytes: int, now_ms: int) -> Heard:
        """Take a message; what it brought is in the document, and not durable yet."""
        wire = self._links.get(link)
        self._worked(link, size_bytes)
        if wire is None:  # it could not be answered; once it can, the talk begins anew
            return Heard(message.document)
        talk = self._talk(wire, message.document)
        talk.heard_ms, talk.tries = now_ms, 0
        document = self.store.find(message.document)
        result = sync.receive(document, talk.state, message)
        refused = result.refused
        if not self.store.keep(document) and result.applied:
            self.counts["store-full"] += 1
            return Heard(message.document, (), (*refused, "store-full"))
        self.counts.update(refused)
        self._settle(wire, message.document, document, talk, now_ms)
        self._speak(link, wire, message.document)
        return Heard(message.document, result.applied, refused)

    def dropped(self, link: Link, size_bytes: int) -> None:
        """A message was not taken in; it comes again, and does not fill the window."""
        self.counts["dropped"] += 1
        self._worked(link, size_bytes)

    def _worked(self, link: Link, size_bytes: int) -> None:
        flow = self._inflow.setdefault(link, _Inflow())
        flow.worked_bytes += size_bytes
        if flow.worked_bytes - flow.told_bytes >= TELL_BYTES:
            self._wake(link)

    def taken(self, link: Link, message: Taken) -> None:
        """The other side has worked off so many bytes."""
        wire = self._links.get(link)
        if wire is not None:
            wire.taken_bytes = max(wire.taken_bytes, min(message.bytes, wire.sent_bytes))
            self._wake(link)

    def say(self, link: Link, now_ms: int) -> bytes | None:
        """The next frame for this link; None when there is nothing, or when it has to wait."""
        wire = self._links.get(link)
        if wire is None:
            return None
        flow = self._inflow.get(link)
        if flow is not None and flow.worked_bytes - flow.told_bytes >= TELL_BYTES:
            flow.told_bytes = flow.worked_bytes
            return encode_gossip(Taken(flow.worked_bytes))
        while wire.eager and wire.sent_bytes - wire.taken_bytes < WINDOW_BYTES:
            name, _ = wire.eager.popitem(last=False)
            talk = wire.talks.get(name)
            if talk is None:
                continue
            document = self.store.find(name)
            message = sync.generate(document, talk.state)
            self._settle(wire, name, document, talk, now_ms)
            if message is None:
                continue
            wire.eager[name] = None
            frame = encode_gossip(message)
            wire.sent_bytes += len(frame)
            return frame
        return None

    def tick(self, now_ms: int) -> None:
        """Begin again what was lost."""
        for link, wire in self._links.items():
            for name in list(wire.retrying):
                talk = wire.talks.get(name)
                if talk is None or talk.due_ms is None:
                    del wire.retrying[name]
                elif talk.due_ms <= now_ms:
                    self._retry(link, wire, name, talk)

    def _retry(self, link: Link, wire: _Wire, name: str, talk: Talk) -> None:
        talk.due_ms = None
        del wire.retrying[name]
        if talk.tries >= TRIES_MAX:
            return  # news, or the next round, begins anew
        talk.tries += 1
        self.counts["retries"] += 1
        talk.state.again()
        self._speak(link, wire, name)

    def _talk(self, wire: _Wire, name: str) -> Talk:
        talk = wire.talks.get(name)
        if talk is None:
            talk = wire.talks[name] = Talk()
            if len(wire.talks) > TALKS_MAX:
                oldest, _ = wire.talks.popitem(last=False)
                wire.eager.pop(oldest, None)
                wire.retrying.pop(oldest, None)
        wire.talks.move_to_end(name)
        return talk

    def _speak(self, link: Link, wire: _Wire, name: str) -> None:
        wire.eager[name] = None
        self._wake(link)

    def _settle(self, wire: _Wire, name: str, document: Document, talk: Talk, now_ms: int) -> None:
        """Level: nothing is awaited. Else silence will mean a loss."""
        if sync.is_equal(document, talk.state):
            talk.due_ms = None
            wire.retrying.pop(name, None)
            if talk.since_ms is not None:
                self.leveled_ms.append(max(0, now_ms - talk.since_ms))
                talk.since_ms = None
            return
        if talk.since_ms is None:
            talk.since_ms = now_ms
        talk.due_ms = now_ms + min(RETRY_MS << talk.tries, RETRY_MS_MAX)
        wire.retrying[name] = None
