#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Load client for any OpenAI-compatible /v1/completions endpoint.

    bench/http_load.py --base-url http://127.0.0.1:8080 --clients 8 --requests 32

A closed loop: each of --clients sends its next request as soon as its last answer is complete, until --requests have
been sent. No two prompts share more than a few tokens, so a prefix cache cannot help; sampling is greedy,
end-of-sequence is ignored, answers are streamed. Prints one line for people and one JSON object.

    output tok/s   output tokens of the good answers / time from the first request sent to the last answer complete
    TTFT           request written -> first streamed event with text (seconds; mean, median and max over requests)
    TPOT           (last event with text - first) / (output tokens - 1) (milliseconds; median over requests)
    gap max        longest wait between two events with text of one answer (milliseconds; max over requests)

Token counts are the server's own `usage`, which each answer must carry; an answer with another number of output tokens
than was asked for is an error, as is any status but 200, a broken stream, or a timeout. Exit status 1 if there was one.

It shares the machine with the server, so it is built to cost little: one thread, one asyncio.Protocol per request, no
HTTP library. Its own CPU time is in the report. Standard library only.
"""
import argparse
import asyncio
import datetime
import json
import os
import pathlib
import platform
import random
import shlex
import statistics
import subprocess
import sys
import time
import urllib.parse

# Plain English words, one or two tokens each in most vocabularies; the probe request measures what they really cost.
WORDS = """apple bag ball bank bird boat book box bread bus cake card cat chair child city class coat coin cook corn
cow cup day desk dish dog door egg farm fish flower food friend game garden girl glass gold green hand hat home horse
hour house ice juice key king kite lake lamp leaf letter light lunch man map market milk mile minute money month
morning mother name night number nut orange paper park party pen pencil phone piano pie pizza plant plate price rain
red rice river road room rope rose school sea seed shell ship shirt shoe shop snow song soup star stone store street
sugar sun table tea teacher ticket tile toy train tree truck wall water week wheel window winter woman wood yard year
""".split()
WORDS_PER_TOKEN = 0.8  # first guess for the probe only


class BadAnswer(Exception):
    """The server's answer was not the one asked for; the text says how."""


