import { constants, getPriority, setPriority } from 'node:os'

/**
 * Runs the client ahead of other processes where the system allows it (root, or a granted limit): on a machine that it shares
 * with the server, a request is otherwise late whenever the server computes. Gives the way back.
 */
export function raisePriority(): () => void {
  const usual = getPriority()
  if (usual <= constants.priority.PRIORITY_ABOVE_NORMAL) return () => undefined
  try {
    setPriority(constants.priority.PRIORITY_ABOVE_NORMAL)
  } catch {
    // Ordinary users may not: the schedule lag in the result tells what it cost.
    return () => undefined
  }
  return () => setPriority(usual)
}
