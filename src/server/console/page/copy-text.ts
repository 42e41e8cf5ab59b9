// Text to the clipboard. Browsers keep it from pages without TLS on other hosts: there the text is shown to be copied by hand.

import { find, setText } from './dom.ts'

export async function copyText(text: string, announcer: HTMLElement): Promise<void> {
  try {
    await navigator.clipboard.writeText(text)
    setText(announcer, 'Copied.')
  } catch {
    const dialog = find(document, '#copy-dialog', HTMLDialogElement)
    const area = find(dialog, 'textarea', HTMLTextAreaElement)
    area.value = text
    dialog.showModal()
    area.select()
  }
}
