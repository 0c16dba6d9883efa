"""The brief's metrics by component, read off what the replica counts anyway.

dwcp_v3_component_operations_total{component}     how often it did its work
dwcp_v3_component_errors_total{component}         how often it refused or failed
dwcp_v3_component_latency_seconds{component}      how long it took
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import Counter, Histogram
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

_NAME = "dwcp_v3_component"


@dataclass(frozen=True, slots=True)
class Component:
    """One part of a replica: the histogram of its work, and the counters of its failures."""

    name: str
    work: Histogram
    failures: tuple[Counter, ...]


class ComponentCollector(Collector):
    """Shows each component's histogram and counters again, under the brief's names."""

    def __init__(self, *components: Component) -> None:
        self._components = components

    def collect(self) -> Iterator[Metric]:
        """What Prometheus reads."""
        done = CounterMetricFamily(f"{_NAME}_operations", "Operations.", labels=["component"])
        failed = CounterMetricFamily(f"{_NAME}_errors", "Refusals, failures.", labels=["component"])
        took = HistogramMetricFamily(
            f"{_NAME}_latency_seconds", "Of one operation.", labels=["component"]
        )
        for component in self._components:
            labels = [component.name]
            buckets, total, count = _read(component.work)
            done.add_metric(labels, count)
            took.add_metric(labels, buckets, total)
            failed.add_metric(labels, sum(map(_total, component.failures)))
        yield from (done, failed, took)


def _read(histogram: Histogram) -> tuple[list[tuple[str, float]], float, float]:
    """The buckets of a histogram without labels, its sum and its count."""
    (metric,) = histogram.collect()
    buckets = [
        (sample.labels["le"], sample.value)
        for sample in metric.samples
        if sample.name.endswith("_bucket")
    ]
    named = {sample.name: sample.value for sample in metric.samples}
    return buckets, named[f"{metric.name}_sum"], named[f"{metric.name}_count"]


def _total(counter: Counter) -> float:
    """What a counter counted, under whatever labels."""
    return sum(
        sample.value
        for metric in counter.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    )
