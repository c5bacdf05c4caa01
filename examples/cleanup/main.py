"""A script that leaves nothing behind, whatever happens: a name of its own, an end, and a block that tears down."""

from __future__ import annotations

from app import distinct

import unigpu


def main() -> None:
    with unigpu.Client("local") as client:
        try:
            # ephemeral: a random end of the name, never reused, and gone after an hour even if this machine dies
            with client.deploy(name="preview", handler=distinct, workers=(1, 2), ephemeral=True) as app:
                print("deployed:", app.name, "-", app.rate)
                print("answer:", app.invoke({"text": "the cat and the dog"}).output)
                raise RuntimeError("something goes wrong in the middle")
        except RuntimeError as error:
            print("failed:", error)
        print("left:", len(client.deployments()), "deployments,", len(client.inventory()), "things that cost money")


if __name__ == "__main__":
    main()
