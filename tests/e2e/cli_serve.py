#!/usr/bin/env python3
"""penstock serve as a process: start, readiness, signals, draining, ports, keys. The API has tests of its own."""
import json
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

from clitest import GOLDEN, MODEL, PATIENCE, Suite


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self, suite, *arguments, port=None, env=None):
        self.port = free_port() if port is None else port
        self.start = time.monotonic()
        self.process = suite.popen("serve", "--port", self.port, *arguments, env=env, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)

    def get(self, path, key=None, body=None, timeout=30):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}",
                                         data=None if body is None else json.dumps(body).encode(),
                                         headers={"Content-Type": "application/json"})
        if key:
            request.add_header("Authorization", f"Bearer {key}")
        try:
            with urllib.request.urlopen(request, timeout=timeout * PATIENCE) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")
        except OSError:
            return 0, ""

    def healthy(self):
        """Seconds from the start of the process to the first 200, or None."""
        while time.monotonic() - self.start < 30 * PATIENCE and self.process.poll() is None:
            if self.get("/health")[0] == 200:
                return time.monotonic() - self.start
            time.sleep(0.005)
        return None

    def end(self, sig=signal.SIGTERM, timeout=20):
        """(status, stdout, stderr) after the signal; status None when it did not end."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            out, err = self.process.communicate(timeout=timeout * PATIENCE)
            return self.process.returncode, out, err
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            return None, out, err


def start_and_stop(suite):
    times = []
    for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        server = Server(suite)
        times.append(server.healthy())
        if not suite.check(times[-1] is not None, "the server becomes healthy"):
            print(server.end())
            return
        code, models = server.get("/v1/models")
        suite.check(code == 200 and json.loads(models)["data"][0]["id"] == "gsm-hybrid", f"/v1/models: {models}")
        status, out, err = server.end(sig)
        suite.equal(status, 0, f"status after {sig.name}")
        suite.check(f"ready: http://127.0.0.1:{server.port} serves gsm-hybrid" in out, f"the ready line: {out!r}")
        for words in ("listening on http://127.0.0.1:", "model ", "parameters", "kernels ", "KV pages", "time ", "stopped: "):
            suite.check(words in err, f"the report does not say {words!r}: {err!r}")
        suite.check("warning" not in err, f"nothing to warn of: {err!r}")
    suite.check(min(times) < 0.5 * PATIENCE, f"healthy after {min(times):.3f} s; 0.5 s are allowed")


def any_port(suite):
    server = Server(suite, port=0)
    line = server.process.stdout.readline()
    match = re.match(r"ready: http://127\.0\.0\.1:(\d+) ", line)
    if suite.check(match, f"--port 0 prints the port: {line!r}"):
        server.port = int(match.group(1))
        suite.equal(server.get("/health")[0], 200, "health on the printed port")
    suite.equal(server.end()[0], 0, "status")


def port_in_use(suite):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        suite.refused(["serve", "--port", port], 1, str(port))
    suite.refused(["serve", "--host", "256.1.1.1"], 1, "256.1.1.1")
    suite.refused(["serve", "--host", "203.0.113.7", "--api-key", "k", "--port", 0], 1, "203.0.113.7")


def stream(server, events, tokens):
    """One streamed completion; every line goes to `events`."""
    body = json.dumps({"model": "gsm-hybrid", "prompt": "Once", "max_tokens": tokens, "ignore_eos": True, "stream": True,
                       "temperature": 1}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}/v1/completions", data=body,
                                     headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60 * PATIENCE) as reply:
            for line in reply:
                if line.strip():
                    events.append(line.decode().strip())
    except OSError as error:
        events.append(f"broken: {error}")


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds * PATIENCE
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def drain(suite):
    """SIGTERM lets an answer finish, refuses new ones, and ends with status 0 (contract F4)."""
    server = Server(suite)
    suite.check(server.healthy() is not None, "healthy")
    events = []
    client = threading.Thread(target=stream, args=(server, events, 600))
    client.start()
    suite.check(wait_for(lambda: len(events) > 5), "an answer is under way")
    server.process.send_signal(signal.SIGTERM)
    refused = wait_for(lambda: server.get("/health")[0] in (0, 503), 5)
    suite.check(refused, "not healthy while draining")
    status, _, err = server.end(sig=0)
    client.join()
    suite.equal(status, 0, f"status after draining: {err!r}")
    suite.equal(events[-1:], ["data: [DONE]"], "the running answer was finished")
    tokens = sum('"text"' in event for event in events)
    suite.check(tokens > 5, f"{len(events)} events")


def drain_with_a_limit(suite):
    server = Server(suite, "--shutdown-timeout", "0.2")
    suite.check(server.healthy() is not None, "healthy")
    events = []
    client = threading.Thread(target=stream, args=(server, events, 30000))
    client.start()
    suite.check(wait_for(lambda: len(events) > 5), "an answer is under way")
    start = time.monotonic()
    status, _, err = server.end()
    suite.check(time.monotonic() - start < 5 * PATIENCE, "--shutdown-timeout ends the wait")
    client.join()
    suite.equal(status, 0, f"status: {err!r}")
    suite.check("1 cancelled" in err, f"says what was cancelled: {err!r}")


def second_signal(suite):
    server = Server(suite)
    suite.check(server.healthy() is not None, "healthy")
    events = []
    client = threading.Thread(target=stream, args=(server, events, 30000))
    client.start()
    suite.check(wait_for(lambda: len(events) > 5), "an answer is under way")
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    suite.check(server.process.poll() is None, "the first signal waits for the answer")
    start = time.monotonic()
    status, _, err = server.end()
    suite.check(time.monotonic() - start < 2 * PATIENCE, "the second signal ends it at once")
    suite.equal(status, 128 + signal.SIGTERM, f"status after the second signal: {err!r}")
    client.join()


def signal_while_loading(suite):
    config = json.loads((GOLDEN / "dense-r2" / "config.json").read_text(encoding="utf-8"))
    config.update(vocab_size=200_000, hidden_size=1024)
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "config.json").write_text(json.dumps(config))
        server = Server(suite, folder, "--load-format", "dummy", "--tokenizer", MODEL)
        code = 0
        while code == 0 and server.process.poll() is None:
            code = server.get("/health")[0]
        if code == 503:  # else it was faster than we are
            status, _, err = server.end()
            suite.equal(status, 0, f"status after SIGTERM while loading: {err!r}")
            suite.check("stopped while loading" in err or "stopped: " in err, f"says so: {err!r}")
        else:
            server.end()


def keys_and_names(suite):
    with tempfile.TemporaryDirectory() as folder:
        keys = pathlib.Path(folder) / "keys"
        keys.write_text("from-file\n\n")
        server = Server(suite, "--api-key", "from-line", "--api-key-file", keys, "--served-model-name", "one",
                        "--served-model-name", "two", "--host", "0.0.0.0")
        suite.check(server.healthy() is not None, "healthy without a key")
        suite.equal(server.get("/v1/models")[0], 401, "no key")
        suite.equal(server.get("/v1/models", key="wrong")[0], 401, "a wrong key")
        for key in ("from-file", "from-line"):
            suite.equal(server.get("/v1/models", key=key)[0], 200, key)
        body = {"model": "two", "prompt": "a", "max_tokens": 1}
        suite.equal(server.get("/v1/completions", key="from-file", body=body)[0], 200, "any of the names")
        status, out, err = server.end()
        suite.equal(status, 0, "status")
        suite.check("serves one" in out, f"the first name: {out!r}")
        suite.check("without --api-key" not in err, "no warning with keys")
    server = Server(suite, env={"PENSTOCK_API_KEY": "a,b", "PENSTOCK_SERVED_MODEL_NAME": "three"})
    suite.check(server.healthy() is not None, "healthy")
    suite.equal([server.get("/v1/models", key=k)[0] for k in ("a", "b", "a,b")], [200, 200, 401], "PENSTOCK_API_KEY")
    suite.equal(server.end()[0], 0, "status")
    server = Server(suite, "--host", "0.0.0.0")
    suite.check(server.healthy() is not None, "healthy")
    suite.check("without --api-key" in server.end()[2], "warns of an open server")


def model_that_does_not_load(suite):
    """The port is bound first; a model that cannot be loaded still ends the program, with the reason."""
    with tempfile.TemporaryDirectory() as folder:
        broken = pathlib.Path(folder) / "broken"
        shutil.copytree(MODEL, broken)
        (broken / "tokenizer.json").write_text("{}")
        suite.refused(["serve", broken, "--port", 0], 1, "tokenizer.json")
        (broken / "tokenizer.json").unlink()
        suite.refused(["serve", broken, "--port", 0], 1, "tokenizer.json")
        shutil.copy(MODEL / "tokenizer.json", broken)
        (broken / "model-00001-of-00003.safetensors").write_bytes(b"x")
        suite.refused(["serve", broken, "--port", 0], 1, "model-00001-of-00003.safetensors")
    suite.refused(["serve", "--context-length", 40000, "--port", 0], 1, ["40000", "32768"])


Suite().finish(start_and_stop, any_port, port_in_use, drain, drain_with_a_limit, second_signal, signal_while_loading,
               keys_and_names, model_that_does_not_load)
