"""`farthing statusline`: what this Claude Code session costs, under its prompt."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from farthing.cli._app import BadInput, app


@app.command
def statusline(
    *,
    install: Annotated[
        bool,
        Parameter(
            negative="", help="The piece of settings.json that asks for the line; with --yes, written."
        ),
    ] = False,
    yes: Annotated[bool, Parameter(negative="", help="Write it; everything else in the file stays.")] = False,
    json: Annotated[bool, Parameter(negative="", help="The figures of the line, exact.")] = False,
    refresh: Annotated[bool, Parameter(negative="", show=False)] = False,
) -> int:
    """One line for Claude Code's statusLine setting, from the JSON that it gives on stdin (docs/statusline.md)."""
    if yes and not install:
        raise BadInput("--yes goes with --install")
    if install:
        import json as text

        from farthing.cli._statusline_slow import piece, settings_path, written

        if not yes:
            print(text.dumps({"statusLine": piece()}, indent=2))
            print(f"for {settings_path()}: farthing statusline --install --yes writes it there")
            return 0
        try:
            print(written(settings_path()))
        except (OSError, ValueError) as error:
            raise BadInput(str(error)) from error
        return 0
    if refresh:
        from datetime import UTC, datetime

        from farthing.cli._statusline_slow import refresh as again

        again(datetime.now(UTC))
        return 0
    from farthing.cli._statusline import say

    say(json=json)
    return 0
