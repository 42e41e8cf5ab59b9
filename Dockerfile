# Two images: `docker build .` for CPUs, `docker build --target cuda .` for NVIDIA GPUs. docs/deploy.md says how to run them.
# RUN lines keep below WORKDIR, so that scripts/dockerfile-dry-run.mjs can run them where there is no container engine.

ARG NODE_IMAGE=node:20.20.2-bookworm-slim
ARG CUDA_BUILD_IMAGE=nvidia/cuda:12.9.1-devel-ubuntu24.04
ARG CUDA_IMAGE=nvidia/cuda:12.9.1-runtime-ubuntu24.04

FROM ${NODE_IMAGE} AS node

# What the server needs when it runs.
FROM node AS modules
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
# onnxruntime ships the libraries of every platform, 250 MB too many; charts of bench reports are 70 MB.
RUN npm ci --omit=dev --no-audit --no-fund \
    && rm -rf node_modules/onnxruntime-node/bin/*/darwin node_modules/onnxruntime-node/bin/*/win32 \
    node_modules/onnxruntime-node/bin/*/linux/$(node -p "process.arch === 'x64' ? 'arm64' : 'x64'") \
    node_modules/echarts node_modules/zrender

FROM node AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --no-audit --no-fund
COPY . ./
RUN npm run build

# nvcc and no GPU. Only the cuda image is built through here.
FROM ${CUDA_BUILD_IMAGE} AS kernels
COPY --from=node /usr/local/bin/node /usr/local/bin/node
WORKDIR /app
COPY scripts/build-kernels.mjs ./scripts/
COPY src/backend/cuda/kernels ./src/backend/cuda/kernels
RUN node scripts/build-kernels.mjs

FROM modules AS app
COPY LICENSE README.md deploy/health-check.mjs ./
COPY demo ./demo
COPY traces ./traces
COPY --from=build /app/dist ./dist

# SOURCE_COMMIT is what lorikeet_build_info says: --build-arg SOURCE_COMMIT=$(git rev-parse HEAD)
# Both images serve the demo model until LORIKEET_MODEL names another, and run as a user that owns nothing in them.
# CUDA's runtime image has cuBLAS; the driver's libcuda comes from the host.
# The user is a number: Kubernetes cannot see of a name that it is not root.
FROM ${CUDA_IMAGE} AS cuda
COPY --from=node /usr/local/bin/node /usr/local/bin/node
WORKDIR /app
COPY --from=app /app ./
COPY --from=kernels /app/dist/backend/cuda/kernels ./dist/backend/cuda/kernels
ARG SOURCE_COMMIT=
ENV NODE_ENV=production \
    SOURCE_COMMIT=${SOURCE_COMMIT} \
    LORIKEET_BACKEND=cuda \
    LORIKEET_MODEL=/app/demo/model \
    LORIKEET_ADAPTER_DIR=/app/demo/adapters \
    LORIKEET_LOG_FORMAT=json
USER 10001:10001
EXPOSE 8000 50051
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=10m --retries=3 CMD ["node", "health-check.mjs"]
ENTRYPOINT ["node", "dist/main.js"]
CMD ["serve"]

FROM node AS cpu
WORKDIR /app
COPY --from=app /app ./
ARG SOURCE_COMMIT=
ENV NODE_ENV=production \
    SOURCE_COMMIT=${SOURCE_COMMIT} \
    LORIKEET_MODEL=/app/demo/model \
    LORIKEET_ADAPTER_DIR=/app/demo/adapters \
    LORIKEET_LOG_FORMAT=json
USER 10001:10001
EXPOSE 8000 50051
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=10m --retries=3 CMD ["node", "health-check.mjs"]
ENTRYPOINT ["node", "dist/main.js"]
CMD ["serve"]
