// Runs src/loader-thread.ts as a worker without a build: a worker takes no TypeScript by itself.
import { register } from 'tsx/esm/api'

register()
await import('../../src/loader-thread.ts')
