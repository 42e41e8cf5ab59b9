// Entry for a checkout: `node --import tsx bench/main.ts bench|trace ...`. The built program comes in through src/main.ts.
import { runHarness } from './harness.ts'

const [command, ...args] = process.argv.slice(2)
const status = await runHarness(
  command === 'trace' ? 'trace' : 'bench',
  command === 'bench' || command === 'trace' ? args : process.argv.slice(2),
)
process.exit(status)
