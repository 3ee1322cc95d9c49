"""The HTTP API, as routes of FastAPI."""

# FastAPI evaluates annotations, and some name classes that are imported in a function: no `annotations` from the future

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import terrazzo
from terrazzo.serving.answers import ANSWERS, accepted
from terrazzo.serving.asking import Asking, chosen_classes, kind_of, read_json
from terrazzo.serving.gate import DOCS_FILES, Gate, Refused
from terrazzo.serving.label_studio import Images, Interface, tasks_of
from terrazzo.serving.messages import Options
from terrazzo.serving.metrics import Metrics
from terrazzo.serving.page import HEADERS, Kept, check_keeping, module, page
from terrazzo.serving.pool import Pool
from terrazzo.serving.uploads import named
from terrazzo.system.extras import import_extra

ABOUT = "Segments an image, or tasks of Label Studio. The answer's form follows the Accept header:\n\n" + "\n".join(
    f"- `{name}`: {about}" for name, about in ANSWERS.items()
)
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
BINARY = {"schema": {"type": "string", "format": "binary"}}
FORM = {"type": "object", "properties": {"file": BINARY["schema"]}, "required": ["file"]}
ANY_JSON = {"application/json": {"schema": {"type": "object"}}}
PREDICT: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": {"schema": FORM}, "application/octet-stream": BINARY, **ANY_JSON},
    },
    "responses": {
        "200": {"description": "the prediction", "content": {**dict.fromkeys(ANSWERS, BINARY), **ANY_JSON}},
        **{str(code): {"description": text} for code, text in STATUSES.items()},
    },
}


@dataclass(frozen=True)
class Site:
    """The parts of a server beside its models."""

    images: Images  # of Label Studio's tasks
    token: str | None = None  # that clients must send
    kept: Kept | None = None  # where the page keeps corrected labels


def make_app(pool: Pool, metrics: Metrics, site: Site, is_closing: Callable[[], bool]) -> Any:
    """The ASGI application over a pool."""
    offline = import_extra("fastapi_offline", "serve", "servers")
    from fastapi import Depends, exceptions, responses, security

    # Swagger UI's files come from a package, and no server elsewhere is asked to check the API
    app = offline.FastAPIOffline(
        title="terrazzo",
        version=terrazzo.__version__,
        redoc_url=None,
        static_url=DOCS_FILES,
        swagger_ui_parameters={"validatorUrl": "none"},
        dependencies=[Depends(security.HTTPBearer(auto_error=False))] if site.token else [],  # a field for the token
    )

    @app.exception_handler(Refused)
    async def refused(request: Any, problem: Refused) -> Any:
        return responses.JSONResponse({"detail": problem.message}, problem.status, problem.headers)

    @app.exception_handler(exceptions.RequestValidationError)
    async def invalid(request: Any, problem: Any) -> Any:
        parts = (f"{'.'.join(map(str, error['loc'][1:]))}: {error['msg']}" for error in problem.errors())
        return responses.JSONResponse({"detail": "; ".join(parts)}, 422)

    asking = Asking(pool, is_closing)
    add_operation(app, pool, metrics, is_closing)
    add_models(app, asking, site)
    add_label_studio(app, asking)
    add_page(app, asking, site)
    app.add_middleware(Gate, most=pool.limits.most_bytes, metrics=metrics, token=site.token)
    return app


