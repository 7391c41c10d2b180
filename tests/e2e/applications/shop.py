"""An application whose handlers do what Spring's annotated methods do."""

import asyncio
from dataclasses import dataclass

from postroom import Postroom, Request
from postroom.errors import NotAllowed

app = Postroom()


@dataclass
class Quote:
    stock: str
    price: float


@app.handler("/hello")
async def hello(request: Request) -> None:
    await request.send("/topic/greetings", {"content": f"Hello, {request.body.decode()}!"}, {"x": "y"})


@app.handler("/ask")
def ask(request: Request) -> None:
    request.reply("/queue/reply", f"only {request.session}", {"offset": "1", "content-length": "3", "kept": "yes"})


@app.handler("/tell-all")
async def tell_all(request: Request) -> None:
    await request.send_to_user("/queue/reply", b"every tab")


@app.handler("/forward/{user}")
async def forward(request: Request) -> None:
    await request.send(f"/user/{request.variables['user']}/queue/reply", request.body)


@app.handler("/fail/{how}")
def fail(request: Request) -> None:
    if request.variables["how"] == "refused":
        raise NotAllowed("not on a Sunday")
    raise ValueError("a secret")


@app.handler("/send-nowhere")
async def send_nowhere(request: Request) -> None:
    await request.send("/app/hello", "round and round")


@app.handler("/wait")
async def wait(request: Request) -> None:
    await asyncio.sleep(0.05)
    await request.send("/topic/greetings", "after a while")


@app.subscription("/quotes/{stock}")
async def quotes(request: Request) -> Quote:
    await asyncio.sleep(0)
    return Quote(request.variables["stock"], 12.5)


@app.subscription("/text")
def text(request: Request) -> str:
    return f"for {request.principal.name}"


@app.subscription("/nothing")
def nothing(request: Request) -> None:
    return None


@app.subscription("/fail/{how}")
async def no_answer(request: Request) -> object:
    if request.variables["how"] != "json":
        fail(request)
    return object()
