"""The limit of a request's features: it holds for all its rows together."""

from __future__ import annotations

from pathlib import Path

from server_kit import BODY, Running


def test_a_request_whose_rows_take_too_long_is_told_so_and_a_shorter_one_is_read(shop: Path) -> None:
    with (shop / "davy.toml").open("a") as settings:
        settings.write('[serving]\ntimeout = "5ms"\n')
    with Running(shop) as server:
        status, error = server.post("/predict/fraud", [{**BODY, "card": f"c{number}"} for number in range(5000)])
        assert (status, error["error"]) == (504, "TimedOut")
        assert "of 5000 rows of fraud@" in error["message"]
        for _ in range(100):  # on a busy machine the worker may be late for once
            status, error = server.post("/predict/fraud", BODY)
            if status == 200:
                break
        assert status == 200
