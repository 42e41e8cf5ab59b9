// HEALTHCHECK of the images, which hold no curl: status 0 if the server answers /health.

const port = process.env.LORIKEET_PORT || '8000'

const isHealthy = await fetch(`http://127.0.0.1:${port}/health`).then(
  (answer) => answer.ok,
  () => false,
)
process.exit(isHealthy ? 0 : 1)
