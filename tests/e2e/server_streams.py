#!/usr/bin/env python3
"""Many streaming clients at once: none may fail, none may get another's tokens.

    server_streams.py --base-url http://127.0.0.1:8000 [--clients 1000] [--tokens 16] [--sample 20]

Every client asks another question, greedily. A sample of them asked alone beforehand says what is right; answers to the
same question must be the same, and every stream must be complete. With --server-pid the server's memory and open files
must be back where they were afterwards.
"""
# server-args: --max-running-requests 32
import argparse
import asyncio
import json
import os
import resource
import sys
import time
import urllib.parse


class BadStream(Exception):
    pass


def question(i):
    return f"Client {i} has {i + 2} apples and buys {3 * i + 1} more. How many apples does client {i} have?"


async def ask(url, headers, i, tokens):
    """One stream from connect to [DONE] -> (token ids' text, seconds to the first token)."""
    body = json.dumps({"messages": [{"role": "user", "content": question(i)}], "temperature": 0, "stream": True,
                       "max_tokens": tokens, "ignore_eos": True, "stream_options": {"include_usage": True}}).encode()
    begin = time.monotonic()
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + headers
        writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        status = await reader.readline()
        if b" 200 " not in status:
            raise BadStream(f"client {i}: {status.decode(errors='replace').strip()} "
                            f"{(await reader.read(2000)).decode(errors='replace')}")
        while (await reader.readline()) not in (b"\r\n", b""):
            pass
        data, first = b"", None
        while True:  # chunked
            size = await reader.readline()
            if not size.strip():
                raise BadStream(f"client {i}: the stream ended early after {data[-300:]!r}")
            count = int(size, 16)
            data += await reader.readexactly(count)
            await reader.readexactly(2)
            first = first or time.monotonic() - begin
            if count == 0:
                break
    finally:
        writer.close()
    return read_events(i, data.decode(), tokens), first


def read_events(i, data, tokens):
    events = [e.removeprefix("data: ") for e in data.split("\n\n") if e]
    if events[-1] != "[DONE]":
        raise BadStream(f"client {i}: no [DONE] but {events[-1]}")
    chunks = [json.loads(e) for e in events[:-1]]
    if len({chunk["id"] for chunk in chunks}) != 1:
        raise BadStream(f"client {i}: chunks of several answers")
    if chunks[-1]["usage"]["completion_tokens"] != tokens:
        raise BadStream(f"client {i}: {chunks[-1]['usage']} instead of {tokens} tokens")
    return "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])


def server_state(pid):
    """(resident MiB, open files) of the server, or None."""
    if not pid:
        return None
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            rss = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
        return rss / 1024, len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return None


async def round_of(url, headers, clients, tokens):
    results = await asyncio.gather(*(ask(url, headers, i, tokens) for i in range(clients)), return_exceptions=True)
    texts, first, errors = {}, [], []
    for i, result in enumerate(results):
        if isinstance(result, BaseException):
            errors.append(f"client {i}: {result!r}" if not isinstance(result, BadStream) else str(result))
        else:
            texts[i] = result[0]
            first.append(result[1])
    return texts, sorted(first), errors


async def run(args):
    url = urllib.parse.urlsplit(args.base_url)
    headers = f"Authorization: Bearer {args.api_key}\r\n" if args.api_key else ""
    step = max(1, args.clients // args.sample)
    alone = {i: (await ask(url, headers, i, args.tokens))[0] for i in range(0, args.clients, step)}
    print(f"{len(alone)} clients asked alone, {len(set(alone.values()))} different answers", flush=True)
    if len(set(alone.values())) < 2:
        print("FAILED: the answers do not tell the clients apart")
        return 1
    # The first round brings buffers and caches to their size; the second must not add to it.
    await round_of(url, headers, args.clients, args.tokens)
    before = server_state(args.server_pid)
    begin = time.monotonic()
    texts, first, errors = await round_of(url, headers, args.clients, args.tokens)
    seconds = time.monotonic() - begin
    for i, text in alone.items():
        if i in texts and texts[i] != text:
            errors.append(f"client {i} got {texts[i]!r} instead of {text!r}")
    if first:
        print(f"{len(texts)} of {args.clients} streams complete in {seconds:.1f} s, "
              f"{len(texts) * args.tokens / seconds:.0f} tokens/s, first token after {first[len(first) // 2]:.2f} s "
              f"(median), {first[-1]:.2f} s (last)")
    if before:
        for _ in range(50):  # connections close a moment after the last byte
            after = server_state(args.server_pid)
            if after is None or after[1] <= before[1]:
                break
            await asyncio.sleep(0.1)
        print(f"server: {before[0]:.0f} -> {after[0]:.0f} MiB, {before[1]} -> {after[1]} open files")
        if after[1] > before[1]:
            errors.append(f"{after[1] - before[1]} files were left open")
        if after[0] > before[0] * 1.1 + 16:
            errors.append(f"memory grew from {before[0]:.0f} to {after[0]:.0f} MiB")
    for error in errors[:20]:
        print("FAILED:", error)
    if len(errors) > 20:
        print(f"FAILED: and {len(errors) - 20} more")
    return 1 if errors else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--api-key", default="")
    parser.add_argument("--server-pid", type=int, default=0)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--sample", type=int, default=20, help="how many of them are asked alone beforehand")
    args = parser.parse_args()
    if os.environ.get("PENSTOCK_SANITIZED"):
        args.clients = min(args.clients, 200)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < args.clients + 100:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < args.clients + 100:
        print(f"cannot run: only {hard} open files are allowed")
        return 77
    return asyncio.run(run(args))


if __name__ == "__main__":
    sys.exit(main())
