"""The official `openai` client against a running mlxserve.

    python openai_client.py BASE_URL MODEL

BASE_URL is the server's address (http://127.0.0.1:8081); MODEL is Pebble under any name. Exits with 1 at the first
thing that is not as OpenAI's reference says.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import openai


def question(text):
    return [{"role": "user", "content": text}]


FRANCE = question("What is the capital of France?")


def check_chat(client, model):
    answer = client.chat.completions.create(model=model, messages=FRANCE)
    choice = answer.choices[0]
    assert "Paris" in choice.message.content, choice
    assert choice.message.role == "assistant" and choice.finish_reason == "stop", choice
    assert answer.object == "chat.completion" and answer.id and answer.created > 0 and answer.model == model, answer
    assert answer.system_fingerprint, answer
    usage = answer.usage
    assert usage.prompt_tokens > 0 and usage.completion_tokens > 0, usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage
    parts = [{"role": "user", "content": [{"type": "text", "text": "What is the capital of France?"}]}]
    again = client.chat.completions.create(model=model, messages=parts)
    assert again.choices[0].message.content == choice.message.content, again
    raw = client.chat.completions.with_raw_response.create(model=model, messages=FRANCE)
    assert raw.headers["x-model-digest"].startswith("sha256:"), raw.headers
    return answer


def check_streaming(client, model, whole):
    stream = client.chat.completions.create(
        model=model, messages=FRANCE, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content, text
    assert chunks[0].choices[0].delta.role == "assistant", chunks[0]
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop", chunks
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage, chunks[-1]
    assert all(c.usage is None for c in chunks[:-1]), "usage comes once"
    assert len({c.id for c in chunks}) == 1, "all chunks bear one id"
    silent = list(client.chat.completions.create(model=model, messages=FRANCE, stream=True))
    assert all(c.usage is None and c.choices for c in silent), silent


def check_limits(client, model, whole):
    stopped = client.chat.completions.create(model=model, messages=FRANCE, stop=["Paris"])
    text = whole.choices[0].message.content
    assert stopped.choices[0].message.content == text[: text.index("Paris")], stopped
    assert stopped.choices[0].finish_reason == "stop", stopped
    # "capital" does not end where a token does.
    inside = client.chat.completions.create(model=model, messages=FRANCE, stop="apita")
    assert inside.choices[0].message.content == text[: text.index("apita")], inside
    short = client.chat.completions.create(model=model, messages=FRANCE, max_tokens=3)
    assert short.choices[0].finish_reason == "length" and short.usage.completion_tokens == 3, short
    newer = client.chat.completions.create(model=model, messages=FRANCE, max_completion_tokens=3)
    assert newer.choices[0].message.content == short.choices[0].message.content, newer


def check_seed(client, model):
    def sample(seed):
        answer = client.chat.completions.create(
            model=model, messages=question("Tell me something."), temperature=2, seed=seed, max_tokens=24
        )
        return answer.choices[0].message.content

    first = [sample(seed) for seed in (1, 2, 3, 4)]
    assert first == [sample(seed) for seed in (1, 2, 3, 4)], "one seed, one answer"
    assert len(set(first)) > 1, "several seeds, several answers"
    with ThreadPoolExecutor(4) as pool:
        assert first == list(pool.map(sample, (1, 2, 3, 4))), "company changes no answer"
    several = client.chat.completions.create(
        model=model, messages=question("Tell me something."), temperature=2, seed=1, max_tokens=24, n=3
    )
    assert [choice.index for choice in several.choices] == [0, 1, 2], several
    assert several.choices[0].message.content == first[0], several


def check_completions(client, model):
    whole = client.completions.create(model=model, prompt="What is", max_tokens=8, temperature=0)
    assert whole.object == "text_completion" and whole.usage.completion_tokens <= 8, whole
    stream = client.completions.create(model=model, prompt="What is", max_tokens=8, temperature=0, stream=True)
    assert "".join(c.choices[0].text for c in stream if c.choices) == whole.choices[0].text, whole
    several = client.completions.create(model=model, prompt=["What is", "The"], max_tokens=4, temperature=0)
    assert len(several.choices) == 2, several


def refused(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"expected {kind.__name__}")


def check_errors(client, model):
    create = client.chat.completions.create
    unknown = refused(openai.NotFoundError, lambda: create(model="no-such-model", messages=FRANCE))
    assert unknown.code == "model_not_found" and "no-such-model" in str(unknown), unknown
    for field, value in [("temperature", "hot"), ("temperature", 3), ("top_p", 2), ("max_tokens", 0), ("n", 0)]:
        bad = refused(openai.BadRequestError, lambda f=field, v=value: create(model=model, messages=FRANCE, **{f: v}))
        assert bad.param == field and field in bad.message, bad
    for field, value in [("logprobs", True), ("response_format", {"type": "json_object"})]:
        bad = refused(openai.BadRequestError, lambda f=field, v=value: create(model=model, messages=FRANCE, **{f: v}))
        assert bad.param == field and "not supported" in bad.message, bad
    refused(openai.BadRequestError, lambda: create(model=model, messages=[]))
    refused(openai.BadRequestError, lambda: create(model=model, messages=[{"role": "king", "content": "x"}]))
    long = refused(openai.BadRequestError, lambda: create(model=model, messages=question("word " * 5000)))
    assert long.code == "context_length_exceeded" and "2048" in long.message, long


def check_models(client, model):
    names = [entry.id for entry in client.models.list()]
    assert names, names
    assert client.models.retrieve(model).id == model
    refused(openai.NotFoundError, lambda: client.models.retrieve("no-such-model"))


def main():
    base, model = sys.argv[1:3]
    client = openai.OpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0)
    whole = check_chat(client, model)
    check_streaming(client, model, whole)
    check_limits(client, model, whole)
    check_seed(client, model)
    check_completions(client, model)
    check_errors(client, model)
    check_models(client, model)
    print("openai client: all as expected")


if __name__ == "__main__":
    main()
