"""Handlers of ours: they know nothing of RunPod."""


def echo(input):
    if "boom" in input:
        raise ValueError(input["boom"])
    return {"echo": input, "error": "a word of the user's"}


def count(input):
    for number in range(input["count"]):
        yield {"number": number}
