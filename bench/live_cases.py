"""Measurements of the gateway: calls a second, what it adds to a call and to a first token, memory of open streams."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bench.cases import DATA, FARTHING, RIVAL_PYTHON, Result, Sizes, Target, case
from bench.measure import MB, ROOT, Failed, middle, run, script, take_turns

PORTKEY = "1.15.2"
RIVAL_KEY = f"sk-{'7d3f91c2' * 8}"
MODEL = "global.anthropic.claude-sonnet-4-6"
PATH = f"/model/{MODEL}/invoke"
ANSWER = json.dumps(
    {
        "id": "msg_bdrk_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-6",
        "content": [{"type": "text", "text": "word " * 120}], "stop_reason": "end_turn",
        "usage": {"input_tokens": 420, "output_tokens": 130, "cache_read_input_tokens": 0,
                  "cache_creation_input_tokens": 0},
    }
)  # fmt: skip
BODY = {
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": 300,
    "messages": [{"role": "user", "content": "x" * 1850}],
}
BUDGET = '[[budgets]]\nname = "all"\nusd = 1000000\nhold = "hard"\n'


class Timed(NamedTuple):
    """What wrk saw. `p50_ms` is of a request."""

    rps: float
    p50_ms: float
    failed: int


# --- servers -------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def served(
    argv: list[str | Path], port: int, env: dict[str, str] | None = None, wait: float = 60
) -> Iterator[int]:
    """A server, from when it answers until the block ends; gives its process id."""
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(argv, stdout=said, stderr=said, cwd=ROOT, env=os.environ | (env or {}))
        try:
            _await(port, child, said, wait)
            yield child.pid
        finally:
            child.terminate()
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _await(port: int, child: subprocess.Popen[bytes], said: Any, wait: float) -> None:
    until = time.monotonic() + wait
    while time.monotonic() < until and child.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    said.seek(0)
    raise Failed(f"{child.args!r} does not listen:\n{said.read().decode(errors='replace')[-1500:]}")


@contextlib.contextmanager
def upstream(folder: Path) -> Iterator[int]:
    """nginx, which gives every request the same answer: the quickest upstream there is."""
    port = free_port()
    (folder / "logs").mkdir(exist_ok=True)
    (folder / "nginx.conf").write_text(
        "daemon off; worker_processes 1; error_log stderr crit; pid nginx.pid;\n"
        "events { worker_connections 4096; }\n"
        "http { access_log off; keepalive_requests 100000000; client_body_temp_path body; proxy_temp_path proxy;\n"
        "fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n"
        f"server {{ listen 127.0.0.1:{port}; default_type application/json; client_max_body_size 64m;\n"
        f"add_header x-amzn-requestid $request_id;\nlocation / {{ return 200 '{ANSWER}'; }} }} }}\n"
    )
    with served([_program("nginx"), "-p", folder, "-c", folder / "nginx.conf"], port):
        yield port


def _program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if not found:
        raise Failed(f"no {name}: install it (apt-get install {name})")
    return found


@contextlib.contextmanager
def farthing_gateway(folder: Path, to: int) -> Iterator[tuple[int, int]]:
    """Ours, one worker, metering and a budget on; (port, process id)."""
    port = free_port()
    outbox = Path(tempfile.mkdtemp(dir=folder))
    (outbox / "farthing.toml").write_text(BUDGET)
    argv = [
        *FARTHING, "gateway", "--port", str(port), "--bedrock", f"http://127.0.0.1:{to}", "--outbox",
        outbox / "outbox", "--no-auth", "--config", outbox / "farthing.toml", "--budgets", outbox / "budgets.db",
    ]  # fmt: skip
    with served(argv, port, _CREDENTIALS) as pid:
        yield port, pid


_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}  # fmt: skip


@contextlib.contextmanager
def passthrough(to: int) -> Iterator[int]:
    port = free_port()
    with served(
        [sys.executable, ROOT / "bench" / "passthrough.py", str(port), f"http://127.0.0.1:{to}"], port
    ):
        yield port


@contextlib.contextmanager
def litellm(folder: Path, to: int) -> Iterator[int]:
    """LiteLLM's proxy, whose /v1/messages goes to the same upstream."""
    port = free_port()
    (folder / "litellm.yaml").write_text(
        "model_list:\n- model_name: claude-sonnet-4-6\n  litellm_params:\n    model: anthropic/claude-sonnet-4-6\n"
        f"    api_base: http://127.0.0.1:{to}\n    api_key: bench\n"
    )
    argv = [RIVAL_PYTHON.parent / "litellm", "--config", folder / "litellm.yaml", "--port", str(port), "--host",
            "127.0.0.1", "--telemetry", "False"]  # fmt: skip
    env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_MASTER_KEY": RIVAL_KEY}
    with served(argv, port, env, wait=180):
        yield port


