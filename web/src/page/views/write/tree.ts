// The tree of a beam search: which nodes are kept, and where each is drawn.

export interface Node {
  node: number;
  parent: number;
  id: number;
  text: string;
  logprob: number;
  score: number;
  step: number;
  end: boolean;
}

export type Fate = "best" | "ended" | "alive" | "dropped";

export interface Placed {
  node: Node;
  fate: Fate;
  /** The column is the step; the row counts leaves from the top, so a parent may stand between two. */
  column: number;
  row: number;
  parent: Placed | null;
  children: Placed[];
}

/** Say what became of each node: on the best path, ended, still in the beam at the last step, or dropped. */
export function fates(nodes: Node[], best: number[]): Map<number, Fate> {
  const of = new Map(nodes.map((node) => [node.node, node]));
  const found = new Map<number, Fate>();
  const mark = (from: Node, fate: Fate): void => {
    for (let at: Node | undefined = from; at && !found.has(at.node); at = of.get(at.parent)) found.set(at.node, fate);
  };
  const chosen = best.length ? of.get(best.at(-1) as number) : undefined;
  for (const number of best) if (of.has(number)) found.set(number, "best");
  if (chosen) mark(chosen, "best");
  for (const node of nodes) if (node.end) mark(node, "ended");
  const last = nodes.reduce((most, node) => Math.max(most, node.step), 0);
  for (const node of nodes) if (node.step === last) mark(node, "alive");
  for (const node of nodes) if (!found.has(node.node)) found.set(node.node, "dropped");
  return found;
}

/** Lay the tree out, without what was dropped where there is too much of it. */
export function lay(nodes: Node[], best: number[], withDropped: boolean): { placed: Placed[]; columns: number; rows: number } {
  const fate = fates(nodes, best);
  const placed = new Map<number, Placed>();
  for (const node of nodes) {
    const own = fate.get(node.node) as Fate;
    if (own === "dropped" && !withDropped) continue;
    placed.set(node.node, { node, fate: own, column: 0, row: 0, parent: null, children: [] });
  }
  const roots: Placed[] = [];
  for (const one of placed.values()) {
    const parent = placed.get(one.node.parent);
    if (parent && parent !== one) {
      one.parent = parent;
      parent.children.push(one);
    } else roots.push(one);
  }
  // Depth first without recursion: a text may be longer than the stack is deep.
  let columns = 0;
  const order: Placed[] = [];
  const rank = (one: Placed): number => (one.fate === "best" ? 0 : 1);
  const sorted = (many: Placed[]): Placed[] => many.sort((a, b) => rank(a) - rank(b) || b.node.score - a.node.score);
  const stack = sorted(roots).toReversed();
  while (stack.length) {
    const one = stack.pop() as Placed;
    one.column = one.parent ? one.parent.column + 1 : 0;
    columns = Math.max(columns, one.column + 1);
    order.push(one);
    stack.push(...sorted(one.children).toReversed());
  }
  // A line of first children keeps one row, so that the best path is one straight line at the top; where a line has
  // ended, another may use the row.
  const taken: number[][] = [];
  for (const one of order) {
    if (one.parent && one.parent.children[0] === one) continue;
    const line = [one];
    while (line[line.length - 1].children.length) line.push(line[line.length - 1].children[0]);
    let row = one.parent ? one.parent.row + 1 : 0;
    const isFree = (at: number): boolean => line.every(({ column }) => !taken[at]?.[column]);
    while (!isFree(row)) row++;
    while (taken.length <= row) taken.push([]);
    for (const node of line) {
      node.row = row;
      taken[row][node.column] = 1;
    }
  }
  return { placed: order, columns, rows: taken.length };
}

/** The text from the root to a node. */
export function textTo(one: Placed): string {
  const parts: string[] = [];
  for (let at: Placed | null = one; at; at = at.parent) parts.push(at.node.text);
  return parts.reverse().join("");
}
