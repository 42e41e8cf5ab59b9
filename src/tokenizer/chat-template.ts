// Chat messages to prompt text with the model's own Jinja template.

import { Template } from '@huggingface/jinja'
import { LorikeetError } from '../errors.ts'

export interface ChatMessage {
  readonly role: string
  /** Text; or parts, which are flattened unless the template walks them itself. */
  readonly content: string | readonly ChatTextPart[]
  /** The other members a client sent (name, tool_calls, tool_call_id), for the template. */
  readonly extra: Readonly<Record<string, unknown>>
}

export interface ChatTextPart {
  readonly type: 'text'
  readonly text: string
}

export interface ChatRenderOptions {
  readonly addGenerationPrompt: boolean
  /** Ends the prompt inside the last message, so that the model goes on with it. */
  readonly continueFinalMessage: boolean
  readonly documents: readonly unknown[] | null
  /** Further template variables (`chat_template_kwargs`). */
  readonly variables: Readonly<Record<string, unknown>>
}

export interface SpecialTokenTexts {
  readonly bosToken: string | null
  readonly eosToken: string | null
}

export class ChatTemplate {
  readonly #template: Template
  readonly #specials: SpecialTokenTexts
  readonly #takesParts: boolean

  /** Parses `source`; throws the parser's own error. */
  constructor(source: string, specials: SpecialTokenTexts) {
    this.#template = new Template(source)
    this.#specials = specials
    this.#takesParts = walksContentParts(source)
  }

  /** The prompt text. Throws FIELD_INVALID on `messages` with the template's own words when it refuses them. */
  render(messages: readonly ChatMessage[], options: ChatRenderOptions): string {
    const rendered = this.#render({
      ...options.variables,
      messages: messages.map((message) => this.#templateMessage(message)),
      add_generation_prompt: options.addGenerationPrompt,
      bos_token: this.#specials.bosToken ?? '',
      eos_token: this.#specials.eosToken ?? '',
      tools: null,
      documents: options.documents,
    })
    return options.continueFinalMessage ? cutAfterFinalMessage(rendered, messages) : rendered
  }

  #render(variables: Record<string, unknown>): string {
    try {
      return this.#template.render(variables)
    } catch (error) {
      const detail = error instanceof Error ? error.message : String(error)
      throw new LorikeetError(
        'FIELD_INVALID',
        { field: 'messages', reason: `the chat template refuses them: ${detail}` },
        { cause: error },
      )
    }
  }

  #templateMessage(message: ChatMessage): Record<string, unknown> {
    const content = this.#takesParts && typeof message.content !== 'string' ? message.content : flattenContent(message.content)
    return { ...message.extra, role: message.role, content }
  }
}

/** Text parts joined by line feeds, as vLLM joins them. */
export function flattenContent(content: string | readonly ChatTextPart[]): string {
  return typeof content === 'string' ? content : content.map((part) => part.text).join('\n')
}

/** A template that loops over the content and never asks whether it is a string can only take a list. */
function walksContentParts(source: string): boolean {
  const loops = /\bin\s+\w+(?:\.content|\[\s*['"]content['"]\s*\])/.test(source)
  return loops && !/\bis\s+(?:not\s+)?string\b/.test(source)
}

/** Cuts what the template wrote after the last message; trailing blanks of the message stay if the template kept them. */
function cutAfterFinalMessage(rendered: string, messages: readonly ChatMessage[]): string {
  const last = messages.at(-1)
  const content = last === undefined ? '' : flattenContent(last.content)
  const trimmed = content.trim()
  const index = rendered.lastIndexOf(trimmed)
  if (index < 0) {
    const reason = 'the chat template changes the final message, so the model cannot continue it'
    throw new LorikeetError('FIELD_INVALID', { field: 'continue_final_message', reason })
  }
  const kept = content.trimStart()
  return rendered.slice(0, index + (rendered.startsWith(kept, index) ? kept.length : trimmed.length))
}
