// Types whose reference takes a task with every call: here an adapter serves one, named by `task_id` in its config, the one key its
// writer did not store.

import { show } from './config-fields.ts'
import type { PeftContext } from './peft-context.ts'

export function readTaskId({ config, refuse }: PeftContext, numTasks: number): number {
  const taskId = config.value('task_id') ?? (numTasks === 1 ? 0 : null)
  const range = `0 to ${numTasks - 1}`
  if (taskId === null)
    throw refuse('task_id', `missing; the file holds ${numTasks} tasks, so add the one to serve (${range}) to the config`)
  if (typeof taskId !== 'number' || !Number.isInteger(taskId) || taskId < 0 || taskId >= numTasks)
    throw refuse('task_id', `${show(taskId)} is not one of the file's tasks (${range})`)
  return taskId
}
