"""The page that asks for a key: a form, without script."""

from __future__ import annotations

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>farthing: log in</title>
</head>
<body>
<main>
<h1>farthing</h1>
{wrong}<form method="post" action="/login">
<p><label>Key <input type="password" name="key" autocomplete="current-password" required autofocus></label>
<button>Log in</button></p>
</form>
<p>An admin makes one with <code>farthing web key add NAME</code>.</p>
</main>
</body>
</html>
"""
_WRONG = '<p role="alert">No such key is in force. Check it, or ask for another.</p>\n'


def form(wrong: str) -> str:
    return _PAGE.format(wrong=_WRONG if wrong else "")
