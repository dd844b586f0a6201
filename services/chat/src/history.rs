//! The last lines, for moderators.

use std::collections::VecDeque;

use crate::envelope::Line;

/// Bound: `capacity` lines. Overflow: the oldest line is dropped, and not counted.
#[derive(Debug)]
pub(crate) struct History {
    lines: VecDeque<Line>,
    capacity: usize,
}

impl History {
    pub(crate) fn new(capacity: u32) -> Self {
        Self { lines: VecDeque::new(), capacity: capacity as usize }
    }

    pub(crate) fn push(&mut self, line: Line) {
        if self.lines.len() >= self.capacity {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// The last `limit` lines, the oldest first.
    pub(crate) fn last(&self, limit: usize) -> impl Iterator<Item = &Line> {
        self.lines.iter().skip(self.lines.len().saturating_sub(limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_keeps_only_the_last_lines() {
        let mut history = History::new(3);
        for number in 1..=5 {
            history.push(Line { at_ms: number, ..Line::default() });
        }
        let times = |limit| history.last(limit).map(|line| line.at_ms).collect::<Vec<_>>();
        assert_eq!(times(9), [3, 4, 5]);
        assert_eq!(times(2), [4, 5]);
        assert_eq!(times(0), [] as [u64; 0]);
    }
}
