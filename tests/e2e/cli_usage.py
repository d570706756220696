#!/usr/bin/env python3
"""--help of every command, and what is said about command lines, environments and files that are wrong."""
import json
import pathlib
import tempfile

from clitest import MODEL, Suite

COMMANDS = {
    "": ["serve", "chat", "generate", "score", "inspect", "doctor", "bench", "--version"],
    "serve": ["--host", "--port", "--api-key", "--served-model-name", "--max-running-requests", "--max-num-seqs",
              "--chunked-prefill-size", "--context-length", "--max-model-len", "--threads", "--mamba-ssm-dtype",
              "--shutdown-timeout", "--load-format", "--disable-radix-cache", "--mamba-scheduler-strategy", "MODEL"],
    "chat": ["--system", "--temperature", "--max-tokens", "--seed"],
    "generate": ["--prompt", "--input", "--chat", "--max-tokens", "--temperature", "--top-p", "--top-k", "--min-p",
                 "--seed", "--ignore-eos", "--stop", "--logprobs", "--json", "--stats"],
    "score": ["--input", "--output", "--decode-from", "--max-batch", "--chunked-prefill-size", "--json"],
    "inspect": ["--tensors", "--kernels", "--memory", "--json"],
    "doctor": ["--json"],
    "bench": ["offline", "kernels"],
    "bench offline": ["--prompt-tokens", "--output-tokens", "--batch", "--repeat", "--json"],
    "bench kernels": ["--key-heads", "--value-heads", "--batch", "--json"],
}

