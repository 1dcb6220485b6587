//! The form of a page: <https://www.sqlite.org/fileformat2.html#b_tree_pages>.

use std::ops::Range;

/// Number of pages from which on the first byte of an overflow page, a part of a page number, can be that of a b-tree page.
pub const TOLD_APART: i64 = 1 << 25;
/// Bytes of the database header, with which the first page begins.
const HEADER: usize = 100;

/// The part of a b-tree page between its cell pointers and its cells, which SQLite never reads. None for other pages.
pub fn unused(number: i64, bytes: &[u8]) -> Option<Range<usize>> {
    let begin = if number == 1 { HEADER } else { 0 };
    let pointers = begin
        + match bytes.get(begin)? {
            2 | 5 => 12,
            10 | 13 => 8,
            _ => return None,
        };
    let two = |at: usize| {
        let pair = bytes.get(begin + at..begin + at + 2)?;
        Some(usize::from(pair[0]) << 8 | usize::from(pair[1]))
    };
    let (cells, content) = (two(3)?, two(5)?);
    // 65536 does not fit into two bytes.
    let content = if content == 0 { 65_536 } else { content };
    let part = pointers + 2 * cells..content;
    (part.start <= part.end && part.end <= bytes.len()).then_some(part)
}
