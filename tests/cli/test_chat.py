"""`regard chat`: messages, standard input, and a terminal with its commands and pasted lines."""

from __future__ import annotations

import io
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.tasks.small import save, writer
from tests.tasks.talker import talker

from regard.cli import main
from regard.cli.show import printable
from regard.tasks.chat import chat

SETTINGS = ["--temperature", "0", "--max-tokens", "8"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save(talker(), tmp_path_factory.mktemp("runs") / "chat-1"))


def conversation(messages: list[str], **settings: Any) -> tuple[list[str], list[dict[str, str]]]:
    talk: list[dict[str, str]] = []
    if "system" in settings:
        talk.append({"role": "system", "content": settings["system"]})
    replies = []
    for text in messages:
        talk.append({"role": "user", "content": text})
        replies.append(chat(talker(), talk, temperature=0.0, max_tokens=8).text)
        talk.append({"role": "assistant", "content": replies[-1]})
    return replies, talk


def lines(messages: list[str]) -> list[str]:
    return [printable(text, keep="\n\t") + "\n" for text in conversation(messages)[0]]


def test_messages_make_a_conversation(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", run, "--message", "a dog", "--message", "two", "--system", "a", *SETTINGS]) == 0
    shown = capsys.readouterr()
    replies, talk = conversation(["a dog", "two"], system="a")
    assert shown.out == "".join(printable(text, keep="\n\t") + "\n" for text in replies)
    assert main(["chat", run, "a dog", "--system", "a", "two", *SETTINGS]) == 0
    assert capsys.readouterr().out == shown.out
    assert (
        main(["chat", run, "--message", "a dog", "--message", "two", "--system", "a", "--json", *SETTINGS])
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["messages"] == talk
    assert [reply["text"] for reply in found["replies"]] == replies
    assert {"prompt_tokens", "tokens", "finished", "dropped"} <= set(found["replies"][0])


def test_each_line_of_standard_input_is_a_message(
    run: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a dog\r\n\n/quit\n")))
    assert main(["chat", run, *SETTINGS]) == 0  # commands are for a terminal
    assert capsys.readouterr().out == "".join(lines(["a dog", "/quit"]))


def test_what_was_left_out_is_said(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for _ in range(5) for word in ("--message", "a dog runs")]
    assert main(["chat", run, *words, *SETTINGS]) == 0
    assert "the context is full: the oldest 2 messages are left out" in capsys.readouterr().err


def test_a_model_without_a_template_needs_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(save(writer(), tmp_path / "run"))
    assert main(["chat", folder, "--message", "a"]) == 2
    shown = capsys.readouterr()
    assert "no chat template" in shown.err
    assert shown.err.count("\n") == 1
    (tmp_path / "own.jinja").write_text("{{ messages[0].content }}")
    assert main(["chat", folder, "--message", "a", "--template", str(tmp_path / "own.jinja"), *SETTINGS]) == 0
    assert main(["chat", folder, "--message", "a", "--template", str(tmp_path / "no.jinja")]) == 2
    assert "can't be read" in capsys.readouterr().err
    assert main(["chat", folder, "--message", "a", "--top-p", "2"]) == 2


class Terminal:
    """Be a person at a terminal."""

    def __init__(self, words: list[str], repo: Path) -> None:
        self.ours, theirs = os.openpty()
        environment = {**os.environ, "PYTHONPATH": str(repo / "src"), "TERM": "dumb"}
        self.child = subprocess.Popen(
            [sys.executable, "-m", "regard", *words],
            env=environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self.shown = ""

    def wait_for(self, text: str, after: int = 0) -> int:
        """Read until a text is shown, and give the place behind it."""
        end = time.monotonic() + 60
        while text not in self.shown[after:]:
            assert time.monotonic() < end, self.shown
            if select.select([self.ours], [], [], 1)[0]:
                try:
                    self.shown += os.read(self.ours, 65536).decode(errors="replace").replace("\r\n", "\n")
                except OSError:
                    break
        assert text in self.shown[after:], self.shown
        return self.shown.index(text, after) + len(text)

    def type(self, text: str) -> int:
        at = len(self.shown)
        os.write(self.ours, text.encode())
        return at


def test_a_terminal_has_commands_and_takes_pasted_lines_as_one_message(
    run: str, tmp_path: Path, repo: Path
) -> None:
    there = Terminal(["chat", run, *SETTINGS], repo)
    try:
        there.wait_for("> ", there.wait_for("/quit ends"))
        first = lines(["a dog\na cat"])[0].strip()
        there.wait_for("> ", there.wait_for(first, there.type("a dog\na cat\n")))
        there.wait_for("> ", there.wait_for("saved to", there.type(f"/save {tmp_path / 'talk.json'}\n")))
        there.wait_for(
            "> ", there.wait_for("exists already", there.type(f"/save {tmp_path / 'talk.json'}\n"))
        )
        there.wait_for("> ", there.wait_for("did you mean", there.type("/rest\n")))
        there.wait_for("> ", there.wait_for("a new conversation", there.type("/reset\n")))
        there.wait_for("> ", there.wait_for(lines(["/quit"])[0].strip(), there.type("//quit\n")))
        there.type("/quit\n")
        assert there.child.wait(30) == 0
    finally:
        there.child.kill()
        there.child.wait()
        os.close(there.ours)
    saved = json.loads((tmp_path / "talk.json").read_text())["messages"]
    assert saved == conversation(["a dog\na cat"])[1]
