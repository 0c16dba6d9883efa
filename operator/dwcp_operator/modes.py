"""How a cluster chooses its mode, as fields of the resource; what members hold is a ModePolicy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal, Self

from pydantic import Field

from dwcp.wire.records import Mode, ModePolicy
from dwcp_operator.fields import Model, Time
from dwcp_operator.plan.observed import SwitchSeen

_FIRST: Final[dict[str, Mode]] = {
    "Auto": "Internet",
    "Datacenter": "Datacenter",
    "Hybrid": "Hybrid",
    "Internet": "Internet",
}
"""The mode in which a cluster begins: one that measures begins where nothing is taken on trust."""


class Modes(Model):
    """How the members measure their network and choose the mode; fixed when the cluster is made."""

    detection: bool = False
    """With mode Auto: members measure their links, report through the log, and switch when the
    median of their reports asks for another mode."""
    pinned: bool = False
    """The first mode stays, whatever is measured or asked for."""
    round_trip_low_ms: Annotated[int, Field(ge=1, le=3_600_000)] = 10
    """Below this round trip to a quorum, in milliseconds, and with the bandwidth: Datacenter."""
    round_trip_high_ms: Annotated[int, Field(ge=1, le=3_600_000)] = 50
    """Above this round trip, in milliseconds: Internet; never less than roundTripLowMs counts."""
    bandwidth_mbps: Annotated[int, Field(ge=0, le=10_000_000)] = 1000
    """Below this bandwidth, in megabits per second: Internet."""
    hysteresis_percent: Annotated[int, Field(ge=0, le=99)] = 10
    """By so much of a threshold a value must be beyond it before a mode is left."""
    dwell_seconds: Annotated[int, Field(ge=0, le=86_400)] = 20
    """For so long another mode must be asked for before it is taken."""
    cooldown_seconds: Annotated[int, Field(ge=0, le=86_400)] = 30
    """So long after a switch no other one follows by itself."""
    measure_seconds: Annotated[int, Field(ge=1, le=3600)] = 10
    """Links are measured this often."""
    probe_kib: Annotated[int, Field(ge=0, le=4096)] = 1024
    """What one probe of a short link's bandwidth may cost, in KiB; 0 for none."""

    def policy(self, mode: str) -> ModePolicy:
        """What the genesis says, for a cluster of this spec.mode."""
        return ModePolicy(
            detect=self.detection and mode == "Auto" and not self.pinned,
            first=_FIRST[mode],
            pinned=self.pinned,
            rtt_low_us=self.round_trip_low_ms * 1000,
            rtt_high_us=max(self.round_trip_low_ms, self.round_trip_high_ms) * 1000,
            rate_bps=self.bandwidth_mbps * 1_000_000,
            hysteresis_permille=self.hysteresis_percent * 10,
            dwell_ms=self.dwell_seconds * 1000,
            cooldown_ms=self.cooldown_seconds * 1000,
            measure_ms=self.measure_seconds * 1000,
            probe_bytes=self.probe_kib * 1024,
        )


class ModeSwitchStatus(Model):
    """One change of the mode that the members decided: f+1 of them say the same."""

    before: Literal["Datacenter", "Hybrid", "Internet"]
    """The mode until then."""
    after: Literal["Datacenter", "Hybrid", "Internet"]
    """The mode since."""
    reason: Literal["network", "forced"]
    """network: the median of the members' reports asked for it; forced: somebody did."""
    index: int
    """The entry of the log at which it was decided."""
    time: Time
    """When, by the members' agreed time."""
    round_trip_us: int | None = None
    """Round trip to a quorum, in microseconds: the median of the members' reports then."""
    jitter_us: int | None = None
    """Its mean change, in microseconds."""
    loss_ppm: int | None = None
    """Segments sent again, of a million."""
    bandwidth_kbps: int | None = None
    """Bandwidth to a quorum, in kilobits per second."""

    @classmethod
    def of(cls, seen: SwitchSeen) -> Self:
        """As the members show it."""
        return cls.model_validate(
            {
                "before": seen.before,
                "after": seen.after,
                "reason": seen.reason,
                "index": seen.index,
                "time": seen.time,
                "round_trip_us": seen.rtt_us,
                "jitter_us": seen.jitter_us,
                "loss_ppm": None if seen.loss is None else round(seen.loss * 1_000_000),
                "bandwidth_kbps": None if seen.rate_bps is None else seen.rate_bps // 1000,
            }
        )

    def sentence(self) -> str:
        """What happened, and the numbers that led to it."""
        numbers = ", ".join(self._numbers()) or "nothing of the network is known"
        return f"{self.before} to {self.after} at index {self.index} ({self.reason}): {numbers}"

    def _numbers(self) -> Iterator[str]:
        if self.round_trip_us is not None:
            yield f"round trip {self.round_trip_us / 1000:.2f} ms"
        if self.jitter_us is not None:
            yield f"jitter {self.jitter_us / 1000:.2f} ms"
        if self.loss_ppm is not None:
            yield f"loss {self.loss_ppm / 10_000:.2f} %"
        if self.bandwidth_kbps is not None:
            yield f"bandwidth {self.bandwidth_kbps / 1000:.1f} Mbps"
