"""What a version's gate found: each check with its verdict and evidence, and the runs before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from davy.gate.record import read_report, runs, standing
from davy.registry.models import get_version
from davy.web.render import page

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from davy.home import Home


def gate(home: Home, request: Request) -> Response:
    """`/models/late/2/gate`: how the version stands, and the evidence of the run that decided it, or of the one in `?run=`."""
    name, number = request.path_params["name"], request.path_params["version"]
    with home.database.read() as connection:
        found = get_version(connection, name, number)
        history = runs(connection, name, number)
        judged = [item for item in history if item.state in ("passed", "failed")]
        wanted = request.query_params.get("run") or (judged[0].gate if judged else None)
        report = read_report(connection, wanted) if wanted else None
        stands = standing(connection, name, number)
    return page(request, "gate.html", project=home.config.project, now=home.clock.now(), found=found, standing=stands, history=history, report=report,
                shown=wanted)
