"""A judge behind a URL: a small server of the tests plays it. Its key is sent and nowhere kept; verdicts survive a failure."""

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hf_evl_ecg.benchmarks import (
    BenchmarkAnswer,
    BenchmarkQuestion,
    Judge,
    JudgeError,
    Verdict,
    ask_judge,
    benchmark_task,
    score_verdicts,
    verdict_scores,
)
from hf_evl_ecg.benchmarks import judge as judge_module
from hf_evl_ecg.benchmarks.verdicts import INSTRUCTIONS, compat_marks, read_marks
from hf_evl_ecg.chat.conversations import Turn
from hf_evl_ecg.inference.answer_file import AnswerFileError

KEY = "secret-key-of-the-tests"
REPORT, ARENA = benchmark_task("ptb-test-report"), benchmark_task("arena")
GOOD = '{"diagnosis": {"score": 8, "explanation": "ok"}, "form": {"score": 4}, "rhythm": {"score": 10}}'


@dataclass
class Server:
    """What a judge replies (the last again and again), and what it was asked."""

    replies: list = field(default_factory=lambda: [GOOD])
    requests: list = field(default_factory=list)
    url: str = ""


@pytest.fixture
def server(monkeypatch):
    found, lock = Server(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                found.requests.append((self.path, self.headers.get("Authorization"), body))
                reply = found.replies.pop(0) if len(found.replies) > 1 else found.replies[0]
            if callable(reply):
                reply = reply(body)
            status, headers, text = reply if isinstance(reply, tuple) else (200, {}, reply)
            if status == 200:
                text = json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]})
            try:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())
            except OSError:  # whoever asked has given up
                pass

        def log_message(self, *_):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    found.url = f"http://127.0.0.1:{running.server_port}/v1"
    monkeypatch.setenv("JUDGE_API_KEY", KEY)
    yield found
    running.shutdown()
    running.server_close()


@pytest.fixture
def waits(monkeypatch):
    """Seconds that were waited between requests; nothing waits."""
    found = []
    monkeypatch.setattr(judge_module.time, "sleep", found.append)
    return found


def answers(*texts, reference="Sinus rhythm.", question="Write a report."):
    return [
        BenchmarkAnswer(BenchmarkQuestion(f"r{n}", (Turn(question, reference),), {}, f"r{n}"), (text,))
        for n, text in enumerate(texts)
    ]


def test_a_verdict_is_asked_for_with_the_key_from_the_environment(server):
    judge = Judge(server.url, "a-model")
    assert judge.ask("Grade this.") == GOOD
    path, authorization, body = server.requests[0]
    assert path == "/v1/chat/completions"
    assert authorization == f"Bearer {KEY}"
    assert body == {"model": "a-model", "messages": [{"role": "user", "content": "Grade this."}], "temperature": 0.0}
    assert KEY not in repr(judge)


def test_a_server_that_wants_no_key_gets_none_and_no_temperature_where_none_is_set(server, monkeypatch):
    monkeypatch.delenv("JUDGE_API_KEY")
    Judge(server.url + "/", "m", temperature=None).ask("x")
    assert server.requests[0][:2] == ("/v1/chat/completions", None)
    assert "temperature" not in server.requests[0][2]


def test_passing_failures_are_tried_again_ever_later(server, waits):
    server.replies[:] = [(503, {}, "busy"), (429, {"Retry-After": "7"}, ""), (500, {}, ""), GOOD]
    assert Judge(server.url, "m").ask("x") == GOOD
    assert waits == [1.0, 7.0, 4.0]


def test_half_a_reply_and_a_late_one_are_tried_again(server, waits):
    late = threading.Event()
    server.replies[:] = [lambda _: (late.wait(2) and GOOD) or GOOD, (201, {}, "no json"), (201, {}, "{}"), GOOD]
    assert Judge(server.url, "m", timeout_s=0.2).ask("x") == GOOD
    late.set()
    assert len(waits) == 3