# arguments, exit status, words of the message
MISUSE = [
    ("", 2, None),
    ("sreve", 2, "sreve: no such command"),
    ("--nonsense", 2, "no such command or option"),
    ("bench", 2, "a command is missing"),
    ("bench online", 2, "online: no such command"),
    ("serve --prot 80", 2, ["--prot", "Did you mean --port?"]),
    ("serve --port", 2, "--port"),
    ("serve --port 70000", 2, ["--port", "70000 is out of range", "0 to 65535"]),
    ("serve --port -1", 2, ["--port", "out of range"]),
    ("serve --port 80a", 2, ["--port", "'80a' is not a whole number"]),
    ("serve --port 8000.5", 2, "--port"),
    ("serve --threads -1", 2, "--threads"),
    ("serve --threads 99999", 2, ["--threads", "0 to 1024"]),
    ("serve -t two", 2, "--threads"),
    ("serve --cpu-isa sse9", 2, ["--cpu-isa", "'sse9' is not one of auto, reference, avx2"]),
    ("serve --linear-input fp8", 2, "--linear-input"),
    ("serve --linear-attn-backend cutedsl", 2, ["--linear-attn-backend", "window, recurrent"]),
    ("serve --mamba-ssm-dtype float8", 2, ["--mamba-ssm-dtype", "float32, bfloat16, int8"]),
    ("serve --kv-cache-dtype fp8", 2, "--kv-cache-dtype"),
    ("serve --load-format gguf", 2, ["--load-format", "auto, dummy"]),
    ("serve --seed -1", 2, "--seed"),
    ("serve --seed 18446744073709551616", 2, "--seed"),
    ("serve --context-length -5", 2, "--context-length"),
    ("serve --max-model-len x", 2, "--context-length"),
    ("serve --max-running-requests 1000000", 2, ["--max-running-requests", "0 to 65536"]),
    ("serve --chunked-prefill-size 0", 2, "--chunked-prefill-size"),
    ("serve --chunked-prefill-size -2", 2, "--chunked-prefill-size"),
    ("serve --mem-fraction-static 1.5", 2, ["--mem-fraction-static", "0.01 to 0.99"]),
    ("serve --mem-fraction-static nan", 2, "--mem-fraction-static"),
    ("serve --cache-memory 4X", 2, ["--cache-memory", "is not a size"]),
    ("serve --cache-memory 0", 2, "--cache-memory"),
    ("serve --mamba-track-interval 100", 2, ["--mamba-track-interval", "not a multiple of 64", "64 or 128"]),
    ("chat --mamba-radix-cache-strategy some", 2, ["--mamba-scheduler-strategy", "auto, no_buffer, extra_buffer"]),
    ("generate --prompt a --max-mamba-cache-size -1", 2, "--max-mamba-cache-size"),
    ("inspect --mamba-full-memory-ratio half", 2, "--mamba-full-memory-ratio"),
    ("serve --max-queued-requests 0", 2, "--max-queued-requests"),
    ("serve --max-queued-tokens 0", 2, "--max-queued-tokens"),
    ("serve --log-level loud", 2, ["--log-level", "trace, debug, info"]),
    ("serve --generation-config maybe", 2, "--generation-config"),
    ("serve --shutdown-timeout -1", 2, "--shutdown-timeout"),
    ("serve --http-threads 0", 2, "--http-threads"),
    ("serve --max-n 0", 2, "--max-n"),
    ("serve --max-connections 0", 2, "--max-connections"),
    ("serve --idle-timeout 0", 2, "--idle-timeout"),
    ("serve --api-key-file /nowhere/keys", 2, ["--api-key-file", "/nowhere/keys"]),
    ("serve a b", 2, "not expected"),
    ("serve /nowhere/model", 1, ["/nowhere/model", "models are not downloaded"]),
    ("serve --config /nowhere/x.toml", 2, ["--config", "/nowhere/x.toml"]),
    ("generate", 2, "--prompt or --input is needed"),
    ("generate --prompt a --input b", 2, "exclude each other"),
    ("generate --prompt a --temperature -0.1", 2, ["--temperature", "0 to 100"]),
    ("generate --prompt a --temperature warm", 2, "--temperature"),
    ("generate --prompt a --top-p 0", 2, ["--top-p", "above 0"]),
    ("generate --prompt a --top-k -2", 2, "--top-k"),
    ("generate --prompt a --min-p 1.1", 2, "--min-p"),
    ("generate --prompt a --repetition-penalty 0", 2, "--repetition-penalty"),
    ("generate --prompt a --presence-penalty 3", 2, "--presence-penalty"),
    ("generate --prompt a --frequency-penalty -3", 2, "--frequency-penalty"),
    ("generate --prompt a --max-tokens 0", 2, "--max-tokens"),
    ("generate --prompt a --logprobs 21", 2, ["--logprobs", "0 to 20"]),
    ("generate --prompt a --n 0", 2, "--n"),
    ("generate --prompt a --system b", 2, "--system goes with --chat"),
    ("generate --prompt a --chat-template-kwargs []", 2, "--chat-template-kwargs"),
    ("generate --input /nowhere/x.jsonl", 2, "/nowhere/x.jsonl"),
    ("score", 2, "--input is needed"),
    ("score --input x --decode-from -1", 2, "--decode-from"),
    ("score --input x --max-batch -1", 2, "--max-running-requests"),
    ("score --input /nowhere/x.jsonl", 2, "/nowhere/x.jsonl"),
    ("chat --max-tokens 0", 2, "--max-tokens"),
    ("chat /nowhere", 1, "/nowhere"),
    ("inspect --kernel", 2, "Did you mean --kernels?"),
    ("inspect --mamba-ssm-dtype float16", 1, "float16"),
    ("doctor extra", 2, "extra"),
    ("bench offline --batch 0", 2, "--batch"),
    ("bench kernels --value-heads 0", 2, "--value-heads"),
    ("bench kernels --key-heads 3 --value-heads 4", 1, ["--value-heads 4", "multiple of --key-heads 3"]),
    ("bench offline --prompt-tokens 0", 2, "--prompt-tokens"),
    ("bench offline --prompt-tokens 1000000 --output-tokens 1000000", 1, "do not fit the context"),
]


def helps(suite):
    for command, words in COMMANDS.items():
        text = suite.ok(*command.split(), "--help").stdout
        for word in words:
            suite.check(word in text, f"penstock {command} --help does not speak of {word}")
        suite.check(all(len(line) <= 120 for line in text.splitlines()), f"penstock {command} --help has long lines")
        suite.equal(suite.run(*command.split(), "-h").stdout, text, f"penstock {command} -h")
    suite.check(suite.ok("--version").stdout.startswith("penstock 0."), "--version")


