#!/usr/bin/env python3
"""The official openai client, and raw sockets where a client library would hide too much, against a running server.

    server_openai.py --base-url http://127.0.0.1:8000 [--api-key KEY]

Every function named check_* is one test. Exit status 0 when all pass.
"""
import argparse
import json
import socket
import sys
import threading
import time
import traceback
import urllib.error
import urllib.parse
import urllib.request

try:
    import openai
except ImportError:
    print("cannot run: the Python package openai is not installed")
    sys.exit(77)

QUESTION = [{"role": "user", "content": "Tom has 3 apples and buys 4 more. How many apples does he have?"}]


class World:
    def __init__(self, base_url, api_key):
        self.base_url = base_url
        self.api_key = api_key
        self.client = openai.OpenAI(base_url=base_url + "/v1", api_key=api_key or "none", max_retries=0, timeout=120)
        self.model = self.client.models.list().data[0].id

    def headers(self):
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    def post(self, path, body):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.base_url + path, data=data,
                                         headers={"Content-Type": "application/json", **self.headers()})
        try:
            with urllib.request.urlopen(request, timeout=120) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def metric(self, name):
        request = urllib.request.Request(self.base_url + "/metrics", headers=self.headers())
        with urllib.request.urlopen(request, timeout=10) as reply:
            for line in reply.read().decode().splitlines():
                if line.startswith(name + " "):
                    return float(line.split()[-1])
        raise AssertionError(f"/metrics has no {name}")

    def connect(self):
        url = urllib.parse.urlsplit(self.base_url)
        return socket.create_connection((url.hostname, url.port), timeout=120)

    def raw_post(self, path, body):
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        head += "".join(f"{k}: {v}\r\n" for k, v in self.headers().items())
        connection = self.connect()
        connection.sendall(head.encode() + b"\r\n" + data)
        return connection


def chat(world, **more):
    more = {"temperature": 0, "max_tokens": 64, **more}
    return world.client.chat.completions.create(model=world.model, messages=QUESTION, **more)


def check_models(world):
    model = world.client.models.retrieve(world.model)
    assert model.id == world.model and model.object == "model"
    try:
        world.client.models.retrieve("no-such-model")
        raise AssertionError("an unknown model was found")
    except openai.NotFoundError:
        pass


def check_chat(world):
    answer = chat(world)
    choice = answer.choices[0]
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")
    assert choice.message.role == "assistant" and choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert 0 < answer.usage.completion_tokens <= 64
    assert answer.usage.prompt_tokens_details.cached_tokens >= 0
    assert chat(world).choices[0].message.content == choice.message.content, "greedy answers differ"