def test_a_judge_that_fails_for_good_says_so(server, waits):
    server.replies[:] = [(503, {}, "busy")]
    with pytest.raises(JudgeError, match=r"failed 3 times, at last: HTTP 503 .*busy"):
        Judge(server.url, "m", retries=2).ask("x")
    assert len(server.requests) == 3
    with pytest.raises(JudgeError, match="failed 1 times"):
        Judge("http://127.0.0.1:9/v1", "m", retries=0).ask("x")


def test_a_refusal_is_not_repeated_and_does_not_show_the_key(server, waits, caplog):
    server.replies[:] = [(401, {}, f"Incorrect API key provided: {KEY}")]
    with pytest.raises(JudgeError) as raised:
        Judge(server.url, "m").ask("x")
    assert "refused: HTTP 401" in str(raised.value)
    assert "[key]" in str(raised.value)
    server.replies[:] = [(500, {}, KEY), GOOD]
    Judge(server.url, "m").ask("x")
    assert len(server.requests) == 3
    assert KEY not in str(raised.value) + caplog.text


def test_the_key_goes_nowhere_else(server, waits):
    server.replies[:] = [(302, {"Location": f"{server.url}/elsewhere"}, "")]
    with pytest.raises(JudgeError, match="HTTP 302"):
        Judge(server.url, "m").ask("x")
    assert len(server.requests) == 1


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host/v1", "https://"])
def test_a_url_is_needed(url):
    with pytest.raises(ValueError, match="http:// or https:// and a host are needed"):
        Judge(url, "m")


@pytest.mark.parametrize("url", [f"https://me:{KEY}@host/v1", f"https://host/v1?key={KEY}"])
def test_a_key_in_the_url_is_refused_unseen(url):
    with pytest.raises(ValueError, match="put the key into JUDGE_API_KEY") as raised:
        Judge(url, "m")
    assert KEY not in str(raised.value)


def test_raw_verdicts_are_kept_and_not_asked_for_twice(server, tmp_path):
    path, judge = tmp_path / "verdicts.jsonl", Judge(server.url, "m")
    found = ask_judge(judge, REPORT, answers("AF.", "SR.", " "), path=path, progress_bar=False)
    assert [verdict.text for verdict in found] == [GOOD, GOOD, None]  # nothing to judge in an empty answer
    assert len(server.requests) == 2
    assert json.loads(path.read_text().splitlines()[1])["text"] == GOOD
    assert KEY not in path.read_text()
    ask_judge(judge, REPORT, answers("AF.", "SR.", " "), path=path, progress_bar=False)
    assert len(server.requests) == 2
    ask_judge(judge, REPORT, answers("AF.", "Another.", " "), path=path, progress_bar=False)
    assert len(server.requests) == 3  # the answer that changed
    ask_judge(judge, REPORT, answers("AF."), path=path, instructions="Be kind.", progress_bar=False)
    assert len(server.requests) == 4
    with pytest.raises(AnswerFileError, match="other model"):
        ask_judge(Judge(server.url, "another"), REPORT, answers("AF."), path=path, progress_bar=False)


def test_verdicts_before_a_failure_are_kept(server, waits, tmp_path):
    path, judge = tmp_path / "verdicts.jsonl", Judge(server.url, "m", retries=0)
    server.replies[:] = [GOOD, GOOD, (402, {}, "no credit left")]
    with pytest.raises(JudgeError, match="no credit left"):
        ask_judge(judge, REPORT, answers("a", "b", "c", "d"), path=path, workers=1, progress_bar=False)
    server.replies[:] = [GOOD]
    asked = len(server.requests)
    found = ask_judge(judge, REPORT, answers("a", "b", "c", "d"), path=path, workers=1, progress_bar=False)
    assert [verdict.text for verdict in found] == [GOOD] * 4
    assert len(server.requests) - asked == 2


