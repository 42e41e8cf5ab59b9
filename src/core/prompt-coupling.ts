/**
 * What a prompt's keys and values depend on beside the tokens up to each position. `length`: on how long the prompt is, so only prompts
 * of one length share blocks. `whole`: on every prompt token, so the prompt is computed in one step and shares nothing.
 */
export type PromptCoupling = 'none' | 'length' | 'whole'