def check_chat_stream_equals_whole(world):
    whole = chat(world)
    chunks = list(chat(world, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert all(chunk.choices[0].finish_reason is None for chunk in chunks[:-2])
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert text == whole.choices[0].message.content, (text, whole.choices[0].message.content)
    assert len({chunk.id for chunk in chunks}) == 1
    assert not any(chunk.usage for chunk in chat(world, stream=True)), "usage although not asked for"


def check_completions(world):
    complete = world.client.completions.create
    one = complete(model=world.model, prompt="Q: 2 + 3 =", max_tokens=8, temperature=0)
    assert one.object == "text_completion" and one.usage.completion_tokens <= 8
    many = complete(model=world.model, prompt=["Q: 2 + 3 =", "Anna has"], max_tokens=8, temperature=0)
    assert [c.index for c in many.choices] == [0, 1]
    assert many.choices[0].text == one.choices[0].text, "an answer depends on what runs beside it"
    _, tokens = world.post("/tokenize", {"prompt": "Q: 2 + 3 ="})
    ids = complete(model=world.model, prompt=tokens["tokens"], max_tokens=8, temperature=0)
    assert ids.choices[0].text == one.choices[0].text
    batch = complete(model=world.model, prompt=[tokens["tokens"], tokens["tokens"]], max_tokens=8, temperature=0)
    assert [c.text for c in batch.choices] == [one.choices[0].text] * 2
    echo = complete(model=world.model, prompt="Q: 2 + 3 =", max_tokens=8, temperature=0, echo=True)
    assert echo.choices[0].text == "Q: 2 + 3 =" + one.choices[0].text
    stream = complete(model=world.model, prompt="Q: 2 + 3 =", max_tokens=8, temperature=0, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == one.choices[0].text


def check_seed_and_n(world):
    sampled = {"temperature": 1.5, "max_tokens": 24, "extra_body": {"ignore_eos": True}}
    first = chat(world, seed=7, **sampled).choices[0].message.content
    assert chat(world, seed=7, **sampled).choices[0].message.content == first, "the same seed gave another answer"
    assert any(chat(world, seed=s, **sampled).choices[0].message.content != first for s in (8, 9, 10))
    several = chat(world, seed=7, n=3, **sampled)
    assert [c.index for c in several.choices] == [0, 1, 2]
    assert several.choices[0].message.content == first
    assert several.choices[1].message.content == chat(world, seed=8, **sampled).choices[0].message.content
    assert several.usage.completion_tokens == 72
    pieces = {0: "", 1: "", 2: ""}
    for chunk in chat(world, seed=7, n=3, stream=True, **sampled):
        pieces[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert [pieces[i] for i in range(3)] == [c.message.content for c in several.choices]


def check_logprobs(world):
    answer = chat(world, logprobs=True, top_logprobs=4, max_tokens=8)
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    for entry in content:
        assert entry.logprob <= 0 and len(entry.top_logprobs) == 4
        assert [t.logprob for t in entry.top_logprobs] == sorted((t.logprob for t in entry.top_logprobs), reverse=True)
        assert entry.top_logprobs[0].token == entry.token, "greedy did not take the best token"
        assert abs(entry.top_logprobs[0].logprob - entry.logprob) < 1e-6
    text = b"".join(bytes(e.bytes) for e in content).decode(errors="replace")
    assert text.startswith(answer.choices[0].message.content)
    streamed = [e for chunk in chat(world, logprobs=True, top_logprobs=4, max_tokens=8, stream=True)
                if chunk.choices[0].logprobs for e in chunk.choices[0].logprobs.content]
    assert streamed == content
    old = world.client.completions.create(model=world.model, prompt="Q: 2 + 3 =", max_tokens=4, temperature=0, logprobs=2)
    logprobs = old.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset) == 4
    assert logprobs.text_offset[0] == 0 and all(len(top) >= 2 for top in logprobs.top_logprobs)


def check_stops(world):
    full = chat(world).choices[0].message.content
    assert len(full) > 8, full
    middle = full[len(full) // 2:len(full) // 2 + 3]
    cut = chat(world, stop=[middle])
    assert cut.choices[0].finish_reason == "stop"
    assert cut.choices[0].message.content == full[:full.index(middle)]
    streamed = "".join(c.choices[0].delta.content or "" for c in chat(world, stop=middle, stream=True))
    assert streamed == full[:full.index(middle)], "a part of the stop string was streamed"
    kept = chat(world, stop=[middle], extra_body={"include_stop_str_in_output": True})
    assert kept.choices[0].message.content == full[:full.index(middle) + len(middle)]
    longer = chat(world, max_tokens=100, extra_body={"ignore_eos": True})
    assert longer.usage.completion_tokens == 100 and longer.choices[0].finish_reason == "length"
    short = chat(world, max_tokens=3)
    assert short.choices[0].finish_reason == "length" and short.usage.completion_tokens == 3


def check_logit_bias(world):
    _, token = world.post("/tokenize", {"prompt": "7"})
    assert len(token["tokens"]) == 1, token
    answer = chat(world, max_tokens=5, logit_bias={str(token["tokens"][0]): 100})
    assert answer.choices[0].message.content == "77777"


def check_tokenize(world):
    status, answer = world.post("/tokenize", {"messages": QUESTION})
    assert status == 200 and answer["count"] == len(answer["tokens"])
    assert QUESTION[0]["content"] in answer["text"]
    assert chat(world, max_tokens=1).usage.prompt_tokens == answer["count"]
    status, back = world.post("/detokenize", {"tokens": answer["tokens"]})
    assert status == 200 and back["text"] == back["prompt"] == answer["text"]
    status, plain = world.post("/tokenize", {"prompt": "a<|im_end|>"})
    status, parsed = world.post("/tokenize", {"prompt": "a<|im_end|>", "parse_special_tokens": True})
    assert parsed["count"] == 2 and plain["count"] > 2
    assert plain["text"] == parsed["text"] == "a<|im_end|>"


def check_errors(world):
    for more, kind, param in [({"temperature": 1000}, openai.BadRequestError, "temperature"),
                              ({"n": 0}, openai.BadRequestError, "n"),
                              ({"top_p": 0}, openai.BadRequestError, "top_p"),
                              ({"max_tokens": 10**9}, openai.BadRequestError, "max_tokens"),
                              ({"top_logprobs": 3}, openai.BadRequestError, "top_logprobs"),
                              ({"response_format": {"type": "json_object"}}, openai.BadRequestError, "response_format")]:
        try:
            chat(world, **more)
            raise AssertionError(f"{more} was accepted")
        except kind as error:
            assert error.param == param, (more, error.body)
    try:
        world.client.chat.completions.create(model="other", messages=QUESTION)
        raise AssertionError("another model was served")
    except openai.NotFoundError as error:
        assert error.code == "model_not_found"
    for body in (b"", b"{", b"[]", b"\xff", b'{"messages":' + b"[" * 100000):
        status, answer = world.post("/v1/chat/completions", body)
        assert status == 400 and answer["error"]["type"] == "invalid_request_error", answer
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]}]
    status, answer = world.post("/v1/chat/completions", {"messages": image})
    assert status == 400 and "text only" in answer["error"]["message"]


def check_too_long_prompt(world):
    status, model = 200, world.client.models.retrieve(world.model)
    limit = model.max_model_len
    status, answer = world.post("/v1/completions", {"prompt": [1] * (limit + 5)})
    assert status == 400 and answer["error"]["code"] == "context_length_exceeded"
    assert str(limit) in answer["error"]["message"] and str(limit + 5) in answer["error"]["message"], answer


def check_leaving_cancels(world):
    for stream in (True, False):
        connection = world.raw_post("/v1/completions", {"prompt": "Once", "ignore_eos": True, "stream": stream})
        deadline = time.monotonic() + 60
        while world.metric("penstock_requests_running") < 1:
            assert time.monotonic() < deadline, "the request never ran"
            time.sleep(0.01)
        connection.close()
        deadline = time.monotonic() + 60
        while world.metric("penstock_requests_running") > 0:
            assert time.monotonic() < deadline, "the request runs on although its client has left"
            time.sleep(0.01)


def check_mixed_traffic(world):
    """Streams, whole answers and bad requests beside each other, each as if alone."""
    expected = chat(world).choices[0].message.content
    failures = []

    def work(i):
        try:
            if i % 3 == 0:
                text = "".join(c.choices[0].delta.content or "" for c in chat(world, stream=True))
            elif i % 3 == 1:
                text = chat(world).choices[0].message.content
            else:
                status, _ = world.post("/v1/chat/completions", {"messages": QUESTION, "temperature": -1})
                text = expected if status == 400 else f"status {status}"
            if text != expected:
                failures.append((i, text))
        except Exception as error:  # pylint: disable=broad-except
            failures.append((i, repr(error)))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--api-key", default="")
    parser.add_argument("--server-pid", type=int, help="not used here")
    parser.add_argument("--only", default="", help="run only the checks with this in their name")
    args = parser.parse_args()
    world = World(args.base_url.rstrip("/"), args.api_key)
    failed = ran = 0
    for name, check in list(globals().items()):
        if not name.startswith("check_") or args.only not in name:
            continue
        ran += 1
        try:
            check(world)
            print(f"ok      {name}", flush=True)
        except Exception:  # pylint: disable=broad-except
            failed += 1
            print(f"FAILED  {name}\n{traceback.format_exc()}", flush=True)
    print(f"{ran} checks, {failed} failed")
    return 1 if failed or ran == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