class Exchange(asyncio.Protocol):
    """One request on its own connection. `done` resolves when the answer is complete, or fails with BadAnswer."""

    def __init__(self, request: bytes, done: asyncio.Future):
        self.request, self.done = request, done
        self.sent = self.first = self.last = self.ended = 0.0  # seconds, time.perf_counter()
        self.gap = 0.0  # longest wait between two events with text
        self.status = 0  # HTTP status, 0 until the header is complete
        self.body = bytearray()  # of an answer that is not an event stream
        self.usage = None
        self.finished = False  # the stream said [DONE]
        self._in = bytearray()  # received and not yet understood
        self._line = bytearray()  # the event-stream line being received
        self._chunked = self._events = False
        self._left = -1  # bytes left of the chunk (chunked) or the body (content-length); -1: none known
        self._transport = None

    def connection_made(self, transport):
        self._transport = transport
        self.sent = time.perf_counter()
        transport.write(self.request)

    def data_received(self, data):
        now = time.perf_counter()
        self._in += data
        try:
            if not self.status and not self._read_header():
                return
            self._read_body(now)
        except BadAnswer as error:
            self._fail(str(error))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            self._fail(f"cannot read the answer: {type(error).__name__}: {error}")

    def connection_lost(self, exc):
        if self.done.done():
            return
        if self.status and not self._chunked and self._left < 0 and exc is None:
            self._complete()  # a body that ends with the connection
        else:
            self._fail(f"connection lost: {exc or 'closed by the server before the answer was complete'}")

    def abort(self):
        if self._transport:
            self._transport.abort()

    def _read_header(self) -> bool:
        end = self._in.find(b"\r\n\r\n")
        if end < 0:
            if len(self._in) > 65536:
                raise BadAnswer("no end of the HTTP header in 64 KiB")
            return False
        lines = self._in[:end].decode("latin-1").split("\r\n")
        del self._in[: end + 4]
        self.status = int(lines[0].split()[1])
        for line in lines[1:]:
            name, _, value = line.partition(":")
            name, value = name.strip().lower(), value.strip().lower()
            if name == "transfer-encoding":
                self._chunked = "chunked" in value
            elif name == "content-length":
                self._left = int(value)
            elif name == "content-type":
                self._events = value.startswith("text/event-stream")
        if self._chunked:
            self._left = -1
        elif self._left == 0:
            self._complete()
        return True

    def _read_body(self, now: float):
        if not self._chunked:
            data = bytes(self._in)
            self._in.clear()
            self._take(data, now)
            if self._left >= 0:
                self._left -= len(data)
                if self._left <= 0:
                    self._complete()
            return
        while self._in:
            if self._left < 0:  # at the size line of a chunk
                end = self._in.find(b"\r\n")
                if end < 0:
                    return
                self._left = int(self._in[:end].split(b";")[0], 16)
                del self._in[: end + 2]
                if self._left == 0:
                    self._complete()
                    return
            if len(self._in) < self._left + 2:
                return
            data = bytes(self._in[: self._left])
            del self._in[: self._left + 2]
            self._left = -1
            self._take(data, now)

    def _take(self, data: bytes, now: float):
        if not self._events or self.status != 200:
            self.body += data
            return
        self._line += data
        *lines, rest = self._line.split(b"\n")
        self._line = bytearray(rest)
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line[5:].strip(), now)

    def _event(self, text: bytes, now: float):
        if text == b"[DONE]":
            self.finished = True
            return
        event = json.loads(text)
        if "error" in event:
            raise BadAnswer(f"error event: {json.dumps(event['error'])[:300]}")
        if event.get("usage"):
            self.usage = event["usage"]
        if event.get("choices") and event["choices"][0].get("text"):
            if self.first:
                self.gap = max(self.gap, now - self.last)
            else:
                self.first = now
            self.last = now

    def _complete(self):
        if self.done.done():
            return
        self.ended = time.perf_counter()
        if self.status != 200:
            self._fail(f"HTTP {self.status}: {self.body[:300].decode('utf-8', 'replace')}")
            return
        self.done.set_result(self)
        self._transport.close()

    def _fail(self, message: str):
        if not self.done.done():
            self.done.set_exception(BadAnswer(message))
        self.abort()


class Target:
    """The server under load: where it is, and how a request to it is written."""

    def __init__(self, args):
        url = urllib.parse.urlsplit(args.base_url)
        if url.scheme != "http" or not url.hostname:
            sys.exit(f"--base-url {args.base_url}: want http://HOST:PORT (plain HTTP only)")
        self.host, self.port = url.hostname, url.port or 80
        path = url.path.rstrip("/")
        self.path = path if path.endswith("/v1") else path + "/v1"
        self.key = f"Authorization: Bearer {args.api_key}\r\n" if args.api_key else ""
        self.timeout = args.timeout

    def http(self, method: str, path: str, body: bytes = b"") -> bytes:
        head = (f"{method} {self.path}{path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n{self.key}"
                f"Accept-Encoding: identity\r\nConnection: close\r\n")
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return head.encode() + b"\r\n" + body

    async def send(self, request: bytes) -> Exchange:
        loop = asyncio.get_running_loop()
        exchange = Exchange(request, loop.create_future())
        try:
            await asyncio.wait_for(loop.create_connection(lambda: exchange, self.host, self.port), self.timeout)
            await asyncio.wait_for(exchange.done, self.timeout)
        except asyncio.TimeoutError:
            exchange.abort()
            raise BadAnswer(f"no complete answer in {self.timeout:g} s") from None
        except OSError as error:
            raise BadAnswer(f"cannot connect to {self.host}:{self.port}: {error}") from None
        return exchange


