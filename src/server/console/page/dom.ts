// The few things the page does with the DOM that the DOM does not do in one line.

/** The one element that matches. Throws when the markup and the code disagree, so that this shows at the first look. */
export function find<T extends Element>(root: ParentNode, selector: string, type: new () => T): T {
  const found = root.querySelector(selector)
  if (!(found instanceof type)) throw new TypeError(`the page has no ${type.name} at ${selector}`)
  return found
}

/** A copy of the only element in a template of the page. */
export function fromTemplate(id: string): HTMLElement {
  const template = find(document, `template#${id}`, HTMLTemplateElement)
  const copy = document.importNode(template.content, true).firstElementChild
  if (!(copy instanceof HTMLElement)) throw new TypeError(`template ${id} holds no element`)
  return copy
}

/** Sets the text when it changed: writing it again would end a selection, and repeat what screen readers announce. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text
}