def misuse(suite):
    for arguments, status, words in MISUSE:
        if words is None:
            suite.equal(suite.run(*arguments.split()).returncode, status, "penstock without arguments")
        else:
            suite.refused(arguments.split(), status, words)


def empty_values(suite):
    suite.refused(["generate", "--prompt", "a", "--stop", ""], 2, "--stop")
    suite.refused(["serve", "--api-key", ""], 2, "--api-key")
    suite.refused(["serve", "--served-model-name", ""], 2, "--served-model-name")
    with tempfile.TemporaryDirectory() as folder:
        keys = pathlib.Path(folder) / "keys"
        keys.write_text("\n\n")
        suite.refused(["serve", "--api-key-file", keys], 2, "has no key in it")
        suite.refused(["inspect", folder], 1, "has no config.json")
        suite.refused(["inspect", keys], 1, "is a file")
        suite.refused(["score", "--input", folder], 2, "cannot read")


def environment(suite):
    suite.refused(["inspect"], 2, ["--threads", "PENSTOCK_THREADS"], env={"PENSTOCK_THREADS": "many"})
    suite.ok("inspect", "--threads", "1", env={"PENSTOCK_THREADS": "many"})
    # Another command's option is nothing to this one.
    suite.ok("inspect", env={"PENSTOCK_PORT": "no number"})
    found = json.loads(suite.ok("inspect", env={"PENSTOCK_JSON": "1", "PENSTOCK_MAMBA_SSM_DTYPE": "int8"}).stdout)
    suite.equal(found["request"]["state_dtype"], "int8", "PENSTOCK_MAMBA_SSM_DTYPE")
    suite.refused(["inspect"], 1, "PENSTOCK_DEFAULT_MODEL", env={"PENSTOCK_DEFAULT_MODEL": "/nowhere"})
    suite.ok("inspect", str(MODEL), env={"PENSTOCK_DEFAULT_MODEL": "/nowhere"})


def config_file(suite):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "penstock.toml"

        def state_dtype(*arguments, **options):
            return json.loads(suite.ok("inspect", "--json", *arguments, **options).stdout)["request"]["state_dtype"]

        path.write_text("mamba_ssm_dtype = 'int8'\nport = 1  # of serve alone\n[serve]\nthreads = \"none\"\n")
        suite.equal(state_dtype("--config", path), "int8", "--config")
        suite.equal(state_dtype(f"--config={path}"), "int8", "--config=")
        suite.equal(state_dtype(env={"PENSTOCK_CONFIG": str(path)}), "int8", "PENSTOCK_CONFIG")
        suite.equal(state_dtype("--config", path, env={"PENSTOCK_MAMBA_SSM_DTYPE": "bf16"}), "bfloat16",
                    "the environment wins over the file")
        suite.equal(state_dtype("--config", path, "--mamba-ssm-dtype", "float32"), "float32",
                    "the command line wins over the file")
        suite.refused(["serve", "--config", path], 2, ["--threads", "'none'"])
        path.write_text("mamba_track_interval = 100\n")
        suite.refused(["inspect", "--config", path], 2, ["--mamba-track-interval", "64 or 128"])
        path.write_text("mamba-radix-cache-strategy = some\n")
        suite.refused(["inspect", "--config", path], 2, "--mamba-scheduler-strategy")
        path.write_text("disable_radix_cache = true\ndisable-overlap-schedule = true\nmax_mamba_cache_size = 9\n")
        suite.ok("inspect", "--config", path)
        path.write_text("disable-overlap-schedule = perhaps\n")
        suite.refused(["inspect", "--config", path], 2, "--enable-overlap-schedule")
        path.write_text("\nno-such-option = 3\n")
        suite.refused(["inspect", "--config", path], 2, [f"{path}:2", "no-such-option"])
        path.write_text("[serve]\nprompt = 3\n")
        suite.refused(["inspect", "--config", path], 2, [f"{path}:2", "serve", "prompt"])
        path.write_text("threads = \"2\n")
        suite.refused(["inspect", "--config", path], 2, f"{path}:1")


Suite().finish(helps, misuse, empty_values, environment, config_file)