def make_prompt(args, index: int, words: int):
    """Prompt number `index`: always the same for one seed, and unlike every other within its first few tokens."""
    rng = random.Random(args.seed * 1_000_003 + index)
    if args.ids:
        return [rng.randrange(args.first_id, args.vocab) for _ in range(args.prompt_tokens)]
    return f"{index} " + " ".join(rng.choice(WORDS) for _ in range(words))


def make_request(args, target: Target, prompt, output_tokens: int) -> bytes:
    body = {"model": args.model, "prompt": prompt, "max_tokens": output_tokens, "temperature": 0, "ignore_eos": True,
            "stream": True, "stream_options": {"include_usage": True}}
    body.update(args.extra)
    return target.http("POST", "/completions", json.dumps(body).encode())


async def first_model(target: Target) -> str:
    answer = await target.send(target.http("GET", "/models"))
    try:
        return json.loads(answer.body)["data"][0]["id"]
    except (ValueError, KeyError, IndexError, TypeError):
        raise BadAnswer("GET /v1/models names no model; give --model") from None


def usage_of(answer: Exchange) -> dict:
    if not answer.finished:
        raise BadAnswer("the stream ended without [DONE]")
    if not answer.usage:
        raise BadAnswer("no usage in the stream (stream_options.include_usage was sent)")
    return answer.usage


async def calibrate(args, target: Target) -> int:
    """How many words make --prompt-tokens tokens here. One request; it also warms the server up."""
    words = max(1, int(args.prompt_tokens * WORDS_PER_TOKEN))
    prompt = make_prompt(args, 10**6, words)
    usage = usage_of(await target.send(make_request(args, target, prompt, 1)))
    if args.ids:
        return 0
    per_word = (usage["prompt_tokens"] - 2) / words  # the number in front costs about 2
    return max(1, round((args.prompt_tokens - 2) / per_word))


async def run(args) -> dict:
    target = Target(args)
    if not args.model:
        args.model = await first_model(target)
    words = await calibrate(args, target)
    requests = [make_request(args, target, make_prompt(args, i, words), args.output_tokens)
                for i in range(args.requests)]
    pending = iter(requests)
    good, errors = [], []

    async def client():
        for request in pending:
            try:
                answer = await target.send(request)
                got = usage_of(answer)["completion_tokens"]
                if got != args.output_tokens:
                    raise BadAnswer(f"{got} output tokens, asked for {args.output_tokens}")
                if not answer.first:
                    raise BadAnswer("no text in the answer")
                good.append(answer)
            except BadAnswer as error:
                errors.append(str(error))

    cpu, start = time.process_time(), time.perf_counter()
    await asyncio.gather(*(client() for _ in range(args.clients)))
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    return report(args, good, errors, wall, cpu)


