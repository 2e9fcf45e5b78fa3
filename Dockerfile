# syntax=docker/dockerfile:1
# One static binary: the command line, the workers and the local servers. Used by docker-compose.yml.
FROM golang:1.26.8-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ENV CGO_ENABLED=0 GOCACHE=/build-cache
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/build-cache \
    go build -ldflags='-s -w' -o /out/character ./cmd/character
RUN mkdir /out/models

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/character /character
# Owned by the user that runs, so that a volume mounted here is writable for it.
COPY --from=build --chown=65532:65532 /out/models /models
ENV CHARACTER_MODELS=/models
EXPOSE 9464
# The image has no other program that could ask.
HEALTHCHECK --interval=15s --timeout=15s --start-period=2m --retries=4 CMD ["/character", "ready"]
ENTRYPOINT ["/character"]
CMD ["worker", "--metrics-address", "127.0.0.1:9464"]
