"""The HTTP API: what is asked is checked here and answered by the pool."""

# FastAPI evaluates annotations, and some name classes that are imported in a function: no `annotations` from the future

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import terrazzo
from terrazzo.errors import UserError, nearest
from terrazzo.serving.answers import ANSWERS, accepted
from terrazzo.serving.gate import Gate, Refused
from terrazzo.serving.label_studio import Images, Interface, tasks_of
from terrazzo.serving.messages import Answer, Options, Question
from terrazzo.serving.metrics import Metrics
from terrazzo.serving.page import HEADERS, Kept, check_keeping, module, page
from terrazzo.serving.pool import Busy, Pool
from terrazzo.serving.uploads import TooLarge, UnknownKind, named, size_of
from terrazzo.system.extras import import_extra

ABOUT = """Segments images. The answer's form follows the Accept header:

""" + "\n".join(f"- `{name}`: {about}" for name, about in ANSWERS.items())
BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"file": {"type": "string", "format": "binary"}},
                "required": ["file"],
            }
        },
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}
ANY_JSON = {"content": {"application/json": {"schema": {"type": "object"}}}}
STATUSES = {
    400: "a malformed request",
    401: "no or a wrong token",
    404: "no such model or class",
    406: "none of the media types above is accepted",
    413: "too many bytes or pixels",
    415: "the body is no image",
    422: "the image cannot be segmented",
    503: "the queue is full or the models are not loaded: try again after Retry-After",
    504: "the time limit was over",
}


@dataclass(frozen=True)
class Site:
    """The parts of a server beside its models."""

    images: Images  # of Label Studio's tasks
    token: str | None = None  # that clients must send
    kept: Kept | None = None  # where the page keeps corrected labels


