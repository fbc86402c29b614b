"""Experiments, runs, metrics, params, tags and artifacts. `run()` is the way in; the other modules read and search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from davy.home import Home
    from davy.tracking.writer import Run


def run(name: str | None = None, *, experiment: str = "Default", params: Mapping[str, Any] | None = None, tags: Mapping[str, Any] | None = None,
        parent: str | None = None, home: Home | None = None, server: str | None = None, system_metrics: bool | float = True) -> Run:
    """Start a run: `with davy.run("late") as run: run.log(loss=0.3)`.

    It ends as FINISHED with the block, as FAILED when the block raises, as KILLED on Ctrl-C and SIGTERM. Inside another run's
    block it becomes that run's child, in the same place.

    Args:
        name: what people call it; a made-up one when left out.
        experiment: made when there is none of that name.
        parent: the id of the run that it belongs to.
        home: the project's open home (default: that of the working directory).
        server: the address of a Davy server instead, with user:password@ or with `DAVY_TOKEN` beside it (default: `DAVY_URL`).
            What is logged lies on this machine's disk first and is sent in the background, now or when the server is back.
        system_metrics: log what the machine is busy with every ten seconds, as `system/...`; or every so many seconds; or not.
    """
    from davy.tracking.writer import start

    return start(name, experiment=experiment, params=params, tags=tags, parent=parent, home=home, server=server, system_metrics=system_metrics)
