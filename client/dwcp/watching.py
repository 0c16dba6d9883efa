"""Watches: what f+1 replicas say alike happened, in order, without gap or repeat.

Every replica is pulled by itself (wire/watch.py); what it claims is a prefix of one history,
so that claims of different length can still be compared, revision by revision:

    quiet   f+1 members claim that nothing happened up to a revision: so it is
    told    f+1 members claim that the next thing happened in this revision, and was exactly this

At least one honest member is among them, and it has executed what it tells. At most f silent
members delay nothing; a member that tells otherwise than f+1 others, over its signature, has lied
and is not asked again. A member that comes back is pulled from where the watch stands.

Members and f are those of the newest epoch record that the client has verified. When the next one
is, the watch goes on with its members: what those who stay told still counts, since epochs share
one history; what those who left told does not, and all are asked anew, because what they said of
an epoch that was not known yet was dropped.

A member is pulled on while little of what it told waits for the others, and while the consumer
takes what was delivered: so a watch holds a bounded part of the history.

Sans-IO, as session.py.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final

import msgspec

from dwcp.matching import ReplyChecker
from dwcp.wire.envelope import Busy, Rejected
from dwcp.wire.signing import SIGNATURE_BYTES
from dwcp.wire.watch import (
    LAST,
    Filter,
    Page,
    Place,
    Pull,
    WatchEvent,
    decode_events,
    encode_events,
)

AHEAD_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of one member's claims that the others have not confirmed; it is not pulled on beyond that."""
REVISION_BYTES_MAX: Final = 256 * 1024 * 1024
"""Of the events of one revision: a member that claims more is not believed."""

Told = tuple[int, bytes]
"""A revision and its events as encoded."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """The next events of a watch, all of one revision; none: nothing up to `revision`."""

    watch: int
    revision: int
    events: tuple[WatchEvent, ...] = ()


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The watch stands below the compaction: what came after it is no longer known."""

    watch: int
    compact_revision: int


@dataclass(frozen=True, slots=True)
class Denied:
    """f+1 members will not show this client what it asks for."""

    watch: int
    message: str