def make_app(pool: Pool, metrics: Metrics, site: Site, is_closing: Callable[[], bool]) -> Any:
    """The ASGI application over a pool."""
    import_extra("fastapi", "serve", "servers")
    from fastapi import FastAPI, Query, Request, Response, exceptions, responses

    app = FastAPI(title="terrazzo", version=terrazzo.__version__, redoc_url=None)

    def refuse(status: int, message: str, headers: dict[str, str] | None = None) -> Any:
        return responses.JSONResponse({"detail": message}, status, headers)

    @app.exception_handler(Refused)
    async def refused(request: Any, problem: Refused) -> Any:
        return refuse(problem.status, problem.message, problem.headers)

    @app.exception_handler(exceptions.RequestValidationError)
    async def invalid(request: Any, problem: Any) -> Any:
        parts = (f"{'.'.join(map(str, error['loc'][1:]))}: {error['msg']}" for error in problem.errors())
        return refuse(422, "; ".join(parts))

    @app.get("/health", tags=["operation"])
    async def health() -> dict[str, Any]:
        """Tell that the server runs."""
        return {"status": "UP", "version": terrazzo.__version__}

    @app.get("/ready", tags=["operation"])
    async def ready() -> Any:
        """Tell whether the models are loaded and requests are taken."""
        if not pool.is_ready or is_closing():
            return refuse(503, "the server is stopping" if is_closing() else "the models are not loaded yet")
        return {"ready": True}

    @app.get("/models", tags=["models"])
    async def models() -> dict[str, Any]:
        """List the models; the first one answers where a request names none."""
        listed = [{"name": name, **with_classes(facts)} for name, facts in pool.models.items()]
        return {"models": listed, "keeps": site.kept is not None}

    @app.get("/metrics", tags=["operation"], response_class=responses.PlainTextResponse)
    async def read_metrics() -> Any:
        """The metrics, as Prometheus reads them."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    openapi: dict[str, Any] = {
        "requestBody": BODY,
        "responses": {str(code): {"description": text} for code, text in STATUSES.items()},
    }
    openapi["responses"]["200"] = {
        "description": "the prediction",
        "content": {name: {"schema": {"type": "string", "format": "binary"}} for name in ANSWERS} | {
            "application/json": {"schema": {"type": "object"}}
        },
    }  # fmt: skip

    @app.post("/predict", tags=["models"], description=ABOUT, openapi_extra=openapi)
    async def predict(
        request: Request,
        model: Annotated[str | None, Query(description="its name; the first one by default")] = None,
        confidence: Annotated[
            float, Query(ge=0, le=1, description="pixels below it have no class", allow_inf_nan=False)
        ] = 0.0,
        classes: Annotated[str | None, Query(description="names with commas between: the only ones to keep")] = None,
        masks: Annotated[str, Query(pattern="^(rle|polygons|)$", description="masks in JSON")] = "",
        opacity: Annotated[float, Query(ge=0, le=1, description="of the colours", allow_inf_nan=False)] = 0.5,
    ) -> Any:
        chosen = model_of(pool, model)
        wanted = classes_of(pool.models[chosen]["classes"], classes)
        if kind_of(request) == "application/json":
            return await pre_annotations(request, chosen)
        answer = accepted(request.headers.get("accept"))
        if answer is None:
            raise Refused(406, f"this server gives {', '.join(ANSWERS)}, not {request.headers['accept']}")
        options = Options(answer, confidence, wanted, masks, opacity)
        return responded(await segment(request, chosen, options))

    @app.get("/", include_in_schema=False)
    async def show_page() -> Any:
        return responses.HTMLResponse(page(), headers=HEADERS)

    @app.get("/page/{name}", include_in_schema=False)
    async def show_module(name: str) -> Any:
        return Response(module(name), media_type="text/javascript", headers=HEADERS)

    @app.post("/keep", include_in_schema=site.kept is not None, tags=["page"])
    async def keep(request: Request, model: str | None = None) -> dict[str, str]:
        """Keep an image (field `image`) and its class map (field `labels`, a grey PNG) for training."""
        if site.kept is None:
            raise Refused(404, "this server keeps no images: start it with --keep FOLDER")
        check_keeping(request, site.token is not None)
        classes = pool.models[model_of(pool, model)]["classes"]
        with entered(pool, content_length(request, pool.limits.most_bytes), is_closing()):
            async with request.form(max_files=2, max_fields=4) as form:
                image: Any = form.get("image")
                labels: Any = form.get("labels")
                if not hasattr(image, "filename") or not hasattr(labels, "filename"):
                    raise Refused(400, "the form has no files `image` and `labels`")
                data, name = await image.read(), named(image.filename)
                size, mask = checked(data, name), await labels.read()
            return {"image": await asyncio.to_thread(site.kept.keep, data, name, size, mask, classes)}

    @app.post("/setup", tags=["Label Studio"], openapi_extra={"requestBody": ANY_JSON})
    async def setup(request: Request, model: str | None = None) -> dict[str, str]:
        """Tell Label Studio the version of the model, and check that its labelling interface can be filled."""
        content = await read_json(request, pool.limits.seconds)
        chosen = model_of(pool, model)
        if schema := content.get("schema"):
            Interface.read(schema).classes(pool.models[chosen]["classes"])
        return {"model_version": chosen}

    async def pre_annotations(request: Any, model: str) -> dict[str, Any]:
        """The predictions of Label Studio's tasks. Raises Refused where none has one."""
        with entered(pool, content_length(request, pool.limits.most_bytes), is_closing()):
            content = await read_json(request, pool.limits.seconds)
            tasks, interface = tasks_of(content), Interface.read(content.get("label_config"))
            options = Options(classes=interface.classes(pool.models[model]["classes"]), masks=interface.kind)
            results, problem = [], None
            for task in tasks:
                try:
                    data, name = await asyncio.to_thread(site.images.read, task["data"].get(interface.key))
                    question = Question(model, data, name, checked(data, name), options)
                    answer = await asked(request, question, asyncio.get_running_loop().time())
                    if answer.status != 200:
                        raise Refused(answer.status, answer.body.decode())
                    results.append(interface.result(json.loads(answer.body), model))
                except Refused as refusal:  # noqa: PERF203 - the other tasks go on
                    pool.say(f"task {task.get('id')} of Label Studio: {refusal.message}")
                    problem = refusal
                    results.append({"result": [], "score": 0.0, "model_version": model})
            if problem is not None and not any(one["result"] for one in results):
                raise problem
        return {"results": results}

    async def segment(request: Any, model: str, options: Options) -> Answer:
        """The answer for the image in a request's body. Raises Refused."""
        length = content_length(request, pool.limits.most_bytes)
        started = asyncio.get_running_loop().time()
        with entered(pool, length, is_closing()):
            data, name = await received(request, pool.limits.seconds)
            return await asked(request, Question(model, data, name, checked(data, name), options), started)

    async def asked(request: Any, question: Question, started: float) -> Answer:
        """The pool's answer; the question is withdrawn when the client goes."""
        left = pool.limits.seconds - (asyncio.get_running_loop().time() - started)
        asking = asyncio.ensure_future(pool.ask(question, max(0.0, left)))
        gone = asyncio.ensure_future(until_gone(request))
        try:
            await asyncio.wait({asking, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise Refused(499, "the client has gone")
            return asking.result()
        finally:
            asking.cancel()
            gone.cancel()

    def checked(data: bytes, name: str) -> tuple[int, int]:
        try:
            return size_of(data, name, pool.limits)
        except UserError as problem:
            kinds = {TooLarge: 413, UnknownKind: 415}
            raise Refused(kinds.get(type(problem), 422), str(problem)) from None

    def responded(answer: Answer) -> Any:
        if answer.status != 200:
            return refuse(answer.status, answer.body.decode())
        unlike = ", ".join(f"{name}={value:g}" for name, value in answer.facts["unlike"].items())
        return Response(answer.body, media_type=answer.media_type, headers={"X-Unlike": unlike} if unlike else None)

    app.add_middleware(Gate, most=pool.limits.most_bytes, metrics=metrics, token=site.token)
    return app


class entered:
    """A request that counts as one of the queue's."""

    def __init__(self, pool: Pool, size: int, is_closing: bool) -> None:
        self.pool, self.size, self.is_closing = pool, size, is_closing

    def __enter__(self) -> None:
        if self.is_closing:
            raise Refused(503, "the server is stopping", Retry_After="5")
        try:
            self.pool.enter(self.size)
        except Busy as problem:
            raise Refused(503, "the queue is full: try again later", Retry_After=str(problem.seconds)) from None

    def __exit__(self, *_: object) -> None:
        self.pool.leave(self.size)


def with_classes(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts about a model with its classes as a list of labels, names and colours."""
    rows = enumerate(zip(facts["classes"], facts["palette"], strict=True))
    classes = [
        {"label": label, "name": name, "colour": "#{:02x}{:02x}{:02x}".format(*colour)}
        for label, (name, colour) in rows
    ]
    return {key: value for key, value in facts.items() if key != "palette"} | {"classes": classes}


def model_of(pool: Pool, name: str | None) -> str:
    """The name of a model. Raises Refused for an unknown one."""
    if name is None:
        return next(iter(pool.models))
    if name not in pool.models:
        raise Refused(404, f"there is no model '{name}'{nearest(name, pool.models)}: GET /models lists them")
    return name


def classes_of(known: list[str], text: str | None) -> tuple[str, ...]:
    """The classes in a list with commas between. Raises Refused for an unknown one."""
    wanted = tuple(part.strip() for part in (text or "").split(",") if part.strip())
    if text in known:  # a name with a comma
        return (text,) if text else ()
    for name in wanted:
        if name not in known:
            raise Refused(404, f"'{name}' is not a class of the model{nearest(name, known)}")
    return wanted


def content_length(request: Any, most: int) -> int:
    """The bytes that a request announces, the most where it announces none. Raises Refused for too many."""
    text = request.headers.get("content-length", "")
    if text.isdecimal() and int(text) > most:
        raise Refused(413, f"the request has {text} bytes, more than the {most} of this server's limit")
    return int(text) if text.isdecimal() else most


async def received(request: Any, seconds: float) -> tuple[bytes, str]:
    """The image in a request's body and its name: raw bytes, or the field `file` of a form. Raises Refused."""
    try:
        if kind_of(request) != "multipart/form-data":
            data = await asyncio.wait_for(request.body(), seconds)
            if not data:
                raise Refused(400, "the request has no body: send an image, raw or as the field `file` of a form")
            return data, named(request.query_params.get("name"))
        form = await asyncio.wait_for(request.form(max_files=1, max_fields=16), seconds)
        try:
            file: Any = form.get("file") or next((part for part in form.values() if hasattr(part, "filename")), None)
            if not hasattr(file, "filename"):
                raise Refused(400, "the form has no file: send the image as its field `file`")
            return await file.read(), named(file.filename)
        finally:
            await form.close()
    except asyncio.TimeoutError:
        raise Refused(408, f"the request did not arrive within {seconds:g} s") from None


def kind_of(request: Any) -> str:
    """The media type of a request's body."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_json(request: Any, seconds: float) -> dict[str, Any]:
    """The object in a request's body. Raises Refused for anything else."""
    try:
        content = json.loads(await asyncio.wait_for(request.body(), seconds))
    except (ValueError, RecursionError):
        raise Refused(400, "the request is not JSON") from None
    except asyncio.TimeoutError:
        raise Refused(408, f"the request did not arrive within {seconds:g} s") from None
    if not isinstance(content, dict):
        raise Refused(422, "the request is not an object of JSON")
    return content


async def until_gone(request: Any) -> None:
    """Wait until the client of a request that was read has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
