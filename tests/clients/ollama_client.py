"""The official `ollama` client against a running mlxserve.

    python ollama_client.py BASE_URL MODEL

BASE_URL is the server's address (http://127.0.0.1:8081); MODEL is Pebble under any name. Exits with 1 at the first
thing that is not as Ollama's API says.
"""

import sys

import ollama

QUESTION = "What is the capital of France?"
GREEDY = {"temperature": 0}


def check_generate(client, model):
    whole = client.generate(model=model, prompt=QUESTION, options=GREEDY)
    assert "Paris" in whole.response and whole.done and whole.done_reason == "stop", whole
    assert whole.prompt_eval_count > 0 and whole.eval_count > 0, whole
    assert whole.total_duration >= whole.eval_duration > 0 and whole.prompt_eval_duration > 0, whole
    assert whole.context and len(whole.context) > whole.prompt_eval_count, whole
    parts = list(client.generate(model=model, prompt=QUESTION, options=GREEDY, stream=True))
    assert "".join(part.response for part in parts) == whole.response, parts
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True], parts
    stopped = client.generate(model=model, prompt=QUESTION, options={**GREEDY, "stop": ["Paris"]})
    assert stopped.response == whole.response[: whole.response.index("Paris")], stopped
    short = client.generate(model=model, prompt=QUESTION, options={**GREEDY, "num_predict": 3})
    assert short.done_reason == "length" and short.eval_count == 3, short
    raw = client.generate(model=model, prompt="What is", raw=True, options={**GREEDY, "num_predict": 4})
    assert raw.prompt_eval_count < whole.prompt_eval_count, raw
    seeded = [
        client.generate(model=model, prompt="Say something.", options={"temperature": 2, "seed": 7, "num_predict": 16})
        for _ in range(2)
    ]
    assert seeded[0].response == seeded[1].response, seeded


def check_chat(client, model):
    messages = [{"role": "user", "content": QUESTION}]
    whole = client.chat(model=model, messages=messages, options=GREEDY)
    assert whole.message.role == "assistant" and "Paris" in whole.message.content, whole
    parts = list(client.chat(model=model, messages=messages, options=GREEDY, stream=True))
    assert "".join(part.message.content for part in parts) == whole.message.content, parts
    assert parts[-1].done and parts[-1].eval_count == whole.eval_count, parts[-1]


def check_listings(client, model):
    listed = client.list().models
    assert any(entry.model.split(":")[0] == model.split(":")[0].split("@")[0] for entry in listed), listed
    assert all(entry.size > 0 and entry.digest and entry.modified_at for entry in listed), listed
    shown = client.show(model)
    assert shown.details.family == "qwen3" and shown.template and "completion" in shown.capabilities, shown
    assert shown.modelinfo["general.architecture"] == "qwen3", shown
    running = client.ps().models
    assert running and running[0].size > 0 and running[0].expires_at and running[0].digest, running


def check_errors(client, model):
    for status, call in [
        (404, lambda: client.generate(model="no-such-model", prompt="x")),
        (404, lambda: client.chat(model="no-such-model", messages=[{"role": "user", "content": "x"}])),
        (404, lambda: client.show("no-such-model")),
        (400, lambda: client.generate(model=model, prompt="x", format="json")),
    ]:
        try:
            call()
        except ollama.ResponseError as error:
            assert error.status_code == status, error
        else:
            raise AssertionError(f"expected {status}")


def check_residency(client, model):
    unloaded = client.generate(model=model, keep_alive=0)
    assert unloaded.done and unloaded.done_reason == "unload", unloaded
    assert not client.ps().models, client.ps()
    loaded = client.generate(model=model, keep_alive="5m")
    assert loaded.done and loaded.done_reason == "load", loaded
    assert client.ps().models, "a model that was loaded is listed"
    assert "Paris" in client.generate(model=model, prompt=QUESTION, options=GREEDY).response


def main():
    base, model = sys.argv[1:3]
    client = ollama.Client(host=base)
    check_generate(client, model)
    check_chat(client, model)
    check_listings(client, model)
    check_errors(client, model)
    check_residency(client, model)
    print("ollama client: all as expected")


if __name__ == "__main__":
    main()
