#!/usr/bin/env python3
"""The prefix cache as clients meet it (contract P2, P3, P6, T1 to T3): what the next request finds in it, what keeps
tenants apart, and that no answer depends on it.

    server_cache.py --base-url http://127.0.0.1:8000 --binary build/release/penstock [--only NAME]

The server at --base-url runs with the defaults. Servers with the other strategy and the other form of the Gated DeltaNet
layers, one with hardly any memory, and those without a cache that say what is right are started from here, one after
the other. Every function named check_* is one test of a server. Exit status 0 when all pass.
"""
import argparse
import contextlib
import http.client
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import run_with_server as running  # noqa: E402  (the same start, idle check and stop as for every server test)

BLOCK = 64
SANITIZED = bool(os.environ.get("PENSTOCK_SANITIZED"))
QUESTIONS = 6 if SANITIZED else 20
TURNS = 4 if SANITIZED else 10
NAMES = ["Ava", "Ben", "Carla", "Dan", "Emma", "Finn", "Grace", "Hugo", "Iris", "Jack"]
GOODS = ["apples", "books", "coins", "pens", "shells", "stamps", "cards", "marbles"]


def sentences(seed, count):
    """Different from the first sentence on."""
    for i in range(count):
        a, b = NAMES[(seed + i) % len(NAMES)], NAMES[(seed + 3 * i + 1) % len(NAMES)]
        yield f"{a} has {7 * seed + 3 * i + 2} {GOODS[(seed // 10 + i) % len(GOODS)]} and gives {b} {i % 9 + 1} of them. "


def text(seed, count):
    return "".join(sentences(seed, count))


