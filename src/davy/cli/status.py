"""`davy status`: what is live, and how the releases stand. Each part is a function; a new part is one more line in `PARTS`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from davy.cli import open_home
from davy.cli.output import print_json, table, when

if TYPE_CHECKING:
    from collections.abc import Callable

    from davy.home import Home


@click.command
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object: live, releases.")
def command(model: str | None, as_json: bool) -> None:
    """What is live, of MODEL or of all, and how its releases stand: their state, the evidence beside its limits, and what is still needed.

    Evidence is told as natural logarithms of e-values: harm ends a release when it reaches its limit, and a canary is promoted when
    every metric's harmlessness has reached its own.
    """
    home = open_home()
    try:
        if model is not None:
            _check(home, model)
        found = {name: gather(home, model) for name, gather, _ in PARTS}
    finally:
        home.close()
    if as_json:
        print_json(found)
        return
    for index, (name, _, tell) in enumerate(PARTS):
        if index:
            print()
        tell(found[name])


def _check(home: Home, model: str) -> None:
    from davy.registry.models import resolve

    with home.database.read() as connection:
        resolve(connection, model)


def _live(home: Home, model: str | None) -> Any:
    from davy.release.status import live

    with home.database.read() as connection:
        return live(connection, model)


def _tell_live(rows: Any) -> None:
    table([{"version": f"{row['model']}@{row['version']}", "arm": row["arm"], "weight": row["weight"], "since": when(row["since"]), "by": row["by"]}
           for row in rows], empty="No version takes traffic. Release one: davy release MODEL@VERSION")


def _releases(home: Home, model: str | None) -> Any:
    from davy.release.status import releases

    with home.database.read() as connection:
        return releases(connection, model)


def _tell_releases(found: Any) -> None:
    if not found:
        print("No release yet. Begin one: davy release MODEL@VERSION")
    for index, release in enumerate(found):
        if index:
            print()
        tell_release(release)


def tell_release(release: dict[str, Any]) -> None:
    """One release for people."""
    weights = ", ".join(f"{reference} {weight:.4g}" for reference, weight in release["weights"].items())
    print(f"release of {release['model']}@{release['version']} ({release['strategy']}): {release['state']}, since {when(release['updated'])}, {weights}")
    for reason in release["reasons"]:
        print(f"  {reason}")
    asked = release["requests"]
    if release["metrics"]:
        print(f"  {asked['stable']:,} requests of stable, {asked['canary']:,} of the canary, {asked['shadow']:,} of the shadow; "
              f"sample ratio ln E {release['sample_ratio']['ln_e']:.2f} of {release['sample_ratio']['limit']:.2f}")
        table([{"metric": row["metric"], "verdict": row["verdict"], "stable": _rate(row["stable"]), "canary": _rate(row["canary"]),
                "harm": _against(row["harm"]), "harmless": _against(row["harmless"]),
                "needed": "none suffices" if row["needed_requests"] is None else f"{row['needed_requests']:,} requests"} for row in release["metrics"]])


def _rate(arm: dict[str, Any]) -> str:
    return f"{arm['bad']:g} of {arm['of']:,}"


def _against(evidence: dict[str, float]) -> str:
    return f"{evidence['ln_e']:.2f} of {evidence['limit']:.2f}"


PARTS: tuple[tuple[str, Callable[[Home, str | None], Any], Callable[[Any], None]], ...] = (
    ("live", _live, _tell_live),
    ("releases", _releases, _tell_releases),
)
