"""`farthing savings`: the cheapest plan for the traffic as it is, and its proof."""

from __future__ import annotations

from cyclopts import App

from farthing.cli._app import app

group = App(name="savings", help="The cheapest plan that the owners of workloads allow, with its proof.")
app.command(group)