class Server:
    """One server, by plain HTTP. `repeats`: of what is measured; the best counts."""

    def __init__(self, name, base_url, repeats=1):
        self.name, self.repeats = name, repeats
        url = urllib.parse.urlsplit(base_url)
        self.base_url, self.host, self.port = base_url, url.hostname, url.port

    def request(self, method, path, body=None):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=120 * running.PATIENCE)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        return connection, connection.getresponse()

    def call(self, method, path, body=None):
        connection, reply = self.request(method, path, body)
        with contextlib.closing(connection):
            data = reply.read().decode()
        assert reply.status == 200, f"{path}: {reply.status} {data[:500]}"
        return data

    def post(self, path, body):
        return json.loads(self.call("POST", path, body))

    def flush(self):
        self.call("POST", "/flush_cache")

    def metrics(self):
        lines = self.call("GET", "/metrics").splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    def ids(self, seed, tokens):
        """A prompt of exactly so many token ids; two seeds have not even a block in common."""
        ids = self.post("/tokenize", {"prompt": text(seed, tokens // 8 + 2)})["tokens"]
        assert len(ids) >= tokens, (len(ids), tokens)
        return ids[:tokens]

    def complete(self, ids, **more):
        """(answer, cached tokens): the answer with everything in it that must not depend on the cache."""
        body = {"prompt": ids, "max_tokens": 24, "temperature": 0, "ignore_eos": True, "logprobs": 2, **more}
        reply = self.post("/v1/completions", body)
        assert reply["usage"]["prompt_tokens"] == len(ids), reply["usage"]
        return reply["choices"], reply["usage"]["prompt_tokens_details"]["cached_tokens"]

    def chat(self, messages, **more):
        """A streamed turn -> (answer, text, its tokens, usage, seconds to the first token)."""
        body = {"messages": messages, "max_tokens": 64, "temperature": 0, "logprobs": True, "top_logprobs": 2,
                "stream": True, "stream_options": {"include_usage": True}, **more}
        begin, first = time.monotonic(), None
        connection, reply = self.request("POST", "/v1/chat/completions", body)
        events = []
        with contextlib.closing(connection):
            assert reply.status == 200, f"{reply.status} {reply.read()[:500]}"
            for line in reply:
                if line.startswith(b"data: "):
                    first = first or time.monotonic() - begin
                    events.append(line[6:].strip())
        assert events[-1] == b"[DONE]", events[-1]
        chunks = [json.loads(event) for event in events[:-1]]
        choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
        content = "".join(choice["delta"].get("content") or "" for choice in choices)
        logprobs = [entry for choice in choices if choice["logprobs"] for entry in choice["logprobs"]["content"]]
        answer = (content, logprobs, choices[-1]["finish_reason"])
        return answer, content, [entry["token"] for entry in logprobs], chunks[-1]["usage"], first


class Reference:
    """What a server without a cache answers, asked once for each request."""

    def __init__(self, server):
        self.server, self.answers = server, {}

    def same(self, answer, method, argument, **more):
        key = json.dumps([method.__name__, argument, more])
        if key not in self.answers:
            self.answers[key] = getattr(self.server, method.__name__)(argument, **more)[0]
        assert answer == self.answers[key], f"not the answer without a cache:\n{answer}\n{self.answers[key]}"


def boundary_below(tokens):
    """The last token of a prompt is always computed: it gives the first token of the answer."""
    return (tokens - 1) // BLOCK * BLOCK


def check_same_prompt_twice(server, reference):
    for seed, tokens in enumerate([1000, 1024, 1025, 63, 64, 65, 128, 700]):
        ids = server.ids(seed, tokens)
        for attempt in range(3):
            answer, cached = server.complete(ids)
            assert cached == (boundary_below(tokens) if attempt else 0), (tokens, attempt, cached)
            reference.same(answer, server.complete, ids)


def check_prompts_that_grow_and_shrink(server, reference):
    ids = server.ids(20, 1500)
    # The first prompt of 400 finds the keys and values of 384 tokens, but a state at 256 only; it leaves one at 384.
    for tokens, expected in [(300, 0), (700, 256), (1500, 640), (1500, 1472), (400, 256), (400, 384)]:
        answer, cached = server.complete(ids[:tokens])
        assert cached == expected, (tokens, cached)
        reference.same(answer, server.complete, ids[:tokens])


def system_prompt(server, tokens):
    """(content, tokens in front of the user's text): at least so many, and hardly more."""
    content, more = "", sentences(30, tokens)
    while True:
        count = server.post("/tokenize", {"messages": [{"role": "system", "content": content}],
                                          "add_generation_prompt": False})["count"]
        if count >= tokens:
            return content, count
        content += next(more) if tokens - count > 60 else "so "


def check_questions_behind_one_system_prompt(server, reference):
    content, count = system_prompt(server, 2000)
    assert 2000 <= count < 2040, count
    found = []
    for i in range(QUESTIONS):
        messages = [{"role": "system", "content": content}, {"role": "user", "content": text(40 + i, 2)}]
        answer, _, _, usage, _ = server.chat(messages, max_tokens=16)
        found.append(usage["prompt_tokens_details"]["cached_tokens"])
        if i in (0, 1, 2, 3, 7, QUESTIONS - 1):
            reference.same(answer, server.chat, messages, max_tokens=16)
    print(f"        cached of {count}: {found}")
    assert found[0] == 0 and min(found[2:]) >= 1984, found
    assert max(found) <= count + BLOCK, found


def repeated_tokens(server, before, answer_tokens, now):
    """How many of the tokens of the last turn, its answer included, the prompt `now` begins with."""
    old = server.post("/tokenize", {"messages": before})["tokens"]
    new = server.post("/tokenize", {"messages": now, "return_token_strs": True})
    assert new["tokens"][:len(old)] == old, "the template does not repeat the last turn's prompt"
    same = 0
    for ours, theirs in zip(new["token_strs"][len(old):], answer_tokens):
        if ours != theirs:
            break
        same += 1
    return len(old) + same


def conversation(server, reference):
    """-> seconds to the first token of every turn"""
    messages, seconds, shares = [{"role": "system", "content": text(50, 86)}], [], []
    before, tokens = None, None
    for turn in range(TURNS):
        messages = messages + [{"role": "user", "content": text(60 + turn, 7) + "How many are there?"}]
        answer, content, answer_tokens, usage, first = server.chat(messages)
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        if turn == 0:
            assert cached == 0 and usage["prompt_tokens"] > 1400, usage
        else:
            repeated = repeated_tokens(server, before, tokens, messages)
            shares.append(cached / repeated)
            assert cached >= 0.95 * repeated, (turn, cached, repeated)
            # The answer's last token was never computed with.
            assert cached >= boundary_below(repeated), (turn, cached, repeated)
        reference.same(answer, server.chat, messages)
        before, tokens = messages, answer_tokens
        seconds.append(first)
        messages = messages + [{"role": "assistant", "content": content}]
    print(f"        cached of what is repeated: {min(shares):.1%} or more; first token after "
          + ", ".join(f"{1000 * s:.0f}" for s in seconds) + " ms")
    return seconds


def check_conversation(server, reference):
    runs = []
    for _ in range(server.repeats):
        server.flush()
        runs.append(conversation(server, reference))
    first, last = (min(run[turn] for run in runs) for turn in (0, -1))
    # Without the cache the last turn has 2.5 times the first one's tokens to compute.
    assert SANITIZED or last <= 2 * first, f"first token after {first:.3f} s in turn 1, {last:.3f} s in turn {TURNS}"


def check_salts_keep_tenants_apart(server, reference):
    ids = server.ids(70, 600)
    for attempt in range(2):
        for salt in ({}, {"cache_salt": "a"}, {"cache_salt": "b"}, {"cache_salt": "a" * 512}):
            answer, cached = server.complete(ids, **salt)
            assert cached == (576 if attempt else 0), (attempt, salt, cached)
            reference.same(answer, server.complete, ids)


def check_flush(server, reference):
    ids = server.ids(71, 500)
    for method in ("POST", "GET"):
        assert [server.complete(ids)[1] for _ in range(2)] == [0, 448]
        held = server.metrics()
        assert held["penstock_kv_pages_cached"] >= 7 and held["penstock_state_slots_cached"] >= 1, "nothing is cached"
        assert json.loads(server.call(method, "/flush_cache"))["status"] == "ok"
        held = server.metrics()
        left = [held["penstock_kv_pages_cached"], held["penstock_state_slots_cached"]]
        assert left == [0, 0], f"KV pages and states that are still cached: {left}"
    answer, cached = server.complete(ids)
    assert cached == 0, cached
    reference.same(answer, server.complete, ids)


def check_flush_while_others_run(server, reference):
    """Running requests keep what they use (contract P4)."""
    prompts = [server.ids(72, 500)] * 2 + [server.ids(73, 400)] * 2
    for ids in prompts[::2]:
        server.complete(ids, max_tokens=1)
    answers, stop = {}, threading.Event()

    def ask(i):
        answers[i] = server.complete(prompts[i], max_tokens=100)[0]

    def flush():
        while not stop.is_set():
            server.flush()
            time.sleep(0.02)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(prompts))]
    flusher = threading.Thread(target=flush)
    for thread in [flusher, *threads]:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    flusher.join()
    for i, ids in enumerate(prompts):
        reference.same(answers[i], server.complete, ids, max_tokens=100)


def check_many_at_once(server, reference):
    """Hits, misses and branches side by side, in one step."""
    shared = server.ids(74, 500)
    server.complete(shared)
    prompts = [(shared[:100 + 37 * i] if i % 3 else []) + server.ids(40 + i, 30 + 20 * i) for i in range(12)]
    answers = {}

    def ask(i):
        answers[i] = server.complete(prompts[i])[0]

    for _ in range(2):
        threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for i, ids in enumerate(prompts):
            reference.same(answers[i], server.complete, ids)


def check_choices_share_their_prompt(server, reference):
    ids = server.ids(75, 450)
    assert [server.complete(ids, n=3)[1] for _ in range(2)] == [0, 448], "cached tokens of a prompt with three choices"
    answer, _ = server.complete(ids, n=3)
    reference.same(answer, server.complete, ids, n=3)


def check_metrics(server, _reference):
    names = ("penstock_prefix_cache_query_tokens_total", "penstock_prefix_cache_hit_tokens_total")
    before = server.metrics()
    cached = [server.complete(server.ids(seed, 300))[1] for seed in (76, 77, 76, 77, 76)]
    after = server.metrics()
    assert cached == [0, 0, 256, 256, 256], cached
    assert [after[name] - before[name] for name in names] == [5 * 300, sum(cached)]
    assert after["penstock_prefix_cache_snapshots_total"] >= before["penstock_prefix_cache_snapshots_total"] + 2
    for kind in ("kv_pages", "state_slots"):
        used, held, limit = (after[f"penstock_{kind}_{what}"] for what in ("used", "cached", "limit"))
        assert used == 0 and 2 <= held <= limit, (kind, used, held, limit)
    assert after["penstock_windows_used"] == 0


def off_check_nothing_is_kept(server):
    """--disable-radix-cache (contract T3)"""
    ids = server.ids(0, 1000)
    first, second = server.complete(ids), server.complete(ids)
    assert first == second and second[1] == 0, (first, second)
    server.flush()
    found = server.metrics()
    for name in ("kv_pages_cached", "state_slots_cached", "prefix_cache_hit_tokens_total", "prefix_cache_snapshots_total"):
        assert found["penstock_" + name] == 0, (name, found["penstock_" + name])


def tight_check_evictions(server, reference):
    """More prompts than there is room for, four at a time: nothing fails, nothing changes (contract P4, S4)."""
    prompts = [server.ids(seed, 700) for seed in range(8)]
    answers, failures = {}, []

    def ask(i):
        try:
            answers[i] = server.complete(prompts[i % len(prompts)])[0]
        except Exception as error:  # pylint: disable=broad-except
            failures.append(repr(error))

    for first in range(0, 4 * len(prompts), 4):
        threads = [threading.Thread(target=ask, args=(first + i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures, failures
    for i, answer in answers.items():
        reference.same(answer, server.complete, prompts[i % len(prompts)])
    found = server.metrics()
    for kind in ("kv_page", "state"):
        name = f'penstock_prefix_cache_evictions_total{{kind="{kind}"}}'
        assert found[name] > 0, f"{name} is {found[name]}: the test has too much memory"
    assert server.complete(prompts[0])[1] + server.complete(prompts[0])[1] >= 640, "the cache still works"


@contextlib.contextmanager
def started(suite, name, *arguments):
    """A server of the same program; that it is idle, its accounts hold and it ends well are checks too."""
    base_url = f"http://127.0.0.1:{running.free_port()}"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
    environment["PENSTOCK_DEFAULT_MODEL"] = str(running.SOURCE / "models" / "gsm-hybrid")
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        command = [suite.binary, "serve", "--port", base_url.rsplit(":", 1)[1], "--debug-invariants", *arguments]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                   env=environment)
        problems = []
        try:
            problem = running.wait_until_healthy(process, base_url)
            if problem is None:
                yield Server(name, base_url)
                problem = None if process.poll() is not None else running.check_idle(base_url)
            problems.append(problem)
        finally:
            problems.append(running.stop(process))
        problems = [problem for problem in problems if problem]
        log.seek(0)
        lines = log.read().splitlines()[-40:]
        suite.result(f"server: {name}", "\n".join(problems + lines) if problems else None)


class Suite:
    def __init__(self, binary, only):
        self.binary, self.only = binary, only
        self.ran = self.failed = 0

    def result(self, name, failure):
        self.ran += 1
        self.failed += failure is not None
        print(f"ok      {name}" if failure is None else f"FAILED  {name}\n{failure}", flush=True)

    def check(self, server, *arguments, prefix="check_"):
        for name, check in list(globals().items()):
            if not name.startswith(prefix) or self.only not in name:
                continue
            failure = None
            try:
                server.flush()
                check(server, *arguments)
            except Exception:  # pylint: disable=broad-except
                failure = traceback.format_exc()
            self.result(f"{name.removeprefix(prefix)} ({server.name})", failure)

    def run(self, given):
        extra, no_buffer, recurrent, off = ("--mamba-scheduler-strategy=extra_buffer",
                                            "--mamba-scheduler-strategy=no_buffer",
                                            "--linear-attn-backend=recurrent", "--disable-radix-cache")
        with started(self, "window, no cache", off) as without:
            self.check(without, prefix="off_check_")
            reference = Reference(without)
            self.check(given, reference)
            with started(self, "window, no_buffer", no_buffer) as server:
                self.check(server, reference)
            # Room for the two requests of 2,048 tokens that it lets run, and for the states and pages of few more.
            with started(self, "window, 24 MiB", "--cache-memory=24M", "--max-running-requests=2") as server:
                self.check(server, reference, prefix="tight_check_")
        with started(self, "recurrent, no cache", recurrent, off) as without:
            self.check(without, prefix="off_check_")
            reference = Reference(without)
            for name, strategy in (("extra_buffer", extra), ("no_buffer", no_buffer)):
                with started(self, f"recurrent, {name}", recurrent, strategy) as server:
                    self.check(server, reference)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--binary", default=os.environ.get("PENSTOCK_BINARY"))
    parser.add_argument("--server-pid", type=int, help="not used here")
    parser.add_argument("--only", default="", help="run only the checks with this in their name")
    args = parser.parse_args()
    if not args.binary:
        parser.error("--binary or PENSTOCK_BINARY is needed")
    suite = Suite(args.binary, args.only)
    suite.run(Server("window, defaults", args.base_url.rstrip("/"), repeats=1 if SANITIZED else 3))
    print(f"{suite.ran} checks, {suite.failed} failed")
    return 1 if suite.failed or suite.ran == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