def add_operation(app: Any, pool: Pool, metrics: Metrics, is_closing: Callable[[], bool]) -> None:
    """The routes of those who run a server."""
    from fastapi import Response, responses

    @app.get("/health", tags=["operation"])
    async def health() -> dict[str, str]:
        """Tell that the server runs."""
        return {"status": "UP", "version": terrazzo.__version__}

    @app.get("/ready", tags=["operation"])
    async def ready() -> dict[str, bool]:
        """Tell whether the models are loaded and requests are taken."""
        if not pool.is_ready or is_closing():
            raise Refused(503, "the server is stopping" if is_closing() else "the models are not loaded yet")
        return {"ready": True}

    @app.get("/metrics", tags=["operation"], response_class=responses.PlainTextResponse)
    async def read_metrics() -> Any:
        """The metrics, as Prometheus reads them."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def add_models(app: Any, asking: Asking, site: Site) -> None:
    """The routes that list models and ask them."""
    from fastapi import Query, Request, Response

    @app.get("/models", tags=["models"])
    async def models() -> dict[str, Any]:
        """List the models; the first one answers where a request names none."""
        listed = [{"name": name, **with_classes(facts)} for name, facts in asking.pool.models.items()]
        return {"models": listed, "keeps": site.kept is not None}

    share = {"ge": 0, "le": 1, "allow_inf_nan": False}

    @app.post("/predict", tags=["models"], description=ABOUT, openapi_extra=PREDICT)
    async def predict(
        request: Request,
        model: Annotated[str | None, Query(description="its name; the first one by default")] = None,
        confidence: Annotated[float, Query(description="pixels below it have no class", **share)] = 0.0,
        classes: Annotated[str | None, Query(description="names with commas between: the only ones to keep")] = None,
        masks: Annotated[str, Query(pattern="^(rle|polygons|)$", description="masks in JSON")] = "",
        opacity: Annotated[float, Query(description="of the colours", **share)] = 0.5,
    ) -> Any:
        chosen = asking.model(model)
        if kind_of(request) == "application/json":
            return await pre_annotations(request, asking, site, chosen)
        wanted = chosen_classes(asking.classes(chosen), classes)
        answer = accepted(request.headers.get("accept"))
        if answer is None:
            raise Refused(406, f"this server gives {', '.join(ANSWERS)}, not {request.headers['accept']}")
        found = await asking.segment(request, chosen, Options(answer, confidence, wanted, masks, opacity))
        unlike = ", ".join(f"{name}={value:g}" for name, value in found.facts["unlike"].items())
        return Response(found.body, media_type=found.media_type, headers={"X-Unlike": unlike} if unlike else None)


def add_label_studio(app: Any, asking: Asking) -> None:
    """The route by which Label Studio connects; it asks `/predict` too."""
    from fastapi import Request

    @app.post("/setup", tags=["Label Studio"], openapi_extra={"requestBody": {"content": ANY_JSON}})
    async def setup(request: Request, model: str | None = None) -> dict[str, str]:
        """Tell Label Studio the version of the model, and check that its labelling interface can be filled."""
        content = await read_json(request, asking.limits.seconds)
        chosen = asking.model(model)
        if schema := content.get("schema"):
            Interface.read(schema).classes(asking.classes(chosen))
        return {"model_version": chosen}


async def pre_annotations(request: Any, asking: Asking, site: Site, model: str) -> dict[str, Any]:
    """The predictions of Label Studio's tasks. Raises Refused where none has one."""
    with asking.entered(request):
        content = await read_json(request, asking.limits.seconds)
        tasks, interface = tasks_of(content), Interface.read(content.get("label_config"))
        options = Options(classes=interface.classes(asking.classes(model)), masks=interface.kind)
        results, problem = [], None
        for task in tasks:
            try:
                data, name = await asyncio.to_thread(site.images.read, task["data"].get(interface.key))
                answer = await asking.ask(request, model, data, name, options, asking.limits.seconds)
                results.append(interface.result(json.loads(answer.body), model))
            except Refused as refusal:  # noqa: PERF203 - the other tasks go on
                asking.pool.say(f"task {task.get('id')} of Label Studio: {refusal.message}")
                problem = refusal
                results.append({"result": [], "score": 0.0, "model_version": model})
        if problem is not None and not any(one["result"] for one in results):
            raise problem
    return {"results": results}


def add_page(app: Any, asking: Asking, site: Site) -> None:
    """The routes of the page."""
    from fastapi import Request, Response, responses

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
        classes = asking.classes(asking.model(model))
        with asking.entered(request):
            async with request.form(max_files=2, max_fields=4) as form:
                image: Any = form.get("image")
                labels: Any = form.get("labels")
                if not hasattr(image, "filename") or not hasattr(labels, "filename"):
                    raise Refused(400, "the form has no files `image` and `labels`")
                data, name, mask = await image.read(), named(image.filename), await labels.read()
            size = asking.size(data, name)
            return {"image": await asyncio.to_thread(site.kept.keep, data, name, size, mask, classes)}


def with_classes(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts about a model with its classes as a list of labels, names and colours."""
    rows = enumerate(zip(facts["classes"], facts["palette"], strict=True))
    classes = [
        {"label": label, "name": name, "colour": "#{:02x}{:02x}{:02x}".format(*colour)}
        for label, (name, colour) in rows
    ]
    return {key: value for key, value in facts.items() if key != "palette"} | {"classes": classes}
