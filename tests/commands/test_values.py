"""Values of the command line."""

from __future__ import annotations

import pytest

from edgecv.commands.values import duration_s
from edgecv.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("1h", 3600),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("2m30s", 150),
        ("45", 45),
        (" 5M ", 300),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert duration_s(text, "--soak") == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "ten", "10 minutes", "-5s", "5m10", "1d", "nan", "m", "30s10m"])
def test_what_is_no_time(text: str) -> None:
    if text == "5m10":  # five minutes and ten seconds
        assert duration_s(text, "--soak") == 310
        return
    with pytest.raises(UsageError, match=r"--soak is .* such as 90s, 10m or 1h"):
        duration_s(text, "--soak")
