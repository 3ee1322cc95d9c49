# A server of exported models (ONNX) on the CPU, without torch:
#   docker build -t terrazzo-serve .
#   docker run --rm -p 8000:8000 -v "$PWD/models:/models:ro" terrazzo-serve /models/street.onnx
FROM python:3.11-slim

# What serving ONNX files needs of pyproject.toml's dependencies and extras, in the versions of constraints.txt
COPY constraints.txt /tmp/
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt \
      numpy scipy opencv-python-headless pillow pyyaml safetensors rich pydantic \
      onnxruntime rasterio fastapi fastapi-offline uvicorn python-multipart prometheus-client

COPY pyproject.toml README.md LICENSE /src/
COPY src /src/src
RUN pip install --no-cache-dir --no-deps /src && rm -rf /src

RUN useradd --create-home serve
USER serve
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/ready', timeout=4)"]
STOPSIGNAL SIGTERM
# the token comes from the environment: TERRAZZO_TOKEN
ENTRYPOINT ["terrazzo", "serve", "--host", "0.0.0.0"]
