"""Pages without script: who is there, by a form for a key or the company's own login; and what cannot be shown."""

from __future__ import annotations

from html import escape
from urllib.parse import urlencode

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} · farthing</title>
<link rel="icon" href="/static/mark.svg" type="image/svg+xml">
<link rel="stylesheet" href="/static/style.css">
</head>
<body class="login">
<main>
<p class="brand"><img src="/static/mark.svg" alt="" width="28" height="28">Farthing</p>
<h1>{title}</h1>
{said}
</main>
</body>
</html>
"""
_OIDC = '<p><a class="button main wide" href="{href}"{first}>Log in with your company account</a></p>\n'
_KEY = """<form method="post" action="/login">
{then}<p><label for="key">Key</label>
<input id="key" type="password" name="key" autocomplete="current-password" placeholder="ftg_…" required{first}></p>
<p><button class="{button}">Log in with a key</button></p>
</form>
<p class="dim">An admin makes a key with <code>farthing web key add NAME</code>.</p>
"""
_PROBLEMS = {
    "wrong": "No such key is in force. Check it, or ask an admin for another.",
    "expired": "That login was begun in another window, or too long ago. Begin again.",
    "denied": "Your provider did not let you in. Ask whoever runs it for access to farthing.",
    "groups": (
        "You are known, and in no group that may see this. Ask an admin to name one of your groups "
        "under [web.oidc.groups] of farthing.toml."
    ),
    "provider": "Your provider could not be asked. Try again; the server’s own output says what is wrong.",
    "refused": "What your provider sent back is not to be believed. Begin again; the server’s own output says why.",
}


def form(problem: str, then: str, *, oidc: bool, keys: bool) -> str:
    """`then` is the page of ours to go on to; without a provider there is always the form for a key."""
    said = _PROBLEMS.get(problem, "")
    ways = []
    if oidc:
        href = f"/login/oidc?{urlencode({'next': then})}" if then else "/login/oidc"
        ways.append(_OIDC.format(href=escape(href), first=" autofocus"))
    if keys or not oidc:
        hidden = f'<input type="hidden" name="next" value="{escape(then)}">\n' if then else ""
        first, button = ("", "wide") if oidc else (" autofocus", "main wide")
        ways.append(_KEY.format(then=hidden, first=first, button=button))
    alert = f'<p class="problem" role="alert">{escape(said)}</p>\n' if said else ""
    return _PAGE.format(title="Log in", said=alert + '<p class="or">or</p>\n'.join(ways))


def fault(error: str, mend: str) -> str:
    """What is wrong and what to do, for who came with a browser; `backticks` are what is typed."""
    lines = [f"<p>{_coded(error)}.</p>"] + ([f'<p class="dim">{_coded(mend)}.</p>'] if mend else [])
    lines.append('<p><a class="button main wide" href="/bill">To the bill</a></p>')
    return _PAGE.format(title="This cannot be shown", said="\n".join(lines))


def _coded(text: str) -> str:
    text = escape(f"{text[:1].upper()}{text[1:]}".rstrip("."))
    return "".join(f"<code>{part}</code>" if at % 2 else part for at, part in enumerate(text.split("`")))