@contextlib.contextmanager
def portkey(to: int) -> Iterator[int]:
    port = free_port()
    program = _portkey()
    if program is None:
        raise Failed("Portkey is left out: no npm")
    with served(["node", program, f"--port={port}", "--headless"], port):
        yield port


def _portkey() -> Path | None:
    folder = DATA / f"portkey-{PORTKEY}"
    program = folder / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    if not program.exists():
        npm = shutil.which("npm")
        if npm is None:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        run(
            [
                npm,
                "install",
                "--silent",
                "--no-audit",
                "--no-fund",
                "--prefix",
                folder,
                f"@portkey-ai/gateway@{PORTKEY}",
            ]
        )
    return program


# --- requests ------------------------------------------------------------------------------------------------------


def wrk(folder: Path, port: int, concurrency: int, seconds: float, path: str = PATH, **headers: str) -> Timed:
    """A 2 kB POST, over and over."""
    body = (
        BODY
        if path == PATH
        else {k: v for k, v in BODY.items() if k[0] != "a"} | {"model": "claude-sonnet-4-6"}
    )
    said = {"Content-Type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    told = "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in said.items())
    file = folder / "post.lua"
    file.write_text(f"wrk.method = 'POST'\nwrk.body = [==[{json.dumps(body)}]==]\n{told}")
    _probe(port, path, body, said)
    out = run([
        _program("wrk"), "-t1", f"-c{concurrency}", f"-d{round(seconds)}s", "--latency", "-s", file, f"http://127.0.0.1:{port}{path}"
    ]).out  # fmt: skip
    p50 = re.search(r"50%\s+([\d.]+)(us|ms|s)", out)
    rps = re.search(r"Requests/sec:\s+([\d.]+)", out)
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    if not p50 or not rps:
        raise Failed(out)
    scale = {"us": 1e-3, "ms": 1.0, "s": 1e3}[p50[2]]
    return Timed(float(rps[1]), float(p50[1]) * scale, int(failed[1]) if failed else 0)


