# One image for web, learner and training: compose.yaml says which is which. No secret is in it, and it runs as nobody in
# particular (user 10001). Everything that is written goes to /data.
FROM python:3.11-slim-bookworm

RUN useradd --uid 10001 --create-home foresight && install -d -o foresight -g foresight /data
WORKDIR /app

# torch first and alone, as script/setup does. TORCH_INDEX chooses a build: PyTorch's CPU index makes the image 2 GB smaller.
# Beside the usual index, since what torch needs is there in other versions than those tried; a build like 2.13.0+cpu goes
# before 2.13.0.
ARG TORCH_INDEX=
COPY requirements.txt requirements-s3.txt constraints.txt ./
RUN pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -c constraints.txt \
        "$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' requirements.txt)" \
    && pip install --no-cache-dir -r requirements.txt -r requirements-s3.txt

COPY manage.py ./
COPY alcore alcore
COPY annotator annotator
COPY config config
COPY static static
COPY templates templates

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 DJANGO_SETTINGS_MODULE=config.settings \
    FORESIGHT_DATA=/data FORESIGHT_BIND=0.0.0.0:8000 FORESIGHT_LOG_FORMAT=json TORCH_HOME=/data/torch
USER 10001
VOLUME /data
EXPOSE 8000
CMD ["python", "-m", "gunicorn", "--config", "python:config.gunicorn"]
