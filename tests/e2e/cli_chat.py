#!/usr/bin/env python3
"""penstock chat through a pipe and on a terminal: conversation, commands, Ctrl-C, Ctrl-D."""
import json
import os
import pty
import select
import signal
import subprocess
import time

from clitest import PATIENCE, Suite

QUESTION = "Ava has 12 apples. Ben gives Ava 7 more apples. How many apples does Ava have now?"
OTHER = "A box holds 6 pens. How many pens do 4 boxes hold?"


def piped(suite):
    alone = suite.ok("chat", stdin=QUESTION + "\n").stdout
    suite.check("#### 19" in alone, f"the answer is {alone!r}")
    suite.equal(suite.ok("chat", stdin=QUESTION).stdout, alone, "a last line without newline")
    suite.equal(suite.ok("chat", stdin="\n\n" + QUESTION + "\n\n").stdout, alone, "blank lines are nothing")
    suite.equal(suite.ok("chat", stdin="").stdout, "", "no input, no output")
    generated = suite.ok("generate", "--chat", "--prompt", QUESTION).stdout
    suite.equal(alone, generated, "chat and generate --chat say the same")


def conversation(suite):
    """The second answer is the one to the whole conversation, as messages say it."""
    both = suite.ok("chat", stdin=f"{QUESTION}\n{OTHER}\n").stdout
    first = suite.ok("chat", stdin=QUESTION + "\n").stdout
    messages = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": first.removesuffix("\n")},
                {"role": "user", "content": OTHER}]
    second = suite.json_lines("generate", "--input", "-", stdin=json.dumps({"messages": messages}) + "\n")[0]["text"]
    suite.equal(both, first + second + "\n", "two turns")
    reset = suite.ok("chat", stdin=f"{QUESTION}\n/reset\n{QUESTION}\n").stdout
    suite.equal(reset, first + first, "/reset forgets")


def commands(suite):
    result = suite.ok("chat", stdin="/help\n/nonsense\n/exit\n" + QUESTION + "\n")
    suite.equal(result.stdout, "", "/exit leaves")
    suite.check("/reset" in result.stderr, "/help lists the commands")
    suite.check("penstock: error: /nonsense is not a command" in result.stderr, f"a wrong command: {result.stderr!r}")
    option = suite.ok("chat", "--system", "Be brief.", stdin=QUESTION + "\n").stdout
    command = suite.ok("chat", stdin=f"/system Be brief.\n{QUESTION}\n").stdout
    suite.equal(command, option, "/system and --system")
    short = suite.ok("chat", "--max-tokens", 2, stdin=QUESTION + "\n")
    suite.check("length limit" in short.stderr and len(short.stdout) < 20, f"--max-tokens: {short}")
    warm = ["chat", "--temperature", "1.5", "--seed", "3"]
    suite.equal(suite.ok(*warm, stdin="Hello\n").stdout, suite.ok(*warm, stdin="Hello\n").stdout, "--seed")


def too_long(suite):
    long_text = "apples " * 400
    result = suite.run("chat", "--context-length", 256, stdin=f"{long_text}\n{QUESTION}\n")
    suite.equal(result.returncode, 1, "a message that does not fit")
    suite.check("/reset starts anew" in result.stderr, f"what to do about it: {result.stderr!r}")
    suite.check("#### 19" in result.stdout, "the next message is answered")


class Terminal:
    """The program on a terminal of its own."""

    def __init__(self, suite, *arguments):
        self.master, slave = pty.openpty()
        self.process = suite.popen(*arguments, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)
        self.text = ""

    def read(self, seconds):
        if not select.select([self.master], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:
            return False
        self.text += data.decode(errors="replace")
        return bool(data)

    def wait_for(self, words, seconds=30):
        end = time.monotonic() + seconds * PATIENCE
        while words not in self.text and time.monotonic() < end:
            self.read(0.1)
        return words in self.text

    def type(self, text):
        os.write(self.master, text.encode())

    def close(self):
        try:
            return self.process.wait(timeout=10 * PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return None
        finally:
            os.close(self.master)


def terminal(suite):
    console = Terminal(suite, "chat", "--temperature", "1")
    suite.check(console.wait_for("> "), f"a prompt: {console.text!r}")
    console.type("/help\n")
    suite.check(console.wait_for("Ctrl-C stops"), "help")
    console.process.send_signal(signal.SIGINT)
    suite.check(console.wait_for("Ctrl-D or /exit leaves"), "Ctrl-C at the prompt stays")
    console.type("\x04")
    suite.equal(console.close(), 0, "Ctrl-D leaves with status 0")


def interrupted_answer(suite):
    """Ctrl-C ends the answer; the program goes on."""
    console = Terminal(suite, "chat", "--temperature", "100", "--seed", "1")
    suite.check(console.wait_for("> "), "a prompt")
    seen = len(console.text)
    console.type("Tell me everything\n")
    # At temperature 100 every token is as good as any: an answer goes on for thousands of tokens.
    end = time.monotonic() + 30 * PATIENCE
    while len(console.text) < seen + 100 and time.monotonic() < end:
        console.read(0.1)
    console.process.send_signal(signal.SIGINT)
    suite.check(console.wait_for("note: stopped"), f"Ctrl-C stops the answer: {console.text[-300:]!r}")
    suite.check(console.process.poll() is None, "and not the program")
    console.type("/exit\n")
    suite.equal(console.close(), 0, "/exit leaves with status 0")


Suite().finish(piped, conversation, commands, too_long, terminal, interrupted_answer)