def report(args, good, errors, wall: float, cpu: float) -> dict:
    result = {
        "label": args.label, "clients": args.clients, "requests": args.requests, "errors": len(errors),
        "output_tok_s": None, "ttft_mean_s": None, "ttft_median_s": None, "ttft_max_s": None, "tpot_median_ms": None, "gap_max_ms": None,
        "latency_median_s": None, "prompt_tokens_mean": None, "output_tokens": args.output_tokens,
        "cached_tokens": 0, "wall_s": round(wall, 3), "client_cpu_share": round(cpu / wall, 4),
        "prompt_kind": "ids" if args.ids else "words", "model": args.model, "base_url": args.base_url,
        "error_texts": sorted(set(errors))[:5], **where_and_when()}
    if not good:
        return result
    span = max(a.ended for a in good) - min(a.sent for a in good)
    ttft = [a.first - a.sent for a in good]
    tpot = [(a.last - a.first) / max(1, args.output_tokens - 1) for a in good]
    cached = [(a.usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0 for a in good]
    result.update(
        output_tok_s=round(len(good) * args.output_tokens / span, 2),
        ttft_mean_s=round(statistics.fmean(ttft), 4), ttft_median_s=round(statistics.median(ttft), 4), ttft_max_s=round(max(ttft), 4),
        tpot_median_ms=round(statistics.median(tpot) * 1e3, 3),
        gap_max_ms=round(max(a.gap for a in good) * 1e3, 1),
        latency_median_s=round(statistics.median(a.ended - a.sent for a in good), 4),
        prompt_tokens_mean=round(statistics.mean(a.usage["prompt_tokens"] for a in good), 1),
        cached_tokens=sum(cached))
    return result


def where_and_when() -> dict:
    cpu = platform.machine()
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    commit = None
    try:
        here = pathlib.Path(__file__).resolve().parent
        commit = subprocess.run(["git", "-C", here, "describe", "--always", "--dirty"], capture_output=True, text=True,
                                timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        pass
    return {"machine": f"{cpu}, {os.cpu_count()} cores", "commit": commit, "command": shlex.join(sys.argv),
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}


def one_line(r: dict) -> str:
    head = f"{r['label'] + ': ' if r['label'] else ''}{r['clients']} clients, {r['requests']} requests: "
    if r["output_tok_s"] is None:
        return head + f"no good answer, {r['errors']} errors, e.g. {r['error_texts'][0]}"
    text = (f"{r['output_tok_s']:.1f} output tok/s"
            f" | TTFT median {r['ttft_median_s']:.3f} s, max {r['ttft_max_s']:.3f} s"
            f" | TPOT median {r['tpot_median_ms']:.2f} ms, gap max {r['gap_max_ms']:.0f} ms"
            f" | {r['prompt_tokens_mean']:.0f} in, {r['output_tokens']} out | {r['errors']} errors"
            f" | client CPU {100 * r['client_cpu_share']:.1f} % of a core")
    if r["errors"]:
        text += f" | e.g. {r['error_texts'][0]}"
    return head + text


def parse_args():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--base-url", required=True, help="http://HOST:PORT, with or without /v1")
    p.add_argument("--clients", type=int, default=8, help="requests in flight (default 8)")
    p.add_argument("--requests", type=int, default=32, help="requests in all (default 32)")
    p.add_argument("--prompt-tokens", type=int, default=300, help="about this many with words, exactly with --ids")
    p.add_argument("--output-tokens", type=int, default=128, help="of every answer (default 128)")
    p.add_argument("--ids", action="store_true", help="prompts are arrays of random token ids, not text")
    p.add_argument("--vocab", type=int, default=4096, help="with --ids: ids are below this (default 4096)")
    p.add_argument("--first-id", type=int, default=300, help="with --ids: and at least this; leaves specials out")
    p.add_argument("--model", default="", help="default: the first of GET /v1/models")
    p.add_argument("--api-key", default="", help="sent as a bearer token")
    p.add_argument("--extra", type=json.loads, default={}, metavar="JSON", help="fields to add to each request's body")
    p.add_argument("--seed", type=int, default=0, help="another seed, other prompts; use one per pass on a live server")
    p.add_argument("--timeout", type=float, default=900, help="seconds for one answer (default 900)")
    p.add_argument("--label", default="", help="copied into the report")
    p.add_argument("--json", type=pathlib.Path, metavar="FILE", help="append the JSON line here too")
    args = p.parse_args()
    for name in ("clients", "requests", "prompt_tokens", "output_tokens"):
        if getattr(args, name) < 1:
            p.error(f"--{name.replace('_', '-')} must be at least 1")
    if not isinstance(args.extra, dict):
        p.error("--extra must be a JSON object")
    if args.ids and not 0 <= args.first_id < args.vocab:
        p.error("--first-id must be at least 0 and below --vocab")
    return args


def main() -> int:
    args = parse_args()
    try:
        result = asyncio.run(run(args))
    except BadAnswer as error:
        print(f"http_load: {error}", file=sys.stderr)
        return 1
    line = json.dumps(result)
    print(one_line(result))
    print(line)
    if args.json:
        with args.json.open("a") as f:
            f.write(line + "\n")
    return 1 if result["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
