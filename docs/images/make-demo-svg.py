"""Draws the demo's output as a terminal window: tenantry demo 2>&1 | python3 make-demo-svg.py > demo.svg

Reads text from standard input and writes an SVG to standard output. Needs only Python 3. `--sections 1,2,5` keeps these
sections (a section begins with a line that is not indented); `--columns N` cuts longer lines (default 100).
"""

import argparse
import re
import sys
from html import escape

FONT, LINE, WIDTH = 13, 19, 7.83  # Pixels: font size, line height, width of a character.
PADDING, BAR = 18, 34
COLORS = {
    "window": "#0d1117", "bar": "#161b22", "border": "#30363d", "text": "#c9d1d9", "dim": "#8b949e",
    "heading": "#79c0ff", "label": "#d2a8ff", "good": "#7ee787", "bad": "#ff7b72",
}
GOOD = re.compile(r"\b(active|approved|OK|genuine|passed|not found|verified)\b|\d+ of \d+")
BAD = re.compile(r"kill -9|\b(403|404|refused|rejected|erased)\b")


def sections(lines):
    """Splits the output before each line that is not indented."""
    parts = []
    for line in lines:
        if line and not line.startswith(" "):
            parts.append([])
        if parts:
            parts[-1].append(line)
    return [strip(part) for part in parts]


def strip(part):
    """The lines without the empty ones at the end."""
    while part and not part[-1].strip():
        part = part[:-1]
    return part


def spans(line):
    """Pieces of a line with their colours."""
    if not line.startswith(" "):
        return [(line, "heading")]
    label = re.match(r"(  \S.*?)(  +\S.*)$", line)
    pieces, rest = ([(label[1], "label")], label[2]) if label else ([], line)
    at = 0
    marks = [(m, "good") for m in GOOD.finditer(rest)] + [(m, "bad") for m in BAD.finditer(rest)]
    for mark, color in sorted(marks, key=lambda it: it[0].start()):
        if mark.start() < at:
            continue
        pieces += [(rest[at:mark.start()], "text"), (mark[0], color)]
        at = mark.end()
    return [piece for piece in pieces + [(rest[at:], "text")] if piece[0]]


def draw(lines, columns, command):
    """The SVG document."""
    lines = [line if len(line) <= columns else line[: columns - 1] + "…" for line in lines]
    width = round(2 * PADDING + WIDTH * max(len(line) for line in lines))
    height = BAR + PADDING + LINE * (len(lines) + 2) + PADDING // 2
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, \'DejaVu Sans Mono\', monospace" '
        f'font-size="{FONT}">',
        f"<title>Output of {escape(command)}</title>",
        f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="10" fill="{COLORS["window"]}" '
        f'stroke="{COLORS["border"]}"/>',
        f'<path d="M1 {BAR}V10a9 9 0 0 1 9-9H{width - 10}a9 9 0 0 1 9 9V{BAR}z" fill="{COLORS["bar"]}"/>',
    ]
    for x, color in zip((20, 40, 60), ("#ff5f57", "#febc2e", "#28c840")):
        out.append(f'<circle cx="{x}" cy="{BAR // 2}" r="6" fill="{color}"/>')
    rows = [[("$ ", "dim"), (command, "text")], []] + [spans(line) if line.strip() else [] for line in lines]
    for row, pieces in enumerate(rows):
        if not pieces:
            continue
        text = "".join(f'<tspan fill="{COLORS[color]}">{escape(piece)}</tspan>' for piece, color in pieces)
        bold = ' font-weight="bold"' if pieces[0][1] == "heading" else ""
        out.append(f'<text x="{PADDING}" y="{BAR + PADDING + LINE * row + FONT}" xml:space="preserve"{bold}>{text}</text>')
    return "\n".join(out + ["</svg>", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sections", default="", help="numbers of the sections to keep, such as 1,2,5")
    parser.add_argument("--columns", type=int, default=100, help="longest line")
    parser.add_argument("--command", default="cargo run --release -- demo", help="the command that is shown")
    options = parser.parse_args()
    sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    parts = sections(re.sub(r"\x1b\[[0-9;]*m", "", line.rstrip()) for line in sys.stdin)
    if options.sections:
        keep = {int(number) for number in options.sections.split(",")}
        parts = [part for number, part in enumerate(parts, 1) if number in keep]
    if not parts:
        sys.exit("there is no output to draw: pipe the demo's standard error in too (2>&1)")
    lines = [line for part in parts for line in part + [""]][:-1]
    sys.stdout.write(draw(lines, options.columns, options.command))


if __name__ == "__main__":
    main()