@dataclass(slots=True)
class WatchOutput:
    """What the shell must do, in field order."""

    send: list[tuple[int, Pull]] = field(default_factory=list)
    news: list[Delivery | Cancelled | Denied] = field(default_factory=list)
    liars: list[tuple[int, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Claims:
    """What one member has told in one watch, above what is delivered.

    `after` is the place up to which it told; `told` are whole revisions with events, `part` the
    events of a revision that is not whole yet.
    """

    after: Place
    asked: bytes | None = None
    prompt: bool = False
    told: deque[Told] = field(default_factory=deque)
    part: list[WatchEvent] = field(default_factory=list)
    part_bytes: int = 0
    ahead_bytes: int = 0
    compact_revision: int = 0
    denied: str = ""

    @property
    def quiet(self) -> int:
        """The last revision up to which the member claims that nothing happened."""
        return self.told[0][0] - 1 if self.told else self.whole

    @property
    def whole(self) -> int:
        """The last revision that it told to its end."""
        revision, sub = self.after
        return revision if sub == LAST else revision - 1


@dataclass(slots=True)
class _Watch:
    """One watch; `delivered` is the revision up to which the consumer has everything."""

    number: int
    key: bytes
    range_end: bytes
    filters: tuple[Filter, ...]
    prev_kv: bool
    delivered: int
    claims: dict[int, _Claims]
    paused: bool = False
    heard: set[int] | None = None
    """The members that answered since the history's place was asked for; None: it was not."""


class WatchCore:
    """All watches of one client, whose `checker` follows the epochs."""

    def __init__(self, checker: ReplyChecker) -> None:
        self.lies: dict[int, str] = {}
        """What members that lied did, by number."""
        self.refused: Counter[str] = Counter()
        self._checker = checker
        self._connected: set[int] = set()
        self._watches: dict[int, _Watch] = {}
        self._asked: dict[tuple[int, bytes], _Watch] = {}
        self._next = 1
        self._out = WatchOutput()

    # --- what the shell calls ----------------------------------------------------------------

    def add(
        self,
        key: bytes,
        range_end: bytes,
        start_revision: int,
        filters: tuple[Filter, ...] = (),
        *,
        prev_kv: bool = False,
    ) -> int:
        """Watch from a revision on (1 or more); the watch's number."""
        assert start_revision >= 1, "revisions start at 1"
        delivered = start_revision - 1
        claims = {member: _Claims((delivered, LAST)) for member in self._checker.current}
        watch = _Watch(self._next, key, range_end, filters, prev_kv, delivered, claims)
        self._next += 1
        self._watches[watch.number] = watch
        self._pull_all(watch)
        return watch.number

    def remove(self, number: int) -> None:
        """End a watch; pages that still come for it are dropped."""
        watch = self._watches.pop(number, None)
        if watch is not None:
            for member, claims in watch.claims.items():
                self._forget(member, claims)

    def pause(self, number: int, *, paused: bool) -> None:
        """The consumer has enough for now, or takes more."""
        watch = self._watches.get(number)
        if watch is not None and watch.paused != paused:
            watch.paused = paused
            self._pull_all(watch)

    def hurry(self, number: int) -> None:
        """Ask how far the history has come: news follow, even if they are none."""
        watch = self._watches.get(number)
        if watch is None:
            return
        watch.heard = set()
        for member in sorted(self._connected):
            self._forget(member, watch.claims[member])
            self._pull(watch, member, prompt=True)

    def entered(self) -> None:
        """The checker has verified another epoch record: go on with the members that it names."""
        members = frozenset(self._checker.current)
        self._connected &= members
        for watch in list(self._watches.values()):
            for member in watch.claims.keys() - members:
                self._forget(member, watch.claims.pop(member))
            for member in members - watch.claims.keys():
                watch.claims[member] = _Claims((watch.delivered, LAST))
            for member in self._connected:
                self._forget(member, watch.claims[member])
            if watch.heard is not None:
                self.hurry(watch.number)
            self._go_on(watch)

    def connected(self, member: int) -> None:
        """A member can be asked: every watch goes on with it from where the watch stands."""
        if member not in self._checker.current:
            return
        self._connected.add(member)
        for watch in self._watches.values():
            claims = watch.claims[member]
            self._forget(member, claims)
            if claims.part:
                claims.part.clear()
                claims.part_bytes = 0
                claims.after = (claims.whole, LAST)
            self._pull(watch, member)

    def disconnected(self, member: int) -> None:
        """A member can not be asked; what it told still counts."""
        self._connected.discard(member)
        for watch in self._watches.values():
            if (claims := watch.claims.get(member)) is not None:
                self._forget(member, claims)

    def retry(self) -> None:
        """Ask again whoever was busy."""
        for watch in self._watches.values():
            self._pull_all(watch)

    def is_mine(self, member: int, request: bytes) -> bool:
        """True when the request names a pull that this member was asked."""
        return (member, request) in self._asked

    def received(self, member: int, message: Page | Busy | Rejected) -> None:
        """Take what arrived over the connection to `member`; anything unfit changes nothing."""
        watch = self._asked.get((member, message.request))
        if watch is None:
            self.refused["unknown-request"] += 1
        elif (reason := self._checker.refuse(member, message, bytes(SIGNATURE_BYTES))) is not None:
            self.refused[reason] += 1
        elif isinstance(message, Busy):
            self._forget(member, watch.claims[member])
        elif isinstance(message, Rejected):
            self._deny(watch, member, message)
        else:
            claims = watch.claims[member]
            self._forget(member, claims)
            if claims.prompt and watch.heard is not None:
                watch.heard.add(member)
            self._take(watch, member, claims, message)
            self._go_on(watch)

    def poll(self) -> WatchOutput:
        """Hand over all output."""
        out, self._out = self._out, WatchOutput()
        return out

    @property
    def _needed(self) -> int:
        return self._checker.f + 1

    # --- asking ------------------------------------------------------------------------------

    def _go_on(self, watch: _Watch) -> None:
        """Deliver what can be, and ask for more."""
        self._decide(watch)
        if watch.number in self._watches:
            self._pull_all(watch)

    def _pull_all(self, watch: _Watch) -> None:
        for member in sorted(self._connected):
            self._pull(watch, member)

    def _pull(self, watch: _Watch, member: int, *, prompt: bool = False) -> None:
        claims = watch.claims[member]
        if claims.asked is None and claims.whole < watch.delivered and not claims.part:
            claims.after = (watch.delivered, LAST)  # nobody needs what it would tell below that
            claims.compact_revision = 0
        if (
            watch.paused
            or member in self.lies
            or member not in self._connected
            or claims.asked is not None
            or claims.compact_revision
            or claims.denied
            or claims.ahead_bytes >= AHEAD_BYTES_MAX
        ):
            return
        pull = Pull(
            watch.number, watch.key, watch.range_end, claims.after, watch.filters, watch.prev_kv,
            prompt,
        )  # fmt: skip
        claims.asked, claims.prompt = pull.digest(), prompt
        self._asked[member, claims.asked] = watch
        self._out.send.append((member, pull))

    def _forget(self, member: int, claims: _Claims) -> None:
        if claims.asked is not None:
            del self._asked[member, claims.asked]
            claims.asked = None

    # --- believing ---------------------------------------------------------------------------

    def _deny(self, watch: _Watch, member: int, message: Rejected) -> None:
        """A watch is over when f+1 members refuse it: one of them is honest."""
        claims = watch.claims[member]
        self._forget(member, claims)
        claims.denied = message.message or message.reason
        if sum(bool(c.denied) for c in watch.claims.values()) >= self._needed:
            self._out.news.append(Denied(watch.number, claims.denied))
            self.remove(watch.number)

    def _take(self, watch: _Watch, member: int, claims: _Claims, page: Page) -> None:
        """Add what a member signed to its claims; a claim that can not be true is a lie."""
        if page.compact_revision:
            if page.compact_revision <= claims.after[0]:
                self._convict(member, "spoke of a compaction below what it was asked for")
            claims.compact_revision = page.compact_revision
            return None
        try:
            events = decode_events(page.events)
        except msgspec.DecodeError:
            return self._convict(member, "signed a page of events that are none")
        problem = _fault(watch, claims, page, events)
        if problem is not None:
            return self._convict(member, problem)
        for event in events:
            revision = event.kv.mod_revision
            if claims.part and claims.part[0].kv.mod_revision != revision:
                self._close_part(watch, claims)
            claims.part.append(event)
            claims.part_bytes += _size_bytes(event)
        claims.after = page.upto
        if claims.part and claims.part[0].kv.mod_revision <= claims.whole:
            self._close_part(watch, claims)
        if claims.part_bytes > REVISION_BYTES_MAX:
            self._convict(member, "told more of one revision than anybody can have written")
        return None

    def _close_part(self, watch: _Watch, claims: _Claims) -> None:
        """The revision in `part` is whole."""
        revision = claims.part[0].kv.mod_revision
        if revision > watch.delivered:
            data = encode_events(tuple(claims.part))
            claims.told.append((revision, data))
            claims.ahead_bytes += len(data)
        claims.part = []
        claims.part_bytes = 0

    def _decide(self, watch: _Watch) -> None:
        """Deliver what f+1 members agree on, as far as that goes."""
        began = watch.delivered
        while True:
            claims = [c for m, c in watch.claims.items() if m not in self.lies]
            if len(claims) < self._needed:
                return
            quiet = sorted((c.quiet for c in claims), reverse=True)[self._needed - 1]
            if quiet > watch.delivered:
                watch.delivered = quiet
                self._settle(watch, quiet, None)
                continue
            votes = Counter(c.told[0] for c in claims if c.told)
            agreed = next((told for told, n in votes.items() if n >= self._needed), None)
            if agreed is None:
                break
            revision, data = agreed
            watch.delivered = began = revision
            self._out.news.append(Delivery(watch.number, revision, decode_events(data)))
            self._settle(watch, revision, data)
        hurried = watch.heard is not None and len(watch.heard - self.lies.keys()) >= self._needed
        if hurried:
            watch.heard = None
        if watch.delivered > began or hurried:
            self._out.news.append(Delivery(watch.number, watch.delivered))
        self._check_compacted(watch)

    def _settle(self, watch: _Watch, revision: int, data: bytes | None) -> None:
        """Hold all claims up to `revision` against what is true: `data` there, nothing before."""
        for member, claims in watch.claims.items():
            if member in self.lies:
                continue
            told = claims.told[0] if claims.told and claims.told[0][0] <= revision else None
            if told is not None:
                claims.told.popleft()
                claims.ahead_bytes -= len(told[1])
            truth = None if data is None else (revision, data)
            if told != truth and (told is not None or claims.whole >= revision):
                what = f"told other events than f+1 others did, up to revision {revision}"
                self._convict(member, what)

    def _check_compacted(self, watch: _Watch) -> None:
        """A watch is over when f+1 members say that what it asks for is compacted."""
        honest = (c for m, c in watch.claims.items() if m not in self.lies)
        said = sorted((c.compact_revision for c in honest), reverse=True)
        compact_revision = said[self._needed - 1]
        if compact_revision > watch.delivered + 1:
            self._out.news.append(Cancelled(watch.number, compact_revision))
            self.remove(watch.number)

    def _convict(self, member: int, what: str) -> None:
        if member in self.lies:
            return
        self.lies[member] = what
        self._out.liars.append((member, what))
        self.disconnected(member)


def _fault(
    watch: _Watch, claims: _Claims, page: Page, events: tuple[WatchEvent, ...]
) -> str | None:
    """Why an honest member can not have signed these events as an answer to its pull."""
    if page.upto < claims.after:
        return "told less than it was asked for"
    before = claims.after[0] + (claims.after[1] == LAST)
    for event in events:
        key, revision = event.kv.key, event.kv.mod_revision
        if not before <= revision <= page.upto[0]:
            return "told events out of their order"
        before = revision
        covered = key == watch.key if not watch.range_end else key >= watch.key
        if not covered or (watch.range_end not in (b"", b"\0") and key >= watch.range_end):
            return "told events of keys that are not watched"
    return None


def _size_bytes(event: WatchEvent) -> int:
    before = 0 if event.prev_kv is None else len(event.prev_kv.key) + len(event.prev_kv.value)
    return 64 + len(event.kv.key) + len(event.kv.value) + before
