"""What the guard found, told where `[[notify]]` of farthing.toml says: to channels that take anomalies."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from farthing.config import Channel, Config
from farthing.gateway._guard_cache import Alarm
from farthing.money import usd
from farthing.notify import NotifyError, mail, publish, secret, webhook

log = logging.getLogger("farthing.policy")


def tell(config: Config, alarm: Alarm) -> None:
    """From a thread of its own: it tries again for some seconds. What cannot be told is in the log all the same."""
    for channel in config.notify:
        if channel.events and "anomaly" not in channel.events:
            continue
        try:
            _send(channel, config, alarm)
        except (NotifyError, OSError) as error:
            log.error("channel %s: %s", channel.name, error)  # noqa: TRY400


def _send(channel: Channel, config: Config, alarm: Alarm) -> None:
    title = f"cache {alarm.kind}: {alarm.entry}"
    if channel.kind == "mail":
        mail(config.smtp, channel.to, f"[farthing] {title}", f"{title}\n\n{alarm.says}\n")
    elif channel.kind == "sns":
        _publish(channel, title, alarm.says)
    else:
        url = channel.url or secret(channel.url_env, "the address of the webhook")
        at = datetime.fromtimestamp(alarm.at_us // 1_000_000, UTC).isoformat()
        facts = {
            "kind": f"cache_{alarm.kind}",
            "entry": alarm.entry,
            "at": at,
            "usd_an_hour": usd(alarm.picos),
        }
        text = f"{title}: {alarm.says}"
        webhook(url, {"text": text} if channel.kind == "slack" else {"text": text, **facts})


def _publish(channel: Channel, title: str, says: str) -> None:
    from farthing.aws import Access, session

    region = channel.region or channel.topic_arn.split(":")[3]
    access = Access(channel.profile, channel.role_arn, channel.external_id, region)
    made = session(access).client("sns", region_name=region, endpoint_url=channel.endpoint_url or None)
    publish(made, channel.topic_arn, f"farthing: {title}", says)
