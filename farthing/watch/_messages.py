"""Events as a person wants to read them at night: what, how much, since when, why, what to run; and the way out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from farthing.aws import Access, session
from farthing.config import Channel, Config
from farthing.notify import PAUSES, NotifyError, mail, publish, secret, webhook
from farthing.watch._events import Event

_MOST = 20  # events in one message; Slack takes 50 blocks
_SLACK_CHARS = 2900  # of a block


def send(channel: Channel, config: Config, events: Sequence[Event], pauses: Sequence[float] = PAUSES) -> None:
    """One message with these events. NotifyError if it was not delivered."""
    if channel.kind == "mail":
        mail(config.smtp, channel.to, f"[farthing] {summary(events)}", text(events), pauses=pauses)
    elif channel.kind == "sns":
        publish(_sns(channel), channel.topic_arn, f"farthing: {summary(events)}", text(events))
    else:
        what = "the address of the webhook"
        url = channel.url or secret(channel.url_env, what)
        webhook(url, slack(events) if channel.kind == "slack" else plain(events), pauses=pauses)


def _sns(channel: Channel) -> Any:
    """A client in the region of the topic, reached as sources are."""
    region = channel.region or channel.topic_arn.split(":")[3]
    access = Access(channel.profile, channel.role_arn, channel.external_id, region)
    try:
        return session(access).client("sns", region_name=region, endpoint_url=channel.endpoint_url or None)
    except OSError as error:
        raise NotifyError(f"SNS topic {channel.topic_arn.rpartition(':')[2]}: {error}") from None


def summary(events: Sequence[Event]) -> str:
    return events[0].title + (f"; and {len(events) - 1} more" if len(events) > 1 else "")


def text(events: Sequence[Event]) -> str:
    """For a terminal, or a mail."""
    parts = []
    for event in events:
        width = max((len(name) for name, _ in event.lines), default=0)
        parts.append("\n".join([event.title, *(f"  {name:<{width}}  {said}" for name, said in event.lines)]))
    return "\n\n".join(parts) + "\n"


def slack(events: Sequence[Event]) -> dict[str, Any]:
    """For Slack, and what understands its messages. `text` is what a phone shows before it is opened."""
    blocks = []
    for event in events[:_MOST]:
        lines = [f"*{_escaped(event.title)}*"]
        lines += [
            f"*{name}*  " + (f"`{_escaped(said)}`" if name == "run" else _escaped(said))
            for name, said in event.lines
        ]
        blocks.append(_section("\n".join(lines)))
    if len(events) > _MOST:
        blocks.append(_section(f"and {len(events) - _MOST} more: `farthing anomalies`, `farthing budgets`"))
    return {"text": _escaped(f"farthing: {summary(events)}"), "blocks": blocks}


def _section(said: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": said[:_SLACK_CHARS]}}


def _escaped(said: str) -> str:
    """As Slack asks; and no name of a team or model becomes bold or a code."""
    said = said.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"[*`~]", "'", said)


def plain(events: Sequence[Event]) -> dict[str, Any]:
    """For programs."""
    return {
        "from": "farthing",
        "events": [
            {"key": event.key, "kind": event.kind, "title": event.title, "team": event.team}
            | {"lines": [{"name": name, "text": said} for name, said in event.lines], "facts": event.facts}
            for event in events
        ],
    }
