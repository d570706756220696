#!/usr/bin/env python3
"""200 streams at a time, half of which leave in the middle of their answers, over prompts that share prefixes: nobody gets
another's answer, and at the end nothing is held (tests/run_with_server.py looks).

    server_cancels.py --base-url http://127.0.0.1:8000 [--clients 200] [--rounds 1]

The same prompt and seed must always give the same text, or the beginning of it where the client left. Exit status 0 when
it does.
"""
# server-args: --debug-invariants --cache-memory=64M --mamba-track-interval=64 --enable-overlap-schedule
import argparse
import asyncio
import json
import os
import random
import sys
import urllib.parse

SANITIZED = bool(os.environ.get("PENSTOCK_SANITIZED"))
PROMPTS = 24
SENTENCE = "Tom has 12 apples and buys 7 more, then he gives 5 of them to Mia and counts what is left. "


def prompt(i):
    """Four families that begin alike; every prompt ends on its own."""
    return SENTENCE * (6 + 4 * (i % 4)) + f"Sam has {i + 3} coins and finds {2 * i + 5} more. How many does he have now?"


async def ask(url, i, tokens, leave_after):
    """The text of the answer, as far as it was read."""
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    body = json.dumps({"prompt": prompt(i), "max_tokens": tokens, "temperature": 1, "seed": i, "ignore_eos": True,
                       "stream": True})
    writer.write((f"POST /v1/completions HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
                  f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}").encode())
    text, events, done = "", 0, False
    try:
        await writer.drain()
        status = await reader.readline()
        if b" 200 " not in status:
            raise AssertionError(f"answered {status!r}")
        while not done and (leave_after is None or events < leave_after):
            line = await asyncio.wait_for(reader.readline(), 600)
            if not line:
                raise AssertionError("the stream broke off")
            if not line.startswith(b"data: "):
                continue
            data = line[6:].strip()
            if data == b"[DONE]":
                done = True
                break
            choices = json.loads(data)["choices"]
            text += choices[0]["text"] if choices else ""
            events += 1
    finally:
        writer.close()
    return text, done


async def run(args):
    url = urllib.parse.urlsplit(args.base_url)
    chance = random.Random(args.seed)
    tokens = 24 if SANITIZED else 96
    right = {i: (await ask(url, i, tokens, None))[0] for i in range(PROMPTS)}
    if len(set(right.values())) < PROMPTS // 2:
        print("FAILED: the answers do not tell the prompts apart")
        return 1
    left = complete = 0
    for _ in range(args.rounds):
        wanted = [(chance.randrange(PROMPTS), chance.choice([None, chance.randrange(1, tokens)]))
                  for _ in range(args.clients)]
        results = await asyncio.gather(*(ask(url, i, tokens, leave) for i, leave in wanted), return_exceptions=True)
        for (i, leave), result in zip(wanted, results):
            if isinstance(result, BaseException):
                print(f"FAILED: prompt {i}: {result!r}")
                return 1
            text, done = result
            if (leave is None and text != right[i]) or not right[i].startswith(text):
                print(f"FAILED: prompt {i} got {text!r} instead of {right[i]!r}")
                return 1
            left += not done
            complete += done
    print(f"{complete} streams complete, {left} left before the end")
    return 0 if left and complete else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--server-pid", type=int, help="not used here")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