def test_the_judge_reads_reference_and_answer_and_in_the_arena_the_question(server):
    two = BenchmarkQuestion("r", (Turn("Rhythm?", "AF"), Turn("Why?", "No P waves")), {}, "r")
    found = ask_judge(
        Judge(server.url, "m"), ARENA, [BenchmarkAnswer(two, ("SR", "P waves"))], workers=1, progress_bar=False
    )
    assert [(verdict.turn, verdict.text) for verdict in found] == [(0, GOOD), (1, GOOD)]
    prompts = [body["messages"][0]["content"] for _, _, body in server.requests]
    assert all(prompt.startswith(INSTRUCTIONS["arena"]) for prompt in prompts)
    assert prompts[1].endswith("[Question]\nWhy?\n\n[Reference]\nNo P waves\n\n[Text to grade]\nP waves")
    ask_judge(Judge(server.url, "m"), REPORT, answers("SR."), progress_bar=False)
    assert "[Question]" not in server.requests[-1][2]["messages"][0]["content"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD, (8, 4, 10)),
        (f"```json\n{GOOD}\n```", (8, 4, 10)),
        (f"<think>{{is it so?}}</think>{GOOD}", (8, 4, 10)),
        ('{"Diagnosis": {"Score": "7/10"}, "Waveform": {"Score": 5.5}, "Rhythm": 0}', (7, 5.5, 0)),
        ('{"diagnosis": 8, "form": 4}', None),  # an aspect is missing
        ('{"diagnosis": 11, "form": 4, "rhythm": 1}', None),
        ('{"diagnosis": true, "form": 4, "rhythm": 1}', None),
        ('{"diagnosis": "good", "form": 4, "rhythm": 1}', None),
        ("8 out of 10", None),
        ("", None),
        ("[1, 2]", None),
    ],
)
def test_marks_are_read_or_the_verdict_is_not(text, expected):
    found = read_marks(text, REPORT.aspects)
    assert found == (None if expected is None else dict(zip(REPORT.aspects, expected, strict=True)))


def test_names_of_aspects_may_be_spelt_out():
    marks = {"Accuracy": 1, "completeness": 2, "Instruction Adherence": 3}
    assert read_marks(json.dumps(marks), ARENA.aspects) == {
        "accuracy": 1,
        "completeness": 2,
        "instruction_adherence": 3,
    }
    assert compat_marks('{"diagnosis": 4, "style": {"Score": 8}}') == 6
    assert compat_marks("nothing") is None


def test_judged_scores_are_those_worked_out_by_hand():
    """Good: (8 + 4 + 10) / 30; empty: 0; incomplete: left out by the strict scorer, 9 / 10 for the released one."""
    texts = [GOOD, None, '{"diagnosis": 9}', "no json"]
    verdicts = [Verdict(a, 0, text) for a, text in zip(answers("a", "", "c", "d"), texts, strict=True)]
    strict, released = verdict_scores(REPORT, verdicts, allow_partial=True, n_bootstrap=0)
    found = {name: estimate.value for name, estimate in strict.items()}
    assert found == pytest.approx(
        {
            "judge_score": 22 / 60,
            "diagnosis": 0.4,
            "form": 0.2,
            "rhythm": 0.5,
            "unparsed": 0.25,
            "unparsed_verdicts": 0.5,
        }
    )
    assert strict["judge_score"].n == 2
    assert released == pytest.approx({"judge_score": (22 / 30 + 9 / 10) / 2})
    rows = score_verdicts(REPORT, verdicts, method="mine", allow_partial=True, n_bootstrap=20)
    assert {row["metric"] for row in rows} == {*found, "judge_score_compat"}
    with pytest.raises(ValueError, match="4 answers: ptb-test-report has 500 records"):
        verdict_scores(REPORT, verdicts)
    with pytest.raises(ValueError, match="none of 1 verdicts can be read"):
        verdict_scores(REPORT, verdicts[3:], allow_partial=True)
