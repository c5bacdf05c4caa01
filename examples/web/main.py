"""A FastAPI application. One AsyncClient for its whole life; the deployment is called by its name."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel

import unigpu


@asynccontextmanager
async def lifespan(api: FastAPI) -> AsyncGenerator[None]:
    async with unigpu.AsyncClient() as api.state.gpus:
        yield


api = FastAPI(lifespan=lifespan)


class Text(BaseModel):
    text: str


@api.post("/summaries")
async def summaries(body: Text, request: Request) -> dict[str, str]:
    gpus: unigpu.AsyncClient = request.app.state.gpus
    try:
        result = await gpus.invoke("summarize", {"text": body.text}, start_timeout=10, timeout=60)
    except unigpu.NoWorkerReady as error:  # cold for longer than our own callers wait: one start, and they come again
        await gpus.wake("summarize")
        raise HTTPException(503, "still starting", headers={"Retry-After": "30"}) from error
    except unigpu.JobFailed as error:  # the handler's own failure
        raise HTTPException(422, f"cannot summarize that: {error.error_message}") from error
    except unigpu.UniGPUError as error:
        raise HTTPException(502, "no answer from the model") from error
    return {"summary": result.output["summary"], "worker": result.worker_id or "unknown"}
