#!/usr/bin/env python3
"""Runs one end-to-end script against a fresh server, and checks that the server ends well.

    run_with_server.py --binary build/release/penstock tests/e2e/server_x.py [ARGUMENTS FOR THE SCRIPT]

The script is called with --base-url http://127.0.0.1:PORT and --server-pid PID. A line `# server-args: ...` in it adds
arguments to `penstock serve`, which runs with --debug-invariants. Afterwards nothing may be left running, waiting or in use
(contract S7), and SIGTERM must end the server with status 0 (contract F4). Exit status: the script's, or 1 when the server misbehaved.
"""
import argparse
import os
import pathlib
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

SOURCE = pathlib.Path(__file__).resolve().parent.parent
# Sanitized builds are up to 20 times slower.
PATIENCE = 10 if os.environ.get("PENSTOCK_SANITIZED") else 1
GAUGES = ["penstock_requests_running", "penstock_requests_waiting", "penstock_kv_pages_used",
          "penstock_state_slots_used", "penstock_windows_used"]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def get(url, timeout=10):
    try:
        with urllib.request.urlopen(url, timeout=timeout) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except OSError:
        return 0, ""


def server_args(script):
    text = pathlib.Path(script).read_text(encoding="utf-8")
    return [a for line in re.findall(r"^# server-args:(.*)$", text, re.MULTILINE) for a in shlex.split(line)]


def wait_until_healthy(server, base_url):
    deadline = time.monotonic() + 30 * PATIENCE
    while time.monotonic() < deadline:
        if server.poll() is not None:
            return f"the server ended with status {server.returncode} before it was healthy"
        if get(base_url + "/health")[0] == 200:
            return None
        time.sleep(0.02)
    return "the server was not healthy in time"


def check_idle(base_url):
    """Soon after the last client is gone nothing runs or waits, every pool is free, and the engine's own accounts hold."""
    deadline = time.monotonic() + 10 * PATIENCE
    busy = ["no answer from /metrics"]
    while busy and time.monotonic() < deadline:
        time.sleep(0.05)
        status, text = get(base_url + "/metrics")
        if status != 200:
            busy = [f"/metrics: {status}"]
            continue
        gauges = dict(re.findall(r"^(penstock_\w+_(?:running|waiting|used)) (\S+)$", text, re.MULTILINE))
        busy = [f"{name} = {value}" for name, value in gauges.items() if float(value) != 0]
        busy += [f"/metrics lacks {name}" for name in GAUGES if name not in gauges]
    if busy:
        return "not idle after the test: " + ", ".join(busy)
    status, text = get(base_url + "/debug/invariants")
    return None if status == 200 else f"/debug/invariants: {status} {text}"


def stop(server):
    if server.poll() is not None:
        return f"the server ended with status {server.returncode} during the test"
    server.send_signal(signal.SIGTERM)
    try:
        status = server.wait(timeout=30 * PATIENCE)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
        return "the server did not end after SIGTERM"
    return None if status == 0 else f"the server ended with status {status} after SIGTERM"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("script")
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    args = parser.parse_args()

    port = free_port()
    base_url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        command = [args.binary, "serve", "--port", str(port), "--debug-invariants", *server_args(args.script)]
        # Without the options that somebody's environment may hold.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
        environment["PENSTOCK_DEFAULT_MODEL"] = str(SOURCE / "models" / "gsm-hybrid")
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                  env=environment)
        status, problems = 1, []
        try:
            problem = wait_until_healthy(server, base_url)
            if problem is None:
                status = subprocess.run([sys.executable, args.script, "--base-url", base_url,
                                         "--server-pid", str(server.pid), *args.rest], check=False).returncode
                problem = None if server.poll() is not None else check_idle(base_url)
            problems.append(problem)
        finally:
            problems.append(stop(server))
        problems = [p for p in problems if p]
        if problems or status not in (0, 77):
            log.seek(0)
            print("---- end of the server's output ----", *log.read().splitlines()[-60:], sep="\n")
    for problem in problems:
        print("FAILED:", problem)
    return 1 if problems else status


if __name__ == "__main__":
    sys.exit(main())
