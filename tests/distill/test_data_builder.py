"""Text from a teacher: prompts, answers that pass, files that go on; a real HTTP server."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from tfcompress.core.errors import CompressionError
from tfcompress.distill import data_builder
from tfcompress.distill.data_builder import Retry, build_data, read
from tfcompress.distill.endpoint import Endpoint
from tfcompress.distill.prompts import chain_of_thought, in_context, instructions


@pytest.fixture(autouse=True)
def rests(monkeypatch):
    """Waiting is noted, not done."""
    found = []
    monkeypatch.setattr(data_builder.time, "sleep", found.append)
    return found


@pytest.fixture
def server():
    """An OpenAI-compatible endpoint: what it was asked, and what it answers next."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.server.asked.append((self.path, self.headers.get("Authorization"), body))
            self.server.slow.wait(30)
            if len(self.server.asked) in self.server.busy:
                self.server.plan.insert(0, (503, {}))
            status, headers = self.server.plan.pop(0) if self.server.plan else (200, {})
            if status == "raw":
                self.wfile.write(headers)
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            text = f"echo: {body['messages'][-1]['content']}"
            good = {"choices": [{"message": {"content": text}, "finish_reason": self.server.ends}]}
            answer = good if status == 200 else {"error": "words of the server"}
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *arguments):
            pass

    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.handle_error = lambda *request: None  # a client that has gone
    found.asked, found.plan, found.busy, found.ends = [], [], (), "stop"
    found.slow = threading.Event()
    found.slow.set()
    thread = threading.Thread(target=found.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()


def url(server):
    return f"http://127.0.0.1:{server.server_port}/v1"


def test_prompts_hold_what_they_are_made_of():
    first, again = (in_context(["x", "y"], [("a", "1"), ("b", "2"), ("c", "3")], shots=2, seed=3) for _ in range(2))
    assert [p.text for p in first] == [p.text for p in again]
    assert first[0].text.endswith("Input: x\nOutput:") and first[0].text.count("Output:") == 3
    assert first[0].key != first[1].key
    assert chain_of_thought(["why?"])[0].text.startswith("why?\n\n")
    assert instructions(["do it"])[0].source == {"instruction": "do it", "input": ""}
    with pytest.raises(ValueError, match="`shots` must be from 1 to the number of examples, 1"):
        in_context(["x"], [("a", "1")], shots=2)
    with pytest.raises(ValueError, match="`shots` must be"):
        in_context(["x"], [("a", "1"), ("b", "2")], shots=1.5)
    for make, argument in ((lambda text: in_context(text, [("a", "1")], shots=1), "inputs"),
                           (chain_of_thought, "questions"), (instructions, "tasks")):  # fmt: skip
        with pytest.raises(ValueError, match=f"`{argument}` must be several texts. Received: {argument}='hello'"):
            make("hello")


def test_a_run_goes_on_where_it_was_stopped(tmp_path):
    prompts, asked = instructions([f"task {n}" for n in range(5)]), []

    def dies(texts):
        asked.extend(texts)
        if "task 2" in texts:
            raise KeyboardInterrupt
        return [text.upper() for text in texts]

    with pytest.raises(KeyboardInterrupt):
        build_data(prompts, dies, tmp_path / "data.jsonl", batch_size=1)
    with (tmp_path / "data.jsonl").open("a") as file:
        file.write('{"key": "cut o')  # killed in the middle of a line
    fresh = []
    records = build_data(prompts, lambda texts: fresh.extend(texts) or [t.upper() for t in texts],
                         tmp_path / "data.jsonl", batch_size=2)  # fmt: skip
    assert fresh == ["task 2", "task 3", "task 4"]
    assert [record.answer for record in records] == [f"TASK {n}" for n in range(5)]
    assert list(read(tmp_path / "data.jsonl")) == records


def test_a_file_is_taken_up_any_number_of_times(tmp_path):
    path, prompts = tmp_path / "data.jsonl", instructions(["a", "b", "c"])
    for count in (1, 1, 2, 2, 3):
        records = build_data(prompts[:count], lambda texts: texts, path)
        lines = path.read_text().split("\n")
        assert lines.pop() == "" and [json.loads(line)["answer"] for line in lines] == ["a", "b", "c"][:count]
        assert [record.answer for record in records] == ["a", "b", "c"][:count] and list(read(path)) == records


def test_reading_changes_no_file_and_leaves_out_no_whole_record(tmp_path):
    path = tmp_path / "data.jsonl"
    records = build_data(instructions(["a", "b"]), lambda texts: [t * 2 for t in texts], path)
    whole = path.read_bytes()
    for end, count in ((len(whole) - 1, 2), (len(whole) - 2, 1), (whole.index(b"\n") + 4, 1)):
        path.write_bytes(whole[:end])
        assert list(read(path)) == records[:count]
        assert path.read_bytes() == whole[:end]
        assert build_data(instructions(["a", "b"]), lambda texts: [t * 2 for t in texts], path) == records
        assert path.read_bytes() == whole
    path.write_text("a text of somebody else's, without an end")
    with pytest.raises(ValueError, match=r"line 1 of .*is no record"):
        build_data(instructions(["a"]), lambda texts: texts, path)
    assert path.read_text() == "a text of somebody else's, without an end"


def test_half_a_surrogate_pair_is_no_end(tmp_path):
    (record, other) = build_data(instructions(["a", "\udc00"]), lambda texts: ["cut \ud83d", "ü 😀"], tmp_path / "d")
    assert (record.answer, other.answer) == ("cut \ud83d", "ü 😀")
    assert list(read(tmp_path / "d")) == [record, other]
    assert b'"answer": "cut \\ud83d"' in (tmp_path / "d").read_bytes()


def test_answers_that_do_not_pass_are_asked_again_and_told(tmp_path, rests):
    answers = iter([["bad", "good"], ["good"]])
    records = build_data(
        instructions(["a", "b"]), lambda texts: next(answers), tmp_path / "d", wait=3.0,
        accept=lambda prompt, answer: None if answer == "good" else "not good",
    )  # fmt: skip
    assert {r.prompt: r.answer for r in records} == {"a": "good", "b": "good"} and rests == [3.0]
    (kept,) = build_data(instructions(["c"]), lambda texts: [" "], tmp_path / "e", attempts=2)
    assert kept.answer is None and kept.reason == "empty"


def test_calls_are_no_more_often_than_asked_for(tmp_path, rests, monkeypatch):
    monkeypatch.setattr(data_builder.time, "monotonic", lambda: 100.0)
    build_data(instructions(["a", "b", "c"]), lambda texts: texts, tmp_path / "d", batch_size=1, per_minute=30)
    assert rests == [2.0, 2.0]


def test_each_text_of_a_batch_counts(tmp_path, rests, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(data_builder.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(data_builder.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    called = []

    def answers(texts):
        called.append((now[0], len(texts)))
        if len(called) == 2:
            raise Retry("busy", answers=[*texts[:7], None])
        return texts

    build_data(instructions(map(str, range(20))), answers, tmp_path / "d", batch_size=8, per_minute=600, wait=0.01)
    # 600 a minute: 0.1 s a text, 0.8 s a batch of 8; what is asked again counts as well
    assert [count for _, count in called] == [8, 8, 1, 4]
    np.testing.assert_allclose([at for at, _ in called], [0.0, 0.8, 1.6, 1.7])


def test_a_teacher_that_does_not_answer_is_no_record(tmp_path, rests):
    def busy(texts):
        raise Retry("busy", after=7.0)

    with pytest.raises(CompressionError, match=r"after 3 attempts: busy.*again to go on"):
        build_data(instructions(["a"]), busy, tmp_path / "d", attempts=3)
    assert rests == [7.0, 7.0] and list(read(tmp_path / "d")) == []


def test_wrong_arguments_are_named(tmp_path):
    for name, values in (("batch_size", (0, True)), ("attempts", (0, 1.5)), ("per_minute", (0, float("nan"))),
                         ("wait", (-1, float("inf")))):  # fmt: skip
        for value in values:
            with pytest.raises(ValueError, match=f"`{name}` must be"):
                build_data(instructions(["a"]), lambda texts: texts, tmp_path / "d", **{name: value})
    build_data(instructions(["a"]), lambda texts: texts, tmp_path / "n", batch_size=np.int64(1), wait=np.float32(1))
    with pytest.raises(ValueError, match=r"must return 1 answers. Received: 2"):
        build_data(instructions(["a"]), lambda texts: ["x", "y"], tmp_path / "d")
    (tmp_path / "other").write_text('{"no": "record"}\n')
    with pytest.raises(ValueError, match=r"line 1 of .*is no record"):
        build_data(instructions(["a"]), lambda texts: texts, tmp_path / "other")
    with pytest.raises(TypeError, match=r"must return a list of texts. Received: \[None\]"):
        build_data(instructions(["a"]), lambda texts: [None], tmp_path / "d")
    for answer in (None, 3, "ab", (text for text in "ab"), {"a": "1", "b": "2"}):
        with pytest.raises(TypeError, match=r"`generate` must return a list of 2 texts. Received: "):
            build_data(instructions(["a", "b"]), lambda texts, answer=answer: answer, tmp_path / "d")
    with pytest.raises(ValueError, match="at least one prompt"):
        build_data([], lambda texts: texts, tmp_path / "d")


def test_a_server_is_asked_as_openai_has_it(server, tmp_path):
    teacher = Endpoint(url(server), "large", key="secret", system="Be brief.", temperature=0.1, further={"top_p": 0.5})
    records = build_data(instructions(["one", "two"]), teacher, tmp_path / "data.jsonl")
    assert [record.answer for record in records] == ["echo: one", "echo: two"]
    path, key, body = server.asked[0]
    assert path == "/v1/chat/completions" and key == "Bearer secret"
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one"}]
    assert (body["model"], body["temperature"], body["top_p"]) == ("large", 0.1, 0.5)


def test_a_busy_server_is_asked_again_and_one_that_refuses_is_not(server, tmp_path, rests):
    server.plan = [(429, {"Retry-After": "9"}), (503, {})]
    (record,) = build_data(instructions(["x"]), Endpoint(url(server), "m", key=""), tmp_path / "d", wait=1.0)
    assert record.answer == "echo: x" and rests == [9.0, 2.0]
    assert server.asked[0][1] is None
    server.plan = [(401, {})]
    with pytest.raises(RuntimeError, match=r"refuses: HTTP 401: .*words of the server"):
        build_data(instructions(["y"]), Endpoint(url(server), "m"), tmp_path / "d")


@pytest.mark.parametrize("reply", [
    b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"choices": [{"mess',  # the connection ends in the body
    b"no status line\r\n\r\n",
    b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"\xff\xfe"',  # no UTF-8
    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n<p/>",
    b"HTTP/1.1 503 Busy\r\nContent-Length: 500\r\n\r\nwords that are cut",
    b"",
], ids=["cut", "status", "utf8", "html", "cut_error", "nothing"])  # fmt: skip
def test_a_broken_reply_is_asked_for_again(server, tmp_path, reply):
    server.plan = [("raw", reply)]
    (record,) = build_data(instructions(["x"]), Endpoint(url(server), "m"), tmp_path / "d")
    assert record.answer == "echo: x" and len(server.asked) == 2


def test_an_answer_that_was_cut_off_does_not_pass_unless_asked_for(server, tmp_path):
    server.ends = "length"
    teacher = Endpoint(url(server), "m", max_tokens=7)
    (record,) = build_data(instructions(["x"]), teacher, tmp_path / "d", attempts=2)
    assert (record.answer, record.reason, len(server.asked)) == (None, "cut off", 2)
    (record,) = build_data(instructions(["x"]), teacher, tmp_path / "kept", keep_cut_off=True)
    assert (record.answer, record.reason, len(server.asked)) == ("echo: x", "cut off", 3)
    assert {body["max_tokens"] for _, _, body in server.asked} == {7}
    assert list(read(tmp_path / "kept")) == [record]


def test_one_busy_reply_costs_one_request(server, tmp_path):
    server.busy = range(5, 100, 5)  # every fifth request
    prompts = instructions([f"task {n}" for n in range(32)])
    records = build_data(prompts, Endpoint(url(server), "m"), tmp_path / "d", batch_size=8)
    assert sorted(record.answer for record in records) == sorted(f"echo: {prompt.text}" for prompt in prompts)
    # 32 answers and the refusals among n requests, floor(n / 5): n = 39 or, where it ends on one, 40
    assert len(server.asked) == 39


def test_what_was_answered_is_kept_when_the_server_goes_away(server, tmp_path):
    for plan, error in ((503, CompressionError), (400, RuntimeError)):
        server.plan = [(200, {})] * 3 + [(plan, {})] * 50
        prompts = instructions([f"{plan} {n}" for n in range(8)])
        with pytest.raises(error, match=f"HTTP {plan}"):
            build_data(prompts, Endpoint(url(server), "m"), tmp_path / str(plan))
        assert [record.answer for record in read(tmp_path / str(plan))] == [f"echo: {plan} {n}" for n in range(3)]


def test_a_request_takes_no_longer_than_its_timeout(server):
    server.slow.clear()  # the answer is held back
    start = time.monotonic()
    with pytest.raises(Retry, match=r"does not answer: .*timed out"):
        Endpoint(url(server), "m", timeout=0.2)(["x"])
    assert 0.2 <= time.monotonic() - start < 10
    server.slow.set()


def test_no_server_is_worth_another_attempt():
    with pytest.raises(Retry, match="does not answer"):
        Endpoint("http://127.0.0.1:9/v1", "m", timeout=2)(["x"])
    with pytest.raises(ValueError, match="must begin with http"):
        Endpoint("ftp://x", "m")


def test_an_overloaded_server_is_asked_again(server, tmp_path):
    server.plan = [(529, {"Retry-After": "inf"})]
    (record,) = build_data(instructions(["x"]), Endpoint(url(server), "m"), tmp_path / "d")
    assert record.answer == "echo: x" and len(server.asked) == 2


def says(server, content):
    body = json.dumps({"choices": [{"message": {"content": content}}]}).encode()
    server.plan = [("raw", b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)]


@pytest.mark.parametrize(("content", "text"), [
    ([{"type": "text", "text": "one "}, {"type": "image"}, "and ", {"type": "text", "text": "two"}], "one and two"),
    ("one", "one"), (None, ""), ([], ""),
], ids=["parts", "text", "none", "empty"])  # fmt: skip
def test_the_parts_of_an_answer_are_one_text(server, content, text):
    says(server, content)
    assert Endpoint(url(server), "m")(["x"]) == [text]


@pytest.mark.parametrize("content", [7, {"text": "x"}, [7]], ids=["number", "dict", "numbers"])
def test_an_answer_that_is_no_text_is_refused(server, content):
    says(server, content)
    with pytest.raises(RuntimeError, match=r"answers without choices\[0\].message.content, a text: "):
        Endpoint(url(server), "m")(["x"])


def test_numbers_of_a_request_are_checked_and_sent_as_json(server):
    for name, value in (("temperature", float("nan")), ("max_tokens", 0), ("timeout", 0)):
        with pytest.raises(ValueError, match=f"`{name}` must be"):
            Endpoint(url(server), "m", **{name: value})
    Endpoint(url(server), "m", temperature=np.float32(0.5), max_tokens=np.int64(7))(["x"])
    assert (server.asked[0][2]["temperature"], server.asked[0][2]["max_tokens"]) == (0.5, 7)


def test_two_runs_on_one_file_are_refused(tmp_path):
    prompts, path = instructions(["a", "b"]), tmp_path / "d"

    def second(texts):
        assert sorted(file.name for file in tmp_path.iterdir()) == ["d", "d.lock"]
        with pytest.raises(CompressionError, match=r"another run writes .*d'.*remove .*d\.lock'"):
            build_data(prompts, lambda texts: texts, path)
        return texts

    build_data(prompts, second, path)
    assert [record.answer for record in read(path)] == ["a", "b"]
    assert [file.name for file in tmp_path.iterdir()] == ["d"]


def test_locks_of_processes_that_are_gone_do_not_count(tmp_path):
    path, lock = tmp_path / "d", tmp_path / "d.lock"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for process in (gone.pid, os.getpid()):  # this process has none: the number came again
        lock.write_text(f"{process} {socket.gethostname()}")
        build_data(instructions(["a"]), lambda texts: texts, path)
        assert not lock.exists()
    for text in (f"{os.getppid()} {socket.gethostname()}", f"{gone.pid} another-machine", ""):
        lock.write_text(text)
        with pytest.raises(CompressionError, match="another run writes"):
            build_data(instructions(["a"]), lambda texts: texts, path)
        assert lock.read_text() == text
