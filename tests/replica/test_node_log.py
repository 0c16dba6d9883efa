from __future__ import annotations

import json
import logging

import pytest

from dwcp_replica.node.log import JsonFormatter, TextFormatter


def _record(**extra: object) -> logging.LogRecord:
    record = logging.makeLogRecord(
        {"name": "x", "levelno": logging.WARNING, "levelname": "WARNING", "msg": "view-entered"}
    )
    record.__dict__.update(extra)
    record.created = 0.5
    return record


def test_an_event_is_one_json_line() -> None:
    line = JsonFormatter("demo-0").format(_record(view=3, reason="time\nout", odd={1}))
    assert "\n" not in line
    assert json.loads(line) == {
        "ts": "1970-01-01T00:00:00.500+00:00",
        "level": "warning",
        "event": "view-entered",
        "replica": "demo-0",
        "view": 3,
        "reason": "time\nout",
        "odd": "{1}",
    }


@pytest.mark.parametrize("formatter", [JsonFormatter("demo-0"), TextFormatter()])
def test_a_fault_brings_its_traceback(formatter: logging.Formatter) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        print(1 / 0)
    record = _record()
    record.exc_info = (caught.type, caught.value, caught.tb)
    text = formatter.format(record)
    assert "ZeroDivisionError: division by zero" in text
    assert "test_a_fault_brings_its_traceback" in text


def test_text_is_for_people() -> None:
    line = TextFormatter().format(_record(view=3, reason="timeout"))
    assert line == "00:00:00.500 warning view-entered view=3 reason=timeout"
