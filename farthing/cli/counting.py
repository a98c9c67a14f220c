"""`farthing count`: how many tokens a text is, and by which method."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._bills import Json
from farthing.cli._shared import book_of, write_json
from farthing.cli._workload import Endpoint, Online, Profile, Region, client, read_text


@app.command
def count(
    file: Annotated[Path, Parameter(allow_leading_hyphen=True, help="A text; - for stdin.")],
    *,
    model: Annotated[str, Parameter(help="Model whose tokens are counted.")] = "claude-sonnet-5-5",
    online: Online = False,
    region: Region = "",
    endpoint_url: Endpoint = "",
    profile: Profile = "",
    json: Json = False,
) -> int:
    """How many tokens a text is, and by which method: CountTokens if asked for, ctok if installed, else a ratio."""
    from farthing.count import CountError, call_id
    from farthing.count import count as counted

    book, asked = book_of(), client(online, region, endpoint_url, profile)
    text = read_text(file)
    try:
        found = counted(text, call_id(book, model) if asked else model, book, asked)
    except CountError as error:
        raise BadInput(str(error)) from error
    if json:
        write_json({"model": model, "tokens": found.tokens, "method": found.method, "about": found.about})
    else:
        print(f"{found.tokens:,} tokens for {model}  ({found.method}: {found.about})")
    return 0
