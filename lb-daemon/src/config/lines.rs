//! From byte offsets of a text to lines and columns.

use lb_core::config::Position;

/// How many bytes share one count of characters.
const BLOCK: usize = 64;

/// Finds positions in a text in about constant time, however long its lines are.
pub struct Lines<'a> {
    bytes: &'a [u8],
    /// Where each line begins.
    starts: Vec<usize>,
    /// How many characters begin before each block.
    before: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub fn new(text: &'a str) -> Self {
        let bytes = text.as_bytes();
        let breaks = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(index, _)| index + 1);
        let mut before = vec![0];
        let mut count = 0;
        for block in bytes.chunks(BLOCK) {
            count += characters(block);
            before.push(count);
        }
        Self { bytes, starts: std::iter::once(0).chain(breaks).collect(), before }
    }

    /// Where the character is that begins at or contains `offset`; the end of the text if it is beyond.
    pub fn position(&self, offset: usize) -> Position {
        let offset = offset.min(self.bytes.len());
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let column = self.characters_before(offset) - self.characters_before(start) + 1;
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Position { line: number(line), column: number(column) }
    }

    /// The byte offset of a column of bytes, both counting from 1 as serde_json counts them.
    pub fn offset(&self, line: usize, column: usize) -> usize {
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(self.bytes.len());
        start + column.saturating_sub(1)
    }

    fn characters_before(&self, offset: usize) -> usize {
        let block = offset / BLOCK;
        let rest = self.bytes.get(block * BLOCK..offset).unwrap_or_default();
        self.before.get(block).copied().unwrap_or(0) + characters(rest)
    }
}

/// How many characters begin in a piece of UTF-8.
fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters() {
        let text = format!("a\n\u{e9}b\n{}x\n", "\u{20ac}".repeat(100));
        let lines = Lines::new(&text);
        for (offset, line, column) in
            [(0, 1, 1), (1, 1, 2), (2, 2, 1), (4, 2, 2), (6, 3, 1), (306, 3, 101), (308, 4, 1), (9999, 4, 1)]
        {
            assert_eq!(lines.position(offset), Position { line, column }, "{offset}");
        }
        assert_eq!(Lines::new("").position(0), Position { line: 1, column: 1 });
    }
}