def _probe(port: int, path: str, body: Any, headers: dict[str, str]) -> None:
    """One call, whose answer must be the upstream's: what is refused quickly is no throughput."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), headers)
    for left in range(20, -1, -1):
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                if json.load(answer)["usage"]["output_tokens"] != 130:
                    raise Failed(f"port {port} does not give the upstream's answer")
                return
        except urllib.error.URLError as error:
            if not left:
                raise Failed(f"port {port}: {error}") from None
            time.sleep(0.5)


@case
def gateway(sizes: Sizes) -> Result:
    """Calls a second through the gateway with 32 clients, one worker, metering, intents on disk and a budget on.

    wrk, the gateway and an nginx that answers at once share the processors. The floor is nginx alone. A bare
    pass-through on the same libraries meters nothing. What is added to a call is the median at one client less
    that without a gateway. So far above the floor because nginx answers from memory in C: Python's HTTP alone, in and
    out, is the pass-through; the rest is what a call must leave behind, two transactions, two lines and a sync.
    """
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as open_servers:
        folder = Path(name)
        to = open_servers.enter_context(upstream(folder))
        ours, pid = open_servers.enter_context(farthing_gateway(folder, to))
        bare = open_servers.enter_context(passthrough(to))
        ports: dict[str, tuple[int, str, dict[str, str]]] = {
            "farthing": (ours, PATH, {}), "direct": (to, PATH, {}), "pass-through": (bare, PATH, {}),
        }  # fmt: skip
        notes = []
        if RIVAL_PYTHON.exists():
            try:
                ports["LiteLLM"] = (
                    open_servers.enter_context(litellm(folder, to)),
                    "/v1/messages",
                    {"x_api_key": RIVAL_KEY},
                )
            except Failed as error:
                notes.append(f"LiteLLM's proxy is left out: {str(error)[-200:]}")
        try:
            port = open_servers.enter_context(portkey(to))
            ports["Portkey"] = (port, "/v1/messages", {
                "x_portkey_provider": "anthropic", "x_portkey_custom_host": f"http://127.0.0.1:{to}/v1",
                "x_api_key": "bench",
            })  # fmt: skip
        except Failed as error:
            notes.append(f"Portkey is left out: {str(error)[-200:]}")
        seconds = max(1.0, sizes.seconds)
        runners: dict[str, Callable[[], Any]] = {}
        for who, (port, path, headers) in ports.items():
            runners[f"{who} 1"] = lambda p=port, w=path, h=headers: wrk(folder, p, 1, seconds, w, **h)
            runners[f"{who} 32"] = lambda p=port, w=path, h=headers: wrk(folder, p, 32, seconds, w, **h)
        taken = take_turns(sizes.rounds, runners)
        if any(each.failed for who in ("farthing", "direct", "pass-through") for each in taken[f"{who} 32"]):
            raise Failed("calls were refused")
        rps = {who: middle(taken[f"{who} 32"], "rps") for who in ports}
        notes += [f"{who} answered nothing in time." for who, value in rps.items() if not value]
        added = {
            who: middle(taken[f"{who} 1"], "p50_ms") - middle(taken["direct 1"], "p50_ms") for who in ports
        }
        peers = {who: value for who, value in rps.items() if value and who not in ("farthing", "direct")}
        result = Result(
            "gateway", "requests/s", rps["farthing"], peers, floor=rps["direct"], rounds=sizes.rounds,
            others=taken.others,
        )  # fmt: skip
        result.targets = [
            Target("at least 2,500 requests/s with 32 clients", rps["farthing"], 2500, at_least=True),
            Target("at most 1 ms added to a call, with one client", added["farthing"], 1.0),
        ]
        result.peak_mb = {"farthing": resident(pid)}
        result.notes = [
            "Added to the median call of one client, in ms: "
            + ", ".join(f"{who} {value:.2f}" for who, value in added.items() if who != "direct") + ".",
            *notes,
        ]  # fmt: skip
        return result


@case
def gateway_streams(sizes: Sizes) -> Result:
    """From a request to its stream's first event through the gateway, and its memory with 1,000 streams open.

    The floor is the same without a gateway, from an upstream that answers at once.
    """
    count = 1000 if sizes.rounds > 1 else 50
    port = free_port()
    slow = free_port()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as open_servers:
        folder = Path(name)
        open_servers.enter_context(served(_streams(port, 0.0, 20, 0.0), port))
        open_servers.enter_context(served(_streams(slow, 0.5, 40, 0.25), slow))
        ours, _ = open_servers.enter_context(farthing_gateway(folder, port))
        bare = open_servers.enter_context(passthrough(port))
        path = f"{PATH}-with-response-stream"

        def first(to: int) -> dict[str, Any]:
            return script("stream_client.py", f"http://127.0.0.1:{to}{path}", "1", "200")

        runners: dict[str, Callable[[], Any]] = {
            "farthing": lambda: first(ours), "direct": lambda: first(port), "pass-through": lambda: first(bare),
        }  # fmt: skip
        taken = take_turns(sizes.rounds, runners)
        many, pid = open_servers.enter_context(farthing_gateway(folder, slow))
        script("stream_client.py", f"http://127.0.0.1:{many}{path}", "20")
        before = resident(pid)
        told, early, late = open_streams(f"http://127.0.0.1:{many}{path}", count, pid, before)
        if told["whole"] != count:
            raise Failed(f"{told['whole']} of {count} streams came whole")
        ms = {who: middle(runs, "first_ms") for who, runs in taken.items()}
        result = Result(
            "gateway_streams", "ms", ms["farthing"], {"pass-through": ms["pass-through"]}, floor=ms["direct"],
            rounds=sizes.rounds, others=taken.others,
        )  # fmt: skip
        result.targets = [
            Target("less than 2 ms added to the first event", ms["farthing"] - ms["direct"], 2.0),
            Target(f"{count} open streams grow by at most a tenth while they run", late, early * 1.1 + 5),
        ]
        result.peak_mb = {"idle": before, f"{count} streams": late}
        return result


def _streams(port: int, delay: float, events: int, gap: float) -> list[str | Path]:
    return [sys.executable, ROOT / "bench" / "stream_upstream.py", *map(str, (port, delay, events, gap))]


def open_streams(url: str, count: int, pid: int, before: float) -> tuple[dict[str, Any], float, float]:
    """(what the client saw, memory in the first half and in the second) with so many streams open at once.

    The client takes its time to begin: until the gateway has more than `before`, none is open.
    """
    client = subprocess.Popen(
        [sys.executable, ROOT / "bench" / "stream_client.py", url, str(count)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    seen = []
    while client.poll() is None:
        seen.append(resident(pid))
        time.sleep(0.2)
    out = client.communicate()[0]
    running = [megabytes for megabytes in seen if megabytes > before * 1.05] or seen
    half = max(1, len(running) // 2)
    return json.loads(out.splitlines()[-1]), max(running[:half]), max(running[half:] or running)


def resident(pid: int) -> float:
    """Memory of a process, in MB; 0 where the system does not say."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MB
    except (OSError, IndexError):
        return 0
